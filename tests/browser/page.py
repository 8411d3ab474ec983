"""What can a test do in the web client? What a person can: look, click, drag and type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from host.client import Client

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "out" / "screenshots"
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))

READY = "window.app && window.app.extensionManager && window.app.graph"
HEADLINES = "[...document.querySelectorAll('.exact-plan .line')].map(e => e.innerText)"
OURS = ("/extensions/exact-video-vae/", "/exact_video_vae/")

TO_PAGE = """([x, y]) => {
  const canvas = app.canvas, box = canvas.canvas.getBoundingClientRect();
  const [dx, dy] = canvas.ds.offset, scale = canvas.ds.scale;
  return [box.left + (x + dx) * scale, box.top + (y + dy) * scale];
}"""

SET = """([type, changes]) => {
  const node = app.graph.nodes.find(n => n.type === type);
  for (const [name, value] of Object.entries(changes)) {
    const widget = node.widgets.find(w => w.name === name);
    widget.value = value; widget.callback?.(value); widget.value = value;
  }
}"""

ADD = """([kind, x, y]) => {
  const node = LiteGraph.createNode(kind);
  node.pos = [x, y];
  app.graph.add(node);
}"""


class Page:
    """A page of the client, and what it complained of.

    style: of the client, "own" or "newest"; names its screenshots.
    """

    def __init__(self, page: Any, client: Client, style: str) -> None:
        self.page, self.client, self.style = page, client, style
        self.errors: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", self._thrown)
        self.open()

    def open(self) -> None:
        """Load the page anew."""
        self.page.goto(f"http://127.0.0.1:{self.client.port}/", timeout=120_000)
        self.page.wait_for_function(READY, timeout=120_000)
        self.page.wait_for_timeout(3000)

    def _console(self, message: Any) -> None:
        where = message.location.get("url", "")
        if message.type == "error" and any(name in where for name in OURS):
            self.errors.append(f"{where}: {message.text}")

    def _thrown(self, error: Any) -> None:
        if any(name in str(getattr(error, "stack", "")) for name in OURS):
            self.errors.append(str(error))

    def get(self, script: str, *given: Any) -> Any:
        """What a script in the page gives."""
        return self.page.evaluate(script, *given)

    def wait(self, seconds: float) -> None:
        self.page.wait_for_timeout(seconds * 1000)

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait for something to be true in the page."""
        self.page.wait_for_function(condition, timeout=seconds * 1000)

    def shot(self, name: str) -> None:
        """A screenshot, as an artefact."""
        folder = SHOTS / self.style
        folder.mkdir(parents=True, exist_ok=True)
        # The client gives some elements their place only when the canvas is drawn.
        self.get("app.graph.setDirtyCanvas(true, true)")
        self.wait(0.3)
        self.page.screenshot(path=folder / f"{name}.png")

    def setting(self, name: str, value: Any) -> None:
        """Change a setting of the client."""
        script = "([name, value]) => app.extensionManager.setting.set(name, value)"
        self.get(script, [name, value])

    def clear(self) -> None:
        """An empty graph, with nothing selected or open."""
        self.page.keyboard.press("Escape")
        self.get("() => { app.graph.clear(); app.canvas.ds.reset(); }")
        self.wait(0.5)

    def add(self, kind: str, x: float = 500, y: float = 150) -> None:
        """One node more."""
        self.get(ADD, [kind, x, y])
        self.wait(0.3)

    def only(self, kind: str) -> None:
        """A graph with one node, at its usual place."""
        self.clear()
        self.add(kind)

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow."""
        self.get("async workflow => { await app.loadGraphData(workflow) }", workflow)
        self.wait(2)

    def example(self, path: Path) -> dict[str, Any]:
        """Open an example workflow, and what its file holds."""
        workflow = json.loads(path.read_text(encoding="utf-8"))
        self.load(workflow)
        return workflow

    def set(self, kind: str, changes: dict[str, Any]) -> None:
        """Set widgets of the first node of a kind."""
        self.get(SET, [kind, changes])

    def open_panels(self) -> None:
        """Open every panel that is one line."""
        self.get("document.querySelectorAll('.exact-plan .line').forEach(e => e.click())")
        self.wait(0.5)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the graph is in the window."""
        left, top = self.get(TO_PAGE, [x, y])
        return left, top

    def drag(self, start: tuple[float, float], stop: tuple[float, float], steps: int) -> None:
        """Drag the mouse between two points of the window."""
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move(*stop, steps=steps)
        mouse.up()
