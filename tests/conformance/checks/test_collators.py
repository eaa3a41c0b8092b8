"""Collators that differ from the minimal ones and are right, and what the checks are made of."""

from dataclasses import replace

import pytest
import torch
from mutant import Mutant, edit, install, results
from mutants.collators import DRAW, IDS, MASKED, PREDICTED, SEEN, TARGETS, WIDTH

from xlm_mlm.conformance.checks import collating, masking
from xlm_mlm.conformance.rules import RULES, CannotRun
from xlm_mlm.conformance.survey import survey

EVERY_RULE = sorted(name for name in RULES if name.startswith("collators-"))
PAD, EOS, MASK = 3, 5, 6


def text(*edits):
    return [edit("collators.py", old, new) for old, new in edits]


CORRECT = {
    "replaces some tokens by others": text(
        (IDS, '"input_ids": (ids + masked).where(seen & (ids < 50), ids)')
    ),
    "draws with numpy": text(
        (DRAW, "import numpy\n    return torch.from_numpy(numpy.random.rand(*shape)) < rate")
    ),
    "gives no mask": text((SEEN, SEEN.replace('"attention_mask": seen,', ""))),
    "masks with integers": text((SEEN, SEEN.replace("seen", "seen.long()"))),
    "learns padding too": text(
        (MASKED, "masked = draw_masks(ids.shape)"),
        (TARGETS, '"target_ids": ids'),
        (SEEN, SEEN.replace("seen", "seen | True")),
    ),
    "has targets at masks alone": text((TARGETS, TARGETS.replace("~seen", "~masked"))),
    "pads to the longest": text((WIDTH, WIDTH.replace("self.block_size", "max(map(len, rows))"))),
    "brings other things": text(
        (TARGETS, f'{TARGETS}, "rate": torch.tensor(0.5), "cut": torch.arange(9), "names": ["x"]')
    ),
    "lets masks follow the prompt": text(
        (
            PREDICTED,
            "masks = torch.full_like(target_ids, 6)\n"
            "        prompt_ids = torch.cat([prompt_ids, masks], dim=1)\n"
            "        prompt_seen = torch.cat([prompt_seen, masks > 0], dim=1)\n"
            f"        {PREDICTED}",
        )
    ),
    "refuses long rows": text(
        (
            "            if len(example[field]) == 0:",
            "            if len(example[field]) > self.block_size:\n"
            '                raise ValueError(f"row {i} is longer than {self.block_size}")\n'
            "            if len(example[field]) == 0:",
        )
    ),
}


def failed(site, edits, *rules, **changes):
    subject = replace(install(site.folder, Mutant("", tuple(edits), says="")), **changes)
    return [
        found for found in results(subject, *rules) if found.outcome not in ("passed", "absent")
    ]


@pytest.mark.parametrize("edits", CORRECT.values(), ids=CORRECT.keys())
def test_a_correct_collator_passes(site, edits):
    assert failed(site, edits, *EVERY_RULE) == []


def test_next_tokens_as_targets_must_be_declared(site):
    shifted = text(
        (TARGETS, '"target_ids": ids.masked_fill(~seen, IGNORE).roll(-1, dims=1)'),
        (IDS, '"input_ids": ids'),
    )
    assert [found.rule for found in failed(site, shifted, *EVERY_RULE)] == [
        "collators-aligned-targets"
    ]
    absent = {"aligned_targets": "of the next token", "mask_token": "none"}
    assert failed(site, shifted, *EVERY_RULE, absent=absent) == []


def test_every_part_is_named_in_what_it_breaks(site):
    found = failed(site, text((IDS, f"{IDS}.int()")), "collators-shapes")
    assert [result.outcome for result in found] == ["broken"]
    assert "DefaultCollator (experiment text_minimal, train.lm)" in found[0].message
    assert "look at: " in found[0].message
    assert "DefaultCollator.__call__" in found[0].message


@pytest.mark.parametrize(
    ("tokens", "ids", "found"),
    [
        ([8, 9], [4, 8, 9, 5, 3, 3], True),
        ([8, 9], [4, 8, 5, 3, 3, 3], False),
        ([8, 9], [4, 9, 8, 5, 3, 3], False),
        ([8, 9], [4, MASK, 9, 5, 3, 3], True),
        ([8, 9], [3, 3, 3, 3, 8, 9], True),
        ([8, 9, 10, 11, 12, 13], [4, 8, 9, 10, 11, 5], True),
        ([8, 9, 10, 11, 12, 13], [9, 10, 11, 12, 13, 3], False),
        ([8, 9, 10, 11, 12, 13, 14, 15], [8, 9, 10, 11, 12, 13], True),
        ([8, 9], [8], True),
    ],
)
def test_tokens_are_found_in_one_piece(tokens, ids, found):
    assert masking._found(tokens, ids, MASK) is found


def part(minimal, name="train.lm"):
    parts = survey(minimal).parts["collator"]
    return next(part for part in parts if str(part.loader) == name)


def refuse(message):
    raise ValueError(message)


@pytest.mark.parametrize(
    ("function", "meant"),
    [
        (lambda: refuse("row 3 has no tokens"), True),
        (lambda: refuse("no"), False),
        (lambda: max([]), False),
        (lambda: torch.tensor([[1], [2, 3]]), False),
    ],
)
def test_only_an_error_raised_on_purpose_is_a_refusal(function, meant):
    with pytest.raises(ValueError, match="no|empty|expected sequence") as caught:
        function()
    assert collating._is_meant(caught.value) is meant


def test_a_broken_sparse_tensor_is_an_error_not_a_crash():
    def collator(rows):
        indices = torch.tensor([[0], [99]])
        return torch.sparse_coo_tensor(
            indices, torch.ones(1), (2, 3), check_invariants=False
        ).to_dense()

    with pytest.raises(RuntimeError, match="size is inconsistent with indices"):
        collating.call(collator, [])


def test_a_batch_without_targets_says_what_to_declare(minimal):
    one = collating.Draw(part(minimal), {"input_ids": torch.zeros(2, 3, dtype=torch.long)})
    with pytest.raises(CannotRun, match="declares `target_ids` absent"):
        _ = one.targets
    assert one.attended.all()
    assert not one.masked.any()


def test_rows_are_stretched_together():
    from xlm_mlm.conformance.checks.collators import _stretched

    row = {"prompt_ids": [MASK, 8], "input_ids": [7, 8], "answer": "w1", "empty": []}
    assert _stretched(row, 5) == {
        "prompt_ids": [MASK, 8, MASK, 8, MASK],
        "input_ids": [7, 8, 7, 8, 7],
        "answer": "w1",
        "empty": [],
    }
