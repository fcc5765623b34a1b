"""Mistakes in the formulas of S0, attention over heads; see test_mutations.py."""

from typing import Any

from hf_mtl import MultiTaskAttentionModel
from hf_mtl.modeling import (
    aggregation,
    branch,
    head,
    interaction,
    masked_language,
    modeling_multitask,
    pooling,
    problem_heads,
    task_parents,
)
from hf_mtl.modeling import attention_scorers as scorers
from hf_mtl.modeling import interaction_base as base
from hf_mtl.modeling import interaction_branches as branches
from tests.modeling import test_aggregation as aggregations
from tests.modeling import test_branches as branch_tests
from tests.modeling import test_conditioning as conditionings
from tests.modeling import test_equivalence as equivalence
from tests.modeling import test_head_losses as head_losses
from tests.modeling import test_head_reading as readings
from tests.modeling import test_interactions as interactions
from tests.modeling import test_limit_battery as battery
from tests.modeling import test_masked_language as masked
from tests.modeling import test_pooling as poolings
from tests.modeling import test_task_parents as parents
from tests.training import test_training_order as orders

ATTENTION = interaction.CrossTaskAttention
SCORERS = interactions.test_scorers_are_their_formulas
CALLED_ONCE = (conditionings.test_the_encoder_is_called_once_whatever_the_tasks, "none", 2)
OVER_HEADS = interactions.test_attention_over_heads_is_the_weighted_sum_of_branches
HEADS_WITH_VALUES = interactions.test_heads_with_values_are_nn_multihead_attention
BRANCH = branch_tests.test_a_branch_is_its_formula

MUTATIONS: list[Any] = [
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
        "S0.4",
        modeling_multitask,
        "batch_losses",
        " / label_counts.clamp(min=1)",
        "",
        head_losses.test_a_tasks_loss_is_the_mean_over_its_labels,
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
        "weights[row, tasks, partners]",
        "weights[row, partners, tasks]",
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
]
