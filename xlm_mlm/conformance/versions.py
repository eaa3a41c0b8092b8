"""What a report says of the environment."""

import platform
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = ("xlm-core", "xlm-mlm", "torch", "lightning", "hydra-core", "transformers")


def installed_versions() -> dict[str, str]:
    """Python, the platform, and the distributions that decide what a plugin meets."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
