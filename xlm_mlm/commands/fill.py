"""`xlm-mlm fill`: the blanks of texts, filled by a saved model."""

import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer


def fill(
    text: Annotated[
        str | None,
        typer.Argument(help="A text with [MASK] for each blank; - reads them from stdin."),
    ] = None,
    checkpoint: Annotated[
        Path,
        typer.Option(help="A training checkpoint, or a folder that `xlm-mlm save` wrote."),
    ] = ...,  # type: ignore[assignment]
    file: Annotated[Path | None, typer.Option(help="Texts, one a line, instead.")] = None,
    candidates: Annotated[int, typer.Option(help="How many ways to fill a text, with scores.")] = 1,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the tokens as they are filled, pass by pass.")
    ] = False,
    delay: Annotated[float, typer.Option(help="Seconds between passes, with --watch.")] = 0.3,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a text instead.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Blanks to put behind each text.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Most passes; as in training.")] = None,
    confidence: Annotated[
        str | None, typer.Option(help="Which blank comes first: top_prob, prob_diff or entropy.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="A rule by name instead: klass, probability_threshold, ...")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A rule that takes tokens back: remdm or p2.")
    ] = None,
    suppress: Annotated[
        list[str] | None, typer.Option(help="A token never to fill in; may be repeated.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the candidates after the first, which are drawn.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k most probable.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among those that reach p.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    weights: Annotated[
        str, typer.Option(help="Of a checkpoint: raw, ema, or auto: EMA if there is any.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    frame: Annotated[
        bool | None, typer.Option(help="BOS and EOS around a text; as in training if not given.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Make whatever classes the checkpoint names.")
    ] = False,
) -> None:
    """Fill the blanks of a text with a trained model.

    With one blank, candidates are the most probable tokens. With several, the first is filled
    greedily and the others are drawn. A score is the sum of the tokens' log-probabilities, in
    nats, each in the pass that chose it.

    Raises:
        ValueError: an option or a text that does not fit, or a checkpoint that is refused.
        FileNotFoundError: there is no such file.

    Long, since the program reads its options off the signature.
    """
    texts, count = _texts(text, file)
    if not math.isfinite(delay) or delay < 0:
        raise ValueError(f"--delay is {delay}; it must be a number of seconds, 0 or more")

    from xlm_mlm.generation.fill import Filler
    from xlm_mlm.history.files import naming_file

    options = {
        "max_steps": steps,
        "confidence": confidence,
        "strategy": strategy,
        "revision": revision,
        "suppress_tokens": suppress,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    # What libraries print while they load must not end up among the results.
    with redirect_stdout(sys.stderr):
        filler = Filler.from_checkpoint(
            checkpoint,
            weights=weights,  # type: ignore[arg-type]
            trust=trust,
            device=device,
            options=options,
            frame=frame,
        )
    for number, each in enumerate(texts, 1):
        more: dict[str, Any] = {"seed": seed, "max_new_tokens": max_new_tokens}
        try:
            found = _filled(filler, each, candidates, delay if watch else None, more)
        except ValueError as error:
            if count == 1:
                raise
            raise ValueError(f"text {number} of {count}: {error}") from error
        with naming_file(Path("the output")):
            if as_json:
                typer.echo(_json(each, found, checkpoint, filler.weights))
            else:
                # Not by typer, which takes escapes out of what is piped.
                print(_plain(found, candidates > 1, sys.stdout.isatty()), flush=True)


def _filled(filler: Any, text: str, count: int, delay: float | None, more: dict[str, Any]) -> Any:
    if delay is None:
        return filler.fill(text, count, **more)
    from xlm_mlm.commands.watching import Watcher

    with Watcher(filler, sys.stderr, delay) as watcher:
        return filler.fill(text, count, watch=watcher, **more)


class _Lines:
    """The texts of a file, one a line, read each time that they are gone through."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8-sig") as file:  # a byte order mark is no text
            try:
                for line in file:
                    if line.strip():
                        yield line.removesuffix("\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.path} is not UTF-8: {error}") from error


def _texts(text: str | None, file: Path | None) -> tuple[Iterable[str], int]:
    """The texts, and how many there are."""
    if file is not None and text is not None:
        raise ValueError(f"both a text and --file {file} are given; give one of them")
    if file is not None:
        # All at once only what can be read but once, such as a pipe.
        lines: Iterable[str] = _Lines(file)
        lines = lines if file.is_file() else list(lines)
        return lines, _counted(lines, file)
    if text is not None and text != "-":
        return [text], 1
    if sys.stdin is None:
        raise ValueError("stdin is closed; give a text, such as 'The [MASK] sat.', or --file")
    if text is None and sys.stdin.isatty():
        raise ValueError(
            "there is no text to fill; give one, such as 'The [MASK] sat.', or --file, or pipe "
            "texts to this command"
        )
    try:
        content = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"stdin is not UTF-8: {error}") from error
    content = content.removeprefix("\ufeff")  # a byte order mark
    lines = [line.rstrip("\r") for line in content.split("\n") if line.strip()]
    return lines, _counted(lines, "stdin")


def _counted(texts: Iterable[str], source: Any) -> int:
    count = sum(1 for _ in texts)
    if not count:
        raise ValueError(
            f"{source} holds no text; it must hold one a line, with [MASK] for a blank"
        )
    return count


def _plain(found: list[Any], scores: bool, terminal: bool) -> str:
    from xlm_mlm.visible import readable

    if not scores:
        # As it is for a file or a pipe; a terminal gets no control characters.
        return _on_terminal(found[0].text) if terminal else found[0].text
    return "\n".join(f"{each.score:9.4f}  {readable(each.text)}" for each in found)


def _on_terminal(text: str) -> str:
    from xlm_mlm.visible import readable

    return "\n".join(readable(line) for line in text.split("\n"))


def _json(text: str, found: Iterable[Any], checkpoint: Path, weights: str) -> str:
    return json.dumps(
        {
            "text": text,
            "checkpoint": str(checkpoint),
            "weights": weights,
            "candidates": [
                {
                    "text": each.text,
                    "score": each.score if math.isfinite(each.score) else None,
                    "tokens": [_token(asdict(token)) for token in each.tokens],
                }
                for each in found
            ],
        },
        allow_nan=False,
    )


def _token(fields: dict[str, Any]) -> dict[str, Any]:
    return {("pass" if key == "step" else key): value for key, value in fields.items()}
