"""One task is what plain Transformers computes; many tasks start as hard sharing and wake up."""

import pytest
import torch
from transformers import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from tests.conftest import (
    TASKS,
    build_model,
    encoder_config,
    encoder_inputs,
    random_batch,
    randomise,
    unmoved_after,
    with_weights_of,
)


def plain_model(model_class, num_labels: int = 3):
    torch.manual_seed(3)
    config = encoder_config()
    config.num_labels = num_labels
    return model_class(config).eval()


def copy_weights(model, plain, head: str, problem_type: str, name: str) -> None:
    """Give our one-task model the plain model's encoder and head."""
    missing, unexpected = model.encoder.load_state_dict(plain.bert.state_dict(), strict=False)
    assert not missing and all("pooler" in key for key in unexpected)
    linear = plain.get_submodule(head)
    with torch.no_grad():
        own = model.mtl.heads[problem_type]
        own.weight.get_parameter(f"task_{name}").copy_(linear.weight)
        if own.has_bias:
            own.bias.get_parameter(f"task_{name}").copy_(linear.bias)
        else:
            assert not linear.bias.any()


def one_task(name: str, **settings):
    return build_model([task for task in TASKS if task["name"] == name], **settings)


def test_sequence_classification():
    plain, model = plain_model(BertForSequenceClassification), one_task("intent", pooling="pooler")
    copy_weights(model, plain, "classifier", "single_label_classification", "intent")
    batch = random_batch()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    labels = torch.arange(8) % 3
    expected, found = plain(**inputs, labels=labels), model(**inputs, labels=labels)
    torch.testing.assert_close(found.logits["intent"], expected.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=0)


def test_token_classification():
    plain, model = plain_model(BertForTokenClassification), one_task("names", pooling="mean")
    copy_weights(model, plain, "classifier", "token_classification", "names")
    batch = random_batch()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    labels = (batch["input_ids"] % 3).masked_fill(batch["attention_mask"] == 0, -100)
    expected, found = plain(**inputs, labels=labels), model(**inputs, labels=labels)
    torch.testing.assert_close(found.logits["names"], expected.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=0)


def test_question_answering():
    plain, model = plain_model(BertForQuestionAnswering, 2), one_task("span", pooling="mean")
    copy_weights(model, plain, "qa_outputs", "question_answering", "span")
    ids = random_batch()["input_ids"]
    starts, ends = torch.arange(8), torch.arange(8) + 1
    expected = plain(input_ids=ids, start_positions=starts, end_positions=ends)
    found = model(input_ids=ids, start_positions=starts, end_positions=ends)
    assert model(input_ids=ids, labels=torch.stack([starts, ends], dim=1)).loss == found.loss
    logits = found.logits["span"]
    torch.testing.assert_close(logits[..., 0], expected.start_logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits[..., 1], expected.end_logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=0)


def test_multiple_choice():
    plain, model = plain_model(BertForMultipleChoice), one_task("pick", pooling="pooler")
    copy_weights(model, plain, "classifier", "multiple_choice", "pick")
    batch = random_batch()
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], torch.tensor([1, 0])
    inputs = {"input_ids": ids.view(2, 4, -1), "attention_mask": mask.view(2, 4, -1), "labels": labels}
    expected, found = plain(**inputs), model(**inputs)
    torch.testing.assert_close(found.logits["pick"], expected.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=0)


def test_interaction_and_gate_change_no_bit_at_the_start():
    """LB-2, S2.2."""
    model = build_model()
    expected = with_weights_of(build_model(task_interaction="none", gate="none"), model)(**encoder_inputs()).logits
    for name, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, expected[name]), name


def test_task_queries_start_as_mean_pooling():
    model = build_model()
    expected = with_weights_of(build_model(pooling="mean"), model)(**encoder_inputs()).logits
    for name, logits in model(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-6, rtol=0)


def test_every_new_tensor_moves_within_20_steps():
    assert not unmoved_after(build_model())


def test_attentions_are_returned_when_asked():
    model = randomise(build_model())
    output = model(random_batch()["input_ids"], output_task_attentions=True)
    tasks = len(TASKS)
    assert output.pooling_weights.shape == (8, tasks, 10)
    assert output.interaction_weights.shape == (8, 4, tasks, tasks)
    torch.testing.assert_close(output.interaction_weights.sum(-1), torch.ones(8, 4, tasks))
    assert output.gates.shape == (8, tasks, 32)
    assert output.gates.min() > 0
    assert output.gates.max() < 1


def test_interaction_equals_multihead_attention():
    """S4.3, S4.6, LB-8: with the preference for oneself at nothing, R - S is nn.MultiheadAttention on LN(S) + E."""
    model = randomise(build_model())
    part = model.mtl.interaction
    reference = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        for name in TASKS:
            part.task_weights.self_bias.get_parameter(f"task_{name['name']}").fill_(
                -torch.log(torch.tensor(len(TASKS) - 1.0))
            )
        layers = (part.scorer.query, part.scorer.key, part.value)
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        reference.out_proj.weight.copy_(part.output.weight)
        reference.out_proj.bias.copy_(part.output.bias)
    states, embeddings = torch.randn(3, len(TASKS), 32), model.mtl.task_encoder()
    readable = part.readable.norm(states) + embeddings
    expected, weights = reference(readable, readable, readable, average_attn_weights=False)
    torch.testing.assert_close(part(states, embeddings) - states, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part.weights(states, embeddings), weights, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_tasks", [2, 5])
def test_a_task_gives_itself_the_prior_share_at_equal_scores(num_tasks):
    """S0.2: whatever the number of tasks."""
    tasks = [{**TASKS[1], "name": f"t{index}"} for index in range(num_tasks)]
    part = build_model(tasks).mtl.interaction
    with torch.no_grad():
        part.scorer.query.weight.zero_()
    weights = part.weights(torch.randn(2, num_tasks, 32), torch.randn(num_tasks, 32))
    torch.testing.assert_close(weights.diagonal(dim1=-2, dim2=-1), torch.full((2, 4, num_tasks), 0.9))
