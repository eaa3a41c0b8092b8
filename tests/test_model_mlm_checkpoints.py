"""Names and shapes of the weights are those of the field, so that checkpoints interchange."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from xlm_mlm import RotaryTransformerMLMModel

OPTIONS = {
    "num_embeddings": 23,
    "d_model": 16,
    "num_layers": 2,
    "nhead": 2,
    "padding_idx": 0,
    "mask_idx": 2,
    "dim_feedforward": 40,
    "rotary_emb_dim": 8,
    "max_length": 12,
}


def field_shapes():
    """The names and shapes that the field's checkpoints have, written out."""
    shapes = {"embed_tokens.weight": (23, 16)}
    for i in range(2):
        shapes |= {
            f"encoder.{i}.rotary_emb.inv_freq": (4,),
            f"encoder.{i}.norm1.weight": (16,),
            f"encoder.{i}.norm1.bias": (16,),
            f"encoder.{i}.attn_qkv.weight": (48, 16),
            f"encoder.{i}.o_proj.weight": (16, 16),
            f"encoder.{i}.norm2.weight": (16,),
            f"encoder.{i}.norm2.bias": (16,),
            f"encoder.{i}.mlp.0.weight": (40, 16),
            f"encoder.{i}.mlp.0.bias": (40,),
            f"encoder.{i}.mlp.2.weight": (16, 40),
            f"encoder.{i}.mlp.2.bias": (16,),
        }
    return shapes | {
        "output_layer.norm_final.weight": (16,),
        "output_layer.norm_final.bias": (16,),
        "output_layer.linear.weight": (23, 16),
    }


def seeded_weights():
    generator = torch.Generator().manual_seed(11)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.2
        for name, shape in field_shapes().items()
    }
    for name in weights:
        if name.endswith("inv_freq"):
            weights[name] = 1.0 / 10000 ** (torch.arange(0, 8, 2) / 8)
    return weights


def batch():
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(3, 23, (3, 9), generator=generator)
    valid = torch.ones(3, 9, dtype=torch.bool)
    valid[1, 6:] = valid[2, :2] = False
    positions = (valid.long().cumsum(1) - 1).clamp_min(0)
    return x, valid, positions


def test_names_and_shapes_are_those_of_the_field():
    state = RotaryTransformerMLMModel(**OPTIONS).state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == field_shapes()


def test_seeded_weights_load_strictly_and_score_as_recorded():
    model = RotaryTransformerMLMModel(**OPTIONS).eval()
    model.load_state_dict(seeded_weights(), strict=True)
    x, valid, positions = batch()
    logits = model(x, valid, positions)
    # Recorded once from the field's own implementation on the same weights and input.
    recorded = json.loads((Path(__file__).parent / "recorded_logits.json").read_text())
    expected = torch.tensor(recorded["logits_of_row_1_valid"])
    torch.testing.assert_close(logits[1][valid[1]], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("padded", [False, True])
def test_the_existing_package_gives_the_same_logits_both_ways(padded):
    existing = pytest.importorskip("mlm.model_mlm", reason="xlm-models is not installed")
    theirs = existing.RotaryTransformerMLMModel(**OPTIONS).eval()
    ours = RotaryTransformerMLMModel(**OPTIONS).eval()
    x, valid, positions = batch()
    if not padded:
        valid = torch.ones_like(valid)
        positions = torch.arange(9).expand(3, 9)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    difference = (ours(x, valid, positions) - theirs(x, valid, positions))[valid]
    assert difference.abs().max() < 1e-4
    other = RotaryTransformerMLMModel(**OPTIONS).eval()
    theirs.load_state_dict(other.state_dict(), strict=True)
    difference = (other(x, valid, positions) - theirs(x, valid, positions))[valid]
    assert difference.abs().max() < 1e-4


def test_save_pretrained_round_trips_weights_and_config(tmp_path):
    model = RotaryTransformerMLMModel(**OPTIONS, activation="gelu").eval()
    model.save_pretrained(tmp_path)
    loaded = RotaryTransformerMLMModel.from_pretrained(tmp_path).eval()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    x, valid, _ = batch()
    assert torch.equal(loaded(x, valid), model(x, valid))


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    model = RotaryTransformerMLMModel(**OPTIONS)
    with pytest.raises(ValueError, match="no config.json"):
        RotaryTransformerMLMModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        RotaryTransformerMLMModel.from_pretrained(tmp_path / "absent")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong in ({"num_layers": 3}, {"num_layers": 1}, {"d_model": 32}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(ValueError, match="does not fit"):
            RotaryTransformerMLMModel.from_pretrained(tmp_path)
    for text, words in (('{"max_len": 9}', "unknown options max_len"), ("[1]", "no JSON object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            RotaryTransformerMLMModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 16}))
    with pytest.raises(ValueError, match="does not fit"):
        RotaryTransformerMLMModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="does not fit"):
        RotaryTransformerMLMModel.from_pretrained(tmp_path)


NUMPY = {
    "d_model": torch.tensor(16),
    "num_layers": np.uint8(2),
    "nhead": np.int64(2),
    "mask_idx": np.int64(4),
    "dim_feedforward": np.array(40),
    "dropout": Fraction(1, 4),
    "layer_norm_eps": np.float32(0.125),
    "max_length": np.int64(32),
    "use_flex_attn": np.bool_(True),
}


def test_options_of_other_types_are_saved_as_the_numbers_that_they_are(tmp_path):
    torch.manual_seed(0)
    model = RotaryTransformerMLMModel(np.int64(23), rotary_emb_dim=4, **NUMPY).eval()
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for name, value in {**NUMPY, "num_embeddings": 23}.items():
        assert saved[name] == value, name
    loaded = RotaryTransformerMLMModel.from_pretrained(tmp_path).eval()
    assert (loaded.mask_idx, loaded.max_length, loaded.nhead) == (4, 32, 2)
    assert loaded.output_layer.norm_final.eps == 0.125
    assert loaded.encoder[0].dropout == 0.25
    x = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_a_subclass_has_its_own_options_saved_so(tmp_path):
    class Doubled(RotaryTransformerMLMModel):
        def __init__(self, d_model, scale=1.0):
            super().__init__(23, 2 * d_model, 1, 2, rotary_emb_dim=4)
            self.scale = scale

    Doubled(np.int64(8), scale=np.float32(0.5)).save_pretrained(tmp_path)
    loaded = Doubled.from_pretrained(tmp_path)
    assert (loaded.embed_tokens.embedding_dim, loaded.scale) == (16, 0.5)
