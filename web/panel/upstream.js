/**
 * How large is the clip that will reach a node, as far as the graph shows it?
 *
 * Follows links upwards until some node has widgets that say width, height or frames. Nodes are
 * read through `getInputNode`, `inputs` and `widgets` only.
 */

const CLIP_INPUTS = ["images", "image", "pixels", "video", "samples", "latent", "latent_image"];
const FRAME_WIDGETS = ["length", "frames", "num_frames", "video_frames", "amount", "count", "batch_size"];
const DTYPES = ["bf16", "fp16", "fp32"];
const FARTHEST = 24;
const SUBGRAPH_INPUT = -10; // the origin that the client gives to links from outside a subgraph
const SHIPPED = { "tiny_vae (ships": "tiny", "tiny_wan_vae (ships": "tiny_wan" };
// The 5B model of Wan 2.2 has a network of its own; its other models have that of Wan 2.1.
const WAN_22 = /wan_?2[._]?2_?vae|ti2v/i;
const WAN = /wan|qwen/i;
const LTX = /ltx/i;
const HUNYUAN_15 = /hunyuan_?-?video_?-?1[._]?5/i;
const HUNYUAN = /hunyuan_?-?video|framepack|kandinsky_?-?5/i;
const MOCHI = /mochi/i;
const SEEDVR2 = /seedvr|(^|\/)ema_vae/i;

/**
 * What is read of a node of the client.
 * @typedef {object} Seen
 * @property {string} [type]
 * @property {{name: string, value?: unknown}[]} [widgets]
 * @property {{name: string, link?: number|null}[]} [inputs]
 * @property {{naturalWidth: number, naturalHeight: number}[]} [imgs]
 * @property {(slot: number) => boolean} [isInputConnected]
 * @property {(slot: number) => Seen|null} [getInputNode]
 * @property {(slot: number) => Link|null} [getInputLink]
 * @property {Graph|null} [graph] that it stands in
 * @property {Graph} [subgraph] that it is an instance of
 * @property {(slot: number) => {outputNode?: Seen}|undefined} [resolveSubgraphOutputLink]
 *
 * @typedef {{origin_id: unknown, origin_slot: number}} Link
 *
 * @typedef {object} Graph
 * @property {Seen[]} nodes
 * @property {(id: number) => Link|null|undefined} [getLink]
 * @property {(id: any) => Seen|null|undefined} [getNodeById]
 * @property {Graph} [rootGraph]
 * @property {Map<string, Graph>} [subgraphs] of a root: all that are defined
 *
 * @typedef {Partial<import("./kinds.js").Size>} Size
 * @typedef {(node: any) => Size} Known sizes of nodes that have run
 */

/**
 * @param {Seen} node
 * @param {string} name
 */
export function widgetValue(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

/**
 * The node that feeds one of a node's inputs, by name; null where nothing does or it is not seen.
 * @param {Seen} node
 * @param {string} name
 */
export function feeding(node, name) {
  const slot = (node.inputs ?? []).findIndex((input) => input?.name === name);
  return slot < 0 ? null : feedingSlot(node, slot);
}

/**
 * @param {Seen} node
 * @param {number} slot of its inputs
 * @returns {Seen|null}
 */
function feedingSlot(node, slot, far = 0) {
  // The client raises where a node that left its graph is asked.
  if (node.graph === null || far >= FARTHEST || !node.isInputConnected?.(slot)) return null;
  const link = linkInto(node, slot);
  if (link && Number(link.origin_id) === SUBGRAPH_INPUT) return outside(node, link.origin_slot, far + 1);
  const above = (link && node.graph?.getNodeById?.(link.origin_id)) ?? node.getInputNode?.(slot) ?? null;
  if (!above?.subgraph || !link) return above;
  return above.resolveSubgraphOutputLink?.(link.origin_slot)?.outputNode ?? above;
}

/**
 * The link into an input. An instance of a subgraph may answer for what lies in it where it is
 * asked itself (client 1.58): its graph knows better.
 * @param {Seen} node
 * @param {number} slot of its inputs
 * @returns {Link|null}
 */
function linkInto(node, slot) {
  const id = node.inputs?.[slot]?.link;
  return (id != null && node.graph?.getLink?.(id)) || node.getInputLink?.(slot) || null;
}

/**
 * What feeds an input of the subgraph that a node is in; null where its instances differ in that.
 * @param {Seen} node
 * @param {number} slot of the subgraph's inputs
 * @param {number} far
 */
function outside({ graph }, slot, far) {
  const root = graph?.rootGraph;
  const graphs = root ? [root, ...(root.subgraphs?.values() ?? [])] : [];
  const instances = graphs.flatMap((one) => one.nodes.filter((node) => node.subgraph === graph));
  const [first = null, ...others] = new Set(instances.map((one) => feedingSlot(one, slot, far)));
  return others.length ? null : first;
}

/**
 * @param {unknown} value
 * @returns {number} 0 for what is no count
 */
function count(value) {
  return typeof value === "number" && Number.isInteger(value) && value > 0 ? value : 0;
}

/** @param {Seen} node */
function ownSize(node) {
  /** @type {Size} */
  const size = {};
  for (const side of /** @type {const} */ (["width", "height"])) {
    const value = count(widgetValue(node, side));
    if (value) size[side] = value;
  }
  for (const name of FRAME_WIDGETS) {
    const value = count(widgetValue(node, name));
    if (value) return { ...size, frames: value };
  }
  return size;
}

/**
 * @param {Seen} node the host's image loader, once its picture is there
 * @returns {Size}
 */
function pictureSize(node) {
  const picture = node.type === "LoadImage" ? node.imgs?.[0] : null;
  if (!picture?.naturalWidth) return {};
  return { width: picture.naturalWidth, height: picture.naturalHeight, frames: 1 };
}

/**
 * What the graph says of the clip at `node`, its own widgets first.
 * @param {Seen} node
 * @param {Known} [known]
 * @returns {Size}
 */
export function clipSize(node, known = () => ({}), far = 0) {
  /** @type {Size} */
  const found = { ...known(node), ...pictureSize(node), ...ownSize(node) };
  if ((found.frames && found.height && found.width) || far >= FARTHEST) return found;
  for (const name of CLIP_INPUTS) {
    const above = feeding(node, name);
    if (above) return { ...clipSize(above, known, far + 1), ...found };
  }
  return found;
}

/**
 * Which network a file of weights is of, by its name: the server reads no file for a plan.
 * @param {string} file
 */
function networkOf(file) {
  const shipped = Object.entries(SHIPPED).find(([name]) => file.startsWith(name));
  if (shipped) return shipped[1];
  if (LTX.test(file)) return "ltx";
  if (HUNYUAN_15.test(file)) return "hunyuan15";
  if (HUNYUAN.test(file)) return "hunyuan";
  if (SEEDVR2.test(file)) return "seedvr2";
  if (MOCHI.test(file)) return "mochi";
  if (!WAN.test(file)) return "full";
  return WAN_22.test(file) ? "wan22" : "wan";
}

/**
 * The checkpoint that a node loads, where it has a VAE of ours.
 * @param {Seen} node
 */
function checkpoint(node) {
  const file = widgetValue(node, "ckpt_name");
  return typeof file === "string" && LTX.test(file) ? file : undefined;
}

/**
 * What else a question holds of the VAE: whose result is meant where that is not the authors', and
 * how many devices share its runs where one does not do all.
 * @param {unknown} reference
 * @param {unknown} devices as a person wrote them down
 * @returns {{reference?: string, ranks?: number}}
 */
function meant(reference, devices) {
  const ranks = String(devices ?? "").split(/[\s,;]+/).filter(Boolean).length;
  return {
    ...(reference === "core" || reference === "core-as-is" ? { reference } : {}),
    ...(ranks > 1 ? { ranks } : {}),
  };
}

/**
 * Which network a node's VAE is, what it computes in, and what `meant` adds.
 * @param {Seen} node
 * @returns {import("./kinds.js").Asked}
 */
export function vaeOf(node) {
  /** @type {Seen|null} */
  let at = node;
  /** @type {unknown} */
  let reference;
  /** @type {unknown} */
  let devices;
  for (let far = 0; at && far < FARTHEST; far += 1) {
    reference ??= widgetValue(at, "reference");
    devices ??= widgetValue(at, "devices");
    const file = widgetValue(at, at.type === "WanVideoVAELoader" ? "model_name" : "vae_name") ?? checkpoint(at);
    if (typeof file === "string") {
      const dtype = String(widgetValue(at, "dtype"));
      return { network: networkOf(file), dtype: DTYPES.includes(dtype) ? dtype : "auto", ...meant(reference, devices) };
    }
    at = feeding(at, "vae");
  }
  return { network: "full", dtype: "auto" };
}
