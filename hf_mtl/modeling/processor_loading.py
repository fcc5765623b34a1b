"""A processor read from a checkpoint and saved beside one, without the model's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_code import hub_arguments, with_encoder_code
from .encoder_limits import check_tokenizer, check_words, limits_of
from .encoder_loading import build_encoder, built_encoder
from .errors import InputError
from .feature_encoding import FeatureEncoder
from .modalities import TEXT
from .modality_reader import ModalityReader
from .random_states import kept_random_states
from .several_encoders import encoders_by_modality


class SavedProcessor(FeatureEncoder):
    """A `FeatureEncoder` that is read from a checkpoint's configuration and tokenizer, and saved beside a model."""

    # Of a processor that was read from a checkpoint, which it can be saved with.
    config: MultiTaskAttentionConfig | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        code_revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Read the processor of a checkpoint: its configuration and tokenizer, but no weights.

        Args:
            pretrained_model_name_or_path: A folder or a name on the Hub.
            subfolder: Where in it the checkpoint lies.
            revision: A branch, tag or commit of the Hub.
            token: The Hub's token.
            cache_dir: Where files of the Hub are kept.
            local_files_only: Whether the Hub is left alone.
            force_download: Whether files are fetched again.
            code_revision: As `revision`, of an encoder's own code.
            trust_remote_code: Whether an encoder's own code is run.

        Raises:
            InputError: There is no checkpoint of this model, or none with a tokenizer that fits.
        """
        name = str(pretrained_model_name_or_path)
        arguments = hub_arguments(
            {
                "subfolder": subfolder,
                "revision": revision,
                "token": token,
                "cache_dir": cache_dir and str(cache_dir),
                "local_files_only": local_files_only,
                "force_download": force_download,
                "code_revision": code_revision,
                "trust_remote_code": trust_remote_code,
            }
        )
        try:
            config = _read_config(name, arguments)
            encoders = _without_weights(config)
            readers = read_modalities(config, encoders)
            if TEXT not in encoders:
                processor = cls(None, config.task_configs, None, readers)
                processor.config = config
                return processor
            limits = limits_of(encoders[TEXT])
            tokenizer = AutoTokenizer.from_pretrained(name, config=config.encoder_config, **arguments)
        except OSError as error:
            raise InputError(f"The checkpoint {name!r} cannot be read: {str(error).splitlines()[0]}") from error
        check_words(tokenizer, name)
        check_tokenizer(limits, tokenizer, config.task_configs)
        processor = cls(tokenizer, config.task_configs, limits.positions, readers)
        processor.config = config
        return processor

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Save the tokenizer, and of a processor that was read from a checkpoint its configuration if there is none.

        Args:
            save_directory: The folder; with the model's `save_pretrained` beside it, a checkpoint.
        """
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        if self.config is not None and not (Path(save_directory) / "config.json").exists():
            self.config.save_pretrained(save_directory)


def read_modalities(
    config: MultiTaskAttentionConfig, encoders: Mapping[str, PreTrainedModel]
) -> dict[str, ModalityReader]:
    """Return what reads each modality but texts.

    Args:
        config: The model's.
        encoders: Its encoders by modality.
    """
    if list(encoders) == [TEXT]:
        return {}
    # Most models read texts alone, and load no library of anything else.
    from .modality_readers import readers_of

    return readers_of(config, encoders)


def _read_config(name: str, arguments: Mapping[str, Any]) -> MultiTaskAttentionConfig:
    source = {key: value for key, value in arguments.items() if key not in ("code_revision", "trust_remote_code")}
    model_type = PreTrainedConfig.get_config_dict(name, **source)[0].get("model_type")
    if model_type != MultiTaskAttentionConfig.model_type:
        raise InputError(
            f"{name!r} holds a model of type {model_type!r}; expected a checkpoint of "
            f"{MultiTaskAttentionConfig.model_type!r}."
        )
    encoder = with_encoder_code(name, arguments)
    given = {key: encoder[key] for key in ("encoder_config",) if key in encoder}
    return cast(MultiTaskAttentionConfig, MultiTaskAttentionConfig.from_pretrained(name, **source, **given))


def _without_weights(config: MultiTaskAttentionConfig) -> dict[str, PreTrainedModel]:
    """Return a model's encoders by modality, whose weights have whatever values."""
    with kept_random_states(torch.device("cpu")), no_init_weights():
        first = build_encoder(cast(PreTrainedConfig, config.encoder_config), False, config.tower)
        others = {row["name"]: built_encoder(row) for row in (config.modalities or [])[1:]}
        return encoders_by_modality(first) | others
