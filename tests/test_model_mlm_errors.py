"""What the network refuses, and what its messages say."""

import pytest
import torch

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.modeling.masks import segment_block_mask

GOOD = {
    "num_embeddings": 20,
    "d_model": 16,
    "num_layers": 1,
    "nhead": 2,
    "rotary_emb_dim": 4,
    "max_length": 8,
}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"d_model": 15}, "multiple of nhead"),
        ({"rotary_emb_dim": 3}, "even"),
        ({"rotary_emb_dim": 10}, "at most the head's size"),
        ({"nhead": 0}, "nhead is 0"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"num_embeddings": 0}, "num_embeddings is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"activation": "swish"}, "'relu', 'gelu'"),
        ({"mask_idx": 20}, "mask_idx is 20"),
        ({"padding_idx": -1}, "padding_idx is -1"),
        ({"mask_idx": 0}, "must differ"),
        ({"dim_feedforward": 0}, "dim_feedforward is 0"),
        ({"dropout": "x"}, "dropout is 'x'"),
        ({"layer_norm_eps": -1}, "layer_norm_eps is -1"),
        ({"force_flash_attn": True, "use_flex_attn": True}, "choose one"),
    ],
)
def test_construction_refuses(overrides, words):
    with pytest.raises(ValueError, match=words):
        RotaryTransformerMLMModel(**{**GOOD, **overrides})


X = torch.full((2, 4), 5)
TWO = torch.tensor([2, 3])


@pytest.mark.parametrize(
    ("x", "kwargs", "words"),
    [
        (torch.zeros(2, 9, dtype=torch.long), {}, r"length 9 .* max_length of 8"),
        (X, {"positions": torch.full((2, 4), 13)}, r"position 13 .* max_length of 8"),
        (X, {"positions": torch.full((2, 4), -1)}, r"position -1 .* max_length of 8"),
        (X, {"positions": torch.zeros(2, 3, dtype=torch.long)}, "positions have shape"),
        (X, {"positions": torch.zeros(2, 4)}, "must be integers"),
        (torch.full((2, 4), 20), {}, "token id 20 .* vocabulary of 20"),
        (torch.full((2, 4), -100), {}, "token id -100"),
        (torch.zeros(2, 4), {}, "must be integers"),
        (torch.zeros(0, 4, dtype=torch.long), {}, "neither of them 0"),
        (torch.zeros(2, 0, dtype=torch.long), {}, "neither of them 0"),
        (torch.zeros(4, dtype=torch.long), {}, "batch, length"),
        (X, {"attention_mask": [[1] * 4] * 2}, "attention_mask is a list"),
        (X, {"logits_at": [1]}, "flat tensor of int64"),
        (X, {"attention_mask": torch.ones(2, 5)}, "attention_mask has shape"),
        (X, {"attention_mask": torch.ones(2, 4)}, "additive mask is not taken"),
        (X, {"attention_mask": torch.full((2, 4), 2)}, "0 .hidden. or 1 .valid."),
        (X, {"block_mask": torch.ones(4, 4)}, "must be a FlexAttention BlockMask"),
        (
            X,
            {"block_mask": segment_block_mask(torch.zeros(2, 6, dtype=torch.long))},
            r"\(2, 1, 6, 6\).*\(1 or 2, 1 or 2, 4, 4\)",
        ),
        (
            X,
            {"block_mask": segment_block_mask(torch.zeros(3, 4, dtype=torch.long))},
            r"\(3, 1, 4, 4\)",
        ),
        (X, {"logits_at": torch.tensor([8])}, "valid ones are 0 to 7"),
        (X, {"logits_at": torch.tensor([[1]])}, "flat tensor of int64"),
        (X, {"targets": TWO}, r"targets have shape \(2,\) and logits_at is None"),
        (X, {"targets": TWO, "logits_at": TWO[:1]}, r"\(2,\) and logits_at is of shape \(1,\)"),
        (X, {"targets": TWO[None], "logits_at": TWO}, r"targets have shape \(1, 2\)"),
        (X, {"targets": [3, 4], "logits_at": TWO}, r"targets are \[3, 4\]; they must be a tensor"),
        (X, {"targets": TWO.int(), "logits_at": TWO}, "they must be a tensor of int64"),
        (X, {"targets": TWO + 17, "logits_at": TWO}, "target id 20 .* vocabulary of 20"),
        (X, {"targets": TWO - 102, "logits_at": TWO}, "target id -100 .* has the target -100"),
        (X, {"targets": TWO - 4, "logits_at": TWO}, "target id -2 "),
        (X, {"target_weights": torch.ones(2), "logits_at": TWO}, r"\(2,\) and targets are None"),
        (
            X,
            {"targets": TWO, "logits_at": TWO, "target_weights": torch.ones(2, 1)},
            r"target_weights have shape \(2, 1\) and targets are of shape \(2,\)",
        ),
        (
            X,
            {"targets": TWO, "logits_at": TWO, "target_weights": torch.ones(())},
            r"target_weights have shape \(\)",
        ),
    ],
)
def test_forward_refuses(x, kwargs, words):
    before = x.clone()
    with pytest.raises(ValueError, match=words):
        RotaryTransformerMLMModel(**GOOD)(x, **kwargs)
    assert torch.equal(x, before)


def test_flash_attention_is_refused_off_cuda():
    model = RotaryTransformerMLMModel(**GOOD, force_flash_attn=True)
    with pytest.raises(ValueError, match="needs a CUDA device.*cpu"):
        model(X)
