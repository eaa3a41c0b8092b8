"""Short names to classes, and what the plugin modules of other packages may do to us: nothing."""

import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from xlm_mlm.entries import Entry, read_entries
from xlm_mlm.plugin.interfaces import INTERFACES
from xlm_mlm.plugin.registry import installed, resolve

GOOD_LOSS = """
class Loss:
    def configure(self, pl_module): ...
    def loss_fn(self, batch, batch_idx=None, dataloader_idx=None, dataloader_name=None): ...
    def __call__(self, batch, batch_idx=None, dataloader_idx=None, dataloader_name=None): ...
"""
ORIGIN = f"xlm-mlm {version('xlm-mlm')}"
OURS = [entry for entry in read_entries(INTERFACES) if entry.distribution == "xlm-mlm"]


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: f"{entry.group}:{entry.name}")
def test_each_of_our_names_gives_its_class_by_group_and_by_kind(entry):
    module, _, name = entry.value.partition(":")
    expected = getattr(import_module(module), name)
    assert resolve(entry.group, entry.name) is expected
    assert resolve(INTERFACES[entry.group].kind, entry.name) is expected


def test_model_loss_predictor_every_collator_and_history_are_registered():
    import xlm_mlm

    public = {name for name in xlm_mlm.__all__ if name.endswith("Collator")}
    public |= {"RotaryTransformerMLMModel", "MLMLoss", "MLMPredictor", "HistoryTopKPlugin"}
    named = [e.value.partition(":")[2] for e in OURS if e.group != "xlm_mlm.samplers"]
    assert sorted(named) == sorted(public)


def test_every_sampling_rule_is_registered():
    rules = set()
    for file in (Path(__file__).parents[2] / "xlm_mlm" / "sampling").glob("*.py"):
        module = import_module(f"xlm_mlm.sampling.{file.stem}")
        for name, value in vars(module).items():
            mine = getattr(value, "__module__", None) == module.__name__
            protocol = getattr(value, "_is_protocol", False) or name == "Sampler"
            if mine and not protocol and not name.startswith("_"):
                rules |= {name} if hasattr(value, "select") or hasattr(value, "remask") else set()
    named = [e.value.partition(":")[2] for e in OURS if e.group == "xlm_mlm.samplers"]
    assert sorted(named) == sorted(rules)


def test_a_stranger_is_resolved_like_ours(site):
    site.write(stranger_loss=GOOD_LOSS)
    site.register("stranger", "3.1", xlm_losses={"strange": "stranger_loss:Loss"})
    assert resolve("loss", "strange") is import_module("stranger_loss").Loss


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"'nope' is not installed in xlm.losses; known names: mlm"):
        resolve("loss", "nope")


def test_an_unknown_group_lists_the_groups():
    with pytest.raises(ValueError, match=r"'losses' is no group .* xlm.losses \(loss\)"):
        resolve("losses", "mlm")


def test_a_class_that_does_not_fill_the_interface_names_its_distribution(site):
    site.write(stranger_bad="class Loss: ...")
    site.register("stranger", "3.1", xlm_losses={"bad": "stranger_bad:Loss"})
    with pytest.raises(ValueError, match=r"bad in xlm.losses, of stranger 3.1: .*configure"):
        resolve("loss", "bad")


def test_a_name_installed_twice_keeps_ours_and_names_both(site, caplog):
    site.write(stranger_loss=GOOD_LOSS)
    site.register("a-stranger", "3.1", xlm_losses={"mlm": "stranger_loss:Loss"})
    assert resolve("loss", "mlm") is import_module("xlm_mlm.loss_mlm").MLMLoss
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert ORIGIN in record.getMessage()
    assert "a-stranger 3.1" in record.getMessage()


def test_listing_imports_nothing(site):
    site.write(stranger_listed="raise RuntimeError('imported')")
    site.register("stranger", "3.1", xlm_losses={"listed": "stranger_listed:Loss"})
    (found,) = [c for c in installed() if c.entry.distribution == "stranger"]
    entry = found.entry
    assert entry == Entry("xlm.losses", "listed", "stranger_listed:Loss", "stranger", "3.1")
    assert found.error is None
    assert "stranger_listed" not in sys.modules


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('on import')", "RuntimeError: on import"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
        ("Other = 1", "has no attribute 'Loss'"),
        ("Loss = 5", "5 is no class"),
    ],
)
def test_loading_tells_what_is_wrong_and_spares_the_rest(site, source, error):
    site.write(stranger_broken=source)
    site.register("stranger", "3.1", xlm_losses={"broken": "stranger_broken:Loss"})
    components = installed(load=True)
    wrong = {component.entry.name: component.error for component in components if component.error}
    assert list(wrong) == ["broken"]
    assert error in wrong["broken"]
    assert len(components) > len(OURS)


def test_what_is_shadowed_says_by_whom(site):
    site.write(stranger_loss=GOOD_LOSS)
    site.register("a-stranger", "3.1", xlm_losses={"mlm": "stranger_loss:Loss"})
    by_origin = {c.entry.origin: c.shadowed_by for c in installed() if c.entry.name == "mlm"}
    assert by_origin == {ORIGIN: None, "a-stranger 3.1": ORIGIN}
