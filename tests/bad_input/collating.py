"""Collators, and the functions beside them."""

from bad_input.cases import DICT, HALF, HUGE, LIST, NAN, Case, options

from xlm_mlm.datamodule_mlm import (
    DefaultInfillMLMCollator,
    DefaultMLMCollator,
    MLMSeq2SeqCollator,
    MLMSeq2SeqPredCollator,
    MLMSeq2SeqTrainCollator,
    PackedMLMCollator,
    prepare_prefix_ids,
    prepare_prefix_suffix_ids,
    print_batch_mlm,
)
from xlm_mlm.papl_unconditional import PaplUnconditionalCollator

BOOL = "must be true or false"
ONE_UP = "must be an integer of at least 1"
ROW = {"input_ids": [8, 9, 10], "prompt_ids": [8, 2, 10], "target_ids": [9, 9]}


class Bare:
    """A tokenizer without special tokens."""

    mask_token_id = pad_token_id = None


def collator(kind, **usual):
    def make(place, rows=(ROW,), **more):
        given = {"tokenizer": place.tokenizer, "block_size": 8, "noise_schedule": None}
        return kind(**{**given, **usual, **more})(rows)

    return make


single = collator(DefaultMLMCollator)
infill = collator(DefaultInfillMLMCollator)
packed = collator(PackedMLMCollator, use_flex_attn=True)
pairs = collator(MLMSeq2SeqTrainCollator, input_block_size=8)
left = collator(MLMSeq2SeqCollator, input_block_size=8)
predicting = collator(MLMSeq2SeqPredCollator)


def of(field, value):
    return ({**ROW, field: value},)


def prefixes(place, **more):
    return prepare_prefix_ids(**{"prefix_ids": [[1]], "pad_token_id": 0, "max_seq_len": 4, **more})


def both(place, **more):
    given = {"prefix_ids": [[1]], "suffix_ids": [[3]], "pad_token_id": 0, "mask_token_id": 2}
    return prepare_prefix_suffix_ids(**{**given, "max_seq_len": 8, **more})


CASES = [
    *options(
        "collator",
        single,
        {
            "tokenizer": (Bare(), "Bare has no", "token", "add_special_tokens"),
            "tokenizer#none": (None, "no tokenizer was given", "pad token"),
            "block_size": ("8", "block_size is '8'", ONE_UP),
            "block_size#one": (1, "block_size is 1", "at least 2, or add_bos False"),
            "block_size#none": (None, "block_size is None", "truncate=None"),
            "truncate": ("longest", "truncate is 'longest'", "'block', 'max', None"),
            "add_bos": ("false", "add_bos is 'false'", BOOL),
            "add_eos": (None, "add_eos is None", BOOL),
            "loss_on_padding": (1, "loss_on_padding is 1", BOOL),
            "noise_schedule": ("loglinear", "noise_schedule is 'loglinear'", "_target_"),
            "noise_schedule#dict": (DICT, "noise_schedule is {'a': 1}", "sample_t, or None"),
            "mask_sampling": ("bernouli", "mask_sampling is 'bernouli'", "'exact_count'"),
            "generator": (0, "generator is 0", "torch.Generator().manual_seed(0)"),
            "rows": ((), "empty batch", "at least one example"),
            "rows#none": (None, "was given None", "a list of rows"),
            "rows#mapping": (ROW, "was given {", "a list of rows"),
            "rows#number": ([5], "row 0 of the batch", "is 5", "mapping of fields"),
            "rows#list": ([[8, 9]], "row 0", "is [8, 9]", "mapping of fields"),
            "rows#empty": (of("input_ids", []), "row 0", "is empty", "at least one token"),
            "rows#float": (of("input_ids", [8, 0.5]), "input_ids of row 0", "0.5", "integer"),
            "rows#text": (of("input_ids", "8 9"), "a str", "integer token ids"),
            "rows#bool": (of("input_ids", [True]), "booleans", "integer token ids"),
            "rows#nested": (of("input_ids", [[8]]), "[8]", "integer token ids"),
            "rows#none-ids": (of("input_ids", None), "holds None", "integer token ids"),
            "rows#outside": (of("input_ids", [8, 27]), "holds 27", "from 0 to 26"),
            "rows#negative": (of("input_ids", [8, -100]), "holds -100", "0 or more"),
            "rows#huge": (of("input_ids", [HUGE]), "input_ids of row 0", "integer token ids"),
        },
    ),
    Case(
        "collator-field",
        lambda p: single(p, [{"ids": [1]}]),
        ("'input_ids'", "fields: ids"),
        KeyError,
    ),
    Case(
        "infill-unequal",
        lambda p: infill(p, of("prompt_ids", [2])),
        ("1 prompt_ids and 3 input_ids", "one length"),
    ),
    Case(
        "infill-contradiction",
        lambda p: infill(p, of("prompt_ids", [9, 2, 10])),
        ("gives token 9", "input_ids have 8", "the mask token (2)"),
    ),
    *options(
        "packed",
        packed,
        {
            "use_flex_attn": (False, "use_flex_attn is False", "Set use_flex_attn=True"),
            "use_flex_attn#text": ("false", "use_flex_attn is 'false'", BOOL),
            "block_size": (2, "length 3", "block_size 2", "pack the dataset"),
            "rows": ((ROW, {"input_ids": [8]}), "lengths from 1 to 3", "with drop_last"),
        },
    ),
    *options(
        "seq2seq",
        pairs,
        {
            "input_block_size": (None, "input_block_size is None", "positions of the prompt"),
            "block_size": (HALF, "block_size is np.float32(0.5)", ONE_UP),
            "add_bos": ("output", "add_bos is 'output'", BOOL),
            "target_field": (LIST, "target_field is [1]", "name of a field"),
            "rows": ([None], "row 0", "is None", "mapping of fields"),
            "rows#empty": (of("target_ids", []), "target_ids of row 0", "is empty"),
        },
    ),
    *options(
        "seq2seq-left",
        left,
        {
            "prompt_field": (3, "prompt_field is 3", "name of a field"),
            "pass_through_fields": ("answer", "is 'answer'", "list of field names"),
            "pass_through_fields#number": (7, "pass_through_fields is 7", "list of field names"),
            "pass_through_fields#own": (["input_ids"], "input_ids", "carry other fields only"),
        },
    ),
    Case(
        "seq2seq-mixed",
        lambda p: predicting(p, (ROW, {"prompt_ids": [8], "target_ids": []})),
        ("row 1", "empty suffix", "batch them apart"),
    ),
    Case(
        "sample-id",
        lambda p: predicting(p, of("sample_id", -1)),
        ("sample_id of row 0", "is -1", "at least 0"),
    ),
    Case(
        "papl-lengths",
        lambda p: PaplUnconditionalCollator()([ROW, {"input_ids": [8]}]),
        ("fixed length", "[1, 3]"),
    ),
    *options(
        "prefix",
        prefixes,
        {
            "prefix_ids": ([], "prefix_ids is empty", "at least one prompt"),
            "prefix_ids#none": (None, "prefix_ids is None", "list of prompts"),
            "pad_token_id": ("0", "pad_token_id is '0'", "at least 0"),
            "max_seq_len": (HUGE, "max_seq_len is", "at most"),
        },
    ),
    *options(
        "prefix-suffix",
        both,
        {
            "suffix_ids": ([], "1 prefix_ids and 0 suffix_ids", "one suffix for each"),
            "mask_token_id": (0, "the id 0 for both mask and padding", "must differ"),
            "suffix_block_size#large": (9, "may take 8 positions", "raise max_seq_len"),
            "suffix_block_size": (NAN, "suffix_block_size is nan", ONE_UP),
            "loss_on_padding": ("no", "loss_on_padding is 'no'", BOOL),
        },
    ),
    Case(
        "print-batch",
        lambda p: print_batch_mlm([1], "train", p.tokenizer),
        ("batch is [1]", "mapping"),
    ),
]
