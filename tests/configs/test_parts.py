"""The files that experiments are put together from."""

from pathlib import Path

import pytest
import stand_in_tokenizers as stand_ins
from hydra.utils import instantiate
from omegaconf import OmegaConf
from xlm.datamodule import EsmTokenizer, SimpleSpaceTokenizer
from xlm.utils.omegaconf_resolvers import dummy_resolvers

import xlm_mlm

CONFIGS = Path(xlm_mlm.__file__).parent / "configs"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def named_in(path: Path) -> set[str]:
    """The options that a file's defaults list chooses."""
    entries = OmegaConf.load(path).get("defaults", [])
    chosen = [
        next(iter(entry.values())) if OmegaConf.is_dict(entry) else entry for entry in entries
    ]
    return {Path(str(option)).name for option in chosen}


def test_every_file_is_reached_from_an_experiment():
    by_name: dict[str, list[Path]] = {}
    for path in CONFIGS.rglob("*.yaml"):
        by_name.setdefault(path.stem, []).append(path)
    reached: set[str] = set()
    # Histories, samplers, likelihoods and their evaluator are added on the command line; so is what
    # several processes need.
    samplers = {path.stem for path in (CONFIGS / "sampler").glob("*.yaml")}
    ahead = {*EXPERIMENTS, *samplers, "topk_mlm", "mc_mlm", "likelihood_mlm"}
    ahead |= {"ddp_mlm", "fsdp_layers_mlm", "shared_mlm"}
    while ahead:
        name = ahead.pop()
        reached.add(name)
        for path in by_name.get(name, []):
            ahead |= named_in(path) - reached
    assert set(by_name) - reached == set()


def test_the_host_would_take_a_list_of_commands_for_a_conflict():
    assert not (CONFIGS / "commands.yaml").exists()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_loaders_are_there_in_their_stages_and_drop_nothing_predicted(name, compose_experiment):
    managers = compose_experiment(name).datamodule.dataset_managers
    stage_of = {"train": "fit", "val": "validate", "test": "test", "predict": "predict"}
    for split, loaders in managers.items():
        for loader, manager in loaders.items():
            stages = manager.get("stages", ["fit", *stage_of.values()])
            # Validation during training reads what `setup("fit")` loaded.
            needed = {"fit", "validate"} if split == "val" else {stage_of[split]}
            assert needed <= set(stages), (split, loader)
            if "prediction" in loader:
                assert manager.dataloader_kwargs.drop_last is False, (split, loader)


def batches(cfg, tokenizer, split="val"):
    """The batches that a host's manager gives for unconditional generation."""
    OmegaConf.clear_resolver("global_components")
    OmegaConf.register_new_resolver(
        "global_components", {"tokenizer": tokenizer, "noise_schedule": None}.__getitem__
    )
    manager = instantiate(cfg.datamodule.dataset_managers[split].unconditional_prediction)
    manager.setup("fit", "", tokenizer, cfg.block_size, is_ddp=False, rank=0, world_size=1)
    return list(manager.get_dataloader(split, is_ddp=False, rank=0, world_size=1))


@pytest.fixture
def _resolvers_restored():
    with dummy_resolvers():
        yield


@pytest.mark.usefixtures("_resolvers_restored")
def test_all_rows_of_masks_are_given(compose_experiment):
    tokenizer = SimpleSpaceTokenizer.for_numbers(5)
    cfg = compose_experiment("lm1b_mlm", "+num_unconditional_prediction_examples=70")
    rows = [row for batch in batches(cfg, tokenizer) for row in batch["input_ids"].tolist()]
    assert rows == [[tokenizer.mask_token_id] * 128] * 70


@pytest.mark.usefixtures("_resolvers_restored")
def test_molecules_are_as_long_as_those_of_zinc(compose_experiment):
    tokenizer = SimpleSpaceTokenizer.for_numbers(5)
    cfg = compose_experiment("safe_mlm")
    masks = [
        (batch["input_ids"] == tokenizer.mask_token_id).sum(dim=1)
        for batch in batches(cfg, tokenizer)
    ]
    lengths = [length for batch in masks for length in batch.tolist()]
    assert len(lengths) == 1000
    assert min(lengths) >= 10
    assert len(set(lengths)) > 10


@pytest.mark.usefixtures("_resolvers_restored")
def test_proteins_have_a_hundred_of_each_length_and_one_length_a_batch(
    compose_experiment, tmp_path
):
    tokenizer = EsmTokenizer.from_pretrained(stand_ins.esm_folder(tmp_path / "esm"))
    found = [
        tuple(batch["input_ids"].shape)
        for batch in batches(compose_experiment("uniref50_packed_mlm"), tokenizer, "predict")
    ]
    assert found == [(20, length) for length in range(100, 801, 100) for _ in range(5)]
