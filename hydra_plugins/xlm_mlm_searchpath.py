from xlm_mlm.plugin.hydra import XLMPluginSearchPath  # noqa: F401
