"""Made-up data: a tokenizer, rows, and a dataset manager that needs no network.

The names here are given to the host in configs, so they can be imported in any process.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import datasets
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast
from xlm.datamodule import TokenizerMixin

from xlm_mlm.conformance.adapter import load_adapter, overridden
from xlm_mlm.conformance.rules import CannotRun

# In no tokenizer of the host's do the special tokens have these ids: code that counts on the
# padding to be 0 is found out.
SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "bos_token": "[BOS]",
    "eos_token": "[EOS]",
    "mask_token": "[MASK]",
}
# Prompts are made of the first half of the words and everything else of the second, so that a
# batch shows where a token came from.
WORDS = [f"w{number}" for number in range(48)]


class MadeUpTokenizer(TokenizerMixin, PreTrainedTokenizerFast):
    """Words between spaces, and the special tokens that the host asks for."""


def make_tokenizer() -> MadeUpTokenizer:
    """The tokenizer of every experiment that the kit puts together."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return MadeUpTokenizer(tokenizer_object=words, **SPECIAL)


def prompt_words() -> list[int]:
    """The ids that prompts are made of."""
    return list(range(len(SPECIAL), len(SPECIAL) + len(WORDS) // 2))


def other_words() -> list[int]:
    """The ids that everything else is made of."""
    first = len(SPECIAL) + len(WORDS) // 2
    return list(range(first, first + len(WORDS) // 2))


def _words(pool: list[int], start: int, count: int) -> list[int]:
    """`count` ids from `pool`, going round it from `start`."""
    return list(itertools.islice(itertools.cycle(pool), start, start + count))


def prompted_rows(sizes: Mapping[str, int], count: int) -> list[dict]:
    """The host's `Seq2SeqCollatorInput`, with a text of the kind that evaluators ask for.

    Collators that know no prompts take `input_ids` alone.
    """
    prompt, block = sizes["input_block_size"], sizes["block_size"]
    rows = []
    for number in range(count):
        given = 2 + number % max(prompt - 2, 1)
        asked = 3 + (2 * number) % max(block - 5, 1)
        rows.append(
            {
                "prompt_ids": _words(prompt_words(), 5 * number, given),
                "input_ids": _words(other_words(), 3 * number, asked),
                "answer": f"w{number}",
            }
        )
    return rows


def infill_rows(sizes: Mapping[str, int], count: int) -> list[dict]:
    """Rows with some tokens masked in `prompt_ids`, and all of them in `input_ids`."""
    mask = list(SPECIAL).index("mask_token")
    rows = []
    for number in range(count):
        length = 4 + (2 * number) % max(sizes["block_size"] - 6, 1)
        tokens = _words(other_words(), 3 * number, length)
        marked = [mask if place % 3 == number % 3 else id for place, id in enumerate(tokens)]
        rows.append({"prompt_ids": marked, "input_ids": tokens})
    return rows


def packed_rows(sizes: Mapping[str, int], count: int) -> list[dict]:
    """Blocks without padding, each of two segments that end in EOS."""
    end, block = list(SPECIAL).index("eos_token"), sizes["block_size"]
    rows = []
    for number in range(count):
        tokens = _words(other_words(), 3 * number, block)
        tokens[block // 3 + number % 2] = tokens[-1] = end
        rows.append({"input_ids": tokens})
    return rows


KINDS: dict[str, Callable[[Mapping[str, int], int], list[dict]]] = {
    "prompted": prompted_rows,
    "infill": infill_rows,
    "packed": packed_rows,
}


def make_rows(
    adapter: Any, loader: str, tokenizer: Any, sizes: Mapping[str, int], kind: str, count: int
) -> list[dict]:
    """`count` rows for a loader: the adapter's, else those of a kind."""
    own = adapter.rows(loader, tokenizer, sizes) if overridden(adapter, "rows") else None
    if own is None:
        return KINDS[kind](sizes, count)
    if not isinstance(own, list) or not own or not all(isinstance(row, Mapping) for row in own):
        raise CannotRun(f"the adapter's rows for {loader} are {own!r:.100}; they must be dicts")
    return list(itertools.islice(itertools.cycle(own), count))


class MadeUpManager:
    """Takes the place of a dataset manager of the host, with a few rows of no meaning.

    What else the experiment says of its dataset is accepted and has no effect.
    """

    name = "made up"

    def __init__(
        self,
        collator: Any,
        dataloader_kwargs: Mapping[str, Any],
        made_up: Mapping[str, Any],
        stages: list[str] | None = None,
        **_: Any,
    ) -> None:
        self.collator = collator
        self.dataloader_kwargs = {**dataloader_kwargs, "shuffle": False}
        self.stages = stages or ["fit", "validate"]
        self.made_up = made_up
        self.dataset: Any = None

    def set_epoch(self, epoch: int) -> None:
        """Nothing is shuffled."""

    def prepare_data(self, *_: Any, **__: Any) -> None:
        """Nothing is downloaded."""

    def setup(self, stage: str, manual_cache_dir: str, tokenizer: Any, **_: Any) -> None:
        """Make the rows."""
        sizes = dict(self.made_up["sizes"])
        rows = make_rows(
            load_adapter(self.made_up["adapter"]),
            *(self.made_up["loader"], tokenizer, sizes, self.made_up["kind"]),
            count=8 * self.dataloader_kwargs["batch_size"],
        )
        self.dataset = datasets.Dataset.from_list(rows)

    def get_dataloader(self, type: str, **_: Any) -> DataLoader:
        """Batches of the rows, in their order."""
        return DataLoader(self.dataset, collate_fn=self.collator, **self.dataloader_kwargs)
