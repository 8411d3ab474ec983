/** Do the panel's pure parts keep their promises? Run by node's own test runner. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";

const at = (name) => import(new URL(`../../web/panel/${name}.js`, import.meta.url));
const { createLine } = await at("asking");
const { merged, pictureUrl, remaining, useBar } = await at("live");
const { problems, question, snappedChunk, usesChunks } = await at("rules");
const { chunkSpans, filled, levelBars, memoryBar, pieces, tileBoxes } = await at("shapes");
const { clipSize, vaeOf } = await at("upstream");
const { bytesText, chunksText, say, secondsText, speak, WORDS } = await at("words");

/** A clock that a test moves; `later` runs when its time has come. */
function clock() {
  let now = 0;
  const due = [];
  return {
    now: () => now,
    later: (run, ms) => due.push([now + ms, run]),
    async pass(ms) {
      for (const stop = now + ms; now <= stop; now += 1) {
        for (const entry of due.filter(([time]) => time <= now)) {
          due.splice(due.indexOf(entry), 1);
          entry[1]();
        }
        await null;
        await null;
      }
    },
  };
}

test("a dragged widget sends at most five requests a second, and the last value", async () => {
  const time = clock();
  const sent = [];
  const line = createLine(async (q) => (sent.push([time.now(), q.v]), { status: 200 }), 220, time);
  for (let v = 0; v < 200; v += 1) {
    line.ask("node", { v }, () => undefined);
    await time.pass(10);
  }
  await time.pass(500);
  assert.equal(sent.at(-1)[1], 199);
  for (let from = 0; from < 3000; from += 50) {
    assert.ok(sent.filter(([t]) => t >= from && t < from + 1000).length <= 5);
  }
});

test("an answer in the making is asked for again, and an outdated one is not shown", async () => {
  const time = clock();
  const statuses = [202, 202, 200, 200];
  const shown = [];
  const line = createLine(async (q) => ({ status: statuses.shift(), content: q.v }), 220, time);
  line.ask("node", { v: 1 }, (a) => shown.push(a.content));
  await time.pass(1000);
  line.ask("node", { v: 2 }, (a) => shown.push(a.content));
  await time.pass(1000);
  assert.deepEqual(shown, [1, 2]);
});

test("chunk sizes snap to multiples of four", () => {
  assert.deepEqual([0, 1, 4, 6, 9, 1e6].map(snappedChunk), [4, 4, 4, 8, 8, 4096]);
});

test("impossible combinations are marked at the widget that makes them so", () => {
  const good = { chunk_size: 8, tile_size: 0, overlap: 64, tiling: "exact" };
  const marked = (change) => problems({ ...good, ...change }).map((p) => p.widget);
  assert.deepEqual(marked({}), []);
  assert.deepEqual(marked({ chunk_size: 6 }), ["chunk_size"]);
  assert.deepEqual(marked({ tile_size: 8 }), ["tile_size"]);
  assert.deepEqual(marked({ overlap: 300 }), []);
  assert.deepEqual(marked({ overlap: 300, tiling: "blend" }), ["overlap"]);
});

test("a question holds known widgets only", () => {
  const vae = { network: "full", dtype: "auto" };
  const size = { frames: 1, height: 8, width: 8 };
  const asked = question("encode", { chunk_size: 8, posterior: "mode", exact_plan: 1 }, size, vae);
  assert.deepEqual(asked, { operation: "encode", ...vae, ...size, chunk_size: 8 });
});

test("tiles cover the picture once, blended ones overlap, many are drawn as few", () => {
  const size = { height: 480, width: 720 };
  const area = (boxes) => boxes.reduce((sum, { w, h }) => sum + w * h, 0);
  assert.equal(area(tileBoxes(size, [200, 256], null)), 480 * 720);
  assert.ok(area(tileBoxes(size, [256, 256], 64)) > 480 * 720);
  assert.ok(tileBoxes({ height: 16384, width: 16384 }, [16, 16], null).length <= 48 * 48);
  assert.deepEqual(pieces(10, 4), [[0, 3], [3, 6], [6, 10]]);
});

test("chunks fill the clip, and cells fill from the left", () => {
  const plan = { chunks: 3, chunk_frames: [9, 8], last_chunk_frames: 3 };
  assert.deepEqual(chunkSpans(plan), [[0, 9 / 20], [9 / 20, 17 / 20], [17 / 20, 1]]);
  assert.equal(chunkSpans({ ...plan, chunks: 25_000 }).at(-1)[1], 1);
  assert.deepEqual(filled(4, 0.375), [1, 0.5, 0, 0]);
});

test("the bar's parts add up to the peak, and never leave it", () => {
  const plan = { weight_bytes: 1, store_bytes: 2, cache_bytes: 3, workspace_bytes: 4 };
  const bar = memoryBar({ ...plan, total_bytes: 20, free_bytes: 15 });
  assert.equal(bar.parts.at(-1).start + bar.parts.at(-1).width, 0.5);
  assert.equal(bar.free, 0.75);
  assert.ok(memoryBar({ ...plan, total_bytes: 5, free_bytes: 5 }).free <= 1);
});

test("levels say what of them is on the device, and nothing where all of it is", () => {
  assert.deepEqual(levelBars(), []);
  assert.deepEqual(levelBars([[1, 80, 0], [8, 10, 0]]), []);
  assert.deepEqual(levelBars([[1, 20, 60], [2, 40, 0]]), [
    { px: 1, near: 0.25, size: 1 },
    { px: 2, near: 1, size: 0.5 },
  ]);
});

/** A node with widgets and, by input name, what feeds it. */
function node(widgets, above = {}) {
  const names = Object.keys(above);
  return {
    widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
    inputs: names.map((name) => ({ name })),
    isInputConnected: () => true,
    getInputNode: (slot) => above[names[slot]],
  };
}

test("the clip's size comes from above, through nodes that know nothing of it", () => {
  const empty = node({ width: 640, height: 352, length: 81 });
  const decode = node({ chunk_size: 8 }, { samples: node({ seed: 1 }, { latent_image: empty }) });
  assert.deepEqual(clipSize(decode), { width: 640, height: 352, frames: 81 });
  const circle = node({}, {});
  circle.inputs = [{ name: "samples" }];
  circle.getInputNode = () => circle;
  assert.deepEqual(clipSize(circle), {});
});

/** A graph of nodes made by `node`, each of which knows that it stands there. */
function graph(nodes, root = undefined) {
  const made = { nodes, rootGraph: root, subgraphs: new Map() };
  for (const one of nodes) one.graph = made;
  made.rootGraph ??= made;
  return made;
}

/** A decoder inside a subgraph, whose VAE comes from outside as `loaders` feed its instances. */
function inSubgraph(loaders) {
  const decode = node({}, { vae: null });
  decode.getInputLink = () => ({ origin_id: "-10", origin_slot: 0 });
  const instances = loaders.map((loader) => node({}, { vae: loader }));
  const root = graph([...loaders, ...instances]);
  const inner = graph([decode], root);
  root.subgraphs.set("inner", inner);
  for (const one of instances) one.subgraph = inner;
  return decode;
}

test("a node in a subgraph is fed from outside it, unless its instances differ", () => {
  const tiny = node({ vae_name: "tiny_vae (ships with this pack)", dtype: "fp32" });
  const full = node({ vae_name: "a.safetensors", dtype: "bf16" });
  assert.deepEqual(vaeOf(inSubgraph([tiny])), { network: "tiny", dtype: "fp32" });
  assert.deepEqual(vaeOf(inSubgraph([tiny, full])), { network: "full", dtype: "auto" });
  assert.deepEqual(vaeOf(inSubgraph([])), { network: "full", dtype: "auto" });
});

test("an instance that answers for what lies in it is asked by way of its graph", () => {
  const tiny = node({ vae_name: "tiny_vae (ships with this pack)", dtype: "fp32" });
  const decode = inSubgraph([tiny]);
  const [instance] = decode.graph.rootGraph.nodes.filter((one) => one.subgraph);
  instance.getInputLink = () => ({ origin_id: "8:2", origin_slot: 1 });
  instance.getInputNode = () => null;
  instance.inputs[0].link = 8;
  instance.graph.getLink = (id) => (id === 8 ? { origin_id: 3, origin_slot: 0 } : undefined);
  instance.graph.getNodeById = (id) => (id === 3 ? tiny : null);
  assert.deepEqual(vaeOf(decode), { network: "tiny", dtype: "fp32" });
});

test("an instance of a subgraph gives what its inner node gives", () => {
  const inner = node({ width: 64, height: 48, length: 9 });
  const instance = node({ width: 8 });
  instance.subgraph = graph([inner]);
  instance.resolveSubgraphOutputLink = (slot) => (slot === 1 ? { outputNode: inner } : undefined);
  const decode = node({}, { samples: instance });
  decode.getInputLink = () => ({ origin_id: "5", origin_slot: 1 });
  assert.deepEqual(clipSize(decode), { width: 64, height: 48, frames: 9 });
});

test("a node that has left its graph is asked nothing", () => {
  const gone = node({}, { vae: null, samples: null });
  gone.graph = null;
  gone.getInputNode = gone.getInputLink = () => {
    throw new Error("NullGraphError");
  };
  assert.deepEqual(vaeOf(gone), { network: "full", dtype: "auto" });
  assert.deepEqual(clipSize(gone), {});
});

test("the network is the loader's", () => {
  const tiny = node({ vae_name: "tiny_vae (ships with this pack)", dtype: "fp32" });
  assert.deepEqual(vaeOf(node({}, { vae: tiny })), { network: "tiny", dtype: "fp32" });
  assert.deepEqual(vaeOf(node({})), { network: "full", dtype: "auto" });
});

test("the network is told by the name of its file, whichever loader has it", () => {
  const files = {
    wan: ["wan_2.1_vae.safetensors", "Wan2_1_VAE_bf16.safetensors", "qwen_image_vae.safetensors",
      "diffusers/Wan2.2-T2V-A14B-Diffusers/vae", "wan_alpha_2.1_vae_rgb_channel.safetensors"],
    tiny_wan: ["tiny_wan_vae (ships with this pack, for trying out)"],
    wan22: ["wan2.2_vae.safetensors", "Wan2_2_VAE_bf16.safetensors",
      "diffusers/Wan2.2-TI2V-5B-Diffusers/vae"],
    ltx: ["ltx-2-19b-dev-fp8.safetensors", "diffusers/LTX-2/vae", "LTX2_video_vae_bf16.safetensors"],
    hunyuan: ["hunyuan_video_vae_bf16.safetensors", "diffusers/HunyuanVideo/vae"],
    hunyuan15: ["hunyuanvideo15_vae_fp16.safetensors", "hunyuan_video_1.5_vae.safetensors",
      "diffusers/HunyuanVideo-1.5-Diffusers-720p_t2v/vae"],
    mochi: ["mochi_vae.safetensors", "mochi_preview_vae_bf16.safetensors", "diffusers/mochi-1-preview/vae"],
    seedvr2: ["seedvr2_ema_vae_fp16.safetensors", "SEEDVR2/ema_vae_fp16.safetensors"],
    full: ["cogvideox_vae_bf16.safetensors"],
  };
  for (const [network, names] of Object.entries(files)) {
    for (const name of names) {
      const loader = node({ vae_name: name });
      const applied = node({ chunk_size: 8 }, { vae: loader });
      assert.equal(vaeOf(node({}, { vae: applied })).network, network, name);
    }
  }
  const theirs = Object.assign(node({ model_name: "Wan2_1_VAE_fp32.safetensors" }), { type: "WanVideoVAELoader" });
  assert.equal(vaeOf(node({}, { vae: theirs })).network, "wan");
});

test("whose result is meant comes with the VAE, from the node that is nearest", () => {
  const loader = node({ vae_name: "hunyuanvideo15_vae_fp16.safetensors", reference: "core" });
  const core = { network: "hunyuan15", dtype: "auto", reference: "core" };
  assert.deepEqual(vaeOf(node({}, { vae: loader })), core);
  const official = node({ reference: "official" }, { vae: loader });
  assert.deepEqual(vaeOf(node({}, { vae: official })), { network: "hunyuan15", dtype: "auto" });
  const asIs = node({ reference: "core-as-is" }, { vae: loader });
  assert.deepEqual(vaeOf(node({}, { vae: asIs })), { ...core, reference: "core-as-is" });
});

test("as many devices are planned for as the nearest Apply names", () => {
  const loader = node({ vae_name: "wan_2.1_vae.safetensors" });
  const ranks = (devices) => vaeOf(node({}, { vae: node({ devices }, { vae: loader }) })).ranks;
  assert.deepEqual(["cuda:0, cuda:1", "cuda:0;cuda:1 cuda:2"].map(ranks), [2, 3]);
  assert.deepEqual(["", "  ", "cuda:0", undefined].map(ranks), [undefined, undefined, undefined, undefined]);
  const shared = node({ devices: "cuda:0 cuda:1" }, { vae: loader });
  assert.equal(vaeOf(node({}, { vae: node({ devices: "" }, { vae: shared }) })).ranks, undefined);
});

test("chunks and scopes mean something for one family alone", () => {
  assert.deepEqual(["full", "tiny"].map(usesChunks), [true, true]);
  for (const network of ["wan", "tiny_wan", "wan22", "ltx", "hunyuan", "hunyuan15", "seedvr2", "mochi"]) assert.equal(usesChunks(network), false, network);
});

const BEGIN = {
  state: "begin",
  job: "decode",
  seconds: 0,
  peak_bytes: 200,
  memory: "process",
  plan: { sample: [9, 32, 48], chunks: [{}, {}] },
};

test("a run is what its events come to, and another begin forgets it", () => {
  const started = merged(null, BEGIN);
  assert.deepEqual([started.share, started.usedBytes, started.chunks], [0, null, 2]);
  assert.deepEqual(started.size, { frames: 9, height: 32, width: 48 });
  const event = { ...BEGIN, plan: undefined, state: "run" };
  const half = merged(started, { ...event, seconds: 2, share: 0.5, used_bytes: 50 });
  const seen = merged(half, { ...event, seconds: 3, picture: "QUJD" });
  assert.deepEqual([seen.share, seen.usedBytes, seen.chunks], [0.5, 50, 2]);
  assert.equal(seen.picture, "data:image/jpeg;base64,QUJD");
  const ended = merged(seen, { ...event, state: "end", used_peak_bytes: 80 });
  assert.deepEqual([ended.share, ended.usedBytes, ended.picture], [1, 80, seen.picture]);
  assert.deepEqual(merged(ended, BEGIN), started);
});

test("a panel that hears of a run midway shows what it heard", () => {
  const event = { ...BEGIN, plan: undefined, state: "run", share: 0.25, chunks: 4 };
  const run = merged(null, event);
  assert.deepEqual([run.share, run.chunks, run.size, run.picture], [0.25, 4, null, ""]);
});

test("another instance of a subgraph begins a run of its own", () => {
  const first = merged(merged(null, { ...BEGIN, node: "5:2" }), {
    ...BEGIN, node: "5:2", plan: undefined, state: "run", share: 0.75, used_bytes: 50,
  });
  const second = merged(first, { ...BEGIN, node: "6:2", plan: undefined, state: "run" });
  assert.deepEqual([first.share, first.node], [0.75, "5:2"]);
  assert.deepEqual([second.share, second.usedBytes, second.node], [0, null, "6:2"]);
});

test("only base64 of a bounded size becomes an address", () => {
  assert.equal(pictureUrl("QUJD"), "data:image/jpeg;base64,QUJD");
  const odd = [undefined, 5, "", "x y", 'QQ"/>', "https://host/x.jpg", "A".repeat(2 ** 17 + 1)];
  for (const text of odd) assert.equal(pictureUrl(text), "");
});

test("memory in use lies beside what was planned, or beyond it", () => {
  const run = { ...merged(null, BEGIN), usedBytes: 50 };
  assert.deepEqual(useBar(run), { used: 0.25, planned: 1 });
  assert.deepEqual(useBar({ ...run, usedBytes: 400 }), { used: 1, planned: 0.5 });
  assert.equal(useBar({ ...run, usedBytes: null }), null);
  assert.equal(useBar({ ...run, memory: "" }), null);
});

test("every language has every word, with the same numbers in it", async () => {
  const numbers = (text) => (text.match(/\[\w+\]/g) ?? []).sort();
  for (const language of ["fr", "ja", "zh"]) {
    const file = new URL(`../../locales/${language}/main.json`, import.meta.url);
    const words = JSON.parse(await readFile(file, "utf8")).exactVideoVae;
    assert.deepEqual(Object.keys(words).sort(), Object.keys(WORDS).sort(), language);
    for (const [word, text] of Object.entries(words)) {
      assert.deepEqual(numbers(text), numbers(WORDS[word]), `${language}: ${word}`);
    }
  }
  speak({ fits: "passt" });
  assert.deepEqual([say("fits"), say("peak")], ["passt", "peak"]);
  speak(undefined);
});

test("no minute has sixty seconds, and one chunk is one", () => {
  const shown = [0.04, 9.94, 9.96, 59.4, 59.5, 60, 119.6, 239.9].map(secondsText);
  const wanted = "0.0 s,9.9 s,10 s,59 s,1 min 0 s,1 min 0 s,2 min 0 s,4 min 0 s";
  assert.equal(shown.join(), wanted);
  assert.deepEqual([1, 2, 0].map(chunksText), ["1 chunk", "2 chunks", "0 chunks"]);
});

test("numbers are written as the server writes them, and every word is there", () => {
  assert.equal(bytesText(3 * 2 ** 30), "3.00 GiB");
  assert.equal(bytesText(2 ** 20), "1.0 MiB");
  assert.equal(remaining(10, 0.25), 30);
  assert.equal(remaining(10, 0), null);
  assert.equal(say("tilesOf", { w: 64, h: 32 }), "tiles of 64×32 px");
  for (const text of Object.values(WORDS)) assert.notEqual(text, "");
});
