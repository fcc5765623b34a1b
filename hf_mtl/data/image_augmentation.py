"""Images of training rows, changed at random whenever they are drawn, by torchvision's transforms."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..modeling.errors import InputError, nearest

_EXAMPLE = "[{RandomCrop: {size: 36, padding: 4}}, RandomHorizontalFlip]"


class ImageAugmentation:
    """Changes images, each by random numbers of its own.

    What becomes of an image follows from the seed, the draw, the name of its source of rows and its place there alone:
    not from the batch it is in, the process that reads it or a break of the run.

    Args:
        transform: Makes another image of PIL of one, by torch's random numbers.
        seed: Of the run.
    """

    def __init__(self, transform: Callable[[Any], Any], seed: int) -> None:
        self.transform, self.seed = transform, seed

    def __call__(self, image: Any, source: str, place: int, draw: int) -> Any:
        """Return an image changed.

        Args:
            image: An image of PIL.
            source: Its source of rows.
            place: Its place there.
            draw: The number under which it is drawn; another one changes it otherwise.

        Raises:
            InputError: The transforms return something else than an image.
        """
        key = [self.seed, zlib.crc32(source.encode()), place, draw]
        generator = torch.default_generator
        state = generator.get_state()
        # The seed of the processor alone: a worker of a DataLoader must not touch an accelerator.
        generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
        try:
            changed = self.transform(image)
        finally:
            generator.set_state(state)
        if type(changed).__module__.partition(".")[0] != "PIL":
            raise InputError(
                f"image_augmentation makes a {type(changed).__name__} of an image; expected an image, which the "
                "encoder's processor makes a tensor: leave out ToImage, ToDtype and Normalize."
            )
        return changed


def read_transforms(given: Any) -> list[Any] | None:
    """Return transforms as a list of names and of mappings of one name to its arguments.

    Args:
        given: These, or their JSON.

    Raises:
        InputError: Something else.
    """
    if given is None:
        return None
    try:
        listed = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError as error:
        raise InputError(f"image_augmentation={given!r} is no valid JSON: {error}") from error
    if not isinstance(listed, list | tuple) or not all(_is_transform(one) for one in listed):
        raise InputError(
            f"image_augmentation={given!r}; expected a list of transforms of torchvision.transforms.v2, each its name "
            f"or a mapping of its name to its arguments: {_EXAMPLE}."
        )
    return list(listed) or None


def transform_of(listed: Sequence[Any]) -> Callable[[Any], Any]:
    """Return what torchvision's transforms of these names do, one after the other.

    Args:
        listed: As `read_transforms` returns them.

    Raises:
        InputError: torchvision is not installed, there is no such transform, or it takes other arguments.
    """
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise InputError(
            "image_augmentation is done by torchvision, which is not installed; type: pip install torchvision"
        ) from error
    return v2.Compose([_built(one, v2) for one in listed])


def _is_transform(given: Any) -> bool:
    if isinstance(given, Mapping) and len(given) == 1:
        name, arguments = next(iter(given.items()))
        return isinstance(name, str) and (arguments is None or isinstance(arguments, Mapping))
    return isinstance(given, str)


def _built(given: Any, v2: Any) -> Any:
    name, arguments = (given, None) if isinstance(given, str) else next(iter(given.items()))
    kind = getattr(v2, name, None)
    if not isinstance(kind, type) or not issubclass(kind, v2.Transform) or kind is v2.Lambda:
        names = [one for one in dir(v2) if isinstance(getattr(v2, one), type)]
        raise InputError(f"image_augmentation names {name!r}, no transform of torchvision.{nearest(name, names)}")
    values = {key: _value(key, value, v2) for key, value in (arguments or {}).items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"image_augmentation: {name} of {dict(arguments or {})!r}: {error}.") from error


def _value(key: str, value: Any, v2: Any) -> Any:
    """An argument as torchvision takes it: transforms inside of others, and a way to interpolate by its name."""
    if key == "transforms":
        return [_built(one, v2) for one in read_transforms(value) or ()]
    return v2.InterpolationMode(value) if key == "interpolation" and isinstance(value, str) else value
