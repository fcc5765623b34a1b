"""A recipe file, what the command line changes of it, and when two runs are the same."""

import pytest
import yaml

from hf_mtl import InputError
from hf_mtl.commands.train import check_output_folder
from hf_mtl.recipe import RECIPE_FILE, differing_keys, read_recipe
from hf_mtl.training.training_order import arguments_of

TASKS = [
    {"name": "rte", "problem_type": "single_label_classification", "dataset": "some/rte", "weight": 0.5},
    {"name": "stsb", "problem_type": "regression", "dataset": "some/stsb"},
]
KEYS = {"encoder": "some/encoder", "output_dir": "out", "report_to": "none"}


@pytest.fixture
def write(tmp_path):
    """Write a recipe of the given keys and return its path."""

    def write_recipe(text=None, **keys):
        path = tmp_path / "train.yaml"
        path.write_text(text or yaml.safe_dump({**KEYS, "tasks": TASKS, **keys}, sort_keys=False), "utf-8")
        return path

    return write_recipe


def flat(recipe):
    """Every argument by name."""
    return {**vars(recipe.model), **vars(recipe.data), **vars(recipe.training)}


def test_a_file_alone(write):
    recipe = read_recipe(write(learning_rate=0.25, pooling="mean", max_train_samples=7))
    assert (recipe.encoder, str(recipe.folder)) == ("some/encoder", "out")
    assert (recipe.training.learning_rate, recipe.model.pooling, recipe.data.max_train_samples) == (0.25, "mean", 7)
    assert [(task.name, task.weight) for task in recipe.tasks] == [("rte", 0.5), ("stsb", 1.0)]
    assert recipe.training.parts_learning_rate == 2.5


@pytest.mark.parametrize(
    ("given", "typed", "key", "expected"),
    [
        ({"learning_rate": 0.1}, ["--learning_rate", "3e-5"], "learning_rate", 3e-5),
        ({"learning_rate": 0.1}, ["--learning_rate=3e-5"], "learning_rate", 3e-5),
        ({}, ["--max_steps", "-1"], "max_steps", -1),
        ({"pooling": "mean"}, ["--pooling", "first_token"], "pooling", "first_token"),
        ({"max_train_samples": 100}, ["--max_train_samples", "8"], "max_train_samples", 8),
        ({"encoder": None}, ["--encoder", "other/encoder"], "encoder", "other/encoder"),
        ({}, ["--run_name", "two words"], "run_name", "two words"),
        ({}, ["--run_name", "a=b"], "run_name", "a=b"),
        ({}, ["--length_grouping", "false"], "length_grouping", False),
        ({"length_grouping": False}, ["--length_grouping", "true"], "length_grouping", True),
        ({"length_grouping": False}, ["--length_grouping"], "length_grouping", True),
        ({}, ["--exclude_overlap", "false"], "exclude_overlap", False),
        ({}, ["--no_exclude_overlap"], "exclude_overlap", False),
        ({}, ["--label_names", "a", "b"], "label_names", ["a", "b"]),
        ({"label_names": ["a", "b"]}, [], "label_names", ["a", "b"]),
        ({"label_names": ["a", "b"]}, ["--label_names", "c"], "label_names", ["c"]),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, [], "lr_scheduler_kwargs", {"num_cycles": 2}),
        ({"load_best_model_at_end": False}, [], "load_best_model_at_end", False),
        ({"max_eval_samples": None}, [], "max_eval_samples", None),
        ({"save_strategy": "epoch"}, ["--save_strategy", "no"], "save_strategy", "no"),
    ],
)
def test_the_command_line_goes_first(write, given, typed, key, expected):
    assert flat(read_recipe(write(**given), typed))[key] == expected


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "0.0001", "1E-4", "'1e-4'"])
def test_numbers_as_people_write_them(write, written):
    text = yaml.safe_dump({**KEYS, "tasks": TASKS}) + f"learning_rate: {written}\n"
    assert read_recipe(write(text)).training.learning_rate == 1e-4


@pytest.mark.parametrize("written", ["1e-1", "1.0e-1", "0.1"])
def test_a_weight_as_people_write_it(write, written):
    text = yaml.safe_dump({**KEYS, "tasks": TASKS}).replace("weight: 0.5", f"weight: {written}")
    assert read_recipe(write(text)).tasks[0].weight == 0.1
    assert read_recipe(write(), ["--tasks.rte.weight", written]).tasks[0].weight == 0.1


@pytest.mark.parametrize(
    ("typed", "names", "values"),
    [
        (["--tasks", "stsb"], ["stsb"], {}),
        (["--tasks", "stsb", "rte"], ["rte", "stsb"], {}),
        (["--tasks.rte.weight", "2"], ["rte", "stsb"], {("rte", "weight"): 2, ("stsb", "weight"): 1}),
        (["--tasks.rte.weight=2"], ["rte", "stsb"], {("rte", "weight"): 2}),
        (["--tasks", "rte", "--tasks.rte.max_train_samples", "9"], ["rte"], {("rte", "max_train_samples"): 9}),
        (
            ["--tasks.stsb.metrics", "[pearson]", "--max_steps", "3"],
            ["rte", "stsb"],
            {("stsb", "metrics"): ["pearson"]},
        ),
        (["--tasks.rte.balance_classes", "true"], ["rte", "stsb"], {("rte", "balance_classes"): True}),
    ],
)
def test_tasks_on_the_command_line(write, typed, names, values):
    recipe = read_recipe(write(), typed)
    assert [task.name for task in recipe.tasks] == names
    by_name = {task.name: task for task in recipe.tasks}
    assert {(name, key): getattr(by_name[name], key) for name, key in values} == values
    assert recipe.training.max_steps == (3 if "--max_steps" in typed else -1)


def test_what_is_said_of_tasks_that_are_left_out_goes_with_them(write):
    rows = [{**TASKS[0], "reads": ["stsb"]}, TASKS[1]]
    keys = {"tasks": rows, "task_layers": {"rte": 2, "stsb": 1}, "single_task_scores": {"rte": 60.0, "stsb": 80.0}}
    recipe = read_recipe(write(**keys), ["--tasks", "rte"])
    assert recipe.tasks[0].reads == []
    assert recipe.model.task_layers == {"rte": 2}
    assert recipe.training.single_task_scores == {"rte": 60.0}
    whole = read_recipe(write(**keys))
    assert (whole.tasks[0].reads, whole.model.task_layers) == (["stsb"], {"rte": 2, "stsb": 1})


@pytest.mark.parametrize(
    ("order", "names"), [("intermediate_transfer", ["rte"]), ("multitask_then_finetune", ["stsb"])]
)
def test_the_recipe_of_a_stage_can_be_read_alone(write, tmp_path, order, names):
    keys = {"training_order": order, "task_layers": {"rte": 2, "stsb": 1}, "metric_for_best_model": "rte_accuracy"}
    first = {"intermediate_tasks": ["rte"]} if order == "intermediate_transfer" else {}
    whole = read_recipe(write(**keys, **first))
    args = arguments_of(whole.training, names, ["rte", "stsb"], tmp_path / "stage")
    (tmp_path / "stage").mkdir()
    whole.of_stage(names, args).save(tmp_path / "stage")
    recipe = read_recipe(tmp_path / "stage" / RECIPE_FILE)
    assert [spec.name for spec in recipe.tasks] == names
    assert recipe.data.training_order == "joint"
    assert recipe.training.output_dir == str(tmp_path / "stage")
    assert recipe.training.metric_for_best_model == ("rte_accuracy" if names == ["rte"] else "mtl_average")
    assert recipe.model.task_layers.keys() == set(names)


def test_a_preset_is_a_row(write):
    recipe = read_recipe(write(tasks=[{"preset": "glue/rte", "weight": 2}]), ["--tasks.rte.max_length", "64"])
    (task,) = recipe.tasks
    assert (task.name, task.weight, task.max_length, task.fields) == ("rte", 2, 64, ["text", "text_pair"])


@pytest.mark.parametrize(
    ("keys", "typed", "says"),
    [
        ({"learning_rat": 1}, [], "Did you mean 'learning_rate'"),
        ({}, ["--learning_rte", "1"], "Did you mean 'learning_rate'"),
        ({}, ["--learning", "1"], "Unknown argument --learning"),
        ({}, ["--tasks", "rt"], "Did you mean 'rte'"),
        ({}, ["--tasks.rt.weight", "2"], "Did you mean 'rte'"),
        ({}, ["--tasks.rte.weigh", "2"], "Did you mean 'weight'"),
        ({}, ["--tasks.rte.weight"], "--tasks.rte.<key> <value>"),
        ({}, ["--learning_rate", "fast"], "fast"),
        ({}, ["--learning_rate", "0"], "learning_rate=0.0; expected a number > 0"),
        ({"learning_rate": "fast"}, [], "fast"),
        ({"tasks": None}, [], "a list of task rows"),
        ({"tasks": []}, [], "at least one row"),
        ({"tasks": ["rte"]}, [], "found 'rte'"),
        ({"tasks": [{"preset": "glue/rt"}]}, [], "Did you mean 'glue/rte'"),
        ({"tasks": [{"name": "rte"}]}, [], "'problem_type'"),
        ({"encoder": None}, [], "`encoder:` is missing"),
        ({}, ["--pooling", "nosuch"], "task_queries"),
        ({}, ["--gate", "nosuch"], "information_gate"),
        ({}, ["stray"], "stray"),
        ({}, ["--max_train_samples", "0"], "max_train_samples=0; expected a whole number >= 1"),
        ({}, ["--max_eval_samples", "-1"], "max_eval_samples=-1"),
        ({}, ["--tasks.rte.columns", "{text:"], "no valid YAML"),
    ],
)
def test_what_cannot_be_used(write, keys, typed, says):
    with pytest.raises(InputError) as error:
        read_recipe(write(**keys), typed)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, []),
        ({"learning_rate": 1e-4, "seed": 1}, {"learning_rate": 3e-4, "seed": 1}, ["learning_rate"]),
        ({"pooling": "mean"}, {}, ["pooling"]),
        ({}, {"pooling": "mean", "gate": "none"}, ["gate", "pooling"]),
        ({"output_dir": "a", "report_to": "none", "baselines": True}, {"output_dir": "b", "use_cpu": True}, []),
        ({"tasks.rte.weight": 1}, {"tasks.rte.weight": 2}, ["tasks.rte.weight"]),
        ({"learning_rate": "1e-4"}, {"learning_rate": 0.0001}, []),
        ({"weight_decay": 0}, {"weight_decay": 0.0}, []),
    ],
)
def test_differing_keys(first, second, expected):
    assert differing_keys(first, second) == expected


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["--learning_rate", "3e-5", "--tasks", "rte", "--tasks.rte.weight", "2"],
        ["--save_strategy", "no", "--lr_scheduler_type", "cosine"],
        ["--no_exclude_overlap"],
        ["--length_grouping", "false", "--label_names", "a", "b"],
        ["--lr_scheduler_kwargs", '{"num_cycles": 2}'],
    ],
)
def test_a_saved_recipe_is_the_run(write, tmp_path, typed):
    """What an output folder keeps gives the same run again, and the same command is recognised."""
    recipe = read_recipe(write(), typed)
    folder = tmp_path / "out"
    folder.mkdir()
    recipe.save(folder)
    again = read_recipe(folder / RECIPE_FILE)
    assert (again.model, again.data, again.tasks) == (recipe.model, recipe.data, recipe.tasks)
    assert again.training.to_dict() == recipe.training.to_dict()
    assert check_output_folder(folder, recipe) is None


@pytest.mark.parametrize(
    ("typed", "differs"),
    [
        (["--learning_rate", "3e-5"], "learning_rate"),
        (["--tasks.rte.weight", "2"], "tasks.rte.weight"),
        (["--tasks", "rte"], "tasks.stsb"),
        (["--no_exclude_overlap"], "exclude_overlap"),
        (["--lr_scheduler_type", "cosine"], "lr_scheduler_type"),
        (["--lr_scheduler_kwargs", '{"num_cycles": 2}'], "lr_scheduler_kwargs"),
    ],
)
def test_a_folder_of_another_run_is_refused(write, tmp_path, typed, differs):
    folder = tmp_path / "out"
    folder.mkdir()
    read_recipe(write()).save(folder)
    with pytest.raises(InputError, match=differs):
        check_output_folder(folder, read_recipe(write(), typed))


def test_what_does_not_change_a_run_is_not_compared(write, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    read_recipe(write()).save(folder)
    typed = ["--disable_tqdm", "true", "--baselines", "false", "--run_name", "second"]
    assert check_output_folder(folder, read_recipe(write(), typed)) is None


@pytest.mark.parametrize("content", ["tasks: [", "just text", "", "tasks: nosuch"])
def test_a_damaged_saved_recipe_is_refused(write, tmp_path, content):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / RECIPE_FILE).write_text(content, "utf-8")
    with pytest.raises(InputError, match=RECIPE_FILE):
        check_output_folder(folder, read_recipe(write()))


def test_a_finished_run_is_found(write, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    recipe = read_recipe(write())
    recipe.save(folder)
    (folder / "results.json").write_text("{}", "utf-8")
    assert check_output_folder(folder, recipe) == folder / "results.json"


def test_a_system_sets_the_parts_and_other_keys_change_it(write):
    recipe = read_recipe(write(system="mmoe"))
    assert (recipe.model.task_interaction, recipe.model.pooling, recipe.model.gate) == ("mmoe", "mean", "none")
    recipe = read_recipe(write(system="mmoe", pooling="first_token"), ["--shared_experts", "8"])
    assert (recipe.model.task_interaction, recipe.model.pooling) == ("mmoe", "first_token")
    assert recipe.model.shared_experts == 8
    recipe = read_recipe(write(system="mmoe"), ["--system=ple", "--gate", "information_gate"])
    assert (recipe.model.task_interaction, recipe.model.gate) == ("ple", "information_gate")
    recipe = read_recipe(write(pooling="first_token", gate="none"), ["--system", "task_transformer"])
    assert (recipe.model.pooling, recipe.model.gate) == ("task_queries", "none")
    with pytest.raises(InputError, match="--system"):
        read_recipe(write(), ["--system"])
    with pytest.raises(InputError, match=r"(?s)system.*mmo.*mmoe"):
        read_recipe(write(system="mmo"))
