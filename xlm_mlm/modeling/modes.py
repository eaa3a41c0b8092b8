"""The mode that a network is in while it is only asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def asking(model: Any) -> Iterator[None]:
    """Run a model in eval and inference mode, and give every module its own mode back."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    training = [module for module in modules if module.training]
    try:
        if training:
            model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
