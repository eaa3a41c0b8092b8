"""Models that break the rules of `checks/model.py` and `checks/parameters.py`."""

from mutant import Mutant, edit

CLASS = "class MinimalModel(torch.nn.Module, Model):"
HEAD = "self.head = torch.nn.Linear(d_model, num_embeddings)"
EMBED = "self.embed_tokens(input_ids) + self.embed_positions(positions)"
ALLOWED = "allowed = seen[:, None, None, :] | itself"
RETURN = "return self.head(self.norm(x))"
METHOD = "    def get_named_params_for_weight_decay("


def model(rule: str, says: str, *edits: tuple[str, str], outcome: str = "broken") -> Mutant:
    """A mutant of `model.py`."""
    changed = tuple(edit("model.py", old, new) for old, new in edits)
    return Mutant(rule, changed, says=says, outcome=outcome)


def returning(rule: str, says: str, expression: str) -> Mutant:
    """A mutant of what `forward` returns."""
    return model(rule, says, (RETURN, f"return {expression}"))


def attribute(line: str) -> tuple[str, str]:
    """A further line at the end of the constructor."""
    return HEAD, f"{HEAD}\n        {line}"


def method(*lines: str) -> tuple[str, str]:
    """A further method."""
    return METHOD, "\n".join((*(f"    {line}" for line in lines), "", METHOD))


BASES = [
    model("model-base-class", "does not derive from Model", (CLASS, CLASS.replace(", Model", ""))),
    model(
        "model-base-class",
        "is abstract: it lacks reset",
        (CLASS, "import abc\n\n\n" + CLASS.replace("):", ", abc.ABC):")),
        method("@abc.abstractmethod", "def reset(self): ..."),
    ),
]

SHAPES = [
    returning("model-logits-shape", r"\(4, 12, 54\)", "self.head(self.norm(x))[..., :-1]"),
    returning("model-logits-shape", r"\(48, 55\)", "self.head(self.norm(x)).flatten(0, 1)"),
    returning("model-logits-shape", "torch.int64", "self.head(self.norm(x)).long()"),
    returning("model-logits-shape", "hold nan", "self.head(self.norm(x)).log()"),
    Mutant(
        "model-logits-shape",
        (edit("model.py", RETURN, "return (self.head(self.norm(x)), x)"),),
        says="gives a tuple, not a tensor of logits; let an adapter give `call_model`",
        outcome="could not run",
    ),
    model(
        "model-optional-arguments",
        "without attention_mask raises AttributeError",
        ("if attention_mask is None:", "if False:"),
    ),
    model(
        "model-optional-arguments",
        "without positions raises",
        ("if positions is None:", "if False:"),
    ),
    model(
        "model-optional-arguments",
        "without positions.*are not the same",
        ("positions = (seen.cumsum(1) - 1).clamp(min=0)", "positions = seen.long()"),
    ),
]

MASKS = [
    model(
        "model-attention-mask",
        "tokens where the attention mask is false: the logits are not the same",
        (ALLOWED, "allowed = torch.ones_like(seen)[:, None, None, :] | itself"),
    ),
    model(
        "model-attention-mask",
        "tokens where the attention mask is false: the logits are not the same",
        ("seen = attention_mask.bool()", "seen = input_ids != 3"),
    ),
    returning(
        "model-attention-mask",
        "the logits are not the same",
        "self.head(self.norm(x + x.mean(1, keepdim=True)))",
    ),
    model(
        "model-attention-mask",
        "at attended positions of a batch with a partial attention mask hold -?inf",
        (RETURN, "return self.head(self.norm(x)) / seen.all(1).view(-1, 1, 1)"),
    ),
    Mutant(
        "model-attention-mask",
        (
            edit("model.py", "seen = attention_mask.bool()", "seen = attention_mask"),
            edit(
                "collators.py", '"attention_mask": prompt_seen,', '"attention_mask": +prompt_seen,'
            ),
            edit(
                "collators.py",
                "prompt_ids, prompt_seen = self.prompts(examples)\n"
                "        answers = self.answers(examples, fill=1)",
                "prompt_ids, prompt_seen = self.prompts(examples)\n"
                "        prompt_seen = prompt_seen.long()\n"
                "        answers = self.answers(examples, fill=1)",
            ),
        ),
        says="a partial attention mask of torch.int64, which the experiment's collators emit",
    ),
    model(
        "model-padding",
        "tokens padded on the left to 12, and without: the logits are not the same",
        (EMBED, EMBED.replace("(positions)", "(torch.arange(input_ids.shape[1]))")),
    ),
    model(
        "model-padding",
        "tokens padded on the right to 12, and without: the logits are not the same",
        (ALLOWED, "allowed = torch.ones_like(seen)[:, None, None, :] | itself"),
    ),
    returning("model-padding", "padded on the right", "self.head(self.norm(x)) / len(x[0])"),
]

BATCHES = [
    returning(
        "model-batch",
        "a row in a batch of 4, and alone",
        "self.head(self.norm(x - x.mean((0, 1))))",
    ),
    model("model-batch", "a row in a batch of 4", (EMBED, f"({EMBED}) / len(input_ids)")),
    model(
        "model-deterministic",
        "from two seeds",
        ("self.dropout(self.mlp(self.norm2(x)))", "F.dropout(self.mlp(self.norm2(x)), 0.1)"),
    ),
    model(
        "model-deterministic",
        "with shorter rows in between",
        (
            RETURN,
            'self.width = min(input_ids.shape[1], getattr(self, "width", 99))\n'
            "        return self.head(self.norm(x)) / self.width",
        ),
    ),
]

PARAMETERS = [
    model(
        "model-gradients",
        "2 of .* trainable parameters got no gradient in 8 batches: extra.weight, extra.bias",
        attribute("self.extra = torch.nn.Linear(4, 4)"),
    ),
    model(
        "model-gradients",
        "embed_tokens.weight",
        (EMBED, EMBED.replace("(input_ids)", "(input_ids).detach()")),
    ),
    returning("model-gradients", "embed_positions.weight", "self.head(self.norm(x.detach()))"),
    model(
        "model-weight-decay",
        "not at all: layers.0.norm1.weight",
        ("if p.ndim <= 1)", "if p.ndim < 1)"),
    ),
    model("model-weight-decay", "more than once: .*norm", ("if p.ndim > 1)", "if p.ndim > 0)")),
    model(
        "model-weight-decay",
        "NotImplementedError",
        ("def get_named_params_for_no_weight_decay", "def get_others"),
    ),
    model(
        "model-weight-decay",
        "get_param_groups yield not at all: embed_tokens.weight",
        method("def get_param_groups(self):", '    return [{"params": [self.head.weight]}]'),
    ),
    model(
        "model-state-dict",
        "a fresh one that was given its state: the logits are not the same",
        attribute("self.shift = torch.randn(d_model)"),
        (RETURN, "return self.head(self.norm(x) + self.shift)"),
    ),
    model(
        "model-state-dict",
        "loading the state into a fresh model raises .*rotary_emb.sin",
        attribute(
            "self.rotary_emb = torch.nn.Module()\n"
            '        self.rotary_emb.register_buffer("sin", torch.zeros(2))'
        ),
    ),
    model(
        "model-state-dict",
        "torch.load with weights_only=True raises",
        method("def get_extra_state(self):", "    return self.forward.__func__"),
        method("def set_extra_state(self, state):", "    pass"),
    ),
    model(
        "model-bf16",
        "with bf16-true raises RuntimeError",
        (EMBED, f"{EMBED} * torch.ones(1, dtype=torch.float32)"),
    ),
    returning(
        "model-bf16", "hold -inf", "torch.log1p(-torch.sigmoid(9 + self.head(self.norm(x))))"
    ),
]

MUTANTS = [*BASES, *SHAPES, *MASKS, *BATCHES, *PARAMETERS]
