"""Checkpoints of untrained networks, in the host's form."""

import torch

from xlm_mlm import RotaryTransformerMLMModel

MASK = 2


def network(seed, **options):
    """What `TINY_MODEL` of `xlm_process` makes of the quickstart's model."""
    torch.manual_seed(seed)
    shape = {"mask_idx": MASK, "dim_feedforward": 256, "dropout": 0.0, "max_length": 22} | options
    return RotaryTransformerMLMModel(12, 32, 1, 2, rotary_emb_dim=16, **shape)


def write_checkpoint(path, model, ema=None, **more):
    """Write `model`'s weights, and those of `ema` as their moving average."""
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    if ema is not None:
        more["ema"] = {"shadow_params": [p.data for p in ema.parameters()]}
    torch.save({"state_dict": state, "global_step": 7} | more, path)
