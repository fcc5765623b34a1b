"""Transformers' common tests, inherited by the model with a BERT as its encoder.

Not collected with the other tests: `test_transformers_common.py` runs it with the fetched package in its path.
"""

import copy
import functools
import unittest
import unittest.mock

import torch
from transformers import BertConfig, PreTrainedConfig
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.systems import SYSTEMS

TASKS = [
    {"name": "intent", "problem_type": "single_label_classification", "labels": ["a", "b", "c"]},
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "flags", "problem_type": "multi_label_classification", "labels": ["p", "q", "r"]},
    {"name": "stars", "problem_type": "regression"},
    {"name": "names", "problem_type": "token_classification", "labels": ["O", "B-X", "I-X"]},
    {"name": "span", "problem_type": "question_answering"},
]


class CompositeTester:
    """Makes configurations and inputs, of the sizes of Transformers' own tester of BERT."""

    batch_size = 13
    seq_length = 7
    vocab_size = 99
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    is_training = True
    tasks = TASKS

    def __init__(self, parent: unittest.TestCase, **settings) -> None:
        self.parent = parent
        self.settings = dict(settings)

    def encoder_config(self) -> PreTrainedConfig:
        return BertConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=64,
        )

    def get_config(self) -> MultiTaskAttentionConfig:
        tasks = copy.deepcopy(self.tasks)
        return MultiTaskAttentionConfig(encoder_config=self.encoder_config(), tasks=tasks, **self.settings)

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.seq_length]
        inputs = {
            "input_ids": ids_tensor(shape, self.vocab_size),
            "token_type_ids": ids_tensor(shape, 2),
            "attention_mask": random_attention_mask(shape),
        }
        return self.get_config(), inputs

    def labels(self) -> dict[str, torch.Tensor]:
        rows, length = self.batch_size, self.seq_length
        labels = {
            "intent": torch.zeros(rows, dtype=torch.long),
            "mood": torch.zeros(rows, dtype=torch.long),
            "flags": torch.zeros(rows, 3),
            "stars": torch.zeros(rows),
            "names": torch.zeros(rows, length, dtype=torch.long),
            "span": torch.zeros(rows, 2, dtype=torch.long),
        }
        return {task["name"]: labels[task["name"]] for task in self.tasks}


class DefaultModelTest(ModelTesterMixin, unittest.TestCase):
    """The default parts."""

    all_model_classes = (MultiTaskAttentionModel,)
    _is_composite = True
    test_can_init_all_missing_weights_before_2023 = True
    sizes = CompositeTester
    settings: dict[str, object] = {}
    always_has_labels = False

    def setUp(self):
        self.model_tester = self.sizes(self, **self.settings)
        self.config_tester = ConfigTester(self, config_class=MultiTaskAttentionConfig, tasks=copy.deepcopy(TASKS))

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        has_labels = return_labels or self.always_has_labels
        return {**inputs, "labels": self.model_tester.labels()} if has_labels else inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    # The first output without labels is the logits by task name, where these tests expect one tensor; with labels it
    # is the loss, which reads all logits.

    def test_determinism(self):
        self.always_has_labels = True
        super().test_determinism()

    def test_retain_grad_hidden_states_attentions(self):
        self.always_has_labels = True
        super().test_retain_grad_hidden_states_attentions()

    # These tests ask for attentions in the default implementation, SDPA, with which BERT returns none and logs a
    # warning; the model raises an error that names the eager one.

    def test_capture_outputs_decorator(self):
        self.model_tester.settings["attn_implementation"] = "eager"
        super().test_capture_outputs_decorator()

    def test_model_outputs_equivalence(self):
        self.model_tester.settings["attn_implementation"] = "eager"
        super().test_model_outputs_equivalence()

    def test_eager_matches_sdpa_inference_24_fp32_pad_left_output_attentions(self):
        with self.assertRaisesRegex(InputError, "eager"):
            super().test_eager_matches_sdpa_inference_24_fp32_pad_left_output_attentions()

    # A checkpoint that lacks tensors is refused unless the caller allows it; these tests make such checkpoints.

    def test_model_weights_reload_no_missing_tied_weights(self):
        with incomplete_checkpoints_allowed():
            super().test_model_weights_reload_no_missing_tied_weights()

    def test_can_init_all_missing_weights(self):
        with incomplete_checkpoints_allowed():
            super().test_can_init_all_missing_weights()


def incomplete_checkpoints_allowed():
    """Let `from_pretrained` draw what a checkpoint lacks, as its argument `ignore_mismatched_sizes` does."""
    load = functools.partial(MultiTaskAttentionModel.from_pretrained, ignore_mismatched_sizes=True)
    return unittest.mock.patch.object(MultiTaskAttentionModel, "from_pretrained", load)


def cases() -> dict[str, type[unittest.TestCase]]:
    """The default parts, and those of every system."""
    systems = {name: dict(system.settings) for name, system in SYSTEMS.items()}
    return {
        "default": DefaultModelTest,
        **{name: type(name, (DefaultModelTest,), {"settings": settings}) for name, settings in systems.items()},
    }
