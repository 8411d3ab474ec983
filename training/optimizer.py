"""How are the weights moved?

Steps:

1. Every weight with two or more dimensions gets a step that also moves the directions with small
   gradients, so that a short run is enough; a family's recipe says which:
   `OrthogonalMomentum` sees it as a matrix [out, in * kernel] and pushes the singular values of its
   momentum towards one by a few Newton-Schulz steps;
   `RotatedAdam` takes an Adam step along the axes that gradients have had so far, those of outputs,
   of inputs and of taps each for itself. It keeps more of what a computed start knows.
2. Every bias and norm parameter gets an AdamW step.
3. Both share one schedule: warm up, hold, decay linearly to zero.

Progress is a share of the time budget, hence the decay ends when the time does, on any machine.
The module knows nothing about the network.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import nn

# Newton-Schulz coefficients of the quintic iteration that grows small singular values fast.
QUINTIC = (3.4445, -4.7750, 2.0315)
QUINTIC_STEPS = 5
MOMENTUM = 0.95
# Makes an orthogonal step as large as a typical Adam step, so that both share one rate.
MATCH = 0.2
# Of `RotatedAdam`: momentum, memory of spreads and squares, and steps between turns of the axes.
ROTATED_MOMENTUM, SPREAD, TURN_EVERY = 0.95, 0.98, 10
TINY = 1e-10


def schedule(progress: float, warm_up: float, decay_from: float) -> float:
    """Return the factor of the learning rate at a share of the budget between 0 and 1."""
    rise = min(1.0, progress / warm_up)
    fall = min(1.0, (1.0 - progress) / (1.0 - decay_from))
    return max(0.0, min(rise, fall))


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix with its singular values pushed towards one."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(QUINTIC_STEPS):
        gram = wide @ wide.T
        wide = a * wide + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class MatrixOptimizer(torch.optim.Optimizer, ABC):
    """Moves one weight after the other, each by itself, with decoupled weight decay."""

    def __init__(self, parameters: list[nn.Parameter], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["weight_decay"])

    @abstractmethod
    def _move(self, parameter: nn.Parameter, rate: float, weight_decay: float) -> None:
        """Take a step with one parameter."""


class OrthogonalMomentum(MatrixOptimizer):
    """Nesterov momentum whose step is orthogonalised."""

    def _move(self, parameter: nn.Parameter, rate: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1.0 - MOMENTUM)
        ahead = parameter.grad.lerp(momentum, MOMENTUM)
        matrix = ahead.reshape(ahead.shape[0], -1)
        size = MATCH * max(matrix.shape) ** 0.5
        parameter.mul_(1.0 - rate * weight_decay)
        parameter.add_(orthogonalise(matrix).view_as(parameter), alpha=-rate * size)


class RotatedAdam(MatrixOptimizer):
    """Adam in the axes of a weight's own gradients, one set of axes for each of its dimensions."""

    def _move(self, parameter: nn.Parameter, rate: float, weight_decay: float) -> None:
        # [out, in, taps]
        gradient = parameter.grad.reshape(*parameter.shape[:2], -1)
        state = self.state[parameter]
        if not state:
            state["count"] = 0
            state["momentum"] = torch.zeros_like(gradient)
            state["square"] = torch.zeros_like(gradient)
            state["spread"] = [torch.zeros(size, size) for size in gradient.shape]
            state["axes"] = [torch.eye(size) for size in gradient.shape]
        self._turn(state, gradient)
        state["count"] += 1
        momentum = state["momentum"].lerp_(gradient, 1.0 - ROTATED_MOMENTUM)
        square = state["square"].lerp_(rotated(gradient, state["axes"]).square(), 1.0 - SPREAD)
        ahead = rotated(momentum, state["axes"]) / (1.0 - ROTATED_MOMENTUM ** state["count"])
        ahead /= (square / (1.0 - SPREAD ** state["count"])).sqrt() + TINY
        back = rotated(ahead, [axes.T for axes in state["axes"]])
        parameter.mul_(1.0 - rate * weight_decay)
        parameter.add_(back.reshape(parameter.shape), alpha=-rate)

    def _turn(self, state: dict, gradient: torch.Tensor) -> None:
        """Follow the gradients with the axes, and take the squares along."""
        for dimension, spread in enumerate(state["spread"]):
            rows = gradient.movedim(dimension, 0).flatten(1)
            spread.lerp_(rows @ rows.T, 1.0 - SPREAD if state["count"] else 1.0)
        if state["count"] % TURN_EVERY:
            return
        axes = [torch.linalg.eigh(spread)[1] for spread in state["spread"]]
        shares = [(new.T @ old).square().T for new, old in zip(axes, state["axes"], strict=True)]
        state["square"] = rotated(state["square"], shares)
        state["axes"] = axes


def rotated(values: torch.Tensor, axes: list[torch.Tensor]) -> torch.Tensor:
    """Return [out, in, taps] with each dimension multiplied by the transpose of its axes."""
    return torch.einsum("abc,ax,by,cz->xyz", values, *axes)


class Mover:
    """Both optimisers behind one step, with gradient clipping.

    Weights of residual branches take the rate, those of the linear paths a share of it.
    """

    def __init__(
        self,
        module: nn.Module,
        is_branch: Callable[[str], bool],
        weight_decay: float,
        matrices: type[MatrixOptimizer],
    ) -> None:
        named = list(module.named_parameters())
        self.parameters = [value for _, value in named]
        self.optimizers = [
            (optimizer, branch)
            for branch in (False, True)
            for optimizer in pair(
                [v for n, v in named if is_branch(n) == branch], weight_decay, matrices
            )
        ]

    def step(self, rate: float, linear_share: float) -> float:
        """Take one step and return the gradient's norm before clipping."""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, 1.0))
        for optimizer, branch in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate if branch else rate * linear_share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> list[dict]:
        """Return what a checkpoint needs."""
        return [optimizer.state_dict() for optimizer, _ in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        """Continue from a checkpoint."""
        for (optimizer, _), state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def pair(
    parameters: list[nn.Parameter], weight_decay: float, matrices: type[MatrixOptimizer]
) -> list[torch.optim.Optimizer]:
    """Return the optimisers of the matrices and of the vectors among the parameters."""
    wide = [value for value in parameters if value.ndim > 1 and value.numel() > len(value)]
    vectors = [value for value in parameters if value.ndim == 1 or value.numel() == len(value)]
    return [
        matrices(wide, weight_decay),
        torch.optim.AdamW(vectors, betas=(0.9, 0.98), weight_decay=0.0),
    ]
