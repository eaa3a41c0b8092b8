"""A small network, and the same arithmetic again: one row, one head, one scalar at a time."""

import math

import torch
import torch.nn.functional as F

from xlm_mlm import RotaryTransformerMLMModel

V, D, HEADS, ROT, MAX = 31, 32, 4, 4, 24


def build(**overrides):
    """The network, the same at each call, with no dropout at work."""
    torch.manual_seed(7)
    options = {
        "num_embeddings": V,
        "d_model": D,
        "num_layers": 3,
        "nhead": HEADS,
        "padding_idx": 0,
        "mask_idx": 2,
        "rotary_emb_dim": ROT,
        "max_length": MAX,
        "dropout": 0.1,
    }
    return RotaryTransformerMLMModel(**{**options, **overrides}).eval()


def naive_rotate(head, position):
    """Rotate pairs (i, i + ROT/2) of one head's first ROT channels, one scalar at a time."""
    out = list(head)
    for i in range(ROT // 2):
        angle = position / 10000 ** (2 * i / ROT)
        a, b = head[i], head[i + ROT // 2]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + ROT // 2] = b * math.cos(angle) + a * math.sin(angle)
    return torch.stack(out)


def naive_logits(model, ids, visible, positions):
    """One row, one head and one query at a time; `visible[q][k]` says who sees whom."""
    w = {k: v.double() for k, v in model.state_dict().items()}
    x = w["embed_tokens.weight"][ids]
    size = D // HEADS

    def norm(name, h):
        return F.layer_norm(h, (D,), w[f"{name}.weight"], w[f"{name}.bias"])

    for i in range(len(model.encoder)):
        p = f"encoder.{i}."
        q, k, v = (norm(p + "norm1", x) @ w[p + "attn_qkv.weight"].T).split(D, dim=-1)
        out = torch.zeros_like(x)
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            qs = [naive_rotate(q[t, part], positions[t]) for t in range(len(ids))]
            ks = [naive_rotate(k[t, part], positions[t]) for t in range(len(ids))]
            for t in range(len(ids)):
                keys = [s for s in range(len(ids)) if visible[t][s]]
                scores = torch.stack([qs[t] @ ks[s] for s in keys]) / math.sqrt(size)
                out[t, part] = scores.softmax(0) @ v[keys][:, part]
        x = x + out @ w[p + "o_proj.weight"].T
        hidden = F.relu(norm(p + "norm2", x) @ w[p + "mlp.0.weight"].T + w[p + "mlp.0.bias"])
        x = x + hidden @ w[p + "mlp.2.weight"].T + w[p + "mlp.2.bias"]
    if "output_layer.norm_final.weight" in w:
        x = norm("output_layer.norm_final", x)
    return x @ w["output_layer.linear.weight"].T


def rows(batch=3, length=7):
    """Token ids, none of them special."""
    return torch.randint(3, V, (batch, length), generator=torch.Generator().manual_seed(3))
