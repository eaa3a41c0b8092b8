"""The short names that this package promises, word for word, and the class behind each."""

from importlib import import_module

import pytest

from xlm_mlm.plugin.registry import resolve

NAMES = {
    "xlm.models": {"rotary_transformer_mlm": "model_mlm.RotaryTransformerMLMModel"},
    "xlm.losses": {"mlm": "loss_mlm.MLMLoss"},
    "xlm.predictors": {"mlm": "predictor_mlm.MLMPredictor"},
    "xlm.collators": {
        "default_mlm": "datamodule_mlm.DefaultMLMCollator",
        "default_infill_mlm": "datamodule_mlm.DefaultInfillMLMCollator",
        "infill_with_target_mlm": "datamodule_mlm.MLMInfillWithExactTargetPredCollator",
        "packed_mlm": "datamodule_mlm.PackedMLMCollator",
        "papl_unconditional": "papl_unconditional.PaplUnconditionalCollator",
        "seq2seq_train_mlm": "datamodule_mlm.MLMSeq2SeqTrainCollator",
        "seq2seq_mlm": "datamodule_mlm.MLMSeq2SeqCollator",
        "seq2seq_pred_mlm": "datamodule_mlm.MLMSeq2SeqPredCollator",
        "unconditional_pred_mlm": "datamodule_mlm.MLMUnconditionalPredCollator",
    },
    "xlm.history": {"topk": "history_mlm.HistoryTopKPlugin"},
}


@pytest.mark.parametrize(
    ("group", "name", "path"),
    [(group, *promised) for group, names in NAMES.items() for promised in names.items()],
)
def test_the_name_leads_to_the_class(group, name, path):
    module, cls = path.split(".")
    found = resolve(group, name)
    assert found is getattr(import_module(f"xlm_mlm.{module}"), cls)
    assert found.__name__ == cls
