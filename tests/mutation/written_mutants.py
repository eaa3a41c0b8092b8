"""The mutants that mutmut has written: which there are, what each changes, what became of it."""

import ast
import difflib
import json
from dataclasses import dataclass
from pathlib import Path

# Exit codes of pytest under a mutant: a test failed, or pytest itself did, or it crashed.
FAILED = {1, 3, -11}
OUT_OF_TIME = {24, 36, 152, -24, -9}
KILLED = FAILED | OUT_OF_TIME
# The tests passed, or there are none of the function. Anything else says nothing.
SURVIVED = {0, 5, 33}

# Which arguments of a check are only ever read by people, in an error's message.
TEXTS = {
    "require_int": {0},
    "require_number": {0, 3},
    "require_choice": {0},
    "require_token_id": {2},
    "require_mapping": {0, 2},
    "require_bool": {0},
    "require_field": {3},
    "size_limit": {0},
    "_size": {0},
    "distinct": {0},
    "check_rows": {1},
    "token_ids": {2},
    "booleans_at": {1},
    "_check_booleans": {1},
    "_probability": {0},
    "_refuse": {0, 3, 5},
    "_refuse_with_elbo": {0},
    "_per_row": {0},
    "_field": {2},
    "_rows": {1},
}


@dataclass(frozen=True)
class Mutant:
    """One change of one function.

    Attributes:
        name: as mutmut calls it.
        file: the source, relative to the repository.
        exit_code: of the tests; None if they did not run.
        original: the function's text as it is.
        mutated: and as it becomes.
    """

    name: str
    file: str
    exit_code: int | None
    original: str
    mutated: str

    @property
    def function(self) -> str:
        """Name of the changed function, its class before it."""
        mangled = self.name.rpartition("__mutmut_")[0].rpartition(".")[2]
        return mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")

    @property
    def diff(self) -> list[str]:
        """The lines that differ, `-` before what was there and `+` before what comes instead."""
        lines = difflib.ndiff(self.original.splitlines(), self.mutated.splitlines())
        return [f"{line[0]} {line[2:].strip()}" for line in lines if line[0] in "+-"]

    @property
    def is_wording(self) -> bool:
        """Whether it changes nothing but the text of an error's message."""
        return _is_wording(ast.parse(self.original), ast.parse(self.mutated))


def read_mutants(folder: Path) -> list[Mutant]:
    """All mutants of a folder in which mutmut has been, in order of file and number.

    Raises:
        FileNotFoundError: mutmut has not been there.
    """
    written = folder / "mutants"
    if not written.is_dir():
        raise FileNotFoundError(f"{folder} has no folder 'mutants'; let mutmut write them first")
    found = []
    for notes in sorted(written.rglob("*.meta")):
        source = notes.with_suffix("")
        codes = json.loads(notes.read_text())["exit_code_by_key"]
        texts = _functions(source)
        for name, code in codes.items():
            key = name.rpartition(".")[2]
            original = texts[key.rpartition("_")[0] + "_orig"]
            file = source.relative_to(written).as_posix()
            found.append(Mutant(name, file, code, original, texts[key]))
    return found


def _functions(source: Path) -> dict[str, str]:
    """Text of every function of a file, by its name alone, under the name `f`."""
    text = source.read_text()
    lines = text.splitlines()
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name:
            body = lines[node.lineno - 1 : node.end_lineno]
            indent = len(body[0]) - len(body[0].lstrip())
            found[node.name] = "\n".join(line[indent:] for line in body).replace(node.name, "f", 1)
    return found


def _is_wording(original: ast.AST, mutated: ast.AST) -> bool:
    """Whether two trees differ in one text only, which is handed to a check as its message."""
    for one, other in _differing(original, mutated):
        if type(one) is not type(other):
            return False
        if isinstance(one, ast.Call) and isinstance(other, ast.Call):
            texts = TEXTS.get(_name(one), set())
            for i, (ours, theirs) in enumerate(zip(one.args, other.args, strict=False)):
                if i in texts and _is_text(ours) and ast.dump(ours) != ast.dump(theirs):
                    return len(one.args) == len(other.args)
        return _is_wording(one, other)
    return False


def _differing(original: ast.AST, mutated: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """The children of two nodes that differ, in pairs; none if their numbers differ."""
    ours, theirs = list(ast.iter_child_nodes(original)), list(ast.iter_child_nodes(mutated))
    if len(ours) != len(theirs):
        return []
    pairs = zip(ours, theirs, strict=True)
    return [(one, other) for one, other in pairs if ast.dump(one) != ast.dump(other)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)


def _name(call: ast.Call) -> str:
    """What is called, without what it belongs to."""
    return getattr(call.func, "id", getattr(call.func, "attr", ""))
