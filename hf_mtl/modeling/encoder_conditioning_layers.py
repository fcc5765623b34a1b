"""Ways to tell every layer of an encoder of the task: attention beside it, an adapter behind it, numbers that are
added to the scores of its own attention.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_conditioning_base import TaskConditioning, are_close, cannot_be_told, quietly, small_inputs
from .encoder_layers import MASKED, LayerConditions
from .encoder_modules import layers_of
from .encoder_reader import Conditions, EncoderReader
from .encoder_tensors import EncoderInputs
from .errors import InputError
from .task_tensors import SharedVectors, TaskTensors, UnitScaleLinear, ZeroStartLinear
from .trial_pass import UNREADABLE

# Reads rows of word pieces with what they are told: token states.
_Read = Callable[[EncoderInputs, Conditions], torch.Tensor]


class LayerConditioning(TaskConditioning):
    """Tells every layer of an encoder of the task.

    Args:
        config: The tasks, and the settings of each way.
        encoder: The encoder.

    Raises:
        InputError: The encoder has no list of layers, or they cannot be told.
    """

    conditions_encoder = True
    tells_layers = True

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        self.hidden_size = config.hidden_size
        self.conditioning = config.conditioning
        self.num_layers = len(layers_of(encoder))
        if not self.num_layers:
            depth = encoder.config.get_text_config().num_hidden_layers
            raise cannot_be_told(
                encoder, config.conditioning, f"it has no list of {depth} layers, each of which is called once"
            )

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        def read(inputs: EncoderInputs, conditions: Conditions) -> torch.Tensor:
            return quietly(encoder, reader, inputs, conditions).states

        try:
            objection = self._objection(read, small_inputs(encoder))
        except InputError:
            raise
        except UNREADABLE as error:
            raise cannot_be_told(encoder, self.conditioning, str(error).split("\n")[0]) from error
        if objection:
            raise cannot_be_told(encoder, self.conditioning, objection)

    @torch.no_grad()
    def _objection(self, read: _Read, inputs: EncoderInputs) -> str:
        """What is wrong with how an encoder hears of two rows' tasks; empty if nothing is."""
        assert inputs.ids is not None
        tasks = torch.arange(2, device=inputs.ids.device)
        silent, drawn = (self._with_numbers(scale) for scale in (0.0, 1.0))
        embeddings = torch.randn(self.num_tasks, self.hidden_size).to(next(drawn.parameters()))
        whole = inputs._replace(mask=torch.ones_like(inputs.mask))
        if not are_close(read(whole, silent(embeddings, tasks)), read(whole, Conditions())):
            return "it does not stay as it is where nothing is added to its layers"
        together, plain = read(inputs, drawn(embeddings, tasks)), read(inputs, Conditions())
        for row in range(2):
            one, kept = tasks[row : row + 1], inputs.mask[row].bool()
            if not are_close(read(inputs.select(one), drawn(embeddings, one))[0][kept], together[row][kept]):
                return "what is told of one row spreads"
        shorter = EncoderInputs(inputs.ids[1:, kept], inputs.mask[1:, kept])
        is_apart = are_close(read(shorter, Conditions())[0], plain[1][kept])
        if is_apart and not are_close(read(shorter, drawn(embeddings, tasks[1:]))[0], together[1][kept]):
            return "its layers read padding"
        for index in range(self.num_layers):
            conditions = drawn(embeddings, tasks).layers
            assert conditions is not None
            heard = read(inputs, Conditions(layers=_OneLayer(conditions, index)))
            if torch.equal(heard[inputs.mask.bool()], plain[inputs.mask.bool()]):
                return f"its layer {index} does not hear what it is told"
        return ""

    def _with_numbers(self, scale: float) -> "LayerConditioning":
        """A copy with other numbers, such that what it makes of numbers of some scale has this scale."""
        other = copy.deepcopy(self)
        for tensor in other.parameters():
            tensor.normal_().mul_(scale * tensor.shape[-1] ** -0.5)
        return other


class _OneLayer(LayerConditions):
    """What one layer is told; the others are told nothing."""

    def __init__(self, conditions: LayerConditions, index: int) -> None:
        self.conditions, self.index = conditions, index

    def bias(self, index: int, mask: torch.Tensor) -> torch.Tensor | None:
        return self.conditions.bias(index, mask) if index == self.index else None

    def branch(self, index: int, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        return self.conditions.branch(index, states, mask) if index == self.index else None

    def behind(self, index: int, states: torch.Tensor) -> torch.Tensor:
        return self.conditions.behind(index, states) if index == self.index else states


class ProjectedAttentionLayers(LayerConditioning):
    """Beside each layer stands a narrow attention of the task's own over what the layer reads: h' = LN(h + SA(h) +
    V^D g(V^E h)) (Stickland and Murray 2019, PALs).

    h + SA(h) is the sum that the layer's last norm reads; where no norm ends a layer, V^D g(V^E h) is added to what
    the layer returns. V^E (size, hidden) and V^D (hidden, size) are a task's own, the same in all layers; g is
    attention of several heads to the row's tokens, without an output matrix, a task's own in each layer. V^D starts at
    zero.

    Args:
        config: Gives `conditioning_size`, the width, and `conditioning_heads`, the heads.
        encoder: The encoder.

    Raises:
        InputError: The heads do not divide the width, or the encoder has no list of layers.
    """

    reads_embeddings = False

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        hidden, size, self.heads = config.hidden_size, config.conditioning_size, config.conditioning_heads
        if size % self.heads:
            raise InputError(
                f"conditioning_heads={self.heads} does not divide conditioning_size={size}; write e.g. "
                f"conditioning_size={self.heads * max(round(size / self.heads), 1)}."
            )
        if getattr(encoder.config.get_text_config(), "chunk_size_feed_forward", 0):
            raise cannot_be_told(
                encoder, config.conditioning, "chunk_size_feed_forward cuts what its layers' last norms read"
            )
        names = config.task_names
        self.inner = TaskTensors(dict.fromkeys(names, size), hidden, std=hidden**-0.5)
        self.outer = TaskTensors(dict.fromkeys(names, hidden), size, std=0.0)
        # Queries, keys and values.
        self.attention = nn.ModuleList(
            TaskTensors(dict.fromkeys(names, 3 * size), size, std=size**-0.5) for _ in range(self.num_layers)
        )

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions(layers=_Branches(self, tasks))


class _Branches(LayerConditions):
    def __init__(self, part: ProjectedAttentionLayers, tasks: torch.Tensor | None) -> None:
        self.attention, self.heads, self.tasks = part.attention, part.heads, tasks
        self.inner, self.outer = part.inner()[tasks], part.outer()[tasks]  # (rows, size, hidden), (rows, hidden, size)

    def branch(self, index: int, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        narrow = states.to(self.inner.dtype) @ self.inner.transpose(1, 2)  # (rows, length, size)
        projections = self.attention[index]()[self.tasks]  # (rows, 3 * size, size)
        projected = (narrow @ projections.transpose(1, 2)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # (rows, heads, length, size / heads) each
        # Numbers, since a row without any token would be NaN under a mask of bool.
        scores = torch.zeros(mask.shape, dtype=queries.dtype, device=mask.device).masked_fill(mask == 0, MASKED)
        read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=scores[:, None, None])
        return read.transpose(1, 2).flatten(2) @ self.outer.transpose(1, 2)


class HyperAdapters(LayerConditioning):
    """Behind each layer stands an adapter that is made for the task and the layer: x + U GELU(D LN(x)), with D = W^D I
    and U = W^U I, I = W_2 ReLU(W_1 [e_t; e_l]) (Karimi Mahabadi et al. 2021, HyperFormer++).

    e_l is an embedding of the layer; W^D, W^U, W_1 and W_2 are shared by tasks and layers. D is divided by the root of
    the hidden size and U by that of the adapter's, which keeps scales; LN has no weights. W^U starts at zero.

    Args:
        config: Gives `conditioning_size`, the width of I, and `adapter_size`, that of an adapter.
        encoder: The encoder.

    Raises:
        InputError: The encoder has no list of layers.
    """

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        hidden, size, self.adapter_size = config.hidden_size, config.conditioning_size, config.adapter_size
        self.layer_embeddings = SharedVectors(self.num_layers, size)
        self.projection = UnitScaleLinear(hidden + size, size)
        self.projection_2 = UnitScaleLinear(size, size)
        self.down = UnitScaleLinear(size, self.adapter_size * hidden, bias=False)
        self.up = ZeroStartLinear(size, hidden * self.adapter_size, bias=False)

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        of_rows, of_layers = embeddings[tasks], self.layer_embeddings()
        pairs = torch.cat(
            [
                of_rows.expand(self.num_layers, -1, -1),
                of_layers.unsqueeze(1).expand(-1, of_rows.shape[0], -1),
            ],
            dim=-1,
        )  # (layers, rows, hidden + size)
        return Conditions(layers=_Adapters(self, self.projection_2(self.projection(pairs).relu())))


class _Adapters(LayerConditions):
    def __init__(self, part: HyperAdapters, narrow: torch.Tensor) -> None:
        self.part, self.narrow = part, narrow  # (layers, rows, size)

    def behind(self, index: int, states: torch.Tensor) -> torch.Tensor:
        hidden, size, narrow = self.part.hidden_size, self.part.adapter_size, self.narrow[index]
        down = self.part.down(narrow).unflatten(-1, (size, hidden)) * hidden**-0.5  # (rows, size, hidden)
        up = self.part.up(narrow).unflatten(-1, (hidden, size)) * size**-0.5  # (rows, hidden, size)
        inner = F.gelu(F.layer_norm(states.to(down.dtype), (hidden,)) @ down.transpose(1, 2))
        return states + (inner @ up.transpose(1, 2)).to(states.dtype)


class ConditionalAttention(LayerConditioning):
    """The task adds to the scores of each layer's attention: softmax(M(e_t) + Q K^T / sqrt(d)) V, where M has the
    blocks A_n * gamma(e_t) + beta(e_t) on its diagonal and is 0 elsewhere (Pilault et al. 2021, CA-MTL, conditional
    attention).

    A token's place is that among its row's tokens, padding aside; a block has as many places as it has rows, and
    behind the last block the first one comes again. The blocks A_n, gamma and beta are each layer's own; gamma and
    beta, of a block's shape and the same for all blocks, are linear in a narrow projection of e_t and start at zero.

    Args:
        config: Gives `conditioning_size`, the width of the projection, `attention_blocks`, how many A_n there are, and
            `attention_block_size`, their rows.
        encoder: The encoder.

    Raises:
        InputError: The encoder has no list of layers.
    """

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        size, self.count, self.width = config.conditioning_size, config.attention_blocks, config.attention_block_size
        layers = range(self.num_layers)
        self.projection = UnitScaleLinear(config.hidden_size, size, bias=False)
        self.scales = nn.ModuleList(ZeroStartLinear(size, self.width**2, bias=False) for _ in layers)
        self.shifts = nn.ModuleList(ZeroStartLinear(size, self.width**2, bias=False) for _ in layers)
        # The rows of A_1, then those of A_2, ...
        self.blocks = nn.ModuleList(SharedVectors(self.count * self.width, self.width) for _ in layers)

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions(layers=_Biases(self, self.projection(embeddings[tasks])))


class _Biases(LayerConditions):
    def __init__(self, part: ConditionalAttention, narrow: torch.Tensor) -> None:
        self.part, self.narrow = part, narrow  # (rows, size)

    def bias(self, index: int, mask: torch.Tensor) -> torch.Tensor:
        part, width = self.part, self.part.width
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)  # (rows, length)
        numbers, offsets = places // width, places % width
        by_row = offsets.unsqueeze(2).expand(-1, -1, width)
        scale, shift = (
            layers[index](self.narrow).unflatten(-1, (width, width)).gather(1, by_row)
            for layers in (part.scales, part.shifts)
        )  # (rows, length, width): each token's row of its block
        block = part.blocks[index](numbers % part.count * width + offsets) * scale + shift
        scores = block.gather(2, offsets.unsqueeze(1).expand(-1, offsets.shape[1], -1))  # (rows, length, length)
        inside = numbers.unsqueeze(2) == numbers.unsqueeze(1)
        return torch.where(inside, scores, 0.0).unsqueeze(1)
