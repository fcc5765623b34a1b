"""Transformers' common tests, inherited by the model with encoders of other kinds: a decoder, the encoder of an
encoder-decoder, images, sound."""

import unittest

import torch
from transformers import LlamaConfig, PreTrainedConfig, T5Config, ViTConfig, Wav2Vec2Config
from transformers_tests.test_modeling_common import floats_tensor

from hf_mtl import InputError, MultiTaskAttentionModel
from tests.transformers_common.composite_model import TASKS, CompositeTester, DefaultModelTest

# Images and waves have no word pieces to tag or to span.
ROW_TASKS = [task for task in TASKS if task["name"] not in ("names", "span")]


class TextTester(CompositeTester):
    """Texts without segments."""

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        del inputs["token_type_ids"]
        return config, inputs


class LlamaTester(TextTester):
    """Sizes of Transformers' own tester of Llama; the default pooling of what reads from left to right."""

    num_key_value_heads = 2

    def encoder_config(self) -> PreTrainedConfig:
        return LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            intermediate_size=37,
            max_position_embeddings=64,
            pad_token_id=0,
        )


class T5Tester(TextTester):
    """Sizes of Transformers' own tester of T5; what it has beside a decoder is read."""

    def encoder_config(self) -> PreTrainedConfig:
        return T5Config(
            vocab_size=self.vocab_size,
            d_model=self.hidden_size,
            num_layers=self.num_hidden_layers,
            num_heads=self.num_attention_heads,
            d_kv=8,
            d_ff=37,
        )


class ViTTester(CompositeTester):
    """Sizes of Transformers' own tester of ViT: (30 / 2)² patches and a first token."""

    tasks = ROW_TASKS
    image_size, patch_size, num_channels = 30, 2, 3
    seq_length = encoder_seq_length = (image_size // patch_size) ** 2 + 1

    def encoder_config(self) -> PreTrainedConfig:
        return ViTConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=self.num_channels,
        )

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.num_channels, self.image_size, self.image_size]
        return self.get_config(), {"pixel_values": floats_tensor(shape)}


class Wav2Vec2Tester(CompositeTester):
    """Sizes of Transformers' own tester of Wav2Vec2: waves of 1,024 samples, read as 256 frames or fewer."""

    tasks = ROW_TASKS
    wave_length, conv_stride, conv_kernel = 1024, [4, 4, 4], [8, 8, 8]
    seq_length = encoder_seq_length = 14

    def encoder_config(self) -> PreTrainedConfig:
        return Wav2Vec2Config(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            conv_dim=[32, 32, 32],
            conv_stride=self.conv_stride,
            conv_kernel=self.conv_kernel,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            mask_time_prob=0.0,
        )

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.wave_length]
        mask = torch.ones(shape, dtype=torch.long)
        mask[1:, -self.wave_length // 4 :] = 0
        return self.get_config(), {"input_values": floats_tensor(shape), "attention_mask": mask}


class WordlessModelTest(DefaultModelTest):
    """Encoders without a table of word pieces."""

    def test_resize_tokens_embeddings(self):
        config = self.model_tester.get_config()
        with self.assertRaisesRegex(InputError, "no table of word pieces"):
            MultiTaskAttentionModel(config).resize_token_embeddings(10)

    def test_inputs_embeds(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        states = torch.zeros(self.model_tester.batch_size, self.model_tester.seq_length, config.hidden_size)
        with self.assertRaisesRegex(InputError, f"'inputs_embeds'; expected one of {next(iter(inputs))}"):
            MultiTaskAttentionModel(config)(inputs_embeds=states)

    def test_model_get_set_embeddings(self):
        model = MultiTaskAttentionModel(self.model_tester.get_config())
        for one in (model, model.encoder):
            try:
                self.assertNotIsInstance(one.get_input_embeddings(), torch.nn.Embedding)
            except NotImplementedError:
                self.assertEqual(self.model_tester.encoder_config().model_type, "wav2vec2")


class LlamaTest(DefaultModelTest):
    """Llama."""

    sizes = LlamaTester


class T5Test(DefaultModelTest):
    """T5."""

    sizes = T5Tester


class ViTTest(WordlessModelTest):
    """ViT."""

    sizes = ViTTester


class Wav2Vec2Test(WordlessModelTest):
    """Wav2Vec2."""

    sizes = Wav2Vec2Tester


def cases() -> dict[str, type[unittest.TestCase]]:
    """The kinds by name."""
    return {"llama": LlamaTest, "t5": T5Test, "vit": ViTTest, "wav2vec2": Wav2Vec2Test}
