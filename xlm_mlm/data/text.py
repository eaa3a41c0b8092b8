"""The user's own text as training rows: documents to tokens to blocks, packed or padded."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets.arrow_writer import ArrowWriter

from xlm_mlm.checks import (
    require_bool,
    require_choice,
    require_int,
    require_number,
    require_token_id,
)
from xlm_mlm.data.cache import CachedDatasetManager
from xlm_mlm.data.readers import DOCUMENTS, content_digest, find_files, read_documents

_DOCUMENTS_AT_A_TIME = 64
# A tokenizer takes some 200 bytes for each character that it is given at once; what leaves the
# processor's cache is more than twice as slow.
_CHARACTERS_AT_A_TIME = 2**16
# The seed salts a hash, with 8 bytes.
_MAX_SEED = 2**64 - 1
_FEATURES = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("int32"))})


def is_validation(text: str, fraction: float, seed: int) -> bool:
    """Whether a document is held out: by a hash of its text, so never by its place.

    Adding, removing or reordering documents moves no other one, and two equal documents are
    never on both sides.

    Raises:
        ValueError: `text` holds half of a surrogate pair, which is no Unicode text.
    """
    found = hashlib.blake2b(digest_size=8, salt=seed.to_bytes(8, "little"))
    try:
        # In pieces: a document may be large, and its bytes are needed nowhere else.
        for start in range(0, len(text), _CHARACTERS_AT_A_TIME):
            found.update(text[start : start + _CHARACTERS_AT_A_TIME].encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"a document is not Unicode text: {error}") from None
    return int.from_bytes(found.digest(), "little") < fraction * 2**64


def encode_documents(
    documents: Iterable[str], tokenizer: Any, bos: int, eos: int
) -> Iterator[Iterable[int]]:
    """`[BOS] tokens [EOS]` of each document. A "[MASK]" in the text is text, not a mask.

    A document of more than 2**16 characters is tokenized in pieces that end where lines do, as
    its tokens are taken: take all of a document before the next.
    """
    waiting: list[str] = []
    characters = 0
    for document in documents:
        if len(document) > _CHARACTERS_AT_A_TIME:
            yield from _encoded(waiting, tokenizer, bos, eos)
            pieces = (_ids([piece], tokenizer)[0] for piece in pieces_of(document))
            yield chain([bos], chain.from_iterable(pieces), [eos])
            waiting, characters = [], 0
            continue
        waiting.append(document)
        characters += len(document)
        if len(waiting) == _DOCUMENTS_AT_A_TIME or characters >= _CHARACTERS_AT_A_TIME:
            yield from _encoded(waiting, tokenizer, bos, eos)
            waiting, characters = [], 0
    yield from _encoded(waiting, tokenizer, bos, eos)


def _encoded(texts: list[str], tokenizer: Any, bos: int, eos: int) -> Iterator[list[int]]:
    for ids in _ids(texts, tokenizer):
        yield [bos, *ids, eos]


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    return tokenizer(texts, **options)["input_ids"] if texts else []


def pieces_of(text: str, most: int = _CHARACTERS_AT_A_TIME) -> Iterator[str]:
    """`text` in pieces of at most `most` characters, each up to the last end of a line in it.

    A line that is longer is cut at a space, or, where it has none, after `most` characters.
    """
    start = 0
    while len(text) - start > most:
        end = start + most
        line = text.rfind("\n", start, end) + 1
        # The space stays with the word that follows it, as most tokenizers have it.
        cut = line or text.rfind(" ", start + 1, end)
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut
    yield text[start:]


def padded_rows(documents: Iterable[Iterable[int]], block_size: int) -> Iterator[list[int]]:
    """Each document cut into rows of at most `block_size`; the last of each is shorter."""
    for ids in documents:
        tokens = iter(ids)
        while row := list(islice(tokens, block_size)):
            yield row


def packed_rows(documents: Iterable[Iterable[int]], block_size: int) -> Iterator[list[int]]:
    """All documents end to end in blocks of `block_size`; a last block not full is dropped."""
    tokens = chain.from_iterable(documents)
    while len(row := list(islice(tokens, block_size))) == block_size:
        yield row


def choose_collator(packed: bool, for_packed: Any, for_padded: Any) -> Any:
    """The collator that fits the rows; lets one switch in YAML decide about both."""
    return for_packed if packed else for_padded


class TextDatasetManager(CachedDatasetManager):
    """Rows of `input_ids` from local files: the training documents, or those held out.

    Rows carry BOS where a document begins and EOS where it ends, nowhere else, so the collator
    is to add neither.

    Args:
        data_files: a .txt, .jsonl or .parquet file, a glob, or a list of both.
        block_size: tokens in a packed row; most tokens in a padded one.
        packed: whether a row may hold several documents and is always full.
        text_field: field with the text, in .jsonl and .parquet.
        document: what a document is in .txt files: "paragraph", "line" or "file".
        validation_fraction: expected share of the documents that are held out; between 0 and 1.
        split_seed: decides which; at least 0 and less than 2**64.
        options: see `CachedDatasetManager`.

    Raises:
        ValueError: an option out of range, or no files named.
        FileNotFoundError: a path or a glob that matches no file.
    """

    dataset_name = "text"
    same_rows: ClassVar[Mapping[str, str]] = {"test": "validation", "predict": "validation"}

    def __init__(
        self,
        collator: Any,
        split: str,
        dataloader_kwargs: Mapping[str, Any],
        data_files: str | Sequence[str] | None,
        block_size: int,
        packed: bool = True,
        text_field: str = "text",
        document: str = "paragraph",
        validation_fraction: float = 0.05,
        split_seed: int = 0,
        **options: Any,
    ):
        super().__init__(collator, split, dataloader_kwargs, **options)
        self.files = find_files(data_files)
        self.block_size = require_int("block_size", block_size, 2)
        self.packed = require_bool("packed", packed)
        if not isinstance(text_field, str):
            raise ValueError(f"text_field is {text_field!r}; it must be the name of a field")
        self.text_field = text_field
        self.document = require_choice("document", document, DOCUMENTS)
        rule = "a number between 0 and 1, neither of the two"
        fraction = require_number("validation_fraction", validation_fraction, 0, rule)
        if not 0 < fraction < 1:
            raise ValueError(f"validation_fraction is {validation_fraction!r}; it must be {rule}")
        self.validation_fraction = fraction
        self.split_seed = require_int("split_seed", split_seed, 0, None)
        if self.split_seed > _MAX_SEED:
            raise ValueError(
                f"split_seed is {split_seed}; it must be at most {_MAX_SEED} (64 bits)"
            )

    def cache_inputs(self) -> dict[str, Any]:
        """What the files hold (not their names), and how they are cut into rows."""
        return {
            "files": [[path.suffix.lower(), content_digest(path)] for path in self.files],
            "block_size": self.block_size,
            "packed": bool(self.packed),
            "text_field": self.text_field,
            "document": self.document,
            "validation_fraction": self.validation_fraction,
            "split_seed": self.split_seed,
        }

    def make_rows(self, tokenizer: Any, workspace: Path) -> datasets.Dataset:
        """Read, tokenize and cut the documents of `self.split`, one at a time."""
        bos = require_token_id(tokenizer, "bos", "mark where a document begins")
        eos = require_token_id(tokenizer, "eos", "mark where a document ends")
        count = _Counter()
        documents = encode_documents(self._documents(count), tokenizer, bos, eos)
        cut = packed_rows if self.packed else padded_rows
        workspace.mkdir()
        arrow = workspace / "rows.arrow"
        rows = 0
        # Row by row to disk: the text may be larger than memory.
        with ArrowWriter(path=str(arrow), features=_FEATURES) as writer:
            for ids in cut(documents, self.block_size):
                writer.write({"input_ids": ids})
                rows += 1
            writer.finalize()
        if not rows:
            raise self._nothing(count)
        return datasets.Dataset.from_file(str(arrow))

    def _documents(self, count: "_Counter") -> Iterator[str]:
        held_out = self.split == "validation"
        for path in self.files:
            for text in read_documents(path, self.text_field, self.document):
                count.read += 1
                if is_validation(text, self.validation_fraction, self.split_seed) == held_out:
                    count.kept += 1
                    yield text

    def _nothing(self, count: "_Counter") -> ValueError:
        names = ", ".join(map(str, self.files[:3])) + (", ..." if len(self.files) > 3 else "")
        if not count.read:
            return ValueError(f"data_files hold no text but white space: {names}")
        if not count.kept:
            return ValueError(
                f"no document is in the {self.split} split: it takes at least two different "
                f"ones, {count.read} were read from {names} with validation_fraction "
                f"{self.validation_fraction} and split_seed {self.split_seed}. Change one of "
                "these, or make documents smaller (document=paragraph or line for .txt)"
            )
        return ValueError(
            f"what the {self.split} split holds ({count.kept} of {count.read} documents) fills "
            f"no block of {self.block_size} tokens; lower block_size, set packed=false, or give "
            "more text"
        )


class _Counter:
    """Documents seen and documents kept, for the message when no row comes out."""

    def __init__(self) -> None:
        self.read = 0
        self.kept = 0
