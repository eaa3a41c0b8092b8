"""One layer: the host's weights, driven so that all layers share what a pass needs once."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor
from xlm.modules.position import RotaryEmbedding
from xlm.modules.rotary_transformer import RotaryTransformerLayer

from xlm_mlm.modeling.attention import AttentionContext, attend, attend_from, lay_out_queries
from xlm_mlm.modeling.dropout import dropout
from xlm_mlm.modeling.masks import host_checkable


class MLMTransformerLayer(RotaryTransformerLayer):
    """The host's pre-norm layer, with rotary angles and masks prepared by the model.

    Args:
        d_model: width of the hidden states.
        nhead: attention heads.
        dim_feedforward: width of the MLP; 4 * `d_model` if None.
        dropout: probability, in attention and on both residual branches.
        activation: `relu` or `gelu`.
        layer_norm_eps: epsilon of both LayerNorms.
        rotary_emb_dim: channels of each head that are rotated.
        max_length: positions of the rotary tables.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int | None,
        dropout: float,
        activation: str,
        layer_norm_eps: float,
        rotary_emb_dim: int,
        max_length: int,
    ) -> None:
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps)
        # The host's list of kernels: unused here, and it cannot be pickled.
        del self.attn_backend
        # One embedding a layer: safetensors drops buffers that layers share.
        self.set_rotary_emb(RotaryEmbedding(rotary_emb_dim, cache_size=max_length))

    def forward(  # type: ignore[override]  # the model prepares what the host's layer takes raw
        self,
        x: Float[Tensor, "N D"] | Float[Tensor, "U D"],
        context: AttentionContext,
        only_at: Integer[Tensor, "M"] | None = None,
        repeats: Integer[Tensor, "N"] | None = None,
    ) -> Float[Tensor, "N D"] | Float[Tensor, "M D"]:
        """Run the layer, at every token of the line or at some.

        Args:
            x: hidden states.
            context: rotary angles and masks of this pass.
            only_at: places in the line; the states of those tokens are returned, which may attend
                to all of their sequence. Every token if None.
            repeats: which line of `x` is the state of each token, where many are equal: those are
                normalised and projected once. Not together with `only_at`.
        """
        normed = self.norm1(x)
        if repeats is not None:
            attended = attend(self, normed, context, repeats)
            return self._finish(F.embedding(repeats, x), attended)
        if only_at is None:
            return self._finish(x, attend(self, normed, context))
        if only_at.numel() and self._takes_some_queries(x, context):
            queries = lay_out_queries(only_at, context.groups)
            attended = attend_from(self, normed, queries, context)
        else:
            # With no position asked for, every weight must still get its (zero) gradient.
            attended = attend(self, normed, context)[only_at]
        return self._finish(x[only_at], attended)

    def _takes_some_queries(self, x: Tensor, context: AttentionContext) -> bool:
        return host_checkable(x) and context.block_mask is None and is_plain(self.attn_qkv)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after its attention: projection, residuals and MLP."""
        x = x + dropout(self.o_proj(attended), self.dropout, self.training)
        return x + dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


def is_plain(linear: torch.nn.Module) -> bool:
    """Whether a projection is nothing but its weight: no bias, no adapter, no hook, no shard."""
    return type(linear) is torch.nn.Linear and linear.bias is None and not is_hooked(linear)


def is_hooked(module: torch.nn.Module) -> bool:
    """Whether something waits for this module to be called."""
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    # Some libraries replace an instance's forward instead.
    return any(hooks) or "forward" in vars(module)
