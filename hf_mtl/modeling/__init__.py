"""The code that travels with a checkpoint; importing it tells Transformers' Auto classes about the model."""

from transformers import AutoConfig, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_multitask import MultiTaskAttentionConfig
from .errors import InputError
from .modeling_multitask import MultiTaskAttentionModel, MultiTaskOutput
from .pipeline_multitask import MultiTaskPipeline
from .processing_multitask import MultiTaskProcessor
from .task_config import TaskConfig

AutoConfig.register(MultiTaskAttentionConfig.model_type, MultiTaskAttentionConfig, exist_ok=True)
AutoModel.register(MultiTaskAttentionConfig, MultiTaskAttentionModel, exist_ok=True)
# The first name is that of version 0.1.0.
for _name in ("multitask", "multi-task"):
    PIPELINE_REGISTRY.register_pipeline(_name, pipeline_class=MultiTaskPipeline, pt_model=AutoModel, type="text")
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
