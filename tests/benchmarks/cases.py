"""What the cases share: what they are given, what they return, and the timing of one line."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from arithmetic import ModelShape, Work, best_rate, matmul_rate, product_workload
from measure import OtherWork, Timing, Workload, interleave
from packages import MASK_ID, SPECIAL_TOKENS, Package, make_tokenizer


@dataclass(frozen=True)
class Bench:
    """What a case runs with.

    Attributes:
        ours: the package under test.
        reference: the one it is compared with.
        rounds: runs of each at most.
        budget: seconds after which a line starts no further round (of at least 3).
        tiny: sizes small enough for a test of the harness; the figures then mean nothing.
        extra: measure lines beyond those of the table as well.
    """

    ours: Package
    reference: Package
    rounds: int = 9
    budget: float = 45.0
    tiny: bool = False
    extra: bool = False

    @property
    def packages(self) -> tuple[Package, Package]:
        return self.ours, self.reference


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        case: name of the case, for `--only`.
        path: what is measured.
        setting: its sizes.
        ours: seconds, or bytes where `unit` says so.
        reference: the same of the reference.
        goal: the ratio that is asked for, None for an extra line.
        limit: seconds that the arithmetic alone takes at the rate measured, where it makes sense.
        rate: floating-point operations a second behind the limit.
        best: the same of the fastest of the products that the rate is averaged over.
        others: share of all cores' time that went to other processes meanwhile.
        check: how the two were found to compute the same.
        unit: `s` or `bytes`.
    """

    case: str
    path: str
    setting: str
    ours: Timing
    reference: Timing
    goal: float | None = None
    limit: float | None = None
    rate: float | None = None
    best: float | None = None
    others: float | None = None
    check: str = ""
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """How many times the reference takes what ours takes."""
        return self.reference.median / self.ours.median if self.ours.median else float("nan")

    @property
    def share(self) -> float | None:
        """Of the time ours takes, the part that the arithmetic needs."""
        return None if self.limit is None else self.limit / self.ours.median


class Case(Protocol):
    """A function that measures one row of the issue's table, in one or more lines."""

    def __call__(self, bench: Bench) -> Iterator[Line]: ...


class Measured(NamedTuple):
    """Timings of one line, with its limit in seconds and the rates behind it (see `Line`)."""

    ours: Timing
    reference: Timing
    limit: float | None
    rate: float | None
    best: float | None
    others: float


def time_both(
    bench: Bench,
    ours: Workload,
    reference: Workload,
    work: Work | None = None,
    warm_up: int = 1,
) -> Measured:
    """Time both packages and the representative matmuls in turns."""
    workloads = {"ours": ours, "reference": reference}
    products = work.products if work else []
    for i, product in enumerate(products):
        workloads[f"product {i}"] = product_workload(product, bool(work and work.backward))
    other_work = OtherWork()
    seconds = interleave(workloads, bench.rounds, bench.budget, warm_up)
    others = other_work.share()
    ours_and_reference = Timing.of(seconds["ours"]), Timing.of(seconds["reference"])
    if work is None:
        return Measured(*ours_and_reference, None, None, None, others)
    medians = [statistics.median(seconds[f"product {i}"]) for i in range(len(products))]
    rate = matmul_rate(work, medians)
    return Measured(
        *ours_and_reference, work.operations / rate, rate, best_rate(work, medians), others
    )


def build_model(package: Package, shape: ModelShape, max_length: int, **options: Any) -> Any:
    """A model of a package, with its default options where none are given."""
    return package.model(
        shape.vocabulary,
        shape.width,
        shape.layers,
        shape.heads,
        padding_idx=0,
        mask_idx=MASK_ID,
        max_length=max_length,
        **options,
    )


def build_models(bench: Bench, shape: ModelShape, max_length: int, **options: Any) -> list[Any]:
    """A model of each package, with the same weights."""
    torch.manual_seed(0)
    models = [build_model(package, shape, max_length, **options) for package in bench.packages]
    models[1].load_state_dict(models[0].state_dict())
    return models


def build_loss(package: Package, model: Any, vocabulary: int) -> Any:
    """The loss of a package, with its mask id set as `configure` would."""
    loss = package.loss(model=model, tokenizer=make_tokenizer(vocabulary))
    loss.mask_token_id_tensor = torch.tensor(MASK_ID)
    return loss


def random_ids(vocabulary: int, *shape: int) -> torch.Tensor:
    """Ordinary tokens, uniform."""
    return torch.randint(SPECIAL_TOKENS, vocabulary, shape)


def clone_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """A copy for one call: a loss may overwrite what it is given."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def require_close(name: str, ours: float, reference: float, tolerance: float = 1e-4) -> str:
    """Say by how much two numbers differ.

    Raises:
        AssertionError: by more than `tolerance`, relative to the larger.
    """
    difference = abs(ours - reference) / max(abs(ours), abs(reference), 1e-30)
    if not difference <= tolerance:
        raise AssertionError(f"{name}: ours {ours}, reference {reference}: not the same")
    return f"{name} {ours:.4f}, relative difference {difference:.0e}"
