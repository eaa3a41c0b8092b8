"""Pseudo-log-likelihood against a loop that masks one token, or the rest of its word."""

import pytest
import torch
from toy_models import SelectiveModel

from xlm_mlm import RotaryTransformerMLMModel
from xlm_mlm.likelihood_mlm import pseudo_log_likelihood
from xlm_mlm.modeling.masks import segment_block_mask

MASK = 2


def network():
    torch.manual_seed(1)
    return RotaryTransformerMLMModel(
        15, 16, 2, 2, rotary_emb_dim=8, mask_idx=MASK, max_length=16, dropout=0.5
    )


def example_rows():
    x = torch.randint(7, 15, (4, 8))
    maskable = torch.rand(4, 8) < 0.7
    maskable[2] = False
    return x, maskable


def naive(model, x, maskable, words=None, dense=None):
    scores = torch.zeros(len(x), dtype=torch.float64)
    for i in range(len(x)):
        if not maskable[i]:
            continue
        seen = x.clone()
        seen[i] = MASK
        for j in range(i + 1, len(x)):
            if words is not None and words[j] == words[i] and maskable[j]:
                seen[j] = MASK
        with torch.no_grad():
            logits = model.eval()(seen[None], dense)[0, i].double()
        scores[i] = logits.log_softmax(0)[x[i]]
    return scores


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("by_word", [False, True])
def test_equals_the_loop(by_word, batch_size):
    model, (x, maskable) = network(), example_rows()
    words = torch.tensor([0, 0, 0, 1, 2, 2, 2, 0]).expand(4, -1) if by_word else None
    options = {"word_ids": words, "batch_size": batch_size}
    tokens = pseudo_log_likelihood(model, x, maskable, MASK, per_token=True, **options)
    assert model.training
    for i in range(4):
        expected = naive(model, x[i], maskable[i], None if words is None else words[i])
        assert tokens[i] == pytest.approx(expected, abs=1e-5)
    sums = pseudo_log_likelihood(model, x, maskable, MASK, **options)
    assert sums == pytest.approx(tokens.sum(1))
    assert sums[2] == 0.0


@pytest.mark.parametrize("foreign", [False, True])
def test_packed_rows(foreign):
    model, (x, maskable) = network(), example_rows()
    segments = torch.tensor([[0] * 3 + [1] * 5] * 4)
    block_mask = segment_block_mask(segments)
    if foreign:
        block_mask.mask_mod = lambda b, h, q, k: segments[b, q] == segments[b, k]
    words = torch.tensor([0, 0, 0, 1, 1, 2, 2, 0]).expand(4, -1)
    found = pseudo_log_likelihood(
        model, x, maskable, MASK, word_ids=words, block_mask=block_mask, per_token=True
    )
    for i in range(4):
        dense = segments[i, :, None] == segments[i, None, :]
        expected = naive(model, x[i], maskable[i], words[i], dense[None])
        assert found[i] == pytest.approx(expected, abs=1e-5)


def test_one_position_a_pass_is_projected():
    model = SelectiveModel(torch.randn(6, 9))
    x, maskable = torch.randint(3, 9, (2, 6)), torch.ones(2, 6, dtype=torch.bool)
    words = torch.zeros(2, 6, dtype=torch.long)
    pseudo_log_likelihood(model, x, maskable, MASK, word_ids=words, batch_size=4)
    assert model.asked == [4, 4, 4]
    masked = torch.cat([(each == MASK).sum(1) for each in model.inputs])
    assert masked.tolist() == [6, 5, 4, 3, 2, 1] * 2


def test_words_of_another_shape_are_refused():
    x, maskable = example_rows()
    with pytest.raises(ValueError, match=r"word_ids is \(4, 7\)"):
        pseudo_log_likelihood(network(), x, maskable, MASK, word_ids=x[:, 1:])
