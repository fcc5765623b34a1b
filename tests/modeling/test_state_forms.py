"""The states of encoders in every form: maps of any size, packed patches, masked frames, words beside images."""

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    GitConfig,
    GitModel,
    LlamaConfig,
    LlamaModel,
    Qwen2VLConfig,
    ResNetConfig,
    ResNetModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskProcessor
from tests.encoders.tiny_configs import tiny_config

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TASKS = [
    {"name": "kind", "problem_type": "single_label_classification", "labels": ["cat", "dog"]},
    {"name": "size", "problem_type": "regression"},
]


def mean_model(encoder, **settings):
    """The heads read the mean of the encoder's own states."""
    torch.manual_seed(0)
    settings = {"system": "hard_sharing", "pooling": "mean", **settings}
    return MultiTaskAttentionModel.from_encoder(encoder.eval(), tasks=TASKS, **settings).eval()


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (64, 128), (256, 64)])
def test_the_channels_of_a_map_are_found_whatever_the_size_of_the_image(size):
    """Of 128 pixels a side the map is as wide as it has channels."""
    torch.manual_seed(0)
    encoder = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    model, pixels = mean_model(encoder), drawn(2, 3, *size)
    with torch.no_grad():
        expected = encoder(pixels).last_hidden_state.mean(dim=(2, 3))
        torch.testing.assert_close(model(pixel_values=pixels).task_states[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [16, 21, 3])
def test_the_channels_of_a_sound_are_found_however_long_it_is(frames):
    torch.manual_seed(0)
    config = tiny_config("dac")
    config.hidden_size = 16
    encoder = AutoModel.from_config(config)
    wave = drawn(1, 1, frames * config.hop_length)
    model = mean_model(encoder)
    with torch.no_grad():
        states = encoder(wave).quantized_representation
        # (rows, width, frames)
        assert states.shape[1] == model.config.hidden_size
        torch.testing.assert_close(model(input_values=wave).task_states[:, 0], states.mean(dim=2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [4_000, 8_000, 8_100])
def test_a_codec_is_read_at_any_length(length):
    model = mean_model(AutoModel.from_config(tiny_config("encodec")))
    assert model.config.hidden_size == 320
    assert model(input_values=drawn(2, 1, length)).logits["kind"].shape == (2, 2)


def test_packed_patches_of_unequal_images_stay_with_their_rows():
    """A row is answered as it is alone."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(tiny_config("qwen2_vl"))
    assert isinstance(encoder.config, Qwen2VLConfig)
    model = mean_model(encoder, tower="visual")
    grids = torch.tensor([[1, 4, 4], [1, 8, 4], [1, 4, 12]])
    counts = grids.prod(dim=1).tolist()
    patches = drawn(sum(counts), model.encoder.patch_embed.proj.weight[0].numel())
    with torch.no_grad():
        together = model(hidden_states=patches, grid_thw=grids)
        for row, alone in enumerate(patches.split(counts)):
            one = model(hidden_states=alone, grid_thw=grids[row : row + 1])
            torch.testing.assert_close(together.task_states[row], one.task_states[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(together.logits["kind"][row], one.logits["kind"][0], atol=1e-5, rtol=0)


def test_padded_patches_are_not_read():
    """A mask under a name of its own: what stands in padded patches changes nothing."""
    torch.manual_seed(0)
    config = Siglip2VisionConfig(**SMALL, patch_size=4, num_patches=64, num_channels=3)
    model = mean_model(Siglip2VisionModel(config))
    patches, mask = drawn(2, 16, 48), torch.ones(2, 16, dtype=torch.long)
    mask[1, 8:] = 0
    shapes = torch.tensor([[4, 4], [2, 4]])
    other = patches.clone()
    other[1, 8:] = 7.0
    with torch.no_grad():
        first, second = (
            model(pixel_values=one, pixel_attention_mask=mask, spatial_shapes=shapes).task_states
            for one in (patches, other)
        )
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", [(16_000, 5_000), (9_999, 1_234), (4_321, 4_000)])
def test_the_frames_of_a_padded_recording_are_those_the_encoder_counts(lengths):
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        **SMALL,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    encoder = Wav2Vec2Model(config).eval()
    model, waves = mean_model(encoder), drawn(2, max(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    with torch.no_grad():
        states = encoder(waves * mask, attention_mask=mask).last_hidden_state
        kept = encoder._get_feature_vector_attention_mask(states.shape[1], mask).unsqueeze(-1).float()
        expected = (states * kept).sum(dim=1) / kept.sum(dim=1)
        read = model(input_values=waves * mask, attention_mask=mask).task_states[:, 0]
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=0)


def test_words_behind_an_image_are_read():
    """GIT puts an image's patches before the words; the last word has read them."""
    torch.manual_seed(0)
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    encoder = GitModel(GitConfig(**SMALL, vocab_size=100, vision_config=vision)).eval()
    model, pixels = mean_model(encoder, pooling="last_token"), drawn(2, 3, 32, 32)
    ids = torch.arange(12).reshape(2, 6) + 5
    with torch.no_grad():
        states = encoder(input_ids=ids, pixel_values=pixels).last_hidden_state
        read = model(input_ids=ids, pixel_values=pixels).task_states[:, 0]
        other = model(input_ids=ids + 1, pixel_values=pixels).task_states[:, 0]
    torch.testing.assert_close(read, states[:, -1], atol=1e-5, rtol=0)
    assert (read - other).abs().max() > 1e-3
    # It is found out once, and then costs nothing: the encoder is called once for a batch.
    calls = []
    encoder.register_forward_pre_hook(lambda *given: calls.append(given))
    model(input_ids=ids, pixel_values=pixels)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["answers", "tokenizer", "processor"])
def test_of_an_encoder_of_images_no_text_is_asked(kind, tmp_path):
    model = mean_model(ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])))
    model.save_pretrained(tmp_path)
    reading = "how the encoder of image reads its input"
    ask, message = {
        "answers": (lambda: model.predict(["a text"]), reading),
        "tokenizer": (model.load_tokenizer, "A ResNetModel reads pixel_values and no texts; give it that"),
        "processor": (
            lambda: MultiTaskProcessor.from_pretrained(tmp_path),
            "how the encoder of image reads its input",
        ),
    }[kind]
    with pytest.raises(InputError, match=message):
        ask()


@pytest.mark.parametrize("vocabulary", range(8, 34))
def test_an_encoder_of_few_words_that_reads_both_ways_is_not_taken_for_one_way(vocabulary):
    encoder = BertModel(BertConfig(**SMALL, vocab_size=vocabulary))
    assert MultiTaskAttentionModel.from_encoder(encoder, tasks=TASKS).config.pooling == "task_queries"


def test_a_mean_of_large_half_states_is_finite():
    torch.manual_seed(0)
    encoder = LlamaModel(LlamaConfig(**SMALL, vocab_size=100, num_key_value_heads=2))
    encoder.norm.weight.data *= 120
    model = mean_model(encoder.half())
    assert model(input_ids=torch.full((1, 250), 7)).task_states.isfinite().all()


def test_answers_of_rows_with_one_task_each_are_not_put_together():
    model = mean_model(BertModel(BertConfig(**SMALL, vocab_size=50)))
    ids = torch.arange(14).reshape(2, 7) + 5
    for tasks in ([1, 0], [0, 0]):
        with pytest.raises(InputError, match="answered for one task each .task_ids=., and do not say which"):
            model.decode(model(input_ids=ids, task_ids=torch.tensor(tasks)))
    with pytest.raises(InputError, match="The outputs are a tuple; expected"):
        model.decode(model(input_ids=ids, return_dict=False))
    logits = {name: values.detach().numpy() for name, values in model(input_ids=ids).logits.items()}
    assert model.decode(logits) == model.decode(model(input_ids=ids))


def test_what_is_no_tensor_is_said():
    model = mean_model(BertModel(BertConfig(**SMALL, vocab_size=50)))
    with pytest.raises(InputError, match="`input_ids` is a list; expected a tensor, .*return_tensors=.pt."):
        model(input_ids=[[1, 2, 3]])
    with pytest.raises(InputError, match="`input_ids` is a dict; write model(.*)inputs., with two stars"):
        model({"input_ids": torch.ones(1, 3, dtype=torch.long)})
    with pytest.raises(InputError, match="Unknown input of the encoder 'use_cache'"):
        model(input_ids=torch.ones(1, 3, dtype=torch.long), use_cache=False)
