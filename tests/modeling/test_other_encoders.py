"""Encoders of images, sounds and one-way texts, towers of models of several: wrapped, trained, saved, asked."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    BartConfig,
    BartForCausalLM,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2Model,
    LayoutLMConfig,
    LayoutLMModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipForImageClassification,
    SwinConfig,
    SwinModel,
    T5EncoderModel,
    T5Model,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.modeling.encoder_tensors import EncoderInputs, resampled_mask
from hf_mtl.modeling.systems import SYSTEMS
from tests.conftest import build_model, encoder_config
from tests.encoders.tiny_configs import tiny_config

TASKS = [
    {"name": "kind", "problem_type": "single_label_classification", "labels": ["cat", "dog"]},
    {"name": "size", "problem_type": "regression"},
    {"name": "marks", "problem_type": "multi_label_classification", "labels": ["dark", "loud", "old"]},
]
LABELS = {
    "kind": torch.tensor([0, 1]),
    "size": torch.tensor([0.5, 2.0]),
    "marks": torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WAVES = {"conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_feat_extract_layers": 2}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


def vit():
    return ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8))


def swin():
    return SwinModel(
        SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[2, 2, 2], window_size=2)
    )


def waves():
    return Wav2Vec2Model(Wav2Vec2Config(**SMALL, **WAVES, **POSITIONS, mask_time_prob=0.0))


def clip():
    return CLIPModel(
        CLIPConfig(
            text_config={**SMALL, "vocab_size": 100},
            vision_config={**SMALL, "hidden_size": 48, "image_size": 32, "patch_size": 8},
        )
    )


def images():
    pictures = [np.full((40, 50, 3), shade, dtype=np.uint8) for shade in (20, 220)]
    return dict(ViTImageProcessorPil(size={"height": 32, "width": 32})(pictures, return_tensors="pt"))


def sounds():
    generator = np.random.default_rng(0)
    recordings = [generator.standard_normal(length).astype(np.float32) for length in (1600, 800)]
    extract = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    return dict(extract(recordings, sampling_rate=16_000, padding=True, return_tensors="pt"))


def words():
    return {"input_ids": torch.arange(14).reshape(2, 7) + 5}


# By name: the encoder, what it reads, the tower, the width of its states.
CASES = {
    "vit": (vit, images, None, 32),
    "resnet": (
        lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1])),
        images,
        None,
        24,
    ),
    "wav2vec2": (waves, sounds, None, 32),
    "clip's images": (clip, images, "vision_model", 48),
    "clip's texts": (clip, words, "text_model", 32),
    "gpt2": (lambda: GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100)), words, None, 32),
}


@pytest.mark.parametrize("name", CASES)
def test_any_encoder_trains_a_step_is_reloaded_and_answers(name, tmp_path):
    build, read, tower, width = CASES[name]
    torch.manual_seed(0)
    model, inputs = MultiTaskAttentionModel.from_encoder(build(), tasks=TASKS, tower=tower), read()
    assert model.config.hidden_size == width
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = model(**inputs, labels=LABELS).loss
        loss.backward()
        assert (
            sum(bool(tensor.grad.abs().sum()) for tensor in model.encoder.parameters() if tensor.grad is not None) > 3
        )
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval().save_pretrained(tmp_path)
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    first, second = model(**inputs), again(**inputs)
    for task in first.logits:
        torch.testing.assert_close(first.logits[task], second.logits[task], rtol=0, atol=1e-6)
    answers = again.decode(second)
    assert [set(answer) for answer in answers] == [{"kind", "size", "marks"}] * 2
    assert answers[1]["kind"]["label"] == ["cat", "dog"][int(second.logits["kind"][1].argmax())]
    assert answers[0]["size"]["value"] == pytest.approx(second.logits["size"][0].item(), abs=1e-6)


def test_an_images_states_are_those_of_the_encoder_alone():
    """Mean pooling and hard sharing: the heads read the mean of the encoder's own states."""
    encoder = vit().eval()
    model = MultiTaskAttentionModel.from_encoder(encoder, tasks=TASKS, system="hard_sharing", pooling="mean").eval()
    states = model(**images()).task_states[:, 0]
    torch.testing.assert_close(states, encoder(**images()).last_hidden_state.mean(dim=1))


def test_padding_of_a_wave_is_not_read():
    """A recording is answered alike whatever shares its batch."""
    model = MultiTaskAttentionModel.from_encoder(waves(), tasks=TASKS, pooling="mean").eval()
    together = sounds()
    alone = {name: values[1:, :800] for name, values in together.items()}
    first, second = model(**together).logits["kind"][1:], model(**alone).logits["kind"]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-2)
    unmasked = model(input_values=together["input_values"]).logits["kind"][1:]
    assert (unmasked - second).abs().max() > (first - second).abs().max()


def test_a_mask_follows_the_states():
    mask = torch.tensor([[1] * 100, [1] * 50 + [0] * 50])
    assert resampled_mask(mask, torch.zeros(2, 10, 4)).sum(dim=1).tolist() == [10, 5]
    assert resampled_mask(None, torch.zeros(2, 10, 4)).all()
    assert resampled_mask(mask, torch.zeros(2, 100, 4)) is mask


def test_a_model_of_several_encoders_asks_for_one():
    with pytest.raises(InputError, match="tower='text_model' or tower='vision_model'"):
        MultiTaskAttentionModel.from_encoder(clip(), tasks=TASKS)
    with pytest.raises(InputError, match="Did you mean 'vision_model'"):
        MultiTaskAttentionModel.from_encoder(clip(), tasks=TASKS, tower="vision_modell")
    with pytest.raises(InputError, match="a ViTModel is one encoder; leave tower out"):
        MultiTaskAttentionModel.from_encoder(vit(), tasks=TASKS, tower="vision_model")


def test_what_the_encoder_does_not_take_is_refused_by_name():
    model = MultiTaskAttentionModel.from_encoder(vit(), tasks=TASKS)
    with pytest.raises(InputError, match="Unknown input of the encoder 'pixel_value'.*Did you mean 'pixel_values'"):
        model(pixel_value=torch.zeros(2, 3, 32, 32))


def test_words_are_no_input_of_an_encoder_of_images():
    model = MultiTaskAttentionModel.from_encoder(vit(), tasks=TASKS)
    assert model.main_input_name == "pixel_values"
    with pytest.raises(InputError, match="Unknown input of the encoder 'input_ids'; expected one of pixel_values"):
        model(**words())
    with pytest.raises(InputError, match="Unknown input of the encoder 'token_type_ids'"):
        model(**images(), token_type_ids=torch.ones(2, 1))
    with pytest.raises(InputError, match="Nothing to read is given; the encoder takes pixel_values"):
        model(labels=LABELS)


# What an encoder of images, maps of features or waves lacks: the settings, and what is said of them.
LACKS = {
    "conditioning": ("vit", {"conditioning": "modulation"}, "modulation does not work .* it reads no word pieces"),
    "conditioning of waves": ("wav2vec2", {"conditioning": "task_tokens"}, "task_tokens .* it reads no word pieces"),
    "words": ("vit", {"lexical_rank": 4}, "lexical_rank=4 gives each word piece a weight, and a ViTModel reads none"),
    "layers": ("resnet", {"pooling": "layer_mix"}, "of every layer of a ResNetModel, .* does not count its layers"),
    "shapes of layers": ("swin", {"pooling": "task_layer"}, "of a SwinModel, and its layers' have other shapes each"),
    "pooler": ("wav2vec2", {"pooling": "pooler"}, "a Wav2Vec2Model returns none; expected another pooling"),
}


@pytest.mark.parametrize("name", LACKS)
def test_a_setting_that_needs_what_an_encoder_lacks_is_refused_before_it_is_run(name):
    kind, settings, said = LACKS[name]
    encoder = swin() if kind == "swin" else CASES[kind][0]()
    with pytest.raises(InputError, match=said):
        MultiTaskAttentionModel.from_encoder(encoder, tasks=TASKS, **settings)


@pytest.mark.parametrize("name", ["vit", "resnet", "wav2vec2"])
def test_every_system_answers_of_it_or_says_why_not(name):
    """With rows of their own tasks alone as with all, and reloaded."""
    build, read, _, _ = CASES[name]
    inputs, refused = read(), set()
    for system, settings in SYSTEMS.items():
        torch.manual_seed(0)
        try:
            model = MultiTaskAttentionModel.from_encoder(build(), tasks=TASKS, system=system)
        except InputError as error:
            assert "it reads no word pieces" in str(error)
            refused.add(settings.settings["conditioning"])
            continue
        model.train()(**inputs, labels=LABELS).loss.backward()
        with torch.no_grad():
            every = model.eval()(**inputs).logits
            alone = model(**inputs, task_ids=torch.tensor([1, 0])).logits
        torch.testing.assert_close(alone["size"], every["size"][:1], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone["kind"], every["kind"][1:], atol=1e-5, rtol=0)
    told = {"input_addition", "modulation", "task_tokens", "projected_attention_layers", "hyper_adapters"}
    assert refused == {*told, "conditional_attention"}


def test_a_tower_counts_its_layers():
    """Those of CLIP's images are not those of its texts."""
    config = clip().config
    config.vision_config.num_hidden_layers = 3
    model = MultiTaskAttentionModel.from_encoder(
        CLIPModel(config), tasks=TASKS, tower="vision_model", pooling="layer_mix"
    )
    assert model.config.num_hidden_layers == 3
    assert model(**images(), output_task_attentions=True).logits["kind"].shape == (2, 2)
    with pytest.raises(InputError, match="expected a layer from 1 to 3"):
        MultiTaskAttentionModel.from_encoder(
            CLIPModel(config), tasks=TASKS, tower="vision_model", pooling="task_layer", task_layers={"kind": 4}
        )


def test_a_pooler_of_maps_of_features_is_read():
    model = MultiTaskAttentionModel.from_encoder(CASES["resnet"][0](), tasks=TASKS, pooling="pooler").eval()
    pooled = model.encoder(**images()).pooler_output.flatten(1)
    torch.testing.assert_close(model(**images()).task_states[:, 0], pooled)


def test_a_model_that_its_configuration_does_not_build_is_refused():
    """Saved, it would be another when it is loaded."""
    for head, config in ((BartForCausalLM, BartConfig), (SiglipForImageClassification, SiglipConfig)):
        model = head(tiny_config(config.model_type))
        with pytest.raises(InputError, match=f"is no encoder that its configuration .{config.__name__}. builds again"):
            MultiTaskAttentionModel.from_encoder(model, tasks=TASKS)


def test_an_encoder_class_of_an_encoder_decoder_is_reloaded(tmp_path):
    model = MultiTaskAttentionModel.from_encoder(T5EncoderModel(tiny_config("t5")), tasks=TASKS).eval()
    model.save_pretrained(tmp_path)
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**words()).logits, model(**words()).logits, atol=1e-6, rtol=0)


def test_what_a_checkpoint_lacks_is_drawn_as_the_encoder_draws_it():
    """T5 draws what a layer's attention is made of together, each matrix at its own scale."""
    model = MultiTaskAttentionModel.from_encoder(T5Model(tiny_config("t5")), tasks=TASKS)
    again = MultiTaskAttentionModel.from_pretrained(
        None, config=model.config, state_dict={}, ignore_mismatched_sizes=True
    )
    for one, other in zip(model.encoder.parameters(), again.encoder.parameters()):
        assert one.std().item() == pytest.approx(other.std().item(), rel=0.3, abs=1e-6)


@pytest.mark.parametrize("name", ["vit", "wav2vec2", "clip's images", "gpt2"])
def test_it_is_exported_with_the_encoders_own_inputs(name):
    build, read, tower, _ = CASES[name]
    model, inputs = MultiTaskAttentionModel.from_encoder(build().eval(), tasks=TASKS, tower=tower).eval(), read()
    program = torch.export.export(model, (), kwargs=inputs, strict=False)
    torch.testing.assert_close(program.module()(**inputs).logits, model(**inputs).logits)


def test_the_trainer_asks_for_what_reads_images_and_for_images(tmp_path):
    rows = Dataset.from_dict({"text": ["a"], "label": ["cat"]})
    model = MultiTaskAttentionModel.from_encoder(CASES["resnet"][0](), tasks=TASKS[:1])
    arguments = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(InputError, match="the model reads image, the data have text"):
        MultiTaskTrainer(model, arguments, eval_dataset={"kind": rows}, tasks=TASKS[:1])
    pictures = rows.rename_column("text", "image")
    with pytest.raises(InputError, match="how the encoder of image reads its input: .*AutoImageProcessor"):
        task = {**TASKS[0], "fields": ["image"]}
        MultiTaskTrainer(model, arguments, eval_dataset={"kind": pictures}, tasks=[task])


def test_activation_checkpointing_of_an_encoder_without_is_refused_by_the_trainer(tmp_path):
    rows = Dataset.from_dict({"text": ["a"], "label": ["cat"]})
    model = build_model(TASKS[:1])
    for part in model.modules():
        vars(part).pop("gradient_checkpointing", None)
    model.encoder.encoder.layer = torch.nn.ModuleList([torch.nn.Identity()])
    arguments = MultiTaskTrainingArguments(output_dir=str(tmp_path), activation_checkpointing=True, use_cpu=True)
    with pytest.raises(InputError, match="a BertModel has no activation checkpointing; leave it out"):
        MultiTaskTrainer(model, arguments, eval_dataset={"kind": rows}, tasks=TASKS[:1])


# What a stock Trainer's user does with images: a row holds the encoder's input and labels by task.
def test_a_stock_trainer_trains_an_encoder_of_images(tmp_path):
    pictures = images()["pixel_values"]

    def collate(rows):
        places = [row["place"] for row in rows]
        return {
            "pixel_values": pictures[places],
            "labels": {name: values[places] for name, values in LABELS.items()},
        }

    model = MultiTaskAttentionModel.from_encoder(vit(), tasks=TASKS)
    before = model.mtl.heads["regression"].weight.task_size.detach().clone()
    arguments = TrainingArguments(
        str(tmp_path), max_steps=3, use_cpu=True, report_to="none", remove_unused_columns=False, learning_rate=1e-2
    )
    rows = Dataset.from_dict({"place": [0, 1] * 4})
    Trainer(model, arguments, data_collator=collate, train_dataset=rows).train()
    assert not torch.equal(before, model.mtl.heads["regression"].weight.task_size)


def test_inputs_beside_words_reach_the_encoder():
    """Of each word its place on the page."""
    encoder = LayoutLMModel(LayoutLMConfig(**SMALL, vocab_size=100, max_2d_position_embeddings=64)).eval()
    model = MultiTaskAttentionModel.from_encoder(encoder, tasks=TASKS, system="hard_sharing", pooling="mean").eval()
    boxes = torch.arange(56).reshape(2, 7, 4) % 60
    boxes = torch.cat([boxes[..., :2].sort().values, boxes[..., 2:].clamp(min=0)], dim=-1).sort(dim=-1).values
    states = model(**words(), bbox=boxes).task_states[:, 0]
    torch.testing.assert_close(states, encoder(**words(), bbox=boxes).last_hidden_state.mean(dim=1))


def test_an_encoder_that_reads_one_way_is_pooled_at_its_last_token(caplog):
    gpt2 = CASES["gpt2"][0]
    model = MultiTaskAttentionModel.from_encoder(gpt2(), tasks=TASKS)
    assert model.config.pooling == "last_token"
    assert "GPT2Model reads from left to right: pooling=last_token, unless you say another." in caplog.text
    assert MultiTaskAttentionModel.from_encoder(gpt2(), tasks=TASKS, pooling="mean").config.pooling == "mean"
    assert build_model(TASKS).config.pooling == "task_queries"


@pytest.mark.parametrize("kind", ["absolute", "padded"])
def test_a_text_longer_than_the_positions_is_refused_with_what_to_do(kind):
    """BERT has as many places as it says; RoBERTa keeps two for padding."""
    if kind == "absolute":
        model, most = build_model(TASKS), encoder_config(60).max_position_embeddings
    else:
        from transformers import RobertaConfig, RobertaModel

        encoder = RobertaModel(RobertaConfig(**SMALL, vocab_size=60, max_position_embeddings=40))
        model, most = MultiTaskAttentionModel.from_encoder(encoder, tasks=TASKS), 38
    fits = torch.full((1, most), 7)
    assert model(input_ids=fits).logits["kind"].shape == (1, 2)
    with pytest.raises(InputError, match=f"has {most + 1} word pieces, and this .* reads {most} at most"):
        model(input_ids=torch.full((1, most + 1), 7))


def test_rows_read_apart_need_an_axis_of_them():
    inputs = EncoderInputs(None, torch.ones(2, 1), others={"pixel_values": torch.zeros(8, 3)})
    with pytest.raises(InputError, match="does not say what is of which of 2 rows"):
        inputs.select(torch.tensor([0]))
    several = EncoderInputs(None, torch.ones(2, 1), others={"pixel_values": torch.arange(6.0).reshape(2, 3)})
    assert several.select(torch.tensor([1, 1])).others["pixel_values"].tolist() == [[3.0, 4.0, 5.0]] * 2
