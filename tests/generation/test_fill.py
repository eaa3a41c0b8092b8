"""Filling texts: candidates and scores against plain computations, framing, watching, errors."""

import itertools
import math

import pytest
import torch
from tiny_checkpoints import CONFIG, MASK, write_checkpoint
from toy_models import TableModel
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.checkpoints import read_checkpoint
from xlm_mlm.data.tokenizers import ByteTokenizer
from xlm_mlm.generation.fill import Filler
from xlm_mlm.rebuild import Saved, rebuild, save

V = 12
TABLE = 2 * torch.randn(8, V, generator=torch.Generator().manual_seed(3))


def filler(predictor=None, **options):
    """Over a model whose logits at a position are always the same."""
    tokenizer = SimpleSpaceTokenizer.for_numbers(5)
    more = {key: options.pop(key) for key in ("add_bos", "add_eos") if key in options}
    options.setdefault("device", "cpu")
    return Filler(Saved(TableModel(TABLE), tokenizer, {}, predictor or {}, **more), **options)


def naive_p(place):
    """Probabilities at a position, in plain Python; the mask is never a token."""
    scores = [0.0 if t == MASK else math.exp(v) for t, v in enumerate(TABLE[place].tolist())]
    return [score / sum(scores) for score in scores]


def name(token):
    return SimpleSpaceTokenizer.for_numbers(5).convert_ids_to_tokens([token])[0]


def test_one_blank_gives_the_most_probable_tokens():
    found = filler().fill("1 2 [MASK] 3", 4)
    p = naive_p(2)
    best = sorted(range(V), key=lambda t: -p[t])[:4]
    assert [c.text for c in found] == [f"1 2 {name(t)} 3" for t in best]
    for candidate, token in zip(found, best, strict=True):
        assert candidate.score == pytest.approx(math.log(p[token]), abs=1e-5)
        (filled,) = candidate.tokens
        assert (filled.position, filled.token_id, filled.token) == (2, token, name(token))
        assert filled.p == pytest.approx(p[token], rel=1e-5)
        assert filled.step == 1


def test_there_are_no_more_candidates_than_tokens():
    found = filler().fill("[MASK]", 100)
    assert len(found) == V - 1
    assert sum(math.exp(c.score) for c in found) == pytest.approx(1, abs=1e-4)


def test_several_blanks_are_scored_by_the_passes_that_filled_them():
    found = filler({"max_steps": 2, "confidence": "top_prob"}).fill("1 [MASK] [MASK] [MASK]", 5)
    assert len({c.text for c in found}) == 5
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    for candidate in found:
        words = candidate.text.split()
        assert words[0] == "1"
        # The model is blind to what is filled, so the order does not matter.
        chosen = zip((1, 2, 3), candidate.tokens, strict=True)
        p = [naive_p(place)[token.token_id] for place, token in chosen]
        assert candidate.score == pytest.approx(sum(map(math.log, p)), abs=1e-4)
        assert [t.token for t in candidate.tokens] == words[1:]
        assert {t.step for t in candidate.tokens} == {1, 2}


def test_the_greedy_way_is_always_among_them():
    greedy = filler().fill("[MASK] [MASK]")[0]
    best = [max(range(V), key=naive_p(place).__getitem__) for place in range(2)]
    assert greedy.text == " ".join(map(name, best))
    assert filler().fill("[MASK] [MASK]", 6)[0] == greedy


def test_the_best_of_many_candidates_are_the_best_there_are():
    # 121 ways; among 400 draws the three most probable are all but certain to be.
    ways = {
        pair: math.log(naive_p(0)[pair[0]]) + math.log(naive_p(1)[pair[1]])
        for pair in itertools.product([t for t in range(V) if t != MASK], repeat=2)
    }
    best = sorted(ways, key=lambda pair: -ways[pair])[:3]
    found = filler().fill("[MASK] [MASK]", 100)[:3]
    assert [c.text for c in found] == [" ".join(map(name, pair)) for pair in best]


def test_a_model_that_is_sure_of_its_tokens_is_warmed_until_others_are_drawn():
    # At the first temperature another token has a chance of e^-18, in the last round one in two.
    table = torch.zeros(4, V)
    table[:, 9] = 18
    one = Filler(Saved(TableModel(table), SimpleSpaceTokenizer.for_numbers(5), {}), device="cpu")
    found = one.fill("[MASK] [MASK]", 20)
    assert len(found) > 10
    for candidate in found:
        p = [float(table[0].softmax(-1)[t.token_id]) for t in candidate.tokens]
        assert candidate.score == pytest.approx(sum(map(math.log, p)), abs=1e-3)


def test_draws_depend_on_the_seed_alone():
    one = filler()
    first = one.fill("[MASK] [MASK] [MASK]", 8, seed=1)
    assert one.fill("[MASK] [MASK] [MASK]", 8, seed=1) == first
    assert one.fill("[MASK] [MASK] [MASK]", 8, seed=2) != first


def test_options_replace_the_saved_ones():
    saved = {"max_steps": 9, "top_k": 2, "confidence": "entropy", "temperature": 0.5}
    one = filler(saved, options={"top_p": 0.9, "max_steps": None})
    assert one.options == {
        "max_steps": 9,
        "confidence": "entropy",
        "temperature": 0.5,
        "top_p": 0.9,
    }
    # Saved to be greedy, and drawn from all the same.
    assert len(filler({"temperature": 0.0}).fill("[MASK] [MASK]", 4)) == 4
    with pytest.raises(ValueError, match="confidence is 'best'"):
        filler(options={"confidence": "best"})


class Seeing(TableModel):
    """Remembers what it was shown, and takes so many tokens."""

    max_length = 8


def framed(**more):
    model = Seeing(TABLE)
    tokenizer = SimpleSpaceTokenizer.for_numbers(5)
    return Filler(Saved(model, tokenizer, {}, {}, add_bos=True, add_eos=True), **more), model


def test_a_text_is_framed_as_in_training_unless_told():
    one, model = framed(device="cpu")
    (found,) = one.fill("1 [MASK]")
    assert model.inputs[0].tolist() == [[4, 8, MASK, 3]]
    assert found.text.split()[0] == "1"
    assert len(found.text.split()) == 2
    assert found.tokens[0].position == 1
    one, model = framed(device="cpu", frame=False)
    one.fill("1 [MASK]")
    assert model.inputs[0].tolist() == [[8, MASK]]


def test_a_text_that_goes_on_has_no_end():
    one, model = framed(device="cpu")
    (found,) = one.fill("1", max_new_tokens=2)
    assert model.inputs[0].tolist() == [[4, 8, MASK, MASK]]
    assert [t.position for t in found.tokens] == [1, 2]


def test_watching_sees_each_pass():
    views = []
    one, _ = framed(device="cpu", options={"max_steps": 2})
    (found,) = one.fill("1 [MASK] [MASK] [MASK]", watch=views.append)
    assert [view.step for view in views] == [0, 1, 2]
    assert views[0].ids == [8, MASK, MASK, MASK]
    assert views[0].p == [None] * 4
    before = views[0].ids
    for view in views[1:]:
        assert view.new == [n for n in range(4) if view.ids[n] != before[n]]
        before = view.ids
    assert one.text_of(before) == found.text
    assert views[-1].p[1:] == [t.p for t in found.tokens]


def test_bytes():
    torch.manual_seed(0)
    model = RotaryTransformerMLMModel(263, 32, 1, 2, rotary_emb_dim=16, mask_idx=2)
    one = Filler(Saved(model, ByteTokenizer(), {}), device="cpu")
    (found,) = one.fill("a [MASK][MASK] b")
    assert found.text.startswith("a ")
    assert found.text.endswith(" b")
    assert [t.position for t in found.tokens] == [2, 3]


def test_half_a_surrogate_pair_is_refused():
    model = RotaryTransformerMLMModel(263, 32, 1, 2, rotary_emb_dim=16, mask_idx=2)
    one = Filler(Saved(model, ByteTokenizer(), {}), device="cpu")
    with pytest.raises(ValueError, match=r"ud800 \[MASK\].* can.t be tokenised"):
        one.fill("\ud800 [MASK]")


class Renamed(SimpleSpaceTokenizer):
    """Whose mask token has another name."""

    def __init__(self, **kwargs):
        super().__init__(["<m>", "1"])
        self.mask_token = "<m>"


def test_another_name_of_the_mask():
    tokenizer = Renamed()
    assert tokenizer.mask_token_id == 7
    model = TableModel(TABLE)
    one = Filler(Saved(model, tokenizer, {}), device="cpu")
    one.fill("1 [MASK]")
    assert model.inputs[0].tolist() == [[8, 7]]
    one.fill("1 <m>")
    assert model.inputs[1].tolist() == [[8, 7]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("1 2", {}, r"has no blank; put \[MASK\]"),
        ("", {}, "has no blank"),
        ("1 [MASK] nine", {}, "can't be tokenised: Token nine"),
        ("[MASK] " * 9, {}, "has 11 tokens; the model takes 8"),
        ("1 [MASK] " + "2 " * 500 + "nine", {}, r'text "1 \[MASK\] 2 [2 ]*…" can.t be tokenised'),
        ("\x1b[1m" * 3, {}, r"\\u001b\[1m.*can.t be tokenised"),
        ("[MASK]", {"candidates": 0}, "candidates is 0"),
        ("[MASK] [MASK]", {"candidates": 10**8}, "candidates is 100000000; of several .* 1000"),
        ("1", {"max_new_tokens": 10**15}, "has 1000000000000002 tokens; the model takes 8"),
        ("[MASK]", {"max_new_tokens": -1}, "max_new_tokens is -1"),
        ("[MASK]", {"seed": -1}, "seed"),
    ],
)
def test_bad_texts_are_refused(text, options, message):
    one, _ = framed(device="cpu")
    with pytest.raises(ValueError, match=message):
        one.fill(text, **options)


def test_checkpoints_and_folders(tmp_path):
    raw, ema = rebuild(CONFIG).model, rebuild(CONFIG).model
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, raw, ema, hyper_parameters=CONFIG)
    by = {which: Filler.from_checkpoint(path, weights=which) for which in ("raw", "ema", "auto")}
    assert [one.weights for one in by.values()] == ["raw", "ema", "ema"]
    texts = {which: one.fill("[MASK] 1 [MASK]", 4) for which, one in by.items()}
    assert texts["auto"] == texts["ema"] != texts["raw"]
    saved = rebuild(CONFIG)
    read_checkpoint(path).apply(saved.model, "raw")
    save(saved, tmp_path / "saved")
    assert Filler.from_checkpoint(tmp_path / "saved").fill("[MASK] 1 [MASK]", 4) == texts["raw"]
    with pytest.raises(ValueError, match="holds one kind only"):
        Filler.from_checkpoint(tmp_path / "saved", weights="ema")
    write_checkpoint(path, raw)
    with pytest.raises(ValueError, match=r"x\.ckpt: the checkpoint's config has no"):
        Filler.from_checkpoint(path)


def test_suppressed_tokens_are_no_candidates():
    best = max(range(V), key=naive_p(1).__getitem__)
    found = filler(options={"suppress_tokens": [name(best), 0]}).fill("1 [MASK]", candidates=99)
    tokens = [each.tokens[0].token_id for each in found]
    left = [p if t not in (best, 0) else 0.0 for t, p in enumerate(naive_p(1))]
    assert tokens == sorted((t for t in range(V) if left[t]), key=lambda t: -left[t])
    assert [each.tokens[0].p for each in found] == pytest.approx(
        [left[t] / sum(left) for t in tokens]
    )


def test_a_rule_replaces_the_saved_one_of_whichever_kind():
    saved = {"confidence": "top_prob", "threshold": 0.1}
    assert filler(saved, options={"strategy": "klass"}).options["strategy"] == "klass"
    assert "confidence" not in filler(saved, options={"revision": "p2"}).options
    named = {"strategy": {"name": "klass", "tau": 0.5}}
    assert filler(named).options["strategy"] == {"name": "klass", "tau": 0.5}
    assert "strategy" not in filler(named, options={"confidence": "entropy"}).options


def test_tokens_to_suppress_are_added_and_a_revision_ends_blocks():
    saved = {"suppress_tokens": [3], "block_length": 2}
    one = filler(saved, options={"suppress_tokens": ["1"], "revision": "remdm"})
    assert one.options["suppress_tokens"] == [3, "1"]
    assert "block_length" not in one.options


def test_a_revised_text_has_the_scores_of_its_last_tokens():
    views = []
    options = {"revision": {"name": "remdm", "rule": "rescale", "eta": 0.9}, "max_steps": 9}
    (found,) = filler(options=options).fill("[MASK] [MASK] [MASK] [MASK]", watch=views.append)
    # Logits do not depend on the text here, so the greedy token is the same whenever it is made.
    for place, each in enumerate(found.tokens):
        assert each.p == pytest.approx(max(naive_p(place)))
    assert any(after.ids.count(MASK) >= before.ids.count(MASK) for before, after in pairs(views))
    for view in views:
        assert [p is None for p in view.p] == [token == MASK for token in view.ids]


def pairs(views):
    return list(itertools.pairwise(views))
