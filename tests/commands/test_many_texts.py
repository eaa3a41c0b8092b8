"""Files of many texts: filled and scored as they are read, however many there are."""

import os
import threading

import pytest
from omegaconf import OmegaConf
from tiny_checkpoints import changed, network, write_checkpoint
from xlm_process import read_rows

from xlm_mlm.commands import cli
from xlm_mlm.generation.fill import Filler
from xlm_mlm.scoring import job
from xlm_mlm.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("many") / "a.ckpt"
    config = changed("model", "max_length", value=22)
    config["model"]["dim_feedforward"] = 256
    write_checkpoint(path, network(1), hyper_parameters=config)
    return path


def test_a_file_is_read_as_its_texts_are_filled(checkpoint, tmp_path, monkeypatch, capsys):
    file = tmp_path / "texts.txt"
    file.write_text("1 [MASK]\n" * 100_000)
    fill, found = Filler.fill, []

    def filling(filler, *given, **options):
        if not found:
            found.append(fill(filler, *given, **options))
            file.write_text("")  # what is read from here on is not there
        return found[0]

    monkeypatch.setattr(Filler, "fill", filling)
    assert cli.main(["fill", "--file", str(file), "--checkpoint", str(checkpoint)]) == 0
    # A buffer's worth.
    assert 1 <= len(capsys.readouterr().out.splitlines()) < 10_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_with_a_name_is_read_once(checkpoint, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    fed = threading.Thread(target=(tmp_path / "pipe").write_text, args=["1 [MASK]\n2 [MASK]\n"])
    fed.start()
    given = ["--file", str(tmp_path / "pipe"), "--checkpoint", str(checkpoint)]
    assert cli.main(["fill", *given]) == 0
    fed.join()
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_texts_are_scored_as_they_are_read(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("1 2 3\n" * 50)
    read, written, ahead = [], [], []
    scorers_read, line_of = Scorer.read, job.line_of

    def reading(scorer, text):
        read.append(text)
        return scorers_read(scorer, text)

    def writing(row):
        written.append(row)
        ahead.append(len(read) - 50 - len(written))
        return line_of(row)

    monkeypatch.setattr(Scorer, "read", reading)
    monkeypatch.setattr(job, "line_of", writing)
    given = {"ckpt_path": str(checkpoint), "text_file": str(tmp_path / "texts.txt")}
    given |= {"num_mc_samples": 2, "batch_size": 8, "output_dir": str(tmp_path)}
    path = job.run(OmegaConf.create({"score": given, "paths": {"output_dir": "."}}))
    assert len(read_rows(path)) == 50
    # All are looked at first; then no more than fill a forward pass: 4 texts of 2 copies.
    assert len(read) == 100
    assert max(ahead) == 3


def test_a_sum_of_scores_is_that_of_a_list(checkpoint):
    scorer = Scorer.from_checkpoint(checkpoint)
    scores = [{"nll": n, "num_tokens": k} for n, k in [(1.5, 2), (0.0, 0), (None, 3), (2.25, 5)]]
    for part, total in ((scores[:2] + scores[3:], 3.75), (scores, float("inf"))):
        tokens = sum(each["num_tokens"] for each in part)
        counted = sum(each["num_tokens"] > 0 for each in part)
        found = scorer.summary(iter(part))
        assert (found["num_texts"], found["num_tokens"]) == (len(part), tokens)
        mean = total / counted
        assert found["nll"] == (mean if mean < float("inf") else None)
    assert scorer.summary(iter([]))["nll"] is None
