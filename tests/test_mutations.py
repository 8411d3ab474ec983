"""Does every damaged file end in a result or a sentence, in time, and with nothing half-written?

500 damaged clips and latent files go through `encode`, `decode` and `encode-dataset`, each run in a
process of its own that can hang or crash. How long one may take is set by what good files of that
length take on the same machine, beside the same load.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from mutations import damaged, damaged_words, good_clips, good_latents
from safetensors.torch import load_file

from vae_core.media.latent_file import load_latents
from vae_core.media.video import read_video

HERE = Path(__file__).parent
CLIPS, LATENTS, FOLDERS = 300, 200, 15
SLACK = 40
"""So many times what a good file of that length takes; a hang is many times more."""

# Runs command lines one after the other in forked copies of itself, so that only one process waits
# for imports. argv = (file of [argv ..., times], file for what became of them, bound in seconds or
# 0 for none). Memory is bounded, too: damaged headers ask for much of it.
RUNNER = """
import json, os, resource, signal, sys, time
import torch
torch.set_num_threads(1)
from vae_core.cli import main
import vae_core.families.loading, diffusers.models.autoencoders.autoencoder_kl_cogvideox
cases, results, bound = sys.argv[1:]
done = []
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * os.sysconf("SC_PAGE_SIZE") + 3 * 2**30
for argv, times in json.load(open(cases)):
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{results}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        code = 70
        try:
            code = main(argv)
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    limit = float(bound) * times or None
    over = False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if limit and not over and time.monotonic() - started > limit:
            over = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    said = [open(f"{results}.{name}", errors="replace").read() for name in ("out", "err")]
    done.append([os.waitstatus_to_exitcode(status), over, time.monotonic() - started, *said])
    json.dump(done, open(results, "w"))
"""


@dataclass(frozen=True)
class Case:
    """A command line, and how many good files of that length it may take as long as."""

    argv: tuple[str, ...]
    times: float = 1.0


@dataclass(frozen=True)
class Ended:
    """How a command line ended. over: whether it took longer than it may."""

    case: Case
    code: int
    over: bool
    seconds: float
    out: str
    err: str

    def complaints(self) -> list[str]:
        """What is wrong with how it ended, whatever it was given."""
        found: list[str] = []
        if self.over:
            found.append("took longer than its length allows")
        elif self.code not in (0, 2):
            found.append(f"ended with code {self.code}")
        if "Traceback" in self.err:
            found.append("showed a traceback")
        if self.code == 2 and (self.err.count("error: ") != 1 or not self.err.endswith(".\n")):
            found.append("did not end in one sentence")
        return found


def run_all(folder: Path, cases: list[Case], bound: float = 0.0) -> list[Ended]:
    """Run all of `cases`. bound: of seconds for a good file; 0 for none."""
    asked, answered = folder / "cases.json", folder / "ended.json"
    asked.write_text(json.dumps([[case.argv, case.times] for case in cases]))
    subprocess.run(
        [sys.executable, "-c", RUNNER, str(asked), str(answered), str(bound)],
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    ended = json.loads(answered.read_text())
    return [Ended(case, *one) for case, one in zip(cases, ended, strict=True)]


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow random VAE in a folder."""
    folder = tmp_path_factory.mktemp("weights") / "vae"
    torch.manual_seed(0)
    AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=16
    ).save_pretrained(folder)
    return folder


def _case(command: str, source: Path, output: Path, vae: Path, times: float = 1.0) -> Case:
    argv = (command, str(source), "-o", str(output), "--vae", str(vae), "--quiet")
    more = ("--bucket", "5x32x48") if command == "encode-dataset" else ()
    return Case(argv + more, times)


def _bound(folder: Path, goods: dict[Path, str], vae: Path) -> float:
    """Seconds that a file may take, by the slowest of the good ones."""
    (folder / "good").mkdir()
    cases = [
        _case(command, path, folder / "good" / f"{path.name}.{suffix}", vae)
        for path, command in goods.items()
        for suffix in ["mkv" if command == "decode" else "safetensors"]
    ]
    ended = run_all(folder, cases)
    assert [one for one in ended if one.code] == []
    return SLACK * max(one.seconds for one in ended)


def _broken_results(ended: Ended) -> list[str]:
    """What is wrong with what a run of `encode` or `decode` left behind."""
    output = Path(ended.case.argv[3])
    left = sorted(path.name for path in output.parent.iterdir() if path != output)
    if left or (ended.code and output.exists()):
        return [f"left {left or output.name} behind"]
    if ended.code:
        return []
    if ended.case.argv[0] == "decode":
        return [] if len(read_video(output).frames) else ["wrote an empty video"]
    latents, _ = load_latents(output)  # which refuses what is not finite
    return [] if latents.numel() else ["wrote empty latents"]


def _broken_folder(ended: Ended, good: str) -> list[str]:
    """What is wrong with what a run of `encode-dataset` left behind."""
    results = Path(ended.case.argv[3])
    lines = [json.loads(line) for line in (results / "index.jsonl").read_text().splitlines()]
    skipped = [json.loads(line) for line in (results / "skipped.jsonl").read_text().splitlines()]
    told = {one["source"] for one in lines} | {one["source"] for one in skipped}
    sources = {path.name for path in Path(ended.case.argv[1]).iterdir()}
    found = [] if told == sources else [f"says nothing of {sorted(sources - told)}"]
    if good not in {one["source"] for one in lines}:
        found.append("did not encode the good clip")
    for line in lines:
        tensor = load_file(results / line["file"])["moments"]
        if not bool(torch.isfinite(tensor).all()) or list(tensor.shape) != line["shape"]:
            found.append(f"wrote other latents of {line['source']} than it says")
    if list(results.rglob("*.part*")):
        found.append("left something half-written")
    return found


def _report(bad: dict[str, list[str]], ended: list[Ended]) -> str:
    slowest = max(one.seconds for one in ended)
    codes = {code: sum(one.code == code for one in ended) for code in {one.code for one in ended}}
    return json.dumps({"codes": codes, "slowest": round(slowest, 2), "bad": bad}, indent=1)


def _judged(ended: list[Ended], look) -> dict[str, list[str]]:
    bad = {
        Path(one.case.argv[1]).name: [*found, one.err[-1500:]]
        for one in ended
        if (found := one.complaints() or look(one))
    }
    keep = os.environ.get("MUTATIONS_REPORT")
    if keep:
        with Path(keep).open("a") as file:
            file.write(_report(bad, ended) + "\n")
    return bad


def _write(folder: Path, number: int, suffix: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:03}.{suffix}"
    path.write_bytes(data)
    return path


def make_clips(folder: Path, count: int) -> tuple[list[Path], dict[Path, float]]:
    """Damaged clips, and how many times as long as its good one each is; at least 1."""
    goods = good_clips(folder)
    kinds, longer = sorted(goods), dict[Path, float]()
    for number in range(count):
        kind = kinds[number % len(kinds)]
        data = damaged(goods[kind], random.Random(number))
        path = _write(folder / "damaged", number, kind, data)
        longer[path] = max(len(data) / len(goods[kind]), 1.0)
    return [_write(folder / "goods", 0, kind, goods[kind]) for kind in kinds], longer


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")
def test_damaged_clips_end_in_latents_or_a_sentence(vae: Path, tmp_path: Path) -> None:
    goods, longer = make_clips(tmp_path, CLIPS)
    bound = _bound(tmp_path, dict.fromkeys(goods, "encode"), vae)
    cases = []
    for number, (path, times) in enumerate(longer.items()):
        (tmp_path / f"out{number}").mkdir()
        cases.append(_case("encode", path, tmp_path / f"out{number}" / "a.latent", vae, times))
    ended = run_all(tmp_path, cases, bound)
    assert _judged(ended, _broken_results) == {}
    assert {one.code for one in ended} == {0, 2}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")
def test_damaged_clips_in_a_folder_are_encoded_or_skipped_one_by_one(
    vae: Path, tmp_path: Path
) -> None:
    goods, longer = make_clips(tmp_path, CLIPS)
    bound = _bound(tmp_path, dict.fromkeys(goods, "encode"), vae)
    cases = []
    good = next(path for path in goods if path.name.endswith("h264.mp4"))
    for number in range(FOLDERS):
        folder = tmp_path / f"clips{number}"
        folder.mkdir()
        (folder / "good.mp4").write_bytes(good.read_bytes())
        mine = list(longer)[number::FOLDERS]
        for path in mine:
            # A picture that stands still is a clip only in a folder: call it a video.
            suffix = path.suffix if not path.name.endswith((".tiff", ".bmp", ".jpg")) else ".mp4"
            suffix = ".apng" if path.suffix in (".png", ".webp") else suffix
            (folder / f"{path.stem}{suffix}").write_bytes(path.read_bytes())
        times = 2 * (1 + sum(longer[path] for path in mine))  # each is opened twice
        cases.append(_case("encode-dataset", folder, tmp_path / f"results{number}", vae, times))
    ended = run_all(tmp_path, cases, bound)
    assert _judged(ended, lambda one: _broken_folder(one, "good.mp4")) == {}
    assert {one.code for one in ended} == {0}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")
def test_damaged_latent_files_end_in_a_clip_or_a_sentence(vae: Path, tmp_path: Path) -> None:
    goods, cases = good_latents(), list[Case]()
    whole = [_write(tmp_path / "goods", 0, f"{kind}.latent", goods[kind]) for kind in goods]
    bound = _bound(tmp_path, dict.fromkeys(whole, "decode"), vae)
    for number in range(LATENTS):
        kind = sorted(goods)[number % len(goods)]
        damage = damaged if number % 3 == 0 else damaged_words
        data = damage(goods[kind], random.Random(number))
        path = _write(tmp_path / "damaged", number, f"{kind}.latent", data)
        (tmp_path / f"out{number}").mkdir()
        times = max(len(data) / len(goods[kind]), 1.0)
        cases.append(_case("decode", path, tmp_path / f"out{number}" / "a.mkv", vae, times))
    ended = run_all(tmp_path, cases, bound)
    assert _judged(ended, _broken_results) == {}
    assert {one.code for one in ended} == {0, 2}
