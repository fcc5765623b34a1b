"""Data sets that are read as they come, mixed like those in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils import data

from ..modeling.errors import InputError
from ..modeling.processing_multitask import MultiTaskProcessor
from ..tasks import LABEL_FIELD, TaskSpec, tasks_by_source
from .batch_forms import BATCH_FORMS, StepShape
from .canonical import canonical_splits
from .collator import MultiTaskCollator
from .dataset_forms import dataset_of_rows
from .draws import CyclicDraws, FixedDraws
from .features import FeatureDataset
from .image_augmentation import ImageAugmentation
from .label_columns import is_missing
from .mixing import MixingStrategy, TaskShare
from .sampler import WINDOW_STEPS

# Strategies that need no numbers of rows, which a stream does not know.
STREAM_STRATEGIES = ("uniform", "explicit", "round_robin")
# A stream has no epochs that a Trainer could count.
_ENDLESS = 2**62
STREAM_STATE = "stream_state"


class StreamedMixture(data.IterableDataset):
    """The batches of one process, made of its part of every stream; a stream that ends begins again.

    Rows come in the order of the streams, in windows of `WINDOW_STEPS` steps inside which rows of similar length share
    a batch. A batch carries, as ``stream_state``, where the streams stood: JSON values from which `load_state` goes
    on. Each process reads its own shards (or every n-th row, where the shards cannot be divided). Rows that
    `IterableDataset.shuffle` had in its buffer are lost on resume, as `datasets` says.

    Args:
        processor: Knows the tokenizer and the tasks' order.
        specs: The tasks by name, with their labels.
        streams: The data sets by source.
        mixing: One of `STREAM_STRATEGIES`.
        shape: How large this process's part of a step is.
        form: A name of `BATCH_FORMS`.
        grouped: Whether rows of similar length share a batch.
        seed: Decides what is left open.
        process: This process, and how many there are.
        augmentation: What becomes of an image whenever it is drawn; None leaves it as it is.

    Raises:
        InputError: A task whose rows become several inputs.
    """

    epoch_steps = _ENDLESS

    def __init__(
        self,
        processor: MultiTaskProcessor,
        specs: Mapping[str, TaskSpec],
        streams: Mapping[str, IterableDataset],
        mixing: MixingStrategy,
        shape: StepShape,
        form: str = "mixed",
        grouped: bool = True,
        seed: int = 42,
        process: tuple[int, int] = (0, 1),
        augmentation: ImageAugmentation | None = None,
    ) -> None:
        for spec in specs.values():
            if spec.problem.inputs == "windows":
                raise InputError(
                    f"Task {spec.name!r} cannot be streamed: a context becomes as many inputs as it has windows. Load "
                    "its data set into memory."
                )
        self.processor, self.specs, self.shape, self.grouped, self.seed = processor, specs, shape, grouped, seed
        self.processes, self.augmentation = process[1], augmentation
        self.tasks_of = tasks_by_source(specs.values())
        self.sizes = dict.fromkeys(self.tasks_of, 0)
        self.form = BATCH_FORMS[form]()
        shares = mixing.shares(np.ones(len(self.sizes)))
        self.block_rows = self.form.block_rows(shape)
        self.window_draws = WINDOW_STEPS * shape.rows // self.block_rows
        self.draws = CyclicDraws(len(self.sizes)) if mixing.cyclic else FixedDraws(shares, self.window_draws)
        self.collate = MultiTaskCollator(processor)
        self.streams = {
            name: split_dataset_by_node(streams[name], *process) if process[1] > 1 else streams[name]
            for name in self.tasks_of
        }
        # The sources of the window at hand.
        self._read: list[str] = []
        self._start: dict[str, Any] = {"window": 0, "step": 0, "passes": dict.fromkeys(self.sizes, 0), "streams": {}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on after the batches of the step whose state this is."""
        self._start = {**state, "step": state["step"] + 1}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        start = self._start
        passes = dict(start["passes"])
        for name, stream in self.streams.items():
            stream.set_epoch(passes[name])
            if name in start["streams"]:
                stream.load_state_dict(start["streams"][name])
        # Where each stream stands; one that was not read from yet has no state of its own.
        reached = dict(start["streams"])
        rows = {name: self._rows(name, passes, name in reached) for name in self.streams}
        window, first = start["window"], start["step"]
        while True:
            # Where this window begins: what it holds follows from that.
            state = {"window": window, "passes": dict(passes), "streams": dict(reached)}
            for step, batches in enumerate(self._window(window, rows)):
                if step >= first:
                    for batch in batches:
                        yield {**batch, STREAM_STATE: {**state, "step": step}}
            reached.update({name: self.streams[name].state_dict() for name in self._read})
            window, first = window + 1, 0

    def _rows(self, source: str, passes: dict[str, int], resumed: bool) -> Iterator[dict[str, Any]]:
        """A source's rows with a label, pass after pass."""
        labels = [self._label_column(name) for name in self.tasks_of[source]]
        shared = self.specs[self.tasks_of[source][0]].source is not None
        rows_read = resumed
        while True:
            for row in self.streams[source]:
                if not shared or not all(is_missing(row.get(label)) for label in labels):
                    rows_read = True
                    yield row
            if not rows_read:
                raise InputError(f"The stream of {source!r} gave no labelled row in a whole pass.")
            rows_read = False
            passes[source] += 1
            self.streams[source].set_epoch(passes[source])

    def _window(self, window: int, rows: Mapping[str, Iterator[dict[str, Any]]]) -> Iterable[list[dict[str, Any]]]:
        """The batches of each step of a window."""
        size = self.window_draws
        tasks, _ = self.draws.window(window, window * size, (window + 1) * size)
        counts = np.bincount(tasks, minlength=len(self.sizes)) * self.block_rows
        read = {name: list(islice(rows[name], int(count))) for name, count in zip(self.sizes, counts) if count}
        self._read = list(read)
        given, seed, augmentation = self._canonical(read), self.seed, self.augmentation
        features = FeatureDataset(self.processor, self.specs, given, False, seed, augmentation)
        # The n-th block of a source holds its n-th rows of the window.
        blocks = np.empty((size, self.block_rows), dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        for task in np.unique(tasks):
            places = np.flatnonzero(tasks == task)
            blocks[places] = starts[task] + np.arange(len(places) * self.block_rows).reshape(-1, self.block_rows)
        rng = np.random.default_rng([self.seed, window])
        steps = self.form.steps(blocks, tasks, self.shape, features.costs if self.grouped else None, rng)
        for step in steps:
            yield [self.collate(features.__getitems__(features.at_draw(batch, window))) for batch in step]

    def _canonical(self, read: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Dataset]:
        canonical = {}
        for source, rows in read.items():
            given = dataset_of_rows(rows, self.streams[source].features)
            for name in self.tasks_of[source]:
                # A window may hold no label of a task.
                if any(not is_missing(row.get(self._label_column(name))) for row in rows):
                    canonical[name] = canonical_splits(self.specs[name], {"train": given}, local=False)["train"]
        return canonical

    def _label_column(self, name: str) -> str:
        return str(self.specs[name].column_of(LABEL_FIELD, local=False)).partition(".")[0]

    def drawn(self, steps: int) -> np.ndarray:
        """Return how many rows of each source the first steps of all processes hold, to a window's spread."""
        window, inside = divmod(steps, WINDOW_STEPS)
        first, past = window * self.window_draws, (window + 1) * self.window_draws
        total = first + inside * self.shape.rows // self.block_rows
        return self.draws.counts(window, first, past, total) * self.block_rows * self.processes

    def preview(self, tasks: Sequence[str], steps: int) -> list[TaskShare]:
        """Return what every source gets of a run; a stream's rows, and so its passes, are unknown."""
        drawn = self.drawn(steps).tolist()
        return [
            TaskShare(name, 0, count / max(sum(drawn), 1), count, float("nan")) for name, count in zip(tasks, drawn)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: a stream goes on."""
