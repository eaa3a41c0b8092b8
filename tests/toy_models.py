"""Models of the bare protocol whose logits are known, for tests of the loop around them."""

import torch


class TableModel(torch.nn.Module):
    """Logits by column, the same for every row and input; counts its calls and what it saw."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(torch.as_tensor(table, dtype=torch.float32))
        self.inputs = []
        self.grad_enabled = []
        self.modes = []

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        self.inputs.append(x_t.clone())
        self.grad_enabled.append(torch.is_grad_enabled())
        self.modes.append(self.training)
        return self.table[: x_t.shape[1]].expand(len(x_t), -1, -1)


class SelectiveModel(TableModel):
    """The same, with the keyword that asks for some positions only."""

    def __init__(self, table):
        super().__init__(table)
        self.asked = []

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None, *, logits_at=None):
        logits = super().forward(x_t, attention_mask, positions, block_mask)
        if logits_at is None:
            self.asked.append(x_t.numel())
            return logits
        self.asked.append(len(logits_at))
        return logits.reshape(-1, logits.shape[-1])[logits_at]
