"""`job_type=mlm_score`: files, options, errors in one line, and the command itself."""

import json
import re
from importlib.metadata import version

import pytest
from composing import composed
from omegaconf import OmegaConf
from tiny_checkpoints import changed, network, write_checkpoint
from warm_process import xlm
from xlm_process import read_rows

from xlm_mlm.commands.score import score
from xlm_mlm.scoring.job import run
from xlm_mlm.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a checkpoint and texts."""
    folder = tmp_path_factory.mktemp("score")
    config = changed("model", "max_length", value=22)
    config["model"]["dim_feedforward"] = 256
    write_checkpoint(folder / "a.ckpt", network(1), hyper_parameters=config)
    (folder / "texts.txt").write_text("1 2 3\n\n4 3 2 1\n")
    return folder


def config(made, out, **options):
    """What the job is given; what the experiment holds beside it is not looked at."""
    given = {"ckpt_path": str(made / "a.ckpt"), "text_file": str(made / "texts.txt")}
    return OmegaConf.create({"score": given | options, "paths": {"output_dir": str(out)}})


def test_scores_and_what_made_them(made, tmp_path, capsys):
    path = run(config(made, tmp_path, num_mc_samples=4, seed=3))
    assert path == tmp_path / "scores" / "scores.jsonl"
    rows = read_rows(path)
    scorer = Scorer.from_checkpoint(made / "a.ckpt", num_mc_samples=4, seed=3)
    texts = ["1 2 3", "4 3 2 1"]
    expected = list(scorer.score(map(scorer.read, texts)))
    assert [(row.pop("line"), row.pop("text")) for row in rows] == [(1, texts[0]), (3, texts[1])]
    assert rows == expected
    meta = json.loads((path.parent / "scores.meta.json").read_text())
    assert meta["summary"] == scorer.summary(expected)
    assert meta["versions"]["torch"] == version("torch")
    assert meta["seed"] == 3
    assert meta["options"]["num_mc_samples"] == 4
    assert (meta["options"]["add_bos"], meta["options"]["add_eos"]) == (True, False)
    assert meta["checkpoint"]["path"] == str(made / "a.ckpt")
    assert meta["checkpoint"]["sha256"] == scorer.checkpoint.sha256
    assert (meta["checkpoint"]["step"], meta["checkpoint"]["weights"]) == (7, "raw")
    assert len(meta["text_file"]["sha256"]) == 64
    out = capsys.readouterr().out
    assert re.fullmatch(
        r"2 texts, 7 tokens: NLL [\d.]+ nats a text, [\d.]+ bits a token, perplexity [\d.]+\n", out
    )
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "scores.jsonl",
        "scores.meta.json",
    ]


def test_pseudo_log_likelihoods(made, tmp_path, capsys):
    rows = read_rows(run(config(made, tmp_path, method="pll")))
    assert all(row["pseudo_log_likelihood"] < 0 and "nll" not in row for row in rows)
    assert "7 tokens: pseudo-log-likelihood -" in capsys.readouterr().out


def test_scores_that_are_there_are_kept_unless_they_may_go(made, tmp_path, capsys):
    first = run(config(made, tmp_path, num_mc_samples=1)).read_text()
    with pytest.raises(ValueError, match=r"scores\.jsonl exists.*if_exists=replace"):
        run(config(made, tmp_path))
    again = run(config(made, tmp_path, num_mc_samples=2, if_exists="replace"))
    assert again.read_text() != first
    other = run(config(made, tmp_path, num_mc_samples=1, output_dir=str(tmp_path / "b" / "c")))
    assert other.read_text() == first


ERRORS = {
    "unknown": ({"limit": 3}, r"score\.limit is no option; there are ckpt_path, text_file"),
    "no checkpoint": ({"ckpt_path": None}, r"score\.ckpt_path is missing.*the model"),
    "no texts": ({"text_file": None}, r"score\.text_file is missing.*the texts"),
    "number": ({"text_file": 3}, r"score\.text_file is 3; it must be a text"),
    "flag": ({"add_bos": "perhaps"}, r"score\.add_bos is 'perhaps'; it must be true or false"),
    "choice": ({"weights": "best"}, r"score\.weights is 'best'"),
    "method": ({"method": "mlm"}, r"score\.method is 'mlm'; it must be one of 'nll', 'pll'"),
    "exists": ({"if_exists": "append"}, r"score\.if_exists is 'append'"),
    "gone": ({"ckpt_path": "gone.ckpt"}, r"checkpoint gone\.ckpt does not exist"),
    "averages": ({"weights": "ema"}, "holds no EMA weights"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_mistake_is_one_line(made, tmp_path, capsys, case):
    options, says = ERRORS[case]
    with pytest.raises(SystemExit) as ended:
        score(config(made, tmp_path, **options))
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert re.search(rf"^error: .*{says}.*\(\+score\.debug=true shows more\)$", lines[-1])
    assert not (tmp_path / "scores").exists()


LINES = {
    "1 2\n1 [MASK]\n": "line 2: the text .* holds .MASK.",
    "1\n\n2 9\n": "line 3: the text .* Token 9 not in vocab",
    "1 " * 22: "line 1: the text .* has 23 tokens, 1 of them BOS and EOS; .* at most 22",
    "\n \n": "holds no text",
}


@pytest.mark.parametrize("content", LINES, ids=range(len(LINES)))
def test_a_text_that_cannot_be_scored_names_its_line(made, tmp_path, capsys, content):
    file = tmp_path / "bad.txt"
    file.write_text(content)
    with pytest.raises(SystemExit):
        score(config(made, tmp_path, text_file=str(file)))
    assert re.search(rf"error: .*bad\.txt.*{LINES[content]}", capsys.readouterr().err)


def test_debug_shows_the_traceback_and_an_interrupt_is_no_error(
    made, tmp_path, capsys, monkeypatch
):
    with pytest.raises(SystemExit):
        score(config(made, tmp_path, weights="ema", debug=True))
    assert "Traceback" in capsys.readouterr().err

    def stop(cfg):
        raise KeyboardInterrupt

    monkeypatch.setattr("xlm_mlm.scoring.job.run", stop)
    with pytest.raises(SystemExit) as ended:
        score(config(made, tmp_path))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_an_output_that_is_a_file_is_refused(made, tmp_path):
    (tmp_path / "scores").write_text("")
    with pytest.raises(ValueError, match=r"score\.output_dir is .*, which is a file"):
        run(config(made, tmp_path))


def test_it_composes_without_the_experiment_s_data(made, tmp_path):
    source = [f"+score.ckpt_path={made / 'a.ckpt'}", f"+score.text_file={made / 'texts.txt'}"]
    cfg = composed(tmp_path, "local_text_mlm", *source, f"paths.output_dir={tmp_path}")
    assert len(read_rows(run(cfg))) == 2


@pytest.mark.slow
def test_the_command(made, tmp_path):
    done = xlm(
        tmp_path,
        "job_type=mlm_score",
        "job_name=x",
        "experiment=local_text_mlm",
        f"+score.ckpt_path={made / 'a.ckpt'}",
        f"+score.text_file={made / 'texts.txt'}",
        "+score.output_dir=out",
    )
    assert done.code == 0, done.output
    assert "2 texts, 7 tokens: NLL " in done.output
    assert [row["line"] for row in read_rows(tmp_path / "out" / "scores.jsonl")] == [1, 3]
