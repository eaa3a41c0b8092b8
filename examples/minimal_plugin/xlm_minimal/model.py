"""The network: token ids in, a distribution over the vocabulary at every position out.

Shapes: B = rows, L = positions, V = vocabulary size, D = `d_model`.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn import functional as F
from xlm.model import Model


class Layer(torch.nn.Module):
    """Attention, then a feed-forward network, each normed before and added to its input."""

    def __init__(self, d_model: int, nhead: int, dropout: float) -> None:
        super().__init__()
        self.nhead = nhead
        self.norm1 = torch.nn.LayerNorm(d_model)
        self.qkv = torch.nn.Linear(d_model, 3 * d_model)
        self.out = torch.nn.Linear(d_model, d_model)
        self.norm2 = torch.nn.LayerNorm(d_model)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(d_model, 4 * d_model),
            torch.nn.GELU(),
            torch.nn.Linear(4 * d_model, d_model),
        )
        self.dropout = torch.nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B L D"], allowed: Bool[Tensor, "B 1 L L"]
    ) -> Float[Tensor, "B L D"]:
        """`allowed[b, 0, i, j]`: whether position i may look at position j."""
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, self.nhead, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class MinimalModel(torch.nn.Module, Model):
    """A bidirectional transformer with learned positions.

    Args:
        num_embeddings: tokens in the vocabulary.
        d_model: width; a multiple of `nhead`.
        max_length: positions that it has embeddings for.

    Raises:
        ValueError: `d_model` is not a multiple of `nhead`.
    """

    def __init__(
        self,
        num_embeddings: int,
        d_model: int = 32,
        num_layers: int = 2,
        nhead: int = 2,
        max_length: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if d_model % nhead:
            raise ValueError(f"d_model={d_model} must be a multiple of nhead={nhead}")
        self.max_length = max_length
        self.embed_tokens = torch.nn.Embedding(num_embeddings, d_model)
        self.embed_positions = torch.nn.Embedding(max_length, d_model)
        self.layers = torch.nn.ModuleList(Layer(d_model, nhead, dropout) for _ in range(num_layers))
        self.norm = torch.nn.LayerNorm(d_model)
        self.head = torch.nn.Linear(d_model, num_embeddings)

    def forward(
        self,
        input_ids: Integer[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | Integer[Tensor, "B L"] | None = None,
        positions: Integer[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L V"]:
        """Logits. At padding they are finite and mean nothing.

        Args:
            attention_mask: true (or 1) at tokens, false (or 0) at padding; None means no padding.
            positions: counted from 0; by default over the tokens alone, so that padding on the
                left changes nothing.

        Raises:
            ValueError: more positions than `max_length`.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        seen = attention_mask.bool()
        length = input_ids.shape[1]
        if positions is None:
            positions = (seen.cumsum(1) - 1).clamp(min=0)
        elif positions.numel():
            length = max(length, int(positions.max()) + 1)
        if length > self.max_length:
            raise ValueError(
                f"{length} positions are more than max_length={self.max_length}; "
                "shorten the rows or build the model with a larger max_length"
            )
        # Nobody looks at padding, except that each position may look at itself: a row of nothing
        # but padding would average over nothing, which some versions of torch make NaN.
        itself = torch.eye(input_ids.shape[1], dtype=torch.bool, device=input_ids.device)
        allowed = seen[:, None, None, :] | itself
        x = self.embed_tokens(input_ids) + self.embed_positions(positions)
        for layer in self.layers:
            x = layer(x, allowed)
        return self.head(self.norm(x))

    def get_named_params_for_weight_decay(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Matrices: the host's optimizer decays these."""
        return ((n, p) for n, p in self.named_parameters() if p.ndim > 1)

    def get_named_params_for_no_weight_decay(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Vectors, that is biases and norms: all the others."""
        return ((n, p) for n, p in self.named_parameters() if p.ndim <= 1)
