/** How are a plan's picture, clip and memory drawn? As SVG, sharp at any zoom; text as text. */

import { useBar } from "./live.js";
import { chunkSpans, filled, levelBars, memoryBar, tileBoxes } from "./shapes.js";
import { bytesText, say } from "./words.js";

/** @typedef {import("./kinds.js").Answer} Answer */

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 240;
const TALLEST = 110;

/**
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name of an HTML element
 * @param {{class?: string, text?: string, title?: string}} [options]
 * @param {...Node} children
 */
export function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  if (options.class) made.className = options.class;
  if (options.title) made.title = options.title;
  made.textContent = options.text ?? "";
  made.append(...children);
  return made;
}

/**
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name of an SVG element
 * @param {Record<string, string|number>} attributes
 */
export function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

/** @param {number} height */
function canvas(height) {
  return shape("svg", { viewBox: `0 0 ${WIDE} ${height}`, height, preserveAspectRatio: "xMinYMid" });
}

/**
 * A canvas that is as wide as there is room for.
 * @param {number} height
 */
function bar(height) {
  const svg = canvas(height);
  svg.setAttribute("preserveAspectRatio", "none");
  return svg;
}

/**
 * @param {import("./kinds.js").Box} box
 * @param {string} kind a class of panel.css
 */
function rect({ x, y, w, h }, kind) {
  return shape("rect", { class: kind, x, y, width: Math.max(w, 0), height: Math.max(h, 0) });
}

/**
 * The picture with its tiles, filled up to `share` of the chunk under way.
 * @param {Answer} plan
 * @param {{height: number, width: number}} size
 * @param {number|null} overlap where tiles are blended
 * @param {number} share
 * @param {SVGImageElement|null} frame what to draw beneath, where there is a picture
 */
export function drawTiles(plan, size, overlap, share, frame) {
  const scale = Math.min(WIDE / size.width, TALLEST / size.height);
  const svg = canvas(Math.ceil(size.height * scale) + 2);
  if (frame) {
    frame.setAttribute("width", String(size.width * scale));
    frame.setAttribute("height", String(size.height * scale));
    svg.append(frame);
  }
  const boxes = tileBoxes(size, plan.tile_px, overlap);
  const fills = filled(boxes.length, share);
  const done = frame ? "done over" : "done";
  boxes.forEach((box, index) => {
    const { x, y, w, h } = {
      x: box.x * scale, y: box.y * scale + 1, w: box.w * scale, h: box.h * scale,
    };
    const fill = fills[index] ?? 0;
    if (fill > 0) svg.append(rect({ x, y, w: w * fill, h }, done));
    svg.append(rect({ x, y, w, h }, "cell"));
  });
  return svg;
}

/**
 * The clip with its chunks, filled up to `share` of the run.
 * @param {Answer} plan
 * @param {number} share
 */
export function drawChunks(plan, share) {
  const svg = bar(14);
  svg.append(rect({ x: 0, y: 1, w: share * WIDE, h: 12 }, "done"));
  for (const [start, stop] of chunkSpans(plan)) {
    svg.append(rect({ x: start * WIDE, y: 1, w: (stop - start) * WIDE, h: 12 }, "cell"));
  }
  return svg;
}

/**
 * Projected peak against the device's memory, with its parts in words.
 * @param {Answer} plan
 */
export function drawMemory(plan) {
  const memory = memoryBar(plan);
  const svg = bar(16);
  svg.append(rect({ x: 0, y: 2, w: WIDE, h: 12 }, "cell"));
  for (const part of memory.parts) {
    svg.append(rect({ x: part.start * WIDE, y: 2, w: part.width * WIDE, h: 12 }, part.name));
  }
  const x = memory.free * WIDE;
  svg.append(shape("line", { class: "free", x1: x, x2: x, y1: 0, y2: 16 }));
  const text = element("div");
  for (const part of memory.parts) {
    const words = element("span", { class: "part", text: `${say(part.name)} ${bytesText(part.size)}` });
    words.prepend(element("span", { class: `key ${part.name}` }));
    text.append(words, " · ");
  }
  text.append(`${say("free")} ${bytesText(plan.free_bytes)} / ${bytesText(plan.total_bytes)}`);
  return element("div", {}, svg, text);
}

/**
 * A bar for each resolution, filled as far as its activations live on the device; null where all do.
 * @param {Answer} plan
 */
export function drawLevels(plan) {
  const bars = levelBars(plan.levels);
  if (!bars.length) return null;
  const svg = bar(8 * bars.length);
  const text = bars.map(({ px, near, size }, index) => {
    const box = { x: 0, y: 8 * index + 1, w: size * WIDE, h: 6 };
    svg.append(rect({ ...box, w: box.w * near }, "stores"), rect(box, "cell"));
    return `${px === 1 ? "1" : `1/${px}`}: ${Math.floor(100 * near)} %`;
  });
  return element("div", {}, svg, element("div", { text: `${say("levels")}: ${text.join(" · ")}` }));
}

/**
 * Memory that a run uses against what was planned, with what is counted in words; null where it is
 * not measured.
 * @param {import("./kinds.js").Run} run
 */
export function drawUse(run) {
  const use = useBar(run);
  if (!use || run.usedBytes === null || !run.memory) return null;
  const svg = bar(10);
  svg.append(rect({ x: 0, y: 1, w: use.used * WIDE, h: 8 }, "used"));
  svg.append(rect({ x: 0, y: 1, w: use.planned * WIDE, h: 8 }, "cell"));
  const [used, peak] = [bytesText(run.usedBytes), bytesText(run.peakBytes)];
  const word = run.state === "end" ? "peakUsed" : "inUse";
  const text = `${say(word, { used, peak })} · ${say(run.memory)}`;
  return element("div", { class: "use" }, svg, element("div", { text }));
}
