"""One layer against the host's own forward, and its place among torch's hooks."""

import torch
from xlm.modules.rotary_transformer import RotaryTransformerLayer

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.modeling.attention import AttentionContext
from xlm_mlm.modeling.layer import MLMTransformerLayer
from xlm_mlm.modeling.packing import Group
from xlm_mlm.modeling.rotary import gather_tables


def test_it_computes_what_the_hosts_layer_computes():
    ours = MLMTransformerLayer(16, 2, 40, 0.1, "gelu", 1e-5, 4, 8).eval()
    host = RotaryTransformerLayer(16, 2, 40, 0.1, "gelu", 1e-5).eval()
    host.set_rotary_emb(ours.rotary_emb)
    host.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5, 16)
    valid = torch.ones(3, 5, dtype=torch.bool)
    valid[1, 3:] = False
    positions = torch.arange(5).expand(3, 5)
    tables = gather_tables(ours.rotary_emb.cos, ours.rotary_emb.sin, 5, positions)
    context = AttentionContext(tables, (Group(3, 5),), valid[:, None, None])
    expected, line = host(x, valid, positions).flatten(0, 1), x.flatten(0, 1)
    torch.testing.assert_close(ours(line, context), expected, atol=1e-6, rtol=1e-5)
    chosen = torch.tensor([0, 3, 6, 14])
    torch.testing.assert_close(ours(line, context, chosen), expected[chosen], atol=1e-6, rtol=1e-5)


def test_hooks_on_a_layer_run():
    """Sharding, checkpointing and probes hang on a module's own call."""
    model = RotaryTransformerMLMModel(20, 16, 2, 2, rotary_emb_dim=4, max_length=8)
    seen = []
    for layer in model.encoder:
        layer.register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    model(torch.full((2, 4), 5), logits_at=torch.tensor([1, 6, 7]))
    assert seen == [(8, 16), (3, 16)]
