"""Two processes beside one: losses, gradients, metrics, histories, predictions.

Two real processes do everything in `rank_checks` once; the tests compare what they found.
"""

import json
import math
import re
from itertools import chain
from pathlib import Path

import pytest
import torch
from composing import composed
from made_up_histories import MASK as HISTORY_MASK
from rank_checks import (
    MASK,
    OPTIONS,
    ROWS,
    STEPS,
    WORLD,
    batch_of,
    equal_counts,
    gradient,
    loss_of,
    network,
    rows_of,
    trajectory,
    unequal_counts,
)
from warm_process import WarmProcess, xlm
from xlm_process import TINY_MODEL, clean_environment, prediction_files, read_rows

from xlm_mlm.history_mlm import read_traces
from xlm_mlm.likelihood_mlm import mlm_nll

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def found(folder):
    """What each process found, by check."""
    script = str(FOLDER / "rank_checks.py")
    environment = clean_environment(OMP_NUM_THREADS="1")
    both = [
        WarmProcess(script, [str(rank), str(folder)], FOLDER, environment) for rank in range(WORLD)
    ]
    try:
        for process in both:
            ended = process.finish(timeout=180)
            assert ended.code == 0, ended.output[-3000:]
    finally:
        for process in both:
            process.kill()
    ranks = [torch.load(folder / f"found.{rank}.pt", weights_only=False) for rank in range(WORLD)]
    return {check: [rank[check] for rank in ranks] for check in ranks[0]}


def mean(*values):
    return sum(values) / len(values)


def naive_loss(model, batch, name, rows=range(2 * ROWS)):
    """The loss of some rows, divided by what counts in all: one term at a time."""
    logits = model(batch["input_ids"], batch["attention_mask"]).log_softmax(-1)
    total, divisor = logits.sum() * 0, 0
    for row in range(len(batch["input_ids"])):
        inputs, targets = batch["input_ids"][row].tolist(), batch["target_ids"][row].tolist()
        maskable = [
            i
            for i, target in enumerate(targets)
            if target != -100
            and not (name == "elbo_given" and batch["fixed_positions_mask"][row, i])
        ]
        masked = [i for i in maskable if inputs[i] == MASK]
        counted = maskable if name == "visible" else masked
        weight = 1.0
        if name == "factor":
            weight = 1 / (len(masked) + 1)
        elif name == "elbo" and masked:
            weight = (len(maskable) + 1) / len(masked)
        elif name == "elbo_given":
            weight = float(batch["elbo_weights"][row])
        divisor += len(maskable if name.startswith("elbo") else counted)
        if row in rows:
            for i in counted:
                total = total - weight * logits[row, i, targets[i]]
    return total / max(divisor, 1)


def of_one_process(batches):
    model = network()
    return trajectory(model, loss_of(model), [batches(step) for step in range(3)])


def test_equal_counts_give_the_losses_of_one_process(found):
    both = [mean(*pair) for pair in zip(*(r["equal"] for r in found["trajectories"]), strict=True)]
    assert both == pytest.approx(of_one_process(equal_counts), abs=1e-5)


@pytest.mark.parametrize("by", ["DDP", "Lightning"])
def test_weighted_by_tokens_so_do_unequal_ones(found, by):
    ranks = [rank["tokens"] for rank in found["trajectories"]]
    if by == "Lightning":
        ranks = [rank["losses"] for rank in found["trained_by_lightning"]]
    both = [mean(*pair) for pair in zip(*ranks, strict=True)]
    assert both == pytest.approx(of_one_process(unequal_counts), abs=1e-5)


def test_processes_that_were_seeded_alike_draw_numbers_of_their_own(found):
    drawn = [number for rank in found["trained_by_lightning"] for number in rank["drawn"]]
    assert len(set(drawn)) == WORLD * 3


@pytest.mark.parametrize("wrong", ["sum", None, 1])
def test_another_way_to_weigh_is_refused(wrong):
    with pytest.raises(ValueError, match=r"across_ranks is .*; it must be one of 'mean', 'tokens'"):
        loss_of(network(), across_ranks=wrong)


def test_a_mean_of_means_is_another_loss(found):
    both = [mean(*pair) for pair in zip(*(r["mean"] for r in found["trajectories"]), strict=True)]
    # The second process has no masks in the first step: half of the loss is a mean of nothing.
    alone = of_one_process(unequal_counts)
    assert both[0] == pytest.approx(alone[0] / 2, rel=1e-5)
    assert abs(both[1] - alone[1]) > 1e-3


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("name", OPTIONS)
def test_losses_and_gradients_average_to_those_of_a_loop_over_all_rows(found, name, step):
    model, batch = network(), unequal_counts(step, name)
    losses, gradients = zip(*(rank[name, step] for rank in found["gradients"]), strict=True)
    for rank, loss in enumerate(losses):
        own = naive_loss(model, batch, name, range(rank * ROWS, (rank + 1) * ROWS))
        assert loss == pytest.approx(WORLD * own.item(), rel=1e-4, abs=1e-7)
    naive_loss(model, batch, name).backward()
    assert torch.equal(*gradients)
    # Sums of some hundred fp32 numbers of size 1, in another order.
    torch.testing.assert_close(gradients[0], gradient(model), atol=2e-6, rtol=1e-4)


def test_where_nothing_is_masked_anywhere_the_gradient_is_zero(found):
    for name in set(OPTIONS) - {"visible"}:
        for loss, grad in (rank[name, STEPS - 1] for rank in found["gradients"]):
            assert loss == 0
            assert not grad.any()


def test_in_evaluation_each_process_is_on_its_own(found):
    model = network().eval()
    for rank, losses in enumerate(found["evaluation"]):
        assert len(losses) == (3 if rank == 0 else 1)
        for step, loss in enumerate(losses, start=1):
            own = rows_of(unequal_counts(step), rank)
            assert loss == pytest.approx(naive_loss(model, own, "plain").item(), rel=1e-5)


@pytest.mark.slow
def test_compiled_it_is_the_same_and_not_compiled_at_every_step(monkeypatch):
    # As if another process had as many.
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: WORLD)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.mul_(WORLD))
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = network()
    loss, plain = loss_of(model, across_ranks="tokens"), loss_of(model)
    loss.loss_fn = torch.compile(loss.loss_fn, backend=count)
    seen = []
    for step in range(5):
        batch = batch_of(step, [1 + step, 5, 2, 9 - step // 2])
        expected = plain(batch)["loss"].item()
        assert loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)
        seen.append(len(graphs))
    # The first sizes may each be compiled, then once for sizes that vary, then never again.
    assert seen[-1] == seen[2] > 0


@pytest.mark.parametrize("kind", ["fsdp", "fully_shard"])
def test_sharded_models_have_the_gradient_of_one_process(found, kind):
    model = network()
    naive_loss(model, unequal_counts(2), "plain").backward()
    for rank in found["sharded"]:
        torch.testing.assert_close(rank[kind], gradient(model), atol=2e-6, rtol=1e-4)


def test_sharded_models_know_what_decays_and_estimate_likelihoods(found):
    model = network()
    expected = [
        {name for name, _ in model.get_named_params_for_weight_decay()},
        {name for name, _ in model.get_named_params_for_no_weight_decay()},
    ]
    tokens = batch_of(0, [0] * ROWS)["input_ids"]
    nll = mlm_nll(model, tokens, tokens > 0, MASK, num_mc_samples=3)
    for rank in found["sharded"]:
        assert rank["groups"] == expected
        torch.testing.assert_close(rank["nll"], nll, rtol=1e-5, atol=0)


def test_metrics_are_those_of_all_rows(found):
    for rank in found["metrics"]:
        # 10.5 nats over 9 tokens of three rows; the row without tokens does not count.
        assert rank["SequenceNLL"] == pytest.approx(10.5 / 3)
        assert rank["BitsPerToken"] == pytest.approx(10.5 / 9 / math.log(2))
        assert rank["Perplexity"] == pytest.approx(math.exp(10.5 / 9))
        assert rank["accuracy"] == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)


def test_histories_in_one_folder_do_not_collide(found, folder):
    traces = {trace.fid: trace for trace in read_traces(folder / "history")}
    assert sorted(traces) == sorted(chain(*found["histories"]))
    assert len(traces) == 2 * 2 * 5
    for rank, fids in enumerate(found["histories"]):
        for number, fid in enumerate(fids):
            trace, row = traces[fid], number % 2
            inside = [4, HISTORY_MASK, 7 + number // 2 if row else HISTORY_MASK, 7 + rank]
            assert trace.before.tolist() == inside
            assert (trace.finished, trace.steps) == (True, 2 - row)
            assert trace.text_of(4) == "[BOS]"
    files = [path.name for path in (folder / "history").iterdir() if path.is_file()]
    assert [name.partition(".")[0] for name in files] == ["vocabulary"]


def test_predictions_cover_each_sample_once(found, folder):
    assert found["predictions"] == [list(range(7))] * 2
    (file,) = (folder / "predictions/val/numbered_prediction").glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(row["sample_id"] for row in rows) == list(range(7))
    for row in rows:
        assert set(row) == {"sample_id", "text", "by"}
        assert row["text"].split() == [str(row["sample_id"])] * 9000
    # The first row is the one that both processes had.
    assert {row["by"] for row in rows if row["sample_id"] % 2} == {1}


def test_predictions_without_numbers_are_all_kept(found, folder):
    (file,) = (folder / "predictions/val/other_prediction").glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(int(row["text"].split()[0]) for row in rows) == [0, 0, 1, 2, 3, 4, 5, 6]
    assert all(len(row["text"].split()) == 9000 for row in rows)


@pytest.mark.slow
def test_a_job_on_two_processes(tmp_path):
    done = xlm(
        tmp_path,
        *("job_type=train", "job_name=two", "experiment=quickstart_mlm", *TINY_MODEL),
        *("trainer_strategy=ddp_mlm", "trainer.accelerator=cpu", "global_batch_size=16"),
        *("+log_predictions=shared_mlm", "+history=topk_mlm", "loss.across_ranks=tokens"),
        *("trainer.max_steps=2", "trainer.val_check_interval=2", "predictor.max_steps=1"),
        *("+trainer.limit_val_batches=1", "+trainer.limit_test_batches=2"),
    )
    assert done.code == 0, done.output[-3000:]
    assert "Could not run test" not in done.output, done.output[-3000:]
    (file,) = prediction_files(tmp_path, "two", "test", "infill_prediction")
    rows = read_rows(file)
    assert sorted(row["sample_id"] for row in rows) == list(range(2 * 2 * 8))
    (history,) = (tmp_path / "logs" / "two" / "runs").glob("*/history")
    records = {trace.fid for trace in read_traces(history)}
    assert len({row["fid"] for row in rows}) == len(rows)
    assert {row["fid"] for row in rows} < records


PAGE = FOLDER.parent / "docs" / "many-processes.md"


class FixedLogits(torch.nn.Module):
    """A vocabulary of two tokens and the mask, which has no share."""

    def __init__(self, entropies):
        super().__init__()
        other = torch.tensor(entropies).double().expm1().log()
        self.logits = torch.stack([torch.zeros_like(other), other, other - 99], dim=1)[None]

    def forward(self, x_t, attention_mask=None, positions=None):
        return self.logits


def test_the_page_s_example_is_what_the_loss_does(monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.fill_(3 + 1))
    losses = {}
    for rank, entropies in enumerate([[1.0, 2.0, 3.0], [10.0]]):
        inputs = torch.full((1, len(entropies)), 2)
        batch = {"input_ids": inputs, "target_ids": torch.zeros_like(inputs)}
        for across in ("mean", "tokens"):
            value = loss_of(FixedLogits(entropies), across_ranks=across)(batch)["loss"].item()
            losses[rank, across] = round(value, 5)
        shown = ", ".join(f"{each:g}" for each in entropies)
        own = f"{losses[rank, 'mean']:g} | {losses[rank, 'tokens']:g}"
        assert f"| {rank} | {shown} | {own} |" in page
    averages = (mean(losses[0, across], losses[1, across]) for across in ("mean", "tokens"))
    assert "| average | | {:g} | {:g} |".format(*averages) in page


def test_the_page_s_commands_compose(tmp_path):
    commands = re.findall(r"^xlm (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(commands) == 3
    for command in commands:
        given = dict(option.split("=", 1) for option in command.split())
        assert given.pop("job_type") == "train"
        del given["job_name"]
        options = [f"{name}={value}" for name, value in given.items() if name != "experiment"]
        cfg = composed(tmp_path, given["experiment"], *options)
        assert cfg.trainer.devices == 2
        assert cfg.trainer.accumulate_grad_batches >= 1
