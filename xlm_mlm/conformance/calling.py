"""Calling a plugin's model and its loss as the host does, and comparing what comes out.

Shapes: B = rows, L = positions, V = vocabulary size.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.conformance.adapter import overridden
from xlm_mlm.conformance.made_up import other_words, prompt_words
from xlm_mlm.conformance.rules import Broken, CannotRun, asking
from xlm_mlm.conformance.survey import Part

# Of the largest logit, or of 1 if that is smaller. Sums of a small model in fp32, taken in another
# order, differ by about 1e-6; leaving out or adding one token of a dozen changes far more.
TOLERANCE = 1e-4

# The arguments that the host's own template of a model names, besides the ids.
STANDARD = ("attention_mask", "positions")

ADVICE = "let an adapter give `call_model`, which returns the logits (B, L, V)"


def wake(model: torch.nn.Module) -> torch.nn.Module:
    """Change the parameters that are constant, for nothing is seen behind a weight of zero.

    Families that start with a head or a gate of zeros would pass every comparison otherwise.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def model_of(harness: Any) -> torch.nn.Module:
    """The model of a harness, as a torch module."""
    if not isinstance(harness.model, torch.nn.Module):
        raise CannotRun(f"{type(harness.model).__name__} is not a torch module")
    return harness.model


def fresh_model(part: Part, seed: int = 0) -> torch.nn.Module:
    """A model in evaluation mode, with no parameter left constant."""
    return wake(model_of(part.wiring.harness(seed)))


def words(rows: int, length: int, seed: int = 0) -> Integer[Tensor, "B L"]:
    """Rows of regular tokens, no special ones."""
    pool = torch.tensor(prompt_words() + other_words())
    generator = torch.Generator().manual_seed(seed)
    return pool[torch.randint(len(pool), (rows, length), generator=generator)]


def lengths(part: Part) -> list[int]:
    """Four lengths of rows, from the experiment's block size down."""
    longest = part.wiring.sizes["block_size"]
    return [max(longest * quarters // 4, 1) for quarters in (4, 3, 2, 1)]


def forward_parameters(model: torch.nn.Module) -> dict[str, inspect.Parameter]:
    """The parameters of `forward`, the first of which is for the ids."""
    try:
        parameters = dict(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError) as error:
        raise CannotRun(f"the parameters of `forward` can't be read ({error}); {ADVICE}") from error
    if not parameters:
        raise CannotRun(f"`forward` of {type(model).__name__} takes nothing; {ADVICE}")
    return parameters


def arguments(model: torch.nn.Module, attention_mask: Tensor) -> dict[str, Tensor]:
    """What the standard call passes besides the ids, of that which `forward` takes."""
    _, *further = forward_parameters(model).values()
    given = {
        "attention_mask": attention_mask,
        "positions": (attention_mask.long().cumsum(1) - 1).clamp(min=0),
    }
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    taken = {parameter.name for parameter in further if parameter.kind in named}
    # A model that hands `**kwargs` on to another one is asked for no more than a mask.
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in further):
        taken.add("attention_mask")
    for parameter in further:
        required = parameter.kind in named and parameter.default is inspect.Parameter.empty
        if required and parameter.name not in given:
            raise CannotRun(
                f"`forward` of {type(model).__name__} needs {parameter.name!r} besides the ids; "
                f"the standard call passes {' and '.join(STANDARD)}. To pass more, {ADVICE}"
            )
    return {name: value for name, value in given.items() if name in taken}


def call(
    part: Part,
    model: torch.nn.Module,
    input_ids: Integer[Tensor, "B L"],
    attention_mask: Bool[Tensor, "B L"] | Integer[Tensor, "B L"],
    on: str,
) -> Any:
    """What the model, or the adapter's `call_model`, returns; if it raises the rule is broken.

    Args:
        part: the part that is checked.
        model: its model.
        input_ids: the tokens.
        attention_mask: true (or 1) at tokens.
        on: what the model is called on, in words.
    """
    adapter = part.subject.adapter
    if overridden(adapter, "call_model"):
        with asking(f"the adapter's call_model on {on}", model.forward):
            return adapter.call_model(model, input_ids, attention_mask)
    extra = arguments(model, attention_mask)
    how = ", ".join(("ids", *extra))
    with asking(f"calling {type(model).__name__}({how}) on {on}", model.forward):
        return model(input_ids, **extra)


def logits(
    part: Part,
    model: torch.nn.Module,
    input_ids: Integer[Tensor, "B L"],
    attention_mask: Bool[Tensor, "B L"] | Integer[Tensor, "B L"] | None = None,
    on: str = "rows of one length",
) -> Float[Tensor, "B L V"]:
    """The model's logits, without a graph; see `call`. No mask means that all are tokens."""
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids, dtype=torch.bool)
    with torch.no_grad():
        found = call(part, model, input_ids, attention_mask, on)
    if not isinstance(found, Tensor):
        raise CannotRun(
            f"calling {type(model).__name__} gives a {type(found).__name__}, not a tensor of "
            f"logits; {ADVICE}"
        )
    if found.ndim != 3 or found.shape[:2] != input_ids.shape:
        raise CannotRun(
            f"calling {type(model).__name__} on ids {tuple(input_ids.shape)} gives "
            f"{tuple(found.shape)}; {ADVICE}"
        )
    return found


def usable(scores: Tensor) -> Bool[Tensor, "..."]:
    """Where logits can be used: at each position none is NaN or +inf, and one is finite.

    A model may rule a token out with -inf.
    """
    bad = scores.isnan() | (scores == torch.inf)
    return ~bad.any(-1) & scores.isfinite().any(-1)


def expect_usable(scores: Tensor, where: str, look_at: Any) -> None:
    """Break the rule unless all logits are usable.

    Args:
        scores: logits (..., V).
        where: which logits, in words.
        look_at: for the message.
    """
    wrong = ~usable(scores)
    if wrong.any():
        example = scores[wrong][0]
        value = example[~example.isfinite()][0].item()
        raise Broken(
            f"logits {where} hold {value} at {int(wrong.sum())} of {wrong.numel()} positions; "
            "they must be finite (-inf rules out a token, but not all of them)",
            look_at,
        )


def expect_same(
    found: Float[Tensor, "N V"], expected: Float[Tensor, "N V"], what: str, look_at: Any
) -> None:
    """Break the rule unless two sets of logits are the same but for rounding.

    Args:
        found: logits.
        expected: what they must be.
        what: where `found` and `expected` come from, in words.
        look_at: for the message.
    """
    if found.shape != expected.shape:
        raise Broken(
            f"{what}: the shapes are {tuple(found.shape)} and {tuple(expected.shape)}; they must "
            "be the same",
            look_at,
        )
    finite = expected[expected.isfinite()]
    scale = max(1.0, float(finite.abs().max()) if finite.numel() else 1.0)
    # -inf for the same token on both sides is no difference.
    gaps = torch.where(found == expected, 0.0, (found - expected).abs())
    if bool((gaps <= TOLERANCE * scale).all()):
        return
    worst = int(gaps.nan_to_num(torch.inf).argmax())
    values = [float(side.flatten()[worst]) for side in (found, expected)]
    raise Broken(
        f"{what}: the logits are not the same; they differ most at {values[0]:.6g} and "
        f"{values[1]:.6g}, where at most {TOLERANCE * scale:.1g} is rounding",
        look_at,
    )


def run_loss(part: Part, harness: Any, batch: Mapping[str, Any], seed: int = 0) -> Any:
    """The loss of a copy of a batch, called as `Harness.compute_loss` does it."""
    torch.manual_seed(seed)
    name = part.loader.name if part.loader else "lm"
    return harness.loss_function(copy.deepcopy(dict(batch)), 0, 0, name)


def loss_of(part: Part, harness: Any, batch: Mapping[str, Any], seed: int = 0) -> Tensor:
    """The entry `loss` of the loss's dict, for rules that are not about its form."""
    found = run_loss(part, harness, batch, seed)
    loss = found.get("loss") if isinstance(found, Mapping) else None
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise CannotRun(
            f"{type(harness.loss_function).__name__} returns no scalar tensor as 'loss'; see "
            "loss-scalar"
        )
    return loss.reshape(())
