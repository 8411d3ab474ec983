/**
 * How is the server asked no more than so often, whatever a person drags?
 *
 * One line for the whole page: at most one request in `gapMs`, one at a time, the newest question
 * of each asker only. An answer that is still in the making (202) is asked for again.
 */

/**
 * @typedef {import("./kinds.js").Reply} Reply
 * @typedef {{now: () => number, later: (run: () => void, ms: number) => unknown}} Clock
 */

const NO_REPLY = { status: 0, content: /** @type {Reply["content"]} */ ({}) };

/** @type {Clock} */
const CLOCK = { now: () => Date.now(), later: (run, ms) => setTimeout(run, ms) };

/**
 * @param {(question: object) => Promise<Reply>} send
 * @param {number} [gapMs] between the beginnings of two requests
 * @param {Clock} [clock]
 */
export function createLine(send, gapMs = 220, clock = CLOCK) {
  /** @type {Map<unknown, {question: object, done: (reply: Reply) => void}>} */
  const waiting = new Map();
  let last = -Infinity;
  let busy = false;
  let timed = false;

  function schedule() {
    if (busy || timed || waiting.size === 0) return;
    timed = true;
    clock.later(
      () => {
        timed = false;
        void next();
      },
      Math.max(0, last + gapMs - clock.now()),
    );
  }

  async function next() {
    const first = waiting.entries().next();
    if (first.done) return;
    const [asker, entry] = first.value;
    waiting.delete(asker);
    busy = true;
    last = clock.now();
    const reply = await send(entry.question).catch(() => NO_REPLY);
    busy = false;
    const replaced = waiting.has(asker);
    if (reply.status === 202 && !replaced) waiting.set(asker, entry);
    else if (!replaced) entry.done(reply);
    schedule();
  }

  return {
    /**
     * @param {unknown} asker whose earlier question this one replaces
     * @param {object} question
     * @param {(reply: Reply) => void} done
     */
    ask(asker, question, done) {
      waiting.set(asker, { question, done });
      schedule();
    },
    /** @param {unknown} asker that wants no answer any more */
    forget(asker) {
      waiting.delete(asker);
    },
  };
}
