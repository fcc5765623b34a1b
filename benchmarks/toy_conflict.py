"""The toy problem of two conflicting losses (Liu et al. 2021, appendix; Navon et al. 2022, section 5.1), with a
picture.

Run: python benchmarks/toy_conflict.py [--steps 100000] [--picture benchmarks/toy_conflict.png]

Five starts, the first loss scaled by 1 and by 0.1, Adam at 0.001, float64. All starts and both scales of all methods
go in one array; the methods are their closed forms for two tasks, which tests hold against the library's own on the
way. "On the front" is |x2 + 8.355| < 0.15 and |x1| <= 7.05.
"""

import argparse
from pathlib import Path

import numpy as np

STARTS = np.array([[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]])
SCALES = (1.0, 0.1)
LEARNING_RATE = 1e-3
FAMO_LEARNING_RATE = 0.025
FAMO_BOUND = -21.0
CAGRAD_C = 0.5
LEAST = 5e-6


def losses_and_gradients(points: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return losses (points, 2) and their gradients (points, 2, 2) at points (points, 2)."""
    first, second = points.T
    slope = 1 - np.tanh(second) ** 2
    lift, fall = np.tanh(0.5 * second), np.tanh(-0.5 * second)
    # A clamp passes the gradient on where it holds with equality, as torch's does.
    up, down = np.maximum(lift, 0), np.maximum(fall, 0)
    half = 0.5 * (1 - lift**2)
    up_slope, down_slope = np.where(lift >= 0, half, 0.0), np.where(fall >= 0, -half, 0.0)
    losses, gradients = [], []
    for offset, sign, centre, scale in ((-3.5, 1, 7.0, scales), (3.5, -1, -7.0, np.ones_like(scales))):
        inner = -0.5 * first + offset + sign * np.tanh(second)
        reach = np.maximum(np.abs(inner), LEAST)
        ridge = np.log(reach) + 6
        along = np.where(np.abs(inner) >= LEAST, np.sign(inner) / reach, 0.0)
        bowl = ((centre - first) ** 2 + 0.1 * (second + 8) ** 2) / 10 - 20
        losses.append(scale * (up * ridge + down * bowl))
        by_first = up * along * -0.5 + down * (first - centre) / 5
        by_second = up_slope * ridge + up * along * sign * slope + down_slope * bowl + down * (second + 8) / 50
        gradients.append(scale[:, None] * np.stack([by_first, by_second], axis=1))
    return np.stack(losses, axis=1), np.stack(gradients, axis=1)


def combine(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return the weighted sums (points, 2) of gradients."""
    return (weights[:, :, None] * gradients).sum(axis=1)


def products(gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return |g1|^2, g1 g2 and |g2|^2."""
    first, second = gradients[:, 0], gradients[:, 1]
    return (first**2).sum(1), (first * second).sum(1), (second**2).sum(1)


def pcgrad(gradients: np.ndarray) -> np.ndarray:
    """Each gradient without its part against the other."""
    a, b, c = products(gradients)
    clash = np.minimum(b, 0)
    return combine(np.stack([1 - clash / np.maximum(a, 1e-300), 1 - clash / np.maximum(c, 1e-300)], axis=1), gradients)


def mgda(gradients: np.ndarray) -> np.ndarray:
    """The shortest mixture."""
    a, b, c = products(gradients)
    share = np.clip((c - b) / np.maximum(a + c - 2 * b, 1e-300), 0, 1)
    return combine(np.stack([share, 1 - share], axis=1), gradients)


def cagrad(gradients: np.ndarray) -> np.ndarray:
    """The best worst case around the mean, the mixture found on a grid that is refined once."""
    mean = gradients.mean(axis=1)
    radius = CAGRAD_C * np.linalg.norm(mean, axis=1)
    low, high = np.zeros(len(mean)), np.ones(len(mean))
    for _ in range(2):
        shares = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 41)
        mixed = shares[..., None] * gradients[:, None, 0] + (1 - shares)[..., None] * gradients[:, None, 1]
        lengths = np.linalg.norm(mixed, axis=2)
        best = ((mixed * mean[:, None]).sum(2) + radius[:, None] * lengths).argmin(axis=1)
        index = np.arange(len(mean))
        found, length = mixed[index, best], lengths[index, best]
        step = (high - low) / 40
        middle = shares[index, best]
        low, high = np.maximum(middle - step, 0), np.minimum(middle + step, 1)
    return mean + (radius / np.maximum(length, 1e-12))[:, None] * found


def imtl_g(gradients: np.ndarray) -> np.ndarray:
    """The bisector with weights that sum to 1."""
    a, _, c = products(gradients)
    weights = np.stack([np.sqrt(c), np.sqrt(a)], axis=1)
    return combine(weights / np.maximum(weights.sum(1, keepdims=True), 1e-300), gradients)


def nash_mtl(gradients: np.ndarray) -> np.ndarray:
    """The bargaining solution, at most 1 long."""
    a, b, c = products(gradients)
    a, c = np.maximum(a, 1e-12), np.maximum(c, 1e-12)
    first = 1 / np.sqrt(np.maximum(a + b * np.sqrt(a / c), 1e-12))
    found = combine(np.stack([first, first * np.sqrt(a / c)], axis=1), gradients)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1)


DIRECTIONS = {"pcgrad": pcgrad, "mgda": mgda, "cagrad": cagrad, "imtl_g": imtl_g, "nash_mtl": nash_mtl}
METHODS = ("sum", "random", *DIRECTIONS, "famo")


class Adam:
    """Adam on an array."""

    def __init__(self, shape: tuple[int, ...], learning_rate: float) -> None:
        self.rate, self.step = learning_rate, 0
        self.mean, self.square = np.zeros(shape), np.zeros(shape)

    def change(self, gradients: np.ndarray) -> np.ndarray:
        """Return what to add."""
        self.step += 1
        self.mean = 0.9 * self.mean + 0.1 * gradients
        self.square = 0.999 * self.square + 0.001 * gradients**2
        size = np.sqrt(self.square / (1 - 0.999**self.step)) + 1e-8
        return -self.rate * self.mean / (1 - 0.9**self.step) / size


def run(steps: int, every: int = 500, methods: tuple[str, ...] = METHODS) -> dict[str, np.ndarray]:
    """Return by method the points on the way, (records, scales, starts, 2), one every so many steps."""
    size = len(SCALES) * len(STARTS)
    points = np.tile(STARTS, (len(SCALES) * len(methods), 1))
    scales = np.tile(np.repeat(SCALES, len(STARTS)), len(methods))
    places = {name: slice(number * size, (number + 1) * size) for number, name in enumerate(methods)}
    adam, logits, famo = Adam(points.shape, LEARNING_RATE), np.zeros((size, 2)), Adam((size, 2), FAMO_LEARNING_RATE)
    generator = np.random.default_rng(0)
    bounds = FAMO_BOUND * np.stack([scales[:size], np.ones(size)], axis=1)
    records = []
    losses, gradients = losses_and_gradients(points, scales)
    for step in range(steps + 1):
        if step % every == 0:
            records.append(points.copy())
        directions = gradients.sum(axis=1)
        for name, own in places.items():
            if name in DIRECTIONS:
                directions[own] = DIRECTIONS[name](gradients[own])
            if name == "random":
                drawn = np.exp(generator.normal(size=(size, 2)))
                directions[own] = combine(drawn / drawn.sum(1, keepdims=True), gradients[own])
            if name == "famo":
                shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                weights = shares / (losses[own] - bounds + 1e-8)
                directions[own] = combine(weights / weights.sum(1, keepdims=True), gradients[own])
        points = points + adam.change(directions)
        before = losses
        losses, gradients = losses_and_gradients(points, scales)
        if "famo" in places:
            own = places["famo"]
            falls = np.log(before[own] - bounds + 1e-8) - np.log(losses[own] - bounds + 1e-8)
            logits = logits + famo.change(shares * (falls - (shares * falls).sum(1, keepdims=True)))
    path = np.stack(records)
    return {name: path[:, own].reshape(len(path), len(SCALES), len(STARTS), 2) for name, own in places.items()}


def on_front(points: np.ndarray) -> np.ndarray:
    """Whether points (..., 2) lie on the Pareto front."""
    return (np.abs(points[..., 1] + 8.355) < 0.15) & (np.abs(points[..., 0]) <= 7.05)


def draw(paths: dict[str, np.ndarray], target: Path) -> None:
    """Draw the five paths of every method over the mean loss, and the front."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grid = np.stack(np.meshgrid(np.linspace(-10, 10, 161), np.linspace(-10, 10, 161)), axis=-1)
    figure, axes = plt.subplots(len(SCALES), len(paths), figsize=(2.6 * len(paths), 5.6), sharex=True, sharey=True)
    for row, scale in enumerate(SCALES):
        values, _ = losses_and_gradients(grid.reshape(-1, 2), np.full(grid[..., 0].size, scale))
        mean = values.mean(axis=1).reshape(grid.shape[:2])
        for column, (name, path) in enumerate(paths.items()):
            own = axes[row, column]
            own.contourf(grid[..., 0], grid[..., 1], mean, levels=24, cmap="Greys_r", alpha=0.35, antialiased=True)
            own.plot([-7, 7], [-8.355, -8.355], color="tab:red", linewidth=3, label="Pareto front")
            for start in range(len(STARTS)):
                own.plot(*path[:, row, start].T, linewidth=1.4)
                own.plot(*path[0, row, start], "o", color="black", markersize=3)
                own.plot(*path[-1, row, start], "*", color="black", markersize=8)
            if row == 0:
                own.set_title(name)
            if column == 0:
                own.set_ylabel(f"first loss times {scale}")
    axes[0, 0].legend(loc="upper left", fontsize=7)
    figure.suptitle("Five starts (dots) and where each method ends (stars)")
    figure.tight_layout()
    figure.savefig(target, dpi=90)


def main() -> None:
    """Print how many starts reach the front and where they end; draw the paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--picture", type=Path, help="a PNG file to draw to; needs matplotlib")
    given = parser.parse_args()
    every = max(given.steps // 200, 1)
    paths = run(given.steps, every)
    half = len(next(iter(paths.values()))) // 2
    print(f"of {len(STARTS)} starts on the front after {given.steps // 2:,} and {given.steps:,} steps; where they end")
    for name, path in paths.items():
        for row, scale in enumerate(SCALES):
            counts = [int(on_front(path[place, row]).sum()) for place in (half, -1)]
            ends = "  ".join(f"({x:.2f}, {y:.2f})" for x, y in path[-1, row])
            print(f"{name:9} first loss times {scale:<4}  {counts[0]} {counts[1]}   {ends}")
    if given.picture:
        draw(paths, given.picture)
        print(f"The picture lies in {given.picture}.")


if __name__ == "__main__":
    main()
