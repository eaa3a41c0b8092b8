"""The host's own command, as a user would run it, from an empty folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_packages import Site

import xlm_mlm

pytestmark = pytest.mark.slow

OURS = Path(xlm_mlm.__file__).parent / "configs"
XLM = [str(Path(sys.executable).with_name("xlm"))]
EXPERIMENT = "experiment=star_easy_mlm"
PLUGIN = """
from pathlib import Path
from xlm_mlm.plugin.hookspecs import hookimpl

@hookimpl
def xlm_config_dirs():
    return [Path(__file__).parent / "stranger" / "configs"]

@hookimpl
def xlm_commands():
    return {"shout": "stranger_jobs:shout"}
"""
JOBS = """
def shout(cfg):
    print(f"SHOUT {cfg.job_name}")
"""
APP = """
import sys

import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    print("RAN", cfg.x)

try:
    main()
finally:
    edge = [name for name in sys.modules if name.startswith("xlm_mlm.")]
    print("TORCH", "torch" in sys.modules, "PLUGGY", "pluggy" in sys.modules, *sorted(edge))
"""


def run(command, cwd, path=None, **env):
    """The finished process; stdout and stderr apart, logs of other runs out of the way."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("XLM_")}
    clean |= {"OMP_NUM_THREADS": "2", "COLUMNS": "200", **env}
    if path:
        clean["PYTHONPATH"] = str(path)
    return subprocess.run(
        command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=300, check=False
    )


def output(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def folders(done):
    """The rows of `--info searchpath`."""
    rows = re.findall(r"^\| (\S+) +\| (\S+) +\|$", output(done), re.M)
    return [(provider, path.removeprefix("file://")) for provider, path in rows]


def write_experiment(site, folder, name, who):
    site.config(
        f"{folder}/experiment/{name}.yaml", f"# @package _global_\nwho: {who}\njob_name: {who}\n"
    )


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A `site-packages` with the older models, a working plugin, and several broken ones."""
    site = Site(tmp_path_factory.mktemp("crowded"))
    site.write(mlm____init__="", stranger_plugin=PLUGIN, stranger_jobs=JOBS)
    for folder in ("mlm/configs", "stranger/configs"):
        for name in ("star_easy_mlm", "probe" if folder[0] == "s" else "only_peer"):
            write_experiment(site, folder, name, folder.partition("/")[0])
    write_experiment(site, "mlm/configs", "probe", "mlm")
    site.register("stranger", "1.0", xlm_plugins={"stranger": "stranger_plugin"})
    site.write(bad_syntax="def broken(:", bad_exit="import sys; sys.exit(3)")
    site.register("bad-syntax", "2.1", xlm_plugins={"syntax": "bad_syntax"})
    site.register("bad-exit", "2.2", xlm_plugins={"exit": "bad_exit"})
    site.write(twin_plugin="")
    site.register("twin", "2.3", xlm_plugins={"stranger": "twin_plugin"})
    return site


@pytest.fixture(scope="module")
def crowd(crowded, tmp_path_factory):
    """`--info searchpath` among all of them, with a model folder of the user's as well."""
    cwd = tmp_path_factory.mktemp("user")
    write_experiment(Site(cwd), "mine/configs", "star_easy_mlm", "user")
    (cwd / "xlm_models.json").write_text(json.dumps({"mine": "mine"}))
    return run([*XLM, "--info", "searchpath", EXPERIMENT], cwd, crowded.folder), cwd


def test_job_type_name_in_an_empty_folder(tmp_path):
    done = run([*XLM, "job_type=name", "job_name=plain", EXPERIMENT], tmp_path)
    assert re.search(r"^job_name:\s+plain$", output(done), re.M)
    assert "xlm_mlm.loss_mlm.MLMLoss" in done.stdout
    assert "[WARNING]" not in done.stderr


def test_the_order_of_the_search_path(crowd, crowded):
    done, cwd = crowd
    found = folders(done)
    paths = [path for _, path in found]
    wanted = [
        str(cwd / "mine" / "configs"),
        str(OURS),
        str(crowded.folder / "stranger" / "configs"),
        str(crowded.folder / "mlm" / "configs"),
    ]
    assert [path for path in paths if path in wanted][:4] == wanted
    # The two folders of the host, right before the first of them.
    first = paths.index(wanted[0])
    host = [path.rpartition("/xlm/configs/")[2] for path in paths[:first] if "/xlm/" in path]
    assert host == ["lightning_train", "common"]
    assert ("xlm-mlm", str(OURS)) in found


def test_each_broken_plugin_costs_one_warning_with_its_version(crowd):
    done, _ = crowd
    warnings = [line for line in done.stderr.splitlines() if "[WARNING]" in line]
    for origin in ("bad-syntax 2.1: SyntaxError", "bad-exit 2.2: SystemExit"):
        assert sum(origin in line for line in warnings) == 1, done.stderr
    # Sound, but of the same name as another.
    assert "twin 2.3" in next(line for line in warnings if "stranger 1.0" in line)
    assert len(warnings) == 3


def test_one_line_says_that_ours_win_over_xlm_models(crowd):
    done, _ = crowd
    assert len(re.findall(r"\[INFO\].*xlm-models is installed as well", done.stderr)) == 1


def test_the_users_folder_wins_over_ours(crowd, crowded):
    _, cwd = crowd
    done = run([*XLM, "--cfg", "job", EXPERIMENT], cwd, crowded.folder)
    assert "who: user" in output(done)


def test_ours_win_over_xlm_models_by_module_and_by_variable(crowded, tmp_path):
    done = run(
        [sys.executable, "-m", "xlm", "--cfg", "job", EXPERIMENT],
        tmp_path,
        crowded.folder,
        XLM_MODELS_PACKAGES="xlm_mlm",
    )
    assert "who:" not in output(done)
    assert "_target_: xlm_mlm.predictor_mlm.MLMPredictor" in done.stdout
    assert "_target_: mlm." not in done.stdout


def test_multirun_and_a_job_type_of_a_plugin(crowded, tmp_path):
    done = run(
        [*XLM, "--multirun", "job_type=shout", "experiment=probe", "job_name=one,two"],
        tmp_path,
        crowded.folder,
    )
    # The plugin's `probe` won over that of xlm-models, and its job type ran twice.
    assert re.findall(r"^SHOUT (\w+)$", output(done), re.M) == ["one", "two"]


def test_help_lists_our_experiments_once(tmp_path):
    done = run([*XLM, "--help"], tmp_path, XLM_MODELS_PACKAGES="xlm_mlm")
    (experiments,) = re.findall(r"^experiment: (.*)$", output(done), re.M)
    assert experiments.split(", ").count("star_easy_mlm") == 1


@pytest.fixture(scope="module")
def unrelated(crowded, tmp_path_factory):
    """Another Hydra application in the same environment."""
    cwd = tmp_path_factory.mktemp("app")
    Site(cwd).write(app=APP)
    Site(cwd).config("conf/config.yaml", "x: 5\n")
    return lambda *args: run([sys.executable, "app.py", *args], cwd, crowded.folder)


def test_an_unrelated_application_is_untouched(unrelated):
    done = unrelated()
    assert "RAN 5" in output(done)
    assert "TORCH False PLUGGY False xlm_mlm.plugin xlm_mlm.plugin.hydra\n" in done.stdout
    assert "xlm" not in done.stderr
    assert "WARNING" not in done.stderr


def test_the_search_path_of_an_unrelated_application_has_nothing_of_ours(unrelated):
    providers = [provider for provider, _ in folders(unrelated("--info", "searchpath"))]
    assert providers[:2] == ["hydra", "main"]
    assert "xlm" not in " ".join(providers)


def test_the_scan_is_quick_and_imports_no_torch(tmp_path):
    code = (
        "import json, sys\n"
        "from hydra.core.plugins import Plugins\n"
        "times = Plugins.instance().stats.modules_import_time\n"
        "ours = {name: t for name, t in times.items() if 'xlm_mlm' in name}\n"
        "print(json.dumps([ours, 'torch' in sys.modules, 'pluggy' in sys.modules]))"
    )
    scans = [json.loads(output(run([sys.executable, "-c", code], tmp_path))) for _ in range(3)]
    for ours, torch, pluggy in scans:
        assert "hydra_plugins.xlm_mlm_searchpath" in ours
        assert not torch
        assert not pluggy
    # The best of three: another process may hold the machine up.
    assert min(sum(ours.values()) for ours, _, _ in scans) < 0.05
