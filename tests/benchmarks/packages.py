"""The packages that are compared, behind one set of names."""

import importlib
import importlib.util
from typing import Any, NamedTuple

from xlm.datamodule import SimpleSpaceTokenizer

MASK_ID = 2
"""The mask token of the host's `SimpleSpaceTokenizer`."""
SPECIAL_TOKENS = 7
"""Its number of special tokens: the lowest id of an ordinary token."""


class Package(NamedTuple):
    """Model, loss, predictor and collators of one package; constructors agree among packages."""

    name: str
    model: Any
    loss: Any
    predictor: Any
    default_collator: Any
    seq2seq_train_collator: Any
    packed_collator: Any = None


REFERENCES = ("mlm", "naive")


def load_package(name: str) -> Package:
    """Import a package of this family: `xlm_mlm`, `mlm`, or `naive` (see `naive.py`)."""
    if name == "naive":
        import naive

        return Package(
            name,
            naive.NaiveModel,
            naive.NaiveLoss,
            naive.NaivePredictor,
            naive.NaiveCollator,
            naive.NaiveSeq2SeqTrainCollator,
        )
    parts = {
        part: importlib.import_module(f"{name}.{part}_mlm")
        for part in ("model", "loss", "predictor", "datamodule")
    }
    return Package(
        name,
        parts["model"].RotaryTransformerMLMModel,
        parts["loss"].MLMLoss,
        parts["predictor"].MLMPredictor,
        parts["datamodule"].DefaultMLMCollator,
        parts["datamodule"].MLMSeq2SeqTrainCollator,
        parts["datamodule"].PackedMLMCollator,
    )


def choose_reference(against: str) -> str:
    """Name of the package to compare with: `auto` is `mlm` where installed, else `naive`.

    Raises:
        ValueError: `mlm` is asked for and not installed, or the name is unknown.
    """
    installed = importlib.util.find_spec("mlm") is not None
    if against == "auto":
        return "mlm" if installed else "naive"
    if against not in REFERENCES:
        raise ValueError(f"against is {against!r}; it must be auto, {' or '.join(REFERENCES)}")
    if against == "mlm" and not installed:
        raise ValueError("the existing package is not installed: pip install xlm-models==0.3.1")
    return against


def make_tokenizer(vocabulary: int) -> SimpleSpaceTokenizer:
    """A tokenizer of numbers with `vocabulary` ids, special tokens included."""
    return SimpleSpaceTokenizer.for_numbers(vocabulary - SPECIAL_TOKENS)
