"""Offline experiments choose a device by themselves; a strategy on the command line wins."""

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from tiny_checkpoints import network
from xlm_process import TINY_MODEL, xlm

from xlm_mlm.modeling.layer import MLMTransformerLayer

OFFLINE = (
    "quickstart_mlm",
    "local_text_mlm",
    "star_easy_offline_mlm",
    "star_medium_offline_mlm",
    "star_hard_offline_mlm",
)


@pytest.mark.parametrize("name", OFFLINE)
def test_one_device_whatever_there_is(compose_experiment, name):
    trainer = compose_experiment(name).trainer
    assert (trainer.accelerator, trainer.devices, trainer.strategy) == ("auto", 1, "auto")
    assert trainer.accumulate_grad_batches == 1
    built = instantiate(trainer, logger=False)
    assert built.num_devices == 1
    assert type(built.strategy).__name__ == "SingleDeviceStrategy"


@pytest.mark.parametrize("name", OFFLINE)
def test_the_command_line_wins(compose_experiment, name):
    ddp = compose_experiment(name, "trainer_strategy=ddp").trainer
    assert ddp.strategy == {"_target_": "lightning.pytorch.strategies.DDPStrategy"}
    assert ddp.accelerator == "cuda"
    cpu = compose_experiment(name, "trainer_strategy=cpu").trainer
    assert (cpu.accelerator, cpu.devices) == ("cpu", 1)


# One of each kind of data.
KINDS = ("quickstart_mlm", "lm1b_mlm", "owt_packed_mlm", "star_easy_mlm", "tinygsm_mlm")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_mlm", "fsdp_layers_mlm"])
def test_sharding_composes(compose_experiment, name, strategy):
    sizes = ("trainer.devices=2", "per_device_batch_size=8", "global_batch_size=32")
    trainer = compose_experiment(name, f"trainer_strategy={strategy}", *sizes).trainer
    assert (trainer.devices, trainer.accumulate_grad_batches) == (2, 2)
    built = instantiate(trainer.strategy)
    assert type(built) is FSDPStrategy
    assert built.kwargs["use_orig_params"] is (strategy != "fsdp")
    assert trainer.gradient_clip_val == (1.0 if strategy == "fsdp" else None)
    if strategy == "fsdp_layers_mlm":
        assert built.kwargs["auto_wrap_policy"]._module_classes == {MLMTransformerLayer}


@pytest.mark.parametrize("name", KINDS)
def test_copies_in_several_processes_compose(compose_experiment, name):
    sizes = ("trainer.devices=4", "per_device_batch_size=8", "global_batch_size=32")
    trainer = compose_experiment(name, "trainer_strategy=ddp_mlm", *sizes).trainer
    assert (trainer.accelerator, trainer.devices) == ("auto", 4)
    assert trainer.accumulate_grad_batches == 1
    assert type(instantiate(trainer.strategy)) is DDPStrategy


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="Lightning shards on GPUs only")
@pytest.mark.parametrize("strategy", ["fsdp_mlm", "fsdp_layers_mlm"])
def test_sharding_trains_on_gpus(tmp_path, strategy):
    # As many as there are; one is enough to go through all of it.
    devices = torch.cuda.device_count()
    done = xlm(
        tmp_path,
        *("job_type=train", "job_name=s", "experiment=quickstart_mlm", *TINY_MODEL),
        *(f"trainer_strategy={strategy}", f"trainer.devices={devices}", "callbacks.ema=null"),
        *(f"global_batch_size={8 * devices}", "loss.across_ranks=tokens"),
        *("trainer.max_steps=4", "trainer.val_check_interval=4", "predictor.max_steps=1"),
    )
    assert done.code == 0, done.output[-3000:]
    assert "Could not run test" not in done.output, done.output[-3000:]
    path = tmp_path / "logs" / "s" / "checkpoints" / "last.ckpt"
    saved = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    whole = {f"model.{name}": value.shape for name, value in network(1).state_dict().items()}
    assert {name: value.shape for name, value in saved.items()} == whole
