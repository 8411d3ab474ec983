/** What does a person see of one node's plan? One line, and everything else when it is opened. */

import { drawChunks, drawLevels, drawMemory, drawTiles, drawUse, element, shape } from "./drawing.js";
import { remaining } from "./live.js";
import { bytesText, chunksText, say, secondsText } from "./words.js";

/** @typedef {import("./kinds.js").Answer} Answer */
/** @typedef {import("./kinds.js").Run} Run */
/** @typedef {import("./kinds.js").Side} Side */

/**
 * @typedef {object} State
 * @property {Answer|null} plan the server's answer
 * @property {Run|null} run
 * @property {import("./kinds.js").Note[]} notes
 * @property {import("./kinds.js").Size} size
 * @property {Record<Side, boolean>} typed which sides a person may type
 * @property {number|null} overlap where tiles are blended
 *
 * @typedef {object} Events what a person does
 * @property {() => void} toggle
 * @property {(side: Side, value: number) => void} typed
 * @property {(widgets: Record<string, string|number>) => void} apply
 */

/**
 * @param {Pick<State, "plan"|"run"|"notes">} state
 * @returns {{text: string, bad: boolean}}
 */
export function headline({ plan, run, notes }) {
  const wrong = notes.find((note) => note.bad);
  if (wrong) return { text: wrong.text, bad: true };
  if (run) return { text: runText(run), bad: false };
  if (!plan) return { text: say("asking"), bad: false };
  if (plan.refused) return { text: plan.error ?? "", bad: true };
  if (!plan.fits) return { text: `${say("fitsNot")}: ${plan.error ?? ""}`, bad: true };
  const peak = `${say("peak")} ${bytesText(plan.peak_bytes)}`;
  return { text: `${say("fits")} · ${peak} · ${chunksText(plan.chunks)}`, bad: false };
}

/** @param {Run} run */
function runText(run) {
  const { job, share, usedBytes, chunks, size } = run;
  const seconds = secondsText(run.seconds);
  const peak = bytesText(run.peakBytes);
  const used = usedBytes === null ? null : bytesText(usedBytes);
  if (run.state === "stopped") return say("stopped", { job, seconds });
  if (run.state === "end") {
    const memory = used ? `${say("peak")} ${used} / ${peak}` : say("peakPlanned", { peak });
    const parts = [say("finished", { job, seconds }), memory];
    if (chunks) parts.push(chunksText(chunks));
    if (size) parts.push(`${size.frames}×${size.height}×${size.width}`);
    return parts.join(" · ");
  }
  const left = remaining(run.seconds, share);
  const percent = Math.round(100 * share);
  const time = say("running", { job, percent, left: left === null ? "…" : secondsText(left) });
  return used ? `${time} · ${used} / ${peak}` : time;
}

/** The panel of one node. */
export class View {
  /** @param {Events} events */
  constructor(events) {
    this.events = events;
    this.open = false;
    this.root = element("div", { class: "exact-plan" });
    this.root.dataset.testid = "exact-plan";
    this.content = element("div", { class: "content" });
    this.root.append(this.content);
    // Kept, so that a picture does not flicker when the rest is drawn anew.
    this.thumb = element("img", { class: "thumb" });
    this.frame = shape("image", { x: 0, y: 1, preserveAspectRatio: "none" });
    this.picture = "";
  }

  /** @param {State} state */
  show(state) {
    const focused =
      this.root.contains(document.activeElement) &&
      document.activeElement instanceof HTMLInputElement;
    if (focused) return;
    this.take(state.run?.picture ?? "");
    const { text, bad } = headline(state);
    const line = element(
      "button",
      { class: "line", title: say(this.open ? "close" : "open") },
      element("span", { text: this.open ? "▾" : "▸" }),
      element("span", { class: bad ? "text bad" : "text", text, title: text }),
    );
    if (this.picture) line.append(this.thumb);
    line.addEventListener("click", () => this.events.toggle());
    this.content.replaceChildren(line, ...(this.open ? this.body(state) : []));
    this.root.dataset.peak = String(state.plan?.peak_bytes ?? "");
  }

  /** The height of all that is shown; 0 while the client has it out of sight. */
  contentPx() {
    return this.content.offsetHeight;
  }

  /** @param {string} picture the newest, or "" */
  take(picture) {
    if (picture === this.picture) return;
    this.picture = picture;
    if (!picture) return;
    this.thumb.src = picture;
    this.thumb.title = say("newest");
    this.frame.setAttribute("href", picture);
  }

  /** @param {State} state */
  body(state) {
    const { plan, run, notes } = state;
    const found = [this.sizes(state)];
    if (plan?.fits) found.push(...this.drawn(plan, state));
    const use = run && drawUse(run);
    if (use) found.push(use);
    for (const note of notes) {
      found.push(element("div", { class: note.bad ? "bad" : "note", text: note.text }));
    }
    if (plan?.error) found.push(element("div", { class: "bad", text: plan.error }));
    if (plan?.fix) found.push(this.fix(plan.fix.widgets));
    return found;
  }

  /**
   * @param {Answer} plan that fits
   * @param {State} state
   * @returns {(HTMLElement|SVGElement)[]}
   */
  drawn(plan, { run, size, overlap }) {
    const share = run?.share ?? 0;
    const inside = share === 1 ? 1 : (share * plan.chunks) % 1;
    const [height, width] = plan.tile_px;
    const words = [
      say("tilesOf", { w: width, h: height }),
      chunksText(plan.chunks),
      say("arithmetic", { x: plan.arithmetic }),
      say("placement", { place: plan.placement }),
    ];
    if (plan.crops > 1) words.push(say("crops", { n: plan.crops }));
    if (plan.far_bytes) {
      const [far, moved] = [plan.far_bytes, plan.moved_bytes].map(bytesText);
      words.push(say("far", { far, moved }));
    }
    if (plan.ranks > 1) words.push(say("shared", { n: plan.ranks }));
    if (plan.seconds) words.push(say("projected", { time: secondsText(plan.seconds) }));
    const levels = drawLevels(plan);
    return [
      drawTiles(plan, size, overlap, inside, this.picture ? this.frame : null),
      drawChunks(plan, share),
      drawMemory(plan),
      ...(levels ? [levels] : []),
      element("div", { text: words.join(" · ") }),
    ];
  }

  /**
   * @param {State} state
   * @returns {HTMLElement|SVGElement}
   */
  sizes({ size, typed }) {
    const row = element("div", { text: `${say("clip")}: ` });
    for (const side of /** @type {const} */ (["width", "height", "frames"])) {
      row.append(`${say(side)} `);
      if (typed[side]) row.append(this.field(side, size[side]), " ");
      else row.append(`${size[side]}  `);
    }
    return row;
  }

  /**
   * @param {Side} side
   * @param {number} usual
   */
  field(side, usual) {
    const field = element("input", { title: say("fromFields") });
    field.type = "number";
    field.value = String(usual);
    field.addEventListener("change", () => {
      const value = Number(field.value);
      field.blur();
      if (Number.isInteger(value) && value > 0) this.events.typed(side, value);
    });
    return field;
  }

  /** @param {Record<string, string|number>} widgets */
  fix(widgets) {
    const changes = Object.entries(widgets).map(([name, value]) => `${name} = ${value}`);
    const button = element("button", { text: say("apply", { changes: changes.join(", ") }) });
    button.dataset.testid = "exact-plan-fix";
    button.addEventListener("click", () => this.events.apply(widgets));
    return button;
  }
}
