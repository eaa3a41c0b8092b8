"""The loss as a bound on the likelihood: against loops, and without bias over all masks."""

import math
from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch

from xlm_mlm import MLMLoss, RotaryTransformerMLMModel
from xlm_mlm.collation.mask_sampling import MASK_SAMPLING
from xlm_mlm.collation.samples import Process
from xlm_mlm.collation.schedules import mask_rates

MASK, V = 2, 27


class FixedLogits(torch.nn.Module):
    """A model of the bare protocol: its logits are a parameter, whatever the input."""

    def __init__(self, batch, length):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.randn(batch, length, V))

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        return self.logits


class TakesTargets(FixedLogits):
    """One that scores targets itself."""

    def forward(
        self, x_t, attention_mask=None, positions=None, *, logits_at, targets, target_weights
    ):
        self.weights = target_weights
        terms = -self.logits.flatten(0, 1)[logits_at].log_softmax(-1)[range(len(targets)), targets]
        return (terms * target_weights).sum()


def transformer(**options):
    sizes = {"d_model": 16, "num_layers": 2, "nhead": 2, "rotary_emb_dim": 4, "max_length": 16}
    return RotaryTransformerMLMModel(V, mask_idx=MASK, dropout=0.0, **sizes, **options)


def make_batch():
    """Rows of 5, 3 and 4 tokens that may be masked, the last less a mask in the data."""
    targets = torch.tensor([[5, 6, 7, 8, 3], [9, 10, 3, -100, -100], [11, -100, 13, 3, 7]])
    inputs = torch.tensor([[MASK, 6, MASK, 8, 3], [9, MASK, 3, 0, 0], [11, MASK, 13, 3, 7]])
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    return {"input_ids": inputs, "target_ids": targets, "attention_mask": valid}


FIXED = torch.tensor([[False, True, False, False, True], [False] * 5, [True] * 5])
GIVEN = torch.tensor([0.5, 3.0, 7.0])


def loss_of(model, tokenizer, batch, **options):
    return MLMLoss(model=model, tokenizer=tokenizer, loss_weighting="elbo", **options)(batch)[
        "loss"
    ]


def naive_elbo(logits, batch):
    """Nats a maskable token."""
    nats, tokens = 0.0, 0
    for b, row in enumerate(batch["input_ids"].tolist()):
        terms, most = [], 0
        for t, token in enumerate(row):
            target = int(batch["target_ids"][b, t])
            fixed = "fixed_positions_mask" in batch and batch["fixed_positions_mask"][b, t]
            if target == -100 or fixed:
                continue
            most += 1
            if token == MASK:
                scores = [math.exp(v) for v in logits[b, t].tolist()]
                terms.append(-math.log(scores[target] / sum(scores)))
        if "elbo_weights" in batch:
            weight = float(batch["elbo_weights"][b])
        else:
            weight = (most + 1) / len(terms) if terms else 0
        nats += weight * sum(terms)
        tokens += most
    return nats / tokens


EXTRAS = [
    {},
    {"fixed_positions_mask": FIXED},
    {"fixed_positions_mask": None},
    {"elbo_weights": GIVEN},
    {"elbo_weights": GIVEN.double(), "fixed_positions_mask": FIXED},
    {"elbo_weights": GIVEN * torch.tensor([0.0, 1.0, 1.0])},
    {"fixed_positions_mask": torch.arange(15).reshape(3, 5) != 2},
]


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: "+".join(extra) or "plain")
@pytest.mark.parametrize("kind", [FixedLogits, TakesTargets])
def test_equals_the_loop(tokenizer, kind, extra):
    model, batch = kind(3, 5), make_batch() | extra
    known = {name: value for name, value in batch.items() if value is not None}
    expected = naive_elbo(model.logits, known)
    before = {name: value.clone() for name, value in known.items()}
    loss = loss_of(model, tokenizer, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.dtype == torch.float32
    assert MLMLoss(model=model, tokenizer=tokenizer, loss_weighting="elbo").loss_fn(batch)[
        "loss"
    ].item() == pytest.approx(expected, rel=1e-5)
    assert batch.keys() == {**make_batch(), **extra}.keys()
    assert all(torch.equal(batch[name], value) for name, value in before.items())


def test_the_network_is_given_the_weights_and_scores_the_same(tokenizer):
    model, batch = transformer(), make_batch() | {"fixed_positions_mask": FIXED}
    logits = model(batch["input_ids"], batch["attention_mask"])
    loss = loss_of(model, tokenizer, batch)
    assert loss.item() == pytest.approx(naive_elbo(logits, batch), rel=1e-5)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    terms = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), batch["target_ids"], reduction="none"
    )
    # Rows of 3, 3 and 0 tokens: weights (3 + 1) / 2 and (3 + 1) / 1, over 6 tokens in all.
    ((terms[0, 0] + terms[0, 2]) * 2 / 6 + terms[1, 1] * 4 / 6).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-4)
    taking = TakesTargets(3, 5)
    loss_of(taking, tokenizer, batch)
    torch.testing.assert_close(taking.weights, torch.tensor([2 / 6, 2 / 6, 4 / 6]))


def test_packed_rows_are_scored_by_the_same_rule(tokenizer):
    model, batch = transformer(use_flex_attn=True), make_batch()
    del batch["attention_mask"]
    batch["segment_ids"] = torch.tensor([[0, 0, 1, 1, 1]] * 3)
    batch["positions"] = torch.tensor([[0, 1, 0, 1, 2]] * 3)
    apart = [model(batch["input_ids"][:, s]) for s in (slice(2), slice(2, 5))]
    expected = naive_elbo(torch.cat(apart, dim=1), batch)
    assert loss_of(model, tokenizer, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("model", [FixedLogits(3, 5), transformer()], ids=["protocol", "ours"])
@pytest.mark.parametrize("why", ["nothing maskable", "nothing known", "nothing masked"])
def test_nothing_to_guess_gives_zero_and_zero_gradients(tokenizer, model, why):
    batch = make_batch()
    if why == "nothing maskable":
        batch["fixed_positions_mask"] = torch.full((3, 5), True)
    elif why == "nothing known":
        batch["target_ids"] = torch.full((3, 5), -100)
    else:
        batch["input_ids"] = torch.full((3, 5), 9)
    model.zero_grad()
    loss = loss_of(model, tokenizer, batch)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_the_mean_takes_no_notice(tokenizer):
    model, batch = FixedLogits(3, 5), make_batch()
    loss = MLMLoss(model=model, tokenizer=tokenizer, loss_weighting="mean")
    plain = MLMLoss(model=model, tokenizer=tokenizer)
    assert plain.loss_weighting == "mean"
    extra = {"elbo_weights": torch.full((3,), torch.nan), "fixed_positions_mask": FIXED}
    assert torch.equal(loss({**batch, **extra})["loss"], plain(batch)["loss"])


def test_what_is_no_bound_is_refused():
    for name in ("loss_on_visible_tokens", "use_num_masked_factor"):
        with pytest.raises(ValueError, match=f"loss_weighting is 'elbo' and {name} is True"):
            MLMLoss(loss_weighting="elbo", **{name: True})
    with pytest.raises(ValueError, match="loss_weighting is 'nelbo'; it must be one of 'mean', 'e"):
        MLMLoss(loss_weighting="nelbo")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"elbo_weights": torch.ones(2)}, r"shape \(2,\); they must .* \(3,\)"),
        ({"elbo_weights": torch.ones(3, 1)}, r"shape \(3, 1\)"),
        ({"elbo_weights": torch.ones(3, dtype=torch.long)}, "torch.int64"),
        ({"elbo_weights": [1.0, 1.0, 1.0]}, r"are \[1.0, 1.0, 1.0\]; they must be a tensor"),
        ({"elbo_weights": torch.tensor([1.0, torch.nan, 1.0])}, "nan.*; they must be finite"),
        ({"elbo_weights": torch.tensor([1.0, torch.inf, 1.0])}, "inf.*; they must be finite"),
        ({"elbo_weights": torch.tensor([1.0, -1.0, 1.0])}, "-1.0.*; they must be finite, 0 or"),
        ({"fixed_positions_mask": FIXED.long()}, "fixed_positions_mask is a tensor of torch.int64"),
        (
            {"fixed_positions_mask": [True]},
            r"fixed_positions_mask is \[True\]; it must be a tensor",
        ),
        ({"fixed_positions_mask": FIXED[:2]}, r"shape \(2, 5\); it must .* \(3, 5\)"),
    ],
)
def test_bad_batches_are_refused(tokenizer, extra, words):
    with pytest.raises(ValueError, match=words):
        loss_of(FixedLogits(3, 5), tokenizer, make_batch() | extra)


@pytest.mark.slow
def test_compiled_it_does_not_recompile_at_every_step(tokenizer):
    torch._dynamo.reset()
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    model = transformer()
    options = {"model": model, "tokenizer": tokenizer, "loss_weighting": "elbo"}
    compiled, plain = MLMLoss(**options), MLMLoss(**options)
    compiled.loss_fn = torch.compile(compiled.loss_fn, backend=count)
    seen = []
    for step in range(8):
        batch = make_batch()
        hide = torch.rand(3, 5, generator=torch.Generator().manual_seed(step)) < 0.5
        batch["input_ids"] = batch["target_ids"].clamp(min=0).masked_fill(hide, MASK)
        assert compiled(batch)["loss"].item() == pytest.approx(plain(batch)["loss"].item())
        seen.append(len(graphs))
    assert seen[-1] == seen[2] > 0


@pytest.fixture
def another_rank(monkeypatch):
    """A process beside this one that counts 20 positions; how often it was asked."""
    asked = []

    def all_reduce(total):
        asked.append(int(total))
        total += 20

    monkeypatch.setattr(Process, "this", lambda: Process(0, 2))
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    return asked


@pytest.mark.parametrize(("weighting", "counted"), [("mean", 3), ("elbo", 12)])
def test_across_ranks_the_divisor_is_the_mean_of_all(tokenizer, another_rank, weighting, counted):
    """The host averages gradients, so that each process divides by the mean count of both."""
    model, batch = FixedLogits(3, 5), make_batch()
    options = {"model": model, "tokenizer": tokenizer, "loss_weighting": weighting}
    alone = MLMLoss(**options)(batch)["loss"].item()
    assert another_rank == []
    loss = MLMLoss(**options, across_ranks="tokens")
    found = loss(batch)["loss"].item()
    assert found == pytest.approx(alone * counted / ((counted + 20) / 2), rel=1e-5)
    assert another_rank == [counted]


def test_ranks_are_asked_in_training_alone(tokenizer, another_rank):
    model, batch = FixedLogits(3, 5), make_batch()
    loss = MLMLoss(model=model, tokenizer=tokenizer, across_ranks="tokens")
    with torch.no_grad():
        loss(batch)
    model.eval()
    loss(batch)
    assert another_rank == []
    # A model without modes is in training.
    loss.model = lambda x_t, attention_mask=None, positions=None: model(x_t)
    loss(batch)
    assert another_rank == [3]


def test_ranks_without_anything_to_count_divide_by_something(tokenizer, monkeypatch):
    monkeypatch.setattr(Process, "this", lambda: Process(0, 2))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: None)
    batch = make_batch() | {"input_ids": torch.full((3, 5), 9)}
    loss = MLMLoss(model=FixedLogits(3, 5), tokenizer=tokenizer, across_ranks="tokens")
    assert loss(batch)["loss"].item() == 0


class OfWhatIsMasked(torch.nn.Module):
    """Logits that depend on all that a row shows, with no joint distribution behind them."""

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        rows = []
        for row in x_t.tolist():
            seed = int(sum(token * 29**place for place, token in enumerate(row)))
            rows.append(torch.randn(len(row), V, generator=torch.Generator().manual_seed(seed)))
        return torch.stack(rows)


# Three tokens that may be masked in the first row and two in the second; a prompt; padding.
ROWS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, -100]])
PROMPT = torch.tensor([[True, False, False, False]] * 2)
PLACES = [[1, 2, 3], [1, 2]]


def batch_of(masks, copies=1):
    """The two rows, masked at the given places; `copies` times, as complementary masks need."""
    targets, fixed = ROWS.repeat(copies, 1), PROMPT.repeat(copies, 1)
    inputs = targets.clamp(min=0)
    for row, places in enumerate(masks):
        inputs[row, list(places)] = MASK
    return {"input_ids": inputs, "target_ids": targets, "fixed_positions_mask": fixed}


def nll_of_all_orders(model):
    """Mean over all orders of revealing each row's tokens, in nats, then summed, per token."""
    total = 0.0
    for row, places in enumerate(PLACES):
        orders = list(permutations(places))
        for order in orders:
            for step, place in enumerate(order):
                masks = [(), ()]
                masks[row] = order[step:]
                scores = model(batch_of(masks)["input_ids"])[row, place].double().log_softmax(-1)
                total -= scores[ROWS[row, place]].item() / len(orders)
    return total / 5


def subsets(places, sampling):
    """All masks of a row, with their probability and the weight that the batch carries for it."""
    most = len(places)
    least = 1 if sampling == "exact_count" else 0
    for n in range(least, most + 1):
        sets = list(combinations(places, n))
        for chosen in sets:
            probability = 1 / (most + 1 - least) / len(sets)
            yield chosen, probability, most / n if sampling == "exact_count" else None


@pytest.mark.parametrize("sampling", MASK_SAMPLING)
def test_no_bias_over_all_masks(tokenizer, sampling):
    """For "bernoulli" and "stratified", t is integrated out: n is then uniform on 0..N."""
    model = OfWhatIsMasked()
    loss = MLMLoss(model=model, tokenizer=tokenizer, loss_weighting="elbo")
    mean = weight = 0.0
    for drawn in product(*(list(subsets(places, sampling)) for places in PLACES)):
        masks, probabilities, weights = (list(part) for part in zip(*drawn, strict=True))
        if sampling == "complementary":
            others = [set(all_) - set(m) for all_, m in zip(PLACES, masks, strict=True)]
            batch = batch_of([*masks, *others], copies=2)
        else:
            batch = batch_of(masks)
        if sampling == "exact_count":
            batch["elbo_weights"] = torch.tensor(weights)
        probability = math.prod(probabilities)
        weight += probability
        mean += probability * loss(batch)["loss"].item()
    assert weight == pytest.approx(1)
    assert mean == pytest.approx(nll_of_all_orders(model), rel=1e-5)


class Squared:
    """A token is masked with probability t^2, at the times of a quadrature."""

    def __init__(self, times):
        self.times = times

    def sample_t(self, batch_size):
        return self.times

    def __call__(self, t):
        return 2 * t / (1 - t**2), -torch.log1p(-(t**2))


def test_no_bias_over_the_times_of_a_schedule(tokenizer):
    """Gauss-Legendre nodes integrate the polynomials in t that the expectation is, exactly."""
    model = OfWhatIsMasked()
    loss = MLMLoss(model=model, tokenizer=tokenizer, loss_weighting="elbo")
    nodes, shares = np.polynomial.legendre.leggauss(8)
    times, shares = torch.tensor(nodes / 2 + 0.5), shares / 2
    rates, weights = mask_rates(Squared(times), 8)
    found = 0.0
    # One row at a time: the loss adds them up, each with its own weight.
    for row, places in enumerate(PLACES):
        for n in range(1, len(places) + 1):
            for chosen in combinations(places, n):
                masks = [(), ()]
                masks[row] = chosen
                probability = rates**n * (1 - rates) ** (len(places) - n)
                batch = batch_of(masks) | {"elbo_weights": torch.ones(2)}
                found += (shares * probability * weights).sum() * loss(batch)["loss"].item()
    assert found == pytest.approx(nll_of_all_orders(model), rel=1e-5)
