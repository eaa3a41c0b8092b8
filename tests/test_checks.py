"""Shared checks: each message gives the value, the rule and what would be right."""

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from xlm_mlm.checks import (
    plain,
    require_bool,
    require_choice,
    require_field,
    require_int,
    require_mapping,
    require_number,
    require_path,
    require_token_id,
    shown,
)


def test_what_is_right_is_returned(tokenizer):
    assert require_token_id(tokenizer, "mask", "test") == 2
    assert require_int("n", 3, 1) == 3
    assert require_choice("mode", "b", ("a", "b")) == "b"
    assert require_field({"x": [1]}, "x", 0, "test") == [1]
    assert require_number("x", np.float32(0.5), 0, "a number") == 0.5
    assert require_path("file", "a/b") == Path("a/b")
    assert require_mapping("the batch", {"x": 1}, "tensors") == {"x": 1}


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_integers_below_the_minimum_or_of_another_kind_are_refused(value):
    with pytest.raises(ValueError, match="n is .*; it must be an integer of at least 1"):
        require_int("n", value, 1)


def test_a_missing_token_is_named_with_its_use_and_its_cure():
    class Bare:
        eos_token_id = None

    with pytest.raises(
        ValueError, match=r"Bare has no eos token .* to end a row\. Add one.*\[EOS\]"
    ):
        require_token_id(Bare(), "eos", "end a row")
    with pytest.raises(ValueError, match="no tokenizer was given"):
        require_token_id(None, "eos", "end a row")


def test_an_unknown_choice_lists_the_known_ones():
    with pytest.raises(ValueError, match="mode is 'c'; it must be one of 'a', 'b'"):
        require_choice("mode", "c", ("a", "b"))


def test_a_missing_field_lists_the_fields_there_are():
    with pytest.raises(KeyError, match="'x', which row 3 .* its fields: y, z"):
        require_field({"z": 1, "y": 2}, "x", 3, "test")


def test_integers_beyond_a_bound_are_refused_with_the_bound():
    assert require_int("n", 2**63 - 1, 1) == 2**63 - 1
    assert require_int("n", 10**30, 1, None) == 10**30
    with pytest.raises(ValueError, match="at least 1 and at most 9223372036854775807"):
        require_int("n", 2**63, 1)
    with pytest.raises(ValueError, match="n is 9; it must be .* at most 8"):
        require_int("n", 9, 1, 8)


NO_NUMBERS = [
    "0.9",
    True,
    np.bool_(True),
    np.array(True),
    torch.tensor(True),
    None,
    1j,
    np.array(1j),
    torch.tensor(1j),
    [0.5],
    np.array([0.5]),
    torch.tensor([0.5]),
    torch.zeros((), device="meta"),
    Decimal("0.5"),
]


@pytest.mark.parametrize("value", [10**400, math.nan, math.inf, -1, torch.tensor(math.nan)])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="^p is .*; it must be from 0 to 1$"):
        require_number("p", value, 0, "from 0 to 1")


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused_as_such(value):
    with pytest.raises(ValueError, match="^p is .*; it must be a number from 0 to 1$"):
        require_number("p", value, 0, "from 0 to 1")
    with pytest.raises(ValueError, match="; it must be a number between 0 and 1$"):
        require_number("p", value, 0, "a number between 0 and 1")


NUMBERS = [
    Fraction(1, 2),
    np.float16(0.5),
    np.array(0.5),
    torch.tensor(0.5),
    torch.tensor(0.5, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_of_every_kind_come_back_as_python_s(value):
    number = require_number("p", value, 0, "from 0 to 1")
    assert (number, type(number)) == (0.5, float)
    assert (plain(value), type(plain(value))) == (0.5, float)


@pytest.mark.parametrize("value", [np.uint8(3), np.array(3), torch.tensor(3)], ids=repr)
def test_integers_of_every_kind_come_back_as_python_s(value):
    for number in (require_int("n", value, 1), plain(value)):
        assert (number, type(number)) == (3, int)
    assert require_number("p", value, 0, "at least 0") == 3.0


@pytest.mark.parametrize("value", [torch.tensor(True), np.array(True)], ids=repr)
def test_a_boolean_is_no_integer_in_a_tensor_either(value):
    with pytest.raises(ValueError, match="n is .*True.*; it must be an integer"):
        require_int("n", value, 0)


def test_what_is_no_number_stays_what_it_is():
    for value in (None, True, "1", [1], torch.ones(2), torch.tensor(True), Decimal(1)):
        assert plain(value) is value
    assert plain(np.bool_(True)) is True


def test_a_choice_comes_back_as_it_is_listed():
    assert require_choice("packed", 1, (True, False)) is True
    assert type(require_choice("mode", np.str_("a"), ("a", "b"))) is str


@pytest.mark.parametrize("value", [True, False, np.bool_(True), np.bool_(False)])
def test_booleans_come_back_as_python_s(value):
    assert require_bool("flag", value) is bool(value)


@pytest.mark.parametrize("value", ["false", "", 0, 1, None, [], np.array([True]), np.float32(1)])
def test_what_is_merely_true_or_false_in_an_if_is_refused(value):
    with pytest.raises(ValueError, match="^flag is .*; it must be true or false$"):
        require_bool("flag", value)


@pytest.mark.parametrize("value", [np.array([1, 2]), torch.tensor([1, 2]), [1], {}, None])
def test_choices_are_compared_with_anything(value):
    with pytest.raises(ValueError, match="mode is .*; it must be one of 'a', 'b'"):
        require_choice("mode", value, ("a", "b"))


@pytest.mark.parametrize("value", [None, 3, ["a"], True, ""])
def test_paths_and_mappings_are_nothing_else(value):
    with pytest.raises(ValueError, match="file is .*; it must be a path"):
        require_path("file", value)
    with pytest.raises(ValueError, match="the batch is .*; it must be a mapping of tensors"):
        require_mapping("the batch", value, "tensors")
    with pytest.raises(ValueError, match=r"row 2 .* that C was given is .*; it must be a mapping"):
        require_field(value, "x", 2, "C")


def test_values_are_shown_on_one_short_line():
    assert shown("a") == "'a'"
    assert shown(torch.zeros(2, 2)) == "tensor([[0., 0.], [0., 0.]])"
    assert len(shown("x" * 10**6)) < 250
    # Python writes no number of so many digits.
    assert shown(10**5000) == "a value of type int, which can't be shown"
