"""Boards: which cells make one, where they are in a row, and how one is drawn."""

import pytest

from xlm_mlm.boards import board_of, draw, is_board

GRID = [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]


def test_squares_of_square_boxes():
    assert [count for count in range(700) if is_board(["1"] * count)] == [16, 81, 256, 625]


def test_a_board_is_ruled_into_boxes():
    assert draw([str(d) for d in GRID]) == [
        " 1 2 | 3 4 ",
        " 3 4 | 1 2 ",
        "-----+-----",
        " 2 1 | 4 3 ",
        " 4 3 | 2 1 ",
    ]


def test_larger_boards_are_drawn_whole():
    nine = draw([str(number % 9 + 1) for number in range(81)])
    assert len(nine) == 9 + 2
    assert nine[:4] == [" 1 2 3 | 4 5 6 | 7 8 9 "] * 3 + ["-------+-------+-------"]
    sixteen = draw([str(number % 16 + 1) for number in range(256)])
    assert len(sixteen) == 16 + 3
    assert sixteen[0].split("|")[1:3] == ["  5  6  7  8 ", "  9 10 11 12 "]
    assert len({len(line) for line in sixteen}) == 1


@pytest.mark.parametrize("count", [0, 1, 15, 25, 36, 82])
def test_no_board(count):
    with pytest.raises(ValueError, match=f"has {count} cells; it must have 16, 81"):
        draw(["1"] * count)


def test_cells_are_found_among_other_tokens():
    digits = [str(d) for d in GRID]
    assert board_of(digits) == list(range(16))
    assert board_of(["[BOS]", *digits, "[EOS]", "[PAD]"]) == list(range(1, 17))


def test_blanks_are_cells():
    cells = ["[MASK]", *map(str, GRID[1:])]
    assert board_of(["[BOS]", *cells], blanks=["[MASK]"]) == list(range(1, 17))
    assert board_of(["[BOS]", *cells]) is None
    assert board_of(["[MASK]"] * 16, blanks=["[MASK]"]) == list(range(16))


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["a"] * 16,
        ["1"] * 15,
        [str(d) for d in range(5)] * 3 + ["1"],  # five kinds in a row of four
        ["-1"] * 16,
        ["the", "7", "dwarfs"],  # a board of one cell is none
        [*"1111 1111 1111 1111"],  # a text that has sixteen digits
        ["1.5"] * 16,
    ],
)
def test_rows_that_are_no_boards(texts):
    assert board_of(texts) is None
