"""`xlm-mlm save`: what the folder holds, which weights, and what is left alone."""

import copy

import pytest
import torch
from tiny_checkpoints import CONFIG, MASK, write_checkpoint

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.commands import cli
from xlm_mlm.rebuild import SPECIFICATION, load, rebuild


def naming(target):
    config = copy.deepcopy(CONFIG)
    config["model"]["_target_"] = target
    return config


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Checkpoints in the working directory, and the weights that they hold."""
    monkeypatch.chdir(tmp_path)
    raw, ema = rebuild(CONFIG).model, rebuild(CONFIG).model
    write_checkpoint("both.ckpt", raw, ema, hyper_parameters=CONFIG)
    write_checkpoint("raw.ckpt", raw, hyper_parameters=CONFIG)
    write_checkpoint("bare.ckpt", raw)
    write_checkpoint("stranger.ckpt", raw, hyper_parameters=naming("os.system"))
    alias = naming("xlm_mlm.RotaryTransformerMLMModel")
    write_checkpoint("alias.ckpt", raw, hyper_parameters=alias)
    (tmp_path / "damaged.ckpt").write_bytes(b"no checkpoint")
    return {"raw": raw, "ema": ema}


def saved(capsys, *args):
    """What the command prints."""
    assert cli.main(["save", *args]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def complaint(capsys, *args, code=1):
    """The one line that a command that fails writes."""
    assert cli.main(["save", *args]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


def same(model, other):
    return all(
        torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items()
    )


def contents(folder):
    """Everything below a folder, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("checkpoint", "weights", "used"),
    [
        ("both.ckpt", ["--weights", "raw"], "raw"),
        ("both.ckpt", ["--weights", "ema"], "ema"),
        ("both.ckpt", ["--weights", "auto"], "ema"),
        ("both.ckpt", [], "ema"),
        ("raw.ckpt", [], "raw"),
    ],
)
def test_the_folder_holds_the_weights_that_were_asked_for(capsys, made, checkpoint, weights, used):
    out = saved(capsys, "folder", "--checkpoint", checkpoint, *weights)
    assert out == f"wrote folder: the model with its {used} weights, and its tokenizer\n"
    model = RotaryTransformerMLMModel.from_pretrained("folder")
    assert same(model, made[used])
    assert not same(made["raw"], made["ema"])


def test_the_folder_needs_no_config(capsys, made, tmp_path):
    saved(capsys, "folder", "--checkpoint", "both.ckpt")
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names >= {"config.json", "model.safetensors", SPECIFICATION}
    found = load("folder")
    assert found.tokenizer.convert_ids_to_tokens([MASK, 9]) == ["[MASK]", "2"]
    assert found.predictor == {"max_steps": 16, "confidence": "top_prob", "top_k": None}
    assert (found.add_bos, found.add_eos) == (True, False)


def test_the_folder_fills_as_its_checkpoint_does(capsys, made):
    saved(capsys, "folder", "--checkpoint", "both.ckpt", "--weights", "raw")
    args = ["[MASK] 1 [MASK]", "--candidates", "4", "--device", "cpu"]
    outs = []
    for source in (["both.ckpt", "--weights", "raw"], ["folder"]):
        assert cli.main(["fill", *args, "--checkpoint", *source]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1]
    assert outs[0].count("\n") == 4


@pytest.mark.parametrize("name", ["empty", "new", "new/deep"])
def test_a_folder_that_is_empty_or_not_there_is_filled(capsys, made, tmp_path, name):
    (tmp_path / "empty").mkdir()
    assert saved(capsys, name, "--checkpoint", "raw.ckpt").startswith(f"wrote {name}: ")
    assert (tmp_path / name / SPECIFICATION).is_file()


@pytest.mark.parametrize("held", ["notes.txt", ".hidden", "folder/deep.txt"])
def test_a_folder_that_holds_something_is_left_as_it_was(capsys, made, tmp_path, monkeypatch, held):
    mine = tmp_path / "mine"
    (mine / held).parent.mkdir(parents=True)
    (mine / held).write_text("mine")
    before = contents(tmp_path)
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("the checkpoint was read"))
    rule = "exists; give a folder that does not, or an empty one"
    # Nor does it matter what the checkpoint is.
    for checkpoint in ("both.ckpt", "nowhere.ckpt"):
        for target in ("mine", f"mine/{held}"):
            line = complaint(capsys, target, "--checkpoint", checkpoint)
            assert line.startswith(f"error: {target} {rule}")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--checkpoint", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
        (["--checkpoint", "."], "checkpoint . is a folder, not a file"),
        (["--checkpoint", "damaged.ckpt"], "damaged.ckpt is damaged, or no checkpoint"),
        (["--checkpoint", "bare.ckpt"], "the checkpoint's config has no global_components"),
        (["--checkpoint", "stranger.ckpt"], "stranger.ckpt: the model is 'os.system', which is"),
        (["--checkpoint", "alias.ckpt"], "--trust allows it"),
        (["--checkpoint", "raw.ckpt", "--weights", "ema"], "raw.ckpt holds no EMA weights"),
        (["--checkpoint", "both.ckpt", "--weights", "best"], "weights is 'best'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    capsys, made, tmp_path, monkeypatch, args, message
):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("it was called"))
    before = contents(tmp_path)
    line = complaint(capsys, "folder", *args)
    assert message in line
    assert line.endswith(" (--debug shows more)")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["folder"], "missing option '--checkpoint'"),
        (["--checkpoint", "both.ckpt"], "missing argument 'folder'"),
        (["folder", "more", "--checkpoint", "both.ckpt"], "(more)"),
        (["", "--checkpoint", "both.ckpt"], "it is empty; give a folder"),
    ],
)
def test_a_mistaken_command_is_one_line(capsys, made, args, message):
    # Typer names an argument in capitals before 0.27.
    line = complaint(capsys, *args, code=2).replace("FOLDER", "folder")
    assert message in line
    assert "`xlm-mlm save --help` shows how" in line


def test_trust_makes_a_class_that_is_not_on_the_list(capsys, made):
    saved(capsys, "folder", "--checkpoint", "alias.ckpt", "--trust")
    assert same(RotaryTransformerMLMModel.from_pretrained("folder"), made["raw"])


def test_debugging_shows_the_traceback(capsys, made):
    assert cli.main(["save", "folder", "--checkpoint", "nowhere.ckpt", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
