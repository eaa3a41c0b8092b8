"""The host's dataset managers, with a number for each row that is to be predicted."""

from typing import Any

from xlm.datamodule import DatasetManager, LocalDatasetManager

from xlm_mlm.collation.samples import SAMPLE_ID


class NumbersSamples:
    """Mixin before a `DatasetManager`: rows carry their number in the split, as `sample_id`.

    Only where the collator has a use for it. The number stays with the row however the rows are
    then divided between processes and workers; it is no part of the cache. A group processor makes
    rows of others, whose numbers would say nothing.
    """

    collator: Any
    on_the_fly_group_processor: Any

    def _load_from_cache(self, manual_cache_dir: str) -> Any:
        return self._numbered(super()._load_from_cache(manual_cache_dir))  # type: ignore[misc]

    def prepare_data(self, *args: Any, **kwargs: Any) -> Any:
        """As in the host, which reads rows by it where there is no cache of its own."""
        return self._numbered(super().prepare_data(*args, **kwargs))  # type: ignore[misc]

    def _numbered(self, rows: Any) -> Any:
        wanted = getattr(self.collator, "numbers_samples", False)
        if not wanted or rows is None or self.on_the_fly_group_processor is not None:
            return rows
        if SAMPLE_ID in rows.column_names:
            return rows
        return rows.add_column(SAMPLE_ID, range(len(rows)))


class NumberedDatasetManager(NumbersSamples, DatasetManager):
    """The host's `DatasetManager`, whose options it has."""


class NumberedLocalDatasetManager(NumbersSamples, LocalDatasetManager):
    """The host's `LocalDatasetManager`, whose options it has."""
