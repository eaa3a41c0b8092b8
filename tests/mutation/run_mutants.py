"""How many deliberate faults the tests find: mutmut on a copy of a commit of this repository.

    python tests/mutation/run_mutants.py --work /some/scratch/folder

The mutants of each area are drawn at random, with a fixed seed; `--all` tries every one. A folder
that is there already is gone on with: only what has no result yet is tried.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import mutant_report as report
import written_mutants as mutants

ROOT = Path(__file__).resolve().parents[2]

AREAS = {
    "sampling": "xlm_mlm/sampling/",
    "collation": "xlm_mlm/collation/",
    "loss": "xlm_mlm/loss_mlm.py",
    "metrics": "xlm_mlm/metrics_mlm.py",
}
"""What the name of a file begins with, for each area."""

# `mutmut run` writes the mutants as well, but only together with trying them.
WRITE = """
import os
from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants
os.makedirs("mutants", exist_ok=True)
copy_src_dir()
copy_also_copy_files()
create_mutants(1)
"""


def copy_commit(root: Path, commit: str, folder: Path, *paths: str) -> None:
    """Put the files of a commit, or those under some of its paths, into a folder.

    Raises:
        subprocess.CalledProcessError: git knows no such commit.
    """
    command = ["git", "-C", str(root), "archive", "--format=tar", commit, *paths]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def write_mutants(folder: Path) -> None:
    """Have mutmut write the mutants of the files that `pyproject.toml` names."""
    _quietly([sys.executable, "-c", WRITE], folder)


def drawn(found: list[mutants.Mutant], area: str, sample: int | None, seed: int) -> list[str]:
    """Names of the mutants of an area that are to be tried: so many at random, or all.

    What changes only the wording of a message is left out. The order is that of hashes, so that a
    smaller sample is the beginning of a larger one, whatever other mutants there are.
    """
    names = [
        mutant.name
        for mutant in found
        if mutant.file.startswith(AREAS[area]) and not mutant.is_wording
    ]
    names.sort(key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    return names[:sample]


def try_mutants(folder: Path, names: list[str]) -> None:
    """Run the tests of each of these mutants; mutmut writes the results beside the mutants."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    _quietly(command, folder)


def settled(
    folder: Path, found: list[mutants.Mutant], names: list[str], done: set[int]
) -> list[mutants.Mutant]:
    """Try those of the named mutants whose exit code is not among `done`; return all of them anew.

    Raises:
        RuntimeError: the tests of a mutant could not be run.
    """
    codes = {mutant.name: mutant.exit_code for mutant in found}
    left = [name for name in names if codes[name] not in done]
    if left:
        try_mutants(folder, left)
        found = mutants.read_mutants(folder)
    codes = {mutant.name: mutant.exit_code for mutant in found}
    open_ones = [n for n in names if codes[n] not in mutants.KILLED | mutants.SURVIVED]
    if open_ones:
        raise RuntimeError(
            f"the tests of {len(open_ones)} mutants could not be run, of {open_ones[0]} for one; "
            f"see {folder / 'mutmut.log'}. A test that cannot be collected twice in a process, as "
            "one of a generator's values, is a reason"
        )
    return found


def _quietly(command: list[str], folder: Path) -> None:
    """Run a command at low priority, on one thread, its output kept in `mutmut.log`.

    Raises:
        RuntimeError: it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    with (folder / "mutmut.log").open("a") as log:
        code = subprocess.run(
            ["nice", "-n", "19", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ).returncode
    if code:
        raise RuntimeError(f"{command[:4]} ended with {code}; see {folder / 'mutmut.log'}")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the copy")
    parser.add_argument("--areas", nargs="+", choices=AREAS, default=list(AREAS))
    parser.add_argument("--sample", type=int, default=150, help="mutants of each area")
    parser.add_argument("--all", action="store_true", help="every mutant instead; takes hours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--commit", default="HEAD", help="what of it to copy")
    again = "try the survivors of an earlier run once more, with the tests of --commit"
    parser.add_argument("--again", action="store_true", help=again)
    parser.add_argument("--explained", type=Path, default=report.EXPLAINED)
    parser.add_argument("--markdown", type=Path, help="write the report here as well")
    parser.add_argument("--json", type=Path, help="write every result here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Copy, draw, try, report; 1 where an area has an unexplained survivor.

    Raises:
        RuntimeError: mutmut fails, or could not run the tests of a mutant.
    """
    options = parsed(arguments)
    folder = options.work.resolve()
    if not (folder / "mutants").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        copy_commit(options.root, options.commit, folder)
        write_mutants(folder)
    found = mutants.read_mutants(folder)
    sample = None if options.all else options.sample
    names = {area: drawn(found, area, sample, options.seed) for area in options.areas}
    done = mutants.KILLED | mutants.SURVIVED
    if options.again:
        copy_commit(options.root, options.commit, folder, "tests")
        done = mutants.KILLED
    found = settled(folder, found, [name for some in names.values() for name in some], done)
    areas = report.by_area(found, names, AREAS)
    reasons = report.read_explained(options.explained)
    text = report.markdown(areas, reasons)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.json:
        options.json.write_text(json.dumps(report.as_data(areas), indent=1) + "\n")
    return int(any(report.unexplained(area, reasons) for area in areas))


if __name__ == "__main__":
    sys.exit(main())
