"""What each of two processes does for `test_processes.py`, which looks at what they found.

Run as a script: `rank_checks.py RANK FOLDER`. What a check returns is written to the folder.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler

from xlm_mlm import MLMLoss, RotaryTransformerMLMModel
from xlm_mlm.callbacks.own_streams import OwnStreams

MASK, V, WORLD, ROWS, LENGTH, STEPS = 2, 27, 2, 4, 12, 4

# Of the loss; the batches of "elbo_given" have weights of their own.
OPTIONS = {
    "plain": {},
    "visible": {"loss_on_visible_tokens": True},
    "factor": {"use_num_masked_factor": True},
    "elbo": {"loss_weighting": "elbo"},
    "elbo_given": {"loss_weighting": "elbo"},
}


def network(seed=0):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "num_layers": 2, "nhead": 2, "rotary_emb_dim": 4, "max_length": 16}
    return RotaryTransformerMLMModel(V, mask_idx=MASK, dropout=0.0, **sizes)


def loss_of(model, **options):
    loss = MLMLoss(model=model, **options)
    loss.mask_token_id_tensor = torch.tensor(MASK)
    return loss


def batch_of(step, masked):
    """The rows of both processes; row i has `masked[i]` masks, and i % 3 padding."""
    generator = torch.Generator().manual_seed(step)
    rows = len(masked)
    targets = torch.randint(7, V, (rows, LENGTH), generator=generator)
    inputs, valid = targets.clone(), torch.ones(rows, LENGTH, dtype=torch.bool)
    for row, count in enumerate(masked):
        inputs[row, torch.randperm(LENGTH - 2, generator=generator)[:count]] = MASK
        end = LENGTH - row % 3
        inputs[row, end:], targets[row, end:], valid[row, end:] = 0, -100, False
    return {"input_ids": inputs, "target_ids": targets, "attention_mask": valid}


def equal_counts(step):
    return batch_of(step, [3, 5, 4, 4, 5, 4, 3, 4])


def unequal_counts(step, name="plain"):
    """Step 0 has no masks in the second process's rows, step 3 none at all."""
    masked = [[9, 8, 10, 7, 0, 0, 0, 0], [1, 2, 0, 1, 9, 10, 8, 9], [3, 4, 5, 6, 7, 0, 1, 2]]
    batch = batch_of(step, [*masked, [0] * 8][step])
    if name == "elbo_given":
        batch["elbo_weights"] = torch.arange(1.0, 9.0) / 3
        batch["fixed_positions_mask"] = torch.arange(LENGTH).expand(8, -1) < 2
    return batch


def rows_of(batch, rank):
    return {name: value[rank * ROWS : (rank + 1) * ROWS] for name, value in batch.items()}


def trajectory(model, loss, batches, given=lambda batch: batch):
    """The losses of some steps, of this process."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        value = loss(given(batch))["loss"]
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def trajectories(rank, folder):
    found = {}
    for name, batches, across in (
        ("equal", equal_counts, "mean"),
        ("mean", unequal_counts, "mean"),
        ("tokens", unequal_counts, "tokens"),
    ):
        model = DDP(network())
        found[name] = trajectory(
            model,
            loss_of(model, across_ranks=across),
            [batches(step) for step in range(3)],
            lambda batch: rows_of(batch, rank),
        )
    return found


def gradients(rank, folder):
    """By options and step; the loss of this process and the gradient that DDP made."""
    found = {}
    for name, options in OPTIONS.items():
        for step in range(STEPS):
            model = DDP(network())
            loss = loss_of(model, across_ranks="tokens", **options)
            value = loss(rows_of(unequal_counts(step, name), rank))["loss"]
            value.backward()
            found[name, step] = value.item(), gradient(model)
    return found


def evaluation(rank, folder):
    """The processes have different numbers of batches: asking each other would never end."""
    model = network().eval()
    loss = loss_of(model, across_ranks="tokens")
    batches = [rows_of(unequal_counts(step), rank) for step in range(1, 4 if rank == 0 else 2)]
    with torch.no_grad():
        return [loss(batch)["loss"].item() for batch in batches]


def sharded(rank, folder):
    """Gradients of models whose layers are sharded, and a likelihood by one of them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    from xlm_mlm.likelihood_mlm import mlm_nll
    from xlm_mlm.modeling.layer import MLMTransformerLayer

    batch = rows_of(unequal_counts(2), rank)
    inner = network()
    policy = ModuleWrapPolicy({MLMTransformerLayer})
    cpu = torch.device("cpu")
    first = FullyShardedDataParallel(
        inner, device_id=cpu, auto_wrap_policy=policy, use_orig_params=True
    )
    loss_of(first, across_ranks="tokens")(batch)["loss"].backward()
    groups = [
        {name.replace("_fsdp_wrapped_module.", "") for name, _ in group}
        for group in (
            inner.get_named_params_for_weight_decay(),
            inner.get_named_params_for_no_weight_decay(),
        )
    ]
    with FullyShardedDataParallel.summon_full_params(first, with_grads=True):
        found = {"fsdp": gradient(first), "groups": groups}
    second, mesh = network(), init_device_mesh("cpu", (WORLD,))
    for layer in second.encoder:
        fully_shard(layer, mesh=mesh)
    fully_shard(second, mesh=mesh)
    loss_of(second, across_ranks="tokens")(batch)["loss"].backward()
    found["fully_shard"] = torch.cat([p.grad.full_tensor().flatten() for p in second.parameters()])
    tokens = batch_of(0, [0] * ROWS)["input_ids"]
    found["nll"] = mlm_nll(second, tokens, tokens > 0, MASK, num_mc_samples=3)
    return found


def metrics(rank, folder):
    """Rows with unequal numbers of tokens, 3 in the first process and 1 in the second."""
    from xlm_mlm.metrics_mlm import BitsPerToken, MaskedTokenAccuracy, Perplexity, SequenceNLL

    rows = slice(0, 3) if rank == 0 else slice(3, 4)
    found = {}
    for kind in (SequenceNLL, BitsPerToken, Perplexity):
        metric = kind()
        metric.update(torch.tensor([1.0, 2.5, 0.0, 7.0])[rows], torch.tensor([2, 3, 0, 4])[rows])
        found[kind.__name__] = metric.compute().item()
    accuracy = MaskedTokenAccuracy()
    pred, counted = torch.tensor([[1, 2, 3]] * 4), torch.ones(4, 3, dtype=torch.bool)
    counted[0, 1:] = counted[2] = False
    target = torch.tensor([[1, 0, 0], [1, 2, 0], [1, 2, 3], [0, 0, 3]])
    accuracy.update(pred[rows], target[rows], counted[rows])
    found["accuracy"] = accuracy.compute().item()
    return found


def histories(rank, folder):
    """Both write to one folder at once."""
    from made_up_histories import write
    from xlm.datamodule import SimpleSpaceTokenizer

    tokenizer = SimpleSpaceTokenizer.for_numbers(20)
    dist.barrier()
    fids = []
    for i in range(5):
        before = [[4, MASK, MASK, 7 + rank], [4, MASK, 7 + i, 7 + rank]]
        fids += write(folder / "history", tokenizer, before, [[[1], [2]], [[1]]], seed=i)[0]
    return fids


def predictions(rank, folder):
    """7 rows as Lightning shares them out, in batches of 2: the first row comes twice."""
    from xlm_mlm.predictions_mlm import SharedPredictions

    rows = [{"input_ids": torch.tensor([row]), "sample_ids": torch.tensor(row)} for row in range(7)]
    sampler = DistributedSampler(rows, WORLD, rank, shuffle=False)
    harness = SimpleNamespace(
        predictions_dir=folder / "predictions",
        predictor=SimpleNamespace(
            # Longer than what a file takes at a time.
            to_dict=lambda batch, preds: [
                {"text": f"{row} " * 9000, "by": rank} for row in batch["input_ids"][:, 0].tolist()
            ]
        ),
    )
    for loader in ("numbered_prediction", "other_prediction"):
        log = SharedPredictions(writers=["file"], fields_to_keep_in_output=["text", "by"])
        dist.barrier()
        for batch in DataLoader(rows, batch_size=2, sampler=sampler):
            if loader == "other_prediction":
                del batch["sample_ids"]
            log(harness, None, batch, {}, "val", loader)
    dist.barrier()
    return [row["sample_id"] for row in log.read(0, 0, "val", "numbered_prediction", harness)]


def trained_by_lightning(rank, folder):
    """Lightning's DDP, of which these are the processes: each step's loss and a random number."""
    import lightning
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network()
            self.loss = loss_of(self.model, across_ranks="tokens")
            self.losses, self.drawn = [], []

        def training_step(self, batch, batch_idx):
            self.drawn.append(torch.rand(()).item())
            value = self.loss(batch)["loss"]
            self.losses.append(value.item())
            return value

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    module = Module()
    batches = [rows_of(unequal_counts(step), rank) for step in range(3)]
    lightning.Trainer(
        accelerator="cpu",
        devices=WORLD,
        strategy="ddp",
        plugins=[TorchElasticEnvironment()],
        callbacks=[OwnStreams()],
        max_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **quiet,
    ).fit(module, DataLoader(batches, batch_size=None))
    return {"losses": module.losses, "drawn": module.drawn}


CHECKS = (
    trajectories,
    gradients,
    evaluation,
    sharded,
    metrics,
    histories,
    predictions,
    trained_by_lightning,
)


def main(rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    found = {check.__name__: check(rank, folder) for check in CHECKS}
    torch.save(found, folder / f"found.{rank}.pt")
    print(json.dumps(sorted(found)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
