"""Collators against loops over tokens, whatever the rows and the options."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties.strategies import (
    BOS,
    EOS,
    MASK,
    PAD,
    SAMPLINGS,
    TOKENIZER,
    TRUNCATES,
    V,
    kinds_of_row,
    plain_tokens,
    rows_of,
    seeds,
)

from xlm_mlm import datamodule_mlm as data

flags = st.booleans()
OUR_ROWS = rows_of(plain_tokens)


def size_of(truncate, wanted, size):
    """The width of rows that want so many positions."""
    longest = max(wanted)
    return {"block": size, "max": min(size, longest), None: longest}[truncate]


@st.composite
def texts(draw):
    """Options of a collator of single rows, and the rows as it should lay them out."""
    options = {
        "block_size": draw(st.integers(2, 9)),
        "loss_on_padding": draw(flags),
        "truncate": draw(st.sampled_from(TRUNCATES)),
        "add_bos": draw(flags),
        "add_eos": draw(flags),
    }
    return options, draw(OUR_ROWS)


def lay_out(options, rows):
    """Tokens of each row, and which columns are no padding."""
    bos, eos = [BOS] * options["add_bos"], [EOS] * options["add_eos"]
    wholes = [bos + row + eos for row in rows]
    width = size_of(options["truncate"], [len(w) for w in wholes], options["block_size"])
    cut = [whole[:width] for whole in wholes]
    return (
        [row + [PAD] * (width - len(row)) for row in cut],
        [[True] * len(row) + [False] * (width - len(row)) for row in cut],
    )


def check_training_batch(batch, tokens, seen, asked, copies=1):
    """Tokens where they are shown, targets where there is something to see, masks where asked."""
    tokens, seen, asked = (part * copies for part in (tokens, seen, asked))
    for got, whole, may in zip(batch["input_ids"].tolist(), tokens, asked, strict=True):
        for shown, token, maskable in zip(got, whole, may, strict=True):
            assert shown == token or (shown == MASK and maskable)
    assert batch["target_ids"].tolist() == [
        [t if s else -100 for t, s in zip(whole, shown, strict=True)]
        for whole, shown in zip(tokens, seen, strict=True)
    ]
    assert batch["attention_mask"].tolist() == seen


@given(texts(), st.sampled_from(SAMPLINGS), seeds)
def test_pretraining_rows_are_framed_cut_padded_and_masked(case, sampling, seed):
    options, rows = case
    torch.manual_seed(seed)
    collator = data.DefaultMLMCollator(
        TOKENIZER, noise_schedule=None, mask_sampling=sampling, **options
    )
    batch = collator([{"input_ids": row} for row in rows])
    tokens, valid = lay_out(options, rows)
    seen = [[True] * len(row) for row in valid] if options["loss_on_padding"] else valid
    check_training_batch(batch, tokens, seen, seen, 1 + (sampling == "complementary"))


@st.composite
def infilling(draw):
    options, rows = draw(texts())
    asked = [draw(st.lists(flags, min_size=len(row), max_size=len(row))) for row in rows]
    return options, rows, asked


def prompts_of(rows, asked):
    return [
        [MASK if a else t for t, a in zip(row, where, strict=True)]
        for row, where in zip(rows, asked, strict=True)
    ]


def pair_rows(prompts, answers):
    return [
        {"prompt_ids": p, "input_ids": a, "sample_id": 3 * i}
        for i, (p, a) in enumerate(zip(prompts, answers, strict=True))
    ]


@given(infilling(), st.sampled_from(SAMPLINGS), seeds)
def test_infilling_masks_nothing_but_what_the_prompt_marks(case, sampling, seed):
    options, rows, asked = case
    torch.manual_seed(seed)
    collator = data.DefaultInfillMLMCollator(
        TOKENIZER, noise_schedule=None, mask_sampling=sampling, **options
    )
    prompts = prompts_of(rows, asked)
    batch = collator(pair_rows(prompts, rows))
    tokens, valid = lay_out(options, rows)
    marked = [[t == MASK for t in row] for row in lay_out(options, prompts)[0]]
    seen = [[True] * len(row) for row in valid] if options["loss_on_padding"] else valid
    copies = 1 + (sampling == "complementary")
    check_training_batch(batch, tokens, seen, marked, copies)
    fixed = [[not m for m in row] for row in marked * copies]
    assert batch["fixed_positions_mask"].tolist() == fixed


@given(infilling())
def test_infilling_predicts_from_the_prompt_as_it_is(case):
    options, rows, asked = case
    collator = data.MLMInfillWithExactTargetPredCollator(TOKENIZER, noise_schedule=None, **options)
    prompts = prompts_of(rows, asked)
    batch = collator(pair_rows(prompts, rows))
    tokens, valid = lay_out(options, rows)
    assert batch["input_ids"].tolist() == lay_out(options, prompts)[0]
    assert batch["target_ids"].tolist() == tokens
    seen = [[True] * len(row) for row in valid] if options["loss_on_padding"] else valid
    assert batch["attention_mask"].tolist() == seen
    assert batch["sample_ids"].tolist() == [3 * i for i in range(len(rows))]


@given(texts(), st.integers(0, 12))
def test_unconditional_rows_are_taken_as_they_are(case, place):
    options, rows = case
    rows = [[MASK if i == place else t for i, t in enumerate(row)] for row in rows]
    collator = data.MLMUnconditionalPredCollator(TOKENIZER, noise_schedule=None, **options)
    batch = collator([{"input_ids": row} for row in rows])
    tokens, valid = lay_out({**options, "add_bos": False, "add_eos": False}, rows)
    assert batch["input_ids"].tolist() == batch["target_ids"].tolist() == tokens
    assert batch["attention_mask"].tolist() == valid
    batch["input_ids"].fill_(1)
    assert batch["target_ids"].tolist() == tokens, "the target is a copy"


@st.composite
def pairs(draw):
    """Options of the seq2seq collators, prompts, and answers."""
    options = {
        "block_size": draw(st.integers(1, 7)),
        "input_block_size": draw(st.integers(1, 5)),
        "add_bos": draw(flags),
        "add_eos": draw(flags),
        "truncate": draw(st.sampled_from(TRUNCATES)),
        "loss_on_padding": draw(flags),
    }
    answers = draw(rows_of(plain_tokens, most=8))
    prompts = draw(rows_of(plain_tokens, least=0, most=7, rows=len(answers)))
    return options, prompts, answers


def cut_pair(options, prompt, answer):
    """What is kept of a prompt with its BOS, and of an answer with its EOS."""
    if options["truncate"] is not None:
        prompt = prompt[-options["input_block_size"] :]
    answer = answer + [EOS] * options["add_eos"]
    if options["truncate"] is not None:
        answer = answer[: options["block_size"]]
    return prompt + [BOS] * options["add_bos"], answer


def lay_out_pairs(options, prompts, answers, left):
    """Tokens, which are seen, and which may be masked, of each row."""
    kept = [cut_pair(options, *pair) for pair in zip(prompts, answers, strict=True)]
    whole = [len(answer) + options["add_eos"] for answer in answers]
    room = size_of(options["truncate"], whole, options["block_size"])
    before = options["input_block_size"] + options["add_bos"]
    front = size_of(options["truncate"], [len(p) for p, _ in kept], before)
    out = []
    for prompt, answer in kept:
        shown = room if options["loss_on_padding"] else len(answer)
        lead = front - len(prompt) if left else 0
        row = [PAD] * lead + prompt + answer
        start, end = lead + len(prompt), lead + len(prompt) + shown
        out.append((row, lead, start, end))
    whole_width = left or options["truncate"] == "block"
    width = front + room if whole_width else max(end for *_, end in out)
    tokens = [row + [PAD] * (width - len(row)) for row, *_ in out]
    seen = [[lead <= c < end for c in range(width)] for _, lead, _, end in out]
    asked = [[start <= c < end for c in range(width)] for _, _, start, end in out]
    return tokens, seen, asked


def seq2seq_rows(prompts, answers):
    return [
        {"prompt_ids": p, "target_ids": a, "answer": str(a)}
        for p, a in zip(prompts, answers, strict=True)
    ]


def layouts(left):
    return data.MLMSeq2SeqCollator if left else data.MLMSeq2SeqTrainCollator


@given(pairs(), flags, st.sampled_from(SAMPLINGS), seeds)
def test_prompt_and_answer_are_laid_out_and_only_the_answer_is_masked(case, left, sampling, seed):
    options, prompts, answers = case
    torch.manual_seed(seed)
    collator = layouts(left)(TOKENIZER, None, mask_sampling=sampling, **options)
    batch = collator(seq2seq_rows(prompts, answers))
    tokens, seen, asked = lay_out_pairs(options, prompts, answers, left)
    copies = 1 + (sampling == "complementary")
    check_training_batch(batch, tokens, seen, asked, copies)
    fixed = [[not a for a in row] for row in asked * copies]
    assert batch["fixed_positions_mask"].tolist() == fixed


@given(pairs(), flags, seeds)
def test_prompt_and_answer_can_be_read_back(case, left, seed):
    """From a training batch, whatever was masked, and from a batch to predict."""
    options, prompts, answers = case
    options |= {"truncate": None, "loss_on_padding": False}
    torch.manual_seed(seed)
    rows = seq2seq_rows(prompts, answers)
    batch = layouts(left)(TOKENIZER, None, **options)(rows)
    whole = torch.where(batch["target_ids"] == -100, batch["input_ids"], batch["target_ids"])
    seen, fixed = batch["attention_mask"], batch["fixed_positions_mask"]
    bos, eos = [BOS] * options["add_bos"], [EOS] * options["add_eos"]
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert whole[i][seen[i] & fixed[i]].tolist() == prompt + bos
        assert whole[i][~fixed[i]].tolist() == answer + eos


@given(pairs())
def test_a_batch_to_predict_holds_prompts_and_targets(case):
    options, prompts, answers = case
    options["add_bos"] |= [] in prompts
    collator = data.MLMSeq2SeqPredCollator(TOKENIZER, None, **options)
    batch = collator(seq2seq_rows(prompts, answers))
    kept = [cut_pair(options, *pair) for pair in zip(prompts, answers, strict=True)]
    for i, (prompt, answer) in enumerate(kept):
        ids, valid = batch["input_ids"][i], batch["attention_mask"][i]
        assert ids[valid].tolist() == prompt
        assert ids[~valid].tolist() == [PAD] * int((~valid).sum())
        assert valid.tolist() == sorted(valid.tolist()), "padding is on the left"
        target = batch["target_ids"][i].tolist()
        assert target == answer + [PAD] * (len(target) - len(answer))
    wanted = [len(answer) + options["add_eos"] for answer in answers]
    assert batch["target_ids"].shape[1] == size_of(
        options["truncate"], wanted, options["block_size"]
    )
    assert batch["answer"] == [str(answer) for answer in answers]


def make_collators(sampling):
    """One of every kind, and the examples it takes."""
    single = {"block_size": 6, "noise_schedule": None}
    pair = {"block_size": 5, "input_block_size": 3, "noise_schedule": None}
    masks = {"mask_sampling": sampling}
    return [
        data.DefaultMLMCollator(TOKENIZER, **single, **masks),
        data.DefaultInfillMLMCollator(TOKENIZER, **single, **masks),
        data.MLMInfillWithExactTargetPredCollator(TOKENIZER, **single),
        data.MLMUnconditionalPredCollator(TOKENIZER, **single),
        data.MLMSeq2SeqTrainCollator(TOKENIZER, **pair, target_field="input_ids", **masks),
        data.MLMSeq2SeqCollator(TOKENIZER, **pair, target_field="input_ids", **masks),
        data.MLMSeq2SeqPredCollator(TOKENIZER, **pair, target_field="input_ids"),
        data.PackedMLMCollator(TOKENIZER, 12, None, use_flex_attn=True, **masks),
    ]


def equal_lengths(rows):
    """Rows that the collator of packed blocks takes as well."""
    return [row[: min(map(len, rows))] for row in rows]


def equal_batches(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@given(infilling(), st.integers(0, 7), kinds_of_row(), st.sampled_from(SAMPLINGS), seeds)
def test_examples_stay_as_they_are_in_whatever_form_they_come(case, number, kind, sampling, seed):
    """Lists, tuples, arrays and tensors give one batch, which shares nothing with them."""
    _, rows, asked = case
    rows, collator = equal_lengths(rows), make_collators(sampling)[number]
    prompts = prompts_of(rows, [a[: len(rows[0])] for a in asked])
    plain = pair_rows(prompts, rows)
    taken = [
        {name: kind(each) if isinstance(each, list) else each for name, each in row.items()}
        for row in plain
    ]
    before, batches = copy.deepcopy(taken), []
    for examples in (plain, taken):
        torch.manual_seed(seed)
        batches.append(collator(examples))
    assert equal_batches(*batches)
    for value in batches[1].values():
        value.zero_()
    for row, old in zip(taken, before, strict=True):
        assert all(np.array_equal(row[name], old[name]) for name in old)


@given(infilling(), st.integers(0, 7), seeds, st.data())
def test_a_generator_decides_everything_and_torchs_own_is_not_touched(case, number, seed, choose):
    _, rows, asked = case
    rows = equal_lengths(rows)
    prompts = prompts_of(rows, [a[: len(rows[0])] for a in asked])
    examples, sampling = pair_rows(prompts, rows), choose.draw(st.sampled_from(SAMPLINGS))
    collator, batches, state = make_collators(sampling)[number], [], torch.get_rng_state()
    for _ in range(2):
        collator._sampler.source.generator = torch.Generator().manual_seed(seed)
        batches.append(collator(examples))
    assert equal_batches(*batches)
    assert torch.equal(torch.get_rng_state(), state)


@given(texts(), st.data())
def test_a_row_is_framed_alike_in_whatever_company(case, choose):
    options, rows = case
    options["truncate"] = "block"
    collator = data.MLMUnconditionalPredCollator(TOKENIZER, noise_schedule=None, **options)
    together = collator([{"input_ids": row} for row in rows])
    i = choose.draw(st.integers(0, len(rows) - 1))
    alone = collator([{"input_ids": rows[i]}])
    for name, value in alone.items():
        assert torch.equal(value[0], together[name][i])


@given(infilling(), st.integers(0, 7), st.sampled_from([-1, -100, V, 2**40, 0.5, "7"]), st.data())
def test_one_bad_token_anywhere_is_refused(case, number, bad, choose):
    """With an error that names the row: never an IndexError, nor a batch that holds it."""
    _, rows, asked = case
    rows = equal_lengths(rows)
    prompts = prompts_of(rows, [a[: len(rows[0])] for a in asked])
    i = choose.draw(st.integers(0, len(rows) - 1))
    # Within the part that no collator cuts away.
    place = choose.draw(st.integers(0, min(len(rows[i]), 3) - 1))
    rows[i] = [*rows[i][:place], bad, *rows[i][place + 1 :]]
    if number in (1, 2):
        prompts[i] = rows[i]
    with pytest.raises(ValueError, match=rf"row {i} of the batch holds {bad!r}"):
        make_collators("bernoulli")[number](pair_rows(prompts, rows))


@given(rows_of(plain_tokens, least=0), st.sampled_from(TRUNCATES), st.integers(1, 9))
def test_prompts_are_cut_and_padded_on_the_left(rows, truncate, size):
    wanted = [len(row) for row in rows]
    width = size_of(truncate, wanted, size)
    if width == 0:
        with pytest.raises(ValueError, match="every row of prefix_ids is empty"):
            data.prepare_prefix_ids(rows, PAD, size, truncate)
        return
    batch = data.prepare_prefix_ids(rows, PAD, size, truncate)
    kept = [row[max(len(row) - width, 0) :] for row in rows]
    assert batch["input_ids"].tolist() == [[PAD] * (width - len(r)) + r for r in kept]
    assert batch["attention_mask"].tolist() == [
        [False] * (width - len(r)) + [True] * len(r) for r in kept
    ]
