"""`xlm job_type=mlm_generate`: predictions of a dataset, on any device, into one file."""

import sys
import traceback
from typing import Any


def generate(cfg: Any) -> None:
    """Predict the rows of an experiment; a user's mistake is one line and exit code 1.

    Args:
        cfg: the composed config; the options are under `generation`.
    """
    from hydra.errors import InstantiationException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from xlm_mlm.entries import message_of
    from xlm_mlm.visible import readable

    expected = (ValueError, LookupError, OSError, InstantiationException, OmegaConfBaseException)
    try:
        from xlm_mlm.generation.job import run  # takes seconds, in which users interrupt

        run(cfg)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except (*expected, RuntimeError) as error:
        if OmegaConf.select(cfg, "generation.debug", default=False):
            traceback.print_exc()
        cause = error.__cause__ if isinstance(error, InstantiationException) else None
        message = message_of(cause or error) or type(error).__name__
        print(f"error: {readable(message)} (+generation.debug=true shows more)", file=sys.stderr)
        raise SystemExit(1) from None
