"""Star graphs made locally: train, eval and prediction run, and every row written is counted."""

import pytest
from warm_process import xlm
from xlm_process import TINY_MODEL, metric, prediction_files, read_rows

pytestmark = pytest.mark.slow

# 13 and 11 are no multiples of the batch size: a dropped last batch would be missed.
TINY = (
    *TINY_MODEL,
    "star_graphs.counts.train=60",
    "star_graphs.counts.validation=13",
    "star_graphs.counts.test=11",
    "trainer.max_steps=6",
    "trainer.check_val_every_n_epoch=1",
    "+trainer.limit_train_batches=6",
    "trainer.num_sanity_val_steps=0",
    "predictor.max_steps=4",
    "callbacks.checkpoint_every_n_steps.every_n_train_steps=3",
)


def run(folder, job_type, difficulty):
    return xlm(
        folder,
        f"job_type={job_type}",
        f"job_name={difficulty}",
        f"experiment=star_{difficulty}_offline_mlm",
        *TINY,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("star")


@pytest.fixture(scope="module")
def trained(folder):
    """Output of training, by difficulty."""
    runs = {
        difficulty: run(folder, "train", difficulty) for difficulty in ("easy", "medium", "hard")
    }
    for done in runs.values():
        assert done.code == 0, done.output[-3000:]
    return {difficulty: done.output for difficulty, done in runs.items()}


@pytest.fixture(scope="module")
def evaluated(folder, trained):
    done = run(folder, "eval", "easy")
    assert done.code == 0, done.output[-3000:]
    return done.output


def check_rows(rows, count, input_block_size, block_size):
    """Every row is a prompt, BOS and `block_size` tokens, and its truth is a path of its graph."""
    assert len(rows) == count
    for row in rows:
        text, truth = row["text"].split(), row["truth"].split()
        assert len(text) == input_block_size + 1 + block_size
        assert len(truth) == block_size
        assert "[MASK]" not in text
        assert text[input_block_size] == "[BOS]"
        prompt = [int(node) for node in text[:input_block_size] if node != "[PAD]"]
        path = [int(node) for node in truth[: truth.index("[EOS]")]]
        edges = list(zip(prompt[:-2:2], prompt[1:-2:2], strict=True))
        assert set(zip(path[::2], path[1::2], strict=True)) <= set(edges)
        assert [path[0], path[-1]] == prompt[-2:]
        assert row["metric_exact_match"] in (0.0, 1.0)
        assert 1 <= row["steps_taken"] <= 4
    assert len({row["text"][: row["text"].index("[BOS]")] for row in rows}) == count


@pytest.mark.parametrize(
    ("difficulty", "input_block_size", "block_size"),
    [("easy", 28, 14), ("medium", 36, 16), ("hard", 116, 28)],
)
def test_training_validates_tests_and_writes_every_row(
    folder, trained, difficulty, input_block_size, block_size
):
    sizes = {"input_block_size": input_block_size, "block_size": block_size}
    (tested,) = prediction_files(folder, difficulty, "test", "prediction")
    check_rows(read_rows(tested), count=11, **sizes)
    (validated,) = prediction_files(folder, difficulty, "val", "prediction")
    check_rows(read_rows(validated), count=13, **sizes)
    assert metric(trained[difficulty], "test/lm/accumulated_loss") > 0
    assert 0 <= metric(trained[difficulty], "test/prediction/exact_match") <= 1


def test_evaluation_predicts_from_the_checkpoint_and_writes_every_row(folder, evaluated):
    files = prediction_files(folder, "easy", "val", "prediction")
    assert len(files) == 2  # training's and this one
    check_rows(read_rows(files[-1]), count=13, input_block_size=28, block_size=14)
    truths = [[row["truth"] for row in read_rows(path)] for path in files]
    assert truths[0] == truths[1]
    assert "best.ckpt" in evaluated
    assert metric(evaluated, "val/lm/accumulated_loss") > 0


def test_graphs_are_made_once_and_cached_a_split_each(folder, trained, evaluated):
    made = sorted(
        path.name.split("-")[0] for path in (folder / "data/xlm_mlm/star_graphs").iterdir()
    )
    assert made == sorted(["train", "validation", "test"] * 3)  # "predict" is "test"
