"""Configs that are right although they look odd, and what an adapter may excuse."""

from dataclasses import replace

import pytest
from mutant import Mutant, edit, install, results

from xlm_mlm.conformance.adapter import Adapter
from xlm_mlm.conformance.subject import find_package

STAR = "configs/experiment/star_easy_minimal.yaml"
FAMILY = "configs/model_type/minimal.yaml"


class Said(Adapter):
    def __init__(self):
        self.optional_modules = {"nobody_has": "its extra"}
        self.experiments = {"star_easy_minimal": ("folder=here",)}


class Mends(Adapter):
    overrides = ("model=minimal",)


def changed(site, *edits):
    return install(site.folder, Mutant("", edits, says=""))


def messages(subject, rule):
    """What is wrong, without the experiments that are right."""
    found = results(subject, f"configs-{rule}")
    assert found
    return [result.message for result in found if result.outcome != "passed"]


def added(text):
    """An edit of an experiment: lines at its top level."""
    return edit(STAR, "block_size: 14", f"block_size: 14\n{text}")


@pytest.fixture
def package(site):
    """An older package without configs; write them as `pkg/configs/...`."""
    site.config("pkg/__init__.py", "")
    site.config("pkg/configs/experiment/one.yaml", "")
    return site


@pytest.mark.parametrize("text", ["", "# nothing\n", "a: ${b}\n", "a: ???\n", "---\na: 1\n"])
def test_what_hydra_reads(package, text):
    package.config("pkg/configs/a/b.yaml", text)
    assert messages(find_package("pkg"), "parse") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\na: 1\n---\nb: 2\n", "b.yaml:3: expected a single document"),
        ("3\n", "b.yaml: OSError: Invalid loaded object type: int"),
        ("a: &a\n  b: *a\n", "b.yaml: RecursionError: maximum recursion depth exceeded"),
        ("a: ${b\n", "b.yaml: GrammarParseError: no viable alternative at input '${b'"),
        ("a: !python/name:os.system\n", "b.yaml:1: could not determine a constructor"),
    ],
)
def test_what_hydra_does_not_read(package, text, says):
    package.config("pkg/configs/a/b.yaml", text)
    (found,) = messages(find_package("pkg"), "parse")
    assert says in found
    assert len(found) < 500
    assert messages(find_package("pkg"), "names-resolve") == []


def test_bytes_that_are_no_text(package):
    (package.folder / "pkg/configs/a.yaml").write_bytes(b"a: \xff\xfe\n")
    (found,) = messages(find_package("pkg"), "parse")
    assert "a.yaml: UnicodeDecodeError" in found
    assert messages(find_package("pkg"), "names-resolve") == []


def test_every_unreadable_file_is_named(package):
    for number in range(23):
        package.config(f"pkg/configs/{number}.yaml", "- a\n")
    (found,) = messages(find_package("pkg"), "parse")
    assert found.count("it holds a list") == 20
    assert "and 3 more" in found


@pytest.mark.parametrize(
    "text",
    [
        "_target_: ${model.name}",
        "_target_: ???",
        "_target_: null",
        "_target_: collections.OrderedDict.fromkeys",
        "update_fn: ???",
        "filter_fn: null",
        "filter_fn: [a, b]",
        "other_fn: nowhere.at.all",
        "? [_target_]\n: nowhere.at.all",
        "a: &a\n  _target_: os.getcwd\nb: *a\nc:\n  <<: *a",
    ],
)
def test_names_that_lead_somewhere_or_that_nobody_can_follow_yet(package, text):
    package.config("pkg/configs/a.yaml", text)
    assert messages(find_package("pkg"), "names-resolve") == []


@pytest.mark.parametrize(
    "text",
    [
        # Not through a class: the host splits at the last dot and imports what is before it.
        "update_fn: collections.OrderedDict.fromkeys",
        "a: [1, {b: {preprocess_function: os.nothing}}]",
        "on_the_fly_processor: os.name",
        "_target_: .relative",
        "_target_: ''",
        "dataset_constructor_str: pkg.ends.anything",
    ],
)
def test_names_that_lead_nowhere(package, text):
    package.write(pkg__ends="raise SystemExit(1)")
    package.config("pkg/configs/a.yaml", f"x: 1\n{text}\n")
    (found,) = messages(find_package("pkg"), "names-resolve")
    assert "a.yaml:2: " in found


NEEDY = """
    try:
        import nobody_has.part
    except ImportError as error:
        raise ImportError("install the extra") from {cause}
"""


@pytest.mark.parametrize("cause", ["error", "None"])
@pytest.mark.parametrize("key", ["_target_", "update_fn"])
def test_an_extra_that_the_adapter_names_may_be_absent(package, cause, key):
    package.write(pkg__needy=NEEDY.format(cause=cause))
    package.config("pkg/configs/a.yaml", f"{key}: pkg.needy.function\n")
    subject = find_package("pkg")
    (found,) = messages(subject, "names-resolve")
    assert "not installed: nobody_has; if an extra" in found
    assert messages(replace(subject, adapter=Said()), "names-resolve") == []


def test_an_extra_does_not_excuse_what_else_is_missing(package):
    package.write(pkg__needy="import nobody_has_this_either")
    package.config("pkg/configs/a.yaml", "update_fn: pkg.needy.function\n")
    (found,) = messages(replace(find_package("pkg"), adapter=Said()), "names-resolve")
    assert "No module named 'nobody_has_this_either'" in found


def test_no_extra_is_suggested_for_a_slip_in_an_own_name(package):
    package.config("pkg/configs/a.yaml", "update_fn: pkg.metrix.function\n")
    (found,) = messages(find_package("pkg"), "names-resolve")
    assert "No module named 'pkg.metrix'" in found
    assert "not installed" not in found


def test_interpolations_that_only_a_real_run_resolves(site):
    subject = changed(
        site,
        added("from_hydra: ${hydra:runtime.choices.model}\nlater: ${tokenizer:vocab_size}"),
        edit("configs/model/minimal.yaml", "  model: minimal", "  model: ${hydra:job.num}"),
    )
    assert messages(subject, "experiments-compose") == []
    assert messages(subject, "tags") == []


def test_what_leads_to_something_missing_is_not_a_second_finding(site):
    subject = changed(site, added("folder: ???\nfile: ${folder}/a.txt\nlist: [{a: '${folder}'}]"))
    (found,) = messages(subject, "experiments-compose")
    assert "folder is ???" in found
    assert "file" not in found.partition("look at")[0]
    assert "list" not in found


def test_an_adapter_may_give_what_users_must_give(site):
    subject = replace(changed(site, added("folder: ???")), adapter=Said())
    assert messages(subject, "experiments-compose") == []


def test_an_adapter_does_not_mend_an_experiment(site):
    lost = edit(STAR, "override /model: minimal", "override /model: minimum")
    (found,) = messages(replace(changed(site, lost), adapter=Mends()), "experiments-compose")
    assert "Could not find 'model/minimum'" in found
    subject = replace(changed(site, added("folder: ${nowhere}")), adapter=Said())
    (found,) = messages(subject, "experiments-compose")
    assert "folder is ${nowhere}, which can't be resolved" in found


def test_a_missing_tag_is_found_by_its_own_rule_alone(site):
    subject = changed(site, edit(FAMILY, "  model_type: minimal", "  family: minimal"))
    assert messages(subject, "experiments-compose") == []
    (found,) = messages(subject, "tags")
    assert "lacks model_type," in found


def test_tags_that_are_no_mapping(site):
    (found,) = messages(changed(site, added("tags: none")), "tags")
    assert "`tags` is 'none'; it must be a mapping" in found


def test_tags_of_an_experiment_that_does_not_compose_are_not_known(site):
    subject = changed(site, edit(STAR, "override /model: minimal", "override /model: minimum"))
    found = [result for result in results(subject, "configs-tags") if result.outcome != "passed"]
    assert [result.outcome for result in found] == ["could not run"]
    assert found[0].message.endswith(
        "it does not compose: MissingConfigException: In 'config': Could not find 'model/minimum'"
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("override /model: minimal", "override /modle: minimal", "Could not override 'modle'"),
        ("  - _self_", "  - _self_\n  - /model: nothing", "Override 'trainer_strategy"),
        ("lr: 0.003", "lr: [0.003", "while parsing"),
    ],
)
def test_an_experiment_that_does_not_compose_takes_one_line(site, old, new, says):
    (found,) = messages(changed(site, edit(STAR, old, new)), "experiments-compose")
    assert says in found
    line, place = found.split("\n")
    assert len(line) < 500
    assert place.startswith("look at: ")
    assert place.endswith(STAR)


def test_a_path_below_another_folder_hides_nothing(package):
    package.config("pkg/configs/model/pkg/rotary_transformer.yaml", "a: 1\n")
    package.config("pkg/configs/models/rotary_transformer.yaml", "a: 1\n")
    assert messages(find_package("pkg"), "no-shadow") == []
