"""The likelihood that the loss estimates beside the objective, in eval mode."""

import pytest
import torch

from xlm_mlm import (
    DefaultInfillMLMCollator,
    DefaultMLMCollator,
    MLMLoss,
    MLMSeq2SeqCollator,
    PackedMLMCollator,
    RotaryTransformerMLMModel,
)
from xlm_mlm.likelihood_mlm import content_ids, mlm_nll

MASK, PAD, V = 2, 0, 27


@pytest.fixture
def model():
    torch.manual_seed(3)
    return RotaryTransformerMLMModel(
        V, 16, 2, 2, mask_idx=MASK, rotary_emb_dim=4, max_length=24, dropout=0.3
    ).eval()


ROWS = [{"input_ids": list(range(7, 7 + n))} for n in (5, 9, 2)]


def one_by_one(model, rows, maskable, seed=0, passes=4):
    """Each row alone, without padding."""
    found = []
    for ids, free in zip(rows, maskable, strict=True):
        x, free = torch.tensor([ids]), torch.tensor([free])
        numbers = content_ids(x, free)
        options = {"num_mc_samples": passes, "seed": seed, "sample_ids": numbers}
        found.append(float(mlm_nll(model, x, free, MASK, **options)))
    return found


def test_padded_batches_whatever_is_masked_in_them(model, tokenizer):
    collator = DefaultMLMCollator(tokenizer, 16, None, loss_on_padding=False)
    loss = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4)
    rows = [[4, *row["input_ids"], 3] for row in ROWS]
    expected = one_by_one(model, rows, [[True] * len(row) for row in rows])
    for _ in range(2):
        batch = collator(ROWS)
        before = {name: value.clone() for name, value in batch.items()}
        found = loss(batch, batch_idx=_)
        assert found["nll"].tolist() == pytest.approx(expected, rel=1e-5)
        assert found["num_tokens"].tolist() == [7, 11, 4]
        assert found["loss"].ndim == 0
        assert all(torch.equal(batch[name], value) for name, value in before.items())
    halves = [loss(collator(ROWS[2:])), loss(collator(ROWS[:2]))]
    again = torch.cat((halves[1]["nll"], halves[0]["nll"]))
    assert again.tolist() == pytest.approx(expected, rel=1e-5)
    other = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4, likelihood_seed=1)
    assert other(collator(ROWS))["nll"].tolist() != pytest.approx(expected, rel=1e-3)


def test_given_tokens_are_not_counted(model, tokenizer):
    collator = DefaultInfillMLMCollator(tokenizer, 16, None, loss_on_padding=True)
    answer = [7, 8, 9, 10]
    example = {"input_ids": answer, "prompt_ids": [7, MASK, MASK, 10]}
    found = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4)(collator([example]))
    row = [4, *answer, 3] + [PAD] * 10
    expected = one_by_one(model, [row], [[False, False, True, True] + [False] * 12])
    assert found["num_tokens"].tolist() == [2]
    assert found["nll"].tolist() == pytest.approx(expected, rel=1e-5)


def test_prompts_are_not_counted(model, tokenizer):
    collator = MLMSeq2SeqCollator(tokenizer, None, 5, 4, loss_on_padding=False)
    found = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4)(
        collator([{"prompt_ids": [7, 8, 9], "input_ids": [10, 11]}])
    )
    # BOS between the two is given as well; EOS is not.
    expected = one_by_one(model, [[7, 8, 9, 4, 10, 11, 3]], [[False] * 4 + [True] * 3])
    assert found["num_tokens"].tolist() == [3]
    assert found["nll"].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_token_nobody_knows_is_context(model, tokenizer):
    # The data themselves hold a mask: the collators give it the target -100.
    targets = torch.tensor([[7, -100, 9, 10]])
    inputs = torch.tensor([[MASK, MASK, 9, MASK]])
    batch = {"input_ids": inputs, "target_ids": targets}
    found = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4)(batch)
    expected = one_by_one(model, [[7, MASK, 9, 10]], [[True, False, True, True]])
    assert found["num_tokens"].tolist() == [3]
    assert found["nll"].tolist() == pytest.approx(expected, rel=1e-5)


def test_packed_batches(model, tokenizer):
    collator = PackedMLMCollator(tokenizer, 8, None, use_flex_attn=True)
    rows = [[7, 8, 3, 9, 10, 11, 3, 12], [13, 14, 15, 16, 17, 18, 3, 7]]
    batch = collator([{"input_ids": row} for row in rows])
    loss = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4)
    found = loss(batch)
    segments = batch["segment_ids"]
    x, free = torch.tensor(rows), torch.ones(2, 8, dtype=torch.bool)
    expected = mlm_nll(
        model,
        x,
        free,
        MASK,
        attention_mask=segments[:, :, None] == segments[:, None],
        positions=batch["positions"],
        num_mc_samples=4,
        sample_ids=content_ids(x, free),
    )
    assert found["nll"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert found["num_tokens"].tolist() == [8, 8]


def test_masks_are_read_as_the_model_reads_them(model, tokenizer):
    """Integers are booleans; one of (B, L, L) names no padding; with a block mask, none counts."""
    batch = DefaultMLMCollator(tokenizer, 16, None, loss_on_padding=False)(ROWS)
    loss = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4)
    expected = loss(batch)["nll"]
    valid = batch["attention_mask"]
    assert torch.equal(loss({**batch, "attention_mask": valid.long()})["nll"], expected)
    assert expected.dtype == torch.float32
    # Where the row's own padding is hidden as well, only the draws can differ: they are of it all.
    whole = valid[:, :, None] & valid[:, None] | torch.eye(16, dtype=torch.bool)
    found = loss({**batch, "attention_mask": whole})
    tokens = torch.where(batch["target_ids"] < 0, batch["input_ids"], batch["target_ids"])
    again = mlm_nll(
        model,
        tokens,
        valid,
        MASK,
        attention_mask=whole,
        num_mc_samples=4,
        sample_ids=content_ids(tokens, valid),
    )
    assert found["nll"].tolist() == pytest.approx(again.tolist(), rel=1e-5)
    assert found["num_tokens"].tolist() == [7, 11, 4]
    collator = PackedMLMCollator(tokenizer, 8, None, use_flex_attn=True)
    packed = collator([{"input_ids": [7, 8, 3, 9, 10, 11, 3, 12]}])
    ignored = {"attention_mask": torch.arange(8)[None] < 2}
    assert torch.equal(loss({**packed, **ignored})["nll"], loss(packed)["nll"])


def test_positions_reach_the_model(model, tokenizer):
    """Not evenly spaced: attention sees no more than how far apart two positions are."""
    tokens = torch.tensor([[7, 8, 9, 10, 11]])
    batch = {"input_ids": tokens, "target_ids": tokens, "positions": torch.arange(5)[None] ** 2}
    free = torch.ones(1, 5, dtype=torch.bool)
    expected = mlm_nll(
        model,
        tokens,
        free,
        MASK,
        positions=batch["positions"],
        num_mc_samples=4,
        sample_ids=content_ids(tokens, free),
    )
    found = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=4)(batch)["nll"]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert found.tolist() != pytest.approx(one_by_one(model, [[7, 8, 9, 10, 11]], free.tolist()))


def test_a_model_of_no_mode_is_evaluated(tokenizer):
    def model(x_t, attention_mask=None, positions=None):
        return torch.nn.functional.one_hot(x_t, V).float()

    batch = {"input_ids": torch.tensor([[MASK, 9]]), "target_ids": torch.tensor([[7, 9]])}
    found = MLMLoss(model=model, tokenizer=tokenizer, num_mc_samples=1)(batch)
    assert found["num_tokens"].tolist() == [2]


def test_nothing_is_estimated_in_training_or_unless_asked(model, tokenizer):
    batch = DefaultMLMCollator(tokenizer, 16, None)(ROWS)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert MLMLoss(model=model, tokenizer=tokenizer)(batch).keys() == {"loss"}
    asked = MLMLoss(model=model.train(), tokenizer=tokenizer, num_mc_samples=4)
    assert asked(batch).keys() == {"loss"}
    assert len(calls) == 2
    assert asked.loss_fn(batch).keys() == {"loss"}


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="num_mc_samples is 0"):
        MLMLoss(num_mc_samples=0)
    with pytest.raises(ValueError, match="seed is -3"):
        MLMLoss(likelihood_seed=-3)
