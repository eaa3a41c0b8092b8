"""Where hydra-core 1.3 looks for plugins; an `__init__.py` beside it would hide all others."""

from xlm_mlm.plugin.hydra import XLMPluginSearchPath  # noqa: F401
