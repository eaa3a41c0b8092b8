"""Make every picture of the README and of these examples, from models trained here.

    python pictures.py ../../docs/pictures

Trains what is not trained yet in the current folder (a sudoku solver, a minute on two CPU cores,
and a model of bytes, five minutes), then records, draws and photographs. Needs no network. What
needs a browser is left out where there is no Chromium.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from terminal import write_svg

from xlm_mlm import HistoryTopKPlugin, MLMPredictor
from xlm_mlm.checkpoints import read_checkpoint
from xlm_mlm.history.reading import read_traces
from xlm_mlm.history.trace import Trace
from xlm_mlm.rebuild import rebuild
from xlm_mlm.report.animation import write_gif
from xlm_mlm.report.page import write_page
from xlm_mlm.report.picture import write_png

SUDOKU = Path("logs/quickstart")
TEXT = Path("logs/topics")
TOPICS = Path(__file__).parents[1] / "local_text" / "pydoc_topics.py"
BLANK = "_"
# Near the first sentence of the topic "for".
SENTENCE = (
    'The "f_r" st_te_ent is us_d to iter_t_ over the elem_n__ of a se_u__ce '
    "(such as a str___, tup__ or list) or other iter_ble obj___."
)
SHORT = 'The "f_r" st_te_ent is us_d to iter_te over the elem_n__ of a seq__nce.'.replace(
    BLANK, "[MASK]"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    train()
    sudoku = solve()
    text = complete(TEXT / "checkpoints" / "last.ckpt")
    for name, trace in (("sudoku", sudoku), ("text", text)):
        write_gif(trace, folder / f"{name}.gif")
        write_png(trace, folder / f"{name}.png")
    photograph([sudoku, text], folder / "report.png")
    for name, job, text in (("fill", TEXT, SHORT), ("board", SUDOKU, puzzle_of(sudoku))):
        weights = ["--checkpoint", str(job / "checkpoints" / "last.ckpt")]
        write_svg(["xlm-mlm", "fill", *weights, "--watch", text], folder / f"{name}.svg")
    write_svg(["xlm-mlm", "doctor"], folder / "doctor.svg")
    for picture in sorted(folder.iterdir()):
        print(f"{picture.stat().st_size:>9,} bytes  {picture.name}")


def train() -> None:
    """Both models, each unless it is there."""
    if not (SUDOKU / "checkpoints" / "last.ckpt").is_file():
        xlm("train", "quickstart", "experiment=quickstart_mlm")
    if not (TEXT / "checkpoints" / "last.ckpt").is_file():
        subprocess.run([sys.executable, TOPICS, "topics.jsonl"], check=True)
        options = "validation_fraction=0.1 trainer.max_steps=600 trainer.val_check_interval=100"
        data = "data_files=topics.jsonl"
        xlm("train", "topics", "experiment=local_text_mlm", data, *options.split())


def solve() -> Trace:
    """Of the boards that were never seen, the first with the fewest clues."""
    xlm("eval", "quickstart", "experiment=quickstart_mlm", "+history=topk_mlm")
    newest = max((SUDOKU / "runs").glob("*/history"), key=os.path.getmtime)
    traces = read_traces(newest)
    return replace(max(traces, key=lambda trace: int(trace.masks_left[0])), fid="sudoku")


def complete(checkpoint: Path) -> Trace:
    """The sentence, its blanks filled with the averaged weights, the surest byte first."""
    trained = read_checkpoint(checkpoint)
    saved = rebuild(trained.config)
    trained.apply(saved.model)
    folder = Path("text_history")
    shutil.rmtree(folder, ignore_errors=True)
    predictor = MLMPredictor(
        max_steps=64,
        tokenizer=saved.tokenizer,
        model=saved.model,
        confidence="top_prob",
        confidence_temperature=0.0,
        temperature=0.0,
        history=HistoryTopKPlugin(folder, k=5),
    )
    predictor.predict({"input_ids": torch.tensor([list(ids_of(SENTENCE, saved.tokenizer))])})
    (trace,) = read_traces(folder)
    return replace(trace, fid="text")


def ids_of(text: str, tokenizer: Any) -> Iterator[int]:
    """The text's tokens, a mask for each blank."""
    for number, part in enumerate(text.split(BLANK)):
        if number:
            yield tokenizer.mask_token_id
        yield from tokenizer(part, add_special_tokens=False)["input_ids"]


def puzzle_of(trace: Trace) -> str:
    """The cells of a board before the first pass, a mask's name for each blank."""
    cells = [trace.text_of(token) for token in trace.before.tolist()]
    return " ".join(cell for cell in cells if cell.isdigit() or cell == "[MASK]")


def photograph(traces: list[Trace], path: Path) -> None:
    """The page, half-way through its first sample."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no Chromium on this machine: {path.name} is left out")
        return
    from playwright.sync_api import sync_playwright

    write_page(traces, "report.html")
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=quiet)
        view = {"width": 1000, "height": 800}
        page = chromium.new_page(viewport=view, color_scheme="light", device_scale_factor=1.5)
        page.goto(Path("report.html").absolute().as_uri())
        page.wait_for_selector("#sequence > span")
        middle = traces[0].steps // 2
        page.evaluate(
            """state => {
              const slider = document.getElementById("slider");
              slider.value = state;
              slider.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            middle,
        )
        page.wait_for_timeout(300)
        page.screenshot(path=path, full_page=True)
        chromium.close()


def xlm(job: str, name: str, *options: str) -> None:
    """Run the host's command."""
    command = [sys.executable, "-m", "xlm", f"job_type={job}", f"job_name={name}", *options]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
