"""What the wheel holds: a missing YAML, or a file too many, shows only when it is installed."""

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_every_source_and_config_file_is_in_the_wheel(wheel):
    files = [*(ROOT / "xlm_mlm").rglob("*.py"), *(ROOT / "xlm_mlm").rglob("*.yaml")]
    wanted = {file.relative_to(ROOT).as_posix() for file in files}
    assert wanted - set(wheel.namelist()) == set()
    assert "xlm_mlm/py.typed" in wheel.namelist()
    pages = {
        "conformance/report.html",
        "report/page.html",
        "report/page.css",
        "report/page_data.js",
    }
    assert {f"xlm_mlm/{page}" for page in pages} <= set(wheel.namelist())
    assert "xlm_mlm/configs/experiment/star_easy_mlm.yaml" in wheel.namelist()


def test_nothing_else_is(wheel):
    metadata = {name for name in wheel.namelist() if ".dist-info/" in name}
    others = set(wheel.namelist()) - metadata
    kinds = {Path(name).suffix for name in others if name.startswith("xlm_mlm/")}
    assert kinds <= {".py", ".yaml", ".typed", ".html", ".css", ".js"}
    # An __init__.py in the namespace would hide every other Hydra plugin.
    assert {name for name in others if not name.startswith("xlm_mlm/")} == {
        "hydra_plugins/xlm_mlm_searchpath.py"
    }


def test_no_config_is_a_trap_of_the_host(wheel):
    # The host lists a package named in XLM_MODELS_PACKAGES twice, and then stops at this file.
    assert "xlm_mlm/configs/commands.yaml" not in wheel.namelist()


def test_the_entry_points_name_things_that_exist(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    parser = ConfigParser(delimiters=("=",))
    parser.optionxform = str
    parser.read_string(wheel.read(name).decode())
    assert parser["hydra.plugins"]["xlm_mlm"] == "xlm_mlm.plugin.hydra:XLMPluginSearchPath"
    assert parser["xlm.plugins"]["mlm"] == "xlm_mlm.plugin.components"
    assert parser["pytest11"]["xlm_conformance"] == "xlm_mlm.conformance.pytest_plugin"
    modules = {
        value.partition(":")[0] for group in parser.sections() for value in parser[group].values()
    }
    assert {f"{module.replace('.', '/')}.py" for module in modules} <= set(wheel.namelist())
