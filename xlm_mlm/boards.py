"""Square boards of square boxes, such as sudoku: which cells make one, and how it is drawn."""

import math
from collections.abc import Sequence

Board = list[str]


def is_board(cells: Board) -> bool:
    """Whether the cells fill a square of square boxes, of four cells or more each."""
    return len(cells) >= 16 and math.isqrt(math.isqrt(len(cells))) ** 4 == len(cells)


def draw(cells: Board) -> list[str]:
    """The lines of a board, boxes ruled off.

    Args:
        cells: what stands in each cell, row by row: 16 for a side of 4, 81 for one of 9.

    Raises:
        ValueError: the cells fill no square of square boxes.
    """
    side = math.isqrt(len(cells))
    box = math.isqrt(side)
    if not is_board(cells):
        raise ValueError(
            f"a board has {len(cells)} cells; it must have 16, 81, 256, ...: a square of square "
            "boxes"
        )
    width = max(map(len, cells))
    lines = []
    for row in range(side):
        if row and row % box == 0:
            lines.append("+".join(["-" * (box * (width + 1) + 1)] * box))
        line = [cell.rjust(width) for cell in cells[side * row : side * (row + 1)]]
        boxes = [" ".join(line[start : start + box]) for start in range(0, side, box)]
        lines.append("|".join(f" {digits} " for digits in boxes))
    return lines


def board_of(texts: Sequence[str], blanks: Sequence[str] = ()) -> list[int] | None:
    """The places of a board's cells among a row's tokens, row by row of the board.

    A cell is a digit or a blank. Everything else, such as BOS, must be around the board: what is
    among its digits, as in a text, would not be shown.

    Args:
        texts: what each token of the row reads as.
        blanks: texts that stand for an empty cell, such as the mask token's.

    Returns:
        None if the cells fill no square of square boxes, hold more kinds of digits than the board
        has cells in a row, or do not follow one another.
    """
    places = [i for i, text in enumerate(texts) if text.isdigit() or text in blanks]
    kinds = {texts[i] for i in places} - set(blanks)
    if not is_board([texts[i] for i in places]) or len(kinds) > math.isqrt(len(places)):
        return None
    if places[-1] - places[0] != len(places) - 1:
        return None
    return places
