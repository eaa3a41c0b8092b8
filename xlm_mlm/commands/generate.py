"""`xlm job_type=mlm_generate`: predictions of a dataset, on any device, into one file."""

from typing import Any

from xlm_mlm.commands.failing import one_line_errors


def generate(cfg: Any) -> None:
    """Predict the rows of an experiment; a user's mistake is one line and exit code 1.

    Args:
        cfg: the composed config; the options are under `generation`.
    """
    with one_line_errors(cfg, "generation", "the same command goes on where this one stopped"):
        from xlm_mlm.generation.job import run  # takes seconds, in which users interrupt

        run(cfg)
