"""Plugins that can't be found, or that harm others while they are looked for."""

from hydra.core.plugins import Plugins
from mutant import Mutant, edit

# Hydra looks for plugins once in a process; not while there are broken ones.
Plugins.instance()

CONFIG_DIR = 'return [Path(__file__).parent / "configs"]'
# The plugin lets the tests' own process live.
NOT_HERE = 'import os, sys; "pytest" in sys.modules'
JOBS = '\n\n@hookimpl\ndef xlm_commands():\n    return {"shout": "PACKAGE.jobs:shout"}\n'

MUTANTS = [
    Mutant(
        "discovery-entry-points",
        (),
        says=r"lost = \S+:LostModel in xlm.models: AttributeError",
        entry_points=(("xlm.models", "lost", "PACKAGE.model:LostModel"),),
    ),
    Mutant(
        "discovery-entry-points",
        (),
        says=r"odd = \S+ in xlm.predictors: ValueError: \S+MinimalLoss does not define .*to_dict",
        entry_points=(("xlm.predictors", "odd", "PACKAGE.loss:MinimalLoss"),),
    ),
    Mutant(
        "discovery-entry-points",
        (),
        says=r"odd = \S+ in hydra.plugins: .* is no plugin of Hydra",
        entry_points=(("hydra.plugins", "odd", "PACKAGE.loss:MinimalLoss"),),
    ),
    Mutant(
        "discovery-entry-points",
        (edit("plugin.py", CONFIG_DIR, f'{CONFIG_DIR[:-1]}, Path("elsewhere")]'),),
        says="xlm_config_dirs.. names elsewhere, which is no folder",
    ),
    Mutant(
        "discovery-entry-points",
        (edit("plugin.py", "", JOBS),),
        says=r"shout: '\S+\.jobs:shout': ModuleNotFoundError",
    ),
    Mutant(
        "discovery-unique-names",
        (),
        says=r"'mlm' in xlm.losses is \S+ of xlm-minimal-\d+ 1.0 and .* of xlm-mlm",
        entry_points=(("xlm.losses", "mlm", "PACKAGE.loss:MinimalLoss"),),
    ),
    Mutant(
        "discovery-unique-names",
        (),
        says=r"'twin' in xlm.models is \S+ of xlm-minimal-\d+ 1.0 and .* of xlm-minimal",
        # The line break makes it two lines of the file.
        entry_points=(("xlm.models", "twin", "PACKAGE.model:A\ntwin = PACKAGE.model:B"),),
    ),
    Mutant(
        "discovery-config-folder",
        (edit("plugin.py", CONFIG_DIR, CONFIG_DIR.replace("configs", "config")),),
        says=r"no folder of configs; the hook .*\n.*names .*config, which is no folder",
    ),
    Mutant(
        "discovery-config-folder",
        (
            edit("plugin.py", CONFIG_DIR, CONFIG_DIR.replace("configs", "settings")),
            edit("settings/README", "", "The YAML files were not packed."),
        ),
        says=r"no YAML file is in \S+settings; .* package data",
    ),
    Mutant(
        "discovery-light-scan",
        (edit("plugin.py", "", "\nfrom PACKAGE.model import MinimalModel\n"),),
        says=r"\.plugin in xlm.plugins imports torch by way of \S+plugin.py:\d+ > \S+model.py:\d+",
        slow=True,
    ),
    Mutant(
        "discovery-light-scan",
        (edit("plugin.py", CONFIG_DIR, f"import transformers\n    {CONFIG_DIR}"),),
        says=r"imports transformers by way of \S+plugin.py:\d+",
        slow=True,
    ),
    Mutant(
        "discovery-light-scan",
        (edit("search.py", "", "import torch\n"),),
        says=r"search in hydra.plugins imports torch",
        slow=True,
        entry_points=(("hydra.plugins", "search", "PACKAGE.search"),),
    ),
    Mutant(
        "discovery-light-scan",
        (edit("../hydra_plugins/minimal.py", "", "import torch\n"),),
        says=r"hydra_plugins.minimal imports torch",
        slow=True,
    ),
    Mutant(
        "discovery-light-scan",
        (edit("plugin.py", CONFIG_DIR, f"{NOT_HERE} or os._exit(3)\n    {CONFIG_DIR}"),),
        says="ends the process, with code 3",
        slow=True,
    ),
    Mutant(
        "discovery-no-commands-yaml",
        (edit("configs/commands.yaml", "", "shout: PACKAGE.jobs.shout\n"),),
        says=r"configs/commands.yaml makes every `xlm` command fail",
    ),
    Mutant(
        "discovery-no-namespace-init",
        (edit("../hydra_plugins/__init__.py", "", ""),),
        says=r"hydra_plugins/__init__.py hides",
    ),
]
