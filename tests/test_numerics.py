"""The extremes: whatever the logits and the batch, a finite number, or an error that says why."""

import math

import pytest
import torch
from naive_network import build
from toy_models import SelectiveModel, TableModel
from two_ways import force_chunks, force_packing

from xlm_mlm import MLMLoss, MLMPredictor
from xlm_mlm.likelihood_mlm import mlm_nll, pseudo_log_likelihood
from xlm_mlm.metrics_mlm import MaskedTokenAccuracy, Perplexity
from xlm_mlm.modeling.head import plain_cross_entropy, weighted_cross_entropy
from xlm_mlm.sampling.scores import token_log_probability

MASK, V, L = 2, 27, 4
TARGETS = torch.tensor([[7, 8, 9, 10]] * 4)
INPUTS = {
    "all masked": torch.full((2, L), MASK),
    "none masked": TARGETS[:2],
    "some masked": torch.tensor([[MASK, 8, MASK, 10], [7, MASK, 9, 10], [7, 8, 9, 10]]),
    "one row": torch.tensor([[7, MASK, MASK, 10]]),
}


def table(value=None, where=slice(1, 2), tokens=slice(None)):
    """Logits of each column; `value` in the column named, for the tokens named."""
    made = torch.randn(L, V, generator=torch.Generator().manual_seed(0))
    if value is not None:
        made[where, tokens] = value
    return made


# What is far apart but finite, whole columns of one number, and tokens that are impossible.
FINITE = {
    "a token at 1e30": table(1e30, tokens=8),
    "another token at 1e30": table(1e30, tokens=20),
    "a token at -1e30": table(-1e30, tokens=20),
    "the target at -1e30": table(-1e30, tokens=8),
    "a row of 1e30": table(1e30),
    "all at 1e30": table(1e30, slice(None)),
    "all at -3e38": table(-3e38, slice(None)),
    "some at -inf": table(-math.inf, tokens=slice(11, None)),
    "one token possible": table(-math.inf, tokens=[*range(8), *range(9, V)]),
}
HOPELESS = {
    "one NaN": table(math.nan, tokens=20),
    "one +inf": table(math.inf, tokens=20),
    "the target at +inf": table(math.inf, tokens=8),
    "a row of -inf": table(-math.inf),
    "all at -inf": table(-math.inf, slice(None)),
    "all at NaN": table(math.nan, slice(None)),
}
LOSSES = [
    {},
    {"loss_on_visible_tokens": True},
    {"use_num_masked_factor": True},
    {"loss_on_visible_tokens": True, "use_num_masked_factor": True},
    {"loss_weighting": "elbo"},
]


def naive_log_p(row, token):
    top = max(row)
    return row[token] - top - math.log(math.fsum(math.exp(z - top) for z in row))


def naive_loss(logits, inputs, options):
    """A loop over positions, in double precision."""
    terms, visible = [], options.get("loss_on_visible_tokens", False)
    for row in inputs.tolist():
        masked = row.count(MASK)
        weight = 1 / (masked + 1) if options.get("use_num_masked_factor") else 1.0
        if options.get("loss_weighting") == "elbo":
            weight = (L + 1) / max(masked, 1)
        for column, token in enumerate(row):
            if token == MASK or visible:
                target = int(TARGETS[0, column])
                terms.append(-weight * naive_log_p(logits[column].tolist(), target))
    count = inputs.numel() if options.get("loss_weighting") == "elbo" else len(terms)
    return math.fsum(terms) / count if terms else 0.0


def make_loss(tokenizer, model, **options):
    return MLMLoss(model=model, tokenizer=tokenizer, **options)


@pytest.mark.parametrize("options", LOSSES, ids=str)
@pytest.mark.parametrize("logits", FINITE.values(), ids=FINITE.keys())
@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS.keys())
def test_the_loss_of_far_apart_logits_is_that_of_a_loop(tokenizer, inputs, logits, options):
    model = SelectiveModel(logits)
    batch = {"input_ids": inputs, "target_ids": TARGETS[: len(inputs)]}
    loss = make_loss(tokenizer, model, **options)(batch)["loss"]
    # Single precision, of numbers up to 1e30.
    assert loss.item() == pytest.approx(naive_loss(logits, inputs, options), rel=1e-5, abs=1e-6)
    loss.backward()
    assert model.table.grad.isfinite().all()


@pytest.mark.parametrize("options", LOSSES, ids=str)
@pytest.mark.parametrize("logits", HOPELESS.values(), ids=HOPELESS.keys())
def test_a_loss_that_is_no_number_is_refused(tokenizer, logits, options):
    loss = make_loss(tokenizer, TableModel(logits), **options)
    with pytest.raises(ValueError, match="the loss over .* is nan; .*NaN or \\+inf"):
        loss({"input_ids": INPUTS["all masked"], "target_ids": TARGETS[:2]})


def test_an_impossible_target_is_refused(tokenizer):
    loss = make_loss(tokenizer, TableModel(table(-math.inf, tokens=8)))
    batch = {"input_ids": INPUTS["all masked"], "target_ids": TARGETS[:2]}
    with pytest.raises(ValueError, match="over 8 positions is inf; .* probability 0"):
        loss(batch)
    # Where it is not asked for, it does no harm.
    batch["target_ids"] = torch.tensor([[7, -100, 9, 10]] * 2)
    assert loss(batch)["loss"].isfinite()


def scored(function, logits, **options):
    everywhere = torch.ones(2, L, dtype=torch.bool)
    return function(TableModel(logits), TARGETS[:2], everywhere, MASK, **options)


@pytest.mark.parametrize("logits", FINITE.values(), ids=FINITE.keys())
def test_likelihoods_of_far_apart_logits_are_those_of_a_loop(logits):
    """A table gives every token the same logits whatever is hidden: all passes agree."""
    log_p = [naive_log_p(logits[c].tolist(), int(TARGETS[0, c])) for c in range(L)]
    found = scored(pseudo_log_likelihood, logits, per_token=True)
    for row in found.tolist():
        assert row == pytest.approx(log_p, rel=1e-6, abs=1e-6)
    # A mean of L/n times n of the L terms: with every count once, between the extremes of these.
    nll = scored(mlm_nll, logits, num_mc_samples=L)
    assert nll.isfinite().all()
    slack = 1e-6 * max(1.0, *map(abs, log_p))
    assert (nll >= -L * max(log_p) - slack).all()
    assert (nll <= -L * min(log_p) + slack).all()


@pytest.mark.parametrize("function", [mlm_nll, pseudo_log_likelihood])
@pytest.mark.parametrize("logits", HOPELESS.values(), ids=HOPELESS.keys())
def test_a_likelihood_without_a_distribution_is_refused(function, logits):
    with pytest.raises(ValueError, match=r"hold NaN or \+inf.* the first in column [0-3];"):
        scored(function, logits)


def test_an_impossible_token_has_an_infinite_likelihood():
    logits = table(-math.inf, tokens=8)
    assert scored(mlm_nll, logits).tolist() == [math.inf] * 2
    assert scored(pseudo_log_likelihood, logits).tolist() == [-math.inf] * 2


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_log_probabilities_keep_their_digits_however_large_the_logits(kind):
    """Near 60,000 single precision resolves 1/256, and the log of 2 would be off by as much."""
    logits = torch.tensor([[61_440.0, 61_440, 57_344], [0.0, 0.0, -32.0]]).to(kind)
    found = token_log_probability(logits, torch.tensor([1, 1]))
    assert found.tolist() == pytest.approx([-math.log(2)] * 2, rel=1e-6)
    assert found.dtype == torch.promote_types(kind, torch.float32)


@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_the_loss_in_chunks_keeps_its_digits_too(monkeypatch, rows, size):
    """Every token alike: log V, however large the logits are that it is made of."""
    force_chunks(monkeypatch)
    hidden = torch.full((rows, 2), size).requires_grad_()
    weight, targets = torch.ones(V, 2), torch.arange(rows) % V
    weights = torch.full((rows,), 1 / rows)
    loss = weighted_cross_entropy(hidden, weight, targets, weights)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(V), rel=1e-5)
    assert hidden.grad.isfinite().all()
    plain = plain_cross_entropy(hidden @ weight.T, targets, weights)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)


RULES = [
    {},
    {"confidence": "top_prob", "confidence_temperature": 1e308},
    {"confidence": "prob_diff"},
    {"confidence": "entropy", "confidence_temperature": 0.0},
    {"confidence": "top_prob", "threshold": 0.0},
    {"confidence": "prob_diff", "threshold": 0.5},
    {"confidence": "entropy", "threshold": 1e300},
    {"strategy": {"name": "probability_threshold", "tau": 1.0}},
    {"strategy": {"name": "probability_factor", "factor": 0.0}},
    {"strategy": {"name": "klass", "tau": 0.3, "kappa": 0.5, "history": 1}},
    {"revision": {"name": "remdm", "rule": "rescale", "eta": 1.0}},
    {"revision": {"name": "remdm", "rule": "conf"}},
    {"revision": "p2"},
    {"block_length": 1},
    {"cfg_scale": 1e6},
]
DRAWS = [
    {"temperature": 0.0},
    {"temperature": 5e-324},
    {"temperature": 1e308},
    {"top_k": 1},
    {"top_k": 10**9},
    {"top_p": 5e-324},
    {"top_p": 1.0},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_fills_every_mask_however_far_apart_logits_are(tokenizer, rule):
    # Every draw meets every third table.
    for i, logits in enumerate(FINITE.values()):
        possible = logits.softmax(dim=-1) > 0
        for number, draw in list(enumerate(DRAWS))[i % 3 :: 3]:
            inputs = list(INPUTS.values())[number % len(INPUTS)]
            model = TableModel(logits)
            one = MLMPredictor(1 + number, tokenizer=tokenizer, model=model, **rule, **draw)
            ids = one.predict({"input_ids": inputs})["ids"]
            assert not (ids == MASK).any()
            assert torch.equal(ids[inputs != MASK], inputs[inputs != MASK])
            if draw.get("temperature", 1) < 2:
                columns = torch.arange(L).expand(ids.shape)[inputs == MASK]
                assert possible[columns, ids[inputs == MASK]].all(), "nothing impossible"


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("logits", HOPELESS.values(), ids=HOPELESS.keys())
def test_every_rule_refuses_what_is_no_distribution(tokenizer, rule, logits):
    one = MLMPredictor(2, tokenizer=tokenizer, model=TableModel(logits), **rule)
    with pytest.raises(ValueError, match=r"logits hold NaN or \+inf, or .* no token to produce"):
        # Without given tokens there is nothing to guide.
        one.predict({"input_ids": torch.tensor([[MASK, MASK, MASK, 10]])})


def test_a_mean_takes_no_nan():
    metric = Perplexity()
    with pytest.raises(ValueError, match="nll holds NaN"):
        metric.update(torch.tensor([1.0, math.nan]), torch.tensor([3, 3]))
    metric.update(torch.tensor([1.0, 0.0]), torch.tensor([2, 0]))
    assert metric.compute().item() == pytest.approx(math.exp(0.5))
    metric.update(torch.tensor([math.inf]), torch.tensor([2]))
    assert metric.compute() == math.inf
    accuracy = MaskedTokenAccuracy()
    nothing = torch.zeros(0, 3, dtype=torch.long)
    accuracy.update(nothing, nothing, nothing.bool())
    one = torch.tensor([[5]])
    accuracy.update(one, one)
    assert accuracy.compute() == 1


AUTOCAST = [None, torch.bfloat16, torch.float16]
# Half precision, some ten roundings of at most half a unit in the last place one after the other.
LOOSE = {None: 1e-5, torch.bfloat16: 10 * 2**-8, torch.float16: 10 * 2**-11}


def padded(inputs, kind):
    """A batch with its padding: none, a token left of each row, or nothing left at all."""
    valid = torch.ones(inputs.shape, dtype=torch.bool)
    if kind == "one token":
        valid[:, 1:] = False
    if kind == "nothing":
        valid[:] = False
    targets = TARGETS[: len(inputs), : inputs.shape[1]].masked_fill(~valid, -100)
    return {"input_ids": inputs, "attention_mask": valid, "target_ids": targets}


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", AUTOCAST)
def test_the_network_is_finite_whatever_is_masked_hidden_and_rounded(
    monkeypatch, tokenizer, kind, training, packs
):
    force_packing(monkeypatch, packs)
    force_chunks(monkeypatch)
    model = build(num_embeddings=V, dropout=0.5 if training else 0.0).train(training)
    for inputs in [*INPUTS.values(), torch.full((2, 1), MASK)]:
        for hidden in ("no padding", "one token", "nothing"):
            batch = padded(inputs, hidden)
            model.zero_grad()
            with torch.autocast("cpu", kind or torch.bfloat16, enabled=kind is not None):
                loss = make_loss(tokenizer, model)(batch)["loss"]
                logits = model(inputs, attention_mask=batch["attention_mask"])
            loss.backward()
            assert loss.dtype == torch.float32
            assert logits.isfinite().all()
            assert all(p.grad.isfinite().all() for p in model.parameters())
            if not (inputs == MASK).any() or hidden == "nothing":
                assert loss == 0
                assert not any(p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("kind", AUTOCAST[1:])
def test_half_precision_is_near_the_whole(tokenizer, kind):
    model, batch = build(num_embeddings=V).eval(), padded(INPUTS["some masked"], "no padding")
    everywhere = torch.ones(3, L, dtype=torch.bool)

    def all_of_it():
        loss = make_loss(tokenizer, model)(batch)["loss"].item()
        nll = mlm_nll(model, TARGETS[:3], everywhere, MASK, num_mc_samples=2)
        pll = pseudo_log_likelihood(model, TARGETS[:3], everywhere, MASK)
        return torch.tensor([loss, *nll.tolist(), *pll.tolist()])

    expected = all_of_it()
    with torch.autocast("cpu", kind):
        found = all_of_it()
        for rule in RULES:
            one = MLMPredictor(3, tokenizer=tokenizer, model=model, suppress_tokens=[0], **rule)
            assert not (one.predict({"input_ids": batch["input_ids"]})["ids"] == MASK).any()
    torch.testing.assert_close(found, expected, rtol=LOOSE[kind], atol=0)


def test_weights_that_overflow_half_precision_are_an_error(tokenizer):
    """Logits past 65,504 are infinite in fp16; that is said, not summed up."""
    model, batch = build(num_embeddings=V).eval(), padded(INPUTS["all masked"], "no padding")
    with torch.no_grad():
        model.output_layer.linear.weight.mul_(1e6)
    assert make_loss(tokenizer, model)(batch)["loss"].isfinite()
    with torch.autocast("cpu", torch.float16):
        with pytest.raises(ValueError, match="the loss over 8 positions is"):
            make_loss(tokenizer, model)(batch)
        with pytest.raises(ValueError, match=r"hold NaN or \+inf"):
            mlm_nll(model, TARGETS[:2], torch.ones(2, L, dtype=torch.bool), MASK)
        with pytest.raises(ValueError, match=r"hold NaN or \+inf"):
            MLMPredictor(2, tokenizer=tokenizer, model=model).predict(batch)
