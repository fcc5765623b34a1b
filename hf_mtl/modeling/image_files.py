"""Images as Pillow holds them: of files, bytes and arrays."""

import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError


def read_image(value: Any) -> Any:
    """Return an image of PIL, read to its end, upright, of 8 bits a point and channel.

    Args:
        value: An image of PIL, a file, its bytes, ``{"bytes", "path"}``, or an array (height, width[, channels]) or
            (channels, height, width) of uint8.

    Raises:
        InputError: Pillow is not installed.
        ValueError: It cannot be read, or its points have more than 16 bits.
    """
    image = _open(value)
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(str(error)) from error
    return _in_bytes(importlib.import_module("PIL.ImageOps").exif_transpose(image))


def has_several_frames(value: Any) -> bool:
    """Return whether a file holds several images, as animations do, of which the first is read."""
    with _open(value) as image:
        return getattr(image, "n_frames", 1) > 1


def _channels_last(points: np.ndarray) -> np.ndarray:
    """(height, width[, channels]) of an array that has its channels last, or first."""
    channels = (1, 3, 4)
    if points.ndim == 3 and points.shape[2] not in channels and points.shape[0] in channels:
        points = points.transpose(1, 2, 0)
    if points.dtype != np.uint8 or not (points.ndim == 2 or (points.ndim == 3 and points.shape[2] in channels)):
        raise ValueError(
            f"expected an array (height, width[, channels]) of uint8, found {points.dtype} {points.shape}"
        )
    return np.ascontiguousarray(points.squeeze(-1) if points.shape[2:] == (1,) else points)


def _in_bytes(image: Any) -> Any:
    """An image of 8 bits a point; one of 16 bits is scaled.

    Raises:
        ValueError: Its points are wider.
    """
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return image
    points = np.asarray(image)
    if image.mode == "F" or points.min() < 0 or points.max() > 65535:
        raise ValueError(f"its points have 32 bits (mode {image.mode}); expected 8 or 16: scale them")
    return importlib.import_module("PIL.Image").fromarray((points // 257).astype(np.uint8))


def _open(value: Any) -> Any:
    """A value as an image whose points need not have been read yet."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise InputError("Images are read by Pillow; type: pip install pillow") from error
    if isinstance(value, Image.Image):
        return value.copy()
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, np.ndarray):
        return Image.fromarray(_channels_last(value))
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise ValueError("addresses are not read; download it")
    try:
        if isinstance(value, bytes):
            return Image.open(io.BytesIO(value))
        if isinstance(value, str | Path):
            return Image.open(value)
    except UnidentifiedImageError as error:
        raise ValueError("it holds no image that Pillow can read") from error
    except OSError as error:
        raise ValueError(f"{error.strerror or error}") from error
    raise ValueError("expected an image, its file or its bytes")


__all__ = ["has_several_frames", "read_image"]
