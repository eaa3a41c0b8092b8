"""The scripts of tests/load at tiny sizes: they do what they say, and find what grows."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "load"))

import collate_load
import history_load
import load_report
import load_samples
import process_load
from load_samples import Growth, Sample, growth_of, watch
from process_load import Peak, Use

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")

MIB = 2**20


def load_run():
    """The script `run`, whose name others have too."""
    spec = importlib.util.spec_from_file_location(
        "load_run", Path(__file__).parent / "load" / "run.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up(bytes_of, handles_of=lambda i: 7, points=50, each=1000):
    """The verdict on samples that follow a rule."""
    samples = [Sample(each * i, round(bytes_of(i)), handles_of(i)) for i in range(1, points + 1)]
    return growth_of("made up", samples, each * points, 1.0, 0)


class TestVerdict:
    def test_a_line_is_found_after_the_warm_up(self):
        # 3 bytes an item, under a start that is none of it.
        found = made_up(lambda i: 500 * MIB + 3000 * i + (9e6 * i if i <= 10 else 9e7))
        assert found.bytes_per_item == pytest.approx(3.0, abs=1e-3)
        assert found.added == pytest.approx(3 * 39_000, abs=50)
        assert (found.items, found.wanted, found.handles) == (50_000, 50_000, (7, 7))

    def test_slope_and_error_are_those_of_the_normal_equations(self):
        drawn = random.Random(0)
        samples = [Sample(10 * i, drawn.randrange(10**8), 7) for i in range(20)]
        found = growth_of("x", samples, 190, 1.0, 0)
        x, y = np.array([each[:2] for each in samples[4:]], dtype=float).T
        design = np.stack([np.ones_like(x), x], axis=1)
        inverse = np.linalg.inv(design.T @ design)
        fit = inverse @ design.T @ y
        variance = ((y - design @ fit) ** 2).sum() / (len(x) - 2)
        assert found.bytes_per_item == pytest.approx(fit[1])
        assert found.added == pytest.approx(fit[1] * 150)
        assert found.error == pytest.approx((variance * inverse[1, 1]) ** 0.5 * 150)

    def test_what_counts_as_growth(self):
        drawn = random.Random(0)
        wander = [drawn.uniform(-MIB, MIB) for _ in range(51)]
        assert not made_up(lambda i: 500 * MIB).grew
        assert not made_up(lambda i: 500 * MIB + wander[i]).grew
        assert not made_up(lambda i: 500 * MIB - i * MIB).grew
        # 100 bytes an item: 3.7 MiB in all, noise or not.
        assert made_up(lambda i: 500 * MIB + 100_000 * i).grew
        assert made_up(lambda i: 500 * MIB + 100_000 * i + wander[i]).grew
        # Files that stay open, but not those that are open for a moment.
        assert made_up(lambda i: 0, lambda i: 7 + i // 20).grew
        assert not made_up(lambda i: 0, lambda i: 7 + i % 3).grew

    def test_too_few_samples(self):
        with pytest.raises(ValueError, match="x has 4 samples after the warm-up"):
            growth_of("x", [Sample(i, 0, 0) for i in range(5)], 5, 1.0, 0)


class TestWatching:
    def test_a_planted_leak_of_memory_is_found(self):
        kept = []

        def step():
            kept.append(bytearray(MIB // 2))
            return 1

        found = watch("leak", step, 100)
        assert found.grew
        # 80 of them after the warm-up, and whatever else the process frees or takes.
        assert found.bytes_per_item == pytest.approx(MIB / 2, rel=0.2)

    def test_a_planted_leak_of_files_is_found(self):
        kept = []

        def step():
            kept.append(open(__file__))  # noqa: SIM115
            return 1

        found = watch("leak", step, 100)
        for file in kept:
            file.close()
        assert found.handles[1] - found.handles[0] >= 70
        assert found.grew

    def test_it_ends_in_time_and_says_how_much_was_done(self, monkeypatch):
        clock = iter(range(10_000))
        monkeypatch.setattr(load_samples.time, "perf_counter", lambda: float(next(clock)))
        done = []
        found = watch("slow", lambda: done.append(1) or 3, 10**9, seconds=60)
        assert found.items == 3 * len(done) < 10**9
        assert len(done) >= 10

    def test_children_count(self):
        before = load_samples.children_bytes()
        size = 32 * MIB
        source = f"held = bytearray({size}); held[::4096] = held[::4096]; print(); input()"
        program = [sys.executable, "-c", source]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            assert load_samples.children_bytes() - before > size
            child.communicate(b"\n")
        assert load_samples.children_bytes() - before < size / 2


def test_every_collator_collates_every_row():
    tokenizer = collate_load.make_tokenizer()
    made = collate_load.make_collators(tokenizer)
    # Five that mask, in four ways each, and four that predict.
    assert len(made) == 24
    step = collate_load.collating(list(made.values()))
    assert [step() for _ in range(3)] == [24] * 3
    for name, (collator, rows) in made.items():
        made_of_two = 4 if name.endswith("complementary") else 2
        assert len(collator(rows[:2])["input_ids"]) == made_of_two, name
        assert len(rows) == 512, name


def test_a_history_is_written_and_read_whole(tmp_path):
    step = history_load.writing(tmp_path)
    files = step() + step()
    assert files == 16 * history_load.FILES_A_RECORD
    assert sum(1 for each in tmp_path.rglob("*") if each.is_file()) == files + 1
    records = [each.name for each in tmp_path.iterdir() if each.is_dir()]
    assert len(records) == 16
    read = sum(history_load.read_one(tmp_path, fid) for fid in records)
    assert read == files


def test_a_folder_of_many_records_is_looked_through():
    found = history_load.looking_through(200, 60)
    assert found.items == 200
    assert "us a record" in found.note


def test_a_made_up_text_has_the_size_and_is_the_same_again(tmp_path):
    for paragraphs in (True, False):
        for name in "ab":
            process_load.write_text(tmp_path / name, 50_000, paragraphs)
        data = (tmp_path / "a").read_bytes()
        assert data == (tmp_path / "b").read_bytes()
        text, short = data[:50_000].decode(), data[50_000:].decode()
        assert short.count("\n\n") == 100
        assert ("\n\n" in text) == paragraphs
        assert len(set(text.split())) > 1000


PROGRAM = """
import time
held = bytearray({size})
held[::4096] = b"x" * len(held[::4096])
file = open("big")
time.sleep(0.4)
"""


def test_a_program_is_watched(tmp_path):
    (tmp_path / "big").touch()
    peaks = {}
    for size in (MIB, 64 * MIB):
        program = [sys.executable, "-c", PROGRAM.format(size=size)]
        phases = iter("ab" * 100)
        peaks[size] = process_load.run_watched(program, tmp_path, lambda at=phases: next(at))
    small, large = peaks.values()
    assert 60 * MIB < large.own - small.own < 68 * MIB
    assert large.bytes >= large.own
    assert large.handles == 4  # and the three of every program
    assert sum(large.phases.values()) == pytest.approx(large.seconds, abs=0.2)
    assert set(large.phases) == {"a", "b"}
    assert Use("x", "rows", peaks).grew
    assert not Use("x", "rows", {1: small, 2: small}).grew
    two = {MIB: small, 64 * MIB: large}
    assert Use("x", "bytes", two).per_item == pytest.approx(1.0, abs=0.1)
    assert Use("x", "bytes", two, known=0.5).grew
    assert not Use("x", "bytes", two, known=1.0).grew
    program = [sys.executable, "-c", "import sys; print('no good'); sys.exit(3)"]
    with pytest.raises(RuntimeError, match=r"ended with 3: .*no good"):
        process_load.run_watched(program, tmp_path)


def test_phases_are_told_by_what_is_there(tmp_path):
    assert process_load._phase(tmp_path) == "start"
    cache = tmp_path / "data/xlm_mlm/text"
    (cache / ".train-1").mkdir(parents=True)
    assert process_load._phase(tmp_path) == "training rows"
    (cache / "train-1").mkdir()
    assert process_load._phase(tmp_path) == "validation rows"
    (cache / "validation-2").mkdir()
    assert process_load._phase(tmp_path) == "training"


GROWTH = Growth("c", 90, 100, 2.0, 1.5, 3.0 * MIB, 0.5 * MIB, (7, 7), 600 * MIB, "a note")
USE = Use("p", "rows", {n: Peak(9 * MIB, n * MIB, 6, 1.0, {"all": 1.0}) for n in (1, 40)})


def test_what_is_reported(tmp_path, monkeypatch, capsys):
    run = load_run()
    monkeypatch.setattr(run, "CASES", {"collate": lambda *given: iter([GROWTH, USE])})
    files = ["--markdown", str(tmp_path / "a.md"), "--json", str(tmp_path / "a.json")]
    assert run.main(["collate", *files]) == 1
    said = capsys.readouterr().out
    assert "c: GREW; 90 of 100 in 2 s, 1.50 bytes an item" in said
    assert "p: GREW; 1 rows 1 MiB in 1 s, 40 rows 40 MiB in 1 s" in said
    table = (tmp_path / "a.md").read_text()
    assert "| c (a note) | 90 of 100 | 2 s | 1.50 | +3.00 ± 0.50 MiB | 7 to 7 | 600 MiB |" in table
    assert "| p | 40 rows | 40 MiB | 9 MiB | 6 | 1 s |" in table
    lines = json.loads((tmp_path / "a.json").read_text())["lines"]
    assert [line["grew"] for line in lines] == [True, True]
    assert lines[1]["peaks"]["40"]["own"] == 40 * MIB
    steady = GROWTH._replace(added=1.0)
    monkeypatch.setattr(run, "CASES", {"collate": lambda *given: iter([steady])})
    assert run.main(["collate"]) == 0
    assert load_report.sentence(steady).startswith("c: no growth")


def test_the_script_runs(tmp_path, capsys):
    run = load_run()
    assert run.main(["collate", "--scale", "0.001", "--seconds", "20"]) in (0, 1)
    assert capsys.readouterr().out.count("open files") == 3


@pytest.mark.slow
def test_a_program_of_ours_is_watched():
    (use,) = [use for use in process_load.generate([3], only="mlm_score")]
    assert use.peaks[3].own > 100 * MIB
    assert use.peaks[3].handles > 3
