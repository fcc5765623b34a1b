"""An encoder of each task's own, and what reads them."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .encoder_reader import Conditions, EncodedTokens, EncoderInputs, EncoderReader, refuse_export
from .errors import InputError
from .task_tensors import Carried, task_key


class SeparateEncoders(nn.Module):
    """An encoder of each task's own.

    Args:
        encoders: The encoders by task name, in task order.
    """

    def __init__(self, encoders: Mapping[str, PreTrainedModel]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({task_key(name): encoder for name, encoder in encoders.items()})

    def __iter__(self) -> Iterator[Any]:
        return iter(self.encoders.values())

    def get_input_embeddings(self) -> nn.Module:
        """Return the first encoder's."""
        return next(iter(self)).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Raise `InputError`: there are several."""
        raise InputError("A model of separate encoders has word embeddings for each task; they cannot be replaced.")


class SeparateReader(nn.Module):
    """Reads a `SeparateEncoders`: each row with the encoder of its task.

    Args:
        encoders: The encoders.
        layers: Whether the states of all layers are read.
    """

    def __init__(self, encoders: SeparateEncoders, layers: bool = False) -> None:
        super().__init__()
        self.readers = nn.ModuleList(EncoderReader(encoder, layers) for encoder in encoders)

    def forward(
        self,
        carried: Carried,
        inputs: EncoderInputs,
        conditions: Conditions,
        flags: Mapping[str, Any] = MappingProxyType({}),
    ) -> EncodedTokens:
        """Return what the encoders say of the inputs, row by row; see `EncoderReader.forward`.

        Raises:
            InputError: The model is being exported.
        """
        refuse_export("conditioning=separate_encoders reads each task's rows apart")
        assert inputs.tasks is not None
        places, outputs = [], []
        for task, (encoder, reader) in enumerate(zip(carried.module, self.readers)):
            rows = (inputs.tasks == task).nonzero().flatten()
            if rows.shape[0]:
                places.append(rows)
                outputs.append(reader(Carried(encoder), inputs.select(rows), conditions, flags))
        order = torch.cat(places).argsort()

        def together(parts: list[Any]) -> torch.Tensor | None:
            return None if parts[0] is None else torch.cat(parts)[order]

        def by_layer(of_encoders: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
            return tuple(together(list(layer)) for layer in zip(*of_encoders))

        return EncodedTokens(
            torch.cat([one.states for one in outputs])[order],
            inputs.mask,
            together([one.pooled for one in outputs]),
            inputs.ids,
            by_layer(one.layers for one in outputs),
            inputs.tasks.unsqueeze(1),
            hidden_states=by_layer(one.hidden_states for one in outputs),
            attentions=by_layer(one.attentions for one in outputs),
        )


def first_encoder(encoder: Any) -> PreTrainedModel:
    """Return a model's encoder; of separate ones, the first task's."""
    return next(iter(encoder)) if isinstance(encoder, SeparateEncoders) else encoder
