"""What a predictor does to the model, to torch and to the batch while it predicts."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import Tensor

from xlm_mlm.conformance.predicting import (
    hooked,
    ids_of,
    inputs_of,
    network,
    passes,
    predicted,
    run_predict,
)
from xlm_mlm.conformance.rules import Broken, CannotRun, NothingHere, asking, rule
from xlm_mlm.conformance.snapshots import changes, snapshot
from xlm_mlm.conformance.survey import Part

GENERATING = "xlm/commands/lightning_generate.py, generate"
WIRING = "xlm/harness.py, Harness.instantiate_predictor"


@rule(
    "predictor-max-steps",
    part="predictor",
    needs=("max_steps",),
    says="`max_steps` is the most passes of the model that one call of `predict` makes, and any "
    "number from 1 on works.",
    host="xlm/harness.py, Harness.compute_loss calls predict alone: what a batch costs is for the "
    "predictor's options to say",
)
def max_steps(part: Part) -> None:
    """Count passes with one, with few, and with more than there are tokens."""
    if not _takes(part, "max_steps"):
        raise CannotRun(
            f"{OmegaConf.select(part.wiring.cfg, 'predictor._target_')} takes no `max_steps`; if "
            "nothing limits its passes, let the adapter say that it has no max_steps"
        )
    many = 2 * sum(part.wiring.sizes.values())
    for limit in (1, 3, many):
        predictor = part.wiring.harness(predictor__max_steps=limit).predictor
        batch = part.wiring.batch(part.loader)
        with asking(f"predict with max_steps={limit}", look_at=predictor.predict):
            torch.manual_seed(0)
            with passes(predictor) as counted:
                predictor.predict(batch, 0, 0, part.loader.name)
        if counted.count > limit:
            raise Broken(
                f"predict with max_steps={limit} made {counted.count} passes of the model for a "
                f"batch of shape {tuple(inputs_of(batch).shape)}; at most {limit} are allowed",
                look_at=predictor.predict,
            )


def _takes(part: Part, option: str) -> bool:
    config = part.wiring.cfg.predictor
    if option in config:
        return True
    try:
        parameters = inspect.signature(get_object(config["_target_"])).parameters.values()
    except (ValueError, TypeError):
        return False
    return any(one.name == option or one.kind is one.VAR_KEYWORD for one in parameters)


@rule(
    "predictor-seed",
    part="predictor",
    says="Under the same seed of torch, the same weights and batch give the same `ids`.",
    host=f"{GENERATING} seeds once, builds everything, then predicts: a run can only be repeated "
    "if all chance comes from there",
)
def seed(part: Part) -> None:
    """Build everything twice and predict under one seed."""
    found = []
    for _ in range(2):
        # A predictor may number its samples, so that the second call draws others.
        predictor = part.wiring.harness().predictor
        found.append(ids_of(predicted(part, predictor, part.wiring.batch(part.loader))))
    first, second = found
    if first.shape != second.shape or not torch.equal(first, second):
        raise Broken(
            "two predictors with equal weights gave different ids after torch.manual_seed(0): "
            f"{first[0].tolist()} and {second[0].tolist()} in the first row",
            look_at=predictor.predict,
        )


@rule(
    "predictor-restores",
    part="predictor",
    says="After `predict`, whether it returns or raises, each module of the model is in the mode "
    "that it was in, and torch's grad mode, default dtype and the parameters' requires_grad are "
    "as they were.",
    host="xlm/harness.py, Harness.on_validation_epoch_start sets the mode once for all loaders of "
    "a validation: what a predictor leaves behind holds for the loss of the next loader",
)
def restores(part: Part) -> None:
    """Predict in different modes, with grad and without, and with a model that raises."""
    predictor = part.wiring.harness().predictor
    model = network(predictor)
    batch = part.wiring.batch(part.loader)
    for mode, set_mode in MODES.items():
        for grad in (True, False):
            setting = f"{mode}, grad {'on' if grad else 'off'}"
            with _fenced(grad):
                set_mode(model)
                before = _state(model)
                predicted(part, predictor, batch)
                _compare(f"after predict ({setting} before)", before, model, predictor)
                with hooked(model, before=_fail), suppress(Exception):
                    run_predict(part, predictor, batch)
                when = f"after predict has raised what the model raised ({setting} before)"
                _compare(when, before, model, predictor)


def _some_train(model: torch.nn.Module) -> None:
    model.train()
    first = next(model.children(), None)
    if first is not None:
        first.eval()


MODES: dict[str, Callable[[torch.nn.Module], Any]] = {
    "model in train mode": lambda model: model.train(),
    "model in eval mode": lambda model: model.eval(),
    "model in train mode, but for a part that is frozen": _some_train,
}


def _fail(module: torch.nn.Module, args: Any) -> None:
    raise RuntimeError("the kit made the model fail")


@contextmanager
def _fenced(grad: bool) -> Iterator[None]:
    """Set grad mode, and at the end undo whatever was done to torch's global settings."""
    dtype = torch.get_default_dtype()
    # Leaving this restores inference mode and grad mode.
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def _state(model: torch.nn.Module) -> dict[str, Any]:
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "training": {name or "the model": one.training for name, one in model.named_modules()},
        "requires_grad": {name: one.requires_grad for name, one in model.named_parameters()},
    }


def _compare(when: str, before: dict[str, Any], model: torch.nn.Module, predictor: Any) -> None:
    found = changes(before, _state(model))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Broken(f"{when}: {found[0]}{more}", look_at=predictor.predict)


@rule(
    "predictor-no-graph",
    part="predictor",
    somewhere=True,
    says="`predict` builds no graph for gradients, whatever the caller's grad mode.",
    host=f"{GENERATING} calls Harness.predict_step without torch.no_grad: graphs of all passes "
    "would be kept until the batch is done",
)
def no_graph(part: Part) -> None:
    """Look at what the model's modules put out while grad mode is on."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    with _fenced(grad=True):
        seen, tracked = _tracked(part, predictor, batch)
    if not seen:
        raise NothingHere("predict makes no pass of the model for its batch")
    if not tracked:
        return
    with _fenced(grad=False):
        # Guidance needs gradients, and turns them on itself.
        if _tracked(part, predictor, batch)[1]:
            return
    raise Broken(
        f"called with grad mode on, as the host does, {tracked} of {seen} outputs of the model's "
        "modules require grad; torch.no_grad() or torch.inference_mode() must be in predict",
        look_at=predictor.predict,
    )


def _tracked(part: Part, predictor: Any, batch: dict[str, Any]) -> tuple[int, int]:
    """How many outputs of modules there were, and how many of them require grad."""
    outputs: list[bool] = []

    def look(module: torch.nn.Module, args: Any, output: Any) -> None:
        several = output if isinstance(output, tuple | list) else [output]
        outputs.extend(one.requires_grad for one in several if isinstance(one, Tensor))

    with hooked(network(predictor), after=look):
        predicted(part, predictor, batch)
    return len(outputs), sum(outputs)


@rule(
    "predictor-no-submodule",
    part="predictor",
    says="The model is no submodule of the predictor, neither as the host sets it nor after "
    "`predict`.",
    host=f"{WIRING} sets the model past torch's registration, so that checkpoints hold it once "
    "and FSDP does not walk through it twice",
)
def no_submodule(part: Part) -> None:
    """Look for the model's weights in the predictor and in a checkpoint."""
    harness = part.wiring.harness()
    _look_for_weights(harness, "as the host builds it")
    predicted(part, harness.predictor, part.wiring.batch(part.loader))
    _look_for_weights(harness, "after predict")


def _look_for_weights(harness: Any, when: str) -> None:
    predictor, weights = harness.predictor, set(map(id, harness.model.parameters()))
    if not isinstance(predictor, torch.nn.Module):
        return
    # Once for each name: torch leaves out those that it has seen.
    found = predictor.named_parameters(remove_duplicate=False)
    twice = [f"predictor.{name}" for name, weight in found if id(weight) in weights]
    if twice:
        raise Broken(
            f"{when}, the checkpoint holds {len(twice)} weights of the model a second time, the "
            f"first as {twice[0]}; set the model with object.__setattr__",
            look_at=predictor,
        )


@rule(
    "predictor-given-model",
    part="predictor",
    says="A model that is passed to the predictor's constructor is no submodule of it either.",
    host=f"{WIRING} leaves a model as it is that the config gives, such as "
    "${lightning_module:model}: only the predictor can keep it from being registered",
)
def given_model(part: Part) -> None:
    """Give it the harness's model in the config."""
    if _takes(part, "model"):
        harness = part.wiring.harness(predictor__model="${lightning_module:model}")
        _look_for_weights(harness, "with model=${lightning_module:model} in its config")


@rule(
    "predictor-batch-unchanged",
    part="predictor",
    says="`predict` leaves the batch as it is.",
    host="xlm/harness.py, Harness._step gives the metrics the same batch after predict, and "
    "LogPredictions reads its targets and gives it to to_dict",
)
def batch_unchanged(part: Part) -> None:
    """Compare keys and values."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    before = snapshot(batch)
    predicted(part, predictor, batch)
    found = changes(before, batch)
    if found:
        raise Broken(f"predict changed the batch: {'; '.join(found)}", look_at=predictor.predict)
