"""All that a step computes with lies on one device, shown on "meta": to it the processor's tensors are as foreign as
to a GPU. What a device does not know (float64) or has of its own (random numbers) is shown on others that stand in.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS
from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS
from hf_mtl.balancing.weighting_base import WeightingOptions
from hf_mtl.inspection import step_timing
from hf_mtl.modeling.aggregation import TASK_AGGREGATIONS
from hf_mtl.modeling.encoder_tensors import EncodedTokens
from hf_mtl.modeling.pooling import TASK_POOLINGS
from hf_mtl.modeling.random_states import kept_random_states, random_states, set_random_states
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.training.balanced_step import GradientBalance
from hf_mtl.training.step_weighting import StepWeighting
from tests.conftest import build_model, encoder_inputs, random_batch
from tests.modeling.test_conditioning import asked_batch
from tests.training.test_step_loss import trainer

ATEN = torch.ops.aten
COPIES = (ATEN.copy_, ATEN._to_copy)
# A device takes indices that lie on the processor, not the other way round.
INDEXED = (ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_)
CASES = [
    *((name, system.settings) for name, system in SYSTEMS.items()),
    # The pooler has an encoder to come from.
    *((f"pooling={name}", {"pooling": name}) for name in TASK_POOLINGS if name != "pooler"),
    *((f"head={name}", {"head": name}) for name in ("mlp", "convolution")),
]


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as a GPU does and "meta" does not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [own for own in tree_leaves((args, kwargs)) if isinstance(own, torch.Tensor)]
        devices = {own.device.type for own in tensors if own.ndim}
        copies = func.overloadpacket in COPIES
        indexed = func.overloadpacket in INDEXED and args[0].device.type == "meta"
        assert len(devices) < 2 or copies or indexed, f"{func} of {sorted(devices)}"
        return func(*args, **(kwargs or {}))


def moved(value):
    """A batch on the device."""
    if isinstance(value, dict):
        return {key: moved(item) for key, item in value.items()}
    return value.to("meta")


def encoded(encoder, inputs, told, flags):
    """Stands in for reading the encoder, whose own code asks what its tensors hold."""
    mask, ids, tasks = inputs.mask, inputs.ids, inputs.tasks
    if tasks is not None and tasks.ndim == 2:
        # Rows whose shared view is read once.
        mask, ids = (value.repeat_interleave(tasks.shape[1], dim=0) for value in (mask, ids))
    states = torch.randn(*mask.shape, 32, device="meta", requires_grad=True)
    tokens = EncodedTokens(states, mask, None, ids, (states, states), None if tasks is None else tasks.reshape(-1, 1))
    return tokens._replace(views=(tokens, tokens))


@pytest.mark.parametrize(("name", "settings"), CASES, ids=[name for name, _ in CASES])
def test_a_step_stays_on_its_device(name, settings):
    model = build_model(**settings).train().to("meta")
    if settings.get("conditioning") != "task_tokens":
        model.read_encoder.forward = encoded
    with OneDevice():
        model(**moved(asked_batch(random_batch()))).loss.backward()
        model(**moved(random_batch())).loss.backward()
        model(**moved(encoder_inputs()), output_task_attentions=True)


@pytest.mark.parametrize("name", TASK_AGGREGATIONS)
def test_merged_answers_stay_on_their_device(name):
    tasks = [
        {"name": task, "problem_type": "single_label_classification", "labels": ["a", "b", "c"]}
        for task in ("first", "second", "third")
    ]
    model = build_model(tasks, aggregation=name).to("meta")
    model.read_encoder.forward = encoded
    with OneDevice():
        model(**moved(encoder_inputs()))


class SinglePrecision(torch.Tensor):
    """A tensor of a device that knows no float64, as Apple's: what would be double there is an error."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func in (torch.Tensor.cpu, torch.Tensor.numpy):
            return found.as_subclass(torch.Tensor) if isinstance(found, torch.Tensor) else found
        for own in tree_leaves(found):
            if isinstance(own, cls) and own.dtype == torch.float64:
                raise RuntimeError(
                    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it."
                )
        return found


def single(*values):
    return torch.tensor(values).as_subclass(SinglePrecision)


def test_the_stand_in_refuses_what_the_device_refuses():
    with pytest.raises(RuntimeError, match="float64"):
        single(1.0, 2.0).double()
    with pytest.raises(RuntimeError, match="float64"):
        single(1.0, 2.0) * torch.ones(2, dtype=torch.float64)
    assert single(1.0, 2.0).cpu().double().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", LOSS_WEIGHTINGS)
def test_loss_weightings_read_losses_of_any_device(name):
    """And weigh as they do where they lie on the processor."""
    weights = []
    for make in (single, lambda *values: torch.tensor(values)):
        options = WeightingOptions(chance_losses=(0.7, 1.1, 1.0), epoch_steps=2)
        step = StepWeighting(LOSS_WEIGHTINGS[name]([1.0] * 3, options), lambda values: values)
        for scale in (1.0, 0.5, 0.25):
            sums, labels = make(0.5 * scale, 4.0 * scale, 0.0), make(1.0, 2.0, 0.0)
            found = step.weights(sums, labels, whole_step=True) if name != "gradnorm" else None
            if name == "gradnorm":
                step.sums, step.gradients = sums, make(scale, 2 * scale, 0.0).unsqueeze(1)
            else:
                step.add(sums, labels)
            step.end_step(labels)
            if step.weighting.needs == "losses_after":
                step.after_step(sums * 0.9, labels)
        weights.append(step.weighting.weights())
        assert found is None or found.dtype == torch.float32
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("name", ["mgda", "pcgrad", "aligned_mtl"])
def test_gradients_of_any_device_are_balanced(name):
    pytest.importorskip("torchjd")
    found = []
    for make in (single, lambda *values: torch.tensor(values)):
        shared = torch.nn.Parameter(torch.zeros(3))
        balance = GradientBalance(GRADIENT_BALANCERS[name](), [shared], num_tasks=2)
        balance.gradients = [[make(1.0, 0.0, 2.0)], [make(-1.0, 1.0, 0.5)]]
        balance.finish([0, 1], [shared], None)
        found.append(shared.grad)
    torch.testing.assert_close(*found)


class Accelerator:
    """Stands in for the module of a device, with random numbers of its own."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(5)
        self.waits = 0

    def get_rng_state(self):
        return self.generator.get_state()

    def set_rng_state(self, state):
        self.generator.set_state(state)

    def synchronize(self):
        self.waits += 1

    def draw(self):
        return torch.rand(4, generator=self.generator).tolist()


@pytest.fixture
def accelerator(monkeypatch):
    own = Accelerator()
    monkeypatch.setattr(torch, "get_device_module", lambda device: own)
    return own


def test_random_numbers_of_a_device_are_drawn_again_and_put_back(accelerator):
    device = torch.device("mps")
    states = random_states(device)
    first = torch.rand(2).tolist(), accelerator.draw()
    following = random_states(device)
    with kept_random_states(device):
        set_random_states(states)
        assert (torch.rand(2).tolist(), accelerator.draw()) == first
    for kind, state in random_states(device).items():
        assert torch.equal(state, following[kind]), kind
    assert random_states(torch.device("cpu")).keys() == {"cpu"}


def test_a_step_that_is_measured_again_draws_the_same_dropout_on_its_device(tmp_path, tokenizer, accelerator):
    """What `famo` reads after a step is the step's own loss, dropout included, wherever dropout is drawn."""
    own = trainer(tmp_path, tokenizer, loss_weighting="famo", max_steps=1, per_device_train_batch_size=4)
    own.args.__dict__["_setup_devices"] = torch.device("mps")
    drawn = []
    hook = own.model.register_forward_pre_hook(lambda *given: drawn.append(accelerator.draw()))
    own._prepare_inputs = lambda batch: batch
    batches, counts = own.get_batch_samples(iter(own.get_train_dataloader()), 1, torch.device("cpu"))
    own.training_step(own.model, dict(batches[0]), counts)
    following = accelerator.get_rng_state()
    own.measure_after_step()
    hook.remove()
    assert len(drawn) == 2 and drawn[0] == drawn[1]
    assert torch.equal(accelerator.get_rng_state(), following)


def test_a_method_that_draws_leaves_the_numbers_of_devices_alone(monkeypatch):
    pytest.importorskip("torchjd")
    seeded = []
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    state = torch.get_rng_state()
    GRADIENT_BALANCERS["pcgrad"]()(torch.eye(3))
    assert not seeded and torch.equal(torch.get_rng_state(), state)


def test_time_is_taken_when_the_device_is_done(accelerator):
    step_timing._wait(torch.device("xpu"))
    assert accelerator.waits == 1
    step_timing._wait(torch.device("cpu"))
    assert accelerator.waits == 1
