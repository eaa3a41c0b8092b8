"""xlm_mlm: the masked language model as a plugin for the XLM framework.

The public names load on first use, so that Hydra's plugin scan, which imports this package,
imports no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "model_mlm": ["RotaryTransformerMLMModel"],
    "loss_mlm": ["MLMLoss"],
    "predictor_mlm": ["MLMPredictor", "LogitsShiftBy1"],
    "datamodule_mlm": [
        "DefaultMLMCollator",
        "DefaultInfillMLMCollator",
        "MLMInfillWithExactTargetPredCollator",
        "MLMSeq2SeqTrainCollator",
        "MLMSeq2SeqCollator",
        "MLMSeq2SeqPredCollator",
        "MLMUnconditionalPredCollator",
        "PackedMLMCollator",
        "MLMEmptyDataset",
        "MLMEmptyDatasetFromLengthRef",
        "prepare_prefix_ids",
        "prepare_prefix_suffix_ids",
        "print_batch_mlm",
    ],
    "papl_unconditional": [
        "PAPL_DEFAULT_LENGTHS",
        "PaplUnconditionalCollator",
        "PaplUnconditionalMLMDataset",
    ],
    "metrics_mlm": [
        "BitsPerToken",
        "MaskedTokenAccuracy",
        "Perplexity",
        "SequenceNLL",
        "exact_match_update_fn",
        "infill_token_accuracy_update_fn",
        "likelihood_update_fn",
        "mean_metric_update_fn",
        "seq2seq_exact_match_update_fn",
        "seq2seq_token_accuracy_update_fn",
    ],
    "likelihood_mlm": ["mlm_nll", "pseudo_log_likelihood"],
    "history_mlm": ["HistoryPluginBase", "HistoryTopKPlugin"],
    "types_mlm": [
        "MLMBatch",
        "MLMLossDict",
        "MLMModel",
        "MLMPredictionDict",
        "MLMSeq2SeqPredictionBatch",
        "MLMStepResults",
        "MLMUncondtionalPredictionBatch",
        "MLMUnconditionalPredictionBatch",
        "PackedFlexMLMBatch",
    ],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
