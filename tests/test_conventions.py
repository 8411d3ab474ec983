"""Are latents of every convention recognised, converted without loss, or refused in words?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core import InputError
from vae_core.families.conventions import (
    KIJAI_FACTOR,
    SCALING_FACTORS,
    Convention,
    convention_of,
    filler_frames,
    from_kijai,
    known_factor,
    latents_of,
    marked,
    scaled,
    scaling_factor,
    to_kijai,
    unscaled,
)

sides = st.integers(1, 5)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 20), sides, sides)  # batch, frames, h, w


def latents(batch: int, frames: int, height: int, width: int, channels: int = 16) -> torch.Tensor:
    """[b, c, t, h, w]; every element different."""
    count = batch * channels * frames * height * width
    values = torch.arange(1, count + 1, dtype=torch.float64) / count
    return values.reshape(batch, channels, frames, height, width)


def kijai(shape: tuple[int, ...] = (1, 3, 16, 2, 2), **more) -> dict:
    return {"samples": torch.ones(shape)} | more


@given(shapes, st.floats(0.01, 100))
def test_unscaled_undoes_scaled(shape, factor) -> None:
    x = latents(*shape)
    assert torch.allclose(unscaled(scaled(x, factor), factor), x, rtol=1e-12, atol=0)
    assert torch.equal(scaled(x, factor), x * factor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scaling_keeps_the_dtype_and_leaves_its_input_alone(dtype) -> None:
    x = latents(1, 2, 2, 2).to(dtype)
    before = x.clone()
    assert scaled(x, 0.7).dtype == unscaled(x, 0.7).dtype == dtype
    assert torch.equal(x, before)


@pytest.mark.parametrize("factor", [0.0, -0.7, float("nan"), float("inf")])
def test_a_factor_that_is_no_positive_number_is_refused(factor) -> None:
    for convert in (scaled, unscaled):
        with pytest.raises(InputError, match="must be a number above 0"):
            convert(latents(1, 1, 1, 1), factor)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("2b", 1.15258426),
        ("THUDM/CogVideoX-2b", 1.15258426),
        ("5B", 0.7),
        ("zai-org/CogVideoX-5b-I2V", 0.7),
        ("CogVideoX1.5-5B-I2V", 0.7),
        ("cogvideox_1_5_5b", 0.7),
        ("1.5", 0.7),
    ],
)
def test_a_models_name_says_its_factor(name, factor) -> None:
    assert known_factor(name) == scaling_factor(name) == factor


@pytest.mark.parametrize("name", ["", "CogVideoX", "Wan2.1-T2V-14B", "12b", "2.5b", "2b or 5b"])
def test_a_name_that_says_no_factor_is_refused_with_the_known_ones(name) -> None:
    with pytest.raises(InputError, match="is not known") as error:
        scaling_factor(name)
    assert all(str(factor) in str(error.value) for factor in SCALING_FACTORS.values())


def test_a_number_in_words_is_a_factor_unless_it_is_a_models_name() -> None:
    assert scaling_factor("1.15258426") == scaling_factor(1.15258426) == 1.15258426
    assert scaling_factor("1.5") == 0.7
    assert scaling_factor(1.5) == 1.5


def test_the_factor_is_asked_for_where_nothing_says_it() -> None:
    with pytest.raises(InputError, match="cannot be read from weights"):
        scaling_factor(None)


def test_what_is_asked_for_goes_before_what_config_json_says() -> None:
    assert scaling_factor(None, 1.15258426) == 1.15258426
    assert scaling_factor("0.7", 1.15258426) == scaling_factor(0.7, 1.15258426) == 0.7
    with pytest.raises(InputError, match="must be a number above 0"):
        scaling_factor(None, 0.0)


@given(shapes)
def test_to_kijai_and_from_kijai_undo_each_other(shape) -> None:
    x = latents(*shape)
    there = to_kijai(x)
    assert there["samples"].shape == (shape[0], shape[1], 16, *shape[2:])
    assert torch.allclose(from_kijai(there), x, rtol=1e-12, atol=0)
    again = to_kijai(from_kijai(there))
    assert torch.allclose(again["samples"], there["samples"], rtol=1e-12, atol=0)
    assert again.keys() == there.keys()


@given(shapes, st.integers(0, 15), st.data())
def test_every_element_moves_to_its_place_and_is_scaled(shape, channel, data) -> None:
    x = latents(*shape)
    frame = data.draw(st.integers(0, shape[1] - 1))
    samples = to_kijai(x)["samples"]
    assert torch.equal(samples[:, frame, channel], x[:, channel, frame] * KIJAI_FACTOR)


@given(shapes, st.integers(1, 3))
def test_filler_frames_at_the_start_are_left_out(shape, filler) -> None:
    x = latents(*shape)
    samples = to_kijai(x)["samples"]
    padded = torch.cat(
        [torch.full_like(samples[:, :1], 9.0).expand(-1, filler, -1, -1, -1), samples], 1
    )
    latent = {"samples": padded, "additional_frames": filler}
    assert filler_frames(latent) == filler
    assert torch.allclose(from_kijai(latent), x, rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [-1, 1.0, True, "1", None])
def test_filler_that_is_no_count_is_refused(count) -> None:
    with pytest.raises(InputError, match="whole number"):
        from_kijai(kijai(additional_frames=count))


@pytest.mark.parametrize("count", [3, 4])
def test_latents_that_are_nothing_but_filler_are_refused(count) -> None:
    with pytest.raises(InputError, match=f"got {count} of 3"):
        from_kijai(kijai(additional_frames=count))


def test_latents_in_the_other_layout_are_refused() -> None:
    with pytest.raises(InputError, match="need no conversion"):
        from_kijai(kijai((1, 16, 3, 2, 2)))
    with pytest.raises(InputError, match="need no conversion"):
        to_kijai(torch.ones(1, 3, 16, 2, 2))


@given(shapes)
def test_the_shape_says_whose_a_latent_is(shape) -> None:
    x = latents(*shape)
    core, other = {"samples": x}, to_kijai(x)
    assert convention_of(other) is Convention.KIJAI
    if shape[1] != 16:
        assert convention_of(core) is Convention.CORE
        assert convention_of({"samples": other["samples"]}) is Convention.KIJAI
        assert torch.equal(latents_of(core), x)
    assert torch.allclose(latents_of(other), x, rtol=1e-12, atol=0)
    assert torch.equal(latents_of(core, Convention.CORE), x)


def test_a_key_that_was_carried_along_does_not_outvote_the_shape() -> None:
    core = {"samples": latents(1, 3, 2, 2), "additional_frames": 1}
    assert convention_of(core) is Convention.CORE
    assert latents_of(core).shape[2] == 3


def test_sixteen_latent_frames_are_ambiguous_without_kijais_key() -> None:
    square = {"samples": latents(1, 16, 2, 2)}
    with pytest.raises(InputError, match="Say which they are"):
        convention_of(square)
    assert convention_of(square | {"additional_frames": 0}) is Convention.KIJAI
    assert latents_of(square, Convention.KIJAI).shape == (1, 16, 16, 2, 2)


def test_sixteen_latent_frames_that_are_marked_as_cores_are_cores() -> None:
    square = {"samples": latents(1, 16, 2, 2)}
    known = marked(square)
    assert convention_of(known) is Convention.CORE
    assert torch.equal(latents_of(known), square["samples"])
    assert marked({"samples": latents(1, 3, 2, 2)}).keys() == {"samples"}  # needs no mark
    with pytest.raises(InputError, match="Say which they are"):  # keys that contradict each other
        convention_of(known | {"additional_frames": 0})


def test_another_count_of_channels_can_be_expected() -> None:
    x = latents(1, 3, 2, 2, channels=4)
    there = to_kijai(x, channels=4)
    assert convention_of(there, channels=4) is Convention.KIJAI
    assert torch.allclose(from_kijai(there, channels=4), x)


@pytest.mark.parametrize(
    ("latent", "words"),
    [
        ({}, "holds nothing"),
        ({"noise": 1, "samples": [1]}, "holds noise, samples"),
        (kijai((1, 16, 2, 2)), "five dimensions"),
        ({"samples": torch.ones(1, 16, 3, 2, 2, dtype=torch.int64)}, "floating point"),
        (kijai((1, 4, 3, 2, 2)), "belong to another model"),
    ],
)
def test_what_are_no_cogvideox_latents_is_refused(latent, words) -> None:
    for convert in (convention_of, latents_of):
        with pytest.raises(InputError, match=words):
            convert(latent)
