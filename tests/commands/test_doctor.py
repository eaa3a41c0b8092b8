"""`xlm-mlm doctor`: each condition made real by a folder that stands for `site-packages`."""

import json
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from fake_packages import Site

from xlm_mlm.commands import cli
from xlm_mlm.commands.diagnosis import child
from xlm_mlm.commands.diagnosis.child import Answer, Answers, ask
from xlm_mlm.commands.diagnosis.findings import examine
from xlm_mlm.commands.diagnosis.host import CONFIGS, discovery_findings, host_findings
from xlm_mlm.commands.diagnosis.probes import VARIABLES
from xlm_mlm.commands.doctor import diagnose

OURS = str(CONFIGS)
# A host that starts at once, and has a search path as the real one.
MAIN = """
from pathlib import Path
_HYDRA_PARAMS = {"config_path": str(Path(__file__).parents[1] / "configs" / "lightning_train")}
external_model_dirs, external_commands = [], {}
"""
HANGING = """
import json, sys, time

def say(**answer):
    print(json.dumps(answer), flush=True)

if "hangs" not in json.loads(sys.argv[1]):
    say(step="hangs", begun=True)
    time.sleep(60)
say(step="ends", begun=True)
say(step="ends", result=5)
say(step="end", result=None)
"""
STRANGER = """
from pathlib import Path
from xlm_mlm.plugin.hookspecs import hookimpl

@hookimpl
def xlm_config_dirs():
    return [Path(__file__).parent / "stranger" / "configs"]

@hookimpl
def xlm_commands():
    return {"shout": "stranger_plugin:xlm_commands", "gone": "stranger_gone:run"}
"""


def enter(patch, site, cwd):
    """Make this process and those it starts see `site`, from the folder `cwd`."""
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    patch.setenv("PYTHONPATH", str(site.folder))
    patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    patch.syspath_prepend(str(site.folder))
    patch.chdir(cwd)


@pytest.fixture
def site(tmp_path, monkeypatch):
    site, cwd = Site(tmp_path / "site"), tmp_path / "here"
    site.folder.mkdir()
    cwd.mkdir()
    enter(monkeypatch, site, cwd)
    return site


@pytest.fixture
def quick(site):
    """A host that imports at once, and a torch that does not import."""
    site.write(torch="raise OSError('libcudart.so.12: cannot open shared object file')")
    site.write(xlm__commands__lightning_main=MAIN)
    site.config("xlm/__init__.py", "")
    site.config("xlm/configs/lightning_train/config.yaml", "x: 1\n")
    return site


def run(capsys):
    """The exit code and the report of `xlm-mlm doctor --json`."""
    code = cli.main(["doctor", "--json"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, json.loads(captured.out)


def of(report, check, level="problem"):
    """Text and fix of the findings of a kind, one a line."""
    found = [f for f in report["findings"] if (f["check"], f["level"]) == (check, level)]
    return "\n".join(f"{f['text']} -> {f['fix']} {' | '.join(f['details'])}" for f in found)


def test_what_can_be_broken_at_once_is_found_at_once(site, capsys, monkeypatch):
    site.write(torch="raise OSError('libcudart.so.12: cannot open shared object file')")
    site.write(xlm="raise ImportError(\"cannot import name 'no_init_weights' from 'x'\")")
    site.register("transformers", "5.1.0")
    (site.register("xlm-models", "1") / "METADATA").write_text("Name: xlm-models\n")
    site.write(cli_raises="raise RuntimeError('on import')", cli_ends="import os; os._exit(3)")
    site.register(
        "raises", "2.1", xlm_losses={"a": "cli_raises:L"}, xlm_plugins={"a": "cli_raises"}
    )
    site.register("ends", "2.2", xlm_losses={"b": "cli_ends:L"})
    Path("xlm_models.json").write_text("[")
    Path("xlm_mlm.py").touch()
    Path("data/xlm_mlm/star/.train-x1").mkdir(parents=True)
    monkeypatch.setenv("XLM_MODELS_PACKAGES", "mlm,nowhere")
    monkeypatch.setenv("DATA_DIR", str(Path("xlm_mlm.py").absolute()))
    code, report = run(capsys)
    assert code == 1
    assert report["versions"]["transformers"] == "5.1.0"
    assert "the metadata of xlm-models has no version" in of(report, "versions")
    fix = '`pip install "transformers>=4.55,<5"`'
    assert of(report, "pins").startswith(
        f"transformers 5.1.0 is installed; xlm-mlm needs >=4.55,<5 -> {fix}"
    )
    assert "ImportError: cannot import name 'no_init_weights'" in of(report, "host")
    assert fix in of(report, "host")
    assert "the host does not start" in of(report, "discovery", "note")
    assert "libcudart.so.12: cannot open" in of(report, "device")
    assert 'pip install --force-reinstall "torch>=2.6"' in of(report, "device")
    plugins = of(report, "plugins")
    assert "of raises 2.1 (a, a) do not load: RuntimeError: on import -> update" in plugins
    assert "of ends 2.2 does not load: it ended Python with exit code 3" in plugins
    # Ours only suffer from the others.
    assert "xlm-mlm" not in plugins
    assert "see to the host first" in of(report, "plugins", "note")
    assert "`export XLM_MODELS_PACKAGES=mlm:nowhere`" in of(report, "variables")
    assert "nothing can be written to" in of(report, "variables")
    folder = of(report, "folder")
    assert "xlm_models.json: JSONDecodeError" in folder
    assert "xlm_mlm.py hides the installed xlm_mlm" in folder
    assert ".train-x1" in of(report, "folder", "note")


def test_every_finding_says_all_and_every_problem_has_a_fix(quick, capsys):
    code, report = run(capsys)
    levels = [finding["level"] for finding in report["findings"]]
    assert set(report) == {"problems", "notes", "versions", "findings"}
    assert report["problems"] == levels.count("problem") > 0
    assert report["notes"] == levels.count("note")
    assert code == 1
    for finding in report["findings"]:
        assert set(finding) == {"check", "level", "text", "fix", "details"}
        assert finding["text"].strip()
        assert finding["level"] != "problem" or finding["fix"]
        assert "`" not in finding["text"].replace("`xlm`", "").replace("`xlm-mlm plugins`", "")
    assert report["versions"]["python"] == sys.version.split()[0]


def test_a_host_that_is_another_one_is_found(quick, capsys):
    _, report = run(capsys)
    assert f"{quick.folder / 'xlm'} hides the installed" in of(report, "host")
    assert f"xlm-mlm: {OURS}" in of(report, "discovery", "ok")


def test_a_package_that_hides_the_plugins_of_hydra_is_named(quick, capsys):
    quick.config("hydra_plugins/__init__.py", "")
    _, report = run(capsys)
    found = of(report, "discovery")
    hiding = quick.folder / "hydra_plugins" / "__init__.py"
    # With hydra-core 1.4 we are found by an entry point, and others are missing.
    missing = (f"{OURS} is not in the search path", "experiment=quickstart_mlm does not compose")
    assert any(text in found for text in missing)
    assert f"-> remove {hiding}: it hides" in found


def test_a_missing_host_is_to_be_installed(site, capsys):
    site.write(torch="", xlm="raise ModuleNotFoundError(\"No module named 'xlm'\", name='xlm')")
    code, report = run(capsys)
    assert code == 1
    assert "No module named 'xlm'" in of(report, "host")
    assert '`pip install "xlm-core>=0.3.1,<0.4"`' in of(report, "host")


def test_what_hangs_is_left_behind(tmp_path, monkeypatch):
    probes = tmp_path / "probes.py"
    probes.write_text(dedent(HANGING))
    monkeypatch.setattr(child, "_PROBES", probes)
    answers = ask(3)
    assert answers.steps == {
        "hangs": Answer(error="it did not end within 2 s"),
        "ends": Answer(result=5),
    }
    assert answers.complete


def test_another_python_that_does_not_start_is_a_finding(site, monkeypatch):
    monkeypatch.setattr(child, "_PROBES", Path("nowhere.py"))
    texts = [f.text for f in diagnose(5) if f.level == "problem"]
    assert any("the host does not start" in t and "No such file" in t for t in texts)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    texts = [f.text for f in diagnose(5) if f.level == "problem"]
    assert any(t.startswith("no other Python could be started") for t in texts)


def test_an_examination_that_fails_is_a_finding():
    def examination():
        yield from ()
        raise KeyError("x")

    (finding,) = examine("pins", examination)
    assert (finding.check, finding.level) == ("pins", "problem")
    assert finding.text.endswith("KeyError: x")
    assert finding.fix


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("ExternalModelConflictError: Duplicate model name: mlm", "`unset XLM_MODELS_PACKAGES`"),
        ("ModuleNotFoundError: No module named 'wandb'", "xlm-core>=0.3.1,<0.4"),
        ("RuntimeError: odd", 'python -P -c "import xlm.commands.lightning_main"'),
    ],
)
def test_the_fix_follows_from_the_error(error, fix):
    (finding,) = host_findings(Answers({"host": Answer(error=error, files=("/lib/x.py",))}))
    assert error in finding.text
    assert fix in finding.fix


def test_a_local_file_that_breaks_the_host_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = Answer(error="RuntimeError: odd", files=("/lib/a.py", str(tmp_path / "typing.py")))
    (finding,) = host_findings(Answers({"host": answer}))
    assert finding.fix == f"rename {tmp_path / 'typing.py'}"


def test_an_installed_package_that_wins_over_ours_is_a_problem(tmp_path):
    Site(tmp_path).config("mlm/configs/experiment/star_easy_mlm.yaml", "a: 1\n")
    result = {
        "path": [["hydra", "pkg://hydra.conf"], ["file", str(tmp_path / "mlm/configs")]],
        "jobs": {},
        "loss": "mlm.loss_mlm.MLMLoss",
        "error": None,
        "hydra_plugins": None,
    }
    result["path"].append(["xlm-mlm", OURS])
    host = Answer({"folder": "/xlm", "ours": None, "variables": {}})
    found = list(discovery_findings(Answers({"host": host, "discovery": Answer(result)})))
    texts = [finding.text for finding in found if finding.level == "problem"]
    assert texts == [
        "package mlm wins over 1 config of ours (experiment/star_easy_mlm)",
        "experiment=quickstart_mlm composes with mlm.loss_mlm.MLMLoss, which is not ours",
    ]


@pytest.mark.slow
def test_the_real_host_among_other_models_a_plugin_and_a_folder_of_the_users(site):
    cwd = Path.cwd()
    site.write(stranger_plugin=STRANGER)
    site.config("mlm/__init__.py", "")
    for folder in (site.folder / "mlm", site.folder / "stranger", cwd / "mine"):
        Site(folder).config("configs/experiment/star_easy_mlm.yaml", "# @package _global_\na: 1\n")
    site.register("stranger", "1.0", xlm_plugins={"stranger": "stranger_plugin"})
    Path("xlm_models.json").write_text(json.dumps({"mine": "mine", "lost": "lost"}))
    Path(".env").write_text("LOG_DIR=elsewhere\nTOKEN=secret\n")
    report = {"findings": [finding.__dict__ for finding in diagnose(60)]}

    assert of(report, "host") == of(report, "plugins") == ""
    assert "experiment=quickstart_mlm composes" in of(report, "discovery", "ok")
    (order,) = [f["details"] for f in report["findings"] if "first match wins" in f["text"]]
    labels = [line.partition(". ")[2] for line in order if "hydra" not in line]
    assert [label.partition(":")[0] for label in labels[:2]] == ["xlm-core"] * 2
    assert labels[2:] == [
        f"xlm_models.json: {cwd}/mine/configs",
        f"xlm-mlm: {OURS}",
        f"stranger: {site.folder}/stranger/configs",
        f"package mlm: {site.folder}/mlm/configs",
    ]
    notes = of(report, "discovery", "note")
    assert f"xlm_models.json ({cwd}/mine/configs) wins over 1 config of ours" in notes
    assert "ours win over stranger, which has 1 config of ours" in notes
    assert "ours win over package mlm" in notes

    assert "gone (stranger 1.0), " in of(report, "discovery", "ok")
    problem = of(report, "discovery")
    assert "job_type=gone of stranger 1.0 can't be imported: stranger_gone:run" in problem
    assert "shout" not in problem
    assert "LOG_DIR=elsewhere (from .env)" in of(report, "variables", "note")
    assert "secret" not in json.dumps(report)
    assert "'lost' is 'lost', which has no folder configs" in of(report, "folder")
