"""Does what a node cannot use come back as a sentence that a person can act on?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pack import node, pack, part, run
from torch import nn

NAN = float("nan")


@pytest.fixture(scope="module")
def vae():
    return run("ExactVAELoader")[0]


def an_image(*shape: int) -> torch.Tensor:
    return torch.rand(*shape) if shape else torch.rand(5, 24, 32, 3)


def a_latent(*shape: int) -> dict[str, torch.Tensor]:
    return {"samples": torch.randn(*(shape or (1, 16, 2, 3, 4)))}


def with_nan(values: torch.Tensor) -> torch.Tensor:
    values.view(-1)[-1] = NAN
    return values


class ImageNetwork(nn.Module):
    """A network that names its parts as ours does, and is another."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)


class Nested:
    """Several latents in one, as core's models of video with sound have them."""

    is_nested = True


WRONG_VAES = {
    "nothing": (None, "got nothing"),
    "a string": ("vae", "got str"),
    "an image model's": (SimpleNamespace(first_stage_model=ImageNetwork()), "ImageNetwork"),
    "a bare convolution": (nn.Conv2d(3, 3, 1), "Conv2d"),
    "one without a network": (SimpleNamespace(first_stage_model=None), "SimpleNamespace"),
}


@pytest.mark.parametrize("wrong", WRONG_VAES)
@pytest.mark.parametrize(
    ("name", "linked"),
    [
        ("ExactVAEApply", {}),
        ("ExactVAEEncodeTiled", {"images": an_image()}),
        ("ExactVAEDecodeFramewise", {"samples": a_latent()}),
        ("ExactVAEPlan", {}),
        ("ExactVAEDecodeVideo", {"samples": a_latent()}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_vae_of_another_kind_is_refused_by_its_name(name, linked, wrong):
    vae, told = WRONG_VAES[wrong]
    with pytest.raises(part("vae_core").InputError, match="must be a CogVideoX VAE") as caught:
        run(name, vae=vae, **linked)
    assert told in str(caught.value)
    assert "Exact VAE Loader" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (None, "got nothing"),
        (torch.zeros(5, 24, 32), r"\[5, 24, 32\]"),
        (torch.zeros(5, 24, 32, 3, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(0, 24, 32, 3), "at least one frame"),
        (torch.zeros(5, 24, 32, 1), "3 colours"),
        (with_nan(an_image()), "first in frame 4"),
        (torch.full((1, 8, 8, 3), float("inf")), "first in frame 0"),
    ],
)
def test_what_is_no_picture_is_refused(vae, images, told):
    with pytest.raises(part("vae_core").InputError, match=told):
        run("ExactVAEEncodeTiled", images=images, vae=vae)


@pytest.mark.parametrize("name", ["ExactVAEDecodeFramewise", "ExactVAEDecodeVideo"])
@pytest.mark.parametrize(
    ("latent", "told"),
    [
        (a_latent(1, 4, 8, 8), "five dimensions .* belong to an image model"),
        (a_latent(1, 48, 2, 3, 4), "have 16 channels .* belong to another model"),
        (a_latent(1, 2, 16, 3, 4), "Exact VAE Latent Convert"),
        ({"samples": with_nan(torch.zeros(1, 16, 2, 3, 4))}, "samples holds NaN"),
        ({"samples": Nested()}, "nested"),
        ({}, "samples must be a LATENT"),
        ({"samples": torch.zeros(1, 16, 2, 3, 4, dtype=torch.int64)}, "torch.int64"),
    ],
)
def test_latents_that_this_network_cannot_take_are_refused(vae, name, latent, told):
    with pytest.raises(part("vae_core").InputError, match=told):
        run(name, samples=latent, vae=vae)


def test_a_video_file_of_several_clips_is_refused(vae):
    with pytest.raises(part("vae_core").InputError, match="one clip; got a batch of 2"):
        run("ExactVAEDecodeVideo", samples=a_latent(2, 16, 1, 2, 2), vae=vae)


@pytest.mark.parametrize("direction", ["core to CogVideoXWrapper", "CogVideoXWrapper to core"])
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 48, 2, 3, 4)])
def test_latents_of_neither_convention_are_not_converted(direction, shape):
    with pytest.raises(part("vae_core").InputError):
        run("ExactVAELatentConvert", samples=a_latent(*shape), change={"direction": direction})


def test_latents_that_are_in_that_convention_already_are_not_converted_again():
    with pytest.raises(part("vae_core").InputError):
        run("ExactVAELatentConvert", samples=a_latent())


DIRECTIONS = node("ExactVAELatentConvert").INPUT_TYPES()["required"]["direction"][0]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("fillers", [-1, 0, 2])
@pytest.mark.parametrize("nothing", [None, {}, [], {"samples": None}, torch.zeros(1, 16, 2, 3, 4)])
def test_what_is_no_latent_is_converted_in_no_direction(direction, fillers, nothing):
    change = {"direction": direction, "additional_frames": fillers}
    with pytest.raises(part("vae_core").InputError, match=r"LATENT|tensor"):
        run("ExactVAELatentConvert", samples=nothing, change=change)


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (40, 7)])
@pytest.mark.parametrize("clips", [0, 2])
def test_a_picture_of_which_cores_crop_leaves_nothing_is_refused(vae, size, clips):
    image = torch.rand(*([clips] if clips else []), 1, *size, 3)
    for encode in (vae.encode, vae.encode_tiled):
        with pytest.raises(part("vae_core").InputError, match=f"got {size[0]}x{size[1]}"):
            encode(image)


NODES_WITH_CHUNKS = sorted(
    name
    for name, kind in pack().NODE_CLASS_MAPPINGS.items()
    if "chunk_size" in kind.INPUT_TYPES()["required"]
)


@pytest.mark.parametrize("name", NODES_WITH_CHUNKS)
@pytest.mark.parametrize("chunk", [6, 0, 3, -4, 4100, "abc", 8.0, True])
def test_a_bad_chunk_size_is_refused_when_the_prompt_is_queued(name, chunk):
    told = node(name).VALIDATE_INPUTS(chunk_size=chunk)
    assert isinstance(told, str)
    assert told.startswith("chunk_size must be")
    assert str(chunk) in told


@pytest.mark.parametrize("name", NODES_WITH_CHUNKS)
@pytest.mark.parametrize("chunk", [None, 4, 8, 4096])
def test_a_good_chunk_size_or_one_not_known_yet_passes(name, chunk):
    assert node(name).VALIDATE_INPUTS(chunk_size=chunk) is True


def test_an_absent_chunk_size_passes_when_the_prompt_is_queued():
    assert node("ExactVAEEncodeTiled").VALIDATE_INPUTS() is True


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"chunk_size": 6}, "chunk_size must be a multiple of 4.* got 6. Use 4 or 8"),
        ({"chunk_size": "8"}, "chunk_size must be a whole number"),
        ({"tile_size": 8}, "tile_size must be 0"),
        ({"tile_size": 20000}, "tile_size must be 0 to 16384"),
        ({"tiling": "fast"}, "tiling must be one of exact, blend, off"),
        ({"norm_scope": "all"}, "norm_scope must be one of chunk, clip"),
        ({"memory_budget": -1.0}, "memory_budget must be"),
        ({"tiling": "blend", "tile_size": 64, "overlap": 64}, "overlap must be smaller"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["ExactVAEEncodeTiled", "ExactVAEDecodeFramewise", "ExactVAEPlan"])
def test_linked_values_are_checked_again_on_execution(vae, name, change, told):
    linked = {"ExactVAEEncodeTiled": {"images": an_image()}, "ExactVAEPlan": {}}
    inputs = linked.get(name, {"samples": a_latent()})
    with pytest.raises(part("vae_core").SettingsError, match=told):
        run(name, vae=vae, change=change, **inputs)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frame_policy": "error"}, "frames"),
        ({"size_policy": "error"}, "height"),
    ],
    ids=str,
)
def test_a_policy_of_error_refuses_what_would_be_padded(vae, change, told):
    with pytest.raises(part("vae_core").InputError, match=f"(?i){told}"):
        run("ExactVAEEncodeTiled", images=an_image(6, 27, 33, 3), vae=vae, change=change)


def test_a_budget_that_is_too_small_is_refused_with_the_smallest_that_would_do(vae):
    with pytest.raises(part("vae_core").BudgetError, match="smallest budget that fits"):
        run("ExactVAEEncodeTiled", images=an_image(), vae=vae, change={"memory_budget": 1e-6})


def test_a_file_that_went_away_is_named():
    with pytest.raises(part("vae_core").LoadError, match="there is no 'gone"):
        run("ExactVAELoader", change={"vae_name": "gone.safetensors"})


def test_a_video_that_is_none_is_refused(vae):
    with pytest.raises(part("vae_core").VideoError, match="there is no video"):
        run("ExactVAEEncodeVideo", vae=vae)
    with pytest.raises(part("vae_core").VideoError, match="must be a VIDEO"):
        run("ExactVAEEncodeVideo", vae=vae, video="clip.mp4")


@pytest.mark.parametrize("by", ["ExactVAEDecodeFramewise", "ExactVAEDecodeVideo", "core"])
def test_an_overflow_never_becomes_a_picture(vae, by):
    samples = torch.randn(1, 16, 2, 3, 4)
    samples[:, :, 1] = 1e38
    with pytest.raises(part("vae_core").ResultError, match="gave NaN or infinity, first in frame"):
        vae.decode(samples) if by == "core" else run(by, samples={"samples": samples}, vae=vae)
