"""Tokens that may be produced: how they can be named, and what is refused."""

import pytest
import torch
from omegaconf import OmegaConf

from xlm_mlm.sampling.constraints import AllowedTokens, booleans_at, forbid, token_ids

V = 27
X = torch.full((2, 5), 2)
FLAT = torch.tensor([0, 2, 3, 6, 9])
PLACES = FLAT % 5


def allowed(given, tokenizer=None, x=X, flat=FLAT, places=PLACES):
    may = AllowedTokens(given).at(x, flat, places, tokenizer, V)
    return [line.nonzero().flatten().tolist() for line in may.expand(len(flat), V)]


def test_tokens_are_ids_or_as_the_tokenizer_writes_them(tokenizer):
    assert token_ids([3, "5", "[EOS]"], tokenizer, "suppress_tokens") == [3, 12, 3]
    assert token_ids((), None, "suppress_tokens") == []


def test_a_list_holds_everywhere(tokenizer):
    assert allowed(["1", 3], tokenizer) == [[3, 8]] * 5
    assert allowed(OmegaConf.create(["1", 3]), tokenizer) == [[3, 8]] * 5


@pytest.mark.parametrize("wrap", [dict, OmegaConf.create])
def test_a_mapping_holds_where_it_says(tokenizer, wrap):
    rest = [n for n in range(V)]
    given = {"1:3": ["0"], 4: ["1", "2"]}
    assert allowed(wrap(given), tokenizer) == [rest, [7], rest, [7], [8, 9]]
    given = {"1:3": [5], 3: [6], "0:1": [7], "4:": [8]}
    assert allowed(wrap(given), tokenizer) == [[7], [5], [6], [5], [8]]
    given = {":1": [5], "3:": [6], "others": [7]}
    assert allowed(wrap(given), tokenizer) == [[5], [7], [6], [7], [6]]


def test_positions_are_counted_without_padding(tokenizer):
    places = torch.tensor([0, 0, 1, 0, 3])
    assert allowed({0: [5], "others": [6]}, tokenizer, places=places) == [[5], [5], [6], [5], [6]]


def test_booleans_by_token_by_column_and_by_row():
    by_token = torch.arange(V) == 4
    assert allowed(by_token) == [[4]] * 5
    by_column = torch.arange(V) == torch.arange(5)[:, None] + 10
    assert allowed(by_column) == [[10], [12], [13], [11], [14]]
    by_row = torch.stack((by_column, ~by_column))
    found = booleans_at(by_row, "allowed_tokens", X.shape, FLAT, V)
    assert torch.equal(found, torch.stack([by_row[f // 5, f % 5] for f in FLAT.tolist()]))


def test_an_empty_list_allows_nothing(tokenizer):
    assert allowed([]) == [[]] * 5
    assert allowed({2: [], "others": [3]}) == [[3], [], [3], [3], [3]]
    assert AllowedTokens([3]).at(X, FLAT, PLACES, None, V).dtype == torch.bool


def test_a_table_must_be_one():
    with pytest.raises(ValueError, match=r"^mine is \[True\]; it must be a boolean tensor"):
        booleans_at([True], "mine", X.shape, FLAT, V)


def test_a_callable_sees_the_rows():
    seen = []

    def as_the_first(x, flat):
        seen.append((x, flat))
        return torch.arange(V) == x[flat // 5, 0][:, None]

    x = torch.tensor([[3, 0, 0, 0, 0], [9, 0, 0, 0, 0]])
    assert allowed(as_the_first, x=x) == [[3], [3], [3], [9], [9]]
    assert torch.equal(seen[0][0], x)
    assert torch.equal(seen[0][1], FLAT)


def test_a_table_is_made_anew_for_another_tokenizer(tokenizer):
    class Other:
        unk_token_id = None

        def convert_tokens_to_ids(self, token):
            return 1

    one = AllowedTokens(["5"])
    for reader, expected in ((tokenizer, 12), (Other(), 1), (tokenizer, 12)):
        assert one.at(X, FLAT, PLACES, reader, V).nonzero()[:, 1].tolist() == [expected]


def test_what_is_forbidden_has_probability_0():
    logits = torch.randn(3, V)
    before = logits.clone()
    may = torch.rand(3, V, generator=torch.Generator().manual_seed(1)) < 0.5
    p = forbid(logits, may, torch.arange(3)).softmax(-1)
    assert (p[~may] == 0).all()
    for line in range(3):
        expected = before[line][may[line]].softmax(-1)
        assert torch.allclose(p[line][may[line]], expected)


def test_a_position_without_a_token_is_an_error():
    may = torch.ones(3, V, dtype=torch.bool)
    may[1] = False
    with pytest.raises(ValueError, match=r"at 1 of 3 positions, the first in column 7"):
        forbid(torch.randn(3, V), may, torch.tensor([4, 7, 8]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("1 2 3", "allowed_tokens is '1 2 3'"),
        ({}, "allowed_tokens is an empty mapping"),
        ({"0:4": [1], "3:6": [2]}, "position 3 twice"),
        ({"2:2": [1]}, "names the position '2:2'"),
        ({"1:3:5": [1]}, "names the position '1:3:5'"),
        ({0: {1: 2}}, "is {1: 2}; it must be a list"),
        ({0: 5}, "is 5; it must be a list"),
        (torch.ones(2, 5, V, dtype=torch.bool), r"is torch.bool of shape \(2, 5, 27\)"),
        (lambda x, flat: torch.ones(5, V), r"returned \(5, 27\); it must return booleans"),
        (3, "allowed_tokens is 3"),
        ({"1:4": [1], 3: [2]}, "position 3 twice"),
        ({"3:1": [1]}, "names the position '3:1'"),
        ({-1: [1]}, "names the position -1"),
        ({True: [1]}, "names the position True"),
        ({"first": [1]}, "names the position 'first'"),
        ({0: "12"}, "it must be a list"),
        ([27], "names token 27; the model's vocabulary is 27"),
        ([-1], "a token of allowed_tokens is -1"),
        ([1.5], "a token of allowed_tokens is 1.5"),
        (["99"], "names '99', which is no token"),
        (torch.ones(V), "is torch.float32"),
        (torch.ones(26, dtype=torch.bool), r"has shape \(26,\)"),
        (torch.ones(4, V, dtype=torch.bool), r"has shape \(4, 27\)"),
        (lambda x, flat: torch.ones(2, V, dtype=torch.bool), r"returned \(2, 27\)"),
        (lambda x, flat: None, "returned NoneType"),
    ],
)
def test_what_is_no_such_thing_is_refused(tokenizer, given, words):
    with pytest.raises(ValueError, match=words):
        allowed(given, tokenizer)


def test_text_needs_a_tokenizer():
    with pytest.raises(ValueError, match="there is no tokenizer"):
        allowed(["5"])


@pytest.mark.parametrize("given", [lambda: 1, lambda x: x, lambda x, flat, more: x])
def test_a_callable_that_does_not_take_rows_and_places_is_refused(given):
    with pytest.raises(ValueError, match=r"can't be called: .*; it must take two arguments, the"):
        AllowedTokens(given)


def test_a_callable_whose_arguments_are_not_known_is_taken():
    AllowedTokens(dict)
    AllowedTokens(lambda *both: both)
