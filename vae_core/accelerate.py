"""How does a live diffusers VAE run through the engine, so that its pipelines need no change?

1. `accelerate` lowers the module once and lays an `encode` and a `decode` over the class's, as
   attributes of that one instance. `forward` and every pipeline that holds it call these.
2. Each call looks at the module as it then is: dtype, device, `use_slicing`, `use_tiling`. Hooks
   that offload weights bring them first, as they do for the class.
3. Results come back in the class's own types, and `restore` takes the two attributes away again.

What decides, where the class and the settings both have a say:
- Frames and chunks: `settings.layout` and `settings.chunk_frames`. Without settings the diffusers
  layout is taken, which gives the counts that pipelines reckon with. The aligned layout decodes n
  latent frames to 4(n-1)+1 also where n is even, and encodes what is not 4k+1 frames to one latent
  frame more than the class, at which a video-to-video pipeline fails. The class's
  `num_sample_frames_batch_size` and `num_latent_frames_batch_size` are not read.
- `enable_tiling`: tiles stay exact, so that the result is that of the untiled network. The class's
  `tile_sample_min_height` and `..._width` bound them, its overlap factors are not needed; this is
  logged once. Blended tiles are had by settings with `tiling="blend"`, which are left as they are.
- `enable_slicing`: clips of a batch one by one, as in the class.

What it does not do: no class is patched, no weight, config or hook written to, and `_encode`,
`tiled_decode` and the like stay the class's. No gradients come back: an input that asks for one is
refused, parameters that ask are used as they are. Group offloading to a disk is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .errors import InputError
from .settings import SMALLEST_TILE_PX, Fit, Layout, Settings, Tiling
from .vae import VideoVAE, from_module

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
    from diffusers.models.modeling_outputs import AutoencoderKLOutput

_log = logging.getLogger("vae_core")

DROP_IN = Settings(layout=Layout.DIFFUSERS, size_fit=Fit.ERROR)
"""What `accelerate` takes unless told otherwise: the class's own frame counts, and nothing padded,
since the class's return types could not tell of it.
"""

_NAMES = ("encode", "decode")

TargetType = TypeVar("TargetType")


@dataclass(frozen=True, slots=True)
class _Engine:
    """What stands in for the methods of one module.

    vae: the module with its programs; dtype and device are looked up anew for each call.
    settings: as they were given.
    covered: instance attributes of the same names that were there before, for `restore`.
    told: sentences that have been logged.
    """

    vae: VideoVAE
    settings: Settings
    covered: dict[str, Any]
    told: set[str] = field(default_factory=set[str])

    def encode(
        self, x: Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """`AutoencoderKLCogVideoX.encode`: the posterior of `x` [b, 3, t, h, w], by the engine.

        Raises `InputError` for an input that the engine does not take.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
        from diffusers.models.modeling_outputs import AutoencoderKLOutput

        posterior = DiagonalGaussianDistribution(self._run(self._moments, x))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """`AutoencoderKLCogVideoX.decode`: the video of `z` [b, c, n, h/8, w/8], by the engine.

        Raises `InputError` for an input that the engine does not take.
        """
        from diffusers.models.autoencoders.vae import DecoderOutput

        video = self._run(VideoVAE.decode, z)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def _moments(self, vae: VideoVAE, video: Tensor, settings: Settings) -> Tensor:
        posterior = vae.encode(video, settings)
        for note in posterior.fitted.notes:
            self._tell(note)
        return posterior.moments

    def _run(self, work: Callable[[VideoVAE, Tensor, Settings], Tensor], x: Tensor) -> Tensor:
        """The result of `work` for the whole batch, or clip by clip where the module slices."""
        _refuse_gradients(x)
        module = cast("Any", self.vae.module)
        settings = self._settings_now()
        with _weights_at_hand(module):
            vae = replace(self.vae, dtype=module.dtype, device=_device(module, x))
            clips = cast("tuple[Tensor, ...]", x.split(1)) if module.use_slicing else (x,)
            results = [work(vae, clip, settings) for clip in clips]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _settings_now(self) -> Settings:
        """The settings, with the class's tile as a bound where its tiling is on."""
        module, settings = cast("Any", self.vae.module), self.settings
        if not module.use_tiling or settings.tiling is Tiling.BLEND:
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


def _module_of(target: object) -> nn.Module:
    """The VAE that `target` is or holds; `InputError` unless it is diffusers'."""
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX

    found = target if isinstance(target, nn.Module) else getattr(target, "vae", None)
    if not isinstance(found, AutoencoderKLCogVideoX):
        what = type(target).__name__
        held = "" if found is target else f", whose vae is {type(found).__name__}"
        raise InputError(
            "accelerate and restore take diffusers' AutoencoderKLCogVideoX, or a pipeline with one"
            f" as its vae; got {what}{held}. For other modules there is vae_core.from_module."
        )
    return found


def _engine_of(module: nn.Module) -> _Engine | None:
    """The engine that stands in for a method of `module`, if there is one."""
    owners = (getattr(vars(module).get(name), "__self__", None) for name in _NAMES)
    return next((owner for owner in owners if isinstance(owner, _Engine)), None)


def accelerate(target: TargetType, settings: Settings = DROP_IN) -> TargetType:
    """`target` itself, whose encode and decode now run through the engine.

    target: a live diffusers `AutoencoderKLCogVideoX`, or a pipeline with one as its `vae`;
        everything else that holds the same VAE object is accelerated with it.
    settings: how to run; a second call replaces them. The module's docstring says which of them
        go before the class's own attributes. Sizes that are padded or cropped under `settings` are
        logged, since the class's return types cannot tell.

    Signatures, return types and the meaning of a generator are the class's
    (diffusers/models/autoencoders/autoencoder_kl_cogvideox.py). Videos and latents may lie in host
    memory while the module is on a device; results are where the input is, in the module's dtype.
    A deep copy of an accelerated VAE is accelerated. Raises `InputError` for another object,
    `LoweringError` with a path for a module that the engine cannot run.
    """
    module = _module_of(target)
    vae, before = from_module(module), _engine_of(module)
    own = {name: vars(module)[name] for name in _NAMES if name in vars(module)}
    engine = _Engine(vae, settings, own if before is None else before.covered)
    for name in _NAMES:
        setattr(module, name, getattr(engine, name))
    return target


def restore(target: TargetType) -> TargetType:
    """`target` itself, with encode and decode as they were before `accelerate`; nothing happens
    where that was not called.

    Raises `InputError` for an object that `accelerate` does not take.
    """
    module = _module_of(target)
    engine = _engine_of(module)
    if engine is None:
        return target
    for name in _NAMES:
        if getattr(vars(module).get(name), "__self__", None) is engine:
            delattr(module, name)
            if name in engine.covered:
                setattr(module, name, engine.covered[name])
    return target
