"""What is tested: a plugin by its registered name, or a package in the older layout."""

import pytest

from xlm_mlm.conformance.subject import find_package, find_plugin

HOOKS = """
    from pathlib import Path
    import pluggy
    hook = pluggy.HookimplMarker("xlm")

    @hook
    def xlm_config_dirs():
        return [Path(__file__).parent / "configs"]

    @hook
    def xlm_conformance_adapter():
        return "theirs.said:Said"
"""


@pytest.fixture
def theirs(site):
    site.config("theirs/__init__.py", "")
    site.write(theirs__hooks=HOOKS)
    site.write(theirs__said="class Said:\n    absent = {'prompt': 'it has none'}\n")
    site.config("theirs/configs/experiment/one.yaml", "a: 1\n")
    site.config("theirs/configs/experiment/parts/two.yaml", "a: 1\n")
    site.register(
        "their-dist",
        "2.5",
        xlm_plugins={"theirs": "theirs.hooks"},
        xlm_models={"m": "theirs.model:M"},
        hydra_plugins={"s": "their_scan:S"},
    )
    return site


def test_a_plugin_is_all_that_its_distribution_registers(theirs):
    subject = find_plugin("theirs")
    assert (subject.kind, subject.distribution, subject.version) == ("plugin", "their-dist", "2.5")
    assert subject.packages == ("theirs",)
    assert {entry.group for entry in subject.entries} == {
        "xlm.plugins",
        "xlm.models",
        "hydra.plugins",
    }
    assert subject.experiments() == ["one"]
    assert [file.name for _, file in subject.configs()] == ["one.yaml", "two.yaml"]
    assert subject.absent == {"prompt": "it has none"}
    assert subject.adapter_name == "theirs.said:Said"


def test_the_command_line_names_another_adapter(theirs):
    theirs.write(other="class Other:\n    absent = {'generate': 'not yet'}\n")
    assert find_plugin("theirs", "other:Other").absent == {"generate": "not yet"}


def test_what_is_its_own(theirs):
    subject = find_plugin("theirs")
    assert subject.owns("theirs.model.M")
    assert subject.owns("theirs:M")
    assert not subject.owns("theirs_too.model.M")


def test_an_unknown_name_lists_the_known_ones(theirs):
    with pytest.raises(LookupError, match="no plugin .*'thiers'.*mlm, theirs.*--xlm-package"):
        find_plugin("thiers")


def test_an_adapter_that_says_nonsense_is_refused(theirs):
    theirs.write(theirs__said="class Said:\n    absent = {'promtp': 'x'}\n")
    with pytest.raises(ValueError, match="'promtp'"):
        find_plugin("theirs")


def test_hooks_that_fail_are_noted(theirs):
    theirs.write(theirs__hooks=HOOKS.replace("return [Path", "return 1 / 0  # [Path"))
    (problem,) = find_plugin("theirs").problems
    assert "xlm_config_dirs() failed: ZeroDivisionError" in problem


def test_a_namespace_is_shared_with_others(site):
    site.config("acme/models/foo/__init__.py", "")
    site.write(acme__models__foo__hooks=HOOKS.split("@hook\n    def xlm_conformance")[0])
    site.config("acme/models/foo/configs/experiment/one.yaml", "a: 1\n")
    site.register("acme-foo", "1", xlm_plugins={"foo": "acme.models.foo.hooks"})
    for subject in (find_plugin("foo"), find_package("acme.models.foo")):
        assert subject.packages == ("acme.models.foo",)
        assert subject.owns("acme.models.foo.model.M")
        assert not subject.owns("acme.models.food.M")
        assert not subject.owns("acme.models.bar.M")


def test_what_stands_beside_the_configs_is_its_own(site):
    """Hooks in one package and classes in another, of which only the hooks are registered."""
    site.config("foo_core/__init__.py", "")
    site.config("foo_core/configs/experiment/one.yaml", "a: 1\n")
    hooks = HOOKS.split("@hook\n    def xlm_conformance")[0]
    site.write(foo_hooks=hooks.replace('parent / "configs"', 'parent / "foo_core" / "configs"'))
    site.register("foo", "1", xlm_plugins={"foo": "foo_hooks"})
    assert find_plugin("foo").packages == ("foo_core", "foo_hooks")


def test_what_an_editor_leaves_is_no_config(theirs):
    theirs.config("theirs/configs/experiment/.#one.yaml", "a: 1\n")
    (theirs.folder / "theirs/configs/experiment/old.yaml").mkdir()
    assert find_plugin("theirs").experiments() == ["one"]
    assert len(find_plugin("theirs").configs()) == 2


def test_an_adapter_that_speaks_of_no_experiment_is_refused(theirs):
    theirs.write(theirs__said="class Said:\n    experiments = {'oen@two': ['a=1']}\n")
    with pytest.raises(ValueError, match="names oen; the experiments are one"):
        find_plugin("theirs")


def test_a_package_registers_nothing(theirs):
    subject = find_package("theirs")
    assert subject.kind == "package"
    assert subject.experiments() == ["one"]
    assert subject.entries == ()
    assert set(subject.absent) == {"entry_points"}
    assert subject.config_dirs == (theirs.folder / "theirs" / "configs",)


def test_a_package_without_configs_is_a_finding_not_a_crash(site):
    site.config("bare/__init__.py", "")
    assert find_package("bare").config_dirs == ()


@pytest.mark.parametrize("name", ["no_such_package", "abc", "bare.deeper", "", "boom.sub"])
def test_no_such_package(name, site):
    site.config("boom/__init__.py", "raise RuntimeError('no')")
    with pytest.raises(LookupError, match="is it installed"):
        find_package(name)


def test_ours_names_its_adapter():
    subject = find_plugin("mlm")
    assert subject.adapter_name == "xlm_mlm.plugin.conformance:MLMAdapter"
    assert subject.packages == ("xlm_mlm",)
    assert subject.absent == {}
