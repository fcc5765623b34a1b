"""Task weights of the loss: given, drawn, or learned from the tasks' losses and gradients.

Every weighting knows which tasks a step holds. Where a published rule needs the losses of all tasks at once, it reads
their running means, to which a task adds in the steps that have it; with all tasks in every step and a smoothing of 1
that is the published rule. Weights multiply the tasks' own (`TaskSpec.weight`), and their mean is about 1, so that
they mean the same as fixed ones.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from .running_means import LearnedVector, RunningMeans
from .weighting_base import LossWeighting, Needs, WeightingOptions

# Losses below it count as it, so that a solved task does not take everything.
_LEAST_LOSS = 1e-3


class FixedLossWeighting(LossWeighting):
    """The weights that the task rows give, 1 by default: well-chosen ones are the baseline to beat."""

    def factors(self) -> torch.Tensor:
        return torch.ones_like(self.fixed_weights)


class ScaledLossWeighting(LossWeighting):
    """1 / the loss of a uniform prediction (1 / log of the number of classes), as in Muppet (Aghajanyan et al. 2021,
    section 3.2); scaled to a mean of 1.
    """

    def factors(self) -> torch.Tensor:
        inverses = 1 / torch.tensor(self.options.chance_losses, dtype=torch.float64)
        return inverses / inverses.mean()


class RandomLossWeighting(LossWeighting):
    """softmax of normal numbers, drawn for every step (RLW, Lin et al. 2022, section 3.1), times the number of tasks.

    What does not beat it has shown nothing.
    """

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        super().__init__(fixed_weights, options)
        self.step = 0

    def factors(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + self.step)
        drawn = torch.randn(self.num_tasks, generator=generator, dtype=torch.float64)
        return self.num_tasks * drawn.softmax(dim=0)

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        self.step += 1

    def state(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]


class UncertaintyLossWeighting(LossWeighting):
    """Weights exp(-s_t), s_t the learned logarithm of the task's variance (Kendall et al. 2018, equation 7).

    sum_t exp(-s_t) L_t + s_t over the tasks of the step: twice the paper's form, so that all weights start at 1. A
    task that the step lacks keeps its s_t; all settle where exp(s_t) = L_t.
    """

    needs = "previous_losses"

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        super().__init__(fixed_weights, options)
        self.log_weights = LearnedVector([0.0] * self.num_tasks, self.options.learning_rate)

    def factors(self) -> torch.Tensor:
        return torch.exp(self.log_weights.values)

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        self.log_weights.move(self.factors() * losses.cpu().double() - 1, present)

    def state(self) -> dict[str, Any]:
        return self.log_weights.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.log_weights.load_state(state)


class ImpartialLossWeighting(UncertaintyLossWeighting):
    """IMTL-L (Liu et al. 2021, equation 6): sum_t exp(s_t) L_t - s_t, which is `uncertainty` with the sign of s_t
    turned; both names are known, and both stand here.
    """


class SmoothedLossWeighting(LossWeighting):
    """Weights that follow from the tasks' losses, or their running means."""

    needs: ClassVar[Needs] = "step_losses"

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        super().__init__(fixed_weights, options)
        self.losses = RunningMeans(self.num_tasks, self.options.smoothing)

    def factors(self) -> torch.Tensor:
        if not self.losses.seen.any():
            return torch.ones_like(self.fixed_weights)
        return self.from_losses(self.losses.values().clamp(min=_LEAST_LOSS))

    @abstractmethod
    def from_losses(self, losses: torch.Tensor) -> torch.Tensor:
        """Return the factors (tasks,) that follow from losses (tasks,)."""

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        self.losses.update(losses, present)

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.losses.load_state(state["losses"])


class SoftUncertaintyLossWeighting(SmoothedLossWeighting):
    """UW-SO (Kirchdorfer et al. 2024, equation 6): T softmax_t(1 / (temperature L_t)); 10 by default, to be tuned."""

    def from_losses(self, losses: torch.Tensor) -> torch.Tensor:
        temperature = self.options.temperature or 10.0
        return self.num_tasks * torch.softmax(1 / (temperature * losses), dim=0)


class GeometricLossWeighting(SmoothedLossWeighting):
    """GLS (Chennupati et al. 2019, equation 3): the T-th root of the product of the losses, whose gradient weighs a
    task by that mean over its loss.
    """

    def from_losses(self, losses: torch.Tensor) -> torch.Tensor:
        return torch.exp(torch.log(losses).mean()) / losses


class ScaleInvariantLossWeighting(SmoothedLossWeighting):
    """SI: the sum of the logarithms of the losses (Navon et al. 2022, section 5), whose gradient weighs a task by 1 /
    its loss.
    """

    def from_losses(self, losses: torch.Tensor) -> torch.Tensor:
        return 1 / losses


class SmoothTchebycheffLossWeighting(SmoothedLossWeighting):
    """STCH in its form for multitask learning (Lin et al. 2024, equation 11 and its code): T mu log sum_t exp(log(L_t
    / nadir_t) / mu), the nadir the losses at the end of the first epoch; until then the mean.

    mu is the temperature, 0.5 by default: towards 0 only the worst task counts.
    """

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        super().__init__(fixed_weights, options)
        self.step = 0
        self.nadir: torch.Tensor | None = None

    def from_losses(self, losses: torch.Tensor) -> torch.Tensor:
        if self.nadir is None:
            return torch.ones_like(losses)
        ratios = torch.log(losses / self.nadir) / (self.options.temperature or 0.5)
        return self.num_tasks * ratios.softmax(dim=0) / losses

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        super().observe(losses, present)
        self.step += 1
        if self.nadir is None and self.step >= self.options.epoch_steps:
            self.nadir = self.losses.values().clamp(min=_LEAST_LOSS)

    def state(self) -> dict[str, Any]:
        nadir = None if self.nadir is None else self.nadir.tolist()
        return {**super().state(), "step": self.step, "nadir": nadir}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.step = state["step"]
        self.nadir = None if state["nadir"] is None else torch.tensor(state["nadir"], dtype=torch.float64)


class DynamicAverageLossWeighting(LossWeighting):
    """DWA (Liu, Johns and Davison 2019, equation 7): T softmax_t(r_t / temperature), r_t the task's mean loss of the
    last epoch over that of the one before; 1 in the first two epochs. Temperature 2 by default.
    """

    needs = "previous_losses"

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        super().__init__(fixed_weights, options)
        self.sums = torch.zeros(2, self.num_tasks, dtype=torch.float64)
        self.step = 0
        # Mean losses of the epochs that ended, the last two.
        self.epochs: list[list[float]] = []

    def factors(self) -> torch.Tensor:
        if len(self.epochs) < 2:
            return torch.ones_like(self.fixed_weights)
        before, last = torch.tensor(self.epochs, dtype=torch.float64).clamp(min=_LEAST_LOSS)
        return self.num_tasks * torch.softmax(last / before / (self.options.temperature or 2.0), dim=0)

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        seen = present.cpu().double()
        self.sums += torch.stack([losses.cpu().double() * seen, seen])
        self.step += 1
        if self.step % self.options.epoch_steps == 0:
            means = self.sums[0] / self.sums[1].clamp(min=1)
            # A task that an epoch lacked stands where it stood.
            last = torch.tensor(self.epochs[-1], dtype=torch.float64) if self.epochs else torch.ones_like(means)
            self.epochs = [*self.epochs[-1:], torch.where(self.sums[1] > 0, means, last).tolist()]
            self.sums.zero_()

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums.tolist(), "step": self.step, "epochs": self.epochs}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.sums = torch.tensor(state["sums"], dtype=torch.float64)
        self.step, self.epochs = state["step"], [list(epoch) for epoch in state["epochs"]]


class FamoLossWeighting(SmoothedLossWeighting):
    """FAMO (Liu et al. 2023, algorithm 1): the logarithms of all losses shall fall alike fast.

    The step goes down sum_t z_t log L_t / sum_t z_t / L_t, z = softmax(w); w then takes an Adam step along the
    Jacobian of the softmax times the falls log L_t(before) - log L_t(after) on the same batches, 0 for tasks that the
    step lacks. Adam's weight decay on w is 1e-3, the best of the paper's three.
    """

    needs = "losses_after"

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        super().__init__(fixed_weights, options)
        self.logits = LearnedVector([0.0] * self.num_tasks, self.options.learning_rate, weight_decay=1e-3)

    def from_losses(self, losses: torch.Tensor) -> torch.Tensor:
        shares = self.logits.values.softmax(dim=0) / losses
        return self.num_tasks * shares / shares.sum()

    def observe_after(self, before: torch.Tensor, after: torch.Tensor, present: torch.Tensor) -> None:
        falls = torch.log(before.clamp(min=_LEAST_LOSS)) - torch.log(after.clamp(min=_LEAST_LOSS))
        falls = torch.where(present, falls, torch.zeros_like(falls)).cpu().double()
        shares = self.logits.values.softmax(dim=0)
        # The transposed Jacobian of a softmax: diag(z) - z z^T.
        gradient = shares * (falls - (shares * falls).sum())
        self.logits.move(gradient, torch.ones(self.num_tasks, dtype=torch.bool))

    def state(self) -> dict[str, Any]:
        return {**super().state(), "logits": self.logits.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.logits.load_state(state["logits"])


class GradNormLossWeighting(LossWeighting):
    """GradNorm (Chen et al. 2018, algorithm 1): tasks that have learned less than the others get larger gradients.

    G_t = w_t |grad_W L_t| in the last shared layer W; w takes an Adam step on sum_t |G_t - mean(G) (r_t /
    mean(r))^alpha|, the target held fixed, r_t = L_t / L_t(0); then the w are scaled to a sum of T. Norms and losses
    are running means, L_t(0) is a task's first loss, and only the tasks of the step move.
    """

    needs = "gradient_norms"

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        super().__init__(fixed_weights, options)
        self.learned = LearnedVector([1.0] * self.num_tasks, self.options.learning_rate)
        self.losses = RunningMeans(self.num_tasks, self.options.smoothing)
        self.norms = RunningMeans(self.num_tasks, self.options.smoothing)
        self.first_losses = torch.zeros(self.num_tasks, dtype=torch.float64)

    def factors(self) -> torch.Tensor:
        return self.learned.values

    def observe_gradients(self, norms: torch.Tensor, losses: torch.Tensor, present: torch.Tensor) -> None:
        new = present.cpu() & ~self.losses.seen
        self.first_losses = torch.where(new, losses.cpu().double().clamp(min=_LEAST_LOSS), self.first_losses)
        self.losses.update(losses, present)
        self.norms.update(norms, present)
        seen = self.losses.seen
        ratios = self.losses.values() / torch.where(seen, self.first_losses, self.losses.values())
        weighted = self.learned.values * self.norms.values()
        target = weighted[seen].mean() * (ratios / ratios[seen].mean()) ** self.options.restoring_force
        self.learned.move(torch.sign(weighted - target) * self.norms.values(), present)
        moved = self.learned.values.clamp(min=1e-6)
        self.learned.set(moved * self.num_tasks / moved.sum())

    def state(self) -> dict[str, Any]:
        return {
            "learned": self.learned.state(),
            "losses": self.losses.state(),
            "norms": self.norms.state(),
            "first_losses": self.first_losses.tolist(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.learned.load_state(state["learned"])
        self.losses.load_state(state["losses"])
        self.norms.load_state(state["norms"])
        self.first_losses = torch.tensor(state["first_losses"], dtype=torch.float64)


LOSS_WEIGHTINGS: dict[str, type[LossWeighting]] = {
    "fixed": FixedLossWeighting,
    "scaled": ScaledLossWeighting,
    "random": RandomLossWeighting,
    "uncertainty": UncertaintyLossWeighting,
    "imtl_l": ImpartialLossWeighting,
    "uw_so": SoftUncertaintyLossWeighting,
    "gls": GeometricLossWeighting,
    "si": ScaleInvariantLossWeighting,
    "stch": SmoothTchebycheffLossWeighting,
    "dwa": DynamicAverageLossWeighting,
    "famo": FamoLossWeighting,
    "gradnorm": GradNormLossWeighting,
}
