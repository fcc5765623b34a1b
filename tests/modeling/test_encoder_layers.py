"""What every layer of an encoder is told of the task, each by its formula in plain loops, in any encoder."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, BertModel, FunnelConfig

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.encoder_modules import layers_of
from tests.conftest import TASKS, encoder_config
from tests.modeling.test_conditioning import (
    BY_LAYER,
    SIZES,
    asked_batch,
    build,
    close,
    encoder_inputs,
    gradients,
    modernbert,
    random_batch,
    read_of,
    shaken,
    tokens_of,
    unconditioned,
)

# The norms that end layers; where there is none, a branch is added to what the layer returns.
LAST_NORMS = {
    "bert": "output.LayerNorm",
    "roberta": "output.LayerNorm",
    "electra": "output.LayerNorm",
    "mpnet": "output.LayerNorm",
    "deberta": "output.LayerNorm",
    "distilbert": "output_layer_norm",
    "t5": None,
    "modernbert": None,
    "gpt2": None,
    "llama": None,
}
BLOCKS = [
    (name, implementation)
    for name in LAST_NORMS
    for implementation in ("sdpa", "eager")
    # Those that refuse, those whose windows a test of their own looks at, and those with one implementation.
    if name not in ("deberta", "modernbert") and (name, implementation) != ("mpnet", "sdpa")
]
CAUSAL = ("gpt2", "llama")
SMALL = {
    "projected_attention_layers": {"conditioning_size": 8, "conditioning_heads": 2},
    "hyper_adapters": {"conditioning_size": 8, "adapter_size": 3},
    "conditional_attention": {"conditioning_size": 8, "attention_blocks": 2, "attention_block_size": 3},
}

every_layered = pytest.mark.parametrize("told", BY_LAYER)


def small(told, encoder="bert", tasks=TASKS[:3], **settings):
    return shaken(build(told, encoder, tasks, pooling="last_token", **{**SMALL[told], **settings}))


def weights(part, task):
    """A part's tensors by name, as numbers, a task's own without its name."""
    named = {name.removesuffix(f".task_{task}"): tensor for name, tensor in part.named_parameters()}
    return {name: tensor.detach().double().numpy() for name, tensor in named.items()}


def softmax(scores):
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def attention_beside(own, index, states, mask):
    """V^D g(V^E h), token by token and head by head."""
    result = torch.zeros_like(states)
    for row, (of_row, kept) in enumerate(zip(states.detach().double().numpy(), mask.tolist())):
        narrow = of_row @ own["inner"].T
        queries, keys, values = (narrow @ matrix.T for matrix in np.split(own[f"attention.{index}"], 3))
        places = [place for place, one in enumerate(kept) if one]
        for token in range(len(narrow)):
            read = []
            for head in (slice(0, 4), slice(4, 8)):
                shares = softmax([queries[token, head] @ keys[place, head] / 4**0.5 for place in places])
                read.append(sum(share * values[place, head] for share, place in zip(shares, places)))
            result[row, token] = torch.from_numpy(own["outer"] @ np.concatenate(read)).to(states.dtype)
    return result


def adapter_behind(own, embedding, index, states):
    """x + U GELU(D LN(x)), token by token, with D and U made for this task and layer."""
    pair = np.concatenate([embedding, own["layer_embeddings.vectors"][index]])
    inner = np.maximum(own["projection.weight"] @ pair + own["projection.bias"], 0.0)
    identity = own["projection_2.weight"] @ inner + own["projection_2.bias"]
    down = (own["down.weight"] @ identity).reshape(3, 32) / 32**0.5
    up = (own["up.weight"] @ identity).reshape(32, 3) / 3**0.5
    result = torch.zeros_like(states)
    for place in np.ndindex(*states.shape[:2]):
        token = states[place].detach().double().numpy()
        normed = (token - token.mean()) / (token.var() + 1e-5) ** 0.5
        narrow = [value * (1 + math.erf(value / 2**0.5)) / 2 for value in down @ normed]
        result[place] = torch.from_numpy(token + up @ np.array(narrow)).to(states.dtype)
    return result


def block_scores(own, embedding, index, mask):
    """M of each row, number by number: the blocks A_n * gamma + beta where both tokens lie in one, 0 elsewhere."""
    narrow = own["projection.weight"] @ embedding
    gamma, beta = ((own[f"{name}.{index}.weight"] @ narrow).reshape(3, 3) for name in ("scales", "shifts"))
    blocks = own[f"blocks.{index}.vectors"].reshape(2, 3, 3)
    scores = torch.zeros(mask.shape[0], 1, mask.shape[1], mask.shape[1])
    for row, kept in enumerate(mask.tolist()):
        tokens = [token for token, one in enumerate(kept) if one]
        for place, token in enumerate(tokens):
            for other_place, other in enumerate(tokens):
                if place // 3 == other_place // 3:
                    where = place // 3 % 2, place % 3, other_place % 3
                    scores[row, 0, token, other] = blocks[where] * gamma[where[1:]] + beta[where[1:]]
    return scores


def with_branches(model, path, branch):
    """Let h' = LN(... + branch(h)) in every layer of a model that knows no task."""
    for index, layer in enumerate(layers_of(model.encoder)):
        kept = {}

        def run(states, *given, plain=layer.forward, index=index, kept=kept, **named):
            kept["branch"] = branch(index, states)
            output = plain(states, *given, **named)
            if path is not None:
                return output
            if isinstance(output, tuple):
                return output[0] + kept["branch"], *output[1:]
            return output + kept["branch"]

        layer.forward = run
        if path is not None:
            norm = layer.get_submodule(path)
            norm.forward = lambda states, plain=norm.forward, kept=kept: plain(states + kept["branch"])
    return model


def with_outputs(model, change):
    """Let a layer's states become others in every layer of a model that knows no task."""
    for index, layer in enumerate(layers_of(model.encoder)):

        def run(*given, plain=layer.forward, index=index, **named):
            output = plain(*given, **named)
            if isinstance(output, tuple):
                return change(index, output[0]), *output[1:]
            return change(index, output)

        layer.forward = run
    return model


def same_logits(found, expected, task, mask, tolerance=1e-4):
    close(read_of(found[task], mask), read_of(expected[task], mask), tolerance, msg=task)


@pytest.mark.parametrize("encoder", LAST_NORMS)
def test_attention_beside_each_layer_enters_before_its_last_norm(encoder):
    """S4.2, PALs: h' = LN(h + SA(h) + V^D g(V^E h)), and SA(h) + h + V^D g(V^E h) where no norm ends a layer."""
    model, inputs = small("projected_attention_layers", encoder), encoder_inputs()
    found, mask = model(**inputs).logits, inputs["attention_mask"]
    for task in found:
        own = weights(model.mtl.conditioning, task)
        plain = with_branches(
            unconditioned(model),
            LAST_NORMS[encoder],
            lambda index, states, own=own: attention_beside(own, index, states, mask),
        )
        same_logits(found, plain(**inputs).logits, task, mask)


@pytest.mark.parametrize("encoder", LAST_NORMS)
def test_an_adapter_behind_each_layer_is_made_for_its_task(encoder):
    """S4.2, hyper-adapters: x + U GELU(D LN(x)) with (U, D) = h(e_t, e_layer)."""
    model, inputs = small("hyper_adapters", encoder), encoder_inputs()
    found, mask = model(**inputs).logits, inputs["attention_mask"]
    for task, embedding in zip(found, model.mtl.task_encoder().detach().double().numpy()):
        own = weights(model.mtl.conditioning, task)
        plain = with_outputs(
            unconditioned(model),
            lambda index, states, own=own, embedding=embedding: adapter_behind(own, embedding, index, states),
        )
        same_logits(found, plain(**inputs).logits, task, mask)


@pytest.mark.parametrize(("encoder", "implementation"), BLOCKS)
def test_blocks_are_added_to_the_scores_of_attention(encoder, implementation):
    """S4.2, conditional attention: softmax(M(e_t) + Q K^T / sqrt(d)) V in every layer, M by its definition."""
    model, inputs = small("conditional_attention", encoder, attn_implementation=implementation), encoder_inputs()
    assert model.encoder.config._attn_implementation == implementation
    found, mask = model(**inputs).logits, inputs["attention_mask"]
    length = mask.shape[1]
    allowed = mask.bool()[:, None, None] & torch.ones(length, length).tril(0 if encoder in CAUSAL else length).bool()
    for task, embedding in zip(found, model.mtl.task_encoder().detach().double().numpy()):
        own, plain = weights(model.mtl.conditioning, task), unconditioned(model)
        for index, layer in enumerate(layers_of(plain.encoder)):
            scores = block_scores(own, embedding, index, mask).masked_fill(~allowed, -1e9)

            def masked(module, given, named, scores=scores):
                place = 2 if encoder == "gpt2" else 1
                if len(given) > place:
                    return (*given[:place], scores, *given[place + 1 :]), named
                return given, {**named, "attention_mask": scores}

            layer.register_forward_pre_hook(masked, with_kwargs=True)
        same_logits(found, plain(**inputs).logits, task, mask)


def test_scores_of_a_layer_are_those_of_its_attention_and_a_block():
    """S4.2: one head after another, one token after another, of the first layer of BERT."""
    model, inputs = small("conditional_attention", tasks=TASKS[:2]), encoder_inputs()
    first, seen = model.encoder.encoder.layer[0].attention.self, []
    first.register_forward_hook(lambda module, given, output: seen.append((given[0], output[0])))
    model(**inputs)
    ((states, found),) = seen
    mask = inputs["attention_mask"].repeat_interleave(2, dim=0)
    projected = [layer(states).detach().double().numpy() for layer in (first.query, first.key, first.value)]
    for task, embedding in enumerate(model.mtl.task_encoder().detach().double().numpy()):
        own = weights(model.mtl.conditioning, TASKS[task]["name"])
        blocks = block_scores(own, embedding, 0, mask).double().numpy()
        for row in range(task, len(states), 2):
            queries, keys, values = (one[row] for one in projected)
            places = [place for place, one in enumerate(mask[row].tolist()) if one]
            for token in places:
                for head in (slice(0, 16), slice(16, 32)):
                    scores = [queries[token, head] @ keys[at, head] / 4.0 + blocks[row, 0, token, at] for at in places]
                    expected = sum(share * values[at, head] for share, at in zip(softmax(scores), places))
                    close(found[row, token, head].double(), torch.from_numpy(expected), 1e-4)


@every_layered
def test_the_side_of_padding_changes_nothing(told):
    """LB-6: places are counted among a row's tokens."""
    model, inputs = small(told, "roberta"), encoder_inputs()
    mask = inputs["attention_mask"]
    on_the_left = {
        "input_ids": torch.stack([own.roll(10 - int(kept.sum())) for own, kept in zip(inputs["input_ids"], mask)]),
        "attention_mask": mask.flip(1),
    }
    on_the_left["input_ids"] = on_the_left["input_ids"].masked_fill(on_the_left["attention_mask"] == 0, 1)
    expected = model(**inputs).logits
    for task, logits in model(**on_the_left).logits.items():
        close(logits, expected[task], 1e-4, msg=task)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("encoder", CAUSAL)
@every_layered
def test_attention_that_reads_backwards_goes_on_doing_so(told, encoder, implementation):
    """Rows without padding have no mask, and attention is causal because of that."""
    model = small(told, encoder, attn_implementation=implementation)
    ids = encoder_inputs()["input_ids"]
    other = torch.cat([ids[:, :-1], (ids[:, -1:] + 7) % 50 + 3], dim=1)
    found, changed = (tokens_of(model, input_ids=own).states for own in (ids, other))
    if told == "projected_attention_layers":
        # The attention beside a layer reads the whole row, as in the paper.
        assert not torch.allclose(found[:, :-1], changed[:, :-1], atol=1e-3)
    else:
        close(found[:, :-1], changed[:, :-1])
    assert not torch.allclose(found[:, -1], changed[:, -1], atol=1e-3)


def test_blocks_are_added_inside_the_window_of_local_attention():
    """S4.2: a token that lies outside of another's window is as unheard as before; the mask of the window stays."""
    model = small("conditional_attention", modernbert(window=4), attention_block_size=10)
    local, states = model.encoder.layers[1], []
    assert local.attention_type == "sliding_attention"
    ids = encoder_inputs()["input_ids"][:1].repeat(1, 2)
    local.register_forward_hook(lambda module, given, output: states.append(output))
    model(ids)
    moved = torch.zeros(1, 20, 32)
    moved[:, -1] = torch.randn(32)
    local.register_forward_pre_hook(lambda module, given: (given[0] + moved, *given[1:]))
    model(ids)
    heard = (states[0] - states[1]).abs().amax(dim=(0, 2)) > 1e-5
    assert heard.nonzero().flatten().tolist() == [17, 18, 19]
    # Their block reaches further.
    places = [blocks.vectors for blocks in model.mtl.conditioning.blocks]
    assert all(own.shape == (20, 10) for own in places)


@every_layered
def test_hidden_states_are_those_of_told_layers(told):
    """Also where somebody asked the encoder for hidden states before it was wrapped."""
    expected = small(told)
    encoder = BertModel(encoder_config(), add_pooling_layer=False).eval()
    encoder(input_ids=torch.ones(1, 3, dtype=torch.long), output_hidden_states=True)
    wrapped = MultiTaskAttentionModel(
        MultiTaskAttentionConfig(**{**expected.config.to_dict(), "encoder_config": encoder.config}), encoder
    ).eval()
    wrapped.load_state_dict(expected.state_dict())
    found, others = (
        model(**encoder_inputs(), output_hidden_states=True).hidden_states for model in (wrapped, expected)
    )
    assert len(found) == 3
    for layer, (one, other) in enumerate(zip(found, others)):
        assert torch.equal(one, other), layer
    plain = unconditioned(expected)(**encoder_inputs(), output_hidden_states=True).hidden_states
    assert torch.equal(found[0][::3], plain[0])
    assert not torch.allclose(found[1][::3], plain[1], atol=1e-3)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("encoder", ["distilbert", "t5", "modernbert", "gpt2"])
@every_layered
def test_layers_of_any_encoder_are_run_again(told, encoder, reentrant):
    """Activation checkpointing changes no gradient, whichever way a layer is given its mask."""
    model = small(told, encoder, TASKS[:4]).train()
    for module in model.modules():
        for name, value in list(vars(module).items()):
            # Dropout is a module's `p` in some encoders, and a number beside attention in others.
            if isinstance(value, float) and (name == "p" or "dropout" in name):
                setattr(module, name, 0.0)
    batch = {**random_batch(), "routing": {"single_label_classification": routed()}}
    expected = gradients(model, asked_batch(batch))
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    found = gradients(model, asked_batch(batch))
    assert found.keys() == expected.keys()
    assert any("conditioning" in name for name in found)
    for name, gradient in found.items():
        close(gradient, expected[name], 1e-4, msg=name)


def routed():
    return random_batch()["routing"]["single_label_classification"]


@every_layered
def test_an_encoder_that_failed_has_been_told_nothing(told):
    model, inputs = small(told), encoder_inputs()
    expected = model.encoder(**inputs).last_hidden_state
    handle = model.encoder.encoder.layer[1].register_forward_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**inputs)
    handle.remove()
    assert torch.equal(model.encoder(**inputs).last_hidden_state, expected)
    copy.deepcopy(model)


class Rewritten:
    """A layer's forward with a mistake in it."""

    def __init__(self, layer, mistake):
        self.plain, self.mistake = layer.forward, mistake

    def __call__(self, hidden_states, attention_mask=None, *given, **named):
        is_added = attention_mask is not None and attention_mask.is_floating_point()
        if self.mistake == "deaf":
            attention_mask = None
        elif self.mistake == "padding":
            # Of numbers that are added, those of padding are left out.
            attention_mask = attention_mask.masked_fill(attention_mask < -1e3, 0.0) if is_added else attention_mask
        states = self.plain(hidden_states, attention_mask, *given, **named)
        return states + hidden_states.mean(dim=0) if self.mistake == "rows" else states


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("deaf", "its layer 1 does not hear what it is told"),
        ("padding", "its layers read padding"),
        ("rows", "what is told of one row spreads"),
    ],
)
def test_layers_that_do_other_than_they_are_told_are_refused(mistake, said):
    encoder = BertModel(encoder_config(), add_pooling_layer=False).eval()
    layer = encoder.encoder.layer[1]
    layer.forward = Rewritten(layer, mistake)
    config = MultiTaskAttentionConfig(
        encoder_config=encoder.config, tasks=copy.deepcopy(TASKS), conditioning="conditional_attention"
    )
    with pytest.raises(InputError, match=f"conditional_attention does not work with the encoder BertModel: {said}"):
        MultiTaskAttentionModel(config, encoder)


def test_attention_that_is_causal_without_a_mask_is_refused_unless_it_says_so():
    encoder = BertModel(encoder_config(), add_pooling_layer=False).eval()
    for layer in encoder.encoder.layer:

        def run(states, mask=None, *given, plain=layer.forward, **named):
            if mask is None:
                mask = torch.ones(2 * states.shape[1:2], dtype=torch.bool).tril()[None, None]
            return plain(states, mask, *given, **named)

        layer.forward = Signed(run)
    config = MultiTaskAttentionConfig(
        encoder_config=encoder.config, tasks=copy.deepcopy(TASKS), conditioning="conditional_attention"
    )
    with pytest.raises(InputError, match="it does not stay as it is where nothing is added to its layers"):
        MultiTaskAttentionModel(config, encoder)


class Signed:
    """A function with the names of a layer's arguments."""

    def __init__(self, function):
        self.function = function

    def __call__(self, hidden_states, attention_mask=None, *given, **named):
        return self.function(hidden_states, attention_mask, *given, **named)


def test_lists_of_other_things_are_no_layers():
    """Layers that pool between blocks, and one layer that is called again and again."""
    sizes = {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64, "architectures": ["FunnelModel"]}
    for told in BY_LAYER:
        with pytest.raises(InputError, match=f"conditioning={told} .* it has no list of 2 layers"):
            build(told, FunnelConfig(vocab_size=60, block_sizes=[1, 1], num_decoder_layers=3, **sizes))
        # Groups of one layer each are a list of layers.
        build(told, AlbertConfig(**SIZES, embedding_size=16, num_hidden_groups=2))


def test_settings_that_cannot_be_used_are_refused_by_name():
    with pytest.raises(InputError, match="conditioning_heads=3 does not divide conditioning_size=64; write e.g. "):
        build("projected_attention_layers", conditioning_heads=3)
    with pytest.raises(InputError, match="chunk_size_feed_forward"):
        cut = encoder_config()
        cut.chunk_size_feed_forward = 2
        build("projected_attention_layers", cut)
    for name in ("conditioning_heads", "adapter_size", "attention_blocks", "attention_block_size"):
        with pytest.raises(InputError, match=f"{name}=0; expected a whole number >= 1"):
            build("none", **{name: 0})


def test_attention_that_adds_nothing_to_scores_is_refused_when_it_is_called(monkeypatch):
    model = small("conditional_attention")
    layer_hooks = model.read_encoder.layer_hooks
    monkeypatch.setattr(layer_hooks, "config", copy.deepcopy(layer_hooks.config))
    layer_hooks.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(InputError, match="attn_implementation='flash_attention_2' adds nothing"):
        model(**encoder_inputs())


@every_layered
def test_rows_of_one_task_pay_nothing_for_the_others(told):
    """LB-11: what a row is told does not depend on how many tasks there are."""
    model = small(told)
    part, embeddings = model.mtl.conditioning, model.mtl.task_encoder()
    states, mask = torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.long)
    both = part(embeddings, torch.tensor([2, 0])).layers
    one = part(embeddings, torch.tensor([0])).layers
    for index in range(2):
        close(one.behind(index, states[1:]), both.behind(index, states)[1:])
        for found, expected in (
            (one.bias(index, mask[1:]), both.bias(index, mask)),
            (one.branch(index, states[1:], mask[1:]), both.branch(index, states, mask)),
        ):
            assert (found is None) == (expected is None)
            if found is not None:
                assert found.shape[0] == 1
                close(found, expected[1:])


def test_the_table_says_which_ways_tell_layers():
    assert BY_LAYER == ["projected_attention_layers", "hyper_adapters", "conditional_attention"]
    assert all(TASK_CONDITIONINGS[name].conditions_encoder for name in BY_LAYER)


@every_layered
def test_gradients_are_those_of_differences(told):
    """LB-9, in double precision: of every tensor of the part, through the encoder's layers."""
    model, inputs = small(told).double(), {key: value[:2] for key, value in encoder_inputs().items()}
    tensors = dict(model.mtl.conditioning.named_parameters())
    places = {name: torch.randn_like(tensor) for name, tensor in tensors.items()}

    def said():
        return sum(own.sin().sum() for own in model(**inputs).logits.values())

    said().backward()
    slope = sum((tensor.grad * places[name]).sum() for name, tensor in tensors.items())
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for name, tensor in tensors.items():
                tensor.add_(step * places[name])
            values.append(said())
    difference = (values[0] - values[1]) / 2e-5
    assert slope.abs() > 1e-2
    close(slope, difference, 1e-6)


@every_layered
@torch.no_grad()
def test_a_row_without_any_token_is_a_number(told):
    model, inputs = small(told), encoder_inputs()
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"][:-1], torch.zeros(1, 10, dtype=torch.long)])
    for logits in model(**inputs).logits.values():
        assert logits.isfinite().all()


@every_layered
def test_half_precision_and_autocast_take_it(told):
    inputs = encoder_inputs()
    for dtype in (torch.bfloat16, torch.float16):
        model = small(told).to(dtype)
        expected = small(told)(**inputs).logits
        for task, logits in model(**inputs).logits.items():
            close(logits.float(), expected[task], 0.3, msg=task)
    model = small(told)
    with torch.autocast("cpu", torch.bfloat16):
        for task, logits in model(**inputs).logits.items():
            close(logits.float(), expected[task], 0.3, msg=task)
