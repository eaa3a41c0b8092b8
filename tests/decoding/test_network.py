"""Logits of a pass: guidance and the tokens that may not be produced."""

import pytest
import torch
from toy_models import SelectiveModel

from xlm_mlm import LogitsShiftBy1, MLMPredictor, RotaryTransformerMLMModel
from xlm_mlm.decoding.network import Network
from xlm_mlm.decoding.state import begin

MASK, PAD, V = 2, 0, 27


def transformer():
    torch.manual_seed(0)
    return RotaryTransformerMLMModel(
        V, 16, 2, 2, mask_idx=MASK, rotary_emb_dim=8, max_length=32, dropout=0.0
    ).eval()


def batch():
    x = torch.randint(7, V, (3, 6), generator=torch.Generator().manual_seed(1))
    x[0, [1, 4]] = x[1, 2:] = x[2] = MASK
    valid = torch.ones(3, 6, dtype=torch.bool)
    x[0, 0], valid[0, 0] = PAD, False
    return {"input_ids": x, "attention_mask": valid}


def network(model, hook=None, **options):
    one = MLMPredictor(9, model=model, logits_hook=hook, **options)
    return Network(model, hook, None, MASK, one.rules)


def logits_of(net, given):
    state = begin(given, MASK, 0)
    masked = state["masked"]
    rows = masked.any(dim=1).nonzero().squeeze(1)
    with torch.inference_mode():
        return net.logits(state, rows, masked.flatten().nonzero().squeeze(1)), masked


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("hook", [None, LogitsShiftBy1(), torch.tanh])
def test_guidance_is_the_formula(scale, hook):
    model, given = transformer(), batch()
    found, masked = logits_of(network(model, hook, cfg_scale=scale), given)
    x = given["input_ids"]
    with torch.inference_mode():
        bare = torch.full_like(x, MASK)
        seen, unseen = (model(each, given["attention_mask"]) for each in (x, bare))
        if hook is not None:
            seen, unseen = hook(seen), hook(unseen)
        expected = (unseen + (scale + 1) * (seen - unseen))[masked]
        expected[:, MASK] = -torch.inf
    assert torch.allclose(found, expected, atol=1e-5)
    plain, _ = logits_of(network(model, hook), given)
    assert not torch.allclose(found[:2], plain[:2], atol=1e-3)
    # The last row has nothing given.
    assert torch.allclose(found[-6:], plain[-6:], atol=1e-5)


def test_guidance_doubles_the_batch_once():
    model = SelectiveModel(torch.randn(6, V))
    logits_of(network(model, cfg_scale=1.0), batch())
    assert [len(x) for x in model.inputs] == [6]


def test_without_given_tokens_guidance_costs_nothing():
    model = SelectiveModel(torch.randn(6, V))
    given = {"input_ids": torch.full((3, 6), MASK)}
    logits_of(network(model, cfg_scale=1.0), given)
    assert [len(x) for x in model.inputs] == [3]


def test_guidance_of_a_packed_batch():
    """Two segments in a row give what each of them gives alone."""
    torch.manual_seed(0)
    model = RotaryTransformerMLMModel(
        V, 16, 2, 2, mask_idx=MASK, rotary_emb_dim=8, max_length=32, dropout=0.0, use_flex_attn=True
    ).eval()
    x = torch.randint(7, V, (1, 8))
    x[0, [1, 6]] = MASK
    packed = {
        "input_ids": x,
        "positions": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]]),
        "segment_ids": torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]),
    }
    found, _ = logits_of(network(model, cfg_scale=2.0), packed)
    for line, part in enumerate((x[:, :3], x[:, 3:])):
        alone, _ = logits_of(network(model, cfg_scale=2.0), {"input_ids": part})
        assert torch.allclose(found[line], alone[0], atol=1e-5)


def test_tables_of_the_batch_and_of_the_option_both_hold():
    may = torch.zeros(3, 6, V, dtype=torch.bool)
    may[..., 10:14] = True
    given = batch() | {"allowed_tokens": may}
    found, masked = logits_of(
        network(SelectiveModel(torch.randn(6, V)), allowed_tokens=[5, 11, 12]), given
    )
    kept = found.isfinite()
    assert kept.sum(dim=1).tolist() == [2] * int(masked.sum())
    assert kept[:, [11, 12]].all()


def test_a_table_that_does_not_fit_is_refused():
    given = batch() | {"allowed_tokens": torch.ones(6, 5, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"allowed_tokens has shape \(6, 5\)"):
        logits_of(network(SelectiveModel(torch.randn(6, V))), given)


def test_the_models_own_logits_are_left_alone():
    model = SelectiveModel(torch.randn(6, V))
    before = model.table.detach().clone()
    logits_of(network(model, cfg_scale=1.0, suppress_tokens=[5], allowed_tokens=[7, 8]), batch())
    assert torch.equal(model.table, before)


def test_what_is_impossible_stays_so_under_guidance():
    def forbids_6(logits):
        logits = logits.clone()
        logits[..., 6] = -torch.inf
        return logits

    found, _ = logits_of(network(transformer(), forbids_6, cfg_scale=2.0), batch())
    assert (found[:, 6] == -torch.inf).all()
    others = [token for token in range(V) if token not in (6, MASK)]
    assert found[:, others].isfinite().all()


def test_a_hook_sees_batches_of_the_rows_at_work():
    bias = torch.randn(3, 6, V)
    plain, _ = logits_of(network(transformer(), lambda x: x + bias, cfg_scale=0.0), batch())
    guided, _ = logits_of(network(transformer(), lambda x: x + bias, cfg_scale=1e-9), batch())
    assert torch.allclose(plain, guided, atol=1e-4)
