"""Reading entry points: complete, ordered, and never stopped by someone's broken metadata."""

import sys

import pytest
from fake_packages import Site

from xlm_mlm.entries import attempt, message_of, read_entries

pytestmark = pytest.mark.usefixtures("no_other_plugins")


def names(entries):
    return [(entry.name, entry.distribution) for entry in entries]


def test_the_order_does_not_depend_on_the_path(tmp_path, monkeypatch):
    sites = [Site(tmp_path / folder) for folder in ("one", "two", "three")]
    for site, distribution in zip(sites, ("zeta", "Alpha_X", "mid"), strict=True):
        site.register(distribution, "1.0", xlm_losses={"shared": "a:b", "mlm": "c:d"})
    paths = [str(site.folder) for site in sites]
    seen = []
    for order in (paths, paths[::-1]):
        monkeypatch.setattr(sys, "path", [*order, *sys.path])
        seen.append(names(read_entries(["xlm.losses"])))
    assert seen[0] == seen[1]
    # Ours comes first of those that share a name.
    assert seen[0] == [
        ("mlm", "xlm-mlm"),
        ("mlm", "Alpha_X"),
        ("mlm", "mid"),
        ("mlm", "zeta"),
        ("shared", "Alpha_X"),
        ("shared", "mid"),
        ("shared", "zeta"),
    ]


def test_of_a_distribution_found_twice_the_first_on_the_path_counts(tmp_path, monkeypatch):
    for version in ("2.0", "1.0"):
        Site(tmp_path / version).register("twice", version, xlm_losses={"l": "a:b"})
        monkeypatch.syspath_prepend(str(tmp_path / version))
    found = [e for e in read_entries(["xlm.losses"]) if e.distribution == "twice"]
    assert [entry.version for entry in found] == ["1.0"]


def test_only_the_groups_asked_for(site):
    site.register("other", "1.0", xlm_losses={"l": "a:b"}, console_scripts={"c": "a:b"})
    assert {entry.group for entry in read_entries(["xlm.losses"])} == {"xlm.losses"}
    assert read_entries(["no.such.group"]) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("entry_points.txt", "[xlm.losses]\nthis line has no equals sign\n"),
        ("METADATA", "Metadata-Version: 2.1\n"),
    ],
)
def test_broken_metadata_costs_one_warning(site, caplog, file, text):
    info = site.register("garbled", "1.0", xlm_losses={"l": "a:b"})
    (info / file).write_text(text)
    site.register("sound", "1.0", xlm_losses={"fine": "a:b"})
    found = names(read_entries(["xlm.losses"]))
    assert ("fine", "sound") in found
    assert "garbled" not in str(found)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "garbled-1.0.dist-info" in warnings[0]


def test_an_interrupt_is_not_swallowed_but_an_exit_is():
    def interrupted():
        raise KeyboardInterrupt

    def leaves():
        raise SystemExit("bye")

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupted)
    assert attempt(leaves) == (None, "SystemExit: bye")
    assert attempt(lambda: 5) == (5, None)


def test_messages_are_one_line():
    assert message_of(KeyError("no 'x'; known: y")) == "no 'x'; known: y"
    assert message_of(ValueError("two\n  lines")) == "two lines"
