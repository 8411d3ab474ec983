"""Do latents and what is known of them survive a file, and can ComfyUI's LoadLatent read it?"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vae_core.errors import InputError, VideoError
from vae_core.families.conventions import Convention, Form
from vae_core.families.latent_statistics import WAN_2_1
from vae_core.geometry.region import Interval
from vae_core.media.latent_file import (
    LATENT_KEY,
    VERSION_KEY,
    LatentMeta,
    load_latents,
    save_latents,
)
from vae_core.media.latent_stream import LatentFile

META = LatentMeta(
    scaling_factor=1.15258426,
    sample_frames=7,
    height_px=60,
    width_px=90,
    network_frames=9,
    network_height_px=64,
    network_width_px=96,
    fps=Fraction(24000, 1001),
    vae="tiny_vae",
    version="0.1.0",
    chunk_frames=8,
    norm_scope="chunk",
    chunk_layout="aligned",
    tiling="exact",
)


def some_latents(*, channels: int = 16, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    shape = (1, channels, 3, 8, 12)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def comfy_load_latent(path: Path) -> torch.Tensor:
    """What LoadLatent of ComfyUI 0.33 does: nodes.py, class LoadLatent, method load."""
    stored = load_file(path)
    multiplier = 1.0 if VERSION_KEY in stored else 1.0 / 0.18215
    return stored["latent_tensor"].float() * multiplier


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_latents_and_metadata_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    save_latents(path, some_latents(dtype=dtype), META)
    latents, meta = load_latents(path)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, some_latents(dtype=dtype).float())
    assert meta == META
    assert meta.source == (7, 60, 90)


def test_comfyui_loads_the_same_latents(tmp_path: Path) -> None:
    path = tmp_path / "a.latent"
    save_latents(path, some_latents(), META)
    assert torch.equal(comfy_load_latent(path), some_latents())
    assert load_file(path)[LATENT_KEY].dtype == torch.float32


def test_latents_that_comfyui_saved_load_without_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.latent"
    save_file({"latent_tensor": some_latents(), VERSION_KEY: torch.tensor([])}, path)
    latents, meta = load_latents(path)
    assert torch.equal(latents, some_latents())
    assert meta == LatentMeta()
    assert meta.source is None


def test_the_file_says_layout_and_scale_in_words(tmp_path: Path) -> None:
    save_latents(tmp_path / "a.latent", some_latents(), META)
    with safe_open(tmp_path / "a.latent", framework="pt") as file:
        said = file.metadata()
    assert said["layout"] == "b c t h w"
    assert said["scale"] == "unscaled"
    assert said["fps"] == "24000/1001"


FORMS = [
    Form(),
    Form(Convention.CORE, 1.15258426),
    Form(Convention.KIJAI, 0.7),
    Form(statistics=WAN_2_1),
]


@pytest.mark.parametrize("form", FORMS)
def test_latents_written_in_any_form_come_back_unscaled(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "a.latent"
    save_latents(path, some_latents(), META, (some_latents(), some_latents()), form)
    assert torch.equal(load_file(path)[LATENT_KEY], form.of(some_latents()))
    assert torch.equal(load_file(path)["mean"], some_latents())
    by = form.statistics
    said = META if by is None else replace(META, latents_mean=by.mean, latents_std=by.std)
    for told in (None, form):
        latents, meta = load_latents(path, told)
        torch.testing.assert_close(latents, some_latents())
        assert meta == said


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_does_not_say_is_read_in_the_form_it_is_said_to_have(
    tmp_path: Path, form: Form
) -> None:
    save_file({LATENT_KEY: form.of(some_latents()).contiguous()}, tmp_path / "a.latent")
    torch.testing.assert_close(load_latents(tmp_path / "a.latent", form)[0], some_latents())


def read_both_ways(path: Path, form: Form | None) -> torch.Tensor:
    """The latents, having seen that reading them whole gives what reading run by run does."""
    with LatentFile(path, form) as file:
        latents = file.take(Interval(0, file.shape[2]))
    assert torch.equal(load_latents(path, form)[0], latents)
    return latents


def refused_both_ways(path: Path, form: Form | None) -> None:
    for read in (load_latents, LatentFile):
        with pytest.raises(InputError, match="add --convention core or --convention kijai"):
            read(path, form)


SQUARE = torch.randn((1, 16, 16, 4, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", FORMS)
def test_sixteen_latent_frames_are_read_only_where_somebody_says_whose_they_are(
    tmp_path: Path, form: Form
) -> None:
    path = tmp_path / "a.latent"
    save_file({LATENT_KEY: form.of(SQUARE).contiguous()}, path)
    torch.testing.assert_close(read_both_ways(path, form), SQUARE)
    for unsure in (None, Form(factor=0.7, told=False)):
        refused_both_ways(path, unsure)
    save_latents(path, SQUARE, META, form=form)  # which says it in the file
    torch.testing.assert_close(read_both_ways(path, None), SQUARE)
    said = {"scale": "0.7"}  # a scale alone is nobody's
    save_file({LATENT_KEY: SQUARE}, path, metadata=said)
    refused_both_ways(path, None)


def test_a_shape_that_fits_one_convention_needs_no_word(tmp_path: Path) -> None:
    for frames in (15, 17):
        save_file({LATENT_KEY: torch.ones(1, 16, frames, 2, 2)}, tmp_path / "a.latent")
        assert read_both_ways(tmp_path / "a.latent", None).shape[2] == frames


def test_a_form_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    save_latents(tmp_path / "a.latent", some_latents(), META)
    with pytest.raises(InputError, match="Leave out --convention and --scale"):
        load_latents(tmp_path / "a.latent", Form(Convention.KIJAI, 0.7))


def test_moments_are_stored_beside_even_where_the_mean_is_the_latents(tmp_path: Path) -> None:
    moments = torch.cat([some_latents(), some_latents() - 3], dim=1)
    mean, logvar = moments.chunk(2, dim=1)  # views of one storage, as an encoder gives them
    save_latents(tmp_path / "a.safetensors", mean, META, (mean, logvar))
    stored = load_file(tmp_path / "a.safetensors")
    assert torch.equal(stored["mean"], mean)
    assert torch.equal(stored["logvar"], logvar)
    assert torch.equal(load_latents(tmp_path / "a.safetensors")[0], mean)


def test_files_get_the_rights_that_new_files_get(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    save_latents(tmp_path / "a.latent", some_latents(), META)
    assert (tmp_path / "a.latent").stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"samples": some_latents()}, "under the key 'latent_tensor'; .* holds samples"),
        ({LATENT_KEY: some_latents()[0]}, r"\[b, c, t, h, w\]"),
        ({LATENT_KEY: torch.zeros(1, 13, 16, 8, 12)}, "CogVideoXWrapper"),
        ({LATENT_KEY: some_latents().to(torch.int32)}, "must be floating point"),
        ({LATENT_KEY: some_latents() * float("nan")}, "must be finite"),
        ({LATENT_KEY: torch.zeros(1, 16, 0, 8, 12)}, "must not be empty"),
    ],
)
def test_files_with_other_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    save_file(tensors, tmp_path / "a.latent")
    with pytest.raises(InputError, match=sentence):
        load_latents(tmp_path / "a.latent")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"scale": "scaled"}, "no number above 0"),
        ({"layout": "b h w c t"}, "must have layout"),
        ({"sample_frames": "many"}, "no number above 0"),
        ({"height_px": "-8"}, "no number above 0"),
        ({"fps": "1/0"}, "no number above 0"),
    ],
)
def test_metadata_that_contradict_are_refused(
    tmp_path: Path, said: dict[str, str], sentence: str
) -> None:
    save_file({LATENT_KEY: some_latents()}, tmp_path / "a.latent", metadata=said)
    with pytest.raises(InputError, match=sentence):
        load_latents(tmp_path / "a.latent")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "does not exist"), (b"", "is empty"), (b"some text\n" * 9, "is no latent file")],
)
def test_files_that_are_no_safetensors_are_refused(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "a.latent"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=sentence):
        load_latents(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.latent"
    save_latents(path, some_latents(), META)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VideoError, match="is no latent file"):
        load_latents(path)


def test_a_wrong_tensor_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be finite"):
        save_latents(tmp_path / "a.latent", some_latents() / 0 * 0, META)
    with pytest.raises(VideoError, match="cannot write"):
        save_latents(tmp_path / "nowhere" / "a.latent", some_latents(), META)
    assert list(tmp_path.iterdir()) == []
