"""Does Apply's `devices` show in a running host, and what becomes of names there?

A host on the processor: two processors play the devices.
"""

from __future__ import annotations

import pytest
import torch
from host.client import Client, Prompt
from host.test_behaviour import RUN, TINY, node

pytestmark = pytest.mark.host

OWN = {"chunk_size": 8, "norm_scope": "chunk", "memory_budget": 0.0}


def shared(**widgets: str) -> Prompt:
    """A clip through a VAE with these widgets of Apply, in core's nodes and ours."""
    return {
        "1": node("ExactVAELoader", vae_name=TINY, dtype="fp32"),
        "2": node("TestClip", frames=9, height=64, width=48, seed=5, negate=False),
        "3": node("ExactVAEApply", vae=["1", 0], **OWN, **widgets),
        "4": node("VAEEncode", pixels=["2", 0], vae=["3", 0]),
        "5": node("VAEDecode", samples=["4", 0], vae=["3", 0]),
        "6": node("ExactVAEDecodeFramewise", samples=["4", 0], vae=["3", 0], **RUN),
        "7": node("TestCapture", value=["5", 0], name="through_core"),
        "8": node("TestCapture", value=["6", 0], name="through_ours"),
    }


def pictures(client: Client, **widgets: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What both decoders give."""
    client.succeed(shared(**widgets))
    return client.captured("through_core"), client.captured("through_ours")


def test_the_widget_is_the_last_of_apply_and_empty_at_first(client: Client):
    inputs = client.object_info()["ExactVAEApply"]["input"]
    kind, options = inputs["optional"]["devices"]
    assert kind == "STRING"
    assert options["default"] == ""
    assert "cuda:0, cuda:1" in options["tooltip"]
    assert [*inputs["required"], *inputs["optional"]][-1] == "devices"


def test_two_devices_give_the_pictures_of_one(client: Client):
    """Without the widget's value as well, as workflows have it that were saved before."""
    before = pictures(client)
    for found, expected in zip(pictures(client, devices="cpu, cpu"), before, strict=True):
        assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "cpu",
            "devices must name two or more that share a run, such as 'cuda:0, cuda:1'; got cpu",
        ),
        ("cpu, cuda:99", "devices that share a run must be there; got 'cuda:99'"),
        ("nobody, cpu", "devices that share a run must be there; got 'nobody'"),
    ],
)
def test_one_device_and_unknown_ones_are_refused_with_a_sentence(
    client: Client, written: str, said: str
):
    done = client.run(shared(devices=written))
    assert done.end == "execution_error"
    assert done.told["node_type"] == "ExactVAEApply"
    assert said in done.told["exception_message"]


def test_a_shared_run_can_be_interrupted_and_the_next_one_is_whole(client: Client):
    prompt = shared(devices="cpu, cpu")
    prompt["2"]["inputs"] |= {"frames": 33, "height": 128, "width": 160}
    asked: list[str] = []

    def stop_midway(event: dict) -> None:
        data = event["data"]
        if event["type"] == "progress" and data["value"] > 0.2 * data["max"] and not asked:
            asked.append(data["node"])
            client.interrupt()

    assert client.run(prompt, on_event=stop_midway).end == "execution_interrupted"
    assert asked
    for found, expected in zip(pictures(client, devices="cpu, cpu"), pictures(client), strict=True):
        assert (found - expected).abs().max() <= 1e-5
