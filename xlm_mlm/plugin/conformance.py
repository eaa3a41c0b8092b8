"""What the conformance kit can't find in our configs."""

from typing import ClassVar


class MLMAdapter:
    """Nothing is absent. Attributes: `xlm_mlm.conformance.adapter.Adapter`."""

    experiments: ClassVar = {
        # One switch of this experiment decides between two collators.
        "local_text_mlm@padded": ["packed=false"],
        # Rows of 100 tokens and more, which the small model does not take.
        "uniref50_packed_mlm": [
            f"datamodule.dataset_managers.{split}.unconditional_prediction"
            ".dataset_kwargs.lengths=[6,9]"
            for split in ("val", "test", "predict")
        ],
    }
    # `safe_mlm` names the host's chemistry.
    optional_modules: ClassVar = dict.fromkeys(
        ("safe", "datamol", "rdkit", "tdc"), "xlm-core[safe]"
    )
