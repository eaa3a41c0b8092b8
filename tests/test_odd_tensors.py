"""Tensors of ids that torch can't look at, or that hold none: refused wherever they come in."""

import warnings

import pytest
import torch
from toy_models import TableModel

from xlm_mlm import MLMLoss, MLMPredictor, RotaryTransformerMLMModel
from xlm_mlm.datamodule_mlm import DefaultMLMCollator, MLMSeq2SeqPredCollator

GOOD = torch.tensor([[4, 2, 5], [2, 2, 6]])


def nested(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype, torch says
        return torch.nested.nested_tensor([GOOD[0], GOOD[1, :2]], layout=layout)


ODD = {
    "a list": GOOD.tolist(),
    "complex": GOOD.to(torch.complex64),
    "floating": GOOD.float(),
    "boolean": GOOD > 4,
    "meta": GOOD.to("meta"),
    "nested": nested(torch.strided),
    "jagged": nested(torch.jagged),
    "sparse": GOOD.to_sparse(),
}
odd = pytest.mark.parametrize("ids", ODD.values(), ids=ODD.keys())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return RotaryTransformerMLMModel(27, 8, 1, 1, mask_idx=2, rotary_emb_dim=4).eval()


@odd
def test_the_model_refuses_them(network, ids):
    with pytest.raises(ValueError, match="x_t is a .*; it must be a tensor of token ids"):
        network(ids)


def test_a_network_without_values_takes_ids_without_values():
    with torch.device("meta"):
        model = RotaryTransformerMLMModel(27, 8, 1, 1, rotary_emb_dim=4)
        assert model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 27)


@odd
@pytest.mark.parametrize("name", ["input_ids", "target_ids"])
def test_the_loss_refuses_them(network, tokenizer, ids, name):
    loss = MLMLoss(model=network, tokenizer=tokenizer)
    with pytest.raises(ValueError, match=f"{name} is a .*; it must be a tensor of integers"):
        loss({"input_ids": GOOD, "target_ids": GOOD, name: ids})


@odd
def test_the_predictor_refuses_them(tokenizer, ids):
    one = MLMPredictor(3, tokenizer=tokenizer, model=TableModel(torch.zeros(3, 27)))
    with pytest.raises(ValueError, match="input_ids is a .*; it must be a tensor of integers"):
        one.predict({"input_ids": ids})


@pytest.mark.parametrize("name", ["attention_mask", "positions", "segment_ids"])
@pytest.mark.parametrize("kind", ["a list", "meta", "nested", "jagged", "sparse"])
def test_the_predictor_refuses_them_beside_its_ids(tokenizer, name, kind):
    one = MLMPredictor(3, tokenizer=tokenizer, model=TableModel(torch.zeros(3, 27)))
    with pytest.raises(ValueError, match=f"{name} is a .*; it must be a tensor"):
        one.predict({"input_ids": GOOD, name: ODD[kind]})


@pytest.mark.parametrize("kind", ["complex", "floating", "boolean", "meta", "sparse"])
def test_collators_refuse_them_as_rows(tokenizer, kind):
    row = ODD[kind][0]
    for collator, fields in (
        (DefaultMLMCollator(tokenizer, 8, None), ("input_ids",)),
        (MLMSeq2SeqPredCollator(tokenizer, None, 8, 8), ("prompt_ids", "input_ids")),
    ):
        for name in fields:
            given = {"input_ids": [7], "prompt_ids": [8], name: row}
            with pytest.raises(ValueError, match="row 0 of the batch holds .* integer token ids"):
                collator([given])
