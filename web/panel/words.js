/**
 * What does the panel say, and how does it write numbers?
 *
 * English here; locales/<language>/main.json has the others under `exactVideoVae`. Numbers go where
 * [brackets] are, since the client reads {braces} in translations itself.
 */

export const WORDS = {
  asking: "planning…",
  fits: "fits",
  fitsNot: "does not fit",
  peak: "peak",
  weights: "weights",
  stores: "stores",
  caches: "caches",
  workspace: "workspace",
  free: "free",
  chunks: "[n] chunks",
  oneChunk: "1 chunk",
  tilesOf: "tiles of [w]×[h] px",
  crops: "[n] blended crops",
  arithmetic: "arithmetic [x]× of untiled",
  placement: "activations: [place]",
  levels: "on the device, by resolution",
  projected: "about [time] on the device",
  shared: "shared by [n] devices; memory and tiles are those of one",
  far: "[far] outside the device, [moved] copied",
  framesPad: "[n] frames are not [k]k+1; the frame policy decides",
  sizePad: "the sides are not multiples of [px]; the size policy decides",
  blend: "blended tiles change the picture",
  bound: "This network: chunk_size is only a bound, and norm_scope means nothing",
  clip: "clip",
  frames: "frames",
  width: "width",
  height: "height",
  fromFields: "not known here: type it",
  apply: "Set [changes]",
  snapped: "chunk_size was set to [to]: it counts in fours",
  badChunk: "chunk_size must be a multiple of 4, such as [use]",
  badTile: "tile_size must be 0 or at least [least]",
  badOverlap: "overlap must be smaller than the tiles of [tile] px",
  running: "[job]: [percent] %, [left] left",
  inUse: "[used] of [peak] planned",
  finished: "[job] finished in [seconds]",
  peakUsed: "peak [used] of [peak] planned",
  peakPlanned: "peak planned [peak]",
  stopped: "[job] stopped after [seconds]",
  device: "in use: torch's allocations on the device",
  process: "in use: growth of the whole process, result and libraries included",
  newest: "the newest frame",
  noServer: "the server does not answer; retrying with the next change",
  open: "Show the plan",
  close: "Hide the plan",
};

/** @typedef {keyof typeof WORDS} Word */

/** @type {Record<Word, string>} */
let chosen = { ...WORDS };

/** @param {Partial<Record<Word, string>>|undefined} words of another language; what it lacks stays */
export function speak(words) {
  chosen = { ...WORDS, ...words };
}

/**
 * @param {Word} word
 * @param {Record<string, unknown>} [numbers] for its [brackets]
 */
export function say(word, numbers = {}) {
  return chosen[word].replace(/\[(\w+)\]/g, (whole, name) =>
    name in numbers ? String(numbers[name]) : whole,
  );
}

/**
 * @param {number} size in bytes
 * @returns {string} GiB, or MiB below a tenth of one, as the server writes it
 */
export function bytesText(size) {
  const gib = size / 2 ** 30;
  return gib >= 0.1 ? `${gib.toFixed(2)} GiB` : `${(size / 2 ** 20).toFixed(1)} MiB`;
}

/** @param {number} count of chunks */
export function chunksText(count) {
  return count === 1 ? say("oneChunk") : say("chunks", { n: count });
}

/** @param {number} seconds */
export function secondsText(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${seconds < 9.95 ? seconds.toFixed(1) : whole} s`;
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
