"""Losses that break the rules of `checks/loss.py`."""

from mutant import Mutant, edit

CLASS = "class MinimalLoss(LossFunction[dict[str, Any], dict[str, Any]]):"
CONFIGURE = '"""Called once, when the host knows its device. Nothing to prepare here."""'
RETURN = 'return {"loss": total / count.clamp(min=1)}'
TARGETS = 'batch["target_ids"].masked_fill(~masked, IGNORE)'
LOGITS = 'logits = self.model(batch["input_ids"], batch["attention_mask"])'
COMPILING = "\n        from torch import compiler\n        if compiler.is_compiling():"
CALL = "return self.loss_fn(batch, batch_idx, dataloader_idx, dataloader_name)"


def loss(rule: str, says: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant of `loss.py`."""
    return Mutant(rule, tuple(edit("loss.py", old, new) for old, new in edits), says=says)


def returning(rule: str, says: str, expression: str) -> Mutant:
    """A mutant of what `loss_fn` returns."""
    return loss(rule, says, (RETURN, f"return {expression}"))


PROTOCOL = [
    loss("loss-protocol", "has no attribute 'tokenizer'", ("self.tokenizer = tokenizer", "pass")),
    loss(
        "loss-protocol",
        "has no method 'configure'",
        (CLASS, "class MinimalLoss:"),
        ("def configure(", "def prepare("),
    ),
    loss(
        "loss-protocol",
        "`model` of MinimalLoss is another MinimalModel than the harness's",
        (CONFIGURE, "import copy; self.model = copy.deepcopy(self.model)"),
    ),
    loss(
        "loss-protocol",
        r"passing \(batch, 0, 0, 'lm'\) to MinimalLoss.__call__ raises TypeError",
        ("def __call__(\n        self,", "def __call__(\n        self, *,"),
    ),
]

SCALAR = [
    returning("loss-scalar", "returns a Tensor; it must be a dict", "total / count"),
    returning("loss-scalar", "returns 'nll', with no tensor as 'loss'", '{"nll": total}'),
    returning("loss-scalar", "returns 'loss', with no tensor as 'loss'", '{"loss": total.item()}'),
    returning("loss-scalar", r"of shape \(1,\)", '{"loss": (total / count)[None]}'),
    returning("loss-scalar", "'loss' is nan", '{"loss": (total - 1e9).log()}'),
    returning("loss-scalar", "does not require grad", '{"loss": total.detach()}'),
    Mutant(
        "loss-scalar",
        (
            edit(
                "configs/model_type/minimal.yaml",
                "_target_: xlm.harness.Harness",
                "_target_: xlm.harness.Harness\n  log: {train/accuracy: accuracy}",
            ),
        ),
        says="returns 'loss', with no tensor as 'accuracy'",
    ),
]

BATCH = [
    loss(
        "loss-batch-unchanged",
        "target_ids changed at",
        (TARGETS, TARGETS.replace("fill(", "fill_(")),
    ),
    loss(
        "loss-batch-unchanged",
        "masked is new",
        (LOGITS, f'{LOGITS}\n        batch["masked"] = logits'),
    ),
    loss(
        "loss-batch-unchanged",
        "attention_mask is gone",
        (LOGITS, LOGITS.replace('batch["attention_mask"]', 'batch.pop("attention_mask")')),
    ),
    returning("loss-zero-targets", "'loss' is nan; it must be finite", '{"loss": total / count}'),
    loss(
        "loss-zero-targets",
        "the gradient of .* is not finite",
        (
            RETURN,
            "kept = logits * (targets != IGNORE)[..., None]\n        "
            'return {"loss": total / count.clamp(min=1) + kept.square().sum().sqrt()}',
        ),
    ),
    returning(
        "loss-zero-targets",
        "does not require grad",
        '{"loss": total / count if count else total.new_zeros(())}',
    ),
]

TRAINING = [
    loss(
        "loss-overfits",
        "the loss went from .* to .*; it must fall by 30% at least",
        (CONFIGURE, "import copy; self.model = copy.deepcopy(self.model)"),
    ),
    loss("loss-overfits", "the loss went from", (LOGITS, f"{LOGITS}.detach().requires_grad_()")),
    returning("loss-overfits", "the loss went from", '{"loss": (2 * total).detach() - total}'),
    loss(
        "loss-compiles",
        "does not go through `self.loss_fn`",
        (CALL, CALL.replace("self.loss_fn(", "type(self).loss_fn(self, ")),
    ),
    loss(
        "loss-compiles",
        "compiled, the loss is .*; in eager mode",
        (LOGITS, f"{LOGITS}{COMPILING}\n            logits = 2 * logits"),
    ),
    loss(
        "loss-compiles",
        "the compiled loss_fn of MinimalLoss raises RuntimeError: .* does not require grad",
        (LOGITS, f"{LOGITS}{COMPILING}\n            logits = logits.detach()"),
    ),
]

MUTANTS = [*PROTOCOL, *SCALAR, *BATCH, *TRAINING]
