"""The encoders of a model, put together, and what reads them."""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_conditioning_base import TaskConditioning
from .encoder_loading import built_encoder
from .encoder_reader import EncoderReader
from .pooling import TASK_POOLINGS
from .several_encoders import Trunks
from .trunks import TrunkReader


def encoder_and_reader(
    config: MultiTaskAttentionConfig,
    first: PreTrainedModel,
    others: Mapping[str, PreTrainedModel],
    conditioning: TaskConditioning,
) -> tuple[nn.Module, nn.Module]:
    """Return a model's encoder, or several, and what reads them.

    Args:
        config: The model's.
        first: The encoder of its `encoder_config`.
        others: Those of the other modalities, where they are loaded.
        conditioning: What tells the encoder of tasks.
    """
    layers = TASK_POOLINGS[config.pooling].reads_layers
    rows = config.modalities or []
    if len(rows) > 1:
        encoders = {rows[0]["name"]: first}
        encoders |= {row["name"]: others.get(row["name"]) or built_encoder(row) for row in rows[1:]}
        trunks = Trunks(encoders, [config.hidden_size, *(row["width"] for row in rows[1:])])
        return trunks, TrunkReader(trunks, config, [config.encoder_axis, *(row["axis"] for row in rows[1:])])
    if (several := conditioning.several_encoders) is not None:
        separate = several(first, config.task_names)
        return separate, separate.reader(layers, config.encoder_axis)
    conditioned = (conditioning.reads_embeddings or conditioning.tells_layers, conditioning.tells_layers)
    return first, EncoderReader(first, layers, *conditioned, config.encoder_axis)


__all__ = ["encoder_and_reader"]
