"""What a model is built from and asked is checked at the door: types, ranges, rows."""

import math

import pytest

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel, TaskConfig
from hf_mtl.modeling.multitask_module import check_config
from hf_mtl.modeling.setting_names import SETTINGS, check_setting_names
from tests.conftest import TASKS, build_model, encoder_config
from tests.small_tokenizers import small_tokenizer


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gate_size": None}, "gate_size=None; expected a whole number"),
        ({"gate_size": 12.5}, "gate_size=12.5; expected a whole number"),
        ({"gate_size": True}, "gate_size=True; expected a whole number"),
        ({"pooling_floor": "0.1"}, "pooling_floor='0.1'; expected a number"),
        ({"gate_bias": math.nan}, "gate_bias=nan; expected a number"),
        ({"gate": None}, "gate=None; expected a text"),
        ({"signed_attention": "yes"}, "signed_attention='yes'; expected true or false"),
        ({"interaction_size": "8"}, "interaction_size='8'; expected a whole number or null"),
        ({"mran_relations": "task_task"}, "expected a list of texts"),
        ({"mran_relations": ["[task_task]"]}, "Unknown relation in mran_relations"),
        ({"task_layers": [1, 2]}, "expected a mapping of names to whole numbers or null"),
        ({"aggregation_weights": [1, 2]}, "expected a mapping of names to numbers or null"),
        ({"relation_penalty": -1.0}, "relation_penalty=-1.0; expected a number >= 0"),
        ({"adversarial_weight": -0.1}, "adversarial_weight=-0.1; expected a number >= 0"),
        ({"tasks": "abc"}, "tasks='abc'; expected a list of mappings"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(settings, said):
    config = MultiTaskAttentionConfig(**{"encoder_config": encoder_config(), "tasks": TASKS, **settings})
    with pytest.raises(InputError) as error:
        check_config(config)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("num_labels", "each task has its own. Write tasks=[{'name': 'mood', "),
        ("id2label", "each task has its own"),
        ("problem_type", "each task has its own"),
        ("encoder_config", "Unknown setting 'encoder_config'; expected one of tower, conditioning, "),
        ("poling", "Did you mean 'pooling'?"),
    ],
)
def test_what_no_part_reads_is_no_setting(name, said):
    with pytest.raises(InputError) as error:
        MultiTaskAttentionModel.from_encoder("nowhere", TASKS, **{name: None})
    assert said in str(error.value)


def test_every_setting_has_a_name_that_is_taken():
    check_setting_names(key for key in SETTINGS if key != "tasks")
    with pytest.raises(InputError, match="'encoder_kwargs'"):
        check_setting_names(["encoder_kwargs"])
    check_setting_names(["encoder_kwargs"], ["encoder_kwargs"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"labels": "ab"}, "labels='ab' of task 'rte'; expected a list of texts or null"),
        ({"labels": True}, "labels=True"),
        ({"labels": [False, True]}, "labels=[False, True]"),
        (
            {"labels": [0, 1]},
            """labels=[0, 1] of task 'rte'; expected a list of texts or null. Write texts: ["0", "1"].""",
        ),
        ({"labels": ["a", "b"], "class_weights": 3}, "class_weights=3"),
        ({"labels": ["a", "b"], "class_weights": [1.0, math.nan]}, "class_weights=[1.0, nan]"),
        ({"labels": ["a", "b"], "reads": 3}, "reads=3 of task 'rte'"),
        ({"labels": ["a", "b"], "max_length": 0}, "max_length=0 of task 'rte'; expected a whole number >= 1"),
        ({"labels": ["a", "b"], "stride": -1}, "stride=-1 of task 'rte'; expected a whole number >= 0"),
    ],
)
def test_values_of_a_task_of_the_wrong_kind_are_named(row, said):
    with pytest.raises(InputError) as error:
        TaskConfig(name="rte", problem_type="single_label_classification", **row).check()
    assert said in str(error.value)


@pytest.fixture
def answers(tokenizer):
    model = build_model(vocab_size=tokenizer.vocab_size).eval()
    return lambda rows, **options: model.predict(rows, tokenizer=tokenizer, **options)


@pytest.mark.parametrize("row", ["three of four words", {"question": "which words", "context": "three of four words"}])
def test_a_single_row_is_one_row(answers, row):
    assert answers(row) == answers([row])


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (["words"], {"batch_size": 0}, "batch_size=0; expected a whole number >= 1"),
        (["words"], {"batch_size": -1}, "batch_size=-1"),
        ([{"text": "words", "choices": [1, 2]}], {}, "choices=[1, 2]; expected a list of texts"),
        ([{"tokens": [1, 2]}], {}, "tokens=[1, 2]; expected a list of texts"),
        ([{"tokens": "three words"}], {}, "tokens='three words'; expected a list of texts"),
        ([{"text": ["words"]}], {}, "text=['words']; expected a text"),
    ],
)
def test_rows_that_cannot_be_answered_are_named(answers, rows, options, said):
    with pytest.raises(InputError) as error:
        answers(rows, **options)
    assert said in str(error.value)


EMPTY_ROWS = [
    "",
    {"text": "a", "text_pair": ""},
    {"text": "", "text_pair": ""},
    {"question": "", "context": ""},
    {"question": "a", "context": ""},
    {"question": "", "context": "a"},
    {"tokens": [""]},
    {"text": "", "choices": ["", ""]},
]
PAIR = {"name": "likeness", "problem_type": "regression", "fields": ["text", "text_pair"]}


@pytest.mark.parametrize("kind", ["WordPiece", "GPT-2", "Unigram", "T5", "Llama"])
def test_an_empty_text_is_answered_by_every_task_that_reads_it(kind):
    tokenizer = small_tokenizer(kind)
    model = build_model([*TASKS, PAIR], vocab_size=len(tokenizer)).eval()
    answers = model.predict(EMPTY_ROWS, tokenizer=tokenizer)
    alone = model.predict("", tokenizer=tokenizer)[0]["stars"]["value"]
    assert alone == pytest.approx(answers[0]["stars"]["value"], abs=1e-5)
    assert {name for answer in answers for name in answer} == set(model.config.task_names)
    assert answers[0]["names"]["tags"] == answers[0]["names"]["spans"] == []
    assert answers[3]["span"]["answer"] == answers[4]["span"]["answer"] == ""
    assert answers[6]["names"]["tags"] == [model.config.task_configs[4].labels[0]]
    assert answers[7]["pick"]["scores"] == pytest.approx([0.5, 0.5])
    assert all(math.isfinite(answers[row]["likeness"]["value"]) for row in (1, 2))
