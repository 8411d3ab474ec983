/**
 * Which widgets of a node contradict each other, and what does a node ask the server?
 *
 * The server's own check (nodes/widgets.py) stays the authority; this only tells earlier.
 */

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
 * @param {Record<string, any>} values of the widgets
 * @returns {{widget: string, word: string, numbers: Record<string, any>}[]}
 */
export function problems(values) {
  const found = [];
  const { chunk_size: chunk, tile_size: tile, overlap, tiling } = values;
  if (chunk % 4 !== 0 || chunk < 4) {
    found.push({ widget: "chunk_size", word: "badChunk", numbers: { use: snappedChunk(chunk) } });
  }
  if (tile > 0 && tile < SMALLEST_TILE_PX) {
    found.push({ widget: "tile_size", word: "badTile", numbers: { least: SMALLEST_TILE_PX } });
  }
  const side = tile || 256;
  if (tiling === "blend" && overlap >= side) {
    found.push({ widget: "overlap", word: "badOverlap", numbers: { tile: side } });
  }
  return found;
}

/**
 * Whether the overlap has any effect.
 * @param {Record<string, any>} values
 */
export function usesOverlap(values) {
  return values.tiling === "blend";
}

/**
 * @param {"encode"|"decode"} operation
 * @param {Record<string, any>} values
 * @param {{frames: number, height: number, width: number}} size
 * @param {{network: string, dtype: string}} vae
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
