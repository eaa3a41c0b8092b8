"""The experiments that need no network: the sizes and the data that their figures rest on."""

import pytest
from omegaconf import OmegaConf

STARS = {
    # name: (generator, its parameters, input_block_size, block_size)
    "easy": ("simple", {"degree": 3, "pathlength": 5, "vocab_size": 20}, 28, 14),
    "medium": (
        "asymmetric",
        {
            "degree": 3,
            "min_pathlength": 3,
            "max_pathlength": 6,
            "min_plan_length": 2,
            "vocab_size": 20,
        },
        36,
        16,
    ),
    "hard": (
        "asymmetric",
        {
            "degree": 5,
            "min_pathlength": 6,
            "max_pathlength": 12,
            "min_plan_length": 5,
            "vocab_size": 56,
        },
        116,
        28,
    ),
}


@pytest.mark.parametrize("size", STARS)
def test_star_graphs_are_made_with_these_parameters(size, compose_experiment):
    cfg = compose_experiment(f"star_{size}_offline_mlm")
    generator, parameters, prompt, answer = STARS[size]
    counts = {"train": 50_000, "validation": 100, "test": 5000}
    graphs = {
        "generator": generator,
        "generator_kwargs": parameters,
        "counts": counts,
        "seed": 0,
    }
    assert cfg.star_graphs == graphs
    assert (cfg.input_block_size, cfg.block_size) == (prompt, answer)
    assert cfg.global_components.tokenizer.vocab_size == parameters["vocab_size"]
    for loaders in cfg.datamodule.dataset_managers.values():
        for manager in loaders.values():
            assert {key: manager[key] for key in graphs} == graphs
            assert manager._target_ == "xlm_mlm.data.star.StarGraphDatasetManager"


@pytest.mark.parametrize("size", STARS)
def test_star_graphs_are_trained_on_as_the_fetched_ones(size, compose_experiment):
    made, fetched = (
        compose_experiment(f"star_{size}{suffix}_mlm", "trainer_strategy=cpu")
        for suffix in ("_offline", "")
    )
    for key in ("model", "loss", "optimizer", "lr_scheduler", "trainer"):
        assert made[key] == fetched[key], key
    # Decoded by what is measured to be best, with twice as many passes as masks.
    rules = {"revision": "p2", "confidence": None, "threshold": None}
    changed = {**rules, "max_steps": 2 * made.block_size}
    assert made.predictor == {**fetched.predictor, **changed}
    for key in ("block_size", "input_block_size", "per_device_batch_size", "global_batch_size"):
        assert made[key] == fetched[key], key


VALUES = {
    "quickstart_mlm": {
        "block_size": 18,  # BOS, 16 cells, EOS
        "per_device_batch_size": 64,
        "global_batch_size": 64,
        "global_components.tokenizer.vocab_size": 5,
        "model.num_layers": 3,
        "model.dim_feedforward": 256,
        "lr_scheduler.num_warmup_steps": 50,
        "predictor.max_steps": 16,
        "predictor.confidence": "top_prob",
        "predictor.temperature": 0.0,
        "predictor.confidence_temperature": 0.0,
        "predictor.top_k": None,
        "callbacks.checkpoint_monitor": None,
        "callbacks.cpu.threads": 1,
    },
    "local_text_mlm": {
        "data_files": None,
        "text_field": "text",
        "document": "paragraph",
        "packed": True,
        "tokenizer_path": None,
        "validation_fraction": 0.05,
        "split_seed": 0,
        "block_size": 128,
        "per_device_batch_size": 32,
        "global_batch_size": 32,
        "model.num_layers": 4,
        "model.dim_feedforward": 512,
        "lr_scheduler.num_warmup_steps": 100,
        "callbacks.cpu.threads": None,
    },
}
FIRST_RUN = {
    "tags.model": "rotary_transformer_mlm",
    "tags.model_type": "mlm",
    "monitored_metric": "val/lm/accumulated_loss",
    "model.d_model": 128,
    "model.nhead": 4,
    "model.rotary_emb_dim": 32,
    "model.dropout": 0.0,
    "optimizer.lr": 0.003,
    "lr_scheduler.name": "cosine",
    "trainer.max_steps": 1000,
    "trainer.val_check_interval": 500,
    "trainer.check_val_every_n_epoch": None,
    "callbacks.ema.decay": 0.99,
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_a_first_run(name, compose_experiment):
    cfg = compose_experiment(name)
    expected = FIRST_RUN | VALUES[name]
    assert {key: OmegaConf.select(cfg, key) for key in expected} == expected


SPLITS = {
    "quickstart_mlm": {
        "train.lm": "train",
        "val.lm": "validation",
        "val.infill_prediction": "validation",
        "test.infill_prediction": "test",
        "predict.infill_prediction": "predict",
    },
    "local_text_mlm": {
        "train.lm": "train",
        "val.lm": "validation",
        "test.lm": "test",
        # Made from masks, not read.
        "predict.unconditional_prediction": None,
    },
}


@pytest.mark.parametrize("name", SPLITS)
def test_each_loader_reads_its_split(name, compose_experiment):
    managers = compose_experiment(name).datamodule.dataset_managers
    found = {
        f"{split}.{loader}": manager.get("split")
        for split, loaders in managers.items()
        for loader, manager in loaders.items()
    }
    assert found == SPLITS[name]
