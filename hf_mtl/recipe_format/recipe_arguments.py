"""The arguments of a recipe beside those of its training: the encoder and the parts, the rows and the card."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..modeling.errors import InputError, check_choice
from ..modeling.systems import SYSTEMS
from ..training.derived_arguments import json_mapping
from ..training.training_order import TRAINING_ORDERS
from .model_settings import mapping_settings, setting_fields

# Keys of the model that say how its encoder is loaded, and are no settings of the parts.
_NOT_SETTINGS = ("encoder", "system", "trust_remote_code", "dtype")
# Precisions of weights that a run can train; mixed precision (bf16, fp16) keeps them float32.
_DTYPES = ("float32", "bfloat16")


_Settings: Any = dataclasses.make_dataclass("_Settings", setting_fields())


@dataclass
class ModelArguments(_Settings):
    """The encoder, and the settings of `MultiTaskAttentionConfig`."""

    encoder: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "A Hub name, a folder, or package:<module>/<folder>; or encoders by modality (text, image, audio, "
            "table), each of these or the values of its configuration; on a command line as JSON."
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Whether to run the code that an encoder brings along; read it first."}
    )
    dtype: str = field(
        default="float32", metadata={"help": f"Precision of the weights, however stored: {', '.join(_DTYPES)}."}
    )
    system: str | None = field(
        default=None,
        metadata={"help": f"A system of the literature, which other keys change: {', '.join(SYSTEMS)}."},
    )

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, _DTYPES)
        if not isinstance(self.encoder, str) or self.encoder.startswith("{"):
            self.encoder = json_mapping("encoder", self.encoder, "a name, or encoders by modality")
        for name in mapping_settings():
            setattr(self, name, json_mapping(name, getattr(self, name), 'values by task such as {"rte": ...}'))

    def settings(self) -> dict[str, Any]:
        """Return the settings of `MultiTaskAttentionConfig`."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in _NOT_SETTINGS}

    def encoder_kwargs(self) -> dict[str, Any]:
        """Return what the encoder's `from_pretrained` is given."""
        return {"trust_remote_code": self.trust_remote_code, "dtype": self.dtype}


@dataclass
class DataArguments:
    """Arguments of the rows: their source, which are used, in which order, and what is reported."""

    data_dir: str | None = field(
        default=None, metadata={"help": "A folder with a folder per task (parquet, csv, jsonl), in place of the Hub."}
    )
    exclude_overlap: bool | None = field(
        default=None,
        metadata={
            "help": "Drop training rows whose input, of 12 letters and digits or more, stands in any task's held-out "
            "split. By default they are dropped, unless they are more than half of a task's rows: then the program "
            "asks for true or false."
        },
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={
            "help": "Training rows of each task at most, drawn with the seed; tasks of one source draw the same."
        },
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Held-out rows of each task at most, a random part that no seed changes."}
    )
    baselines: bool = field(
        default=True, metadata={"help": "Whether the final table shows the trivial predictor and TF-IDF + linear."}
    )
    doctor: bool = field(
        default=True, metadata={"help": "Whether to look the run over before it trains, and to time a step."}
    )
    report_parts: bool = field(
        default=True, metadata={"help": "Whether to measure at the end what each part of the model contributes."}
    )
    training_order: str = field(
        default="joint", metadata={"help": f"Which tasks and parts train when: {', '.join(TRAINING_ORDERS)}."}
    )
    intermediate_tasks: list[str] | None = field(
        default=None, metadata={"help": "Of intermediate_transfer: the tasks that train first."}
    )
    description: str | None = field(
        default=None, metadata={"help": "What the model reads and answers, in a sentence on its card."}
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "The rows' languages on the model's card, as codes: en de."}
    )
    license: str | None = field(
        default=None, metadata={"help": "The model's licence on its card, such as apache-2.0; its owner chooses it."}
    )

    def __post_init__(self) -> None:
        check_choice("training_order", self.training_order, TRAINING_ORDERS)
        for name in ("intermediate_tasks", "language"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        if self.intermediate_tasks and self.training_order != "intermediate_transfer":
            raise InputError("intermediate_tasks goes with training_order=intermediate_transfer.")
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value!r}; expected a whole number >= 1.")
