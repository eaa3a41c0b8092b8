"""What the host asks of a model's parameters: gradients, the optimizer, checkpoints, bfloat16."""

import io
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision

from xlm_mlm.conformance.calling import (
    expect_same,
    expect_usable,
    fresh_model,
    lengths,
    logits,
    loss_of,
    model_of,
    wake,
    words,
)
from xlm_mlm.conformance.rules import Broken, CannotRun, asking, preparing, rule
from xlm_mlm.conformance.survey import Part

BATCHES = 8


def _trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _moved(parameter: torch.nn.Parameter) -> bool:
    gradient = parameter.grad
    return gradient is not None and bool((gradient.to_dense() != 0).any())


@rule(
    "model-gradients",
    part="model",
    needs=("loss",),
    says="Gradients of the loss reach every trainable parameter.",
    host="configs/lightning_train/trainer_strategy/ddp.yaml: with Lightning's DDPStrategy torch "
    "stops the run when a parameter took no part in the loss",
)
def gradients(part: Part) -> None:
    """Collect gradients over batches of all training loaders, until every parameter has one."""
    loaders = [x for x in part.wiring.loaders if x.split == "train" and x.role == "lm"]
    harness = part.wiring.harness()
    if not loaders or harness.loss_function is None:
        raise CannotRun(
            f"{part.wiring} has no loss with a training loader whose name holds `lm`; if the "
            "plugin brings no loss, let its adapter declare `loss` absent"
        )
    model = wake(model_of(harness))
    harness.train()
    for number in range(BATCHES):
        for loader in loaders:
            batch = part.wiring.batch(loader, seed=number)
            with preparing(f"the loss of a batch of {loader}, and its backward pass"):
                loss_of(replace(part, loader=loader), harness, batch, seed=number).backward()
        left = [name for name, parameter in _trainable(model).items() if not _moved(parameter)]
        if not left:
            return
    total = len(_trainable(model))
    raise Broken(
        f"{len(left)} of {total} trainable parameters got no gradient in {BATCHES} batches: "
        f"{', '.join(left[:8])}{', ...' if len(left) > 8 else ''}; use them in the loss, or set "
        "requires_grad=False",
        type(model),
    )


@rule(
    "model-weight-decay",
    part="model",
    needs=("weight_decay_split",),
    says="Every trainable parameter is either among those for weight decay or among the others.",
    host="xlm/harness.py, Harness.configure_optimizers: the optimizer gets what "
    "get_named_params_for_weight_decay and get_named_params_for_no_weight_decay yield (or "
    "get_param_groups returns), and nothing else",
)
def weight_decay(part: Part) -> None:
    """Count how often each parameter is yielded; tied ones are one parameter."""
    model: Any = model_of(part.wiring.harness())
    if hasattr(model, "get_param_groups"):
        look_at, how = model.get_param_groups, "get_param_groups"
        with asking("get_param_groups", look_at):
            yielded = [p for group in look_at() for p in group["params"]]
    else:
        look_at, how = model.get_named_params_for_weight_decay, "the two methods together"
        with asking("splitting the parameters by weight decay", look_at):
            yielded = [p for _, p in model.get_named_params_for_weight_decay()]
            yielded += [p for _, p in model.get_named_params_for_no_weight_decay()]
    counts = Counter(map(id, yielded))
    twice = [name for name, p in model.named_parameters() if counts[id(p)] > 1]
    never = [name for name, p in _trainable(model).items() if not counts[id(p)]]
    for wrong, names in (("more than once", twice), ("not at all", never)):
        if names:
            raise Broken(
                f"{how} yield {wrong}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}; "
                "each must come exactly once, tied ones too",
                look_at,
            )


@rule(
    "model-state-dict",
    part="model",
    says="A freshly built model that is given a saved state has the same logits.",
    host="xlm/harness.py, Harness.load_model_weights and on_load_checkpoint: the state is saved by "
    "torch.save, loaded by torch.load, which takes only tensors and plain types, without keys that "
    "hold `rotary_emb.sin` or `rotary_emb.cos`, and must fit exactly",
)
def state_dict(part: Part) -> None:
    """Save, load into a model from another seed, and compare."""
    model = fresh_model(part)
    ids, file = words(4, lengths(part)[0]), io.BytesIO()
    expected = logits(part, model, ids)
    with asking("saving the state with torch.save", model.state_dict):
        torch.save({f"model.{key}": value for key, value in model.state_dict().items()}, file)
    file.seek(0)
    with asking("torch.load with weights_only=True", model.state_dict):
        state = torch.load(file, weights_only=True)
    harness = part.wiring.harness(seed=1)
    other = wake(model_of(harness))
    # As Lightning does it: the host takes some keys out before the rest is loaded.
    harness.on_load_checkpoint({"state_dict": state})
    own = {key.removeprefix("model."): value for key, value in state.items()}
    with asking("loading the state into a fresh model", type(model)):
        other.load_state_dict(own, strict=True)
    what = "a model, and a fresh one that was given its state"
    expect_same(logits(part, other.eval(), ids), expected, what, type(model))


@rule(
    "model-bf16",
    part="model",
    needs=("bf16",),
    says="In bfloat16 the logits are finite.",
    host="configs/lightning_train/config.yaml, trainer: a Lightning Trainer, whose precision may "
    "be bf16-mixed or bf16-true",
)
def bf16(part: Part) -> None:
    """Call it as Lightning's two precision plugins do."""
    ids = words(4, lengths(part)[0])
    mixed, true = MixedPrecision("bf16-mixed", "cpu"), HalfPrecision("bf16-true")
    for precision in (mixed, true):
        model = precision.convert_module(fresh_model(part))
        with precision.forward_context():
            found = logits(part, model, ids, on=f"rows of one length with {precision.precision}")
        if not found.is_floating_point():
            raise Broken(f"with {precision.precision} the logits are {found.dtype}", model.forward)
        expect_usable(found, f"with {precision.precision}", model.forward)
