"""Plugins whose configs Hydra or the host can't use."""

from mutant import Mutant, edit

MODEL = "configs/model/minimal.yaml"
FAMILY = "configs/model_type/minimal.yaml"
STAR = "configs/experiment/star_easy_minimal.yaml"
TEXT_DATA = "configs/datamodule/text_minimal.yaml"
PRINT = "print_batch_fn: PACKAGE.collators.print_batch"
NEEDY = "import chemistry_that_nobody_has\n\ndef read():\n    pass\n"

MUTANTS = [
    Mutant(
        "configs-parse",
        (edit(MODEL, "num_layers: 2", "num_layers: [2"),),
        says=r"model/minimal.yaml:\d+: while parsing a flow sequence, expected",
    ),
    Mutant(
        "configs-parse",
        (edit(MODEL, "num_layers: 2", "num_layers: 2\n  num_layers: 3"),),
        says=r"minimal.yaml:\d+: while constructing a mapping, found duplicate key num_layers",
    ),
    Mutant(
        "configs-parse",
        (edit("configs/history/minimal.yaml", "", "- one\n- two\n"),),
        says=r"history/minimal.yaml: it holds a list",
    ),
    Mutant(
        "configs-names-resolve",
        (edit(FAMILY, "PACKAGE.loss.MinimalLoss", "PACKAGE.loss.MinimalLos"),),
        says=r"model_type/minimal.yaml:\d+: _target_: \S+\.loss\.MinimalLos: ImportError",
    ),
    Mutant(
        "configs-names-resolve",
        (
            edit(
                TEXT_DATA,
                PRINT,
                f"{PRINT}es",
            ),
        ),
        says=r"text_minimal.yaml:\d+: print_batch_fn: \S+print_batches: AttributeError",
    ),
    Mutant(
        "configs-names-resolve",
        (edit(TEXT_DATA, PRINT, "print_batch_fn: print_batch"),),
        says="it has no dot; it must be module.function",
    ),
    Mutant(
        "configs-names-resolve",
        (edit(FAMILY, "PACKAGE.predictor.MinimalPredictor", "PACKAGE.predictor"),),
        says=r"_target_: \S+\.predictor: it is <module .*, which can't be called",
    ),
    Mutant(
        "configs-names-resolve",
        (edit("needy.py", "", NEEDY), edit(TEXT_DATA, PRINT, "print_batch_fn: PACKAGE.needy.read")),
        says=r"not installed: chemistry_that_nobody_has; if an extra .* optional_modules",
    ),
    Mutant(
        "configs-no-shadow",
        (edit("configs/model/rotary_transformer.yaml", "", "d_model: 8\n"),),
        says=r"model/rotary_transformer.yaml is never read: \S+xlm/configs/lightning_train/model",
    ),
    Mutant(
        "configs-no-shadow",
        (edit("configs/paths/default.yaml", "", "data_dir: here\n"),),
        says=r"paths/default.yaml is never read: \S+xlm/configs/common/paths",
    ),
    Mutant(
        "configs-experiments-compose",
        (edit(STAR, "override /model: minimal", "override /model: minimum"),),
        says=r"Could not find 'model/minimum'\nlook at: \S+star_easy_minimal.yaml$",
    ),
    Mutant(
        "configs-experiments-compose",
        (edit(STAR, "block_size: 14", "block_size: 14\nfolder: ???"),),
        says=r"folder is \?\?\?; give it a value",
    ),
    Mutant(
        "configs-experiments-compose",
        (edit(FAMILY, "max_steps: ${block_size}", "max_steps: ${length_of_block}"),),
        says=r"predictor.max_steps is \$\{length_of_block\}, which can't be resolved: "
        r"InterpolationKeyError: Interpolation key 'length_of_block' not found\n",
    ),
    Mutant(
        "configs-experiments-compose",
        (
            edit(
                STAR,
                "- override /datamodule:",
                "- /metrics@reported_metrics.val.lm.lengths: seq2seq_length_loss\n"
                "  - override /datamodule:",
            ),
        ),
        says=r"reported_metrics.val.lm.lengths.update_fn is xlm.lm.ilm\S+, from a config of "
        "somebody else: ModuleNotFoundError",
    ),
    Mutant(
        "configs-tags",
        (edit(FAMILY, "  model_type: minimal", "  family: minimal"),),
        says="`tags` lacks model_type, so no job starts",
    ),
    Mutant(
        "configs-no-shadow",
        (edit("configs/model/rotary_transformer_mlm.yaml", "", "model: null\n"),),
        says="rotary_transformer_mlm.yaml is never read: .*xlm_mlm/configs",
    ),
    Mutant(
        "configs-experiments-compose",
        (
            edit(
                "configs/experiment/text_minimal.yaml",
                "",
                "\nreported_metrics:\n  val:\n    lm:\n      odd:\n"
                "        update_fn: xlm_minimal.metrics.mean_loss_update_fn\n",
            ),
        ),
        says="reported_metrics.val.lm.odd must name a function .* and have a `metric`",
    ),
    Mutant(
        "configs-experiments-compose",
        (edit("configs/experiment/text_minimal.yaml", "", "\nloss: hello\n"),),
        says="loss is 'hello'; it must name a class in `_target_`",
    ),
]
