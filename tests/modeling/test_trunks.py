"""A trunk per modality: tasks read their own trunks, rows without one are answered as if it were not there."""

import pytest
import torch
from transformers import BertConfig, ResNetConfig

from hf_mtl import InputError, MultiTaskAttentionModel
from hf_mtl.modeling.table_config import TableConfig

TEXT_TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "length", "problem_type": "regression"},
]
IMAGE_TASK = {
    "name": "digit",
    "problem_type": "single_label_classification",
    "labels": ["0", "1"],
    "fields": ["image"],
}
BOTH_TASK = {
    "name": "match",
    "problem_type": "single_label_classification",
    "labels": ["no", "yes"],
    "fields": ["text", "image"],
}
TABLE_TASK = {
    "name": "income",
    "problem_type": "multi_label_classification",
    "labels": ["low", "high"],
    "fields": ["table"],
    "table_columns": ["age", "kind"],
}
COLUMNS = [
    {"name": "age", "kind": "number", "mean": 40.0, "scale": 10.0, "has_empty": True},
    {"name": "kind", "kind": "category", "values": ["a", "b"]},
]


def encoders():
    text = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    image = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return {"text": text, "image": image, "table": TableConfig(columns=COLUMNS, hidden_size=16)}


def build(tasks, modalities=("text", "image", "table"), **settings):
    torch.manual_seed(0)
    chosen = {name: encoder for name, encoder in encoders().items() if name in modalities}
    model = MultiTaskAttentionModel.from_encoder(chosen, tasks, **settings).eval()
    with torch.no_grad():
        for parameter in model.mtl.parameters():
            # Nothing is closed any more.
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def text(rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, (rows, 6), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def image(rows=3, seed=1):
    return {"pixel_values": torch.rand(rows, 1, 12, 12, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("interaction", ["cross_task_attention", "induced_attention", "none"])
def test_a_row_without_an_image_is_answered_as_if_the_image_trunk_were_not_there(interaction):
    """Without an image the state of a task of images is no key, and a task of texts answers as in a model of texts."""
    settings = {"task_interaction": interaction, "signed_attention": False}
    both = build([*TEXT_TASKS, IMAGE_TASK], ("text", "image"), **settings)
    alone = build(TEXT_TASKS, ("text",), **settings)
    state = both.state_dict()
    names = {
        name: name.replace("encoder.", "encoder.encoders.text.", 1) if name.startswith("encoder.") else name
        for name in alone.state_dict()
    }
    alone.load_state_dict({name: state[there] for name, there in names.items()})
    answers, expected = both(**text()).logits, alone(**text()).logits
    assert set(answers) == set(expected) == {"mood", "length"}
    for name, logits in expected.items():
        torch.testing.assert_close(answers[name], logits, atol=1e-6, rtol=0)


def test_other_weights_of_a_trunk_change_no_row_that_lacks_its_modality():
    model = build([*TEXT_TASKS, IMAGE_TASK, BOTH_TASK, TABLE_TASK])
    before = {name: logits.clone() for name, logits in model(**text()).logits.items()}
    with torch.no_grad():
        for parameter in model.encoder.encoders["image"].parameters():
            parameter.add_(1.0)
    after = model(**text()).logits
    assert set(before) == set(after) == {"mood", "length"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    with_image = model(**text(), **image()).logits
    assert set(with_image) == {"mood", "length", "digit", "match"}


def test_absent_tasks_get_no_attention_and_present_ones_do():
    model = build([*TEXT_TASKS, IMAGE_TASK], ("text", "image"))
    weights = model(**text(), output_task_attentions=True).interaction_weights
    assert weights[:, :, :2, 2].abs().max() == 0 and weights[:, :, :2, :2].sum(-1).allclose(torch.ones(()))
    assert model(**text(), **image(), output_task_attentions=True).interaction_weights[:, :, :2, 2].min() > 0


def test_rows_of_several_modalities_in_one_batch_are_answered_as_alone():
    model = build([*TEXT_TASKS, IMAGE_TASK, BOTH_TASK, TABLE_TASK])
    words, pixels = text(2), image(2)
    # Row 0 is a text, row 1 an image, row 2 both.
    together = model(
        input_ids=torch.stack([words["input_ids"][0], torch.zeros(6, dtype=torch.long), words["input_ids"][1]]),
        attention_mask=torch.stack(
            [words["attention_mask"][0], torch.zeros(6, dtype=torch.long), words["attention_mask"][1]]
        ),
        text_rows=torch.tensor([0, 2]),
        pixel_values=pixels["pixel_values"],
        image_rows=torch.tensor([1, 2]),
        row_modalities=torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0]]),
    ).logits
    first = model(**{name: value[:1] for name, value in words.items()}).logits
    second = model(pixel_values=pixels["pixel_values"][:1]).logits
    third = model(**{name: value[1:] for name, value in words.items()}, pixel_values=pixels["pixel_values"][1:]).logits
    torch.testing.assert_close(together["mood"][0], first["mood"][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together["digit"][1], second["digit"][0], atol=1e-5, rtol=0)
    for name in ("mood", "digit", "match"):
        torch.testing.assert_close(together[name][2], third[name][0], atol=1e-5, rtol=0)


def test_it_saves_and_loads(tmp_path):
    model = build([*TEXT_TASKS, IMAGE_TASK, TABLE_TASK])
    model.save_pretrained(tmp_path)
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    given = {
        **text(),
        **image(),
        "numbers": torch.tensor([[30.0], [float("nan")], [50.0]]),
        "categories": torch.tensor([[0], [1], [2]]),
    }
    for name, logits in model(**given).logits.items():
        torch.testing.assert_close(again(**given).logits[name], logits, atol=1e-6, rtol=0)


def test_each_loss_reaches_its_own_trunk_alone():
    model = build([*TEXT_TASKS, IMAGE_TASK, TABLE_TASK]).train()
    model(**image(), labels={"digit": torch.tensor([0, 1, 0])}).loss.backward()
    reached = {
        name: any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in encoder.parameters())
        for name, encoder in model.encoder.encoders.items()
    }
    assert reached == {"text": False, "image": True, "table": False}
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.task_parameters("mood"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditioning": "modulation"}, "conditioning=modulation"),
        ({"lexical_rank": 2}, "lexical_rank=2"),
        ({"pooling": "layer_mix"}, "pooling=layer_mix"),
        ({"task_interaction": "mmoe"}, "task_interaction=mmoe"),
        ({"task_parents": {"length": "mood"}}, "task_parents"),
        ({"head": "recurrent"}, "head=recurrent"),
    ],
)
def test_what_several_encoders_do_not_have_is_refused_by_name(settings, message):
    with pytest.raises(InputError, match=message):
        build([*TEXT_TASKS, IMAGE_TASK], ("text", "image"), **settings)


def test_labels_and_inputs_that_do_not_go_together_are_refused():
    model = build([*TEXT_TASKS, IMAGE_TASK], ("text", "image"))
    with pytest.raises(InputError, match="'digit', which reads image"):
        model(**text(), labels={"digit": torch.tensor([0, 1, 0])})
    with pytest.raises(InputError, match="output_hidden_states is of one encoder"):
        model(**text(), output_hidden_states=True)
    with pytest.raises(InputError, match="modality"):
        MultiTaskAttentionModel.from_encoder({"picture": encoders()["image"]}, [IMAGE_TASK])
