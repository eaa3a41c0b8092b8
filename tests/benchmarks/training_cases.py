"""Training steps: gradients set to None, forward pass with loss, backward pass."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from arithmetic import ModelShape, pass_of, work_of
from cases import (
    Bench,
    Line,
    build_loss,
    build_models,
    clone_batch,
    random_ids,
    require_close,
    time_both,
)
from measure import Workload
from packages import MASK_ID


class TrainingSize(NamedTuple):
    """A model and a batch for it; the rows are full, or of lengths uniform in 1..length."""

    shape: ModelShape
    batch: int
    length: int
    padded: bool = False

    @property
    def setting(self) -> str:
        vocabulary, width, layers = self.shape
        rows = f"{self.batch} x {self.length}{', lengths uniform' if self.padded else ''}"
        return f"V {vocabulary:,}, d {width}, {layers} layers, {rows}"


def training_batch(size: TrainingSize) -> dict[str, Any]:
    """What a collator with `loss_on_padding=False` emits: t ~ U[0, 1] of each row masked.

    Padding is on the right, is never masked, has `attention_mask` False and target -100.
    """
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    ids = random_ids(size.shape.vocabulary, size.batch, size.length)
    lengths = torch.full((size.batch, 1), size.length)
    if size.padded:
        lengths = torch.randint(1, size.length + 1, (size.batch, 1), generator=generator)
    valid = torch.arange(size.length) < lengths
    rates = torch.rand(size.batch, 1, generator=generator)
    masked = (torch.rand(ids.shape, generator=generator) < rates) & valid
    ids = ids.masked_fill(~valid, 0)
    return {
        "input_ids": ids.masked_fill(masked, MASK_ID),
        "attention_mask": valid,
        "target_ids": ids.masked_fill(~valid, -100),
        "positions": None,
    }


def training_workload(
    model: Any, loss: Any, batch: dict[str, Any], optimizer: torch.optim.Optimizer | None = None
) -> Workload:
    """One step on a fresh copy of the batch, the optimizer's update included if one is given."""

    def prepare() -> Any:
        copy = clone_batch(batch)

        def step() -> None:
            model.zero_grad()
            loss(copy)["loss"].backward()
            if optimizer is not None:
                optimizer.step()

        return step

    return prepare


def training_lines(bench: Bench, case: str, size: TrainingSize, goal: float) -> Iterator[Line]:
    """The line of the table; as extra lines the same without dropout, and with AdamW."""
    batch = training_batch(size)
    needed = (batch["input_ids"] == MASK_ID).sum(1).tolist()
    one = pass_of(batch["attention_mask"].sum(1).tolist(), needed)
    work = work_of(size.shape, [one], backward=True)
    check = check_gradients(*_pair(bench, size, dropout=0.0), batch)
    variants = ((0.1, False), (0.0, False), (0.1, True)) if bench.extra else ((0.1, False),)
    for dropout, adamw in variants:
        models, losses = _pair(bench, size, dropout)
        workloads = []
        for model, loss in zip(models, losses, strict=True):
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4) if adamw else None
            workloads.append(training_workload(model, loss, batch, optimizer))
        measured = time_both(bench, *workloads, work=work)
        main = dropout > 0 and not adamw
        name = "training" + (", padded rows" if size.padded else " step")
        extra = "" if main else (" with AdamW" if adamw else ", dropout 0")
        yield Line(
            case, name + extra, size.setting, *measured[:2], goal if main else None,
            *measured[2:], check,
        )  # fmt: skip


def _pair(bench: Bench, size: TrainingSize, dropout: float) -> tuple[list[Any], list[Any]]:
    models = build_models(bench, size.shape, size.length, dropout=dropout)
    losses = [
        build_loss(package, model, size.shape.vocabulary)
        for package, model in zip(bench.packages, models, strict=True)
    ]
    return models, losses


def check_gradients(models: Any, losses: Any, batch: dict[str, Any]) -> str:
    """Loss and norm of the gradient agree, and no parameter's gradient differs by more.

    Raises:
        AssertionError: they do not.
    """
    values, gradients = [], []
    for model, loss in zip(models, losses, strict=True):
        model.zero_grad()
        value = loss(clone_batch(batch))["loss"]
        value.backward()
        values.append(value.item())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        model.zero_grad()
    ours, reference = gradients
    for name, gradient in ours.items():
        scale = reference[name].norm().item()
        if (gradient - reference[name]).norm().item() > 1e-4 * scale + 1e-7:
            raise AssertionError(f"the gradients of {name} differ")
    return "gradients within 1e-4; " + require_close("loss", *values)


def _tiny(size: TrainingSize, bench: Bench) -> TrainingSize:
    if not bench.tiny:
        return size
    vocabulary = min(size.shape.vocabulary, 40)
    return TrainingSize(ModelShape(vocabulary, 64, 2), 3, 12, size.padded)


def train_large_vocabulary(bench: Bench) -> Iterator[Line]:
    size = TrainingSize(ModelShape(30_522, 384, 4), 16, 128)
    yield from training_lines(bench, "train_large_vocabulary", _tiny(size, bench), 2.3)


def train_small_vocabulary(bench: Bench) -> Iterator[Line]:
    size = TrainingSize(ModelShape(100, 256, 6), 32, 128)
    yield from training_lines(bench, "train_small_vocabulary", _tiny(size, bench), 1.15)


def train_padded(bench: Bench) -> Iterator[Line]:
    size = TrainingSize(ModelShape(8_000, 256, 4), 16, 256, padded=True)
    yield from training_lines(bench, "train_padded", _tiny(size, bench), 2.5)
