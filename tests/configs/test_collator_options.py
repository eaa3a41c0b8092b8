"""What the collators of each experiment add to a row, hide of it, and cut it to."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

import xlm_mlm

EXPERIMENTS = sorted(
    path.stem for path in (Path(xlm_mlm.__file__).parent / "configs/experiment").glob("*.yaml")
)
USUAL = {
    "loss_on_padding": True,
    "truncate": "block",
    "mask_sampling": "bernoulli",
    "add_bos": True,
    "add_eos": True,
}
NO_FRAME = {"add_bos": False, "add_eos": False}
# Of all collators of an experiment, or of one loader's.
UNUSUAL = {
    "owt_packed_mlm": NO_FRAME,
    "sudoku_extreme_mlm": NO_FRAME,
    "tinygsm_mlm": {"add_bos": False},
    "local_text_mlm": {"loss_on_padding": False, "truncate": "max", **NO_FRAME},
    # Rows of masks alone, of the asked length: nothing is padded, cut or framed.
    ("local_text_mlm", "predict.unconditional_prediction"): USUAL,
    ("safe_mlm", "train.lm"): {"loss_on_padding": False},
}


def padding_collators(cfg: DictConfig) -> dict[str, DictConfig]:
    """The collators that pad, by split and loader."""
    found = {
        f"{split}.{loader}": manager.collator.get("for_padded", manager.collator)
        for split, loaders in cfg.datamodule.dataset_managers.items()
        for loader, manager in loaders.items()
    }
    return {loader: collator for loader, collator in found.items() if "truncate" in collator}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_padding_frame_and_width(name, compose_experiment):
    collators = padding_collators(compose_experiment(name))
    assert collators or name == "uniref50_packed_mlm"  # it packs, and generates unpadded rows
    for loader, collator in collators.items():
        expected = USUAL | UNUSUAL.get(name, {}) | UNUSUAL.get((name, loader), {})
        assert {option: collator[option] for option in USUAL} == expected, loader


def test_every_exception_is_that_of_a_loader(compose_experiment):
    names = {key for key in UNUSUAL if isinstance(key, str)}
    assert names <= set(EXPERIMENTS)
    assert "train.lm" in padding_collators(compose_experiment("safe_mlm"))


@pytest.mark.parametrize("packed", [True, False])
def test_one_switch_packs_local_text_and_tells_the_model(packed, compose_experiment):
    cfg = compose_experiment("local_text_mlm", f"packed={packed}".lower())
    assert cfg.model.use_flex_attn is packed
    for split in ("train", "val", "test"):
        manager = cfg.datamodule.dataset_managers[split].lm
        assert (manager.packed, manager.collator.packed) == (packed, packed)
        targets = {key: manager.collator[key]._target_ for key in ("for_packed", "for_padded")}
        assert targets == {
            "for_packed": "xlm_mlm.datamodule_mlm.PackedMLMCollator",
            "for_padded": "xlm_mlm.datamodule_mlm.DefaultMLMCollator",
        }
        assert manager.collator.for_packed.use_flex_attn is True


@pytest.mark.parametrize("name", ["quickstart_mlm", "star_easy_mlm", "owt_packed_mlm", "lm1b_mlm"])
def test_one_key_chooses_the_masks_of_training(name, compose_experiment):
    for chosen in ("bernoulli", "exact_count"):
        cfg = compose_experiment(name, *([f"+mask_sampling={chosen}"] * (chosen != "bernoulli")))
        lm = cfg.datamodule.dataset_managers.train.lm
        assert lm.collator.mask_sampling == chosen
