"""A cascade of tasks: what a parent's head says of a row is an input of its children's states."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from .configuration_multitask import MultiTaskAttentionConfig
from .errors import InputError, check_choice
from .interaction_base import reads_lists
from .problem_heads import TASK_HEADS
from .task_config import TaskConfig
from .task_head import SentenceHead
from .task_tensors import Carried, ModuleWithConstants, TaskTensors, at_least_float32

# By child, in the order of the tasks, its parents in the order of their names.
Parents = dict[str, list[str]]


class TaskParents(ModuleWithConstants):
    """No task has a parent: each head reads its own task's state. What reads answers of parents is a subclass.

    Args:
        config: The tasks.
    """

    # Whether a task's answer depends on other tasks' answers.
    reads_tasks = False

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()

    def forward(
        self, carried: Carried, token_states: torch.Tensor, states: torch.Tensor, rows_by_task: bool = False
    ) -> torch.Tensor:
        """Return the states that heads read, (rows, tasks, hidden).

        Args:
            carried: The heads by problem type.
            token_states: (rows, length, hidden).
            states: (rows, tasks, hidden) H; of tasks without parents, those of the tasks asked.
            rows_by_task: Whether rows are those of one text for each task, one after the other.
        """
        return states


class _ParentAnswers(TaskParents):
    """H'_t = H_t + sum_p W_tp y_p over the parents p of t, y_p what p's head says of the same row (a sum of label
    embeddings weighted by their probabilities, Hashimoto et al. 2017, section 2.3).

    y_p are probabilities: a softmax of classes, a sigmoid of each flag; of a number the standardised number itself.
    The head of p reads H'_p, so that a grandchild reads what its parent says after that has read its own parent.
    W_tp belongs to t and starts at zero. A parent answers the row as it is (with `conditioning` that tells the encoder
    of tasks: as it is encoded for the parent), before `aggregation` merges answers.

    Args:
        config: `task_parents` gives the parents; with `detach_parents` a child's loss does not reach its parents.

    Raises:
        InputError: See `parents_by_child`.
    """

    reads_tasks = True

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.detaches = config.detach_parents
        parents = parents_by_child(config.task_configs, config.task_parents)
        sizes = {task.name: task.num_outputs for task in config.task_configs}
        outputs = {child: sum(sizes[parent] for parent in of_child) for child, of_child in parents.items()}
        self.answer_to_state = TaskTensors(outputs, width=config.hidden_size, std=0.0)
        # Where each parent's answer stands among all; past the end a column of zeros, for children with fewer.
        columns: dict[str, list[int]] = {}
        self.width = 0
        for parent in dict.fromkeys(parent for of_child in parents.values() for parent in of_child):
            columns[parent] = list(range(self.width, self.width + sizes[parent]))
            self.width += sizes[parent]
        depths = {task.name: _depth(task.name, parents) for task in config.task_configs}
        self.generations = nn.ModuleList(
            _Generation(config, parents, columns, depths, depth) for depth in range(max(depths.values()))
        )

    def forward(
        self, carried: Carried, token_states: torch.Tensor, states: torch.Tensor, rows_by_task: bool = False
    ) -> torch.Tensor:
        copies = states.shape[1] if rows_by_task else 1
        matrices = self.answer_to_state()  # (children, outputs, hidden)
        answers = at_least_float32(states.new_zeros(states.shape[0] // copies, self.width + 1))
        for generation in cast(Sequence[_Generation], self.generations):
            answers = generation.say(carried.module, token_states, states, answers, copies)
            read = (answers.detach() if self.detaches else answers).to(matrices.dtype)
            added = torch.einsum(
                "bco,cod->bcd", read[:, generation.places], matrices[generation.matrices]
            )  # (batch, children, hidden)
            added = added.repeat_interleave(copies, dim=0) if rows_by_task else added
            states = states.index_add(1, generation.listeners, added.to(states.dtype))
        return states


class _Speakers(ModuleWithConstants):
    """Parents of one depth and one problem type.

    Args:
        problem_type: The problem type.
        tasks: The parents by their index in the model.
        columns: Where each parent's answer stands among all, by name.
    """

    tasks: torch.Tensor
    outputs: torch.Tensor
    columns: torch.Tensor

    def __init__(
        self, problem_type: str, tasks: Mapping[int, TaskConfig], columns: Mapping[str, Sequence[int]], widest: int
    ) -> None:
        super().__init__()
        self.problem_type = problem_type
        self.set_constant("tasks", list(tasks))
        sizes = [task.num_outputs for task in tasks.values()]
        self.set_constant("outputs", [place * widest + one for place, size in enumerate(sizes) for one in range(size)])
        self.set_constant("columns", [column for task in tasks.values() for column in columns[task.name]])


class _Generation(ModuleWithConstants):
    """The parents of one depth, who speak, and the children one deeper, who by then can hear all of theirs.

    Args:
        config: The tasks.
        parents: Of each child.
        columns: Where each parent's answer stands among all, by name.
        depths: Of each task: 0 without parents, else one more than the deepest parent's.
        depth: That of the parents.
    """

    listeners: torch.Tensor
    matrices: torch.Tensor
    places: torch.Tensor

    def __init__(
        self,
        config: MultiTaskAttentionConfig,
        parents: Parents,
        columns: Mapping[str, Sequence[int]],
        depths: Mapping[str, int],
        depth: int,
    ) -> None:
        super().__init__()
        by_type: dict[str, dict[int, TaskConfig]] = {}
        widest: dict[str, int] = {}
        for index, task in enumerate(config.task_configs):
            # Its head's logits are as wide as the widest task of the type, a parent or not.
            widest[task.problem_type] = max(widest.get(task.problem_type, 0), task.num_outputs)
            if task.name in columns and depths[task.name] == depth:
                by_type.setdefault(task.problem_type, {})[index] = task
        self.speakers = nn.ModuleList(
            _Speakers(problem_type, tasks, columns, widest[problem_type]) for problem_type, tasks in by_type.items()
        )
        children = [child for child in parents if depths[child] == depth + 1]
        self.set_constant("listeners", [config.task_names.index(child) for child in children])
        self.set_constant("matrices", [list(parents).index(child) for child in children])
        read = {child: [column for parent in parents[child] for column in columns[parent]] for child in parents}
        most, none = max(map(len, read.values())), sum(map(len, columns.values()))
        self.set_constant("places", [read[child] + [none] * (most - len(read[child])) for child in children])

    def say(
        self,
        heads: nn.ModuleDict,
        token_states: torch.Tensor,
        states: torch.Tensor,
        answers: torch.Tensor,
        copies: int,
    ) -> torch.Tensor:
        """Return the answers (batch, columns) with those of this generation's parents.

        Args:
            heads: The heads by problem type.
            token_states: (rows, length, hidden).
            states: (rows, tasks, hidden), those of the parents as their heads read them.
            answers: (batch, columns) those of earlier generations.
            copies: How many rows each text has, one per task; 1 where all tasks read one.
        """
        rows = torch.arange(answers.shape[0], device=states.device).unsqueeze(1)  # (batch, 1)
        for speakers in cast(Sequence[_Speakers], self.speakers):
            tasks = speakers.tasks.expand(answers.shape[0], -1)  # (batch, parents)
            places = rows * copies + (tasks if copies > 1 else 0)
            entries = {"rows": places.expand_as(tasks).flatten(), "tasks": tasks.flatten(), "slots": tasks.flatten()}
            head = cast(SentenceHead, heads[speakers.problem_type])
            values = head.answer_values(head(token_states, states, entries))  # (batch * parents, widest)
            values = values.unflatten(0, tasks.shape).flatten(1)[:, speakers.outputs]
            answers = answers.index_copy(1, speakers.columns, values.to(answers.dtype))
        return answers


def parents_by_child(tasks: Sequence[TaskConfig], given: Mapping[str, str | list[str]] | None) -> Parents:
    """Return the parents of each task that has one, in the order of their names.

    Args:
        tasks: The tasks in order.
        given: `task_parents`: by child a parent, or a list of several.

    Raises:
        InputError: An unknown task, a child without parent or with one twice, a task that is its own parent or
            ancestor, a parent whose head does not give one answer per row, or one that the child does not read.
    """
    by_name = {task.name: task for task in tasks}
    parents = {}
    for child, one_or_several in (given or {}).items():
        check_choice("task in task_parents", child, by_name)
        of_child = [one_or_several] if isinstance(one_or_several, str) else list(one_or_several)
        if not of_child or len(set(of_child)) < len(of_child):
            raise InputError(
                f"task_parents gives {child!r} the parents {of_child!r}; expected a task, or several that differ. A "
                "task without parent is left out."
            )
        for parent in of_child:
            check_choice(f"parent of {child!r} in task_parents:", parent, by_name)
            _check_pair(by_name[child], by_name[parent], tasks)
        parents[child] = sorted(of_child)
    for child in parents:
        _check_no_circle(child, parents)
    return {name: parents[name] for name in by_name if name in parents}


def _check_pair(child: TaskConfig, parent: TaskConfig, tasks: Sequence[TaskConfig]) -> None:
    """Raise `InputError` unless one task can read another's answer."""
    if parent.name == child.name:
        raise InputError(f"task_parents gives {child.name!r} itself as parent; name another task, or leave it out.")
    if not issubclass(TASK_HEADS[parent.problem_type], SentenceHead):
        others = [
            task.name
            for task in tasks
            if task.name != child.name and issubclass(TASK_HEADS[task.problem_type], SentenceHead)
        ]
        raise InputError(
            f"task_parents gives {child.name!r} the parent {parent.name!r} ({parent.problem_type}), which answers "
            "word pieces, windows or choices; a parent must give one answer per row. Tasks here that do: "
            f"{', '.join(others) or 'none'}. To let it read the states of {parent.name!r} instead, leave it out and "
            "choose a task_interaction, e.g. cross_task_attention."
        )
    if child.reads is not None and parent.name not in child.reads:
        raise InputError(
            f"Task {child.name!r} has reads={child.reads!r}, and task_parents gives it the parent {parent.name!r}; "
            f"add {parent.name!r} to its `reads`, or leave it out of task_parents."
        )


def _check_no_circle(start: str, parents: Parents) -> None:
    """Raise `InputError` if a task is among its own ancestors."""
    ways = [[start]]
    while ways:
        way = ways.pop()
        for parent in parents.get(way[-1], ()):
            if parent == start:
                circle = " reads ".join(map(repr, [*way, start]))
                raise InputError(f"task_parents is a circle: {circle}. Leave one of these parents out.")
            if parent not in way:
                ways.append([*way, parent])


def _depth(name: str, parents: Parents) -> int:
    return 1 + max(_depth(parent, parents) for parent in parents[name]) if name in parents else 0


def rows_of_others(name: str, owner: str, config: MultiTaskAttentionConfig) -> list[Any]:
    """Return what the rows of a task's tensor stand for: outputs of its parents, or tasks that it reads.

    Args:
        name: The tensor's.
        owner: The task.
        config: The tasks.
    """
    if ".task_parents." not in name:
        return [config.task_names[place] for place in reads_lists(config)[owner]]
    sizes = {task.name: task.num_outputs for task in config.task_configs}
    parents = parents_by_child(config.task_configs, config.task_parents)[owner]
    return [(parent, place) for parent in parents for place in range(sizes[parent])]


def without_tasks(given: Mapping[str, Any], others: Collection[str]) -> dict[str, Any]:
    """Return what a mapping says of tasks that are not among some others, as their parents too; a child that keeps no
    parent is left out.
    """
    kept = {}
    for name, value in given.items():
        is_list = isinstance(value, list)
        remaining = [item for item in (value if is_list else [value]) if item not in list(others)]
        if name not in others and (remaining or value == []):
            kept[name] = remaining if is_list else value
    return kept


def build_parents(config: MultiTaskAttentionConfig) -> TaskParents:
    """Return the part that tells children of their parents' answers; the identity where no task has a parent."""
    return (_ParentAnswers if config.task_parents else TaskParents)(config)
