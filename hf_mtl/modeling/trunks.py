"""A trunk per modality: the encoders of texts, images, sounds and tables beside each other, and what reads them.

Every trunk reads the rows that have its modality; what it says is brought to the first trunk's width. A task's state
is pooled from its own fields' trunks. In a row that lacks one of them the task has no state: it is zero, and no other
task reads it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_reader import Conditions, EncoderReader
from .encoder_tensors import EncodedTokens, EncoderInputs
from .errors import InputError
from .head import BranchReading, HeadReading
from .interaction_base import TaskInteraction
from .modalities import ROW_MODALITIES, TEXT, input_names, modalities_of, rows_name
from .plain_rows import other_inputs
from .pooling import TASK_POOLINGS, TaskPooling
from .several_encoders import Trunks
from .task_tensors import Carried, ModuleWithConstants, pick_tasks


class TrunkReader(nn.Module):
    """Reads a `Trunks`; it has no parameters of its own.

    Args:
        trunks: The encoders.
        config: The tasks and their fields.
        axes: Of the hidden size in what each encoder returns, from the end.
    """

    def __init__(self, trunks: Trunks, config: MultiTaskAttentionConfig, axes: Sequence[int]) -> None:
        super().__init__()
        self.modalities = list(trunks.encoders)
        self.readers = nn.ModuleDict(
            {
                name: EncoderReader(cast(PreTrainedModel, encoder), axis=axis)
                for (name, encoder), axis in zip(trunks.encoders.items(), axes)
            }
        )
        self.names: dict[str, dict[str, str]] = {}
        for name, reader in self.readers.items():
            accepted = cast(EncoderReader, reader).accepted
            self.names[name] = input_names(name, accepted)
        taken = [new for names in self.names.values() for new in names.values()]
        if twice := sorted({name for name in taken if taken.count(name) > 1}):
            raise InputError(
                f"Two of the encoders of {', '.join(self.modalities)} read an input called {twice[0]!r}, and nothing "
                "says whose it is; take another encoder for one of them."
            )
        self.accepted = [*taken, ROW_MODALITIES, *map(rows_name, self.modalities)]
        needs = [modalities_of(task.input_fields) for task in config.task_configs]
        self.needs = [[name in needed for name in self.modalities] for needed in needs]

    def forward(
        self,
        carried: Carried,
        inputs: EncoderInputs,
        conditions: Conditions,
        flags: Mapping[str, Any] = MappingProxyType({}),
    ) -> EncodedTokens:
        """Return what the first trunk that reads something says, and beside it what each says.

        Args:
            carried: The `Trunks`.
            inputs: The rows; `others` holds the inputs of all trunks but texts.
            conditions: What encoders are told of tasks, which is nothing here.
            flags: See `EncoderReader.forward`; of several encoders there is no order of layers.

        Raises:
            InputError: Hidden states or attentions of several encoders are asked for.
        """
        if flags:
            raise InputError(
                f"{next(iter(flags))} is of one encoder, and this model has those of {', '.join(self.modalities)}; "
                "leave it out, or call one of them: model.encoder.encoders['image'](...)."
            )
        trunks, views = cast(Trunks, carried.module), {}
        count = inputs.mask.shape[0]
        for name, encoder in trunks.encoders.items():
            of_trunk = self._inputs_of(name, inputs)
            if of_trunk is None:
                continue
            rows = inputs.others.get(rows_name(name))
            if rows is not None and name == TEXT:
                of_trunk = of_trunk.select(rows)
            view = cast(EncoderReader, self.readers[name])(Carried(encoder), of_trunk, conditions)
            view = trunks.projected(name, view)
            views[name] = view if rows is None else _spread(view, rows, count)
        first = views.get(TEXT) or next(iter(views.values()))
        return first._replace(ids=inputs.ids, by_modality=views, task_mask=self._task_mask(views, inputs))

    def given_modalities(self, inputs: EncoderInputs) -> list[str]:
        """Return the modalities of which there are inputs."""
        return [name for name in self.modalities if self._inputs_of(name, inputs) is not None]

    def answerable(self, inputs: EncoderInputs) -> list[int]:
        """Return the tasks that can be answered of the modalities of which there are inputs."""
        given = self.given_modalities(inputs)
        present = [name in given for name in self.modalities]
        return [
            task for task, needs in enumerate(self.needs) if all(has or not need for has, need in zip(present, needs))
        ]

    def _inputs_of(self, name: str, inputs: EncoderInputs) -> EncoderInputs | None:
        """A trunk's own inputs by its own names; None where there are none."""
        names = self.names[name]
        others = {name_there: inputs.others[given] for name_there, given in names.items() if given in inputs.others}
        if name == TEXT:
            return inputs._replace(others={}) if inputs.is_of_words else None
        if not others:
            return None
        return other_inputs(others)

    def _task_mask(self, views: Mapping[str, EncodedTokens], inputs: EncoderInputs) -> torch.Tensor:
        """(rows, tasks), True where a row has all that a task reads."""
        mask = inputs.mask
        has = inputs.others.get(ROW_MODALITIES)
        if has is None:
            has = mask.new_tensor([name in views for name in self.modalities]).expand(mask.shape[0], -1)
        needs = torch.tensor(self.needs, device=mask.device)  # (tasks, modalities)
        return (has.bool()[:, None] | ~needs).all(dim=-1)


def _spread(view: EncodedTokens, rows: torch.Tensor, count: int) -> EncodedTokens:
    """What was said of some rows as a batch of all of them; the others' states are zero, and so is their mask."""

    def of_all(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_copy(0, rows, values)

    return EncodedTokens(of_all(view.states), of_all(view.mask))


class ModalityPooling(ModuleWithConstants):
    """Pools each task's state from the trunks of its own fields.

    Args:
        config: The tasks.
    """

    group_of_task: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()
        needs = [modalities_of(task.input_fields) for task in config.task_configs]
        self.groups = list(dict.fromkeys(needs))
        self.set_constant("group_of_task", [self.groups.index(needed) for needed in needs])

    def forward(self, pooling: TaskPooling, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        """Return S (rows, asked, hidden), zero where a row lacks what its task reads.

        Args:
            pooling: The model's pooling.
            tokens: What the trunks said.
            asked_tasks: (rows, asked) task indices; None for all.
        """
        groups = self.group_of_task if asked_tasks is None else self.group_of_task[asked_tasks]
        assert tokens.task_mask is not None
        present = pick_tasks(tokens.task_mask.unsqueeze(-1), asked_tasks)  # (rows, asked, 1)
        states: torch.Tensor | None = None
        for place, group in enumerate(self.groups):
            if not all(name in tokens.by_modality for name in group):
                continue
            pooled = pooling(_joined([tokens.by_modality[name] for name in group]), asked_tasks)
            is_of_group = (groups == place).unsqueeze(-1)  # ([rows,] asked, 1)
            part = pooled.masked_fill(~(is_of_group & present), 0.0)
            states = part if states is None else states + part
        if states is None:
            raise InputError(
                "No task can be answered from what is given; expected the inputs of one at least: "
                f"{' or '.join(' and '.join(group) for group in self.groups)}."
            )
        return states


def tasks_without_company(config: MultiTaskAttentionConfig) -> list[str]:
    """Return the tasks whose rows have no other task's state, where rows hold no more than what their tasks read."""
    if len(config.modalities or ()) < 2:
        return []
    needs = {task.name: set(modalities_of(task.input_fields)) for task in config.task_configs}
    return [
        name
        for name, read in needs.items()
        if not any(others <= read for other, others in needs.items() if other != name)
    ]


def check_trunks(config: MultiTaskAttentionConfig, interaction: TaskInteraction, reading: HeadReading) -> None:
    """Raise `InputError` for a setting that several encoders do not have, or do not go with.

    Args:
        config: The settings.
        interaction: How tasks read each other.
        reading: What heads read.
    """
    beside = f"beside encoders of {', '.join(row['name'] for row in config.modalities or ())}"
    one = "is of one encoder"
    pooling = TASK_POOLINGS[config.pooling]
    refused = {
        f"conditioning={config.conditioning}": config.conditioning != "none" and one,
        f"lexical_rank={config.lexical_rank}": config.lexical_rank and one,
        f"pooling={config.pooling}": (pooling.reads_layers or pooling.reads_pooler) and one,
        f"pooling_entropy={config.pooling_entropy}": config.pooling_entropy and one,
        f"head={config.head}": isinstance(reading, BranchReading) and reading.branch_class.reads_tokens and one,
        f"task_interaction={config.task_interaction}": not interaction.masks_tasks
        and "reads the states of all tasks, of which rows of one modality have some",
        "task_parents": bool(config.task_parents) and "reads the answers of other tasks to the same row",
        f"aggregation={config.aggregation}": config.aggregation != "none" and "merges the answers to the same row",
    }
    for setting, why in refused.items():
        if why:
            raise InputError(f"{setting} {why}, and cannot be used {beside}; leave it out, or take one encoder.")


def _joined(views: Sequence[EncodedTokens]) -> EncodedTokens:
    """Several trunks' states behind one another."""
    if len(views) == 1:
        return views[0]
    return EncodedTokens(
        torch.cat([view.states for view in views], dim=1), torch.cat([view.mask for view in views], dim=1)
    )


__all__ = ["ModalityPooling", "TrunkReader", "check_trunks", "tasks_without_company"]
