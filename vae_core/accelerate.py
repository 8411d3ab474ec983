"""How does a live diffusers VAE run through the engine, so that its pipelines need no change?

1. `accelerate` lowers the module, to see whether it can be run, and lays methods over all of the
   class's that run its parts (`_NAMES`), as attributes of that one instance. `forward`, every
   pipeline that holds it, and scripts that call `_encode` for moments go through these.
2. Each call looks at the module as it then is: its parts, dtype, device, `use_slicing`,
   `use_tiling`. What was changed is followed, and what cannot be run any more is refused. Hooks
   that offload weights bring them first, as they do for the class.
3. Results come back in the class's own types, and `restore` takes the attributes away again.

What decides, where the class and the settings both have a say:
- Frames and chunks of CogVideoX: `settings.layout` and `settings.chunk_frames`. Without settings
  the diffusers layout is taken, which gives the counts that pipelines reckon with. The aligned
  layout decodes n latent frames to 4(n-1)+1 also where n is even, and encodes what is not 4k+1
  frames to one latent frame more than the class, at which a video-to-video pipeline fails. The
  class's `num_sample_frames_batch_size` and `num_latent_frames_batch_size` hold where no settings
  are given, and are not read otherwise.
- Frames of Wan, Qwen-Image, Mochi and LTX: the diffusers layout means that frames behind the last
  4k+1 (6k+1 of Mochi, 8k+1 of LTX) are left out, as Wan's class does; the aligned layout treats
  them by `settings.frame_fit`. Chunks change nothing.
- Frames of HunyuanVideo: the diffusers layout means that counts other than 4k+1 are refused; 1.5's
  class breaks at them. The aligned layout treats them by `settings.frame_fit`. 1.0's class blends
  runs of 16 frames where there are more; here the clip goes through as a whole.
- `enable_tiling`: tiles stay exact, so that the result is that of the untiled network. The class's
  `tile_sample_min_height` and `..._width` bound them, its overlap factors are not needed; this is
  logged once. Blended tiles are had by settings with `tiling="blend"`, which are left as they are.
  `tiled_encode` and `tiled_decode` do the same whether or not it was called.
- `enable_slicing`: clips of a batch one by one, as in the class.
- Decoded frames are clamped to [-1, 1] where the class does so: for Wan and Qwen-Image.
- `torch.compile`: a graph that calls a method breaks there. `torch.export`, which cannot hold the
  engine, gets the class's own network, where the settings ask for the class's own result.

What it does not do: no class is patched, no weight, config or hook written to. No gradients come
back: an input that asks for one is refused, parameters that ask are used as they are. Group
offloading to a disk is refused.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from .class_doors import DROP_IN, KINDS, Kind, heeding, kind_of
from .errors import InputError
from .families.attributes import plain
from .running.autocast import joined
from .running.graphs import is_exporting, outside_graphs
from .settings import (
    SMALLEST_TILE_PX,
    Layout,
    NormScope,
    Reference,
    Settings,
    Tiling,
    check_settings,
)
from .vae import VideoVAE, from_module

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
    from diffusers.models.modeling_outputs import AutoencoderKLOutput

_log = logging.getLogger("vae_core")

_NAMES = ("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode")
"""The class's methods that run its parts."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
TargetType = TypeVar("TargetType")


def _door(
    method: Callable[Concatenate[_Engine, Arguments], Result],
) -> Callable[Concatenate[_Engine, Arguments], Result]:
    """`method` outside of graphs; where `torch.export` calls, the class's own of that name."""
    apart = outside_graphs(method)

    @functools.wraps(method)
    def call(self: _Engine, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not is_exporting():
            return apart(self, *args, **kwargs)
        _refuse_export(self.settings)
        module = self.vae.module
        return getattr(type(module), method.__name__)(module, *args, **kwargs)

    return call


@dataclass(frozen=True, slots=True)
class _Engine:
    """What stands in for the methods of one module.

    vae: the module; dtype, device and programs are looked up anew for each call.
    kind: which class it is of.
    settings: as they were given.
    covered: instance attributes of the same names that were there before, for `restore`.
    told: sentences that have been logged.
    """

    vae: VideoVAE
    kind: Kind
    settings: Settings
    covered: dict[str, Any]
    told: set[str] = field(default_factory=set[str])

    @_door
    def encode(
        self, x: Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """The class's `encode`: the posterior of `x` [b, c, t, h, w], by the engine.

        Raises `InputError` for an input that the engine does not take.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
        from diffusers.models.modeling_outputs import AutoencoderKLOutput

        moments = self._run(self._moments, self._clips(x), self._encoding())
        posterior = DiagonalGaussianDistribution(moments)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @_door
    def _encode(self, x: Tensor) -> Tensor:
        """The class's `_encode`: the moments of `x` in one batch, by the engine."""
        return self._run(self._moments, (x,), self._encoding())

    @_door
    def tiled_encode(self, x: Tensor) -> Tensor:
        """The class's `tiled_encode`: the moments of `x`, by exact tiles."""
        return self._run(self._moments, (x,), self._bounded(self._encoding()))

    @_door
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """The class's `decode`: the video of `z` [b, c, n, h/r, w/r], by the engine.

        Raises `InputError` for an input that the engine does not take.
        """
        return self._decoded(self._clips(z), self._decoding(), return_dict)

    @_door
    def _decode(
        self, z: Tensor, return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor] | Tensor:
        """The class's `_decode`: the video of `z` in one batch, by the engine."""
        return self._inner((z,), self._decoding(), return_dict)

    @_door
    def tiled_decode(
        self, z: Tensor, return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor] | Tensor:
        """The class's `tiled_decode`: the video of `z`, by exact tiles."""
        return self._inner((z,), self._bounded(self._decoding()), return_dict)

    def _inner(
        self, clips: tuple[Tensor, ...], settings: Settings, return_dict: bool
    ) -> DecoderOutput | tuple[Tensor] | Tensor:
        """The video of latents as the class's inner methods give it."""
        if self.kind.bare:
            return self._video(clips, settings)
        return self._decoded(clips, settings, return_dict)

    def _decoded(
        self, clips: tuple[Tensor, ...], settings: Settings, return_dict: bool
    ) -> DecoderOutput | tuple[Tensor]:
        """The video of latents in the class's own type."""
        from diffusers.models.autoencoders.vae import DecoderOutput

        video = self._video(clips, settings)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def _video(self, clips: tuple[Tensor, ...], settings: Settings) -> Tensor:
        """The video of latents, clamped where the class clamps."""
        video = self._run(VideoVAE.decode, clips, settings)
        return video.clamp_(-1, 1) if self.vae.family.clamps else video

    def _moments(self, vae: VideoVAE, video: Tensor, settings: Settings) -> Tensor:
        posterior = vae.encode(video, settings)
        for note in posterior.fitted.notes:
            self._tell(note)
        return posterior.moments

    def _clips(self, x: Tensor) -> tuple[Tensor, ...]:
        """The whole batch, or clip by clip where the module slices."""
        slices = cast("Any", self.vae.module).use_slicing
        return cast("tuple[Tensor, ...]", x.split(1)) if slices else (x,)

    def _run(
        self,
        work: Callable[[VideoVAE, Tensor, Settings], Tensor],
        clips: tuple[Tensor, ...],
        settings: Settings,
    ) -> Tensor:
        """The results of `work` for `clips`, joined, over the module as it now is."""
        module = cast("Any", self.vae.module)
        _refuse_gradients(clips[0])
        with _weights_at_hand(module):
            vae = replace(self.vae, dtype=module.dtype, device=_device(module, clips[0]))
            results = [work(vae, clip, settings) for clip in clips]
        return results[0] if len(results) == 1 else joined(results)

    def _encoding(self) -> Settings:
        return self._settings_now(self.kind.encoding)

    def _decoding(self) -> Settings:
        return self._settings_now(self.kind.decoding)

    def _settings_now(self, meant: Callable[[nn.Module, Settings], Settings]) -> Settings:
        """The settings as the class means them, with its tile as a bound where its tiling is on."""
        module = self.vae.module
        settings = meant(module, self.settings)
        return self._bounded(settings) if cast("Any", module).use_tiling else settings

    def _bounded(self, settings: Settings) -> Settings:
        """`settings` with the class's tile as a bound."""
        module = cast("Any", self.vae.module)
        if settings.tiling is Tiling.BLEND:
            return settings
        sides = (module.tile_sample_min_height, module.tile_sample_min_width)
        height, width = (max(int(side), SMALLEST_TILE_PX) for side in sides)
        if settings.tiling is Tiling.EXACT and settings.tile_px is not None:
            own = cast("tuple[int, int]", settings.tile_px)
            height, width = min(height, own[0]), min(width, own[1])
        self._tell(
            f"enable_tiling: the engine uses exact tiles of at most {height}x{width} px in place of"
            " blended ones; the result is that of the untiled network."
        )
        return replace(settings, tiling=Tiling.EXACT, tile_px=(height, width))

    def _tell(self, sentence: str) -> None:
        if sentence not in self.told:
            self.told.add(sentence)
            _log.warning("%s", sentence)


class _ToldEngine(_Engine):
    """As `_Engine`, for classes whose methods take more than a video or latents: `class_doors`
    has what.
    """

    __slots__ = ()

    @_door
    def encode(self: _Engine, *args: Any, **kwargs: Any) -> Any:
        return heeding(self, _Engine.encode, args, kwargs)

    @_door
    def _encode(self: _Engine, *args: Any, **kwargs: Any) -> Any:
        return heeding(self, _Engine._encode, args, kwargs)

    @_door
    def tiled_encode(self: _Engine, *args: Any, **kwargs: Any) -> Any:
        return heeding(self, _Engine.tiled_encode, args, kwargs)

    @_door
    def decode(self: _Engine, *args: Any, **kwargs: Any) -> Any:
        return heeding(self, _Engine.decode, args, kwargs)

    @_door
    def _decode(self: _Engine, *args: Any, **kwargs: Any) -> Any:
        return heeding(self, _Engine._decode, args, kwargs)

    @_door
    def tiled_decode(self: _Engine, *args: Any, **kwargs: Any) -> Any:
        return heeding(self, _Engine.tiled_decode, args, kwargs)


def _refuse_export(settings: Settings) -> None:
    """An exported program holds the class's network, so that it has to be what was asked for."""
    own = settings.layout is Layout.DIFFUSERS and settings.norm_scope is NormScope.CHUNK
    own = own and settings.reference is Reference.OFFICIAL
    if not own or settings.tiling is Tiling.BLEND:
        raise InputError(
            "torch.export takes the class's own network, and these settings ask for another result"
            " (layout, norm_scope, reference or blended tiles). Call vae_core.restore(vae) first."
        )


def _refuse_gradients(x: Tensor) -> None:
    if x.requires_grad and torch.is_grad_enabled():
        raise InputError(
            "an accelerated VAE gives no gradients; the input requires them. Call it under"
            " torch.no_grad(), detach the input, or call vae_core.restore(vae) first."
        )


def _device(module: nn.Module, x: Tensor) -> torch.device:
    """Where to compute: beside the weights, or beside `x` where an offloading scheme keeps the
    weights in host memory.
    """
    weights = next(module.parameters()).device
    return x.device if weights.type in ("cpu", "meta") else weights


@contextmanager
def _weights_at_hand(module: nn.Module) -> Generator[None]:
    """Hooks of `accelerate` bring the weights, and those of submodules take theirs away again.

    The module's own hook is called as diffusers' `apply_forward_hook` does. Submodules have hooks
    under sequential offloading; the engine calls no submodule, so that all of them bring their
    weights for the length of a call.
    """
    _refuse_offloading_to_disk(module)
    own = getattr(module, "_hf_hook", None)
    if hasattr(own, "pre_forward"):
        cast("Any", own).pre_forward(module)
    with ExitStack() as stack:
        for part in module.modules():
            hook = cast("Any", getattr(part, "_hf_hook", None))
            if part is not module and hook is not None:
                hook.pre_forward(part)
                stack.callback(hook.post_forward, part, None)
        yield


def _refuse_offloading_to_disk(module: nn.Module) -> None:
    """Under diffusers' group offloading weights rest in host memory, where the engine reads them;
    on a disk it cannot.
    """
    for path, part in cast("Iterator[tuple[str, nn.Module]]", module.named_modules()):
        registry = cast("Any", getattr(part, "_diffusers_hook", None))
        hook = registry.get_hook("group_offloading") if registry is not None else None
        if hook is not None and hook.group.offload_to_disk_path is not None:
            raise InputError(
                f"an accelerated VAE needs its weights in memory; {path or 'the VAE'} keeps them on"
                " a disk by group offloading. Leave out offload_to_disk_path."
            )


def _module_of(target: object) -> tuple[nn.Module, Kind]:
    """The VAE that `target` is or holds, and its class; `InputError` unless it is diffusers'."""
    held_by = target if isinstance(target, nn.Module) else getattr(target, "vae", None)
    found = plain(held_by) if isinstance(held_by, nn.Module) else held_by
    kind = kind_of(found)
    if not isinstance(found, nn.Module) or kind is None:
        what, names = type(target).__name__, ", ".join(kind.name for kind in KINDS)
        held = "" if held_by is target else f", whose vae is {type(found).__name__}"
        raise InputError(
            f"accelerate and restore take a VAE of diffusers ({names}), or a pipeline with one as"
            f" its vae; got {what}{held}. For other modules there is vae_core.from_module."
        )
    return found, kind


def _engine_of(module: nn.Module) -> _Engine | None:
    """The engine that stands in for a method of `module`, if there is one."""
    owners = (getattr(vars(module).get(name), "__self__", None) for name in _NAMES)
    return next((owner for owner in owners if isinstance(owner, _Engine)), None)


def accelerate(target: TargetType, settings: Settings = DROP_IN) -> TargetType:
    """`target` itself, whose methods that encode and decode now run through the engine.

    target: a live diffusers `AutoencoderKLCogVideoX`, `...Wan`, `...QwenImage`, `...LTXVideo`,
        `...LTX2Video`, `...HunyuanVideo`, `...HunyuanVideo15` or `...Mochi`, or a pipeline with one
        as its `vae`; everything else that holds the same VAE object is accelerated with it.
    settings: how to run; a second call replaces them. The module's docstring says which of them
        go before the class's own attributes. Sizes that are padded or cropped under `settings` are
        logged, since the class's return types cannot tell.

    Signatures, return types and the meaning of a generator are the class's. Videos and latents may
    lie in host memory while the module is on a device; results are where the input is, in the
    module's dtype. A deep copy of an accelerated VAE is accelerated. Raises `InputError` for
    another object, `SettingsError` for no settings, `LoweringError` with a path for a module that
    the engine cannot run.
    """
    check_settings(settings)
    module, kind = _module_of(target)
    vae, before = from_module(module), _engine_of(module)
    own = {name: vars(module)[name] for name in _NAMES if name in vars(module)}
    stands_in = _ToldEngine if kind.told else _Engine
    engine = stands_in(vae, kind, settings, own if before is None else before.covered)
    for name in _NAMES:
        if hasattr(type(module), name):  # tiled_encode is younger than the class
            setattr(module, name, getattr(engine, name))
    return target


def restore(target: TargetType) -> TargetType:
    """`target` itself, with its methods as they were before `accelerate`; nothing happens
    where that was not called.

    Raises `InputError` for an object that `accelerate` does not take.
    """
    module, _ = _module_of(target)
    engine = _engine_of(module)
    if engine is None:
        return target
    for name in _NAMES:
        if getattr(vars(module).get(name), "__self__", None) is engine:
            delattr(module, name)
            if name in engine.covered:
                setattr(module, name, engine.covered[name])
    return target
