"""Collators that break the rules of `checks/collators.py` and `checks/masking.py`."""

from mutant import Mutant, edit

TOKENIZER = "        self.tokenizer = tokenizer\n        self.block_size"
DRAW = "return torch.rand(shape) < rate"
# What the collator of running text does.
MASKED = "masked = draw_masks(ids.shape) & seen"
SEEN = '"attention_mask": seen,\n            "target'
IDS = '"input_ids": ids.masked_fill(masked, self.tokenizer.mask_token_id)'
TARGETS = '"target_ids": ids.masked_fill(~seen, IGNORE)'
CUT = 'row[: self.block_size] for row in self.read(examples, "input_ids")'
UNCUT = (CUT, 'row for row in self.read(examples, "input_ids")')
WIDTH = "pad_rows(rows, self.block_size, self.tokenizer.pad_token_id)\n\n    def read"
COPIES = "return [list(example[field]) for example in examples]"
# Rows that are nothing but masks.
MASKS = 'return {"input_ids": ids, "attention_mask": seen}'
# Pairs: prompts on the left.
PROMPTS = 'rows = [row[-self.input_block_size :] for row in self.read(examples, "prompt_ids")]'
PAIRS = '"input_ids": torch.cat([prompt_ids, noisy_ids], dim=1)'
PAIR_TARGETS = '"target_ids": torch.cat([no_targets, answer_ids], dim=1)'
PREDICTED = 'return {"input_ids": prompt_ids, "attention_mask": prompt_seen, "target'
DECODED = '"target_ids": target_ids}'
REFUSED = """raise ValueError(f"row {i} has no tokens in {field!r}; leave such rows out")"""


def collator(rule: str, says: str, *edits: tuple[str, str], outcome: str = "broken") -> Mutant:
    """A mutant of `collators.py`."""
    changed = tuple(edit("collators.py", old, new) for old, new in edits)
    return Mutant(rule, changed, says=says, outcome=outcome)


FORM = [
    collator("collators-protocol", "is a list, not a mapping", (MASKS, "return [ids, seen]")),
    collator(
        "collators-protocol",
        "holds ids, attention_mask, but no input_ids",
        (MASKS, MASKS.replace('"input_ids"', '"ids"')),
    ),
    collator("collators-protocol", r"the keys \[0\]", (MASKS, MASKS.replace("}", ", 0: 1}"))),
    Mutant(
        "collators-protocol",
        (
            edit("collators.py", "", "\n\ndef no_collator(**_):\n    return 7\n"),
            edit(
                "configs/collator/unconditional_pred_minimal.yaml",
                "UnconditionalPredCollator",
                "no_collator",
            ),
        ),
        says="is a int that can't be called",
    ),
    collator(
        "collators-picklable",
        "pickling the collator and reading it back raises",
        (TOKENIZER, "        self.length = lambda row: len(row)\n" + TOKENIZER),
    ),
    collator(
        "collators-picklable",
        "attention_mask was torch.bool with 2 dimensions; .* pickled it is not there",
        (TOKENIZER, "        self.masks = True\n" + TOKENIZER),
        (
            "    def blocks(self",
            "    def __getstate__(self):\n"
            '        return {**vars(self), "masks": False}\n\n    def blocks(self',
        ),
        (SEEN, SEEN.replace('"attention_mask"', '("attention_mask" if self.masks else "mask")')),
    ),
    collator("collators-shapes", "torch.int32", (IDS, f"{IDS}.int()")),
    collator("collators-shapes", r"int64 \(12, 4\)", (MASKS, MASKS.replace("ids,", "ids.T,"))),
    collator("collators-shapes", "ids 0 to 54", (MASKS, MASKS.replace("ids,", "ids + 50,"))),
    collator("collators-shapes", "float32", (SEEN, SEEN.replace("seen", "seen.float()"))),
    collator("collators-shapes", "one shape", (SEEN, SEEN.replace("seen", "seen[:, :-1]"))),
    collator("collators-shapes", "0 and 1 may be", (SEEN, SEEN.replace("seen", "2 * seen.long()"))),
    collator("collators-shapes", "row 0 has no pos", (SEEN, SEEN.replace("seen", "seen & False"))),
    collator("collators-shapes", "the 4 rows", (TARGETS, TARGETS + "[:1]")),
]

CONDUCT = [
    collator(
        "collators-inputs-unchanged",
        "row 0 was .* and is .* afterwards",
        (COPIES, f"examples[0][field].append(5)\n        {COPIES}"),
    ),
    collator(
        "collators-inputs-unchanged",
        "row 0 was .*prompt_ids.* afterwards",
        (PROMPTS, f'{PROMPTS}\n        [example.pop("prompt_ids") for example in examples]'),
    ),
    collator(
        "collators-random",
        "input_ids differs .* the seed 0: ",
        ("class DefaultCollator", "GENERATOR = torch.Generator()\n\n\nclass DefaultCollator"),
        (DRAW, "return torch.rand(shape, generator=GENERATOR) < rate"),
    ),
    collator(
        "collators-random",
        r"input_ids differs .* at \[",
        (DRAW, f"import secrets\n\n    torch.manual_seed(secrets.randbits(32))\n    {DRAW}"),
    ),
]

SIZES = [
    collator("collators-empty", "row 1 has no position", (REFUSED, "pass")),
    collator("collators-empty", "in IndexError: bad", (REFUSED, 'raise IndexError("bad row")')),
    collator("collators-empty", "by accident in ValueError: max", (REFUSED, "max([])")),
    collator("collators-empty", "accident in ValueError: no", (REFUSED, 'raise ValueError("no")')),
    collator("collators-over-long", "of 68 tokens ends in .*Error", UNCUT),
    collator(
        "collators-over-long",
        "68 positions; the model takes 12",
        UNCUT,
        (WIDTH, WIDTH.replace("self.block_size", "max(self.block_size, *map(len, rows))")),
    ),
    collator(
        "collators-over-long",
        r"row 0 hold none of its own tokens \(they hold only -100\)",
        (PAIR_TARGETS, "**self.targets(no_targets, answer_ids, examples)"),
        (
            "    def prompts(\n",
            "    def targets(self, prompts, answers, examples):\n"
            "        long = [len(e['prompt_ids']) > self.input_block_size for e in examples]\n"
            "        answers = answers.masked_fill(torch.tensor(long)[:, None], IGNORE)\n"
            '        return {"target_ids": torch.cat([prompts, answers], dim=1)}\n\n'
            "    def prompts(\n",
        ),
    ),
    collator(
        "collators-over-long",
        "nothing of row 0's prompt is left",
        (PROMPTS, PROMPTS.replace(":]", ":] if len(row) < 20 else [5]")),
    ),
]

MASKING = [
    collator("collators-masks", "masks stand in the padding", (MASKED, MASKED[:-7])),
    collator(
        "collators-masks",
        r"row \d lacks the tokens .* of its prompt",
        (PAIRS, PAIRS.replace("prompt_ids", "prompt_ids.masked_fill(rates & prompt_seen, 6)")),
        ("no_targets = torch", "rates = draw_masks(prompt_ids.shape)\n        no_targets = torch"),
    ),
    collator(
        "collators-masks",
        r"row \d lacks the tokens .* \(it has 0 masks\)",
        (PROMPTS, PROMPTS.replace("-self.input_block_size :", "-2:")),
    ),
    collator(
        "collators-masks",
        r"row 0 has \d to \d masks in 10 draws",
        (MASKS, f"ids = ids.masked_fill(draw_masks(ids.shape), 5)\n        {MASKS}"),
    ),
    collator(
        "collators-masks",
        "row 0 holds 6 masks, and 12 in the batch",
        (MASKS, 'return {"input_ids": ids * 0 + 6, "attention_mask": seen | True}'),
    ),
    collator(
        "collators-masks",
        "row 0 holds 2 masks, and 0 in the batch",
        (PREDICTED, PREDICTED.replace("prompt_ids", "prompt_ids.masked_fill(prompt_ids == 6, 5)")),
    ),
    collator(
        "collators-masks",
        r"row \d is .* allow \d and show the rest",
        (
            MASKED,
            f"{MASKED}\n"
            '        if any(len(e["prompt_ids"]) != len(e["input_ids"]) for e in examples):\n'
            '            raise ValueError("prompt_ids must be input_ids with masks in them")',
        ),
    ),
]

TARGETS_OF = [
    collator(
        "collators-targets",
        r"the targets of row 0 hold \[5[0-4]",
        (TARGETS, '"target_ids": (ids + 20).masked_fill(~seen, IGNORE)'),
    ),
    collator("collators-targets", "hold .-1.;", (TARGETS, TARGETS.replace("IGNORE", "-1"))),
    Mutant(
        "collators-targets",
        (edit("collators.py", TARGETS, '"labels": ids'),),
        says="target_ids is NoneType, not a matrix .* declares `target_ids` absent",
        outcome="could not run",
    ),
    collator(
        "collators-aligned-targets",
        "input_ids of row 0 is .* do not stand in their order",
        (TARGETS, '"target_ids": ids.masked_fill(~seen, IGNORE).roll(-1, dims=1)'),
    ),
    collator(
        "collators-aligned-targets",
        "do not stand in their order",
        (PAIR_TARGETS, '"target_ids": torch.cat([no_targets, answer_ids.flip(1)], dim=1)'),
    ),
    collator(
        "collators-aligned-targets",
        r"target_ids is \(4, 11\), input_ids \(4, 12\)",
        (TARGETS, f"{TARGETS}[:, 1:]"),
    ),
    collator(
        "collators-prediction-targets",
        r"target_ids holds \[-100\]; it must hold ids from 0 to 54",
        (DECODED, '"target_ids": target_ids.masked_fill(target_ids == 3, IGNORE)}'),
    ),
    collator(
        "collators-prediction-targets",
        r"target_ids holds \[-100\]",
        (MASKS, MASKS.replace("}", ', "target_ids": ids.masked_fill(ids == 6, IGNORE)}')),
    ),
]

MUTANTS = [*FORM, *CONDUCT, *SIZES, *MASKING, *TARGETS_OF]
