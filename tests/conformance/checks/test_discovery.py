"""Layouts and environments that a mutant of the minimal plugin does not show."""

import pytest
from mutant import results

from xlm_mlm.conformance.checks import discovery
from xlm_mlm.conformance.subject import find_package, find_plugin

HOOKS = """
    from pathlib import Path
    import pluggy

    @pluggy.HookimplMarker("xlm")
    def xlm_config_dirs():
        return [Path(__file__).parent / "configs"]
"""
SEARCH = """
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class Search(SearchPathPlugin):
        def manipulate_search_path(self, search_path):
            pass
"""
INIT = "hydra_plugins/__init__.py"


def outcome(subject, rule):
    (result,) = results(subject, f"discovery-{rule}")
    return result.outcome


def message(subject, rule, expected="broken"):
    (result,) = results(subject, f"discovery-{rule}")
    assert result.outcome == expected, result
    return result.message


def record(info, *files):
    """Write which files a distribution brought, as an installer would."""
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.fixture
def one_file(site):
    """A plugin that is a single module, with its configs beside it."""
    site.write(one_file=HOOKS)
    site.config("configs/experiment/one.yaml", "a: 1\n")
    info = site.register("one-file", "1", xlm_plugins={"one": "one_file"})
    return find_plugin("one"), info


def test_a_plugin_may_be_a_single_module(one_file):
    subject, _ = one_file
    for rule in ("entry-points", "config-folder", "light-scan", "no-namespace-init"):
        assert outcome(subject, rule) == "passed"


def test_a_plugin_may_be_deep_in_a_namespace(site):
    site.config("acme/models/own/__init__.py", "")
    site.write(acme__models__own__hooks=HOOKS)
    site.write(acme__models__search=SEARCH)
    site.config("acme/models/own/configs/experiment/one.yaml", "a: 1\n")
    site.register(
        "acme-own",
        "1",
        xlm_plugins={"own": "acme.models.own.hooks"},
        hydra_plugins={"own": "acme.models.search:Search"},
    )
    subject = find_plugin("own")
    for rule in ("entry-points", "config-folder", "light-scan", "no-namespace-init"):
        assert outcome(subject, rule) == "passed"
    site.config(INIT, "")
    assert f"{site.folder}/{INIT}" in message(subject, "no-namespace-init")


def test_the_list_of_files_says_whose_namespace_init_it_is(one_file, site):
    subject, info = one_file
    site.config(INIT, "")
    record(info, "one_file.py", "one_file-1.dist-info/METADATA")
    assert outcome(subject, "no-namespace-init") == "passed"
    record(info, "one_file.py", INIT)
    assert f"{site.folder}/{INIT}" in message(subject, "no-namespace-init")


def test_an_editable_installation_lists_no_module(one_file, site):
    subject, info = one_file
    site.config(INIT, "")
    record(info, "_one_file.pth", "one_file-1.dist-info/METADATA")
    assert INIT in message(subject, "no-namespace-init")


def test_a_package_of_hydra_plugins_has_an_init_of_its_own(one_file, site):
    subject, _ = one_file
    site.config("hydra_plugins/one/__init__.py", SEARCH)
    assert outcome(subject, "no-namespace-init") == "passed"
    assert outcome(subject, "light-scan") == "passed"


def test_what_lies_in_a_package_of_hydra_plugins_is_scanned_too(one_file, site):
    subject, _ = one_file
    # In the scan's process this is the torch that is found first.
    site.config("hydra_plugins/one/__init__.py", "")
    site.write(hydra_plugins__one__launcher="import torch", torch="")
    found = message(subject, "light-scan")
    assert f"hydra_plugins.one.launcher imports torch by way of {site.folder}" in found
    site.write(hydra_plugins__one__launcher="")
    site.config("hydra_plugins/one/_later.py", "import torch")
    assert outcome(subject, "light-scan") == "passed"


def test_asking_whether_torch_is_there_does_not_import_it(one_file, site):
    subject, _ = one_file
    site.write(
        one_file=HOOKS + "\n    from importlib.util import find_spec\n    find_spec('torch')"
    )
    assert outcome(subject, "light-scan") == "passed"


def test_a_hook_that_hangs(one_file, site, monkeypatch):
    subject, _ = one_file
    site.write(one_file="while True:\n    pass\n")
    monkeypatch.setattr(discovery, "SCAN_SECONDS", 1)
    assert "more than 1 seconds" in message(subject, "light-scan")


def test_an_environment_that_always_imports_torch_decides_nothing(one_file, site, monkeypatch):
    subject, _ = one_file
    site.write(torch="", sitecustomize="import torch")
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    assert "Python itself imports torch" in message(subject, "light-scan", "could not run")


def test_an_older_package(site):
    site.config("older/__init__.py", "import torch")
    assert "must have a folder `configs`" in message(find_package("older"), "config-folder")
    site.config("older/configs/experiment/one.yaml", "a: 1\n")
    subject = find_package("older")
    for rule in ("config-folder", "light-scan", "no-commands-yaml"):
        assert outcome(subject, rule) == "passed"
    for rule in ("entry-points", "unique-names", "no-namespace-init"):
        assert outcome(subject, rule) == "absent"


def test_to_look_for_a_package_below_another_imports_that_one(site):
    site.config("above/__init__.py", "import torch")
    site.config("above/below/__init__.py", "")
    site.write(torch="")
    site.config("above/below/configs/experiment/one.yaml", "a: 1\n")
    found = message(find_package("above.below"), "light-scan")
    assert found.startswith("package above.below: above.below imports torch by way of")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "passed"), ("# none yet\n", "passed"), ("a: b.c\n", "broken"), ("a: [", "broken")],
)
def test_commands_that_name_nothing_do_no_harm(site, text, expected):
    site.config("older/__init__.py", "")
    site.config("older/configs/commands.yaml", text)
    assert outcome(find_package("older"), "no-commands-yaml") == expected


def test_the_trap_is_found_where_the_host_looks_although_the_configs_lie_elsewhere(site):
    site.write(theirs__hooks=HOOKS.replace("configs", "hydra_configs"))
    site.config("theirs/hydra_configs/experiment/one.yaml", "a: 1\n")
    site.register("their-dist", "1", xlm_plugins={"theirs": "theirs.hooks"})
    assert outcome(find_plugin("theirs"), "no-commands-yaml") == "passed"
    site.config("theirs/configs/commands.yaml", "a: theirs.jobs.a\n")
    assert "theirs/configs/commands.yaml makes" in message(
        find_plugin("theirs"), "no-commands-yaml"
    )


def test_names_in_hydras_own_group_may_repeat(one_file, site):
    for name in ("first", "second"):
        site.register(name, "1", hydra_plugins={"search": "nowhere:Search"})
    site.register("double", "1", xlm_plugins={"double": "one_file"})
    assert outcome(find_plugin("double"), "unique-names") == "passed"
