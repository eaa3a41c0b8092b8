"""Datasets, files, metrics, histories, checkpoints, and what the conformance kit is told."""

import json

import torch
from bad_input.cases import ARRAY, Case, options, text_file

from xlm_mlm.callbacks.boards import BoardPrinter
from xlm_mlm.callbacks.cpu import CPUSettings
from xlm_mlm.checkpoints import read_checkpoint
from xlm_mlm.conformance.adapter import load_adapter
from xlm_mlm.conformance.subject import find_package, find_plugin
from xlm_mlm.data.readers import content_digest, read_documents
from xlm_mlm.data.star import StarGraphDatasetManager
from xlm_mlm.data.sudoku import SudokuDatasetManager
from xlm_mlm.data.text import TextDatasetManager
from xlm_mlm.data.tokenizers import load_tokenizer
from xlm_mlm.datamodule_mlm import (
    DefaultMLMCollator,
    MLMEmptyDataset,
    MLMEmptyDatasetFromLengthRef,
)
from xlm_mlm.generation.fill import Filler
from xlm_mlm.history_mlm import HistoryTopKPlugin, read_traces
from xlm_mlm.metrics_mlm import (
    Perplexity,
    exact_match_update_fn,
    infill_token_accuracy_update_fn,
    likelihood_update_fn,
    mean_metric_update_fn,
    seq2seq_exact_match_update_fn,
)
from xlm_mlm.papl_unconditional import PaplUnconditionalMLMDataset

BOOL = "must be true or false"
ONE_UP = "must be an integer of at least 1"


class Bare:
    """A tokenizer without special tokens."""

    mask_token_id = pad_token_id = None


def manager(kind, **usual):
    def make(place, **more):
        collate = DefaultMLMCollator(place.tokenizer, 8, None)
        given = {"collator": collate, "split": "train", "dataloader_kwargs": {"batch_size": 1}}
        if kind is TextDatasetManager:
            given |= {"data_files": place.path("texts.txt"), "block_size": 4}
        return kind(**{**given, **usual, **more})

    return make


text = manager(TextDatasetManager)
sudoku = manager(SudokuDatasetManager)
star = manager(
    StarGraphDatasetManager,
    generator="simple",
    generator_kwargs={"degree": 2, "pathlength": 2, "vocab_size": 9},
    counts={"train": 1, "validation": 1, "test": 1},
)


def document(name, content):
    """Read a file of the user's own that holds this."""

    def run(place):
        from pathlib import Path

        path = Path(text_file(place.folder, name, content))
        content_digest(path)
        return list(read_documents(path, "text", "line"))

    return run


def metric(function, **more):
    def run(place):
        ids = torch.tensor([[8, 9]])
        batch = {"input_ids": ids, "target_ids": ids} | more.get("batch", {})
        found = {"ids": ids, "output_start_idx": 1} | more.get("found", {})
        return function(batch, found, place.tokenizer)

    return run


def history(place, **more):
    return HistoryTopKPlugin(**{"output_dir": place.folder, **more})


def traces(place, **more):
    return read_traces(**{"history_dir": place.path("history"), **more})


def damaged(name, content):
    """A history of which one file of the sample holds something else."""

    def run(place):
        import shutil

        shutil.copytree(place.path("history"), place.path(f"bad-{name}"), dirs_exist_ok=True)
        (place.folder / f"bad-{name}" / place.fid / name).write_bytes(content)
        return read_traces(place.path(f"bad-{name}"))

    return run


def lengths(name, content):
    def run(place):
        file = text_file(place.folder, name, content)
        return MLMEmptyDatasetFromLengthRef(place.tokenizer, 1, file)

    return run


CASES = [
    *options(
        "text-data",
        text,
        {
            "split": ("dev", "split is 'dev'", "'validation'"),
            "data_files": (None, "data_files is None", "data_files='corpus/*.txt'"),
            "data_files#number": ([3], "3 is no path", "a list of them"),
            "block_size": (1, "block_size is 1", "at least 2"),
            "packed": ("yes", "packed is 'yes'", "true or false"),
            "text_field": (0, "text_field is 0", "name of a field"),
            "document": ("page", "document is 'page'", "'paragraph', 'line', 'file'"),
            "validation_fraction": (1, "validation_fraction is 1", "between 0 and 1"),
            "validation_fraction#text": ("0.1", "is '0.1'", "between 0 and 1"),
            "split_seed": (2**64, "split_seed is 18446744073709551616", "at most"),
            "dataloader_kwargs": (None, "dataloader_kwargs is None", "mapping of options"),
            "stages": (3, "stages is 3", "list of stages"),
            "full_name": ("x", "no option 'full_name'", "shuffle_seed"),
        },
    ),
    Case(
        "text-data-folder",
        lambda p: text(p, data_files=str(p.folder)),
        ("is a folder", "name the files in it"),
    ),
    Case(
        "text-data-missing",
        lambda p: text(p, data_files=p.path("no-*.txt")),
        ("no-*.txt", "matches no file"),
        FileNotFoundError,
    ),
    Case("text-data-kind", lambda p: text(p, data_files=p.path("good.ckpt")), (".ckpt", ".jsonl")),
    Case("document-empty", document("empty.txt", ""), ("empty.txt is empty", "put text into it")),
    Case("document-bytes", document("bytes.txt", b"a\n\xff"), ("bytes.txt", "line 2", "iconv")),
    Case("document-json", document("a.jsonl", "{'a'}"), ("a.jsonl, line 1", "one object a line")),
    Case("document-list", document("b.jsonl", "[1]"), ("b.jsonl, line 1 is a list", "JSON object")),
    Case("document-field", document("c.jsonl", '{"a": 1}'), ("no field 'text'", "fields: a")),
    Case("document-value", document("d.jsonl", '{"text": 1}'), ("is a int", "must be a string")),
    Case("document-parquet", document("e.parquet", "x"), ("e.parquet", "read as Parquet")),
    *options(
        "star",
        star,
        {
            "generator": ("star", "generator is 'star'", "'simple', 'asymmetric'"),
            "generator_kwargs": ({"degre": 2}, "a key is 'degre'", "'pathlength'"),
            "generator_kwargs#small": ({"degree": 1}, "degree is 1", "at least 2"),
            "counts": ({"train": 1}, "counts is {'train': 1}", "validation, test, train"),
            "seed": (2**32, "seed is 4294967296", "at most"),
        },
    ),
    *options(
        "sudoku",
        sudoku,
        {
            "held_out": (288, "held_out is 288", "less than the 288 grids"),
            "min_clues": (3, "min_clues is 3", "at least 4"),
            "max_clues": (16, "max_clues is 16", "leave one of 16 cells blank"),
        },
    ),
    Case("empty-dataset", lambda p: MLMEmptyDataset(p.tokenizer, -1, 4), ("num_examples is -1",)),
    Case(
        "empty-dataset-bare", lambda p: MLMEmptyDataset(Bare(), 1, 4), ("Bare has no mask token",)
    ),
    Case(
        "papl-lengths-number",
        lambda p: PaplUnconditionalMLMDataset(p.tokenizer, 1, 5),
        ("lengths is 5",),
    ),
    Case("lengths-text", lengths("l.txt", "3\nx\n"), ("l.txt", "one integer a line")),
    Case("lengths-json", lengths("l.json", '{"a": 1}'), ("l.json", "list of integers")),
    Case("lengths-pickle", lengths("l.pkl", b"x"), ("l.pkl", "list of lengths", ".json")),
    Case(
        "lengths-path",
        lambda p: MLMEmptyDatasetFromLengthRef(p.tokenizer, 1, 5),
        ("length_ref_file is 5", "must be a path"),
    ),
    Case(
        "metric-starts",
        metric(seq2seq_exact_match_update_fn, found={"output_start_idx": torch.tensor([0, 1])}),
        ("output_start_idx is tensor([0, 1])", "equal ones for all rows"),
    ),
    Case(
        "metric-start-text",
        metric(seq2seq_exact_match_update_fn, found={"output_start_idx": "1"}),
        ("output_start_idx is '1'", "one integer"),
    ),
    Case(
        "metric-start-outside",
        metric(seq2seq_exact_match_update_fn, found={"output_start_idx": 3}),
        ("output_start_idx is 3", "length of the rows, 2"),
    ),
    Case(
        "metric-rows",
        metric(exact_match_update_fn, batch={"target_ids": torch.tensor([[8], [9]])}),
        ("1 predicted rows and 2 targets",),
    ),
    Case(
        "metric-kind",
        metric(infill_token_accuracy_update_fn, found={"ids": [[8, 9]]}),
        ("ids is list", "integer tensor of shape (rows, tokens)"),
    ),
    Case("metric-field", metric(mean_metric_update_fn), ("no 'loss'", "it has ids"), KeyError),
    Case("metric-nll", metric(likelihood_update_fn), ("no 'nll'", "num_mc_samples"), KeyError),
    Case(
        "metric-none", lambda p: exact_match_update_fn({}, None), ("prediction is None", "mapping")
    ),
    Case("metric-update", lambda p: Perplexity().update(1.0, 2), ("nll is 1.0", "tensor")),
    Case("boards", lambda p: BoardPrinter(-1), ("boards is -1", "at least 0")),
    Case("threads", lambda p: CPUSettings("2"), ("threads is '2'", ONE_UP)),
    Case("precision", lambda p: CPUSettings(1, ARRAY), ("matmul_precision", "'highest'")),
    *options(
        "history",
        history,
        {
            "output_dir": (None, "output_dir is None", "must be a path"),
            "k": (0, "k is 0", ONE_UP),
            "max_new_tokens": (0.5, "max_new_tokens is 0.5", ONE_UP),
            "dtype": ("float8", "dtype is 'float8'", "'float16', 'float32'"),
        },
    ),
    *options(
        "traces",
        traces,
        {
            "limit": (0, "limit is 0", ONE_UP),
            "fids": ("abc", "fids is 'abc'", "list of samples' names"),
            "fids#up": ([".."], "fid is '..'", "folder's plain name"),
            "history_dir": (5, "history_dir is 5", "must be a path"),
        },
    ),
    Case(
        "traces-missing", lambda p: read_traces(p.path("no")), ("is no folder",), FileNotFoundError
    ),
    Case(
        "traces-empty",
        lambda p: read_traces(p.path("nothing")),
        ("output_dir of a history",),
        FileNotFoundError,
    ),
    Case("traces-json", damaged("meta.json", b"{"), ("meta.json cannot be read",)),
    Case("traces-format", damaged("meta.json", b"[]"), ("has format []", "reads 2")),
    Case(
        "traces-k",
        damaged("meta.json", json.dumps({"format": 2, "k": "3"}).encode()),
        ("has k '3'", "null or a whole number"),
    ),
    Case(
        "traces-tensor", damaged("before.safetensors", b"x"), ("before.safetensors cannot be read",)
    ),
    Case(
        "tokenizer-folder",
        lambda p: load_tokenizer("bert-base"),
        ("is no folder", "not looked up"),
        FileNotFoundError,
    ),
    Case(
        "tokenizer-empty",
        lambda p: load_tokenizer(p.path("nothing")),
        ("no tokenizer could be read",),
    ),
    Case("checkpoint-path", lambda p: read_checkpoint(3), ("checkpoint is 3", "must be a path")),
    Case("filler-text", lambda p: p.filler().fill(None), ("the text is None", "must be a string")),
    Case("filler-frame", lambda p: p.filler(frame="no"), ("frame is 'no'", BOOL)),
    Case(
        "filler-trust",
        lambda p: Filler.from_checkpoint(p.path("good.ckpt"), trust="no"),
        ("trust is 'no'", BOOL),
    ),
    Case(
        "conformance-plugin",
        lambda p: find_plugin("mlmm"),
        ("'mlmm'", "registered: ", "mlm"),
        LookupError,
    ),
    Case(
        "conformance-package",
        lambda p: find_package("no_such"),
        ("'no_such'", "installed?"),
        LookupError,
    ),
    Case("conformance-adapter", lambda p: load_adapter("no_such:thing"), ("no_such",)),
]
