"""Mistakes in the formulas of S4, a task encoder and attention of tasks; see test_mutations.py."""

from typing import Any

from hf_mtl.modeling import attention_scorers as scorers
from hf_mtl.modeling import encoder_conditioning as conditioning
from hf_mtl.modeling import encoder_conditioning_layers as layered
from hf_mtl.modeling import encoder_layers as hooks
from hf_mtl.modeling import encoder_reader as reader
from hf_mtl.modeling import (
    interaction,
)
from hf_mtl.modeling import interaction_base as base
from hf_mtl.modeling import multitask_module as module
from hf_mtl.modeling import step_loss as step_losses
from tests.modeling import test_conditioning as conditionings
from tests.modeling import test_encoder_layers as layer_tests
from tests.modeling import test_equivalence as equivalence
from tests.modeling import test_head_losses as head_losses
from tests.modeling import test_interactions as interactions
from tests.modeling import test_task_tokens as task_tokens

ATTENTION = interaction.CrossTaskAttention
SCORERS = interactions.test_scorers_are_their_formulas
OBJECTIVE = (head_losses.test_the_objective_is_the_weighted_sum_of_the_tasks_losses, "rows")
BESIDE = layer_tests.test_attention_beside_each_layer_enters_before_its_last_norm
BEHIND = layer_tests.test_an_adapter_behind_each_layer_is_made_for_its_task
IN_SCORES = layer_tests.test_blocks_are_added_to_the_scores_of_attention
SCORES = layer_tests.test_scores_of_a_layer_are_those_of_its_attention_and_a_block
BACKWARDS = layer_tests.test_attention_that_reads_backwards_goes_on_doing_so
STARTS = conditionings.test_the_start_is_hard_sharing
MULTIHEAD = (equivalence.test_interaction_equals_multihead_attention,)

MUTATIONS: list[Any] = [
    (
        "S4.1",
        module.TaskEncoder,
        "forward",
        "()",
        "().roll(1, 0)",
        conditionings.test_tasks_of_one_embedding_and_one_head_are_one,
        "modulation",
    ),
    (
        "S4.1",
        conditioning.InputAddition,
        "forward",
        "self.output(embeddings)",
        "self.output(embeddings.tanh())",
        conditionings.test_task_embeddings_are_a_dense_layer_of_a_one_hot_task,
    ),
    (
        "S4.2",
        conditioning.InputAddition,
        "forward",
        "[tasks]",
        "[tasks * 0]",
        conditionings.test_what_is_added_is_a_projection_of_the_tasks_embedding,
        "bert",
    ),
    (
        "S4.2",
        reader.EncoderReader,
        "_add",
        "output + added",
        "output - added",
        conditionings.test_what_is_added_is_a_projection_of_the_tasks_embedding,
        "albert",
    ),
    (
        "S4.2",
        reader.EncoderReader,
        "_modulate",
        "(1 + scales",
        "(scales",
        conditionings.test_the_start_is_hard_sharing,
        "modulation",
        "bert",
    ),
    (
        "S4.2",
        reader.EncoderReader,
        "_modulate",
        "+ shifts",
        "- shifts",
        conditionings.test_modulation_scales_and_shifts_norms,
        "roberta",
    ),
    (
        "S4.2",
        conditioning.Modulation,
        "forward",
        "layers in (self.scales, self.shifts)",
        "layers in (self.scales, self.scales)",
        conditionings.test_modulation_scales_and_shifts_norms,
        "t5",
    ),
    (
        "S4.2",
        reader.EncoderReader,
        "_positions",
        "torch.arange(mask.shape[1], device=mask.device)",
        "(torch.arange(mask.shape[1], device=mask.device) + 1)",
        conditionings.test_text_reads_no_task_token,
        "bert",
    ),
    (
        "S4.2",
        conditioning.TaskTokens,
        "states",
        "return pool(",
        "return 2 * pool(",
        conditionings.test_the_start_is_hard_sharing,
        "task_tokens",
        "bert",
    ),
    (
        "S4.2",
        reader.EncoderReader,
        "_with_tokens",
        "front[:count] = conditions.reads",
        "front[:count] = True",
        conditionings.test_a_task_reads_only_what_it_may,
        "task_tokens",
    ),
    (
        "S4.2",
        conditioning,
        "_ordinary_position",
        "norms[1:] <= _ORDINARY * norms.median()",
        "norms[1:] <= norms.max()",
        task_tokens.test_tasks_stay_apart_up_to_the_last_layer,
        "bert of two heavy positions",
    ),
    (
        "S4.2",
        conditioning,
        "_word_scale",
        ".square().mean().sqrt()",
        ".mean().abs()",
        task_tokens.test_tasks_stay_apart_up_to_the_last_layer,
        "roberta",
    ),
    (
        "S4.2",
        reader.EncoderReader,
        "_with_tokens",
        "self.first_position + conditions.place",
        "self.first_position",
        task_tokens.test_tasks_stay_apart_up_to_the_last_layer,
        "roberta",
    ),
    (
        "S4.2",
        conditioning.TaskTokens,
        "forward",
        "self.scale * self",
        "self",
        task_tokens.test_tokens_have_the_scale_and_place_that_are_settings,
    ),
    ("S4.2", hooks.LayerHooks, "_entered", "read + branch", "read - branch", BESIDE, "bert"),
    ("S4.2", hooks.LayerHooks, "_entered", "last[2] is not states", "True", BESIDE, "distilbert"),
    ("S4.2", hooks.LayerHooks, "_entered", "states + branch", "states - branch", BESIDE, "t5"),
    ("S4.2", layered._Branches, "branch", "mask == 0", "mask == 2", BESIDE, "electra"),
    ("S4.2", layered._Branches, "branch", "(3, self.heads, -1)", "(3, 1, -1)", BESIDE, "mpnet"),
    (
        "S4.2",
        layered.ProjectedAttentionLayers,
        "__init__",
        "std=0.0",
        "std=1.0",
        STARTS,
        "projected_attention_layers",
        "bert",
    ),
    ("S4.2", layered._Adapters, "behind", "F.gelu", "F.relu", BEHIND, "roberta"),
    ("S4.2", layered._Adapters, "behind", "F.layer_norm(states.to(down.dtype), (hidden,))", "states", BEHIND, "bert"),
    ("S4.2", layered.HyperAdapters, "forward", "self.layer_embeddings()", "0 * self.layer_embeddings()", BEHIND, "t5"),
    ("S4.2", layered.HyperAdapters, "forward", "embeddings[tasks]", "embeddings[tasks * 0]", BEHIND, "gpt2"),
    (
        "S4.2",
        layered.HyperAdapters,
        "__init__",
        "self.up = ZeroStartLinear",
        "self.up = UnitScaleLinear",
        STARTS,
        "hyper_adapters",
        "bert",
    ),
    ("S4.2", layered._Biases, "bias", "torch.where(inside, scores, 0.0)", "scores", IN_SCORES, "bert", "sdpa"),
    ("S4.2", layered._Biases, "bias", "% part.count", "% 1", IN_SCORES, "distilbert", "eager"),
    ("S4.2", layered._Biases, "bias", "gather(1, by_row)", "transpose(1, 2).gather(1, by_row)", SCORES),
    (
        "S4.2",
        layered._Biases,
        "bias",
        "(mask.cumsum(dim=1) - 1)",
        "torch.arange(mask.shape[1]).expand_as(mask)",
        layer_tests.test_the_side_of_padding_changes_nothing,
        "conditional_attention",
    ),
    (
        "S4.2",
        layered._Biases,
        "bias",
        "* scale + shift",
        "* (1 + scale) + shift",
        STARTS,
        "conditional_attention",
        "bert",
    ),
    ("S4.2", hooks.LayerHooks, "_with_bias", ".tril()", "", BACKWARDS, "conditional_attention", "gpt2", "sdpa"),
    (
        "S4.2",
        hooks.LayerHooks,
        "_with_bias",
        "return bias.masked_fill(~mask, MASKED)",
        "return bias",
        layer_tests.test_blocks_are_added_inside_the_window_of_local_attention,
    ),
    ("S4.3", base, "attention_weights", "dim=-1", "dim=-2", *MULTIHEAD),
    (
        "S4.3",
        base.TaskSoftmax,
        "bias",
        'bias.masked_fill(~reads, float("-inf"))',
        "bias",
        interactions.test_tasks_that_read_no_other_send_no_gradient,
    ),
    (
        "S4.3",
        ATTENTION,
        "forward",
        "self.scorer(pick_tasks(readable, asked_tasks), readable)",
        "self.scorer(pick_tasks(readable, asked_tasks), readable).transpose(-1, -2)",
        *MULTIHEAD,
    ),
    (
        "S4.6",
        scorers,
        "split_heads",
        "(num_heads, -1)).transpose(-2, -3)",
        "(-1, num_heads)).movedim(-1, -3)",
        SCORERS,
        "multi_head",
    ),
    (
        "S4.6",
        ATTENTION,
        "forward",
        "pick_tasks(states, asked_tasks) +",
        "2 * pick_tasks(states, asked_tasks) +",
        *MULTIHEAD,
    ),
    ("S4.6", interaction.ReadableStates, "forward", " + embeddings", "", *MULTIHEAD),
    ("S4.6", interaction.ReadableStates, "forward", "self.norm(states)", "states", *MULTIHEAD),
    ("S4.4", step_losses, "step_loss", "shares * weights", "shares", *OBJECTIVE),
    ("S4.4", step_losses, "step_loss", "row_counts /", "label_counts /", *OBJECTIVE),
]
