"""Weights of the loss that would make NaN of it, or count a term more than once, are refused."""

import math

import pytest
import torch

from xlm_mlm.modeling.asking import check_target_weights

TARGETS = torch.tensor([3, 4])


@pytest.mark.parametrize(
    "weights", [None, torch.tensor([0.0, -1.0]), torch.tensor([1, 2]), torch.full((2,), 3e38)]
)
def test_finite_weights_are_taken(weights):
    check_target_weights(weights, TARGETS)


@pytest.mark.parametrize(
    ("weights", "targets", "words"),
    [
        (torch.tensor([1.0, math.nan]), TARGETS, "hold 1 of 2 that are NaN or infinite"),
        (torch.tensor([-math.inf, math.inf]), TARGETS, "hold 2 of 2 that are NaN or infinite"),
        ([1.0, 2.0], TARGETS, r"target_weights are \[1.0, 2.0\]; they must be a tensor"),
        (torch.tensor([1j, 2j]), TARGETS, "they must be a tensor of numbers"),
        (torch.ones(1), TARGETS, r"shape \(1,\) and targets are of shape \(2,\)"),
        (torch.ones(2), None, r"shape \(2,\) and targets are None"),
    ],
)
def test_other_weights_are_refused(weights, targets, words):
    with pytest.raises(ValueError, match=words):
        check_target_weights(weights, targets)
