"""From rows of token ids to batches. DataLoader workers get pickled copies of these classes.

Shapes: B = rows, P = `input_block_size`, S = `block_size`. In every batch `attention_mask` is true
at tokens and false at padding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from torch.utils.data import Dataset
from xlm.datamodule import Collator

from xlm_minimal.loss import IGNORE

Row = Mapping[str, Any]


def pad_rows(
    rows: Sequence[list[int]], width: int, pad_id: int, left: bool = False
) -> tuple[Integer[Tensor, "B W"], Bool[Tensor, "B W"]]:
    """Pad rows to one width; return the ids, and where they are tokens."""
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    seen = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, where] = torch.tensor(row, dtype=torch.long)
        seen[i, where] = True
    return ids, seen


def draw_masks(shape: torch.Size) -> Bool[Tensor, "B W"]:
    """Draw a mask rate between 0 and 1 for each row, then each position at that rate."""
    rate = torch.rand(shape[0], 1)
    return torch.rand(shape) < rate


class DefaultCollator(Collator):
    """Training on running text. Rows: `{"input_ids": [...]}`.

    Args:
        tokenizer: with a mask and a padding token, for pairs an end-of-sequence token too.
        block_size: width of the batch, and the most tokens of a row that are kept.
        noise_schedule: part of the host's interface; this family draws its mask rates itself.

    Raises:
        ValueError: a size is below 1; when called, there are no rows or one has no tokens.
    """

    def __init__(self, tokenizer: Any, block_size: int, noise_schedule: Any = None) -> None:
        if block_size < 1:
            raise ValueError(f"block_size={block_size} must be at least 1")
        self.tokenizer = tokenizer
        self.block_size = block_size
        self.noise_schedule = noise_schedule

    def __call__(self, examples: Sequence[Row]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and `target_ids`, each (B, S).

        Padding is neither attended nor masked, and has no target (-100).
        """
        ids, seen = self.blocks(examples)
        masked = draw_masks(ids.shape) & seen
        return {
            "input_ids": ids.masked_fill(masked, self.tokenizer.mask_token_id),
            "attention_mask": seen,
            "target_ids": ids.masked_fill(~seen, IGNORE),
        }

    def blocks(self, examples: Sequence[Row]) -> tuple[Integer[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """Return the rows, cut and padded on the right to `block_size`."""
        rows = [row[: self.block_size] for row in self.read(examples, "input_ids")]
        return pad_rows(rows, self.block_size, self.tokenizer.pad_token_id)

    def read(self, examples: Sequence[Row], field: str) -> list[list[int]]:
        """Return copies of one field of all rows, or say what makes a batch impossible."""
        if not examples:
            raise ValueError("there are no rows to make a batch of; at least one is needed")
        for i, example in enumerate(examples):
            if len(example[field]) == 0:
                raise ValueError(f"row {i} has no tokens in {field!r}; leave such rows out")
        return [list(example[field]) for example in examples]


class UnconditionalPredCollator(DefaultCollator):
    """Generation from nothing. Rows: `{"input_ids": [...]}`, masks that come as they are."""

    def __call__(self, examples: Sequence[Row]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, each (B, S). There is no right answer."""
        ids, seen = self.blocks(examples)
        return {"input_ids": ids, "attention_mask": seen}


class Seq2SeqCollator(DefaultCollator):
    """Training on pairs. Rows: `{"prompt_ids": [...], "input_ids": [...]}`.

    Args:
        input_block_size: width of the prompts; a longer one loses its beginning, so that there is
            always room for the answer.
        tokenizer, block_size, noise_schedule: see `DefaultCollator`; `block_size` is the width of
            the answers.
    """

    def __init__(
        self, tokenizer: Any, block_size: int, input_block_size: int, noise_schedule: Any = None
    ) -> None:
        super().__init__(tokenizer, block_size, noise_schedule)
        if input_block_size < 1:
            raise ValueError(f"input_block_size={input_block_size} must be at least 1")
        self.input_block_size = input_block_size

    def __call__(self, examples: Sequence[Row]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and `target_ids`, each (B, P + S).

        The rest of an answer's block is filled with end-of-sequence tokens, to be learned like the
        others: when predicting, the model sees a whole block of masks, and nobody tells it how
        long the answer is.
        """
        prompt_ids, prompt_seen = self.prompts(examples)
        answers = self.answers(examples, fill=self.block_size)
        answer_ids = torch.tensor(answers, dtype=torch.long)
        masked = draw_masks(answer_ids.shape)
        noisy_ids = answer_ids.masked_fill(masked, self.tokenizer.mask_token_id)
        answer_seen = torch.ones_like(masked)
        no_targets = torch.full_like(prompt_ids, IGNORE)
        return {
            "input_ids": torch.cat([prompt_ids, noisy_ids], dim=1),
            "attention_mask": torch.cat([prompt_seen, answer_seen], dim=1),
            "target_ids": torch.cat([no_targets, answer_ids], dim=1),
        }

    def prompts(
        self, examples: Sequence[Row]
    ) -> tuple[Integer[Tensor, "B P"], Bool[Tensor, "B P"]]:
        """Return the prompts, all ending at the same position."""
        rows = [row[-self.input_block_size :] for row in self.read(examples, "prompt_ids")]
        return pad_rows(rows, self.input_block_size, self.tokenizer.pad_token_id, left=True)

    def answers(self, examples: Sequence[Row], fill: int) -> list[list[int]]:
        """Return the answers, each with `fill` end-of-sequence tokens, cut to `block_size`."""
        ends = [self.tokenizer.eos_token_id] * fill
        return [(row + ends)[: self.block_size] for row in self.read(examples, "input_ids")]


class Seq2SeqPredCollator(Seq2SeqCollator):
    """Predicting answers that are known. Rows as in `Seq2SeqCollator`."""

    def __call__(self, examples: Sequence[Row]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` (B, P), and `target_ids` (B, S).

        Targets end with one end-of-sequence token if it fits, and are padded with the padding
        token: the host decodes them, and -100 is no token.
        """
        prompt_ids, prompt_seen = self.prompts(examples)
        answers = self.answers(examples, fill=1)
        target_ids, _ = pad_rows(answers, self.block_size, self.tokenizer.pad_token_id)
        return {"input_ids": prompt_ids, "attention_mask": prompt_seen, "target_ids": target_ids}


class AllMaskDataset(Dataset):
    """`num_examples` rows of `max_length` masks, for generation from nothing."""

    def __init__(self, tokenizer: Any, num_examples: int, max_length: int) -> None:
        self.row = [tokenizer.mask_token_id] * max_length
        self.num_examples = num_examples

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self.num_examples:
            raise IndexError(f"row {index} of {self.num_examples}")
        return {"input_ids": list(self.row)}


def print_batch(
    batch: dict[str, Any], split: str, tokenizer: Any, dataloader_name: str = ""
) -> None:
    """Show the first row of a loader's first batch; the host calls this once a loader."""
    print(f"{split}/{dataloader_name}: {tokenizer.decode(batch['input_ids'][0].tolist())}")
