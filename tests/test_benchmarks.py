"""The benchmarks at tiny sizes: they compute what they say. Nothing here depends on a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import arithmetic
import cases
import collation_cases
import compare
import generation_cases
import gpu
import growth
import measure
import modes
import packages
import report
import run
import training_cases

SHAPE = arithmetic.ModelShape(20, 64, 2)


@pytest.fixture
def bench():
    ours, naive = packages.load_package("xlm_mlm"), packages.load_package("naive")
    return cases.Bench(ours, naive, rounds=3, tiny=True)


def a_line(**changes):
    timing = measure.Timing(2.0, 1.9, 2.1, 3)
    fields = {"case": "c", "path": "p", "setting": "s", "ours": timing, "reference": timing}
    return cases.Line(**{**fields, **changes})


def made_up_points(bench):
    """Time grows with the square, memory in proportion."""
    return [
        growth.Point(axis, value, kind, package.name, 1e-3 * value**2, value * 2**20)
        for axis, values in growth.RANGES.items()
        for value in values
        for kind in growth.KINDS
        for package in bench.packages
    ]


class TestArithmetic:
    def test_forward_operations_by_hand(self):
        # One layer, d 2, V 5, two rows of 3 and 1 tokens, of which 1 and 1 are needed.
        one = arithmetic.pass_of([3, 1], [1, 1])
        keys_values = 4 * 2 * 2 * 2  # tokens, in, out, both
        queries_output = 2 * 2 * 2 * 2
        attention = (3 + 1) * 2 * 2  # pairs, scores and sums, channels
        mlp = 2 * 2 * 8 * 2
        vocabulary = 2 * 2 * 5
        terms = keys_values + queries_output + attention + mlp + vocabulary
        assert arithmetic.forward_operations(arithmetic.ModelShape(5, 2, 1), one) == 2 * terms

    def test_full_forward_is_what_torch_counts(self, bench):
        model = cases.build_model(bench.reference, SHAPE, 8).eval()
        ids = cases.random_ids(20, 3, 8)
        with FlopCounterMode(display=False) as counter:
            model(ids)
        # Attention is left out of both: torch does not count every kernel of it.
        linear = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
        one = arithmetic.Pass(tokens=24, needed=24, pairs=0, needed_pairs=0)
        assert arithmetic.forward_operations(SHAPE, one) == linear

    @pytest.mark.parametrize("backward", [False, True])
    def test_products_make_up_the_work_but_for_attention(self, backward):
        passes = [arithmetic.Pass(10, 4, 0, 0), arithmetic.Pass(10, 4, 0, 0)]
        work = arithmetic.work_of(SHAPE, passes, backward)
        total = sum(p.operations * p.count for p in work.products)
        assert work.operations == total * (3 if backward else 1)

    def test_rate_weighs_products_by_count(self):
        products = [arithmetic.Product(1, 1, 1, 3), arithmetic.Product(2, 2, 2, 1)]
        work = arithmetic.Work(0, products, backward=False)
        assert arithmetic.matmul_rate(work, [1.0, 4.0]) == pytest.approx((3 * 2 + 16) / (3 + 4))
        assert arithmetic.best_rate(work, [1.0, 4.0]) == 16 / 4

    def test_a_pass_has_the_squares_of_lengths(self):
        assert arithmetic.pass_of([3, 5], [2, 0]) == (8, 2, 34, 6)


class TestMeasure:
    def test_runs_alternate_who_starts(self):
        order = []
        workloads = {name: lambda name=name: lambda: order.append(name) for name in "ab"}
        seconds = measure.interleave(workloads, rounds=3, warm_up=0)
        assert "".join(order) == "abbaab"
        assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}

    def test_budget_stops_after_three_rounds(self):
        seconds = measure.interleave({"a": lambda: lambda: None}, rounds=50, budget=0.0)
        assert len(seconds["a"]) == 3

    def test_preparation_is_not_timed(self, monkeypatch):
        clock = [0.0]
        monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

        def passing(seconds):
            clock[0] += seconds

        def workload():
            passing(100.0)
            return lambda: passing(2.0)

        assert measure.interleave({"a": workload}, rounds=3)["a"] == [2.0, 2.0, 2.0]

    def test_timing_has_median_and_quartiles(self):
        assert measure.Timing.of([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, 2.0, 4.0, 5)

    @pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux only")
    def test_peak_sees_an_allocation_that_is_gone_at_the_end(self):
        size = 64 * 2**20
        # In a process of its own: one that ran other tests may hold memory to be used again.
        # Four times as much before the run does not count.
        source = (
            f"import torch, measure; torch.ones({size})\n"
            f"print(measure.peak_bytes(lambda: torch.ones({size // 4})))"
        )
        done = subprocess.run(
            [sys.executable, "-c", source],
            cwd=Path(measure.__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        assert size <= int(done.stdout) + 2**20 < size + 32 * 2**20

    def test_other_work_leaves_out_our_own(self, monkeypatch):
        seconds = iter([(10.0, 100.0), (12.0, 110.0)])
        monkeypatch.setattr(measure.OtherWork, "_seconds", staticmethod(lambda: next(seconds)))
        assert measure.OtherWork().share() == pytest.approx(0.2)

    def test_fresh_process_is_another(self):
        assert measure.in_fresh_process(os.getpid) != os.getpid()

    def test_machine_is_described(self):
        machine = measure.describe_machine(("no-such-package",))
        assert machine["threads"] == str(torch.get_num_threads())
        assert machine["no-such-package"] == "not installed"


class TestPackages:
    def test_auto_takes_what_is_installed(self, monkeypatch):
        monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
        assert packages.choose_reference("auto") == "naive"
        with pytest.raises(ValueError, match="not installed"):
            packages.choose_reference("mlm")
        monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: object())
        assert packages.choose_reference("auto") == "mlm"

    def test_unknown_reference(self):
        with pytest.raises(ValueError, match="must be auto"):
            packages.choose_reference("other")


class TestTraining:
    @pytest.mark.parametrize("padded", [False, True])
    def test_reference_agrees(self, bench, padded):
        size = training_cases.TrainingSize(SHAPE, 3, 10, padded)
        models = cases.build_models(bench, SHAPE, 10, dropout=0.0)
        losses = [cases.build_loss(p, m, 20) for p, m in zip(bench.packages, models, strict=True)]
        batch = training_cases.training_batch(size)
        assert "gradients" in training_cases.check_gradients(models, losses, batch)
        with torch.no_grad():
            models[1].output_layer.linear.weight.mul_(1.1)
        with pytest.raises(AssertionError):
            training_cases.check_gradients(models, losses, batch)

    def test_padded_batch(self):
        size = training_cases.TrainingSize(SHAPE, 40, 12, padded=True)
        batch = training_cases.training_batch(size)
        valid, masked = batch["attention_mask"], batch["input_ids"] == packages.MASK_ID
        lengths = valid.sum(1)
        assert lengths.min() >= 1
        assert len(lengths.unique()) > 5
        assert not (masked & ~valid).any()
        assert (batch["target_ids"][~valid] == -100).all()

    def test_each_run_gets_its_own_batch(self):
        weight = torch.nn.Parameter(torch.ones(()))
        module = torch.nn.ParameterList([weight])
        seen = []

        def overwriting(batch):
            seen.append(batch["target_ids"].clone())
            batch["target_ids"].fill_(7)
            return {"loss": weight * 1.0}

        batch = {"target_ids": torch.zeros(2)}
        workload = training_cases.training_workload(module, overwriting, batch)
        workload()()
        workload()()
        assert [found.tolist() for found in seen] == [[0, 0], [0, 0]]


class TestGeneration:
    def test_passes_and_needed_positions_of_a_run(self, bench):
        options = {"max_steps": 4}
        size = generation_cases.GenerationSize(SHAPE, 2, 8, options)
        model = cases.build_model(bench.ours, SHAPE, 8)
        predictor = generation_cases.build_predictor(bench.ours, model, size)
        batch = generation_cases.masked_rows(size)
        workload = generation_cases.generation_workload(predictor, batch)
        _, seen = generation_cases.watched_passes(model, workload)
        passes = generation_cases.needed_passes(seen, all_masks=False)
        assert [one.needed for one in passes] == [4, 4, 4, 4]
        assert [one.tokens for one in passes] == [16] * 4
        ranked = generation_cases.needed_passes(seen, all_masks=True)
        assert [one.needed for one in ranked] == [16, 12, 8, 4]

    def test_prompts_end_together(self):
        size = generation_cases.GenerationSize(SHAPE, 30, 10, {})
        valid = generation_cases.prompts(size)["attention_mask"]
        assert valid[:, -1].all()
        assert set(valid.sum(1).tolist()) == {5, 6, 7, 8, 9, 10}

    def test_masks_are_spread_evenly(self):
        size = generation_cases.GenerationSize(SHAPE, 2, 8, {})
        ids = generation_cases.masked_rows(size, 4)["input_ids"]
        masked = [True, False] * 4
        assert (ids == packages.MASK_ID).tolist() == [masked, masked]

    def test_check_refuses_masks_left_and_tokens_changed(self):
        size = generation_cases.GenerationSize(SHAPE, 1, 2, {})
        batch = {"input_ids": torch.tensor([[9, packages.MASK_ID]])}
        generation_cases.check_filled("x", size, batch, torch.tensor([[9, 10]]))
        for wrong in ([9, packages.MASK_ID], [9, 20], [8, 10], [9, 10, 11]):
            with pytest.raises(AssertionError):
                generation_cases.check_filled("x", size, batch, torch.tensor([wrong]))


class TestCollation:
    def test_check_compares_targets(self, bench):
        tokenizer = packages.make_tokenizer(collation_cases.VOCABULARY)
        examples = collation_cases.examples_of(3, {"input_ids": (2, 8)})
        ours, naive = (p.default_collator(tokenizer, 10, None)(examples) for p in bench.packages)
        assert "100% of the targets" in collation_cases.check_batches(ours, naive)
        naive["target_ids"] = naive["target_ids"] + 1
        with pytest.raises(AssertionError):
            collation_cases.check_batches(ours, naive)


class TestGrowth:
    def test_exponent_is_recovered_under_a_fixed_cost(self):
        values = [2.0**i for i in range(10)]
        amounts = [7.0 + 3.0 * v**1.5 for v in values]
        assert growth.fit_exponent(values, amounts) == pytest.approx(1.5, abs=0.02)
        assert growth.fit_exponent(values, [5.0 * v for v in values]) == pytest.approx(1.0)

    def test_too_few_points(self):
        with pytest.raises(ValueError, match="3 positive"):
            growth.fit_exponent([1, 2], [1, 2])

    @pytest.mark.parametrize("kind", growth.KINDS)
    def test_a_point_has_both_packages(self, bench, monkeypatch, kind):
        monkeypatch.setattr(growth, "BASE", {"vocabulary": 30, "length": 8, "batch": 2})
        points = growth.measure_point(bench, kind, "length", 16, memory=False)
        assert [(p.package, p.value) for p in points] == [("xlm_mlm", 16), ("naive", 16)]

    def test_results_are_written_and_read(self, bench, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(growth, "plot", lambda *arguments: drawn.append(arguments[-1]))
        points = made_up_points(bench)
        growth.write_results(points, bench, tmp_path)
        text = (tmp_path / "growth.md").read_text()
        assert text.count("| exponent | 2.00 | 2.00 | 1.00 | 1.00 |") == 3
        assert drawn == [tmp_path / "growth.svg"]
        kept = growth.read_points(tmp_path / "growth.json", without=["batch", "length"])
        assert kept == [point for point in points if point.axis == "vocabulary"]

    def test_plot_names_what_it_shows(self, bench, tmp_path):
        pytest.importorskip("matplotlib")
        growth.plot(made_up_points(bench), ["xlm_mlm", "naive"], tmp_path / "growth.svg")
        drawn = (tmp_path / "growth.svg").read_text()
        assert "training, naive: exponent 2.00" in drawn
        assert "peak memory above start, MiB" in drawn


class TestModes:
    size = training_cases.TrainingSize(SHAPE, 3, 10)

    def test_batches_vary_in_their_masks(self):
        batches = modes.varied_batches(self.size, 4)
        counts = [int((b["input_ids"] == packages.MASK_ID).sum()) for b in batches]
        assert len(set(counts)) == 4

    def test_compilations_are_counted(self, bench):
        models = [cases.build_model(bench.reference, SHAPE, 10) for _ in range(2)]
        found = modes.compare_compiled(bench.reference, models, self.size, 3, backend="eager")
        assert found.graphs[0] >= 1
        assert found.graphs[1:] == (0, 0)

    def test_autocast_is_close_and_not_equal(self, bench):
        model = cases.build_model(bench.ours, SHAPE, 10)
        found = modes.compare_autocast(bench.ours, model, self.size, 3)
        assert found.loss_difference < 1e-2
        assert 0 < found.gradient_difference < 0.1


class TestGpu:
    def test_without_a_gpu_it_says_so(self, monkeypatch, capsys):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert gpu.main([]) == 1
        assert "not run" in capsys.readouterr().err

    def test_tiny_on_the_cpu(self, monkeypatch, capsys):
        small = training_cases.TrainingSize(SHAPE, 2, 32)
        monkeypatch.setattr(gpu, "TINY", small)
        arguments = ["--device", "cpu", "--tiny", "--eager", "--against", "naive"]
        assert gpu.main(arguments) == 0
        text = capsys.readouterr().out
        assert text.count("xlm_mlm") == 3
        assert "naive has no packed batches" in text

    def test_packed_work_counts_texts_apart(self, bench):
        size = training_cases.TrainingSize(SHAPE, 2, 32)
        batch = gpu.batch_of(bench.ours, "packed", size)
        one = gpu.pass_of_batch(batch)
        assert one.tokens == 64
        assert one.needed == int((batch["input_ids"] == packages.MASK_ID).sum())
        same = batch["segment_ids"][:, :, None] == batch["segment_ids"][:, None]
        assert one.pairs == int(same.sum()) < 2 * 32 * 32


class TestReport:
    def test_cells_of_a_line(self):
        slow = measure.Timing(5.0, 4.0, 6.0, 3)
        line = a_line(reference=slow, goal=2.0, limit=1.5)
        times = ["5 s ± 20%", "2 s ± 5%", "2.50x", "2x", "1.5 s", "75%"]
        assert report.cells(line) == ["p", "s", *times]

    def test_amounts(self):
        assert report.amount(0.01234, "s") == "12.3 ms"
        assert report.amount(3 * 2**30, "bytes") == "3,072 MiB"

    def test_later_figures_replace_those_of_their_case(self, tmp_path):
        file = tmp_path / "lines.json"
        report.save_lines(file, [a_line(case="a"), a_line(case="b")], {})
        report.save_lines(file, [a_line(case="a", path="new")], {})
        lines = report.load_lines(file)
        assert [(line.case, line.path) for line in lines] == [("b", "p"), ("a", "new")]
        assert lines[0].ours == measure.Timing(2.0, 1.9, 2.1, 3)

    def test_comparison(self, tmp_path, capsys):
        slow = measure.Timing(6.0, 5.9, 6.1, 3)
        before, after = tmp_path / "before.json", tmp_path / "after.json"
        report.save_lines(before, [a_line(ours=slow), a_line(case="d", path="gone")], {})
        report.save_lines(after, [a_line()], {})
        compare.main([str(before), str(after), "--markdown", str(tmp_path / "table.md")])
        assert "one file only: gone" in capsys.readouterr().out
        table = (tmp_path / "table.md").read_text()
        assert "| p | s | 6 s | 2 s | 3.00x | 1.00x | 0.33x | 1.00x |  |" in table


def test_every_case_runs_and_is_reported(tmp_path, capsys):
    files = ["--markdown", str(tmp_path / "t.md"), "--json", str(tmp_path / "t.json")]
    threads = torch.get_num_threads()
    try:
        run.main(["--scale", "tiny", "--rounds", "3", "--against", "naive", *files])
    finally:
        torch.set_num_threads(threads)
    lines = report.load_lines(tmp_path / "t.json")
    assert {line.case for line in lines} == set(run.CASES)
    assert all(line.ours.median > 0 and line.reference.median > 0 for line in lines)
    assert all(line.goal for line in lines)
    table = (tmp_path / "t.md").read_text().splitlines()
    assert len([row for row in table if row.startswith("| ")]) == len(lines) + 2
    assert "processor" in capsys.readouterr().out
