/** How do one node, its question to the server and its view hang together? */

import { merged } from "./live.js";
import { problems, question, snappedChunk, usesChunks, usesOverlap } from "./rules.js";
import { clipSize, vaeOf, widgetValue } from "./upstream.js";
import { View } from "./view.js";
import { say } from "./words.js";

/** @typedef {import("./kinds.js").GraphNode} GraphNode */
/** @typedef {import("./kinds.js").Side} Side */
/** @typedef {import("./kinds.js").Values} Values */
/** @typedef {import("./kinds.js").Widget} Widget */

const LINE_PX = 34;
const MARGIN_PX = 4; // the classic canvas takes it off both ends of the height
const WIDGET = "exact_plan";
/** @type {Record<string, "encode"|"decode">} */
const OPERATIONS = {
  ExactVAEEncodeTiled: "encode",
  ExactVAEEncodeVideo: "encode",
  ExactVAEDecodeFramewise: "decode",
  ExactVAEDecodeVideo: "decode",
};

/** @param {string} type of a node */
export function hasPanel(type) {
  return type in OPERATIONS || type === "ExactVAEPlan";
}

/**
 * Something of each side of a clip.
 * @template Kind
 * @param {(side: Side) => Kind} of
 * @returns {Record<Side, Kind>}
 */
function eachSide(of) {
  return { frames: of("frames"), height: of("height"), width: of("width") };
}

/** A panel on one node. Nothing of it is stored in the workflow. */
export class Panel {
  /**
   * @param {GraphNode} node
   * @param {string} type of the node; the node itself does not know it yet
   * @param {ReturnType<import("./asking.js").createLine>} line to the server
   * @param {import("./upstream.js").Known} known sizes of nodes that have run
   */
  constructor(node, type, line, known) {
    this.node = node;
    this.type = type;
    this.line = line;
    this.known = known;
    this.fields = { frames: 49, height: 480, width: 720 };
    this.size = this.fields;
    this.typedSides = eachSide(() => true);
    this.asked = "";
    this.network = "full";
    this.frameAsked = 0;
    this.heightPx = LINE_PX;
    /** @type {ReturnType<typeof problems>} */
    this.found = [];
    /** @type {import("./kinds.js").Note|null} */
    this.told = null;
    /** @type {import("./kinds.js").Answer|null} */
    this.plan = null;
    /** @type {import("./kinds.js").Run|null} */
    this.run = null;
    this.view = new View({
      toggle: () => this.toggle(),
      typed: (side, value) => this.typed(side, value),
      apply: (widgets) => this.apply(widgets),
    });
    this.widget = this.hung();
    this.follow();
    this.refresh();
  }

  /** The view as a widget of the node. */
  hung() {
    const height = () => this.heightPx;
    const widget = this.node.addDOMWidget(WIDGET, WIDGET, this.view.root, {
      serialize: false,
      hideOnZoom: false,
      margin: MARGIN_PX,
      getMinHeight: height,
      getMaxHeight: height,
    });
    widget.serialize = false;
    return widget;
  }

  /** Hear of what a person does with the widgets. */
  follow() {
    for (const widget of this.node.widgets ?? []) {
      if (widget.name === WIDGET) continue;
      const before = widget.callback;
      widget.callback = (value, ...given) => {
        const result = before?.call(widget, value, ...given);
        if (widget.name === "chunk_size") this.snap(widget, value);
        this.run = null;
        this.refresh();
        return result;
      };
    }
  }

  /**
   * Bring a chunk size to what the network takes, and say so.
   * @param {Widget} widget
   * @param {unknown} given
   */
  snap(widget, given) {
    const to = snappedChunk(Number(widget.value));
    this.told = Number(given) === to ? null : { text: say("snapped", { to }) };
    widget.value = to;
  }

  /** @returns {Values} */
  values() {
    return Object.fromEntries((this.node.widgets ?? []).map((w) => [w.name, w.value]));
  }

  /**
   * Ask again where something has changed; cheap where nothing has. A node that stands in no graph
   * has no plan: nothing is asked for it, and nothing of it can be followed.
   */
  refresh() {
    if (!this.node.graph) return;
    const values = this.values();
    const seen = clipSize(this.node, this.known);
    this.typedSides = eachSide((side) => !seen[side]);
    this.size = eachSide((side) => seen[side] ?? this.fields[side]);
    this.found = problems(values);
    const vae = vaeOf(this.node);
    this.network = vae.network;
    this.grey("overlap", !usesOverlap(values));
    this.grey("norm_scope", !usesChunks(vae.network));
    const operation = OPERATIONS[this.type] ?? widgetValue(this.node, "operation");
    const asking = question(operation, values, this.size, vae);
    const signature = JSON.stringify(asking);
    if (signature === this.asked) return;
    this.asked = signature;
    if (this.found.length === 0) {
      this.line.ask(this, asking, (reply) => this.answered(reply));
    } else {
      this.plan = null;
    }
    this.show();
  }

  /** @param {import("./kinds.js").Reply} reply */
  answered({ status, content }) {
    const error = content.error ?? say("noServer");
    const broken = { ...content, fits: false, refused: true, error };
    this.plan = status === 200 ? content : broken;
    this.show();
  }

  /**
   * Show whether a widget means anything here.
   * @param {string} name
   * @param {boolean} idle
   */
  grey(name, idle) {
    const widget = this.node.widgets?.find((one) => one.name === name);
    if (!widget) return;
    widget.disabled = idle;
    if (widget.options) widget.options.disabled = idle;
  }

  notes() {
    const found = this.found.map((p) => ({ text: say(p.word, p.numbers), bad: true }));
    /** @type {import("./kinds.js").Note[]} */
    const notes = this.told ? [...found, this.told] : found;
    const ratios = this.plan?.ratios;
    for (const note of this.plan?.notes ?? []) {
      const word = note === "frames" ? "framesPad" : "sizePad";
      notes.push({ text: say(word, { n: this.size.frames, k: ratios?.frames, px: ratios?.px }) });
    }
    if (!usesChunks(this.network)) notes.push({ text: say("bound") });
    return usesOverlap(this.values()) ? [...notes, { text: say("blend") }] : notes;
  }

  /** Draw before the next frame of the screen, once for all that has changed until then. */
  show() {
    this.frameAsked ||= requestAnimationFrame(() => {
      this.frameAsked = 0;
      this.draw();
    });
  }

  draw() {
    const values = this.values();
    this.view.show({
      plan: this.plan,
      run: this.run,
      notes: this.notes(),
      size: this.size,
      typed: this.typedSides,
      overlap: usesOverlap(values) ? Number(values.overlap) : null,
    });
    this.fit();
    this.node.graph?.setDirtyCanvas?.(true, false);
  }

  /** Give the node the height that the view needs; an open one only grows, so that it holds still. */
  fit() {
    const needed = this.view.contentPx() + 2 * MARGIN_PX;
    const wanted = this.view.open ? Math.max(needed, this.heightPx) : LINE_PX;
    const change = wanted - this.heightPx;
    if (change === 0) return;
    this.heightPx = wanted;
    const [width, height] = this.node.size;
    this.node.setSize([width, height + change]);
  }

  toggle() {
    this.view.open = !this.view.open;
    this.show();
  }

  /**
   * @param {Side} side
   * @param {number} value
   */
  typed(side, value) {
    this.fields[side] = value;
    this.refresh();
  }

  /** @param {Record<string, string|number>} widgets */
  apply(widgets) {
    for (const [name, value] of Object.entries(widgets)) {
      const widget = this.node.widgets?.find((one) => one.name === name);
      if (!widget) continue;
      widget.callback?.(value);
      widget.value = value; // the client's own steps may be coarser
    }
    this.refresh();
  }

  /** @param {string} job "encode" or "decode": whether this node does that */
  runs(job) {
    return OPERATIONS[this.type] === job;
  }

  /** @param {import("./kinds.js").RunEvent} event of a run of this node */
  progress(event) {
    this.run = merged(this.run, event);
    this.show();
  }

  /** The run has ended without an `end`: interrupted or failed. */
  stopped() {
    if (!this.run || this.run.state === "end") return;
    this.run = { ...this.run, state: "stopped" };
    this.show();
  }

  /** The node has left its graph; it may come back into this or another one. */
  remove() {
    this.line.forget(this);
    this.asked = "";
    cancelAnimationFrame(this.frameAsked);
    this.frameAsked = 0;
  }
}
