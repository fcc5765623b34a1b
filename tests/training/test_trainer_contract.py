"""The trainer takes and returns what Transformers' Trainer does."""

import dataclasses
import inspect
import pickle

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from hf_mtl import InputError, MultiTaskCollator, MultiTaskTrainer, MultiTaskTrainingArguments
from tests.conftest import build_model

TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "stars", "problem_type": "regression"},
]
TEXTS = ["what a lovely day", "this is awful", "a wonderful film", "a terrible meal"] * 4
MOOD = Dataset.from_dict({"text": TEXTS, "label": [1, 0, 1, 0] * 4}).cast_column(
    "label", ClassLabel(names=["bad", "good"])
)
STARS = Dataset.from_dict({"text": TEXTS, "label": [5.0, 1.0, 4.5, 1.5] * 4})
DATA = {"mood": MOOD, "stars": STARS}
QUIET = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}


def model_of(tokenizer, tasks=TASKS):
    return build_model(tasks, vocab_size=tokenizer.vocab_size)


def plain(tmp_path, **values) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), **{**QUIET, "max_steps": 2, **values})


def build(tmp_path, tokenizer, args=None, **options) -> MultiTaskTrainer:
    given = {"train_dataset": DATA, "eval_dataset": DATA, "processing_class": tokenizer, **options}
    if "model_init" not in given:
        given.setdefault("model", model_of(tokenizer))
    return MultiTaskTrainer(args=args or plain(tmp_path), **given)


def test_the_signature_is_that_of_transformers():
    theirs, ours = (list(inspect.signature(kind.__init__).parameters.values()) for kind in (Trainer, MultiTaskTrainer))
    assert [one.name for one in ours[: len(theirs)]] == [one.name for one in theirs]
    assert [one.default for one in ours[: len(theirs)]] == [one.default for one in theirs]
    assert all(one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD) for one in ours[len(theirs) :])


@pytest.mark.parametrize("kind", [TrainingArguments, MultiTaskTrainingArguments])
def test_the_arguments_are_the_object_that_was_given(kind, tmp_path, tokenizer):
    args = kind(output_dir=str(tmp_path), max_steps=2, learning_rate=3e-4, **QUIET)
    before = {name: value for name, value in vars(args).items() if not name.startswith("_")}
    trainer = build(tmp_path, tokenizer, args)
    trainer.train()
    assert trainer.args is args
    after = {name: value for name, value in vars(args).items() if name in before}
    assert after == {**before, "ddp_find_unused_parameters": True}
    assert isinstance(args, TrainingArguments) and args.parts_learning_rate == pytest.approx(3e-3)
    assert trainer.state.global_step == 2


def test_without_arguments_the_folder_is_that_of_transformers(tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = MultiTaskTrainer(model_of(tokenizer), train_dataset=DATA, processing_class=tokenizer)
    assert trainer.args.output_dir == Trainer(model_of(tokenizer)).args.output_dir


def test_arguments_of_another_kind_are_refused(tmp_path, tokenizer):
    @dataclasses.dataclass
    class Own(TrainingArguments):
        """Arguments with fields that nobody here would read."""

    with pytest.raises(InputError, match="args is a Own; expected TrainingArguments"):
        build(tmp_path, tokenizer, Own(output_dir=str(tmp_path), **QUIET))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data_collator": DATA}, "the third argument is the collator. Write train_dataset="),
        ({"data_collator": DataCollatorWithPadding}, "only a MultiTaskCollator makes"),
        ({"compute_loss_func": len}, "takes no `compute_loss_func`.*override compute_loss"),
        ({"preprocess_logits_for_metrics": len}, "takes no `preprocess_logits_for_metrics`"),
        ({"traindataset": DATA}, "takes no `traindataset`. Did you mean 'train_dataset'"),
        ({"model_init": lambda: None}, "Both `model` and `model_init`"),
    ],
)
def test_what_would_have_no_effect_is_refused(given, message, tmp_path, tokenizer):
    with pytest.raises(InputError, match=message):
        build(tmp_path, tokenizer, **{"model": model_of(tokenizer), **given})


def test_metrics_of_the_callers_read_answers_and_labels_by_task(tmp_path, tokenizer):
    seen = []

    def compute_metrics(given):
        answers, labels = given
        seen.append((answers, labels))
        right = [answer["label"] == label for answer, label in zip(answers["mood"], labels["mood"])]
        return {"mood_share": float(np.mean(right)), "eval_constant": 3.0}

    args = plain(tmp_path, eval_strategy="steps", eval_steps=1, metric_for_best_model="mood_share")
    trainer = build(tmp_path, tokenizer, args, compute_metrics=compute_metrics, callbacks=[EarlyStoppingCallback(9)])
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_mood_share"] * 100 == pytest.approx(metrics["eval_mood_accuracy"])
    assert metrics["eval_constant"] == 3.0
    assert trainer.state.best_metric == max(
        entry["eval_mood_share"] for entry in trainer.state.log_history if "eval_mood_share" in entry
    )
    answers, labels = seen[-1]
    assert labels == {"mood": ["good", "bad"] * 8, "stars": STARS["label"][:]}
    assert {name: len(rows) for name, rows in answers.items()} == {"mood": 16, "stars": 16}
    result = trainer.predict(DATA)
    assert result.label_ids == labels and result.predictions == answers
    assert trainer.predict({"mood": MOOD.remove_columns("label")}).label_ids is None


@pytest.mark.parametrize(
    ("returned", "message"), [(None, "returned None"), ({"mood_accuracy": 1}, "choose another name")]
)
def test_metrics_that_are_none_are_refused(returned, message, tmp_path, tokenizer):
    with pytest.raises(InputError, match=message):
        build(tmp_path, tokenizer, compute_metrics=lambda given: returned).evaluate()


@pytest.mark.parametrize("reduction", ["rows", "tasks"])
def test_the_loss_of_an_evaluation_is_that_of_all_rows_as_one_step(reduction, tmp_path, tokenizer):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), loss_reduction=reduction, **QUIET)
    tasks = [{**TASKS[0], "weight": 3.0}, TASKS[1]]
    held = {"mood": MOOD, "stars": STARS.select(range(4))}
    metrics = build(tmp_path, tokenizer, args, tasks=tasks, eval_dataset=held).evaluate()
    mood, stars = metrics["eval_mood_loss"], metrics["eval_stars_loss"]
    shares = (16 / 20, 4 / 20) if reduction == "rows" else (0.5, 0.5)
    assert metrics["eval_loss"] == pytest.approx(3 * shares[0] * mood + shares[1] * stars, rel=1e-5)


def test_the_best_model_may_be_that_of_the_least_loss(tmp_path, tokenizer):
    args = plain(
        tmp_path,
        save_strategy="steps",
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        max_steps=4,
        learning_rate=1e-2,
        load_best_model_at_end=True,
    )
    assert args.metric_for_best_model == "loss"
    trainer = build(tmp_path, tokenizer, args, callbacks=[EarlyStoppingCallback(3)])
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.state.best_metric == min(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-4)


def test_without_training_rows_a_trainer_evaluates_and_predicts(tmp_path, tokenizer):
    model = model_of(tokenizer)
    whole = build(tmp_path, tokenizer, model=model)
    held = build(tmp_path, tokenizer, model=model, train_dataset=None)
    expected, found = whole.evaluate(), held.evaluate()
    assert {key: value for key, value in found.items() if key.endswith("_loss")} == pytest.approx(
        {key: value for key, value in expected.items() if key.endswith("_loss")}
    )
    bare = MultiTaskTrainer(model, plain(tmp_path), processing_class=tokenizer)
    assert bare.predict({"mood": MOOD}).predictions == whole.predict({"mood": MOOD}).predictions
    for trainer in (held, bare):
        with pytest.raises(InputError, match="no training rows"):
            trainer.train()


def test_tasks_are_met_by_name_in_any_order(tmp_path, tokenizer):
    weights = []
    for names in (["mood", "stars"], ["stars", "mood"]):
        torch.manual_seed(0)
        tasks = [next(task for task in TASKS if task["name"] == name) for name in names]
        trainer = build(
            tmp_path, tokenizer, plain(tmp_path), tasks=tasks, train_dataset={name: DATA[name] for name in names}
        )
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    with pytest.raises(InputError, match="expected the same, in any order"):
        build(tmp_path, tokenizer, train_dataset={"mood": MOOD, "other": STARS}, eval_dataset=None)


def test_a_function_makes_the_model_of_every_run(tmp_path, tokenizer):
    made = []

    def model_init():
        made.append(model_of(tokenizer))
        return made[-1]

    trainer = build(tmp_path, tokenizer, plain(tmp_path, learning_rate=1e-2), model_init=model_init)
    first = {name: tensor.clone() for name, tensor in (trainer.train(), trainer.model.state_dict())[1].items()}
    second = (trainer.train(), trainer.model.state_dict())[1]
    assert len(made) == 3 and trainer.model is made[-1]
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def searched(tmp_path, tokenizer, also=None, **options):
    pytest.importorskip("optuna")
    rates, suggested = [], []

    def space(trial):
        values = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
            "parts_learning_rate": trial.suggest_float("parts_learning_rate", 1e-4, 1e-1, log=True),
            "loss_weighting": trial.suggest_categorical("loss_weighting", ["fixed", "uncertainty"]),
        }
        suggested.append(values)
        return {**values, **(also or {})}

    trainer = build(
        tmp_path, tokenizer, plain(tmp_path, eval_strategy="epoch"), model_init=lambda trial: model_of(tokenizer)
    )
    create = trainer.create_optimizer

    def creating(*given):
        optimizer = create(*given)
        rates.append({group["lr"] for group in optimizer.param_groups})
        return optimizer

    trainer.create_optimizer = creating
    import optuna

    best = trainer.hyperparameter_search(
        hp_space=space, n_trials=2, backend="optuna", sampler=optuna.samplers.RandomSampler(seed=0), **options
    )
    return trainer, best, rates, suggested


def test_a_search_sets_arguments_of_both_kinds_and_repeats(tmp_path, tokenizer):
    runs = [searched(tmp_path / str(run), tokenizer) for run in range(2)]
    assert runs[0][1] == runs[1][1]
    trainer, best, rates, suggested = runs[0]
    assert rates == [{values["learning_rate"], values["parts_learning_rate"]} for values in suggested]
    assert len(rates) == 2 and rates[0] != rates[1]
    # The arguments are as before the search.
    assert (trainer.args.learning_rate, trainer.args.loss_weighting) == (5e-5, "fixed")
    assert trainer.args.parts_learning_rate == pytest.approx(5e-4)
    assert best.hyperparameters.keys() == {"learning_rate", "parts_learning_rate", "loss_weighting"}


def test_what_a_search_cannot_do_is_refused(tmp_path, tokenizer):
    with pytest.raises(InputError, match="model_init="):
        build(tmp_path, tokenizer).hyperparameter_search(backend="optuna")
    with pytest.raises(InputError, match="direction='minimize', and of mtl_average more is better"):
        searched(tmp_path, tokenizer, direction="minimize")
    with pytest.raises(InputError, match="cannot try values of gradient_balancing"):
        searched(tmp_path, tokenizer, also={"gradient_balancing": "pcgrad"})
    with pytest.raises(InputError, match="argument of the search: 'learningrate'.*Did you mean 'learning_rate'"):
        searched(tmp_path, tokenizer, also={"learningrate": 1})


def test_several_visible_gpus_are_one_with_what_to_type(tmp_path, tokenizer, caplog, monkeypatch):
    args = plain(tmp_path, per_device_train_batch_size=4)
    args._n_gpu = 2
    import transformers

    monkeypatch.setattr(transformers.utils.logging.get_logger("hf_mtl"), "propagate", True)
    trainer = build(tmp_path, tokenizer, args)
    assert (args.n_gpu, args.train_batch_size) == (1, 4)
    assert "uses one of them" in caplog.text and "torchrun --nproc_per_node 2 " in caplog.text
    assert trainer.train().global_step == 2


def test_a_collator_may_pad_further(tmp_path, tokenizer):
    plain_trainer = build(tmp_path, tokenizer)
    collator = MultiTaskCollator(plain_trainer.processor, pad_to_multiple_of=16)
    trainer = build(tmp_path, tokenizer, data_collator=collator)
    batch = next(iter(trainer.get_train_dataloader()))
    assert trainer.data_collator is collator
    assert batch["input_ids"].shape[1] == 16
    assert next(iter(plain_trainer.get_train_dataloader()))["input_ids"].shape[1] < 16
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain_trainer.evaluate()["eval_loss"], rel=1e-4)


def test_rows_that_are_held_out_too_may_be_dropped(tmp_path, tokenizer, caplog, monkeypatch):
    import transformers

    monkeypatch.setattr(transformers.utils.logging.get_logger("hf_mtl"), "propagate", True)
    texts = [f"a text of many words, number {index}" for index in range(16)]
    train = Dataset.from_dict({"text": texts, "label": [0, 1] * 8}).cast(MOOD.features)
    held = train.select(range(4))
    tasks = [TASKS[0]]
    options = {"model": model_of(tokenizer, tasks), "train_dataset": {"mood": train}, "eval_dataset": {"mood": held}}
    assert len(build(tmp_path, tokenizer, **options).mixture.train["mood"]) == 16
    for said in (True, None):
        trainer = build(tmp_path, tokenizer, **options, exclude_overlap=said)
        assert len(trainer.mixture.train["mood"]) == 12
    assert "Task mood: 4 training rows dropped" in caplog.text
    with pytest.raises(InputError, match="None would be left to train on"):
        build(tmp_path, tokenizer, **{**options, "eval_dataset": {"mood": train}}, exclude_overlap=True)
    with pytest.raises(InputError, match="for a Mixture give it to load_mixture"):
        build(tmp_path, tokenizer, **{**options, "train_dataset": trainer.mixture}, exclude_overlap=True)


def test_what_one_trial_names_does_not_reach_the_next(tmp_path, tokenizer):
    optuna = pytest.importorskip("optuna")
    seen = []

    def space(trial):
        return {"loss_weighting": "uncertainty", "learning_rate": 1e-3} if trial.number == 0 else {}

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append((args.loss_weighting, args.learning_rate))

    trainer = build(
        tmp_path,
        tokenizer,
        plain(tmp_path, eval_strategy="epoch"),
        model_init=lambda: model_of(tokenizer),
        callbacks=[Watch()],
    )
    trainer.hyperparameter_search(space, n_trials=2, backend="optuna", sampler=optuna.samplers.RandomSampler(seed=0))
    assert seen == [("uncertainty", 1e-3), ("fixed", 5e-5)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.optim.SGD, {"lr": 0.1}), "has lr=0.1, which would have no effect.*learning_rate"),
        ((torch.optim.SGD, {"params": []}), "has params="),
    ],
)
def test_options_that_groups_of_parameters_override_are_refused(given, message, tmp_path, tokenizer):
    with pytest.raises(InputError, match=message):
        build(tmp_path, tokenizer, optimizer_cls_and_kwargs=given)


def test_outputs_to_leave_out_are_refused_since_none_are_returned(tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer)
    for call in (
        lambda: trainer.evaluate(ignore_keys=["logits"]),
        lambda: trainer.predict(DATA, ["logits"]),
        lambda: trainer.train(None, None, ["logits"]),
    ):
        with pytest.raises(InputError, match="ignore_keys=.* would have no effect"):
            call()
    assert trainer.evaluate(None, None, "held")["held_loss"] > 0


def test_rows_of_a_step_are_those_of_the_one_device_that_is_used(tmp_path, tokenizer, monkeypatch):
    """On a machine with two GPUs, Transformers counts both when arguments are made."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda args: vars(args).get("_n_gpu", 2)))
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=8, global_batch_size=24, max_steps=1, **QUIET
    )
    assert args.gradient_accumulation_steps == 3


@pytest.mark.parametrize("again", ["the same object", "a copy"])
def test_arguments_serve_a_second_trainer(again, tmp_path, tokenizer):
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), gradient_balancing="pcgrad", gradient_accumulation_steps=2, max_steps=1, **QUIET
    )
    for _ in range(2):
        trainer = build(tmp_path, tokenizer, args)
        assert (args.mixing_strategy, args.batch_form, args.gradient_accumulation_steps) == (
            "round_robin",
            "one_task",
            4,
        )
        trainer.train()
        args = pickle.loads(pickle.dumps(args))
        args = args if again == "the same object" else dataclasses.replace(args, learning_rate=1e-3)
    copied = dataclasses.replace(args)
    assert (copied.mixing_strategy, copied.batch_form, copied.gradient_accumulation_steps) == (
        "proportional",
        "mixed",
        2,
    )


@pytest.mark.parametrize("rows", [DATA, DatasetDict({"train": MOOD, "validation": MOOD})])
def test_rows_in_the_third_place_are_the_rows_to_train_on(rows, tmp_path, tokenizer):
    tasks = TASKS if rows is DATA else TASKS[:1]
    with pytest.warns(FutureWarning, match="The third argument is the collator now"):
        trainer = MultiTaskTrainer(model_of(tokenizer, tasks), plain(tmp_path), rows, processing_class=tokenizer)
    assert list(trainer.mixture.train) == [task["name"] for task in tasks]
    assert isinstance(trainer.data_collator, MultiTaskCollator)


def test_an_optimizer_that_is_built_has_to_be_of_the_model(tmp_path, tokenizer):
    model, other = model_of(tokenizer), model_of(tokenizer)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="The SGD of `optimizers` holds no parameter of the model"):
        build(tmp_path, tokenizer, model=other, optimizers=(sgd, None))
    with pytest.raises(InputError, match="`optimizers` are of one model, and `model_init` makes a new one"):
        build(tmp_path, tokenizer, model_init=lambda: model_of(tokenizer), optimizers=(sgd, None))
    start = model.state_dict()["mtl.heads.regression.weight.task_stars"].clone()
    build(tmp_path, tokenizer, model=model, optimizers=(sgd, None)).train()
    assert not torch.equal(model.state_dict()["mtl.heads.regression.weight.task_stars"], start)


def test_rates_beside_an_optimizer_that_is_built_are_refused(tmp_path, tokenizer):
    model = model_of(tokenizer)
    given = {"model": model, "optimizers": (torch.optim.SGD(model.parameters(), lr=0.1), None)}
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), parts_learning_rate=0.1, **QUIET)
    with pytest.raises(InputError, match="parts_learning_rate would have no effect: the SGD of `optimizers`"):
        build(tmp_path, tokenizer, args, **given)
    rated = [{"name": "stars", "problem_type": "regression", "learning_rate": 0.0}]
    with pytest.raises(InputError, match="learning_rate=...\\) would have no effect: the SGD"):
        build(tmp_path, tokenizer, tasks=rated, **given)


def test_a_checkpoint_of_weights_alone_is_no_run_to_go_on_with(tmp_path, tokenizer):
    saved = {"save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    build(tmp_path, tokenizer, plain(tmp_path, max_steps=1, **saved)).train()
    longer = build(tmp_path, tokenizer, plain(tmp_path, max_steps=2, **saved))
    with pytest.raises(InputError, match="holds weights alone .save_only_model=True.*from_pretrained"):
        longer.train(resume_from_checkpoint=True)
    # One whose last step it is has nothing to go on with.
    assert build(tmp_path, tokenizer, plain(tmp_path, max_steps=1, **saved)).train(True).global_step == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label_smoothing_factor", 0.5, "would have no effect; expected the default 0.0"),
        ("dataloader_drop_last", True, "would have no effect"),
        ("prediction_loss_only", True, "would have no effect"),
        ("bf16", True, "bf16 was changed from False to True after the trainer was made with it"),
        ("torch_compile", True, "torch_compile was changed"),
    ],
)
def test_changes_that_come_too_late_are_named(name, value, message, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer)
    setattr(trainer.args, name, value)
    with pytest.raises(InputError, match=message):
        trainer.train()


@pytest.mark.parametrize("name", ["split_batches", "dispatch_batches"])
def test_batches_that_would_be_divided_are_refused(name, tmp_path, tokenizer):
    with pytest.raises(InputError, match=f"accelerator_config has {name}=True, which batches cannot follow"):
        build(tmp_path, tokenizer, plain(tmp_path, accelerator_config={name: True}))


def test_a_collator_is_made_of_a_processor(tokenizer):
    with pytest.raises(InputError, match="MultiTaskCollator was given a .*Tokenizer.*for_model"):
        MultiTaskCollator(tokenizer, pad_to_multiple_of=8)
