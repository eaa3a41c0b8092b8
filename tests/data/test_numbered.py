"""The host's managers number the rows that are to be predicted, and no others."""

from types import SimpleNamespace

import datasets
import pytest

from xlm_mlm.data.numbered import NumberedDatasetManager, NumberedLocalDatasetManager


def manager(kind, numbers=True, cache=True, **options):
    made = kind(
        collator=SimpleNamespace(numbers_samples=numbers),
        full_name="somebody/rows/test",
        full_name_debug="somebody/rows/test",
        stages=["predict"],
        use_manual_cache=cache,
        dataloader_kwargs={"batch_size": 2},
        **({"ds_type": "csv"} if kind is NumberedLocalDatasetManager else {}),
        **options,
    )
    made._download = lambda num_proc=None: datasets.Dataset.from_dict(
        {"token_ids": [[n] for n in range(5)]}
    )
    return made


@pytest.mark.parametrize("kind", [NumberedDatasetManager, NumberedLocalDatasetManager])
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("shards", [None, 2])
def test_each_row_has_its_number_in_the_split(kind, cache, shards, tmp_path, tokenizer):
    for numbers in (True, False):
        one = manager(kind, numbers, cache, iterable_dataset_shards=shards)
        one.prepare_data(str(tmp_path), tokenizer)
        one.setup("predict", str(tmp_path), tokenizer, 8, is_ddp=False, rank=0, world_size=1)
        rows = sorted(one.dataset, key=lambda row: row["token_ids"])
        expected = list(range(5)) if numbers else [None] * 5
        assert [row.get("sample_id") for row in rows] == expected
