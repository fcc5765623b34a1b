"""What an encoder is told of the task: nothing at the start, then its formula; rows and tasks stay apart."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AlbertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.encoder_modules import norms_of
from hf_mtl.modeling.separate_encoders import PrivateEncoders, SeparateEncoders
from hf_mtl.modeling.several_encoders import first_encoder
from hf_mtl.training.shared_parameters import shared_parameters
from tests.conftest import (
    TASKS,
    VOCABULARY,
    encoder_config,
    randomise,
    unmoved_after,
)
from tests.conftest import random_batch as any_batch

T = len(TASKS)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODERS = {
    "bert": lambda: encoder_config(),
    "roberta": lambda: RobertaConfig(**SIZES, **STILL, pad_token_id=1),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    ),
    "electra": lambda: ElectraConfig(**SIZES, **STILL, embedding_size=16),
    "albert": lambda: AlbertConfig(**SIZES, **STILL, embedding_size=16),
    "mpnet": lambda: MPNetConfig(**SIZES, **STILL),
    "t5": lambda: T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2),
}
REFUSING = {
    "deberta": lambda: DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "modernbert": lambda: modernbert(window=4),
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64),
    "llama": lambda: LlamaConfig(**SIZES),
    "xlnet": lambda: XLNetConfig(vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=2, d_inner=64),
}
TOLD = [name for name in TASK_CONDITIONINGS if name != "none"]
# In these a row is encoded once for each of its tasks.
BY_TASK = [name for name in TOLD if TASK_CONDITIONINGS[name].conditions_encoder]
# In these each task has an encoder of its own.
SEVERAL = [name for name in TOLD if TASK_CONDITIONINGS[name].several_encoders is not None]
# In these the encoder's layers are told; ALBERT's are one layer, again and again.
BY_LAYER = [name for name in TOLD if TASK_CONDITIONINGS[name].tells_layers]
PAIRS = [(told, encoder) for told in TOLD for encoder in ENCODERS if (told in BY_LAYER, encoder) != (True, "albert")]
SENTENCES = ("intent", "mood", "flags", "stars", "pick")

every_conditioning = pytest.mark.parametrize("told", TOLD)
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)
every_pair = pytest.mark.parametrize(("told", "encoder"), PAIRS)


def modernbert(window):
    ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    return ModernBertConfig(**SIZES, **ids, local_attention=window, global_attn_every_n_layers=3)


def build(told, encoder="bert", tasks=None, **settings):
    torch.manual_seed(0)
    given = encoder if not isinstance(encoder, str) else {**ENCODERS, **REFUSING}[encoder]()
    settings = {"task_interaction": "none", "pooling": "mean", "head_dropout": 0.0, **settings}
    tasks = copy.deepcopy(TASKS if tasks is None else tasks)
    config = MultiTaskAttentionConfig(encoder_config=given, tasks=tasks, conditioning=told, **settings)
    return MultiTaskAttentionModel(config).eval()


def random_batch(seed=0):
    """A batch without the word pieces that some encoders take for padding or for the end."""
    batch = any_batch(seed=seed)
    return {**batch, "input_ids": batch["input_ids"].clamp(min=3)}


def encoder_inputs(seed=0):
    return {key: value for key, value in random_batch(seed).items() if key != "routing"}


def shaken(model):
    """A model of which no tensor, the encoder's included, is what it is at the start."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in model.encoder.parameters():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return randomise(model)


def loaded(model, other):
    """Give a model the tensors that another has under the same names; of separate encoders, its first task's, and of
    private ones the shared one's.
    """
    own = f"encoder.encoders.task_{model.config.task_names[0]}."
    state = other.state_dict()
    if isinstance(other.encoder, PrivateEncoders) and not isinstance(model.encoder, PrivateEncoders):
        own = "encoder.shared."
    if not isinstance(model.encoder, SeparateEncoders):
        state = {name.replace(own, "encoder."): tensor for name, tensor in state.items()}
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model


def unconditioned(model, task=None):
    """The model without conditioning, with the tensors that it has under the same names; of one task, its own."""
    tasks = [own for own in model.config.tasks if task in (None, own["name"])]
    settings = {**model.config.to_dict(), "encoder_config": copy.deepcopy(model.config.encoder_config)}
    settings.update(conditioning="none", tasks=copy.deepcopy(tasks))
    return loaded(MultiTaskAttentionModel(MultiTaskAttentionConfig(**settings)).to(model.dtype).eval(), model)


def tokens_of(model, **inputs):
    """What the parts behind the encoder are given."""
    seen = []
    hook = model.mtl.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(**inputs)
    hook.remove()
    return seen[0]


def asked_batch(batch):
    """The batch with what the collator says of it: the tasks each row is answered for, and each entry's slot."""
    batch = copy.deepcopy(batch)
    tasks_of = [[] for _ in batch["input_ids"]]
    # The rows of one entry's choices share its slot, so these come first.
    for name in sorted(batch["routing"], key=lambda name: name != "multiple_choice"):
        entries = batch["routing"][name]
        slots = []
        for rows, task in zip(entries["rows"].tolist(), entries["tasks"].tolist()):
            for row in dict.fromkeys(rows if isinstance(rows, list) else [rows]):
                if task not in tasks_of[row]:
                    tasks_of[row].append(task)
                slot = tasks_of[row].index(task)
            slots.append(slot)
        entries["slots"] = torch.tensor(slots)
    most = max(map(len, tasks_of))
    batch["asked_tasks"] = torch.tensor(
        [(own or [0]) + (own or [0])[:1] * (most - len(own or [0])) for own in tasks_of]
    )
    return batch


def close(found, expected, tolerance=1e-5, **more):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance, **more)


def part_of(part, task):
    """The tensors of a part that are a task's own."""
    return [tensor for name, tensor in part.named_parameters() if name.endswith(f"task_{task}")]


def read_of(logits, mask):
    """What of logits (B, ...) or (B, L, ...) does not stand at padding."""
    return logits[mask.bool()] if logits.ndim == 3 else logits


@every_pair
def test_the_start_is_hard_sharing(told, encoder):
    """LB-2, S4.2: with zero generators the encoder says what it says alone; S2.2: that is hard sharing."""
    model, inputs = build(told, encoder), encoder_inputs()
    expected = unconditioned(model)(**inputs).logits
    for task, logits in model(**inputs).logits.items():
        mask = inputs["attention_mask"]
        close(read_of(logits, mask), read_of(expected[task], mask), 1e-6, msg=task)


@every_conditioning
def test_every_tensor_wakes_up(told):
    assert not unmoved_after(build(told), steps=5)


@every_encoder
def test_text_reads_no_task_token(encoder):
    """S4.2: whatever the parameters, text beside task tokens has the states, and the positions, that it has alone."""
    model, inputs = shaken(build("task_tokens", encoder)), encoder_inputs()
    mask = inputs["attention_mask"].bool()
    alone = model.encoder(**inputs).last_hidden_state
    close(tokens_of(model, **inputs).states[mask], alone[mask])
    # The encoder would tell a text that begins elsewhere.
    moved = {"input_ids": inputs["input_ids"].roll(1, 1), "attention_mask": inputs["attention_mask"] | 1}
    assert not torch.allclose(model.encoder(**moved).last_hidden_state[:, 1:], alone[:, :-1], atol=1e-2)


@pytest.mark.parametrize("window", [4, 16, 40])
def test_text_beside_task_tokens_keeps_its_window(window):
    """A mask of four axes replaces the window of local attention: such encoders are refused, however wide it is."""
    with pytest.raises(InputError, match="does not work with the encoder ModernBertModel"):
        build("task_tokens", modernbert(window))


def test_text_beside_task_tokens_keeps_its_positions_with_padding_on_the_left():
    model, inputs = shaken(build("task_tokens", "roberta")), encoder_inputs()
    mask = inputs["attention_mask"].flip(1)
    ids = inputs["input_ids"].flip(1).masked_fill(mask == 0, 1)
    alone = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    close(tokens_of(model, input_ids=ids, attention_mask=mask).states[mask.bool()], alone[mask.bool()])


@every_pair
def test_padding_changes_nothing(told, encoder):
    """LB-6."""
    model, inputs = shaken(build(told, encoder, TASKS[:4])), encoder_inputs()
    pad = model.config.encoder_config.pad_token_id or 0
    longer = {"input_ids": (pad, 7), "attention_mask": (0, 7)}
    longer = {key: F.pad(inputs[key], (0, extra), value=value) for key, (value, extra) in longer.items()}
    expected = model(**inputs).logits
    for task, logits in model(**longer).logits.items():
        close(logits, expected[task], 1e-4, msg=task)


@every_conditioning
def test_a_task_reads_only_what_it_may(told):
    """A task that reads none but itself is answered alike whatever the others' parameters are."""
    tasks = copy.deepcopy(TASKS)
    for task in tasks:
        task["reads"] = []
    tasks[2]["reads"] = ["stars"]
    model = shaken(build(told, tasks=tasks, task_interaction="cross_task_attention"))
    before = model(**encoder_inputs()).logits
    with torch.no_grad():
        for tensor in model.task_parameters("stars"):
            tensor.add_(1.0)
    after = model(**encoder_inputs()).logits
    for task in model.config.task_names:
        assert torch.equal(before[task], after[task]) == (task not in ("stars", "flags")), task


@pytest.mark.parametrize("tasks", [2, T])
@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_the_encoder_is_called_once_whatever_the_tasks(told, tasks):
    """S0.1: rows by tasks where the encoder is told of the task, rows where tasks are tokens or not told."""
    model = build(told, tasks=TASKS[:tasks])
    encoders = list(model.encoder) if told in SEVERAL else [model.encoder]
    # A shared encoder beside private ones reads each row once, whatever its tasks.
    encoders += [model.encoder.shared] if told == "private_encoders" else []
    seen = []
    for encoder in encoders:
        encoder.register_forward_pre_hook(
            lambda module, given, named: seen.append(
                next(own.shape[0] for own in (named["input_ids"], named["inputs_embeds"]) if own is not None)
                if "input_ids" in named
                else named["inputs_embeds"].shape[0]
            ),
            with_kwargs=True,
        )
    model(**encoder_inputs())
    rows = 8 * tasks if told in BY_TASK and told not in SEVERAL else 8
    assert seen == [rows] * len(encoders)


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_every_task_gives_the_encoder_a_gradient(told):
    """S0.1; of separate encoders, its own alone (S2.3)."""
    model, batch = shaken(build(told)).train(), random_batch()
    losses = model(**batch).task_losses
    for task, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        if told == "separate_encoders":
            for own, encoder in zip(losses, model.encoder):
                assert any(tensor.grad is not None and tensor.grad.any() for tensor in encoder.parameters()) == (
                    own == task
                )
        else:
            assert model.get_input_embeddings().weight.grad.any(), task


@every_encoder
def test_what_is_added_is_a_projection_of_the_tasks_embedding(encoder):
    """S4.2: X'_l = X_l + W e_t before the encoder's first norm, by giving an encoder that knows no task these X'."""
    model, inputs = shaken(build("input_addition", encoder)), encoder_inputs()
    plain, mask = unconditioned(model), inputs["attention_mask"]
    found, embeddings = model(**inputs).logits, model.mtl.task_encoder()
    words = plain.get_input_embeddings()(inputs["input_ids"])
    for task, own in zip(found, embeddings):
        moved = plain(inputs_embeds=words + model.mtl.conditioning.output.weight @ own, attention_mask=mask)
        close(read_of(found[task], mask), read_of(moved.logits[task], mask), 1e-4, msg=task)
    close(model(inputs_embeds=words, attention_mask=mask).logits["intent"], found["intent"], 1e-4)


@every_encoder
def test_modulation_scales_and_shifts_norms(encoder):
    """S4.2: (1 + gamma_t) LN(x) + beta_t, by rewriting every norm's weight and bias for one task after another."""
    model, inputs = shaken(build("modulation", encoder)), encoder_inputs()
    found, part, mask = model(**inputs).logits, model.mtl.conditioning, inputs["attention_mask"]
    for task, embedding in zip(found, model.mtl.task_encoder()):
        plain = unconditioned(model)
        norms = norms_of(plain.encoder)
        assert len(norms) == len(part.scales) == len(part.shifts) > 0
        for norm, scale, shift in zip(norms, part.scales, part.shifts):
            narrow = part.projection.weight @ embedding
            gamma, beta = scale.weight @ narrow, shift.weight @ narrow
            with torch.no_grad():
                norm.weight.mul_(1 + gamma)
                if isinstance(norm, nn.LayerNorm):
                    norm.bias.copy_((1 + gamma) * norm.bias + beta)
                else:
                    norm.register_forward_hook(lambda module, given, output, beta=beta: output + beta)
        expected = plain(**inputs).logits[task]
        close(read_of(found[task], mask), read_of(expected, mask), 1e-4, msg=task)


def test_task_embeddings_are_a_dense_layer_of_a_one_hot_task():
    """S4.1, S4.2: what the encoder is told is linear in a one-hot task, T = Dense(T_0)."""
    model, tasks = shaken(build("input_addition")), torch.tensor([3, 0, 3, 6])
    table = model.mtl.task_encoder()
    dense = nn.Linear(T, 32, bias=False)
    with torch.no_grad():
        dense.weight.copy_(table.T)
    one_hot = F.one_hot(tasks, T).float()
    close(table[tasks], dense(one_hot))
    close(model.mtl.conditioning(table, tasks).added, model.mtl.conditioning.output(dense(one_hot)))


@pytest.mark.parametrize("told", [name for name in TOLD if name not in SEVERAL])
def test_tasks_of_one_embedding_and_one_head_are_one(told):
    """S4.1: two tasks with equal embeddings and heads give equal logits; with unequal embeddings they do not."""
    tasks = [TASKS[1], {**TASKS[1], "name": "temper"}, *TASKS[2:4]]
    model = shaken(build(told, tasks=tasks))
    named = dict(model.named_parameters())
    pairs = [(named[name.replace("task_temper", "task_mood")], own) for name, own in named.items() if "temper" in name]
    with torch.no_grad():
        for first, second in pairs:
            second.copy_(first)
    logits = model(**encoder_inputs()).logits
    close(logits["temper"], logits["mood"])
    with torch.no_grad():
        for tensor in part_of(model.mtl.task_encoder, "temper") or part_of(model.mtl.conditioning, "temper"):
            tensor.add_(torch.randn(tensor.shape))
    logits = model(**encoder_inputs()).logits
    assert (logits["temper"] - logits["mood"]).abs().max() > 1e-3


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_rows_do_not_read_each_other(told):
    """LB-7."""
    model, inputs = shaken(build(told)), encoder_inputs()
    together = model(**inputs).logits
    for row in (0, 3, 7):
        alone = model(**{key: value[row : row + 1] for key, value in inputs.items()}).logits
        for task, logits in alone.items():
            close(logits[0], together[task][row], 1e-5, msg=task)


@pytest.mark.parametrize("interaction", ["none", "cross_task_attention"])
@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
@torch.no_grad()
def test_a_row_of_several_tasks_is_a_row_of_each(told, interaction):
    """LB-11: asked of all its tasks at once, of one at a time, or of every task there is."""
    model, batch = shaken(build(told, task_interaction=interaction)), asked_batch(random_batch())
    together = model(**batch).entry_logits
    dense = model(**encoder_inputs()).logits
    assert batch["asked_tasks"].shape[1] < T
    for name, entries in batch["routing"].items():
        for place, task in enumerate(entries["tasks"].tolist()[:2]):
            one = {key: value[place : place + 1] for key, value in entries.items()}
            one = asked_batch({**encoder_inputs(), "routing": {name: one}})
            assert one["asked_tasks"].shape[1] == 1
            close(model(**one).entry_logits[name][0], together[name][place], 1e-4, msg=name)
            if name == "multiple_choice":
                continue
            expected = dense[TASKS[task]["name"]][entries["rows"][place]]
            found = together[name][place][..., : TASKS[task].get("labels") and len(TASKS[task]["labels"])]
            close(found.squeeze(-1) if name == "regression" else found, expected, 1e-4, msg=name)


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_entries_keep_their_losses(told):
    """LB-11: losses and penalties of a batch, asked of its own tasks or of all."""
    model = shaken(build(told, task_interaction="shared_private", pooling="task_queries", pooling_entropy=0.3))
    expected, found = model(**random_batch()), model(**asked_batch(random_batch()))
    close(found.loss, expected.loss)
    close(found.task_loss_sums, expected.task_loss_sums)
    close(found.task_penalty_sums, expected.task_penalty_sums, 1e-4)


def gradients(model, *batches):
    model.zero_grad()
    for batch in batches:
        model(**batch).loss.backward()
    return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_layers_that_are_run_again_give_the_same_gradients(told):
    """Activation checkpointing runs a layer once more in the backward pass, told of the same tasks."""
    model, batches = shaken(build(told)).train(), [asked_batch(random_batch(seed=seed)) for seed in (0, 1)]
    expected = gradients(model, *batches)
    model.activation_checkpointing_enable()
    encoder = first_encoder(model.encoder)
    calls = []
    encoder.encoder.layer[0].attention.register_forward_hook(lambda *given: calls.append(1))
    found = gradients(model, *batches)
    assert len(calls) == 2 * len(batches)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        close(gradient, expected[name], msg=name)
    # What was told in training says nothing to an evaluation.
    own = model.eval()(**encoder_inputs()).logits["mood"]
    model.activation_checkpointing_disable()
    assert torch.equal(model(**encoder_inputs()).logits["mood"], own)


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_reentrant_checkpoints_give_the_same_gradients_or_are_refused(told):
    model, batch = shaken(build(told)).train(), asked_batch(random_batch())
    expected = gradients(model, batch)
    model.activation_checkpointing_enable({"use_reentrant": True})
    if told == "modulation":
        with pytest.raises(InputError, match="use_reentrant"):
            model(**batch)
        return
    for name, gradient in gradients(model, batch).items():
        close(gradient, expected[name], msg=name)


@pytest.mark.parametrize("told", BY_TASK)
def test_two_forward_passes_before_one_backward_are_told_apart(told):
    """Layers that are run again are told what their own forward pass was told, not what the last one was."""
    model = shaken(build(told)).train()
    batches = [random_batch(), random_batch(1)]
    batches[1]["routing"]["single_label_classification"]["tasks"] = 1 - torch.arange(8) % 2
    batches = [asked_batch(batch) for batch in batches]
    expected = gradients(model, *batches)
    model.activation_checkpointing_enable()
    model.zero_grad()
    sum(model(**batch).loss for batch in batches).backward()
    for name, tensor in model.named_parameters():
        if name in expected:
            close(tensor.grad, expected[name], msg=name)


@pytest.mark.parametrize("told", TOLD)
def test_a_model_that_runs_layers_again_can_be_copied(told):
    model = shaken(build(told)).train()
    model.activation_checkpointing_enable()
    model(**random_batch()).loss.backward()
    copy.deepcopy(model)


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_copies_and_checkpoints_answer_alike(told, tmp_path):
    """A copy hears its own task, not the original's; a checkpoint reloads bit for bit."""
    model, inputs = shaken(build(told)), encoder_inputs()
    expected = model(**inputs).logits
    model.save_pretrained(tmp_path)
    found = [copy.deepcopy(model), MultiTaskAttentionModel.from_pretrained(tmp_path).eval()]
    model.train()(**random_batch()).loss.backward()
    found.append(copy.deepcopy(model).eval())
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
    for other in found:
        for task, logits in other(**inputs).logits.items():
            assert torch.equal(logits, expected[task]), task


WITHOUT_PACKAGE = """
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "hf_mtl" or name.startswith("hf_mtl."):
            raise ImportError("hf_mtl is blocked")
sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoModel
ids, found = torch.arange(1, 21).view(2, 10), {}
for told in sys.argv[2:]:
    model = AutoModel.from_pretrained(f"{sys.argv[1]}/{told}", trust_remote_code=True).eval()
    found[told] = {name: value.tolist() for name, value in model(ids).logits.items()}
assert not any(name == "hf_mtl" or name.startswith("hf_mtl.") for name in sys.modules)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_they_load_where_this_package_is_not(tmp_path):
    models = {told: shaken(build(told)) for told in TOLD}
    for told, model in models.items():
        model.save_pretrained(tmp_path / told)
    cache = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE, str(tmp_path), *TOLD],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **cache},
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    for told, model in models.items():
        for task, logits in model(torch.arange(1, 21).view(2, 10)).logits.items():
            close(torch.tensor(found[told][task]), logits, msg=told)


@pytest.mark.parametrize(
    ("told", "encoder", "said"),
    [
        ("task_tokens", "deberta", "does not work with the encoder DebertaV2Model"),
        ("task_tokens", "modernbert", "the states of the text, which must stay, change"),
        ("task_tokens", "gpt2", "does not work with the encoder GPT2Model"),
        ("task_tokens", "llama", "the states of the text, which must stay, change"),
        ("task_tokens", "xlnet", "does not work with the encoder XLNetModel"),
        ("input_addition", "xlnet", "does not work with the encoder XLNetModel"),
        ("modulation", "xlnet", "does not work with the encoder XLNetModel"),
        *((told, "xlnet", "XLNetModel: its layers do not read .rows, length, hidden.") for told in BY_LAYER),
        *((told, "albert", "AlbertModel: it has no list of 2 layers") for told in BY_LAYER),
        ("conditional_attention", "deberta", "DebertaV2Model: its layers add no mask to the scores"),
    ],
)
def test_an_encoder_that_cannot_be_told_is_refused(told, encoder, said):
    with pytest.raises(InputError, match=said):
        build(told, encoder)
    build("none", encoder)


@pytest.mark.parametrize("encoder", [name for name in REFUSING if name != "xlnet"])
@pytest.mark.parametrize("told", ["input_addition", "modulation", *BY_LAYER])
def test_encoders_that_refuse_task_tokens_take_the_other_ways(told, encoder):
    if (told, encoder) == ("conditional_attention", "deberta"):
        with pytest.raises(InputError, match="add no mask"):
            build(told, encoder)
        return
    model, inputs = shaken(build(told, encoder, TASKS[:4], pooling="last_token")), encoder_inputs()
    together = model(**inputs).logits
    alone = model(**{key: value[3:4] for key, value in inputs.items()}).logits
    for task, logits in alone.items():
        close(logits[0], together[task][3], 1e-4, msg=task)


def test_a_pooler_and_task_tokens_do_not_go_together():
    with pytest.raises(InputError, match="where the encoder's pooler reads"):
        build("task_tokens", pooling="pooler")
    with pytest.raises(InputError, match="conditioning_size=0"):
        build("modulation", conditioning_size=0)
    with pytest.raises(InputError, match="conditioning"):
        build("task_token")


@every_conditioning
def test_looking_at_an_encoder_draws_nothing(told, monkeypatch):
    """Whether an encoder takes what it will be told is found out without the run's random numbers."""
    build(told)
    looked = torch.get_rng_state()
    monkeypatch.setattr(TASK_CONDITIONINGS[told], "check", lambda *given: None)
    expected = build(told).state_dict()
    assert torch.equal(torch.get_rng_state(), looked)
    monkeypatch.undo()
    for name, tensor in build(told).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@every_conditioning
def test_one_task_is_told_nothing(told):
    """LB-4."""
    model = shaken(build(told, tasks=[TASKS[1]]))
    plain = unconditioned(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(model(**encoder_inputs()).logits["mood"], plain(**encoder_inputs()).logits["mood"])


def batch_of(seed, *tasks, alone=False):
    """Eight rows of each of some of the first two tasks, as the collator gives them (alone: to a model of one)."""
    parts = [encoder_inputs(seed + 50 * task) for task in tasks]
    index = torch.tensor(tasks).repeat_interleave(8) * (not alone)
    rows = torch.arange(len(index))
    entries = {"rows": rows, "tasks": index, "slots": index * 0, "labels": (rows + seed) % 2}
    inputs = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return {**inputs, "routing": {"single_label_classification": entries}, "asked_tasks": index.unsqueeze(1)}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("alternating", [False, True])
def test_separate_encoders_train_as_separate_runs(optimizer, alternating):
    """S2.3: two tasks on disjoint batches, in one step or in turn, are two single-task runs."""
    tasks = TASKS[:2]
    model = build("separate_encoders", tasks=tasks).double()
    with torch.no_grad():
        for tensor in model.encoder.encoders["task_mood"].parameters():
            tensor.mul_(1.1)
    single = [unconditioned(model, task["name"]) for task in tasks]
    start = copy.deepcopy(model.state_dict())
    optimizers = [optimizer(own.train().parameters(), lr=0.01) for own in [model, *single]]
    for step in range(4):
        chosen = [step % 2] if alternating else [0, 1]
        losses = model(**batch_of(step, *chosen)).task_losses
        sum(losses[tasks[task]["name"]] for task in chosen).backward()
        for task in {0, 1} - set(chosen):
            for tensor in model.task_parameters(tasks[task]["name"]):
                # As a Trainer leaves what belongs to a task that a step does not hold.
                assert tensor.grad is None or not tensor.grad.any()
                tensor.grad = None
        optimizers[0].step()
        for task in chosen:
            output = single[task](**batch_of(step, task, alone=True))
            close(output.loss, losses[tasks[task]["name"]], 1e-10)
            output.task_losses[tasks[task]["name"]].backward()
            optimizers[1 + task].step()
        for own in optimizers:
            own.zero_grad()
    inputs = encoder_inputs()
    for task, own in zip(tasks, single):
        prefix = f"encoder.encoders.task_{task['name']}."
        for name, tensor in own.encoder.state_dict().items():
            close(model.state_dict()[prefix + name], tensor, 1e-9, msg=name)
        assert not torch.equal(start[prefix + name], tensor)
        close(model.eval()(**inputs).logits[task["name"]], own.eval()(**inputs).logits[task["name"]], 1e-9)


def test_separate_encoders_share_nothing():
    """S2.3: nothing is left that tasks share, but what heads of tokens or choices do."""
    model = build("separate_encoders", tasks=TASKS[:4])
    with pytest.raises(InputError, match="names no parameter that is trained"):
        shared_parameters(model)
    assert sum(map(len, model.parameters_by_task().values())) == len(list(model.parameters()))
    (left,) = shared_parameters(build("separate_encoders", tasks=TASKS[:5]))
    assert left.shape == (32, 32)
    pointers = [tensor.data_ptr() for encoder in model.encoder for tensor in encoder.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_a_task_without_rows_gets_no_gradient_in_its_encoder():
    """S2.3."""
    model = build("separate_encoders", tasks=TASKS[:2]).train()
    model(**batch_of(0, 0)).loss.backward()
    first, second = model.encoder
    assert all(tensor.grad is not None for name, tensor in first.named_parameters() if "pooler" not in name)
    assert all(tensor.grad is None for tensor in second.parameters())


@pytest.mark.parametrize("told", SEVERAL)
def test_separate_encoders_keep_their_vocabulary(told):
    model = build(told)
    with pytest.raises(InputError, match="resize the encoder before it is wrapped"):
        model.resize_token_embeddings(70)
    with pytest.raises(InputError, match="cannot be replaced"):
        model.set_input_embeddings(nn.Embedding(70, 32))


@pytest.mark.parametrize("told", [name for name in TASK_CONDITIONINGS if name not in SEVERAL])
def test_a_larger_vocabulary_is_told_of_the_task_too(told):
    """The hook on word embeddings moves with the model."""
    model, inputs = shaken(build(told)), encoder_inputs()
    expected = model(**inputs).logits
    model.resize_token_embeddings(70)
    for task, logits in model(**inputs).logits.items():
        close(logits, expected[task], msg=task)
    own = model.get_input_embeddings()
    model.set_input_embeddings(torch.nn.Embedding.from_pretrained(own.weight.detach(), padding_idx=own.padding_idx))
    for task, logits in model(**inputs).logits.items():
        close(logits, expected[task], msg=task)
