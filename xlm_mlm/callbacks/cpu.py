"""A callback with settings for small models on the CPU."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from xlm_mlm.checks import require_choice, require_int

PRECISIONS = ("highest", "high", "medium")


class CPUSettings(Callback):
    """While a model runs on the CPU, use these settings of torch; on other devices, none.

    The operations of a very small model are too short to be shared out: threads then wait for
    each other, on a busy machine most of the time. And the host asks for `medium` matrix
    products, which on CPUs with bfloat16 instructions makes attention over short rows several
    times slower: attention alone, of which a whole step has more or less.

    Args:
        threads: threads of one operation; None leaves them.
        matmul_precision: as in `torch.set_float32_matmul_precision`; None leaves it.

    Raises:
        ValueError: `threads` is no integer of at least 1, or an unknown precision.
    """

    def __init__(self, threads: int | None = None, matmul_precision: str | None = None):
        super().__init__()
        self.threads = None if threads is None else require_int("threads", threads, 1)
        if matmul_precision is not None:
            require_choice("matmul_precision", matmul_precision, PRECISIONS)
        self.matmul_precision = matmul_precision
        self._before: tuple[int, str] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.strategy.root_device.type != "cpu":
            return
        self._before = torch.get_num_threads(), torch.get_float32_matmul_precision()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.matmul_precision is not None:
            torch.set_float32_matmul_precision(self.matmul_precision)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, *args: Any) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            torch.set_num_threads(self._before[0])
            torch.set_float32_matmul_precision(self._before[1])
            self._before = None
