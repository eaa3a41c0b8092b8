"""The arithmetic that a training step or a decoding run cannot avoid, and how long it takes.

Counted are the products of matrices alone, two operations (multiply, add) for each term: the
layers at every valid token, the last layer's queries and MLP and the vocabulary only at the
positions that are needed. A backward pass takes two products for each one forward.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from measure import Workload


class ModelShape(NamedTuple):
    """The sizes of a model that its arithmetic depends on; the MLP is 4 times as wide."""

    vocabulary: int
    width: int
    layers: int

    @property
    def heads(self) -> int:
        """One head for each 64 channels, as the configs of the field have it."""
        return self.width // 64


class Pass(NamedTuple):
    """One forward pass, over rows without their padding.

    Attributes:
        tokens: valid tokens of the batch.
        needed: positions whose logits are needed.
        pairs: pairs of a token and one it attends to: the squared lengths of all rows.
        needed_pairs: the same where only needed positions attend.
    """

    tokens: int
    needed: int
    pairs: int
    needed_pairs: int


class Product(NamedTuple):
    """`count` linear maps of (rows, inner) to (rows, columns), in a whole run."""

    rows: int
    inner: int
    columns: int
    count: int

    @property
    def operations(self) -> int:
        return 2 * self.rows * self.inner * self.columns


class Work(NamedTuple):
    """What a run must compute, and linear maps that are representative of it."""

    operations: int
    products: list[Product]
    backward: bool


def pass_of(lengths: list[int], needed: list[int]) -> Pass:
    """The pass over rows of these lengths, of which so many positions are needed."""
    return Pass(
        sum(lengths),
        sum(needed),
        sum(n * n for n in lengths),
        sum(n * k for n, k in zip(lengths, needed, strict=True)),
    )


def forward_operations(shape: ModelShape, one: Pass) -> int:
    """Floating-point operations of one forward pass."""
    d, inner = shape.width, 4 * shape.width
    layer = one.tokens * (4 * d * d + 2 * d * inner) + one.pairs * 2 * d
    last = one.tokens * 2 * d * d + one.needed_pairs * 2 * d
    last += one.needed * (2 * d * d + 2 * d * inner)
    return 2 * ((shape.layers - 1) * layer + last + one.needed * d * shape.vocabulary)


def work_of(shape: ModelShape, passes: list[Pass], backward: bool) -> Work:
    """Add up passes; the representative linear maps have the passes' mean sizes."""
    operations = sum(forward_operations(shape, one) for one in passes)
    tokens = round(sum(one.tokens for one in passes) / len(passes))
    needed = max(round(sum(one.needed for one in passes) / len(passes)), 1)
    d, times = shape.width, len(passes)
    full = times * (shape.layers - 1)
    products = [
        *(
            Product(tokens, i, o, full)
            for i, o in ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d))
            if full
        ),
        Product(tokens, d, 2 * d, times),
        Product(needed, d, d, 2 * times),
        Product(needed, d, 4 * d, times),
        Product(needed, 4 * d, d, times),
        Product(needed, d, shape.vocabulary, times),
    ]
    return Work(operations * (3 if backward else 1), products, backward)


def product_workload(
    product: Product,
    backward: bool,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    finish: Callable[[], None] = lambda: None,
) -> Workload:
    """Run one linear map once, with both products of its backward pass if asked for.

    Results go where earlier ones went: fresh memory costs more than some of the products.
    `finish` is called at the end of each run, to wait for the device.
    """
    x = torch.randn(product.rows, product.inner, dtype=dtype, device=device)
    weight = torch.randn(product.columns, product.inner, dtype=dtype, device=device)
    y = torch.mm(x, weight.t())
    x_gradient, weight_gradient = torch.empty_like(x), torch.empty_like(weight)

    def run() -> None:
        torch.mm(x, weight.t(), out=y)
        if backward:
            torch.mm(y, weight, out=x_gradient)
            torch.mm(y.t(), x, out=weight_gradient)
        finish()

    return lambda: run


def matmul_rate(work: Work, seconds: list[float]) -> float:
    """Operations a second of the representative products, each weighed by how often it occurs.

    Args:
        work: whose products were timed.
        seconds: median of one run of each product, in order.
    """
    factor = 3 if work.backward else 1
    operations = sum(p.operations * p.count * factor for p in work.products)
    return operations / sum(p.count * s for p, s in zip(work.products, seconds, strict=True))


def best_rate(work: Work, seconds: list[float]) -> float:
    """Operations a second of the fastest product."""
    factor = 3 if work.backward else 1
    return max(factor * p.operations / s for p, s in zip(work.products, seconds, strict=True))
