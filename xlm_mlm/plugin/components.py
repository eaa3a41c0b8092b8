"""What this package brings to the host, through the hooks that any other package uses."""

from pathlib import Path

from xlm_mlm.plugin.hookspecs import hookimpl


@hookimpl
def xlm_config_dirs() -> list[Path]:
    """The configs that ship with this package."""
    return [Path(__file__).parents[1] / "configs"]


@hookimpl
def xlm_commands() -> dict[str, str]:
    """The job types of this package."""
    return {
        "mlm_generate": "xlm_mlm.commands.generate:generate",
        "mlm_score": "xlm_mlm.commands.score:score",
    }


@hookimpl
def xlm_conformance_adapter() -> str:
    """What our configs don't say of themselves."""
    return "xlm_mlm.plugin.conformance:MLMAdapter"
