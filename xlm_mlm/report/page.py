"""Samples as a page that replays them: one file, which needs nothing from anywhere.

The script is put together from the `page_*.js` files here; `packing` says what it reads.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from xlm_mlm import __version__
from xlm_mlm.checks import require_int
from xlm_mlm.history.files import write_whole
from xlm_mlm.history.trace import Trace
from xlm_mlm.report.packing import TokenTable, pack, seal
from xlm_mlm.visible import readable

_PARTS = ("data", "colours", "tokens", "card", "charts", "controls")
# In the first lines of each page, so that a page is known from any other file.
MARK = '<meta name="generator" content="xlm-mlm report'


def write_page(
    traces: Sequence[Trace],
    path: str | Path,
    title: str = "How the masks were filled",
    top: int = 10,
) -> None:
    """Write samples as one self-contained HTML file, which appears whole or not at all.

    Args:
        traces: the samples, in the order in which the page offers them.
        path: the file.
        title: the page's heading.
        top: the most probable tokens to show a position, if the traces hold as many.

    Raises:
        ValueError: there are no samples, one has no tokens, or `top` is below 1.
        OSError: the file cannot be written.
    """
    write_whole(Path(path), page(traces, title, top).encode())


def page(traces: Sequence[Trace], title: str, top: int) -> str:
    """The page's text, as `write_page` writes it."""
    style = _asset("page.css")
    parts = "\n".join(_asset(f"page_{part}.js") for part in _PARTS)
    script = f'(() => {{\n"use strict";\n{parts}\n}})();'
    return Template(_asset("page.html")).substitute(
        mark=f'{MARK} {__version__}">',
        title=escape(readable(title)),
        version=escape(__version__),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=_data(traces, top),
    )


def is_page(path: Path) -> bool:
    """Whether a file is a page that `write_page` wrote."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(1024)


def _data(traces: Sequence[Trace], top: int) -> str:
    """The samples as JSON in which nothing can end the element that holds it."""
    require_int("top", top, 1)
    if not traces:
        raise ValueError("there are no samples; a page needs at least one")
    for trace in traces:
        if not len(trace.before):
            raise ValueError(f"sample {trace.fid!r} has no tokens; a page shows a sequence of them")
    table = TokenTable()
    packed = [pack(trace, table, top) for trace in traces]
    samples = [seal(sample, table) for sample in packed]
    data = {"samples": samples, "tokens": table.to_list()}
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
