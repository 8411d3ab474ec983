/**
 * What do the panel's values look like? Types only, for the checker (tests/web).
 *
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyExtension} Extension
 * @typedef {import("@comfyorg/comfyui-frontend-types").DOMWidgetOptions<string>} DOMOptions
 * @typedef {import("@comfyorg/comfyui-frontend-types").DOMWidget<HTMLElement, string>} DOMWidget
 * @typedef {(name: string, type: string, root: HTMLElement, options: DOMOptions) => DOMWidget} Hang
 * @typedef {Parameters<NonNullable<Extension["nodeCreated"]>>[0]} PublishedNode
 * @typedef {PublishedNode & {addDOMWidget: Hang}} GraphNode the published types lack the method
 * @typedef {NonNullable<GraphNode["widgets"]>[number]} Widget
 *
 * @typedef {"frames"|"height"|"width"} Side
 * @typedef {Record<Side, number>} Size of a clip, in sample frames and pixels
 * @typedef {Record<string, unknown>} Values of a node's widgets, by name
 * @typedef {{status: number, content: Answer & Refusal}} Reply of the server
 * @typedef {{network: string, dtype: string, reference?: string, ranks?: number}} Asked of a VAE
 *
 * @typedef {object} Refusal
 * @property {string} [error] in a sentence
 *
 * @typedef {object} Answer what a run would take (nodes/planning.py); sizes in bytes
 * @property {boolean} fits
 * @property {boolean} [refused] there is no plan at all
 * @property {string} [error] why it does not fit, or why there is none
 * @property {{widgets: Record<string, string|number>}|null} [fix] widgets that make it fit
 * @property {number} peak_bytes
 * @property {number} weight_bytes
 * @property {number} store_bytes
 * @property {number} cache_bytes
 * @property {number} workspace_bytes
 * @property {number} free_bytes
 * @property {number} total_bytes
 * @property {number} far_bytes
 * @property {number} moved_bytes
 * @property {string} placement
 * @property {number} ranks devices that share the run; what is said of memory is said of one
 * @property {number|null} [seconds] that it is thought to take on a card
 * @property {[number, number, number][]} [levels] pixels an element, bytes on the device, and away
 * @property {number} chunks
 * @property {number[]} chunk_frames
 * @property {number} last_chunk_frames
 * @property {number} crops
 * @property {[number, number]} tile_px height and width
 * @property {number} arithmetic
 * @property {{px: number, frames: number}} ratios of a latent element
 * @property {string[]} notes
 *
 * @typedef {object} RunPlan a plan as a run tells it (nodes/live.py)
 * @property {[number, number, number]} sample frames, height and width of the clip
 * @property {unknown[]} chunks
 *
 * @typedef {object} RunEvent of one node
 * @property {string} node its id, "3:7" inside a subgraph
 * @property {string} [workflow] the id of the workflow that was run, where the client sent one
 * @property {"begin"|"run"|"end"} state
 * @property {string} job "encode" or "decode"
 * @property {number} seconds since the run began
 * @property {number} peak_bytes projected
 * @property {""|"device"|"process"} memory what `used_bytes` counts
 * @property {number} [share] of the work that is done
 * @property {number} [used_bytes] now
 * @property {number} [used_peak_bytes] at most, once the run has ended
 * @property {string} [picture] a small JPEG in base64
 * @property {RunPlan} [plan]
 * @property {number} [chunks]
 *
 * @typedef {object} Run what a panel knows of a run
 * @property {string} node its id; one node of a subgraph has one for each instance of it
 * @property {RunEvent["state"]|"stopped"} state
 * @property {string} job
 * @property {number} seconds
 * @property {number} peakBytes
 * @property {RunEvent["memory"]} memory
 * @property {number} share
 * @property {number|null} usedBytes now, or at most once the run has ended
 * @property {string} picture an address for an image, or ""
 * @property {number|null} chunks
 * @property {Size|null} size
 *
 * @typedef {{text: string, bad?: boolean}} Note
 * @typedef {{x: number, y: number, w: number, h: number}} Box
 */

export {};
