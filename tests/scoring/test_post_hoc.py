"""The evaluator of predicted texts, as the host makes and calls it."""

import copy

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny_checkpoints import changed, network, write_checkpoint

import xlm_mlm
from xlm_mlm.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("post_hoc") / "a.ckpt")
    config = changed("model", "max_length", value=22)
    config["model"]["dim_feedforward"] = 256
    write_checkpoint(path, network(1), hyper_parameters=config)
    return path


def evaluator(checkpoint, **options):
    path = xlm_mlm.__path__[0] + "/configs/post_hoc_evaluator/likelihood_mlm.yaml"
    return instantiate(OmegaConf.merge(OmegaConf.load(path), options, {"checkpoint": checkpoint}))


def test_rows_and_their_sum(checkpoint):
    rows = [{"text": "1 2 3", "ids": [1]}, {"text": "[BOS] 4 [PAD]"}, {"text": ""}]
    before = copy.deepcopy(rows)
    one = evaluator(checkpoint, num_mc_samples=4)
    scored, total = one.eval(rows, tokenizer=None, dataloader_name="prediction")
    assert rows == before
    scorer = Scorer.from_checkpoint(checkpoint, num_mc_samples=4)
    expected = list(scorer.score([scorer.read(text) for text in ("1 2 3", "4", "")]))
    assert scored == [{**row, **score} for row, score in zip(rows, expected, strict=True)]
    assert total == scorer.summary(expected)
    assert total.keys() == {"num_texts", "num_tokens", "nll", "bits_per_token", "perplexity"}
    assert one.eval(rows) == (scored, total)


def test_names_and_fields(checkpoint):
    one = evaluator(checkpoint, prefix="judge_", text_field="said")
    scored, total = one.eval([{"said": "1"}])
    assert scored[0].keys() == {"said"} | {key for key in total if key != "judge_num_texts"}
    assert all(key.startswith("judge_") for key in total)
    _, nothing = one.eval([{"said": ""}])
    assert nothing == {"judge_num_texts": 1, "judge_num_tokens": 0}


def test_what_cannot_be_scored_names_the_row(checkpoint):
    one = evaluator(checkpoint)
    with pytest.raises(ValueError, match=r"prediction 1 of val: the text .* Token 7 not in vocab"):
        one.eval([{"text": "1"}, {"text": "7"}], dataloader_name="val")
    with pytest.raises(ValueError, match="prediction 0: it has no text in 'text'; its fields: ids"):
        one.eval([{"ids": [1]}])
    # Read when it is needed: a run that never predicts needs no checkpoint.
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt does not exist"):
        evaluator("none.ckpt").eval([{"text": "1"}])
