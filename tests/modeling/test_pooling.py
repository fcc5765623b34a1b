"""Poolings compute what they say, start where they say, and task queries find a planted word."""

import math

import pytest
import torch
from torch import nn

from hf_mtl import InputError
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.encoder_tensors import EncodedTokens
from tests.conftest import TASKS, VOCABULARY, build_model, encoder_inputs, randomise, unmoved_after

HIDDEN, T = 32, len(TASKS)


def encoded(seed=0, batch=4, length=6) -> EncodedTokens:
    generator = torch.Generator().manual_seed(seed)
    states, other = (torch.randn(batch, length, HIDDEN, generator=generator) for _ in range(2))
    mask = torch.tensor([[1] * (length - row) + [0] * row for row in range(batch)])
    ids = torch.randint(1, VOCABULARY, (batch, length), generator=generator)
    return EncodedTokens(states, mask, states[:, 0], ids, (other, states))


def pooling(random=True, **settings):
    model = build_model(**settings)
    return (randomise(model) if random else model).mtl.pooling


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def mean_states(tokens):
    rows = [row[: int(own.sum())].mean(dim=0) for row, own in zip(tokens.states, tokens.mask)]
    return torch.stack(rows).unsqueeze(1).expand(-1, T, -1)


@pytest.mark.parametrize("kind", ["task_queries", "dynamic_queries"])
@pytest.mark.parametrize("scorer", ATTENTION_SCORERS)
def test_task_queries_start_as_mean_pooling(scorer, kind):
    """S1.1, S1.3: q = 0 and omega = 0 give the masked mean; also with W = 0, of queries from the text."""
    tokens = encoded()
    close(pooling(False, pooling=kind, pooling_scorer=scorer, lexical_rank=4)(tokens), mean_states(tokens))


@pytest.mark.parametrize("scorer", ATTENTION_SCORERS)
def test_every_tensor_of_token_attention_wakes_up(scorer):
    assert not unmoved_after(build_model(pooling="dynamic_queries", pooling_scorer=scorer, lexical_rank=4))


@pytest.mark.parametrize("scorer", ATTENTION_SCORERS)
def test_queries_from_the_text_are_their_formula(scorer):
    """S1.2, S1.3: q_bt = q_t + W c_bt, c_bt = sum_l softmax_l(p_t . h_l / sqrt(D)) h_l, by loops; W = 0 is the static
    form.
    """
    part, tokens = pooling(pooling="dynamic_queries", pooling_scorer=scorer), encoded()
    found, queries, summaries, heads = part(tokens), part.queries(), part.summary_queries(), part.scorer.num_heads
    for row, mask in enumerate(tokens.mask):
        states = tokens.states[row, : int(mask.sum())]
        for task in range(T):
            summary = (states @ summaries[task] / HIDDEN**0.5).softmax(0) @ states
            query = queries[task] + part.of_summary.weight @ summary
            scores = part.scorer(query[None], states)[:, 0]
            parts = [scores[head].softmax(0) @ own for head, own in enumerate(states.chunk(heads, dim=1))]
            close(found[row, task], torch.cat(parts))
    static = pooling(pooling="task_queries", pooling_scorer=scorer)
    static.load_state_dict(part.state_dict(), strict=False)
    with torch.no_grad():
        part.of_summary.weight.zero_()
    close(part(tokens), static(tokens))


def test_queries_from_the_text_differ_between_texts():
    """S1.2: a task's weights of the same words follow what else the text says; static ones are the words' alone."""
    tokens = encoded()
    others = EncodedTokens(torch.cat([tokens.states[:, :2], tokens.states[:, 2:] + 1.0], dim=1), tokens.mask)
    for kind, same in (("task_queries", True), ("dynamic_queries", False)):
        part = pooling(pooling=kind, pooling_scorer="dot_product")
        odds = [(own[..., 0] / own[..., 1]).log() for own in (part.weights(tokens)[0], part.weights(others)[0])]
        assert torch.allclose(*odds, atol=1e-4) == same


@pytest.mark.parametrize("scorer", ATTENTION_SCORERS)
def test_token_attention_is_its_formula(scorer):
    """S1.1, S1.2, S1.3, S1.4, by loops over rows, tasks and heads; one token is read whole (L = 1)."""
    part, tokens = pooling(pooling_scorer=scorer, lexical_rank=4), encoded()
    found, queries, heads = part(tokens), part.queries(), part.scorer.num_heads
    for row, mask in enumerate(tokens.mask):
        states, ids = tokens.states[row, : int(mask.sum())], tokens.ids[row, : int(mask.sum())]
        for task in range(T):
            words = part.lexicon()[ids] @ part.lexical()[task]
            scores = part.scorer(queries[task : task + 1], states)[:, 0] + words  # (heads, length)
            parts = [scores[head].softmax(0) @ own for head, own in enumerate(states.chunk(heads, dim=1))]
            close(found[row, task], torch.cat(parts))
    close(
        part(EncodedTokens(tokens.states[:, :1], tokens.mask[:, :1], ids=tokens.ids[:, :1]))[:, 0], tokens.states[:, 0]
    )


def test_weights_that_are_summed_say_nothing():
    """S1.5: the sample code sums weights over the axis that they are normalised over; here they weigh states."""
    tokens, part = encoded(), pooling()
    weights = part.weights(tokens)
    close(weights.sum(dim=-1), torch.ones(4, T))
    assert (part(tokens)[0] - part(tokens)[1]).abs().max() > 0.1


def test_several_heads_are_nn_multihead_attention():
    """S1.3, LB-8: with the identity as values and output."""
    part, tokens = pooling(pooling_scorer="multi_head"), encoded()
    reference = nn.MultiheadAttention(HIDDEN, 4, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(
            torch.cat([part.scorer.query.weight, part.scorer.key.weight, torch.eye(HIDDEN)])
        )
        reference.in_proj_bias.copy_(torch.cat([part.scorer.query.bias, part.scorer.key.bias, torch.zeros(HIDDEN)]))
        reference.out_proj.weight.copy_(torch.eye(HIDDEN))
        reference.out_proj.bias.zero_()
    queries = part.queries().expand(len(tokens.states), -1, -1)
    expected, weights = reference(queries, tokens.states, tokens.states, key_padding_mask=tokens.mask == 0)
    close(part(tokens), expected)
    close(part.weights(tokens), weights)


def test_words_without_a_weight_change_nothing():
    """S1.4: u = 0."""
    tokens = encoded()
    with_words = pooling(lexical_rank=4)
    plain = pooling()
    plain.load_state_dict({name: with_words.state_dict()[name] for name in plain.state_dict()})
    assert not torch.allclose(with_words(tokens), plain(tokens), atol=1e-3)
    with torch.no_grad():
        for tensor in with_words.lexical.parameters():
            tensor.zero_()
    assert torch.equal(with_words(tokens), plain(tokens))
    with pytest.raises(InputError, match="`inputs_embeds` do not say which words"):
        with_words(tokens._replace(ids=None))


def test_a_floor_of_1_is_mean_pooling():
    """S1.7: a floor of 1 is mean pooling, and no floor lets padding in."""
    tokens = encoded()
    close(pooling(pooling_floor=1.0)(tokens), mean_states(tokens))
    half = pooling(pooling_floor=0.5).weights(tokens)
    counts = tokens.mask.sum(dim=1).view(-1, 1, 1)
    assert ((half >= 0.5 / counts - 1e-6) | (tokens.mask.unsqueeze(1) == 0)).all()
    close(half.sum(dim=-1), torch.ones(len(counts), T))
    assert not (half * (1 - tokens.mask.unsqueeze(1))).any()
    with pytest.raises(InputError, match="pooling_floor=1.5"):
        pooling(pooling_floor=1.5)


def test_a_task_that_reads_one_layer_reads_its_mean():
    """S0.14: one-hot weights are that layer; the start is the last one's nine tenths."""
    part, tokens = pooling(False, pooling="layer_mix"), encoded()
    close(part.shares(), torch.tensor([0.1, 0.9]).expand(T, -1))
    with torch.no_grad():
        for task, key in enumerate(part.layer_weights.keys):
            part.layer_weights.get_parameter(key)[task % 2] = 60.0
    found = part(tokens)
    for task in range(T):
        close(found[:, task], mean_states(tokens._replace(states=tokens.layers[task % 2]))[:, task])


def test_a_task_reads_the_layer_it_chooses():
    """S0.14: `task_layer` is the mix with one-hot weights; a task that is left out reads the last layer."""
    part, tokens = pooling(pooling="task_layer", task_layers={"mood": 1, "pick": 1}), encoded()
    mix = pooling(False, pooling="layer_mix")
    with torch.no_grad():
        for task in TASKS:
            first = task["name"] in ("mood", "pick")
            mix.layer_weights.get_parameter(f"task_{task['name']}").copy_(
                torch.tensor([80.0 * first, 80.0 * (not first)])
            )
    close(part(tokens), mix(tokens))
    close(part(tokens)[:, 1], mean_states(tokens._replace(states=tokens.layers[0]))[:, 1])
    assert torch.equal(pooling(pooling="task_layer")(tokens), pooling(pooling="mean")(tokens))
    asked_tasks = torch.tensor([[1, 0], [6, 2], [3, 3], [2, 1]])
    close(part(tokens, asked_tasks), part(tokens)[torch.arange(4).unsqueeze(1), asked_tasks])


@pytest.mark.parametrize(
    ("layers", "said"),
    [({"mod": 1}, "task in task_layers.*Did you mean 'mood'"), ({"mood": 0}, "'mood' is 0"), ({"mood": 3}, "1 to 2")],
    ids=str,
)
def test_a_layer_that_is_not_there_is_named(layers, said):
    """S0.14."""
    with pytest.raises(InputError, match=said):
        pooling(pooling="task_layer", task_layers=layers)


def test_dropped_attention_reads_nothing():
    """S1.7, S0.19: dropout on attention to tokens, while training alone."""
    tokens, part = encoded(), pooling(pooling_dropout=1.0)
    close(part(tokens), pooling()(tokens))
    assert not part.train()(tokens).any()


def test_layers_of_an_encoder_are_its_own():
    model = randomise(build_model(pooling="layer_mix"))
    seen = []
    model.mtl.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(**encoder_inputs())
    (tokens,) = seen
    plain = model.encoder(**encoder_inputs(), output_hidden_states=True)
    assert len(tokens.layers) == model.config.num_hidden_layers
    close(tokens.layers[0], plain.hidden_states[1])
    assert tokens.layers[-1] is tokens.states


def test_the_last_token_is_the_last_that_is_no_padding():
    tokens = encoded()
    found = pooling(pooling="last_token")(tokens)
    for row, mask in enumerate(tokens.mask):
        close(found[row, 0], tokens.states[row, int(mask.sum()) - 1])


@pytest.mark.parametrize("settings", [{"pooling_scorer": "general"}, {"lexical_rank": 4}], ids=str)
def test_a_planted_keyword_is_found(settings):
    """S1.4: the label is whether a word stands in the row; the task comes to look at that word.

    The encoder is frozen, and its tokens do not read each other, so that where the word is matters.
    """
    keyword, generator = 7, torch.Generator().manual_seed(0)
    model = build_model([TASKS[1]], **settings)
    embeddings = model.get_input_embeddings().weight.detach()
    head, part = model.mtl.heads["single_label_classification"], model.mtl.pooling
    optimizer = torch.optim.Adam([*head.parameters(), *part.parameters()], lr=0.02)
    for _ in range(300):
        ids = torch.randint(8, VOCABULARY, (32, 12), generator=generator)
        has, places = torch.arange(32) % 2, torch.randint(12, (32,), generator=generator)
        ids[torch.arange(32), places] = torch.where(has == 1, keyword, ids[torch.arange(32), places])
        tokens = EncodedTokens(embeddings[ids] * 20, torch.ones_like(ids), ids=ids)
        entries = {"rows": torch.arange(32), **dict.fromkeys(("tasks", "slots"), has * 0), "labels": has}
        loss = head.loss_sums(head(tokens.states, part(tokens), entries), entries).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shares = part.weights(tokens)[torch.arange(32), 0, places]
    assert loss.item() < 0.1 * math.log(2)
    assert shares[has == 1].mean() > 0.5 > 3 * shares[has == 0].mean()
