"""Do the nodes, run without a host, give what the engine gives?

The engine that tests import and the one inside the pack are two copies of the same files; results
must be equal to the last bit, but for the host's [0, 1].
"""

from __future__ import annotations

import pytest
import torch
from pack import part, run
from torch import Tensor

import vae_core
from vae_core import Settings
from vae_core.media.framing import Framing
from vae_core.media.video import Resize, Selection, frames_to_tensor, open_video, read_video

SIZES = [(1, 24, 32), (9, 24, 40), (6, 27, 33), (8, 32, 32), (2, 9, 50)]


@pytest.fixture(scope="module")
def engine() -> vae_core.VideoVAE:
    return vae_core.load(vae_core.tiny_vae_path(), dtype=torch.float32)


@pytest.fixture(scope="module")
def vae():
    return run("ExactVAELoader")[0]


def an_image(frames: int, height: int, width: int, colours: int = 3) -> Tensor:
    """An IMAGE [t, h, w, c] in [0, 1]."""
    generator = torch.Generator().manual_seed(frames + height)
    return torch.rand(frames, height, width, colours, generator=generator)


def as_video(image: Tensor) -> Tensor:
    """The engine's [1, 3, t, h, w] in [-1, 1]."""
    return (image * 2.0 - 1.0).permute(3, 0, 1, 2).unsqueeze(0)


def as_image(video: Tensor) -> Tensor:
    """The host's [b * t, h, w, 3] in [0, 1]."""
    return ((video.movedim(1, -1).flatten(0, 1) + 1.0) / 2.0).clamp(0.0, 1.0)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_clip_of_any_size_goes_round_as_through_the_engine(engine, vae, size):
    image = an_image(*size)
    posterior = engine.encode(as_video(image))
    latent, told = run("ExactVAEEncodeTiled", images=image, vae=vae)
    assert torch.equal(latent["samples"], posterior.mode())
    pictures, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=vae)
    expected = engine.decode(posterior.mode(), trim=posterior.fitted.source)
    assert torch.equal(pictures, as_image(expected))
    assert pictures.shape == image.shape
    padded = posterior.fitted.source != posterior.fitted.network
    assert ("padded" in told) == padded


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"chunk_size": 4}, Settings(chunk_frames=4)),
        ({"norm_scope": "clip"}, Settings(norm_scope="clip")),
        ({"tiling": "off"}, Settings(tiling="off")),
        (
            {"tiling": "blend", "tile_size": 32, "overlap": 16},
            Settings(tiling="blend", tile_px=32, overlap_px=16),
        ),
        (
            {"frame_policy": "crop", "size_policy": "crop"},
            Settings(frame_fit="crop", size_fit="crop"),
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_widgets_mean_what_the_settings_of_the_engine_mean(engine, vae, change, settings):
    image = an_image(11, 42, 48)
    expected = engine.encode(as_video(image), settings)
    latent, _ = run("ExactVAEEncodeTiled", images=image, vae=vae, change=change)
    assert torch.equal(latent["samples"], expected.mode())
    shared = {key: change[key] for key in change if "policy" not in key}
    pictures, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=vae, change=shared)
    decoded = engine.decode(expected.mode(), settings, trim=expected.fitted.source)
    assert torch.equal(pictures, as_image(decoded))


@pytest.mark.parametrize("change", [{"tile_size": 16}, {"memory_budget": 0.002}], ids=str)
def test_tiles_and_budget_change_no_pixel(engine, vae, change):
    image = an_image(9, 48, 64)
    latent, _ = run("ExactVAEEncodeTiled", images=image, vae=vae, change=change)
    torch.testing.assert_close(
        latent["samples"], engine.encode(as_video(image)).mode(), rtol=0, atol=2e-5
    )


def test_sampled_latents_follow_their_seed(engine, vae):
    image = an_image(5, 24, 32)
    change = {"posterior": "sample", "sample_seed": 7}
    latent, _ = run("ExactVAEEncodeTiled", images=image, vae=vae, change=change)
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(latent["samples"], engine.encode(as_video(image)).sample(generator))


def test_alpha_is_left_out_and_said_so(vae):
    image = an_image(5, 24, 32, colours=4)
    with_alpha, told = run("ExactVAEEncodeTiled", images=image, vae=vae)
    without, _ = run("ExactVAEEncodeTiled", images=image[..., :3], vae=vae)
    assert torch.equal(with_alpha["samples"], without["samples"])
    assert "Alpha was left out" in told


def test_a_batch_of_latents_decodes_to_one_run_of_pictures(engine, vae):
    latents = torch.randn(2, 16, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    pictures, _ = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=vae)
    assert pictures.shape == (10, 24, 32, 3)
    assert torch.equal(pictures, as_image(engine.decode(latents)))


def test_latents_that_were_cut_since_are_decoded_whole(vae):
    latent, _ = run("ExactVAEEncodeTiled", images=an_image(10, 27, 33), vae=vae)
    cut = {**latent, "samples": latent["samples"][:, :, :2]}
    pictures, _ = run("ExactVAEDecodeFramewise", samples=cut, vae=vae)
    assert pictures.shape == (5, 32, 40, 3)


def test_latents_of_the_wrapper_decode_like_core_latents(vae):
    latent = {"samples": torch.randn(1, 16, 3, 3, 4, generator=torch.Generator().manual_seed(1))}
    expected, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=vae)
    (turned,) = run(
        "ExactVAELatentConvert", samples=latent, change={"direction": "core to CogVideoXWrapper"}
    )
    assert turned["samples"].shape == (1, 3, 16, 3, 4)
    (back,) = run("ExactVAELatentConvert", samples=turned)
    torch.testing.assert_close(back["samples"], latent["samples"])
    pictures, told = run("ExactVAEDecodeFramewise", samples=turned, vae=vae)
    torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-5)
    assert "CogVideoXWrapper" in told


@pytest.mark.parametrize("name", ["ExactVAEDecodeFramewise", "ExactVAEDecodeVideo"])
def test_sixteen_latent_frames_are_decoded_only_where_somebody_says_whose_they_are(vae, name):
    square = torch.randn(1, 16, 16, 2, 2, generator=torch.Generator().manual_seed(1))
    with pytest.raises(part("vae_core").InputError, match="put Exact VAE Latent Convert before"):
        run(name, samples={"samples": square}, vae=vae)

    def converted(latent, direction):
        (found,) = run("ExactVAELatentConvert", samples=latent, change={"direction": direction})
        return found

    core = converted({"samples": square}, "core, as it is")
    theirs = converted({"samples": square}, "core to CogVideoXWrapper")
    without_key = {"samples": theirs["samples"]}  # as their nodes' latents come out of a file
    again = converted(without_key, "CogVideoXWrapper to core")
    assert torch.equal(core["samples"], square)
    torch.testing.assert_close(again["samples"], square)
    torch.testing.assert_close(converted(core, "core to CogVideoXWrapper"), theirs)
    for latent in (core, theirs, again):
        run(name, samples=latent, vae=vae)
    with pytest.raises(part("vae_core").InputError, match="may be"):
        run(name, samples=without_key, vae=vae)


def test_sixteen_latent_frames_of_our_own_encoding_need_no_word(vae):
    latent, _ = run("ExactVAEEncodeTiled", images=an_image(61, 16, 16), vae=vae)
    assert latent["samples"].shape[1:3] == (16, 16)
    pictures, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=vae)
    assert pictures.shape == (61, 16, 16, 3)


def test_the_bare_network_of_the_wrapper_is_a_vae(engine, vae):
    image = an_image(5, 24, 32)
    ours, _ = run("ExactVAEEncodeTiled", images=image, vae=vae)
    theirs, _ = run("ExactVAEEncodeTiled", images=image, vae=engine.module)
    assert torch.equal(ours["samples"], theirs["samples"])


def test_applied_settings_hold_in_the_calls_of_core_and_leave_the_other_vae_alone(engine, vae):
    (applied,) = run("ExactVAEApply", vae=vae, change={"chunk_size": 4, "norm_scope": "chunk"})
    image = an_image(14, 27, 33)
    cropped = as_video(image[:, 1:25, :32])
    settings = Settings(chunk_frames=4, frame_fit="crop", size_fit="crop")
    assert torch.equal(applied.encode(image), engine.encode(cropped, settings).mode())
    usual = engine.encode(cropped, Settings(frame_fit="crop")).mode()
    assert torch.equal(vae.encode(image), usual)
    assert not torch.equal(applied.encode(image), usual)


def test_applying_copies_no_weights(vae):
    (applied,) = run("ExactVAEApply", vae=vae)
    before = {p.data_ptr() for p in vae.first_stage_model.parameters()}
    assert {p.data_ptr() for p in applied.first_stage_model.parameters()} == before


def test_core_calls_in_tiles_give_what_core_calls_without_give(vae):
    image = an_image(9, 48, 48)
    latents = vae.encode(image)
    tiled = vae.encode_tiled(image, tile_x=32, tile_y=16, overlap=8, tile_t=8, overlap_t=4)
    torch.testing.assert_close(tiled, latents, rtol=0, atol=2e-5)
    pictures = vae.decode(latents)
    assert pictures.shape == (1, 9, 48, 48, 3)
    tiled = vae.decode_tiled(latents, tile_x=4, tile_y=2, overlap=1, tile_t=2, overlap_t=1)
    torch.testing.assert_close(tiled, pictures, rtol=0, atol=2e-5)


@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_a_plan_says_what_the_engine_plans(engine, vae, operation):
    change = {"operation": operation, "width": 96, "height": 64, "frames": 17}
    text, peak_gib, tiles, chunks = run("ExactVAEPlan", vae=vae, change=change)
    plan = (
        engine.plan_encode((1, 3, 17, 64, 96))
        if operation == "encode"
        else engine.plan_decode((1, 16, 5, 8, 12))
    )
    assert text == plan.describe()
    assert peak_gib == pytest.approx(plan.peak_bytes / 2**30, abs=1e-3)
    assert (tiles, chunks) == (plan.tile_count(), len(plan.chunks))


class AVideo:
    """What Load Video gives, as far as it is asked."""

    def get_stream_source(self) -> str:
        return str(vae_core.sample_clip_path())


def test_a_video_is_encoded_as_its_frames_are(engine, vae):
    source, size = vae_core.sample_clip_path(), Resize(64, 96, Framing("cover"))
    clip = read_video(source, Selection(skip_frames=3, max_frames=7), size)
    change = {"skip": 3, "count": 7, "width": 96, "height": 64}
    latent, fps, _ = run("ExactVAEEncodeVideo", vae=vae, video=AVideo(), change=change)
    posterior = engine.encode(frames_to_tensor(clip.frames))
    torch.testing.assert_close(latent["samples"], posterior.mode(), rtol=0, atol=2e-5)
    assert fps == float(clip.info.fps)
    assert latent[part("nodes.bridge.origin").ORIGIN]["source"][0] == 7


def test_latents_are_decoded_into_a_video_of_the_clips_own_length(vae):
    latent, _ = run("ExactVAEEncodeTiled", images=an_image(7, 40, 56), vae=vae)
    path, told = run("ExactVAEDecodeVideo", samples=latent, vae=vae, change={"fps": 16.0})
    with open_video(path) as video:
        frames = list(video)
        assert (len(frames), video.info.height_px, video.info.width_px) == (7, 40, 56)
        assert video.info.fps == 16
    assert "7 frames of 40x56" in told
