"""What the framework asks of this package when an `xlm` command starts: where its configs are."""

from pathlib import Path

import pluggy

hookimpl = pluggy.HookimplMarker("xlm")


@hookimpl
def xlm_config_dirs() -> list[Path]:
    """Folders that Hydra is to search, after the host's own."""
    return [Path(__file__).parent / "configs"]
