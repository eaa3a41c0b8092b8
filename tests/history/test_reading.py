"""What is written is read back; what does not fit is refused and named."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from made_up_histories import MASK, write
from safetensors.torch import load_file, save_file

from xlm_mlm.history.reading import read_traces
from xlm_mlm.history_mlm import HistoryTopKPlugin

BEFORE = [[4, MASK, 9, MASK, MASK], [4, 9, MASK, 9, 9]]
ORDERS = [[[3], [1, 4]], [[2]]]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_everything_comes_back(tokenizer, tmp_path, dtype):
    fids, logits = write(tmp_path, tokenizer, BEFORE, ORDERS, dtype=dtype)
    traces = read_traces(tmp_path)
    assert [trace.fid for trace in traces] == fids
    tolerance = 1e-6 if dtype == "float32" else 2e-3
    for row, trace in enumerate(traces):
        assert trace.finished
        assert trace.mask_id == MASK
        assert trace.before.tolist() == BEFORE[row]
        x = list(BEFORE[row])
        assert trace.steps == len(ORDERS[row])
        for step, places in enumerate(ORDERS[row]):
            for i, old in enumerate(list(x)):
                scores = [math.exp(v) for v in logits[step, row, i].double().tolist()]
                p = [score / sum(scores) for score in scores]
                best = sorted(range(len(p)), key=lambda t, p=p: -p[t])[:3]
                if old != MASK:
                    assert math.isnan(trace.entropy[step, i])
                    assert trace.p[step, i].tolist() == [1, 0, 0]
                    assert trace.pids[step, i, 0] == old
                    continue
                naive = -sum(q * math.log(q) for q in p if q)
                assert abs(float(trace.entropy[step, i]) - naive) < 3 * tolerance * max(1, naive)
                assert trace.pids[step, i].tolist() == best
                for kept, token in zip(trace.p[step, i].tolist(), best, strict=True):
                    assert abs(kept - p[token]) < tolerance
                if i in places:
                    x[i] = best[0]
            assert trace.x[step].tolist() == x


def test_texts_are_those_of_the_tokenizer(tokenizer, tmp_path):
    write(tmp_path, tokenizer, BEFORE, ORDERS)
    trace = read_traces(tmp_path)[0]
    assert [trace.text_of(i) for i in (MASK, 4, 9)] == ["[MASK]", "[BOS]", "2"]
    assert trace.text_of(10_000) == "#10000"


def test_samples_come_in_the_order_of_writing_whatever_their_names(tokenizer, tmp_path):
    fids = [write(tmp_path, tokenizer, BEFORE, ORDERS)[0] for _ in range(8)]
    flat = [fid for batch in fids for fid in batch]
    assert flat != sorted(flat)
    assert [trace.fid for trace in read_traces(tmp_path)] == flat
    assert [trace.fid for trace in read_traces(tmp_path, limit=3)] == flat[:3]
    assert [trace.fid for trace in read_traces(tmp_path, [flat[5], flat[1]])] == [flat[5], flat[1]]


def test_the_folder_of_one_sample_will_do(tokenizer, tmp_path, monkeypatch):
    (fid, _), _ = write(tmp_path, tokenizer, BEFORE, ORDERS)
    (trace,) = read_traces(tmp_path / fid)
    assert (trace.fid, trace.text_of(4)) == (fid, "[BOS]")
    monkeypatch.chdir(tmp_path / fid)
    assert read_traces(".")[0].fid == fid


def test_no_pass_yet(tokenizer, tmp_path):
    HistoryTopKPlugin(tmp_path, 2, 3, tokenizer=tokenizer).begin({"x": torch.tensor(BEFORE)})
    first = read_traces(tmp_path)[0]
    assert (first.steps, first.finished) == (0, False)
    assert (first.x.shape, first.p.shape, first.entropy.shape) == ((0, 5), (0, 3, 2), (0, 3))
    assert first.masks_left.tolist() == [3]


def test_no_pass_says_how_many_tokens_were_kept(tokenizer, tmp_path):
    history = HistoryTopKPlugin(tmp_path, 2**62, tokenizer=tokenizer)
    history.begin({"x": torch.tensor(BEFORE)})
    assert read_traces(tmp_path)[0].p.shape == (0, 5, len(tokenizer))
    for k, kept in ((3, 3), (2**62, 2**20)):  # nor does anything say how many there are
        history = HistoryTopKPlugin(tmp_path / str(k), k)
        history.begin({"x": torch.tensor(BEFORE)})
        assert read_traces(tmp_path / str(k))[0].p.shape == (0, 5, kept)


def test_an_unfinished_record_is_as_long_as_what_is_there(tokenizer, tmp_path):
    (fid, _), _ = write(tmp_path, tokenizer, BEFORE, ORDERS)
    path = tmp_path / fid / "meta.json"
    path.write_text(path.read_text().replace('"finished": true', '"finished": false'))
    assert read_traces(tmp_path, [fid])[0].steps == 2
    damage_last(tmp_path / fid)
    assert read_traces(tmp_path, [fid])[0].steps == 1
    assert HistoryTopKPlugin.from_serialized(tmp_path, fid).get_num_steps() == 1


def test_a_mask_that_nobody_knew_may_stand_as_minus_one(tmp_path):
    history = HistoryTopKPlugin(tmp_path, 2)
    logits = torch.zeros(1, 3, 9)
    logits[0, 1, 5] = 1.0
    state = {"x": torch.tensor([[4, 5, 6]]), "active": torch.tensor([True])}
    history.update_history(state | {"logits": logits})
    history.finalize()
    assert read_traces(tmp_path)[0].before.tolist() == [4, -1, 6]


KILLED = """
import sys, torch
from xlm.datamodule import SimpleSpaceTokenizer
from xlm_mlm import HistoryTopKPlugin, MLMPredictor
class Slow(torch.nn.Module):
    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        print("pass", flush=True)
        return torch.zeros(*x_t.shape, 27)
one = MLMPredictor(10_000, tokenizer=SimpleSpaceTokenizer.for_numbers(20), model=Slow(),
                   history=HistoryTopKPlugin(sys.argv[1], 2))
one.predict({"input_ids": torch.full((2, 10_000), 2)})
"""


@pytest.mark.slow
def test_a_killed_run_leaves_a_readable_history(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(5):
            assert process.stdout.readline() == "pass\n"
        time.sleep(0.03)  # somewhere within a pass
        os.kill(process.pid, signal.SIGKILL)
    first, second = read_traces(tmp_path)
    for trace in (first, second):
        assert not trace.finished
        assert trace.masks_left.tolist() == list(range(10_000, 10_000 - trace.steps - 1, -1))
    assert first.steps >= 4
    assert first.steps - second.steps in (0, 1)


def test_a_run_that_stopped_says_which_samples_were_complete(tokenizer, tmp_path):
    fids, _ = write(tmp_path, tokenizer, BEFORE, [[[3]], [[2]]])
    for fid in fids:
        path = tmp_path / fid / "meta.json"
        path.write_text(path.read_text().replace('"finished": true', '"finished": false'))
    assert [trace.finished for trace in read_traces(tmp_path)] == [False, True]


@pytest.mark.parametrize(("length", "k", "dtype"), [(5, 3, "float32"), (40, 27, "float16")])
def test_a_sample_is_as_small_as_documented(tokenizer, tmp_path, length, k, dtype):
    passes, b = 4, {"float32": 4, "float16": 2}[dtype]
    orders = [[[i] for i in range(passes)]]
    (fid,), _ = write(tmp_path, tokenizer, [[MASK] * length], orders, k=k, dtype=dtype)
    files = list((tmp_path / fid).iterdir())
    most = 700 + 4 * length + passes * (4 * length + length * (k * (b + 4) + b) + 400)
    assert sum(file.stat().st_size for file in files) <= most
    assert len(files) == 2 + 3 * passes


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def damage_cut(folder):
    path = folder / "00001.pids.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def damage_pickle(folder):
    torch.save({"x": Bomb()}, folder / "00000.x.safetensors")


def damage_names(folder):
    save_file({"y": torch.zeros(5)}, folder / "00000.x.safetensors")


def damage_shape(folder):
    save_file({"x": torch.zeros(6, dtype=torch.int32)}, folder / "00001.x.safetensors")


def damage_type(folder):
    save_file({"x": torch.zeros(5)}, folder / "00001.x.safetensors")


def damage_before(folder):
    save_file({"before": torch.zeros(5, 1)}, folder / "before.safetensors")


def damage_infinite(folder):
    path = folder / "00001.p.safetensors"
    tensors = load_file(path)
    tensors["p"][0, 0] = torch.inf
    save_file(tensors, path)


def damage_missing(folder):
    (folder / "00000.pids.safetensors").unlink()


def damage_link(folder):
    path = folder / "00000.p.safetensors"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def damage_pipe(folder):
    path = folder / "00000.p.safetensors"
    path.unlink()
    os.mkfifo(path)


def damage_last(folder):
    (folder / "00001.x.safetensors").unlink()


def damage_first(folder):
    path = folder / "00000.x.safetensors"
    path.unlink()
    path.mkdir()


def damage_first_pipe(folder):
    path = folder / "00000.x.safetensors"
    path.unlink()
    os.mkfifo(path)


def changed(folder, file, name, value):
    tensors = load_file(folder / file)
    tensors[name].view(-1)[0] = value
    save_file(tensors, folder / file)


def damage_chance(folder):
    changed(folder, "00001.p.safetensors", "p", 1.1)


def damage_negative(folder):
    changed(folder, "00001.p.safetensors", "p", -0.5)


def damage_entropy(folder):
    changed(folder, "00000.p.safetensors", "entropy", -2)


def damage_ids(folder):
    changed(folder, "00001.pids.safetensors", "pids", -7)


def damage_sequence(folder):
    changed(folder, "00001.x.safetensors", "x", -7)


def damage_start(folder):
    changed(folder, "before.safetensors", "before", -1)


def damage_complex(folder):
    save_file({"before": torch.zeros(5, dtype=torch.complex64)}, folder / "before.safetensors")


def damage_vocabulary(folder):
    next(folder.parent.glob("vocabulary.*")).write_text('{"0": 1}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_cut, "00001.pids.safetensors cannot be read"),
        (damage_pickle, "00000.x.safetensors cannot be read"),
        (damage_names, "00000.x.safetensors cannot be read: 'x'"),
        (damage_shape, r"pass 1 in .* do not fit"),
        (damage_type, r"pass 1 in .* do not fit"),
        (damage_before, r"before.safetensors has shape \[5, 1\]"),
        (damage_infinite, "pass 1 in .* holds an infinite probability"),
        (damage_missing, "00000.pids.safetensors cannot be read: No such file"),
        (damage_link, "00000.p.safetensors cannot be read"),
        (damage_pipe, "00000.p.safetensors cannot be read: it is no regular file"),
        (damage_last, r"holds 1 passes, .* finished with 2; 00001.x.safetensors is missing"),
        (damage_first, "00000.x.safetensors cannot be read"),
        (damage_first_pipe, "00000.x.safetensors cannot be read: it is no regular file"),
        (damage_chance, r"00001.p.safetensors holds the probability 1\.1, which there can't be"),
        (damage_negative, r"00001.p.safetensors holds the probability -0\.5"),
        (damage_entropy, "00000.p.safetensors holds the entropy -2"),
        (damage_ids, "00001.pids.safetensors holds the token id -7"),
        (damage_sequence, "00001.x.safetensors holds the token id -7"),
        (damage_start, "before.safetensors holds the token id -1"),
        (damage_complex, "before.safetensors cannot be read: before holds complex numbers"),
        (damage_vocabulary, "vocabulary.*no list of strings"),
    ],
)
def test_damage_is_refused_and_named(tokenizer, tmp_path, monkeypatch, damage, message, in_time):
    monkeypatch.chdir(tmp_path)
    (fid, _), _ = write(tmp_path, tokenizer, BEFORE, ORDERS)
    damage(tmp_path / fid)
    with pytest.raises(ValueError, match=message):
        read_traces(tmp_path, [fid])
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "has format 1; this version reads 2"),
        ({"vocabulary": "../../etc/passwd"}, "names the vocabulary"),
        ({"vocabulary": 3}, "names the vocabulary 3"),
        ({"k": "5"}, "has k '5'"),
        ({"k": 10**30}, "has k 1000000000000000000000000000000; .* below 2"),
        ({"max_new_tokens": -1}, "has max_new_tokens -1"),
        ({"mask_id": True}, "has mask_id True"),
        ({"num_steps": "2"}, "has num_steps '2'"),
        ({"num_steps": 3}, "holds 2 passes, .* finished with 3"),
        ({"vocabulary": "vocabulary.0123456789abcdef.json"}, "cannot be read: No such file"),
    ],
)
def test_a_strange_meta_file_is_refused(tokenizer, tmp_path, change, message):
    (fid, _), _ = write(tmp_path, tokenizer, BEFORE, ORDERS)
    path = tmp_path / fid / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        read_traces(tmp_path, [fid])


@pytest.mark.parametrize("text", ["", "[1", "[]", "null", "[" * 100_000])
def test_a_meta_file_that_is_none_is_refused(tokenizer, tmp_path, text):
    (fid, _), _ = write(tmp_path, tokenizer, BEFORE, ORDERS)
    (tmp_path / fid / "meta.json").write_text(text)
    with pytest.raises(ValueError, match=r"meta\.json"):
        read_traces(tmp_path)


def test_folders_that_hold_nothing(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_traces(tmp_path / "absent")
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no samples.*output_dir"):
        read_traces(tmp_path)
    for fid in ("..", "/etc", "a/b"):
        with pytest.raises(ValueError, match="plain name"):
            read_traces(tmp_path, [fid])
    with pytest.raises(FileNotFoundError, match="other holds no history"):
        read_traces(tmp_path, ["other"])
    with pytest.raises(ValueError, match="limit is 0"):
        read_traces(tmp_path, limit=0)


def test_linked_samples_are_left_out(tokenizer, tmp_path):
    (fid, _), _ = write(tmp_path / "a", tokenizer, BEFORE, ORDERS)
    write(tmp_path / "b", tokenizer, BEFORE, ORDERS)
    (tmp_path / "b" / "linked").symlink_to(tmp_path / "a" / fid)
    assert len(read_traces(tmp_path / "b")) == 2
    with pytest.raises(FileNotFoundError):
        read_traces(tmp_path / "b", ["linked"])


def test_a_file_that_cannot_be_written_leaves_no_part_of_itself(tokenizer, tmp_path, monkeypatch):
    history = HistoryTopKPlugin(tmp_path, 2, tokenizer=tokenizer)

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        history.begin({"x": torch.tensor(BEFORE)})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
