"""Running a plugin's predictor as the host does, and what can be seen of it from outside."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from xlm_mlm.conformance.rules import Broken, CannotRun, preparing
from xlm_mlm.conformance.survey import Part

# A predictor that never ends must not hang the kit. No small experiment needs as many passes: those
# that fill, insert or continue need one for each of a few dozen tokens, those with a time grid
# rarely more than 1,000.
ENDLESS = 3000

# Added to the mask's score. Enough that a softmax leaves 1e-13 to all others, and little enough
# that these are not yet zero in fp32: a predictor may take the mask out after the softmax.
LOVE = 30.0
# A model that has ruled the mask out itself, with -inf or a large negative number, is let be.
RULED_OUT = -1000.0


def network(predictor: Any) -> torch.nn.Module:
    """The predictor's model."""
    model = getattr(predictor, "model", None)
    if not isinstance(model, torch.nn.Module):
        raise CannotRun(
            f"{type(predictor).__name__}.model is {type(model).__name__}; it must be the torch "
            "module that the host sets"
        )
    return model


@dataclass
class Passes:
    """Counts how often a model runs."""

    model: torch.nn.Module
    calls: Counter[torch.nn.Module] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Calls of the model; if only parts of it are called, of that called least."""
        return self.calls[self.model] or min(self.calls.values(), default=0)

    def saw(self, module: torch.nn.Module, _: Any) -> None:
        """Count a call."""
        self.calls[module] += 1
        if self.calls[module] > ENDLESS:
            raise Broken(f"predict has not ended after {ENDLESS} passes of the model")


@contextmanager
def hooked(
    model: torch.nn.Module, before: Callable | None = None, after: Callable | None = None
) -> Iterator[None]:
    """Call `before` (module, args) and `after` (module, args, output) with every module in it."""
    handles = []
    for module in model.modules():
        if before is not None:
            handles.append(module.register_forward_pre_hook(before))
        if after is not None:
            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def passes(predictor: Any) -> Iterator[Passes]:
    """Count the passes of a predictor's model."""
    counted = Passes(network(predictor))

    def count(module: torch.nn.Module, args: Any) -> None:
        # Containers and modules without weights of their own may run several times in a pass.
        if module is counted.model or any(True for _ in module.parameters(recurse=False)):
            counted.saw(module, args)

    with hooked(counted.model, before=count):
        yield counted


def run_predict(part: Part, predictor: Any, batch: dict[str, Any], seed: int = 0) -> Any:
    """Predict as `Harness.compute_loss` does; whatever is raised is passed on."""
    torch.manual_seed(seed)
    with passes(predictor):
        return predictor.predict(batch, 0, 0, part.loader.name)


def predicted(part: Part, predictor: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """What `predict` returns, for rules that are about something else than whether it runs."""
    with preparing(f"predict with a batch of {part.loader}"):
        return run_predict(part, predictor, batch)


def ids_of(result: Any) -> Tensor:
    """The ids in a result (B, L)."""
    ids = result.get("ids") if isinstance(result, dict) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        raise CannotRun("predict returned no `ids` of shape (B, L); see predictor-result")
    return ids


def inputs_of(batch: dict[str, Any]) -> Tensor:
    """The `input_ids` of a batch (B, P)."""
    input_ids = batch.get("input_ids")
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2:
        raise CannotRun(
            f"the batch holds {', '.join(batch)}; a batch for predictions needs `input_ids` of "
            "shape (B, P): the host counts rows by it"
        )
    return input_ids


def attended(batch: dict[str, Any]) -> Tensor:
    """Where `input_ids` are attended to (B, P); everywhere if the batch does not say."""
    input_ids, mask = inputs_of(batch), batch.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == input_ids.shape:
        return mask.bool()
    return torch.ones_like(input_ids, dtype=torch.bool)


def given(batch: dict[str, Any], tokenizer: Any) -> Tensor:
    """Where `input_ids` are given (B, P): attended, and neither padding nor to be filled."""
    input_ids = inputs_of(batch)
    blanks = [tokenizer.pad_token_id, tokenizer.mask_token_id]
    return attended(batch) & ~torch.isin(input_ids, torch.tensor(blanks))


def love_of(token: int, vocabulary: int) -> Callable:
    """A forward hook that makes a token the likeliest wherever scores are put out."""

    def hook(module: torch.nn.Module, args: Any, output: Any) -> Any:
        scores = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            return None
        if scores.ndim == 0 or scores.shape[-1] < vocabulary:
            return None
        loved = scores.clone()
        others = scores.index_fill(-1, torch.tensor([token]), -torch.inf).amax(-1)
        own = scores[..., token]
        loved[..., token] = torch.where(own > RULED_OUT, others + LOVE, own)
        if scores is output:
            return loved
        rest = [loved, *output[1:]]
        return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)

    return hook
