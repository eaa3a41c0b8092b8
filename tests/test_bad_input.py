"""Bad input over the whole public surface: messages hold the value, the rule, what is right."""

import copy
from contextlib import contextmanager

import pytest
import torch
from bad_input import collating, data, networks, programs
from composing import composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from made_up_histories import write
from omegaconf import OmegaConf
from tiny_checkpoints import changed, network, write_checkpoint
from xlm.datamodule import SimpleSpaceTokenizer
from xlm.utils.omegaconf_resolvers import dummy_resolvers

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.entries import message_of
from xlm_mlm.generation.fill import Filler

CASES = [*networks.CASES, *collating.CASES, *data.CASES, *programs.CASES]


class Place:
    """What the cases use: files, a tokenizer of 27 tokens whose mask is 2, and a tiny model."""

    def __init__(self, folder):
        self.folder = folder
        self.tokenizer = SimpleSpaceTokenizer.for_numbers(20)
        torch.manual_seed(0)
        sizes = {"rotary_emb_dim": 16, "mask_idx": 2, "max_length": 16}
        self.model = RotaryTransformerMLMModel(27, 32, 1, 2, **sizes).eval()

        self._composed = {}
        self._write()

    def _write(self):
        config = changed("model", "max_length", value=22)
        config["model"]["dim_feedforward"] = 256
        good, diverged = network(1), network(1)
        diverged.embed_tokens.weight.data[5] = torch.nan
        write_checkpoint(self.folder / "good.ckpt", good, hyper_parameters=config)
        write_checkpoint(self.folder / "diverged.ckpt", diverged, hyper_parameters=config)
        for name, path, value in (
            ("class.ckpt", ("model",), {"_target_": "os.system", "command": "true"}),
            ("config.ckpt", ("model", "d_model"), "32"),
        ):
            made = changed(*path, value=value)
            write_checkpoint(self.folder / name, good, hyper_parameters=made)
        torch.save(good.state_dict(), self.folder / "weights.pt")
        for name, text in (("texts", "1 2\n3 4\n"), ("masked", "1 [MASK]"), ("words", "one two")):
            (self.folder / f"{name}.txt").write_text(text)
        (self.folder / "nothing").mkdir()
        (self.fid,), _ = write(self.folder / "history", self.tokenizer, [[4, 2, 8]], [[[1]]])

    def path(self, name):
        return str(self.folder / name)

    def filler(self, **more):
        return Filler.from_checkpoint(self.path("good.ckpt"), **more)

    @contextmanager
    def experiment(self, name, override):
        """An experiment with an override, its tokenizer as the host would have made it."""
        # Composed once, as that takes a second; Hydra's own parser reads the override.
        if name not in self._composed:
            self._composed[name] = composed(self.folder, name)
        cfg = copy.deepcopy(self._composed[name])
        change = OverridesParser.create().parse_override(override)
        OmegaConf.update(cfg, change.key_or_group, change.value(), force_add=True)
        with dummy_resolvers():
            parts = {"tokenizer": SimpleSpaceTokenizer.for_numbers(5), "noise_schedule": None}
            for resolver, find in (
                ("global_components", parts.__getitem__),
                ("tokenizer", lambda name: getattr(parts["tokenizer"], name)),
            ):
                OmegaConf.register_new_resolver(resolver, find, replace=True)
            yield cfg


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("bad-input"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_in_words_that_help(case, place):
    with pytest.raises(case.error) as caught:
        case.run(place)
    # Not a subclass: a Unicode or a JSON error is a ValueError that nobody wrote for the user.
    assert type(caught.value) is case.error
    message = message_of(caught.value)
    for word in case.words:
        assert word in message, message
