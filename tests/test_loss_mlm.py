"""The objective against a loop over positions."""

import math

import pytest
import torch
from two_ways import force_chunks, force_packing

from xlm_mlm import MLMLoss, RotaryTransformerMLMModel
from xlm_mlm.modeling.masks import segment_block_mask

MASK, PAD, V = 2, 0, 27


class FixedLogits(torch.nn.Module):
    """A model of the bare protocol: its logits are a parameter, whatever the input."""

    def __init__(self, batch, length, vocabulary=V):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.randn(batch, length, vocabulary))
        self.seen = {}

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        self.seen = {"attention_mask": attention_mask, "positions": positions, "block": block_mask}
        return self.logits


def transformer(**overrides):
    options = {
        "num_embeddings": V,
        "d_model": 16,
        "num_layers": 2,
        "nhead": 2,
        "mask_idx": MASK,
        "rotary_emb_dim": 4,
        "max_length": 16,
        "dropout": 0.0,
    }
    return RotaryTransformerMLMModel(**{**options, **overrides})


def make_batch():
    targets = torch.tensor([[5, 6, 7, 8, 3], [9, 10, 3, -100, -100], [11, 12, 13, 3, 0]])
    inputs = torch.tensor([[MASK, 6, MASK, 8, 3], [9, MASK, 3, 0, 0], [11, 12, 13, 3, 0]])
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    return {"input_ids": inputs, "target_ids": targets, "attention_mask": valid}


def naive_loss(logits, batch, visible_too, factor):
    terms = []
    for b, row in enumerate(batch["input_ids"].tolist()):
        masked = sum(token == MASK for token in row)
        for t, token in enumerate(row):
            target = int(batch["target_ids"][b, t])
            if target == -100 or not (token == MASK or visible_too):
                continue
            scores = [math.exp(v) for v in logits[b, t].tolist()]
            weight = 1 / (masked + 1) if factor else 1.0
            terms.append(-weight * math.log(scores[target] / sum(scores)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("visible", [False, True])
@pytest.mark.parametrize("factor", [False, True])
def test_equals_the_loop(tokenizer, padding, visible, factor):
    model, batch = FixedLogits(3, 5), make_batch()
    loss = MLMLoss(padding, visible, model, tokenizer, factor)
    expected = naive_loss(model.logits, batch, visible, factor)
    assert loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert loss.loss_fn(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("visible", [False, True])
@pytest.mark.parametrize("factor", [False, True])
def test_our_network_scores_the_same_by_its_fast_paths(
    monkeypatch, tokenizer, visible, factor, packed
):
    model, batch = transformer(), make_batch()
    force_packing(monkeypatch, False)
    expected = naive_loss(
        model(batch["input_ids"], batch["attention_mask"]), batch, visible, factor
    )
    force_packing(monkeypatch, packed)
    force_chunks(monkeypatch)
    loss = MLMLoss(False, visible, model, tokenizer, factor)(batch)["loss"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


class Declaring(FixedLogits):
    """A model of the protocol that also declares the keywords of a forward of its own."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.asked = {}

    def some_logits(self, logits_at):
        self.asked = {"logits_at": logits_at}
        return self.logits.flatten(0, 1)[logits_at]


class TakesLogitsAt(Declaring):
    def forward(self, x_t, attention_mask=None, positions=None, *, logits_at=None):
        return self.some_logits(logits_at)


class TakesTargets(Declaring):
    def forward(
        self,
        x_t,
        attention_mask=None,
        positions=None,
        *,
        logits_at=None,
        targets=None,
        target_weights=None,
    ):
        logits = self.some_logits(logits_at)
        self.asked.update(targets=targets, target_weights=target_weights)
        return -(logits.log_softmax(-1)[range(len(targets)), targets] * target_weights).sum()


@pytest.mark.parametrize("kind", [TakesLogitsAt, TakesTargets])
def test_a_model_is_given_no_keyword_but_those_it_declares(tokenizer, kind):
    model, batch = kind(3, 5), make_batch()
    loss = MLMLoss(model=model, tokenizer=tokenizer, use_num_masked_factor=True)(batch)["loss"]
    assert loss.item() == pytest.approx(naive_loss(model.logits, batch, False, True), rel=1e-5)
    assert model.asked["logits_at"].tolist() == [0, 2, 6]
    if kind is TakesTargets:
        assert model.asked["targets"].tolist() == [5, 7, 10]
        # Three terms; two masked tokens in the first row and one in the second.
        expected = torch.tensor([1 / 9, 1 / 9, 1 / 6])
        torch.testing.assert_close(model.asked["target_weights"], expected)


def test_a_uniform_model_scores_the_log_of_the_vocabulary(tokenizer):
    model = FixedLogits(3, 5)
    torch.nn.init.zeros_(model.logits)
    for padding, visible in ((False, False), (True, False), (False, True)):
        out = MLMLoss(padding, visible, model, tokenizer)(make_batch())
        assert out["loss"].item() == pytest.approx(math.log(V), rel=1e-6)


def test_the_batch_is_left_as_it_was(tokenizer):
    batch = make_batch()
    before = {name: value.clone() for name, value in batch.items()}
    loss = MLMLoss(True, True, transformer(), tokenizer, True)
    loss(batch)
    loss.loss_fn(batch)
    assert batch.keys() == before.keys()
    assert all(torch.equal(batch[name], before[name]) for name in before)


@pytest.mark.parametrize("model", [FixedLogits(3, 5), transformer()], ids=["protocol", "ours"])
def test_nothing_masked_gives_zero_and_zero_gradients(tokenizer, model):
    batch = make_batch()
    batch["input_ids"] = torch.where(batch["target_ids"] < 0, 0, batch["target_ids"])
    out = MLMLoss(model=model, tokenizer=tokenizer, use_num_masked_factor=True)(batch)["loss"]
    out.backward()
    assert out.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_equal_those_of_the_whole_logits(monkeypatch, tokenizer, packed):
    model, batch = transformer(), make_batch()
    force_packing(monkeypatch, packed)
    force_chunks(monkeypatch)
    MLMLoss(model=model, tokenizer=tokenizer)(batch)["loss"].backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    force_packing(monkeypatch, False)
    logits = model(batch["input_ids"], batch["attention_mask"])
    counted = (batch["input_ids"] == MASK) & (batch["target_ids"] != -100)
    picked = logits[counted].log_softmax(-1)
    (-picked[torch.arange(3), batch["target_ids"][counted]].mean()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_a_mask_id_set_by_hand_wins_until_configure(tokenizer):
    model, batch = FixedLogits(3, 5), make_batch()
    loss = MLMLoss(model=model, tokenizer=tokenizer)
    plain = loss(batch)["loss"].item()
    loss.mask_token_id_tensor = torch.tensor(8)
    by_hand = loss(batch)["loss"].item()
    expected = -model.logits[0, 3].log_softmax(-1)[8].item()
    assert by_hand == pytest.approx(expected, rel=1e-5)

    class Module:
        device = torch.device("cpu")

    loss.configure(Module())
    assert loss(batch)["loss"].item() == pytest.approx(plain)


def test_a_mask_id_set_by_hand_needs_no_tokenizer():
    loss = MLMLoss(model=FixedLogits(3, 5))
    loss.mask_token_id_tensor = torch.tensor(MASK)
    assert loss(make_batch())["loss"].isfinite()


def packed_batch():
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(5, V, (2, 8), generator=generator)
    inputs = targets.clone()
    inputs[:, ::3] = MASK
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1, 2, 2]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0], [0, 0, 1, 2, 3, 4, 0, 1]])
    return {
        "input_ids": inputs,
        "target_ids": targets,
        "positions": positions,
        "segment_ids": segments,
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("flex", [False, True])
def test_packed_segments_score_as_if_alone(monkeypatch, tokenizer, flex, packed):
    force_packing(monkeypatch, packed)
    force_chunks(monkeypatch)
    model, batch = transformer(use_flex_attn=flex), packed_batch()
    loss = MLMLoss(model=model, tokenizer=tokenizer)
    packed = loss(batch)["loss"]
    packed.backward()
    terms = []
    for b in range(2):
        for s in range(3):
            inside = batch["segment_ids"][b] == s
            x, y = batch["input_ids"][b][inside], batch["target_ids"][b][inside]
            logits = model(x[None])[0].log_softmax(-1)
            terms += [-logits[t, y[t]] for t in range(len(x)) if x[t] == MASK]
    assert packed.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert loss.loss_fn(batch)["loss"].item() == pytest.approx(packed.item())


def test_the_block_mask_is_built_unless_the_batch_has_one(tokenizer):
    model, batch = FixedLogits(2, 8), packed_batch()
    loss = MLMLoss(model=model, tokenizer=tokenizer)
    loss(batch)
    assert model.seen["block"].shape == (2, 1, 8, 8)
    assert "block_mask" not in batch
    mine = segment_block_mask(torch.zeros(2, 8, dtype=torch.long))
    loss({**batch, "block_mask": mine})
    assert model.seen["block"] is mine


def test_bf16_logits_give_an_fp32_loss(tokenizer):
    model, batch = transformer(), make_batch()
    loss = MLMLoss(model=model, tokenizer=tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(batch)["loss"]
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(loss(batch)["loss"].item(), rel=0.05)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"target_ids": None}, KeyError, "'target_ids'.*attention_mask, input_ids"),
        ({"input_ids": None}, KeyError, "'input_ids'"),
        ({"target_ids": torch.zeros(3, 4, dtype=torch.long)}, ValueError, r"\(3, 5\).*\(3, 4\)"),
        ({"target_ids": torch.full((3, 5), V)}, ValueError, "target id 27 .* vocabulary of 27"),
        ({"target_ids": torch.full((3, 5), -1)}, ValueError, "target id -1 .*-100"),
        ({"input_ids": [[5] * 5] * 3}, ValueError, "input_ids is a list; it must be a tensor"),
        ({"segment_ids": [[0] * 5] * 3}, ValueError, r"segment_ids are \[\[0.*of shape \(3, 5\)"),
        ({"segment_ids": torch.zeros(3, 4)}, ValueError, r"segment_ids are .*of shape \(3, 5\)"),
    ],
)
def test_bad_batches_are_refused(tokenizer, change, error, words):
    with pytest.raises(error, match=words):
        MLMLoss(model=transformer(), tokenizer=tokenizer)({**make_batch(), **change})


def test_missing_parts_are_named(tokenizer):
    with pytest.raises(ValueError, match="no model"):
        MLMLoss(tokenizer=tokenizer)(make_batch())
    with pytest.raises(ValueError, match="no tokenizer was given.*mask"):
        MLMLoss(model=transformer())(make_batch())
    with pytest.raises(ValueError, match="no tokenizer was given.*mask"):
        MLMLoss(model=transformer()).configure(None)

    class Maskless:
        mask_token_id = None

    with pytest.raises(ValueError, match="Maskless has no mask token"):
        MLMLoss(model=transformer(), tokenizer=Maskless())(make_batch())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_compiled_it_does_not_recompile_at_every_step(tokenizer, kind):
    torch._dynamo.reset()
    compiled_graphs = []

    def count(graph, example_inputs):
        compiled_graphs.append(graph)
        return graph.forward

    model = transformer()
    loss = MLMLoss(model=model, tokenizer=tokenizer)
    plain = MLMLoss(model=model, tokenizer=tokenizer)
    loss.loss_fn = torch.compile(loss.loss_fn, backend=count)
    seen = []
    for step in range(8):
        batch = packed_batch() if kind == "packed" else make_batch()
        inputs = torch.where(batch["target_ids"] < 0, 0, batch["target_ids"])
        hide = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(step)) < 0.5
        batch["input_ids"] = torch.where(hide, MASK, inputs)
        assert loss(batch)["loss"].item() == pytest.approx(plain(batch)["loss"].item(), rel=1e-5)
        seen.append(len(compiled_graphs))
    # The first sizes may each be compiled, then once for sizes that vary, then never again.
    assert seen[-1] == seen[2] > 0


def test_integers_of_any_width_are_taken(tokenizer):
    loss, batch = MLMLoss(model=transformer(), tokenizer=tokenizer), make_batch()
    narrow = {name: value.int() for name, value in batch.items()}
    assert loss(narrow)["loss"].item() == pytest.approx(loss(batch)["loss"].item())
    with pytest.raises(ValueError, match="target_ids is .*; it must be a tensor of integers"):
        loss({**batch, "target_ids": batch["target_ids"].float()})


def test_a_model_in_bf16_gives_an_fp32_loss(tokenizer):
    loss = MLMLoss(model=transformer().bfloat16(), tokenizer=tokenizer)
    assert loss(make_batch())["loss"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_ids": torch.full((3, 5), V)}, "target id 27"),
        ({"input_ids": torch.full((3, 5), V)}, "token id 27"),
        ({"positions": torch.full((3, 5), 20)}, "position 20 .*max_length of 16"),
    ],
)
def test_values_are_checked_although_the_loss_is_compiled(tokenizer, change, words):
    loss = MLMLoss(model=transformer(), tokenizer=tokenizer)
    # What compiling comes to for this test: nothing inside looks at values any more.
    loss.loss_fn = lambda *args: pytest.fail("the compiled part was reached")
    with pytest.raises(ValueError, match=words):
        loss({**make_batch(), **change})


@pytest.mark.parametrize("mask", [V, 99])
def test_a_mask_token_the_model_does_not_have_is_refused(tokenizer, mask):
    loss = MLMLoss(model=transformer(), tokenizer=tokenizer)
    loss.mask_token_id_tensor = torch.tensor(mask)
    with pytest.raises(ValueError, match=f"id is {mask}, but the model's vocabulary is 27"):
        loss(make_batch())
    loss.mask_token_id_tensor = torch.tensor(V - 1)
    assert loss(make_batch())["loss"].item() == 0


def test_a_batch_is_prepared_once(monkeypatch, tokenizer):
    """Before what may be compiled, which gets it ready made."""
    loss, calls = MLMLoss(model=transformer(), tokenizer=tokenizer), []
    prepare = loss._prepare
    monkeypatch.setattr(loss, "_prepare", lambda batch: calls.append(batch) or prepare(batch))
    loss(make_batch())
    assert len(calls) == 1
    loss.loss_fn(make_batch())
    assert len(calls) == 2


def test_what_the_host_passes_along_reaches_what_it_may_compile(tokenizer):
    loss, seen = MLMLoss(model=transformer(), tokenizer=tokenizer), []
    loss.loss_fn = lambda batch, *rest: seen.append(rest) or {"loss": torch.zeros(())}
    loss(make_batch(), 3, 1, "lm")
    assert seen == [(3, 1, "lm")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            math.nan,
            "is nan; .*: the model's logits hold NaN or .inf, or nothing but -inf, at one",
        ),
        (
            -math.inf,
            "over 3 positions is inf; .*: the model gives a target probability 0, or logits",
        ),
    ],
)
def test_a_loss_that_is_not_finite_is_refused_with_what_it_is_of(tokenizer, value, words):
    model = FixedLogits(3, 5)
    with torch.no_grad():
        model.logits[0, 2, 7] = value
    with pytest.raises(ValueError, match=words):
        MLMLoss(model=model, tokenizer=tokenizer)(make_batch())


def test_options_are_kept():
    assert (MLMLoss().loss_on_padding, MLMLoss(True).loss_on_padding) == (False, True)
