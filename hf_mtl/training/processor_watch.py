"""Other programs on the processors of a run that has no accelerator."""

import os
import time
from contextlib import suppress

import psutil
import torch

# Before that, what other programs use is chance.
_LEAST_SECONDS = 10.0
# Processors' worth of other programs that is worth a word.
_LEAST_OTHERS = 0.5


class ProcessorWatch:
    """Measures how much of the processors other programs use from now on."""

    # A program says it once.
    has_warned = False

    def __init__(self) -> None:
        affinity = getattr(os, "sched_getaffinity", None)
        self.processors = sorted(affinity(0)) if affinity is not None else list(range(psutil.cpu_count() or 1))
        # Of a run of several processes, what launched them all.
        process = psutil.Process()
        self.root = process.parent() or process if int(os.environ.get("WORLD_SIZE", "1")) > 1 else process
        self.family = [process]
        self.looked = time.monotonic()
        self.began, self.busy, self.used = time.monotonic(), self._busy(), self._used()

    def _busy(self) -> float:
        """Seconds that the processors were busy with anything."""
        times = psutil.cpu_times(percpu=True)
        busy = 0.0
        for place in self.processors:
            if place < len(times):
                busy += times[place].user + times[place].system + getattr(times[place], "nice", 0.0)
        return busy

    def _used(self) -> float:
        """Seconds that this run's processes used, and those they started."""
        # Processes end at any time, and some may not be looked at.
        with suppress(psutil.Error):
            self.family = [self.root, *self.root.children(recursive=True)]
        total = 0.0
        for process in self.family:
            with suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
        return total

    def others(self) -> float:
        """Return how many processors other programs keep busy, as a mean since the beginning."""
        seconds = max(time.monotonic() - self.began, 1e-3)
        return max((self._busy() - self.busy - (self._used() - self.used)) / seconds, 0.0)

    def warning(self, least_seconds: float = _LEAST_SECONDS) -> str | None:
        """Return a word on threads that wait for each other, if this run has more than the processors have room for.

        Args:
            least_seconds: How long it must have watched since it looked last.
        """
        threads, room = torch.get_num_threads(), len(self.processors)
        if ProcessorWatch.has_warned or threads == 1 or time.monotonic() - self.looked < least_seconds:
            return None
        # A look at all processes takes as long as a small step.
        self.looked = time.monotonic()
        others = self.others()
        if others < _LEAST_OTHERS or threads + others <= room + _LEAST_OTHERS:
            return None
        ProcessorWatch.has_warned = True
        return (
            f"Other programs keep {others:.1f} of the {room} processors busy, and this run has {threads} threads, "
            f"which wait for each other: a step may take many times as long. Wait until they are done, or take fewer: "
            f"OMP_NUM_THREADS={(few := max(int(room - others), 1))} before the command, torch.set_num_threads({few})."
        )
