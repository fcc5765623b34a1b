"""The properties of the house: floors, flatness, sizes, no probing."""

import ast
import re
from pathlib import Path

import pytest

import hf_mtl
from hf_mtl.modeling.problem_types import PROBLEM_TYPES

PACKAGE = Path(hf_mtl.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# Floor of each module or folder; a module imports only lower floors or its own.
FLOORS = {
    "modeling": 0,
    "metrics": 1,
    "paired_intervals": 1,
    "screen": 1,
    "evaluate_metric": 1,
    "tasks": 1,
    "task_presets": 1,
    "data": 2,
    "balancing": 2,
    "training": 3,
    "inspection": 4,
    "baselines": 4,
    "recipe_format": 4,
    "recipe": 4,
    "tables": 4,
    "commands": 5,
    "cli": 5,
}


def room(path: Path) -> str:
    """The folder or module below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[Path]:
    """The modules of the package that a module imports, anywhere in it: under TYPE_CHECKING and in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for name in node.names:
                places = [folder / f"{name.name}.py", folder / name.name / "__init__.py", folder.with_suffix(".py")]
                found.add(next((place for place in places if place.is_file()), folder / "__init__.py"))
    return found


MOST_DEEP = 15
IMPORTS = {path: imported_modules(path) for path in MODULES}


def depth(path: Path, above: tuple[Path, ...] = ()) -> int:
    """How many modules stand on each other below a module, itself counted; raises for a circle."""
    assert path not in above, f"a circle: {' -> '.join(one.stem for one in (*above, path))}"
    return 1 + max((depth_of(other, (*above, path)) for other in IMPORTS[path]), default=0)


def depth_of(path: Path, above: tuple[Path, ...]) -> int:
    if path not in DEPTHS:
        DEPTHS[path] = depth(path, above)
    return DEPTHS[path]


DEPTHS: dict[Path, int] = {}


def test_every_room_has_its_floor():
    assert {room(path) for path in MODULES} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    if path == PACKAGE / "__init__.py":
        return
    for other in {room(one) for one in IMPORTS[path]}:
        assert FLOORS[other] <= FLOORS[room(path)], f"{room(path)} imports {other}, which lies above it"


def test_there_are_no_circles_and_no_towers():
    deepest = max(MODULES, key=lambda path: depth_of(path, ()))
    assert DEPTHS[deepest] <= MOST_DEEP, deepest


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
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"


# A problem type's name stands in its row, at its head, and in tables of tasks.
PROBLEM_TYPES_STAND_IN = ("modeling/problem_types.py", "modeling/problem_heads.py", "task_presets.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_problem_types_are_spelled_in_their_places_only(path):
    if str(path.relative_to(PACKAGE)) in PROBLEM_TYPES_STAND_IN:
        return
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings:
            assert not [name for name in PROBLEM_TYPES if name == node.value or ("_" in name and name in node.value)]


def test_names_are_the_fields():
    assert not [path for path in MODULES if path.stem in ("utils", "common", "helpers", "misc")]
    assert len(hf_mtl.__all__) <= 15


# Participles and adverbs that say nothing of what a name holds.
NO_NAMES = (
    "found",
    "own",
    "asked",
    "told",
    "known",
    "picked",
    "fixed",
    "alone",
    "opened",
    "own_of",
    "fitting",
    "chosen",
)


def names_given(tree: ast.AST) -> set[str]:
    """The names of a module's functions, classes, parameters, variables and attributes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_are_nouns_and_verbs(path):
    names = names_given(ast.parse(path.read_text("utf-8")))
    assert not [name for name in names if name.strip("_") in NO_NAMES]


# A first line says what a thing is or does, and asks no question.
NO_BEGINNINGS = ("What ", "Which ", "How ", "Whether ", "Where ", "When ", "Who ")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_begin_as_they_are_met_in_an_editor(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            name = getattr(node, "name", path.stem)
            text = ast.get_docstring(node) or ""
            assert name.startswith("_") or not text.startswith(NO_BEGINNINGS), f"{name}: {text.splitlines()[0]}"


TABLES = (ast.Dict, ast.DictComp, ast.Tuple, ast.List)


def public_names(path: Path) -> dict[str, bool]:
    """A module's public functions, classes and constants, and whether its `__all__` or its public signatures name
    them: a type that a caller meets has a name that a caller may write, and what stands in a table is reached there.
    """
    tree = ast.parse(path.read_text("utf-8"))
    names, met = set(), set()

    def meet(*nodes: ast.AST | None) -> None:
        for part in (part for node in nodes if node is not None for part in ast.walk(node)):
            if isinstance(part, ast.Name):
                met.add(part.id)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                met.update(re.findall(r"\w+", part.value))

    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if "__all__" in {target.id for target in targets if isinstance(target, ast.Name)}:
            met |= set(ast.literal_eval(node.value))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, TABLES):
            meet(*(part for part in ast.walk(node.value) if isinstance(part, ast.Name)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = node.args
            given = [*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            meet(*(argument.annotation for argument in given if argument), node.returns)
        elif isinstance(node, ast.ClassDef):
            meet(*node.bases, *(item.annotation for item in node.body if isinstance(item, ast.AnnAssign)))
    return {name: name in met for name in names if not name.startswith("_") and name != "logger"}


IMPORTED = {
    (place, name.name)
    for path in MODULES
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.ImportFrom) and node.level
    for name in node.names
    for place in [path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")]
}
# The names of the whole package, programs' own doors, and scripts.
UNREAD = ("__init__.py", "cli.py", "commands", "data/support_desk")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_is_what_others_import(path):
    if str(path.relative_to(PACKAGE)).startswith(UNREAD):
        return
    left = [name for name, met in public_names(path).items() if not met and (path, name) not in IMPORTED]
    assert not left, f"begin with _, or stand in __all__: {left}"


def test_every_public_name_can_be_reached():
    for name in hf_mtl.__all__:
        assert getattr(hf_mtl, name) is not None
