"""Blocks against a loop over rows: which masks are open, and how many passes they have."""

import dataclasses

import pytest
import torch

from xlm_mlm.sampling.blocks import Blocks
from xlm_mlm.sampling.candidates import Candidates


def naive_open(columns, block_length, left):
    """Open columns of one row and their passes."""
    blocks = {}
    for column in columns:
        blocks.setdefault(column // block_length, []).append(column)
    blocks = [blocks[number] for number in sorted(blocks)]
    if left < len(blocks):
        together = -(-len(blocks) // left)
        return [column for block in blocks[:together] for column in block], 1
    share = len(blocks[0]) * left // len(columns)
    return blocks[0], max(1, min(share, left - (len(blocks) - 1)))


@pytest.mark.parametrize("block_length", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("left", [1, 2, 3, 8, 40])
def test_the_open_block_is_that_of_the_loop(block_length, left):
    masked = torch.rand(12, 15, generator=torch.Generator().manual_seed(block_length)) < 0.6
    masked[3] = False
    laid_out = dataclasses.replace(Candidates.of(masked), passes_left=left)
    opened = Blocks(block_length).open(laid_out, laid_out.columns)
    for line, row in enumerate(laid_out.rows.tolist()):
        columns = masked[row].nonzero().flatten().tolist()
        expected, passes = naive_open(columns, block_length, left)
        assert opened.columns[line][opened.valid[line]].tolist() == expected
        assert int(opened.passes_left[line]) == passes


@pytest.mark.parametrize("block_length", [1, 3, 4, 10])
@pytest.mark.parametrize("max_steps", [1, 2, 3, 5, 11, 30])
def test_the_passes_always_suffice(block_length, max_steps):
    generator = torch.Generator().manual_seed(7)
    masked = torch.rand(20, 11, generator=generator) < 0.7
    for left in range(max_steps, 0, -1):
        laid_out = dataclasses.replace(Candidates.of(masked), passes_left=left)
        opened = Blocks(block_length).open(laid_out, laid_out.columns)
        # As slow as a rule may be: its fixed count, or everything where there is no pass to spare.
        count = torch.where(opened.last, opened.valid.sum(dim=1), opened.fixed_count)
        for line, row in enumerate(laid_out.rows.tolist()):
            places = opened.columns[line][opened.valid[line]][: int(count[line])]
            assert len(places)
            masked[row, places] = False
    assert not masked.any()


@pytest.mark.parametrize("left", [1, 2, 3, 4, 5, 12, 30])
@pytest.mark.parametrize("sizes", [(1,), (2,), (10, 1, 1), (9, 1), (1, 10), (2, 10, 1, 1, 1)])
def test_blocks_of_unequal_sizes(sizes, left):
    columns = [10 * number + i for number, size in enumerate(sizes) for i in range(size)]
    masked = torch.zeros(1, 50, dtype=torch.bool)
    masked[0, columns] = True
    laid_out = dataclasses.replace(Candidates.of(masked), passes_left=left)
    opened = Blocks(10).open(laid_out, laid_out.columns)
    expected, passes = naive_open(columns, 10, left)
    assert opened.columns[0][opened.valid[0]].tolist() == expected
    assert opened.passes_left.tolist() == [passes]


def test_equal_blocks_get_equal_passes():
    masked = torch.ones(1, 24, dtype=torch.bool)
    counts = []
    for left in range(12, 0, -1):
        laid_out = dataclasses.replace(Candidates.of(masked), passes_left=left)
        opened = Blocks(8).open(laid_out, laid_out.columns)
        n = int(opened.fixed_count)
        counts.append(n)
        masked[0, opened.columns[0][:n]] = False
    assert counts == [2] * 12


@pytest.mark.parametrize("length", [0, -1, 2.5, True])
def test_the_length_is_checked(length):
    with pytest.raises(ValueError, match=f"block_length is {length}"):
        Blocks(length)
