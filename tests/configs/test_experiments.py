"""Each experiment composes, with the values that make its results comparable."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf
from xlm.utils.omegaconf_resolvers import dummy_resolvers

import xlm_mlm

CONFIGS = Path(xlm_mlm.__file__).parent / "configs"
MIN_LR = {"lr_scheduler.name": "cosine_with_min_lr", "lr_scheduler.min_lr": 1e-6}
CONSTANT = {"lr_scheduler.name": "constant_with_warmup"}


def checkpoints(every: int, keep: int) -> dict:
    return {
        "callbacks.checkpoint_every_n_steps.every_n_train_steps": every,
        "callbacks.checkpoint_every_n_steps.keep_multiple": keep,
    }


def sizes(block: int, per_device: int, all_devices: int, prompt: int | None = None) -> dict:
    return {
        "block_size": block,
        "input_block_size": prompt,
        "model.max_length": block + (prompt or 0) + 4,
        "per_device_batch_size": per_device,
        "global_batch_size": all_devices,
    }


def predictor(**options) -> dict:
    plain = {"top_k": None, "top_p": None, "confidence": None, "threshold": None}
    return {f"predictor.{name}": value for name, value in {**plain, **options}.items()}


EVERY_50K = {"trainer.max_steps": 1_000_000, "trainer.val_check_interval": 50_000}
STAR = {
    "tags.model_type": "mlm_seq2seq",
    "optimizer.lr": 1e-4,
    **MIN_LR,
    "lr_scheduler.num_cycles": 4,
    "lr_scheduler.num_warmup_steps": 2000,
    "trainer.max_steps": 300_000,
    "trainer.val_check_interval": None,
    "trainer.check_val_every_n_epoch": 2,
    "log_predictions.inject_target": "target_ids",
    **predictor(max_steps=500, top_k=1, confidence="top_prob", threshold=0.1),
}
SUDOKU = {
    "tags.model_type": "mlm",
    "optimizer.lr": 5e-4,
    **CONSTANT,
    "lr_scheduler.num_warmup_steps": 1000,
    "trainer.max_steps": 80_000,
    "global_components.tokenizer.vocab_size": 10,
}
OWT = {
    "tags.model_type": "mlm",
    **sizes(1024, 32, 512),
    "global_components.tokenizer.pretrained_model_name_or_path": "gpt2",
    "optimizer.lr": 1e-4,
    **CONSTANT,
    "lr_scheduler.num_warmup_steps": 2000,
    **EVERY_50K,
}
UNIREF = {
    "tags.model_type": "mlm",
    **sizes(1024, 64, 1024),
    "global_components.tokenizer.pretrained_model_name_or_path": "facebook/esm2_t30_150M_UR50D",
    "optimizer.lr": 1e-4,
    **MIN_LR,
    "lr_scheduler.num_cycles": 2,
    "lr_scheduler.num_warmup_steps": 2000,
    **EVERY_50K,
    **predictor(max_steps=1024, top_k=2),
}

VALUES = {
    "lm1b_mlm": {
        "tags.model_type": "mlm",
        **sizes(128, 64, 512),
        "global_components.tokenizer.pretrained_model_name_or_path": "bert-base-uncased",
        "optimizer.lr": 5e-4,
        **CONSTANT,
        "lr_scheduler.num_warmup_steps": 1000,
        **EVERY_50K,
        **predictor(max_steps=128, top_k=2),
    },
    "owt_mlm": {
        **OWT,
        **predictor(max_steps=1024, top_p=0.9),
        **checkpoints(2500, 40),
        "num_dataloader_workers": 5,
    },
    "owt_packed_mlm": {
        **OWT,
        **predictor(max_steps=1024, top_p=0.9, confidence="top_prob", threshold=0.15),
        "model.use_flex_attn": False,
        "add_bos": False,
        "add_eos": False,
    },
    "safe_mlm": {
        "tags.model_type": "mlm",
        **sizes(256, 128, 2048),
        "optimizer.lr": 1e-4,
        **MIN_LR,
        "lr_scheduler.num_cycles": 3,
        "lr_scheduler.num_warmup_steps": 2000,
        "trainer.max_steps": 50_000,
        "trainer.val_check_interval": 50_000,
        **predictor(max_steps=256, top_k=2),
        **checkpoints(1000, 25),
        "post_hoc_evaluator.evaluators.prediction.denovo.use_bracket_safe": True,
        "monitored_metric": "train/loss",
    },
    "star_easy_mlm": {
        **STAR,
        **sizes(14, 64, 64, prompt=28),
        "global_components.tokenizer.vocab_size": 20,
    },
    "star_medium_mlm": {
        **STAR,
        **sizes(16, 64, 64, prompt=36),
        "global_components.tokenizer.vocab_size": 20,
    },
    "star_hard_mlm": {
        **STAR,
        **sizes(28, 64, 64, prompt=116),
        "global_components.tokenizer.vocab_size": 56,
    },
    "sudoku_mlm": {
        **SUDOKU,
        **sizes(83, 512, 512),
        "model.d_model": 384,
        "model.num_layers": 4,
        "model.nhead": 6,
        "trainer.val_check_interval": None,
        "trainer.check_val_every_n_epoch": 10,
        **predictor(max_steps=83, top_k=2),
    },
    "sudoku_extreme_mlm": {
        **SUDOKU,
        **sizes(81, 512, 512),
        "add_bos": False,
        "add_eos": False,
        "trainer.val_check_interval": 10_000,
        "trainer.limit_val_batches": 100,
        **predictor(max_steps=81, top_k=1, confidence="top_prob", threshold=0.5),
        **checkpoints(10_000, 4),
    },
    "tinygsm_mlm": {
        "tags.model_type": "mlm_tinygsm_seq2seq",
        **sizes(256, 32, 512, prompt=256),
        "add_bos": False,
        "global_components.tokenizer.pretrained_model_name_or_path": "Qwen/Qwen2-0.5B",
        "global_components.tokenizer.special_tokens": {
            "mask_token": "<|mask|>",
            "pad_token": "<|pad|>",
        },
        "optimizer.lr": 1e-4,
        **CONSTANT,
        "lr_scheduler.num_warmup_steps": 2000,
        **EVERY_50K,
        **predictor(max_steps=256, max_new_tokens=256, top_k=2),
    },
    "uniref50_mlm": {**UNIREF, "model.use_flex_attn": False},
    "uniref50_packed_mlm": {**UNIREF, "model.use_flex_attn": True},
}

BASE_MODEL = {
    "model.d_model": 768,
    "model.num_layers": 12,
    "model.nhead": 12,
    "model.dim_feedforward": 4 * 768,
    "model.dropout": 0.1,
    "model.activation": "relu",
    "model.rotary_emb_dim": 64,
}
EVERYWHERE = {
    "tags.noise_schedule": "dummy",
    "global_components.noise_schedule._target_": "xlm.noise.DummyNoiseSchedule",
    "datamodule.print_batch_fn": "xlm_mlm.datamodule_mlm.print_batch_mlm",
    "loss._target_": "xlm_mlm.loss_mlm.MLMLoss",
    "predictor._target_": "xlm_mlm.predictor_mlm.MLMPredictor",
    "monitored_metric": "val/lm/accumulated_loss",
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name, compose_experiment):
    cfg = compose_experiment(name)
    tiny = {"model.dim_feedforward": 4 * 384} if "model.d_model" in VALUES[name] else {}
    expected = {**EVERYWHERE, **BASE_MODEL, **tiny, **VALUES[name]}
    found = {key: OmegaConf.select(cfg, key) for key in expected}
    assert found == expected
    if VALUES[name]["tags.model_type"] == "mlm_seq2seq":
        assert cfg.predictor.max_new_tokens == cfg.block_size


def experiments() -> list[str]:
    return sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", experiments())
def test_composes_with_nothing_left_open(name, compose_experiment):
    cfg = compose_experiment(name)
    with dummy_resolvers():
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert {"model_type", "model", "dataset", "noise_schedule"} <= set(cfg.tags)


def dotted_names(node: object) -> Iterator[str]:
    """Everything below `node` that is to be found in a module."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from dotted_names(value)
        elif isinstance(value, str) and (key == "_target_" or str(key).endswith(FUNCTION_KEYS)):
            yield value


FUNCTION_KEYS = ("_fn", "_function", "_processor", "_constructor_str")


@pytest.mark.parametrize("name", experiments())
def test_names_lead_to_something(name, compose_experiment):
    cfg = compose_experiment(name)
    names = set(dotted_names(OmegaConf.to_container(cfg)))
    assert any(name.startswith("xlm_mlm.") for name in names)
    for dotted in names - NEED_THE_SAFE_EXTRA:
        assert callable(get_object(dotted)), dotted


# These import chemistry libraries, an extra of the host.
NEED_THE_SAFE_EXTRA = {
    "xlm.tasks.safe_molgen.DeNovoEval",
    "xlm.tasks.safe_molgen.safe_bracket_on_the_fly_processor_combined",
}


@pytest.mark.parametrize("name", ["star_easy_mlm", "owt_mlm"])
def test_the_command_line_has_the_last_word(name, compose_experiment):
    cfg = compose_experiment(
        name,
        "model=rotary_transformer_xtiny_mlm",
        "trainer_strategy=ddp",
        "predictor.confidence=entropy",
        "predictor.seed=3",
        "debug=small_data",
    )
    assert (cfg.model.d_model, cfg.tags.model) == (384, "rotary_transformer_xtiny_mlm")
    assert cfg.trainer.strategy._target_ == "lightning.pytorch.strategies.DDPStrategy"
    assert (cfg.predictor.confidence, cfg.predictor.seed) == ("entropy", 3)
    assert cfg.trainer.limit_train_batches == 100
