"""`xlm-mlm save`: a model and its tokenizer, out of a training checkpoint into a folder."""

from pathlib import Path
from typing import Annotated

import typer


def _named(text: str | Path) -> Path:
    # As a path, nothing at all would be the current folder.
    if text == "":
        raise typer.BadParameter("it is empty; give a folder that does not exist, or is empty")
    return Path(text)


def save(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder that does not exist, or is empty.", parser=_named, metavar="FOLDER"
        ),
    ],
    checkpoint: Annotated[Path, typer.Option(help="A training checkpoint.")] = ...,  # type: ignore[assignment]
    weights: Annotated[
        str, typer.Option(help="raw, ema, or auto: the EMA weights if it has them.")
    ] = "auto",
    trust: Annotated[
        bool, typer.Option("--trust", help="Make whatever classes the checkpoint names.")
    ] = False,
) -> None:
    """Save a trained model and its tokenizer as a folder, which needs no config.

    `RotaryTransformerMLMModel.from_pretrained(FOLDER)` loads the model, `xlm-mlm fill
    --checkpoint FOLDER` both.

    Raises:
        ValueError: the folder holds something, or the checkpoint is refused.
        FileNotFoundError: there is no such checkpoint.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists; give a folder that does not, or an empty one")

    from xlm_mlm.checkpoints import read_checkpoint
    from xlm_mlm.rebuild import rebuild
    from xlm_mlm.rebuild import save as write

    read = read_checkpoint(checkpoint)
    saved = rebuild(read.config, trust, checkpoint, read.tensors)
    used = read.apply(saved.model, weights)  # type: ignore[arg-type]
    write(saved, folder)
    typer.echo(f"wrote {folder}: the model with its {used} weights, and its tokenizer")
