/** What do the events of a run come to? Values only. */

/** @typedef {import("./kinds.js").Run} Run */
/** @typedef {import("./kinds.js").RunEvent} RunEvent */
/** @typedef {import("./kinds.js").RunPlan} RunPlan */
/** @typedef {import("./kinds.js").Size} Size */

const LONGEST_PICTURE = 2 ** 17;
const BASE64 = /^[A-Za-z0-9+/]+=*$/;

/**
 * The clip that a plan is for.
 * @param {RunPlan|undefined} plan
 * @returns {Size|null}
 */
export function sampleSize(plan) {
  if (!plan) return null;
  const [frames, height, width] = plan.sample;
  return { frames, height, width };
}

/**
 * An address for a picture that an event brought; "" for what is no such picture.
 * @param {unknown} text
 */
export function pictureUrl(text) {
  const sound = typeof text === "string" && text.length <= LONGEST_PICTURE && BASE64.test(text);
  return sound ? `data:image/jpeg;base64,${text}` : "";
}

/**
 * A run after one more event; a `begin` starts a new one, and so does another id: another instance
 * of the subgraph that the node is in.
 * @param {Run|null} run
 * @param {RunEvent} event
 * @returns {Run}
 */
export function merged(run, event) {
  const before = event.state === "begin" || run?.node !== event.node ? null : run;
  return {
    node: event.node,
    state: event.state,
    job: event.job,
    seconds: event.seconds,
    peakBytes: event.peak_bytes,
    memory: event.memory,
    share: event.state === "end" ? 1 : (event.share ?? before?.share ?? 0),
    usedBytes: event.used_peak_bytes ?? event.used_bytes ?? before?.usedBytes ?? null,
    picture: pictureUrl(event.picture) || (before?.picture ?? ""),
    chunks: event.plan?.chunks.length || event.chunks || (before?.chunks ?? null),
    size: sampleSize(event.plan) ?? before?.size ?? null,
  };
}

/**
 * Memory in use as a share of a bar that holds what was planned, and where in it the plan ends.
 * @param {Run} run
 * @returns {{used: number, planned: number}|null} null where it is not measured
 */
export function useBar(run) {
  if (run.usedBytes === null || !run.memory) return null;
  const whole = Math.max(run.usedBytes, run.peakBytes, 1);
  return { used: run.usedBytes / whole, planned: run.peakBytes / whole };
}

/**
 * Seconds that remain when `share` of the work took `seconds`; null while it is too early to tell.
 * @param {number} seconds
 * @param {number} share
 */
export function remaining(seconds, share) {
  return share > 0.01 ? (seconds * (1 - share)) / share : null;
}
