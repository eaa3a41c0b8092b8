"""What `xlm.plugins` modules bring, and what a broken one costs: one warning."""

import pickle
from importlib.metadata import version
from pathlib import Path

import pytest

from xlm_mlm.plugin import components
from xlm_mlm.plugin.registry import JobType, contributions

ORIGIN = f"xlm-mlm {version('xlm-mlm')}"
HEAD = "from xlm_mlm.plugin.hookspecs import hookimpl\n"
COMMANDS = HEAD + "@hookimpl\ndef xlm_commands():\n    return {}\n"
DIRS = HEAD + "@hookimpl\ndef xlm_config_dirs():\n    return {}\n"


def plugin(site, source, name="stranger", distribution="stranger", version="3.1"):
    site.write(**{f"{distribution}_plugin": source})
    site.register(distribution, version, xlm_plugins={name: f"{distribution}_plugin"})


def of(found, distribution):
    (contribution,) = [c for c in found if c.entry.distribution == distribution]
    return contribution


def test_ours_come_through_the_same_hooks():
    (ours,) = contributions()
    assert ours.entry.value == "xlm_mlm.plugin.components"
    assert ours.config_dirs == components.xlm_config_dirs()
    assert [(job.name, job.target) for job in ours.job_types] == [
        ("mlm_generate", "xlm_mlm.commands.generate:generate"),
        ("mlm_score", "xlm_mlm.commands.score:score"),
    ]
    assert (ours.config_dirs[0] / "experiment").is_dir()
    assert ours.problems == []


def test_ours_come_first_then_the_others_by_name(site):
    for name, distribution in (("b", "one"), ("aaa", "two"), ("c", "three")):
        plugin(site, COMMANDS.format({}), name, distribution)
    assert [c.entry.name for c in contributions()] == ["mlm", "aaa", "b", "c"]


def test_a_stranger_needs_only_pluggy(site, tmp_path):
    source = f"""
    import pluggy
    hookimpl = pluggy.HookimplMarker("xlm")

    @hookimpl
    def xlm_config_dirs():
        return [{str(tmp_path)!r}]

    @hookimpl
    def xlm_commands():
        return {{"shout": "stranger_jobs:shout"}}
    """
    plugin(site, source)
    found = of(contributions(), "stranger")
    assert found.config_dirs == [tmp_path]
    assert found.job_types == [JobType("shout", "stranger_jobs:shout", "stranger 3.1")]


BROKEN = {
    "exception": ("raise RuntimeError('on import')", "RuntimeError: on import"),
    "syntax": ("def broken(:", "SyntaxError"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "base": ("class Odd(BaseException): ...\nraise Odd('x')", "Odd: x"),
    "import": ("import no_such_module_anywhere", "no_such_module_anywhere"),
    "arguments": (HEAD + "@hookimpl\ndef xlm_commands(x):\n    ...", "xlm_commands"),
    "no list": (DIRS.format("'configs'"), "it must return a list of folders"),
    "no folder": (DIRS.format("['/no/such/folder']"), "/no/such/folder, which is no folder"),
    "no mapping": (COMMANDS.format("['job']"), "it must return {name: 'module:function'}"),
    "spaced target": (COMMANDS.format("{'job': 'a b:c'}"), "not name: 'module:function'"),
    "no module": (COMMANDS.format("{'job': ':f'}"), "not name: 'module:function'"),
    "no target": (COMMANDS.format("{'job': 'module.function'}"), "not name: 'module:function'"),
    "hook exits": (HEAD + "@hookimpl\ndef xlm_commands():\n    raise SystemExit", "SystemExit"),
    "both hooks": (
        HEAD
        + "@hookimpl\ndef xlm_commands():\n    1 / 0\n"
        + "@hookimpl\ndef xlm_config_dirs():\n    1 / 0\n",
        "xlm_config_dirs() failed: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_costs_one_warning(site, caplog, case):
    source, says = BROKEN[case]
    plugin(site, source)
    plugin(site, COMMANDS.format({"fine": "a:b"}), "zzz", "sound")
    found = contributions()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "stranger 3.1" in record.getMessage()
    assert says in record.getMessage()
    assert "\n" not in record.getMessage()
    assert [job.name for job in of(found, "sound").job_types] == ["fine"]
    assert found[0].config_dirs == components.xlm_config_dirs()


def test_an_interrupt_by_the_user_ends_it(site):
    plugin(site, "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        contributions()


def test_what_is_right_in_a_half_broken_plugin_is_kept(site, tmp_path):
    source = DIRS.format(["/no/such/folder", str(tmp_path)])
    source += "@hookimpl\ndef xlm_commands():\n    return {'good': 'a:b', 'bad': 'a'}\n"
    plugin(site, source)
    found = of(contributions(), "stranger")
    assert found.config_dirs == [Path(tmp_path)]
    assert [job.name for job in found.job_types] == ["good"]
    assert len(found.problems) == 2


def test_a_plugin_name_taken_twice_names_both_and_loads_both(site, caplog):
    plugin(site, COMMANDS.format({"job": "a:b"}), name="mlm")
    found = contributions()
    assert [c.entry.distribution for c in found] == ["xlm-mlm", "stranger"]
    assert [job.name for job in of(found, "stranger").job_types] == ["job"]
    (record,) = caplog.records
    assert ORIGIN in record.getMessage()
    assert "stranger 3.1" in record.getMessage()


def test_a_job_type_taken_twice_keeps_the_first_and_names_both(site, caplog):
    plugin(site, COMMANDS.format({"job": "a:first"}), "a", "first")
    plugin(site, COMMANDS.format({"job": "a:second"}), "b", "second", "2.0")
    found = contributions()
    targets = [job.target for c in found for job in c.job_types if job.name == "job"]
    assert targets == ["a:first"]
    (record,) = caplog.records
    assert "first 3.1" in record.getMessage()
    assert "second 2.0" in record.getMessage()


def test_a_job_type_imports_its_module_when_it_runs_even_in_another_process(site):
    job = pickle.loads(pickle.dumps(JobType("shout", "stranger_jobs:Jobs.shout", "stranger 3.1")))
    with pytest.raises(ImportError, match=r"job_type=shout .* stranger 3.1.*stranger_jobs"):
        job({"word": "ho"})
    site.write(stranger_jobs="class Jobs:\n    shout = staticmethod(lambda cfg: cfg['word'] * 2)")
    assert job({"word": "ho"}) == "hoho"


def test_a_job_type_without_its_function_says_whose_it_is(site):
    site.write(stranger_empty="")
    with pytest.raises(ImportError, match=r"stranger 3.1.*has no attribute 'shout'"):
        JobType("shout", "stranger_empty:shout", "stranger 3.1")({})
