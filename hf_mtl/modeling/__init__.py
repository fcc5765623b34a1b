"""What travels with a checkpoint; importing it tells Transformers' Auto classes about the model."""

from transformers import AutoConfig, AutoModel

from .configuration_multitask import MultiTaskAttentionConfig, TaskConfig
from .errors import InputError
from .modeling_multitask import MultiTaskAttentionModel, MultiTaskOutput
from .processing_multitask import MultiTaskProcessor

AutoConfig.register(MultiTaskAttentionConfig.model_type, MultiTaskAttentionConfig, exist_ok=True)
AutoModel.register(MultiTaskAttentionConfig, MultiTaskAttentionModel, exist_ok=True)
# Saving then copies the modeling files beside the weights, for readers that do not have this package.
MultiTaskAttentionConfig.register_for_auto_class()
MultiTaskAttentionModel.register_for_auto_class("AutoModel")

__all__ = [
    "InputError",
    "MultiTaskAttentionConfig",
    "MultiTaskAttentionModel",
    "MultiTaskOutput",
    "MultiTaskProcessor",
    "TaskConfig",
]
