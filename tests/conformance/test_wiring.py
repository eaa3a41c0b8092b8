"""An experiment made small: composed, given made-up data, and built by the host's harness."""

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from xlm_mlm.conformance.made_up import MadeUpManager, MadeUpTokenizer
from xlm_mlm.conformance.rules import CannotRun
from xlm_mlm.conformance.subject import find_package
from xlm_mlm.conformance.survey import survey
from xlm_mlm.conformance.wiring import Loader, Wiring, compose, small_overrides, tensors


@pytest.fixture
def star(minimal):
    return survey(minimal).parts["process"][0].wiring


def loader(wiring, place):
    (found,) = [found for found in wiring.loaders if str(found) == place]
    return found


def test_it_is_small_and_needs_no_data(star):
    assert (star.cfg.model.d_model, star.cfg.block_size, star.cfg.input_block_size) == (16, 12, 8)
    manager = star.datamodule.dataset_managers["train"]["lm"]
    assert isinstance(manager, MadeUpManager)
    assert isinstance(star.tokenizer, MadeUpTokenizer)


def test_only_what_is_there_is_made_small():
    cfg = OmegaConf.create({"block_size": 4, "model": {"d_model": 9, "_target_": "no.such"}})
    assert small_overrides(cfg) == ["++block_size=12", "++model.d_model=16"]


def test_what_the_constructor_alone_has_is_made_small():
    cfg = OmegaConf.create({"model": {"_target_": "torch.nn.Transformer"}})
    assert set(small_overrides(cfg)) == {
        "++model.d_model=16",
        "++model.nhead=2",
        "++model.dim_feedforward=32",
    }


def test_the_subject_comes_right_after_the_host(site):
    """A name that ours has as well: it is the subject's that is composed."""
    site.config("theirs/__init__.py", "")
    site.config("theirs/configs/experiment/star_easy_mlm.yaml", "# @package _global_\nmine: 1\n")
    assert compose(find_package("theirs"), "star_easy_mlm").mine == 1


def test_composing_leaves_hydra_as_it_was(minimal):
    before = GlobalHydra.instance().hydra
    compose(minimal, "star_easy_minimal")
    assert GlobalHydra.instance().hydra is before


def test_the_same_seed_gives_the_same_model(star):
    first, second, third = (star.harness(seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


def test_harnesses_share_the_datamodule_alone(star):
    one, other = star.harness(), star.harness(predictor__max_steps=1)
    assert one.datamodule is other.datamodule is star.datamodule
    assert one.model is not other.model
    assert one.predictor is not other.predictor


def test_changes_are_for_one_harness(star):
    assert star.harness(predictor__max_steps=1).predictor.max_steps == 1
    assert star.harness().predictor.max_steps == 8


def test_the_resolvers_are_put_back(star):
    from omegaconf.basecontainer import BaseContainer

    names = ("global_components", "datamodule", "tokenizer", "lightning_module")
    before = [BaseContainer._resolvers[name] for name in names]
    star.harness()
    assert [BaseContainer._resolvers[name] for name in names] == before


def test_batches_of_every_loader(star):
    for place in star.loaders:
        batch = tensors(star.batch(place))
        assert all(len(value) == 4 for value in batch.values()), place
        assert batch["input_ids"].max() < len(star.tokenizer)


def test_a_harness_trains_on_its_batches(star):
    harness = star.harness()
    loss = harness.compute_loss(star.batch(loader(star, "train.lm")), 0, 0, "lm")["loss"]
    assert loss.isfinite()
    assert loss.requires_grad


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("lm", "lm"),
        ("mlm_prediction", "lm"),
        ("infill_prediction", "prediction"),
        ("other", ""),
    ],
)
def test_the_host_decides_by_the_name(name, role):
    assert Loader("val", name, "x").role == role


def test_a_collator_that_takes_no_kind_of_rows(star, monkeypatch):
    monkeypatch.setattr(Wiring, "collator", lambda self, loader: lambda rows: rows[0]["odd"])
    with pytest.raises(CannotRun, match=r"let an adapter.*\n.*KeyError: odd"):
        star.batch(star.loaders[0])
