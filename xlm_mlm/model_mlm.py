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

from xlm_mlm.checks import plain, require_bool
from xlm_mlm.modeling.asking import check_logits_at, check_target_weights, check_targets
from xlm_mlm.modeling.context import Line, lay_out
from xlm_mlm.modeling.head import plain_cross_entropy, project, weighted_cross_entropy
from xlm_mlm.modeling.layer import MLMTransformerLayer, is_hooked, is_plain
from xlm_mlm.modeling.masks import WITHOUT_VALUES, fault_of_ids, host_checkable
from xlm_mlm.modeling.options import check_ids, check_layer_options, check_sizes, check_width
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

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Note the options for `save_pretrained`, as numbers of Python's own.

        The mixin leaves out of the config, in silence, what JSON does not know.
        """
        own = {name: plain(value) for name, value in kwargs.items()}
        return super().__new__(cls, *map(plain, args), **own)

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
        num_embeddings, d_model, num_layers, nhead, rotary_emb_dim, max_length = check_sizes(
            num_embeddings, d_model, num_layers, nhead, rotary_emb_dim, max_length
        )
        padding_idx, mask_idx = check_ids(num_embeddings, padding_idx, mask_idx)
        activation, layer_norm_eps, dropout = check_layer_options(
            activation, layer_norm_eps, dropout
        )
        self.force_flash_attn = require_bool("force_flash_attn", force_flash_attn)
        self.use_flex_attn = require_bool("use_flex_attn", use_flex_attn)
        bare = require_bool("final_layer_without_normalization", final_layer_without_normalization)
        if force_flash_attn and use_flex_attn:
            raise ValueError(
                "force_flash_attn and use_flex_attn are both True; FlashAttention cannot evaluate "
                "a block mask: choose one"
            )
        if dim_feedforward is not None:
            dim_feedforward = check_width("dim_feedforward", dim_feedforward)
        self.num_embeddings = num_embeddings
        self.padding_idx = padding_idx
        self.mask_idx = mask_idx
        self.nhead = nhead
        self.max_length = max_length
        self.embed_tokens = torch.nn.Embedding(num_embeddings, d_model, padding_idx=padding_idx)
        sizes = (d_model, nhead, dim_feedforward, dropout)
        rest = (activation, layer_norm_eps, rotary_emb_dim, max_length)
        self.encoder = torch.nn.ModuleList(
            MLMTransformerLayer(*sizes, *rest) for _ in range(num_layers)
        )
        self.output_layer = RotaryTransformerFinalLayer(
            d_model, num_embeddings, layer_norm_eps, use_final_layer_norm=not bare
        )

    def forward(
        self,
        x_t: Integer[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
        positions: Integer[Tensor, "B L"] | None = None,
        block_mask: Any | None = None,
        *,
        logits_at: Integer[Tensor, "N"] | None = None,
        targets: Integer[Tensor, "N"] | None = None,
        target_weights: Float[Tensor, "N"] | None = None,
    ) -> Float[Tensor, "B L V"] | Float[Tensor, "N V"] | Float[Tensor, ""]:
        """Score every token of the vocabulary, at every position or at some.

        On the CPU padding costs nothing: it is left out of the work where that pays.

        Args:
            x_t: token ids.
            attention_mask: True (or 1) where a token may be attended to; (B, L, L) gives each
                query its own keys. Ignored when `block_mask` is given.
            positions: rotary positions. By default 0, 1, 2, ... over the valid tokens of a
                (B, L) mask, and over all tokens otherwise.
            block_mask: FlexAttention `BlockMask` of packed batches.
            logits_at: row-major indices into B x L; the logits of those positions are returned
                in that order, at less cost than all. All positions if None.
            targets: the right token at each position of `logits_at`; asks for the loss instead of
                the logits, which then are not all held at once where they would be many.
            target_weights: of each term of the loss, constants; by default 1 / N.

        Returns:
            Logits; or, with `targets`, the sum of the weighted cross-entropies, in nats and fp32.
            Logits at positions that `attention_mask` hides are finite and mean nothing.

        Raises:
            ValueError: an empty input, ids outside the vocabulary, a length or position past
                `max_length`, a mask that does not fit, `targets` without `logits_at`. Values are
                looked at on the CPU only.
        """
        x_t = self.checked_ids(x_t)
        if logits_at is not None:
            check_logits_at(logits_at, x_t.numel())
        if targets is not None:
            check_targets(targets, logits_at, self.num_embeddings)
        check_target_weights(target_weights, targets)
        line = lay_out(self, x_t, attention_mask, positions, block_mask, logits_at)
        x = self._through_all_but_last(line)
        x = self.encoder[-1](x, line.context, line.at)
        if logits_at is None:
            return self.output_layer(line.spread(x, *x_t.shape))
        return self._head(x, targets, target_weights)

    def _through_all_but_last(self, line: Line) -> Float[Tensor, "N D"]:
        rest = self.encoder[:-1]
        if len(rest) and host_checkable(line.tokens) and self._may_share_first_layer():
            tokens, repeats = line.distinct()
            if repeats is not None:
                x = rest[0](self.embed_tokens(tokens), line.context, repeats=repeats)
                for layer in rest[1:]:
                    x = layer(x, line.context)
                return x
        x = self.embed_tokens(line.tokens)
        for layer in rest:
            x = layer(x, line.context)
        return x

    def _may_share_first_layer(self) -> bool:
        """Whether nobody minds that the first layer is given each distinct token once.

        In fp32 only: the gradients of a token's many places are added up in the states' type.
        """
        first: Any = self.encoder[0]
        seen = is_hooked(self.embed_tokens) or is_hooked(first) or is_hooked(first.norm1)
        narrow = self.embed_tokens.weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        return not (seen or narrow) and is_plain(first.attn_qkv)

    def _head(
        self,
        hidden: Float[Tensor, "N D"],
        targets: Integer[Tensor, "N"] | None,
        weights: Float[Tensor, "N"] | None,
    ) -> Float[Tensor, "N V"] | Float[Tensor, ""]:
        """Logits of the positions asked for, or the loss at them."""
        head = self.output_layer
        # A wrapper of another class, FSDP's for one, gathers the weights when it is called.
        whole = type(head) is RotaryTransformerFinalLayer and not is_hooked(head)
        plain = whole and is_plain(head.linear)
        if plain and head.norm_final is not None:
            hidden = head.norm_final(hidden)
        if targets is None:
            return project(hidden, head.linear.weight) if plain else head(hidden)
        if weights is None:
            weights = torch.full(targets.shape, 1 / max(len(targets), 1), device=hidden.device)
        if not plain:
            return plain_cross_entropy(head(hidden), targets, weights)
        return weighted_cross_entropy(hidden, head.linear.weight, targets, weights)

    def checked_ids(self, x_t: Integer[Tensor, "B L"]) -> Integer[Tensor, "B L"]:
        """Return token ids as int64, refusing what the network cannot embed.

        Raises:
            ValueError: not a tensor of integers of shape (B, L), an empty one, a length past
                `max_length`, or (looked for on the CPU only) ids outside the vocabulary.
        """
        fault = fault_of_ids(x_t)
        if fault and not (fault == WITHOUT_VALUES and self.embed_tokens.weight.is_meta):
            raise ValueError(
                f"x_t is {fault}; it must be a tensor of token ids, which must be integers"
            )
        if x_t.ndim != 2 or x_t.numel() == 0:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; it must be (batch, length), neither of them 0"
            )
        if x_t.shape[1] > self.max_length:
            raise ValueError(
                f"a sequence of length {x_t.shape[1]} is longer than the model's max_length of "
                f"{self.max_length}; cut it, or build the model with a larger max_length"
            )
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


def takes(model: MLMModel, keyword: str) -> bool:
    """Whether a model's forward declares a keyword beyond those of the protocol."""
    # Look through torch.compile and DistributedDataParallel: their own forward declares nothing.
    for wrapper in ("_orig_mod", "module"):
        model = getattr(model, wrapper, model)
    forward = getattr(model, "forward", model)
    try:
        return keyword in inspect.signature(forward).parameters
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
    if takes(model, "logits_at"):
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
