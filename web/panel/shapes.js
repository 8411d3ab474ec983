/** Where do tiles, chunks and bars lie? Numbers only. */

/** @typedef {"weights"|"stores"|"caches"|"workspace"} Part of the memory that a plan takes */

const MOST_CELLS = 48;

/**
 * [0, size) in the fewest near-equal intervals of at most `largest`, as the engine cuts.
 * @param {number} size
 * @param {number} largest
 * @returns {[number, number][]}
 */
export function pieces(size, largest) {
  const count = Math.max(Math.ceil(size / Math.max(largest, 1)), 1);
  const at = (/** @type {number} */ index) => Math.floor((size * index) / count);
  return Array.from({ length: count }, (_, index) => [at(index), at(index + 1)]);
}

/**
 * Overlapping intervals, the last one shifted inwards, as blended tiles lie.
 * @param {number} size
 * @param {number} tile
 * @param {number} overlap
 * @returns {[number, number][]}
 */
export function shifted(size, tile, overlap) {
  if (size <= tile) return [[0, size]];
  const stride = Math.max(tile - overlap, 8);
  const starts = [];
  for (let at = 0; at < size - tile; at += stride) starts.push(at);
  return [...starts, size - tile].map((at) => [at, at + tile]);
}

/**
 * The tiles of one picture, row by row; at most `most` of each side are told apart.
 * @param {{height: number, width: number}} size
 * @param {[number, number]} tilePx height and width
 * @param {number|null} overlap where tiles are blended
 * @returns {import("./kinds.js").Box[]}
 */
export function tileBoxes(size, tilePx, overlap, most = MOST_CELLS) {
  const cut = (/** @type {number} */ side, /** @type {number} */ tile) => {
    const bound = Math.max(tile, Math.ceil(side / most));
    return overlap === null ? pieces(side, bound) : shifted(side, bound, Math.min(overlap, bound / 2));
  };
  const rows = cut(size.height, tilePx[0]);
  const columns = cut(size.width, tilePx[1]);
  return rows.flatMap(([top, bottom]) =>
    columns.map(([left, right]) => ({ x: left, y: top, w: right - left, h: bottom - top })),
  );
}

/**
 * The clip's chunks as shares of its length, [start, stop); many are drawn as `most` alike.
 * @param {{chunks: number, chunk_frames: number[], last_chunk_frames: number}} plan
 * @returns {[number, number][]}
 */
export function chunkSpans(plan, most = MOST_CELLS) {
  if (plan.chunks > most) return pieces(1000, 1000 / most).map(([a, b]) => [a / 1000, b / 1000]);
  const [first = plan.last_chunk_frames, usual = first] = plan.chunk_frames;
  const counts = Array.from({ length: plan.chunks }, (_, index) =>
    index === 0 ? first : index === plan.chunks - 1 ? plan.last_chunk_frames : usual,
  );
  const total = counts.reduce((sum, count) => sum + count, 0);
  let at = 0;
  return counts.map((count) => [at / total, (at += count) / total]);
}

/**
 * How far each of `count` cells in a row is filled when `share` of them is done.
 * @param {number} count
 * @param {number} share
 */
export function filled(count, share) {
  return Array.from({ length: count }, (_, i) => Math.min(Math.max(share * count - i, 0), 1));
}

/**
 * The bar of memory: parts and marks as shares of its length.
 * @param {Pick<import("./kinds.js").Answer, "weight_bytes"|"store_bytes"|"cache_bytes"
 *   |"workspace_bytes"|"total_bytes"|"free_bytes">} plan
 */
export function memoryBar(plan) {
  /** @type {[Part, number][]} */
  const parts = [
    ["weights", plan.weight_bytes],
    ["stores", plan.store_bytes],
    ["caches", plan.cache_bytes],
    ["workspace", plan.workspace_bytes],
  ];
  const used = parts.reduce((sum, [, size]) => sum + size, 0);
  const whole = Math.max(plan.total_bytes, used, 1);
  let at = 0;
  return {
    parts: parts.map(([name, size]) => {
      const start = at;
      at += size / whole;
      return { name, size, start, width: size / whole };
    }),
    free: Math.min(plan.free_bytes / whole, 1),
  };
}

/**
 * What of each level lives on the device: as a share of it, with its size against the largest.
 * @param {import("./kinds.js").Answer["levels"]} levels
 * @returns {{px: number, near: number, size: number}[]} nothing where all of it does
 */
export function levelBars(levels = []) {
  if (levels.every(([, , far]) => far === 0)) return [];
  const largest = Math.max(...levels.map(([, near, far]) => near + far));
  return levels.map(([px, near, far]) => ({
    px, near: near / (near + far), size: (near + far) / largest,
  }));
}
