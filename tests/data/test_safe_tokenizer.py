"""The loader of the host's tokenizer of molecules."""

from types import SimpleNamespace

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from xlm.tasks import safe_molgen

from xlm_mlm.data.safe_tokenizer import load_safe_tokenizer


def test_calls_the_hosts_function(monkeypatch):
    with_extra = SimpleNamespace(get_safe_tokenizer=lambda path: ("tokenizer of", path))
    monkeypatch.setattr(safe_molgen, "_impl_mod", with_extra)
    assert load_safe_tokenizer("here") == ("tokenizer of", "here")


def test_says_what_to_install_in_the_last_line_of_the_traceback(monkeypatch):
    def without_extra():
        raise ImportError("no rdkit")

    monkeypatch.setattr(safe_molgen, "_impl", without_extra)
    with pytest.raises(ImportError, match=r'pip install "xlm-core\[safe\]"'):
        load_safe_tokenizer()
    # hydra-core 1.4 passes the error on as it is.
    known = (InstantiationException, ImportError)
    with pytest.raises(known, match=r'pip install "xlm-core\[safe\]"'):
        instantiate({"_target_": "xlm_mlm.data.safe_tokenizer.load_safe_tokenizer"})
