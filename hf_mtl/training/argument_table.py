"""Every argument of Transformers' Trainer, and what becomes of it: a new one has to be classified before tests pass.

Served arguments are read by our code, or by Transformers where our code could stand in the way; a test shows an effect
of each. Refused ones would have no effect (`ignored_arguments`). The others are passed on to Transformers and
Accelerate, whose code alone reads them.
"""

import dataclasses
import inspect

from transformers import Trainer, TrainingArguments

from .ignored_arguments import IGNORED_ARGUMENTS, IGNORED_OF_TRAINER

SERVED_ARGUMENTS = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "optim_args",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "bf16",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "torch_compile",
    "torch_compile_backend",
    "neftune_noise_alpha",
    "auto_find_batch_size",
    "logging_strategy",
    "logging_steps",
    "logging_first_step",
    "include_num_input_tokens_seen",
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "eval_on_start",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "save_only_model",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "ignore_data_skip",
    "seed",
    "data_seed",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
)

PASSED_ON = (
    "output_dir",
    # Of the device and its arithmetic.
    "fp16",
    "tf32",
    "use_cpu",
    "full_determinism",
    "torch_compile_mode",
    "torch_empty_cache_steps",
    "dataloader_pin_memory",
    # Of several processes.
    "accelerator_config",
    "parallelism_config",
    "ddp_find_unused_parameters",
    "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers",
    "ddp_static_graph",
    "ddp_backend",
    "ddp_timeout",
    "fsdp",
    "fsdp_config",
    "deepspeed",
    "local_rank",
    # Of logs.
    "log_on_each_node",
    "logging_nan_inf_filter",
    "log_level",
    "log_level_replica",
    "disable_tqdm",
    "report_to",
    "run_name",
    "project",
    "trackio_space_id",
    "trackio_bucket_id",
    "trackio_static_space_id",
    "debug",
    "skip_memory_metrics",
    # Of checkpoints and the Hub.
    "save_on_each_node",
    "enable_jit_checkpoint",
    "restore_callback_states_from_checkpoint",
    "push_to_hub",
    "hub_token",
    "hub_private_repo",
    "hub_model_id",
    "hub_strategy",
    "hub_always_push",
    "hub_revision",
    # Rows keep the columns that their task names; the model is given none of the others either way.
    "remove_unused_columns",
    # Read by scripts alone.
    "do_train",
    "do_eval",
    "do_predict",
    "resume_from_checkpoint",
)

SERVED_OF_TRAINER = (
    "model",
    "args",
    "data_collator",
    "train_dataset",
    "eval_dataset",
    "processing_class",
    "model_init",
    "compute_metrics",
    "callbacks",
    "optimizers",
    "optimizer_cls_and_kwargs",
)


def unclassified_arguments() -> dict[str, set[str]]:
    """Return by kind the names that the installed Transformers takes and no table holds, and those that it lacks."""
    fields = {item.name for item in dataclasses.fields(TrainingArguments)}
    tables = {*SERVED_ARGUMENTS, *PASSED_ON, *IGNORED_ARGUMENTS}
    taken = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    of_trainer = {*SERVED_OF_TRAINER, *IGNORED_OF_TRAINER} - {"tokenizer"}
    return {
        "new arguments": fields - tables,
        "arguments that are gone": tables - fields,
        "new of the Trainer": taken - of_trainer,
        "gone of the Trainer": of_trainer - taken,
    }


__all__ = ["PASSED_ON", "SERVED_ARGUMENTS", "SERVED_OF_TRAINER", "unclassified_arguments"]
