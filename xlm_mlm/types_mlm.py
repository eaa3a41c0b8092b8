"""The vocabulary of the package: batches, predictions, step results, and the model protocol.

Shapes: B = batch, L = sequence length, P = prompt length, V = vocabulary size.
Everything above this floor speaks in these types.
"""

from typing import Any, NotRequired, Protocol, TypedDict

from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor

IGNORE_INDEX = -100
"""Target of a position that never counts in the loss (torch's own convention)."""


class MLMBatch(TypedDict):
    """What the training collators emit and the loss reads.

    Attributes:
        input_ids: the tokens the model sees, some of them replaced by the mask token.
        attention_mask: True where a token may be attended to. Absent in packed batches.
        target_ids: the tokens before masking; -100 where nothing is to be predicted.
            None in prediction batches without a known answer.
        positions: rotary positions; derived from `attention_mask` when absent.
        segment_ids: packed batches only: the number of the segment each token belongs to.
        block_mask: FlexAttention `BlockMask`; when present, `attention_mask` is ignored.
        fixed_positions_mask: True where the token was given and never masked (infilling, prompts).
        elbo_weights: weight of each row in the bound on the likelihood, where it does not follow
            from the counts of maskable and masked tokens (`MLMLoss`, `loss_weighting="elbo"`).
        sample_ids: prediction: the number of each sample, the key of its random stream.
        allowed_tokens: prediction: True where a token may be produced; (V,), (L, V) or (B, L, V),
            L with the appended masks.
    """

    input_ids: Integer[Tensor, "B L"]
    attention_mask: NotRequired[Bool[Tensor, "B L"]]
    target_ids: Integer[Tensor, "B L"] | None
    positions: NotRequired[Integer[Tensor, "B L"] | None]
    segment_ids: NotRequired[Integer[Tensor, "B L"]]
    block_mask: NotRequired[Any]
    fixed_positions_mask: NotRequired[Bool[Tensor, "B L"] | None]
    elbo_weights: NotRequired[Float[Tensor, "B"]]
    sample_ids: NotRequired[Integer[Tensor, "B"]]
    allowed_tokens: NotRequired[Bool[Tensor, "*shape"]]


class PackedFlexMLMBatch(TypedDict):
    """What `PackedMLMCollator` emits: whole blocks, several segments in each, no padding.

    The `BlockMask` is built from `segment_ids` by `MLMLoss.__call__`, on the training device:
    its mask function is a closure, which a DataLoader worker could not send.
    """

    input_ids: Integer[Tensor, "B L"]
    target_ids: Integer[Tensor, "B L"]
    positions: Integer[Tensor, "B L"]
    segment_ids: Integer[Tensor, "B L"]
    block_mask: NotRequired[Any]
    elbo_weights: NotRequired[Float[Tensor, "B"]]


class MLMSeq2SeqPredictionBatch(TypedDict):
    """A left-padded prompt to be continued.

    Attributes:
        input_ids: the prompts, all ending in the last column.
        attention_mask: False at the padding on the left.
        target_ids: the right-padded answers, where known; their width is their own.
    """

    input_ids: Integer[Tensor, "B P"]
    attention_mask: Bool[Tensor, "B P"]
    target_ids: NotRequired[Integer[Tensor, "B T"]]


class MLMUncondtionalPredictionBatch(TypedDict):
    """Rows of mask tokens, as many as tokens are asked for (the field's own spelling)."""

    input_ids: Integer[Tensor, "B L"]
    attention_mask: Bool[Tensor, "B L"]


MLMUnconditionalPredictionBatch = MLMUncondtionalPredictionBatch


class MLMLossDict(TypedDict):
    """Output of the loss.

    Attributes:
        loss: a scalar, in nats a token.
        nll: in eval mode, if `num_mc_samples` is set: the estimated negative log-likelihood of
            each row, in nats.
        num_tokens: with `nll`: how many tokens of each row it counts.
    """

    loss: Float[Tensor, ""]
    nll: NotRequired[Float[Tensor, "B"]]
    num_tokens: NotRequired[Integer[Tensor, "B"]]


class MLMPredictionDict(TypedDict):
    """Output of `MLMPredictor.predict`, one entry a sample.

    Attributes:
        loss: None; the host looks the key up.
        text: the whole row decoded, prompt included.
        ids: the whole row, prompt included.
        time_taken: seconds from the start of the batch until the sample was complete.
        output_start_idx: where the appended tokens begin (equal entries); L if none were.
        steps_taken: forward passes in which the sample still had a mask.
        fid: the sample's folder in the history, when a history is kept.
    """

    loss: Float[Tensor, "B"] | None
    text: list[str]
    ids: Integer[Tensor, "B L"]
    time_taken: list[float]
    output_start_idx: Integer[Tensor, "B"]
    steps_taken: list[int]
    fid: NotRequired[list[str]]


class MLMStepResults(TypedDict):
    """State of the decoding loop after a pass; always holds all B rows.

    Attributes:
        x: the sequences, masks not yet filled included.
        attention_mask: as in the batch, extended over appended positions; None if absent.
        positions: rotary positions, where the batch gave them.
        block_mask: as in the batch.
        logits: the model's logits of this pass, 0 at positions that were not masked in it;
            None unless a history asks for them.
        masked: the masks left after this pass, on the CPU.
        filled: the positions committed in this pass, on the CPU.
        taken_back: committed positions that are masks again after this pass, on the CPU.
        generated: the positions that were not given, on the CPU.
        p: where a revision asks for it, the probability with which each token was committed.
        memory: notes of the position rule, from pass to pass.
        allowed: the batch's `allowed_tokens`.
        steps_taken: passes so far in which the row still had a mask, on the CPU.
        done: rows with no mask left, on the CPU.
        active: rows that took part in this pass, on the CPU.
        current_step: passes done.
        sample_ids: number of each sample, the key of its random stream, on the CPU.
        places: where each position stands in its sample, padding not counted, on the CPU.
    """

    x: Integer[Tensor, "B L"]
    attention_mask: Bool[Tensor, "B L"] | None
    positions: Integer[Tensor, "B L"] | None
    block_mask: NotRequired[Any]
    logits: Float[Tensor, "B L V"] | None
    masked: NotRequired[Bool[Tensor, "B L"]]
    filled: NotRequired[Bool[Tensor, "B L"]]
    taken_back: NotRequired[Bool[Tensor, "B L"]]
    generated: NotRequired[Bool[Tensor, "B L"]]
    p: NotRequired[Float64[Tensor, "B L"]]
    memory: NotRequired[dict[str, Any]]
    allowed: NotRequired[Bool[Tensor, "*shape"] | None]
    steps_taken: Integer[Tensor, "B"]
    done: Bool[Tensor, "B"]
    active: Bool[Tensor, "B"]
    current_step: int
    sample_ids: NotRequired[Integer[Tensor, "B"]]
    places: NotRequired[Integer[Tensor, "B L"]]


class MLMModel(Protocol):
    """Anything that can stand in for the network: loss and predictor need no more than this.

    A model may also declare further keywords, and is then asked for less:

    - `logits_at` (flat row-major indices into B x L): the logits of those positions alone, as
      Float[N, V]. They are the caller's, who may change them.
    - `targets` and `target_weights` (N of each, with `logits_at`): instead of logits, the sum of
      the weighted cross-entropies, a scalar in fp32.
    """

    def __call__(
        self,
        x_t: Integer[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | None = None,
        positions: Integer[Tensor, "B L"] | None = None,
        block_mask: Any | None = None,
    ) -> Float[Tensor, "B L V"]:
        """Logits of every position; True in `attention_mask` is a token, False padding."""
        ...
