"""What the metrics are fed, alone and through the host's own metrics."""

from types import SimpleNamespace

import pytest
import torch
from torch import tensor
from xlm.metrics import ExactMatch, MetricWrapper

from xlm_mlm.metrics_mlm import (
    MaskedTokenAccuracy,
    exact_match_update_fn,
    infill_token_accuracy_update_fn,
    mean_metric_update_fn,
    seq2seq_exact_match_update_fn,
    seq2seq_token_accuracy_update_fn,
)

PAD, MASK, EOS, BOS = 0, 2, 3, 4
ONE_TOKEN_ENDS = SimpleNamespace(
    pad_token_id=5, mask_token_id=MASK, bos_token_id=EOS, eos_token_id=EOS
)
BARE = SimpleNamespace(pad_token_id=None, mask_token_id=MASK, bos_token_id=None, eos_token_id=None)


def naive_until_eos(row):
    """The row as compared: nothing after its first EOS, no padding at its end."""
    row = row[: row.index(EOS) + 1] if EOS in row else row
    while row and row[-1] == PAD:
        row = row[:-1]
    return row


def exact(update_fn, batch, loss_dict, tokenizer):
    metric = ExactMatch()
    metric.update(**update_fn(batch, loss_dict, tokenizer))
    return metric._computed_value.tolist()


def accuracy(update_fn, batch, loss_dict, tokenizer):
    metric = MaskedTokenAccuracy()
    metric.update(**update_fn(batch, loss_dict, tokenizer))
    return float(metric.compute())


def random_rows(rows, width):
    return torch.tensor([PAD, EOS, 10])[torch.randint(3, (rows, width))]


@pytest.mark.parametrize("widths", [(4, 4), (5, 3), (3, 5)])
def test_exact_match_as_a_loop_would(tokenizer, widths):
    pred, target = random_rows(400, widths[0]), random_rows(400, widths[1])
    expected = [
        float(naive_until_eos(p) == naive_until_eos(t))
        for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    assert 0 < sum(expected) < 400
    batch, loss_dict = {"target_ids": target}, {"ids": pred}
    assert exact(exact_match_update_fn, batch, loss_dict, tokenizer) == expected
    prompt = torch.full((400, 2), 9)
    loss_dict = {"ids": torch.cat([prompt, pred], 1), "output_start_idx": 2}
    assert exact(seq2seq_exact_match_update_fn, batch, loss_dict, tokenizer) == expected


def test_exact_match_ignores_what_follows_eos(tokenizer):
    batch = {"target_ids": tensor([[BOS, 10, EOS, PAD, PAD]] * 3)}
    ids = tensor([[BOS, 10, EOS, 11, 12], [BOS, 10, EOS, EOS, MASK], [BOS, 11, EOS, PAD, PAD]])
    assert exact(exact_match_update_fn, batch, {"ids": ids}, tokenizer) == [1, 1, 0]
    assert exact(exact_match_update_fn, batch, {"ids": ids}, None) == [0, 0, 0]


def test_unequal_widths_never_match_by_accident(tokenizer):
    batch = {"target_ids": tensor([[10], [10], [10]])}
    ids = tensor([[10, PAD], [10, 10], [10, 11]])
    # Padding at the end is the end with a tokenizer; without one nothing says what padding is.
    assert exact(exact_match_update_fn, batch, {"ids": ids}, tokenizer) == [1, 0, 0]
    assert exact(exact_match_update_fn, batch, {"ids": ids}, None) == [0, 0, 0]
    assert exact(exact_match_update_fn, batch, {"ids": ids}, BARE) == [0, 0, 0]
    found = exact_match_update_fn(batch, {"ids": ids})
    assert found["pred"].shape == found["target"].shape == (3, 2)
    assert found["pred_length"] is found["target_length"] is None


def test_minus_100_reads_as_padding(tokenizer):
    batch = {"target_ids": tensor([[10, EOS, -100], [10, 11, -100]])}
    ids = tensor([[10, EOS, 7], [10, 11, PAD]])
    assert exact(exact_match_update_fn, batch, {"ids": ids}, tokenizer) == [1, 1]


def test_a_bos_that_is_the_eos_token_does_not_end_the_row():
    batch = {"target_ids": tensor([[EOS, 10, EOS, 5], [EOS, 10, EOS, 5]])}
    ids = tensor([[EOS, 10, EOS, 9], [EOS, 11, EOS, 5]])
    assert exact(exact_match_update_fn, batch, {"ids": ids}, ONE_TOKEN_ENDS) == [1, 0]
    batch["input_ids"] = tensor([[EOS, MASK, MASK, 5]] * 2)
    score = accuracy(infill_token_accuracy_update_fn, batch, {"ids": ids}, ONE_TOKEN_ENDS)
    assert score == pytest.approx((1 + 1 / 2) / 2)


@pytest.mark.parametrize("start", [2, tensor(2), tensor([2, 2])])
def test_seq2seq_compares_the_generated_part(tokenizer, start):
    batch = {"input_ids": tensor([[10, BOS]] * 2), "target_ids": tensor([[11, EOS, PAD]] * 2)}
    ids = tensor([[10, BOS, 11, EOS, 12], [10, BOS, 11, 12, EOS]])
    loss_dict = {"ids": ids, "output_start_idx": start}
    assert exact(seq2seq_exact_match_update_fn, batch, loss_dict, tokenizer) == [1, 0]
    # Two target tokens count; the first row has both, the second one.
    score = accuracy(seq2seq_token_accuracy_update_fn, batch, loss_dict, tokenizer)
    assert score == pytest.approx((1 + 1 / 2) / 2)
    found = seq2seq_token_accuracy_update_fn(batch, loss_dict)
    assert found["pred_mask"].all()
    assert found["pred"].tolist() == [[11, EOS, 12], [11, 12, EOS]]


def test_seq2seq_with_nothing_generated(tokenizer):
    batch = {"target_ids": tensor([[11, EOS]])}
    loss_dict = {"ids": tensor([[10, BOS]]), "output_start_idx": 2}
    assert exact(seq2seq_exact_match_update_fn, batch, loss_dict, tokenizer) == [0]
    assert accuracy(seq2seq_token_accuracy_update_fn, batch, loss_dict, tokenizer) == 0


def test_padding_of_answers_without_eos_does_not_count(tokenizer):
    batch = {"target_ids": tensor([[11, PAD, 12, PAD, PAD], [11, EOS, 9, 9, 9]])}
    loss_dict = {"ids": tensor([[11, 1, 12, PAD, PAD]] * 2), "output_start_idx": 0}
    found = seq2seq_token_accuracy_update_fn(batch, loss_dict, tokenizer)
    assert found["pred_mask"].tolist() == [[True] * 3 + [False] * 2, [True] * 2 + [False] * 3]


def test_padding_before_minus_100_does_not_count_either(tokenizer):
    batch = {"target_ids": tensor([[11, PAD, PAD, -100], [11, 12, -100, PAD]])}
    loss_dict = {"ids": tensor([[11, PAD, PAD, PAD]] * 2), "output_start_idx": 0}
    found = seq2seq_token_accuracy_update_fn(batch, loss_dict, tokenizer)
    assert found["pred_mask"].tolist() == [[True] + [False] * 3, [True] * 2 + [False] * 2]


def test_infilling_counts_what_was_masked_up_to_eos(tokenizer):
    batch = {
        "input_ids": tensor([[BOS, MASK, 10, MASK, MASK, MASK]]),
        "target_ids": tensor([[BOS, 11, 10, 12, EOS, PAD]]),
    }
    loss_dict = {"ids": tensor([[BOS, 11, 9, 13, EOS, 14]])}
    found = infill_token_accuracy_update_fn(batch, loss_dict, tokenizer)
    assert found["pred_mask"].tolist() == [[False, True, False, True, True, False]]
    score = accuracy(infill_token_accuracy_update_fn, batch, loss_dict, tokenizer)
    assert score == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "widths", [(4, 4, 2), (4, 2, 4), (6, 4, 4), (4, 6, 4), (4, 4, 6), (2, 5, 4)]
)
def test_infilling_with_unequal_widths(tokenizer, widths):
    shapes = dict(zip(("ids", "input_ids", "target_ids"), widths, strict=True))
    ids = torch.full((2, shapes["ids"]), 10)
    batch = {
        "input_ids": torch.full((2, shapes["input_ids"]), MASK),
        "target_ids": torch.full((2, shapes["target_ids"]), 10),
    }
    found = infill_token_accuracy_update_fn(batch, {"ids": ids}, tokenizer)
    counted = min(shapes["input_ids"], shapes["target_ids"])
    assert found["pred_mask"].sum(dim=1).tolist() == [counted] * 2
    assert found["pred"].shape == found["target"].shape == found["pred_mask"].shape
    assert found["pred"].shape == (2, max(widths))


def test_what_widens_a_row_is_equal_to_no_token():
    """Not to token 0 either, which may be the mask token, or any other."""
    mask_is_0 = SimpleNamespace(mask_token_id=0, pad_token_id=9)
    batch = {"input_ids": tensor([[0]]), "target_ids": tensor([[11, 12]])}
    found = infill_token_accuracy_update_fn(batch, {"ids": tensor([[11, 12]])}, mask_is_0)
    assert found["pred_mask"].tolist() == [[True, False]]
    for pred, target in (([[11]], [[11, 0]]), ([[11, 0]], [[11]])):
        batch = {"target_ids": tensor(target)}
        loss_dict = {"ids": tensor(pred), "output_start_idx": 0}
        assert exact(exact_match_update_fn, batch, loss_dict, None) == [0]
        assert accuracy(seq2seq_token_accuracy_update_fn, batch, loss_dict, None) == 0.5


def test_minus_100_counts_nowhere():
    batch = {"target_ids": tensor([[-100, 11, -100, 12]])}
    loss_dict = {"ids": tensor([[11, 11, 11, 11]]), "output_start_idx": 0}
    found = seq2seq_token_accuracy_update_fn(batch, loss_dict, None)
    assert found["pred_mask"].tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("bos", [BOS, EOS])
def test_an_answer_may_begin_with_its_end(bos):
    """Only a whole row can begin with an EOS that is a BOS; a generated part can not."""
    tokenizer = SimpleNamespace(pad_token_id=PAD, bos_token_id=bos, eos_token_id=EOS)
    batch = {"target_ids": tensor([[EOS, 12, EOS]])}
    loss_dict = {"ids": tensor([[10, EOS, 13, EOS]]), "output_start_idx": 1}
    assert exact(seq2seq_exact_match_update_fn, batch, loss_dict, tokenizer) == [1]
    found = seq2seq_token_accuracy_update_fn(batch, loss_dict, tokenizer)
    assert found["pred_mask"].tolist() == [[True, False, False]]


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4), None), ((2, 3), (2, 3), (2, 4))])
def test_an_accuracy_is_of_equal_shapes(shapes):
    given = [None if shape is None else torch.ones(shape, dtype=torch.long) for shape in shapes]
    with pytest.raises(ValueError, match=r"have shapes .*\(2, 4\).*; they must be equal"):
        MaskedTokenAccuracy().update(*given)


def test_rows_with_nothing_to_count_are_skipped():
    metric = MaskedTokenAccuracy()
    pred, target = tensor([[1, 2], [1, 2], [9, 9]]), tensor([[1, 2], [1, 3], [1, 2]])
    metric.update(pred, target, tensor([[True, True], [True, True], [False, False]]))
    metric.update(pred[2:], target[2:], tensor([[False, False]]))
    assert float(metric.compute()) == pytest.approx(0.75)
    metric.reset()
    metric.update(pred, target)
    assert float(metric.compute()) == pytest.approx(0.5)


def test_the_mean_metric_takes_either_loss():
    loss = tensor(2.0, requires_grad=True)
    value = mean_metric_update_fn({}, {"loss": loss})["value"]
    assert float(value) == 2
    assert not value.requires_grad
    assert mean_metric_update_fn({}, {"loss": loss, "batch_loss": tensor(3.0)})["value"] == 3
    assert mean_metric_update_fn({}, {"loss": 2.5}) == {"value": 2.5}
    for loss_dict in ({}, {"loss": None}):
        with pytest.raises(KeyError, match="'loss'"):
            mean_metric_update_fn({}, loss_dict)


def test_through_the_hosts_wrapper(tokenizer):
    batch = {
        "input_ids": tensor([[BOS, MASK, EOS], [BOS, 10, EOS]]),
        "target_ids": tensor([[BOS, 11, EOS], [BOS, 10, EOS]]),
    }
    loss_dict = {"ids": tensor([[BOS, 12, EOS], [BOS, 10, EOS]])}
    exact_match = MetricWrapper(
        "exact_match", ExactMatch(), "xlm_mlm.metrics_mlm.exact_match_update_fn"
    )
    assert exact_match.update(batch, loss_dict, tokenizer) is loss_dict
    assert exact_match._computed_value.tolist() == [0, 1]
    accuracies = MetricWrapper(
        "accuracy", MaskedTokenAccuracy(), "xlm_mlm.metrics_mlm.infill_token_accuracy_update_fn"
    )
    accuracies.update(batch, loss_dict, tokenizer)
    assert float(accuracies.compute()) == 0


def test_batch_and_prediction_stay_as_they_are(tokenizer):
    batch = {"input_ids": random_rows(5, 6), "target_ids": random_rows(5, 6)}
    loss_dict = {"ids": random_rows(5, 8), "output_start_idx": tensor([2] * 5)}
    before = [value.clone() for value in (*batch.values(), *loss_dict.values())]
    for update_fn in (
        exact_match_update_fn,
        infill_token_accuracy_update_fn,
        seq2seq_exact_match_update_fn,
        seq2seq_token_accuracy_update_fn,
    ):
        update_fn(batch, loss_dict, tokenizer)
    after = (*batch.values(), *loss_dict.values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "start", [tensor([1, 2]), 5, -1, 1.5, tensor([]), tensor([1j]), tensor([True]), True]
)
def test_bad_starts(tokenizer, start):
    batch = {"target_ids": tensor([[10], [10]])}
    loss_dict = {"ids": tensor([[9, 10], [9, 10]]), "output_start_idx": start}
    for update_fn in (seq2seq_exact_match_update_fn, seq2seq_token_accuracy_update_fn):
        with pytest.raises(ValueError, match="output_start_idx is"):
            update_fn(batch, loss_dict, tokenizer)


@pytest.mark.parametrize(
    "update_fn",
    [
        exact_match_update_fn,
        infill_token_accuracy_update_fn,
        seq2seq_exact_match_update_fn,
        seq2seq_token_accuracy_update_fn,
    ],
)
def test_bad_input(tokenizer, update_fn):
    batch = {"input_ids": tensor([[2]]), "target_ids": tensor([[10]])}
    loss_dict = {"ids": tensor([[10]]), "output_start_idx": 0}
    with pytest.raises(KeyError, match="the batch has no 'target_ids'"):
        update_fn({"input_ids": tensor([[2]])}, loss_dict, tokenizer)
    with pytest.raises(KeyError, match="the prediction has no 'ids'"):
        update_fn(batch, {"output_start_idx": 0}, tokenizer)
    with pytest.raises(ValueError, match="2 predicted rows and 1 targets"):
        update_fn(batch, {**loss_dict, "ids": tensor([[10], [10]])}, tokenizer)
    for wrong, found in (
        (tensor([10]), r"torch.int64 \(1,\)"),
        (tensor([[1.0]]), r"torch.float32 \(1, 1\)"),
        ([[10]], "list"),
    ):
        words = f"^target_ids is {found}; it must be an integer tensor of shape"
        with pytest.raises(ValueError, match=words):
            update_fn({**batch, "target_ids": wrong}, loss_dict, tokenizer)


def test_infilling_needs_to_know_the_mask():
    batch = {"input_ids": tensor([[2]]), "target_ids": tensor([[10]])}
    with pytest.raises(ValueError, match="no tokenizer was given; one with a mask token"):
        infill_token_accuracy_update_fn(batch, {"ids": tensor([[10]])})
