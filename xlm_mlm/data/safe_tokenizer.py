"""The host's tokenizer of molecules, with the reason in the message where it is not there."""

from typing import Any


def load_safe_tokenizer(pretrained_model_name_or_path: str = "datamol-io/safe-gpt") -> Any:
    """Call the host's `get_safe_tokenizer`, whose libraries are an extra of the host.

    Named directly in YAML, the host's function is reported as one that cannot be located, and
    what is missing is lost further up the traceback.

    Args:
        pretrained_model_name_or_path: where the tokenizer's files are.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        from xlm.tasks.safe_molgen import get_safe_tokenizer
    except ImportError as error:
        raise ImportError(
            "molecules need the chemistry libraries of the host's `safe` extra, which are not "
            'installed: pip install "xlm-core[safe]"'
        ) from error
    return get_safe_tokenizer(pretrained_model_name_or_path)
