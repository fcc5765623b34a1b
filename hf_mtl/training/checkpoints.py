"""Training checkpoints that are whole or not there: written aside, listed, renamed."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import Trainer
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, rotate_checkpoints

from ..modeling.errors import InputError
from .state_tensors import unpack_states

# The folder, beside the checkpoints, in which one is written before it gets its name.
_WRITING = f"{PREFIX_CHECKPOINT_DIR}-writing"
# The list of a checkpoint's files with their sizes, written last.
_FILES_LIST = "checkpoint_files.json"
# What a checkpoint keeps beside what Transformers' Trainer does.
_RUN_STATE_FILE = "multitask_state.json"
# What a finished run returned, in its last checkpoint.
_OUTPUT_FILE = "train_output.json"
# What `run_state` returns, of each process.
PROCESS_STATE = "process_state_"
_PROCESS_STATE_FILE = PROCESS_STATE + "{}.json"
# What of a checkpoint is of use to a run alone.
STATE_FILES = ("trainer_state.json", _FILES_LIST, _RUN_STATE_FILE, _OUTPUT_FILE)


def list_files(folder: Path) -> None:
    """Write the list of a checkpoint's files."""
    (folder / _FILES_LIST).write_text(json.dumps(_sizes(folder), indent=1, sort_keys=True) + "\n", "utf-8")


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != _FILES_LIST
    }


def _publish(aside: Path, final: Path) -> None:
    """Give a checkpoint that was written aside its name, in place of one that has it."""
    replaced = aside.parent / f"{final.name}-replaced"
    if final.exists():
        final.rename(replaced)
    aside.rename(final)
    shutil.rmtree(aside.parent)


def _what_is_broken(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint folder, or None if it is whole."""
    try:
        listed = json.loads((folder / _FILES_LIST).read_text("utf-8"))
    except (OSError, ValueError):
        return f"it has no list of its files ({_FILES_LIST})"
    sizes = _sizes(folder)
    for name, size in listed.items():
        if name not in sizes:
            return f"{name} is missing"
        if sizes[name] != size:
            return f"{name} has {sizes[name]} bytes instead of {size}"
    return None


def last_whole_checkpoint(folder: str | Path) -> tuple[str | None, list[str]]:
    """Return the last whole checkpoint of an output folder, and a line about each later one that is broken."""
    folders = Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    broken: list[str] = []
    numbered = {int(path.name.rpartition("-")[2]): path for path in folders if path.name.rpartition("-")[2].isdigit()}
    for _, path in sorted(numbered.items(), reverse=True):
        wrong = _what_is_broken(path)
        if wrong is None:
            return str(path), broken
        broken.append(f"Skipping the checkpoint {path}: {wrong}.")
    return None, broken


def _read_output(folder: Path, state: TrainerState) -> TrainOutput:
    """Return what a finished run returned; of one that was killed after its last step, what its log says.

    Args:
        folder: Its last checkpoint.
        state: The state it ended with.
    """
    if (path := folder / _OUTPUT_FILE).is_file():
        return TrainOutput(**json.loads(path.read_text("utf-8")))
    logged = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
    spans = [step - before for before, (step, _) in zip([0, *(step for step, _ in logged)], logged)]
    loss = sum(span * value for span, (_, value) in zip(spans, logged)) / max(sum(spans), 1)
    metrics = {"total_flos": state.total_flos, "train_loss": loss, "epoch": state.epoch}
    return TrainOutput(state.global_step, loss, cast(dict[str, float], metrics))


def _refuse_weights_alone(folder: Path) -> None:
    """Raise `InputError` for a checkpoint without an optimizer's state, from which no run goes on as it would have."""
    # DeepSpeed keeps it in a folder of its own.
    if not any(path.name.startswith(("optimizer", "global_step")) for path in folder.iterdir()):
        raise InputError(
            f"{str(folder)!r} holds weights alone (save_only_model=True), neither the optimizer's state nor the "
            "learning rate's: no run can go on from it. To begin a new one with its weights, give "
            f"model=MultiTaskAttentionModel.from_pretrained({str(folder)!r})."
        )


def _clear_unfinished(folder: str | Path) -> None:
    """Remove what a killed run had not finished writing."""
    shutil.rmtree(Path(folder) / _WRITING, ignore_errors=True)


class CheckpointingTrainer(Trainer):
    """A Trainer whose checkpoints are whole or not there, and keep what `run_state` returns."""

    _writing_checkpoint = False

    def run_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside model, optimizer and random states: JSON values."""
        return {}

    def checkpoint_written(self, folder: Path) -> None:
        """Do what follows when a checkpoint is whole; on the process that wrote it."""

    def check_run_state(self, state: Mapping[str, Any], folder: str) -> None:
        """Raise `InputError` if this run cannot go on from what a checkpoint kept."""

    def load_run_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""

    def process_state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps of this process alone: JSON values, or None."""
        return None

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept of this process."""

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` goes on from the last whole checkpoint of the output folder."""
        folder = str(self.args.output_dir)
        if resume_from_checkpoint is True:
            resume_from_checkpoint, broken = last_whole_checkpoint(folder)
            print("\n".join(broken), end="\n" if broken else "", flush=True)
            if resume_from_checkpoint is None:
                raise InputError(f"{folder!r} holds no whole checkpoint to resume from.")
        if self.is_world_process_zero():
            _clear_unfinished(folder)
        self.accelerator.wait_for_everyone()
        if resume_from_checkpoint:
            self.check_checkpoint(Path(resume_from_checkpoint))
            if self.is_local_process_zero():
                # As it came from the Hub, where no pickles are.
                unpack_states(Path(resume_from_checkpoint))
            self.accelerator.wait_for_everyone()
            if self._is_over(Path(resume_from_checkpoint)):
                # Transformers would take one step more.
                return _read_output(Path(resume_from_checkpoint), self.state)
            _refuse_weights_alone(Path(resume_from_checkpoint))
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        last = Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{output.global_step}"
        if self.is_world_process_zero() and last.is_dir():
            (last / _OUTPUT_FILE).write_text(json.dumps(output._asdict()) + "\n", "utf-8")
        return output

    def check_checkpoint(self, folder: Path) -> None:
        """Raise `InputError` unless this run can go on from a checkpoint."""
        if not (folder / "trainer_state.json").is_file():
            raise InputError(
                f"{str(folder)!r} is no training checkpoint: it holds no trainer_state.json. Name a folder such as "
                f"{PREFIX_CHECKPOINT_DIR}-100 of an output_dir, or write resume_from_checkpoint=True for its last one."
            )
        if (path := folder / _RUN_STATE_FILE).is_file():
            self.check_run_state(json.loads(path.read_text("utf-8")), str(folder))

    def total_steps(self) -> int | None:
        """Return how many steps the run takes, where that is known."""
        return None

    def _is_over(self, folder: Path) -> bool:
        """Return whether a checkpoint is that of the run's last step; then its model, or the best one, is in place."""
        state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        total = self.total_steps()
        if total is None or state.global_step < total:
            return False
        self._load_from_checkpoint(str(folder))
        self.state = state
        if self.args.load_best_model_at_end and state.best_model_checkpoint:
            self._load_best_model()
        return True

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, resume: Any, trial: Any
    ) -> tuple[int, int]:
        start = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, resume, trial)
        # How often is logged, evaluated and saved is this run's to say, not the checkpoint's.
        self.state.compute_steps(self.args, max_steps)
        if resume is not None and (path := Path(resume) / _RUN_STATE_FILE).is_file():
            self.load_run_state(json.loads(path.read_text("utf-8")))
            self._load_own_state(Path(resume))
        return start

    def _load_own_state(self, folder: Path) -> None:
        written = len(list(folder.glob(_PROCESS_STATE_FILE.format("*"))))
        if written and written != self.args.world_size:
            raise InputError(
                f"The checkpoint {str(folder)!r} was written by {written} processes, these are "
                f"{self.args.world_size}; a run that reads streams continues on as many as it began with."
            )
        if written:
            path = folder / _PROCESS_STATE_FILE.format(self.args.process_index)
            self.load_process_state(json.loads(path.read_text("utf-8")))

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / _WRITING) if self._writing_checkpoint else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint aside and give it its name when it is whole."""
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        folder = Path(self._get_output_dir(trial))
        self._writing_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writing_checkpoint = False
        if (process_state := self.process_state()) is not None:
            path = folder / _WRITING / name / _PROCESS_STATE_FILE.format(self.args.process_index)
            path.write_text(json.dumps(process_state) + "\n", "utf-8")
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(folder / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            aside = folder / _WRITING / name
            self.state.save_to_json(str(aside / "trainer_state.json"))
            (aside / _RUN_STATE_FILE).write_text(json.dumps(self.run_state()) + "\n", "utf-8")
            list_files(aside)
            _publish(aside, folder / name)
            self.checkpoint_written(folder / name)
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()
