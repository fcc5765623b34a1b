"""The base of what reads images, sounds and rows of tables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from .encoder_modules import accepted_inputs
from .modalities import input_names


class ModalityReader(ABC):
    """Reads the values of one field.

    Args:
        encoder: What reads its tensors.
        processor: The values of the processor that makes them, of Transformers.
        prefixed: Whether the model has other encoders too (see `input_names`).
    """

    modality: ClassVar[str]

    def __init__(self, encoder: PreTrainedModel, processor: Mapping[str, Any] | None, prefixed: bool) -> None:
        accepted = list(accepted_inputs(encoder))
        self.names = input_names(self.modality, accepted) if prefixed else dict(zip(accepted, accepted))

    @abstractmethod
    def check(self, value: Any) -> int:
        """Return about how many states a value becomes; look no further into it than that takes.

        Raises:
            ValueError: It cannot be read; the message follows "the image is ...; ".
        """

    def is_cut(self, value: Any) -> bool:
        """Return whether a value is longer than what is read of it."""
        return False

    def key(self) -> str:
        """Return what `check` and `is_cut` depend on."""
        return ""

    @abstractmethod
    def read(self, values: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return the inputs of values by the names of the encoder's `forward`."""

    def tensors(self, values: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return the inputs of values by the names that the model takes."""
        return {self.names[name]: value for name, value in self.read(values).items() if name in self.names}
