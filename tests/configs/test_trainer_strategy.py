"""Offline experiments choose a device by themselves; a strategy on the command line wins."""

import pytest
from hydra.utils import instantiate

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
