"""What a device really does is asked once, and gone by: is what is right taken, and what is found
kept where it holds?
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from networks import NARROW, random_latents, random_module, random_video
from played_card import Library, PlayedCard, playing
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import Settings, from_module
from vae_core.planning.classes import classes_of
from vae_core.planning.routes import Finding, Route, Table, best
from vae_core.planning.workspaces import ConvClass, Workspace
from vae_core.running import devices, machines, probe, probe_file
from vae_core.running.convolutions import by_route, class_of
from vae_core.running.probe import sample_of

KIND = ConvClass(8, 16, (3, 3, 3))
LAST, CONTIGUOUS, PICTURES = Route


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SIZES_BYTES", (2**12, 2**14))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each program only some classes are tried."""
    monkeypatch.setattr(
        machines, "classes_of", lambda program: frozenset(sorted(classes_of(program), key=repr)[:2])
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path):
    probe_file.keep_in(tmp_path / "probes")
    probe_file._Kept.warned = False
    yield tmp_path / "probes"
    probe_file.keep_in(None)


def probed(library: Library, kind: ConvClass = KIND, dtype=torch.float32) -> Table:
    card = PlayedCard(library)
    with playing(card), torch.inference_mode():
        return probe.probe(card, dtype, Table(card.title()), {kind})


# What is found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "kind",
    [
        KIND,
        ConvClass(8, 8, (3, 1, 1), stride_t=2),
        ConvClass(8, 8, (1, 3, 3), stride=2),
        ConvClass(4, 64, (1, 1, 1)),
        ConvClass(3, 8, (2, 2, 2)),
    ],
)
def test_every_route_of_a_sound_device_is_right(kind, dtype) -> None:
    table = probed(Library(), kind, dtype)
    assert all(finding.right for finding in table.found[kind])
    assert not table.wrong
    assert not table.impossible({kind})


@pytest.mark.parametrize("wrong", [(LAST,), (CONTIGUOUS,), (LAST, CONTIGUOUS), (PICTURES, LAST)])
def test_a_wrong_route_is_never_taken(wrong) -> None:
    library = Library(wrong=wrong, seconds=dict.fromkeys(wrong, 0.1))
    table = probed(library)
    assert table.route(KIND) not in (None, *wrong)


def test_a_route_that_the_device_refuses_is_never_taken() -> None:
    table = probed(Library(refused=(LAST, CONTIGUOUS)))
    assert table.route(KIND) is PICTURES


def test_what_is_no_number_is_not_right() -> None:
    def not_a_number(x, *rest, **named):
        return by_route(LAST, x, *rest, **named) * float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "by_route", lambda route, *rest: not_a_number(*rest))
        table = probed(Library())
    assert table.route(KIND) is None


@pytest.mark.parametrize(("base", "each"), [(0, 0), (1000, 0), (0, 1), (4096, 3)])
def test_what_a_route_allocates_becomes_a_line(base, each) -> None:
    table = probed(Library(lambda route, x, y: base + each * (x + y)))
    found = table.workspaces.known[KIND]
    for data in (2**12, 2**14, 2**20):
        allowed = found.bytes(data, data)
        wanted = base + each * 2 * data
        assert wanted <= allowed <= wanted + 0.02 * data + 100


def test_of_right_routes_the_leaner_is_taken_and_then_the_quicker() -> None:
    greedy = Library(
        lambda route, x, y: 2 * (x + y) if route is LAST else 0,
        seconds={LAST: 1.0, CONTIGUOUS: 5.0, PICTURES: 9.0},
        wrong=(PICTURES,),
    )
    assert probed(greedy).route(KIND) is CONTIGUOUS
    # what is turned back from contiguous is allocated twice
    even = Library(seconds={LAST: 9.0, CONTIGUOUS: 1.0, PICTURES: 1.0})
    assert probed(even).route(KIND) is LAST


def test_of_routes_that_allocate_alike_the_quickest_is_taken() -> None:
    slow, quick = (
        Finding(route, True, 0.0, share, Workspace(), seconds)
        for route, share, seconds in ((LAST, 0.01, 2.0), (CONTIGUOUS, 0.1, 1.0))
    )
    assert best((slow, quick)) is quick


def test_the_random_numbers_of_the_process_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    probed(Library())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("route", Route)
@pytest.mark.parametrize("stride_t", [1, 2])
def test_routes_compute_the_same(route, stride_t) -> None:
    kind = ConvClass(4, 6, (3, 3, 3), 2, stride_t)
    with torch.inference_mode():
        card = PlayedCard(Library())
        sample = sample_of(card, torch.float64, kind, 2**14)
        found = by_route(route, sample.x, sample.weight, None, sample.strides)
        wanted = torch.nn.functional.conv3d(sample.x, sample.weight, stride=sample.strides)
    assert torch.allclose(found, wanted, atol=1e-12)
    assert found.nbytes == sample.out_bytes


class Handed(TorchDispatchMode):
    """The classes of all convolutions of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[ConvClass] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.overloadpacket in CONVOLUTIONS:
            stride = args[3] if len(args) > 3 else kwargs.get("stride", (1, 1, 1))
            self.found.add(class_of(args[1], tuple(stride)))
        return func(*args, **kwargs)


@pytest.mark.parametrize("family", NARROW)
@pytest.mark.parametrize("frames", [1, 9])
def test_the_classes_of_a_program_are_those_that_it_hands_over(family, frames, monkeypatch) -> None:
    monkeypatch.setattr(devices, "accelerates", lambda device: True)
    vae, settings = from_module(NARROW[family](torch.float32)), Settings(chunk_frames=4)
    video = random_video(frames, 32, 32)
    latents = random_latents((frames - 1) // 4 + 1, 4, 4, channels=vae.latent_channels)
    for run, x, plan in (
        (vae.encode, video, vae.plan_encode(video.shape, settings)),
        (vae.decode, latents, vae.plan_decode(latents.shape, settings)),
    ):
        with Handed() as handed:
            run(x, settings)
        assert handed.found
        assert handed.found <= classes_of(plan.job.program)


# What is done by it


def decoded(vae, latents=None) -> torch.Tensor:
    return vae.decode(random_latents(3, 3, 4) if latents is None else latents, Settings(tile_px=16))


def test_a_run_takes_the_route_that_is_right() -> None:
    vae = from_module(random_module())
    expected = decoded(vae)
    library = Library(wrong=(LAST, PICTURES))
    with playing(PlayedCard(library)):
        vae.plan_decode((1, 4, 3, 3, 4), probing=True)
        library.calls.clear()
        found = decoded(vae)
    assert torch.allclose(found, expected, atol=1e-4)
    # a convolution of a channel lies either way, none here has one
    assert set(library.calls) == {CONTIGUOUS}


def test_where_no_route_is_right_the_processor_runs_and_the_report_says_so() -> None:
    vae = from_module(random_module())
    expected, refused = decoded(vae), from_module(random_module(), device="meta")
    with playing(PlayedCard(Library(wrong=tuple(Route))), asked_for="meta"):
        plan = refused.plan_decode((1, 4, 3, 3, 4), probing=True)
        found = decoded(refused)
    assert torch.allclose(found, expected, atol=1e-5)
    said = next(line for line in plan.describe().splitlines() if "device:" in line)
    assert "the processor, since Played Card is wrong in convolutions" in said
    assert plan.as_dict()["refused"]


@pytest.mark.parametrize("family", NARROW)
def test_where_an_operation_is_wrong_the_processor_runs(family, monkeypatch, few) -> None:
    monkeypatch.setattr(probe, "wrong_operations", lambda *_: ["attention"])
    vae = from_module(NARROW[family](torch.float32), device="meta")
    shape = (1, 3, 9, 32, 32)
    with playing(PlayedCard(Library()), asked_for="meta"):
        plan = vae.plan_encode(shape, probing=True)
    assert "is wrong in attention" in plan.describe()


def test_the_plan_names_device_route_and_allowance() -> None:
    vae = from_module(random_module())
    with playing(PlayedCard(Library(lambda route, x, y: (x + y) // 2))):
        unknown = vae.plan_decode((1, 4, 3, 3, 4))
        known = vae.plan_decode((1, 4, 3, 3, 4), probing=True)
    assert "Played Card (not probed yet, so careful figures)" in unknown.describe()
    assert "Played Card (convolutions channels last); its libraries are allowed" in known.describe()
    assert known.libraries
    assert known.libraries.allowance_bytes > 0
    assert known.as_dict()["routes"] == {"channels last": len(classes_of(known.job.program))}


def test_a_plan_alone_asks_the_device_for_nothing() -> None:
    vae, library = from_module(random_module()), Library()
    with playing(PlayedCard(library)):
        vae.plan_decode((1, 4, 3, 3, 4))
        vae.plan_encode((1, 3, 9, 32, 32))
    assert library.calls == []


def test_the_projection_counts_what_the_probe_found() -> None:
    vae, shape = from_module(random_module()), (1, 4, 3, 12, 16)
    peaks = []
    for each in (0, 2):
        probe_file.keep_in(probe_file._Kept.folder / str(each))
        with playing(PlayedCard(Library(lambda route, x, y, each=each: each * (x + y)))):
            peaks.append(vae.plan_decode(shape, probing=True).peak_bytes)
    assert peaks[0] < peaks[1]


def test_a_device_without_memory_for_a_probe_has_careful_figures(monkeypatch) -> None:
    def full(*_):
        raise RuntimeError("CUDA out of memory")

    vae = from_module(random_module())
    expected = decoded(vae)
    monkeypatch.setattr(probe, "sample_of", full)
    with playing(PlayedCard(Library())):
        plan = vae.plan_decode((1, 4, 3, 3, 4), probing=True)
        found = decoded(vae)
    assert "not probed yet" in plan.describe()
    assert torch.allclose(found, expected, atol=1e-5)
