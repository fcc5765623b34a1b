"""Sounds as arrays: wav files by the standard library, all others by torchcodec where it is installed."""

import importlib.util
import io
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

# By bytes of a sample: its type, and what it is divided by.
_SAMPLES = {1: ("u1", 128.0), 2: ("<i2", 32768.0), 4: ("<i4", 2147483648.0)}

_MOST_CHANNELS = 16
# Bytes that the header of an endless file names.
_ENDLESS = 2**31 - 2**16


def read_sound(value: Any, rate: int) -> np.ndarray:
    """Return a sound as (samples,) of float32 between -1 and 1, its channels as their mean.

    Args:
        value: A file, its bytes, ``{"bytes", "path"}``, ``{"array", "sampling_rate"}``, a decoder of torchcodec, or
            samples at `rate`.
        rate: Samples per second that are wanted.

    Raises:
        ValueError: It cannot be read, holds nothing, or has another rate and torchcodec is not installed.
    """
    samples, given_rate = _samples_of(value, rate)
    if not samples.size:
        raise ValueError("it holds no samples")
    if not np.isfinite(samples).all():
        raise ValueError("one of its samples is no finite number")
    if given_rate != rate:
        raise ValueError(
            f"it has {given_rate:,} samples per second and the encoder reads {rate:,}; resample it, or type: pip "
            "install torchcodec, which does"
        )
    return samples


def _samples_of(value: Any, rate: int) -> tuple[np.ndarray, int]:
    if callable(decode := getattr(value, "get_all_samples", None)):
        # A decoder of torchcodec, as a column of datasets holds it.
        decoded = decode()
        return _mono(decoded.data.numpy()), int(decoded.sample_rate)
    if isinstance(value, Mapping) and value.get("array") is not None:
        return _mono(_scaled(np.asarray(value["array"]))), int(value.get("sampling_rate") or rate)
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, torch.Tensor):
        value = (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray):
        return _mono(_scaled(value)), rate
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise ValueError("addresses are not read; download it")
    if not isinstance(value, bytes | str | Path):
        raise ValueError("expected a sound's file, its bytes, or {'array': ..., 'sampling_rate': ...}")
    try:
        content = value if isinstance(value, bytes) else Path(value).read_bytes()
    except OSError as error:
        raise ValueError(f"{error.strerror}") from error
    try:
        samples, file_rate = _wave_samples(content)
    except (wave.Error, EOFError, ValueError) as error:
        return _decoded(content, rate, str(error) or "it ends too early"), rate
    return (samples, file_rate) if file_rate == rate or not _has_codec() else (_decoded(content, rate, ""), rate)


def _wave_samples(content: bytes) -> tuple[np.ndarray, int]:
    with wave.open(io.BytesIO(content)) as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        count = file.getnframes()
        frames = file.readframes(count)
    if width not in (*_SAMPLES, 3):
        raise ValueError(f"its samples have {8 * width} bits")
    read = len(frames) // (width * channels)
    # What is written as it comes may not know how long it will be.
    if read < count and count * width * channels < _ENDLESS:
        raise ValueError(f"it ends after {read:,} of {count:,} samples")
    if width == 3:
        # Longer by a byte below, so that their sign stays where it is.
        wide = np.zeros((len(frames) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(frames[: len(wide) * 3], dtype=np.uint8).reshape(-1, 3)
        width, frames = 4, wide.tobytes()
    kind, scale = _SAMPLES[width]
    samples = np.frombuffer(frames[: len(frames) // width * width], dtype=kind).astype(np.float32)
    samples = (samples - 128.0 if width == 1 else samples) / scale
    return samples[: len(samples) // channels * channels].reshape(-1, channels).mean(axis=1, dtype=np.float32), rate


def sound_bytes(samples: Any, rate: int) -> bytes:
    """Return a sound as a wav file of 32 bits a sample."""
    mono = _mono(_scaled(np.asarray(samples)))
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(4)
        file.setframerate(rate)
        file.writeframes((mono.astype(np.float64).clip(-1, 1) * (2**31 - 1)).astype("<i4").tobytes())
    return stream.getvalue()


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Samples as float32; whole numbers between -1 and 1."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind in "iu":
        return (samples / (float(np.iinfo(samples.dtype).max) + 1)).astype(np.float32)
    return samples.astype(np.float32)


def _mono(samples: np.ndarray) -> np.ndarray:
    """(samples,) of (samples,), of (channels, samples), or of (samples, channels).

    Raises:
        ValueError: It has another shape.
    """
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2 or min(samples.shape) > _MOST_CHANNELS or samples.shape[0] == samples.shape[1]:
        raise ValueError(f"expected samples (samples,) or (channels, samples), found an array {samples.shape}")
    return samples.mean(axis=int(np.argmin(samples.shape)), dtype=np.float32)


def _has_codec() -> bool:
    return importlib.util.find_spec("torchcodec") is not None


def _decoded(content: bytes, rate: int, why: str) -> np.ndarray:
    """The samples that torchcodec reads at a rate.

    Raises:
        ValueError: It is not installed, or cannot read it either.
    """
    try:
        from torchcodec.decoders import AudioDecoder
    except ImportError as error:
        raise ValueError(
            f"it is no wav file that can be read ({why}); for other formats type: pip install torchcodec"
        ) from error
    try:
        return AudioDecoder(content, sample_rate=rate, num_channels=1).get_all_samples().data[0].numpy()
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from error


__all__ = ["read_sound", "sound_bytes"]
