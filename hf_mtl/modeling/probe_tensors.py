"""The tensors that encoders read, by the names of their forward's arguments; what no rule tells stands in tables."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig

from .encoder_modules import input_embeddings

LENGTH, IMAGE_SIDE, FRAMES, SAMPLES, CHANNELS = 5, 64, 128, 8000, 3


class Probe(NamedTuple):
    """An encoder, the names of what its forward takes, and the size of the inputs to make."""

    encoder: nn.Module
    config: Any
    accepted: Mapping[str, inspect.Parameter]
    rows: int
    length: int
    scale: int = 1


def _wave(*shape: int) -> torch.Tensor:
    """Numbers from -1 to 1 that do not repeat, made without random numbers."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count) * 0.7 + 0.1).reshape(shape)


def _setting(config: Any, *names: str, default: Any = None) -> Any:
    """The first of these settings that a configuration has a value for."""
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if value is not None), default)


def _number(config: Any, *names: str, default: int) -> int:
    """The first of these settings; of several numbers the last one."""
    value = _setting(config, *names, default=default)
    return int(value[-1] if isinstance(value, list | tuple) else value)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        return int(value["height"]), int(value["width"])
    return (int(value[-2]), int(value[-1])) if isinstance(value, list | tuple) else (int(value), int(value))


def _words(probe: Probe) -> torch.Tensor:
    """Word pieces that no setting of the configuration speaks of."""
    ids = _special_ids(probe.config)
    size = _vocabulary(probe)
    ordinary = [number for number in range(min(5, size - 1), size) if number not in ids] or list(range(size))
    places = torch.arange(probe.rows * probe.length).reshape(probe.rows, probe.length) * 3
    return torch.tensor(ordinary)[places % len(ordinary)]


def _boxes(probe: Probe) -> torch.Tensor:
    """(rows, length, 4): the left, upper, right and lower edge of each word piece."""
    boxes = torch.tensor([1, 2, 8, 9]).expand(probe.rows, probe.length, 4)
    return boxes / 10 if getattr(probe.config, "model_type", None) in _FRACTIONAL_BOXES else boxes


def _vocabulary(probe: Probe) -> int:
    table = input_embeddings(probe.encoder)
    if isinstance(table, nn.Embedding):
        return table.num_embeddings
    text = probe.config.get_text_config() if isinstance(probe.config, PreTrainedConfig) else probe.config
    return _number(text, "vocab_size", "text_vocab_size", "src_vocab_size", default=100)


def _special_ids(config: Any) -> set[int]:
    """The word pieces that settings of a configuration, and of those inside it, speak of."""
    ids: set[int] = set()
    for name, value in (vars(config) if isinstance(config, PreTrainedConfig) else {}).items():
        if isinstance(value, PreTrainedConfig):
            ids |= _special_ids(value)
        elif name.endswith(("token_id", "token_index", "_token_ids", "mask_index")):
            ids |= {item for item in (value if isinstance(value, list | tuple) else [value]) if type(item) is int}
    return ids


def _ones(probe: Probe) -> torch.Tensor:
    return torch.ones(probe.rows, probe.length, dtype=torch.long)


def _image_size(probe: Probe) -> tuple[int, int]:
    said = _setting(probe.config, "image_size", "img_size", "crop_size", "input_size", default=IMAGE_SIDE)
    height, width = _pair(said)
    return height * probe.scale, width * probe.scale


def _channels(probe: Probe) -> int:
    return _number(probe.config, "num_channels", "in_channels", "in_chans", default=CHANNELS)


def _images(probe: Probe) -> torch.Tensor:
    """(rows, channels, height, width), or patches of them where the encoder takes patches."""
    kind = getattr(probe.config, "model_type", None)
    if "grid_thw" in probe.accepted:
        return _packed_patches(probe)[None] if kind in _PACKED_AS_ONE_ROW else _packed_patches(probe)
    if {"spatial_shapes", "pixel_position_ids"} & set(probe.accepted):
        patch = _pair(_setting(probe.config, "patch_size", default=16))[0]
        return _wave(probe.rows, PATCHES**2, _channels(probe) * patch**2)
    if kind in _IMAGE_SHAPES:
        return _wave(probe.rows, *_IMAGE_SHAPES[kind])
    frames = _number(probe.config, "num_frames", default=1)
    shape = (probe.rows, frames) if frames > 1 else (probe.rows,)
    return _wave(*shape, _channels(probe), *_image_size(probe))


def _packed_patches(probe: Probe) -> torch.Tensor:
    """(rows * patches, numbers in a patch): the patches of all images, one after the other."""
    patch = _pair(_setting(probe.config, "patch_size", default=16))[0]
    times = _number(probe.config, "temporal_patch_size", default=1)
    folds = [layer for layer in probe.encoder.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear)]
    kind = getattr(probe.config, "model_type", None)
    if folds and isinstance(folds[0], nn.Conv2d) and kind not in _PACKED_FLAT:
        # The others fold patches as they need them, or read them as rows of numbers.
        return _wave(probe.rows * PATCHES**2, _channels(probe), patch, patch)
    return _wave(probe.rows * PATCHES**2, _channels(probe) * times * patch**2)


def _grid(probe: Probe) -> torch.Tensor:
    return torch.tensor([[1, PATCHES, PATCHES]] * probe.rows)


def _patch_places(probe: Probe) -> torch.Tensor:
    side = torch.arange(PATCHES)
    return torch.cartesian_prod(side, side).flip(-1).expand(probe.rows, -1, -1)


def _videos(probe: Probe) -> torch.Tensor:
    frames = _number(probe.config, "num_frames", "frames_per_clip", default=2)
    return _wave(probe.rows, frames, _channels(probe), *_image_size(probe))


def _sound(probe: Probe) -> torch.Tensor:
    """(rows, samples), (rows, 1, samples) where the first layer folds one channel, or (rows, frames, bins)."""
    bins = _setting(probe.config, "num_mel_bins")
    if bins is not None and _setting(probe.config, "conv_dim") is None:
        return _wave(probe.rows, _number(probe.config, "max_length", default=FRAMES), bins)
    is_codec = _setting(probe.config, "sampling_rate", "sample_rate", "audio_channels", "codebook_size", "dac_config")
    samples = SAMPLES * probe.scale
    return _wave(probe.rows, samples) if is_codec is None else _wave(probe.rows, 1, samples)


def _sound_features(probe: Probe) -> torch.Tensor:
    """(rows, bins, frames) where the first layer folds over bins, else (rows, frames, bins)."""
    bins = _sound_bins(probe)
    frames = _sound_frames(probe)
    if "feature_lens" in probe.accepted:
        return _wave(bins, probe.rows * frames)
    return _wave(probe.rows, bins, frames) if _has_bins_first(probe) else _wave(probe.rows, frames, bins)


def _sound_bins(probe: Probe) -> int:
    return _number(
        probe.config,
        "num_mel_bins",
        "input_feat_per_channel",
        "feature_projection_input_dim",
        "input_dim",
        default=128,
    )


def _has_bins_first(probe: Probe) -> bool:
    """Whether a module's first folding layer reads a bin per channel."""
    folds = [layer for layer in probe.encoder.modules() if isinstance(layer, nn.Conv1d)]
    is_mel = _setting(probe.config, "num_mel_bins") == (folds[0].in_channels if folds else None)
    return is_mel and _setting(probe.config, "conv_depthwise_kernel_size") is None


def _sound_frames(probe: Probe) -> int:
    positions = _setting(probe.config, "max_source_positions")
    return 2 * positions if positions and _has_bins_first(probe) else FRAMES * probe.scale


# The side of a square of patches, for encoders that take patches; towers that merge four by four read it too.
PATCHES = 4

# What is given along with an input, where forward takes it.
COMPANIONS: dict[str, tuple[str, ...]] = {
    "input_ids": ("attention_mask", "bbox"),
    "input_features": ("input_features_mask", "feature_lens"),
    "pixel_values": ("target_sizes",),
    "states": ("actions", "rewards", "returns_to_go", "timesteps", "attention_mask"),
}

# What forward insists on though it has a default, by the type of the configuration.
ALSO_READ: dict[str, tuple[str, ...]] = {
    "idefics": ("pixel_values", "image_attention_mask"),
    "vilt": ("pixel_values",),
    "lxmert": ("visual_feats", "visual_pos"),
    # It is given what it is to predict as soon as it trains.
    "fastspeech2_conformer": ("spectrogram_labels", "duration_labels", "pitch_labels", "energy_labels"),
}


def _columns(probe: Probe, kind: str) -> int:
    """How many columns of a kind a table has."""
    return sum(column["kind"] == kind for column in getattr(probe.config, "columns", None) or ())


# Images of other sizes than the configuration says, or of which several make one row.
_IMAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "idefics": (1, 3, 64, 64),
    "lightglue": (2, 3, 32, 32),
    "pp_ocrv5_mobile_rec": (3, 48, 320),
    "inkling_vision": (2, 64, 64, 3),
}

# Encoders that want the patches of all images as one row.
_PACKED_AS_ONE_ROW = ("paddleocr_vl_vision",)

# Encoders that make patches square themselves, though their first layer folds squares.
_PACKED_FLAT = ("hunyuan_vl_vision",)

# Encoders that read the edges of boxes as parts of the page, and not as thousandths.
_FRACTIONAL_BOXES = ("udop",)

MAKERS: dict[str, Callable[[Probe], torch.Tensor]] = {
    "input_ids": _words,
    "attention_mask": _ones,
    "bbox": _boxes,
    "visual_feats": lambda probe: _wave(probe.rows, 3, _number(probe.config, "visual_feat_dim", default=2048)),
    "visual_pos": lambda probe: _wave(probe.rows, 3, 4),
    "image_attention_mask": lambda probe: torch.ones(probe.rows, probe.length, 1, dtype=torch.long),
    "spectrogram_labels": lambda probe: _wave(
        probe.rows, probe.length, _number(probe.config, "num_mel_bins", default=80)
    ),
    "duration_labels": _ones,
    "pitch_labels": lambda probe: _wave(probe.rows, probe.length, 1),
    "energy_labels": lambda probe: _wave(probe.rows, probe.length, 1),
    "states": lambda probe: _wave(probe.rows, probe.length, _number(probe.config, "state_dim", default=1)),
    "actions": lambda probe: _wave(probe.rows, probe.length, _number(probe.config, "act_dim", default=1)),
    "rewards": lambda probe: _wave(probe.rows, probe.length, 1),
    "returns_to_go": lambda probe: _wave(probe.rows, probe.length, 1),
    "timesteps": lambda probe: torch.arange(probe.length).expand(probe.rows, -1),
    "input_features_mask": lambda probe: torch.ones(probe.rows, _sound_frames(probe), dtype=torch.long),
    "feature_lens": lambda probe: torch.tensor([_sound_frames(probe)] * probe.rows),
    "target_sizes": lambda probe: torch.tensor([[PATCHES, PATCHES]] * probe.rows),
    "image_grid_thw": lambda probe: _grid(probe),
    "qformer_input_ids": _words,
    "decoder_input_ids": _words,
    "pixel_values": _images,
    "hidden_states": _packed_patches,
    "grid_thw": _grid,
    "pixel_values_videos": _videos,
    "input_values": _sound,
    "input_features": _sound_features,
    "pixel_position_ids": _patch_places,
    "pixel_attention_mask": lambda probe: torch.ones(probe.rows, PATCHES**2, dtype=torch.long),
    "spatial_shapes": lambda probe: torch.tensor([[PATCHES, PATCHES]] * probe.rows),
    "merge_sizes": lambda probe: torch.tensor([2] * probe.rows),
    "numbers": lambda probe: _wave(probe.rows, _columns(probe, "number")),
    "categories": lambda probe: torch.zeros(probe.rows, _columns(probe, "category"), dtype=torch.long),
}
