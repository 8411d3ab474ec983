"""Does a live part compute what its class is known for?

A lowering reads weights, shapes and what it names. Whatever else changes the result is looked at
here, for every part below a root, and what is not known is refused with its path:

1. Its class is one that the family knows by name, or a subclass that redefines no method of it; nor
   has anybody put a method of his own into the class, or over the instance.
2. No hook sees what goes in or comes out. Those that only bring weights (accelerate's and
   diffusers' offloading and casting) do no harm.
3. Attributes that its class reads, and no lowering does, have values that the engine computes with.
4. Weights are plain floating point tensors. Parametrised ones are read as the class reads them.

`check_doors` asks the first question of the methods of the whole network. What a family knows of
its own classes stands in its own file; torch's, which all share, in `TORCH`. Nothing is called and
no tensor read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import is_parametrized

from ..errors import LoweringError

_OWN_PACKAGE = __name__.removesuffix(".families.attributes")
_HARMLESS_METHODS = frozenset({"extra_repr", "reset_parameters"})
_REMOVE = "Take it away, or leave this VAE to its own class."


@dataclass(frozen=True, slots=True)
class Known:
    """What the engine relies on in one class.

    values: for an attribute that the class reads and no lowering does, the values under which the
        engine computes the same; an instance without the attribute passes.
    rule: what is wrong with an instance, as the rest of a sentence that begins with its path; None
        where all is well.
    """

    values: Mapping[str, tuple[object, ...]] = field(default_factory=dict[str, tuple[object, ...]])
    rule: Callable[[nn.Module], str | None] | None = None


def _drops(module: nn.Module) -> str | None:
    share = cast("Any", module).p
    if module.training and share > 0:
        return f"drops {share:.0%} of its input at random in training mode. Call eval() first."
    return None


def _pads_with_zeros(module: nn.Module) -> str | None:
    mode = cast("Any", module).padding_mode
    return None if mode == "zeros" else f"pads by {mode}; the engine pads with zeros."


TORCH: Mapping[str, Known] = {
    "torch.nn.modules.conv.Conv2d": Known(rule=_pads_with_zeros),
    "torch.nn.modules.conv.Conv3d": Known(rule=_pads_with_zeros),
    "torch.nn.modules.normalization.GroupNorm": Known(),
    "torch.nn.modules.activation.SiLU": Known(),
    "torch.nn.modules.dropout.Dropout": Known(rule=_drops),
    "torch.nn.modules.linear.Identity": Known(),
    "torch.nn.modules.linear.Linear": Known(),
    "torch.nn.modules.container.ModuleList": Known(),
}
"""torch's own classes, by full name."""

_UNPATCHED: dict[str, tuple[object, ...]] = {
    "weight_function": ([],),
    "bias_function": ([],),
    "weight_lowvram_function": (None,),
    "bias_lowvram_function": (None,),
}

HOST_OPERATIONS: Mapping[str, Known] = {
    "comfy.ops.disable_weight_init.Conv2d": Known(_UNPATCHED, _pads_with_zeros),
    "comfy.ops.disable_weight_init.Conv3d": Known(_UNPATCHED, _pads_with_zeros),
    "comfy.ops.disable_weight_init.GroupNorm": Known(_UNPATCHED),
    "comfy.ops.disable_weight_init.Linear": Known(_UNPATCHED),
}
"""ComfyUI's own classes of torch's, whose weights go through functions where a patch is laid on."""


def plain(module: nn.Module) -> nn.Module:
    """`module` itself, without the wrapper that `torch.compile` puts around it."""
    return vars(module).get("_modules", {}).get("_orig_mod", module)


def check(root: nn.Module, path: str, known: Mapping[str, Known]) -> None:
    """`LoweringError` with the path of the first part at or below `root` that is not what its class
    is known for.

    path: of `root`. known: the family's classes by full name, "package.module.Class".
    """
    _check_global_hooks()
    for where, part in _parts(root, path):
        fault = _fault(part, known)
        if fault is not None:
            raise LoweringError(f"{where} {fault}")


def check_doors(module: nn.Module, doors: Mapping[str, Iterable[str]]) -> None:
    """`LoweringError` where `module` is of a class in `doors`, and one of the methods named there
    is no longer that class's.

    What this package laid there itself is no fault, nor is what torch and accelerate wrap around a
    method. A module of another class has no doors that are known: its parts alone count.
    """
    kind = type(module)
    found = next((cls for cls, name in _ancestry(kind) if name in doors), None)
    if found is None:
        return
    for name in doors[full_name(found)]:
        own, method = getattr(found, name, None), getattr(kind, name, None)
        if method is not own or not _is_own(_unwrapped(own), found):
            raise LoweringError(_redefined(kind.__name__, name, method))
        laid = vars(module).get(name)
        if laid is not None and not _stands_for(laid, own, module):
            raise LoweringError(_redefined(f"this {kind.__name__}", name, laid))


def full_name(cls: type) -> str:
    """ "package.module.Class"."""
    return f"{cls.__module__}.{cls.__qualname__}"


@functools.lru_cache(maxsize=256)
def _ancestry(cls: type) -> tuple[tuple[type, str], ...]:
    return tuple((base, full_name(base)) for base in cls.__mro__)


def _parts(part: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """`part` and all below it, with their paths; parametrisations belong to the part itself."""
    part = plain(part)
    yield path, part
    parametrised = _is_parametrised(part)
    for name, child in part.named_children():
        if not (parametrised and name == "parametrizations"):
            yield from _parts(child, f"{path}.{name}")


def _is_parametrised(part: nn.Module) -> bool:
    return "parametrizations" in vars(part)["_modules"] and is_parametrized(part)


def _fault(part: nn.Module, known: Mapping[str, Known]) -> str | None:
    """What is wrong with `part`, as the rest of a sentence that begins with its path."""
    cls, name = next((one for one in _ancestry(type(part)) if one[1] in known), (None, ""))
    if cls is None:
        return (
            f"is a {full_name(type(part))}, which the engine does not know, and what it computes"
            " would be left out. Merge or remove adapters (LoRA), or leave this VAE to its own"
            " class."
        )
    facts = known[name]
    return (
        _method_fault(part, cls)
        or _hook_fault(part)
        or _value_fault(part, facts)
        or (facts.rule and facts.rule(part))
        or _tensor_fault(part)
    )


def _method_fault(part: nn.Module, cls: type) -> str | None:
    """A method that is not the class's own, in a subclass, in the class or on the instance."""
    kind, state = type(part), vars(part)
    for name in _methods(cls):
        own, method = getattr(cls, name, None), getattr(kind, name, None)
        if method is not own or not _is_own(own, cls):
            return _redefined("", name, method)
        laid = state.get(name)
        if laid is None or _stands_for(laid, own, part):
            continue
        if name != "forward" or not _only_brings_weights(part, own):
            return _redefined("", name, laid)
    return None


def _redefined(owner: str, name: str, by: object) -> str:
    inner = by.func if isinstance(by, functools.partial) else by
    what = f"{getattr(inner, '__module__', None)}.{getattr(inner, '__qualname__', repr(inner))}"
    sentence = f"has a {name} of its own ({what}), which the engine would not run. {_REMOVE}"
    return f"{owner} {sentence}" if owner else sentence


@functools.lru_cache(maxsize=256)
def _methods(cls: type) -> tuple[str, ...]:
    """The methods by which a call of `cls` is computed."""
    names = {"__call__": None, "_call_impl": None, "forward": None}
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        for name, value in vars(base).items():
            if isinstance(value, FunctionType) and not name.startswith("__"):
                names[name] = None
    return tuple(name for name in names if name not in _HARMLESS_METHODS)


@functools.lru_cache(maxsize=256)
def _is_own(function: object, cls: type) -> bool:
    """Whether `function` was written where `cls` was, or by torch."""
    if not isinstance(function, FunctionType):
        return function is None
    package = function.__globals__.get("__name__", "").partition(".")[0]
    return package in ("torch", cls.__module__.partition(".")[0])


def _stands_for(laid: object, own: object, module: nn.Module) -> bool:
    """Whether `laid`, which lies over the method `own` of `module`, is that very method, or this
    package's.
    """
    if isinstance(laid, MethodType) and isinstance(laid.__self__, nn.Module):
        return laid.__self__ is module and _unwrapped(laid.__func__) is _unwrapped(own)
    function = _unwrapped(laid.__func__ if isinstance(laid, MethodType) else laid)
    name = getattr(function, "__globals__", {}).get("__name__", "")
    return name.startswith(f"{_OWN_PACKAGE}.") or function is _unwrapped(own)


_WRAPPERS = ("torch._dynamo.", "torch.utils._contextlib", "diffusers.utils.accelerate_utils")


def _unwrapped(method: object) -> Any:
    """What torch's decorators (compile, no_grad) and diffusers' one for offloading wrap."""
    found = cast("Any", method)
    while True:
        module = getattr(found, "__globals__", {}).get("__name__", "")
        inner = getattr(found, "_torchdynamo_orig_callable", getattr(found, "__wrapped__", None))
        if inner is None or not module.startswith(_WRAPPERS):
            return found
        found = inner.__func__ if isinstance(inner, MethodType) else inner


_BRINGING_HOOKS = frozenset(
    {
        "accelerate.hooks.AlignDevicesHook",
        "accelerate.hooks.CpuOffload",
        "accelerate.hooks.LayerwiseCastingHook",
        "accelerate.hooks.ModelHook",
        "accelerate.hooks.UserCpuOffloadHook",
        "diffusers.hooks.group_offloading.GroupOffloadingHook",
        "diffusers.hooks.group_offloading.LayerExecutionTrackerHook",
        "diffusers.hooks.group_offloading.LazyPrefetchGroupOffloadingHook",
        "diffusers.hooks.layerwise_casting.LayerwiseCastingHook",
        "diffusers.hooks.layerwise_casting.PeftInputAutocastDisableHook",
    }
)
"""Hooks that move or cast weights and leave inputs and results as they are."""


def _only_brings_weights(part: nn.Module, own: object) -> bool:
    """Whether the `forward` that lies over `part` is accelerate's or diffusers', with hooks that
    change no value around the class's own.
    """
    state: dict[str, Any] = vars(part)
    registry = state.get("_diffusers_hook")
    hooks = [*_accelerate_hooks(state.get("_hf_hook")), *_diffusers_hooks(registry)]
    if not hooks or any(_kind(hook) not in _BRINGING_HOOKS for hook in hooks):
        return False
    laid = state["forward"]
    while hasattr(laid, "func"):  # a functools.partial
        if laid.func.__module__ not in ("accelerate.hooks", "diffusers.hooks.hooks"):
            return False
        inner = getattr(laid, "__wrapped__", None)
        # diffusers up to 0.35 wraps its own function, and keeps the first one in its registry
        laid = cast("Any", _first_forward(registry) if inner is laid.func else inner)
    return _stands_for(laid, own, part)


def _first_forward(registry: Any) -> Any:
    first = registry._fn_refs[0]
    return first.original_forward or first.forward


def _kind(value: object) -> str:
    return full_name(type(value))


def _accelerate_hooks(hook: Any) -> list[Any]:
    if hook is None:
        return []
    if _kind(hook) == "accelerate.hooks.SequentialHook":
        return [inner for each in hook.hooks for inner in _accelerate_hooks(each)]
    return [hook]


def _diffusers_hooks(registry: Any) -> list[Any]:
    return [] if registry is None else list(registry.hooks.values())


def _hook_fault(part: nn.Module) -> str | None:
    state = vars(part)
    hooks = state["_forward_pre_hooks"] or state["_forward_hooks"]
    if not hooks:
        return None
    name = _named(next(iter(hooks.values())))
    return (
        f"has a forward hook ({name}), which the engine would not call: it calls no part. {_REMOVE}"
    )


def _check_global_hooks() -> None:
    """Hooks on all modules there are; torch's own only count and record."""
    state = vars(torch_module)
    groups = state["_global_forward_pre_hooks"], state["_global_forward_hooks"]
    for hook in (hook for group in groups for hook in group.values()):
        if not (getattr(hook, "__module__", None) or "").startswith("torch."):
            raise LoweringError(
                f"a forward hook on all modules ({_named(hook)}) is set, which the engine would not"
                " call: it calls no part. Remove it for the length of the call."
            )


def _named(hook: object) -> str:
    return getattr(hook, "__qualname__", type(hook).__qualname__)


def _value_fault(part: nn.Module, facts: Known) -> str | None:
    for name, allowed in facts.values.items():
        value = getattr(part, name, allowed[0])
        if value not in allowed:
            return (
                f"has {name} = {value!r}; the engine computes"
                f" {' or '.join(repr(one) for one in allowed)}."
            )
    return None


def _tensor_fault(part: nn.Module) -> str | None:
    """Weights that are stored as something else than their values, and noisy parametrisations."""
    weights: dict[str, Tensor | None] = vars(part)["_parameters"]
    for name, weight in weights.items():
        if weight is None:
            continue
        kind = type(weight)
        if kind is not nn.Parameter and not kind.__module__.startswith("torch."):
            return f"keeps its {name} as {full_name(kind)}; the engine takes plain tensors."
        if not weight.is_floating_point():
            return f"keeps its {name} as {weight.dtype}; the engine takes floating point weights."
    if _is_parametrised(part) and cast("Any", part).parametrizations.training:
        return "has parametrised weights in training mode, which may be noisy. Call eval() first."
    return None
