"""A Trainer that pushes whole checkpoints: model, code, tokenizer, recipe and card, in one commit each."""

import inspect
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, constants
from transformers.trainer_utils import HubStrategy
from transformers.utils.logging import get_logger

from ..modeling.errors import InputError
from ..modeling.hub_card import is_written, read_card
from ..modeling.hub_errors import FAILURES, HubError, what_happened
from ..modeling.hub_files import CARD_FILE, EVAL_RESULTS_FOLDER, pushed_files
from ..modeling.hub_push import Push, push_folder
from ..modeling.model_card import eval_results, render_card
from ..modeling.model_card_facts import CardFacts
from .card_facts import facts_of_trainer
from .checkpoints import PROCESS_STATE, STATE_FILES, list_files
from .state_tensors import pack_states
from .task_trainer import TaskTrainer

logger = get_logger(__name__)

# The folder, in the output folder, of what is being pushed; what could not be pushed stays there.
_PUSHED_FOLDER = "hub_push"
_LAST_CHECKPOINT = "last-checkpoint"
# What lies in the output folder and not in a checkpoint.
_OF_OUTPUT_FOLDER = ("recipe.yaml",)
_PUSH_ARGUMENTS = ("commit_description", "create_pr", "tag")


class PushingTrainer(TaskTrainer):
    """A Trainer whose pushes are whole, of one commit, and hold no pickle.

    While it trains, it pushes in the background what `hub_strategy` says; a push that fails does not stop the run.
    """

    hub_model_id: Any
    push_in_progress: Any = None

    @cached_property
    def card_values(self) -> dict[str, Any]:
        """Values of `CardFacts`, and by task of `TaskFacts`, that the card says beside what the trainer knows."""
        return {}

    @cached_property
    def card_arguments(self) -> dict[str, Any]:
        """Arguments that `create_model_card` was given, which come before `card_values`."""
        return {}

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository, before any long work; with HF_HUB_OFFLINE=1 the run is kept to be pushed later.

        Raises:
            HubError: The Hub is out of reach, or refuses.
            InputError: A push that cannot be served.
        """
        self._check_strategy()
        if not self.is_world_process_zero():
            return
        folder = Path(str(self.args.output_dir))
        self.hub_model_id = self.args.hub_model_id or folder.absolute().name
        if constants.HF_HUB_OFFLINE:
            logger.warning(
                f"HF_HUB_OFFLINE=1: nothing will be pushed. After the run, push it: hf-mtl push {folder} "
                f"{self.hub_model_id}"
            )
            return
        token = token if token is not None else self.args.hub_token
        private = private if private is not None else self.args.hub_private_repo
        try:
            made = HfApi(token=token).create_repo(self.hub_model_id, private=private, exist_ok=True)
        except (*FAILURES, ValueError) as error:
            raise HubError(
                f"The repository {self.hub_model_id!r} cannot be made or written to: "
                f"{what_happened(error, str(self.hub_model_id))} To train now and push later, leave push_to_hub out, "
                "or set HF_HUB_OFFLINE=1. Another name is hub_model_id='owner/name'."
            ) from error
        self.hub_model_id = made.repo_id

    def _check_strategy(self) -> None:
        strategy = HubStrategy(self.args.hub_strategy)
        pushes_states = strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)
        if pushes_states and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            raise InputError(
                f"hub_strategy={strategy.value!r} pushes the optimizer's state, which DeepSpeed and FSDP keep as "
                "pickles; choose 'every_save' or 'end'."
            )

    def create_model_card(
        self,
        language: str | Sequence[str] | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | Sequence[str] | None = None,
        dataset_tags: str | Sequence[str] | None = None,
        dataset: str | Sequence[str] | None = None,
        dataset_args: str | Sequence[str] | None = None,
    ) -> None:
        """Write the card, and the Hub's file of results, into the output folder; arguments are Transformers'.

        Args:
            language: Codes such as ``en``.
            license: A licence of the Hub, such as ``apache-2.0``.
            tags: Further tags.
            model_name: By default the folder's name.
            finetuned_from: The encoder's name on the Hub, where it was loaded from a folder.
            tasks: None, as `dataset` and `dataset_args`: every task of the model says these of itself.
            dataset_tags: Further data sets of the Hub.
            dataset: None.
            dataset_args: None.

        Raises:
            InputError: One of those that tasks say.
        """
        for name, value in {"tasks": tasks, "dataset": dataset, "dataset_args": dataset_args}.items():
            if value is not None:
                raise InputError(
                    f"create_model_card({name}={value!r}): the card has a row per task, whose type and data set are "
                    "those of its TaskSpec (problem_type, dataset, subset); further data sets go into dataset_tags."
                )
        given = {
            "language": language,
            "license": license,
            "tags": tags,
            "model_name": model_name,
            "finetuned_from": finetuned_from,
            "dataset_tags": dataset_tags,
        }
        # Cards to come say it too.
        self.card_arguments.update({name: value for name, value in given.items() if value is not None})
        if self.is_world_process_zero():
            _write_card(self._card_facts(), Path(str(self.args.output_dir)))

    def _card_facts(self) -> CardFacts:
        return facts_of_trainer(self, self.card_values, self.card_arguments)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future | None:
        """Save the model as it is now, write its card, and push the output folder in one commit.

        Args:
            commit_message: One line.
            blocking: Whether to return when it is pushed; otherwise the `Future` of `CommitInfo` is returned.
            token: By default `args.hub_token`.
            revision: A branch; by default `args.hub_revision`.
            private: Of a new repository; by default `args.hub_private_repo`.
            **kwargs: ``commit_description``, ``create_pr``, ``tag``; what is left is `create_model_card`'s.

        Raises:
            HubError: It could not be pushed; the message says how to push it later.
            TypeError: An argument of neither.
        """
        given = {key: kwargs.pop(key) for key in _PUSH_ARGUMENTS if key in kwargs}
        inspect.signature(self.create_model_card).bind(**kwargs)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        push = self._push_of(Path(str(self.args.output_dir)), commit_message, token, revision, private, **given)
        if blocking:
            return push_folder(push).commit
        return _in_background(lambda: push_folder(push).commit)

    def _push_of(
        self,
        folder: Path,
        commit_message: str | None,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **given: Any,
    ) -> Push:
        return Push(
            folder,
            str(self.hub_model_id),
            token=token if token is not None else self.args.hub_token,
            revision=revision or self.args.hub_revision,
            private=private if private is not None else self.args.hub_private_repo,
            commit_message=commit_message,
            **given,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Do nothing: a checkpoint is pushed when it is whole; see `checkpoint_written`."""

    def checkpoint_written(self, folder: Path) -> None:
        """Push a checkpoint in the background, if its turn has come."""
        if not self.args.push_to_hub or self.args.hub_strategy == HubStrategy.END or constants.HF_HUB_OFFLINE:
            return
        if self.push_in_progress is not None and not self.push_in_progress.done() and not self.args.hub_always_push:
            return
        self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        staged, include = self._stage(folder)
        push = self._push_of(staged, f"Training in progress, step {self.state.global_step}", include=include)
        self.push_in_progress = _in_background(lambda: _push_and_remove(push))

    def _stage(self, folder: Path) -> tuple[Path, list[str]]:
        """Return a folder that holds what is pushed, which rotating checkpoints leaves alone, and its states' pattern.

        Args:
            folder: The checkpoint.
        """
        output = Path(str(self.args.output_dir))
        staged = output / _PUSHED_FOLDER
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        for name, path in pushed_files(folder).sent.items():
            _link(path, staged / name)
        for name in _OF_OUTPUT_FOLDER:
            if (output / name).is_file():
                _link(output / name, staged / name)
        _write_card(self._card_facts(), staged)
        if self.args.hub_strategy == HubStrategy.EVERY_SAVE:
            return staged, []
        name = _LAST_CHECKPOINT if self.args.hub_strategy == HubStrategy.CHECKPOINT else folder.name
        for file, path in pushed_files(folder).sent.items():
            _link(path, staged / name / file)
        for path in folder.iterdir():
            if path.name in STATE_FILES or path.name.startswith(PROCESS_STATE):
                _link(path, staged / name / path.name)
        pack_states(folder, staged / name)
        list_files(staged / name)
        return staged, [f"{name}/*"]

    def _finish_current_push(self) -> None:
        """Wait for the push under way; what went wrong with it is said, and stops nothing."""
        push, self.push_in_progress = self.push_in_progress, None
        if push is None:
            return
        try:
            push.result()
        except (InputError, *FAILURES) as error:
            logger.warning(f"A checkpoint was not pushed while training: {error}")


def _write_card(facts: CardFacts, folder: Path) -> None:
    """Write a card, unless somebody wrote one, and the Hub's file of results if there are any, into a folder."""
    path = folder / CARD_FILE
    if path.is_file() and is_written(read_card(path.read_bytes(), str(path))):
        logger.warning(f"{path} was written or changed by hand and stays; remove it for a new card.")
    else:
        path.write_text(render_card(facts), "utf-8")
    shutil.rmtree(folder / EVAL_RESULTS_FOLDER, ignore_errors=True)
    if (results := eval_results(facts)) is not None:
        (folder / EVAL_RESULTS_FOLDER).mkdir()
        (folder / EVAL_RESULTS_FOLDER / "hf_mtl.yaml").write_text(results, "utf-8")


def _push_and_remove(push: Push) -> None:
    push_folder(push)
    shutil.rmtree(push.folder)


def _in_background(call: Any) -> Future:
    executor = ThreadPoolExecutor(1, thread_name_prefix="hub_push")
    future = executor.submit(call)
    executor.shutdown(wait=False)
    return future


def _link(path: Path, aim: Path) -> None:
    """Give a file a second name, or copy it where the file system has none."""
    aim.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, aim)
    except OSError:
        shutil.copyfile(path, aim)
