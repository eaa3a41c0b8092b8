"""The hooks that a package implements to join the host's command line.

A module named in the entry-point group `xlm.plugins` implements any of them, marked with
`hookimpl` from here, or with `pluggy.HookimplMarker("xlm")` so as not to depend on this package:

    from pathlib import Path

    from xlm_mlm.plugin.hookspecs import hookimpl

    @hookimpl
    def xlm_config_dirs():
        return [Path(__file__).parent / "configs"]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pluggy

PROJECT = "xlm"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def xlm_config_dirs() -> Sequence[str | Path]:  # type: ignore[empty-body]
    """Folders of Hydra configs (`experiment/`, `model/`, ...) to search.

    They come after the host's own and the user's folders, which win over them.
    """


@hookspec
def xlm_commands() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Job types: `{name: "module:function"}`, for `xlm job_type=<name>`.

    The module is imported when such a job runs, and the function called with the composed config.
    """


@hookspec
def xlm_conformance_adapter() -> str:  # type: ignore[empty-body]
    """What the conformance kit can't find in the configs, as `module:object`.

    The object is imported only when the plugin is tested; `xlm_mlm.conformance.adapter.Adapter`
    lists the attributes that it may have, and it need not derive from that class.
    """
