"""Does the engine give the authors' Mochi, or diffusers', untiled, for every cut and file?

diffusers' own blocks are the reference of both; ComfyUI's own class is one in the host tier.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments, relative_error
from networks import random_latents, random_video
from networks_mochi import (
    authors_mochi,
    authors_state,
    random_mochi,
    theirs_decode,
    whole_decode,
    whole_encode,
    without_mask,
)
from ranks import results
from safetensors.torch import save_file

import vae_core
from vae_core import Settings, from_module
from vae_core.cli import main
from vae_core.errors import InputError, LoadError, LoweringError, SettingsError
from vae_core.families.loading import architecture_of_state
from vae_core.jobs.options import vae_path
from vae_core.program.parts import Scope

LENGTHS = (1, 7, 13, 19, 31)
CUTS = (
    {},
    {"chunk_frames": 12, "tile_px": 16},
    {"chunk_frames": 12, "tile_px": (16, 48)},
    {"chunk_frames": 24, "tile_px": 32, "placement": "host"},
    {"chunk_frames": 48, "placement": "mmap"},
    {"chunk_frames": 36, "tiling": "off", "placement": "caches-on-host"},
)
SIZES = ((24, 40), (48, 16), (32, 24))


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, batch: int = 1):
    count = (frames - 1) // 6 + 1
    return random_latents(count, height // 8, width // 8, dtype, batch=batch)


@pytest.fixture(scope="module")
def module():
    return random_mochi()


@pytest.fixture(scope="module")
def authors(module):
    return authors_mochi(module)


@pytest.mark.parametrize("frames", LENGTHS)
def test_both_ways_equal_the_whole_network_for_every_length(module, authors, frames) -> None:
    """Together the cases visit every cut and size."""
    size = SIZES[frames % 3]
    video, latents = random_video(frames, *size), latents_of(frames, *size)
    moments = whole_encode(module, video)
    wholes = {module: theirs_decode(module, latents), authors: whole_decode(module, latents)}
    start = LENGTHS.index(frames)
    for settings in (CUTS[start % len(CUTS)], CUTS[(start + 1) % len(CUTS)]):
        for own, pictures in wholes.items():
            assert_close(encode_moments(own, video, **settings), moments)
            assert_close(decode_frames(own, latents, **settings), pictures)


@pytest.mark.parametrize("frames", LENGTHS)
def test_float64_equals_the_whole_network_to_nine_digits(frames) -> None:
    module, video = random_mochi(torch.float64), random_video(frames, 24, 40, torch.float64)
    latents = latents_of(frames, 24, 40).double()
    moments = whole_encode(module, video)
    authors = authors_mochi(module)
    for settings in CUTS[1:3]:
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), theirs_decode(module, latents))
        assert_close(decode_frames(authors, latents, **settings), whole_decode(module, latents))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_error_in_16_bits_is_no_larger_than_the_network_s_own(module, dtype) -> None:
    narrow = random_mochi(dtype)
    authors, ours, theirs = authors_mochi(narrow), [0.0] * 3, [0.0] * 3
    for frames, size in ((1, (24, 40)), (7, (48, 16)), (13, (32, 24)), (13, (16, 64))):
        video, latents = random_video(frames, *size).to(dtype), latents_of(frames, *size).to(dtype)
        x, z = video.float(), latents.float()
        exact = whole_encode(module, x), theirs_decode(module, z), whole_decode(module, z)
        whole = (
            narrow._encode(video),  # whose waves are of float32, as ours
            theirs_decode(narrow, latents),
            whole_decode(narrow, latents),
        )
        engine = (
            encode_moments(narrow, video),
            decode_frames(narrow, latents),
            decode_frames(authors, latents),
        )
        for way in range(3):
            ours[way] += float((engine[way] - exact[way]).square().mean())
            theirs[way] += float((whole[way] - exact[way]).square().mean())
    for way in range(3):
        assert ours[way] ** 0.5 <= 1.05 * theirs[way] ** 0.5


def test_several_clips_are_encoded_each_by_itself(module, authors) -> None:
    video, latents = random_video(7, 24, 16, batch=2), latents_of(7, 24, 16, batch=2)
    for settings in CUTS[1:4]:
        assert_close(encode_moments(module, video, **settings), whole_encode(module, video))
        assert_close(decode_frames(module, latents, **settings), theirs_decode(module, latents))
        assert_close(decode_frames(authors, latents, **settings), whole_decode(module, latents))


@pytest.mark.parametrize("settings", [*CUTS[1:], {"norm_scope": "clip"}], ids=str)
def test_no_cut_and_no_place_changes_a_pixel(settings) -> None:
    module = random_mochi(torch.float64)
    video, latents = random_video(19, 32, 48, torch.float64), latents_of(19, 32, 48).double()
    assert_close(encode_moments(module, video, **settings), encode_moments(module, video))
    for own in (module, authors_mochi(module)):
        assert_close(decode_frames(own, latents, **settings), decode_frames(own, latents))


@pytest.mark.parametrize("placement", ["device", "host"])
def test_streams_in_ragged_runs_are_what_the_whole_gives(module, authors, placement) -> None:
    settings = Settings(chunk_frames=12, placement=placement)
    video, latents = random_video(31, 16, 24), latents_of(31, 16, 24)
    runs = video.split([1, 3, 2, 7, 5, 13], dim=2)
    found = torch.cat(list(from_module(module).encode_stream(iter(runs), settings)), 2)
    assert_close(found, whole_encode(module, video))
    wholes = {module: theirs_decode(module, latents), authors: whole_decode(module, latents)}
    for own, whole in wholes.items():
        parts = list(from_module(own).decode_stream(latents, settings))
        assert [part.shape[2] for part in parts][:2] == [13, 12]
        assert_close(torch.cat(parts, 2), whole)


def test_later_frames_change_nothing_that_came_before_them(module, authors) -> None:
    video, latents = random_video(19, 16, 24), latents_of(19, 16, 24)
    for own in (module, authors):
        whole = decode_frames(own, latents)
        assert_close(decode_frames(own, latents[:, :, :3]), whole[:, :, :13])
    moments = encode_moments(module, video)
    assert_close(encode_moments(module, video[:, :, :13]), moments[:, :, :3])


def test_a_frame_s_far_corner_reaches_all_of_it_by_its_statistics(authors) -> None:
    """And no earlier frame: tiles that are normalised each by itself would not do."""
    latents = latents_of(7, 128, 128)
    changed = latents.clone()
    changed[:, :, 1, -1, -1] += 3.0
    moved = (decode_frames(authors, changed) - decode_frames(authors, latents)).abs()
    assert float(moved[:, :, 6, :8, :8].amax()) > 0
    assert float(moved[:, :, 0].amax()) == 0


# Whose result


def test_diffusers_own_first_frames_are_others_than_the_authors(module, authors) -> None:
    latents = latents_of(13, 16, 24)
    theirs, own = decode_frames(module, latents), decode_frames(authors, latents)
    assert theirs.shape == own.shape
    assert relative_error(theirs, own) > 1e-3


@pytest.mark.parametrize("settings", [CUTS[0], *CUTS[2:5]], ids=str)
def test_core_s_result_is_had_both_ways(module, authors, settings) -> None:
    """Its encoder sees later frames, and its decoder is the authors'."""
    video, latents = random_video(19, 24, 40), latents_of(19, 24, 40)
    official = whole_encode(module, video)
    with without_mask(module):
        moments = whole_encode(module, video)
    assert relative_error(moments, official) > 1e-3
    pictures = whole_decode(module, latents)
    for own in (module, authors):
        chosen = {"reference": "core", **settings}
        assert_close(encode_moments(own, video, **chosen), moments)
        assert_close(decode_frames(own, latents, **chosen), pictures)


def test_core_s_result_is_had_through_a_stream(module) -> None:
    settings = Settings(chunk_frames=12, reference="core")
    video = random_video(19, 16, 24)
    with without_mask(module):
        moments = whole_encode(module, video)
    runs = iter(video.split([1, 5, 13], dim=2))
    assert_close(torch.cat(list(from_module(module).encode_stream(runs, settings)), 2), moments)


def test_the_plan_says_whose_result_it_is(module, authors) -> None:
    video, latents = (1, 3, 19, 16, 24), (1, 4, 4, 2, 3)
    core = Settings(reference="core")
    said = {
        "official": from_module(authors).plan_decode(latents),
        "diffusers": from_module(module).plan_decode(latents),
        "core": from_module(authors).plan_encode(video, core),
    }
    for name, plan in said.items():
        assert plan.as_dict()["reference"] == name
    assert "first frames are others than the authors'" in said["diffusers"].describe()
    assert "ComfyUI core's class" in said["core"].describe()
    assert "reference" not in said["official"].describe()
    for plan in (from_module(own).plan_decode(latents, core) for own in (module, authors)):
        assert plan.as_dict()["reference"] == "official", "core's decoder is the authors'"


def test_ranks_that_share_the_work_give_it_too() -> None:
    """Of the authors' network, and of core's encoder, whose places see those of all frames."""
    vae = from_module(authors_mochi(random_mochi(torch.float64)))
    video, latents = random_video(19, 40, 24, torch.float64), latents_of(19, 40, 24).double()
    ways = (
        lambda settings: vae.decode(latents, settings),
        lambda settings: vae.encode(video, settings).moments,
        lambda settings: vae.encode(video, replace(settings, reference="core")).moments,
    )
    asked = Settings(chunk_frames=12, parallel_result="all")
    for run in ways:
        alone = run(asked)
        for found in results(2, lambda seat, run=run: run(replace(asked, parallel=seat))):
            assert float((found - alone).abs().max()) <= 1e-12


# What is seen of memory


def test_nothing_on_a_card_grows_with_the_clip_but_keys_on_the_host_do(module) -> None:
    vae = from_module(module, device="meta")
    settings = Settings(chunk_frames=12, placement="caches-on-host")
    short, long = (vae.plan_encode((1, 3, t, 64, 96), settings) for t in (37, 73))
    assert long.peak_bytes == short.peak_bytes
    # keys and values of 36 more frames, float32, of each level's attentions
    places = {1: 32 * 48, 2: 16 * 24, 6: 8 * 12}
    widths = {1: [64, 64], 2: [96], 6: [64, 64]}
    more = sum(2 * c * places[r] * 36 // r for r, made in widths.items() for c in made)
    assert long.far_bytes - short.far_bytes == 4 * more


# Which modules and files


def test_every_norm_has_the_scope_of_a_frame(module, authors) -> None:
    for own in (module, authors):
        vae = from_module(own)
        assert vae.ratios == vae_core.geometry.ratios.Ratios(8, 6)
        for program in (vae.encoder, vae.decoder):
            norms = [step.norm for step in program.steps if step.norm]
            assert {norm.scope for norm in norms if not norm.per_voxel} == {Scope.FRAME}
            assert program.measures
            assert not program.has_statistics


REFUSED = {
    "another part": (
        lambda m: setattr(m.decoder.up_blocks[0].resnets[0].conv1, "conv", torch.nn.Identity()),
        r"decoder\..*must be a convolution",
    ),
    "one more": (lambda m: setattr(m.decoder.block_in, "extra", torch.nn.SiLU()), "extra"),
    "framewise": (lambda m: m._enable_framewise_decoding(), "use_framewise_decoding = True"),
    "padding": (
        lambda m: setattr(m.encoder.block_in.resnets[0].conv1, "pad_mode", "constant"),
        "pads by constant",
    ),
    "all frames": (
        lambda m: setattr(m, "drop_last_temporal_frames", False),
        "drop_last_temporal_frames = False",
    ),
    "waves": (lambda m: setattr(m.encoder.fourier_features, "stop", 9), r"waves of 2\^6"),
    "no mask": (
        lambda m: setattr(m.encoder.block_out.attentions[0], "is_causal", False),
        "is_causal = False",
    ),
    "heads": (
        lambda m: setattr(m.encoder.block_out.attentions[0], "heads", 1),
        "heads of 32 channels",
    ),
    "processor": (
        lambda m: setattr(m.encoder.block_out.attentions[0], "processor", object()),
        "attends by a object",
    ),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_what_the_engine_cannot_run_is_refused_with_its_path(change, words) -> None:
    module = random_mochi()
    change(module)
    with pytest.raises(LoweringError, match=words):
        from_module(module)


def files(module, folder: Path) -> dict[str, Path]:
    """The same weights as files have them."""
    state = authors_state(module)
    save_file(state, folder / "mochi_vae.safetensors")
    save_file({f"vae.{name}": x for name, x in state.items()}, folder / "checkpoint.safetensors")
    module.save_pretrained(folder / "diffusers")
    return {
        "core": folder / "mochi_vae.safetensors",
        "a checkpoint": folder / "checkpoint.safetensors",
        "diffusers": folder / "diffusers",
        "diffusers' names": folder / "diffusers" / "diffusion_pytorch_model.safetensors",
    }


def test_files_of_all_names_give_the_authors_result(module, tmp_path: Path) -> None:
    video, latents = random_video(7, 24, 16), latents_of(7, 24, 16)
    moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    for name, path in files(module, tmp_path).items():
        vae = vae_core.load(path)
        assert vae.family.name == "mochi", name
        assert_close(vae.encode(video).moments, moments)
        assert_close(vae.decode(latents), pictures)
    assert vae_core.load(tmp_path / "diffusers").latent_statistics is not None


def test_what_weights_show_is_read_off_them(module) -> None:
    found = architecture_of_state(authors_state(module))
    assert found == architecture_of_state(module.state_dict())
    assert (found.family, found.latent_channels, found.in_channels) == ("mochi", 4, 3)
    assert (found.spatial_compression_ratio, found.temporal_compression_ratio) == (8, 6)
    assert found.block_out_channels == (32, 64, 96, 64)


def test_one_half_of_the_authors_two_files_is_named(module, tmp_path: Path) -> None:
    for half in ("encoder", "decoder"):
        state = authors_state(module)
        own = {k.removeprefix(f"{half}."): v for k, v in state.items() if k.startswith(half)}
        save_file(own, tmp_path / f"{half}.safetensors")
        with pytest.raises(LoadError, match="one half of a Mochi VAE"):
            vae_core.load(tmp_path / f"{half}.safetensors")


def test_a_file_without_its_encoder_is_called_incomplete(module, tmp_path: Path) -> None:
    state = {k: v for k, v in authors_state(module).items() if k.startswith("decoder.")}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(LoadError, match="Mochi VAE is incomplete: its encoder is missing"):
        vae_core.load(tmp_path / "a.safetensors")


def test_a_config_that_contradicts_the_weights_is_refused(module, tmp_path: Path) -> None:
    folder = files(module, tmp_path)["diffusers"]
    config = json.loads((folder / "config.json").read_text())
    config["encoder_block_out_channels"] = [64, 64, 96, 64]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="encoder_block_out_channels"):
        vae_core.load(folder)


def test_no_small_vae_ships() -> None:
    with pytest.raises(SettingsError, match=r"no VAE of Mochi ships.*name a file"):
        vae_path(None, "mochi")


def test_latents_of_another_family_are_refused(module) -> None:
    with pytest.raises(InputError, match="4 channels"):
        from_module(module).decode(random_latents(3, 2, 2, channels=16))


def test_the_published_network_can_be_planned(capsys) -> None:
    assert main(["plan", "--family", "mochi", "--shape", "79x720x1280", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "79x720x1280" in told
    assert "14x90x160" in told


def test_a_command_encodes_and_decodes_with_a_file(module, tmp_path: Path) -> None:
    path, video = files(module, tmp_path)["core"], random_video(7, 16, 24)
    vae = vae_core.load(path)
    latents = vae.encode(video).mean
    save_file({"latent_tensor": latents}, tmp_path / "z.safetensors")
    assert main(["info", str(path)]) == 0
    where = [str(tmp_path / "z.safetensors"), "-o", str(tmp_path / "out.mp4")]
    assert main(["decode", *where, "--vae", str(path), "--device", "cpu"]) == 0
    assert (tmp_path / "out.mp4").stat().st_size
