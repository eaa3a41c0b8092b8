"""`job_type=mlm_generate`, in this process: rows, weights, files, interruptions, errors."""

import json
import re
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from composing import composed
from tiny_checkpoints import MASK, network, write_checkpoint
from xlm.utils.omegaconf_resolvers import dummy_resolvers
from xlm_process import TINY_MODEL, read_rows

from xlm_mlm import MLMPredictor
from xlm_mlm.commands.generate import generate
from xlm_mlm.generation import job as job_module
from xlm_mlm.generation.files import locked
from xlm_mlm.generation.job import run
from xlm_mlm.history.reading import read_traces


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data, and checkpoints: raw and averaged weights, and each of them alone."""
    folder = tmp_path_factory.mktemp("generate")
    raw, ema = network(1), network(2)
    write_checkpoint(folder / "both.ckpt", raw, ema)
    write_checkpoint(folder / "raw.ckpt", raw)
    write_checkpoint(folder / "averaged.ckpt", ema)
    torch.save(raw.state_dict(), folder / "weights.pt")
    torch.save({"a": print}, folder / "bomb.pt")
    (folder / "half.pt").write_bytes((folder / "weights.pt").read_bytes()[:5000])
    return folder


@pytest.fixture
def job(made, tmp_path, monkeypatch):
    """A function that runs the job and returns the rows, what made them, and the folder."""
    monkeypatch.setenv("DATA_DIR", str(made / "data"))

    def ran(*overrides, experiment="quickstart_mlm", name="out", ckpt="both.ckpt"):
        tiny = TINY_MODEL[2:]
        folder = tmp_path / name
        source = [f"+generation.ckpt_path={made / ckpt}"] if ckpt else []
        where = f"+generation.output_dir={folder}"
        cfg = composed(tmp_path, experiment, *tiny, where, *source, *overrides)
        with dummy_resolvers():
            path = run(cfg)
        meta = json.loads((folder / "predictions.meta.json").read_text())
        return SimpleNamespace(rows=read_rows(path), meta=meta, folder=folder, cfg=cfg)

    return ran


def without_time(rows):
    return [{k: v for k, v in row.items() if k not in ("time_taken", "fid")} for row in rows]


def test_every_row_once_and_what_made_them(job, made):
    done = job()
    assert [row["sample"] for row in done.rows] == list(range(240))
    # 240 is no multiple of 64: the last batch is short.
    assert done.cfg.per_device_batch_size == 64
    assert set(done.rows[0]) >= {"dataloader", "text", "ids", "truth", "steps_taken", "time_taken"}
    for row in done.rows:
        assert len(row["truth"].split()) == 18
        assert MASK not in row["ids"]
    checkpoint = done.meta["checkpoint"]
    assert checkpoint["path"] == str(made / "both.ckpt")
    assert (checkpoint["step"], checkpoint["weights"]) == (7, "ema")
    assert (done.meta["rows"], done.meta["seed"], done.meta["device"]) == (240, 1, "cpu")
    assert done.meta["versions"]["torch"] == version("torch")
    assert done.meta["config"]["predictor"]["max_steps"] == 16
    assert sorted(path.name for path in done.folder.iterdir()) == [
        "predictions.jsonl",
        "predictions.meta.json",
    ]


def test_rows_are_what_the_predictor_makes_of_each_alone(job, made):
    done = job("+generation.limit=5", "+generation.weights=raw", "+generation.history=true")
    assert len(done.rows) == 5
    tokenizer = SimpleNamespace(mask_token_id=MASK, batch_decode=lambda x, **_: [""] * len(x))
    one = MLMPredictor(
        16,
        tokenizer=tokenizer,
        model=network(1),
        confidence="top_prob",
        confidence_temperature=0.0,
        temperature=0.0,
    )
    traces = read_traces(done.folder / "history")
    assert [trace.fid for trace in traces] == [row["fid"] for row in done.rows]
    for row, trace in zip(done.rows, traces, strict=True):
        given = trace.before[None]
        assert one.predict({"input_ids": given})["ids"][0].tolist() == row["ids"]
        assert trace.x[-1].tolist() == row["ids"]
        assert trace.steps == row["steps_taken"]


def test_raw_and_averaged_weights_are_those_asked_for(job):
    options = ("+generation.limit=40", "+generation.fields=[ids]")
    by = {
        (ckpt, which): job(
            *options, f"+generation.weights={which}", ckpt=ckpt, name=f"{ckpt}-{which}"
        )
        for ckpt, which in [
            ("both.ckpt", "raw"),
            ("both.ckpt", "ema"),
            ("both.ckpt", "auto"),
            ("raw.ckpt", "auto"),
            ("averaged.ckpt", "raw"),
        ]
    }
    rows = {key: done.rows for key, done in by.items()}
    assert rows["both.ckpt", "raw"] == rows["raw.ckpt", "auto"]
    assert rows["both.ckpt", "ema"] == rows["averaged.ckpt", "raw"]
    assert rows["both.ckpt", "auto"] == rows["both.ckpt", "ema"]
    assert rows["both.ckpt", "raw"] != rows["both.ckpt", "ema"]
    used = [by[key].meta["checkpoint"]["weights"] for key in rows]
    assert used == ["raw", "ema", "ema", "raw", "raw"]
    assert set(rows["both.ckpt", "raw"][0]) == {"sample", "dataloader", "ids"}


def test_weights_alone_and_from_the_hub(job, made, monkeypatch):
    limit = "+generation.limit=9"
    known = job(limit, ckpt="raw.ckpt")
    path = f"+generation.model_only_checkpoint_path={made / 'weights.pt'}"
    alone = job(limit, path, ckpt=None, name="alone")
    asked = []

    def download(repo_id, revision, token):
        asked.append((repo_id, revision))
        return str(made / "weights.pt")

    monkeypatch.setattr("xlm.utils.model_loading.download_model_weights", download)
    hub = job(limit, "+hub.repo_id=some/one", ckpt=None, name="hub")
    assert asked == [("some/one", "main")]
    assert without_time(alone.rows) == without_time(hub.rows) == without_time(known.rows)
    assert hub.meta["checkpoint"] == {"repo_id": "some/one", "weights": "as saved"}


class Stopped(RuntimeError):
    pass


@pytest.mark.parametrize("history", [False, True])
def test_an_interrupted_run_goes_on(job, monkeypatch, history):
    # Drawn, not greedy: the numbers of a batch must not depend on those before it.
    options = ("+generation.limit=40", "per_device_batch_size=8", "global_batch_size=8")
    options += ("predictor.temperature=1.0", f"+generation.history={history}")
    whole = job(*options, name="whole")
    calls = []
    predict = MLMPredictor.predict

    def stopping(self, batch, *rest):
        calls.append(batch["sample_ids"].tolist())
        preds = predict(self, batch, *rest)
        if len(calls) == 3:
            raise Stopped("stopped")
        return preds

    monkeypatch.setattr(MLMPredictor, "predict", stopping)
    with pytest.raises(Stopped):
        job(*options)
    again = job(*options)
    assert [ids[0] for ids in calls] == [0, 8, 16, 16, 24, 32]
    assert without_time(again.rows) == without_time(whole.rows)
    assert not list(again.folder.glob(".*"))
    if history:
        # The records of the batch that was lost are gone.
        fids = [row["fid"] for row in again.rows]
        assert [trace.fid for trace in read_traces(again.folder / "history")] == fids


def test_a_run_with_other_options_does_not_go_on_with_it(job, monkeypatch):
    def stopping(self, batch, *rest):
        raise Stopped("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(MLMPredictor, "predict", stopping)
        with pytest.raises(Stopped):
            job("+generation.limit=3")
    for change in ("predictor.temperature=1.0", "+generation.weights=raw", "seed=2"):
        with pytest.raises(ValueError, match="other options.*if_exists=replace"):
            job("+generation.limit=3", change)
    done = job("+generation.limit=3", "seed=2", "+generation.if_exists=replace")
    assert len(done.rows) == 3


def test_predictions_that_are_there(job):
    first = job("+generation.limit=3")
    with pytest.raises(ValueError, match="predictions.jsonl exists"):
        job("+generation.limit=2")
    both = job("+generation.limit=2", "+generation.if_exists=append")
    assert [row["sample"] for row in both.rows] == [0, 1, 2, 3, 4]
    assert both.rows[:3] == first.rows
    assert [each["rows"] for each in (both.meta, *both.meta["earlier"])] == [2, 3]
    assert both.meta["first_sample"] == 3
    new = job("+generation.limit=2", "+generation.if_exists=replace")
    assert len(new.rows) == 2
    assert "earlier" not in new.meta


def test_no_other_run_gets_at_the_folder_from_first_to_last(job, tmp_path, monkeypatch):
    def refused(*args):
        with pytest.raises(ValueError, match="in use by another run"), locked(tmp_path / "out"):
            pass

    for module, name in (
        (job_module, "prepare"),
        (job_module, "publish"),
        (MLMPredictor, "predict"),
    ):
        before = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, before=before, **more: (refused(), before(*args, **more))[1]
        )
    assert len(job("+generation.limit=2").rows) == 2
    with locked(tmp_path / "out"):
        pass


def test_products_on_the_cpu_are_as_precise_as_they_were(job, monkeypatch):
    seen = []
    predict = MLMPredictor.predict

    def looked_at(self, *given):
        seen.append(torch.get_float32_matmul_precision())
        return predict(self, *given)

    monkeypatch.setattr(MLMPredictor, "predict", looked_at)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            job("+generation.limit=1", name=precision)
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest", "high"]


def test_records_are_named_by_the_rows_whatever_the_fields(job):
    done = job("+generation.limit=3", "+generation.fields=[text]", "+generation.history=true")
    assert set(done.rows[0]) == {"sample", "dataloader", "text", "fid"}
    fids = [row["fid"] for row in done.rows]
    assert [trace.fid for trace in read_traces(done.folder / "history")] == fids


def test_other_weights_or_data_under_the_same_name_are_another_run(
    job, made, tmp_path, monkeypatch
):
    def stopping(self, batch, *rest):
        raise Stopped("stopped")

    alone = tmp_path / "weights.pt"
    source = ("+generation.limit=3", f"+generation.model_only_checkpoint_path={alone}")
    alone.write_bytes((made / "weights.pt").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(MLMPredictor, "predict", stopping)
        with pytest.raises(Stopped):
            job(*source, ckpt=None)
    with monkeypatch.context() as patch:
        patch.setenv("DATA_DIR", str(tmp_path / "data"))
        with pytest.raises(ValueError, match="other options"):
            job(*source, ckpt=None)
    torch.save(network(3).state_dict(), alone)
    with pytest.raises(ValueError, match="other options"):
        job(*source, ckpt=None)


def test_appended_samples_are_new_samples(job):
    drawn = ("+generation.limit=4", "predictor.temperature=1.0", "predictor.seed=3")
    job(*drawn)
    rows = job(*drawn, "+generation.if_exists=append").rows
    assert [row["truth"] for row in rows[:4]] == [row["truth"] for row in rows[4:]]
    assert [row["ids"] for row in rows[:4]] != [row["ids"] for row in rows[4:]]


def test_with_a_seed_a_sample_does_not_depend_on_its_batch(job):
    drawn = ("+generation.limit=12", "predictor.temperature=1.0", "predictor.seed=3")
    sizes = [
        job(*drawn, f"per_device_batch_size={n}", f"global_batch_size={n}", name=str(n)).rows
        for n in (12, 5)
    ]
    assert without_time(sizes[0]) == without_time(sizes[1])


STAR = (
    "star_graphs.counts.train=8",
    "star_graphs.counts.validation=8",
    "star_graphs.counts.test=11",
)


def odd_checkpoint(made, cfg, vocabulary):
    """Random weights for the model of a config."""
    model = network(
        3,
        dim_feedforward=cfg.model.dim_feedforward,
        max_length=cfg.model.max_length,
        use_flex_attn=cfg.model.use_flex_attn,
    )
    model.embed_tokens = torch.nn.Embedding(vocabulary, 32, padding_idx=0)
    model.output_layer.linear = torch.nn.Linear(32, vocabulary, bias=False)
    torch.save(model.state_dict(), made / "odd.ckpt")


def test_seq2seq(job, made, tmp_path):
    size = ("per_device_batch_size=4", "global_batch_size=4")
    with dummy_resolvers():
        cfg = composed(tmp_path, "star_easy_offline_mlm", *TINY_MODEL, *size)
    vocabulary = cfg.star_graphs.generator_kwargs.vocab_size + 7
    odd_checkpoint(made, cfg, vocabulary)
    done = job(*size, *STAR, experiment="star_easy_offline_mlm", ckpt="odd.ckpt")
    assert [row["sample"] for row in done.rows] == list(range(11))
    for row in done.rows:
        assert row["output_start_idx"] > 0
        assert row["truth"]


def test_unconditional(job, made, tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"a line, number {n}\n" for n in range(60)))
    data = (f"data_files={tmp_path / 'text.txt'}", "document=line", "block_size=12")
    with dummy_resolvers():
        cfg = composed(tmp_path, "local_text_mlm", *TINY_MODEL, *data)
    odd_checkpoint(made, cfg, 263)
    more = ("num_unconditional_prediction_examples=10", "per_device_batch_size=4")
    done = job(*data, *more, "global_batch_size=4", experiment="local_text_mlm", ckpt="odd.ckpt")
    assert [row["sample"] for row in done.rows] == list(range(10))
    assert {len(row["ids"]) for row in done.rows} == {12}
    assert len({row["text"] for row in done.rows}) > 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+generation.limit=3"], "none of generation.ckpt_path.*exactly one"),
        (["+generation.ckpt_path=absent.ckpt"], "checkpoint absent.ckpt does not exist"),
        (["+generation.ckpt_path={made}/weights.pt", "+hub.repo_id=a/b"], "exactly one"),
        (["+generation.ckpt_path={made}"], "is a folder"),
        (["+generation.model_only_checkpoint_path={made}/bomb.pt"], "bomb.pt holds more than ten"),
        (["+generation.model_only_checkpoint_path={made}/half.pt"], "half.pt is damaged"),
        (["+generation.model_only_checkpoint_path=absent.pt"], "absent.pt does not exist"),
        (["+generation.ckpt_path={made}/both.ckpt", "+generation.lmit=3"], "lmit is no option"),
        (["+generation.ckpt_path={made}/both.ckpt", "+generation.limit=0"], "limit is 0"),
        (["+generation.ckpt_path={made}/both.ckpt", "+generation.device=cuda:99"], "cuda:99"),
        (["+generation.ckpt_path={made}/both.ckpt", "+generation.device=gpu"], "auto, cpu, cuda"),
        (["+generation.ckpt_path={made}/both.ckpt", "+generation.weights=best"], "weights is"),
        (["+generation.ckpt_path={made}/raw.ckpt", "+generation.weights=ema"], "no EMA weights"),
        (["+generation.ckpt_path={made}/both.ckpt", "model.d_model=64"], "does not fit the model"),
        (["+generation.ckpt_path={made}/both.ckpt", "+generation.history=3"], "true or false"),
        (["+generation.ckpt_path={made}/both.ckpt", "+generation.fields=text"], "list of names"),
        (
            ["+generation.ckpt_path={made}/both.ckpt", "+generation.fields=[txt]"],
            "names 'txt'; a row has text",
        ),
        (
            ["+generation.ckpt_path={made}/both.ckpt", "~datamodule.dataset_managers.predict"],
            "predict split of this experiment is empty",
        ),
        (
            ["+generation.ckpt_path={made}/both.ckpt", "+generation.output_dir={made}/raw.ckpt"],
            "output_dir is .*raw.ckpt, which is a file",
        ),
        (["+generation=3"], "generation is 3; its keys are"),
    ],
)
def test_a_mistake_is_one_line(made, tmp_path, monkeypatch, capsys, overrides, message):
    monkeypatch.setenv("DATA_DIR", str(made / "data"))
    asked = [each.replace("{made}", str(made)) for each in overrides]
    cfg = composed(tmp_path, "quickstart_mlm", *TINY_MODEL, *asked)
    capsys.readouterr()
    with dummy_resolvers(), pytest.raises(SystemExit) as end:
        generate(cfg)
    assert end.value.code == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert re.search(message, line), line


def test_an_interrupt_is_one_line(made, tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(MLMPredictor, "predict", interrupted)
    monkeypatch.setenv("DATA_DIR", str(made / "data"))
    ckpt = f"+generation.ckpt_path={made / 'both.ckpt'}"
    cfg = composed(tmp_path, "quickstart_mlm", *TINY_MODEL, ckpt)
    with dummy_resolvers(), pytest.raises(SystemExit) as end:
        generate(cfg)
    assert end.value.code == 130
    assert "goes on where this one stopped" in capsys.readouterr().err
