"""`xlm-mlm plugins`: complete, readable by people and programs, honest in its exit code."""

import json
from importlib.metadata import version

import pytest
from fake_packages import Site

from xlm_mlm.commands import cli
from xlm_mlm.plugin.registry import installed


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return Site(tmp_path)


def test_the_table_has_a_line_for_each_component(capsys):
    assert cli.main(["plugins"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["GROUP", "NAME", "CLASS", "DISTRIBUTION", "VERSION"]
    assert [line.split() for line in lines] == [
        [c.entry.group, c.entry.name, c.entry.value, c.entry.distribution, c.entry.version]
        for c in installed()
    ]
    ours = ["xlm.losses", "mlm", "xlm_mlm.loss_mlm:MLMLoss", "xlm-mlm", version("xlm-mlm")]
    assert ours in [line.split() for line in lines]


def test_json_says_the_same(capsys):
    assert cli.main(["plugins", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(installed())
    assert {
        "group": "xlm.models",
        "name": "rotary_transformer_mlm",
        "class": "xlm_mlm.model_mlm:RotaryTransformerMLMModel",
        "distribution": "xlm-mlm",
        "version": version("xlm-mlm"),
        "shadowed_by": None,
        "error": None,
    } in rows


def test_a_broken_component_is_shown_and_fails(site, capsys):
    site.write(cli_broken="raise RuntimeError('on import')")
    site.register("broken", "3.1", xlm_losses={"broken": "cli_broken:Loss"})
    assert cli.main(["plugins"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if "cli_broken:Loss" in line]
    assert lines[at + 1].strip() == "error: RuntimeError: on import"

    assert cli.main(["plugins", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["error"]] == ["broken"]


def test_a_plugin_module_with_a_broken_hook_is_shown(site, capsys):
    source = """
    from xlm_mlm.plugin.hookspecs import hookimpl

    @hookimpl
    def xlm_config_dirs():
        return ["/no/such/folder"]
    """
    site.write(cli_hooks=source)
    site.register("hooks", "3.1", xlm_plugins={"hooks": "cli_hooks"})
    assert cli.main(["plugins"]) == 1
    assert "/no/such/folder, which is no folder" in capsys.readouterr().out


def test_a_name_installed_twice_is_shown_but_is_no_failure(site, capsys):
    site.register("second", "3.1", xlm_losses={"mlm": "xlm_mlm.loss_mlm:MLMLoss"})
    assert cli.main(["plugins"]) == 0
    origin = f"xlm-mlm {version('xlm-mlm')}"
    assert f"not used: {origin} brings the same name" in capsys.readouterr().out


def test_what_a_package_prints_on_import_stays_out_of_the_output(site, capsys):
    site.write(cli_noisy="print('noise')\nfrom xlm_mlm.loss_mlm import MLMLoss")
    site.register("noisy", "3.1", xlm_losses={"noisy": "cli_noisy:MLMLoss"})
    assert cli.main(["plugins", "--json"]) == 0
    captured = capsys.readouterr()
    assert "noisy" in [row["name"] for row in json.loads(captured.out)]
    assert captured.err == "noise\n"
