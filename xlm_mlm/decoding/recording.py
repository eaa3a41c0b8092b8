"""What the decoding loop asks of whoever records it."""

from abc import ABC, abstractmethod
from typing import Any

from xlm_mlm.types_mlm import MLMStepResults


class HistoryPluginBase(ABC):
    """What the predictor asks of a history.

    `use_tokenizer` and `begin` once a batch, `update_history` after every pass, `finalize` at the
    end, then `to_dict` for the entries of the batch's rows. `reset` forgets the batch.
    """

    def use_tokenizer(self, tokenizer: Any) -> None:  # noqa: B027 (optional)
        """Learn the predictor's tokenizer; called before `begin`."""

    def begin(self, step_results: MLMStepResults) -> None:  # noqa: B027 (optional)
        """Prepare for a batch; called before its first pass."""

    @abstractmethod
    def update_history(self, step_results: MLMStepResults) -> None:
        """Record a pass; `step_results` holds all rows, `active` says which took part."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the current batch; what was written stays."""

    @abstractmethod
    def to_dict(self) -> list[dict[str, Any]]:
        """One entry a row of the current batch, with the key `fid`."""

    def finalize(self) -> None:  # noqa: B027 (optional)
        """Close the current batch."""
