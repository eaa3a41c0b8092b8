"""What all collators have in common: the host's protocol, special tokens, random numbers."""

from typing import Any, NamedTuple

import torch
from xlm.datamodule import Collator

from xlm_mlm.checks import require_bool, require_choice, require_token_id
from xlm_mlm.collation.mask_sampling import MASK_SAMPLING, MaskSampler
from xlm_mlm.collation.randomness import RandomSource


class SpecialIds(NamedTuple):
    """Ids of the special tokens a collator writes; `bos` and `eos` are None where it adds none.

    `vocabulary` is the number of ids there are, where it is known.
    """

    pad: int
    mask: int
    bos: int | None
    eos: int | None
    vocabulary: int | None = None

    def distinct(self, owner: str) -> "SpecialIds":
        """Return these ids if the mask token is none of the others.

        Raises:
            ValueError: it is; the token it shares its id with would always look masked.
        """
        for name, value in (("padding", self.pad), ("BOS", self.bos), ("EOS", self.eos)):
            if value == self.mask:
                raise ValueError(
                    f"{owner} has the id {value} for both mask and {name}; they must differ, or "
                    f"{name} would look masked. Add a mask token of its own"
                )
        return self


class MLMCollator(Collator):
    """Base of the collators: the attributes of the host's protocol, and a source of randomness.

    Collators can be pickled, their generator included, so that they reach worker processes.
    """

    numbers_samples = False
    """Whether batches carry the numbers of the samples, where the examples have them."""

    # Whether the collator adds masks. One that does not has the options that say how without an
    # effect, so that one config can serve both kinds.
    _masks = True

    def __init__(
        self,
        tokenizer: Any,
        block_size: int | None,
        noise_schedule: Any,
        generator: torch.Generator | None,
        mask_sampling: str = "bernoulli",
    ) -> None:
        self.tokenizer = tokenizer
        # The host declares an int, though some collators work without a size.
        self.block_size: Any = block_size
        self.noise_schedule = noise_schedule
        self.mask_sampling = require_choice("mask_sampling", mask_sampling, MASK_SAMPLING)
        source = RandomSource(generator)
        if self._masks:
            self._sampler = MaskSampler(mask_sampling, noise_schedule, source)
        else:
            self._sampler = MaskSampler("bernoulli", None, source)

    @property
    def generator(self) -> torch.Generator | None:
        """The generator the collator was given; None where it uses torch's global one."""
        return self._sampler.source.generator

    @property
    def _name(self) -> str:
        return type(self).__name__


def special_ids(tokenizer: Any, add_bos: bool, add_eos: bool) -> SpecialIds:
    """Look up the special tokens once, at construction.

    Raises:
        ValueError: the tokenizer lacks one that is needed, or its mask token is also another; or
            a switch is neither true nor false.
    """
    require_bool("add_bos", add_bos)
    require_bool("add_eos", add_eos)
    pad = require_token_id(tokenizer, "pad", "fill rows up to a common width")
    mask = require_token_id(tokenizer, "mask", "hide the tokens the model has to guess")
    bos = eos = None
    if add_bos:
        bos = require_token_id(tokenizer, "bos", "begin the text (add_bos=False goes without)")
    if add_eos:
        eos = require_token_id(tokenizer, "eos", "end the text (add_eos=False goes without)")
    ids = SpecialIds(pad, mask, bos, eos, vocabulary_of(tokenizer))
    return ids.distinct(type(tokenizer).__name__)


def vocabulary_of(tokenizer: Any) -> int | None:
    """How many ids a tokenizer has, added tokens included; None if it does not say."""
    return len(tokenizer) if hasattr(tokenizer, "__len__") else None
