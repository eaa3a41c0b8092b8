"""One layer: the host's weights, driven so that all layers share what a pass needs once."""

from jaxtyping import Float, Integer
from torch import Tensor
from xlm.modules.position import RotaryEmbedding
from xlm.modules.rotary_transformer import RotaryTransformerLayer, add_bias_apply_dropout_scale

from xlm_mlm.modeling.attention import AttentionContext, attend, attend_from, lay_out_queries
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
        x: Float[Tensor, "B L D"],
        context: AttentionContext,
        only_at: Integer[Tensor, "N"] | None = None,
    ) -> Float[Tensor, "B L D"] | Float[Tensor, "N D"]:
        """Run the layer, at every position or at some.

        Args:
            x: hidden states.
            context: rotary angles and masks of this pass.
            only_at: row-major indices into B x L; the states of those positions are returned,
                which may attend to all. Every position if None.
        """
        normed = self.norm1(x)
        if only_at is None:
            return self._finish(x, attend(self, normed, context))
        batch, length, width = x.shape
        if only_at.numel() and host_checkable(x) and context.block_mask is None:
            queries = lay_out_queries(only_at, batch, length)
            attended = attend_from(self, normed, queries, context)
        else:
            # With no position asked for, every weight must still get its (zero) gradient.
            attended = attend(self, normed, context).view(-1, width)[only_at]
        return self._finish(x.reshape(-1, width)[only_at], attended)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after its attention: projection, residuals and MLP."""
        x = self._add(x, self.o_proj(attended))
        return self._add(x, self.mlp(self.norm2(x)))

    def _add(self, residual: Tensor, branch: Tensor) -> Tensor:
        return add_bias_apply_dropout_scale(
            branch, dropout=self.dropout, residual=residual, training=self.training
        )
