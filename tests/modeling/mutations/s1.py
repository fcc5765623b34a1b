"""Mistakes in the formulas of S1, attention to words; see test_mutations.py."""

from typing import Any

from transformers import AutoTokenizer

from hf_mtl.data import masked_pieces
from hf_mtl.modeling import (
    masked_language,
    pooling,
)
from hf_mtl.modeling.encoder_loading import find_encoder
from tests.conftest import ENCODER
from tests.data import test_masked_pieces as piece_masks
from tests.modeling import test_masked_language as masked
from tests.modeling import test_penalties as penalties
from tests.modeling import test_pooling as poolings

QUERIES = pooling.TaskQueryPooling
QUERIES_FROM_TEXT = poolings.test_queries_from_the_text_are_their_formula


def masked_shares() -> None:
    """S1.8: shares of masked pieces."""
    piece_masks.test_of_the_pieces_that_are_to_be_told_80_10_10_are_masked_others_and_kept(
        AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    )


MUTATIONS: list[Any] = [
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
