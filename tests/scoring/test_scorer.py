"""Texts scored by a saved model, against the model asked directly."""

import math

import pytest
import torch
from tiny_checkpoints import CONFIG, MASK, changed, network, write_checkpoint

from xlm_mlm.likelihood_mlm import content_ids, mlm_nll, pseudo_log_likelihood
from xlm_mlm.rebuild import rebuild, save
from xlm_mlm.scoring.scorer import Scorer

BOS, EOS = 4, 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer")
    raw, ema = network(1), network(2)
    sized = changed("model", "max_length", value=22)
    sized["model"] |= {"dim_feedforward": 256, "dropout": 0.0}
    write_checkpoint(folder / "both.ckpt", raw, ema, hyper_parameters=sized)
    sized["datamodule"]["dataset_managers"]["train"]["lm"] = {
        "_target_": "xlm_mlm.data.text.TextDatasetManager",
        "collator": {"for_padded": {"add_bos": False}},
    }
    write_checkpoint(folder / "framed.ckpt", raw, hyper_parameters=sized)
    saved = rebuild(sized)
    saved.model.load_state_dict(raw.state_dict())
    save(saved, folder / "saved")
    return folder


def scores(scorer, *texts):
    return list(scorer.score([scorer.read(text) for text in texts]))


def directly(model, ids, given, passes=32, seed=0):
    """The text's tokens, without the frame."""
    x, free = torch.tensor([ids]), torch.tensor([[not each for each in given]])
    numbers = content_ids(x, free)
    found = mlm_nll(model, x, free, MASK, num_mc_samples=passes, seed=seed, sample_ids=numbers)
    return float(found)


def test_equals_the_model_s_own_likelihood(made):
    scorer = Scorer.from_checkpoint(made / "both.ckpt", weights="raw", device="cpu")
    first, second = scores(scorer, "1 2 3", "4 0 1 2 3 4")
    # BOS was put before each row in training.
    expected = directly(network(1), [BOS, 8, 9, 10], [True, False, False, False])
    assert first["nll"] == pytest.approx(expected, rel=1e-5)
    assert first["num_tokens"] == 3
    assert first["bits_per_token"] == pytest.approx(expected / 3 / math.log(2), rel=1e-5)
    assert first["perplexity"] == pytest.approx(math.exp(expected / 3), rel=1e-5)
    both = scorer.summary([first, second])
    total = first["nll"] + second["nll"]
    assert (both["num_texts"], both["num_tokens"]) == (2, 9)
    assert both["nll"] == pytest.approx(total / 2)
    assert both["perplexity"] == pytest.approx(math.exp(total / 9))
    assert scorer.checkpoint.step == 7


def test_a_text_has_one_score_wherever_it_stands(made):
    path = made / "both.ckpt"
    one = Scorer.from_checkpoint(path, device="cpu", num_mc_samples=4)
    other = Scorer.from_checkpoint(path, device="cpu", num_mc_samples=4, batch_size=9)
    texts = ["1 2 3", "4", "0 1 2 3 4 3 2 1", "2 0 4 1 3"]
    found = [each["nll"] for each in scores(one, *texts)]
    turned = [each["nll"] for each in scores(other, *texts[::-1])]
    assert found == pytest.approx(turned[::-1], rel=1e-5)
    reseeded = Scorer.from_checkpoint(path, device="cpu", num_mc_samples=4, seed=1)
    # One token is masked in every pass: nothing is drawn.
    others = [each["nll"] for each in scores(reseeded, *texts)]
    same = [a == pytest.approx(b) for a, b in zip(found, others, strict=True)]
    assert same == [False, True, False, False]


def test_pseudo_log_likelihood(made):
    scorer = Scorer.from_checkpoint(made / "both.ckpt", device="cpu", method="pll")
    (found,) = scores(scorer, "1 2 3")
    x = torch.tensor([[BOS, 8, 9, 10]])
    expected = float(pseudo_log_likelihood(network(2), x, x != BOS, MASK))
    assert found["pseudo_log_likelihood"] == pytest.approx(expected, rel=1e-5)
    assert found["pseudo_perplexity"] == pytest.approx(math.exp(-expected / 3), rel=1e-5)
    assert found.keys() == {"pseudo_log_likelihood", "num_tokens", "pseudo_perplexity"}
    assert scorer.summary([found])["pseudo_log_likelihood"] == pytest.approx(expected, rel=1e-5)


def test_weights_and_folders(made):
    by = {
        (name, which): scores(Scorer.from_checkpoint(made / name, weights=which), "1 2 3 4")[0]
        for name, which in [("both.ckpt", "auto"), ("both.ckpt", "ema"), ("both.ckpt", "raw")]
    }
    assert by["both.ckpt", "auto"] == by["both.ckpt", "ema"] != by["both.ckpt", "raw"]
    folder = Scorer.from_checkpoint(made / "saved", add_bos=True)
    assert scores(folder, "1 2 3 4")[0] == by["both.ckpt", "raw"]
    with pytest.raises(ValueError, match="holds one kind only"):
        Scorer.from_checkpoint(made / "saved", weights="ema")


def frames(made, name, **options):
    row = Scorer.from_checkpoint(made / name, **options).read("1 2")
    assert row.ids[row.start : row.end] == [8, 9]
    return row.ids


def test_bos_and_eos_are_as_in_training(made):
    assert frames(made, "both.ckpt") == [BOS, 8, 9]
    assert frames(made, "framed.ckpt") == [BOS, 8, 9, EOS]
    assert frames(made, "saved") == [8, 9]
    assert frames(made, "both.ckpt", add_bos=False, add_eos=True) == [8, 9, EOS]


def test_a_frame_and_padding_that_a_text_shows_are_not_doubled(made):
    scorer = Scorer.from_checkpoint(made / "framed.ckpt")
    plain = scorer.read("1 2")
    assert scorer.read("[BOS] 1 2 [EOS] [PAD] [PAD]") == plain
    assert scorer.read("[PAD] [BOS] 1 2") == plain
    assert scorer.read("1 [EOS] 2").ids == [BOS, 8, EOS, 9, EOS]


def test_a_text_without_tokens_scores_nothing(made):
    for name, options in (("both.ckpt", {}), ("saved", {})):
        scorer = Scorer.from_checkpoint(made / name, **options)
        (found,) = scores(scorer, "  ")
        assert found == {"nll": 0.0, "num_tokens": 0, "bits_per_token": None, "perplexity": None}
        assert scorer.summary([found])["nll"] is None


def test_an_impossible_text_is_none_and_stays_so_in_the_sum(made):
    scorer = Scorer.from_checkpoint(made / "both.ckpt")
    found = scorer._score(math.inf, 3)
    assert found == {"nll": None, "num_tokens": 3, "bits_per_token": None, "perplexity": None}
    assert scorer.summary([found, scorer._score(1.0, 1)])["nll"] is None
    with pytest.raises(ValueError, match="gives NaN"):
        scorer._score(math.nan, 3)


def test_texts_that_cannot_be_scored(made):
    scorer = Scorer.from_checkpoint(made / "both.ckpt", add_eos=True)
    cases = {
        "1 [MASK] 2": r"\"1 \[MASK\] 2\" holds \[MASK\]",
        "1 9 2": "can't be tokenised: Token 9 not in vocab",
        "1 " * 21: "has 23 tokens, 2 of them BOS and EOS; the model takes at most 22",
    }
    for text, says in cases.items():
        with pytest.raises(ValueError, match=says):
            scorer.read(text)
    assert len(scorer.read("1 " * 20).ids) == 22


def test_bad_options_name_themselves(made):
    for name, value in [
        ("method", "x"),
        ("num_mc_samples", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("batch_size", 0),
        ("device", "abacus"),
    ]:
        with pytest.raises(ValueError, match=rf"score\.{name} is"):
            Scorer.from_checkpoint(made / "both.ckpt", name="score.", **{name: value})


def test_every_seed_of_the_draws_is_taken(made):
    scorer = Scorer.from_checkpoint(
        made / "both.ckpt", device="cpu", num_mc_samples=4, seed=2**64 - 1
    )
    assert scores(scorer, "1 2 3")[0]["nll"] > 0


def test_what_names_other_classes_is_refused(tmp_path):
    config = CONFIG | {"model": {"_target_": "os.system"}}
    write_checkpoint(tmp_path / "a.ckpt", network(1), hyper_parameters=config)
    with pytest.raises(ValueError, match=r"a\.ckpt: the model is 'os.system'"):
        Scorer.from_checkpoint(tmp_path / "a.ckpt")
