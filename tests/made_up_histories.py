"""Histories on disk, written by the class itself from made-up logits."""

import torch

from xlm_mlm.history_mlm import HistoryTopKPlugin

MASK = 2


def write(folder, tokenizer, before, orders, *, k=3, seed=0, vocabulary=None, **options):
    """Write one batch; `orders` says, per row and pass, which places are filled.

    Returns:
        The fids, and the logits (S, B, L, V) of each pass.
    """
    generator = torch.Generator().manual_seed(seed)
    history = HistoryTopKPlugin(folder, k, tokenizer=tokenizer, **options)
    x = torch.tensor(before)
    history.begin({"x": x})
    passes = max(map(len, orders))
    shape = (passes, *x.shape, vocabulary or len(tokenizer))
    logits = 3 * torch.randn(shape, generator=generator)
    logits[..., MASK] = -torch.inf
    for step in range(passes):
        filled = torch.zeros(x.shape, dtype=torch.bool)
        for row, order in enumerate(orders):
            filled[row, order[step] if step < len(order) else []] = True
        active = (x == MASK).any(dim=1)
        x = torch.where(filled, logits[step].argmax(-1), x)
        state = {"x": x, "logits": logits[step], "filled": filled, "masked": x == MASK}
        history.update_history({**state, "active": active})
    history.finalize()
    return [entry["fid"] for entry in history.to_dict()], logits
