"""`job_type=mlm_score`: score the texts of a file with a saved model."""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import tee
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from xlm_mlm.generation.lines import line_of
from xlm_mlm.generation.provenance import versions
from xlm_mlm.history.files import on_full_disk, write_whole, writing_whole
from xlm_mlm.scoring.options import ScoreOptions, read_options
from xlm_mlm.scoring.scorer import Row, Scorer
from xlm_mlm.scoring.texts import Text, read_texts

SCORES = "scores.jsonl"
META = "scores.meta.json"
_NOTHING = "there are no new scores: make room, and run the same command again"


def run(cfg: DictConfig) -> Path:
    """Score every text, write the scores and what made them, and print the sum.

    The files appear when all are scored; no more than a batch of texts is held at once. Model and
    tokenizer are those of the checkpoint, not of the experiment.

    Returns:
        The scores' file.

    Raises:
        ValueError: an option, the checkpoint, or a text does not fit.
        FileNotFoundError: there is no such file.
        OSError: a file can't be written.
    """
    started = time.time()
    options = read_options(cfg)
    path = options.output_dir / SCORES
    _check_output(path, options.if_exists)
    for _ in _texts(options):  # a bad file is found before the model is read
        pass
    # What libraries print while they load must not end up beside the result.
    with redirect_stdout(sys.stderr):
        scorer = Scorer.from_checkpoint(
            options.ckpt_path,
            weights=options.weights,  # type: ignore[arg-type]
            trust=options.trust,
            name="score.",
            **options.of_scorer(),
        )
    # All of them first: a text that can't be scored is better found before hours of work.
    total = sum(1 for _ in _rows(scorer, _texts(options), options.text_file))
    path.parent.mkdir(parents=True, exist_ok=True)
    with on_full_disk(_NOTHING), writing_whole(path) as write:
        summary = scorer.summary(_written(scorer, options, total, write))
        made = {
            **_provenance(options, scorer),
            "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - started, 3),
            "summary": summary,
        }
        text = json.dumps(made, indent=2, default=str, ensure_ascii=False)
        write_whole(path.with_name(META), text.encode("utf-8", "backslashreplace"))
    print(_line(summary))
    return path


def _written(
    scorer: Scorer, options: ScoreOptions, total: int, write: Callable[[bytes], None]
) -> Iterator[dict[str, Any]]:
    """The scores of each text, written as they come."""
    texts, again = tee(_texts(options))
    rows = _rows(scorer, again, options.text_file)
    bar = tqdm(scorer.score(rows), total=total, unit="text", file=sys.stderr)
    for each, score in zip(texts, bar, strict=True):
        write(line_of({"line": each.line, "text": each.text, **score}))
        yield score


def _texts(options: ScoreOptions) -> Iterator[Text]:
    return read_texts(options.text_file, options.text_field)


def _rows(scorer: Scorer, texts: Iterator[Text], file: str) -> Iterator[Row]:
    return (_row(scorer, each, file) for each in texts)


def _check_output(path: Path, if_exists: str) -> None:
    if path.parent.exists() and not path.parent.is_dir():
        raise ValueError(f"score.output_dir is {path.parent}, which is a file; it must be a folder")
    if path.exists() and if_exists == "error":
        raise ValueError(
            f"{path} exists; give another +score.output_dir, or +score.if_exists=replace"
        )


def _row(scorer: Scorer, text: Text, file: str) -> Row:
    try:
        return scorer.read(text.text)
    except ValueError as error:
        raise ValueError(f"{file}, line {text.line}: {error}") from error


def _provenance(options: ScoreOptions, scorer: Scorer) -> dict[str, Any]:
    checkpoint, source = scorer.checkpoint, Path(options.ckpt_path)
    weights = source / "model.safetensors" if checkpoint is None else source
    return {
        "versions": versions(),
        "checkpoint": {
            "path": str(source.absolute()),
            "sha256": _sha256(weights),
            "step": None if checkpoint is None else checkpoint.step,
            "weights": scorer.weights,
        },
        "text_file": {
            "path": str(Path(options.text_file).absolute()),
            "sha256": _sha256(Path(options.text_file)),
        },
        "seed": options.seed,
        "device": str(scorer.device),
        "options": {
            **asdict(options),
            "add_bos": bool(scorer.bos),
            "add_eos": bool(scorer.eos),
        },
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(summary: dict[str, Any]) -> str:
    """The sum, for people."""
    none = math.inf if summary["num_tokens"] else math.nan
    shown = {
        name: value if value is not None else -none if name == "pseudo_log_likelihood" else none
        for name, value in summary.items()
    }
    counted = "{num_texts} texts, {num_tokens} tokens: "
    line = (
        "NLL {nll:.4g} nats a text, {bits_per_token:.4g} bits a token, perplexity {perplexity:.4g}"
    )
    if "pseudo_log_likelihood" in summary:
        line = (
            "pseudo-log-likelihood {pseudo_log_likelihood:.4g} nats a text, "
            "pseudo-perplexity {pseudo_perplexity:.4g}"
        )
    return (counted + line).format(**shown)
