from pathlib import Path

from pluggy import HookimplMarker


@HookimplMarker("xlm")
def xlm_config_dirs():
    return [Path(__file__).parent / "configs"]
