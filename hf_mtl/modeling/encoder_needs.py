"""Checks that an encoder has what settings need: word pieces, the states of every layer, a pooler."""

from transformers import PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_conditioning import TASK_CONDITIONINGS
from .encoder_conditioning_base import TaskConditioning, cannot_be_told
from .encoder_modules import has_weights, reads_words
from .encoder_reader import Conditions, EncoderReader
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .plain_rows import WordInputs, read_inputs
from .pooling import TASK_POOLINGS
from .random_states import kept_random_states
from .task_tensors import Carried
from .trial_pass import trial_pass


def check_needs(config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> InputError | None:
    """Put what is measured of an encoder into the configuration; return what is wrong with one that cannot be read.

    Raises:
        InputError: A setting needs what the encoder does not have.
    """
    unreadable, kind = None, type(encoder).__name__
    if has_weights(encoder):
        # A checkpoint that is loaded says what is measured.
        from .encoder_measures import measure

        unreadable = measure(config, encoder)
    if not reads_words(encoder):
        several = len(config.task_names) > 1
        if several and TASK_CONDITIONINGS[config.conditioning].reads_words:
            raise cannot_be_told(encoder, config.conditioning, "it reads no word pieces")
        for task in config.task_configs:
            if task.problem.inputs != "texts":
                raise InputError(
                    f"Task {task.name!r} ({task.problem_type}) is about the words of a text, and a {kind} reads none; "
                    "take an encoder of texts, or leave the task out."
                )
        if config.lexical_rank:
            raise InputError(
                f"lexical_rank={config.lexical_rank} gives each word piece a weight, and a {kind} reads none; leave "
                "it out."
            )
    if TASK_POOLINGS[config.pooling].reads_layers and not isinstance(getattr(config, "num_hidden_layers", None), int):
        raise _needs_layers(config, kind, "its configuration does not count its layers (num_hidden_layers)")
    return unreadable


def check_parts(
    config: MultiTaskAttentionConfig, conditioning: TaskConditioning, encoder: PreTrainedModel, reader: EncoderReader
) -> None:
    """Raise `InputError` for a part that needs what an encoder does not do, as small inputs show; run where its
    weights are at hand.
    """
    if has_weights(encoder):
        with kept_random_states(encoder.device):
            conditioning.check(encoder, reader)
            _check_states(config, encoder)


def _check_states(config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
    """Raise `InputError` for a pooling that reads what an encoder does not return."""
    pooling, kind = TASK_POOLINGS[config.pooling], type(encoder).__name__
    if not (pooling.reads_layers or pooling.reads_pooler):
        return
    tokens = _small_states(config, encoder, pooling.reads_layers)
    width = config.hidden_size
    if pooling.reads_pooler and (tokens.pooled is None or tokens.pooled.shape[1:] != (width,)):
        returned = "none" if tokens.pooled is None else f"one of the shape {tuple(tokens.pooled.shape)}"
        raise InputError(
            f"pooling={config.pooling} reads the pooler's output (rows, {width}), and a {kind} returns {returned}; "
            "expected another pooling, e.g. pooling=mean."
        )
    if pooling.reads_layers:
        shapes = {tuple(layer.shape[1:]) for layer in tokens.layers if layer is not None}
        if len(tokens.layers) != config.num_hidden_layers:
            raise _needs_layers(
                config, kind, f"it returns those of {len(tokens.layers)}, and has {config.num_hidden_layers}"
            )
        if len(shapes) > 1:
            raise _needs_layers(config, kind, f"its layers' have other shapes each: {sorted(shapes)}")


def _small_states(config: MultiTaskAttentionConfig, encoder: PreTrainedModel, layers: bool) -> EncodedTokens:
    from .encoder_probe import probe_inputs

    reader = EncoderReader(encoder, layers, axis=config.encoder_axis)
    given = probe_inputs(encoder)
    words = WordInputs(*(given.pop(name, None) for name in WordInputs._fields))
    with trial_pass(encoder):
        # Its forward itself: hooks on an encoder wait for rows of its user's.
        return reader(Carried(encoder.forward), read_inputs(words, given, reader.accepted).inputs, Conditions())


def _needs_layers(config: MultiTaskAttentionConfig, kind: str, why: str) -> InputError:
    return InputError(
        f"pooling={config.pooling} reads the states of every layer of a {kind}, and {why}; expected another pooling, "
        "e.g. pooling=mean."
    )
