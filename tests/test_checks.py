"""Shared checks: each message gives the value, the rule and what would be right."""

import pytest

from xlm_mlm.checks import require_choice, require_field, require_int, require_token_id


def test_what_is_right_is_returned(tokenizer):
    assert require_token_id(tokenizer, "mask", "test") == 2
    assert require_int("n", 3, 1) == 3
    assert require_choice("mode", "b", ("a", "b")) == "b"
    assert require_field({"x": [1]}, "x", 0, "test") == [1]


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
