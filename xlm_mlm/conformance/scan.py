"""Finds a plugin in a fresh process as Hydra and the host do, and notes what that imports.

The rule `discovery-light-scan` runs this. It imports nothing heavy itself.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xlm_mlm import entries
from xlm_mlm.entries import Entry, attempt
from xlm_mlm.plugin import registry

# Each of them takes a second or more to import.
HEAVY = ("torch", "lightning", "transformers")
# What the scan itself runs on, which says nothing about who imported what.
_OWN_FILES = {__file__, entries.__file__, registry.__file__}


class _Watch(MetaPathFinder):
    """Finds nothing, and remembers from where each heavy package was first asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, str] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in HEAVY and name not in self.asked:
            self.asked[name] = _way_here()


def _way_here() -> str:
    """The lines that led to an import, from the entry point on."""
    frames = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_stack()
        if not ({"importlib", "pluggy"} & set(Path(frame.filename).parts))
        and not frame.filename.startswith("<")
        and frame.filename not in _OWN_FILES
    ]
    return " > ".join(frames)


def _steps(asked: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    for module in asked["modules"]:
        yield module, partial(import_module, module)
    for entry in (Entry(**fields) for fields in asked["entries"]):
        load = registry.read_plugin if entry.group == registry.PLUGINS else Entry.load
        yield f"{entry.name} = {entry.value} in {entry.group}", partial(load, entry)
    if asked["package"]:
        yield asked["package"], partial(find_spec, asked["package"])


def scan(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Go through what is looked at in a search for plugins.

    Args:
        asked: `modules` to import, `entries` to load (the fields of `Entry`), and a `package` to
            look for; empty if there is none.

    Returns:
        `before`: the heavy packages that were there already; `found`: of each further one its
        name, the step that brought it in, and the lines that led to the import.
    """
    seen = set(HEAVY) & set(sys.modules)
    result: dict[str, Any] = {"before": sorted(seen), "found": []}
    watch = _Watch()
    sys.meta_path.insert(0, watch)
    for step, run in _steps(asked):
        attempt(run)  # what fails is for another rule to say
        for name in [name for name in HEAVY if name in sys.modules and name not in seen]:
            seen.add(name)
            result["found"].append([name, step, watch.asked.get(name, "")])
    return result


def main() -> None:
    """Write the result of `scan` into a file; both come from the command line."""
    _, asked, result = sys.argv
    Path(result).write_text(json.dumps(scan(json.loads(asked))))
