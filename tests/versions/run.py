"""Run the tests with the oldest and the newest versions of what `pyproject.toml` allows.

    pip install uv
    python tests/versions/run.py                      # both, the whole suite: half an hour
    python tests/versions/run.py lowest -- -m "not slow" tests/sampling

A virtual environment is made for each, outside the repository, which is installed into it in
editable form. The exit code is 1 if tests of either fail.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENDS = ("lowest", "highest")
SHOWN = ("torch", "transformers", "hydra-core", "pluggy", "omegaconf", "numpy", "lightning")
PRERELEASES = "hydra-core>=1.3.2.dev0"
"""So that uv takes those of hydra-core: 1.4, which the pin allows, has no other yet."""


def has_uv() -> bool:
    """Whether this Python has the package `uv`."""
    return importlib.util.find_spec("uv") is not None


def installation(end: str, python: Path) -> list[str]:
    """The command that installs the package and its test extra.

    Args:
        end: "lowest" takes the lower bound of every direct dependency, and of the others what fits;
            "highest" the newest of all.
        python: of the environment to install into.
    """
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    package = ["--editable", f"{ROOT}[test]"]
    if end == "lowest":
        return [*uv, "--resolution", "lowest-direct", *package]
    return [*uv, "--upgrade", *package, PRERELEASES]


def versions(python: Path) -> dict[str, str]:
    """What is installed, by name."""
    command = [sys.executable, "-m", "uv", "pip", "list", "--python", str(python)]
    listed = subprocess.run(
        [*command, "--format", "json"], check=True, capture_output=True, text=True
    )
    return {row["name"]: row["version"] for row in json.loads(listed.stdout)}


def run(end: str, folder: Path, tests: Sequence[str]) -> bool:
    """Make the environment, say what is in it, run the tests; whether they passed."""
    environment = folder / end
    make = [sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable]
    subprocess.run([*make, str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run(installation(end, python), check=True)
    found = versions(python)
    print(f"{end}:", ", ".join(f"{name} {found[name]}" for name in SHOWN), flush=True)
    done = subprocess.run([str(python), "-m", "pytest", *tests], cwd=ROOT)
    print(f"{end}: exit code {done.returncode}", flush=True)
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Both ends, or the one named; 0 if all tests passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("end", nargs="?", choices=[*ENDS, "both"], default="both")
    parser.add_argument("--folder", type=Path, help="where to make the environments, and keep them")
    given = sys.argv[1:] if arguments is None else list(arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    if not has_uv():
        parser.error("uv is not installed here; pip install uv")
    ends = ENDS if options.end == "both" else [options.end]
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        passed = [run(end, folder, given[cut + 1 :]) for end in ends]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
