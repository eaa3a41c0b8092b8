"""What the host makes of an experiment's trainer and learning rate."""

import math

import pytest
import torch
from hydra.utils import instantiate
from xlm.harness import Harness

COSINE = {
    "safe_mlm": 3,
    "star_easy_mlm": 4,
    "star_medium_mlm": 4,
    "star_hard_mlm": 4,
    "uniref50_mlm": 2,
    "uniref50_packed_mlm": 2,
}
CONSTANT = {
    "lm1b_mlm": 1000,
    "owt_mlm": 2000,
    "owt_packed_mlm": 2000,
    "sudoku_mlm": 1000,
    "sudoku_extreme_mlm": 1000,
    "tinygsm_mlm": 2000,
}
BATCHES_A_STEP = {
    "lm1b_mlm": 8,
    "owt_mlm": 16,
    "owt_packed_mlm": 16,
    "safe_mlm": 16,
    "sudoku_mlm": 1,
    "star_easy_mlm": 1,
    "tinygsm_mlm": 16,
    "uniref50_packed_mlm": 16,
}


def learning_rate(cfg):
    """The learning rate as a function of the step."""
    optimizer = instantiate(cfg.optimizer, params=[torch.nn.Parameter(torch.zeros(1))])
    made = Harness.create_lr_scheduler(optimizer, **cfg.lr_scheduler)
    (factor,) = made["scheduler"].lr_lambdas
    return lambda step: cfg.optimizer.lr * factor(step)


@pytest.mark.parametrize(("name", "cycles"), COSINE.items())
def test_cosine_comes_down_to_the_floor_once_a_cycle(name, cycles, compose_experiment):
    cfg = compose_experiment(name)
    rate = learning_rate(cfg)
    warm_up, end = 2000, cfg.trainer.max_steps
    assert rate(0) == 0
    for step in (warm_up // 2, warm_up, end // 3, end // 2, end - 1):
        progress = max(0.0, (step - warm_up) / (end - warm_up))
        wave = 0.5 * (1 + math.cos(2 * math.pi * cycles * progress))
        expected = 1e-6 + (1e-4 - 1e-6) * wave
        assert rate(step) == pytest.approx(expected * min(1, step / warm_up), rel=1e-6)
    trough = warm_up + (end - warm_up) // (2 * cycles)
    assert rate(trough) == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize(("name", "warm_up"), CONSTANT.items())
def test_constant_after_the_warm_up(name, warm_up, compose_experiment):
    cfg = compose_experiment(name)
    rate = learning_rate(cfg)
    assert rate(warm_up // 2) == pytest.approx(cfg.optimizer.lr / 2)
    assert rate(warm_up) == rate(cfg.trainer.max_steps) == cfg.optimizer.lr


@pytest.mark.parametrize(("name", "batches"), BATCHES_A_STEP.items())
def test_lightning_takes_the_trainer(name, batches, compose_experiment):
    cfg = compose_experiment(name, "trainer_strategy=cpu")
    trainer = instantiate(cfg.trainer, logger=False)
    assert trainer.accumulate_grad_batches == batches
    assert trainer.max_steps == cfg.trainer.max_steps
    assert trainer.check_val_every_n_epoch == cfg.trainer.check_val_every_n_epoch
