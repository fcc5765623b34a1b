"""The properties of the house: floors, flatness, sizes, no probing."""

import ast
import re
from pathlib import Path

import pytest

import hf_mtl

PACKAGE = Path(hf_mtl.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# Floor of each module or folder; a module imports only lower floors or its own folder.
FLOORS = {
    "modeling": 0,
    "metrics": 1,
    "evaluate_metric": 1,
    "tasks": 1,
    "task_presets": 1,
    "baselines": 1,
    "data": 1,
    "balancing": 1,
    "training": 2,
    "recipe_format": 1,
    "recipe": 2,
    "report": 2,
    "model_card": 2,
    "commands": 3,
    "cli": 3,
}


def room(path: Path) -> str:
    """The folder or module below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms of the package that a module imports when it is imported itself."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    tree = ast.parse(path.read_text("utf-8"))
    checking = {id(node) for block in ast.walk(tree) if isinstance(block, ast.If) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and id(node) not in checking:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def test_every_room_has_its_floor():
    assert {room(path) for path in MODULES} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    if path.parent == PACKAGE and path.name == "__init__.py":
        return
    own = room(path)
    for other in imported_rooms(path):
        assert FLOORS[other] <= FLOORS[own], f"{own} imports {other}, which lies above it"


@pytest.mark.parametrize("path", sorted((PACKAGE / "modeling").glob("*.py")), ids=lambda path: path.name)
def test_modeling_is_flat(path):
    """The copier of custom code follows `from .sibling import name` and nothing else."""
    text = path.read_text("utf-8")
    assert not re.search(r"^\s*(from \.\.|from \. import|from hf_mtl|import hf_mtl)", text, re.M)
    assert not list((PACKAGE / "modeling").glob("*/*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_probing_and_no_bare_except(path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr")
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sizes(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 480
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 45, f"{node.name} has {lines} lines"


def test_names_are_the_fields():
    assert not [path for path in MODULES if path.stem in ("utils", "common", "helpers", "misc")]
    assert len(hf_mtl.__all__) <= 15


def test_every_public_name_can_be_reached():
    for name in hf_mtl.__all__:
        assert getattr(hf_mtl, name) is not None
