"""Which tokens may be produced at all, and which at a position."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.checks import require_int, shown

_RANGE = re.compile(r"(\d*):(\d*)")
OTHERS = "others"


def token_ids(tokens: Any, tokenizer: Any, option: str) -> list[int]:
    """The ids of some tokens.

    Args:
        tokens: ids, and tokens as the tokenizer writes them.
        tokenizer: asked for the ids of tokens given as text.
        option: where they come from, for messages.

    Raises:
        ValueError: it is no list, or holds something that is no token.
    """
    if isinstance(tokens, str | Mapping) or not isinstance(tokens, Iterable):
        raise ValueError(f"{option} is {tokens!r}; it must be a list of token ids or tokens")
    return [_token_id(token, tokenizer, option) for token in tokens]


def _token_id(token: Any, tokenizer: Any, option: str) -> int:
    if not isinstance(token, str):
        return require_int(f"a token of {option}", token, 0)
    if tokenizer is None:
        raise ValueError(f"{option} names the token {token!r}; there is no tokenizer to look it up")
    try:
        found = tokenizer.convert_tokens_to_ids(token)
    except (KeyError, ValueError):
        found = None
    unknown = getattr(tokenizer, "unk_token_id", None)
    if found is None or (found == unknown and token != tokenizer.unk_token):
        raise ValueError(f"{option} names {token!r}, which is no token of the tokenizer")
    return int(found)


class AllowedTokens:
    """The tokens that may stand at each position.

    Args:
        given: one of
            - a list of ids or tokens, for every position;
            - a mapping from positions, `3` or `"1:17"` (from 0, padding not counted, the end not
              included), to such lists; `others` says what the rest may hold, and without it they
              may hold anything;
            - booleans (V,), or (L, V) by column;
            - a callable that takes the rows x (B, L) and flat, row-major indices into them (N,),
              and returns booleans (N, V): so what is allowed may depend on what stands elsewhere.

    Raises:
        ValueError: it is none of these, or positions overlap or are no positions.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        self._parts: list[tuple[range, Any]] = []
        self._tables: dict[Any, Tensor] = {}
        if isinstance(given, Tensor):
            _check_booleans(given, "allowed_tokens", (1, 2))
        elif isinstance(given, Mapping):
            if not given:
                raise ValueError("allowed_tokens is an empty mapping; name a position, or 'others'")
            self._parts = [(_span(key), tokens) for key, tokens in given.items() if key != OTHERS]
            spans = sorted((span.start, span.stop) for span, _ in self._parts)
            for (_, stop), (start, _) in pairwise(spans):
                if start < stop:
                    raise ValueError(
                        f"allowed_tokens has position {start} twice; give each one once"
                    )
        elif callable(given):
            _check_takes_two(given)
        elif isinstance(given, str) or not isinstance(given, Sequence):
            raise ValueError(
                f"allowed_tokens is {given!r}; it must be a list of tokens, a mapping from "
                "positions to lists, booleans (V,) or (L, V), or a callable"
            )

    def at(
        self,
        x: Integer[Tensor, "B L"],
        flat: Integer[Tensor, "N"],
        places: Integer[Tensor, "N"],
        tokenizer: Any,
        vocabulary: int,
    ) -> Bool[Tensor, "#N V"]:
        """What may stand at some positions.

        Args:
            x: the rows.
            flat: the positions, as row-major indices.
            places: where each stands in its sample.
            tokenizer: for tokens that were given as text.
            vocabulary: V.

        Raises:
            ValueError: a token is outside the vocabulary, or a shape does not fit.
        """
        if isinstance(self._given, Tensor):
            return booleans_at(self._given, "allowed_tokens", x.shape, flat, vocabulary)
        if callable(self._given):
            return _of_callable(self._given, x, flat, vocabulary)
        table = self._table(tokenizer, vocabulary)
        if not self._parts:
            return table[:1]
        line = torch.zeros_like(places)
        for number, (span, _) in enumerate(self._parts, 1):
            line[(places >= span.start) & (places < span.stop)] = number
        return table[line]

    def _table(self, tokenizer: Any, vocabulary: int) -> Bool[Tensor, "lines V"]:
        """A line for the positions that are not named, then one for each entry."""
        key = (id(tokenizer), vocabulary)
        if key not in self._tables:
            others = self._given
            if isinstance(self._given, Mapping):
                others = self._given.get(OTHERS)
            lists = [others, *(tokens for _, tokens in self._parts)]
            self._tables = {key: torch.stack([_line(t, tokenizer, vocabulary) for t in lists])}
        return self._tables[key]


def booleans_at(
    allowed: Bool[Tensor, "*shape"], name: str, shape: torch.Size, flat: Tensor, vocabulary: int
) -> Bool[Tensor, "#N V"]:
    """Rows of a table of booleans (V,), (L, V) or (B, L, V) for some positions of a batch.

    Raises:
        ValueError: the table does not fit the batch.
    """
    batch, length = shape
    _check_booleans(allowed, name, (1, 2, 3))
    if tuple(allowed.shape) != (batch, length, vocabulary)[3 - allowed.ndim :]:
        raise ValueError(
            f"{name} has shape {tuple(allowed.shape)}; for rows of shape {tuple(shape)} and "
            f"{vocabulary} tokens it must be ({vocabulary},), ({length}, {vocabulary}) or "
            f"({batch}, {length}, {vocabulary})"
        )
    flat = flat.to(allowed.device)
    if allowed.ndim == 1:
        return allowed[None]
    return allowed[flat % length] if allowed.ndim == 2 else allowed.flatten(0, 1)[flat]


def forbid(
    logits: Float[Tensor, "N V"], allowed: Bool[Tensor, "#N V"], columns: Integer[Tensor, "N"]
) -> Float[Tensor, "N V"]:
    """The logits, changed in place: tokens that are not allowed have probability 0.

    Args:
        logits: the caller's own.
        allowed: True where a token may be produced.
        columns: of the positions, for the message.

    Raises:
        ValueError: (looked for on the CPU only) a position is left without a token.
    """
    logits.masked_fill_(~allowed.to(logits.device), -torch.inf)
    if logits.device.type == "cpu" and logits.numel():
        empty = logits.amax(dim=-1) == -torch.inf
        if empty.any():
            raise ValueError(
                f"no token is allowed at {int(empty.sum())} of {len(logits)} positions, the first "
                f"in column {int(columns[empty.nonzero()[0]])}; allowed_tokens must leave one that "
                "suppress_tokens does not take"
            )
    return logits


def _line(tokens: Any, tokenizer: Any, vocabulary: int) -> Bool[Tensor, "V"]:
    if tokens is None:
        return torch.ones(vocabulary, dtype=torch.bool)
    ids = token_ids(tokens, tokenizer, "allowed_tokens")
    if max(ids, default=0) >= vocabulary:
        raise ValueError(
            f"allowed_tokens names token {max(ids)}; the model's vocabulary is {vocabulary}"
        )
    line = torch.zeros(vocabulary, dtype=torch.bool)
    line[ids] = True
    return line


def _span(key: Any) -> range:
    found = _RANGE.fullmatch(key) if isinstance(key, str) else None
    if found:
        begin, end = found.groups()
        span = range(int(begin or 0), int(end) if end else 2**31)
        if len(span):
            return span
    elif not isinstance(key, bool) and str(key).isdecimal():
        return range(int(key), int(key) + 1)
    raise ValueError(
        f"allowed_tokens names the position {key!r}; it must be a number from 0, a range as "
        f"'1:17', or {OTHERS!r}"
    )


def _check_booleans(given: Any, name: str, dimensions: tuple[int, ...]) -> None:
    fits = isinstance(given, Tensor) and given.dtype == torch.bool and given.ndim in dimensions
    if not fits:
        shape = f" of shape {tuple(given.shape)}" if isinstance(given, Tensor) else ""
        kind = given.dtype if isinstance(given, Tensor) else f"{given!r:.60}"
        raise ValueError(
            f"{name} is {kind}{shape}; it must be a boolean tensor, with the vocabulary as its "
            "last dimension"
        )


def _check_takes_two(given: Callable[..., Any]) -> None:
    try:
        inspect.signature(given).bind(None, None)
    except TypeError as error:
        raise ValueError(
            f"allowed_tokens is {shown(given)}, which can't be called: {error}; it must take two "
            "arguments, the rows x (B, L) and flat indices into them (N,)"
        ) from error
    except ValueError:  # of something built in, nothing is known
        pass


def _of_callable(
    given: Callable[[Tensor, Tensor], Any], x: Tensor, flat: Tensor, vocabulary: int
) -> Bool[Tensor, "N V"]:
    found = given(x, flat.to(x.device))
    right = (len(flat), vocabulary)
    fits = isinstance(found, Tensor) and found.dtype == torch.bool and found.shape == right
    if not fits:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"allowed_tokens returned {shape}; it must return booleans of shape {right}"
        )
    return found
