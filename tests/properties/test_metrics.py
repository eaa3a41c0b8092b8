"""Metrics against loops over rows, however these are divided into batches and ordered."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties.strategies import BOS, EOS, MASK, PAD, TOKENIZER, rectangles
from xlm.metrics import ExactMatch

from xlm_mlm.metrics_mlm import (
    BitsPerToken,
    MaskedTokenAccuracy,
    Perplexity,
    SequenceNLL,
    exact_match_update_fn,
    infill_token_accuracy_update_fn,
    likelihood_update_fn,
    mean_metric_update_fn,
    seq2seq_exact_match_update_fn,
    seq2seq_token_accuracy_update_fn,
)

# Few tokens, so that sides agree more often than not.
tokens = st.sampled_from([PAD, EOS, 8, 8, 9])
IGNORED = -100
BARE = SimpleNamespace(pad_token_id=None, mask_token_id=MASK, bos_token_id=None, eos_token_id=None)


@st.composite
def sides(draw, cells=tokens):
    """Predictions and targets of as many rows, of widths of their own."""
    pred = draw(rectangles(cells, columns=6))
    width = draw(st.integers(1, 6))
    row = st.lists(cells, min_size=width, max_size=width)
    return pred, draw(st.lists(row, min_size=len(pred), max_size=len(pred)))


@st.composite
def divisions(draw, rows):
    """The numbers of the rows in some order, in batches, some of them empty."""
    order = draw(st.permutations(range(rows)))
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=3)))
    return [list(order[a:b]) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]


def until_eos(row):
    """The row as compared: nothing after its first EOS, no padding at its end."""
    row = [PAD if token == IGNORED else token for token in row]
    row = row[: row.index(EOS) + 1] if EOS in row else row
    while row and row[-1] == PAD:
        row = row[:-1]
    return row


def matches(update_fn, batch, loss_dict, tokenizer=TOKENIZER):
    metric = ExactMatch()
    metric.update(**update_fn(batch, loss_dict, tokenizer))
    return metric._computed_value.tolist()


@given(sides(), st.integers(0, 3))
def test_an_exact_match_is_equality_up_to_the_end(case, start):
    pred, target = case
    expected = [float(until_eos(p) == until_eos(t)) for p, t in zip(pred, target, strict=True)]
    batch, ids = {"target_ids": torch.tensor(target)}, torch.tensor(pred)
    assert matches(exact_match_update_fn, batch, {"ids": ids}) == expected
    prompt = torch.full((len(ids), start), 9)
    generated = {"ids": torch.cat((prompt, ids), 1), "output_start_idx": start}
    assert matches(seq2seq_exact_match_update_fn, batch, generated) == expected


@given(sides(), st.integers(0, 3), st.integers(0, 3))
def test_padding_behind_a_row_changes_no_match(case, more, still_more):
    pred, target = (torch.tensor(side) for side in case)
    found = [
        matches(
            exact_match_update_fn,
            {"target_ids": torch.nn.functional.pad(target, (0, after), value=fill)},
            {"ids": torch.nn.functional.pad(pred, (0, before), value=PAD)},
        )
        for before, after, fill in [(0, 0, PAD), (more, still_more, PAD), (more, 2, IGNORED)]
    ]
    assert found[0] == found[1] == found[2]


@given(sides())
def test_without_a_tokenizer_a_match_is_equality(case):
    pred, target = case
    batch, loss_dict = {"target_ids": torch.tensor(target)}, {"ids": torch.tensor(pred)}
    expected = [float(p == t) for p, t in zip(pred, target, strict=True)]
    assert matches(exact_match_update_fn, batch, loss_dict, None) == expected
    assert matches(exact_match_update_fn, batch, loss_dict, BARE) == expected


def answer(row):
    """The columns that count: up to the first EOS, or up to the last token of a row without."""
    if EOS in row:
        return range(row.index(EOS) + 1)
    return range(len(until_eos(row)))


def share_right(pred, target, columns):
    """How many of the columns that have a target agree; None where there is no column."""
    columns = [c for c in columns if c < len(target) and target[c] != IGNORED]
    right = [(pred[c] if c < len(pred) else PAD) == target[c] for c in columns]
    return sum(right) / len(right) if right else None


def accuracy(update_fn, batches):
    metric = MaskedTokenAccuracy()
    for batch, loss_dict in batches:
        metric.update(**update_fn(batch, loss_dict, TOKENIZER))
    return float(metric.compute())


def check_mean(found, shares):
    shares = [share for share in shares if share is not None]
    if shares:
        # The host adds up in single precision.
        assert found == pytest.approx(sum(shares) / len(shares), abs=1e-6)
    else:
        assert math.isnan(found)


@given(sides(), st.data())
def test_accuracy_of_answers_is_a_mean_over_rows_however_they_are_divided(case, choose):
    pred, target = case
    ids, targets = torch.tensor(pred), torch.tensor(target)
    parts = choose.draw(divisions(len(pred)))
    batches = [
        ({"target_ids": targets[part]}, {"ids": ids[part], "output_start_idx": 0})
        for part in parts
        if part
    ]
    shares = [share_right(p, t, answer(t)) for p, t in zip(pred, target, strict=True)]
    check_mean(accuracy(seq2seq_token_accuracy_update_fn, batches), shares)


@given(sides(st.sampled_from([PAD, EOS, 8, 8, 9, IGNORED])), st.data())
def test_accuracy_of_infilling_counts_what_was_asked_for(case, choose):
    pred, target = case
    pred = [[PAD if t == IGNORED else t for t in row] for row in pred]
    width = choose.draw(st.integers(1, 6))
    row = st.lists(st.sampled_from([MASK, MASK, 8]), min_size=width, max_size=width)
    inputs = choose.draw(st.lists(row, min_size=len(pred), max_size=len(pred)))
    batch = {"input_ids": torch.tensor(inputs), "target_ids": torch.tensor(target)}
    ids = torch.tensor(pred)
    parts = choose.draw(divisions(len(pred)))
    batches = [
        ({name: value[part] for name, value in batch.items()}, {"ids": ids[part]}) for part in parts
    ]
    shares = []
    for p, t, given_row in zip(pred, target, inputs, strict=True):
        asked = [c for c in answer(t) if c < width and given_row[c] == MASK]
        shares.append(share_right(p, t, asked))
    check_mean(accuracy(infill_token_accuracy_update_fn, batches), shares)


scores = st.lists(
    st.tuples(st.floats(0, 1e4, width=32), st.integers(0, 50)), min_size=1, max_size=6
)


@given(scores, st.data())
def test_likelihoods_are_sums_however_they_are_divided(rows, choose):
    rows = [(nll if count else 0.0, count) for nll, count in rows]
    metrics = [SequenceNLL(), BitsPerToken(), Perplexity()]
    for part in choose.draw(divisions(len(rows))):
        nll = torch.tensor([rows[i][0] for i in part])
        count = torch.tensor([rows[i][1] for i in part], dtype=torch.long)
        for metric in metrics:
            metric.update(**likelihood_update_fn({}, {"nll": nll, "num_tokens": count}))
    total, tokens_ = math.fsum(nll for nll, _ in rows), sum(count for _, count in rows)
    found = [float(metric.compute()) for metric in metrics]
    if not tokens_:
        assert all(math.isnan(value) for value in found)
        return
    each = total / tokens_
    overflow = each > math.log(1.7976931348623157e308)
    expected = [
        total / sum(count > 0 for _, count in rows),
        each / math.log(2),
        math.inf if overflow else math.exp(each),
    ]
    # In double precision, however many rows; exp makes a relative error of an absolute one.
    assert found == pytest.approx(expected, rel=1e-9 + 1e-13 * each)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=5))
def test_the_mean_metric_hands_the_loss_on_without_its_graph(values):
    for value in values:
        loss = torch.tensor(value, requires_grad=True)
        found = mean_metric_update_fn({}, {"loss": loss})["value"]
        assert found.item() == value
        assert not found.requires_grad
        assert mean_metric_update_fn({}, {"loss": loss, "batch_loss": value})["value"] == value


@given(sides(st.sampled_from([PAD, BOS, EOS, MASK, 8])), st.booleans())
def test_what_metrics_are_fed_is_left_as_it_was(case, bare):
    pred, target = (torch.tensor(side) for side in case)
    batch = {"target_ids": target, "input_ids": target.clone()}
    loss_dict = {"ids": pred, "output_start_idx": 0}
    before = [value.clone() for value in (target, pred)]
    for update_fn in (
        exact_match_update_fn,
        infill_token_accuracy_update_fn,
        seq2seq_exact_match_update_fn,
        seq2seq_token_accuracy_update_fn,
    ):
        fed = update_fn(batch, loss_dict, BARE if bare else TOKENIZER)
        assert fed["pred"].shape == fed["target"].shape
        assert len(fed["pred"]) == len(pred)
    assert torch.equal(target, before[0])
    assert torch.equal(pred, before[1])
