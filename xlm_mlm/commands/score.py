"""`xlm job_type=mlm_score`: likelihoods of the texts of a file, into another."""

from typing import Any

from xlm_mlm.commands.failing import one_line_errors


def score(cfg: Any) -> None:
    """Score texts with a saved model; a user's mistake is one line and exit code 1.

    Args:
        cfg: the composed config; the options are under `score`.
    """
    with one_line_errors(cfg, "score", "nothing was written"):
        from xlm_mlm.scoring.job import run  # takes seconds, in which users interrupt

        run(cfg)
