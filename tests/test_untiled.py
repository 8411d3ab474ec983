"""Does the engine give what a family's untiled network gives, whatever the cut, place and stream?

For every family whose clips have 4k+1 frames and whose results no chunk changes. The reference is
diffusers' own modules on the whole clip; for SeedVR2, which diffusers lacks, the network in plain
words (`networks_seedvr2`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import networks_hunyuan
import networks_seedvr2
import networks_wan
import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from networks import NARROW, random_latents, random_video

from vae_core import Settings, from_module

LENGTHS = (1, 5, 9, 13, 21)
CUTS = (
    {},
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "tile_px": (16, 48), "norm_scope": "clip"},
    {"chunk_frames": 8, "tile_px": (16, 48)},
    {"chunk_frames": 16, "tile_px": 32, "placement": "host"},
    {"chunk_frames": 64, "placement": "mmap"},
    {"chunk_frames": 32, "tiling": "off", "placement": "caches-on-host"},
)
RUNS = [1, 3, 2, 7, 5, 3]

Way = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """A narrow network of a family, and what gives its result for a whole clip.

    channels, px: of its latents, and how many pixels one of them stands for along a side.
    encode, decode: the untiled network.
    only_back: whether a frame depends on none after it.
    """

    family: str
    channels: int
    px: int
    encode: Way
    decode: Way
    only_back: bool = True

    def module(self, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        return NARROW[self.family](dtype)

    def clip(self, frames: int, height: int, width: int, dtype: torch.dtype = torch.float32):
        """A video of so many frames, height x width latent elements each, and latents for it."""
        count, px = (frames - 1) // 4 + 1, self.px
        latents = random_latents(count, height, width, dtype, channels=self.channels)
        return random_video(frames, height * px, width * px, dtype), latents

    def both(self, module: torch.nn.Module, video: torch.Tensor, latents: torch.Tensor):
        """The untiled network's moments and pictures."""
        return self.encode(module, video), self.decode(module, latents)


def _whole(networks: ModuleType) -> tuple[Way, Way]:
    return networks.whole_encode, networks.whole_decode


CASES = {
    case.family: case
    for case in (
        Case("wan22", 6, 16, *_whole(networks_wan)),
        Case("hunyuan15", 4, 16, *_whole(networks_hunyuan)),
        Case("hunyuan", 4, 8, networks_hunyuan.clip_encode, networks_hunyuan.clip_decode, False),
        Case("seedvr2", 4, 8, *_whole(networks_seedvr2)),
    )
}
SIZES = {16: ((2, 3), (3, 1), (4, 2)), 8: ((3, 5), (6, 2), (4, 3))}
"""Latent elements of height and width, by how many pixels one stands for."""


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def module(case: Case) -> torch.nn.Module:
    return case.module()


@pytest.fixture(scope="module")
def precise(case: Case) -> torch.nn.Module:
    return case.module(torch.float64)


def assert_equal(module, video, latents, wanted, settings) -> None:
    """Moments and pictures of a run with these settings are those wanted."""
    moments, pictures = wanted
    assert_close(encode_moments(module, video, **settings), moments)
    assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("frames", LENGTHS)
def test_both_ways_equal_the_whole_network_for_every_length(case, module, frames) -> None:
    """Together the cases visit every cut and size."""
    video, latents = case.clip(frames, *SIZES[case.px][frames % 3])
    wanted, start = case.both(module, video, latents), LENGTHS.index(frames)
    for settings in (CUTS[start], CUTS[start + 1], CUTS[start + 2]):
        assert_equal(module, video, latents, wanted, settings)


@pytest.mark.parametrize("frames", [1, 13])
def test_float64_equals_the_whole_network_to_nine_digits(case, precise, frames) -> None:
    video, latents = case.clip(frames, *SIZES[case.px][0], torch.float64)
    wanted = case.both(precise, video, latents)
    for settings in CUTS[1:3]:
        assert_equal(precise, video, latents, wanted, settings)


@pytest.mark.parametrize("settings", CUTS[1:], ids=str)
def test_no_cut_and_no_place_changes_a_pixel(case, precise, settings) -> None:
    video, latents = case.clip(13, 48 // case.px, 4, torch.float64)
    wanted = encode_moments(precise, video), decode_frames(precise, latents)
    assert_equal(precise, video, latents, wanted, settings)


@pytest.mark.parametrize("placement", ["device", "host"])
def test_streams_in_ragged_runs_are_what_the_whole_gives(case, module, placement) -> None:
    vae, settings = from_module(module), Settings(chunk_frames=8, placement=placement)
    video, latents = case.clip(21, 2, 3)
    moments, pictures = case.both(module, video, latents)
    found = list(vae.encode_stream(iter(video.split(RUNS, dim=2)), settings))
    assert_close(torch.cat(found, 2), moments)
    assert_close(torch.cat(list(vae.decode_stream(latents, settings)), 2), pictures)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.only_back],
    indirect=True,
    ids=lambda c: c.family,
)
def test_later_latent_frames_change_no_earlier_picture(case, module) -> None:
    _, latents = case.clip(13, 2, 2)
    whole = decode_frames(module, latents)
    assert_close(decode_frames(module, latents[:, :, :3]), whole[:, :, :9])


def test_clips_of_a_batch_are_those_by_themselves(case, module) -> None:
    """One by one: diffusers' mask of attention is of one clip's shape."""
    video, latents = (torch.cat([x, -x.flip(2)]) for x in case.clip(9, 2, 3))
    alone = [
        case.both(module, *pair) for pair in zip(video.split(1), latents.split(1), strict=True)
    ]
    wanted = [torch.cat(ways) for ways in zip(*alone, strict=True)]
    for settings in (CUTS[1], CUTS[3], CUTS[4]):
        assert_equal(module, video, latents, wanted, settings)


ROUNDED = {name: CASES[name] for name in ("wan22", "hunyuan15")}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ROUNDED.values(), indirect=True, ids=ROUNDED)
def test_the_error_in_16_bits_is_no_larger_than_the_network_s_own(case, module, dtype) -> None:
    narrow = case.module(dtype)
    ours, theirs = [0.0, 0.0], [0.0, 0.0]
    for frames, size in ((5, (2, 3)), (9, (3, 2)), (9, (3, 4)), (13, (2, 2))):
        given = [x.to(dtype) for x in case.clip(frames, *size)]
        exact = case.both(module, *(x.float() for x in given))
        engine = encode_moments(narrow, given[0]), decode_frames(narrow, given[1])
        whole = case.both(narrow, *given)
        for way in (0, 1):
            ours[way] += float((engine[way] - exact[way]).square().mean())
            theirs[way] += float((whole[way] - exact[way]).square().mean())
    for way in (0, 1):
        assert ours[way] ** 0.5 <= 1.05 * theirs[way] ** 0.5


FRAMES, NETWORKS, SURE = 48, 4, 2.0
"""Of all clips of a batch; with weights in other orders; and standard errors that chance has."""


def shuffled(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The module with the numbers of each parameter in another order."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        order = torch.randperm(parameter.numel(), generator=generator)
        parameter.data = parameter.data.flatten()[order].view_as(parameter)
    return module


def error_ratios(case: Case, way: int, dtype: torch.dtype, frames: int) -> torch.Tensor:
    """The engine's error as a share of the untiled network's own, of every clip of every network,
    as logarithms. Of one clip it may be anything from a half to twice that.
    """
    found, run, whole = [], (encode_moments, decode_frames)[way], (case.encode, case.decode)[way]
    for seed in range(NETWORKS):
        narrow = shuffled(case.module(dtype), seed)
        wide = case.module()
        wide.load_state_dict({name: x.float() for name, x in narrow.state_dict().items()})
        clip = case.clip(frames, 2, 3)[way].expand(FRAMES // frames, -1, -1, -1, -1)
        noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed))
        given = (clip + (1.0 if way else 0.3) * noise).to(dtype)
        exact = whole(wide, given.float())
        errors = [
            (x - exact).square().flatten(1).mean(1)
            for x in (run(narrow, given), whole(narrow, given))
        ]
        found.append((errors[0] / errors[1]).log() / 2)
    return torch.cat(found)


MANY = {name: CASES[name] for name in ("hunyuan", "seedvr2")}


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", [0, 1], ids=["encode", "decode"])
@pytest.mark.parametrize("case", MANY.values(), ids=MANY)
def test_of_many_clips_the_error_in_16_bits_is_no_larger_than_the_network_s_own(
    case, way, dtype, frames
) -> None:
    """Their norms are of many voxels, so that a whole clip is off together, and clips differ."""
    ratios = error_ratios(case, way, dtype, frames)
    sure = SURE * ratios.std() / len(ratios) ** 0.5
    assert ratios.mean() - sure <= math.log(1.05)
    assert sure < 0.15, "too few clips to tell"
