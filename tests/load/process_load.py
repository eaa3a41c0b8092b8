"""Peak memory of whole programs, by the size of the file that they are given."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1]))

import torch
from load_samples import own_bytes
from tiny_checkpoints import changed, network, write_checkpoint
from xlm_process import TINY_MODEL, XLM, clean_environment

from xlm_mlm.data.sudoku import solution_grids

ROWS = (100, 1_000, 10_000)
NOISE = 16 * 2**20
"""Bytes. Peaks of one program with one input lie within about that: how many of a library's pages
are resident is up to the system."""


SAMPLER = 56 / 128
"""Bytes for each byte of text, of which a row holds 128. The order of an epoch is a list of the
rows' numbers, 40 bytes each, made from a tensor, 8 bytes each, by the host's library; 0.40 in all
was measured."""
LINE = 3.0
"""Bytes for each byte of a document, while it is read: in pieces, as a line, and without its end.
While its rows are made it is held once."""


class Peak(NamedTuple):
    """A program's end.

    Attributes:
        bytes: its peak resident memory, as the system counts it.
        own: the most that it held besides files it had mapped, in bytes; sampled.
        handles: the most open files; sampled.
        seconds: how long it ran.
        phases: seconds of each phase, in order.
    """

    bytes: int
    own: int
    handles: int
    seconds: float
    phases: dict[str, float]


class Use(NamedTuple):
    """Peaks of a program by the size of its input.

    Attributes:
        case: the program.
        unit: of the sizes.
        peaks: by size.
        known: bytes a unit that it is known to hold.
    """

    case: str
    unit: str
    peaks: dict[int, Peak]
    known: float = 0.0

    @property
    def per_item(self) -> float:
        """Bytes that each further item took, between the smallest and the largest input."""
        small, large = min(self.peaks), max(self.peaks)
        return (self.peaks[large].own - self.peaks[small].own) / (large - small)

    @property
    def grew(self) -> bool:
        """Whether the largest input took more than is known, by more than noise."""
        return (self.per_item - self.known) * (max(self.peaks) - min(self.peaks)) > NOISE


def run_watched(
    program: Sequence[str | Path],
    folder: Path,
    phases: Callable[[], str] = lambda: "all",
    every: float = 0.05,
) -> Peak:
    """Run a program to its end, and look at what it holds meanwhile. Linux only.

    Args:
        program: its command line.
        folder: to run it in; what it prints goes to the file `output` there.
        phases: says which phase it is in.
        every: seconds between looks.

    Raises:
        RuntimeError: it fails; the message holds the end of what it printed.
    """
    own = handles = 0
    spent: dict[str, float] = {}
    environment = clean_environment(OMP_NUM_THREADS="1", DATA_DIR=str(folder / "data"))
    with (folder / "output").open("wb") as output:
        child = subprocess.Popen(
            list(map(str, program)),
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        started = before = time.perf_counter()
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            now, phase = time.perf_counter(), phases()
            spent[phase] = spent.get(phase, 0.0) + now - before
            before = now
            if pid:
                break
            own = max(own, own_bytes(child.pid))
            handles = max(handles, _handles(child.pid))
            time.sleep(every)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        said = (folder / "output").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{program[0]} ended with {child.returncode}: {said[-2000:]}")
    return Peak(usage.ru_maxrss * 1024, own, handles, time.perf_counter() - started, spent)


def _handles(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def generate(sizes: Sequence[int] = ROWS, only: str = "") -> Iterator[Use]:
    """Everything that predicts or scores the rows of a user's file; `only` is part of its name."""
    programs = {
        "mlm_generate, sudoku_mlm, rows of a .csv": _boards,
        "mlm_generate, local_text_mlm, from masks alone": _from_masks,
        "xlm-mlm fill --file": _fill,
        "mlm_score, a .txt": _score,
    }
    for case, command in programs.items():
        if only not in case:
            continue
        peaks = {}
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder:
                peaks[rows] = run_watched(command(Path(folder), rows), Path(folder))
        yield Use(case, "rows", peaks)


def _boards(folder: Path, rows: int) -> list[str]:
    """Puzzles of 9 x 9 cells: grids put together from those of 4 x 4, which is all one needs."""
    drawn = random.Random(0)
    (folder / "data" / "sudoku").mkdir(parents=True)
    grids = solution_grids()
    # The host makes the training rows ready as well.
    for split, count in (("train", 100), ("test", rows)):
        with (folder / "data" / "sudoku" / f"{split}.csv").open("w") as out:
            print("quizzes,solutions", file=out)
            for _ in range(count):
                cells = [n for _ in range(6) for n in drawn.choice(grids)][:81]
                blanks = [n if drawn.random() < 0.5 else 0 for n in cells]
                print(*("".join(map(str, each)) for each in (blanks, cells)), sep=",", file=out)
    weights = network(1, max_length=128)
    _resize(weights, 17)
    torch.save(weights.state_dict(), folder / "weights.pt")
    return _generating("sudoku_mlm", folder, "predictor.max_steps=4")


def _from_masks(folder: Path, rows: int) -> list[str]:
    (folder / "text.txt").write_text("".join(f"a line, number {n}\n" for n in range(60)))
    weights = network(1, max_length=32)
    _resize(weights, 263)
    torch.save(weights.state_dict(), folder / "weights.pt")
    data = ("data_files=text.txt", "document=line", "block_size=12", "model.use_flex_attn=false")
    return _generating(
        "local_text_mlm", folder, f"num_unconditional_prediction_examples={rows}", *data
    )


def _resize(model: torch.nn.Module, vocabulary: int) -> None:
    model.embed_tokens = torch.nn.Embedding(vocabulary, 32, padding_idx=0)
    model.output_layer.linear = torch.nn.Linear(32, vocabulary, bias=False)


def _generating(experiment: str, folder: Path, *overrides: str) -> list[str]:
    return [
        str(XLM),
        "job_type=mlm_generate",
        "job_name=load",
        f"experiment={experiment}",
        "+generation.model_only_checkpoint_path=weights.pt",
        "+generation.output_dir=out",
        "per_device_batch_size=64",
        "global_batch_size=64",
        *TINY_MODEL[2:],
        "model.dim_feedforward=256",
        *overrides,
    ]


def _checkpoint(folder: Path) -> str:
    config = changed("model", "max_length", value=22)
    config["model"]["dim_feedforward"] = 256
    write_checkpoint(folder / "a.ckpt", network(1), hyper_parameters=config)
    return "a.ckpt"


def _fill(folder: Path, rows: int) -> list[str]:
    texts = (f"{n % 4 + 1} [MASK] {n % 3 + 1} [MASK]\n" for n in range(rows))
    (folder / "texts.txt").write_text("".join(texts))
    program = str(Path(XLM).with_name("xlm-mlm"))
    return [program, "fill", "--file", "texts.txt", "--checkpoint", _checkpoint(folder)]


def _score(folder: Path, rows: int) -> list[str]:
    digits = ([n // 4**i % 4 + 1 for i in range(8)] for n in range(rows))
    (folder / "texts.txt").write_text("".join(" ".join(map(str, d)) + "\n" for d in digits))
    source = (f"+score.ckpt_path={_checkpoint(folder)}", "+score.text_file=texts.txt")
    more = ("+score.num_mc_samples=2", "+score.output_dir=out")
    return [str(XLM), "job_type=mlm_score", "job_name=load", *source, *more]


def write_text(path: Path, size: int, paragraphs: bool = True) -> None:
    """Write so many bytes of made-up English: paragraphs, or one line and a hundred short ones."""
    drawn = random.Random(0)
    letters = "etaoinshrdlcumwfgypbvk"
    words = ["".join(drawn.choices(letters, k=drawn.randint(2, 9))) for _ in range(5000)]
    left = size
    with path.open("w") as file:
        while left > 0:
            text = " ".join(drawn.choices(words, k=drawn.randint(20, 200)))
            left -= file.write((text + (".\n\n" if paragraphs else " "))[:left])
        # So that both splits have something.
        file.writelines(f"\n\n{n} " + " ".join(words[:40]) for n in range(100))


def text(sizes: Sequence[int], paragraphs: bool = True, steps: int = 5) -> Iterator[Use]:
    """Training on a file of so many bytes, from the file to the last step."""
    peaks = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_text(folder / "big.txt", size, paragraphs)
            peaks[size] = run_watched(_training(steps), folder, lambda at=folder: _phase(at))
    what = "paragraphs" if paragraphs else "one line"
    known = SAMPLER if paragraphs else SAMPLER + LINE
    yield Use(f"train, local_text_mlm, a .txt of {what}", "bytes", peaks, known)


def _training(steps: int) -> list[str]:
    return [
        str(XLM),
        "job_type=train",
        "job_name=load",
        "experiment=local_text_mlm",
        "data_files=big.txt",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
        "+trainer.limit_val_batches=2",
        "+trainer.limit_test_batches=2",
        *TINY_MODEL,
    ]


def _phase(folder: Path) -> str:
    """What a training run is at, by what it has left behind."""
    cache = folder / "data" / "xlm_mlm" / "text"
    if not cache.is_dir():
        return "start"
    done = {each.name.split("-")[0] for each in cache.iterdir() if not each.name.startswith(".")}
    if "validation" in done and "train" in done:
        return "training"
    return "validation rows" if "train" in done else "training rows"
