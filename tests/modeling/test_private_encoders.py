"""A shared encoder beside one of each task's own: formulas, the adversary's gradients, and what is logged of it."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.inspection.gradient_reach import gradient_reach
from hf_mtl.inspection.part_report import PartReport, answer_validation_rows, initial_parts
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.training.shared_parameters import last_shared_matrix, shared_parameters
from hf_mtl.training.training_order import left_out, model_of
from tests.conftest import TASKS, build_model, encoder_inputs, with_weights_of
from tests.modeling.test_conditioning import batch_of, close, loaded, shaken
from tests.training.test_step_loss import datasets, specs

SYSTEM = dict(SYSTEMS["private_encoders_adversarial"].settings)
PAIR = TASKS[:2]
NAMES = [task["name"] for task in PAIR]
KIND = "single_label_classification"


def build(tasks=None, **settings):
    return build_model(PAIR if tasks is None else tasks, **{**SYSTEM, **settings})


def views(model, inputs, task):
    """The token states of a task's own and of the shared encoder."""
    encoders = (model.encoder.encoders[f"task_{task}"], model.encoder.shared)
    return [encoder(**inputs).last_hidden_state for encoder in encoders]


def pooled(model, states, mask, task):
    """One task's token attention, by its formula: softmax of the scores of its query, token by token."""
    scorer, query = model.mtl.pooling.scorer, model.mtl.pooling.queries.get_parameter(f"task_{task}")
    found = []
    for row, kept in zip(states, mask.bool()):
        scores = scorer(query.unsqueeze(0), row[None, kept]).flatten()
        found.append(sum(weight * state for weight, state in zip(scores.softmax(dim=0), row[kept])))
    return torch.stack(found)


def test_a_tasks_state_is_its_formula():
    """S2.12: S_t = (p_t + s) / 2 + W_t (p_t - s), of states that each task pools with a query of its own (S1.3)."""
    model, inputs = shaken(build()), encoder_inputs()
    output = model(**inputs)
    for place, task in enumerate(NAMES):
        private, shared = (pooled(model, view, inputs["attention_mask"], task) for view in views(model, inputs, task))
        matrix = model.mtl.conditioning.difference.get_parameter(f"task_{task}")
        expected = (private + shared) / 2 + (private - shared) @ matrix.T
        close(output.task_states[:, place], expected)
        head = model.mtl.heads[KIND]
        logits = expected @ head.weight.get_parameter(f"task_{task}").T + head.bias.get_parameter(f"task_{task}")
        close(output.logits[task], logits)


def test_the_loss_is_its_formula():
    """S2.5, S2.12: sum_t L_t + lambda_adv CE(D(mean(Z_s)), t) + lambda_diff cos(p_t, s)^2, by loops over rows."""
    model = shaken(build(adversarial_weight=0.3, orthogonality_weight=0.7)).double()
    batch = batch_of(0, 0, 1)
    output, part = model(**batch), model.mtl.conditioning
    entries, total, penalties = batch["routing"][KIND], 0.0, [0.0, 0.0]
    discriminator = part.discriminator
    outer = torch.stack([discriminator.outer.get_parameter(f"task_{task}")[0] for task in NAMES])
    for row, (place, label) in enumerate(zip(entries["tasks"].tolist(), entries["labels"].tolist())):
        task = NAMES[place]
        inputs = {key: batch[key][row : row + 1] for key in ("input_ids", "attention_mask")}
        private, shared = views(model, inputs, task)
        mean = shared[0, inputs["attention_mask"][0].bool()].mean(dim=0)
        guess = F.gelu(discriminator.inner.weight @ mean + discriminator.inner.bias) @ outer.T
        p, s = (pooled(model, view, inputs["attention_mask"], task)[0] for view in (private, shared))
        cosine = (p @ s / (p.norm() * s.norm())).item()
        unknown = math.log(sum(math.exp(score) for score in guess.tolist())) - guess[place].item()
        penalties[place] += 0.3 * unknown + 0.7 * cosine**2
        scores = model(**inputs).logits[task][0]
        total += math.log(sum(math.exp(score) for score in scores.tolist())) - scores[label].item()
    close(output.task_penalty_sums, torch.tensor(penalties, dtype=torch.float64), 1e-9)
    close(output.loss, torch.tensor((total + sum(penalties)) / 16, dtype=torch.float64), 1e-9)


def test_a_linear_head_has_any_weights_for_either_half():
    """S2.5: y_t = C_t[p_t; s] with weights A and B of the halves is reached by a head and W_t."""
    torch.manual_seed(0)
    model, inputs, task = shaken(build()), encoder_inputs(), "intent"
    private_weights, shared_weights = torch.randn(2, 3, 32).unbind()
    with torch.no_grad():
        head = model.mtl.heads[KIND]
        total = private_weights + shared_weights
        head.weight.get_parameter("task_intent").copy_(total)
        head.bias.get_parameter("task_intent").zero_()
        matrix = torch.linalg.pinv(total) @ (private_weights - shared_weights) / 2
        model.mtl.conditioning.difference.task_intent.copy_(matrix)
    private, shared = (pooled(model, view, inputs["attention_mask"], task) for view in views(model, inputs, task))
    expected = private @ private_weights.T + shared @ shared_weights.T
    close(model(**inputs).logits[task], expected, 1e-4)


def test_token_states_are_the_mean_of_both_encoders():
    """S2.12: what heads of tags read, beside either view."""
    model, inputs, seen = shaken(build([TASKS[4], TASKS[1]])), encoder_inputs(), []
    model.mtl.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(**inputs)
    for place, task in enumerate(("names", "mood")):
        expected = views(model, inputs, task)
        for view, states in zip(seen[0].views, expected):
            close(view.states[place::2], states)
        close(seen[0].states[place::2], sum(expected) / 2)


def test_the_start_is_hard_sharing():
    """LB-2: all encoders are copies, (x + x) / 2 is x, and W_t is zero; processors round other batches otherwise."""
    model, inputs = build(), encoder_inputs()
    plain = loaded(build_model(PAIR, **SYSTEMS["token_attention"].settings), model)
    for task, logits in model(**inputs).logits.items():
        torch.testing.assert_close(logits, plain(**inputs).logits[task], rtol=0, atol=1e-6, msg=task)


def penalty_gradients(model, batch, strength: float):
    part = model.mtl.conditioning
    part.reversal.strength = lambda: torch.tensor(strength)
    model.zero_grad()
    model(**batch).task_penalty_sums.sum().backward()
    return {
        name: own.grad.clone() for name, own in model.named_parameters() if own.grad is not None and own.grad.any()
    }


def test_the_adversary_works_against_the_shared_encoder_alone():
    """S2.5, S2.12: the discriminator descends, the shared encoder ascends by the reversal's strength; private encoders
    and queries hear nothing of it.
    """
    model, batch = shaken(build(orthogonality_weight=0.0)), batch_of(0, 0, 1)
    along, against, half = (penalty_gradients(model, batch, strength) for strength in (-1.0, 1.0, 0.5))
    assert {name.split(".")[1] for name in against if name.startswith("encoder.")} == {"shared"}
    assert {name for name in against if name.startswith("mtl.")} == {
        f"mtl.conditioning.discriminator.{name}"
        for name in ("inner.weight", "inner.bias", "outer.task_intent", "outer.task_mood")
    }
    for name, gradient in against.items():
        sign = -1.0 if name.startswith("encoder.") else 1.0
        close(gradient, sign * along[name], 1e-6, msg=name)
        close(half[name], gradient * (0.5 if sign < 0 else 1.0), 1e-6, msg=name)
    assert not any(name.startswith("encoder.") for name in penalty_gradients(model, batch, 0.0))


def overlap(model, inputs) -> float:
    """The mean of cos(p_t, s)^2 over rows and tasks, by its formula."""
    cosines = []
    for task in NAMES:
        private, shared = (pooled(model, view, inputs["attention_mask"], task) for view in views(model, inputs, task))
        cosines += [(p @ s / (p.norm() * s.norm())).item() ** 2 for p, s in zip(private, shared)]
    return sum(cosines) / len(cosines)


def test_overlap_drives_both_encoders_apart():
    """S2.5, S2.12: a step down the overlap's gradient makes the cosine smaller, and moves encoders of both kinds."""
    model, inputs = shaken(build(adversarial_weight=0.0, orthogonality_weight=1.0)), encoder_inputs()
    before = overlap(model, inputs)
    index = torch.arange(8).repeat(2)
    entries = {"rows": index, "tasks": torch.arange(2).repeat_interleave(8), "labels": index % 2}
    model(**inputs, routing={KIND: entries}).task_penalty_sums.sum().backward()
    moved = {name.split(".")[1] for name, own in model.encoder.named_parameters(prefix="encoder") if own.grad.any()}
    assert moved == {"shared", "encoders"}
    with torch.no_grad():
        for tensor in model.encoder.parameters():
            tensor.sub_(1e-3 * tensor.grad)
    assert overlap(model, inputs) < before


def test_without_weights_the_loss_is_the_tasks_alone():
    """S2.5: both weights 0 give plain shared and private encoders."""
    model, batch = shaken(build(adversarial_weight=0.0, orthogonality_weight=0.0)), batch_of(0, 0, 1)
    weighed = with_weights_of(build(), model)
    assert not model(**batch).task_penalty_sums.any()
    assert model(**batch).loss < weighed(**batch).loss
    close(model(**batch).task_loss_sums, weighed(**batch).task_loss_sums)


def tokens_of(model, **inputs):
    seen = []
    hook = model.mtl.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(**inputs)
    hook.remove()
    return seen[0]


def test_what_says_nothing_of_the_task_costs_log_t():
    """S2.5: 2.7726 for 16 tasks; less is out of reach where shared states are one for all rows."""
    tasks = [{**TASKS[1], "name": f"task {place}"} for place in range(16)]
    model = build(tasks, orthogonality_weight=0.0, adversarial_weight=1.0)
    part, tokens = model.mtl.conditioning, tokens_of(model, **encoder_inputs())
    with torch.no_grad():
        for tensor in part.discriminator.outer.parameters():
            tensor.zero_()
    close(part.penalties(model.mtl.pooling, tokens), torch.full((8 * 16, 16), 2.7726), 1e-4)
    # Whatever it has learned, it cannot do better on states that say nothing.
    shaken(model)
    private, shared = tokens.views
    blind = shared._replace(states=torch.ones_like(shared.states))
    costs = part.penalties(model.mtl.pooling, tokens._replace(views=(private, blind)))
    mean_cost = torch.stack([costs[place, int(tokens.tasks[place])] for place in range(len(costs))]).mean()
    assert mean_cost >= math.log(16) - 1e-5


def test_states_that_are_orthogonal_cost_nothing():
    """S2.5: orthogonal p_t and s give 0, equal ones the weight."""
    model = build(pooling="mean", adversarial_weight=0.0, orthogonality_weight=2.0)
    part, tokens = model.mtl.conditioning, tokens_of(model, **encoder_inputs())
    private, shared = tokens.views
    one, other = (torch.eye(32)[place].expand_as(shared.states) for place in (0, 5))
    apart = tokens._replace(views=(private._replace(states=one), shared._replace(states=other)))
    assert not part.penalties(model.mtl.pooling, apart).any()
    close(part.penalties(model.mtl.pooling, tokens), torch.full((16, 2), 2.0))


def test_a_task_without_rows_gets_no_gradient_in_its_encoder():
    """S2.12: the shared encoder learns of every row."""
    model = shaken(build()).train()
    model(**batch_of(0, 0)).loss.backward()
    own = {name: model.encoder.encoders[f"task_{name}"] for name in NAMES}
    assert all(tensor.grad is None for tensor in own["mood"].parameters())
    assert all(tensor.grad is not None for name, tensor in own["intent"].named_parameters() if "pooler" not in name)
    assert model.encoder.shared.embeddings.word_embeddings.weight.grad.any()


def test_encoders_belong_to_their_tasks_and_to_all():
    model = build()
    size = sum(tensor.numel() for tensor in model.encoder.shared.parameters())
    pointers = {id(tensor) for tensor in shared_parameters(model)}
    assert {id(tensor) for tensor in model.encoder.shared.parameters()} <= pointers
    for name in NAMES:
        encoder = {id(tensor) for tensor in model.encoder.encoders[f"task_{name}"].parameters()}
        assert encoder <= {id(tensor) for tensor in model.task_parameters(name)}
        assert not encoder & pointers
    assert len({tensor.data_ptr() for tensor in model.encoder.parameters()}) == 3 * len(
        list(model.encoder.shared.parameters())
    )
    layers = shared_parameters(model, "last_1_layers")
    assert {id(tensor) for tensor in layers} == {
        id(tensor) for tensor in model.encoder.shared.encoder.layer[-1].parameters()
    }
    assert any(last_shared_matrix(model) is tensor for tensor in layers)
    assert sum(tensor.numel() for tensor in model.encoder.parameters()) == 3 * size


def test_every_tensor_is_reached_where_no_tensor_of_the_encoders_is_zero():
    """The difference of encoders that say the same has no gradient: the doctor looks at them apart for a while."""
    model = build()
    with torch.no_grad():
        for tensor in model.encoder.shared.parameters():
            tensor.add_(0.01)
        for encoder in model.encoder:
            encoder.load_state_dict(model.encoder.shared.state_dict())
    before = copy.deepcopy(model.state_dict())
    reach = gradient_reach(model, dict(zip(NAMES, (batch_of(0, 0), batch_of(0, 1)))))
    missed = {name for name, _ in model.named_parameters() if name not in reach.reached and "pooler" not in name}
    assert not missed
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_task_goes_on_alone_from_its_own_encoder():
    model = shaken(build())
    lone = model_of(model, ["mood"])
    for name, tensor in lone.encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.encoders["task_mood"].state_dict()[name]), name
    assert left_out(model, ["mood"]) == ["conditioning=private_encoders"]


def penalised(tmp_path, tokenizer, settings, **arguments) -> MultiTaskTrainer:
    tasks = [
        {"name": "mood", "problem_type": KIND, "labels": ["no", "yes"]},
        {"name": "stars", "problem_type": "regression"},
        {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
    ]
    model = build_model(tasks, vocab_size=tokenizer.vocab_size, **settings)
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=4, **arguments
    )
    return MultiTaskTrainer(model, args, train_dataset=datasets(), tasks=specs(), processing_class=tokenizer)


def logged(own: MultiTaskTrainer) -> list[dict[str, float]]:
    own.train()
    return [entry for entry in own.state.log_history if "loss" in entry]


ADVERSARIES = pytest.mark.parametrize("system", ["adversarial", "private_encoders_adversarial"])
RUN = {"max_steps": 4, "logging_steps": 2, "gradient_accumulation_steps": 2, "save_strategy": "no"}


@ADVERSARIES
def test_a_run_logs_its_adversary(system, tmp_path, tokenizer):
    """S2.5: of the labelled rows since the last log, over accumulated batches: how many the discriminator names."""
    own = penalised(tmp_path, tokenizer, SYSTEMS[system].settings, **RUN)
    rows = []

    def count(module, given, named, output):
        entries = named["routing"].values()
        tasks = torch.cat([one["tasks"] for one in entries])
        places = torch.cat([one["rows"] for one in entries])
        tokens, states = seen.pop()
        part = module.mtl.conditioning if system != "adversarial" else module.mtl.interaction
        with torch.no_grad():
            if system == "adversarial":
                guesses = part.discriminator(part._extracted(states)[1][:, 0])
            else:
                mask = tokens.views[1].mask.unsqueeze(-1)
                guesses = part.discriminator((tokens.views[1].states * mask).sum(dim=1) / mask.sum(dim=1))
        # Rows of one task each.
        rows.append((guesses[places].argmax(dim=1) == tasks).float())

    seen = []
    own.model.mtl.register_forward_hook(lambda module, given, parts: seen.append((given[0], parts.states)))
    own.model.register_forward_hook(count, with_kwargs=True)
    first, second = logged(own)
    for entry, batches, steps in ((first, rows[:4], (0, 1)), (second, rows[4:], (2, 3))):
        assert entry["adversary_accuracy"] == pytest.approx(100 * torch.cat(batches).mean().item(), abs=1e-3)
        assert entry["adversary_chance"] == pytest.approx(100 / 3)
        strengths = [2 / (1 + math.exp(-10 * step / 4)) - 1 for step in steps]
        assert entry["adversary_strength"] == pytest.approx(sum(strengths) / 2, abs=1e-5)


@ADVERSARIES
def test_layers_that_are_run_again_are_counted_once(system, tmp_path, tokenizer):
    """Neither activation checkpointing nor layers of interactions count a row twice."""
    keys = ("adversary_accuracy", "adversary_chance", "adversary_strength")
    runs = [
        logged(
            penalised(tmp_path / str(again), tokenizer, SYSTEMS[system].settings, gradient_checkpointing=again, **RUN)
        )
        for again in (False, True)
    ]
    for entry, other in zip(*runs):
        for key in keys:
            assert entry[key] == pytest.approx(other[key], abs=1e-4), key


def test_what_is_logged_is_of_all_processes(tmp_path, tokenizer, monkeypatch):
    own = penalised(tmp_path, tokenizer, SYSTEM, **RUN)
    own.logged_measurements = {"b": torch.tensor([3.0, 4.0]), "a": torch.tensor([10.0, 2.0])}
    others = torch.tensor([[2.0, 2.0], [5.0, 4.0]])
    monkeypatch.setattr(own.accelerator, "reduce", lambda values, reduction: values + others)
    assert own._mean_measurements() == {"a": 3.0, "b": 1.0}


def test_a_model_without_adversary_logs_nothing_of_one(tmp_path, tokenizer):
    own = penalised(tmp_path, tokenizer, {"task_interaction": "none", "gate": "none"}, **RUN)
    assert not any(key.startswith("adversary") for entry in logged(own) for key in entry)
    assert own.model(**batch_of(0, 0)).part_measurements is None


def test_two_adversaries_are_logged_apart():
    model = shaken(build(task_interaction="shared_private", interaction_layers=2)).train()
    measured = model(**batch_of(0, 0, 1)).part_measurements
    names = ("adversary_accuracy", "adversary_chance", "adversary_strength")
    assert measured.keys() == {*names, *(f"interaction_{name}" for name in names)}
    assert all(pair[1] == 16 for pair in measured.values())
    assert model.eval()(**batch_of(0, 0, 1)).part_measurements is None


def test_the_report_says_how_large_the_encoders_are(tmp_path, tokenizer):
    own = penalised(tmp_path, tokenizer, SYSTEM, **RUN)
    validation = {name: rows.select(range(4)) for name, rows in datasets().items()}
    own = MultiTaskTrainer(
        own.model,
        own.args,
        train_dataset=datasets(),
        eval_dataset=validation,
        tasks=specs(),
        processing_class=tokenizer,
    )
    size = sum(tensor.numel() for tensor in own.model.encoder.shared.parameters())
    lines = PartReport(initial_parts(own.model)).lines(own, answer_validation_rows(own))
    assert f"  encoder: {size:,} shared parameters, {size:,} of each task's own" in lines
    assert any(line.startswith("  conditioning: weights moved") for line in lines)
