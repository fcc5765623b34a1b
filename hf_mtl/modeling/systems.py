"""Systems of the literature as settings of the model's parts.

A system is what `MultiTaskAttentionConfig` must say for the model to be it. To add one, write its line in `SYSTEMS`;
`docs/systems.md` is made from this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN = {"pooling": "mean", "task_interaction": "none", "gate": "none"}


@dataclass(frozen=True)
class System:
    """A system.

    Args:
        settings: Of `MultiTaskAttentionConfig`.
        source: The paper, with its equations.
        differs: What is not as in the paper.
    """

    settings: Mapping[str, Any]
    source: str
    differs: str = ""


_OVER_HEADS = {**_PLAIN, "task_interaction": "attention_over_heads", "attention_scorer": "general"}
_EXPERTS = "experts read LN of the pooled state behind the encoder, and enter by a task's scale that starts at 0"

SYSTEMS: dict[str, System] = {
    "hard_sharing": System(_PLAIN, "Caruana 1997, section 2"),
    "individual": System(
        {**_PLAIN, "conditioning": "separate_encoders"}, "an encoder per task, the baseline without any sharing"
    ),
    "token_attention": System(
        {**_PLAIN, "pooling": "task_queries"},
        'Zheng, Chen and Qiu 2018, "Same Representation, Different Attentions", static task attention',
        "queries start at zero, which is mean pooling",
    ),
    "dynamic_attention": System(
        {**_PLAIN, "pooling": "dynamic_queries"},
        'Zheng, Chen and Qiu 2018, "Same Representation, Different Attentions", dynamic task attention',
        "a task sums the text up by attention, not by a recurrent network; queries start at zero (mean pooling)",
    ),
    "attention_over_heads": System(
        _OVER_HEADS,
        "y_t = C_t(sum_i a_ti H_i(z)), a_t = softmax_i(score(q_t, k_i) + B_ti): attention over the tasks' branches",
        "branches of two layers, which enter by a scale of each task's own that starts at 0",
    ),
    "attention_over_outputs": System(
        {**_OVER_HEADS, "aggregation": "attention"},
        "y_t = sum_i a_ti C_i(H_i(z)): attention over the tasks' outputs where their label spaces agree, over their "
        "branches where they do not",
        "the two attentions each sum to 1, and enter by scales of each task's own that start at 0",
    ),
    "multi_head_attention": System(
        {"pooling": "task_queries", "task_interaction": "head_groups", "gate": "none"},
        "Vaswani et al. 2017, section 3.2.2, over the axis of tasks, with a group of heads for each task",
        "a task's output matrix starts at zero",
    ),
    "gated": System(
        {**_OVER_HEADS, "gate": "information_gate"},
        "attention_over_heads behind an additive gate, o_t = g_t * r'_t + (1 - g_t) * r_t",
        "written S + G * (R - S), which is exact where R = S",
    ),
    "scalar_gated": System(
        {**_OVER_HEADS, "gate": "scalar_gate"},
        "attention_over_heads behind a gate of one number, w = sigmoid(sum tanh(U h + V tanh(W x)) + c)",
        "x is the task's embedding; U and V start at zero, c is -2 and not learned",
    ),
    "omoe": System({**_PLAIN, "task_interaction": "omoe"}, "Ma et al. 2018, equation 5", _EXPERTS),
    "mmoe": System({**_PLAIN, "task_interaction": "mmoe"}, "Ma et al. 2018, equations 6 to 8", _EXPERTS),
    "cgc": System({**_PLAIN, "task_interaction": "cgc"}, "Tang et al. 2020, equations 1 to 4", _EXPERTS),
    "ple": System({**_PLAIN, "task_interaction": "ple"}, "Tang et al. 2020, equations 5 to 7", _EXPERTS),
    "cross_stitch": System(
        {"pooling": "task_queries", "task_interaction": "cross_stitch", "gate": "none"},
        "Misra et al. 2016, equation 1",
        "behind the encoder, on one state per task, instead of in every layer; it enters by a task's scale that "
        "starts at 0",
    ),
    "residual_streams": System(
        {"pooling": "task_queries", "task_interaction": "residual_streams", "gate": "none", "interaction_layers": 2},
        "r_t' = r_t + F(r)_t: residual connections between the streams of tasks",
        "F has two layers, and its last matrix starts at zero",
    ),
    "adversarial": System(
        {"pooling": "task_queries", "task_interaction": "shared_private", "gate": "none"},
        "Liu, Qiu and Huang 2017, equations 8 to 14; Ganin et al. 2016, equations 15 and 16",
        "shared and private states are added, not put side by side; their overlap is a row's, not a batch's",
    ),
    "private_encoders_adversarial": System(
        {**_PLAIN, "pooling": "task_queries", "conditioning": "private_encoders"},
        "Liu, Qiu and Huang 2017, equations 8 to 14, with an encoder per task; Zheng, Chen and Qiu 2018, static task "
        "attention; Ganin et al. 2016, equations 15 and 16",
        "all encoders start as copies; shared and private states enter as their mean and a task's matrix of their "
        "difference, which starts at 0; the discriminator reads the mean of the shared token states; their overlap is "
        "a row's, not a batch's",
    ),
    "mran": System(
        {
            "pooling": "task_queries",
            "task_interaction": "mran",
            "gate": "none",
            "attention_scorer": "general",
            "relation_penalty": 1e-3,
            "parameter_penalty": 1e-5,
        },
        "Zhao et al. 2019 (MRAN)",
        "on task states and groups of the entries of their mean, not on columns of a whole sample with its labels; "
        "LayerNorm for batch norm; relations of tasks mix states, where the paper's one-head form only rescales them; "
        "it enters by a task's scale that starts at 0",
    ),
    "task_transformer": System(
        {"pooling": "task_queries", "task_interaction": "cross_task_attention", "gate": "none"},
        "Vaswani et al. 2017, section 3.2, over the axis of tasks",
        "its output matrix starts at zero",
    ),
    "multitask_transformer": System(
        {
            "conditioning": "input_addition",
            "pooling": "task_queries",
            "task_interaction": "cross_task_attention",
            "gate": "none",
        },
        "a task encoder, X'_l = X_l + W e_t, and attention of tasks (Vaswani et al. 2017, section 3.2) in one model",
        "W and the output matrix of the attention start at zero",
    ),
    "task_tokens": System(
        {**_PLAIN, "conditioning": "task_tokens"},
        "task embeddings as tokens of the encoder's own attention (Vaswani et al. 2017, section 3.2)",
        "text does not read the tokens, so that its states stay those of the encoder; the read-out starts at zero",
    ),
    "input_addition": System(
        {**_PLAIN, "conditioning": "input_addition"},
        "X'_l = X_l + W e_t: a task embedding added to the word embeddings",
        "W starts at zero",
    ),
    "modulated": System(
        {**_PLAIN, "conditioning": "modulation"},
        "Perez et al. 2018, equation 1 (FiLM), on the encoder's norms (conditional layer norm)",
        "scale and shift are linear in a narrow projection of the task's embedding, and start at zero",
    ),
    "projected_attention_layers": System(
        {**_PLAIN, "conditioning": "projected_attention_layers"},
        "Stickland and Murray 2019 (PALs): h' = LN(h + SA(h) + V^D g(V^E h)) in every layer",
        "64 wide with 4 heads, where theirs are 204 wide; V^D starts at zero, and nothing follows it (their code ends "
        "in a GELU); no biases, no dropout",
    ),
    "hyper_adapters": System(
        {**_PLAIN, "conditioning": "hyper_adapters"},
        "Karimi Mahabadi et al. 2021 (HyperFormer++): adapters that a network makes for each task and layer",
        "one adapter behind each layer, x + U GELU(D LN(x)), instead of two inside it; no norms are made, LN comes "
        "first and has no weights; W^U starts at zero; the encoder is trained too",
    ),
    "conditional_attention": System(
        {**_PLAIN, "conditioning": "conditional_attention"},
        "Pilault et al. 2021 (CA-MTL), conditional attention: softmax(M(e_t) + Q K^T / sqrt(d)) V",
        "conditional attention alone; M = A * gamma + beta with gamma and beta zero at the start (their code: "
        "(1 + gamma) * A + beta with A zero, gamma and beta of a block's row); any length; the encoder is trained",
    ),
    "many_tasks": System(
        {
            "pooling": "task_queries",
            "task_interaction": "induced_attention",
            "interaction_size": 64,
            "gate": "information_gate",
            "gate_size": 32,
        },
        "Lee et al. 2019, equation 9: attention of tasks through inducing points",
        "narrow: attention between tasks reads 64 entries of each; its output matrix starts at zero",
    ),
}
