"""Datasets of masks, and the files their lengths come from."""

import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from xlm_mlm.collation.empty import MLMEmptyDataset, MLMEmptyDatasetFromLengthRef, read_lengths
from xlm_mlm.collation.samples import Process

MASK = 2
LENGTHS = [3, 5, 5, 8]


def first(batch):
    return batch[0]


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made_by_a_pickle",)


def test_rows_of_masks(tokenizer):
    rows = list(MLMEmptyDataset(tokenizer, 3, 4))
    assert rows == [{"input_ids": [MASK] * 4, "sample_id": i} for i in range(3)]
    assert rows[0]["input_ids"] is not rows[1]["input_ids"]
    assert list(MLMEmptyDataset(tokenizer, 0, 4)) == []
    for dataset in (MLMEmptyDataset(tokenizer, 3, 4), from_ref(tokenizer, 3)):
        assert dataset.tokenizer is tokenizer


def test_workers_share_the_rows(tokenizer):
    for dataset in (MLMEmptyDataset(tokenizer, 5, 4), from_ref(tokenizer, 5)):
        loader = DataLoader(dataset, batch_size=1, num_workers=2, collate_fn=first)
        assert sorted(row["sample_id"] for row in loader) == [0, 1, 2, 3, 4]


def test_processes_count_on_from_each_other(tokenizer, monkeypatch):
    """Each makes all the rows it was told to: equal numbers would give equal samples."""
    numbers = {MLMEmptyDataset: [], MLMEmptyDatasetFromLengthRef: []}
    for rank in range(3):
        monkeypatch.setattr(Process, "this", lambda rank=rank: Process(rank, 3))
        for dataset in (MLMEmptyDataset(tokenizer, 2, 4), from_ref(tokenizer, 2)):
            numbers[type(dataset)] += [row["sample_id"] for row in dataset]
    assert list(numbers.values()) == [[0, 1, 2, 3, 4, 5]] * 2


def from_ref(tokenizer, count, **options):
    return MLMEmptyDatasetFromLengthRef(tokenizer, count, **options)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("lengths.txt", lambda: b"3\n5\n5\n8\n"),
        ("lengths", lambda: b"3\n5\n\n5\n8"),
        ("lengths.json", lambda: json.dumps(LENGTHS).encode()),
        ("lengths.pkl", lambda: pickle.dumps(LENGTHS)),
        ("lengths.PICKLE", lambda: pickle.dumps(LENGTHS, protocol=0)),
    ],
)
def test_reads_each_format(tmp_path, name, write):
    path = tmp_path / name
    path.write_bytes(write())
    assert read_lengths(path) == LENGTHS


def test_draws_lengths_from_the_file(tokenizer, tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("\n".join(map(str, LENGTHS)))
    rows = list(from_ref(tokenizer, 4000, length_ref_file=path, min_length=4))
    assert {token for row in rows for token in row["input_ids"]} == {MASK}
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    assert set(lengths.tolist()) == {5, 8}
    # 5 is listed twice and 8 once; five standard errors of a share of 2/3.
    share = (lengths == 5).float().mean()
    assert abs(share - 2 / 3) < 5 * (2 / 9 / 4000) ** 0.5


def test_a_seed_repeats_the_lengths(tokenizer):
    dataset = from_ref(tokenizer, 20, min_length=10)
    passes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        passes.append([len(row["input_ids"]) for row in dataset])
    assert passes[0] == passes[1] != passes[2]
    assert min(passes[0] + passes[2]) >= 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"3\nfive\n"),
        ("a.txt", b"3.5\n"),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.json", b'{"a": 1}'),
        ("a.json", b"[1, 2.5]"),
        ("a.json", b"[1, true]"),
        ("a.json", b"[1,"),
        ("a.pkl", b""),
        ("a.pkl", b"not a pickle"),
        ("a.pkl", pickle.dumps([1, 2])[:-3]),
        ("a.pkl", pickle.dumps((1, 2))),
        ("a.pkl", pickle.dumps([1, "2"])),
        ("a.pkl", pickle.dumps([[1]])),
        ("a.pkl", pickle.dumps({1: 2})),
        ("a.pkl", pickle.dumps([torch.float32])),
    ],
)
def test_anything_but_a_list_of_integers_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"list of (lengths|integers)"):
        read_lengths(path)


def test_a_pickle_cannot_run_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps([1, Harmful()])
    path = tmp_path / "lengths.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"posix.mkdir, which is not allowed|nt.mkdir"):
        read_lengths(path)
    assert not (tmp_path / "made_by_a_pickle").exists()
    pickle.loads(content)  # the plain unpickler does run it: the test tests something
    assert (tmp_path / "made_by_a_pickle").exists()


def test_bad_arguments(tokenizer, tmp_path):
    for count, length, message in ((-1, 4, "num_examples is -1"), (1, 0, "max_length is 0")):
        with pytest.raises(ValueError, match=message):
            MLMEmptyDataset(tokenizer, count, length)
    for options, message in (
        ({"min_length": 0}, "min_length is 0"),
        ({"min_length": 100_000}, "at least one must reach min_length=100000"),
        ({"length_ref_file": tmp_path / "none.txt"}, "there is no file"),
    ):
        with pytest.raises(ValueError, match=message):
            from_ref(tokenizer, 1, **options)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="has 0 lengths"):
        from_ref(tokenizer, 1, length_ref_file=tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="no mask token"):
        MLMEmptyDataset(SimpleNamespace(mask_token_id=None), 1, 1)


def test_the_default_lengths_need_no_chemistry():
    code = (
        "import sys, xlm_mlm.collation.empty as e; e.read_lengths(e.ZINC_LENGTH_REF_FILE);"
        "print({'rdkit', 'safe', 'xlm.tasks.safe_molgen._safe_molgen_impl'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "set()"
