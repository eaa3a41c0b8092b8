"""The rules themselves, one module for each area. Importing this registers all of them."""

from xlm_mlm.conformance.checks import (
    collators,  # noqa: F401
    configs,  # noqa: F401
    discovery,  # noqa: F401
    loss,  # noqa: F401
    masking,  # noqa: F401
    metrics,  # noqa: F401
    model,  # noqa: F401
    parameters,  # noqa: F401
    predictor,  # noqa: F401
    predictor_conduct,  # noqa: F401
    process,  # noqa: F401
)
