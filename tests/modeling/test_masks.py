"""Attention masks: what they let through, and what is refused."""

import pytest
import torch
from torch.nn.attention.flex_attention import and_masks, create_block_mask

from xlm_mlm.modeling.masks import (
    check_block_mask,
    dense_from_block_mask,
    open_empty_rows,
    segment_block_mask,
    segments_of,
    validity,
)

SEGMENTS = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 2, 2, 2]])


def test_a_segment_sees_itself_only():
    dense = dense_from_block_mask(segment_block_mask(SEGMENTS), 2, 5, torch.device("cpu"))
    for b in range(2):
        for q in range(5):
            for k in range(5):
                assert dense[b, 0, q, k] == (SEGMENTS[b, q] == SEGMENTS[b, k])


def test_long_rows_cross_the_block_size():
    segments = torch.arange(300).div(70, rounding_mode="floor")[None]
    dense = dense_from_block_mask(segment_block_mask(segments), 1, 300, torch.device("cpu"))
    assert torch.equal(dense[0, 0], segments[0][:, None] == segments[0][None])


def test_queries_without_a_key_see_all_and_others_are_unchanged():
    mask = torch.tensor([[False, False], [True, False]])
    assert open_empty_rows(mask).tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.int32, torch.uint8])
def test_booleans_and_zeros_and_ones_are_taken(dtype):
    given = torch.tensor([[1, 0, 1]]).to(dtype)
    assert validity(given, 1, 3).tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(1, 4, dtype=torch.bool), r"\(1, 4\).*\(1, 3\) or \(1, 3, 3\)"),
        (torch.ones(3, dtype=torch.bool), r"\(3,\)"),
        (torch.zeros(1, 3), "float32"),
        (torch.tensor([[0, 1, -1]]), "from -1 to 1"),
    ],
)
def test_other_masks_are_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        validity(mask, 1, 3)


def test_a_block_mask_of_one_row_serves_any_batch():
    mask = segment_block_mask(SEGMENTS[:1])
    check_block_mask(mask, 7, 5, 1)
    with pytest.raises(ValueError, match=r"must be \(1 or 7, 1 or 2, 6, 6\)"):
        check_block_mask(mask, 7, 6, heads=2)


def test_segments_are_known_of_their_own_mask_only():
    """Of a part of such a mask, or of one combined with another, they would say too little."""
    mask = segment_block_mask(SEGMENTS)
    assert segments_of(mask) is SEGMENTS
    both = and_masks(mask.mask_mod, lambda b, h, q, k: q >= k)
    assert segments_of(create_block_mask(both, 2, None, 5, 5, "cpu")) is None
    assert segments_of(mask[1:]) is None


def test_a_strangers_attribute_does_not_make_segments():
    def causal(b, h, q, k):
        return q >= k

    causal.segment_ids = SEGMENTS
    mask = create_block_mask(causal, None, None, 5, 5, device="cpu")
    assert segments_of(mask) is None
    assert segments_of(segment_block_mask(SEGMENTS)) is SEGMENTS
