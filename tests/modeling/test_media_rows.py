"""Rows of models that read no texts: an image or a sound itself, files, data sets; behind `pipeline` too."""

import io

import numpy as np
import pytest
import torch
from datasets import Audio
from PIL import Image
from transformers import BertConfig, pipeline

from hf_mtl import InputError, MultiTaskAttentionModel
from tests.modality_data import RESNET, WHISPER, images, png, sounds, wav

SIDE = {"name": "side", "problem_type": "single_label_classification", "labels": ["left", "right"]}
PITCH = {"name": "pitch", "problem_type": "single_label_classification", "labels": ["low", "high"]}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MultiTaskAttentionModel.from_encoder({"image": RESNET}, tasks=[SIDE]).eval()


@pytest.fixture(scope="module")
def content():
    return png(1, np.random.default_rng(0))


def test_an_image_is_a_row_where_nothing_else_is_read(model, content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    points = Image.open(io.BytesIO(content))
    expected = model.predict([{"image": content}])
    for row in (content, points, tmp_path / "a.png", str(tmp_path / "a.png"), {"image": np.asarray(points)}):
        assert model.predict(row) == expected
    # Sums of two rows may differ in their last bit from those of one.
    scores = [answer["side"]["score"] for answer in model.predict([points, content])]
    assert scores == pytest.approx([expected[0]["side"]["score"]] * 2)


def test_a_model_that_reads_texts_takes_no_image_for_one(tokenizer, content):
    config = BertConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    tasks = [{**SIDE, "fields": ["image"]}, {**PITCH, "name": "mood"}]
    mixed = MultiTaskAttentionModel.from_encoder({"image": RESNET, "text": config}, tasks=tasks)
    with pytest.raises(InputError, match="expected a text, or a mapping"):
        mixed.predict(content, tokenizer=tokenizer)


def test_a_pipeline_answers_without_a_tokenizer(model, content, tmp_path):
    model.save_pretrained(tmp_path)
    pipe = pipeline("multi-task", model=str(tmp_path))
    assert pipe(content) == model.predict(content)[0]
    assert pipe([{"image": content}] * 3, batch_size=3) == model.predict([content] * 3)


def test_columns_of_a_data_set_are_read_as_files(model):
    rows = images(4)
    assert model.predict(rows) == model.predict([{"image": row["image"]} for row in rows])
    hearing = MultiTaskAttentionModel.from_encoder({"audio": WHISPER}, tasks=[PITCH]).eval()
    # Without torchcodec, which decoding by datasets would need.
    assert hearing.predict(sounds(4).cast_column("audio", Audio())) == hearing.predict(sounds(4))


def test_a_decoder_and_a_tensor_are_sounds():
    hearing = MultiTaskAttentionModel.from_encoder({"audio": WHISPER}, tasks=[PITCH]).eval()
    file = wav(1, np.random.default_rng(0))
    samples = torch.from_numpy(np.frombuffer(file[44:], dtype="<i2").astype("float32") / 32768)

    class Samples:
        data, sample_rate = samples[None], 2000

    class Decoder:
        def get_all_samples(self):
            return Samples()

    assert hearing.predict({"audio": Decoder()}) == hearing.predict({"audio": samples}) == hearing.predict(file)


@pytest.mark.parametrize("values", [{"revision": "main"}, {"token": "x"}, {"device_map": "auto"}])
def test_what_loads_an_encoder_is_refused_where_none_is_loaded(values):
    with pytest.raises(InputError, match=f"{next(iter(values))}=.* a configuration is given"):
        MultiTaskAttentionModel.from_encoder({"image": RESNET}, tasks=[SIDE], **values)


def test_a_built_encoder_has_the_numbers_that_are_said():
    model = MultiTaskAttentionModel.from_encoder({"image": RESNET}, tasks=[SIDE], dtype="bfloat16")
    assert model.encoder.dtype == torch.bfloat16
    with pytest.raises(InputError, match="dtype='bf'"):
        MultiTaskAttentionModel.from_encoder({"image": RESNET}, tasks=[SIDE], dtype="bf")
