"""Is every bad input refused in a clear sentence, before anything is computed?"""

from __future__ import annotations

import pytest
import torch
from networks import random_latents, random_module, random_video

from vae_core import Extent, InputError, LoweringError, Settings, SettingsError, from_module
from vae_core.families.cogvideox import lower_decoder, lower_encoder

GOOD = random_video(5, 16, 16)


@pytest.fixture(scope="module")
def vae():
    return from_module(random_module())


def with_value(value: float) -> torch.Tensor:
    video = GOOD.clone()
    video[0, 1, 3, 2, 1] = value
    return video


BAD_VIDEOS = {
    "four dimensions": (GOOD[0], "five dimensions; got 4"),
    "a list of shapes too long": (GOOD[None], "five dimensions; got 6"),
    "channels last": (GOOD.permute(0, 2, 3, 4, 1), "3 channels in dimension 1"),
    "alpha": (torch.cat([GOOD, GOOD[:, :1]], 1), "3 channels in dimension 1 for this VAE; got 4"),
    "no frames": (GOOD[:, :, :0], "at least one element"),
    "no batch": (GOOD[:0], "at least one element"),
    "bytes": ((127 * GOOD).to(torch.uint8), "got torch.uint8"),
    "integers": (GOOD.long(), "got torch.int64"),
    "nan": (with_value(float("nan")), "NaN or infinite values, first in frame 3"),
    "infinity": (with_value(float("inf")), "NaN or infinite values, first in frame 3"),
}


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_a_bad_video_is_refused(vae, name: str) -> None:
    video, words = BAD_VIDEOS[name]
    calls = []
    with pytest.raises(InputError, match=words):
        vae.encode(video, Settings(on_progress=calls.append))
    assert not calls


def test_latents_of_another_model_are_refused(vae) -> None:
    with pytest.raises(InputError, match="4 channels in dimension 1 for this VAE; got 16"):
        vae.decode(torch.zeros(1, 16, 3, 4, 4))
    with pytest.raises(InputError, match="NaN or infinite"):
        vae.decode(torch.full((1, 4, 3, 4, 4), float("nan")))


BAD_SETTINGS = {
    "chunk 6": ({"chunk_frames": 6}, "multiple of 4.*got 6. Use 4 or 8"),
    "chunk 0": ({"chunk_frames": 0}, "at least 1; got 0"),
    "chunk -4": ({"chunk_frames": -4}, "at least 1; got -4"),
    "chunk 8.0": ({"chunk_frames": 8.0}, "whole number; got 8.0"),
    "chunk true": ({"chunk_frames": True}, "whole number; got True"),
    "tile 0": ({"tile_px": 0}, "at least 16; got 0"),
    "tile text": ({"tile_px": "big"}, "whole number; got 'big'"),
    "three tile sides": ({"tile_px": (64, 64, 64)}, "pair"),
    "tiling": ({"tiling": "fast"}, "tiling must be one of 'exact'"),
    "scope": ({"norm_scope": "tile"}, "norm_scope must be one of 'chunk', 'clip'; got 'tile'"),
    "layout": ({"layout": 3}, "layout must be one of 'aligned', 'diffusers'; got 3"),
    "callback": ({"on_progress": 3}, "callable"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_bad_setting_is_refused(name: str) -> None:
    values, words = BAD_SETTINGS[name]
    with pytest.raises(SettingsError, match=words):
        Settings(**values)


@pytest.mark.parametrize("frames", [2, 3, 4, 6, 12])
@pytest.mark.parametrize("size", [(16, 16), (17, 30), (8, 9)])
def test_odd_sizes_are_padded_reported_and_trimmed_back(vae, frames: int, size: tuple) -> None:
    video = random_video(frames, *size)
    posterior = vae.encode(video)
    network = posterior.fitted.network
    assert network.t % 4 == 1
    assert network.h % 8 == network.w % 8 == 0
    changed = (network.t != frames) + (network.h != size[0]) + (network.w != size[1])
    assert len(posterior.fitted.notes) == changed
    assert f"from {frames} to {network.t}" in posterior.fitted.notes[0]
    padded = torch.nn.functional.pad(
        video,
        (0, network.w - size[1], 0, network.h - size[0], 0, network.t - frames),
        mode="replicate",
    )
    assert torch.equal(posterior.mean, vae.encode(padded).mean)
    back = vae.decode(posterior.mode(), trim=posterior.fitted.source)
    assert back.shape == video.shape


def test_cropping_takes_the_beginning_of_every_side(vae) -> None:
    video = random_video(7, 20, 31)
    found = vae.encode(video, Settings(size_fit="crop", frame_fit="crop"))
    assert found.fitted.network == Extent(5, 16, 24)
    assert torch.equal(found.mean, vae.encode(video[:, :, :5, :16, :24]).mean)


def test_a_refusing_policy_names_the_sizes_that_would_do(vae) -> None:
    with pytest.raises(InputError, match=r"frames must be 4k\+1; got 7\. Use 9, or 5"):
        vae.encode(random_video(7, 16, 16), Settings(frame_fit="error"))
    with pytest.raises(
        InputError, match=r"width must be a multiple of 8 pixels; got 20\. Use 24, or 16"
    ):
        vae.encode(random_video(5, 16, 20), Settings(size_fit="error"))
    with pytest.raises(InputError, match="height must be a multiple of 8"):
        vae.encode(random_video(5, 4, 16), Settings(size_fit="crop"))


def test_no_size_without_a_pixel_is_advised(vae) -> None:
    for policy in ("crop", "error"):
        with pytest.raises(InputError, match=r"got 4\. Use 8, or let size"):
            vae.encode(random_video(5, 4, 16), Settings(size_fit=policy))


def test_a_module_of_another_kind_is_refused_with_its_path() -> None:
    with pytest.raises(LoweringError, match=r"vae\.encoder is missing: Linear"):
        from_module(torch.nn.Linear(2, 2))


def test_an_unknown_part_is_refused_with_its_path() -> None:
    module = random_module()
    module.decoder.up_blocks[1].resnets[0].attention = torch.nn.Linear(2, 2)
    with pytest.raises(
        LoweringError, match=r"decoder\.up_blocks\.1\.resnets\.0\.attention \(Linear\)"
    ):
        lower_decoder(module)
    lower_encoder(module)


def test_a_part_that_pads_otherwise_is_refused_with_its_path() -> None:
    module = random_module()
    module.encoder.mid_block.resnets[0].conv1.pad_mode = "replicate"
    with pytest.raises(LoweringError, match=r"encoder\.mid_block\.resnets\.0\.conv1 replicates"):
        lower_encoder(module)


def test_quantising_convolutions_are_refused() -> None:
    module = random_module()
    module.quant_conv = torch.nn.Conv3d(8, 8, 1)
    with pytest.raises(LoweringError, match="use_quant_conv=False"):
        from_module(module)


def test_planning_touches_no_tensor(vae) -> None:
    plan = vae.plan_decode((1, 4, 7, 60, 90))
    assert [chunk.source.size for chunk in plan.chunks] == [3, 2, 2]
    assert "3 + 2 x 2 latent frames" in plan.describe()
    assert plan.as_dict()["chunks"] == [[3, 9], [2, 8], [2, 8]]
    with pytest.raises(InputError, match="five dimensions"):
        vae.plan_encode((3, 9, 64, 64))


def test_sampling_with_a_seed_does_not_depend_on_the_tiling(vae) -> None:
    video = random_video(9, 24, 40)
    samples = [
        vae.encode(video, Settings(tile_px=tile)).sample(torch.Generator().manual_seed(5))
        for tile in (16, 24, None)
    ]
    assert torch.allclose(samples[0], samples[1], atol=1e-4)
    assert torch.allclose(samples[0], samples[2], atol=1e-4)
    assert not torch.equal(samples[0], vae.encode(video).mode())


def test_latents_are_decoded_to_their_own_count_law(vae) -> None:
    assert vae.decode(random_latents(4, 2, 3)).shape == (1, 3, 13, 16, 24)
