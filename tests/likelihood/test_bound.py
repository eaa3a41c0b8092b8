"""The bound against enumeration of all orders, and what a row's estimate may depend on."""

import math

import pytest
import torch
from toy_joints import MASK, bound_over_orders, exact_denoiser, random_joint, wrong_denoiser
from toy_models import SelectiveModel, TableModel

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.likelihood_mlm import content_ids, mlm_nll
from xlm_mlm.modeling.masks import segment_block_mask

V = 3


def estimates(model, tokens, maskable, count, passes=2):
    """Independent estimates of one row: its number is the only thing that differs."""
    x = torch.tensor([tokens] * count)
    free = torch.tensor([maskable] * count)
    return mlm_nll(model, x, free, MASK, num_mc_samples=passes, seed=5)


def assert_unbiased(found, expected):
    error = found.std() / math.sqrt(len(found))
    assert error < 0.1  # or the next line says nothing
    assert abs(found.mean() - expected) < 3 * error


def test_the_mean_is_the_true_nll_where_the_denoiser_is_exact():
    joint = random_joint(3, V, torch.Generator().manual_seed(1))
    model = exact_denoiser(joint, V)
    for tokens in [(1, 2, 3), (3, 3, 1)]:
        true = -math.log(joint[tokens])
        assert bound_over_orders(model, tokens, [True] * 3) == pytest.approx(true)
        assert_unbiased(estimates(model, tokens, [True] * 3, 4000), true)


@pytest.mark.parametrize("passes", [1, 3])
def test_the_mean_is_that_over_all_orders_where_the_denoiser_is_wrong(passes):
    model = wrong_denoiser(V, seed=3)
    tokens, maskable = (1, 3, 2, 2), (True, True, False, True)
    expected = bound_over_orders(model, tokens, maskable)
    assert_unbiased(estimates(model, tokens, maskable, 4000, passes), expected)


def test_one_token_is_exact_in_any_number_of_passes():
    model = wrong_denoiser(V, seed=4)
    expected = -math.log(model.conditional((1, MASK, 2), 1)[3])
    found = estimates(model, (1, 3, 2), (False, True, False), 2, passes=5)
    assert found.tolist() == pytest.approx([expected, expected])


def network(**options):
    torch.manual_seed(1)
    shape = {"rotary_emb_dim": 8, "mask_idx": 2, "max_length": 16, "dropout": 0.5} | options
    return RotaryTransformerMLMModel(15, 16, 2, 2, **shape)


def example_rows():
    torch.manual_seed(2)
    x = torch.randint(7, 15, (6, 9))
    maskable = torch.rand(6, 9) < 0.7
    maskable[3] = False
    return x, maskable


def naive(model, x, maskable, passes, seed, number):
    """One row alone, by its definition; the draws are looked up as the estimator does."""
    from xlm_mlm.likelihood.draws import masks_of_pass, stratified_counts
    from xlm_mlm.sampling.streams import SampleStreams

    streams, ids = SampleStreams(seed), torch.tensor([number])
    free = maskable.sum()[None]
    counts = stratified_counts(free, passes, streams, ids)
    total = 0.0
    for k in range(passes):
        places = torch.arange(len(x))[None]
        mask = masks_of_pass(k, counts[:, k], maskable[None], places, streams, ids)[0]
        with torch.no_grad():
            logits = model.eval()(x.masked_fill(mask, 2)[None])[0].double()
        terms = [-float(logits[i].log_softmax(0)[x[i]]) for i in range(len(x)) if mask[i]]
        assert len(terms) == counts[0, k]
        total += int(free) / len(terms) * sum(terms)
    return total / passes


def test_equals_the_definition_row_by_row():
    model, (x, maskable) = network(), example_rows()
    found = mlm_nll(model, x, maskable, 2, num_mc_samples=4, seed=9)
    for i, value in enumerate(found.tolist()):
        if i == 3:
            assert value == 0.0
        else:
            assert value == pytest.approx(naive(model, x[i], maskable[i], 4, 9, i), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batch_size_neighbours_and_padding_change_nothing(batch_size):
    model, (x, maskable) = network(), example_rows()
    together = mlm_nll(model, x, maskable, torch.tensor(2), num_mc_samples=3)
    left, right = torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long)
    for i in range(len(x)):
        wide = torch.cat((left, x[i : i + 1], right), dim=1)
        valid = torch.tensor([[False] * 3 + [True] * 9 + [False] * 2])
        free = torch.cat((left.bool(), maskable[i : i + 1], right.bool()), dim=1)
        alone = mlm_nll(
            model,
            torch.cat((wide, wide)),
            torch.cat((free, free)),
            2,
            attention_mask=torch.cat((valid, valid)),
            num_mc_samples=3,
            sample_ids=torch.tensor([i, 77]),
            batch_size=batch_size,
        )
        assert alone[0] == pytest.approx(float(together[i]), rel=1e-5)
        assert i == 3 or alone[1] != alone[0]


def test_forward_passes_are_grouped_and_project_masked_positions_only():
    table = torch.randn(6, 9)
    model, plain = SelectiveModel(table), TableModel(table)
    x, maskable = torch.randint(3, 9, (3, 6)), torch.ones(3, 6, dtype=torch.bool)
    maskable[1, 2:] = False
    found = mlm_nll(model, x, maskable, 2, num_mc_samples=4, batch_size=5)
    assert [len(each) for each in model.inputs] == [5, 5, 2]
    assert sum(model.asked) == sum(int((each == 2).sum()) for each in model.inputs)
    assert torch.equal(found, mlm_nll(plain, x, maskable, 2, num_mc_samples=4))
    assert [len(each) for each in plain.inputs] == [3, 3, 3, 3]


def test_logits_are_kept_few(monkeypatch):
    monkeypatch.setattr("xlm_mlm.likelihood.rows._MOST_LOGITS", 15 * 12)
    model, (x, maskable) = network(), example_rows()
    seen = []
    model.output_layer.register_forward_hook(lambda *given: seen.append(len(given[1][0])))
    mlm_nll(model, x, maskable, 2, num_mc_samples=5)
    assert len(seen) > 5
    assert max(seen) <= 12


@pytest.mark.parametrize("given", ["segments", "ours", "foreign", "broadcast"])
def test_packed_rows_are_scored_with_their_segments_apart(given):
    model, (x, maskable) = network(), example_rows()
    segments = torch.tensor([[0] * 4 + [1] * 5] * len(x))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]).expand(len(x), -1)
    dense = segments[:, :, None] == segments[:, None, :]
    ours = segment_block_mask(segments)
    masks = {"segments": {"segment_ids": segments}, "ours": {"block_mask": ours}}
    if given == "foreign":
        ours.mask_mod = lambda b, h, q, k: segments[b, q] == segments[b, k]
        masks["foreign"] = {"block_mask": ours}
    if given == "broadcast":
        masks["broadcast"] = {"block_mask": segment_block_mask(segments[:1])}
    options = {"num_mc_samples": 3, "positions": positions}
    expected = mlm_nll(model, x, maskable, 2, attention_mask=dense, **options)
    found = mlm_nll(model, x, maskable, 2, **masks[given], **options)
    assert found == pytest.approx(expected, rel=1e-5)
    if given == "foreign":
        with pytest.raises(ValueError, match="batch_size is 4.*6 rows at once"):
            mlm_nll(model, x, maskable, 2, **masks[given], **options, batch_size=4)
    else:
        found = mlm_nll(model, x, maskable, 2, **masks[given], **options, batch_size=4)
        assert found == pytest.approx(expected, rel=1e-5)


def test_modes_gradients_and_arguments_are_left_alone():
    model, (x, maskable) = network(), example_rows()
    model.encoder[0].eval()
    modes = [module.training for module in model.modules()]
    given = x.clone(), maskable.clone()
    found = mlm_nll(model, x, maskable, 2)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, given[0])
    assert torch.equal(maskable, given[1])
    assert found.dtype == torch.float64
    found += 1  # an inference tensor could not be changed


def test_rows_with_nothing_to_score_never_reach_the_model():
    model = wrong_denoiser(V, seed=1)
    free = torch.zeros(2, 3, dtype=torch.bool)
    assert mlm_nll(model, torch.ones(2, 3, dtype=torch.long), free, MASK).tolist() == [0.0, 0.0]
    assert mlm_nll(model, torch.ones(0, 3).long(), free[:0], MASK).shape == (0,)
    assert model.calls == []


def test_a_row_s_content_numbers_it():
    x = torch.tensor([[7, 8, 9, 0], [8, 9, 0, 0], [7, 8, 9, 0]])
    maskable = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]).bool()
    valid = x != 0
    found = content_ids(x, maskable, valid)
    assert len(set(found.tolist())) == 3
    assert (found >= 0).all()
    narrow = content_ids(x[:1, :3].int(), maskable[:1, :3])
    left = content_ids(x[:1].roll(1, 1), maskable[:1].roll(1, 1), valid[:1].roll(1, 1))
    assert found[0] == narrow[0] == left[0]


def test_bad_input_is_refused():
    model = wrong_denoiser(V, seed=1)
    x, free = torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)
    segments = torch.zeros(1, 3, dtype=torch.long)
    cases = [
        ((torch.tensor([[1, MASK, 3]]), free), {}, "position 1 of row 0 .* mask token"),
        ((x, free), {"attention_mask": torch.tensor([[1, 1, 0]])}, "position 2 of row 0 .* hides"),
        ((x[0], free), {}, r"input_ids are \(3,\)"),
        ((x.float(), free), {}, "float32"),
        ((x, free[:, :2]), {}, r"maskable is \(1, 2\); .* \(1, 3\)"),
        ((x, free.long()), {}, "maskable has dtype torch.int64"),
        ((x, free), {"positions": segments[:, :2]}, r"positions is \(1, 2\)"),
        ((x, free), {"segment_ids": segments, "block_mask": 1}, "both given"),
        ((x, free), {"num_mc_samples": 0}, "num_mc_samples is 0"),
        ((x, free), {"batch_size": 0}, "batch_size is 0"),
        ((x, free), {"seed": -1}, "seed is -1"),
        ((x, free), {"sample_ids": torch.tensor([-1])}, "1 integers of at least 0"),
        ((x, free), {"sample_ids": torch.tensor([True])}, "1 integers of at least 0"),
        ((x + 3, free), {}, "target id [456] is outside the vocabulary of 4"),
    ]
    for given, options, says in cases:
        with pytest.raises(ValueError, match=says):
            mlm_nll(model, *given, MASK, **options)
    for mask_id in (None, 1.5, "2", torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="mask_id is"):
            mlm_nll(model, x, free, mask_id)
    with pytest.raises(ValueError, match="model is None"):
        mlm_nll(None, x, free, MASK)
