"""What `mask_sampling` and `loss_weighting` do to training: gradient noise, steps to a likelihood.

    python masks.py --task quickstart --out results
    python masks.py --task text --files topics.jsonl --out results

Writes `masks_<task>.json` and `masks_<task>.md`.
"""

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import hydra
import tasks
import torch

from xlm_mlm import MLMLoss
from xlm_mlm.likelihood_mlm import mlm_nll

SAMPLINGS = ("bernoulli", "stratified", "exact_count", "complementary")
WEIGHTINGS = ("mean", "elbo")
TASKS = {
    "quickstart": ["experiment=quickstart_mlm"],
    "text": [
        *("experiment=local_text_mlm", "validation_fraction=0.1", "packed=false"),
        *("block_size=64", "model.num_layers=2", "per_device_batch_size=32"),
    ],
}
DRAWS = 64


class Setting:
    """A task whose training rows are masked in one way.

    Args:
        task: its name in `TASKS`.
        sampling: the collator's `mask_sampling`.
        weighting: the loss's `loss_weighting`.
        data: where data are cached.
        files: the text's.
    """

    def __init__(self, task: str, sampling: str, weighting: str, data: Path, files: str) -> None:
        own = [f"data_files={files}"] if task == "text" else []
        chosen = f"+mask_sampling={sampling}"
        self.cfg, self.module = tasks.composed(data, *TASKS[task], *own, chosen)
        self.module.setup("fit")
        self.tokenizer = self.module.tokenizer
        self.loss = MLMLoss(tokenizer=self.tokenizer, loss_weighting=weighting)
        loader = self.module.train_dataloader()
        loader = loader[0] if isinstance(loader, list) else loader
        # As many rows through the network as with the others.
        size = self.cfg.per_device_batch_size // (2 if sampling == "complementary" else 1)
        self.rows, self.collate, self.size = loader.dataset, loader.collate_fn, size
        self.rows = list(self.rows) if not hasattr(self.rows, "__getitem__") else self.rows

    def model(self, seed: int) -> Any:
        """A new network."""
        torch.manual_seed(seed)
        return hydra.utils.instantiate(self.cfg.model)

    def batches(self, seed: int) -> Any:
        """Training batches without end, in an order and with masks that the seed decides."""
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        while True:
            order = torch.randperm(len(self.rows), generator=generator).tolist()
            for start in range(0, len(order) - self.size + 1, self.size):
                yield self.collate([self.rows[i] for i in order[start : start + self.size]])

    def validation(self, rows: int) -> list[dict[str, Any]]:
        """The rows whose likelihood is measured."""
        self.module.setup("validate")
        loaders = self.module.val_dataloader()
        loader = loaders[0] if isinstance(loaders, list) else loaders
        return tasks.first_rows(loader, rows)


def nll(model: Any, batches: list[dict[str, Any]], tokenizer: Any) -> float:
    """Nats a maskable token, 8 passes with the same masks every time."""
    total = count = 0.0
    for batch in batches:
        known = batch["target_ids"] >= 0
        maskable = known & ~batch.get("fixed_positions_mask", ~known)
        tokens = torch.where(known, batch["target_ids"], batch["input_ids"])
        found = mlm_nll(
            model,
            tokens,
            maskable,
            tokenizer.mask_token_id,
            attention_mask=batch.get("attention_mask"),
            num_mc_samples=8,
        )
        total, count = total + float(found.sum()), count + int(maskable.sum())
    return total / count


def train(setting: Setting, seed: int, steps: int, every: int) -> tuple[list[float], Any]:
    """The validation NLL every so many steps, and the network in the end."""
    model, curve = setting.model(seed), []
    held_out = setting.validation(128)
    setting.loss.model = model
    rate = setting.cfg.optimizer.lr
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    warm = setting.cfg.lr_scheduler.num_warmup_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: min(1.0, (i + 1) / warm) * 0.5 * (1 + math.cos(math.pi * i / steps)),
    )
    for step, batch in enumerate(itertools.islice(setting.batches(seed), steps), 1):
        optimizer.zero_grad()
        setting.loss(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % every == 0:
            model.eval()
            curve.append(nll(model, held_out, setting.tokenizer))
            model.train()
    return curve, model


def noise(setting: Setting, model: Any, fixed: bool) -> float:
    """Variance of the gradient over its squared mean: of masks alone with `fixed` rows, else of
    rows and masks."""
    setting.loss.model = model
    mean, square = None, 0.0
    torch.manual_seed(1)
    rows = [setting.rows[i] for i in range(setting.size)]
    other = setting.batches(1)
    for _ in range(DRAWS):
        model.zero_grad()
        batch = setting.collate(rows) if fixed else next(other)
        setting.loss(batch)["loss"].backward()
        grad = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        mean = grad.double() if mean is None else mean + grad.double()
        square += float(grad.double().square().sum())
    mean = mean / DRAWS
    variance = (square / DRAWS - float(mean.square().sum())) * DRAWS / (DRAWS - 1)
    # The squared mean of a sample is larger than that of all by the variance of the mean.
    return variance / max(float(mean.square().sum()) - variance / DRAWS, 1e-30)


def steps_to(curve: list[float], every: int, goal: float) -> float:
    """The step at which the curve first reaches the goal, between two looks by interpolation."""
    before = math.inf
    for number, value in enumerate(curve, 1):
        if value <= goal:
            part = 1.0 if before == math.inf else (before - goal) / max(before - value, 1e-12)
            return every * (number - 1 + part)
        before = value
    return math.inf


def report(results: list[dict[str, Any]], goal: float, task: str) -> str:
    """The table, in Markdown."""
    lines = [
        f"### {task}: steps to {goal:.3f} nats a token",
        "",
        "| mask_sampling | loss_weighting | gradient noise, masks | gradient noise, all | steps | "
        "NLL in the end |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in results:
        shown = " / ".join("-" if math.isinf(s) else f"{s:.0f}" for s in each["steps"])
        ends = " / ".join(f"{curve[-1]:.3f}" for curve in each["curves"])
        lines.append(
            f"| {each['sampling']} | {each['weighting']} | {each['masks']:.2f} | "
            f"{each['all']:.2f} | {shown} | {ends} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train every combination, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--files", default="", help="the text's data_files")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where data are cached")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=50, help="steps between two looks")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    common: Any = None
    for sampling, weighting in itertools.product(SAMPLINGS, WEIGHTINGS):
        setting = Setting(asked.task, sampling, weighting, asked.data, asked.files)
        if common is None:
            # Gradients of all are compared at one and the same network, a third of the way.
            _, common = train(setting, 99, max(asked.steps // 3, 1), asked.steps + 1)
        found = {"sampling": sampling, "weighting": weighting}
        found |= {"masks": noise(setting, common, True), "all": noise(setting, common, False)}
        seeds = range(asked.seeds)
        found["curves"] = [train(setting, s, asked.steps, asked.every)[0] for s in seeds]
        results.append(found)
        print(json.dumps(found), flush=True)
    # What the plainest way reaches after four fifths of its steps.
    plain = results[0]["curves"]
    goal = sum(curve[max(int(0.8 * len(curve)) - 1, 0)] for curve in plain) / len(plain)
    for each in results:
        each["steps"] = [steps_to(curve, asked.every, goal) for curve in each["curves"]]
    text = json.dumps({"goal": goal, "results": results}, indent=1)
    (asked.out / f"masks_{asked.task}.json").write_text(text + "\n")
    (asked.out / f"masks_{asked.task}.md").write_text(report(results, goal, asked.task))


if __name__ == "__main__":
    main()
