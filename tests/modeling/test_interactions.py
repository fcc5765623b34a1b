"""Each interaction computes its paper's equations; where two papers say the same, they compute the same."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_mtl import InputError
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.systems import SYSTEMS
from tests.conftest import (
    TASKS,
    build_model,
    encoder_inputs,
    own_experts,
    random_batch,
    randomise,
    with_weights_of,
)
from tests.modeling.test_limit_battery import HIDDEN, T, build, states_and_embeddings, without_preferences


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ATTENTION_SCORERS)
def test_scorers_are_their_formulas(name):
    """S0.2, S0.6, S3.1, S3.2, S3.3, S3.4, LB-8: against loops over queries and keys."""
    scorer = ATTENTION_SCORERS[name](8, 2)
    for tensor in scorer.parameters():
        nn.init.normal_(tensor)
    queries, keys = torch.randn(3, 8), torch.randn(4, 8)
    found = scorer(queries, keys)
    assert found.shape == (scorer.num_heads, 3, 4)
    for (q, query), (k, key) in itertools.product(enumerate(queries), enumerate(keys)):
        if name == "dot_product":
            expected = [query @ key / 8**0.5]
        elif name == "general":
            expected = [query @ scorer.key.weight @ key / 8**0.5]
        elif name == "additive":
            both = torch.cat([scorer.query.weight, scorer.key.weight], dim=1) @ torch.cat([query, key])
            expected = [scorer.scores.weight[0] @ both.tanh()]
        else:
            projected = [(scorer.query(query), scorer.key(key))]
            expected = [q[h : h + 4] @ k[h : h + 4] / 2 for q, k in projected for h in (0, 4)]
        close(found[:, q, k], torch.stack(expected))


def test_a_scorer_that_is_the_identity_is_the_dot_product():
    """S3.1, S3.2: W = I gives the dot product, which is symmetric."""
    general, plain = ATTENTION_SCORERS["general"](8, 1), ATTENTION_SCORERS["dot_product"](8, 1)
    with torch.no_grad():
        general.key.weight.copy_(torch.eye(8))
    states = torch.randn(5, 8)
    close(general(states, states), plain(states, states))
    close(plain(states, states), plain(states, states).transpose(-1, -2))


def test_settings_that_do_not_go_together_are_named():
    for name in ("cross_task_attention", "head_groups"):
        with pytest.raises(InputError, match="interaction_heads=5 does not divide"):
            build(name, {"interaction_heads": 5})
    with pytest.raises(InputError, match="feature_groups=5 does not divide"):
        build("mran", {"feature_groups": 5})
    with pytest.raises(InputError, match="shared_experts=0"):
        build("mmoe", {"shared_experts": 0})
    with pytest.raises(InputError, match="task_dropout=2"):
        build("cross_task_attention", {"task_dropout": 2})
    with pytest.raises(InputError, match="interaction_layers=0"):
        build("cross_task_attention", {"interaction_layers": 0})
    with pytest.raises(InputError, match="relation in mran_relations"):
        build("mran", {"mran_relations": ["task_tasks"]})
    with pytest.raises(InputError, match="mran_relations is empty"):
        build("mran", {"mran_relations": []})
    with pytest.raises(InputError, match="neither would ever learn"):
        build("cross_task_attention", {"attention_scorer": "additive", "signed_attention": True})


@pytest.mark.parametrize(
    ("name", "value"),
    [("expert_size", 1), ("lexical_rank", -1), ("gate_size", 0), ("interaction_dropout", 2.0), ("head_dropout", -1)],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InputError, match=f"{name}={value}"):
        build_model(**{name: value})


def test_a_lexicon_and_a_new_vocabulary_do_not_go_together():
    model = build_model(lexical_rank=2)
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    with pytest.raises(InputError, match="before it is wrapped"):
        model.resize_token_embeddings(70)
    assert build_model().resize_token_embeddings(70).num_embeddings == 70


def test_a_task_hears_of_a_branch_by_its_weight():
    """S0.3: the gradient of a task by branch i is a_ti."""
    part = build("attention_over_heads", {"attention_scorer": "general"}).mtl.interaction
    states, embeddings = states_and_embeddings()
    weights, branches = part.weights(states, embeddings).detach(), part.branches(states).detach()
    part.branches, part._weights = lambda *given: branches.requires_grad_(), lambda *given: weights
    for task in range(T):
        (gradient,) = torch.autograd.grad(part.mix(states, embeddings)[:, task].sum(), branches)
        close(gradient, weights[:, 0, task].unsqueeze(-1).expand_as(gradient))


def test_the_highest_scores_alone_are_read():
    """S0.13: k = T is all of them, bit for bit; else by a loop, softmax of the k highest and nothing of the others."""
    settings = {"attention_scorer": "general"}
    part, (states, embeddings) = build("cross_task_attention", settings).mtl.interaction, states_and_embeddings()
    scores = torch.randn(3, 1, T, T)
    dense, bias = part.task_weights(scores), part.task_weights.bias(scores)
    for k in range(1, T + 2):
        sparse = build("cross_task_attention", {**settings, "attention_top_k": k}).mtl.interaction
        found = sparse.task_weights(scores)
        if k >= T:
            assert torch.equal(found, dense)
            assert torch.equal(sparse(states, embeddings), part(states, embeddings))
            continue
        for row, task in itertools.product(range(3), range(T)):
            own = scores[row, 0, task] + bias[task]
            best = own.argsort(descending=True)[:k]
            close(found[row, 0, task][best], own[best].softmax(0))
            assert (found[row, 0, task] > 0).sum() == k


def test_narrow_attention_is_attention_on_what_is_projected():
    """S0.13: `interaction_size` puts a projection before queries, keys and values; as wide as the states and the
    identity, it is ordinary attention.
    """
    part, (states, embeddings) = build("cross_task_attention").mtl.interaction, states_and_embeddings()
    wide = build("cross_task_attention", {"interaction_size": HIDDEN}).mtl.interaction
    narrow = build("cross_task_attention", {"interaction_size": 8}).mtl.interaction
    with torch.no_grad():
        wide.load_state_dict({**part.state_dict(), "readable.projection.weight": torch.eye(HIDDEN)})
    close(wide(states, embeddings), part(states, embeddings))
    readable = (narrow.readable.norm(states) + embeddings) @ narrow.readable.projection.weight.T
    assert readable.shape[-1] == 8
    values = narrow.value(readable).unflatten(-1, (4, 2))
    mixed = torch.einsum("bjts,bsjd->btjd", narrow.weights(states, embeddings), values).flatten(2)
    close(narrow(states, embeddings) - states, narrow.output(mixed))


def test_tasks_that_read_no_other_send_no_gradient():
    """S4.3, LB-9: a mask of the diagonal alone leaves no gradient from one task to another."""
    tasks = [{**task, "reads": []} for task in TASKS]
    part = build("cross_task_attention", tasks=tasks).mtl.interaction
    states, embeddings = states_and_embeddings()
    states.requires_grad_()
    (gradient,) = torch.autograd.grad(part(states, embeddings)[:, 2].sum(), states)
    assert gradient[:, 2].any()
    assert not gradient[:, [task for task in range(T) if task != 2]].any()


def test_dropped_attention_leaves_a_task_its_state():
    """S0.19: dropout on attention to tasks, while training alone."""
    part, (states, embeddings) = (
        build("cross_task_attention", {"interaction_dropout": 1.0}).mtl.interaction,
        states_and_embeddings(),
    )
    close(part(states, embeddings), build("cross_task_attention").mtl.interaction(states, embeddings))
    close(part.train()(states, embeddings), states + part.output.bias)


def test_the_gate_is_its_formula():
    """S2.10: G = sigmoid(v tanh(U LN(S) + V tanh(W E)) + c), by loops; U = V = 0 and c = 0 give a half."""
    part, (states, embeddings) = build("mmoe", gate="information_gate").mtl.gate, states_and_embeddings()
    found, score = part(states, embeddings), part.scores
    for row, task in itertools.product(range(len(states)), range(T)):
        known = score.task_to_scores.weight @ (score.task.weight @ embeddings[task]).tanh()
        inner = (score.state.weight @ score.norm(states[row, task]) + known).tanh()
        close(found[row, task], (score.output.weight @ inner + score.output.bias).sigmoid())
    with torch.no_grad():
        for tensor in (score.state.weight, score.task_to_scores.weight, score.output.bias):
            tensor.zero_()
    close(part(states, embeddings), torch.full_like(states, 0.5))


def test_the_scalar_gate_is_its_formula():
    """S2.10: w = sigmoid(sum_d tanh(U h + V tanh(W x))_d + c), by loops; U = V = 0 give sigmoid(c), c = 0 a half."""
    part, (states, embeddings) = build("mmoe", gate="scalar_gate", gate_bias=-0.5).mtl.gate, states_and_embeddings()
    found = part(states, embeddings)
    assert found.shape == (3, T, 1)
    for row, task in itertools.product(range(len(states)), range(T)):
        task_part = part.task_to_scores.weight @ (part.task.weight @ embeddings[task]).tanh()
        total = sum((part.state.weight @ part.norm(states[row, task]) + task_part).tanh())
        close(found[row, task, 0], (total - 0.5).sigmoid())
    fresh = build("mmoe", gate="scalar_gate", gate_bias=0.0, random=False).mtl.gate
    close(fresh(states, embeddings), torch.full((3, T, 1), 0.5))


def test_a_gate_lets_everything_or_nothing_pass():
    """S2.10, S2.11: H = S + G (R - S); c to -inf is hard sharing (LB-2), c to +inf the mixed state alone."""
    model = build("attention_over_heads", gate="information_gate")
    plain, mixed = (build(name, gate="none") for name in ("none", "attention_over_heads"))
    with_weights_of(plain, model), with_weights_of(mixed, model)
    between = model(**encoder_inputs(), output_task_attentions=True)
    own, other = plain(**encoder_inputs()).task_states, mixed(**encoder_inputs()).task_states
    close(between.task_states, own + between.gates * (other - own), 1e-4)
    for bias, expected in ((-200.0, own), (200.0, other)):
        with torch.no_grad():
            model.mtl.gate.scores.output.bias.fill_(bias)
        close(model(**encoder_inputs()).task_states, expected, 1e-4)


def test_a_gates_slope_is_bounded():
    """S2.10: |dw/dh| is at most a quarter of |v| |U|, here of what the norm before U returns."""
    part, (states, embeddings) = build("mmoe", gate="information_gate").mtl.gate, states_and_embeddings()
    part.scores.norm = nn.Identity()
    jacobian = torch.autograd.functional.jacobian(lambda own: part(own[None], embeddings)[0, 0, 0], states[0])[0]
    bound = part.scores.output.weight[0].norm() * torch.linalg.matrix_norm(part.scores.state.weight, 2) / 4
    assert 0 < jacobian.norm() <= bound


def test_hard_sharing_is_an_encoder_and_linear_heads():
    """S2.2: by hand, the masked mean of the encoder's states and a matrix per task; tags read states themselves."""
    model, inputs = randomise(build_model(**SYSTEMS["hard_sharing"].settings)), encoder_inputs()
    states = model.encoder(**inputs).last_hidden_state
    mean = torch.stack([own[mask.bool()].mean(dim=0) for own, mask in zip(states, inputs["attention_mask"])])
    for task, logits in model(**inputs).logits.items():
        head = model.mtl.heads[next(own["problem_type"] for own in TASKS if own["name"] == task)]
        weight = head.weight.get_parameter(f"task_{task}")
        bias = head.bias.get_parameter(f"task_{task}") if head.has_bias else 0.0
        if logits.ndim == 3:
            given = head.task_to_token(mean).unsqueeze(1)
            read = states * (1 + given) if task == "span" else states + given
        else:
            read = mean
        close(logits, (read @ weight.T + bias).squeeze(-1), 1e-4)


def test_systems_of_the_sources_are_their_parts():
    """S2.11: attention over heads and the gate, which is all that differs; S2.12: a discriminator beside a query per
    task; S4.2, S4.3: a task encoder and attention of tasks, the default model's but for the gate; S2.2: nothing.
    """
    gated, adversarial, hard = (SYSTEMS[name].settings for name in ("gated", "adversarial", "hard_sharing"))
    assert gated == {**SYSTEMS["attention_over_heads"].settings, "gate": "information_gate"}
    assert SYSTEMS["scalar_gated"].settings == {**gated, "gate": "scalar_gate"}
    both, default = build_model(**SYSTEMS["multitask_transformer"].settings).config, build_model().config
    names = ("pooling", "task_interaction", "attention_scorer", "interaction_layers", "head", "aggregation")
    assert [getattr(both, name) for name in names] == [getattr(default, name) for name in names]
    assert (both.conditioning, both.gate) == ("input_addition", "none")
    assert (adversarial["task_interaction"], adversarial["pooling"]) == ("shared_private", "task_queries")
    model = build_model(**hard)
    shared = {name.split(".")[0] for name, _ in model.mtl.named_parameters()}
    assert shared == {"heads"}


def test_inducing_points_are_two_attentions():
    """S0.13, against nn.MultiheadAttention: of the points over the tasks, of the tasks over what they found."""
    model = build("induced_attention")
    part, (states, embeddings) = model.mtl.interaction, states_and_embeddings()
    readable = part.readable.norm(states) + embeddings
    points = part.points().expand(len(states), -1, -1)
    summaries = multihead(part.point_scorer, part.point_value)(points, readable, readable)[0]
    mixed = multihead(part.task_scorer, part.value, part.output)(readable, summaries, summaries)[0]
    close(part(states, embeddings) - states, mixed)


def multihead(scorer, value, output=None):
    """An nn.MultiheadAttention of the same layers; without output, the heads side by side."""
    found = nn.MultiheadAttention(HIDDEN, scorer.num_heads, batch_first=True)
    layers = (scorer.query, scorer.key, value)
    with torch.no_grad():
        found.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        found.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        found.out_proj.weight.copy_(torch.eye(HIDDEN) if output is None else output.weight)
        found.out_proj.bias.copy_(torch.zeros(HIDDEN) if output is None else output.bias)
    return found


@pytest.mark.parametrize("name", ATTENTION_SCORERS)
def test_attention_over_heads_is_the_weighted_sum_of_branches(name):
    """S0.2, S0.3, S0.6: by loops over rows, tasks and heads; with equal scores the mean of the branches."""
    part = build("attention_over_heads", {"attention_scorer": name}).mtl.interaction
    states, embeddings = states_and_embeddings()
    branches, weights = part.branches(states), part.weights(states, embeddings)
    layers = part.branch.layers
    for task, key in enumerate(layers.inner.keys):
        close(branches[:, task], own_experts(layers, key, part.norm(states[:, task]))[0])
    heads = part.scorer.num_heads
    assert (heads == 4) == (name == "multi_head")
    found = part.mix(states, embeddings)
    for row, task in itertools.product(range(len(states)), range(T)):
        values = part.values.value(branches[row]).chunk(heads, dim=1)  # by head (tasks, hidden / heads)
        sums = [sum(weights[row, head, task, i] * values[head][i] for i in range(T)) for head in range(heads)]
        close(found[row, task], part.values.output(torch.cat(sums)), 1e-4)
    if name != "dot_product":
        equal = without_preferences(part)
        mean = equal.values.output(equal.values.value(branches.mean(dim=1, keepdim=True)))
        close(equal.mix(states, embeddings), mean.expand_as(branches), 1e-4)


def test_heads_with_values_are_nn_multihead_attention():
    """S0.2, LB-8: queries of the tasks, keys and values of the branches, W_O behind them."""
    part = without_biases(build("attention_over_heads").mtl.interaction)
    states, embeddings = states_and_embeddings()
    reference = nn.MultiheadAttention(HIDDEN, 4, batch_first=True)
    layers = (part.scorer.query, part.scorer.key, part.values.value)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        reference.out_proj.load_state_dict(part.values.output.state_dict())
    branches = part.branches(states)
    expected, weights = reference(
        part.norm(states) + embeddings, branches + embeddings, branches, average_attn_weights=False
    )
    close(part.mix(states, embeddings), expected, 1e-4)
    close(part.weights(states, embeddings), weights)


def without_biases(part):
    """Let no task prefer itself."""
    with torch.no_grad():
        for key in part.task_weights.self_bias.keys:
            part.task_weights.self_bias.get_parameter(key).fill_(-math.log(T - 1))
    return part


def test_residual_streams_are_their_formula():
    """S2.13: by loops over tasks and the others that each reads; without others a network of its own."""
    part, (states, embeddings) = build("residual_streams").mtl.interaction, states_and_embeddings()
    tensors = (part.receiver, part.sender, part.inner_bias, part.output)
    receivers, senders, biases, outputs = ([one.get_parameter(key) for key in one.keys] for one in tensors)
    found = part(states, embeddings)
    for row, task in itertools.product(range(len(states)), range(T)):
        streams = [part.norm(state) for state in states[row]]
        sent = sum(senders[other] @ streams[other] for other in range(T) if other != task) / (T - 1)
        inner = F.gelu(receivers[task] @ streams[task] + sent + biases[task])
        close(found[row, task], states[row, task] + inner @ outputs[task], 1e-4)


def test_without_the_tasks_index_all_tasks_have_one_prediction():
    """S0.3: y = sum_i a_i H_i(z) as printed, where no task is named on the right side; with an index they differ."""
    part = build("attention_over_heads", {"attention_scorer": "general"}).mtl.interaction
    states, embeddings = states_and_embeddings()
    weights, branches = part.weights(states, embeddings)[:, 0], part.branches(states)
    printed = weights[:, :1].expand_as(weights) @ branches
    close(printed, printed[:, :1].expand_as(printed))
    assert (part.mix(states, embeddings)[:, 0] - part.mix(states, embeddings)[:, 1]).abs().max() > 0.1


def test_the_prior_gives_a_task_most_of_its_own_branch():
    """S0.2: with two tasks and a bias of log 9, a_tt = 0.9."""
    model = build_model(TASKS[:2], task_interaction="attention_over_heads", attention_scorer="general")
    part = model.mtl.interaction
    with torch.no_grad():
        part.scorer.key.weight.zero_()
    weights = part.weights(*(tensor[..., :2, :] for tensor in states_and_embeddings()))
    close(weights.diagonal(dim1=-2, dim2=-1), torch.full((3, 1, 2), 0.9))


def test_a_group_of_heads_hears_nothing_of_another_tasks_loss():
    """S2.8."""
    part, (states, embeddings) = build("head_groups").mtl.interaction, states_and_embeddings()
    part(states, embeddings)[:, 0].sum().backward()
    for tensors in (part.queries, part.keys, part.values, part.output):
        for task in TASKS[1:]:
            gradient = tensors.get_parameter(f"task_{task['name']}").grad
            assert gradient is None or not gradient.any()
        assert tensors.get_parameter(f"task_{TASKS[0]['name']}").grad.any()


def test_groups_that_are_alike_are_ordinary_attention():
    """S2.8, against nn.MultiheadAttention."""
    part, (states, embeddings) = without_preferences(build("head_groups").mtl.interaction), states_and_embeddings()
    reference = nn.MultiheadAttention(HIDDEN, 4, batch_first=True, bias=False)
    with torch.no_grad():
        for tensors, weight in (
            *zip((part.queries, part.keys, part.values), reference.in_proj_weight.chunk(3)),
            (part.output, reference.out_proj.weight),
        ):
            for key in tensors.keys:
                tensors.get_parameter(key).copy_(weight)
    readable = part.norm(states) + embeddings
    close(part(states, embeddings) - states, reference(readable, readable, readable)[0])


def test_one_gate_is_many_gates_that_are_alike():
    """S2.4: equal gates give OMoE, where all tasks have one state."""
    one, many = build("omoe").mtl.interaction, build("mmoe").mtl.interaction
    with torch.no_grad():
        for key in many.layers[0].gates.keys:
            many.layers[0].gates.get_parameter(key).copy_(one.layers[0].gates.weight)
    one.layers[0].shared.load_state_dict(many.layers[0].shared.state_dict())
    one.norm.load_state_dict(many.norm.state_dict())
    states = torch.randn(3, 1, HIDDEN).expand(-1, T, -1)
    close(one.mix(states, None), many.mix(states, None))


def test_one_expert_needs_no_gate():
    """S2.4: E = 1 is hard sharing behind one more layer."""
    part, (states, _) = build("mmoe", {"shared_experts": 1}).mtl.interaction, states_and_embeddings()
    layer = part.layers[0].shared
    inner = part.norm(states).mean(dim=1) @ layer.inner[0].weight.T + layer.inner[0].bias
    expected = F.gelu(inner) @ layer.outer[0].weight.T + layer.outer[0].bias
    close(part.mix(states, None), expected.unsqueeze(1).expand(-1, T, -1))


def test_one_layer_of_ple_is_cgc():
    """S2.4."""
    first = build("ple", {"expert_layers": 1})
    second = with_weights_of(build("cgc"), first)
    states, embeddings = states_and_embeddings()
    assert torch.equal(first.mtl.interaction(states, embeddings), second.mtl.interaction(states, embeddings))


def test_ple_is_its_equations():
    """S2.4: Tang et al. 2020, equations 1 to 7, by loops over tasks and experts."""
    part = build("ple", {"task_experts": 2, "shared_experts": 3}).mtl.interaction
    states, _ = states_and_embeddings(1)
    tasks = list(part.norm(states)[0])
    shared = torch.stack(tasks).mean(dim=0)
    for layer in part.layers:
        own = [own_experts(layer.task_experts, key, state) for key, state in zip(layer.task_experts.inner.keys, tasks)]
        of_shared = [two(F.gelu(one(shared))) for one, two in zip(layer.shared.inner, layer.shared.outer)]
        gates = [layer.gates.get_parameter(key) for key in layer.gates.keys]
        outputs = [
            (gate @ state).softmax(0) @ torch.stack([*experts, *of_shared])
            for gate, state, experts in zip(gates, tasks, own)
        ]
        if not layer.last:
            rows = [layer.shared_gate_of_own.get_parameter(key) for key in layer.shared_gate_of_own.keys]
            logits = torch.cat([*rows, layer.shared_gate.weight]) @ shared
            shared = logits.softmax(0) @ torch.stack([*itertools.chain(*own), *of_shared])
        tasks = outputs
    close(part.mix(states, None)[0], torch.stack(tasks), 1e-4)


def test_cross_stitch_with_ones_on_the_diagonal_leaves_tasks_apart():
    """S2.4: alpha = I."""
    part, (states, _) = build("cross_stitch").mtl.interaction, states_and_embeddings()
    with torch.no_grad():
        for task, key in enumerate(part.alphas.keys):
            places = [other for own, other in part.alphas.places if own == task]
            part.alphas.get_parameter(key).copy_(torch.tensor([float(other == task) for other in places]))
    close(part.mix(states, None), states)


def test_cross_stitch_starts_near_oneself():
    """S2.4: alpha is 0.9 for oneself, and rows sum to 1."""
    alphas = build("cross_stitch", random=False).mtl.interaction.alphas()
    close(alphas.diagonal(), torch.full((T,), 0.9))
    close(alphas.sum(dim=1), torch.ones(T))


def test_signed_weights_oppose_tasks_that_point_apart():
    """S3.15."""
    part = build("cross_task_attention", {"attention_scorer": "dot_product", "signed_attention": True}).mtl.interaction
    state = torch.randn(1, HIDDEN)
    readable = torch.cat([state, -state, *[state] * (T - 2)]).unsqueeze(0)
    weights = part.task_weights(part.scorer(readable, readable))[0, 0]
    assert weights[0, 1] < 0 < weights[0, 2]
    close(weights.abs().sum(dim=1), torch.ones(T))


def test_a_scale_that_is_open_gives_the_mixture_alone():
    """S0.10: rho = tanh(g); at 0 the states, far from it the mixture, in between on the way from one to the other."""
    part, (states, embeddings) = build("mmoe").mtl.interaction, states_and_embeddings()
    distances = []
    for scale in (0.0, 0.5, 20.0):
        with torch.no_grad():
            for key in part.scale.keys:
                part.scale.get_parameter(key).fill_(scale)
        distances.append((part(states, embeddings) - states).norm().item())
    mixture = part.mix(states, embeddings)
    assert distances[0] == 0
    assert distances[1] == pytest.approx(math.tanh(0.5) * distances[2], rel=1e-5)
    close(part(states, embeddings), mixture)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_survives_saving(system, tmp_path):
    model = randomise(build_model(**SYSTEMS[system].settings))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, loaded(**encoder_inputs()).logits[task])


def test_systems_are_different_computations():
    """Three steps from the same randomised parameters; equal names hold equal numbers."""
    found = {}
    for system, own in SYSTEMS.items():
        model = randomise(build_model([*TASKS, {**TASKS[1], "name": "temper"}], **own.settings)).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        for step in range(3):
            model(**random_batch(seed=step)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        found[system] = model.eval()(**encoder_inputs()).logits["intent"]
    for (one, first), (other, second) in itertools.combinations(found.items(), 2):
        assert (first - second).abs().max() > 1e-4, f"{one} is {other}"


def test_an_interaction_takes_one_class_and_one_line(monkeypatch):
    from hf_mtl.modeling.interaction import TASK_INTERACTIONS
    from hf_mtl.modeling.interaction_base import ScaledInteraction

    class MeanOfTasks(ScaledInteraction):
        """Every task reads the mean of all."""

        reads_embeddings = False

        def mix(self, states, embeddings):
            return states.mean(dim=1, keepdim=True).expand_as(states)

    monkeypatch.setitem(TASK_INTERACTIONS, "mean_of_tasks", MeanOfTasks)
    model = build_model(task_interaction="mean_of_tasks")
    plain = with_weights_of(build_model(task_interaction="none", gate="none"), model)
    before = plain(**encoder_inputs()).logits["mood"]
    assert torch.equal(model(**encoder_inputs()).logits["mood"], before)
    assert not torch.equal(randomise(model)(**encoder_inputs()).logits["mood"], before)
