"""What a case of bad input is, and how programs and jobs are given one in this process."""

import io
import math
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

NAN, HUGE = math.nan, 10**400
LIST, DICT = OmegaConf.create([1]), OmegaConf.create({"a": 1})
ARRAY, HALF = np.array([1, 2]), np.float32(0.5)


class Refused(Exception):
    """The one line with which a program or a job ends."""


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        name: of the test.
        run: gives the input; it gets the place (`test_bad_input.Place`).
        words: all of them are in the message.
        error: how it is refused.
    """

    name: str
    run: Callable[[Any], Any]
    words: tuple[str, ...]
    error: type[Exception] = ValueError


def options(what: str, make: Callable[..., Any], table: dict[str, Any]) -> list[Case]:
    """Cases of one option each: its name, and a bad value with the words of the message.

    A name may be followed by a # and anything, to be there twice.
    """
    found = []
    for key, (value, *words) in table.items():
        name = key.partition("#")[0]
        run = lambda place, name=name, value=value: make(place, **{name: value})  # noqa: E731
        found.append(Case(f"{what}-{key}", run, tuple(words)))
    return found


def program(name: str, arguments: str, *words: str, code: int = 1) -> Case:
    """A command line of `xlm-mlm`; a word of it that begins with @ is a file of the place."""

    def run(place: Any) -> None:
        from xlm_mlm.commands import cli

        given = [place.path(each[1:]) if each[:1] == "@" else each for each in arguments.split()]
        given = [each.replace("~", " ") for each in given]
        raise Refused(one_line(lambda: cli.main(given), code))

    return Case(f"xlm-mlm-{name}", run, words, Refused)


def job(section: str, name: str, given: Any, *words: str) -> Case:
    """Options of a job type of ours; texts that begin with @ are files of the place."""

    def run(place: Any) -> None:
        from xlm_mlm.commands import generate, score

        function = score.score if section == "score" else generate.generate
        values = given
        if isinstance(given, dict):
            values = {
                key: place.path(each[1:]) if isinstance(each, str) and each[:1] == "@" else each
                for key, each in (_usual(section) | given).items()
            }
        cfg = OmegaConf.create({section: values, "paths": {"output_dir": str(place.folder)}})
        raise Refused(one_line(lambda: _exit_code(function, cfg), 1))

    return Case(f"{section}-{name}", run, words, Refused)


def _usual(section: str) -> dict[str, str]:
    texts = {"text_file": "@texts.txt", "if_exists": "replace"} if section == "score" else {}
    return {"ckpt_path": "@good.ckpt"} | texts


def _exit_code(function: Callable[[Any], None], cfg: Any) -> Any:
    try:
        function(cfg)
    except SystemExit as end:
        return end.code
    return 0


def one_line(action: Callable[[], Any], code: int) -> str:
    """What an action that ends with a code writes to stderr: one line, and nothing to stdout."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        ended = action()
    assert ended == code, err.getvalue()
    assert "Traceback" not in err.getvalue()
    (line,) = err.getvalue().splitlines()
    assert line.startswith("error: ")
    assert not out.getvalue()
    return line


def instantiated(name: str, key: str, override: str, *words: str, experiment: str = "") -> Case:
    """An experiment with a bad override, whose part at `key` Hydra makes."""

    def run(place: Any) -> None:
        import hydra
        from hydra.errors import InstantiationException

        try:
            with place.experiment(experiment or "quickstart_mlm", override) as cfg:
                hydra.utils.instantiate(OmegaConf.select(cfg, key))
        except InstantiationException as error:
            raise Refused(str(error)) from error

    return Case(f"yaml-{name}", run, words, Refused)


def text_file(folder: Path, name: str, content: str | bytes) -> str:
    """Write a file, and return its path."""
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return str(folder / name)
