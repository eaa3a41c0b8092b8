"""Every way to draw masks in every training collator: fields, what may be masked, weights."""

import pytest
import torch

from xlm_mlm.collation.mask_sampling import MASK_SAMPLING
from xlm_mlm.collation.packed import PackedMLMCollator
from xlm_mlm.collation.seq2seq import MLMSeq2SeqCollator, MLMSeq2SeqTrainCollator
from xlm_mlm.collation.single import (
    DefaultInfillMLMCollator,
    DefaultMLMCollator,
    MLMUnconditionalPredCollator,
)

PAD, MASK, EOS, BOS = 0, 2, 3, 4
# The second row holds the mask token itself: nobody knows what it hides.
ROWS = [
    {
        "input_ids": [10, 11, 12, 3, 14, 15],
        "prompt_ids": [MASK, 11, MASK, MASK, MASK, 15],
        "answer": "a",
    },
    {
        "input_ids": [16, 17, MASK, 19, 3, 20],
        "prompt_ids": [16, MASK, MASK, MASK, 3, 20],
        "answer": "b",
    },
    {
        "input_ids": [21, 22, 23, 24, 25, 3],
        "prompt_ids": [21, 22, 23, 24, 25, 3],
        "answer": "c",
    },
]
T, F = True, False
# Positions of each row that are known and may be masked, under loss_on_padding=False.
SINGLE = [[T] * 8 + [F], [T] * 3 + [F] + [T] * 4 + [F], [T] * 8 + [F]]
INFILL = [
    [F, T, F, T, T, T, F, F, F],
    [F, F, T, F, T, F, F, F, F],
    [F] * 9,
]
PACKED = [[T] * 6, [T, T, F, T, T, T], [T] * 6]
ANSWER = [[T] * 7, [T, T, F, T, T, T, T], [T] * 7]


def single(cls):
    return lambda tokenizer, **options: cls(tokenizer, 9, None, loss_on_padding=False, **options)


def seq2seq(cls):
    def build(tokenizer, **options):
        if cls is MLMSeq2SeqCollator:
            options["pass_through_fields"] = ["answer"]
        return cls(tokenizer, None, 7, 6, loss_on_padding=False, **options)

    return build


CASES = {
    "default": (single(DefaultMLMCollator), SINGLE),
    "infill": (single(DefaultInfillMLMCollator), INFILL),
    "seq2seq train": (seq2seq(MLMSeq2SeqTrainCollator), [[F] * 7 + row for row in ANSWER]),
    "seq2seq": (seq2seq(MLMSeq2SeqCollator), [[F] * 7 + row for row in ANSWER]),
    "packed": (
        lambda tokenizer, **options: PackedMLMCollator(tokenizer, 6, None, True, **options),
        PACKED,
    ),
}
NAMES_FIXED = {"infill", "seq2seq train", "seq2seq"}


def maskable(batch):
    """As the loss takes it."""
    known = batch["target_ids"] != -100
    fixed = batch.get("fixed_positions_mask")
    return known if fixed is None else known & ~fixed


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sampling", MASK_SAMPLING)
def test_what_may_be_masked_is_masked_and_named(tokenizer, case, sampling):
    build, expected = CASES[case]
    collator = build(tokenizer, mask_sampling=sampling)
    copies = 2 if sampling == "complementary" else 1
    expected = torch.tensor(expected * copies)
    plain = build(tokenizer)(ROWS)
    hits = torch.zeros_like(expected)
    for _ in range(60):
        batch = collator(ROWS)
        assert torch.equal(maskable(batch), expected)
        assert ("fixed_positions_mask" in batch) == (case in NAMES_FIXED)
        masked = (batch["input_ids"] == MASK) & (batch["target_ids"] != -100)
        assert not (masked & ~expected).any()
        shown = ~masked & (batch["target_ids"] != -100)
        assert torch.equal(batch["input_ids"][shown], batch["target_ids"][shown])
        hits |= masked
        check_counts(batch, masked, expected, sampling)
        for name in plain.keys() - {"input_ids"}:
            whole = plain[name] if isinstance(plain[name], list) else plain[name].tolist()
            given = batch[name] if isinstance(batch[name], list) else batch[name].tolist()
            assert given == whole * copies, name
    assert torch.equal(hits, expected)


def check_counts(batch, masked, expected, sampling):
    n, most = masked.sum(dim=1).tolist(), expected.sum(dim=1).tolist()
    if sampling == "exact_count":
        weights = [of / count if of else 0 for count, of in zip(n, most, strict=True)]
        assert all(count for count, of in zip(n, most, strict=True) if of)
        assert batch["elbo_weights"].tolist() == pytest.approx(weights)
    else:
        assert "elbo_weights" not in batch
    if sampling == "complementary":
        first, second = masked.chunk(2)
        assert not (first & second).any()
        assert torch.equal(first | second, expected[:3])


@pytest.mark.parametrize("case", ["default", "seq2seq train", "seq2seq"])
@pytest.mark.parametrize("rows", [1, 3])
def test_padding_that_is_a_token_is_masked_too(tokenizer, case, rows):
    """A row of one eligible side may stand for all rows; the field is written out for each."""
    for sampling in MASK_SAMPLING:
        if case == "default":
            collator = DefaultMLMCollator(tokenizer, 9, None, mask_sampling=sampling)
        else:
            kinds = {"seq2seq": MLMSeq2SeqCollator, "seq2seq train": MLMSeq2SeqTrainCollator}
            collator = kinds[case](tokenizer, None, 9, 6, mask_sampling=sampling)
        batch = collator(ROWS[:rows])
        known = batch["target_ids"] != -100
        asked = known & (torch.arange(known.shape[1]) >= known.shape[1] - 9)
        assert torch.equal(maskable(batch), asked)
        for value in batch.values():
            assert value.is_contiguous()
            assert len(value) == rows * collator._sampler.copies


class HalfOrAll:
    """Rates of one half for even rows and one for odd ones."""

    def sample_t(self, batch_size):
        return torch.arange(batch_size) % 2 / 2 + 0.5

    def __call__(self, t):
        return torch.where(t < 1, 4.0, 1.0), torch.where(t < 1, 2.0, torch.inf).log()


@pytest.mark.parametrize("case", CASES)
def test_a_schedule_decides_the_rates(tokenizer, case):
    build, expected = CASES[case]
    collator = build(tokenizer)
    kind, schedule = type(collator), HalfOrAll()
    if case == "packed":
        collator = kind(tokenizer, 6, schedule, True)
    elif "seq2seq" in case:
        collator = kind(tokenizer, schedule, 7, 6, loss_on_padding=False)
    else:
        collator = kind(tokenizer, 9, schedule, loss_on_padding=False)
    assert collator.noise_schedule is schedule
    expected = torch.tensor(expected)
    hits = torch.zeros(3, expected.shape[1])
    for _ in range(400):
        batch = collator(ROWS)
        # Rate 4 at total log 2: 4 / (2 - 1). Everything is masked where the total is infinite.
        assert batch["elbo_weights"].tolist() == [4, 0, 4]
        hits += (batch["input_ids"] == MASK) & expected
    assert torch.equal(hits[1], 400.0 * expected[1])
    shares = hits[::2][expected[::2]] / 400
    assert (shares - 0.5).abs().max() < 5 * (0.25 / 400) ** 0.5
    with pytest.raises(ValueError, match="'exact_count' and noise_schedule is HalfOrAll"):
        kind(*packed_or_not(case, tokenizer, schedule), mask_sampling="exact_count")


def packed_or_not(case, tokenizer, schedule):
    if case == "packed":
        return tokenizer, 6, schedule, True
    return (tokenizer, schedule, 7, 6) if "seq2seq" in case else (tokenizer, 9, schedule)


def test_a_collator_that_adds_no_masks_asks_no_schedule(tokenizer):
    class Never(HalfOrAll):
        def sample_t(self, batch_size):
            raise AssertionError("asked")

    collator = MLMUnconditionalPredCollator(tokenizer, 9, Never(), mask_sampling="exact_count")
    assert "elbo_weights" not in collator([{"input_ids": [MASK] * 3}])
