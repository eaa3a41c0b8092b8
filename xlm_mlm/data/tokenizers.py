"""A byte-level tokenizer that needs no download, and a loader for tokenizers in local folders."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from xlm.datamodule import TokenizerMixin

from xlm_mlm.checks import require_token_id

# The host's own simple tokenizer gives these the ids 0 to 6 as well.
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "eos_token": "[EOS]",
    "bos_token": "[BOS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


class ByteTokenizer(TokenizerMixin, PreTrainedTokenizerFast):
    """One token a byte of UTF-8: 7 special tokens (ids 0 to 6), then the 256 bytes.

    Any text round-trips, and nothing is unknown. In a prompt, "[MASK]" is the mask token; encode
    text that is not to be read that way with `split_special_tokens=True` (training text is).
    The vocabulary is the 256 symbols that stand for the bytes in byte-level BPE (Radford et al.
    2019, "Language Models are Unsupervised Multitask Learners"), without merges, so that a
    saved folder holds an ordinary `tokenizer.json`.
    """

    def __init__(self, tokenizer_object: Any = None, tokenizer_file: Any = None, **kwargs: Any):
        if tokenizer_object is None and tokenizer_file is None:
            tokenizer_object = _byte_backend()
        super().__init__(
            tokenizer_object=tokenizer_object,
            tokenizer_file=tokenizer_file,
            # Off: it would remove spaces before punctuation from decoded text.
            clean_up_tokenization_spaces=kwargs.pop("clean_up_tokenization_spaces", False),
            **{**SPECIAL_TOKENS, **kwargs},
        )


def _byte_backend() -> Tokenizer:
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_of)
    tokens = [*SPECIAL_TOKENS.values(), *symbols]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _byte_of(symbol: str) -> int:
    """The byte that a symbol stands for: printable Latin-1 for itself, the rest in order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if ord(symbol) in printable:
        return ord(symbol)
    return [byte for byte in range(256) if byte not in printable][ord(symbol) - 256]


def load_tokenizer(pretrained_model_name_or_path: str | Path | None = None) -> Any:
    """Load a tokenizer folder, without the network; `ByteTokenizer` if none is named.

    Code that the folder brings is not run.

    Args:
        pretrained_model_name_or_path: a folder that `save_pretrained` wrote. (The name is that
            of the host's configs, whose default it has to replace.)

    Returns:
        The tokenizer, with the `full_vocab_size` that the host asks for.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the folder holds no tokenizer, or one without mask, pad, BOS or EOS token.
    """
    if pretrained_model_name_or_path is None:
        return ByteTokenizer()
    folder = Path(pretrained_model_name_or_path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder; a tokenizer is read from a folder that "
            "tokenizer.save_pretrained(folder) wrote. Names on the Hugging Face hub are not "
            "looked up here"
        )
    try:
        if _saved_class(folder) == ByteTokenizer.__name__:
            tokenizer = ByteTokenizer.from_pretrained(folder)
        else:
            # Not None, which asks at the terminal whether to run the folder's code.
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    # Files that hold something else make the libraries fail in any way, TypeError included.
    except Exception as error:
        raise ValueError(f"no tokenizer could be read from {folder}: {error}") from error
    for name, why in (
        ("mask", "stand for the tokens to predict"),
        ("pad", "fill rows of unequal length"),
        ("bos", "mark where a document begins"),
        ("eos", "mark where a document ends"),
    ):
        require_token_id(tokenizer, name, why)
    if not hasattr(tokenizer, "full_vocab_size"):
        tokenizer.full_vocab_size = len(tokenizer)
    return tokenizer


def _saved_class(folder: Path) -> str | None:
    """The class that a folder says it needs; None if it says nothing."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    content = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{config.name} holds a {type(content).__name__}; it must hold an object")
    return content.get("tokenizer_class")
