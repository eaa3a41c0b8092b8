"""A network that is asked runs in eval and inference mode, and keeps its modes."""

import pytest
import torch

from xlm_mlm.modeling.modes import asking


def test_every_module_gets_its_own_mode_back():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    model.train()
    model[1].eval()
    inside = []

    def fail():
        with asking(model):
            assert torch.is_inference_mode_enabled()
            inside.extend(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [False] * 3
    assert [module.training for module in model.modules()] == [True, True, False]
