"""Reading checkpoints: raw and averaged weights, what does not fit, what is no checkpoint."""

import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file
from torch_ema import ExponentialMovingAverage

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.checkpoints import read_checkpoint


def network(seed, d_model=16):
    torch.manual_seed(seed)
    return RotaryTransformerMLMModel(9, d_model, 1, 2, rotary_emb_dim=4)


def averaged(model):
    """The callback's own class, after a few steps of random training."""
    ema = ExponentialMovingAverage(model.parameters(), decay=0.5)
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update()
    return ema


@pytest.fixture
def trained(tmp_path):
    """A checkpoint in the host's form, with the model and the average that made it."""
    model = network(1)
    # One that is not trained has no average.
    model.output_layer.norm_final.bias.requires_grad_(False)
    ema = averaged(torch.nn.ParameterList(p for p in model.parameters() if p.requires_grad))
    content = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}
        | {"metrics.total": torch.ones(1)},
        "hyper_parameters": {"block_size": 7},
        "global_step": 12,
        "ema": ema.state_dict(),
    }
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt", model, ema


def fresh():
    model = network(2)
    model.output_layer.norm_final.bias.requires_grad_(False)
    return model


def test_what_a_checkpoint_says(trained):
    path, model, _ = trained
    read = read_checkpoint(path)
    assert (read.step, read.config, read.has_ema) == (12, {"block_size": 7}, True)
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.tensors.keys() == model.state_dict().keys()


def test_raw_weights_are_those_of_the_optimizer(trained):
    path, model, _ = trained
    other = fresh()
    assert read_checkpoint(path).apply(other, "raw") == "raw"
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


@pytest.mark.parametrize("which", ["auto", "ema"])
def test_averaged_weights_are_those_that_the_host_would_take(trained, which):
    path, model, ema = trained
    other = fresh()
    assert read_checkpoint(path).apply(other, which) == "ema"
    ema.copy_to(p for p in model.parameters() if p.requires_grad)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_without_an_average(trained):
    path, model, _ = trained
    content = torch.load(path, weights_only=True)
    del content["ema"]
    torch.save(content, path)
    read = read_checkpoint(path)
    assert not read.has_ema
    assert read.apply(fresh(), "auto") == "raw"
    with pytest.raises(ValueError, match="holds no EMA weights.*weights=raw"):
        read.apply(fresh(), "ema")
    assert model is not None


@pytest.mark.parametrize(("name", "write"), [("x.pt", torch.save), ("x.safetensors", save_file)])
def test_weights_alone(tmp_path, name, write):
    model, other = network(1), network(2)
    write(model.state_dict(), tmp_path / name)
    read = read_checkpoint(tmp_path / name)
    assert (read.step, read.config, read.has_ema) == (None, {}, False)
    assert read.apply(other) == "raw"
    x = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.eval()(x), other.eval()(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["state_dict"].pop("model.embed_tokens.weight"), "it lacks embed_tokens"),
        (lambda c: c["state_dict"].update({"model.more": torch.ones(1)}), "the model has no more"),
        (
            lambda c: c["state_dict"].update({"model.embed_tokens.weight": torch.ones(8, 16)}),
            r"embed_tokens.weight has shape \[8, 16\], in the model \[9, 16\]",
        ),
        (lambda c: c["ema"]["shadow_params"].pop(), "averages 12 parameters, and .* has 13"),
        (
            lambda c: c["ema"]["shadow_params"].__setitem__(0, torch.ones(2)),
            r"average of embed_tokens.weight has shape \[2\]",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(trained, change, message):
    path, _, _ = trained
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path).apply(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_unknown_choice_is_refused(trained):
    with pytest.raises(ValueError, match="weights is 'best'.*'raw'"):
        read_checkpoint(trained[0]).apply(fresh(), "best")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"model.x": torch.ones(1)}, "more": Bomb()}, "bomb.ckpt")
    with pytest.raises(ValueError, match=r"\(posix.system\); reading it could run code"):
        read_checkpoint("bomb.ckpt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04", bytes(1000), b"\x80\x02}."])
def test_other_files_are_no_checkpoints(tmp_path, data):
    path = tmp_path / "x.ckpt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.ckpt (is damaged|holds)") as found:
        read_checkpoint(path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(1)],
        {},
        {"state_dict": {}},
        {"a": 1},
        {3: torch.ones(1)},
        {"state_dict": {"model.a": 1}},
        {"state_dict": {3: torch.ones(1)}},
    ],
)
def test_other_contents_are_no_checkpoints(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt holds"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_file_cut_anywhere_is_damaged(trained):
    path, _, _ = trained
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged, or no checkpoint"):
            read_checkpoint(path)


def test_integers_are_no_weights(trained):
    path, _, _ = trained
    content = torch.load(path, weights_only=True)
    content["state_dict"]["model.embed_tokens.weight"] = torch.ones(9, 16, dtype=torch.int32)
    torch.save(content, path)
    with pytest.raises(ValueError, match="embed_tokens.weight holds torch.int32, in the model tor"):
        read_checkpoint(path).apply(fresh())


def test_what_is_odd_about_a_file_is_said_once(trained, recwarn):
    path, _, _ = trained
    torch.save(torch.load(path, weights_only=True), path, pickle_protocol=4)
    with pytest.raises(ValueError, match="no checkpoint: UnpicklingError: Weights only"):
        read_checkpoint(path)
    assert not recwarn.list


def test_a_strange_average_is_refused(tmp_path):
    torch.save({"state_dict": {"model.a": torch.ones(1)}, "ema": [1]}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="moving average without its list"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.ckpt")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_nobody_is_waited_for_at_a_pipe(tmp_path, in_time):
    os.mkfifo(tmp_path / "x.ckpt")
    with pytest.raises(FileNotFoundError, match=r"x\.ckpt is a pipe; it must be a regular file"):
        read_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused_with_their_name_and_file(tmp_path, bad):
    path, model, target = tmp_path / "diverged.ckpt", network(1), network(2)
    average = [parameter.detach().clone() for parameter in model.parameters()]
    average[-1].flatten()[3] = bad
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "ema": {"shadow_params": average}}, path)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    last = list(dict(model.named_parameters()))[-1]
    with pytest.raises(ValueError, match=rf"diverged\.ckpt: the average of {last} .* in 1 of 144"):
        read_checkpoint(path).apply(target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert read_checkpoint(path).apply(target, "raw") == "raw"
    state["model.embed_tokens.weight"][2, :2] = bad
    torch.save({"state_dict": state}, path)
    with pytest.raises(ValueError, match=r"diverged\.ckpt: embed_tokens\.weight .* in 2 of 144"):
        read_checkpoint(path).apply(target)


def test_weights_without_values_or_not_dense_are_refused(tmp_path):
    for name, tensor in (("meta", torch.ones(2, device="meta")), ("sparse", torch.eye(2))):
        tensor = tensor.to_sparse() if name == "sparse" else tensor
        torch.save({"model.a": tensor}, tmp_path / f"{name}.ckpt")
        with pytest.raises(ValueError, match=rf"{name}\.ckpt: model\.a has .*; weights must be"):
            read_checkpoint(tmp_path / f"{name}.ckpt")
