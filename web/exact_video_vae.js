/** What does the web client run of this pack? Panels on the nodes that plan, fed by our events. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { createLine } from "./panel/asking.js";
import { Panel, hasPanel, sampleSize } from "./panel/panel.js";
import { speak } from "./panel/words.js";

const EVENT = "exact_video_vae.progress";
const LOOK_MS = 1000;

/** @type {Map<any, Panel>} */
const panels = new Map();
/** @type {WeakMap<any, object>} */
const lastRun = new WeakMap();

const line = createLine(async (question) => {
  const response = await api.fetchApi("/exact_video_vae/plan", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  });
  return { status: response.status, content: await response.json() };
});

/** @param {string} id of a node as events have it: "7", or "3:7" inside a subgraph */
function nodeOf(id) {
  let graph = app.graph?.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(Number(part)) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/** @param {any} event */
function heard(event) {
  const node = nodeOf(event.node);
  if (!node) return;
  const size = sampleSize(event.plan);
  if (size) lastRun.set(node, { frames: size.t, height: size.h, width: size.w });
  panels.get(node)?.progress(event);
}

async function translated() {
  const language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en";
  const response = await api.fetchApi("/i18n");
  const all = await response.json();
  speak(all?.[language]?.exactVideoVae);
}

function style() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./panel/panel.css", import.meta.url).href;
  document.head.append(link);
}

app.registerExtension({
  name: "exact_video_vae.panel",
  async setup() {
    style();
    api.addEventListener(EVENT, (event) => heard(event.detail));
    for (const end of ["execution_interrupted", "execution_error"]) {
      api.addEventListener(end, () => panels.forEach((panel) => panel.stopped()));
    }
    // Upstream nodes change without telling; looking costs no request unless something did.
    setInterval(() => {
      if (!document.hidden) panels.forEach((panel) => panel.refresh());
    }, LOOK_MS);
    await translated().catch(() => undefined);
  },
  nodeCreated(node) {
    const type = node.comfyClass ?? node.type;
    if (!hasPanel(type) || !node.addDOMWidget) return;
    panels.set(node, new Panel(node, type, line, (one) => lastRun.get(one) ?? {}));
    const before = node.onRemoved;
    node.onRemoved = (...given) => {
      panels.get(node)?.remove();
      panels.delete(node);
      return before?.apply(node, given);
    };
  },
});
