"""The likelihood of predicted texts under a saved masked language model, for the host."""

from collections.abc import Mapping
from typing import Any

from xlm_mlm.scoring.scorer import Scorer


class LikelihoodPostHocEval:
    """Scores the `text` of predictions, when an epoch has ended.

    The model is read when it is first needed, from the checkpoint alone, and kept.

    Args:
        checkpoint: a training checkpoint, or a folder that `xlm-mlm save` wrote.
        weights: of a checkpoint: `raw`, `ema`, or `auto`: the EMA weights if it has them.
        trust: make whatever classes the checkpoint's config names.
        text_field: of a prediction, to be scored.
        prefix: of the names of all results, where several evaluators would share them.
        options: of `xlm_mlm.scoring.scorer.Scorer`: `num_mc_samples`, `seed`, `batch_size`,
            `device`, `method`, `add_bos`, `add_eos`.
    """

    def __init__(
        self,
        checkpoint: str,
        weights: str = "auto",
        trust: bool = False,
        text_field: str = "text",
        prefix: str = "",
        **options: Any,
    ) -> None:
        self.checkpoint, self.weights, self.trust = checkpoint, weights, trust
        self.text_field, self.prefix, self.options = text_field, prefix, options
        self._scorer: Scorer | None = None

    def eval(
        self,
        predictions: list[dict[str, Any]],
        tokenizer: Any = None,
        dataloader_name: str | None = None,
        **kwargs: Any,
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Score each prediction, and all together.

        Args:
            predictions: rows with a text; left as they are.
            tokenizer: not used: the checkpoint has its own.
            dataloader_name: for messages.
            kwargs: whatever else the host gives.

        Returns:
            The rows with `nll`, `num_tokens`, `bits_per_token` and `perplexity`; and the same of
            all, as `Scorer.summary` gives it, without what is no finite number.

        Raises:
            ValueError: a prediction has no text, or one that can't be scored.
            FileNotFoundError: there is no such checkpoint.
        """
        scorer = self._scorer = self._scorer or Scorer.from_checkpoint(
            self.checkpoint,
            weights=self.weights,  # type: ignore[arg-type]
            trust=self.trust,
            **self.options,
        )
        rows = []
        for number, prediction in enumerate(predictions):
            try:
                rows.append(scorer.read(self._text(prediction)))
            except ValueError as error:
                where = f" of {dataloader_name}" if dataloader_name else ""
                raise ValueError(f"prediction {number}{where}: {error}") from error
        scores = list(scorer.score(rows))
        scored = [
            {**prediction, **self._named(score)}
            for prediction, score in zip(predictions, scores, strict=True)
        ]
        total = {key: each for key, each in scorer.summary(scores).items() if each is not None}
        return scored, self._named(total)

    def _text(self, prediction: Mapping[str, Any]) -> str:
        text = prediction.get(self.text_field)
        if not isinstance(text, str):
            raise ValueError(
                f"it has no text in {self.text_field!r}; its fields: "
                f"{', '.join(map(str, prediction)) or 'none'}"
            )
        return text

    def _named(self, score: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{self.prefix}{name}": value for name, value in score.items()}
