"""The search path that Hydra builds: whose it touches, and in which order."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import xlm
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from xlm_mlm.plugin import hydra as edge
from xlm_mlm.plugin.hydra import XLMPluginSearchPath
from xlm_mlm.plugin.registry import JobType

HOST = Path(xlm.__file__).resolve().parent / "configs"
OURS = Path(edge.__file__).parents[1] / "configs"


@pytest.fixture(autouse=True)
def _fresh():
    caches = (edge._contributions, edge._say_once)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def main(monkeypatch):
    """Stands for the host's command module, which takes seconds to import."""
    main = SimpleNamespace(external_model_dirs=[], external_commands={})
    monkeypatch.setitem(sys.modules, "xlm.commands.lightning_main", main)
    return main


def search_path(*paths):
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    for each in paths:
        path.append("main", str(each))
    return path


def manipulated(path):
    XLMPluginSearchPath().manipulate_search_path(path)
    return [element.path for element in path.get_path()]


def plugin_with_jobs(site, **jobs):
    site.write(
        jobs_plugin=f"""
        from xlm_mlm.plugin.hookspecs import hookimpl

        @hookimpl
        def xlm_commands():
            return {jobs!r}
        """
    )
    site.register("jobs", "3.1", xlm_plugins={"jobs": "jobs_plugin"})


def test_the_scan_finds_the_class_once():
    found = Plugins.instance().discover(SearchPathPlugin)
    assert [each for each in found if each.__module__.startswith("xlm_mlm")] == [
        XLMPluginSearchPath
    ]


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["/somewhere/conf"],
        ["pkg://other.configs.lightning_train"],
        ["/somewhere/xlm/configs/lightning_train"],
        [HOST / "common"],
    ],
)
def test_an_unrelated_search_path_is_left_alone(paths, monkeypatch, main):
    monkeypatch.setattr(edge, "_contributions", lambda: pytest.fail("plugins were loaded"))
    path = search_path(*paths)
    before = [*path.get_path()]
    manipulated(path)
    assert path.get_path() == before
    assert main.external_commands == {}


@pytest.mark.parametrize(
    "host",
    [
        str(HOST / "lightning_train"),
        f"file://{HOST / 'lightning_train'}",
        str(HOST / "common" / ".." / "lightning_train"),
        "pkg://xlm.configs.lightning_train",
    ],
)
def test_the_host_is_known_however_its_folder_is_written(host):
    assert str(OURS) in manipulated(search_path(host))


def test_the_order_is_host_user_ours_others(site, main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine/configs", "site/mlm/configs", "site/other/configs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "xlm_models.json").write_text('{"mine": "mine"}')
    site.write(
        other_plugin="""
        from pathlib import Path
        from xlm_mlm.plugin.hookspecs import hookimpl

        @hookimpl
        def xlm_config_dirs():
            return [Path(__file__).parent / "other" / "configs"]
        """
    )
    site.register("aaa-other", "3.1", xlm_plugins={"aaa": "other_plugin"})
    # As the host lists them: the user's own, then each installed package twice.
    main.external_model_dirs = [Path("mine"), site.folder / "mlm", site.folder / "mlm"]
    assert manipulated(search_path(HOST / "lightning_train"))[1:] == [
        str(HOST / "lightning_train"),
        str(HOST / "common"),
        str(tmp_path / "mine" / "configs"),
        str(OURS),
        str(site.folder / "other" / "configs"),
    ]


def test_a_users_folder_without_configs_adds_nothing(main, tmp_path):
    main.external_model_dirs = [tmp_path]
    found = manipulated(search_path(HOST / "lightning_train"))
    assert not any(str(tmp_path) in path for path in found)
    assert str(OURS) in found


def test_asking_the_host_again_leaves_its_logger_as_it_was(main, tmp_path):
    from xlm import external_models

    main.external_model_dirs = [tmp_path]
    for disabled in (False, True):
        external_models.logger.disabled = disabled
        manipulated(search_path(HOST / "lightning_train"))
        assert external_models.logger.disabled is disabled
    external_models.logger.disabled = False


def test_a_second_pass_adds_nothing_and_says_nothing(main, site, caplog):
    plugin_with_jobs(site, shout="a:b", train="a:train")
    path = search_path(HOST / "lightning_train")
    first = manipulated(path)
    said = len(caplog.records)
    assert said == 1
    assert manipulated(path) == first
    manipulated(search_path(HOST / "lightning_train"))
    assert len(caplog.records) == said


def test_job_types_reach_the_host(main, site):
    plugin_with_jobs(site, shout="a:b")
    manipulated(search_path(HOST / "lightning_train"))
    assert main.external_commands.keys() == {"mlm_generate", "mlm_score", "shout"}
    assert main.external_commands["shout"] == JobType("shout", "a:b", "jobs 3.1")


def test_a_main_module_run_as_a_script_gets_them_too(site, monkeypatch):
    plugin_with_jobs(site, shout="a:b")
    script = SimpleNamespace(external_model_dirs=[], external_commands={})
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.delitem(sys.modules, "xlm.commands.lightning_main", raising=False)
    manipulated(search_path(HOST / "lightning_train"))
    assert list(script.external_commands) == ["mlm_generate", "mlm_score", "shout"]


def test_a_job_type_that_is_there_already_is_kept(main, site, caplog):
    def theirs(cfg): ...

    main.external_commands["shout"] = theirs
    plugin_with_jobs(site, shout="a:b")
    manipulated(search_path(HOST / "lightning_train"))
    assert main.external_commands["shout"] is theirs
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "jobs 3.1" in record.getMessage()
    assert "theirs" in record.getMessage()


def test_a_job_type_of_the_host_is_not_taken(main, site, caplog):
    plugin_with_jobs(site, train="a:b")
    manipulated(search_path(HOST / "lightning_train"))
    assert "train" not in main.external_commands
    (record,) = caplog.records
    assert "job_type=train of jobs 3.1 is already that of the host itself" in record.getMessage()


def test_the_host_really_has_the_job_types_we_think_it_has():
    source = (HOST.parent / "commands" / "lightning_main.py").read_text()
    handled = {name for name in edge._BUILT_IN if f'"{name}"' in source}
    assert handled == edge._BUILT_IN
    assert source.count("job_type ==") + source.count('"job_type", None) ==') == len(handled)


def test_one_line_says_that_ours_win_over_xlm_models(main, site, caplog):
    site.write(mlm____init__="")
    (site.folder / "mlm" / "configs").mkdir()
    main.external_model_dirs = [site.folder / "mlm"] * 2
    caplog.set_level(logging.INFO, logger="xlm_mlm.plugin")
    for _ in range(2):
        manipulated(search_path(HOST / "lightning_train"))
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "xlm-models" in record.getMessage()


def test_nothing_is_left_in_the_logging_of_the_process(main, monkeypatch):
    logger = edge.logger
    monkeypatch.setattr(logger, "hasHandlers", lambda: False)
    before = (logger.level, [*logger.handlers])
    with edge._heard():
        assert logger.isEnabledFor(logging.INFO)
    assert (logger.level, logger.handlers) == before
