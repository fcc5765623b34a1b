"""The dense path compiles as one graph with every part, and computes what it computes uncompiled."""

import pytest
import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from hf_mtl.modeling.aggregation import TASK_AGGREGATIONS
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.gate import TASK_GATES
from hf_mtl.modeling.head import HEAD_READINGS
from hf_mtl.modeling.interaction import TASK_INTERACTIONS
from hf_mtl.modeling.pooling import TASK_POOLINGS
from tests.conftest import TASKS, build_model, encoder_inputs
from tests.modeling.test_conditioning import shaken

pytestmark = pytest.mark.slow

TAUGHT = [TASKS[1], {**TASKS[1], "name": "temper"}, TASKS[4]]
PLAIN = {"pooling": "mean", "task_interaction": "none", "gate": "none"}
# Rows of separate encoders are found by their task: sizes that follow from values, which break a graph.
BREAKING = [("conditioning", "separate_encoders"), ("conditioning", "private_encoders")]
TABLES = {
    "conditioning": TASK_CONDITIONINGS,
    "pooling": TASK_POOLINGS,
    "pooling_scorer": ATTENTION_SCORERS,
    "task_interaction": TASK_INTERACTIONS,
    "attention_scorer": ATTENTION_SCORERS,
    "gate": TASK_GATES,
    "head": HEAD_READINGS,
    "aggregation": TASK_AGGREGATIONS,
}
NAMES = {part: [name for name in table if (part, name) not in BREAKING] for part, table in TABLES.items()}


def cases():
    """Models in which every name of every table stands at least once."""
    found = []
    for index in range(max(map(len, NAMES.values()))):
        settings = {part: names[index % len(names)] for part, names in NAMES.items()}
        # The pooler goes with no task tokens.
        if (settings["conditioning"], settings["pooling"]) == ("task_tokens", "pooler"):
            settings["conditioning"] = "none"
        found.append(settings)
    # Each name of the scorers again where it is read.
    read = {"pooling": "task_queries", "task_interaction": "cross_task_attention"}
    found += [{**read, "pooling_scorer": name, "attention_scorer": name} for name in ATTENTION_SCORERS]
    return found


MORE = [
    {"pooling": "task_queries", "lexical_rank": 4, "pooling_floor": 0.1, "task_interaction": "mmoe"},
    {"task_interaction": "cross_task_attention", "attention_top_k": 2, "task_affinities": True},
    {"task_interaction": "cross_task_attention", "interaction_size": 16, "signed_attention": True},
]


def computed(model, call):
    """Logits and gradients of their squares' sum."""
    model.zero_grad()
    logits = call(**encoder_inputs()).logits
    sum(own.square().sum() for own in logits.values()).backward()
    return logits, {name: own.grad.clone() for name, own in model.named_parameters() if own.grad is not None}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


@pytest.mark.parametrize("settings", cases() + MORE, ids=lambda own: "-".join(map(str, own.values())))
def test_a_model_compiles_as_one_graph(settings):
    model = shaken(build_model(TAUGHT, **{**PLAIN, **settings}))
    expected, slopes = computed(model, model)
    found, others = computed(model, torch.compile(model, fullgraph=True, backend="aot_eager"))
    assert others.keys() == slopes.keys()
    for task, logits in found.items():
        torch.testing.assert_close(logits, expected[task], atol=1e-5, rtol=1e-5, msg=task)
    for name, slope in others.items():
        torch.testing.assert_close(slope, slopes[name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("part", "name"), BREAKING)
def test_what_breaks_the_graph_computes_the_same_in_pieces(part, name):
    model = shaken(build_model(TAUGHT, **{**PLAIN, part: name}))
    with pytest.raises((torch._dynamo.exc.TorchDynamoException, GuardOnDataDependentSymNode)):
        torch.compile(model, fullgraph=True, backend="aot_eager")(**encoder_inputs())
    torch._dynamo.reset()
    expected, found = model(**encoder_inputs()).logits, torch.compile(model, backend="aot_eager")(**encoder_inputs())
    for task, logits in found.logits.items():
        torch.testing.assert_close(logits, expected[task], atol=1e-5, rtol=1e-5, msg=task)
