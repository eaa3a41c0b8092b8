"""A saved model, whichever way it was saved."""

from pathlib import Path
from typing import NamedTuple

from xlm_mlm.checkpoints import Checkpoint, Weights, read_checkpoint, refuse_no_numbers
from xlm_mlm.checks import require_bool, require_path
from xlm_mlm.rebuild import Saved, load, rebuild


class Opened(NamedTuple):
    """Model and tokenizer with their weights.

    Attributes:
        saved: the two, and what was saved beside them.
        weights: which the model has, for the record.
        checkpoint: where they are from; None for a folder.
    """

    saved: Saved
    weights: str
    checkpoint: Checkpoint | None


def open_saved(path: str | Path, weights: Weights = "auto", trust: bool = False) -> Opened:
    """Load a training checkpoint, or a folder that `xlm-mlm save` wrote.

    Args:
        path: the file or folder.
        weights: of a checkpoint: `raw`, `ema`, or `auto`: the EMA weights if it has them.
        trust: make whatever classes the saved config names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be read, names a class that is not on the list, or has weights that
            are no numbers.
    """
    path = require_path("checkpoint", path)
    require_bool("trust", trust)
    if path.is_dir():
        if weights != "auto":
            raise ValueError(
                f"weights is {weights!r}, and {path} holds one kind only; leave it at auto"
            )
        saved = load(path, trust)
        refuse_no_numbers(saved.model.state_dict(), path / "model.safetensors")
        return Opened(saved, "as saved", None)
    checkpoint = read_checkpoint(path)
    saved = rebuild(checkpoint.config, trust, path, checkpoint.tensors)
    return Opened(saved, checkpoint.apply(saved.model, weights), checkpoint)
