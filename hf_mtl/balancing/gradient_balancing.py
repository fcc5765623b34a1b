"""Gradient balancing: the tasks' gradients of the shared parameters become one, through weights that follow from their
T x T Gram matrix.

The methods are those of torchjd (an optional extra, with the solvers that each needs); here they get names, state that
a checkpoint keeps, and draws that are the same on every process.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from ..modeling.errors import InputError

# Which parameters that the tasks share are balanced.
BALANCED_PARAMETERS = "all, adapters, or last_<k>_layers such as last_2_layers"

_INSTALL = "pip install 'hf_mtl[balance]'"


class GradientBalancer(ABC):
    """Weighs the tasks' gradients of a step.

    Args:
        seed: Of methods that draw; every process draws the same.
        options: The method's own settings.

    Raises:
        InputError: A package that the method needs is not installed, or an unknown setting.
    """

    def __init__(self, seed: int = 42, **options: Any) -> None:
        self.seed = seed
        self.options = options
        self.step = 0

    def __call__(self, gramian: torch.Tensor) -> torch.Tensor:
        """Return the weights (tasks,) of gradients whose products are given, (tasks, tasks); 1 for a single one."""
        if len(gramian) == 1:
            self.step += 1
            return torch.ones(1, dtype=torch.float64)
        with torch.random.fork_rng(devices=[]):
            # Of the processor, where the weights are found: others, which draw dropout, go on as they were.
            torch.default_generator.manual_seed(self.seed * 1_000_003 + self.step)
            weights = self.weights(gramian.cpu().double())
        self.step += 1
        return weights

    @abstractmethod
    def weights(self, gramian: torch.Tensor) -> torch.Tensor:
        """Return the weights (tasks,) from products (tasks, tasks), both float64."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: JSON values."""
        return {"step": self.step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.step = state["step"]


class WeightingBalancer(GradientBalancer):
    """Asks a weighting object, and keeps in checkpoints what it remembers from step to step."""

    weighting: Any
    # Of the last step; what a weighting remembers has this size.
    num_tasks: int | None = None

    def weights(self, gramian: torch.Tensor) -> torch.Tensor:
        self.num_tasks = len(gramian)
        return self.weighting(gramian)

    def state(self) -> dict[str, Any]:
        kept = self.weighting.state_dict() if isinstance(self.weighting, nn.Module) else {}
        memory = {name: tensor.tolist() for name, tensor in kept.items()}
        return {**super().state(), "num_tasks": self.num_tasks, "memory": memory}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.num_tasks = state["num_tasks"]
        if state["memory"] and state["num_tasks"] is not None:
            with torch.random.fork_rng(devices=[]):
                # A first call gives each tensor its size and type.
                self.weighting(torch.eye(state["num_tasks"], dtype=torch.float64))
            sized = self.weighting.state_dict()
            memory = {name: torch.tensor(values, dtype=sized[name].dtype) for name, values in state["memory"].items()}
            self.weighting.load_state_dict(memory)


class TorchjdBalancer(WeightingBalancer):
    """A method of torchjd by the name of its weighting.

    A subclass names the class of `torchjd.aggregation`, its defaults and the solvers that it needs.
    """

    weighting_name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    solvers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, seed: int = 42, **options: Any) -> None:
        super().__init__(seed, **{**self.defaults, **options})
        for package in ("torchjd", *self.solvers):
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"The gradient balancing {type(self).__name__} needs the package {package!r}, which is not "
                    f"installed; type: {_INSTALL}"
                )
        self.weighting = self._build()

    def _build(self) -> Any:
        from torchjd import aggregation

        try:
            return getattr(aggregation, self.weighting_name)(**self.options)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.weighting_name} of torchjd does not take {self.options}: {error}") from error


class GivenBalancer(WeightingBalancer):
    """A weighting object of `torchjd.aggregation`, or another function of the Gram matrix.

    Args:
        weighting: Takes (tasks, tasks), returns (tasks,).
        seed: Of what it draws.

    Raises:
        InputError: An object of torchjd that reads the gradients themselves, or that returns their sum.
    """

    def __init__(self, weighting: Any, seed: int = 42) -> None:
        super().__init__(seed)
        kinds = [kind.__name__ for part in _parts(weighting) for kind in type(part).__mro__]
        if "Aggregator" in kinds:
            name = type(weighting).__name__
            raise InputError(
                f"{name} of torchjd returns a gradient, not weights; give its weighting, {name}Weighting."
            )
        for part in _parts(weighting):
            reads_gradients = "_MatrixWeighting" in [kind.__name__ for kind in type(part).__mro__]
            if reads_gradients and type(part).__name__ not in _READ_ONLY_THE_NUMBER:
                raise InputError(
                    f"{type(part).__name__} of torchjd reads the gradients themselves; a weighting is given their "
                    "products here, (tasks, tasks). Choose one that takes a Gram matrix, such as UPGradWeighting()."
                )
        self.weighting = weighting


# Weightings of torchjd for which gradients and their products are one, since they look only at how many there are.
_READ_ONLY_THE_NUMBER = ("MeanWeighting", "SumWeighting", "ConstantWeighting", "RandomWeighting")


def _parts(weighting: Any) -> list[Any]:
    """An object and those that it wraps."""
    return list(weighting.modules()) if isinstance(weighting, nn.Module) else [weighting]


class PCGradBalancer(TorchjdBalancer):
    """Projects conflicts away, in random order, and sums (Yu et al. 2020, algorithm 1)."""

    weighting_name = "PCGradWeighting"


class GradVacBalancer(TorchjdBalancer):
    """Moves the cosine of two gradients up to its running mean (Wang et al. 2021, equation 3); beta 0.5 as in torchjd,
    0.01 in the paper.
    """

    weighting_name = "GradVacWeighting"


class MGDABalancer(TorchjdBalancer):
    """The shortest vector between the gradients (Sener and Koltun 2018, algorithm 2), without their scaling."""

    weighting_name = "MGDAWeighting"


class CAGradBalancer(TorchjdBalancer):
    """The best worst case within c of the mean gradient (Liu et al. 2021, algorithm 1); not divided by 1 + c."""

    weighting_name = "CAGradWeighting"
    defaults = {"c": 0.4}
    solvers = ("cvxpy", "clarabel")


class ImpartialBalancer(TorchjdBalancer):
    """Equal projections on all tasks' directions (IMTL-G, Liu et al. 2021, equation 4)."""

    weighting_name = "IMTLGWeighting"


class AlignedMTLBalancer(TorchjdBalancer):
    """Makes the gradients orthogonal and equally long (Senushkin et al. 2023, algorithm 1)."""

    weighting_name = "AlignedMTLWeighting"
    defaults = {"scale_mode": "rmse"}


class UPGradBalancer(TorchjdBalancer):
    """The mean of the gradients' projections onto the cone that opposes none (Quinton and Rey 2024, definition 4)."""

    weighting_name = "UPGradWeighting"
    solvers = ("quadprog", "qpsolvers")


class FairGradBalancer(TorchjdBalancer):
    """alpha-fair shares of the step (Ban and Ji 2024, equation 4): G w = w^(-1/alpha); alpha 2."""

    weighting_name = "FairGradWeighting"
    defaults = {"alpha": 2.0}
    solvers = ("scipy",)


class NashMTLBalancer(TorchjdBalancer):
    """The bargaining solution G w = 1 / w (Navon et al. 2022, algorithm 1), its step at most 1 long, as published.

    It warms up from the weights of the step before.
    """

    weighting_name = "NashMTL"
    solvers = ("cvxpy", "ecos")

    def _build(self) -> Any:
        # torchjd's solver is made for a number of tasks, known with the first step.
        self.solvers_by_size: dict[int, Any] = {}
        return None

    def _solver(self, size: int) -> Any:
        from torchjd.aggregation import NashMTL

        if size not in self.solvers_by_size:
            self.solvers_by_size[size] = NashMTL(n_tasks=size, **self.options).weighting
        return self.solvers_by_size[size]

    def weights(self, gramian: torch.Tensor) -> torch.Tensor:
        # Any matrix with this Gram matrix has these weights.
        values, vectors = torch.linalg.eigh(gramian)
        root = vectors * values.clamp(min=0).sqrt()
        return self._solver(len(gramian))(root)

    def state(self) -> dict[str, Any]:
        weights = {size: solver.prvs_alpha.tolist() for size, solver in self.solvers_by_size.items()}
        return {"step": self.step, "weights": weights}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.weighting = self._build()
        for size, weights in state["weights"].items():
            solver = self._solver(int(size))
            solver.prvs_alpha = torch.tensor(weights, dtype=torch.float64).numpy()


GRADIENT_BALANCERS: dict[str, type[GradientBalancer]] = {
    "pcgrad": PCGradBalancer,
    "gradvac": GradVacBalancer,
    "mgda": MGDABalancer,
    "cagrad": CAGradBalancer,
    "imtl_g": ImpartialBalancer,
    "nash_mtl": NashMTLBalancer,
    "aligned_mtl": AlignedMTLBalancer,
    "upgrad": UPGradBalancer,
    "fairgrad": FairGradBalancer,
}
