"""How many positions a pass masks, and which: uniform, spread out, and a row's own."""

import itertools

import torch

from xlm_mlm.likelihood.draws import masks_of_pass, stratified_counts
from xlm_mlm.sampling.streams import SampleStreams


def test_counts_are_spread_over_the_strata_and_uniform():
    rows, passes, n = 3000, 4, 6
    ids = torch.arange(rows)
    counts = stratified_counts(torch.full((rows,), n), passes, SampleStreams(3), ids)
    u = SampleStreams(3).uniform(ids, 0, 64, torch.zeros(rows, 1, dtype=torch.long))[:, 0]
    for row in range(50):
        naive = [1 + int(n * ((float(u[row]) + k) / passes % 1)) for k in range(passes)]
        assert counts[row].tolist() == naive
    shares = counts.flatten().bincount(minlength=n + 1)[1:] / counts.numel()
    # Of 12000 counts, more even than independent ones: 0.0034 is a standard deviation of those.
    assert (shares - 1 / n).abs().max() < 0.0034 * 3
    assert counts.min() == 1


def test_counts_of_small_rows():
    ids = torch.arange(3)
    counts = stratified_counts(torch.tensor([0, 1, 2]), 8, SampleStreams(0), ids)
    assert counts[0].tolist() == [0] * 8
    assert counts[1].tolist() == [1] * 8
    assert sorted(counts[2].tolist()) in ([1] * 4 + [2] * 4, [1] * 5 + [2] * 3, [1] * 3 + [2] * 5)


def test_a_share_that_rounds_up_to_one_masks_no_more_than_there_are():
    class Last:
        def uniform(self, *_):
            return torch.full((1, 1), 1 - 2**-53, dtype=torch.float64)

    assert stratified_counts(torch.tensor([5]), 3, Last(), torch.tensor([0])).max() == 5


def test_every_subset_is_as_probable():
    rows = 4000
    maskable = torch.tensor([[True, False, True, True, True]]).expand(rows, -1)
    places = torch.arange(5).expand(rows, -1)
    streams, ids = SampleStreams(1), torch.arange(rows)
    two = torch.full((rows,), 2)
    masks = masks_of_pass(0, two, maskable, places, streams, ids)
    found = [tuple(row.nonzero().flatten().tolist()) for row in masks]
    subsets = list(itertools.combinations((0, 2, 3, 4), 2))
    assert set(found) == set(subsets)
    # Binomial(4000, 1/6): standard deviation 23.6.
    assert all(abs(found.count(subset) - rows / 6) < 4 * 23.6 for subset in subsets)
    assert not torch.equal(masks, masks_of_pass(1, two, maskable, places, streams, ids))
