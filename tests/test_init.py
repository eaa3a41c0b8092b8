"""The package's face: every public name, loaded only when asked for."""

import subprocess
import sys
from importlib import import_module

import pytest

import xlm_mlm


@pytest.mark.parametrize("name", xlm_mlm.__all__)
def test_every_public_name_is_the_one_of_its_home(name):
    home = next(home for home, names in xlm_mlm._HOMES.items() if name in names)
    assert getattr(xlm_mlm, name) is getattr(import_module(f"xlm_mlm.{home}"), name)
    assert name in dir(xlm_mlm)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'MLMLos'"):
        _ = xlm_mlm.MLMLos


def test_importing_the_package_imports_nothing_heavy():
    code = "import xlm_mlm, sys; print({'torch', 'transformers', 'lightning'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
