"""`xlm-mlm report`: what the predictor did, as a page, a picture and an animation."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from xlm_mlm.visible import readable

SAMPLES = 10
_SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".gif": b"GIF8"}


def report(
    history_dir: Annotated[
        Path, typer.Argument(help="The folder that holds the samples' histories.")
    ],
    output: Annotated[Path, typer.Option(help="The page, an .html file.")] = Path("report.html"),
    fid: Annotated[
        list[str] | None,
        typer.Option(metavar="<name>", help="A sample to show; give it again for several."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help=f"How many samples to show, {SAMPLES} if not given."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="A picture of the first of these samples as well.")
    ] = None,
    gif: Annotated[
        Path | None, typer.Option(help="An animation of the first of these samples as well.")
    ] = None,
) -> None:
    """Write what the predictor did as one HTML page, which needs no network.

    The page replays each sample pass by pass. A history is recorded with +history=topk_mlm.

    Raises:
        ValueError: options that contradict each other, a damaged history, or a file in the way.
        FileNotFoundError: there is no such folder or sample.

    Long, since the program reads its options off the signature.
    """
    if fid and samples is not None:
        raise ValueError(
            "--fid and --samples are both given; give one of them, as --fid names each sample"
        )
    if samples is not None and samples < 1:
        raise ValueError(f"--samples is {samples}; it must be at least 1")
    _check_targets({"--output": output, "--png": png, "--gif": gif})

    from xlm_mlm.history.reading import read_traces
    from xlm_mlm.report.page import write_page

    # One more than is shown, to know whether there are more.
    limit = None if fid else samples or SAMPLES + 1
    traces = read_traces(history_dir, fids=list(dict.fromkeys(fid or ())) or None, limit=limit)
    more = not fid and not samples and len(traces) > SAMPLES
    traces = traces[:SAMPLES] if more else traces
    _write(lambda path: write_page(traces, path), output, _counted(len(traces), more))
    first = f"sample {readable(traces[0].fid)}"
    if png:
        from xlm_mlm.report.picture import write_png

        _write(lambda path: write_png(traces[0], path), png, first)
    if gif:
        from xlm_mlm.report.animation import write_gif

        _write(lambda path: write_gif(traces[0], path), gif, first)


def _check_targets(targets: dict[str, Path | None]) -> None:
    """Refuse, before any work, a file that is of another kind or not ours to replace."""
    kinds = {"--output": (".html", ".htm"), "--png": (".png",), "--gif": (".gif",)}
    for option, path in targets.items():
        if path is None:
            continue
        if path.suffix.lower() not in kinds[option]:
            raise ValueError(f"{option} is {str(path)!r}; it must end in {kinds[option][0]}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{option} is {str(path)!r}; there is no folder {path.parent}")
        if path.exists() and not _replaceable(path):
            raise ValueError(
                f"{path} exists and is no such report; choose another {option}, or remove it"
            )


def _replaceable(path: Path) -> bool:
    """Whether a file is of the kind that its name says: a page of ours, a PNG, a GIF."""
    if not path.is_file():
        return False
    signature = _SIGNATURES.get(path.suffix.lower())
    if signature is None:
        from xlm_mlm.report.page import is_page

        return is_page(path)
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def _write(write: Callable[[Path], None], path: Path, what: str) -> None:
    from xlm_mlm.history.files import on_full_disk

    with on_full_disk("it is as it was before, and so is the history: make room and try again"):
        write(path)
    typer.echo(f"wrote {readable(str(path))} ({_size(path.stat().st_size)}): {what}")


def _counted(samples: int, more: bool) -> str:
    if more:
        return f"the first {samples} samples; --samples N shows more"
    return f"{samples} sample{'s' if samples > 1 else ''}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
