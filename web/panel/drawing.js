/** How are a plan's picture, clip and memory drawn? As SVG, sharp at any zoom; text as text. */

import { chunkSpans, filled, memoryBar, tileBoxes } from "./shapes.js";
import { bytesText, say } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 240;

/**
 * @param {string} name of an HTML element
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
 * @param {string} name of an SVG element
 * @param {Record<string, string|number>} attributes
 */
function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

/** @param {number} height */
function canvas(height) {
  return shape("svg", { viewBox: `0 0 ${WIDE} ${height}`, height });
}

/** @param {{x: number, y: number, w: number, h: number}} box */
function rect(box, kind) {
  const { x, y, w, h } = box;
  return shape("rect", { class: kind, x, y, width: Math.max(w, 0), height: Math.max(h, 0) });
}

/**
 * The picture with its tiles, filled up to `share` of the chunk under way.
 * @param {any} plan
 * @param {{height: number, width: number}} size
 * @param {number|null} overlap where tiles are blended
 * @param {number} share
 */
export function drawTiles(plan, size, overlap, share) {
  const scale = Math.min(WIDE / size.width, 110 / size.height);
  const svg = canvas(Math.ceil(size.height * scale) + 2);
  const boxes = tileBoxes(size, plan.tile_px, overlap);
  const fills = filled(boxes.length, share);
  boxes.forEach((box, index) => {
    const { x, y, w, h } = {
      x: box.x * scale, y: box.y * scale + 1, w: box.w * scale, h: box.h * scale,
    };
    if (fills[index] > 0) svg.append(rect({ x, y, w: w * fills[index], h }, "done"));
    svg.append(rect({ x, y, w, h }, "cell"));
  });
  return svg;
}

/**
 * The clip with its chunks, filled up to `share` of the run.
 * @param {any} plan
 * @param {number} share
 */
export function drawChunks(plan, share) {
  const svg = canvas(14);
  svg.append(rect({ x: 0, y: 1, w: share * WIDE, h: 12 }, "done"));
  for (const [start, stop] of chunkSpans(plan)) {
    svg.append(rect({ x: start * WIDE, y: 1, w: (stop - start) * WIDE, h: 12 }, "cell"));
  }
  return svg;
}

/**
 * Projected peak against the device's memory, with its parts in words.
 * @param {any} plan
 */
export function drawMemory(plan) {
  const bar = memoryBar(plan);
  const svg = canvas(16);
  svg.append(rect({ x: 0, y: 2, w: WIDE, h: 12 }, "cell"));
  for (const part of bar.parts) {
    svg.append(rect({ x: part.start * WIDE, y: 2, w: part.width * WIDE, h: 12 }, part.name));
  }
  const x = bar.free * WIDE;
  svg.append(shape("line", { class: "free", x1: x, x2: x, y1: 0, y2: 16 }));
  const parts = bar.parts.map((part) => `${say(part.name)} ${bytesText(part.size)}`);
  const memory = `${say("free")} ${bytesText(plan.free_bytes)} / ${bytesText(plan.total_bytes)}`;
  const text = element("div", { text: [...parts, memory].join(" · ") });
  return element("div", {}, svg, text);
}
