"""The cache: its folder is a function of everything the rows depend on, and appears at once."""

import inspect
import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import datasets
import pytest
from xlm.datamodule import DatasetManager, SimpleSpaceTokenizer

from xlm_mlm.data.cache import HOST_OPTIONS, CachedDatasetManager, digest, tokenizer_state
from xlm_mlm.data.tokenizers import ByteTokenizer


class CountingManager(CachedDatasetManager):
    """Serves `value` three times and counts how often it had to make the rows."""

    dataset_name = "counting"

    def __init__(self, value=1, split="train", **options):
        super().__init__(None, split, {"batch_size": 1}, **options)
        self.value = value
        self.made = 0

    def cache_inputs(self):
        return {"value": self.value}

    def make_rows(self, tokenizer, workspace):
        self.made += 1
        return datasets.Dataset.from_dict({"input_ids": [[self.value]] * 3})


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "xlm_mlm" / "counting").iterdir())


def test_rows_are_made_once(tmp_path, tokenizer):
    first, second = CountingManager(), CountingManager()
    assert first.prepare_data(str(tmp_path), tokenizer) is None
    rows = second.prepare_data(str(tmp_path), tokenizer, load=True)
    assert (first.made, second.made) == (1, 0)
    assert rows["input_ids"] == [[1]] * 3


def rows_after_setup(manager, root, tokenizer):
    manager.prepare_data(str(root), tokenizer)
    manager.setup("fit", str(root), tokenizer, 8, is_ddp=False, rank=0, world_size=1)
    return manager.dataset


@pytest.mark.parametrize("shards", [None, 2])
def test_rows_to_predict_are_numbered_and_others_are_not(tmp_path, tokenizer, shards):
    """Under the name of the same cached rows, so that the numbers are no part of the cache."""
    numbered = {}
    for numbers in (True, False, None):
        manager = CountingManager(split="test", iterable_dataset_shards=shards)
        if numbers is not None:
            manager.collator = SimpleNamespace(numbers_samples=numbers)
        rows = list(rows_after_setup(manager, tmp_path, tokenizer))
        assert [row["input_ids"] for row in rows] == [[1]] * 3
        numbered[numbers] = [row.get("sample_id") for row in rows]
    assert numbered == {True: [0, 1, 2], False: [None] * 3, None: [None] * 3}
    assert len(folders(tmp_path)) == 1
    assert (
        "sample_id"
        not in datasets.load_from_disk(
            next((tmp_path / "xlm_mlm" / "counting").iterdir())
        ).column_names
    )


def halves(batch, tokenizer, block_size):
    """Two rows of each: a processor after which the numbers of rows would say nothing."""
    return {"input_ids": [row for row in batch["input_ids"] for _ in range(2)]}


def test_rows_that_are_made_of_others_are_not_numbered(tmp_path, tokenizer):
    manager = CountingManager(
        iterable_dataset_shards=1,
        on_the_fly_group_processor=f"{__name__}.halves",
        on_the_fly_group_processor_remove_columns=["input_ids"],
    )
    manager.collator = SimpleNamespace(numbers_samples=True)
    assert list(rows_after_setup(manager, tmp_path, tokenizer)) == [{"input_ids": [1]}] * 6


def test_another_option_split_or_tokenizer_is_another_folder(tmp_path, tokenizer):
    CountingManager().prepare_data(str(tmp_path), tokenizer)
    CountingManager(value=2).prepare_data(str(tmp_path), tokenizer)
    CountingManager(split="test").prepare_data(str(tmp_path), tokenizer)
    CountingManager().prepare_data(str(tmp_path), SimpleSpaceTokenizer.for_numbers(21))
    names = folders(tmp_path)
    assert len(names) == 4
    assert sum(name.startswith("train-") for name in names) == 3


def test_splits_with_the_same_rows_share_a_folder(tmp_path, tokenizer):
    class Sharing(CountingManager):
        same_rows: ClassVar = {"predict": "test"}

    first, second = Sharing(split="test"), Sharing(split="predict")
    first.prepare_data(str(tmp_path), tokenizer)
    second.prepare_data(str(tmp_path), tokenizer)
    assert (first.made, second.made) == (1, 0)
    assert second.split == "test"
    assert len(folders(tmp_path)) == 1


def test_nothing_is_left_behind(tmp_path, tokenizer):
    class Failing(CountingManager):
        def make_rows(self, tokenizer, workspace):
            workspace.mkdir()
            (workspace / "half").write_text("written")
            raise ValueError("no rows")

    with pytest.raises(ValueError, match="no rows"):
        Failing().prepare_data(str(tmp_path), tokenizer)
    assert folders(tmp_path) == []


def test_rewriting_replaces_the_rows(tmp_path, tokenizer):
    manager = CountingManager(rewrite_manual_cache=True)
    manager.prepare_data(str(tmp_path), tokenizer)
    manager.value, old = 5, folders(tmp_path)
    manager.cache_inputs = lambda: {"value": 1}
    rows = manager.prepare_data(str(tmp_path), tokenizer, load=True)
    assert rows["input_ids"] == [[5]] * 3
    assert folders(tmp_path) == old


class BothAtOnce(CountingManager):
    def make_rows(self, tokenizer, workspace):
        barrier = self.barrier
        barrier.wait(timeout=60)  # both have found the folder missing
        return super().make_rows(tokenizer, workspace)


def _prepare(root: str, barrier, queue) -> None:
    manager = BothAtOnce()
    manager.barrier = barrier
    rows = manager.prepare_data(root, ByteTokenizer(), load=True)
    queue.put(rows["input_ids"])


def test_two_processes_at_once_both_succeed(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_prepare, args=(str(tmp_path), barrier, queue)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert results == [[[1]] * 3] * 2
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(folders(tmp_path)) == 1


def test_setup_loads_in_its_stages_only(tmp_path, tokenizer):
    manager = CountingManager(stages=["test"])
    manager.prepare_data(str(tmp_path), tokenizer)
    rest = {"block_size": 4, "is_ddp": False, "rank": 0, "world_size": 1}
    manager.setup("fit", manual_cache_dir=str(tmp_path), tokenizer=tokenizer, **rest)
    assert manager.dataset is None
    manager.setup("test", manual_cache_dir=str(tmp_path), tokenizer=tokenizer, **rest)
    assert len(manager.dataset) == 3


def test_overfitting_flag_serves_the_training_split(monkeypatch):
    monkeypatch.setattr("xlm.flags.DEBUG_OVERFIT", True)
    assert CountingManager(split="test").split == "train"


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(ValueError, match="'val'.*'validation'"):
        CountingManager(split="val")


IGNORED = {
    "filter_fn": "a.b",
    "filter_suffix": "x",
    "preprocess_function": "a.b",
    "preprocess_function_kwargs": {},
    "preprocess_load_from_cache_file": True,
    "model_name": "x",
    "columns_to_remove": ["x"],
    "columns_to_keep": ["x"],
    "use_manual_cache": False,
    "train_test_split": {"size": 0.5},
    "full_name": "a/b/train",
    "drop_last": True,
}


@pytest.mark.parametrize("option", IGNORED)
def test_options_without_effect_are_refused(option):
    message = f"CountingManager has no option '{option}'; .*shuffle_seed"
    with pytest.raises(ValueError, match=message):
        CountingManager(**{option: IGNORED[option]})


def test_every_option_of_the_host_is_taken_or_refused():
    ours = {"self", "collator", "dataloader_kwargs", "stages", "full_name_debug"}
    theirs = set(inspect.signature(DatasetManager.__init__).parameters) - ours
    assert theirs == set(HOST_OPTIONS) | (set(IGNORED) - {"drop_last"})


@pytest.mark.parametrize(("dropping", "rows"), [(None, 3), ("operator.not_", 0)])
def test_options_of_the_host_have_their_effect(tmp_path, tokenizer, dropping, rows):
    options = {"iterable_dataset_shards": 1, "on_the_fly_filter_fn": dropping}
    manager = CountingManager(stages=["fit"], **options)
    manager.prepare_data(str(tmp_path), tokenizer, None, False)
    rest = {"block_size": 4, "is_ddp": False, "rank": 0, "world_size": 1}
    manager.setup("fit", manual_cache_dir=str(tmp_path), tokenizer=tokenizer, **rest)
    assert isinstance(manager.dataset, datasets.IterableDataset)
    assert [row["input_ids"] for row in manager.dataset] == [[1]] * rows


def test_prepare_data_takes_the_arguments_of_the_hosts():
    ours, theirs = (
        inspect.signature(kind.prepare_data) for kind in (CachedDatasetManager, DatasetManager)
    )
    named = [[(p.name, p.default) for p in s.parameters.values()] for s in (ours, theirs)]
    assert named[0] == named[1]


def test_digest_refuses_what_has_no_stable_text():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    with pytest.raises(TypeError):
        digest({"a": object()})


def test_tokenizer_state_is_the_content_not_the_place(tmp_path):
    tokenizer = ByteTokenizer()
    before = digest(tokenizer_state(tokenizer))
    tokenizer(["a", "bb"], padding=True, truncation=True, max_length=1)
    tokenizer.save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    states = [tokenizer, *(ByteTokenizer.from_pretrained(tmp_path / n) for n in ("one", "two"))]
    assert {digest(tokenizer_state(state)) for state in states} == {before}
    tokenizer.add_tokens(["new"])
    assert digest(tokenizer_state(tokenizer)) != before


def test_swapped_special_tokens_are_another_state():
    """The vocabulary is the same, and so is what the tokenizer's backend writes of itself."""
    plain, swapped = ByteTokenizer(), ByteTokenizer(bos_token="[CLS]", cls_token="[BOS]")
    assert plain.get_vocab() == swapped.get_vocab()
    assert plain.backend_tokenizer.to_str() == swapped.backend_tokenizer.to_str()
    assert digest(tokenizer_state(plain)) != digest(tokenizer_state(swapped))


def slow_tokenizer(**options):
    made = SimpleSpaceTokenizer.for_numbers(5)
    made.init_kwargs = {**made.init_kwargs, **options}
    return made


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({}, True),
        ({"vocab_file": "elsewhere.txt", "name_or_path": "elsewhere"}, True),
        ({"add_prefix_space": True}, False),
        ({"language": "de"}, False),
    ],
)
def test_options_of_slow_tokenizers_are_part_of_the_state(options, same):
    states = [digest(tokenizer_state(slow_tokenizer(**given))) for given in ({}, options)]
    assert (states[0] == states[1]) is same
