"""MRAN's modules by their formulas, each with every scorer and alone; the paper's own form and what it cannot do."""

import copy
import itertools

import pytest
import torch
from torch import nn

from hf_mtl import InputError
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.interaction_mran import RELATIONS
from tests.conftest import TASKS, build_model, encoder_inputs, random_batch, randomise
from tests.modeling.test_interactions import close
from tests.modeling.test_limit_battery import T, build, states_and_embeddings, without_preferences

GROUPS = 8
every_scorer = pytest.mark.parametrize("name", ATTENTION_SCORERS)


def mran(name="general", relations=RELATIONS, **more):
    """The part, with whatever parameters, in float64."""
    settings = {"attention_scorer": name, "mran_relations": list(relations), "feature_groups": GROUPS, **more}
    part = build("mran", settings).double().mtl.interaction
    return part, *states_and_embeddings(dtype=torch.float64)


def read_by_loops(relation, queries, keys, values):
    """What each query reads: sum_j softmax_j(S)_j (W_V x_j) in each head, side by side, times W_O."""
    found = []
    for query in queries:
        heads = []
        projected = [relation.values.value(value).chunk(relation.scorer.num_heads) for value in values]
        for head in range(relation.scorer.num_heads):
            scores = torch.stack([relation.scorer(query[None], key[None])[head, 0, 0] for key in keys])
            heads.append(sum(share * one[head] for share, one in zip(scores.softmax(0), projected)))
        found.append(relation.values.output(torch.cat(heads)))
    return torch.stack(found)


def predicted(part, states):
    """The two layers of each task's own, by loops."""
    tensors = (part.predictor.first, part.predictor.first_bias, part.predictor.second, part.predictor.second_bias)
    found = []
    for state, key in zip(states, part.predictor.first.keys):
        first, first_bias, second, second_bias = (one.get_parameter(key) for one in tensors)
        inner = torch.stack([(row @ state + bias).clamp(min=0) for row, bias in zip(first, first_bias)])
        found.append((second @ inner + second_bias).clamp(min=0))
    return torch.stack(found)


def tasks_by_loops(part, states, embeddings):
    relation = part.task_task
    readable = [relation.norm(state) + own for state, own in zip(states, embeddings)]
    return relation.after((states + read_by_loops(relation, readable, readable, states))[None])[0]


def features_by_loops(part, states):
    relation = part.feature_feature
    features = states.mean(dim=0).view(GROUPS, -1)
    mixed = features + read_by_loops(relation, features, features, features)
    return relation.after(mixed.flatten()[None, None])[0, 0].view(GROUPS, -1)


def aligned_by_loops(part, tasks, features):
    relation, found = part.task_feature, []
    for task in tasks:
        query = relation.projection(task)
        scores = torch.stack([relation.scorer(query[None], one[None])[:, 0, 0] for one in features])
        alphas = scores.softmax(0)  # (groups, heads)
        rows = []
        for one, alpha in zip(features, alphas):
            values = relation.values.value(one).chunk(len(alpha))
            rows.append(one + relation.values.output(torch.cat([a * value for a, value in zip(alpha, values)])))
        found.append(torch.cat(rows))
    return relation.after(torch.stack(found)[None])[0]


@every_scorer
def test_tasks_read_each_other(name):
    """S3.1 to S3.4, S3.6 with mix, S3.7, S3.10, S3.16: norm(Y + A Y) and the predictor."""
    part, states, embeddings = mran(name, ["task_task"])
    found = part.mix(states, embeddings)
    for row, expected in zip(states, found):
        close(predicted(part, tasks_by_loops(part, row, embeddings)), expected)


@every_scorer
def test_features_that_all_tasks_share_read_each_other(name):
    """S3.8, S3.16: groups of the tasks' mean state, and each task's predictor of them."""
    part, states, embeddings = mran(name, ["feature_feature"])
    found = part.mix(states, embeddings)
    for row, expected in zip(states, found):
        close(predicted(part, features_by_loops(part, row).flatten().expand(T, -1)), expected)


@every_scorer
def test_tasks_weigh_the_features(name):
    """S3.9, S3.16: X + alpha_t * X, alpha_t = softmax_j(score(h_t, f_j)), of the states as they are."""
    part, states, embeddings = mran(name, ["task_feature"])
    found = part.mix(states, embeddings)
    for row, expected in zip(states, found):
        features = row.mean(dim=0).view(GROUPS, -1)
        close(predicted(part, aligned_by_loops(part, row, features)), expected)


@every_scorer
def test_the_whole_aligns_what_tasks_and_features_became(name):
    """S3.7 to S3.10: task_task and feature_feature first, task_feature of both."""
    part, states, embeddings = mran(name)
    found = part.mix(states, embeddings)
    for row, expected in zip(states, found):
        tasks, features = tasks_by_loops(part, row, embeddings), features_by_loops(part, row)
        close(predicted(part, aligned_by_loops(part, tasks, features)), expected)


def test_without_alignment_tasks_stand_beside_the_features():
    """S3.16."""
    part, states, embeddings = mran(relations=["task_task", "feature_feature"])
    found = part.mix(states, embeddings)
    for row, expected in zip(states, found):
        both = tasks_by_loops(part, row, embeddings) + features_by_loops(part, row).flatten()
        close(predicted(part, both), expected)


def test_uniform_weights_scale_all_features_alike():
    """S3.9: alpha = 1/n multiplies every feature by 1 + 1/n."""
    part, states, embeddings = mran(relations=["task_feature"])
    alignment = without_preferences(part).task_feature
    alignment.after = nn.Identity()
    features = states.mean(dim=1).view(len(states), GROUPS, -1)
    expected = features.flatten(1).unsqueeze(1).expand(-1, T, -1) * (1 + 1 / GROUPS)
    close(alignment(states, features), expected)


def test_equal_scores_read_the_mean():
    """LB-1, S3.6."""
    part, states, embeddings = mran(relations=["task_task"])
    relation = without_preferences(part).task_task
    close(relation(states, embeddings, part.reads), relation.after(states + states.mean(dim=1, keepdim=True)))


@pytest.mark.parametrize("name", ["dot_product", "general", "additive"])
def test_the_published_form_of_one_head_rescales(name):
    """S3.5, S3.6: y_j + a_j y_j, a = softmax_j(sum_i S_ij), by loops; equal scores give a = 1/T."""
    part, states, embeddings = mran(name, ["task_task"], relation_mixing="rescale")
    relation = part.task_task
    relation.after = nn.Identity()
    for row in states:
        readable = [relation.norm(state) + own for state, own in zip(row, embeddings)]
        sums = [sum(relation.scorer(q[None], k[None])[0, 0, 0] for q in readable) for k in readable]
        shares = torch.stack(sums).softmax(0)
        expected = relation.after((row + shares[:, None] * row)[None])[0]
        close(relation(row[None], embeddings, part.reads)[0], expected)
    if name != "dot_product":
        weights = without_preferences(part).weights(states, embeddings)
        close(weights, torch.eye(T, dtype=torch.float64).expand_as(weights) / T)


def test_the_published_form_mixes_no_tasks_and_a_layer_norm_undoes_it():
    """S3.5 to S3.7: no task reads another's state, and with a layer norm the module is the norm alone."""
    part, states, embeddings = mran(relations=["task_task"], relation_mixing="rescale")
    relation = part.task_task
    with torch.no_grad():
        weights = relation.weights(states, embeddings, part.reads)
    others = weights.masked_select(~torch.eye(T, dtype=torch.bool))
    assert not others.any() and weights.any()
    relation.after.norm.eps = 0.0
    close(relation(states, embeddings, part.reads), relation.after(states), 1e-8)
    reading = mran(relations=["task_task"])[0].task_task
    assert (reading(states, embeddings, part.reads) - reading.after(states)).abs().max() > 0.1


def test_the_published_columns_depend_on_the_batch():
    """S3.0, LB-7: vectors as long as the sample relate tasks by whoever else is in it; states do not."""
    states = torch.randn(6, T, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def published(columns):
        """Dot products of the tasks' columns (rows, tasks), and what each row becomes."""
        scores = columns.T @ columns
        return columns @ scores.softmax(dim=1).T + columns

    assert (published(states)[0] - published(states[:3])[0]).abs().max() > 0.01
    part, rows, embeddings = mran()
    close(part.mix(rows, embeddings)[:1], part.mix(rows[:1], embeddings))


def test_batch_norm_is_the_papers_while_it_trains_and_apart_afterwards():
    """S3.7: each entry over the rows and tasks of a batch, by hand; afterwards rows do not read each other (LB-7)."""
    part, states, embeddings = mran(relations=["task_task"], relation_norm="batch")
    relation = part.train().task_task
    mixed = states + relation.values(relation.weights(states, embeddings, part.reads), states)
    mean, variance = mixed.mean(dim=(0, 1)), mixed.var(dim=(0, 1), unbiased=False)
    norm = relation.after.norm
    expected = (mixed - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    close(relation(states, embeddings, part.reads), expected)
    assert not torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
    part.eval()
    close(part(states, embeddings)[:1], part(states[:1], embeddings))


def test_one_vector_is_normalised_by_the_running_statistics():
    """S3.7: a batch of one row has one vector of features, which has no variance."""
    part, states, _ = mran(relations=["feature_feature"], relation_norm="batch")
    before = copy.deepcopy(part.state_dict())
    found = part.train().mix(states[:1], None)
    close(found, part.eval().mix(states[:1], None))
    assert all(torch.equal(tensor, before[name]) for name, tensor in part.state_dict().items())


def test_statistics_count_each_step_once():
    """S3.7: a stack looks at its layers again for penalties, and the statistics do not."""
    model = randomise(build_model(task_interaction="mran", relation_norm="batch", relation_penalty=0.1))
    stack = randomise(
        build_model(task_interaction="mran", relation_norm="batch", relation_penalty=0.1, interaction_layers=2)
    )
    for own in (model, stack):
        own.train()(**random_batch())
        counts = [int(tensor) for name, tensor in own.named_buffers() if name.endswith("num_batches_tracked")]
        assert counts and set(counts) == {1}


def test_batch_statistics_are_saved(tmp_path):
    model = randomise(build_model(task_interaction="mran", relation_norm="batch")).train()
    for seed in range(3):
        model(**random_batch(seed=seed))
    model.eval().save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, loaded(**encoder_inputs()).logits[task])


def test_the_objective_has_three_terms():
    """S3.11: L_t + gamma sum_s S_ts^2 + beta |Theta|^2 of the matrices that the task reads, by loops."""
    part, states, embeddings = mran(relation_penalty=0.3, parameter_penalty=0.2)
    found, relation = part.penalties(states, embeddings), part.task_task
    names = [task["name"] for task in TASKS]
    for row, task in itertools.product(range(len(states)), range(T)):
        readable = relation.norm(states[row]) + embeddings
        relations = relation.scorer(readable, readable)[0, task].square().sum()
        others = tuple(f".task_{other}" for other in names if other != names[task])
        matrices = [
            tensor for name, tensor in part.named_parameters() if tensor.ndim == 2 and not name.endswith(others)
        ]
        squares = sum(tensor.square().sum() for tensor in matrices)
        close(found[row, task], 0.3 * relations + 0.2 * squares)
    assert mran()[0].penalties(states, embeddings) is None


def test_squares_are_those_of_matrices_that_are_adapted():
    """S3.11: a layer that an adapter wraps counts as what it computes."""
    part, states, embeddings = mran(parameter_penalty=1.0)
    before = part.penalties(states, embeddings)[0, 0]
    layer = part.task_task.scorer.key

    class Twice(nn.Module):
        def forward(self, given):
            return 2 * layer(given)

    part.task_task.scorer.key = Twice()
    close(part.penalties(states, embeddings)[0, 0], before + 3 * layer.weight.square().sum())


def test_tasks_of_one_state_read_alike_but_for_their_embeddings():
    """S3.1 to S3.3: why scores read LN(y) + e: by y alone, tasks that a text has one state for are one task."""
    part, states, embeddings = mran(relations=["task_task"])
    same = states[:, :1].expand_as(states)
    by_state = part.task_task.weights(same, torch.zeros_like(embeddings), part.reads)
    close(by_state, torch.full_like(by_state, 1 / T))
    told = part.task_task.weights(same, embeddings, part.reads)
    assert (told[:, 0, 0] - told[:, 0, 1]).abs().max() > 0.01


def test_a_task_that_is_absent_decays_nothing_of_its_own():
    model = randomise(build_model(task_interaction="mran", parameter_penalty=0.1))
    batch = random_batch()
    model(
        batch["input_ids"], batch["attention_mask"], routing={"regression": batch["routing"]["regression"]}
    ).loss.backward()
    for name, tensor in model.mtl.interaction.named_parameters():
        if name.endswith("task_mood"):
            assert tensor.grad is None or not tensor.grad.any(), name
        if name.startswith("predictor") and name.endswith("task_stars"):
            assert tensor.grad.any(), name


def test_settings_that_do_not_go_together_are_named():
    tasks = [{**task, "reads": ["flags"]} if task["name"] == "mood" else task for task in TASKS]
    with pytest.raises(InputError, match="relation_mixing=rescale is what is written of scorers of one head"):
        build("mran", {"relation_mixing": "rescale"})
    with pytest.raises(InputError, match="`reads` needs relation_mixing=read"):
        build("mran", {"relation_mixing": "rescale", "attention_scorer": "general"}, tasks)
    with pytest.raises(InputError, match="names one twice"):
        build("mran", {"mran_relations": ["task_task", "task_task"]})
    with pytest.raises(InputError, match="relation_norm"):
        build("mran", {"relation_norm": "batchnorm"})
    with pytest.raises(InputError, match="relation_mixing"):
        build("mran", {"relation_mixing": "literal"})
    with pytest.raises(InputError, match=r"interaction_heads=8 does not divide 4.*feature_groups"):
        build("mran", {"interaction_heads": 8})
    with pytest.raises(InputError, match="parameter_penalty=-1"):
        build("mran", {"parameter_penalty": -1})
