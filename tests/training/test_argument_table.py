"""Every argument of Transformers' Trainer is classified, and those that are served have an effect."""

import dataclasses
import importlib
import math
import re
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback
from transformers.training_args import OptimizerNames

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.training.argument_table import PASSED_ON, SERVED_ARGUMENTS, unclassified_arguments
from hf_mtl.training.ignored_arguments import IGNORED_ARGUMENTS
from tests.conftest import StopAfter
from tests.training.test_trainer_contract import DATA, QUIET, model_of

ROOT = Path(__file__).parent.parent.parent
BASE = {**QUIET, "max_steps": 3, "learning_rate": 1e-2}


def build(tmp_path, tokenizer, **values) -> MultiTaskTrainer:
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), **{**BASE, **values})
    return MultiTaskTrainer(
        model_of(tokenizer), args, train_dataset=DATA, eval_dataset=DATA, processing_class=tokenizer
    )


def steps(trainer):
    return trainer.train().global_step


def weights(trainer):
    torch.manual_seed(0)
    trainer.train()
    return torch.cat([tensor.detach().flatten() for tensor in trainer.model.parameters()]).double().sum().item()


def batch_rows(trainer):
    return len(next(iter(trainer.get_train_dataloader()))["input_ids"])


def held_batches(trainer):
    return len(trainer.get_eval_dataloader())


def accumulated(trainer):
    return trainer.sampler.epoch_steps


def optimizer_of(trainer):
    return type(trainer.create_optimizer()).__name__


def logged(trainer):
    trainer.train()
    return [entry["step"] for entry in trainer.state.log_history if "loss" in entry]


def evaluated(trainer):
    trainer.train()
    return [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]


def saved(trainer):
    trainer.train()
    return sorted(str(path.relative_to(trainer.args.output_dir)) for path in Path(trainer.args.output_dir).rglob("*"))


def tokens_seen(trainer):
    trainer.train()
    return trainer.state.num_input_tokens_seen


def checkpointed(trainer):
    trainer.train()
    return trainer.model.encoder.is_activation_checkpointing


def checkpointing_options(trainer):
    trainer.train()
    layer = trainer.model.encoder.encoder.layer[0]
    return layer._gradient_checkpointing_func.keywords["use_reentrant"]


def loader_options(trainer):
    loader = trainer.get_train_dataloader()
    return loader.num_workers, loader.persistent_workers, loader.prefetch_factor, str(loader.multiprocessing_context)


def best(trainer):
    trainer.train()
    return trainer.state.best_metric, trainer.state.best_global_step


WORKERS = {"dataloader_num_workers": 1}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 1}
SAVED = {"save_strategy": "steps", "save_steps": 1}
FOLLOWED = {**EVALUATED, **SAVED, "learning_rate": 0.3}
# Argument -> what is seen, both of its values, other arguments.
EFFECTS = {
    "per_device_train_batch_size": (batch_rows, 2, 4, {}),
    "per_device_eval_batch_size": (held_batches, 2, 8, {}),
    "num_train_epochs": (steps, 1, 2, {"max_steps": -1}),
    "max_steps": (steps, 1, 2, {}),
    "learning_rate": (weights, 1e-2, 2e-2, {}),
    "lr_scheduler_type": (weights, "linear", "constant", {}),
    "lr_scheduler_kwargs": (weights, {"num_cycles": 0.5}, {"num_cycles": 2.0}, {"lr_scheduler_type": "cosine"}),
    "warmup_steps": (weights, 0, 2, {}),
    "optim": (optimizer_of, "adamw_torch", "adafactor", {}),
    "optim_args": (weights, None, "momentum=0.9", {"optim": "sgd"}),
    "weight_decay": (weights, 0.0, 0.5, {}),
    "adam_beta1": (weights, 0.9, 0.5, {}),
    "adam_beta2": (weights, 0.999, 0.5, {}),
    "adam_epsilon": (weights, 1e-8, 1e-2, {}),
    "gradient_accumulation_steps": (accumulated, 1, 2, {"per_device_train_batch_size": 4}),
    "max_grad_norm": (weights, 1.0, 1e-4, {"optim": "sgd"}),
    "bf16": (weights, False, True, {}),
    "activation_checkpointing": (checkpointed, False, True, {}),
    "gradient_checkpointing": (checkpointed, False, True, {}),
    "activation_checkpointing_kwargs": (
        checkpointing_options,
        {"use_reentrant": False},
        {"use_reentrant": True},
        {"activation_checkpointing": True},
    ),
    "gradient_checkpointing_kwargs": (
        checkpointing_options,
        {"use_reentrant": False},
        {"use_reentrant": True},
        {"gradient_checkpointing": True},
    ),
    "neftune_noise_alpha": (weights, None, 50.0, {}),
    "logging_strategy": (logged, "no", "steps", {"logging_steps": 1}),
    "logging_steps": (logged, 1, 2, {}),
    "logging_first_step": (logged, False, True, {"logging_steps": 2}),
    "include_num_input_tokens_seen": (tokens_seen, "no", "all", {}),
    "eval_strategy": (evaluated, "no", "steps", {"eval_steps": 1}),
    "eval_steps": (evaluated, 1, 2, {"eval_strategy": "steps"}),
    "eval_delay": (evaluated, 0, 2, EVALUATED),
    "eval_on_start": (evaluated, False, True, EVALUATED),
    "save_strategy": (saved, "no", "steps", {"save_steps": 1}),
    "save_steps": (saved, 1, 2, {"save_strategy": "steps"}),
    "save_total_limit": (saved, None, 1, SAVED),
    "save_only_model": (saved, False, True, SAVED),
    "load_best_model_at_end": (weights, False, True, {**FOLLOWED, "metric_for_best_model": "loss"}),
    "metric_for_best_model": (best, "mtl_average", "loss", FOLLOWED),
    "seed": (weights, 1, 2, {}),
    "data_seed": (weights, 1, 2, {}),
    "dataloader_num_workers": (loader_options, 0, 1, {}),
    "dataloader_persistent_workers": (loader_options, False, True, WORKERS),
    "dataloader_prefetch_factor": (loader_options, 2, 3, WORKERS),
    "dataloader_multiprocessing_context": (loader_options, "fork", "spawn", WORKERS),
}
# Served arguments whose effect takes a test of its own.
ELSEWHERE = {
    "auto_find_batch_size": "tests/training/test_batch_fitting.py::test_the_run_is_that_of_smaller_batches",
    "greater_is_better": "tests/training/test_changed_arguments.py::test_values_that_contradict_are_named",
    "ignore_data_skip": "tests/training/test_argument_table.py::test_without_skipping_an_epoch_begins_anew",
    "torch_compile": "tests/training/test_argument_table.py::test_a_compiled_model_trains_alike",
    "torch_compile_backend": "tests/training/test_argument_table.py::test_a_compiled_model_trains_alike",
}


def test_every_argument_is_in_one_table():
    assert unclassified_arguments() == {name: set() for name in unclassified_arguments()}
    tables = [*SERVED_ARGUMENTS, *PASSED_ON, *IGNORED_ARGUMENTS]
    assert len(tables) == len(set(tables))


def test_every_served_argument_has_a_test_of_its_effect():
    assert {*EFFECTS, *ELSEWHERE} == set(SERVED_ARGUMENTS)
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert (
            re.search(rf"^def {name}\b", (ROOT / path).read_text("utf-8"), re.M) if name else (ROOT / path).is_file()
        )
        importlib.import_module(path.removesuffix(".py").replace("/", "."))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, tokenizer):
    """What is seen under some values, from one run for all tests that ask for it."""
    defaults = {field.name: field.default for field in dataclasses.fields(MultiTaskTrainingArguments)}
    outcomes = {}

    def see(look, values):
        given = {**BASE, **values}
        key = look.__name__, repr({name: given[name] for name in sorted(given) if given[name] != defaults[name]})
        if key not in outcomes:
            # Sums of weights could differ by chance: the same values have to give the same twice.
            times = 2 if look is weights else 1
            seen = [look(build(tmp_path_factory.mktemp("run"), tokenizer, **values)) for _ in range(times)]
            assert seen[0] == seen[-1], "the same values do not do the same twice"
            outcomes[key] = seen[0]
        return outcomes[key]

    return see


@pytest.mark.parametrize("name", EFFECTS)
def test_a_served_argument_has_an_effect(name, outcome):
    look, first, second, others = EFFECTS[name]
    assert outcome(look, {**others, name: first}) != outcome(look, {**others, name: second}), "both do the same"


OWN_GROUPS = [name.value for name in OptimizerNames if name.value.startswith(("galore", "apollo", "lomo", "adalomo"))]


@pytest.mark.parametrize("optim", OWN_GROUPS)
def test_optimizers_that_choose_their_parameters_are_refused(optim, tmp_path, tokenizer):
    with pytest.raises(InputError, match=f"optim='{optim}' chooses its parameters by itself"):
        build(tmp_path, tokenizer, optim=optim)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"])
def test_optimizers_that_are_served_have_the_rates_of_encoder_and_parts(optim, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer, optim=optim, lr_scheduler_type="constant")
    before = trainer.model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    trainer.train()
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {1e-2, 1e-1}
    after = trainer.model.state_dict()
    for part in ("encoder.", "mtl."):
        assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items() if name.startswith(part))


class ScheduleFree(torch.optim.SGD):
    """Keeps apart, as schedule-free optimizers do, the weights of training and those of evaluation, which are 0."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.kept = None

    def eval(self):
        if self.kept is None:
            self.kept = [tensor.detach().clone() for group in self.param_groups for tensor in group["params"]]
            for group in self.param_groups:
                for tensor in group["params"]:
                    tensor.data.zero_()

    def train(self):
        if self.kept is not None:
            for tensor, kept in zip((one for group in self.param_groups for one in group["params"]), self.kept):
                tensor.data.copy_(kept)
            self.kept = None


@pytest.mark.parametrize("balanced", [False, True])
def test_schedule_free_optimizers_are_scored_on_the_weights_of_evaluation(balanced, tmp_path, tokenizer):
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path),
        **{**QUIET, "max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, "lr_scheduler_type": "constant"},
        gradient_balancing="pcgrad" if balanced else None,
    )
    trainer = MultiTaskTrainer(
        model_of(tokenizer),
        args,
        train_dataset=DATA,
        eval_dataset=DATA,
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=(ScheduleFree, {"momentum": 0.9}),
    )
    trainer.train()
    chance = [entry["eval_mood_loss"] for entry in trainer.state.log_history if "eval_mood_loss" in entry]
    assert chance == pytest.approx([math.log(2)] * 3, rel=1e-5)
    trainer.optimizer.train()
    assert any(tensor.any() for tensor in trainer.model.mtl.heads.parameters())


def test_without_skipping_an_epoch_begins_anew(tmp_path, tokenizer):
    """As in Transformers: a run that goes on within an epoch of 8 steps draws its first rows once more."""
    sums = []
    for skips in (False, True, True):
        folder = tmp_path / str(len(sums))
        epochs = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 4}
        arguments = {**epochs, "save_strategy": "steps", "save_steps": 3}
        stopped = build(folder, tokenizer, **arguments)
        stopped.add_callback(StopAfter(4))
        stopped.train()
        again = build(folder, tokenizer, ignore_data_skip=not skips, **arguments)
        again.train(resume_from_checkpoint=True)
        sums.append(sum(tensor.double().sum().item() for tensor in again.model.parameters()))
    assert sums[0] != sums[1] == sums[2]


def test_a_compiled_model_trains_alike(tmp_path, tokenizer):
    class Compiled(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            self.model = trainer.model_wrapped

    sums = []
    for compiled in (False, True):
        options = {"torch_compile": True, "torch_compile_backend": "eager"} if compiled else {}
        trainer = build(tmp_path, tokenizer, **options)
        watch = Compiled()
        trainer.add_callback(watch)
        sums.append(weights(trainer))
        assert hasattr(watch.model, "_orig_mod") == compiled
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)
