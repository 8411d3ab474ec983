/** How do one node, its question to the server and its view hang together? */

import { problems, question, snappedChunk, usesOverlap } from "./rules.js";
import { clipSize, vaeOf, widgetValue } from "./upstream.js";
import { View } from "./view.js";
import { say } from "./words.js";

const LINE_PX = 34;
const OPEN_PX = 330;
const MARGIN_PX = 4; // the classic canvas takes it off both ends of the height
const WIDGET = "exact_plan";
const OPERATIONS = {
  ExactVAEEncodeTiled: "encode",
  ExactVAEEncodeVideo: "encode",
  ExactVAEDecodeFramewise: "decode",
  ExactVAEDecodeVideo: "decode",
};
const SIDES = /** @type {const} */ (["frames", "height", "width"]);

/** @param {string} type of a node */
export function hasPanel(type) {
  return type in OPERATIONS || type === "ExactVAEPlan";
}

/** A panel on one node. Nothing of it is stored in the workflow. */
export class Panel {
  /**
   * @param {any} node
   * @param {string} type of the node; the node itself does not know it yet
   * @param {{ask: Function, forget: Function}} line to the server
   * @param {(node: any) => object} known sizes of nodes that have run
   */
  constructor(node, type, line, known) {
    Object.assign(this, { node, type, line, known });
    this.fields = { frames: 49, height: 480, width: 720 };
    this.asked = "";
    this.told = null;
    this.plan = null;
    this.run = null;
    this.view = new View({
      toggle: () => this.toggle(),
      typed: (side, value) => this.typed(side, value),
      apply: (widgets) => this.apply(widgets),
    });
    const height = () => (this.view.open ? OPEN_PX : LINE_PX);
    this.widget = node.addDOMWidget(WIDGET, WIDGET, this.view.root, {
      serialize: false,
      hideOnZoom: false,
      margin: MARGIN_PX,
      getMinHeight: height,
      getMaxHeight: height,
    });
    this.widget.serialize = false;
    this.follow();
    this.refresh();
  }

  /** Hear of what a person does with the widgets. */
  follow() {
    for (const widget of this.node.widgets) {
      if (widget === this.widget) continue;
      const before = widget.callback;
      widget.callback = (...given) => {
        const result = before?.apply(widget, given);
        if (widget.name === "chunk_size") this.snap(widget, given[0]);
        this.run = null;
        this.refresh();
        return result;
      };
    }
  }

  /** Bring a chunk size to what the network takes, and say so. */
  snap(widget, given) {
    const to = snappedChunk(widget.value);
    this.told = Number(given) === to ? null : { text: say("snapped", { to }) };
    widget.value = to;
  }

  values() {
    return Object.fromEntries((this.node.widgets ?? []).map((w) => [w.name, w.value]));
  }

  /** Ask again where something has changed; cheap where nothing has. */
  refresh() {
    const values = this.values();
    const seen = clipSize(this.node, this.known);
    this.typedSides = Object.fromEntries(SIDES.map((side) => [side, !seen[side]]));
    this.size = Object.fromEntries(SIDES.map((side) => [side, seen[side] ?? this.fields[side]]));
    this.found = problems(values);
    this.grey(values);
    const operation = OPERATIONS[this.type] ?? widgetValue(this.node, "operation");
    const asking = question(operation, values, this.size, vaeOf(this.node));
    const signature = JSON.stringify(asking);
    if (signature === this.asked) return;
    this.asked = signature;
    if (this.found.length === 0) {
      this.line.ask(this, asking, (answer) => this.answered(answer));
    } else {
      this.plan = null;
    }
    this.show();
  }

  answered({ status, content }) {
    const broken = { fits: false, error: content.error ?? say("noServer") };
    this.plan = status === 200 ? content : broken;
    this.show();
  }

  grey(values) {
    const overlap = this.node.widgets.find((widget) => widget.name === "overlap");
    if (!overlap) return;
    overlap.disabled = !usesOverlap(values);
    if (overlap.options) overlap.options.disabled = overlap.disabled;
  }

  notes() {
    const found = this.found.map((p) => ({ text: say(p.word, p.numbers), bad: true }));
    if (this.told) found.push(this.told);
    for (const note of this.plan?.notes ?? []) {
      found.push({ text: say(note === "frames" ? "framesPad" : "sizePad", { n: this.size.frames }) });
    }
    if (usesOverlap(this.values())) found.push({ text: say("blend") });
    return found;
  }

  show() {
    const values = this.values();
    this.view.show({
      plan: this.plan,
      run: this.run,
      notes: this.notes(),
      size: this.size,
      typed: this.typedSides,
      overlap: usesOverlap(values) ? values.overlap : null,
    });
    this.node.graph?.setDirtyCanvas?.(true, false);
  }

  toggle() {
    this.view.open = !this.view.open;
    const change = (OPEN_PX - LINE_PX) * (this.view.open ? 1 : -1);
    const [width, height] = this.node.size;
    this.node.setSize([width, height + change]);
    this.show();
  }

  typed(side, value) {
    this.fields[side] = value;
    this.refresh();
  }

  apply(widgets) {
    for (const [name, value] of Object.entries(widgets)) {
      const widget = this.node.widgets.find((one) => one.name === name);
      if (!widget) continue;
      widget.callback?.(value);
      widget.value = value; // the client's own steps may be coarser
    }
    this.refresh();
  }

  /** @param {any} event of a run of this node */
  progress(event) {
    const before = event.state === "begin" ? {} : (this.run ?? {});
    const { t, h, w } = sampleSize(event.plan) ?? before;
    this.run = { ...before, ...event, t, h, w, size: t ? `${t}×${h}×${w}` : "" };
    if (event.plan) this.run.chunks = event.plan.chunks.length;
    this.show();
  }

  /** The run has ended without an `end`: interrupted or failed. */
  stopped() {
    if (!this.run || this.run.state === "end") return;
    this.run = { ...this.run, state: "stopped" };
    this.show();
  }

  remove() {
    this.line.forget(this);
  }
}

/**
 * Sample frames and pixels of the clip that a plan is for.
 * @param {any} plan
 */
export function sampleSize(plan) {
  if (!plan) return null;
  const [t, h, w] = plan.source;
  return plan.program === "encoder" ? { t, h, w } : { t: 4 * t - 3, h: 8 * h, w: 8 * w };
}
