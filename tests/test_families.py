"""Is all there that a family needs, and does a family without a small VAE or a wrapper work too?"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from networks import NARROW, random_latents
from networks_wan import random_wan, whole_decode
from pack import part, run

import vae_core
from vae_core import SettingsError
from vae_core.cli import main
from vae_core.datasets.buckets import Bucket
from vae_core.families.family import BY_NAME, FAMILIES, Family, whose_latents
from vae_core.families.identify import KEYS, architecture_of_state
from vae_core.jobs import options

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def test_a_family_has_files_a_class_and_a_network_for_the_laws(family: Family) -> None:
    (keys,) = [keys for keys in KEYS if keys.family == family.name]
    published = family.published
    assert (published.kind, published.home) == (keys.classes[0], keys.home)
    assert hasattr(import_module(published.home), published.kind)
    vae = vae_core.from_module(NARROW[family.name](torch.float32))
    assert vae.family is family
    Bucket(*family.published.size).check(vae.ratios)


def test_the_published_network_has_as_many_channels_of_latents_as_is_said(family: Family) -> None:
    with torch.device("meta"):
        vae = vae_core.from_module(family.published.network())
    assert vae.latent_channels == family.published.channels
    assert family.title in whose_latents(vae.latent_channels)


def test_of_latents_that_no_family_has_nothing_is_said() -> None:
    assert whose_latents(5) == ""


def test_the_engine_names_both_where_latents_are_another_family_s() -> None:
    vae = vae_core.from_module(random_wan())
    said = r"needs 16 channels .*got 12.*Latents of Mochi have 12\."
    with pytest.raises(vae_core.InputError, match=said):
        vae.decode(torch.zeros(1, 12, 2, 2, 2))


def test_a_tensor_of_no_element_or_no_dimension_is_refused_in_a_sentence(family: Family) -> None:
    """Whichever it is, nothing is made of its sizes before."""
    whole = {name: x.shape for name, x in NARROW[family.name](torch.float32).state_dict().items()}
    for name, shape in whole.items():
        for odd in ((*shape[:-1], 0), ()):
            with pytest.raises(vae_core.LoadError, match=r"tensors of such shapes: .*\)"):
                architecture_of_state(whole | {name: odd})


def test_how_kijai_s_wrappers_lay_latents_is_said_of_no_family_that_they_are_not_for(
    family: Family,
) -> None:
    vae = vae_core.from_module(NARROW[family.name](torch.float32))
    asked = Namespace(convention="kijai", scale=None)
    if family.name in ("cogvideox", "wan"):
        assert options.form_of(asked, vae)
        return
    for scale in (None, "config", "0.7", "wan2.2-5b"):
        with pytest.raises(SettingsError, match=r"is not known here\. Leave out --convention"):
            options.form_of(Namespace(convention="kijai", scale=scale), vae)


def test_a_family_is_in_the_readme_and_can_be_planned(family: Family, capsys) -> None:
    assert f"\n| `{family.name}` |" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert main(["plan", "--family", family.name, "--shape", "5x64x64", "--device", "cpu"]) == 0
    assert "decoder" in capsys.readouterr().out


@pytest.mark.parametrize(
    "family", [one for one in FAMILIES if one.published.shipped], ids=lambda family: family.name
)
def test_what_ships_of_a_family_is_of_that_family(family: Family, capsys) -> None:
    path = options.vae_path(None, family.name)
    assert main(["info", str(path)]) == 0
    told = capsys.readouterr().out
    assert f"family {family.name}" in " ".join(told.split())
    assert "None" not in told


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch):
    """A family that has Wan's parts, no small VAE that ships, and nobody's wrapper."""
    for families in (part("vae_core.families.family"), vae_core.families.family):
        wan = families.WAN
        published = replace(wan.published, shipped=None)
        found = replace(wan, name="made_up", title="Made Up", published=published)
        monkeypatch.setattr(families, "FAMILIES", (found, *families.FAMILIES))
        monkeypatch.setitem(families.BY_NAME, "made_up", found)
    return BY_NAME["made_up"]


def test_a_family_without_a_small_vae_asks_for_a_file(made_up: Family) -> None:
    with pytest.raises(vae_core.SettingsError, match=r"no VAE of Made Up ships.*name a file"):
        options.vae_path(None, made_up.name)


@pytest.mark.parametrize("frames", [3, 16])
def test_latents_of_a_family_without_a_wrapper_are_cores(made_up: Family, frames: int) -> None:
    module = random_wan()
    latents = random_latents(frames, 2, 2, channels=16)
    images, told = run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=module)
    assert made_up.title in told
    wanted = (whole_decode(module, latents)[0].permute(1, 2, 3, 0) + 1.0) / 2.0
    torch.testing.assert_close(images, wanted.clamp(0.0, 1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("key", ["additional_frames", "has_ref"])
def test_latents_of_a_wrapper_are_refused_where_the_vae_is_another_familys(
    made_up: Family, key: str
) -> None:
    latent = {"samples": random_latents(3, 2, 2, channels=16), key: 0}
    with pytest.raises(part("vae_core").InputError, match=r"Wrapper, for a .*one of Made Up"):
        run("ExactVAEDecodeFramewise", samples=latent, vae=random_wan())
