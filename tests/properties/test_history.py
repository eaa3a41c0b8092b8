"""Histories: what is written is read, its size is bounded, and what is damaged is refused."""

import itertools
import json
import math
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties.strategies import MASK, TOKENIZER, V, seeds

from xlm_mlm.history.files import BEFORE, FORMAT, META, step_file, write_tensors
from xlm_mlm.history_mlm import HistoryTopKPlugin, read_traces

PRECISIONS = {"float32": (2**-19, 4), "float16": (2**-10, 2)}


@contextmanager
def folder():
    """A folder for one example: pytest's are for a whole test."""
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


@st.composite
def runs(draw):
    """A batch, in which order its masks are filled, and the history's options."""
    rows, length = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(seeds))
    before = np.where(rng.random((rows, length)) < 0.7, MASK, rng.integers(7, V, (rows, length)))
    passes = draw(st.integers(1, 3))
    when = rng.integers(0, passes, (rows, length))
    options = {
        "k": draw(st.sampled_from([None, 1, 3, 50])),
        "max_new_tokens": draw(st.sampled_from([None, 1, 2, 50])),
        "dtype": draw(st.sampled_from(list(PRECISIONS))),
    }
    logits = rng.normal(size=(passes, rows, length, V)).astype(np.float32) * 2
    logits[..., MASK] = -np.inf
    return torch.from_numpy(before), torch.from_numpy(when), torch.from_numpy(logits), options


def write(path, before, when, logits, options):
    """Write a batch as the predictor's loop does, and return the sequences before each pass."""
    history = HistoryTopKPlugin(path, tokenizer=TOKENIZER, **options)
    history.begin({"x": before})
    x, states = before, [before]
    for number, of_pass in enumerate(logits):
        masked = x == MASK
        filled = masked & (when == number)
        x = torch.where(filled, of_pass.argmax(-1), x)
        state = {"x": x, "logits": of_pass, "filled": filled, "masked": x == MASK}
        history.update_history({**state, "active": masked.any(dim=1)})
        states.append(x)
    history.finalize()
    return [entry["fid"] for entry in history.to_dict()], states


def recorded(states, row):
    """The passes in which a row took part: its sequences before and after."""
    pairs = itertools.pairwise(states)
    return [(b[row], a[row]) for b, a in pairs if (b[row] == MASK).any()]


def check_size(sample, steps, length, width, options):
    """No more than `docs/history.md` says."""
    k, b = min(options["k"] or V, V), PRECISIONS[options["dtype"]][1]
    files = [each.stat().st_size for each in sample.iterdir()]
    assert len(files) == 2 + 3 * steps
    assert sum(files) <= 700 + 4 * length + steps * (4 * length + width * (k * (b + 4) + b) + 400)


@given(runs())
def test_every_pass_is_read_as_it_was_and_takes_no_more_than_it_may(case):
    before, _, logits, options = case
    with folder() as path:
        fids, states = write(path, *case)
        traces = read_traces(path)
        for row, fid in enumerate(fids):
            width = min(options["max_new_tokens"] or V, before.shape[1])
            steps = len(recorded(states, row))
            check_size(path / fid, steps, before.shape[1], width, options)
    assert [trace.fid for trace in traces] == fids
    length, tolerance = before.shape[1], PRECISIONS[options["dtype"]][0]
    width = min(options["max_new_tokens"] or length, length)
    for row, trace in enumerate(traces):
        passes = recorded(states, row)
        assert trace.before.tolist() == before[row].tolist()
        assert trace.x.tolist() == [after.tolist() for _, after in passes]
        assert (trace.finished, trace.mask_id) == (True, MASK)
        if passes:
            assert trace.p.shape[1:] == trace.pids.shape[1:] == (width, min(options["k"] or V, V))
        for step, (begun, after) in enumerate(passes):
            for place in range(width):
                at = length - width + place
                p, ids = trace.p[step, place], trace.pids[step, place]
                if begun[at] != MASK:
                    assert (p[0], ids[0]) == (1.0, after[at])
                    assert not p[1:].any()
                    assert trace.entropy[step, place].isnan()
                    continue
                whole = logits[step, row, at].double().softmax(-1)
                torch.testing.assert_close(
                    p.double(), whole[ids], rtol=tolerance, atol=tolerance / 100
                )
                best = whole.sort(descending=True).values[: len(p)]
                torch.testing.assert_close(p.double(), best, rtol=tolerance, atol=tolerance / 100)
                entropy = -math.fsum(q * math.log(q) for q in whole.tolist() if q)
                assert trace.entropy[step, place].item() == pytest.approx(
                    entropy, rel=tolerance, abs=tolerance
                )


@given(runs())
def test_what_follows_from_a_record_is_what_a_loop_finds(case):
    before = case[0]
    with folder() as path:
        _, states = write(path, *case)
        traces = read_traces(path)
    for row, trace in enumerate(traces):
        passes = recorded(states, row)
        assert trace.masked.tolist() == [(begun == MASK).tolist() for begun, _ in passes]
        sequences = [before[row], *(after for _, after in passes)]
        assert trace.masks_left.tolist() == [int((x == MASK).sum()) for x in sequences]
        for at in range(before.shape[1]):
            changed = [n for n, (b, a) in enumerate(passes) if b[at] != a[at]]
            assert trace.filled_by[at] == (changed[-1] if changed else -1)
            confidence = trace.confidence[at].item()
            if not changed or at < trace.first:
                assert math.isnan(confidence)
            else:  # the most probable token was taken
                assert confidence == trace.p[changed[-1], at - trace.first, 0].item()


def outcome(call):
    """What a call returns, or the `ValueError` that it raises; nothing else is an answer."""
    try:
        return call(), None
    except ValueError as error:
        return None, error


@st.composite
def records(draw):
    """The tensors of any record, as another program may have written it."""
    length, steps = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    width, k = draw(st.integers(1, length)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from([torch.int32, torch.int64, torch.int16]))
    wide = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    made = {
        "p": torch.from_numpy(rng.random((steps, width, k))).to(wide),
        "entropy": torch.from_numpy(rng.random((steps, width))).to(wide),
        "pids": torch.from_numpy(rng.integers(0, 30_000, (steps, width, k))).to(kind),
        "x": torch.from_numpy(rng.integers(0, 30_000, (steps, length))).to(kind),
    }
    made["entropy"][torch.from_numpy(rng.random((steps, width)) < 0.3)] = torch.nan
    return torch.from_numpy(rng.integers(0, 9, length)).to(kind), made


def write_record(path, before, made, **meta):
    sample = path / "one"
    sample.mkdir()
    width, k = made["p"].shape[1:]
    whole = {"format": FORMAT, "k": k, "max_new_tokens": width, "dtype": "float32"} | meta
    (sample / META).write_text(json.dumps(whole))
    write_tensors(sample / BEFORE, {"before": before})
    for step in range(len(made["x"])):
        both = {name: made[name][step] for name in ("p", "entropy")}
        write_tensors(sample / step_file(step, "p"), both)
        for name in ("pids", "x"):
            write_tensors(sample / step_file(step, name), {name: made[name][step]})
    return sample


@given(records(), st.sampled_from([None, 0, MASK]), st.booleans())
def test_any_record_that_fits_is_read_as_it_is(case, mask_id, finished):
    before, made = case
    with folder() as path:
        write_record(path, before, made, mask_id=mask_id, finished=finished)
        (trace,) = read_traces(path)
    assert torch.equal(trace.before, before.long())
    for name in ("x", "pids"):
        assert torch.equal(getattr(trace, name), made[name].long())
    for name in ("p", "entropy"):
        torch.testing.assert_close(
            getattr(trace, name), made[name].float(), rtol=0, atol=0, equal_nan=True
        )
    last = [before, *made["x"]][-1]
    complete = mask_id is not None and not (last == mask_id).any()
    assert trace.finished == (finished or bool(complete))
    assert trace.filled_by.shape == trace.confidence.shape == before.shape
    assert trace.masks_left.shape == (len(made["x"]) + 1,)


@given(records(), st.data())
def test_a_file_cut_short_or_changed_is_refused_or_still_fits(case, choose):
    """Whatever byte of whatever file: a `ValueError` that names it, or a record that holds up."""
    before, made = case
    with folder() as path:
        sample = write_record(path, before, made)
        file = choose.draw(st.sampled_from(sorted(sample.iterdir())))
        data = bytearray(file.read_bytes())
        at = choose.draw(st.integers(0, len(data) - 1))
        if choose.draw(st.booleans()):
            file.write_bytes(data[:at])
        else:
            data[at] ^= choose.draw(st.integers(1, 255))
            file.write_bytes(data)
        found, error = outcome(lambda: read_traces(path))
    if error is not None:
        assert str(sample) in str(error)
        return
    (trace,) = found
    assert trace.before.shape == trace.x.shape[1:]
    assert trace.p.shape == trace.pids.shape == (*trace.entropy.shape, trace.p.shape[2])
    assert len(trace.x) == len(trace.p) <= len(made["x"])
    assert not trace.p.isinf().any()
    assert trace.confidence.shape == trace.before.shape
    assert len(trace.to_dataframe()) == trace.x.numel()


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["float16", "vocabulary.0123456789abcdef.json", "../x", 2**63, -1]),
)
fields = st.sampled_from(
    ["format", "k", "max_new_tokens", "dtype", "mask_id", "vocabulary", "begun", "finished", "new"]
)


@given(records(), st.dictionaries(fields, values, max_size=3))
def test_options_that_mean_nothing_are_refused_by_name(case, meta):
    before, made = case
    with folder() as path:
        sample = write_record(path, before, made, **meta)
        found, error = outcome(
            lambda: (*read_traces(path), HistoryTopKPlugin.from_serialized(path, "one"))
        )
        if error is not None:
            assert str(path) in str(error) or any(name in str(error) for name in meta)
            return
        trace, opened = found
        assert meta.get("format", FORMAT) == FORMAT
        assert trace.fid == sample.name
        assert opened.get_num_steps() == trace.steps
        for step in range(trace.steps):
            assert torch.equal(opened.get(step)["x"], trace.x[step])


@given(st.text(max_size=6), st.booleans())
def test_no_name_leads_out_of_the_folder(name, climbing):
    with folder() as path:
        (path / "in").mkdir()
        write_record(path, torch.tensor([1]), {"p": torch.zeros(0, 1, 1), "x": torch.zeros(0, 1)})
        name = f"../{name}one" if climbing else name
        with pytest.raises((ValueError, FileNotFoundError)):
            HistoryTopKPlugin.from_serialized(path / "in", name)
