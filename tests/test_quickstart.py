"""The first thing a newcomer runs: the real commands, from an empty folder, offline."""

import re
from pathlib import Path

import pytest
from xlm_process import metric, prediction_files, read_rows, xlm

from xlm_mlm.data.sudoku import solutions

pytestmark = pytest.mark.slow

COMMAND = ("job_name=quickstart", "experiment=quickstart_mlm")
SCRIPT = Path(__file__).parents[1] / "examples" / "quickstart" / "quickstart.sh"
FIGURE = "infill_prediction/exact_match"
SOLVED = re.compile(r"(\d+) of (\d+) held-out boards solved, every cell right: ([\d.]+)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def trained(folder):
    return xlm(folder, "job_type=train", *COMMAND)


@pytest.fixture(scope="module")
def evaluated(folder, trained):
    return xlm(folder, "job_type=eval", *COMMAND)


def boards(folder, split):
    """(puzzle, answer, truth) of every row that the last run wrote, as digits."""
    rows = read_rows(prediction_files(folder, "quickstart", split, "infill_prediction")[-1])
    return [(row["text"].split(), row["truth"].split(), row["metric_exact_match"]) for row in rows]


def test_training_solves_the_boards_it_never_saw(trained, folder):
    assert trained.code == 0, trained.output[-3000:]
    assert metric(trained.output, f"test/{FIGURE}") >= 0.95
    rows = boards(folder, "test")
    assert len(rows) == 48 * 5
    right = [answer == truth for answer, truth, _ in rows]
    assert right == [match == 1.0 for _, _, match in rows]
    assert sum(right) / len(rows) == pytest.approx(metric(trained.output, f"test/{FIGURE}"))
    answers = {tuple(int(d) for d in truth if d.isdigit()) for _, truth, _ in rows}
    assert len(answers) == 48
    assert all(solutions(answer) == [answer] for answer in answers)


def test_training_prints_boards_beside_their_answers_and_a_progress_bar(trained):
    solved, total, share = SOLVED.search(trained.output).groups()
    assert int(total) == 240
    assert float(share) == pytest.approx(int(solved) / 240, abs=1e-4)
    assert float(share) == pytest.approx(metric(trained.output, f"test/{FIGURE}"), abs=1e-4)
    assert len(re.findall(r"^-+\+-+ => -+\+-+", trained.output, flags=re.MULTILINE)) == 4
    assert "train/loss=" in trained.output


def test_evaluation_reads_the_checkpoint_and_repeats_the_figure(trained, evaluated, folder):
    assert evaluated.code == 0, evaluated.output[-3000:]
    assert "last.ckpt" in evaluated.output
    assert metric(evaluated.output, f"val/{FIGURE}") == metric(trained.output, f"test/{FIGURE}")
    assert SOLVED.search(evaluated.output).groups() == SOLVED.search(trained.output).groups()
    assert [row[0] for row in boards(folder, "val")] == [row[0] for row in boards(folder, "test")]


def test_everything_stays_in_the_folder(trained, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["data", "logs"]


def test_the_example_runs_these_commands():
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith("xlm ")]
    assert [line.split() for line in lines] == [
        ["xlm", f"job_type={job_type}", *COMMAND] for job_type in ("train", "eval")
    ]
