"""Models that differ from the minimal one and are right, and faults that are hard to see."""

from dataclasses import replace

import pytest
import torch
from mutant import Mutant, edit, install, results

from xlm_mlm.conformance import calling
from xlm_mlm.conformance.adapter import Adapter
from xlm_mlm.conformance.rules import RULES, Broken, CannotRun

EVERY_RULE = sorted(name for name in RULES if name.startswith("model-"))
FORWARD = "        attention_mask: Bool[Tensor"
HEAD = "self.head = torch.nn.Linear(d_model, num_embeddings)"
EMBED = "self.embed_tokens(input_ids) + self.embed_positions(positions)"
ALLOWED = "allowed = seen[:, None, None, :] | itself"
RETURN = "return self.head(self.norm(x))"
ZERO_HEAD = edit("model.py", HEAD, f"{HEAD}\n        torch.nn.init.zeros_(self.head.weight)")


class FirstOfTwo(Adapter):
    def call_model(self, model, input_ids, attention_mask):
        return model(input_ids, attention_mask)[0]


class WithTime(Adapter):
    def call_model(self, model, input_ids, attention_mask):
        return model(input_ids, torch.full((len(input_ids),), 0.5), attention_mask)


@pytest.fixture
def check(site):
    """Install the minimal plugin with some edits, and return what fails of some rules."""

    def run(edits, *rules, adapter=None):
        subject = install(site.folder, Mutant("", tuple(edits), says=""))
        subject = replace(subject, adapter=adapter or subject.adapter)
        return [found for found in results(subject, *rules) if found.outcome != "passed"]

    return run


CORRECT = {
    "starts with a head of zeros": [ZERO_HEAD],
    "ties its head to its embedding": [
        edit("model.py", HEAD, f"{HEAD}\n        self.head.weight = self.embed_tokens.weight")
    ],
    "rules the mask token out": [
        edit(
            "model.py",
            RETURN,
            "scores = self.head(self.norm(x))\n"
            "        mask_id = torch.tensor([6])\n"
            "        return scores.index_fill(-1, mask_id, -torch.inf)",
        )
    ],
    "has padding_idx": [
        edit(
            "model.py",
            "Embedding(num_embeddings, d_model)",
            "Embedding(num_embeddings, d_model, 3)",
        )
    ],
    "sees only what came before": [
        edit("model.py", ALLOWED, f"{ALLOWED}\n        allowed &= torch.ones_like(itself).tril()")
    ],
    "has frozen parameters": [
        edit(
            "model.py",
            HEAD,
            f"{HEAD}\n        self.fixed = torch.nn.Parameter(torch.ones(1), False)",
        )
    ],
}


@pytest.mark.parametrize("edits", CORRECT.values(), ids=CORRECT.keys())
def test_a_correct_model_passes(check, edits):
    assert check(edits, *EVERY_RULE) == []


def test_what_a_head_of_zeros_hides_is_found(check):
    everything = edit(
        "model.py", ALLOWED, "allowed = torch.ones_like(seen)[:, None, None] | itself"
    )
    found = check([ZERO_HEAD, everything], "model-attention-mask", "model-padding")
    assert [result.outcome for result in found] == ["broken", "broken"]


def test_an_adapter_calls_a_model_that_returns_a_tuple(check):
    edits = (
        edit("model.py", RETURN, f"{RETURN}, x"),
        edit("loss.py", 'batch["attention_mask"])', 'batch["attention_mask"])[0]'),
    )
    assert check(edits, *EVERY_RULE, adapter=FirstOfTwo()) == []
    found = check(edits, "model-batch")
    assert "let an adapter give `call_model`" in found[0].message


def test_a_further_argument_needs_an_adapter(check):
    edits = (
        edit("model.py", FORWARD, f"        time: Tensor,\n{FORWARD}"),
        edit(
            "model.py",
            EMBED,
            f"{EMBED} + time.view(-1, 1, 1)",
        ),
        edit("loss.py", '(batch["input_ids"], batch', '(batch["input_ids"], torch.zeros(1), batch'),
        edit("loss.py", "from torch import Tensor", "import torch\nfrom torch import Tensor"),
    )
    assert check(edits, *EVERY_RULE, adapter=WithTime()) == []
    for found in check(edits, "model-padding", "model-optional-arguments"):
        assert found.outcome == "could not run"
        assert "needs 'time' besides the ids" in found.message


class OnlyIds(torch.nn.Module):
    def forward(self, ids, **options):
        return options


class NoMask(torch.nn.Module):
    def forward(self, ids):
        return ids


def test_the_standard_call_passes_what_forward_takes():
    mask = torch.tensor([[False, True, True]])
    assert list(calling.arguments(OnlyIds(), mask)) == ["attention_mask"]
    assert calling.arguments(NoMask(), mask) == {}


def test_positions_are_counted_over_tokens():
    class Both(torch.nn.Module):
        def forward(self, ids, *, positions, attention_mask=None): ...

    given = calling.arguments(Both(), torch.tensor([[0, 0, 1, 1, 0]]))
    assert given["positions"].tolist() == [[0, 0, 0, 1, 1]]


def test_a_model_without_a_mask_must_say_so(check):
    lines = edit(
        "model.py",
        '        attention_mask: Bool[Tensor, "B L"] | Integer[Tensor, "B L"] | None = None,\n',
        "",
    )
    start = edit(
        "model.py",
        "if attention_mask is None:",
        "attention_mask = None\n        if attention_mask is None:",
    )
    for found in check([lines, start], "model-attention-mask", "model-padding"):
        assert found.outcome == "could not run"
        assert "declare `attention_mask` absent" in found.message


def test_rounding_is_no_difference_and_a_token_is():
    scores = torch.tensor([[1.0, -torch.inf, 3.0]])
    calling.expect_same(scores + 1e-6, scores, "a sum", None)
    for wrong in (scores + 1e-2, scores * torch.nan, scores[:, :2]):
        with pytest.raises(Broken):
            calling.expect_same(wrong, scores, "a sum", None)


@pytest.mark.parametrize("bad", [[1.0, torch.nan], [1.0, torch.inf], [-torch.inf, -torch.inf]])
def test_logits_that_no_softmax_can_take(bad):
    with pytest.raises(Broken, match="1 of 2 positions"):
        calling.expect_usable(torch.tensor([[1.0, -torch.inf], bad]), "here", None)


def test_a_forward_without_parameters():
    class Nothing(torch.nn.Module):
        def forward(self): ...

    with pytest.raises(CannotRun, match="takes nothing"):
        calling.forward_parameters(Nothing())
