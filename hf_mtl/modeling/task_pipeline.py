"""The model behind `transformers.pipeline`."""

from collections.abc import Mapping
from typing import Any, cast

from transformers import Pipeline

from .errors import InputError


class MultiTaskPipeline(Pipeline):
    """`pipeline("multitask", model=...)`: texts or rows in, the answers of `predict` out.

    A single text or row gives a dictionary by task name, several give a list of them.

    Args:
        tasks: The tasks to answer, here or in a call; by default all whose input fields a row has.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(set(options) - {"tasks"})
        if unknown:
            raise InputError(f"The pipeline takes no {unknown[0]!r}; expected `tasks` and `batch_size`.")
        return {}, options, {}

    def __call__(self, inputs: Any, *, batch_size: int | None = None, num_workers: int = 0, **options: Any) -> Any:
        """Answer texts or rows; see `MultiTaskAttentionModel.predict`.

        Args:
            inputs: A text or a row, or several: a list, a data set or a generator.
            batch_size: Rows in one pass of the encoder.
            num_workers: 0: rows are read in this process.
            **options: `tasks`, see above.

        Raises:
            InputError: An option that the pipeline does not take, or a row that cannot be answered.
        """
        if workers := num_workers or self._num_workers:
            raise InputError(f"num_workers={workers}: the pipeline reads rows in its own process; leave it out.")
        _, settings, _ = self._sanitize_parameters(**options)
        is_single = isinstance(inputs, (str, Mapping))
        rows = [inputs] if is_single else list(inputs)
        size = batch_size or self._batch_size or 1
        answers = self._forward(self.preprocess(rows), batch_size=size, **{**self._forward_params, **settings})
        return answers[0] if is_single else answers

    def preprocess(self, inputs: Any, **options: Any) -> Any:
        """Return rows as they are: the model makes its inputs of them."""
        return inputs

    def _forward(self, rows: Any, **options: Any) -> Any:
        return cast(Any, self.model).predict(rows, tokenizer=self.tokenizer, **options)

    def postprocess(self, answers: Any, **options: Any) -> Any:
        """Return answers as they are: the model has decoded them."""
        return answers
