"""`xlm job_type=mlm_generate` as real processes: several at once, killed, and taken up again."""

import signal
import socket
import time

import pytest
from composing import composed
from tiny_checkpoints import network, write_checkpoint
from warm_process import start_xlm, xlm
from xlm.utils.omegaconf_resolvers import dummy_resolvers
from xlm_process import TINY_MODEL, read_rows

from xlm_mlm.generation.job import run
from xlm_mlm.generation.processes import joined

pytestmark = pytest.mark.slow

JOB = (
    *("job_type=mlm_generate", "job_name=g", "experiment=quickstart_mlm", *TINY_MODEL),
    # Drawn from the batch's own random state.
    *("predictor.temperature=1.0", "predictor.seed=5", "+generation.ckpt_path=tiny.ckpt"),
)


def rows_of(folder):
    rows = read_rows(folder / "predictions.jsonl")
    return [{k: v for k, v in row.items() if k not in ("time_taken", "fid")} for row in rows]


def start(folder, *overrides, **extra):
    return start_xlm(folder, *JOB, *overrides, OMP_NUM_THREADS="1", **extra)


def two(folder, option, *more):
    """Start two processes; `more` is for the second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    numbers = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [
        start(folder, *option, *given, RANK=rank, LOCAL_RANK=rank, **numbers)
        for rank, given in (("0", ()), ("1", more))
    ]
    ended = [process.finish(timeout=120) for process in both]
    return [run.code for run in ended], [run.output for run in ended]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    write_checkpoint(folder / "tiny.ckpt", network(1))
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    """The rows that this process makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(folder / "data"))
        patch.chdir(folder)
        cfg = composed(folder, "quickstart_mlm", *JOB[3:], "+generation.output_dir=alone")
        with dummy_resolvers():
            run(cfg)
    return rows_of(folder / "alone")


def test_two_processes_write_what_one_does(folder, alone):
    options = ("+generation.output_dir=two", "+generation.history=true")
    codes, outputs = two(folder, options)
    assert codes == [0, 0], outputs
    assert rows_of(folder / "two") == alone
    fids = [row["fid"] for row in read_rows(folder / "two" / "predictions.jsonl")]
    assert len(set(fids)) == 240
    assert set(fids) < {path.name for path in (folder / "two" / "history").iterdir()}


def test_a_killed_process_is_taken_up_where_it_stopped(folder, alone):
    option = "+generation.output_dir=killed"
    part = folder / "killed" / ".predictions.jsonl.0of1.partial"
    process = start(folder, option)
    deadline = time.time() + 60
    while time.time() < deadline and process.poll() is None:
        if part.exists() and part.stat().st_size > 2000:
            process.kill()
            break
        time.sleep(0.005)
    assert process.finish(timeout=60).code == -signal.SIGKILL
    assert not (folder / "killed" / "predictions.jsonl").exists()
    assert part.read_bytes().count(b"\n") > 3
    done = xlm(folder, *JOB, option)
    assert done.code == 0, done.output[-3000:]
    assert "infill_prediction:   0%" not in done.output
    assert "infill_prediction: 100%" in done.output
    assert "WARNING" not in done.output
    assert rows_of(folder / "killed") == alone


def test_a_process_does_not_wait_for_one_that_ended(folder):
    codes, outputs = two(folder, ["+generation.output_dir=half"], "+generation.device=none")
    assert codes == [1, 1]
    assert "generation.device is 'none'" in outputs[1]
    assert "another process of the 2 ended early" in outputs[0]
    assert not (folder / "half" / "predictions.jsonl").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "RANK is 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "from 0 to 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0; there is at least 1"),
    ],
)
def test_strange_variables_are_refused(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message), joined():
        pass
