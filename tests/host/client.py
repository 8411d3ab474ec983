"""How do tests talk to a running host? As its web client does, over HTTP and a websocket."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from host.events import Events
from safetensors import safe_open
from torch import Tensor

ENDS = {"execution_success", "execution_error", "execution_interrupted"}
Prompt = dict[str, dict[str, Any]]


@dataclass
class Finished:
    """A prompt that came to its end: how, and what the host sent until then."""

    end: str
    told: dict[str, Any]
    seconds: float
    events: list[dict[str, Any]] = field(default_factory=list)
    previews: int = 0

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of one kind."""
        return [event["data"] for event in self.events if event["type"] == kind]


class Client:
    """One web client of the host at `port`; base: the host's folder of inputs and outputs."""

    def __init__(self, port: int, pid: int, base: Path) -> None:
        self.port, self._process, self.base = port, psutil.Process(pid), base
        self._id = uuid.uuid4().hex

    def ask(self, path: str, data: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer; with `data` it is a POST."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if data is None else json.dumps(data).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def object_info(self) -> dict[str, Any]:
        """What the host knows about every node."""
        return self.ask("/object_info")[1]

    def queue(self, prompt: Prompt) -> tuple[int, Any]:
        """Status and answer to a prompt."""
        return self.ask("/prompt", {"prompt": prompt, "client_id": self._id})

    def run(
        self,
        prompt: Prompt,
        timeout_seconds: float = 400,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> Finished:
        """Run a prompt to its end, whichever that is."""
        events = Events(self.port, self._id, timeout_seconds)
        try:
            status, answer = self.queue(prompt)
            assert status == 200, answer
            return _until_end(events, answer["prompt_id"], on_event)
        finally:
            events.close()

    def succeed(self, prompt: Prompt, timeout_seconds: float = 400) -> Finished:
        """Run a prompt that must succeed."""
        done = self.run(prompt, timeout_seconds)
        assert done.end == "execution_success", done.told.get("exception_message", done.told)
        return done

    def interrupt(self) -> None:
        """Stop the prompt that runs."""
        self.ask("/interrupt", {})

    def captured(self, name: str) -> Tensor:
        """What a TestCapture node called `name` wrote."""
        path = self.base / "output" / "captured" / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            return file.get_tensor("value")

    def resident_bytes(self) -> int:
        """Memory of the host's process that is in use now."""
        return self._process.memory_info().rss


def _until_end(
    events: Events, prompt_id: str, on_event: Callable[[dict[str, Any]], None] | None
) -> Finished:
    done = Finished("", {}, 0.0)
    started = time.monotonic()
    while not done.end:
        message = events.next()
        if isinstance(message, bytes):
            done.previews += 1
            continue
        done.events.append(message)
        if on_event is not None:
            on_event(message)
        if message["type"] in ENDS and message["data"]["prompt_id"] == prompt_id:
            done.end, done.told = message["type"], message["data"]
    done.seconds = time.monotonic() - started
    return done
