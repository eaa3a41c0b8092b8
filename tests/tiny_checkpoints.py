"""Checkpoints of untrained networks, in the host's form."""

import copy

import torch

from xlm_mlm import RotaryTransformerMLMModel

MASK = 2

# Of a training run, as the host saves it in a checkpoint.
NUMBERS = {
    "_target_": "xlm.datamodule.SimpleSpaceTokenizer.for_numbers",
    "pretrained_model_name_or_path": None,
    "vocab_size": 5,
}
CONFIG = {
    "global_components": {"_target_": "builtins.dict", "tokenizer": NUMBERS},
    "model": {
        "_target_": "xlm_mlm.model_mlm.RotaryTransformerMLMModel",
        "num_embeddings": "${tokenizer:full_vocab_size}",
        "d_model": 32,
        "num_layers": 1,
        "nhead": 2,
        "padding_idx": "${tokenizer:pad_token_id}",
        "mask_idx": "${tokenizer:mask_token_id}",
        "rotary_emb_dim": 16,
    },
    "predictor": {
        "_target_": "xlm_mlm.predictor_mlm.MLMPredictor",
        "max_steps": 16,
        "confidence": "top_prob",
        "top_k": None,
        "history": {"_target_": "os.system"},
        "tokenizer": "${global_components:tokenizer}",
    },
    "datamodule": {
        "dataset_managers": {"train": {"lm": {"collator": {"add_bos": True, "add_eos": False}}}}
    },
}


def changed(*path, value):
    """`CONFIG` with another value, at a path of keys."""
    config = copy.deepcopy(CONFIG)
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return config


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
