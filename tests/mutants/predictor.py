"""Predictors that break a rule."""

from mutant import Mutant, edit


def _predictor(rule: str, old: str, new: str, says: str) -> Mutant:
    return Mutant(rule, (edit("predictor.py", old, new),), says=says)


FILL = "x, steps_taken = self._fill(x, attention_mask, positions)"
RUN = "with evaluating(self.model), torch.no_grad():"
CHOSEN = "x = torch.where(chosen, tokens, x)"
RETURN = '"ids": x,'
SECONDS = "seconds = time.perf_counter() - start"
RULE_OUT = "logits = logits.float().index_fill(-1, mask_id, -torch.inf)"
MODE = "module.training = training"
TEXT = 'return self.predict(batch)["text"]'
COLUMNS = '"text": preds["text"],'
STEPS = '"steps_taken": preds["steps_taken"],'
METRICS = "columns.update({k: v for k, v in preds.items() if k.startswith("
MASKED = "masked = x == self.tokenizer.mask_token_id"
CALL = "logits = self.model(x, attention_mask, positions)"
OWN = 'object.__setattr__(self, "model", model)'
START = "start = time.perf_counter()"
SIGNATURE = """        batch: dict[str, Any],
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> dict[str, Any]:"""

MUTANTS = [
    _predictor(
        "predictor-protocol",
        "self.noise_schedule = noise_schedule",
        "",
        says="MinimalPredictor has no noise_schedule; the constructor must set",
    ),
    _predictor(
        "predictor-protocol",
        SIGNATURE,
        "        batch: dict[str, Any],\n        *,\n        greedy: bool = False,\n"
        "    ) -> dict[str, Any]:",
        says=r"predict\(.* can't be called with 4 arguments by position",
    ),
    _predictor(
        "predictor-protocol",
        START,
        'start = batch["started"]',
        says="predict, called as the host does, raises KeyError",
    ),
    _predictor("predictor-generate", "def generate(", "def continue_(", says="gives None; it must"),
    _predictor("predictor-generate", TEXT, f"{TEXT}[:1]", says="1 texts for 3 prompts"),
    _predictor("predictor-generate", TEXT, f"{TEXT}[::-1]", says="text for '.*' holds the prompt"),
    _predictor(
        "predictor-generate", TEXT, 'return self.predict(batch)["ids"]', says="gives tensor"
    ),
    _predictor(
        "predictor-generate",
        TEXT,
        'raise NotImplementedError("not yet")',
        says="raises NotImplementedError: not yet",
    ),
    _predictor(
        "predictor-result",
        '"text": self._decode(x, attention_mask),',
        '"text": self._decode(x, attention_mask)[0],',
        says="`text` is .*; it must be a list of str",
    ),
    _predictor("predictor-result", RETURN, '"ids": x.tolist(),', says="`ids` is list"),
    _predictor("predictor-result", RETURN, '"ids": x.float(),', says="`ids` is of torch.float32"),
    _predictor("predictor-result", RETURN, '"tokens": x,', says="ids must be among them"),
    _predictor("predictor-result", RETURN, '"ids": x, "loss": 0.5,', says="`loss` is 0.5; it must"),
    _predictor(
        "predictor-vocabulary",
        RETURN,
        '"ids": x.masked_fill(~attention_mask, -100),',
        says=r"not in the vocabulary.*: -100; ids must be from 0 to 54",
    ),
    _predictor(
        "predictor-vocabulary",
        FILL,
        f"{FILL}; x = x + 40",
        says="not in the vocabulary",
    ),
    _predictor("predictor-no-mask", RULE_OUT, "logits = logits.float()", says="48 masks .id 6."),
    _predictor(
        "predictor-no-mask",
        "return masked & (rank < share)",
        "return masked & (rank < share - 1)",
        says="masks .id 6. are left",
    ),
    _predictor(
        "predictor-prompt", CHOSEN, "x = torch.where(attention_mask, tokens, x)", says="was given"
    ),
    _predictor("predictor-prompt", RETURN, '"ids": x.flip(1),', says="do not hold these in this"),
    _predictor(
        "predictor-fixed-positions",
        RETURN,
        '"ids": torch.cat([x[:, 1:], x[:, :1]], dim=1),',
        says="given tokens are not where they were",
    ),
    _predictor(
        "predictor-fixed-positions",
        RETURN,
        '"ids": x[:, 4:],',
        says="given tokens are not where they were",
    ),
    _predictor(
        "predictor-to-dict",
        '"ids": preds["ids"].tolist(),',
        '"ids": preds["ids"],',
        says=r"`ids` of row 0 is tensor.*\(Tensor\), which JSON can't hold",
    ),
    _predictor(
        "predictor-to-dict",
        COLUMNS,
        f'{COLUMNS} "entropy": [float("nan")] * len(preds["text"]),',
        says="`entropy` of row 0 is nan",
    ),
    _predictor(
        "predictor-to-dict",
        'in range(len(preds["text"]))',
        "in range(1)",
        says="1 dicts for 4 rows",
    ),
    _predictor(
        "predictor-to-dict", "def to_dict(", "def to_json(", says="to_dict returns NoneType"
    ),
    _predictor("predictor-to-dict", COLUMNS, '"output": preds["text"],', says="a str as `text`"),
    _predictor(
        "predictor-to-dict", STEPS, '"steps_taken": preds["passes"],', says="raises KeyError"
    ),
    _predictor(
        "predictor-row-metrics",
        'k.startswith("metric_")',
        'k.startswith("score_")',
        says=r"metric_made_up=\[0.0, 1.0, 2.0, 3.0\]; the dicts of to_dict have \[None",
    ),
    _predictor(
        "predictor-row-metrics",
        METRICS,
        "columns.update({k: [v] * len(v) for k, v in preds.items() if k.startswith(",
        says=r"have \[\[0.0, 1.0",
    ),
]

MUTANTS += [
    _predictor(
        "predictor-max-steps",
        FILL,
        f"{FILL}; self.model(x, attention_mask, positions)",
        says="max_steps=1 made 2 passes",
    ),
    _predictor(
        "predictor-max-steps",
        START,
        f"{START}; self.max_new_tokens // (self.max_steps - 1)",
        says="with max_steps=1 raises ZeroDivisionError",
    ),
    _predictor(
        "predictor-max-steps",
        CALL,
        f"{CALL}; again = self.model(x, attention_mask, positions)",
        says="max_steps=1 made 2 passes",
    ),
    Mutant(
        "predictor-max-steps",
        (
            edit("predictor.py", "        max_steps: int,\n", ""),
            edit("predictor.py", "self.max_steps = max_steps", "self.max_steps = 8"),
            edit("predictor.py", "if max_steps < 1:", "if max_new_tokens == 0:"),
            edit("configs/model_type/minimal.yaml", "  max_steps: ${block_size}\n", ""),
        ),
        says="takes no `max_steps`; .* let the adapter say",
        outcome="could not run",
    ),
    _predictor(
        "predictor-seed",
        CALL,
        f"{CALL} + __import__('random').random() * torch.arange(55)",
        says="gave different ids",
    ),
    _predictor(
        "predictor-seed",
        FILL,
        f"torch.seed(); {FILL}",
        says="gave different ids after torch.manual_seed",
    ),
    _predictor(
        "predictor-restores", MODE, "module.training = True", says=r"training\[.* is True, before F"
    ),
    _predictor("predictor-restores", MODE, "pass", says=r"training\[.* is False, before True"),
    _predictor(
        "predictor-restores",
        "            module.training = training",
        "            model.train(modes[0][1])",
        says="in train mode, but for a part that is frozen",
    ),
    _predictor(
        "predictor-restores",
        "    try:\n        yield\n    finally:\n        for",
        "    yield\n    for _ in [0]:\n        for",
        says="predict has raised what the model raised",
    ),
    _predictor(
        "predictor-restores",
        START,
        f"{START}; torch.set_grad_enabled(False)",
        says="grad mode is False, before True",
    ),
    _predictor(
        "predictor-restores",
        START,
        f"{START}; torch.set_default_dtype(torch.bfloat16)",
        says="default dtype is torch.bfloat16",
    ),
    _predictor(
        "predictor-restores",
        START,
        f"{START}; self.model.requires_grad_(False)",
        says="requires_grad.* is False, before True",
    ),
    _predictor(
        "predictor-no-graph",
        RUN,
        "with evaluating(self.model):",
        says="outputs of the model's modules require grad",
    ),
    _predictor(
        "predictor-no-submodule",
        START,
        f"{START}; self.network = self.model",
        says="after predict, the checkpoint holds .* weights of the model a second time",
    ),
    _predictor(
        "predictor-no-submodule",
        OWN,
        "self.model = model\n\n"
        "    model = property(lambda self: self.net, lambda self, m: setattr(self, 'net', m))\n",
        says="as the host builds it",
    ),
    _predictor(
        "predictor-given-model",
        OWN,
        "self.model = model",
        says="the first as predictor.model.embed_tokens.weight",
    ),
    _predictor(
        "predictor-batch-unchanged",
        SECONDS,
        f'batch["ids"] = x; {SECONDS}',
        says="'?ids'? is new",
    ),
    _predictor(
        "predictor-batch-unchanged",
        SECONDS,
        f'batch["attention_mask"][:, 0] = False; {SECONDS}',
        says="attention_mask changed at .* places",
    ),
    _predictor(
        "predictor-batch-unchanged",
        SECONDS,
        f'batch["attention_mask"] = batch["attention_mask"].long(); {SECONDS}',
        says="attention_mask is torch.int64",
    ),
]
