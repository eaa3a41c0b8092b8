"""Rows whose worker processes remember where their random numbers stand."""

from typing import Any

from torch.utils.data import Dataset, get_worker_info

from xlm_mlm.callbacks.random_state import random_state, set_random_state
from xlm_mlm.collation.randomness import source_of

_RANDOM = "xlm_mlm_random"


class RememberingRows(Dataset):
    """A map-style dataset that a loader which saves its place asks for its random state too.

    Such a loader (torchdata's `StatefulDataLoader`, which the host trains with) skips rows that
    were seen without collating them, and starts a worker's generators from their seed: resumed, a
    worker would repeat the masks it drew at the start of the epoch. But it saves the state of its
    dataset with each batch, and sets it in the worker before the next. In the main process, where
    batches are made without workers, nothing is added: the generators there belong to the trainer.

    Args:
        rows: what is indexed; its own state, where it has one, is kept beside.
        collator: which draws in the same process.
    """

    def __init__(self, rows: Any, collator: Any) -> None:
        self.rows, self.collator = rows, collator

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __getattr__(self, name: str) -> Any:
        # What else rows may offer, `__getitems__` above all; not how they are copied and pickled.
        if name in ("rows", "collator") or (name.startswith("__") and name != "__getitems__"):
            raise AttributeError(name)
        return getattr(self.rows, name)

    def state_dict(self) -> dict[str, Any] | None:
        """The state of the rows and, in a worker, of its generators; None for neither."""
        own = self.rows.state_dict() if _stateful(self.rows) else None
        if get_worker_info() is None:
            return own
        source = source_of(self.collator)
        state = {"process": random_state(), "source": source.state_dict() if source else {}}
        return {**(own or {}), _RANDOM: state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what a state of another origin lacks is left as it is."""
        own = {name: value for name, value in state.items() if name != _RANDOM}
        if own and _stateful(self.rows):
            self.rows.load_state_dict(own)
        if _RANDOM in state and get_worker_info() is not None:
            set_random_state(state[_RANDOM]["process"])
            if source := source_of(self.collator):
                source.load_state_dict(state[_RANDOM]["source"])


def _stateful(rows: Any) -> bool:
    return hasattr(rows, "state_dict") and hasattr(rows, "load_state_dict")
