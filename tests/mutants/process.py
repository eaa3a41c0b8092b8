"""Plugins that fail only when the `xlm` command runs them. One process each, so few of them."""

from mutant import Mutant, edit

PRINT = (
    "    print(f\"{split}/{dataloader_name}: {tokenizer.decode(batch['input_ids'][0].tolist())}\")"
)

MUTANTS = [
    Mutant(
        "process-trains",
        (edit("collators.py", PRINT, '    print(batch["token_type_ids"][0])'),),
        says=r"exit code 1 \(0 would be right\)[\s\S]*KeyError: 'token_type_ids'",
        slow=True,
    ),
    Mutant(
        "process-predicts",
        (
            edit(
                "predictor.py",
                'for i in range(len(preds["text"]))',
                'for i in range(len(preds["text"]) // 2)',
            ),
        ),
        says="2 rows were written for the 4 samples of val.prediction",
        slow=True,
    ),
    Mutant(
        "process-tests",
        (edit("collators.py", PRINT, f'    assert split != "test", "no such split"\n{PRINT}'),),
        says="no such split; the output ends",
        slow=True,
    ),
]
