"""Several encoders in one model, and those of several modalities."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from .encoder_tensors import EncodedTokens
from .modalities import modality_of_encoder
from .task_tensors import UnitScaleLinear


class SeveralEncoders(nn.Module, ABC):
    """The encoders of a model that has several."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Go through the encoders, in order."""

    @property
    @abstractmethod
    def first(self) -> Any:
        """The encoder that speaks for all."""

    def get_input_embeddings(self) -> nn.Module:
        """Return the first encoder's."""
        return self.first.get_input_embeddings()

    @abstractmethod
    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the first encoder's, or raise `InputError` where that cannot be."""


class Trunks(SeveralEncoders):
    """The encoders of several modalities.

    Args:
        encoders: By modality, in order; the first one's width is that of the model.
        widths: Of the encoders' states, in the same order.
    """

    def __init__(self, encoders: Mapping[str, PreTrainedModel], widths: Sequence[int]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.projections = nn.ModuleDict(
            {name: UnitScaleLinear(width, widths[0]) for name, width in zip(encoders, widths) if width != widths[0]}
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self.encoders.values())

    @property
    def first(self) -> Any:
        """The encoder that speaks for all: the first modality's."""
        return next(iter(self))

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the first trunk's."""
        self.first.set_input_embeddings(value)

    def projected(self, name: str, view: EncodedTokens) -> EncodedTokens:
        """Return what a trunk said, its states as wide as the first one's."""
        if name not in self.projections:
            return view
        projection = cast(nn.Linear, self.projections[name])
        # An encoder may be in half precision where the parts behind it are not.
        return view._replace(states=projection(view.states.to(projection.weight.dtype)))


def first_encoder(encoder: Any) -> PreTrainedModel:
    """Return a model's encoder; of several, the one that speaks for all."""
    return encoder.first if isinstance(encoder, SeveralEncoders) else encoder


def encoders_by_modality(encoder: Any) -> dict[str, PreTrainedModel]:
    """Return the encoders of a model by what they read; of separate ones of one modality the first."""
    if isinstance(encoder, Trunks):
        return cast(dict[str, PreTrainedModel], dict(encoder.encoders.items()))
    first = first_encoder(encoder)
    return {modality_of_encoder(first): first}
