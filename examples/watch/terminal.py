"""What a command shows in a terminal, as an SVG."""

import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from screen import Screen

COLUMNS, LINES = 96, 50
# A picture loads nothing: the machine's own monospaced font will do.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def write_svg(command: list[str], path: Path) -> None:
    """Run a command in a terminal of 96 columns and draw what it shows at the end.

    Raises:
        RuntimeError: the command failed.
    """
    screen = Screen()
    screen.feed(f"$ {shlex.join(command)}\n{run(command)}")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(without_places(screen.text())))
    console.save_svg(
        str(path),
        title=" ".join(command[:2]),
        theme=MONOKAI,
        code_format=FORMAT,
        unique_id=path.stem,
    )


def run(command: list[str]) -> str:
    """The command's output, colours and all, as a terminal would get it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    program = shutil.which(command[0], path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [program or command[0], *command[1:]], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    data = bytearray()
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        data += piece
    os.close(ours)
    output = data.decode(errors="replace").replace("\r\n", "\n")
    if code := process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {code}: {output}")
    return output


def without_places(text: str) -> str:
    """The text without where things are on this machine: that differs, and tells nothing."""
    root = str(Path(__file__).resolve().parents[2])
    places = {str(Path.cwd()): "~/work", root: "~/xlm_mlm", sys.prefix: "~/env"}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return text.replace(str(Path.home()), "~") if len(str(Path.home())) > 1 else text
