"""Options of the network, refused at construction where they cannot work."""

from xlm_mlm.checks import require_choice, require_int, require_number

_MOST = 2**31 - 1
# Of a width: the largest matrices, three widths by one, then have sizes that 64 bits hold.
_WIDEST = 2**24
# Smaller ones are 0 in fp32, or nearly; then a row of equal numbers, as padding has, gives NaN.
_LEAST_EPS = 1e-30


def check_sizes(
    num_embeddings: int,
    d_model: int,
    num_layers: int,
    nhead: int,
    rotary_emb_dim: int,
    max_length: int,
) -> tuple[int, int, int, int, int, int]:
    """Return the sizes, in this order, refusing those of which no network can be made.

    Raises:
        ValueError: a size is no positive integer or beyond all use, or heads can't be made.
    """
    num_embeddings = require_int("num_embeddings", num_embeddings, 1, _MOST)
    d_model = check_width("d_model", d_model)
    num_layers = require_int("num_layers", num_layers, 1, _MOST)
    nhead = require_int("nhead", nhead, 1, _MOST)
    max_length = require_int("max_length", max_length, 1, _MOST)
    rotary_emb_dim = require_int("rotary_emb_dim", rotary_emb_dim, 2, _MOST)
    if d_model % nhead:
        raise ValueError(f"d_model is {d_model}; it must be a multiple of nhead, {nhead}")
    head = d_model // nhead
    if rotary_emb_dim > head or rotary_emb_dim % 2:
        raise ValueError(
            f"rotary_emb_dim is {rotary_emb_dim}; it must be even and at most the head's size, "
            f"d_model / nhead = {head}"
        )
    return num_embeddings, d_model, num_layers, nhead, rotary_emb_dim, max_length


def check_width(name: str, value: int) -> int:
    """Return a width, refusing what is none."""
    return require_int(name, value, 1, _WIDEST)


def check_layer_options(
    activation: str, layer_norm_eps: float, dropout: float
) -> tuple[str, float, float]:
    """Return the options, in this order, refusing an unknown activation and numbers out of range.

    Raises:
        ValueError: there is one.
    """
    activation = require_choice("activation", activation, ("relu", "gelu"))
    rule = f"finite and at least {_LEAST_EPS}"
    epsilon = require_number("layer_norm_eps", layer_norm_eps, _LEAST_EPS, rule)
    rate = require_number("dropout", dropout, 0, "at least 0 and below 1")
    if rate >= 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
    return activation, epsilon, rate


def check_ids(num_embeddings: int, padding_idx: int, mask_idx: int) -> tuple[int, int]:
    """Return the special ids, in this order, refusing those that are the same or out of range.

    Raises:
        ValueError: they are the same, or one is not in the vocabulary.
    """
    padding_idx = require_int("padding_idx", padding_idx, 0)
    mask_idx = require_int("mask_idx", mask_idx, 0)
    for name, value in (("padding_idx", padding_idx), ("mask_idx", mask_idx)):
        if value >= num_embeddings:
            raise ValueError(
                f"{name} is {value}; it must be below num_embeddings, {num_embeddings}"
            )
    if padding_idx == mask_idx:
        raise ValueError(
            f"padding_idx and mask_idx are both {mask_idx}; they must differ, or padding would "
            "be taken for a token to fill in"
        )
    return padding_idx, mask_idx
