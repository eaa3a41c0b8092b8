"""Tokenizers and models rebuilt from a saved config, which may come from a stranger.

A config names classes. Only those listed here are called, with plain values; whoever trusts the
config may allow any. Nothing is fetched from a network, and no code of a repository is run,
unless trusted.
"""

import importlib
import io
import json
import math
import re
import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from xlm_mlm.checks import require_bool, require_path, shown
from xlm_mlm.history.files import naming_file, on_full_disk, require_regular

SPECIFICATION = "tokenizer_spec.json"
FORMAT = 1
_TOKENIZER_FOLDER = "tokenizer"
_NOTHING = "nothing of it is kept: make room and try again"

MODELS = {
    "xlm_mlm.model_mlm.RotaryTransformerMLMModel": "xlm_mlm.model_mlm.RotaryTransformerMLMModel",
    # The field's package of the same family: same keys, same shapes, same options.
    "mlm.model_mlm.RotaryTransformerMLMModel": "xlm_mlm.model_mlm.RotaryTransformerMLMModel",
}
_FROM_FILES = (
    "xlm.datamodule.BertTokenizerFast.from_pretrained",
    "xlm.datamodule.EsmTokenizer.from_pretrained",
    "xlm.datamodule.GPT2TokenizerFast.from_pretrained",
)
"""Those that would ask the hub for what is not on this machine."""
_LARGEST = 10_000_000
"""Of the numbers of a tokenizer's config, such as its vocabulary's size, unless trusted."""

TOKENIZERS = (
    "xlm_mlm.data.tokenizers.ByteTokenizer",
    "xlm_mlm.data.tokenizers.load_tokenizer",
    "xlm.datamodule.SimpleSpaceTokenizer",
    "xlm.datamodule.SimpleSpaceTokenizer.for_numbers",
    *_FROM_FILES,
)
_OF_TOKENIZER = re.compile(r"\$\{tokenizer:\s*(full_vocab_size|vocab_size|[a-z]+_token_id)\s*\}")


@dataclass(frozen=True)
class Saved:
    """What is needed to use a model on texts.

    Attributes:
        model: the network, with the weights of a `save_pretrained` folder or still random.
        tokenizer: as it was in training.
        tokenizer_config: what it was made of.
        predictor: the predictor's saved options.
        add_bos: whether training rows began with BOS.
        add_eos: whether they ended with EOS.
    """

    model: Any
    tokenizer: Any
    tokenizer_config: Mapping[str, Any]
    predictor: dict[str, Any] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False


def rebuild(
    config: Mapping[str, Any],
    trust: bool = False,
    source: Any = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Saved:
    """Rebuild tokenizer and model from the config in a training checkpoint.

    Args:
        config: as the host saves it.
        trust: call whatever classes it names.
        source: where it was found, for the message.
        tensors: the weights; a model that is far larger is not built.

    Raises:
        ValueError: it names a class that is not on the list, or lacks what is needed.
    """
    sizes = None if tensors is None else [each.numel() for each in tensors.values()]
    try:
        return _rebuilt(config, trust, sizes)
    except ValueError as error:
        if source is None:
            raise
        raise ValueError(f"{source}: {error}") from error


def _rebuilt(config: Mapping[str, Any], trust: bool, sizes: list[int] | None) -> Saved:
    components = config.get("global_components")
    made_of = components.get("tokenizer") if isinstance(components, Mapping) else None
    model = config.get("model")
    if not isinstance(made_of, Mapping) or not isinstance(model, Mapping):
        raise ValueError(
            "the checkpoint's config has no global_components.tokenizer or no model, so that they "
            "can't be rebuilt; it must be a training checkpoint of the host"
        )
    tokenizer = build_tokenizer(made_of, trust)
    collator = _collator(config)
    return Saved(
        model=_call(model, MODELS, "model", trust, tokenizer, sizes),
        tokenizer=tokenizer,
        tokenizer_config=made_of,
        predictor=_options(config.get("predictor")),
        add_bos=collator.get("add_bos") is True,
        add_eos=collator.get("add_eos") is True,
    )


def build_tokenizer(config: Mapping[str, Any], trust: bool = False) -> Any:
    """Make a tokenizer from its config.

    Raises:
        ValueError: its class is not on the list, or it can't be made.
    """
    config = dict(config)
    target = config.get("_target_")
    if not require_bool("trust", trust):
        if config.get("trust_remote_code"):
            raise ValueError(
                f"the tokenizer {target} wants trust_remote_code={config['trust_remote_code']!r}, "
                "which runs code of its repository; --trust allows it"
            )
        if target in _FROM_FILES:
            config["local_files_only"] = True
        for key, value in config.items():
            if isinstance(value, int | float) and value > _LARGEST:
                raise ValueError(
                    f"tokenizer.{key} is {value}; above {_LARGEST:,} --trust must allow it"
                )
    # The host's default for tokenizers that have a name, left behind by those that have none.
    if config.get("pretrained_model_name_or_path", "") is None:
        del config["pretrained_model_name_or_path"]
    allowed = {name: name for name in TOKENIZERS}
    try:
        return _call(config, allowed, "tokenizer", trust, None)
    except ValueError as error:
        if not config.get("local_files_only"):
            raise
        name = config.get("pretrained_model_name_or_path")
        raise ValueError(
            f"the tokenizer {name!r} can't be loaded from this machine; fetch it first, by "
            f"training with it or with --trust ({error})"
        ) from error


def save(saved: Saved, folder: str | Path) -> None:
    """Write the model with `save_pretrained`, and beside it what makes its tokenizer.

    A folder that could not be written whole is not there, or as empty as it was.

    Raises:
        ValueError: the folder exists and holds something.
        OSError: it can't be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists; give a folder that does not, or an empty one")
    made = not folder.exists()
    # Inside: the folder may be the current one, a link, or where a disk is mounted.
    partial = folder / ".partial"
    partial.mkdir(parents=True)
    try:
        with naming_file(folder), on_full_disk(_NOTHING):
            _write(saved, partial)
        # Without its specification a folder is none of ours, so that goes last.
        for each in sorted(partial.iterdir(), key=lambda path: path.name == SPECIFICATION):
            each.rename(folder / each.name)
    except Exception as error:
        # What the libraries raise that write weights and tokenizers, for a full disk.
        if not isinstance(error, SafetensorError) and type(error) is not Exception:
            raise
        raise OSError(None, f"cannot be written: {error}; {_NOTHING}", str(folder)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _write(saved: Saved, folder: Path) -> None:
    config = dict(saved.tokenizer_config)
    try:
        saved.tokenizer.save_pretrained(folder / _TOKENIZER_FOLDER)
        # Found again beside the specification, wherever the folder goes.
        config = {
            "_target_": "xlm_mlm.data.tokenizers.load_tokenizer",
            "pretrained_model_name_or_path": _TOKENIZER_FOLDER,
        }
    except NotImplementedError:  # the host's simple tokenizers: their config makes them
        pass
    saved.model.save_pretrained(folder)
    specification = {"format": FORMAT, "tokenizer": config} | {
        key: value
        for key, value in asdict(_without_modules(saved)).items()
        if key in ("predictor", "add_bos", "add_eos")
    }
    (folder / SPECIFICATION).write_text(json.dumps(specification, indent=2), encoding="utf-8")


def load(folder: str | Path, trust: bool = False) -> Saved:
    """Load a folder that `save` wrote.

    Raises:
        ValueError: it lacks the specification, or a file is damaged or names a class that is not
            on the list.
    """
    from xlm_mlm.model_mlm import RotaryTransformerMLMModel

    require_bool("trust", trust)
    folder = require_path("folder", folder)
    path = folder / SPECIFICATION
    if not path.exists():
        raise ValueError(
            f"{folder} has no {SPECIFICATION}, which says how its tokenizer is made; "
            "`xlm-mlm save --checkpoint CKPT FOLDER` writes both"
        )
    _refuse_pipes(folder)
    try:
        specification = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found = specification.get("format") if isinstance(specification, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}; this version reads {FORMAT}")
    made_of = _specified(path, specification, "tokenizer", None)
    predictor = _specified(path, specification, "predictor", {})
    frame = [_specified(path, specification, key, False) for key in ("add_bos", "add_eos")]
    config = _beside(folder, made_of, trust)
    try:
        _refuse_giants(*_of_folder(folder))
        with redirect_stdout(io.StringIO()):  # the hub's library announces what it does
            model = RotaryTransformerMLMModel.from_pretrained(folder)
    except Exception as error:  # what the libraries make of damaged files
        reason = str(error) or type(error).__name__
        raise ValueError(f"the model in {folder} can't be loaded: {reason}") from error
    return Saved(
        model=model,
        tokenizer=build_tokenizer(config, trust),
        tokenizer_config=config,
        predictor=_options(predictor),
        add_bos=frame[0],
        add_eos=frame[1],
    )


def _refuse_pipes(folder: Path) -> None:
    """Before a library opens a file, and waits for somebody to write to it."""
    tokenizer = folder / _TOKENIZER_FOLDER
    beside = sorted(tokenizer.rglob("*")) if tokenizer.is_dir() else []
    names = (SPECIFICATION, "config.json", "model.safetensors")
    for path in [*(folder / name for name in names), *beside]:
        if path.exists() and not (path in beside and path.is_dir()):
            require_regular(path)


def _specified(path: Path, specification: dict[str, Any], key: str, default: Any) -> Any:
    """A value of the specification, of the kind that `save` writes."""
    value = specification.get(key, default)
    kind, rule = (bool, "true or false") if default is False else (dict, "an object")
    if not isinstance(value, kind):
        raise ValueError(f"{path} has {key} {shown(value)}; it must be {rule}")
    return value


def _of_folder(folder: Path) -> tuple[Mapping[str, Any], list[int]]:
    """The arguments of the model that `save_pretrained` wrote, and its tensors' sizes."""
    arguments = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(arguments, dict):
        raise ValueError("config.json holds no object")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return arguments, [math.prod(file.get_slice(key).get_shape()) for key in file.keys()]  # noqa: SIM118 - no dict


def _beside(folder: Path, config: dict[str, Any], trust: bool) -> dict[str, Any]:
    """A specified tokenizer, whose files must be in the folder."""
    named = config.get("pretrained_model_name_or_path")
    if named == _TOKENIZER_FOLDER:
        return config | {"pretrained_model_name_or_path": str(folder / _TOKENIZER_FOLDER)}
    if named is not None and not trust:
        raise ValueError(
            f"{folder / SPECIFICATION} takes the tokenizer from {named!r}; it must be "
            f"{_TOKENIZER_FOLDER!r}, beside it. --trust allows others"
        )
    return config


def _without_modules(saved: Saved) -> Saved:
    return Saved(None, None, {}, saved.predictor, saved.add_bos, saved.add_eos)


def _call(
    config: Mapping[str, Any],
    allowed: Mapping[str, str],
    what: str,
    trust: bool,
    tokenizer: Any,
    sizes: list[int] | None = None,
) -> Any:
    """Call what a config names, with its plain values."""
    target = config.get("_target_")
    if not isinstance(target, str) or (target not in allowed and not trust):
        raise ValueError(
            f"the {what} is {target!r}, which is not on the list of those that are made without "
            f"asking ({', '.join(sorted(allowed))}); --trust allows it"
        )
    arguments = {
        key: _plain(value, f"{what}.{key}", tokenizer)
        for key, value in config.items()
        if not (key.startswith("_") and key.endswith("_"))
    }
    if sizes is not None:
        _refuse_giants(arguments, sizes)
    made = _find(allowed.get(target, target), what)
    try:
        return made(**arguments)
    except Exception as error:  # theirs: anything may go wrong in it
        reason = str(error) or type(error).__name__
        raise ValueError(f"the {what} {target} can't be made: {reason}") from error


def _refuse_giants(arguments: Mapping[str, Any], sizes: list[int]) -> None:
    """Compare a model's numbers with its weights: to build 10**9 layers would take for ever."""
    most = dict.fromkeys(("num_embeddings", "d_model", "dim_feedforward", "nhead"), max(sizes))
    for key, limit in {**most, "num_layers": len(sizes)}.items():
        value = arguments.get(key)
        if isinstance(value, int | float) and value > limit:
            raise ValueError(f"model.{key} is {value}, and the weights are of a smaller model")


def _find(target: str, what: str) -> Any:
    """An object by dotted name: a class or function of a module, or a method of a class."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
            for name in parts[end:]:
                found = getattr(found, name)
        except (ImportError, AttributeError):
            continue
        return found
    raise ValueError(f"the {what} {target} is not installed here")


def _plain(value: Any, where: str, tokenizer: Any) -> Any:
    """A value without anything left to be called or looked up."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            raise ValueError(f"{where} names the class {value['_target_']!r}; it must be a value")
        return {key: _plain(each, f"{where}.{key}", tokenizer) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, where, tokenizer) for each in value]
    if isinstance(value, str) and "${" in value:
        found = _OF_TOKENIZER.fullmatch(value)
        if found is None or tokenizer is None:
            raise ValueError(f"{where} is {value!r}, which only a run of the host can fill in")
        return getattr(tokenizer, found[1])
    return value


def _options(predictor: Any) -> dict[str, Any]:
    """Plain options of the predictor; objects are left out."""
    found = predictor.items() if isinstance(predictor, Mapping) else ()
    return {key: value for key, value in found if key != "_target_" and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether a value is made of numbers, words, lists and mappings, none of them an object's."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | None) and "${" not in str(value)


def _collator(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The training collator's options, as far as the config has them."""
    found: Any = config
    for key in ("datamodule", "dataset_managers", "train", "lm", "collator"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
