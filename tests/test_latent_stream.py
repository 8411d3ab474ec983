"""Do latents that are written and read in pieces equal those that are handled whole?"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vae_core import Extent
from vae_core.errors import InputError, VideoError
from vae_core.families.conventions import Convention, Form
from vae_core.families.latent_statistics import WAN_2_1
from vae_core.geometry.fitting import Fitted
from vae_core.geometry.region import Interval
from vae_core.media.latent_file import LATENT_KEY, LatentMeta, load_latents, save_latents
from vae_core.media.latent_stream import Kept, LatentFile, MomentSpool, write_spooled
from vae_core.posterior import Posterior

META = LatentMeta(sample_frames=17, height_px=32, width_px=48, fps=Fraction(24000, 1001))
FORMS = [
    Form(),
    Form(Convention.CORE, 1.15258426),
    Form(Convention.KIJAI, 0.7),
    Form(statistics=WAN_2_1),
]
SIZE = Extent(17, 32, 48)


def some_moments(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn((1, 32, 5, 4, 6), generator=torch.Generator().manual_seed(0)).to(dtype)


def spooled(folder: Path, moments: torch.Tensor) -> MomentSpool:
    spool = MomentSpool(folder)
    for chunk in moments.split([2, 2, 1], dim=2):
        spool.add(chunk)
    return spool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("form", FORMS)
def test_pieces_make_the_file_that_the_whole_makes(
    tmp_path: Path, form: Form, seed: int | None, dtype: torch.dtype
) -> None:
    moments = some_moments(dtype)
    with spooled(tmp_path, moments) as spool:
        write_spooled(tmp_path / "a.latent", spool, META, Kept(True, seed, form))
    posterior = Posterior.from_moments(moments, Fitted(SIZE, SIZE, ()))
    draw = torch.Generator().manual_seed(seed or 0)
    latents = posterior.mode() if seed is None else posterior.sample(draw)
    save_latents(tmp_path / "b.latent", latents, META, (posterior.mean, posterior.logvar), form)
    a, b = load_file(tmp_path / "a.latent"), load_file(tmp_path / "b.latent")
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-6)
    by = form.statistics
    said = META if by is None else replace(META, latents_mean=by.mean, latents_std=by.std)
    assert load_latents(tmp_path / "a.latent")[1] == said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.latent", "b.latent"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_gives_any_run_of_its_frames(tmp_path: Path, form: Form, dtype: torch.dtype) -> None:
    latents = some_moments()[:, :16].repeat(2, 1, 1, 1, 1)
    tensors = {LATENT_KEY: form.of(latents).to(dtype).contiguous()}
    save_file(tensors, tmp_path / "a.latent")
    whole, _ = load_latents(tmp_path / "a.latent", form)
    with LatentFile(tmp_path / "a.latent", form) as file:
        assert file.shape == (2, 16, 5, 4, 6)
        for start, stop in ((0, 5), (0, 1), (2, 4), (4, 5)):
            assert torch.equal(file.take(Interval(start, stop)), whole[:, :, start:stop])


def test_the_same_clip_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with spooled(tmp_path, some_moments()) as spool:
            write_spooled(tmp_path / f"{name}.latent", spool, META, Kept(moments=True))
    assert (tmp_path / "a.latent").read_bytes() == (tmp_path / "b.latent").read_bytes()


def test_moments_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    with MomentSpool(tmp_path) as spool, pytest.raises(InputError, match="must be finite"):
        spool.add(some_moments() / 0 * 0)
    assert list(tmp_path.iterdir()) == []


BAD = {
    "key": ({"samples": torch.zeros(1, 16, 2, 4, 4)}, "under the key 'latent_tensor'"),
    "rank": ({LATENT_KEY: torch.zeros(16, 2, 4, 4)}, r"\[b, c, t, h, w\]"),
    "layout": ({LATENT_KEY: torch.zeros(1, 13, 16, 4, 4)}, "CogVideoXWrapper"),
    "integers": ({LATENT_KEY: torch.zeros(1, 16, 2, 4, 4).int()}, "must be floating point"),
    "values": ({LATENT_KEY: torch.full((1, 16, 12, 4, 4), torch.nan)}, "must be finite"),
    "empty": ({LATENT_KEY: torch.zeros(1, 16, 0, 4, 4)}, "must not be empty"),
}


@pytest.mark.parametrize(("tensors", "sentence"), BAD.values(), ids=BAD)
def test_files_with_other_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    save_file(tensors, tmp_path / "a.latent")
    with pytest.raises(InputError, match=sentence):
        LatentFile(tmp_path / "a.latent")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_latents(tmp_path / "a.latent", some_moments()[:, :16], META)
    whole = (tmp_path / "a.latent").read_bytes()
    (tmp_path / "a.latent").write_bytes(whole[:-100])
    with pytest.raises(VideoError, match="is no latent file"):
        LatentFile(tmp_path / "a.latent")
