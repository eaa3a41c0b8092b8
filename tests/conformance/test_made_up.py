"""Made-up tokenizer and rows: what a check counts on."""

import itertools

import pytest
from transformers import AutoTokenizer  # noqa: F401 - the host loads it before any tokenizer

from xlm_mlm.conformance.adapter import Adapter
from xlm_mlm.conformance.made_up import (
    KINDS,
    MadeUpManager,
    make_rows,
    make_tokenizer,
    other_words,
    prompt_words,
)

SIZES = {"block_size": 12, "input_block_size": 8}


@pytest.fixture(scope="module")
def words():
    return make_tokenizer()


def test_the_tokenizer_has_all_that_the_host_asks_for(words):
    words.post_creation()  # raises if a special token is missing
    assert words.full_vocab_size == len(words)
    assert words.pad_token_id != 0


def test_text_survives(words):
    ids = words("w3 w40 w7", add_special_tokens=False)["input_ids"]
    assert words.decode(ids) == "w3 w40 w7"
    framed = [words.bos_token_id, *ids, words.eos_token_id]
    assert words.decode(framed, skip_special_tokens=True) == "w3 w40 w7"


def test_prompts_and_the_rest_share_no_word(words):
    special = set(words.all_special_ids)
    every = prompt_words() + other_words()
    assert len(set(every)) == len(every) == len(words) - len(special)
    assert not special & set(every)


@pytest.mark.parametrize("sizes", [SIZES, {"block_size": 6, "input_block_size": 3}])
def test_prompted_rows_fit_and_differ_in_length(sizes):
    rows = KINDS["prompted"](sizes, 8)
    assert all(set(row["prompt_ids"]) <= set(prompt_words()) for row in rows)
    assert all(set(row["input_ids"]) <= set(other_words()) for row in rows)
    lengths = [[len(row[field]) for row in rows] for field in ("prompt_ids", "input_ids")]
    assert max(lengths[0]) <= sizes["input_block_size"]
    # BOS and EOS have to fit as well.
    assert max(lengths[1]) <= sizes["block_size"] - 2
    assert len(set(lengths[1])) > 1 or sizes["block_size"] == 6


def test_infill_rows_mask_some_of_the_tokens(words):
    for row in KINDS["infill"](SIZES, 6):
        pairs = list(zip(row["prompt_ids"], row["input_ids"], strict=True))
        masked = [given == words.mask_token_id for given, _ in pairs]
        assert 0 < sum(masked) < len(masked)
        assert all(given in (token, words.mask_token_id) for given, token in pairs)


def test_packed_rows_are_full_and_hold_two_segments(words):
    for row in KINDS["packed"](SIZES, 4):
        assert len(row["input_ids"]) == SIZES["block_size"]
        assert row["input_ids"].count(words.eos_token_id) == 2
        assert row["input_ids"][-1] == words.eos_token_id


class Own(Adapter):
    def rows(self, loader, tokenizer, sizes):
        return [{"input_ids": [1]}, {"input_ids": [2]}] if loader == "val.lm" else None


def test_an_adapter_brings_rows_of_its_own_for_some_loaders(words):
    rows = make_rows(Own(), "val.lm", words, SIZES, "prompted", 5)
    assert [row["input_ids"] for row in rows] == [[1], [2], [1], [2], [1]]
    assert "prompt_ids" in make_rows(Own(), "train.lm", words, SIZES, "prompted", 5)[0]


def test_the_manager_makes_batches_without_any_data(words):
    manager = MadeUpManager(
        collator=lambda rows: [row["input_ids"] for row in rows],
        dataloader_kwargs={"batch_size": 2, "num_workers": 0, "shuffle": True},
        made_up={"loader": "train.lm", "kind": "prompted", "sizes": SIZES, "adapter": None},
        full_name="somewhere/on/the/hub",
    )
    manager.prepare_data(manual_cache_dir="", tokenizer=words, num_proc=1)
    manager.setup("fit", manual_cache_dir="", tokenizer=words, block_size=12)
    batches = list(itertools.chain(*manager.get_dataloader("train", is_ddp=False)))
    assert batches == [row["input_ids"] for row in KINDS["prompted"](SIZES, 16)]
