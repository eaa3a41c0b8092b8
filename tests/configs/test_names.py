"""The names that command lines rely on; each is promised, so it stands here word for word."""

from pathlib import Path

import pytest

import xlm_mlm

CONFIGS = Path(xlm_mlm.__file__).parent / "configs"

BOTH = (
    "lm1b_mlm",
    "owt_mlm",
    "owt_packed_mlm",
    "safe_mlm",
    "star_easy_mlm",
    "star_medium_mlm",
    "star_hard_mlm",
    "sudoku_mlm",
    "sudoku_extreme_mlm",
    "tinygsm_mlm",
    "uniref50_packed_mlm",
)
NAMES = {
    "model": ("rotary_transformer_mlm", "rotary_transformer_xtiny_mlm"),
    "model_type": ("mlm", "mlm_seq2seq", "mlm_tinygsm_seq2seq"),
    "collator": (
        "default_mlm",
        "default_infill_mlm",
        "infill_with_target_mlm",
        "packed_mlm",
        "papl_unconditional",
        "seq2seq_mlm",
        "seq2seq_pred_mlm",
        "unconditional_pred_mlm",
    ),
    "datamodule": (*BOTH, "star_mlm"),
    "experiment": (
        *BOTH,
        "uniref50_mlm",
        # Of this package alone.
        "quickstart_mlm",
        "local_text_mlm",
        "star_easy_offline_mlm",
        "star_medium_offline_mlm",
        "star_hard_offline_mlm",
    ),
}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in NAMES.items() for name in names]
)
def test_the_name_is_there(group, name):
    assert (CONFIGS / group / f"{name}.yaml").is_file()
