"""Keys of other programs, of earlier Transformers and of the other level of a recipe: what to write in their place."""

from collections.abc import Iterable

from ..modeling.errors import nearest

# Keys that are called otherwise here.
_RENAMED = {
    **dict.fromkeys(
        ("model", "model_name", "model_name_or_path", "pretrained_model_name_or_path", "backbone", "base_model"),
        "encoder",
    ),
    **dict.fromkeys(
        ("batch_size", "train_batch_size", "per_gpu_train_batch_size"),
        "per_device_train_batch_size",
    ),
    **dict.fromkeys(("eval_batch_size", "per_gpu_eval_batch_size"), "per_device_eval_batch_size"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "max_epochs", "train_epochs"), "num_train_epochs"),
    **dict.fromkeys(("lr", "encoder_learning_rate"), "learning_rate"),
    **dict.fromkeys(("head_learning_rate", "heads_learning_rate", "head_lr"), "parts_learning_rate"),
    **dict.fromkeys(("steps", "num_steps", "num_train_steps", "train_steps"), "max_steps"),
    **dict.fromkeys(
        ("grad_accumulation", "accumulation_steps", "accumulate_grad_batches"), "gradient_accumulation_steps"
    ),
    **dict.fromkeys(("clip_grad_norm", "gradient_clipping", "grad_clip", "gradient_clip_val"), "max_grad_norm"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "lr_scheduler_type"),
    **dict.fromkeys(("max_train_examples", "max_train_rows"), "max_train_samples"),
    **dict.fromkeys(
        ("max_val_samples", "max_validation_samples", "max_test_samples", "max_predict_samples"), "max_eval_samples"
    ),
    **dict.fromkeys(("sampling", "sampling_strategy", "sampler", "mixing"), "mixing_strategy"),
    **dict.fromkeys(("num_workers", "preprocessing_num_workers"), "dataloader_num_workers"),
    **dict.fromkeys(("no_cuda", "cpu"), "use_cpu"),
    **dict.fromkeys(("augmentation", "augmentations", "transforms", "image_transforms"), "image_augmentation"),
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "length_grouping",
    "optimizer": "optim",
    "output": "output_dir",
    "dropout": "head_dropout",
    "interaction": "task_interaction",
    "random_seed": "seed",
    "torch_dtype": "dtype",
}

_ROW_DATA = "write `data_files: {train: FILE, validation: FILE}` in the task's row under `tasks:`"
_ROW_SET = "write `dataset:` (and `subset:`) in the task's row under `tasks:`"
_ROW_COLUMNS = "write `columns: {text: COLUMN, label: COLUMN}` in the task's row under `tasks:`"
_MEDIA_COLUMNS = "write `columns: {image: COLUMN, label: COLUMN}`, or `audio:`, in the task's row under `tasks:`"
_PROCESSOR = "it is the one beside the encoder; another's values go under `processor:` in `encoder: {image: {...}}`"
_TOKENIZER = "the tokenizer is the one in the encoder's folder"
_COMMAND = "`hf-mtl train`, `hf-mtl evaluate` and `hf-mtl predict` say what is done"
_PRECISION = "write `bf16: true` or `fp16: true`"

# Keys that have another form here.
_ELSEWHERE = {
    **dict.fromkeys(("train_file", "validation_file", "test_file", "train_data", "data_files"), _ROW_DATA),
    **dict.fromkeys(("dataset", "dataset_name", "dataset_config_name", "subset", "task_name", "task"), _ROW_SET),
    **dict.fromkeys(("columns", "text_column", "text_column_name", "label_column", "label_column_name"), _ROW_COLUMNS),
    **dict.fromkeys(("image_column", "image_column_name", "audio_column", "audio_column_name"), _MEDIA_COLUMNS),
    **dict.fromkeys(("image_processor", "image_processor_name", "feature_extractor"), _PROCESSOR),
    **dict.fromkeys(("processor", "processor_name", "feature_extractor_name"), _PROCESSOR),
    **dict.fromkeys(("tokenizer", "tokenizer_name", "tokenizer_name_or_path", "config_name"), _TOKENIZER),
    **dict.fromkeys(("command", "mode"), _COMMAND),
    **dict.fromkeys(("mixed_precision", "precision"), _PRECISION),
    "max_seq_length": "write `max_length:` in each task's row under `tasks:`",
    "max_seq_len": "write `max_length:` in each task's row under `tasks:`",
    "warmup_ratio": "write `warmup_steps: 0.06`; a number below 1 is a share of the steps",
    "warmup_proportion": "write `warmup_steps: 0.06`; a number below 1 is a share of the steps",
    "overwrite_output_dir": "the same command continues a run; for another one choose another `output_dir:`",
    "logging_dir": "name the folder of tensorboard by the environment's TENSORBOARD_LOGGING_DIR",
    "cache_dir": "name the folder by the environment's HF_HOME",
    "early_stopping_patience": "write `patience:` in the task's row under `tasks:`",
    "device": "write `use_cpu: true`, or name the devices by the environment's CUDA_VISIBLE_DEVICES",
    "n_gpu": "name the devices by the environment's CUDA_VISIBLE_DEVICES",
    "task_weights": "write `weight:` in each task's row under `tasks:`",
    "loss_weights": "write `weight:` in each task's row under `tasks:`",
    "name": "write `run_name:`, or `- name:` in a row under `tasks:`",
}

# Keys of a task's row that are called otherwise here.
_RENAMED_IN_ROWS = {
    **dict.fromkeys(("dataset_name", "path", "hub"), "dataset"),
    **dict.fromkeys(("dataset_config_name", "config", "config_name"), "subset"),
    **dict.fromkeys(("type", "task_type", "task"), "problem_type"),
    **dict.fromkeys(("max_seq_length", "max_seq_len"), "max_length"),
    **dict.fromkeys(("label_names", "label_list", "classes", "class_names", "id2label"), "labels"),
    **dict.fromkeys(("loss_weight", "task_weight"), "weight"),
    **dict.fromkeys(("metric", "metric_name"), "metrics"),
    **dict.fromkeys(("files", "data"), "data_files"),
    **dict.fromkeys(("max_train_examples", "max_train_rows"), "max_train_samples"),
    **dict.fromkeys(("max_val_samples", "max_validation_samples", "max_predict_samples"), "max_eval_samples"),
    "lr": "learning_rate",
    "early_stopping_patience": "patience",
}

_ELSEWHERE_IN_ROWS = {
    **dict.fromkeys(
        ("train_file", "validation_file", "test_file"), "write `data_files: {train: FILE, validation: FILE}`"
    ),
    **dict.fromkeys(("train", "validation", "test"), "write `data_files: {train: FILE, validation: FILE}`"),
    **dict.fromkeys(("text", "text_column", "text_column_name"), "write `columns: {text: COLUMN}`"),
    **dict.fromkeys(("label", "label_column", "label_column_name"), "write `columns: {label: COLUMN}`"),
    "num_labels": "write their names, `labels: [no, yes]`",
    "num_classes": "write their names, `labels: [no, yes]`",
}


def advice_for_key(key: str, keys: Iterable[str], row_keys: Iterable[str]) -> str:
    """Return what to write for an unknown key of a recipe.

    Args:
        key: The key.
        keys: The keys of a recipe.
        row_keys: The keys of a task's row.
    """
    if key in _RENAMED:
        return f" Here it is called `{_RENAMED[key]}`."
    if key in _ELSEWHERE:
        return f" Here, {_ELSEWHERE[key]}."
    if key in row_keys:
        return f" It is a key of a task's row: write it there, under `tasks:` (or type --tasks.<name>.{key})."
    return nearest(key, keys)


def advice_for_row_key(key: str, keys: Iterable[str], row_keys: Iterable[str]) -> str:
    """Return what to write for an unknown key of a task's row; see `advice_for_key`."""
    if key in _RENAMED_IN_ROWS:
        return f" Here it is called `{_RENAMED_IN_ROWS[key]}`."
    if key in _ELSEWHERE_IN_ROWS:
        return f" Here, {_ELSEWHERE_IN_ROWS[key]}."
    if key in _RENAMED or key in keys:
        return f" Write `{_RENAMED.get(key, key)}` beside `tasks:`: it holds for the whole recipe."
    return f"{nearest(key, row_keys)} A row's keys: {', '.join(row_keys)}."
