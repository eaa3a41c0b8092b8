"""The network: a bidirectional Transformer with rotary positions that scores every token.

The layers are the host's own (`xlm.modules.rotary_transformer`), so that weights interchange
with the framework's other families; this module drives them so that the rotary angles are
looked up once a pass, nothing is masked where nothing is hidden, and the last layer and the
vocabulary projection run only at the positions that are asked for.
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from safetensors import SafetensorError
from torch import Tensor
from xlm.model import Model
from xlm.modules.rotary_transformer import RotaryTransformerFinalLayer

from xlm_mlm.checks import require_choice, require_int, require_number
from xlm_mlm.modeling.attention import AttentionContext, prepare_mask
from xlm_mlm.modeling.layer import MLMTransformerLayer
from xlm_mlm.modeling.masks import host_checkable, validity
from xlm_mlm.modeling.rotary import checked_positions, derived_positions, gather_tables
from xlm_mlm.types_mlm import MLMModel


class RotaryTransformerMLMModel(torch.nn.Module, Model):
    """Pre-norm Transformer encoder with rotary positions and an untied vocabulary projection.

    Args:
        num_embeddings: vocabulary size V, special tokens included.
        d_model: width of the hidden states; a multiple of `nhead`.
        num_layers: number of layers.
        nhead: attention heads.
        padding_idx: id of the padding token; its embedding is zero and stays so.
        mask_idx: id of the mask token.
        dim_feedforward: width of the MLP; 4 * `d_model` if None.
        dropout: probability, in attention and on both residual branches.
        activation: `relu` or `gelu`.
        layer_norm_eps: epsilon of every LayerNorm.
        rotary_emb_dim: channels of each head that are rotated; even, at most the head's size.
        max_length: longest sequence; positions run from 0 to `max_length` - 1.
        force_flash_attn: allow no attention kernel but FlashAttention (CUDA, no padding).
        use_flex_attn: evaluate a `block_mask` with FlexAttention's kernel where there is one
            (CUDA); otherwise the same mask is evaluated densely, with equal logits.
        final_layer_without_normalization: leave out the LayerNorm before the projection.

    Raises:
        ValueError: an option out of range, or options that contradict each other.
    """

    def __init__(
        self,
        num_embeddings: int,
        d_model: int,
        num_layers: int,
        nhead: int,
        padding_idx: int = 0,
        mask_idx: int = 1,
        dim_feedforward: int | None = None,
        dropout: float = 0.1,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        rotary_emb_dim: int = 64,
        max_length: int = 1024,
        force_flash_attn: bool = False,
        use_flex_attn: bool = False,
        final_layer_without_normalization: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(num_embeddings, d_model, num_layers, nhead, rotary_emb_dim, max_length)
        _check_ids(num_embeddings, padding_idx, mask_idx)
        _check_layer_options(activation, layer_norm_eps, dropout)
        if force_flash_attn and use_flex_attn:
            raise ValueError(
                "force_flash_attn and use_flex_attn are both True; FlashAttention cannot evaluate "
                "a block mask: choose one"
            )
        if dim_feedforward is not None:
            require_int("dim_feedforward", dim_feedforward, 1)
        self.num_embeddings = num_embeddings
        self.padding_idx = padding_idx
        self.mask_idx = mask_idx
        self.nhead = nhead
        self.max_length = max_length
        self.force_flash_attn = force_flash_attn
        self.use_flex_attn = use_flex_attn
        self.embed_tokens = torch.nn.Embedding(num_embeddings, d_model, padding_idx=padding_idx)
        self.encoder = torch.nn.ModuleList()
        for _ in range(num_layers):
            self.encoder.append(
                MLMTransformerLayer(
                    d_model,
                    nhead,
                    dim_feedforward,
                    dropout,
                    activation,
                    layer_norm_eps,
                    rotary_emb_dim,
                    max_length,
                )
            )
        self.output_layer = RotaryTransformerFinalLayer(
            d_model,
            num_embeddings,
            layer_norm_eps,
            use_final_layer_norm=not final_layer_without_normalization,
        )

    def forward(
        self,
        x_t: Integer[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
        positions: Integer[Tensor, "B L"] | None = None,
        block_mask: Any | None = None,
        *,
        logits_at: Integer[Tensor, "N"] | None = None,
    ) -> Float[Tensor, "B L V"] | Float[Tensor, "N V"]:
        """Score every token of the vocabulary, at every position or at some.

        Args:
            x_t: token ids.
            attention_mask: True (or 1) where a token may be attended to; (B, L, L) gives each
                query its own keys. Ignored when `block_mask` is given.
            positions: rotary positions. By default 0, 1, 2, ... over the valid tokens of a
                (B, L) mask, and over all tokens otherwise.
            block_mask: FlexAttention `BlockMask` of packed batches.
            logits_at: row-major indices into B x L; the logits of those positions are returned
                in that order, at less cost than all. All positions if None.

        Returns:
            Logits. At positions that `attention_mask` hides they are finite and mean nothing.

        Raises:
            ValueError: an empty input, ids outside the vocabulary, a length or position past
                `max_length`, a mask that does not fit. Values are looked at on the CPU only.
        """
        x_t = self.checked_ids(x_t)
        batch, length = x_t.shape
        mask, kernel_mask = prepare_mask(
            attention_mask,
            block_mask,
            x_t,
            heads=self.nhead,
            use_flex_attn=self.use_flex_attn,
            force_flash_attn=self.force_flash_attn,
        )
        if positions is not None:
            positions = checked_positions(positions, batch, length, self.max_length)
        elif (
            mask is not None
            and block_mask is None
            and attention_mask is not None
            and attention_mask.ndim == 2
        ):
            # Only padding shifts positions; without it the tables are sliced, not gathered.
            positions = derived_positions(validity(attention_mask, batch, length))
        rotary: Any = self.encoder[0].rotary_emb
        context = AttentionContext(
            gather_tables(rotary.cos, rotary.sin, length, positions),
            mask,
            kernel_mask,
            self.force_flash_attn and kernel_mask is None and block_mask is None,
        )
        if logits_at is not None:
            _check_logits_at(logits_at, batch * length)
        x = self.embed_tokens(x_t)
        for layer in self.encoder[:-1]:
            x = layer(x, context)
        return self.output_layer(self.encoder[-1](x, context, logits_at))

    def checked_ids(self, x_t: Integer[Tensor, "B L"]) -> Integer[Tensor, "B L"]:
        """Return token ids as int64, refusing what the network cannot embed.

        Raises:
            ValueError: not a tensor of integers of shape (B, L), an empty one, a length past
                `max_length`, or (looked for on the CPU only) ids outside the vocabulary.
        """
        if not isinstance(x_t, Tensor):
            raise ValueError(f"x_t is a {type(x_t).__name__}; it must be a tensor of token ids")
        if x_t.ndim != 2 or x_t.numel() == 0:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; it must be (batch, length), neither of them 0"
            )
        if x_t.shape[1] > self.max_length:
            raise ValueError(
                f"a sequence of length {x_t.shape[1]} is longer than the model's max_length of "
                f"{self.max_length}; cut it, or build the model with a larger max_length"
            )
        if x_t.is_floating_point() or x_t.dtype == torch.bool:
            raise ValueError(f"x_t has dtype {x_t.dtype}; token ids must be integers")
        if host_checkable(x_t):
            low, high = int(x_t.min()), int(x_t.max())
            if low < 0 or high >= self.num_embeddings:
                raise ValueError(
                    f"token id {high if high >= self.num_embeddings else low} is outside the "
                    f"vocabulary of {self.num_embeddings} (valid: 0 to {self.num_embeddings - 1})"
                )
        return x_t.long()

    def get_named_params_for_weight_decay(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Weights of embeddings and linear maps; disjoint from the other group."""
        undecayed = self._undecayed()
        return ((n, p) for n, p in self.named_parameters() if n not in undecayed)

    def get_named_params_for_no_weight_decay(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Biases and the parameters of norms; together the two groups are all parameters."""
        undecayed = self._undecayed()
        return ((n, p) for n, p in self.named_parameters() if n in undecayed)

    def _undecayed(self) -> set[str]:
        return {
            f"{path}.{name}"
            for path, module in self.named_modules()
            for name, _ in module.named_parameters(recurse=False)
            if name == "bias" or isinstance(module, torch.nn.LayerNorm)
        }

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load a folder written by `save_pretrained`, or a repository of the hub, strictly.

        Args:
            pretrained_model_name_or_path: the folder, or the repository's name.
            kwargs: as in `PyTorchModelHubMixin.from_pretrained`; `strict=False` loads what fits.

        Raises:
            ValueError: there is no such folder, it has no config or no weights, or they do not
                fit.
        """
        name = pretrained_model_name_or_path
        folder = Path(name)
        if folder.is_dir():
            _check_folder(folder, set(inspect.signature(cls.__init__).parameters))
        elif isinstance(name, Path) or name.startswith((".", "/", "~")):
            raise ValueError(f"{name} is no folder; it must be one written by save_pretrained")
        try:
            return super().from_pretrained(str(name), **{"strict": True, **kwargs})
        except (RuntimeError, TypeError, SafetensorError) as error:
            raise ValueError(f"{name} does not fit {cls.__name__}: {error}") from error


def _check_folder(folder: Path, options: set[str]) -> None:
    """Refuse a folder that `save_pretrained` did not write, or whose config we would misread."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} has no {name}; it is not a folder written by save_pretrained"
            )
    config = json.loads((folder / "config.json").read_text())
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'config.json'} holds no JSON object of options")
    unknown = sorted(set(config) - options)
    if unknown:
        raise ValueError(
            f"{folder / 'config.json'} has unknown options {', '.join(unknown)}; known ones: "
            f"{', '.join(sorted(options - {'self'}))}"
        )


def _check_sizes(
    num_embeddings: int,
    d_model: int,
    num_layers: int,
    nhead: int,
    rotary_emb_dim: int,
    max_length: int,
) -> None:
    require_int("num_embeddings", num_embeddings, 1)
    require_int("d_model", d_model, 1)
    require_int("num_layers", num_layers, 1)
    require_int("nhead", nhead, 1)
    require_int("max_length", max_length, 1)
    require_int("rotary_emb_dim", rotary_emb_dim, 2)
    if d_model % nhead:
        raise ValueError(f"d_model is {d_model}; it must be a multiple of nhead, {nhead}")
    head = d_model // nhead
    if rotary_emb_dim > head or rotary_emb_dim % 2:
        raise ValueError(
            f"rotary_emb_dim is {rotary_emb_dim}; it must be even and at most the head's size, "
            f"d_model / nhead = {head}"
        )


def _check_layer_options(activation: str, layer_norm_eps: float, dropout: float) -> None:
    require_choice("activation", activation, ("relu", "gelu"))
    require_number("layer_norm_eps", layer_norm_eps, 0, "finite and at least 0")
    if require_number("dropout", dropout, 0, "at least 0 and below 1") >= 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")


def _check_ids(num_embeddings: int, padding_idx: int, mask_idx: int) -> None:
    for name, value in (("padding_idx", padding_idx), ("mask_idx", mask_idx)):
        if require_int(name, value, 0) >= num_embeddings:
            raise ValueError(
                f"{name} is {value}; it must be below num_embeddings, {num_embeddings}"
            )
    if padding_idx == mask_idx:
        raise ValueError(
            f"padding_idx and mask_idx are both {mask_idx}; they must differ, or padding would "
            "be taken for a token to fill in"
        )


def _check_logits_at(logits_at: Tensor, positions: int) -> None:
    if not isinstance(logits_at, Tensor) or logits_at.ndim != 1 or logits_at.dtype != torch.long:
        raise ValueError(
            f"logits_at is {logits_at!r:.80}; it must be a flat tensor of int64 indices into "
            "batch x length"
        )
    if logits_at.numel() and host_checkable(logits_at):
        low, high = int(logits_at.min()), int(logits_at.max())
        if low < 0 or high >= positions:
            raise ValueError(
                f"logits_at holds indices from {low} to {high}; batch x length is {positions}, so "
                f"valid ones are 0 to {positions - 1}"
            )


def takes_logits_at(model: MLMModel) -> bool:
    """Whether a model can be asked for the logits of some positions only."""
    # Look through torch.compile and DistributedDataParallel: their own forward declares nothing.
    for wrapper in ("_orig_mod", "module"):
        model = getattr(model, wrapper, model)
    forward = getattr(model, "forward", model)
    try:
        return "logits_at" in inspect.signature(forward).parameters
    except (TypeError, ValueError):
        return False


def logits_at_positions(
    model: MLMModel,
    x_t: Integer[Tensor, "B L"],
    flat: Integer[Tensor, "N"],
    attention_mask: Bool[Tensor, "B L"] | None = None,
    positions: Integer[Tensor, "B L"] | None = None,
    block_mask: Any | None = None,
) -> Float[Tensor, "N V"]:
    """Logits of some positions, from any model of the `MLMModel` protocol.

    A model that declares `logits_at` is asked for those alone; another computes all of them.
    """
    if takes_logits_at(model):
        return call_model(model, x_t, attention_mask, positions, block_mask, logits_at=flat)
    logits = call_model(model, x_t, attention_mask, positions, block_mask)
    return pick(logits, flat, x_t)


def pick(
    logits: Float[Tensor, "B L V"], flat: Integer[Tensor, "N"], x_t: Integer[Tensor, "B L"]
) -> Float[Tensor, "N V"]:
    """Logits of some positions.

    Raises:
        ValueError: the logits are not of shape (B, L, V).
    """
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != x_t.shape:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the model (or the logits_hook) gave {found} for an input of shape "
            f"{tuple(x_t.shape)}; it must be a tensor (batch, length, vocabulary)"
        )
    return logits.flatten(0, 1)[flat]


def call_model(
    model: MLMModel,
    x_t: Integer[Tensor, "B L"],
    attention_mask: Bool[Tensor, "B L"] | None = None,
    positions: Integer[Tensor, "B L"] | None = None,
    block_mask: Any | None = None,
    **extra: Any,
) -> Tensor:
    """Call a model of the protocol; `block_mask` is named only where there is one."""
    if block_mask is not None:
        extra["block_mask"] = block_mask
    return model(x_t, attention_mask=attention_mask, positions=positions, **extra)
