"""`+likelihood=mc_mlm`: which metrics it adds, and that the host logs them."""

import csv
import math

import pytest
from hydra.utils import instantiate

from xlm_mlm.metrics_mlm import BitsPerToken, Perplexity, SequenceNLL, likelihood_update_fn


def test_the_config_group_switches_all_on(compose_experiment):
    cfg = compose_experiment("star_easy_offline_mlm", "+likelihood=mc_mlm", "loss.num_mc_samples=3")
    assert cfg.loss.num_mc_samples == 3
    assert "nll" not in cfg.reported_metrics.train.lm
    for split in ("val", "test"):
        metrics = cfg.reported_metrics[split].lm
        assert metrics.accumulated_loss.prefix == f"{split}/lm"
        for name, kind in (
            ("nll", SequenceNLL),
            ("bits_per_token", BitsPerToken),
            ("perplexity", Perplexity),
        ):
            wrapper = instantiate(metrics[name])
            assert wrapper.full_name == f"{split}/lm/{name}"
            assert type(wrapper.metric) is kind
            assert wrapper.update_fn is likelihood_update_fn
    assert "num_mc_samples" not in compose_experiment("star_easy_offline_mlm").loss


@pytest.mark.slow
def test_the_host_logs_them(train_experiment, tmp_path):
    train_experiment("quickstart_mlm", "+likelihood=mc_mlm", "trainer.limit_val_batches=3")
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open()))
    (found,) = [row for row in rows if row.get("val/lm/perplexity")]
    values = {name: float(found[f"val/lm/{name}"]) for name in ("nll", "bits_per_token")}
    perplexity = float(found["val/lm/perplexity"])
    # Of an untrained network: about as if all 12 tokens were as probable.
    assert 5 < perplexity < 30
    assert values["bits_per_token"] == pytest.approx(math.log2(perplexity), rel=1e-5)
    # The blank cells of a grid: some of 16.
    assert 4 < values["nll"] / math.log(perplexity) < 16
