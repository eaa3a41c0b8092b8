"""`examples/samplers`: what is compared, how winners are named, and that it runs."""

import json
import math
import re
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from toy_models import TableModel

from xlm_mlm import MLMPredictor

EXAMPLE = Path(__file__).parents[1] / "examples" / "samplers"
MASK, V = 2, 27


NAMES = ("compare", "masks", "samplers", "tasks")


@pytest.fixture
def modules(monkeypatch):
    """The example's scripts, as modules; other scripts may have the same names."""
    monkeypatch.syspath_prepend(EXAMPLE)
    others = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    yield {name: import_module(name) for name in NAMES}
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(others)


def test_every_rule_that_is_installed_is_compared(modules):
    named, made = set(), []
    for name, options in modules["samplers"].settings(12, True):
        made.append(name)
        MLMPredictor(**({"max_steps": 12} | options))
        for key in ("strategy", "revision"):
            given = options.get(key)
            named |= {given["name"] if isinstance(given, dict) else given} - {None}
        named |= {"uniform"} if set(options) == {"max_steps"} else set()
        if "confidence" in options:
            named.add("budget" if "threshold" in options else "fixed_count")
    ours = {e.name for e in entry_points(group="xlm_mlm.samplers") if e.value.startswith("xlm_mlm")}
    assert named == ours
    assert {"top_prob in 4 blocks", "top_prob, guided (1.0)"} <= set(made)


def task(modules, tokenizer):
    """Rows of which a model that answers 9 everywhere gets two thirds."""
    logits = torch.zeros(6, V)
    logits[:, 9] = 5.0
    target = torch.full((3, 6), 9)
    target[2, 4] = 8
    batch = {"input_ids": torch.full((3, 6), MASK), "target_ids": target}

    def right(batch, preds, tokenizer):
        equal = (preds["ids"] == batch["target_ids"]).all(dim=1)
        return int(equal.sum()), len(equal)

    return modules["tasks"].Task(
        "nines", "rows", TableModel(logits), tokenizer, [batch], 6, {}, right, True
    )


def test_points_tables_and_plots(modules, tokenizer, tmp_path):
    compare = modules["compare"]
    points = compare.measure(task(modules, tokenizer))
    assert {point["quality"] for point in points} == {2 / 3}
    for point in points:
        steps = point["options"].get("max_steps", 6)
        assert 0 < point["passes"] <= steps * (2 if "cfg_scale" in point["options"] else 1)
    uniform = [p["passes"] for p in points if p["sampler"] == "uniform"]
    assert uniform == [1, 2, 3, 4, 6]
    text = compare.table({"nines": points}, {"nines": "rows"})
    assert re.search(r"Winner: \*\*uniform\*\* .*: 0.667 in 1.0 passes", text)
    compare.draw({"nines": points}, {"nines": "rows"}, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()[:500]
    json.dumps(points)


def test_the_winner_is_the_cheapest_of_those_that_can_t_be_told_apart(modules):
    compare = modules["compare"]

    def point(quality, passes):
        return {"quality": quality, "passes": passes, "error": compare.error(quality * 100, 100)}

    points = [point(0.90, 16), point(0.89, 4), point(0.80, 1)]
    assert compare.best(points) is points[1]
    assert compare.error(100, 100) == pytest.approx(math.sqrt(101 / 102 * 1 / 102 / 102))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [([3.0, 2.0, 1.0], 75.0), ([1.0, 0.5], 50.0), ([3.0, 2.5], math.inf), ([2.0, 1.5], 100.0)],
)
def test_steps_to_a_goal(modules, curve, expected):
    assert modules["masks"].steps_to(curve, 50, {75.0: 2.5}.get(expected, 1.5)) == expected


def test_gradient_noise_is_the_variance_over_the_squared_mean(modules):
    """Two equally probable gradients, +1 and +3: mean 2, variance 1."""

    class Setting:
        rows, size = [0], 1

        def __init__(self):
            self.loss = self
            self.turn = 0

        def collate(self, rows):
            self.turn += 1
            return 1.0 if self.turn % 2 else 3.0

        def batches(self, seed):
            while True:
                yield self.collate([])

        def __call__(self, batch):
            return {"loss": batch * self.model.weight.sum()}

    model = torch.nn.Linear(1, 1, bias=False)
    for fixed in (True, False):
        found = modules["masks"].noise(Setting(), model, fixed)
        assert found == pytest.approx(1 / 4, rel=0.05)


@pytest.mark.slow
def test_masks_are_compared_on_the_quickstart(modules, tmp_path, monkeypatch):
    masks = modules["masks"]
    monkeypatch.setattr(masks, "SAMPLINGS", ("complementary",))
    monkeypatch.setattr(masks, "DRAWS", 2)
    options = ["--task", "quickstart", "--steps", "2", "--every", "1", "--seeds", "1"]
    where = ["--data", str(tmp_path / "data"), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["masks.py", *options, *where])
    masks.main()
    found = json.loads((tmp_path / "masks_quickstart.json").read_text())
    assert [each["weighting"] for each in found["results"]] == ["mean", "elbo"]
    for each in found["results"]:
        (curve,) = each["curves"]
        # Four digits, drawn with an untrained network.
        assert len(curve) == 2
        assert all(0.5 < value < 4 for value in curve)
        assert each["masks"] > 0
    assert (tmp_path / "masks_quickstart.md").read_text().count("complementary") == 2
