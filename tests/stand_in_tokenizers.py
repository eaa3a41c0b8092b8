"""Folders that stand in for the tokenizers of the Hugging Face hub.

The class that an experiment names reads them with its own `from_pretrained`; only the vocabulary
is smaller.
"""

import json
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,"
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"


def bert_folder(folder: Path) -> Path:
    """A WordPiece vocabulary of single letters, as `BertTokenizerFast` reads it."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return _write(folder, {"vocab.txt": "\n".join(pieces)})


def gpt2_folder(folder: Path) -> Path:
    """The 256 bytes and no merges, as `GPT2TokenizerFast` reads it."""
    return _write(folder, _byte_level(["<|endoftext|>"]))


def qwen2_folder(folder: Path) -> Path:
    """The 256 bytes and no merges, as `AutoTokenizer` reads it: no mask token and no BOS."""
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>"}
    files = _byte_level(["<|endoftext|>"])
    return _write(folder, {**files, "tokenizer_config.json": json.dumps(settings)})


def esm_folder(folder: Path) -> Path:
    """One token a residue, as `EsmTokenizer` reads it."""
    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *RESIDUES, ".", "-", "<null_1>", "<mask>"]
    return _write(folder, {"vocab.txt": "\n".join(tokens)})


def _byte_level(special: list[str]) -> dict[str, str]:
    tokens = [*sorted(ByteLevel.alphabet()), *special]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return {"vocab.json": json.dumps(vocabulary), "merges.txt": "#version: 0.2\n"}


def _write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
