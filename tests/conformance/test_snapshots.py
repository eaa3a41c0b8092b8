"""What is said of a dict that has changed."""

import pytest
import torch

from xlm_mlm.conformance.snapshots import changes, snapshot


def _batch():
    return {
        "ids": torch.arange(6).view(2, 3),
        "nan": torch.tensor([float("nan"), 1.0]),
        "sparse": torch.eye(3).to_sparse(),
        "none": None,
        "names": ["a", "b"],
        "rows": [torch.zeros(2), torch.ones(2)],
    }


def test_nothing_changes():
    batch = _batch()
    assert changes(snapshot(batch), batch) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda b: b["ids"].__setitem__((1, 2), 9),
            "ids changed at 1 of 6 places, first at [1, 2]",
        ),
        (lambda b: b["nan"].__setitem__(0, 0.0), "nan changed at 1 of 2 places, first at [0]: nan"),
        (lambda b: b.update(ids=b["ids"].float()), "ids is torch.float32 (2, 3), before torch.int"),
        (lambda b: b.update(ids=b["ids"][:, 1:]), "ids is torch.int64 (2, 2), before torch.int64"),
        (lambda b: b.update(sparse=(2 * torch.eye(3)).to_sparse()), "sparse changed at 3 of 9"),
        (lambda b: b.update(none=1), "none is 1, before None"),
        (lambda b: b.update(ids=None), "ids is NoneType, before a tensor"),
        (lambda b: b.pop("names"), "names is gone"),
        (lambda b: b.update(more=1), "more is new"),
        (lambda b: b["names"].append("c"), "names has 3 entries, before 2"),
        (lambda b: b["rows"][1].zero_(), "rows[1] changed at 2 of 2 places"),
    ],
)
def test_a_change_is_said(change, said):
    batch = _batch()
    before = snapshot(batch)
    change(batch)
    [found] = changes(before, batch)
    assert found.startswith(said)
