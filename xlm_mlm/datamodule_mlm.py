"""The collators and datasets that YAML names; they live in `xlm_mlm.collation`."""

from xlm_mlm.collation.empty import MLMEmptyDataset, MLMEmptyDatasetFromLengthRef
from xlm_mlm.collation.packed import PackedMLMCollator
from xlm_mlm.collation.padding import prepare_prefix_ids
from xlm_mlm.collation.pairs import prepare_prefix_suffix_ids
from xlm_mlm.collation.printing import print_batch_mlm
from xlm_mlm.collation.seq2seq import (
    MLMSeq2SeqCollator,
    MLMSeq2SeqPredCollator,
    MLMSeq2SeqTrainCollator,
)
from xlm_mlm.collation.single import (
    DefaultInfillMLMCollator,
    DefaultMLMCollator,
    MLMInfillWithExactTargetPredCollator,
    MLMUnconditionalPredCollator,
)

__all__ = [
    "DefaultInfillMLMCollator",
    "DefaultMLMCollator",
    "MLMEmptyDataset",
    "MLMEmptyDatasetFromLengthRef",
    "MLMInfillWithExactTargetPredCollator",
    "MLMSeq2SeqCollator",
    "MLMSeq2SeqPredCollator",
    "MLMSeq2SeqTrainCollator",
    "MLMUnconditionalPredCollator",
    "PackedMLMCollator",
    "prepare_prefix_ids",
    "prepare_prefix_suffix_ids",
    "print_batch_mlm",
]
