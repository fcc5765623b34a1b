"""Formulas that are made wrong on purpose: for each row of the sources a proof that fails under it.

A mutation replaces some text in one function. Where that text is gone, the formula was rewritten, and so must be the
mutation's row here.
"""

import inspect
import itertools
import re
import textwrap

import pytest
import torch
from transformers import AutoTokenizer

from hf_mtl import InputError, MultiTaskAttentionModel
from hf_mtl.data import masked_pieces
from hf_mtl.modeling import (
    adversary,
    aggregation,
    branch,
    gate,
    head,
    interaction,
    masked_language,
    modeling_multitask,
    pooling,
    problem_heads,
    separate_encoders,
    systems,
    task_parents,
    trace_norm,
)
from hf_mtl.modeling import attention_scorers as scorers
from hf_mtl.modeling import encoder_conditioning as conditioning
from hf_mtl.modeling import encoder_conditioning_layers as layered
from hf_mtl.modeling import encoder_conditioning_private as private
from hf_mtl.modeling import encoder_layers as hooks
from hf_mtl.modeling import encoder_reader as reader
from hf_mtl.modeling import interaction_adversary as shared_private
from hf_mtl.modeling import interaction_base as base
from hf_mtl.modeling import interaction_branches as branches
from hf_mtl.modeling import interaction_experts as experts
from hf_mtl.modeling import interaction_mran as relations
from hf_mtl.modeling import multitask_module as module
from hf_mtl.modeling import step_loss as step_losses
from hf_mtl.modeling.encoder_loading import find_encoder
from tests.conftest import ENCODER
from tests.data import test_masked_pieces as piece_masks
from tests.modeling import test_aggregation as aggregations
from tests.modeling import test_branches as branch_tests
from tests.modeling import test_conditioning as conditionings
from tests.modeling import test_encoder_layers as layer_tests
from tests.modeling import test_equivalence as equivalence
from tests.modeling import test_head_losses as head_losses
from tests.modeling import test_head_reading as readings
from tests.modeling import test_interactions as interactions
from tests.modeling import test_limit_battery as battery
from tests.modeling import test_masked_language as masked
from tests.modeling import test_mran as relations_tests
from tests.modeling import test_penalties as penalties
from tests.modeling import test_pooling as poolings
from tests.modeling import test_private_encoders as private_encoders
from tests.modeling import test_task_parents as parents
from tests.modeling import test_task_tokens as task_tokens
from tests.modeling import test_trace_norm as trace_norms
from tests.training import test_training_order as orders

pytestmark = pytest.mark.slow

QUERIES = pooling.TaskQueryPooling
ATTENTION = interaction.CrossTaskAttention
HARD_SHARING = (battery.test_the_start_is_hard_sharing_bit_for_bit, "cross_task_attention", {}, "none")
SCORERS = interactions.test_scorers_are_their_formulas
CALLED_ONCE = (conditionings.test_the_encoder_is_called_once_whatever_the_tasks, "none", 2)
SEPARATE_RUNS = (conditionings.test_separate_encoders_train_as_separate_runs, torch.optim.SGD, False)
OBJECTIVE = (head_losses.test_the_objective_is_the_weighted_sum_of_the_tasks_losses, "rows")
PLE = (interactions.test_ple_is_its_equations,)
OVER_HEADS = interactions.test_attention_over_heads_is_the_weighted_sum_of_branches
HEADS_WITH_VALUES = interactions.test_heads_with_values_are_nn_multihead_attention
BRANCH = branch_tests.test_a_branch_is_its_formula
QUERIES_FROM_TEXT = poolings.test_queries_from_the_text_are_their_formula
BESIDE = layer_tests.test_attention_beside_each_layer_enters_before_its_last_norm
BEHIND = layer_tests.test_an_adapter_behind_each_layer_is_made_for_its_task
IN_SCORES = layer_tests.test_blocks_are_added_to_the_scores_of_attention
SCORES = layer_tests.test_scores_of_a_layer_are_those_of_its_attention_and_a_block
BACKWARDS = layer_tests.test_attention_that_reads_backwards_goes_on_doing_so
STARTS = conditionings.test_the_start_is_hard_sharing
MULTIHEAD = (equivalence.test_interaction_equals_multihead_attention,)


def masked_shares() -> None:
    """S1.8: shares of masked pieces."""
    piece_masks.test_of_the_pieces_that_are_to_be_told_80_10_10_are_masked_others_and_kept(
        AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    )


# Row, where (class or module, function), what stands there, what it becomes, the test and its arguments.
MUTATIONS = [
    (
        "S0.1",
        MultiTaskAttentionModel,
        "forward",
        "tokens = self",
        "self.read_encoder(Carried(self.encoder), inputs, conditions); tokens = self",
        *CALLED_ONCE,
    ),
    (
        "S0.2",
        base.TaskSoftmax,
        "bias",
        " + others.log()",
        "",
        equivalence.test_a_task_gives_itself_the_prior_share_at_equal_scores,
        5,
    ),
    (
        "S0.2",
        base.TaskSoftmax,
        "__init__",
        "math.log(prior / (1 - prior))",
        "math.log(prior)",
        interactions.test_the_prior_gives_a_task_most_of_its_own_branch,
    ),
    ("S0.6", scorers.AdditiveScorer, "forward", ".tanh()", "", SCORERS, "additive"),
    (
        "S0.10",
        base.ScaledInteraction,
        "entered",
        ".tanh()",
        "",
        interactions.test_a_scale_that_is_open_gives_the_mixture_alone,
    ),
    (
        "S0.10",
        base.ScaledInteraction,
        "entered",
        "states + self",
        "2 * states + self",
        battery.test_the_start_is_hard_sharing_bit_for_bit,
        "mmoe",
        {},
        "none",
    ),
    (
        "S0.13",
        interaction.InducedAttention,
        "forward",
        "attention_weights(self.task_scorer(pick_tasks(readable, asked_tasks), summaries))",
        "self.task_scorer(pick_tasks(readable, asked_tasks), summaries).softmax(dim=-2)",
        interactions.test_inducing_points_are_two_attentions,
    ),
    (
        "S0.13",
        base.TaskSoftmax,
        "forward",
        "scores < least",
        "scores > least",
        interactions.test_the_highest_scores_alone_are_read,
    ),
    (
        "S0.13",
        interaction.ReadableStates,
        "forward",
        " + embeddings",
        "",
        interactions.test_narrow_attention_is_attention_on_what_is_projected,
    ),
    (
        "S0.14",
        pooling.LayerMixPooling,
        "shares",
        "logits + last",
        "logits",
        poolings.test_a_task_that_reads_one_layer_reads_its_mean,
    ),
    (
        "S0.14",
        pooling.TaskLayerPooling,
        "__init__",
        "given.get(name, depth) - 1",
        "depth - given.get(name, depth)",
        poolings.test_a_task_reads_the_layer_it_chooses,
    ),
    (
        "S0.19",
        base.TaskSoftmax,
        "bias",
        "if self.training and",
        "if",
        battery.test_a_task_that_prefers_itself_reads_itself_alone,
        "cross_task_attention",
    ),
    (
        "S0.19",
        base.TaskSoftmax,
        "bias",
        "kept | torch.eye",
        "kept & torch.eye",
        battery.test_a_task_that_prefers_itself_reads_itself_alone,
        "attention_over_heads",
    ),
    (
        "S0.19",
        ATTENTION,
        "forward",
        "self.dropout, self.training",
        "self.dropout, True",
        interactions.test_dropped_attention_leaves_a_task_its_state,
    ),
    (
        "S1.1",
        QUERIES,
        "__init__",
        "1.0 if self.scorer.starts_at_zero else 0.0",
        "1.0",
        poolings.test_task_queries_start_as_mean_pooling,
        "general",
        "task_queries",
    ),
    (
        "S1.2",
        QUERIES,
        "_weights",
        ".masked_fill(~mask, torch.finfo(scores.dtype).min)",
        "",
        poolings.test_token_attention_is_its_formula,
        "general",
    ),
    (
        "S1.3",
        QUERIES,
        "_weights",
        ".softmax(dim=-1)",
        ".softmax(dim=-2)",
        poolings.test_token_attention_is_its_formula,
        "general",
    ),
    (
        "S1.3",
        QUERIES,
        "forward",
        "split_heads(tokens.states, self.scorer.num_heads)",
        "split_heads(tokens.states, self.scorer.num_heads).flip(-3)",
        poolings.test_several_heads_are_nn_multihead_attention,
    ),
    (
        "S1.4",
        QUERIES,
        "_word_scores",
        "@ words)",
        "@ words).abs()",
        poolings.test_token_attention_is_its_formula,
        "general",
    ),
    ("S1.7", QUERIES, "_weights", "(1 - self.floor) * weights", "weights", poolings.test_a_floor_of_1_is_mean_pooling),
    (
        "S1.7",
        QUERIES,
        "_weights",
        "self.floor * mask / mask.sum(dim=-1, keepdim=True).clamp(min=1)",
        "self.floor / mask.shape[-1]",
        poolings.test_a_floor_of_1_is_mean_pooling,
    ),
    (
        "S1.7",
        QUERIES,
        "penalties",
        "return self.entropy * ",
        "return -self.entropy * ",
        penalties.test_a_heavy_weight_on_entropy_makes_attention_even,
    ),
    (
        "S1.7",
        QUERIES,
        "forward",
        "self.dropout, self.training",
        "0.0, self.training",
        poolings.test_dropped_attention_reads_nothing,
    ),
    (
        "S2.2",
        module.MultiTaskModule,
        "forward",
        "gates * (mixed - task_states)",
        "gates * mixed",
        interactions.test_hard_sharing_is_an_encoder_and_linear_heads,
    ),
    (
        "S2.3",
        separate_encoders.SeparateEncoders,
        "__init__",
        "copy.deepcopy(encoder)",
        "encoder",
        conditionings.test_separate_encoders_share_nothing,
    ),
    (
        "S2.3",
        separate_encoders.SeparateReader,
        "forward",
        "inputs.tasks == task",
        "inputs.tasks == 1 - task",
        *SEPARATE_RUNS,
    ),
    (
        "S2.3",
        separate_encoders.SeparateReader,
        "forward",
        "[order]",
        "",
        conditionings.test_a_row_of_several_tasks_is_a_row_of_each,
        "separate_encoders",
        "none",
    ),
    (
        "S2.4",
        experts.ExpertLayer,
        "weights",
        'attention_weights(torch.einsum("btd,ted->bte", tasks, self.gates()))',
        'torch.einsum("btd,ted->bte", tasks, self.gates()).softmax(dim=1)',
        battery.test_the_gate_of_mmoe_is_attention_with_parameters_as_keys,
    ),
    (
        "S2.4",
        experts.ExpertLayer,
        "weights",
        "self.gates(shared)",
        "self.gates(2 * shared)",
        interactions.test_one_gate_is_many_gates_that_are_alike,
    ),
    (
        "S2.4",
        experts.ExpertInteraction,
        "_through",
        "self.norm(states)",
        "states",
        interactions.test_one_expert_needs_no_gate,
    ),
    (
        "S2.4",
        experts.ExpertLayer,
        "_shared_output",
        'return torch.einsum("be,bed->bd"',
        'return shared; torch.einsum("be,bed->bd"',
        *PLE,
    ),
    (
        "S2.4",
        experts.ExpertLayer,
        "_shared_output",
        "attention_weights(torch.cat([of_own, self.shared_gate(shared)], dim=1))",
        "torch.cat([of_own.softmax(1), self.shared_gate(shared).softmax(1)], dim=1)",
        *PLE,
    ),
    ("S2.4", experts.TaskExperts, "forward", " + biases)", ")", *PLE),
    ("S2.4", experts.TaskExperts, "forward", "return outputs + ", "return outputs; ", *PLE),
    ("S2.4", experts.ExpertLayer, "forward", "self.shared(shared)  #", "self.shared(tasks[:, 0])  #", *PLE),
    (
        "S2.4",
        branches.CrossStitch,
        "mix",
        "self.alphas()",
        "self.alphas().T",
        battery.test_cross_stitch_is_attention_whose_logits_are_log_alpha,
    ),
    (
        "S2.4",
        branches.CrossStitch,
        "mix",
        "@ states",
        "@ states + states",
        interactions.test_cross_stitch_with_ones_on_the_diagonal_leaves_tasks_apart,
    ),
    ("S2.5", adversary._Reverse, "backward", "-ctx", "ctx", penalties.test_gradients_are_reversed_and_states_are_not),
    (
        "S2.5",
        adversary._Reverse,
        "forward",
        "states.view_as(states)",
        "-states",
        penalties.test_gradients_are_reversed_and_states_are_not,
    ),
    (
        "S2.5",
        adversary.GradientReversal,
        "strength",
        "-10 *",
        "-5 *",
        penalties.test_gradients_are_reversed_and_states_are_not,
    ),
    (
        "S2.5",
        adversary.DomainDiscriminator,
        "forward",
        "log_softmax(dim=-1)",
        "log_softmax(dim=0)",
        penalties.test_what_says_nothing_of_the_task_costs_log_t,
    ),
    (
        "S2.5",
        shared_private.SharedPrivate,
        "penalties",
        "self.discriminator(self.reversal(shared[:, 0]))",
        "self.discriminator(shared[:, 0])",
        penalties.test_the_adversary_works_against_the_shared_extractor_alone,
    ),
    (
        "S2.5",
        shared_private.SharedPrivate,
        "penalties",
        "overlap = ",
        "overlap = 1 - ",
        penalties.test_states_that_are_orthogonal_cost_nothing,
    ),
    (
        "S2.5",
        shared_private.SharedPrivate,
        "penalties",
        "self.adversarial * unknown",
        "(self.adversarial + 0.1) * unknown",
        penalties.test_without_weights_the_loss_is_the_tasks_alone,
    ),
    (
        "S2.8",
        branches.HeadGroups,
        "mixed",
        "self.output())",
        "self.output().mean(0, keepdim=True).expand(7, -1, -1))",
        interactions.test_a_group_of_heads_hears_nothing_of_another_tasks_loss,
    ),
    (
        "S2.8",
        branches.HeadGroups,
        "_weights",
        "queries * queries.shape[-1] ** -0.5",
        "queries",
        interactions.test_groups_that_are_alike_are_ordinary_attention,
    ),
    (
        "S2.8",
        branches.HeadGroups,
        "mixed",
        '>btsh", readable',
        '>btsh", states',
        interactions.test_groups_that_are_alike_are_ordinary_attention,
    ),
    (
        "S2.9",
        aggregation.MeanAggregation,
        "forward",
        " / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)",
        "",
        aggregations.test_equal_weights_are_the_mean_and_others_stay,
    ),
    (
        "S2.9",
        aggregation.MeanAggregation,
        "forward",
        'self.counted.to(logits)[entries["tasks"]] * weights',
        "weights",
        aggregations.test_the_mean_is_its_formula,
        "logits",
    ),
    (
        "S2.9",
        problem_heads.SingleLabelHead,
        "merge_probabilities",
        "logits.softmax(dim=-1)",
        "logits.softmax(dim=1)",
        aggregations.test_the_mean_is_its_formula,
        "probabilities",
    ),
    (
        "S2.9",
        problem_heads.MultiLabelHead,
        "merge_probabilities",
        "- no.clamp",
        "+ no.clamp",
        aggregations.test_the_mean_is_its_formula,
        "probabilities",
    ),
    (
        "S2.9",
        aggregation.MeanAggregation,
        "weights",
        "[partners]",
        "[partners].square()",
        aggregations.test_the_mean_is_its_formula,
        "logits",
    ),
    (
        "S2.10",
        aggregation.LearnedAggregation,
        "weights",
        "scores.sigmoid()",
        "scores.exp()",
        aggregations.test_learned_weights_are_their_formula,
    ),
    (
        "S2.10",
        aggregation.LearnedAggregation,
        "blended",
        ".tanh()",
        "",
        aggregations.test_a_scale_between_is_on_the_way,
    ),
    (
        "S2.10",
        aggregation.LearnedAggregation,
        "blended",
        "merged - logits",
        "merged",
        aggregations.test_learned_weights_are_their_formula,
    ),
    (
        "S2.10",
        gate.AdditiveScore,
        "forward",
        "(self.task(embeddings).tanh())",
        "(self.task(embeddings))",
        interactions.test_the_gate_is_its_formula,
    ),
    (
        "S2.10",
        gate.InformationGate,
        "forward",
        ".sigmoid()",
        ".tanh()",
        interactions.test_the_gate_is_its_formula,
    ),
    ("S2.10", gate.AdditiveScore, "forward", ").tanh())", "))", interactions.test_the_gate_is_its_formula),
    (
        "S2.11",
        module.MultiTaskModule,
        "forward",
        "task_states + gates * (mixed - task_states)",
        "mixed + gates * (task_states - mixed)",
        interactions.test_a_gate_lets_everything_or_nothing_pass,
    ),
    (
        "S2.12",
        private.PrivateNetworks,
        "states",
        "(private + shared) / 2 +",
        "private +",
        private_encoders.test_a_tasks_state_is_its_formula,
    ),
    (
        "S2.12",
        private.PrivateNetworks,
        "states",
        "(private - shared).squeeze",
        "private.squeeze",
        private_encoders.test_a_linear_head_has_any_weights_for_either_half,
    ),
    (
        "S2.12",
        private.PrivateNetworks,
        "penalties",
        "self.discriminator(self.reversal(_shared_mean(tokens)))",
        "self.discriminator(_shared_mean(tokens))",
        private_encoders.test_the_adversary_works_against_the_shared_encoder_alone,
    ),
    (
        "S2.12",
        private,
        "_shared_mean",
        "_, shared = tokens.views",
        "shared, _ = tokens.views",
        private_encoders.test_the_adversary_works_against_the_shared_encoder_alone,
    ),
    (
        "S2.12",
        private.PrivateNetworks,
        "penalties",
        ".square()",
        ".abs()",
        private_encoders.test_the_loss_is_its_formula,
    ),
    (
        "S2.12",
        private.PrivateNetworks,
        "penalties",
        "self.orthogonality * overlap",
        "self.orthogonality * (1 - overlap)",
        private_encoders.test_overlap_drives_both_encoders_apart,
    ),
    (
        "S2.12",
        separate_encoders.PrivateReader,
        "forward",
        "states=_mean(private.states, shared.states)",
        "states=private.states",
        private_encoders.test_token_states_are_the_mean_of_both_encoders,
    ),
    (
        "S2.12",
        separate_encoders.PrivateReader,
        "forward",
        "states=once.states.repeat_interleave(count, dim=0)",
        "states=once.states.repeat(count, 1, 1)",
        private_encoders.test_a_tasks_state_is_its_formula,
    ),
    ("S2.12", systems, "SYSTEMS", "task_queries", "mean", interactions.test_systems_of_the_sources_are_their_parts),
    (
        "S2.13",
        ATTENTION,
        "forward",
        "pick_tasks(states, asked_tasks) + self.output(",
        "pick_tasks(states, asked_tasks) + 0.1 * merge_heads(mixed) + self.output(",
        *HARD_SHARING,
    ),
    ("S3.1", scorers.DotProductScorer, "forward", " * queries.shape[-1] ** -0.5", "", SCORERS, "dot_product"),
    ("S3.2", scorers.GeneralScorer, "forward", "self.key(keys)", "(keys @ self.key.weight)", SCORERS, "general"),
    (
        "S3.2",
        scorers.GeneralScorer,
        "forward",
        "queries.shape[-1] ** -0.5",
        "1.0",
        interactions.test_a_scorer_that_is_the_identity_is_the_dot_product,
    ),
    ("S3.3", scorers.AdditiveScorer, "forward", "+ self.key", "- self.key", SCORERS, "additive"),
    ("S3.4", scorers.MultiHeadScorer, "forward", " * queries.shape[-1] ** -0.5", "", SCORERS, "multi_head"),
    (
        "S3.11",
        base,
        "relation_penalty",
        ".square()",
        ".abs()",
        penalties.test_attention_scores_are_penalised_by_their_squares,
    ),
    (
        "S3.11",
        ATTENTION,
        "penalties",
        "return self.penalty *",
        "return -self.penalty *",
        penalties.test_a_heavy_penalty_on_scores_makes_attention_even,
    ),
    (
        "S3.13",
        base.TaskSoftmax,
        "bias",
        "bias + self.affinities",
        "bias - self.affinities",
        battery.test_cross_stitch_is_attention_whose_logits_are_log_alpha,
    ),
    (
        "S3.14",
        experts.ExpertInteraction,
        "_through",
        ".mean(dim=1)",
        ".sum(dim=1)",
        battery.test_the_gate_of_mmoe_is_attention_with_parameters_as_keys,
    ),
    (
        "S3.15",
        base.TaskSigns,
        "forward",
        ".tanh()",
        ".sigmoid()",
        interactions.test_signed_weights_oppose_tasks_that_point_apart,
    ),
    (
        "S3.15",
        base.TaskSigns,
        "forward",
        "signs.abs().sum",
        "signs.sum",
        interactions.test_signed_weights_oppose_tasks_that_point_apart,
    ),
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
    (
        "S0.4",
        modeling_multitask,
        "batch_losses",
        " / label_counts.clamp(min=1)",
        "",
        head_losses.test_a_tasks_loss_is_the_mean_over_its_labels,
    ),
    ("S4.4", step_losses, "step_loss", "shares * weights", "shares", *OBJECTIVE),
    ("S4.4", step_losses, "step_loss", "row_counts /", "label_counts /", *OBJECTIVE),
    (
        "S3.12",
        problem_heads.RegressionHead,
        "loss_sums",
        ".square()",
        ".abs()",
        head_losses.test_regression_is_the_squared_error_of_standardised_labels,
    ),
    (
        "S0.9",
        base.TaskInteraction,
        "apart",
        "pick_tasks(states,",
        "pick_tasks(states + states.mean(dim=1, keepdim=True),",
        orders.test_tasks_are_apart_and_then_only_their_mixture_trains,
        "cross_task_attention",
    ),
    (
        "S2.4",
        experts.ExpertLayer,
        "weights",
        "self.gates()",
        "self.gates().flip(1)",
        PLE[0],
    ),
    ("S0.2", scorers.WeighedValues, "forward", "self.value(states)", "states", OVER_HEADS, "multi_head"),
    ("S0.2", scorers.WeighedValues, "forward", "self.output(merge_heads(", "(merge_heads(", HEADS_WITH_VALUES),
    ("S0.2", scorers, "merge_heads", ".transpose(-2, -3)", ".transpose(-2, -3).flip(-2)", HEADS_WITH_VALUES),
    (
        "S0.3",
        branches.AttentionOverHeads,
        "mix",
        "embeddings), branches)",
        "embeddings).transpose(-1, -2), branches)",
        OVER_HEADS,
        "general",
    ),
    (
        "S0.3",
        branches.AttentionOverHeads,
        "mix",
        "embeddings), branches)",
        "embeddings).mean(dim=2, keepdim=True).expand(-1, -1, 7, -1), branches)",
        interactions.test_a_task_hears_of_a_branch_by_its_weight,
    ),
    (
        "S0.3",
        branches.AttentionOverHeads,
        "leave_out",
        "one and not two",
        "one",
        aggregations.test_states_are_summed_where_label_spaces_differ_and_outputs_where_they_agree,
    ),
    (
        "S0.3",
        aggregation.AttentionAggregation,
        "weights",
        "weights[rows, tasks, partners]",
        "weights[rows, partners, tasks]",
        aggregations.test_attention_over_outputs_is_its_formula,
        "general",
    ),
    (
        "S0.3",
        aggregation.AttentionAggregation,
        "weights",
        "scores).mean(dim=1)",
        "scores).amax(dim=1)",
        aggregations.test_attention_over_outputs_is_its_formula,
        "multi_head",
    ),
    (
        "S0.7",
        head.BranchReading,
        "forward",
        "states + self",
        "self",
        readings.test_the_start_is_linear_heads_bit_for_bit,
        "mlp",
    ),
    ("S0.7", branch.LinearBranch, "forward", ",{row}thd->bth", ",{row}tdh->bth", BRANCH, "linear"),
    ("S0.7", branch.TaskExperts, "forward", "F.gelu", "F.relu", BRANCH, "layer"),
    ("S0.7", branch.ConvolutionBranch, "summaries", "states * kept", "states", BRANCH, "convolution"),
    ("S0.7", branch.ConvolutionBranch, "summaries", ".amax(dim=-1)", ".median(dim=-1).values", BRANCH, "convolution"),
    (
        "S0.7",
        branch.RecurrentBranch,
        "summaries",
        "self.backwards(states.flip(2), mask.flip(2))",
        "self.backwards(states, mask)",
        BRANCH,
        "recurrent",
    ),
    ("S0.7", branch.TaskRecurrence, "forward", "(reset_x + reset_h).sigmoid() * new_h", "new_h", BRANCH, "recurrent"),
    (
        "S0.7",
        branch.TaskRecurrence,
        "forward",
        "update * (state - new)",
        "update * (new - state)",
        BRANCH,
        "recurrent",
    ),
    (
        "S0.9",
        branches.AttentionOverHeads,
        "mixing_parameters",
        "*self.scorer",
        "*self.branch.parameters(), *self.scorer",
        orders.test_tasks_apart_train_their_branches,
    ),
    (
        "S1.2",
        pooling.DynamicQueryPooling,
        "query_states",
        "super().query_states(tokens, asked_tasks) +",
        "",
        QUERIES_FROM_TEXT,
        "general",
    ),
    (
        "S1.2",
        pooling.DynamicQueryPooling,
        "query_states",
        "weights @ tokens.states",
        "weights.softmax(dim=1) @ tokens.states",
        QUERIES_FROM_TEXT,
        "general",
    ),
    ("S1.3", pooling.DynamicQueryPooling, "query_states", "~mask", "mask", QUERIES_FROM_TEXT, "multi_head"),
    (
        "S2.10",
        gate.ScalarGate,
        "forward",
        ".sum(dim=-1, keepdim=True)",
        ".mean(dim=-1, keepdim=True)",
        interactions.test_the_scalar_gate_is_its_formula,
    ),
    (
        "S2.10",
        gate.ScalarGate,
        "forward",
        "self.task(embeddings).tanh()",
        "self.task(embeddings)",
        interactions.test_the_scalar_gate_is_its_formula,
    ),
    (
        "S2.13",
        branches.ResidualStreams,
        "mixed",
        "return states +",
        "return",
        interactions.test_residual_streams_are_their_formula,
    ),
    (
        "S2.13",
        branches.ResidualStreams,
        "mixed",
        "inner + self.shares.to(sent.dtype) @ sent",
        "inner + sent",
        interactions.test_residual_streams_are_their_formula,
    ),
    (
        "S2.13",
        branches.ResidualStreams,
        "__init__",
        " and other != task",
        "",
        interactions.test_residual_streams_are_their_formula,
    ),
    (
        "S3.4",
        relations._TaskTask,
        "forward",
        "states + self.values",
        "states + 0.5 * self.values",
        relations_tests.test_tasks_read_each_other,
        "multi_head",
    ),
    (
        "S3.5",
        relations._Relation,
        "weights_of",
        ".sum(dim=-2)",
        ".sum(dim=-1)",
        relations_tests.test_the_published_form_of_one_head_rescales,
        "general",
    ),
    (
        "S3.6",
        relations._Relation,
        "weights_of",
        "if not self.rescales",
        "if True",
        relations_tests.test_the_published_form_mixes_no_tasks_and_a_layer_norm_undoes_it,
    ),
    (
        "S3.6",
        relations._Relation,
        "weights_of",
        "attention_weights(scores)",
        "scores.softmax(dim=-2)",
        relations_tests.test_tasks_read_each_other,
        "general",
    ),
    (
        "S3.7",
        relations._TaskTask,
        "forward",
        "self.after(states + ",
        "self.after(",
        relations_tests.test_tasks_read_each_other,
        "general",
    ),
    (
        "S3.7",
        relations._RelationNorm,
        "__init__",
        "nn.BatchNorm1d(width) if",
        "nn.BatchNorm1d(width, momentum=0.0) if",
        relations_tests.test_batch_norm_is_the_papers_while_it_trains_and_apart_afterwards,
    ),
    (
        "S3.8",
        relations._FeatureFeature,
        "forward",
        "features + self.values",
        "self.values",
        relations_tests.test_features_that_all_tasks_share_read_each_other,
        "general",
    ),
    (
        "S3.8",
        relations.MultipleRelations,
        "mix",
        "states.index_select(1, self.common).mean(dim=1)",
        "states[:, 0]",
        relations_tests.test_features_that_all_tasks_share_read_each_other,
        "general",
    ),
    (
        "S3.9",
        relations._TaskFeature,
        "forward",
        "features.unsqueeze(1) + weighed",
        "weighed",
        relations_tests.test_tasks_weigh_the_features,
        "general",
    ),
    (
        "S3.9",
        relations._TaskFeature,
        "forward",
        "self.projection(tasks)",
        "self.projection(tasks.flip(1))",
        relations_tests.test_tasks_weigh_the_features,
        "multi_head",
    ),
    (
        "S3.10",
        relations._TaskPredictor,
        "forward",
        "self.first_bias()).relu()",
        "self.first_bias()).tanh()",
        relations_tests.test_tasks_read_each_other,
        "general",
    ),
    (
        "S3.10",
        relations._TaskPredictor,
        "forward",
        "self.second_bias()).relu()",
        "self.second_bias())",
        relations_tests.test_tasks_read_each_other,
        "general",
    ),
    ("S3.11", base, "relation_penalty", ".square()", ".abs()", relations_tests.test_the_objective_has_three_terms),
    (
        "S3.11",
        relations.MultipleRelations,
        "squares",
        "by_task + shared",
        "by_task",
        relations_tests.test_the_objective_has_three_terms,
    ),
    (
        "S3.16",
        relations.MultipleRelations,
        "__init__",
        'if "feature_feature" in relations',
        "if relations",
        relations_tests.test_tasks_weigh_the_features,
        "general",
    ),
    (
        "S3.18",
        trace_norm.TraceNorm,
        "forward",
        "(sizes > sizes[0] * torch.finfo(sizes.dtype).eps * len(matrix))",
        "sizes",
        trace_norms.test_the_parts_add_up_to_the_sum_of_singular_values,
    ),
    (
        "S3.18",
        trace_norm.TraceNorm,
        "forward",
        "index_add(0, head.places, part",
        "index_add(0, head.places.flip(0), part",
        trace_norms.test_a_tasks_part_has_the_norms_slope_by_its_own_head,
    ),
    (
        "S3.18",
        trace_norm.TraceNorm,
        "forward",
        "self.weight * by_task",
        "-self.weight * by_task",
        trace_norms.test_it_draws_tasks_into_few_directions,
    ),
    (
        "S0.14",
        problem_heads.SingleLabelHead,
        "answer_values",
        ".softmax(dim=-1)",
        "",
        parents.test_children_read_what_their_parents_say,
    ),
    (
        "S0.14",
        problem_heads.MultiLabelHead,
        "answer_values",
        ".sigmoid()",
        "",
        parents.test_children_read_what_their_parents_say,
    ),
    (
        "S0.14",
        task_parents._ParentAnswers,
        "forward",
        "answers.detach() if self.detaches else answers",
        "answers",
        parents.test_a_child_gives_its_parents_no_gradient_if_detached,
        "flags",
    ),
    (
        "S0.14",
        task_parents._ParentAnswers,
        "forward",
        "generation.say(carried.module, token_states, states,",
        "generation.say(carried.module, token_states, (first := locals().get('first', states)),",
        parents.test_a_task_hears_of_its_ancestors_alone,
    ),
    (
        "S0.14",
        task_parents._Generation,
        "say",
        "rows * copies + (tasks if copies > 1 else 0)",
        "rows * copies",
        parents.test_parents_answer_a_row_as_it_is_encoded_for_them,
    ),
    *(
        ("S0.15", masked_language.MaskedLanguageHead, "forward", old, new, masked.test_it_is_berts_own_head, "words")
        for old, new in (
            ("F.gelu(", "F.relu("),
            ("* self.norm_scale()", "+ self.norm_scale()"),
            ("words.T", "words.T * 2"),
            ('entries["tasks"])', 'entries["tasks"].clamp(max=1) + 1)'),
        )
    ),
    (
        "S1.8",
        masked_language.MaskedLanguageHead,
        "loss_sums",
        "labels.flatten()",
        "labels.clamp(min=0).flatten()",
        masked.test_a_batch_without_masks_has_no_loss,
    ),
    *(
        ("S1.8", masked_pieces.PieceMasking, "__call__", old, new, masked_shares)
        for old, new in (("_MASKED, self", "_MASKED_OR_OTHER, self"), ("~self.is_special[ids]", "ids >= 0"))
    ),
]


def mutated(holder, name, old, new):
    """The function of a class or module with some of its text replaced."""
    function = inspect.getattr_static(holder, name)
    plain = getattr(function, "__func__", function)
    plain = inspect.unwrap(plain)
    source = textwrap.dedent(inspect.getsource(plain))
    assert old in source, f"{holder.__name__}.{name} has no {old!r}"
    # Inside a function whose argument is the class, `super()` finds it.
    lines = ["def make(__class__):", textwrap.indent(source.replace(old, new), "    "), f"    return {name}"]
    made = {}
    exec("\n".join(lines), plain.__globals__, made)
    return made["make"](holder)


def mutate(patch, holder, name, old, new):
    if not callable(inspect.getattr_static(holder, name)) and isinstance(getattr(holder, name), dict):
        table = getattr(holder, name)
        for key, system in table.items():
            changed = {setting: new if value == old else value for setting, value in system.settings.items()}
            patch.setitem(table, key, systems.System(changed, system.source, system.differs))
        return
    changed = mutated(holder, name, old, new)
    if inspect.ismodule(holder):
        plain = getattr(holder, name)
        # Wherever it was imported by its name.
        for other in (holder, base, branches, experts, interaction, relations, scorers, pooling, head_losses):
            if getattr(other, name, None) is plain:
                patch.setattr(other, name, changed)
    else:
        patch.setattr(holder, name, changed)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda row: f"{row[0]}-{row[2]}-{row[3][:24]}")
def test_a_wrong_formula_is_found(mutation, monkeypatch):
    """Each row's proof holds of the code, and not of the code with the mistake."""
    _, holder, name, old, new, test, *arguments = mutation
    test = inspect.unwrap(test)
    test(*arguments)
    mutate(monkeypatch, holder, name, old, new)
    # A model that looks at its encoder may refuse what a mistake does to it.
    with pytest.raises((AssertionError, InputError)):
        test(*arguments)


def test_every_proof_names_its_row():
    """The row's number stands in the docstring of a test that a mutation of it fails."""
    for row, own in itertools.groupby(sorted(MUTATIONS, key=lambda own: own[0]), key=lambda own: own[0]):
        said = " ".join(inspect.unwrap(mutation[5]).__doc__ or "" for mutation in own)
        assert re.search(rf"\b{re.escape(row)}\b(?!\.?\d)", said), row
