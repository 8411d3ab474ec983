"""How are the weights moved?

Steps:

1. Every weight with two or more dimensions is seen as a matrix [out, in * kernel] and gets an
   orthogonalised momentum step: the momentum's singular values are pushed towards one by a few
   Newton-Schulz steps, so that a short run also moves the directions with small gradients.
2. Every bias and norm parameter gets an AdamW step.
3. Both share one schedule: warm up, hold, decay linearly to zero.

Progress is a share of the time budget, hence the decay ends when the time does, on any machine.
The module knows nothing about the network.
"""

from collections.abc import Callable

import torch
from torch import nn

# Newton-Schulz coefficients of the quintic iteration that grows small singular values fast.
QUINTIC = (3.4445, -4.7750, 2.0315)
QUINTIC_STEPS = 5
MOMENTUM = 0.95
# Makes an orthogonal step as large as a typical Adam step, so that both share one rate.
MATCH = 0.2


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


class OrthogonalMomentum(torch.optim.Optimizer):
    """Nesterov momentum whose step is orthogonalised, with decoupled weight decay."""

    def __init__(self, parameters: list[nn.Parameter], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["weight_decay"])

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


class Mover:
    """Both optimisers behind one step, with gradient clipping.

    Weights of residual branches take the rate, those of the linear paths a share of it.
    """

    def __init__(
        self, module: nn.Module, is_branch: Callable[[str], bool], weight_decay: float
    ) -> None:
        named = list(module.named_parameters())
        self.parameters = [value for _, value in named]
        self.optimizers = [
            (optimizer, branch)
            for branch in (False, True)
            for optimizer in pair([v for n, v in named if is_branch(n) == branch], weight_decay)
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


def pair(parameters: list[nn.Parameter], weight_decay: float) -> list[torch.optim.Optimizer]:
    """Return the optimisers of the matrices and of the vectors among the parameters."""
    matrices = [value for value in parameters if value.ndim > 1 and value.numel() > len(value)]
    vectors = [value for value in parameters if value.ndim == 1 or value.numel() == len(value)]
    return [
        OrthogonalMomentum(matrices, weight_decay),
        torch.optim.AdamW(vectors, betas=(0.9, 0.98), weight_decay=0.0),
    ]
