"""What each token of a tokenizer reads as."""

from typing import Any

from xlm_mlm.checks import shown

_UNREADABLE = "\ufffd"


def check_reader(tokenizer: Any) -> Any:
    """Return a tokenizer that can say what its tokens read as.

    Raises:
        ValueError: it can't.
    """
    if not callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
        raise ValueError(
            f"tokenizer is {shown(tokenizer)}; it must be a tokenizer, with convert_ids_to_tokens"
        )
    return tokenizer


def texts_of(tokenizer: Any) -> list[str]:
    """The text of every token id, from 0 on.

    A word's leading space is part of its text. A token that is no text by itself, such as one
    byte of several, is given as the tokenizer names it.
    """
    size = getattr(tokenizer, "full_vocab_size", None) or len(tokenizer)
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(list(range(size)))]
    special = set(getattr(tokenizer, "all_special_tokens", ()))
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return names
    return [
        name if name in special else _text(tokenizer, number, name)
        for number, name in enumerate(names)
    ]


def _text(tokenizer: Any, number: int, name: str) -> str:
    # SentencePiece's sign of a space, which decoding drops at the start of a text.
    if name.startswith("\u2581"):
        return name.replace("\u2581", " ")
    text = tokenizer.backend_tokenizer.decode([number], skip_special_tokens=False)
    return name if not text or _UNREADABLE in text else text
