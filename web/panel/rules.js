/**
 * Which widgets of a node contradict each other, and what does a node ask the server?
 *
 * The server's own check (nodes/widgets.py) stays the authority; this only tells earlier.
 */

/** @typedef {import("./kinds.js").Values} Values */

/** Widgets that a question takes as they are. */
export const ASKED = [
  "chunk_size",
  "tile_size",
  "overlap",
  "tiling",
  "norm_scope",
  "memory_budget",
  "frame_policy",
  "size_policy",
];

const SMALLEST_TILE_PX = 16;

/**
 * The nearest chunk size that the network takes.
 * @param {number} value
 * @returns {number}
 */
export function snappedChunk(value) {
  return Math.min(Math.max(Math.round(Number(value) / 4) * 4 || 4, 4), 4096);
}

/**
 * @param {Values} values
 */
export function problems(values) {
  /** @type {{widget: string, word: import("./words.js").Word, numbers: Record<string, number>}[]} */
  const found = [];
  const chunk = Number(values.chunk_size);
  const tile = Number(values.tile_size);
  const overlap = Number(values.overlap);
  if (chunk % 4 !== 0 || chunk < 4) {
    found.push({ widget: "chunk_size", word: "badChunk", numbers: { use: snappedChunk(chunk) } });
  }
  if (tile > 0 && tile < SMALLEST_TILE_PX) {
    found.push({ widget: "tile_size", word: "badTile", numbers: { least: SMALLEST_TILE_PX } });
  }
  const side = tile || 256;
  if (usesOverlap(values) && overlap >= side) {
    found.push({ widget: "overlap", word: "badOverlap", numbers: { tile: side } });
  }
  return found;
}

/**
 * Whether the overlap has any effect.
 * @param {Values} values
 */
export function usesOverlap(values) {
  return values.tiling === "blend";
}

/**
 * Whether the result depends on chunks and on the frames that statistics are taken over.
 * @param {string} network
 */
export function usesChunks(network) {
  return !["wan", "tiny_wan", "wan22", "ltx", "hunyuan", "hunyuan15", "seedvr2", "mochi"].includes(network);
}

/**
 * @param {unknown} operation "encode" or "decode"
 * @param {Values} values
 * @param {import("./kinds.js").Size} size
 * @param {import("./kinds.js").Asked} vae
 */
export function question(operation, values, size, vae) {
  const known = ASKED.filter((name) => values[name] !== undefined && values[name] !== null);
  return {
    operation,
    ...vae,
    ...size,
    ...Object.fromEntries(known.map((name) => [name, values[name]])),
  };
}
