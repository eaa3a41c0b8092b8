"""State between passes: what begins it, what a pass changes, what finished rows cost."""

import torch

from xlm_mlm.decoding.results import dense_logits
from xlm_mlm.decoding.state import advance, at_work, begin

MASK = 2


def test_masks_are_appended_and_places_count_without_padding():
    x = torch.tensor([[0, 0, 9], [7, 8, 9]])
    state = begin({"input_ids": x, "attention_mask": x != 0}, MASK, 2)
    assert state["x"].tolist() == [[0, 0, 9, 2, 2], [7, 8, 9, 2, 2]]
    assert state["places"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert state["masked"].sum(dim=1).tolist() == [2, 2]
    assert state["done"].tolist() == [False, False]


def test_a_pass_changes_a_copy():
    state = begin({"input_ids": torch.tensor([[MASK, 5, MASK], [MASK, 5, 5]])}, MASK, 0)
    after = advance(state, state["masked"], torch.tensor([2, 3]), torch.tensor([8, 9]), None)
    assert state["x"].tolist() == [[MASK, 5, MASK], [MASK, 5, 5]]
    assert after["x"].tolist() == [[MASK, 5, 8], [9, 5, 5]]
    assert after["done"].tolist() == [False, True]
    assert after["filled"].nonzero().tolist() == [[0, 2], [1, 0]]
    assert after["steps_taken"].tolist() == [1, 1]
    assert after["current_step"] == 1


def test_the_model_sees_the_rows_at_work_only():
    x = torch.tensor([[5, 6], [7, MASK], [8, 9]])
    shared = torch.tensor([[0, 1]])
    batch = {"input_ids": x, "attention_mask": x > 0, "positions": shared}
    inputs = at_work(begin(batch, MASK, 0), torch.tensor([1]))
    assert inputs["x_t"].tolist() == [[7, MASK]]
    assert inputs["attention_mask"].shape == (1, 2)
    assert inputs["positions"] is shared


def test_dense_logits_stand_where_they_belong():
    out = dense_logits(
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 5]), torch.Size([2, 3])
    )
    assert out.shape == (2, 3, 2)
    assert out[0, 1].tolist() == [1, 2]
    assert out[1, 2].tolist() == [3, 4]
    assert out.sum() == 10
