"""Requests of an Inference Endpoint: Hugging Face's toolkit finds this file beside a checkpoint's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from transformers import pipeline


class EndpointHandler:
    """Answers requests with the checkpoint of a folder.

    Args:
        path: The folder; by default the one that this file lies in.
    """

    def __init__(self, path: str = "") -> None:
        self.pipeline: Any = cast(Any, pipeline)(model=path or str(Path(__file__).parent), trust_remote_code=True)

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """Return the answers of a request.

        Args:
            data: ``inputs``, a text, a row or a list of them; and perhaps ``parameters``, options of the pipeline such
                as ``{"tasks": ["rte"], "top_k": 3, "batch_size": 32}``.

        Raises:
            ValueError: There are no inputs, or the pipeline does not take them.
        """
        if not isinstance(data, Mapping) or data.get("inputs") is None:
            raise ValueError('The request has no inputs; expected {"inputs": "a text"}, a row or a list of them.')
        parameters = data.get("parameters") or {}
        others = [] if isinstance(parameters, Mapping) else ["parameters"]
        if others := others or sorted(data.keys() - {"inputs", "parameters"}):
            raise ValueError(
                f"The request has {others[0]}={data[others[0]]!r}; options are a mapping: "
                '{"inputs": ..., "parameters": {"top_k": 3}}.'
            )
        return self.pipeline(data["inputs"], **parameters)
