"""How a job ends that can't go on: with one line."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def one_line_errors(cfg: Any, options: str, interrupted: str) -> Iterator[None]:
    """Turn a user's mistake into one line and exit code 1, an interrupt into exit code 130.

    Args:
        cfg: the composed config.
        options: where the job's options are in it; with `debug` there, a traceback is shown too.
        interrupted: what to say of an interrupt.
    """
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    from xlm_mlm.entries import message_of
    from xlm_mlm.visible import readable

    expected = (ValueError, LookupError, OSError, InstantiationException, OmegaConfBaseException)
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        raise SystemExit(130) from None
    except (*expected, RuntimeError) as error:
        if _debugging(cfg, options):
            traceback.print_exc()
        cause = error.__cause__ if isinstance(error, InstantiationException) else None
        message = message_of(cause or error) or type(error).__name__
        print(f"error: {readable(message)} (+{options}.debug=true shows more)", file=sys.stderr)
        raise SystemExit(1) from None


def _debugging(cfg: Any, options: str) -> bool:
    """Whether the options ask for a traceback; they may be what is wrong."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.select(cfg, f"{options}.debug", default=False) is True
    except OmegaConfBaseException:
        return False
