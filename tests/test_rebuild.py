"""Rebuilding from a saved config: what is allowed, what is refused, and a folder's round trip."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tiny_checkpoints import CONFIG, MASK, NUMBERS, changed, network
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.data.tokenizers import ByteTokenizer
from xlm_mlm.rebuild import SPECIFICATION, Saved, build_tokenizer, load, rebuild, save


def with_file(tmp_path, name, content):
    """A saved folder, one of whose files has other content, or is not there."""
    folder = tmp_path / "saved"
    save(rebuild(CONFIG), folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    return folder


def test_the_model_and_the_tokenizer_of_a_config():
    saved = rebuild(CONFIG)
    assert isinstance(saved.model, RotaryTransformerMLMModel)
    assert saved.model.embed_tokens.num_embeddings == 12
    assert saved.tokenizer.convert_ids_to_tokens([MASK, 9]) == ["[MASK]", "2"]
    # Plain options only; objects are not the config's to make.
    assert saved.predictor == {"max_steps": 16, "confidence": "top_prob", "top_k": None}
    assert (saved.add_bos, saved.add_eos) == (True, False)


def test_the_fields_package_is_understood():
    saved = rebuild(changed("model", "_target_", value="mlm.model_mlm.RotaryTransformerMLMModel"))
    assert isinstance(saved.model, RotaryTransformerMLMModel)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "_target_"), "os.system", "the model is 'os.system'.*--trust"),
        (("model", "_target_"), None, "the model is None"),
        (("model", "d_model"), {"_target_": "os.system"}, "model.d_model names the class 'os.sys"),
        (("model", "d_model"), [{"_target_": "os.system"}], "model.d_model names the class"),
        (("model", "d_model"), {"a": {"_target_": "x.y"}}, "model.d_model.a names the class"),
        (("model", "d_model"), "${oc.env:HOME}", "only a run of the host can fill in"),
        (("model", "d_model"), "${tokenizer:__class__}", "only a run of the host can fill in"),
        (("model", "d_model"), "x${tokenizer:vocab_size}", "only a run of the host can fill in"),
        (("model", "d_model"), 33, "can't be made"),
        (("model", "more"), 1, "can't be made"),
        (("model",), None, "has no global_components.tokenizer or no model"),
        (("global_components",), None, "has no global_components.tokenizer or no model"),
        (("global_components", "tokenizer", "_target_"), "os.system", "tokenizer is 'os.system'"),
        (("global_components", "tokenizer", "vocab_size"), "${oc.env:X}", "only a run of the host"),
        (("global_components", "tokenizer", "trust_remote_code"), True, "trust_remote_code=True"),
    ],
)
def test_what_is_not_on_the_list_is_refused(path, value, message, monkeypatch):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("it was called"))
    with pytest.raises(ValueError, match=message):
        rebuild(changed(*path, value=value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_layers", 10**9),
        ("d_model", 10**9),
        ("dim_feedforward", 1e9),
        ("num_embeddings", 10**9),
    ],
)
def test_a_model_far_larger_than_its_weights_is_not_built(tmp_path, key, value):
    tensors = rebuild(CONFIG).model.state_dict()
    with pytest.raises(ValueError, match=f"model.{key} is .*weights are of a smaller model"):
        rebuild(changed("model", key, value=value), tensors=tensors)
    save(rebuild(CONFIG), tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"saved can.t be loaded: model.{key} is "):
        load(tmp_path / "saved")


def test_a_vocabulary_of_billions_is_not_made():
    path = ("global_components", "tokenizer", "vocab_size")
    with pytest.raises(ValueError, match="tokenizer.vocab_size is 1000000000; above 10,000,000"):
        rebuild(changed(*path, value=10**9))


def test_the_hosts_loader_that_runs_code_of_repositories_is_not_called():
    config = {"_target_": "xlm.datamodule.load_auto_tokenizer"}
    with pytest.raises(ValueError, match="which is not on the list"):
        build_tokenizer(config | {"pretrained_model_name_or_path": "some/name"})


def test_a_tokenizer_that_is_not_here_is_named():
    config = {
        "_target_": "xlm.datamodule.BertTokenizerFast.from_pretrained",
        "pretrained_model_name_or_path": "no/such-name",
    }
    with pytest.raises(ValueError, match="'no/such-name' can't be loaded from this machine; fetch"):
        build_tokenizer(config)


def test_trust_allows_any_class():
    with pytest.raises(ValueError, match="--trust allows it"):
        build_tokenizer({"_target_": "collections.OrderedDict"})
    assert build_tokenizer({"_target_": "collections.OrderedDict"}, trust=True) == {}
    with pytest.raises(ValueError, match="is not installed here"):
        build_tokenizer({"_target_": "no.such.thing"}, trust=True)


def test_nothing_is_fetched_unless_trusted(monkeypatch):
    asked = []

    def from_pretrained(*args, **options):
        asked.append(options)
        return object()

    monkeypatch.setattr("xlm.datamodule.BertTokenizerFast.from_pretrained", from_pretrained)
    config = {
        "_target_": "xlm.datamodule.BertTokenizerFast.from_pretrained",
        "pretrained_model_name_or_path": "some/name",
    }
    build_tokenizer(config)
    build_tokenizer(config, trust=True)
    assert [options.get("local_files_only") for options in asked] == [True, None]


@pytest.mark.parametrize("kind", ["numbers", "bytes"])
def test_a_folder_gives_back_what_was_saved(tmp_path, kind):
    if kind == "numbers":
        tokenizer, config = SimpleSpaceTokenizer.for_numbers(5), NUMBERS
    else:
        tokenizer = ByteTokenizer()
        config = {"_target_": "xlm_mlm.data.tokenizers.load_tokenizer"}
    model = network(1).eval()
    saved = Saved(model, tokenizer, config, {"max_steps": 7}, add_bos=True)
    save(saved, tmp_path / "first")
    # Wherever the folder goes.
    (tmp_path / "first").rename(tmp_path / "moved")
    found = load(tmp_path / "moved")
    assert (found.predictor, found.add_bos, found.add_eos) == ({"max_steps": 7}, True, False)
    ids = list(range(len(tokenizer)))
    assert found.tokenizer.convert_ids_to_tokens(ids) == tokenizer.convert_ids_to_tokens(ids)
    x = torch.tensor([[4, MASK, 9]])
    assert torch.equal(found.model.eval()(x), model(x))


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match="exists; give a folder that does not"):
        save(rebuild(CONFIG), tmp_path)
    with pytest.raises(ValueError, match="exists"):
        save(rebuild(CONFIG), tmp_path / "mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no tokenizer_spec.json.*xlm-mlm save"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "has format None; this version reads 1"),
        ('{"format": 2, "tokenizer": {}}', "has format 2"),
        ('{"format": 1, "tokenizer": {"_target_": "os.system", "command": "x"}}', "--trust"),
        ('{"format": 1}', "json has tokenizer None; it must be an object"),
        ('{"format": 1, "tokenizer": null}', "json has tokenizer None; it must be an object"),
        *(
            (f'{{"format": 1, "tokenizer": {{}}, {entry}}}', f"json has {message}")
            for entry, message in (
                ('"predictor": [1]', r"predictor \[1\]; it must be an object"),
                ('"predictor": null', "predictor None; it must be an object"),
                ('"add_bos": "x"', "add_bos 'x'; it must be true or false"),
                ('"add_bos": [1]', r"add_bos \[1\]; it must be true or false"),
                ('"add_eos": null', "add_eos None; it must be true or false"),
                ('"add_eos": 1', "add_eos 1; it must be true or false"),
            )
        ),
        (
            '{"format": 1, "tokenizer": {"_target_": "xlm_mlm.data.tokenizers.load_tokenizer", '
            '"pretrained_model_name_or_path": "../elsewhere"}}',
            "takes the tokenizer from '../elsewhere'; it must be 'tokenizer', beside it",
        ),
    ],
)
def test_a_strange_specification_is_refused(tmp_path, content, message):
    damaged = with_file(tmp_path, SPECIFICATION, content and content.encode())
    with pytest.raises(ValueError, match=message):
        load(damaged)


@pytest.mark.parametrize(
    "name", [SPECIFICATION, "config.json", "model.safetensors", "tokenizer/tokenizer.json"]
)
def test_nobody_is_waited_for_at_a_pipe(tmp_path, name, in_time):
    saved = with_file(tmp_path, "config.json", None)
    (saved / name).unlink(missing_ok=True)
    (saved / name).parent.mkdir(exist_ok=True)
    os.mkfifo(saved / name)
    with pytest.raises(ValueError, match=f"saved/{name} is a pipe; it must be a regular file"):
        load(saved)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 99_999, None])
def test_a_damaged_model_is_named(tmp_path, file, content):
    damaged = with_file(tmp_path, file, content)
    with pytest.raises(ValueError, match="the model in .*saved can.t be loaded: ."):
        load(damaged)


@pytest.mark.parametrize("name", [".", "link", "new/folder"])
def test_an_empty_folder_is_used_as_it_is(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if name == "link":
        Path(name).symlink_to(tmp_path / "there")
    save(rebuild(CONFIG), name)
    assert Path.cwd() == tmp_path / "here"
    assert Path(name).is_symlink() is (name == "link")
    assert load(name).predictor == rebuild(CONFIG).predictor
    assert not (Path(name) / ".partial").exists()


def test_a_folder_that_cannot_be_written_is_not_there(tmp_path, monkeypatch):
    saved = rebuild(CONFIG)
    (tmp_path / "empty").mkdir()

    def full(self, folder):
        (folder / "half").write_text("")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(type(saved.model), "save_pretrained", full)
    for name in ("empty", "new"):
        with pytest.raises(OSError, match=f"No space left.*{name}"):
            save(saved, tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_the_specification_is_readable(tmp_path):
    save(rebuild(CONFIG), tmp_path / "saved")
    specification = json.loads((tmp_path / "saved" / SPECIFICATION).read_text())
    assert specification["tokenizer"]["vocab_size"] == 5
