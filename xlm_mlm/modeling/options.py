"""Options of the network, refused at construction where they cannot work."""

from xlm_mlm.checks import require_choice, require_int, require_number


def check_sizes(
    num_embeddings: int,
    d_model: int,
    num_layers: int,
    nhead: int,
    rotary_emb_dim: int,
    max_length: int,
) -> None:
    """Refuse sizes that are no positive integers, or of which heads can't be made."""
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


def check_layer_options(activation: str, layer_norm_eps: float, dropout: float) -> None:
    """Refuse an unknown activation, and numbers out of range."""
    require_choice("activation", activation, ("relu", "gelu"))
    require_number("layer_norm_eps", layer_norm_eps, 0, "finite and at least 0")
    if require_number("dropout", dropout, 0, "at least 0 and below 1") >= 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")


def check_ids(num_embeddings: int, padding_idx: int, mask_idx: int) -> None:
    """Refuse special ids that are the same, or not in the vocabulary."""
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
