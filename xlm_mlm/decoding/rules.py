"""The rules of a predictor, made from its options and checked against each other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlm_mlm.checks import require_int, require_number
from xlm_mlm.sampling.blocks import Blocks
from xlm_mlm.sampling.constraints import AllowedTokens
from xlm_mlm.sampling.named import make_rule
from xlm_mlm.sampling.positions import PositionStrategy, make_strategy
from xlm_mlm.sampling.revise import Revision
from xlm_mlm.sampling.tokens import TokenSampler


@dataclass
class Rules:
    """What a pass does.

    Attributes:
        strategy: which masks to fill.
        sampler: what to put there.
        revision: what to take back.
        blocks: where to look for masks.
        cfg_scale: strength of the guidance; 0 is none.
        suppress_tokens: ids and tokens that are never produced, besides the mask token.
        allowed: what may stand where.
    """

    strategy: PositionStrategy
    sampler: TokenSampler
    revision: Revision | None = None
    blocks: Blocks | None = None
    cfg_scale: float = 0.0
    suppress_tokens: Sequence[int | str] = ()
    allowed: AllowedTokens | None = None

    @property
    def by_scores(self) -> bool:
        """Whether the revision chooses the positions, from the scores of all tokens."""
        return self.revision is not None and self.revision.needs_scores

    @property
    def needs_p(self) -> bool:
        """Whether the probabilities of committed tokens are kept."""
        return bool(getattr(self.revision, "needs_p", False))


def make_rules(
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    confidence: Any,
    threshold: float | None,
    confidence_temperature: float,
    strategy: Any,
    revision: Any,
    block_length: int | None,
    cfg_scale: float,
    suppress_tokens: Any,
    allowed_tokens: Any,
) -> Rules:
    """Make the rules that the predictor's options of the same names mean.

    Raises:
        ValueError: an option is unknown or out of range, or two contradict each other.
    """
    if strategy is not None and (confidence, threshold) != (None, None):
        raise ValueError(
            f"strategy is set together with confidence={confidence!r} and "
            f"threshold={threshold!r}; give one or the other"
        )
    default = make_strategy(confidence, threshold, confidence_temperature)
    named, revising = make_rule(strategy, "select"), make_rule(revision, "remask")
    chosen = default if named is None else named
    if revising is not None:
        free = named is None and confidence is None
        _check_revision(revision, revising, block_length, free)
        if free and getattr(revising, "selection", None) is not None:
            chosen = revising.selection
    return Rules(
        chosen,
        TokenSampler(temperature, top_k, top_p),
        revising,
        None if block_length is None else Blocks(block_length),
        _cfg_scale(cfg_scale),
        _suppressed(suppress_tokens),
        None if allowed_tokens is None else AllowedTokens(allowed_tokens),
    )


def _suppressed(given: Any) -> list[int | str]:
    if given is None:
        return []
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"suppress_tokens is {given!r}; it must be a list of token ids or tokens")
    return [
        token if isinstance(token, str) else require_int("a token of suppress_tokens", token, 0)
        for token in given
    ]


def _cfg_scale(given: Any) -> float:
    rule = "from 0 (off) to a million"
    scale = require_number("cfg_scale", given, 0, rule)
    if scale > 1e6:
        raise ValueError(f"cfg_scale is {given}; it must be {rule}")
    return scale


def _check_revision(given: Any, revision: Revision, block_length: Any, free: bool) -> None:
    if block_length is not None:
        raise ValueError(
            f"block_length is {block_length} and revision is {given!r}; a token that is taken back "
            "would open its finished block again, so leave one of them None"
        )
    if revision.needs_scores and not free:
        raise ValueError(
            f"revision is {given!r}, which chooses the positions itself; leave strategy, "
            "confidence and threshold None"
        )
