"""A recipe file, what the command line changes of it, and when two runs are the same."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hf_mtl import InputError
from hf_mtl.commands import recipe_parts
from hf_mtl.commands.train import _check_output_folder
from hf_mtl.data.caps import smaller_cap
from hf_mtl.recipe import _FIELDS, RECIPE_FILE, differing_keys, read_recipe, saved_values
from hf_mtl.recipe_format import other_keys
from hf_mtl.training.training_order import arguments_of

RECIPES = Path(__file__).parent.parent / "recipes"
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
    assert [(task.name, task.setting("weight")) for task in recipe.tasks] == [("rte", 0.5), ("stsb", 1.0)]
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
    assert {(name, key): by_name[name].setting(key) for name, key in values} == values
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
    ("given", "typed", "expected"),
    [
        ({"task_parents": {"rte": "stsb"}}, [], {"rte": "stsb"}),
        ({"task_parents": {"rte": ["stsb", "cola"]}}, [], {"rte": ["stsb", "cola"]}),
        ({}, ["--task_parents.rte", "stsb"], {"rte": "stsb"}),
        (
            {"task_parents": {"rte": "stsb"}},
            ["--task_parents.cola", "[rte, stsb]"],
            {"rte": "stsb", "cola": ["rte", "stsb"]},
        ),
        ({"task_parents": {"rte": "stsb"}}, ["--task_parents.rte", "null"], {}),
        ({}, ["--task_parents", '{"rte": "stsb"}'], {"rte": "stsb"}),
        # What is left out is nobody's parent.
        ({"task_parents": {"rte": ["stsb", "cola"], "stsb": "cola"}}, ["--tasks", "rte", "stsb"], {"rte": ["stsb"]}),
        ({"task_parents": {"rte": "cola"}}, ["--tasks", "rte", "stsb"], {}),
    ],
    ids=str,
)
def test_parents_of_tasks(write, given, typed, expected):
    tasks = [*TASKS, {**TASKS[0], "name": "cola", "dataset": "some/cola"}]
    assert read_recipe(write(tasks=tasks, **given), typed).model.task_parents == expected


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ({"rte": "stsbb"}, "Unknown parent of 'rte' in task_parents: 'stsbb'.*Did you mean 'stsb'"),
        ({"rte": "stsb", "stsb": "rte"}, "a circle"),
        ({"rte": 1}, "texts or lists of texts"),
        ("stsb", "task_parents='stsb' is no valid JSON"),
    ],
    ids=str,
)
def test_parents_that_cannot_be_are_named_before_data_is_read(write, parents, said):
    with pytest.raises(InputError, match=said):
        read_recipe(write(task_parents=parents))


def test_the_parents_that_the_docs_show():
    typed = ["--task_parents.urgency", "intent", "--task_parents.flags", "[intent, urgency]"]
    text = (RECIPES.parent / "docs" / "recipes.md").read_text("utf-8")
    assert " ".join(typed[:3]) in text and f"'{typed[3]}'" in text
    recipe = read_recipe(RECIPES / "support_desk" / "train.yaml", typed)
    shown = re.search(r"```yaml\n(task_parents:\n.*?)```", text, re.S)
    assert yaml.safe_load(shown[1])["task_parents"] == recipe.model.task_parents


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
    assert (task.name, task.weight, task.max_length, task.input_fields) == ("rte", 2, 64, ("text", "text_pair"))


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
    assert _check_output_folder(folder, recipe) is None


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
        _check_output_folder(folder, read_recipe(write(), typed))


def test_what_does_not_change_a_run_is_not_compared(write, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    read_recipe(write()).save(folder)
    typed = ["--disable_tqdm", "true", "--baselines", "false", "--run_name", "second"]
    assert _check_output_folder(folder, read_recipe(write(), typed)) is None


@pytest.mark.parametrize("content", ["tasks: [", "just text", "", "tasks: nosuch"])
def test_a_damaged_saved_recipe_is_refused(write, tmp_path, content):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / RECIPE_FILE).write_text(content, "utf-8")
    with pytest.raises(InputError, match=RECIPE_FILE):
        _check_output_folder(folder, read_recipe(write()))


def test_a_finished_run_is_found(write, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    recipe = read_recipe(write())
    recipe.save(folder)
    (folder / "results.json").write_text("{}", "utf-8")
    assert _check_output_folder(folder, recipe) == folder / "results.json"


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


def test_keys_of_other_programs_are_no_keys_here():
    """What they are called here exists; what they are called elsewhere would never be asked about if it did."""
    keys, row_keys = _FIELDS.recipe.keys(), _FIELDS.row.keys()
    assert set(other_keys._RENAMED.values()) <= keys
    assert set(other_keys._RENAMED_IN_ROWS.values()) <= row_keys
    assert not keys & {*other_keys._RENAMED, *other_keys._ELSEWHERE}
    assert not row_keys & {*other_keys._RENAMED_IN_ROWS, *other_keys._ELSEWHERE_IN_ROWS}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("model", "`encoder`"),
        ("model_name_or_path", "`encoder`"),
        ("per_gpu_train_batch_size", "`per_device_train_batch_size`"),
        ("batch_size", "`per_device_train_batch_size`"),
        ("evaluation_strategy", "`eval_strategy`"),
        ("group_by_length", "`length_grouping`"),
        ("epochs", "`num_train_epochs`"),
        ("lr", "`learning_rate`"),
        ("train_file", "`data_files: {train: FILE, validation: FILE}` in the task's row"),
        ("dataset_name", "`dataset:` (and `subset:`) in the task's row"),
        ("warmup_ratio", "`warmup_steps: 0.06`"),
        ("max_seq_length", "`max_length:` in each task's row"),
        ("labels", "--tasks.<name>.labels"),
        ("problem_type", "--tasks.<name>.problem_type"),
    ],
)
def test_a_key_of_another_program_is_known(write, key, says):
    for keys, typed in (({key: "x"}, []), ({}, [f"--{key}", "x"])):
        with pytest.raises(InputError) as error:
            read_recipe(write(**keys), typed)
        assert repr(key) in str(error.value) or f"--{key}" in str(error.value)
        assert says in str(error.value)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("dataset_name", "`dataset`"),
        ("type", "`problem_type`"),
        ("lr", "`learning_rate`"),
        ("train_file", "`data_files: {train: FILE, validation: FILE}`"),
        ("label_column", "`columns: {label: COLUMN}`"),
        ("num_labels", "`labels: [no, yes]`"),
        ("per_device_train_batch_size", "`per_device_train_batch_size` beside `tasks:`"),
        ("batch_size", "`per_device_train_batch_size` beside `tasks:`"),
        ("wieght", "Did you mean 'weight'? A row's keys: preset, name"),
    ],
)
def test_a_key_of_another_program_in_a_row_is_known(write, key, says):
    for rows, typed in (([{**TASKS[0], key: "x"}], []), (TASKS, [f"--tasks.rte.{key}", "x"])):
        with pytest.raises(InputError) as error:
            read_recipe(write(tasks=rows), typed)
        assert repr(key) in str(error.value)
        assert says in str(error.value)


@pytest.mark.parametrize(
    ("typed", "key", "expected"),
    [
        (["--tasks.rte.columns.text", "c"], "columns", {"text": "c", "label": "gold"}),
        (["--tasks.rte.columns.text=c"], "columns", {"text": "c", "label": "gold"}),
        (["--tasks.rte.columns.text", "#1: no"], "columns", {"text": "#1: no", "label": "gold"}),
        (["--tasks.rte.columns.label", "null"], "columns", {"text": "premise"}),
        (["--tasks.rte.columns", "{text: c}"], "columns", {"text": "c"}),
        (["--tasks.rte.columns", "text: c"], "columns", {"text": "c"}),
        (["--tasks.rte.data_files.train", "f.csv"], "data_files", {"train": "f.csv"}),
        (["--tasks.rte.labels", "[no, yes]"], "labels", ["no", "yes"]),
        (["--tasks.rte.labels", "no", "yes"], "labels", ["no", "yes"]),
        (["--tasks.rte.labels", "0", "1"], "labels", ["0", "1"]),
        (["--tasks.rte.metrics", "accuracy"], "metrics", ["accuracy"]),
        (["--tasks.rte.class_weights", "1", "2e-1"], "class_weights", [1, 0.2]),
        (["--tasks.rte.weight", "1e-6"], "weight", 1e-6),
        (["--tasks.rte.label_mean", "-2.5"], "label_mean", -2.5),
        (["--tasks.rte.label_mean", "-2e0"], "label_mean", -2.0),
        (["--tasks.rte.max_length", "1e2"], "max_length", 100),
        (["--tasks.rte.balance_classes", "on"], "balance_classes", True),
        (["--tasks.rte.subset", "1.0"], "subset", "1.0"),
        (["--tasks.rte.subset", "null"], "subset", None),
        (["--tasks.rte.subset", '"null"'], "subset", "null"),
        (["--tasks.rte.dataset", ""], "dataset", None),
    ],
)
def test_a_row_on_the_command_line(write, typed, key, expected):
    rows = [{**TASKS[0], "columns": {"text": "premise", "label": "gold"}}, TASKS[1]]
    recipe = read_recipe(write(tasks=rows), typed)
    assert getattr(recipe.tasks[0], key) == expected
    assert recipe.rows[0][key] == expected
    assert recipe.rows[1] == TASKS[1]


def test_a_presets_mapping_is_changed_in_one_place(write):
    recipe = read_recipe(write(tasks=[{"preset": "glue/rte"}]), ["--tasks.rte.columns.text", "c"])
    assert recipe.tasks[0].columns == {"text": "c", "text_pair": "sentence2"}
    assert read_recipe(write(tasks=[{"preset": "glue/rte"}])).tasks[0].columns["text"] == "sentence1"


@pytest.mark.parametrize(
    ("given", "typed", "key", "expected"),
    [
        ({}, ["--gate_bias", "-2e-1"], "gate_bias", -0.2),
        ({}, ["--gate_bias=-2e-1"], "gate_bias", -0.2),
        ({}, ["--max_steps", "1e3"], "max_steps", 1000),
        ({}, ["--length_grouping", "off"], "length_grouping", False),
        ({}, ["--no-length-grouping"], "length_grouping", False),
        ({}, ["--exclude_overlap"], "exclude_overlap", True),
        ({}, ["--learning-rate", "1e-3"], "learning_rate", 1e-3),
        ({}, ["--run_name=--x"], "run_name", "--x"),
        ({}, ["--run_name", "1e5"], "run_name", "1e5"),
        ({"max_train_samples": 5}, ["--max_train_samples", "null"], "max_train_samples", None),
        ({"gradient_balancing": "pcgrad"}, ["--gradient_balancing", "null"], "gradient_balancing", None),
        (
            {"single_task_scores": {"rte": 60}},
            ["--single_task_scores.stsb", "8e1"],
            "single_task_scores",
            {"rte": 60, "stsb": 80.0},
        ),
        ({}, ["--single_task_scores", "{rte: 6e1}"], "single_task_scores", {"rte": 60.0}),
        ({}, ["--single_task_scores", '{"rte": 60}'], "single_task_scores", {"rte": 60}),
        (
            {"lr_scheduler_kwargs": '{"num_cycles": 2}'},
            ["--lr_scheduler_kwargs.power", "1"],
            "lr_scheduler_kwargs",
            {"num_cycles": 2, "power": 1},
        ),
    ],
)
def test_values_on_the_command_line(write, given, typed, key, expected):
    recipe = read_recipe(write(**given), typed)
    assert flat(recipe)[key] == recipe.values.get(key) == expected


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--tasks.rte"], "expected --tasks.rte.<key> <value>. To train it alone: --tasks rte"),
        (["--tasks.rte", "2"], "To train it alone: --tasks rte"),
        (["--tasks"], "such as --tasks rte mrpc"),
        (["--tasks.rte.weight", "2", "3"], "expected one value, found 2"),
        (["--tasks.rte.weight", "high"], "--tasks.rte.weight is 'high'; expected a number"),
        (["--tasks.rte.weight.x", "1"], "'tasks.rte.weight' is no mapping; expected --tasks.rte.weight <value>"),
        (["--tasks.rte.columns", "c"], "expected a mapping"),
        (["--tasks.rte.labels", "[null, a]"], "put it in quotes"),
        (["--learning_rate.x", "1"], "expected --learning_rate <value>"),
        (["--max_steps", "1.5"], "--max_steps is '1.5'; expected a whole number"),
        (["--seed", "1", "2"], "--seed: expected one value, found 2: 1 2"),
        (["--use_cpu", "maybe"], "--use_cpu is 'maybe'; expected true or false"),
        (["--no_doctor", "true"], "--no_doctor: expected no value"),
        (["--no_seed"], "Unknown argument --no_seed"),
        (["stray", "--seed", "1"], "'stray' has no key; expected --<key> <value>"),
    ],
)
def test_what_cannot_be_typed(write, typed, says):
    with pytest.raises(InputError) as error:
        read_recipe(write(), typed)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (["--tasks", "stsb,rte"], ["rte", "stsb"]),
        (["--tasks", "rte", "--tasks", "stsb"], ["rte", "stsb"]),
        (["--tasks=rte"], ["rte"]),
    ],
)
def test_tasks_may_be_named_in_several_ways(write, typed, names):
    assert [task.name for task in read_recipe(write(), typed).tasks] == names


@pytest.mark.parametrize(
    ("of_all", "row", "typed", "caps", "says"),
    [
        (None, 50, [], {"rte": 50, "stsb": None}, ""),
        (100, 50, [], {"rte": 50, "stsb": 100}, "the smaller of 50 in its row and 100 for all tasks"),
        (100, 500, [], {"rte": 100, "stsb": 100}, "{cap} 100 holds, the smaller of 500 in its row"),
        (None, 50, ["--{cap}", "8"], {"rte": 8, "stsb": 8}, "--{cap} 8 holds, not the 50 in its row"),
        (None, 50, ["--{cap}", "8e2"], {"rte": 800, "stsb": 800}, "--{cap} 800 holds, not the 50 in its row"),
        (100, 50, ["--tasks.rte.{cap}", "500"], {"rte": 500, "stsb": 100}, "500 holds, not the 100 of all tasks"),
        (
            None,
            50,
            ["--{cap}", "8", "--tasks.rte.{cap}", "500"],
            {"rte": 500, "stsb": 8},
            "--tasks.rte.{cap} 500 holds, not the 8 of all tasks",
        ),
        (100, 50, ["--tasks.rte.{cap}", "null"], {"rte": None, "stsb": 100}, ""),
    ],
)
@pytest.mark.parametrize("cap", ["max_train_samples", "max_eval_samples"])
def test_which_cap_holds(write, tmp_path, cap, of_all, row, typed, caps, says):
    """What is typed goes before the file, a task's own before that of all; else the smaller. It is said, and kept."""
    path = write(tasks=[{**TASKS[0], cap: row}, TASKS[1]], **({cap: of_all} if of_all else {}))
    recipe = read_recipe(path, [item.format(cap=cap) for item in typed])
    recipe.save(tmp_path)
    for read in (recipe, read_recipe(tmp_path / RECIPE_FILE)):
        common = getattr(read.data, cap)
        assert {task.name: smaller_cap(getattr(task, cap), common) for task in read.tasks} == caps
    assert says.format(cap=cap) in " ".join(recipe.notes)
    assert bool(recipe.notes) is bool(says)
    assert differing_keys(saved_values(tmp_path), recipe.values) == []


def test_the_caps_that_hold_are_printed(write, capsys, monkeypatch):
    monkeypatch.setattr(recipe_parts, "load_mixture", lambda *given: SimpleNamespace(dropped={}, train={}))
    recipe = read_recipe(write(tasks=[{**TASKS[0], "max_train_samples": 50}]), ["--max_train_samples", "80"])
    recipe_parts.read_mixture(recipe)
    assert capsys.readouterr().out == "Task rte: --max_train_samples 80 holds, not the 50 in its row.\n"
