"""The state of the random generators of a process, as plain values that a checkpoint may hold."""

import random
from typing import Any

import numpy as np
import torch

from xlm_mlm.collation.randomness import tensor_of

# Only what `torch.load(weights_only=True)` takes: bytes, numbers, None, and dicts of them. Bytes
# rather than tensors, which would travel from worker processes through shared memory.
State = dict[str, Any]


def random_state(device: torch.device | None = None) -> State:
    """The generators of torch, numpy and Python, and the one of a CUDA device."""
    version, words, gauss = random.getstate()
    state: State = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "python": [version, np.array(words, dtype=np.uint64).tobytes(), gauss],
    }
    numpy = np.random.get_state(legacy=False)
    if numpy["bit_generator"] == "MT19937":  # numpy's own, unless someone put in another
        keys, place = numpy["state"]["key"].tobytes(), int(numpy["state"]["pos"])
        state["numpy"] = [keys, place, int(numpy["has_gauss"]), float(numpy["gauss"])]
    if device is not None and device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    return state


def set_random_state(state: State, device: torch.device | None = None) -> None:
    """Put generators into a state that `random_state` read; those it lacks are left alone."""
    torch.set_rng_state(tensor_of(state["torch"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(np.frombuffer(words, dtype=np.uint64).tolist()), gauss))
    if "numpy" in state:
        keys, *rest = state["numpy"]
        np.random.set_state(("MT19937", np.frombuffer(keys, dtype=np.uint32), *rest))
    if "cuda" in state and device is not None and device.type == "cuda":
        torch.cuda.set_rng_state(tensor_of(state["cuda"]), device)
