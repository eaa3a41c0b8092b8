"""`job_type=mlm_score`: score the texts of a file with a saved model."""

import hashlib
import json
import math
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from xlm_mlm.generation.files import line_of
from xlm_mlm.generation.provenance import versions
from xlm_mlm.history.files import write_whole
from xlm_mlm.scoring.options import ScoreOptions, read_options
from xlm_mlm.scoring.scorer import Row, Scorer
from xlm_mlm.scoring.texts import Text, read_texts

SCORES = "scores.jsonl"
META = "scores.meta.json"


def run(cfg: DictConfig) -> Path:
    """Score every text, write the scores and what made them, and print the sum.

    Nothing is written until all are scored. Model and tokenizer are those of the checkpoint, not
    of the experiment.

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
    texts = read_texts(options.text_file, options.text_field)
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
    rows = [_row(scorer, each, options.text_file) for each in texts]
    bar = tqdm(scorer.score(rows), total=len(rows), unit="text", file=sys.stderr)
    scores = [
        {"line": each.line, "text": each.text, **s} for each, s in zip(texts, bar, strict=True)
    ]
    summary = scorer.summary(scores)
    made = {
        **_provenance(options, scorer),
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 3),
        "summary": summary,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, indent=2, default=str, ensure_ascii=False)
    write_whole(path.with_name(META), text.encode("utf-8", "backslashreplace"))
    write_whole(path, b"".join(map(line_of, scores)))
    print(_line(summary))
    return path


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
