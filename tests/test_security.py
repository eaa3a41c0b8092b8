"""What comes from strangers does no harm: no code is run, no path leads out, no text is markup."""

import json
import os
import pickle
import zipfile
from collections import Counter

import pytest
import torch
from html_pages import Page
from made_up_histories import write
from made_up_pages import HOSTILE, hostile, words
from tiny_checkpoints import CONFIG, changed, network, write_checkpoint

from xlm_mlm.checkpoints import read_checkpoint
from xlm_mlm.collation.empty import read_lengths
from xlm_mlm.commands import cli
from xlm_mlm.conformance.report import Report, Result
from xlm_mlm.data.readers import read_documents
from xlm_mlm.data.tokenizers import load_tokenizer
from xlm_mlm.generation.files import PartialFile, collect, locked, partial_path, records_in
from xlm_mlm.generation.opening import open_saved
from xlm_mlm.history.reading import read_traces
from xlm_mlm.rebuild import build_tokenizer, rebuild, save
from xlm_mlm.report.page import page


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.command = f"touch '{marker}'"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def marker(tmp_path):
    """A file that must not be there when a test ends; that the bomb works is made sure of."""
    path = tmp_path / "marker"
    pickle.loads(pickle.dumps(Bomb(path)))
    path.unlink()
    yield path
    assert not path.exists()


def bombs(folder, marker):
    """Checkpoints that run a command when they are unpickled, in each form that torch has had."""
    state = {f"model.{key}": value for key, value in network(1).state_dict().items()}
    contents = {
        "weights": {"state_dict": state | {"model.x": Bomb(marker)}},
        "config": {"state_dict": state, "hyper_parameters": CONFIG | {"seed": Bomb(marker)}},
        "average": {"state_dict": state, "ema": {"shadow_params": [Bomb(marker)]}},
    }
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.ckpt")
        torch.save(content, folder / f"{name}-old.ckpt", _use_new_zipfile_serialization=False)
        (folder / f"{name}-bare.ckpt").write_bytes(pickle.dumps(content))
    with zipfile.ZipFile(folder / "zip.ckpt", "w") as archive:
        archive.writestr("zip/data.pkl", pickle.dumps(Bomb(marker)))
        archive.writestr("zip/version", "3")
    return sorted(folder.glob("*.ckpt"))


def test_a_checkpoint_is_read_without_unpickling(tmp_path, marker, capsys):
    found = bombs(tmp_path, marker)
    assert len(found) == 10
    for path in found:
        for read in (read_checkpoint, open_saved):
            with pytest.raises(ValueError, match=f"{path.name} (is damaged|holds more than)"):
                read(path)
    # `--trust` allows classes of the config, and no unpickling either.
    for command in (["fill", "1 [MASK]"], ["save", str(tmp_path / "out")]):
        assert cli.main([*command, "--trust", "--checkpoint", str(tmp_path / "config.ckpt")]) == 1
        assert "could run code, so it is refused" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


OPCODES = {
    "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93",
    "GLOBAL": b"cposix\nsystem\n",
    "INST": b"(S'touch marker'\niposix\nsystem\n",
    "EXT1": b"\x80\x02\x82\x01",
    "PERSID": b"Ptouch marker\n",
    "BUILD": b"\x80\x02]}S'append'\nNsb",
}


@pytest.mark.parametrize("name", OPCODES)
def test_a_pickle_of_lengths_is_a_list_or_refused(tmp_path, name):
    path = tmp_path / "lengths.pkl"
    path.write_bytes(OPCODES[name] + b".")
    with pytest.raises(ValueError, match=r"lengths\.pkl (is not|does not hold) a list of"):
        read_lengths(path)


def test_a_pickle_of_lengths_runs_nothing(tmp_path, marker):
    for content in (Bomb(marker), [Bomb(marker)], {"lengths": [1, Bomb(marker)]}):
        (tmp_path / "lengths.pickle").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match="which is not allowed"):
            read_lengths(tmp_path / "lengths.pickle")
    (tmp_path / "lengths.pickle").write_bytes(pickle.dumps([3, 4]))
    assert read_lengths(tmp_path / "lengths.pickle") == [3, 4]


def test_a_config_makes_listed_classes_only(marker):
    run = {"_target_": "os.system", "command": f"touch '{marker}'"}
    for path in (("model",), ("global_components", "tokenizer")):
        with pytest.raises(ValueError, match=r"'os\.system', which is not on the list"):
            rebuild(changed(*path, value=run))
    for path in (("model", "d_model"), ("global_components", "tokenizer", "vocab_size")):
        for value in (run, [run], {"deep": [run]}):
            with pytest.raises(ValueError, match=r"names the class 'os\.system'"):
                rebuild(changed(*path, value=value))
    # Options of the predictor that would be made are left out.
    kept = rebuild(changed("predictor", "strategy", value=run)).predictor
    assert "strategy" not in kept
    assert "history" not in kept


@pytest.mark.parametrize(
    "value", ["${oc.env:HOME}", "${oc.decode:1}", "x ${tokenizer:bos_token_id}"]
)
def test_a_config_looks_nothing_up(value):
    with pytest.raises(ValueError, match="which only a run of the host can fill in"):
        rebuild(changed("model", "d_model", value=value))


def test_a_tokenizer_folder_runs_no_code_of_its_own(tmp_path, marker):
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    names = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    settings = {"tokenizer_class": "Evil", "auto_map": names, "trust_remote_code": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="no tokenizer could be read"):
        load_tokenizer(tmp_path)
    asked = {
        "_target_": "xlm_mlm.data.tokenizers.load_tokenizer",
        "pretrained_model_name_or_path": str(tmp_path),
    }
    with pytest.raises(ValueError, match="wants trust_remote_code=True"):
        build_tokenizer(asked | {"trust_remote_code": True})


def test_a_saved_folder_takes_its_tokenizer_from_beside_it(tmp_path):
    save(rebuild(CONFIG), tmp_path / "saved")
    path = tmp_path / "saved" / "tokenizer_spec.json"
    specification = json.loads(path.read_text())
    for name in ("../elsewhere", str(tmp_path), "tokenizer/../../elsewhere", "somebody/theirs"):
        specification["tokenizer"]["pretrained_model_name_or_path"] = name
        path.write_text(json.dumps(specification))
        with pytest.raises(ValueError, match="it must be 'tokenizer', beside it"):
            open_saved(tmp_path / "saved")


@pytest.fixture
def history(tmp_path, tokenizer):
    fids, _ = write(tmp_path / "history", tokenizer, [[4, 2, 8]], [[[1]]])
    return tmp_path / "history", fids[0]


@pytest.mark.parametrize(
    "fid", ["..", ".", "", "a/b", "/etc", "..\\x", "a\0", "a\n", "\u2025", "-", ".git", "C:x"]
)
def test_a_record_s_name_leads_nowhere_else(history, fid):
    with pytest.raises(ValueError, match="it must be a folder's plain name"):
        read_traces(history[0], [fid])


def test_links_and_pipes_in_a_history_are_not_followed(history, tmp_path):
    folder, fid = history
    (tmp_path / "elsewhere").mkdir()
    (folder / fid).rename(tmp_path / "elsewhere" / fid)
    (folder / fid).symlink_to(tmp_path / "elsewhere" / fid)
    with pytest.raises(FileNotFoundError, match="holds no"):
        read_traces(folder)
    with pytest.raises(FileNotFoundError, match="holds no"):
        read_traces(folder, [fid])
    (folder / fid).unlink()
    (tmp_path / "elsewhere" / fid).rename(folder / fid)
    file = folder / fid / "before.safetensors"
    file.rename(tmp_path / "secret")
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"before\.safetensors cannot be read"):
        read_traces(folder)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="no regular file"):
        read_traces(folder)


@pytest.mark.parametrize("name", ["../vocabulary.0123456789abcdef.json", "/etc/passwd", "x.json"])
def test_a_history_s_vocabulary_is_beside_it(history, name):
    folder, fid = history
    meta = json.loads((folder / fid / "meta.json").read_text())
    (folder / fid / "meta.json").write_text(json.dumps(meta | {"vocabulary": name}))
    with pytest.raises(ValueError, match="it must be a file beside"):
        read_traces(folder)


def test_a_run_writes_and_removes_nothing_elsewhere(tmp_path):
    folder, victim = tmp_path / "out", tmp_path / "victim"
    (folder / "history").mkdir(parents=True)
    victim.write_text("no line")
    sizes = {"a": 1}
    partial_path(folder, 0, 1).symlink_to(victim)
    with pytest.raises(ValueError, match="is a link"):
        PartialFile(folder, 0, 1, "run", 0, sizes)
    partial_path(folder, 0, 1).unlink()
    PartialFile(folder, 0, 1, "run", 0, sizes).close()
    for name, run in (
        (".predictions.jsonl.merged", lambda: collect(folder, 1, {"a": 0}, 0)),
        (".predictions.jsonl.lock", lambda: locked(folder).__enter__()),
    ):
        (folder / name).symlink_to(victim)
        with pytest.raises(ValueError, match="is a link"):
            run()
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "meta.json").write_text("{}")
    (folder / "history" / "linked").symlink_to(tmp_path / "record")
    assert records_in(folder) == []
    assert victim.read_text() == "no line"


def test_the_page_holds_tokens_as_data():
    text = page([hostile()], HOSTILE[0] + "${data}$x", 5)
    plain = Page(page([words()], "plain", 5))
    shown = Page(text)
    assert shown.balanced
    kinds = [(tag, sorted(attributes)) for tag, attributes, _ in shown.elements]
    assert kinds == [(tag, sorted(attributes)) for tag, attributes, _ in plain.elements]
    (data,) = shown.all("script", id="data")
    assert not set("<>&") & set(data[2])
    assert json.loads(data[2])["samples"][0]["passes"] == 5
    (policy,) = shown.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = policy[1]["content"]
    assert "default-src 'none'" in rules
    assert "unsafe" not in rules


def test_a_notebook_s_table_holds_tokens_as_texts():
    table = Page(hostile()._repr_html_())
    tags = {"table", "caption", "tr", "th", "td", "span"}
    assert table.balanced
    assert {element[0] for element in table.elements} == tags


@pytest.mark.parametrize("text", list(filter(None, HOSTILE)))
def test_a_conformance_report_holds_texts_as_texts(text):
    values = {"name": text, "distribution": text, "version": text}
    result = Result("rule", text, text, text, text, "broken", text, 0.0)
    versions = {"python": text, "platform": text}
    date = "2026-01-02T03:04:05+00:00"
    report = Page(Report(values, versions, date, {text: text}, [result]).to_html())
    plain = {key: "x" for key in values}
    same = Result("rule", "x", "x", "x", "x", "broken", "x", 0.0)
    versions = dict.fromkeys(versions, "x")
    usual = Page(Report(plain, versions, date, {"x": "x"}, [same]).to_html())
    tags = Counter(element[0] for element in usual.elements)
    assert Counter(element[0] for element in report.elements) == tags


def test_a_table_stays_small_whatever_tokens_read_as():
    long = "<" * 1_000_000
    trace = words()
    trace.texts.update(dict.fromkeys(trace.texts, long))
    assert len(trace._repr_html_()) < 400_000


def test_a_message_does_not_control_the_terminal(tmp_path, capsys):
    name = tmp_path / "a\x1b[31m\x1b]0;title\x07\u202e.ckpt"
    write_checkpoint(name, network(1), hyper_parameters={"a\x1b[2J": 1})
    for arguments in (["fill", "--checkpoint", str(name), "1 [MASK]"], ["report", str(name)]):
        assert cli.main(arguments) == 1
        err = capsys.readouterr().err
        assert "\\x1b" in err
        assert not set("\x1b\x07\u202e") & set(err)


def test_nested_or_huge_json_is_an_error(tmp_path, history):
    folder, fid = history
    for text in ("[" * 200_000, '{"a":' * 200_000, "1" * 5_000):
        path = tmp_path / "rows.jsonl"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"rows\.jsonl, line 1"):
            list(read_documents(path, "text", "line"))
        (folder / fid / "meta.json").write_text(text)
        with pytest.raises(ValueError, match=r"meta\.json"):
            read_traces(folder)


def test_a_model_far_larger_than_its_weights_is_not_built(tmp_path):
    for option in ("d_model", "num_layers", "num_embeddings", "dim_feedforward"):
        config = changed("model", option, value=10**9)
        write_checkpoint(tmp_path / "x.ckpt", network(1), hyper_parameters=config)
        with pytest.raises(ValueError, match=f"model.{option} is 1000000000, and the weights"):
            open_saved(tmp_path / "x.ckpt")
