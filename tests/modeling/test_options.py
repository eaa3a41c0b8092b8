"""Options of the network at their limits, one step inside and one outside."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from xlm_mlm.modeling.options import check_ids, check_layer_options, check_sizes, check_width

SIZES = {
    "num_embeddings": 1,
    "d_model": 8,
    "num_layers": 1,
    "nhead": 2,
    "rotary_emb_dim": 4,
    "max_length": 1,
}


@pytest.mark.parametrize(
    "change",
    [{}, {"nhead": 4, "rotary_emb_dim": 2}, {"d_model": 2, "nhead": 1, "rotary_emb_dim": 2}],
)
def test_the_smallest_sizes_are_taken(change):
    check_sizes(**{**SIZES, **change})


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, True, None, "8"])
def test_sizes_are_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be an integer"):
        check_sizes(**{**SIZES, name: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nhead": 3}, "d_model is 8; it must be a multiple of nhead, 3"),
        ({"nhead": 16}, "multiple of nhead, 16"),
        ({"rotary_emb_dim": 6}, "rotary_emb_dim is 6; .* at most the head's size.* = 4"),
        ({"rotary_emb_dim": 3}, "rotary_emb_dim is 3; it must be even"),
        ({"rotary_emb_dim": 1}, "rotary_emb_dim is 1; it must be an integer of at least 2"),
        ({"nhead": 8, "rotary_emb_dim": 2}, "head's size, d_model / nhead = 1"),
    ],
)
def test_sizes_fit_together(change, words):
    with pytest.raises(ValueError, match=words):
        check_sizes(**{**SIZES, **change})


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("epsilon", [1e-30, 1e-5, 1])
@pytest.mark.parametrize("dropout", [0, 0.0, 0.1, 1 - 2**-53])
def test_layers_take_any_dropout_below_one(activation, epsilon, dropout):
    check_layer_options(activation, epsilon, dropout)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("silu", 1e-5, 0.1), "activation is 'silu'; it must be one of 'relu', 'gelu'"),
        ((None, 1e-5, 0.1), "activation is None"),
        (("relu", -1e-9, 0.1), "layer_norm_eps is -1e-09; it must be finite and at least 1e-30"),
        (("relu", 0, 0.1), "layer_norm_eps is 0; it must be finite and at least 1e-30"),
        (("relu", float("inf"), 0.1), "layer_norm_eps is inf"),
        (("relu", float("nan"), 0.1), "layer_norm_eps is nan"),
        (("relu", 1e-5, 1), "dropout is 1; it must be at least 0 and below 1"),
        (("relu", 1e-5, -0.1), "dropout is -0.1"),
        (("relu", 1e-5, float("nan")), "dropout is nan"),
        (("relu", 1e-5, True), "dropout is True"),
    ],
)
def test_other_layers_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        check_layer_options(*options)


def test_sizes_beyond_all_use_are_refused_by_name():
    check_sizes(**{**SIZES, "num_embeddings": 2**31 - 1, "max_length": 2**31 - 1})
    for name in SIZES:
        with pytest.raises(ValueError, match=f"{name} is {2**62}; it must be .* at most"):
            check_sizes(**{**SIZES, name: 2**62})
    with pytest.raises(ValueError, match="dim_feedforward is .* at most 16777216"):
        check_width("dim_feedforward", 2**24 + 1)


def test_what_is_checked_comes_back_as_python_s_own():
    sizes = check_sizes(**{name: np.uint8(value) for name, value in SIZES.items()})
    assert sizes == (1, 8, 1, 2, 4, 1)
    options = check_layer_options(np.str_("gelu"), Fraction(1, 4), torch.tensor(0.5))
    assert options == ("gelu", 0.25, 0.5)
    ids = check_ids(5, np.int8(3), torch.tensor(4))
    assert ids == (3, 4)
    own = [type(value) for value in (*sizes, *options, *ids)]
    assert own == [*[int] * 6, str, float, float, int, int]


def test_ids_may_be_the_first_and_the_last():
    check_ids(2, 0, 1)
    check_ids(2, 1, 0)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ((5, 5, 0), "padding_idx is 5; it must be below num_embeddings, 5"),
        ((5, 0, 5), "mask_idx is 5; it must be below num_embeddings, 5"),
        ((5, -1, 0), "padding_idx is -1; it must be an integer of at least 0"),
        ((5, 0, None), "mask_idx is None"),
        ((5, 3, 3), "padding_idx and mask_idx are both 3; they must differ"),
    ],
)
def test_other_ids_are_refused(ids, words):
    with pytest.raises(ValueError, match=words):
        check_ids(*ids)
