"""Generation: a whole call of `predict`, in eval mode, without gradients, as the host makes it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from arithmetic import ModelShape, Pass, work_of
from cases import Bench, Line, build_models, clone_batch, random_ids, time_both
from measure import Workload
from packages import MASK_ID, SPECIAL_TOKENS, Package, make_tokenizer


class GenerationSize(NamedTuple):
    """A model, the rows to fill, and the predictor's options."""

    shape: ModelShape
    batch: int
    length: int
    options: dict[str, Any]
    new_tokens: int = 0


def masked_rows(size: GenerationSize, masks: int | None = None) -> dict[str, Any]:
    """Rows of masks; with `masks`, evenly spread ones among given tokens."""
    torch.manual_seed(1)
    ids = torch.full((size.batch, size.length), MASK_ID)
    if masks is not None:
        given = torch.ones(size.length, dtype=torch.bool)
        given[torch.arange(masks) * size.length // masks] = False
        random = random_ids(size.shape.vocabulary, size.batch, size.length)
        ids = torch.where(given, random, ids)
    return _batch(ids, torch.ones_like(ids, dtype=torch.bool))


def prompts(size: GenerationSize) -> dict[str, Any]:
    """Prompts on the left of their rows' end, of lengths uniform from half of `length` to it."""
    torch.manual_seed(1)
    ids = random_ids(size.shape.vocabulary, size.batch, size.length)
    lengths = torch.randint(size.length // 2, size.length + 1, (size.batch, 1))
    valid = torch.arange(size.length).flip(0) < lengths
    return _batch(ids.masked_fill(~valid, 0), valid)


def _batch(ids: torch.Tensor, valid: torch.Tensor) -> dict[str, Any]:
    return {"input_ids": ids, "attention_mask": valid, "positions": None, "target_ids": None}


def generation_workload(predictor: Any, batch: dict[str, Any]) -> Workload:
    """One call of `predict` on a fresh copy of the batch."""

    def prepare() -> Any:
        copy = clone_batch(batch)

        def run() -> Any:
            with torch.no_grad():
                return predictor.predict(copy, 0, 0, "prediction")

        return run

    return prepare


def build_predictor(package: Package, model: Any, size: GenerationSize) -> Any:
    """The predictor of a package, its model in eval mode."""
    return package.predictor(
        max_new_tokens=size.new_tokens or None,
        tokenizer=make_tokenizer(size.shape.vocabulary),
        model=model.eval(),
        **size.options,
    )


def watched_passes(model: Any, workload: Workload) -> tuple[Any, list[tuple[Any, Any]]]:
    """Run a workload; return its result, and ids and mask of every forward pass of the model."""
    seen: list[tuple[Any, Any]] = []

    def note(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = dict(zip(("x_t", "attention_mask"), arguments, strict=False)) | named
        seen.append((given["x_t"].clone(), given.get("attention_mask")))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        return workload()(), seen
    finally:
        hook.remove()


def needed_passes(seen: list[tuple[Any, Any]], all_masks: bool) -> list[Pass]:
    """The arithmetic of passes that were watched, by rows that still had a mask.

    Args:
        seen: ids and mask of every pass.
        all_masks: logits of every mask are needed, to rank them; else of those a pass fills.
    """
    passes = []
    lefts = [(ids == MASK_ID).sum(1) for ids, _ in seen]
    for i, (ids, mask) in enumerate(seen):
        at_work = lefts[i] > 0
        lengths = torch.full((len(ids),), ids.shape[1]) if mask is None else mask.sum(1)
        lengths = lengths[at_work]
        masks = int(lefts[i].sum())
        after = int(lefts[i + 1].sum()) if i + 1 < len(lefts) else 0
        needed = masks if all_masks else masks - after
        mean = lengths.double().mean().item()
        pairs = int((lengths**2).sum())
        passes.append(Pass(int(lengths.sum()), needed, pairs, round(needed * mean)))
    return passes


def check_filled(name: str, size: GenerationSize, batch: dict[str, Any], ids: torch.Tensor) -> None:
    """Every mask is filled with a token of the vocabulary, and what was given is untouched.

    Raises:
        AssertionError: not so.
    """
    given, prompt = batch["input_ids"], size.length
    kept = ids[:, :prompt]
    if ids.shape[1] != prompt + size.new_tokens or not torch.equal(
        kept[given != MASK_ID], given[given != MASK_ID]
    ):
        raise AssertionError(f"{name} changed tokens that were given")
    if (ids == MASK_ID).any() or ids.min() < 0 or ids.max() >= size.shape.vocabulary:
        raise AssertionError(f"{name} left masks, or put ids outside the vocabulary")


def generation_line(
    bench: Bench, case: str, names: tuple[str, str], size: GenerationSize, batch: dict[str, Any],
    goal: float | None,
) -> Line:  # fmt: skip
    """Check both packages' output, count their passes, then time them."""
    models = build_models(bench, size.shape, size.length + size.new_tokens)
    workloads, filled, counts, passes = [], [], [], []
    for package, model in zip(bench.packages, models, strict=True):
        workloads.append(generation_workload(build_predictor(package, model, size), batch))
        result, seen = watched_passes(model, workloads[-1])
        check_filled(package.name, size, batch, result["ids"])
        filled.append(result["ids"])
        counts.append(len(seen))
        # Of the rows that ours runs: the limit is that of our own passes.
        passes = passes or needed_passes(seen, all_masks=bool(size.options.get("confidence")))
    check = f"all masks filled, given tokens kept; {counts[0]} passes, reference {counts[1]}"
    if size.options.get("top_k") == 1:  # nothing is left to chance
        equal = (filled[0] == filled[1])[:, size.length :].double().mean().item()
        check += f"; {equal:.1%} of the new tokens equal"
    work = work_of(size.shape, passes, backward=False)
    measured = time_both(bench, *workloads, work=work, warm_up=0)  # both ran just now
    return Line(case, *names, *measured[:2], goal, *measured[2:], check)


_LARGE = ModelShape(30_522, 384, 4)
_TINY = ModelShape(SPECIAL_TOKENS + 20, 64, 2)


def generate_uniform(bench: Bench) -> Iterator[Line]:
    size = GenerationSize(_LARGE, 4, 128, {"max_steps": 32})
    if bench.tiny:
        size = GenerationSize(_TINY, 2, 8, {"max_steps": 4})
    setting = f"V {size.shape.vocabulary:,}, {size.batch} x {size.length} masks, "
    setting += f"{size.options['max_steps']} passes"
    names = ("generation, uniform", setting)
    yield generation_line(bench, "generate_uniform", names, size, masked_rows(size), 3.8)


def generate_infill(bench: Bench) -> Iterator[Line]:
    options = {"max_steps": 32, "confidence": "top_prob", "threshold": 0.5}
    size = GenerationSize(_LARGE, 4, 128, options)
    if bench.tiny:
        size = GenerationSize(_TINY, 2, 8, {**options, "max_steps": 4})
    setting = f"V {size.shape.vocabulary:,}, {size.batch} x {size.length}, every other token given"
    names = ("infilling, confidence budget", setting)
    batch = masked_rows(size, size.length // 2)
    yield generation_line(bench, "generate_infill", names, size, batch, 2.1)


def generate_many_steps(bench: Bench) -> Iterator[Line]:
    size = GenerationSize(_LARGE, 4, 24, {"max_steps": 200})
    if bench.tiny:
        size = GenerationSize(_TINY, 2, 4, {"max_steps": 9})
    name = "generation, more steps than masks"
    setting = f"V {size.shape.vocabulary:,}, max_steps {size.options['max_steps']}, "
    rows = [(size, f"{size.batch} x {size.length} masks", 7.0)]
    if bench.extra and not bench.tiny:
        rows += [(size._replace(batch=1, length=128), "1 x 128, 24 of them masks", None)]
    for size, text, goal in rows:
        batch = masked_rows(size, min(24, size.length))
        yield generation_line(
            bench, "generate_many_steps", (name, setting + text), size, batch, goal
        )


def generate_seq2seq(bench: Bench) -> Iterator[Line]:
    options = {"max_steps": 500, "top_k": 1, "confidence": "top_prob", "threshold": 0.1}
    small = GenerationSize(ModelShape(63, 384, 4), 16, 117, options, new_tokens=28)
    large = small._replace(shape=ModelShape(63, 768, 12), batch=2)
    if bench.tiny:
        small = GenerationSize(_TINY, 3, 9, {**options, "max_steps": 20}, new_tokens=4)
    for size, goal in ((small, 1.5), (large, None)):
        if goal is None and (bench.tiny or not bench.extra):
            continue
        setting = f"star_hard shapes, d {size.shape.width}, {size.shape.layers} layers, "
        setting += f"{size.batch} prompts of {size.length // 2} to {size.length}"
        names = ("seq2seq generation", setting)
        yield generation_line(bench, "generate_seq2seq", names, size, prompts(size), goal)
