/** What does a person see of one node's plan? One line, and everything else when it is opened. */

import { drawChunks, drawMemory, drawTiles, element } from "./drawing.js";
import { bytesText, remaining, say, secondsText } from "./words.js";

/**
 * @typedef {object} State
 * @property {any} [plan] the server's answer
 * @property {any} [run] the newest event of a run
 * @property {{text: string, bad?: boolean}[]} notes
 * @property {{frames: number, height: number, width: number}} size
 * @property {Record<string, boolean>} typed which sides a person may type
 * @property {number|null} overlap where tiles are blended
 */

/**
 * @param {State} state
 * @returns {{text: string, bad: boolean}}
 */
export function headline({ plan, run, notes }) {
  const wrong = notes.find((note) => note.bad);
  if (wrong) return { text: wrong.text, bad: true };
  if (run) return { text: runText(run), bad: false };
  if (!plan) return { text: say("asking"), bad: false };
  if (!plan.fits) return { text: `${say("fitsNot")}: ${plan.error ?? ""}`, bad: true };
  const peak = `${say("peak")} ${bytesText(plan.peak_bytes)}`;
  return { text: `${say("fits")} · ${peak} · ${plan.chunks} ${say("chunks")}`, bad: false };
}

/** @param {any} run */
function runText(run) {
  const seconds = secondsText(run.seconds);
  if (run.state === "end") {
    const { job, chunks = "?" } = run;
    const peak = bytesText(run.peak_bytes);
    return say("finished", { job, seconds, chunks, size: run.size ?? "", peak });
  }
  if (run.state === "stopped") return say("stopped", { job: run.job, seconds });
  const share = run.share ?? 0;
  const left = remaining(run.seconds, share);
  const percent = Math.round(100 * share);
  return say("running", { job: run.job, percent, left: left === null ? "…" : secondsText(left) });
}

/** The panel of one node; `events` are told what a person does. */
export class View {
  /** @param {{toggle: () => void, typed: (side: string, value: number) => void, apply: (widgets: object) => void}} events */
  constructor(events) {
    this.events = events;
    this.open = false;
    this.root = element("div", { class: "exact-plan" });
    this.root.dataset.testid = "exact-plan";
  }

  /** @param {State} state */
  show(state) {
    const focused = this.root.contains(document.activeElement) &&
      document.activeElement instanceof HTMLInputElement;
    if (focused) return;
    const { text, bad } = headline(state);
    const line = element("button", { class: "line", title: say(this.open ? "close" : "open") },
      element("span", { text: this.open ? "▾" : "▸" }),
      element("span", { class: bad ? "bad" : "", text, title: text }));
    line.addEventListener("click", () => this.events.toggle());
    this.root.replaceChildren(line, ...(this.open ? this.body(state) : []));
    this.root.dataset.peak = String(state.plan?.peak_bytes ?? "");
  }

  /** @param {State} state */
  body(state) {
    const { plan, notes } = state;
    const found = [this.sizes(state)];
    if (plan?.fits) found.push(...this.drawn(state));
    for (const note of notes) {
      found.push(element("div", { class: note.bad ? "bad" : "note", text: note.text }));
    }
    if (plan?.error) found.push(element("div", { class: "bad", text: plan.error }));
    if (plan?.fix) found.push(this.fix(plan.fix.widgets));
    return found;
  }

  /** @param {State} state */
  drawn({ plan, run, size, overlap }) {
    const share = run ? (run.state === "end" ? 1 : (run.share ?? 0)) : 0;
    const inside = share === 1 ? 1 : (share * plan.chunks) % 1;
    const [height, width] = plan.tile_px;
    const words = [
      say("tilesOf", { w: width, h: height }),
      `${plan.chunks} ${say("chunks")}`,
      say("arithmetic", { x: plan.arithmetic }),
      say("placement", { place: plan.placement }),
    ];
    if (plan.crops > 1) words.push(say("crops", { n: plan.crops }));
    if (plan.far_bytes) {
      const [far, moved] = [plan.far_bytes, plan.moved_bytes].map(bytesText);
      words.push(say("far", { far, moved }));
    }
    return [
      drawTiles(plan, size, overlap, inside),
      drawChunks(plan, share),
      drawMemory(plan),
      element("div", { text: words.join(" · ") }),
    ];
  }

  /** @param {State} state */
  sizes({ size, typed }) {
    const row = element("div", { text: `${say("clip")}: ` });
    for (const side of /** @type {const} */ (["width", "height", "frames"])) {
      if (!typed[side]) {
        row.append(`${say(side)} ${size[side]}  `);
        continue;
      }
      const field = element("input", { title: say("fromFields") });
      if (!(field instanceof HTMLInputElement)) continue;
      field.type = "number";
      field.value = String(size[side]);
      field.addEventListener("change", () => {
        const value = Number(field.value);
        field.blur();
        if (Number.isInteger(value) && value > 0) this.events.typed(side, value);
      });
      row.append(`${say(side)} `, field, " ");
    }
    return row;
  }

  /** @param {Record<string, any>} widgets */
  fix(widgets) {
    const changes = Object.entries(widgets).map(([name, value]) => `${name} = ${value}`);
    const button = element("button", { text: say("apply", { changes: changes.join(", ") }) });
    button.dataset.testid = "exact-plan-fix";
    button.addEventListener("click", () => this.events.apply(widgets));
    return button;
  }
}
