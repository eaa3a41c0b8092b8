"""What the kit can't find in the configs of the framework's existing families (xlm-models 0.3.1).

Found by running them: the parameters of `forward`, what it returns, what their batches hold.
"""

from typing import ClassVar

import torch

from xlm_mlm.conformance.made_up import infill_rows

NO_TARGETS = {
    name: "its loss makes the noise itself; a batch holds the tokens alone"
    for name in ("target_ids", "ignored_targets", "aligned_targets")
}
COUNTS = dict.fromkeys(NO_TARGETS, "its targets are counts of tokens to be inserted")


CHEMISTRY = dict.fromkeys(("safe", "datamol", "rdkit", "tdc"), "xlm-core[safe]")


class MLM:
    """Everything follows from its configs; two options that none of them sets are set here."""

    optional_modules: ClassVar = CHEMISTRY
    experiments: ClassVar = {
        "star_easy_mlm@entropy": ["predictor.confidence=entropy"],
        "lm1b_mlm@max": ["++datamodule.dataset_managers.train.lm.collator.truncate=max"],
    }

    def rows(self, loader, tokenizer, sizes):
        # Its infilling collator takes any rows, but only those with masks ask for something.
        return infill_rows(sizes, 8) if "infill" in loader else None


class MDLM:
    """Takes the total noise of each row beside the ids; its experiments have no prompts."""

    absent: ClassVar = {"prompt": "its experiments generate from nothing"}
    _TEST = "datamodule.dataset_managers.test.unconditional_prediction"
    _SCHEDULE = (
        "noise_schedule=dummy",
        "global_components.noise_schedule._target_=mdlm.noise_mdlm.ContinuousTimeLogLinearSchedule",
        "+global_components.noise_schedule.sigma_min=0",
        "+global_components.noise_schedule.sigma_max=20",
    )
    # As installed it does not compose, for want of the schedule that it names, and a test loader
    # has neither collator nor dataset; `text_mdlm` has no datamodule.
    experiments: ClassVar = {
        "owt_mdlm": (
            *_SCHEDULE,
            f"+collator@{_TEST}.collator=unconditional_pred_mdlm",
            f"{_TEST}.dataset_constructor_str=mdlm.datamodule_mdlm.MDLMEmptyDataset",
            f"+{_TEST}.dataset_kwargs.max_length=12",
        )
    }

    def call_model(self, model, input_ids, attention_mask):
        noise = torch.full((len(input_ids),), 0.5)
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return model(input_ids, noise, attention_mask=attention_mask, positions=positions)


class ARLM:
    """Predicts the next token, under a causal mask that its caller makes."""

    absent: ClassVar = {
        "mask_token": "it generates from left to right",
        "aligned_targets": "the target of a position is the next token",
    }

    def call_model(self, model, input_ids, attention_mask):
        length = input_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        # A padded position sees itself, so that no row of the mask is empty.
        seen = (causal & attention_mask[:, None, :]) | torch.eye(length, dtype=torch.bool)
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return model(input_ids, attention_mask=seen, positions=positions)


class ILM:
    """Inserts tokens between those that are there; returns the logits and those of stopping."""

    absent: ClassVar = {
        "mask_token": "it inserts tokens",
        "fixed_positions": "it inserts tokens, which moves the others",
        **COUNTS,
    }

    def call_model(self, model, input_ids, attention_mask):
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return model(
            input_ids,
            attention_mask=attention_mask,
            positions=positions,
            token_type_ids=torch.full_like(input_ids, 2),
            cls_position=torch.zeros(len(input_ids), dtype=torch.long),
        )[0]


class FlexMDM:
    """Takes the time of each row; inserts masks and fills them; returns the logits and lengths."""

    optional_modules: ClassVar = CHEMISTRY
    absent: ClassVar = {
        "fixed_positions": "it inserts tokens, which moves the others",
        **NO_TARGETS,
    }

    def call_model(self, model, input_ids, attention_mask):
        return model(input_ids, torch.full((len(input_ids),), 0.5), attention_mask)[0]
