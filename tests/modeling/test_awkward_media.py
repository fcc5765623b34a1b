"""Images, sounds and tables as they come: cut, deep, of other shapes and names; each is served, or refused by name."""

import io
import json
import wave

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image
from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.cli import main
from hf_mtl.modeling.image_files import read_image
from hf_mtl.modeling.modality_readers import is_empty, table_text
from hf_mtl.modeling.sound_files import read_sound
from tests.modality_data import RATE, RESNET, WHISPER, images, png, wav

TABLE = {"hidden_size": 16, "num_hidden_layers": 1}
SIDE = {"name": "side", "problem_type": "single_label_classification", "labels": ["left", "right"]}
KIND = "single_label_classification"


def trained(tmp_path, encoder, data, tasks, **values):
    arguments = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), report_to="none", disable_tqdm=True, save_strategy="no", learning_rate=1e-3, **values
    )
    trainer = MultiTaskTrainer(encoder, arguments, train_dataset=data, eval_dataset=data, tasks=tasks)
    trainer.train()
    return trainer


def sound(samples, width=2, channels=1):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(RATE)
        file.writeframes(samples)
    return stream.getvalue()


def test_tasks_of_one_source_read_their_own_images(tmp_path):
    data = images(60).rename_columns({"image": "a", "label": "first"})
    other = images(60, seed=5).rename_columns({"image": "b", "label": "second"})
    data = data.add_column("b", other.data.column("b")).add_column("second", other["second"])
    data = data.cast_column("b", data.features["a"])
    rows = [("A", "a", "first"), ("B", "b", "second")]
    tasks = [
        {"name": n, "source": "s", "problem_type": KIND, "columns": {"image": i, "label": label}, "labels": ["0", "1"]}
        for n, i, label in rows
    ]
    tasks[0].pop("labels")
    trainer = trained(tmp_path, {"image": RESNET}, {"s": data}, tasks, max_steps=60)
    metrics = trainer.evaluate()
    assert metrics["eval_A_accuracy"] > 90 and metrics["eval_B_accuracy"] > 90


def test_tasks_read_their_own_columns_of_a_table(tmp_path):
    rng = np.random.default_rng(0)
    ages, kinds = rng.integers(0, 2, 80).tolist(), rng.integers(0, 2, 80).tolist()
    old = Dataset.from_dict({"age": [float(age) for age in ages], "old": [str(age) for age in ages]})
    new = Dataset.from_dict({"kind": [f"k{kind}" for kind in kinds], "new": [str(kind) for kind in kinds]})
    tasks = [
        {"name": "old", "problem_type": KIND, "columns": {"table": ["age"], "label": "old"}},
        {"name": "new", "problem_type": KIND, "columns": {"table": ["kind"], "label": "new"}},
    ]
    trainer = trained(tmp_path, {"table": TABLE}, {"old": old, "new": new}, tasks, max_steps=60)
    model = trainer.model.eval()
    row = {"age": 1.0, "kind": "k0"}
    together = model.predict(row)[0]
    assert {name: answer["label"] for name, answer in together.items()} == {"old": "1", "new": "0"}
    for name, answer in together.items():
        assert model.predict(row, tasks=name)[0][name]["score"] == pytest.approx(answer["score"], abs=1e-6)
    assert set(model.predict({"age": 1.0})[0]) == {"old"}


def test_an_image_that_ends_too_early_is_named_before_the_first_step(tmp_path):
    content = png(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="truncated"):
        read_image(content[:-60])
    data = images(20)
    rows = [*data.cast_column("image", type(data.features["image"])(decode=False))]
    rows[7]["image"] = {"bytes": content[:-60], "path": None}
    with pytest.raises(InputError, match="'side', row 7: .*truncated"):
        trained(tmp_path, {"image": RESNET}, {"side": Dataset.from_list(rows, data.features)}, None, max_steps=1)


def test_a_bad_file_spoils_no_other_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MultiTaskAttentionModel.from_encoder({"image": RESNET}, tasks=[SIDE]).save_pretrained("model")
    content = png(0, np.random.default_rng(0))
    for name, bytes_of_file in (("a.png", content), ("b.png", content[:-60])):
        (tmp_path / name).write_bytes(bytes_of_file)
    lines = [json.dumps({"image": name}) for name in ("a.png", "b.png", "a.png")]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    assert main(["predict", "model", "--file", "in.jsonl", "--output", "out.jsonl"]) == 1
    first, second, third = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert first["answers"] == third["answers"]
    assert second["error"].startswith("in.jsonl, line 2: the image is ") and "row 0" not in second["error"]


def test_16_bits_a_point_become_8():
    points = np.array([[0, 257], [257 * 128, 65535]], dtype=np.uint16)
    stream = io.BytesIO()
    Image.fromarray(points).save(stream, "PNG")
    assert np.asarray(read_image(stream.getvalue())).tolist() == [[0, 1], [128, 255]]
    with pytest.raises(ValueError, match="32 bits"):
        read_image(Image.fromarray(np.ones((2, 2), dtype=np.float32)))


def test_channels_may_come_first():
    points = np.random.default_rng(0).integers(0, 255, (3, 5, 7), dtype=np.uint8)
    assert np.asarray(read_image(points)).tolist() == points.transpose(1, 2, 0).tolist()
    with pytest.raises(ValueError, match="found uint8 \\(5, 7, 5\\)"):
        read_image(np.zeros((5, 7, 5), dtype=np.uint8))


def test_an_animation_is_cut_and_says_so():
    stream = io.BytesIO()
    first, second = (Image.new("L", (12, 12), grey) for grey in (0, 250))
    first.save(stream, "GIF", save_all=True, append_images=[second])
    model = MultiTaskAttentionModel.from_encoder({"image": RESNET}, tasks=[SIDE]).eval()
    moving, still = model.predict([stream.getvalue(), first])
    assert moving["side"].pop("truncated") and moving["side"]["label"] == still["side"]["label"]
    assert "truncated" not in still["side"]


def test_images_of_two_sizes_say_what_resizes_them():
    model = MultiTaskAttentionModel.from_encoder({"image": RESNET}, tasks=[SIDE])
    with pytest.raises(InputError, match="12 x 12 and 30 x 12 points.*do_resize: true"):
        model.predict([{"image": np.zeros(shape, dtype=np.uint8)} for shape in ((12, 12), (12, 30))])


def test_sounds_of_any_form_are_one():
    samples = (np.sin(np.arange(600) / 9) * 20000).astype("<i2")
    expected = read_sound(sound(samples.tobytes()), RATE)
    stereo = np.stack([samples, samples], axis=1)
    for value in (samples, stereo, stereo.T, torch.from_numpy(samples / 32768), sound(stereo.tobytes(), channels=2)):
        np.testing.assert_allclose(read_sound(value, RATE), expected, atol=1e-4)
    for value, message in (
        (np.full(9, np.nan), "no finite number"),
        (np.zeros((1, 2, 3)), "found an array \\(1, 2, 3\\)"),
        (sound(samples.tobytes())[:-500], "ends after 350 of 600 samples"),
    ):
        with pytest.raises(ValueError, match=message):
            read_sound(value, RATE)


def test_a_sound_that_any_extractor_cuts_says_so():
    encoder = {
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_length": 32,
        "num_mel_bins": 16,
        "processor": {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 32, "num_mel_bins": 16},
    }
    model = MultiTaskAttentionModel.from_encoder({"audio": encoder}, tasks=[SIDE]).eval()
    noise = np.random.default_rng(0).normal(size=28_000).astype("float32") / 9
    long, short = model.predict([{"audio": noise}, {"audio": noise[:4000]}])
    assert long["side"]["truncated"] and "truncated" not in short["side"]


def test_large_numbers_keep_their_differences(tmp_path):
    times = [1_700_000_000.0 + 10 * (place % 2) for place in range(60)]
    data = Dataset.from_dict({"time": times, "label": [str(place % 2) for place in range(60)]})
    task = {"name": "t", "problem_type": KIND, "columns": {"table": ["time"], "label": "label"}}
    trainer = trained(tmp_path, {"table": TABLE}, {"t": data}, [task], max_steps=40)
    assert trainer.evaluate()["eval_t_accuracy"] == 100
    with pytest.raises(InputError, match="far from the training rows'"):
        trainer.model.predict({"time": 1e39})


def test_a_category_is_one_in_every_format(tmp_path):
    assert {table_text(cell) for cell in (1, 1.0, "1", "1.0", " 1 ")} == {"1"} and table_text("01") == "01"
    assert all(map(is_empty, (None, "", " ", float("nan"), np.float32("nan"), pd.NA, pd.NaT)))
    features = Features({"job": ClassLabel(names=["x", "y"]), "label": Value("string")})
    data = Dataset.from_dict({"job": [0, 1] * 20, "label": ["a", "b"] * 20}, features=features)
    task = {"name": "t", "problem_type": KIND, "columns": {"table": ["job"], "label": "label"}}
    trainer = trained(tmp_path, {"table": TABLE}, {"t": data}, [task], max_steps=1)
    assert trainer.model.config.encoder_config.columns == [{"name": "job", "kind": "category", "values": ["x", "y"]}]


def test_all_columns_that_could_be_codes_are_asked_about_at_once(tmp_path):
    data = Dataset.from_dict({"age": ["1", "2"] * 9, "zip": ["01", "02"] * 9, "label": ["a", "b"] * 9})
    task = {"name": "t", "problem_type": KIND, "columns": {"table": ["age", "zip"], "label": "label"}}
    with pytest.raises(InputError, match=r"age \(1\), zip \(01\).*numbers: \[age, zip\]"):
        trained(tmp_path, {"table": TABLE}, {"t": data}, [task], max_steps=1)


def test_columns_may_be_called_as_fields_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Dataset.from_dict({"image": ["a", "b"] * 20, "label": ["l", "r"] * 20})
    task = {"name": "t", "problem_type": KIND, "columns": {"table": ["image"], "label": "label"}}
    trainer = trained(tmp_path / "run", {"table": TABLE}, {"t": data}, [task], max_steps=40)
    trainer.save_model("model")
    (tmp_path / "in.csv").write_text("image\na\nb\n", "utf-8")
    assert main(["predict", "model", "--file", "in.csv", "--output", "out.jsonl"]) == 0
    answers = [json.loads(line)["answers"]["t"]["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert answers == ["l", "r"]


@pytest.mark.parametrize(("encoder", "row"), [({"image": RESNET}, "image"), ({"audio": WHISPER}, "audio")])
def test_a_model_in_half_precision_answers(encoder, row):
    rng = np.random.default_rng(0)
    model = MultiTaskAttentionModel.from_encoder(encoder, tasks=[SIDE]).bfloat16().eval()
    assert model.predict({row: png(0, rng) if row == "image" else wav(0, rng)})[0]["side"]["label"] in SIDE["labels"]


def test_encoders_in_half_precision_answer_beside_each_other():
    encoders = {"image": RESNET, "audio": WHISPER}
    tasks = [{**SIDE, "fields": ["image"]}, {**SIDE, "name": "pitch", "fields": ["audio"]}]
    model = MultiTaskAttentionModel.from_encoder(encoders, tasks=tasks, dtype="bfloat16").eval()
    rng = np.random.default_rng(0)
    assert model.predict({"image": png(0, rng), "audio": wav(0, rng)})[0].keys() == {"side", "pitch"}


def test_a_loaded_encoder_takes_a_processor():
    sizes = {name: value for name, value in RESNET.items() if name not in ("model_type", "processor")}
    processor = ViTImageProcessor(do_resize=False, image_mean=[0.5], image_std=[0.5])
    encoder = {"model": ResNetModel(ResNetConfig(**sizes)), "processor": processor}
    model = MultiTaskAttentionModel.from_encoder({"image": encoder}, tasks=[SIDE])
    assert model.predict({"image": png(0, np.random.default_rng(0))})[0].keys() == {"side"}
    alone = MultiTaskAttentionModel.from_encoder({"image": encoder["model"]}, tasks=[SIDE])
    with pytest.raises(InputError, match="'model': encoder, 'processor': AutoImageProcessor"):
        alone.predict({"image": png(0, np.random.default_rng(0))})


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({**RESNET["processor"], "do_resise": True}, "Did you mean 'do_resize'"),
        ({"image_processor_type": "ViTConfig"}, "no processor of transformers"),
    ],
)
def test_a_processor_that_is_none_is_refused(processor, message):
    with pytest.raises(InputError, match=message):
        MultiTaskAttentionModel.from_encoder({"image": {**RESNET, "processor": processor}}, tasks=[SIDE])


def test_a_file_given_as_a_text_is_asked_about(tmp_path, tokenizer):
    from transformers import BertConfig

    config = BertConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    tasks = [{**SIDE, "fields": ["image"]}, {**SIDE, "name": "mood"}]
    model = MultiTaskAttentionModel.from_encoder({"text": config, "image": RESNET}, tasks=tasks)
    (tmp_path / "a.png").write_bytes(png(0, np.random.default_rng(0)))
    with pytest.raises(InputError, match="a file that would be read as a text; write {'image'"):
        model.predict(str(tmp_path / "a.png"), tokenizer=tokenizer)
    with pytest.raises(InputError, match="columns img"):
        model.predict({"img": Image.new("L", (12, 12))}, tasks="side", tokenizer=tokenizer)


def test_an_image_is_given_once_on_a_command_line(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "model", "--image", "a.png", "--image", "b.png"])
    assert "--image is given twice" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", "model", "--table", "age=30"])
    assert "expected JSON" in capsys.readouterr().err
