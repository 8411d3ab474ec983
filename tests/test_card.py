"""Does a plan fit the card before the host is asked for room, and what is asked for?

A host is played by `Card`: core's own arithmetic of what it makes free and what it leaves for
weights (`load_models_gpu` of 0.33), on cards of the sizes that people have. Its own classes run in
`tests/host/test_weights.py`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pack import part

card, host = part("nodes.bridge.card"), part("nodes.bridge.host")
running, planning, core = (
    part("nodes.bridge.running"),
    part("nodes.bridge.planning"),
    part("vae_core"),
)

GIB, MIB = 2**30, 2**20

pytestmark = pytest.mark.usefixtures("plenty_of_memory")
META = torch.device("meta")
FIRST_USERS = [((49, 480, 720), 6), ((81, 720, 1280), 8), ((81, 720, 1280), 12),
               ((49, 1088, 1920), 24)]  # fmt: skip


class Card:
    """A graphics card with a desktop on it and another model, and the host's accounting of it.

    asked: of each call for room, the bytes beside weights. weights_room: what it left for them.
    shrinks: bytes that someone else takes while weights are loaded.
    """

    reserve, least = 400 * MIB, round(0.8 * GIB)

    def __init__(self, total: int, weights: int, shrinks: int = 0) -> None:
        self.total, self.weights, self.shrinks = total, weights, shrinks
        self.desktop = 600 * MIB
        self.sampler = self.free // 2
        self.asked: list[int] = []
        self.weights_room = 0

    desktop = sampler = loaded = 0

    @property
    def free(self) -> int:
        return self.total - self.desktop - self.sampler - self.loaded

    @property
    def current_loaded_models(self) -> list[Any]:
        model = SimpleNamespace(loaded_size=lambda: self.sampler)
        return [SimpleNamespace(model=model, device=META), SimpleNamespace(model=None, device=META)]

    def get_free_memory(self, device: Any) -> int:
        return self.free

    def get_total_memory(self, device: Any) -> int:
        return self.total

    def extra_reserved_memory(self) -> int:
        return self.reserve

    def load_models_gpu(self, models: list[Any], memory_required: int) -> None:
        self.asked.append(memory_required)
        beside = max(self.least, memory_required) + self.reserve
        if self.free < 1.1 * self.weights + beside:
            self.sampler = 0
        self.weights_room = max(self.free - beside, 0)
        self.loaded = self.weights if self.weights_room > self.weights else 0
        self.desktop += self.shrinks


@pytest.fixture(scope="module")
def engine() -> Any:
    """The published network without weights, in bfloat16."""
    return planning.engine("full", torch.bfloat16, META)


def a_vae(engine: Any, device: str = "meta", results: str = "cpu") -> Any:
    """A VAE of the host that runs on the card, with its weights there."""
    weights = sum(p.numel() * engine.dtype.itemsize for p in engine.module.parameters())
    patcher = SimpleNamespace(model_size=lambda: weights, model=SimpleNamespace())
    return SimpleNamespace(
        patcher=patcher,
        device=torch.device(device),
        output_device=torch.device(results),
        first_stage_model=engine.module,
        video_vae=engine,
    )


def on(monkeypatch: pytest.MonkeyPatch, gib: float, vae: Any, **how: Any) -> Card:
    """A card of so many GiB as the host's."""
    found = Card(round(gib * GIB), vae.patcher.model_size(), **how)
    monkeypatch.setattr(host, "management", lambda: found)
    return found


def settle(vae: Any, size: tuple[int, int, int], settings: Any = None) -> Any:
    """The plan of decoding a clip of `size` sample frames and pixels, after asking for room."""
    frames, height, width = size
    shape = (1, 16, (frames + 3) // 4, height // 8, width // 8)
    settings = settings or core.Settings()
    return running.settled(vae, lambda s: vae.video_vae.plan_decode(shape, s), settings)[1]


@pytest.mark.parametrize(("size", "gib"), FIRST_USERS, ids=str)
def test_weights_find_room_on_the_cards_of_first_users(monkeypatch, engine, size, gib):
    vae = a_vae(engine)
    found = on(monkeypatch, gib, vae)
    plan = settle(vae, size)
    assert found.loaded == found.weights
    (asked,) = found.asked
    assert asked >= plan.peak_bytes + card.ALLOWANCE_BYTES
    left = found.free - found.reserve
    assert left - plan.peak_bytes >= left // card.KEPT_PART + card.ALLOWANCE_BYTES


@pytest.mark.parametrize("gib", [2, 3, 4, 6, 8])
def test_a_plan_takes_no_more_than_a_small_card_can_give(monkeypatch, engine, gib):
    vae = a_vae(engine)
    found = on(monkeypatch, gib, vae)
    try:
        plan = settle(vae, (81, 720, 1280))
    except core.BudgetError:
        assert not found.asked  # no model was put away for a run that does not start
        return
    assert len(found.asked) == 1
    assert plan.peak_bytes <= card.usable(found.free - found.reserve)


def test_a_run_of_no_size_leaves_other_models_where_they_are(monkeypatch, engine):
    vae = a_vae(engine)
    found = on(monkeypatch, 24, vae)
    before = found.sampler
    settle(vae, (9, 64, 64))
    assert found.sampler == before > 0


def test_where_less_is_free_after_all_the_plan_is_made_once_more(monkeypatch, engine):
    vae = a_vae(engine)
    whole = settle_on(monkeypatch, vae, 12, 0)
    less = settle_on(monkeypatch, vae, 12, 6 * GIB)
    assert less.peak_bytes < whole.peak_bytes


def settle_on(monkeypatch, vae: Any, gib: float, shrinks: int) -> Any:
    found = on(monkeypatch, gib, vae, shrinks=shrinks)
    plan = settle(vae, (81, 720, 1280))
    assert len(found.asked) == 1
    assert plan.peak_bytes <= card.usable(found.free - found.reserve)
    return plan


@pytest.mark.parametrize("budget", [1.5, 64.0])
def test_a_persons_budget_is_kept_and_never_goes_beyond_the_card(monkeypatch, engine, budget):
    vae = a_vae(engine)
    found = on(monkeypatch, 8, vae)
    plan = settle(vae, (49, 720, 1280), core.Settings(budget_bytes=round(budget * GIB)))
    assert plan.peak_bytes <= min(budget * GIB, card.usable(found.free - found.reserve))
    assert found.loaded == found.weights


def test_results_that_stay_on_the_card_are_counted(monkeypatch, engine):
    size, asked = (49, 480, 720), {}
    for results in ("cpu", "meta"):
        vae = a_vae(engine, results=results)
        found = on(monkeypatch, 24, vae)
        settle(vae, size)
        (asked[results],) = found.asked
    pictures = 49 * 480 * 720 * 3 * 4
    assert pictures < asked["meta"] - asked["cpu"] < 1.5 * pictures


def test_what_is_planned_beforehand_is_what_is_run(monkeypatch, engine):
    vae = a_vae(engine)
    vae.ends = part("nodes.bridge.ends").ends_of(engine)
    on(monkeypatch, 8, vae)
    before = running.planned(vae, "decode", (81, 720, 1280), core.Settings())
    assert before.as_dict() == settle(vae, (81, 720, 1280)).as_dict()


def test_on_windows_half_a_gigabyte_more_stays_free(monkeypatch):
    usual, wanted = card.usable(8 * GIB), card.needed(4 * GIB)
    monkeypatch.setattr(card, "sys", SimpleNamespace(platform="win32"))
    assert usual - card.usable(8 * GIB) == 512 * MIB
    assert card.needed(4 * GIB) > wanted


@pytest.mark.parametrize("used", [1, 300 * MIB, 5 * GIB + 7])
def test_what_is_asked_for_is_enough_and_no_more(used: int):
    assert used <= card.usable(card.needed(used)) <= used + 2


@pytest.mark.parametrize("free", [-5 * GIB, 0, 1, MIB])
def test_too_little_is_usable_as_next_to_nothing(free: int):
    assert card.usable(free) == 1


def test_on_the_processor_the_planner_alone_decides(monkeypatch, engine):
    vae = a_vae(engine, device="cpu")
    found = on(monkeypatch, 6, vae)
    plan = settle(vae, (9, 64, 64))
    assert found.asked == [plan.peak_bytes]
    assert card.room_bytes(vae) is card.free_bytes(vae) is None
    vae.patcher = None
    settle(vae, (9, 64, 64))
    assert len(found.asked) == 1


def test_weights_that_the_host_pages_keep_their_room(monkeypatch, engine):
    vae = a_vae(engine)
    on(monkeypatch, 12, vae)
    before = card.free_bytes(vae)
    layer = next(m for m in engine.module.modules() if isinstance(m, torch.nn.Conv3d))
    layer._v = "pages"
    try:
        kept = sum(p.nbytes for p in layer.parameters())
        assert abs(before - card.free_bytes(vae) - 0.9 * kept) < 2
    finally:
        del layer._v


@pytest.mark.parametrize(
    ("device", "integrated", "apart"),
    [("cuda", False, True), ("cuda", True, False), ("mps", False, False), ("cpu", False, False)],
)
def test_a_device_that_shares_the_computers_memory_is_not_apart(
    device, integrated, apart, monkeypatch
) -> None:
    monkeypatch.setattr(card, "is_integrated", lambda _: integrated)
    assert card.DeviceMemory(torch.device(device), GIB, GIB).apart is apart
