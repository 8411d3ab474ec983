/** What does the web client run of this pack? Panels on the nodes that plan, fed by our events. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { createLine } from "./panel/asking.js";
import { sampleSize } from "./panel/live.js";
import { Panel, hasPanel } from "./panel/panel.js";
import { speak } from "./panel/words.js";

/** @typedef {import("./panel/kinds.js").GraphNode} GraphNode */

const EVENT = "exact_video_vae.progress";
const LOOK_MS = 1000;

// Weak, since the client makes nodes that never get into a graph: copies, and what a drag holds.
/** @type {WeakMap<object, Panel>} */
const panels = new WeakMap();
/** @type {WeakMap<GraphNode, import("./panel/kinds.js").Size>} */
const lastRun = new WeakMap();

const line = createLine(async (question) => {
  const response = await api.fetchApi("/exact_video_vae/plan", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  });
  return { status: response.status, content: await response.json() };
});

/** The workflow that is open, whichever of its subgraphs a person looks at. */
function rootGraph() {
  return app.graph?.rootGraph ?? app.graph;
}

/** The panels of all nodes that stand in the open workflow, those inside subgraphs included. */
function standing() {
  const root = rootGraph();
  const graphs = root ? [root, ...(root.subgraphs?.values() ?? [])] : [];
  const found = graphs.flatMap((graph) => graph.nodes.map((node) => panels.get(node)));
  return found.filter((panel) => panel !== undefined);
}

/**
 * @param {string} id of a node as events have it: "7", or "3:7" inside a subgraph
 * @returns {GraphNode|null}
 */
function nodeOf(id) {
  let graph = rootGraph();
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(Number(part)) ?? null;
    graph = /** @type {any} */ (node)?.subgraph;
  }
  return /** @type {GraphNode|null} */ (node);
}

/** @param {import("./panel/kinds.js").RunEvent} event */
function heard(event) {
  // Ids count anew in every workflow: another one may have been open when this run was started.
  if (event.workflow && event.workflow !== rootGraph()?.id) return;
  const node = nodeOf(event.node);
  const panel = node && panels.get(node);
  if (!node || !panel?.runs(event.job)) return;
  const size = sampleSize(event.plan);
  if (size) lastRun.set(node, size);
  panel.progress(event);
}

async function translated() {
  const language = String(app.extensionManager.setting.get("Comfy.Locale"));
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
    /** @type {EventTarget} */ (api).addEventListener(EVENT, (event) => {
      if (event instanceof CustomEvent) heard(event.detail);
    });
    const stop = () => standing().forEach((panel) => panel.stopped());
    api.addEventListener("execution_interrupted", stop);
    api.addEventListener("execution_error", stop);
    // Upstream nodes change without telling; looking costs no request unless something did.
    setInterval(() => {
      if (!document.hidden) standing().forEach((panel) => panel.refresh());
    }, LOOK_MS);
    await translated().catch(() => undefined);
  },
  nodeCreated(created) {
    const node = /** @type {GraphNode} */ (created);
    const type = node.comfyClass ?? node.type;
    if (!hasPanel(type) || !node.addDOMWidget) return;
    const panel = new Panel(node, type, line, (one) => lastRun.get(one) ?? {});
    panels.set(node, panel);
    const { onAdded, onRemoved } = node;
    node.onAdded = (graph) => {
      onAdded?.call(node, graph);
      panel.refresh();
    };
    node.onRemoved = () => {
      panel.remove();
      onRemoved?.call(node);
    };
  },
});
