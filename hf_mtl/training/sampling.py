"""A run's sampler, from its arguments and task rows."""

import math
from collections.abc import Mapping
from typing import Any, cast

from datasets import IterableDataset

from ..data.batch_forms import StepShape
from ..data.features import FeatureDataset
from ..data.image_augmentation import ImageAugmentation, transform_of
from ..data.mixing import MIXING_STRATEGIES, CallableMixing, MixingOptions, MixingStrategy, SharesFunction
from ..data.sampler import MixtureBatchSampler
from ..data.streams import STREAM_STRATEGIES, StreamedMixture
from ..modeling.errors import InputError
from ..modeling.processing_multitask import MultiTaskProcessor
from ..tasks import TaskSpec, tasks_by_source
from .arguments import MultiTaskTrainingArguments


def choose_mixing(
    given: MixingStrategy | SharesFunction | None, args: MultiTaskTrainingArguments, specs: Mapping[str, TaskSpec]
) -> MixingStrategy:
    """Return the strategy that was given, or the one that `args.mixing_strategy` names.

    Sources of several tasks have the largest of their shares, and the mean of their targets.
    """
    if isinstance(given, MixingStrategy):
        return given
    if given is not None:
        return CallableMixing(given)
    targets: dict[str, Any] = args.target_scores if isinstance(args.target_scores, dict) else {}
    sources = tasks_by_source(specs.values())
    options = MixingOptions(
        temperature=args.mixing_temperature,
        power=args.mixing_power,
        cap=args.mixing_cap,
        shares={source: max(specs[name].setting("share") for name in names) for source, names in sources.items()},
        target_scores={
            source: sum(float(targets[name]) for name in names) / len(names)
            for source, names in sources.items()
            if all(name in targets for name in names)
        },
        tasks=list(sources),
    )
    return MIXING_STRATEGIES[args.mixing_strategy](options)


def image_augmentation(args: MultiTaskTrainingArguments, specs: Mapping[str, TaskSpec]) -> ImageAugmentation | None:
    """Return what changes the images of training rows.

    Raises:
        InputError: No task reads images, or torchvision does not have what is named.
    """
    if args.image_augmentation is None:
        return None
    if not any("image" in spec.input_fields for spec in specs.values()):
        raise InputError("image_augmentation is given, and no task reads an image; leave it out.")
    seed = args.data_seed if args.data_seed is not None else args.seed
    return ImageAugmentation(transform_of(cast(list[Any], args.image_augmentation)), seed)


def build_stream(
    processor: MultiTaskProcessor,
    specs: Mapping[str, TaskSpec],
    streams: Mapping[str, IterableDataset],
    mixing: MixingStrategy,
    args: MultiTaskTrainingArguments,
) -> StreamedMixture:
    """Return this process's batches of streamed data sets.

    Raises:
        InputError: Settings that need to know how many rows there are.
    """
    if isinstance(mixing, CallableMixing):
        raise InputError(
            "A function as `mixing` reads the tasks' sizes, which streams do not tell; use one of "
            f"{', '.join(STREAM_STRATEGIES)}."
        )
    if args.mixing_strategy not in STREAM_STRATEGIES:
        raise InputError(
            f"mixing_strategy={args.mixing_strategy} needs numbers of rows, which streams do not tell; use one of "
            f"{', '.join(STREAM_STRATEGIES)}."
        )
    if args.max_steps <= 0 or args.tokens_per_batch is not None:
        raise InputError(
            "Streams go with max_steps and a constant number of rows; set max_steps, not tokens_per_batch."
        )
    # The state of a stream says where to go on; nothing is to be skipped.
    args.adjust(ignore_data_skip=True)
    return StreamedMixture(
        processor,
        specs,
        streams,
        mixing,
        StepShape(args.train_batch_size, args.gradient_accumulation_steps, args.tasks_per_step),
        form=args.batch_form,
        grouped=args.length_grouping,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        process=(args.process_index, args.world_size),
        augmentation=image_augmentation(args, specs),
    )


def build_sampler(
    train: FeatureDataset, mixing: MixingStrategy, args: MultiTaskTrainingArguments
) -> MixtureBatchSampler:
    """Return the sampler of all processes' batches."""
    shape = StepShape(
        batch_rows=args.train_batch_size,
        batches=args.gradient_accumulation_steps * args.world_size,
        tasks_per_step=args.tasks_per_step,
        tokens_per_batch=args.tokens_per_batch,
    )
    return MixtureBatchSampler(
        list(train.sizes.values()),
        mixing,
        shape,
        form=args.batch_form,
        costs=train.costs if args.length_grouping else None,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        epochs=args.num_train_epochs,
        run_steps=args.max_steps if args.max_steps > 0 else None,
        at_draw=train.at_draw,
    )


def run_steps(sampler: MixtureBatchSampler | StreamedMixture, args: MultiTaskTrainingArguments) -> int:
    """Return how many steps a run takes."""
    return args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * sampler.epoch_steps)
