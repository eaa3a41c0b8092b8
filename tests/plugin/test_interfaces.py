"""Classes are checked against the host's interfaces, not against our own classes."""

import pytest
import torch
from xlm.datamodule import Collator
from xlm.harness import LossFunction, Predictor
from xlm.model import Model

from xlm_mlm.history_mlm import HistoryPluginBase
from xlm_mlm.plugin.interfaces import INTERFACES


class ALoss:
    def configure(self, pl_module): ...

    def loss_fn(self, batch, batch_idx=None, dataloader_idx=None, dataloader_name=None): ...

    def __call__(self, batch, batch_idx=None, dataloader_idx=None, dataloader_name=None): ...


class APredictor(torch.nn.Module):
    def predict(self, batch, **_): ...

    def to_dict(self, batch, preds, **_): ...

    def generate(self, prompts): ...


class ACollator:
    def __call__(self, batch): ...


class AModel(torch.nn.Module, Model): ...


class AHistory(HistoryPluginBase):
    def update_history(self, step_results): ...

    def reset(self): ...

    def to_dict(self): ...


GOOD = {
    "xlm.models": AModel,
    "xlm.losses": ALoss,
    "xlm.predictors": APredictor,
    "xlm.collators": ACollator,
    "xlm.history": AHistory,
}


@pytest.mark.parametrize("group", GOOD)
def test_a_class_that_fills_the_interface_passes(group):
    assert INTERFACES[group].check(GOOD[group]) is GOOD[group]


@pytest.mark.parametrize("group", GOOD)
def test_anything_but_a_class_is_refused(group):
    with pytest.raises(ValueError, match="is no class"):
        INTERFACES[group].check(lambda: None)


@pytest.mark.parametrize("group", GOOD)
def test_an_empty_class_is_refused(group):
    class Empty: ...

    with pytest.raises(ValueError, match="Empty does not") as error:
        INTERFACES[group].check(Empty)
    assert INTERFACES[group].target in str(error.value)


@pytest.mark.parametrize(
    ("group", "missing"),
    [
        ("xlm.losses", "configure"),
        ("xlm.losses", "loss_fn"),
        ("xlm.losses", "__call__"),
        ("xlm.predictors", "predict"),
        ("xlm.predictors", "to_dict"),
        ("xlm.predictors", "generate"),
        ("xlm.collators", "__call__"),
    ],
)
def test_each_missing_method_is_named(group, missing):
    members = {name: value for name, value in vars(GOOD[group]).items() if name != missing}
    incomplete = type("Incomplete", (), members)
    with pytest.raises(ValueError, match=f"Incomplete does not define {missing};"):
        INTERFACES[group].check(incomplete)


@pytest.mark.parametrize(
    ("group", "protocol"),
    [("xlm.losses", LossFunction), ("xlm.predictors", Predictor), ("xlm.collators", Collator)],
)
def test_the_empty_methods_of_the_protocol_do_not_count(group, protocol):
    class Inherits(protocol): ...

    with pytest.raises(ValueError, match="does not define"):
        INTERFACES[group].check(Inherits)


def test_a_history_with_an_abstract_method_left_is_refused():
    class Half(HistoryPluginBase):
        def reset(self): ...

        def to_dict(self): ...

    with pytest.raises(ValueError, match="does not define update_history"):
        INTERFACES["xlm.history"].check(Half)
