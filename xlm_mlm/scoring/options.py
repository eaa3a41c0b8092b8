"""The options of `job_type=mlm_score`, all under `score`."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xlm_mlm.checkpoints import WEIGHTS
from xlm_mlm.checks import require_bool, require_choice, require_path

IF_EXISTS = ("error", "replace")
_FLAGS = ("trust", "debug")
_SCORER = ("num_mc_samples", "seed", "batch_size", "device", "method", "add_bos", "add_eos")


@dataclass
class ScoreOptions:
    """What the user asked for.

    Attributes:
        ckpt_path: a training checkpoint, or a folder that `xlm-mlm save` wrote.
        text_file: .txt with one text a line, or .jsonl.
        output_dir: where the files go.
        text_field: where the text is, in .jsonl.
        method: `nll` or `pll`; see `xlm_mlm.scoring.scorer.Scorer`, also for the next six.
        num_mc_samples: passes a text.
        seed: of their masks.
        batch_size: masked copies in a forward pass at most.
        device: as in `xlm_mlm.generation.options.choose_device`.
        add_bos: put BOS before each text; as in training if None.
        add_eos: put EOS behind it; as in training if None.
        weights: of a checkpoint: `raw`, `ema`, or `auto`: EMA weights if it has them.
        trust: make whatever classes the checkpoint names.
        if_exists: what to do with scores that are there: `error` or `replace`.
        debug: show the traceback of an error.

    Raises:
        ValueError: an option is out of range.
    """

    ckpt_path: str
    text_file: str
    output_dir: Path
    text_field: str = "text"
    method: str = "nll"
    num_mc_samples: int = 32
    seed: int = 0
    batch_size: int = 32
    device: str = "auto"
    add_bos: bool | None = None
    add_eos: bool | None = None
    weights: str = "auto"
    trust: bool = False
    if_exists: str = "error"
    debug: bool = False

    def __post_init__(self) -> None:
        self.output_dir = require_path("score.output_dir", self.output_dir)
        require_choice("score.weights", self.weights, WEIGHTS)
        require_choice("score.if_exists", self.if_exists, IF_EXISTS)
        for name in ("ckpt_path", "text_file", "text_field", "device"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"score.{name} is {value!r}; it must be a text")
        for name in (*_FLAGS, "add_bos", "add_eos"):
            value = getattr(self, name)
            if name in _FLAGS or value is not None:
                require_bool(f"score.{name}", value)

    def of_scorer(self) -> dict[str, Any]:
        """Those that are the scorer's."""
        return {name: value for name, value in asdict(self).items() if name in _SCORER}


def read_options(cfg: DictConfig) -> ScoreOptions:
    """Take the options from a composed config.

    Raises:
        ValueError: an option is unknown, missing or out of range.
    """
    given = OmegaConf.select(cfg, "score", default=None)
    given = {} if given is None else given
    known = [each.name for each in fields(ScoreOptions)]
    if not isinstance(given, DictConfig | dict):
        raise ValueError(f"score is {given!r}; its keys are {', '.join(known)}")
    values: dict[str, Any] = {str(k): given[k] for k in given if given[k] is not None}
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"score.{unknown[0]} is no option; there are {', '.join(known)}")
    for name, what in (("ckpt_path", "the model"), ("text_file", "the texts")):
        if name not in values:
            raise ValueError(f"score.{name} is missing; it must name the file of {what}")
    values.setdefault("output_dir", Path(cfg.paths.output_dir) / "scores")
    return ScoreOptions(**values)
