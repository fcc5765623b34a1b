"""An encoder of each task's own, with or without one that tasks share, and what reads them."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from .encoder_reader import Conditions, EncoderReader, refuse_export
from .encoder_tensors import EncodedTokens, EncoderInputs
from .errors import InputError
from .several_encoders import SeveralEncoders
from .task_tensors import Carried, task_key


class SeparateEncoders(SeveralEncoders):
    """An encoder of each task's own; they start as copies of one.

    Args:
        encoder: The encoder, which becomes the first task's.
        task_names: The tasks in order.
    """

    def __init__(self, encoder: PreTrainedModel, task_names: Sequence[str]) -> None:
        super().__init__()
        others = {task_key(name): copy.deepcopy(encoder) for name in task_names[1:]}
        self.encoders = nn.ModuleDict({task_key(task_names[0]): encoder, **others})

    def __iter__(self) -> Iterator[Any]:
        return iter(self.encoders.values())

    @property
    def first(self) -> Any:
        """The encoder that speaks for all: the first task's."""
        return next(iter(self))

    def reader(self, layers: bool, axis: int = -1) -> "SeparateReader":
        """Return what reads the encoders.

        Args:
            layers: Whether the states of all layers are read.
            axis: See `EncoderReader`.
        """
        return SeparateReader(self, layers, axis)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Raise `InputError`: there are several."""
        raise InputError("A model of separate encoders has word embeddings for each task; they cannot be replaced.")


class PrivateEncoders(SeparateEncoders):
    """An encoder that tasks share, and beside it one of each task's own; they start as copies of one.

    Args:
        encoder: The encoder, which becomes the shared one.
        task_names: The tasks in order.
    """

    def __init__(self, encoder: PreTrainedModel, task_names: Sequence[str]) -> None:
        super().__init__(copy.deepcopy(encoder), task_names)
        encoders = self.encoders
        del self.encoders
        # The shared one is listed first: its configuration is the model's own, the others' are copies.
        self.shared, self.encoders = encoder, encoders

    @property
    def first(self) -> Any:
        """The encoder that speaks for all: the shared one."""
        return self.shared

    def reader(self, layers: bool, axis: int = -1) -> "PrivateReader":
        """Return what reads the encoders; see `SeparateEncoders.reader`."""
        return PrivateReader(self, layers, axis)


class SeparateReader(nn.Module):
    """Reads a `SeparateEncoders`: each row with the encoder of its task.

    Args:
        encoders: The encoders.
        layers: Whether the states of all layers are read.
        axis: See `EncoderReader`.
    """

    def __init__(self, encoders: SeparateEncoders, layers: bool = False, axis: int = -1) -> None:
        super().__init__()
        self.readers = nn.ModuleList(EncoderReader(encoder, layers, axis=axis) for encoder in encoders)
        self.accepted = cast(EncoderReader, self.readers[0]).accepted

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
        refuse_export("conditioning=separate_encoders or private_encoders reads each task's rows apart")
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
            torch.cat([one.mask for one in outputs])[order],
            together([one.pooled for one in outputs]),
            inputs.ids,
            by_layer(one.layers for one in outputs),
            inputs.tasks.unsqueeze(1),
            hidden_states=by_layer(one.hidden_states for one in outputs),
            attentions=by_layer(one.attentions for one in outputs),
        )


class PrivateReader(SeparateReader):
    """Reads a `PrivateEncoders`: each row once with the shared encoder, and once for each of its tasks with the task's
    own. The token states are the mean of both; either view stands beside it.

    Args:
        encoders: The encoders.
        layers: Whether the states of all layers are read.
        axis: See `EncoderReader`.
    """

    def __init__(self, encoders: PrivateEncoders, layers: bool = False, axis: int = -1) -> None:
        super().__init__(encoders, layers, axis)
        self.shared = EncoderReader(encoders.shared, layers, axis=axis)

    def forward(
        self,
        carried: Carried,
        inputs: EncoderInputs,
        conditions: Conditions,
        flags: Mapping[str, Any] = MappingProxyType({}),
    ) -> EncodedTokens:
        """Return what the encoders say of each row and task, one row's tasks after those of another.

        Args:
            carried: The encoders.
            inputs: The rows; `tasks` (rows, asked) are those of each.
            conditions: What the encoders are told.
            flags: See `EncoderReader.forward`.

        Raises:
            InputError: The model is being exported.
        """
        assert inputs.tasks is not None
        count, rows = inputs.tasks.shape[1], torch.arange(inputs.tasks.shape[0], device=inputs.tasks.device)
        by_task = inputs.select(rows.repeat_interleave(count))._replace(tasks=inputs.tasks.flatten())
        private = super().forward(carried, by_task, conditions, flags)
        once = self.shared(Carried(carried.module.shared), inputs._replace(tasks=None), conditions, flags)
        shared = private._replace(
            states=once.states.repeat_interleave(count, dim=0),
            pooled=_repeated(once.pooled, count),
            layers=_repeated(once.layers, count),
            hidden_states=_repeated(once.hidden_states, count),
            attentions=_repeated(once.attentions, count),
        )
        return private._replace(
            states=_mean(private.states, shared.states),
            pooled=_mean(private.pooled, shared.pooled),
            layers=_mean(private.layers, shared.layers),
            hidden_states=_mean(private.hidden_states, shared.hidden_states),
            attentions=_mean(private.attentions, shared.attentions),
            views=(private, shared),
        )


def _repeated(values: Any, count: int) -> Any:
    """Each row so many times, of a tensor, of several or of none."""
    if isinstance(values, tuple):
        return tuple(_repeated(value, count) for value in values)
    return None if values is None else values.repeat_interleave(count, dim=0)


def _mean(first: Any, second: Any) -> Any:
    """The mean of two tensors, of tensors of two tuples or of none; of two that are equal, exactly these."""
    if isinstance(first, tuple):
        return tuple(map(_mean, first, second))
    return None if first is None else (first + second) / 2
