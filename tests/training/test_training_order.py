"""Staged training, transfer from intermediate tasks, one task after all of them."""

import copy
import json
import re

import pytest
import torch

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.inspection.part_report import _shuffled_tasks
from hf_mtl.modeling import InputError
from hf_mtl.recipe import read_recipe
from hf_mtl.training.training_order import (
    TRAINING_ORDERS,
    _mixing_alone,
    _mixing_parameters,
    _named_tensors,
    arguments_of,
    left_out,
    model_of,
    tasks_apart,
)
from tests.conftest import TASKS, build_model, encoder_inputs, random_batch, randomise
from tests.test_cli import NEEDS_ENCODER, TRAIN, hf_mtl, workplace  # noqa: F401
from tests.training.test_step_loss import datasets, specs

NAMES = [task["name"] for task in TASKS]
INTERACTIONS = ["cross_task_attention", "attention_over_heads", "mmoe", "cross_stitch"]
THREE = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
    {"name": "stars", "problem_type": "regression"},
    {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
]


def own_trainer(model, tmp_path, tokenizer, **arguments):
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=4, **arguments
    )
    rows, names = datasets(), model.config.task_names
    tasks = [spec for spec in specs() if spec.name in names]
    return MultiTaskTrainer(
        model, args, train_dataset={name: rows[name] for name in names}, tasks=tasks, processing_class=tokenizer
    )


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_tasks_are_apart_and_then_only_their_mixture_trains(interaction):
    """S0.9: first no task reads another and what would mix has no gradient; then nothing else has one."""
    model, batch = randomise(build_model(task_interaction=interaction)), random_batch()
    mixing = {id(own) for own in _mixing_parameters(model)}
    before = model(**encoder_inputs()).logits
    with tasks_apart(model):
        alone = model(**encoder_inputs()).logits
        assert any(not torch.equal(alone[name], before[name]) for name in alone)
        model(**batch).loss.backward()
        moved = {id(own) for own in model.parameters() if own.grad is not None and own.grad.any()}
        assert moved and not moved & mixing
        with torch.no_grad():
            for own in model.task_parameters("stars"):
                own.add_(0.5)
        for name, logits in model(**encoder_inputs()).logits.items():
            assert torch.equal(logits, alone[name]) == (name != "stars"), name
            if name == "stars":
                assert not torch.equal(logits, alone[name])
    model.zero_grad()
    with _mixing_alone(model):
        model(**batch).loss.backward()
        moved = {id(own) for own in model.parameters() if own.grad is not None}
        assert moved and moved <= mixing
    assert all(own.requires_grad for own in model.parameters())


def test_tasks_apart_read_their_own_branch_alone():
    """LB-3: what the first stage computes is the limit in which a task prefers itself beyond all others."""
    model = randomise(build_model(task_interaction="attention_over_heads", attention_scorer="general"))
    with tasks_apart(model):
        apart = model(**encoder_inputs()).logits
    biases = model.mtl.interaction.task_weights.self_bias
    with torch.no_grad():
        for key in biases.keys:
            biases.get_parameter(key).fill_(60.0)
    for name, logits in model(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, apart[name], atol=1e-5, rtol=1e-5)


def test_tasks_apart_train_their_branches():
    """S0.9: branches first; what says how they are mixed has no part in them."""
    model = randomise(build_model(task_interaction="attention_over_heads"))
    with tasks_apart(model):
        model(**random_batch()).loss.backward()
    own = model.mtl.interaction
    assert all(tensor.grad is not None for tensor in own.branch.parameters())
    assert all(
        tensor.grad is None for part in (own.scorer, own.values, own.task_weights) for tensor in part.parameters()
    )


def test_what_mixes_nothing_cannot_be_staged():
    with pytest.raises(InputError, match="task_interaction=none nothing does"):
        _mixing_parameters(build_model(task_interaction="none"))


@pytest.mark.parametrize("conditioning", ["none", "separate_encoders"])
def test_no_multitask_steps_and_one_task_is_single_task_training(conditioning, tmp_path, tokenizer):
    """S2.7: after 0 steps of all tasks, training one is the single-task run, bit for bit."""
    settings = {"task_interaction": "none", "gate": "none", "conditioning": conditioning}
    several = build_model(THREE, vocab_size=tokenizer.vocab_size, **settings)
    single = model_of(several, ["mood"])
    start = copy.deepcopy(single.state_dict())
    alone = own_trainer(single, tmp_path / "alone", tokenizer, max_steps=4)
    alone.train()
    after = own_trainer(several, tmp_path / "all", tokenizer, max_steps=4).then("mood", tmp_path / "after")
    assert after.model.config.task_names == ["mood"] and after.args.output_dir == str(tmp_path / "after")
    after.train()
    for name, tensor in after.model.state_dict().items():
        assert torch.equal(tensor, single.state_dict()[name]), name
        assert not torch.equal(tensor, start[name]) or "pooling" in name, name


def test_what_was_trained_goes_on_and_the_model_before_stays(tmp_path, tokenizer):
    several = own_trainer(build_model(THREE, vocab_size=tokenizer.vocab_size), tmp_path, tokenizer, max_steps=3)
    several.train()
    trained = copy.deepcopy(several.model.state_dict())
    pair = several.then(["mood", "tags"], tmp_path / "pair", learning_rate=1e-3, num_train_epochs=1)
    assert (pair.args.learning_rate, pair.args.max_steps) == (1e-3, 3)
    for name, tensor in pair.model.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    pair.train()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in several.model.state_dict().items())
    with pytest.raises(InputError, match="Unknown task 'mod'.*Did you mean 'mood'"):
        several.then("mod", tmp_path / "x")
    with pytest.raises(InputError, match="Unknown argument 'learning_rat'"):
        several.then("mood", tmp_path / "x", learning_rat=1)


def test_a_model_of_some_tasks_answers_them_alike():
    model = randomise(build_model(task_interaction="none"))
    few = model_of(model, ["intent", "stars"])
    expected = model(**encoder_inputs()).logits
    for name, logits in few(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-6, rtol=1e-6)
    other = randomise(build_model(TASKS[:2]), std=0.3)
    mixed = model_of(model, ["intent", "stars"], other)
    assert torch.equal(
        mixed.state_dict()["mtl.pooling.queries.task_intent"], _named_tensors(other)["mtl.pooling.queries.task_intent"]
    )
    assert torch.equal(
        mixed.state_dict()["mtl.pooling.queries.task_stars"], model.state_dict()["mtl.pooling.queries.task_stars"]
    )


def test_separate_encoders_become_one(tmp_path):
    model = randomise(build_model(TASKS[:3], conditioning="separate_encoders", task_interaction="none"))
    with torch.no_grad():
        for own in model.encoder.encoders["task_mood"].parameters():
            own.add_(0.1 * torch.randn_like(own))
    few = model_of(model, ["mood"])
    expected = model(**encoder_inputs()).logits["mood"]
    torch.testing.assert_close(few(**encoder_inputs()).logits["mood"], expected, atol=1e-6, rtol=1e-6)
    back = model_of(build_model(TASKS[:3], conditioning="separate_encoders", task_interaction="none"), NAMES[:3], few)
    torch.testing.assert_close(back(**encoder_inputs()).logits["mood"], expected, atol=1e-6, rtol=1e-6)


def test_arguments_of_other_tasks_are_left_out(tmp_path):
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        metric_for_best_model="a_accuracy",
        single_task_scores={"a": 1.0, "b": 2.0},
    )
    found = arguments_of(args, ["b"], ["a", "b"], tmp_path / "b")
    assert (found.metric_for_best_model, found.single_task_scores) == ("mtl_average", {"b": 2.0})
    assert arguments_of(args, ["a"], ["a", "b"], tmp_path / "a").metric_for_best_model == "a_accuracy"


def test_a_metric_belongs_to_the_task_with_the_longest_name(tmp_path):
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), metric_for_best_model="mood_en_rmse", learning_rate=1e-4
    )
    names = ["mood", "mood_en"]
    alone = arguments_of(args, ["mood"], names, tmp_path / "a")
    assert alone.metric_for_best_model == "mtl_average" and alone.greater_is_better is not False
    other = arguments_of(args, ["mood_en"], names, tmp_path / "b", learning_rate=2e-5)
    assert (other.metric_for_best_model, other.greater_is_better) == ("mood_en_rmse", False)
    assert other.parts_learning_rate == pytest.approx(2e-4)
    given = arguments_of(args, ["mood"], names, tmp_path / "c", learning_rate=2e-5, parts_learning_rate=1e-3)
    assert given.parts_learning_rate == 1e-3


@pytest.mark.parametrize("settings", [{"task_interaction": "cross_stitch"}, {"task_affinities": True}])
def test_numbers_of_pairs_are_those_of_the_tasks_that_stay(settings):
    model = randomise(build_model(**settings))
    few = model_of(model, ["stars", "intent", "names"])
    part, own = model.mtl.interaction, few.mtl.interaction
    whole, kept = (
        (part.alphas(), own.alphas())
        if "task_interaction" in settings
        else (part.task_weights.affinities(), own.task_weights.affinities())
    )
    places = [NAMES.index(name) for name in few.config.task_names]
    assert torch.equal(kept, whole[places][:, places])


def test_settings_that_name_tasks_keep_those_that_stay():
    settings = {"pooling": "task_layer", "task_layers": {"intent": 1, "stars": 2}}
    assert model_of(build_model(**settings), ["stars"]).config.task_layers == {"stars": 2}
    same = [TASKS[0], {**TASKS[0], "name": "other"}, TASKS[3]]
    merging = build_model(same, aggregation="mean", aggregation_weights={"intent": 2.0, "other": 1.0})
    assert model_of(merging, ["intent", "stars"]).config.aggregation == "none"
    assert model_of(merging, ["intent", "other"]).config.aggregation_weights == {"intent": 2.0, "other": 1.0}
    assert left_out(build_model(), ["stars"]) == ["task_interaction=cross_task_attention"]
    assert not left_out(build_model(), ["stars", "mood"])


def test_what_is_frozen_stays_so_and_adapters_are_refused():
    model = build_model()
    model.encoder.requires_grad_(False)
    few = model_of(model, ["stars"])
    assert not any(own.requires_grad for own in few.encoder.parameters())
    assert all(own.requires_grad for own in few.mtl.parameters())
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=["mtl"])
    adapted = peft.get_peft_model(build_model(), adapter)
    with pytest.raises(InputError, match="merge adapters into"):
        model_of(adapted.base_model.model, ["stars"])


def test_apart_nothing_of_the_mixture_is_punished():
    model, batch = randomise(build_model(task_interaction="shared_private", adversarial_weight=1.0)), random_batch()
    with tasks_apart(model):
        assert model(**batch).task_penalty_sums is None
    assert model(**batch).task_penalty_sums.any()
    for settings in ({"conditioning": "task_tokens"}, {"aggregation": "mean"}):
        tasks = [TASKS[0], {**TASKS[0], "name": "other"}]
        with (
            pytest.raises(InputError, match="keeps tasks apart at first"),
            tasks_apart(build_model(tasks, **settings)),
        ):
            pass


def test_orders_of_stages():
    names = ["a", "b", "c"]
    stages = {
        order: [(stage.name, stage.tasks) for stage in make(names, ["b"])] for order, make in TRAINING_ORDERS.items()
    }
    assert stages == {
        "joint": [("", None)],
        "staged": [("apart", None), ("", None)],
        "intermediate_transfer": [("intermediate", ("b",)), ("a", ("a",)), ("c", ("c",))],
        "multitask_then_finetune": [("multitask", None), ("a", ("a",)), ("b", ("b",)), ("c", ("c",))],
    }
    for given in ([], names):
        with pytest.raises(InputError, match="needs intermediate_tasks, some of the tasks and not all"):
            TRAINING_ORDERS["intermediate_transfer"](names, given)
    with pytest.raises(InputError, match="Unknown task in intermediate_tasks 'd'"):
        TRAINING_ORDERS["intermediate_transfer"](names, ["d"])
    for order in ("staged", "multitask_then_finetune"):
        with pytest.raises(InputError, match="needs several tasks"):
            TRAINING_ORDERS[order](["a"], [])
    for order, folder in (("multitask_then_finetune", "multitask"), ("intermediate_transfer", "intermediate")):
        with pytest.raises(InputError, match=f"rename the task '{folder}'"):
            TRAINING_ORDERS[order](["a", folder], ["a"])


@NEEDS_ENCODER
def test_a_recipe_whose_order_does_not_suit_it_is_refused_at_once(workplace):  # noqa: F811
    recipe = workplace / "recipe.yaml"
    for typed, message in {
        ("--training_order", "stagd"): "Did you mean 'staged'",
        ("--training_order", "staged", "--task_interaction", "none"): "nothing does",
        ("--training_order", "intermediate_transfer"): "needs intermediate_tasks",
        ("--training_order", "multitask_then_finetune", "--tasks", "mood"): "needs several tasks",
    }.items():
        with pytest.raises(InputError, match=message):
            read_recipe(recipe, typed)


@pytest.mark.slow
@NEEDS_ENCODER
@pytest.mark.parametrize(
    ("typed", "folders"),
    [
        (("staged",), ["apart", ""]),
        (("intermediate_transfer", "--intermediate_tasks", "mood"), ["intermediate", "similarity", "places"]),
        (("multitask_then_finetune",), ["multitask", "mood", "similarity", "places"]),
    ],
)
def test_the_program_trains_in_stages_and_goes_on_where_it_was_stopped(typed, folders, workplace):  # noqa: F811
    out = f"out_{typed[0]}"
    command = [*TRAIN, "--training_order", *typed, "--output_dir", out]
    done = hf_mtl(workplace, *command)
    assert done.returncode == 0, done.stderr
    for folder in folders:
        assert (workplace / out / folder / "model.safetensors").is_file()
    results = json.loads((workplace / out / "results.json").read_text("utf-8"))
    assert results.keys() == {"mood", "similarity", "places", "eval_mtl_average"} - (
        {"mood"} if typed[0] == "intermediate_transfer" else set()
    )
    assert f"Stage {len(folders)} of {len(folders)}" in done.stdout
    scored = hf_mtl(workplace, "evaluate", f"{out}/{folders[-1]}")
    assert scored.returncode == 0, scored.stderr
    tables = [
        [tuple(line.split()) for line in re.findall(r"^(\w+ +\w+ +[\d.-]+)[ <!]", printed, re.M)]
        for printed in (scored.stdout, done.stdout)
    ]
    assert tables[0] and set(tables[0]) <= set(tables[1])
    # As if it had been killed in the last stage.
    (workplace / out / "results.json").unlink()
    (workplace / out / folders[-1] / "results.json").unlink(missing_ok=True)
    again = hf_mtl(workplace, *command)
    assert again.returncode == 0, again.stderr
    assert "It is finished" in again.stdout and "Continuing from" in again.stdout
    assert json.loads((workplace / out / "results.json").read_text("utf-8")) == results


def test_shuffled_states_are_those_of_the_next_task():
    """The part report's question whether telling tasks apart matters is asked of rows that name their tasks, too."""
    model, inputs = randomise(build_model(TASKS[:2], task_interaction="none")), encoder_inputs()
    rows = torch.arange(8)
    asked_tasks = torch.zeros(8, 1, dtype=torch.long)
    routing = {"single_label_classification": {"rows": rows, "tasks": rows * 0, "slots": rows * 0}}
    plain = model(**inputs, routing=routing, asked_tasks=asked_tasks).entry_logits
    with _shuffled_tasks(model):
        found = model(**inputs, routing=routing, asked_tasks=asked_tasks).entry_logits["single_label_classification"]
    assert not torch.allclose(found, plain["single_label_classification"])
    head, states = model.mtl.heads["single_label_classification"], model(**inputs).task_states
    expected = states[:, 1] @ head.weight.get_parameter("task_intent").T + head.bias.get_parameter("task_intent")
    torch.testing.assert_close(found, expected)
