"""What the host asks of a model."""

import torch
import xlm.model

from xlm_mlm.conformance.rules import Broken, rule
from xlm_mlm.conformance.survey import Part

HOST_MODEL = "xlm/model.py, Model: the harness asks it for its parameters and the hub for weights"


@rule(
    "model-base-class",
    part="model",
    says="The model is a torch module and derives from the host's `xlm.model.Model`.",
    host=HOST_MODEL,
)
def base_class(part: Part) -> None:
    """Look at the class."""
    model = part.wiring.harness().model
    for base in (torch.nn.Module, xlm.model.Model):
        if not isinstance(model, base):
            raise Broken(f"{type(model).__name__} does not derive from {base.__qualname__}", model)
