"""What does a person see of the server's own error, where a value gets past the panel?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from browser.page import WORKFLOWS, Page

pytestmark = pytest.mark.browser

INFO = "Info for Exact VAE Encode Video - chunk_size"
SENTENCE = "chunk_size must be a multiple of 4, whatever the model; got 6. Use 4 or 8."


def with_bad_chunks(route: Any) -> None:
    """A prompt on its way to the server, with a chunk size that the panel would have snapped."""
    body = json.loads(route.request.post_data)
    for node in body["prompt"].values():
        if "chunk_size" in node["inputs"]:
            node["inputs"]["chunk_size"] = 6
    route.continue_(post_data=json.dumps(body))


def test_the_servers_error_for_a_bad_chunk_size_is_seen(comfy: Page):
    comfy.example(WORKFLOWS[0])
    comfy.page.route("**/prompt", with_bad_chunks)
    try:
        comfy.page.get_by_role("button", name="Run", exact=True).first.click()
        comfy.page.get_by_text("View details").first.click()
        comfy.page.get_by_role("button", name=INFO).click()
        comfy.until(f"document.body.innerText.includes('{SENTENCE}')")
        comfy.shot("bad_chunk_size")
    finally:
        comfy.page.unroute("**/prompt")
