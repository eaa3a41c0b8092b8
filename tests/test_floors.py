"""The house: imports point downwards only, and nothing on one floor imports its neighbour."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "xlm_mlm"

FLOORS = [
    {"commands", "conformance"},
    {"plugin"},
    {"scoring"},
    {"report", "generation"},
    {
        "predictor_mlm",
        "predictions_mlm",
        "loss_mlm",
        "likelihood_mlm",
        "datamodule_mlm",
        "papl_unconditional",
        "metrics_mlm",
        "history_mlm",
        "data",
        "callbacks",
        "checkpoints",
        "rebuild",
    },
    {"history", "decoding", "collation", "likelihood"},
    {"sampling", "model_mlm"},
    {"modeling"},
    {"types_mlm"},
    {"boards", "visible", "checks", "entries"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(file):
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imported_rooms(file):
    """Rooms of this package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "xlm_mlm":
                names = [f"xlm_mlm.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "xlm_mlm" and len(parts) > 1 and not parts[1].startswith("__"):
                yield parts[1]


FILES = [f for f in ROOT.rglob("*.py") if f != ROOT / "__init__.py"]


def test_every_room_has_a_floor():
    assert {room_of(f) for f in FILES} == set(FLOOR_OF)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_imports_point_downwards(file):
    here = room_of(file)
    for room in imported_rooms(file):
        assert room == here or FLOOR_OF[room] > FLOOR_OF[here], f"{here} imports {room}"


def test_the_edge_reaches_the_components_by_name_only():
    for file in (ROOT / "plugin").glob("*.py"):
        assert set(imported_rooms(file)) <= {"plugin", "entries"}, file.name


def test_no_file_is_too_long():
    tests = Path(__file__).parent.rglob("*.py")
    for file in [*ROOT.rglob("*.py"), *tests]:
        assert len(file.read_text().splitlines()) <= 400, file.name
