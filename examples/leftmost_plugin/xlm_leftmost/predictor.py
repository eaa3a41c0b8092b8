import torch

from xlm_mlm import MLMPredictor


class Leftmost:
    """One mask a pass, from left to right, whatever the model thinks."""

    needs_logits = False

    def select(self, candidates):
        chosen = torch.zeros_like(candidates.valid)
        chosen[:, 0] = True
        return chosen


class LeftmostPredictor(MLMPredictor):
    """Decodes as an autoregressive model would."""

    def __init__(self, max_steps, **options):
        super().__init__(max_steps, **{**options, "strategy": Leftmost()})
