"""How does a function that torch compiles call the engine?

By leaving its graph: planning, tiles and weights that come and go are no graph, and some of the
kernels have no form that could be traced. `outside_graphs` makes a break of a call; inside it
nothing is compiled. `torch.export` and `torch.jit.trace` know no breaks, so that the call is
refused there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

from ..errors import InputError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def outside_graphs(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function`, around which a graph that is being traced breaks.

    torch's compiler is asked only where one is traced, since importing it takes a second. Raises
    `InputError` under `torch.export` and `torch.jit.trace`.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if is_exporting():
            raise _refusal(function.__qualname__, "torch.export")
        if torch.compiler.is_compiling():
            apart = torch.compiler.disable(function, reason="the engine runs outside of graphs")
            return cast("Callable[Arguments, Result]", apart)(*args, **kwargs)
        if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            raise _refusal(function.__qualname__, "torch.jit.trace")
        return function(*args, **kwargs)

    return call


def _refusal(name: str, tracer: str) -> InputError:
    return InputError(
        f"{name} runs outside of graphs, and {tracer} takes no call that does. Export the VAE's own"
        " class."
    )


def is_exporting() -> bool:
    """Whether `torch.export` traces this call; older versions of torch cannot tell."""
    ask = getattr(torch.compiler, "is_exporting", None)
    return ask is not None and ask()
