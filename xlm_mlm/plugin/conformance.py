"""What the conformance kit can't find in our configs."""

from typing import ClassVar


class MLMAdapter:
    """Nothing is absent. Attributes: `xlm_mlm.conformance.adapter.Adapter`."""

    # One switch of this experiment decides between two collators.
    experiments: ClassVar = {"local_text_mlm@padded": ["packed=false"]}
    # `safe_mlm` names the host's chemistry.
    optional_modules: ClassVar = dict.fromkeys(
        ("safe", "datamol", "rdkit", "tdc"), "xlm-core[safe]"
    )
