"""What do the commands `encode-dataset` and `verify` do?

`encode-dataset` turns a folder of clips into one of latents, and may be stopped and started again
at any time; `verify` looks whether such a folder is whole. How both work is in `datasets/`.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..datasets.buckets import Bucket
from ..datasets.checking import Finding, check
from ..datasets.clips import SourceClip, find_clips
from ..datasets.content import Stamp
from ..datasets.encoding import FIRST, SPREAD, Encoding, Prepared, Recipe, prepare, weights_digest
from ..datasets.ray_workers import Cluster, Work, ray_workers
from ..datasets.running import Outcome, Summary, locked, one_process, run
from ..datasets.shards import INDEX, RECIPE, SKIPPED, Entry, Shards
from ..datasets.trainers import (
    FACTORY,
    TextModel,
    format_of,
    options_for,
    shards_for,
    with_captions,
    write_embeds,
)
from ..errors import SettingsError, VaeCoreError, VideoError
from ..families.family import COGVIDEOX
from ..media.video import tensor_to_frames
from ..settings import Settings
from ..vae import VideoVAE
from .options import DTYPES, device_name, load, load_for, say, settings_of, vae_path
from .report import compare, decibels


def _recipe(args: Namespace) -> Recipe:
    """With the buckets that were asked for, which may be none. Raises `SettingsError`."""
    asked: Sequence[tuple[int, int, int]] = args.bucket or []
    buckets = tuple(sorted({Bucket(*one) for one in asked}, key=str))
    settings = settings_of(args)
    moments, spread = not args.latents, args.frames == "spread"
    return Recipe(buckets, settings, spread, args.resample, moments, format_of(args.format))


def _text_model(args: Namespace) -> TextModel | None:
    """The model that encodes captions, where the format holds them. Raises `SettingsError`."""
    if args.format != FACTORY:
        if args.text_encoder is not None:
            raise SettingsError(f"--text-encoder is for --format {FACTORY}.")
        return None
    if args.latents:
        raise SettingsError(f"{FACTORY} draws samples itself; leave out --latents.")
    if args.text_encoder is None:
        raise SettingsError(
            f"{FACTORY} loads encoded captions beside latents; name a CogVideoX model's folder by"
            " --text-encoder."
        )
    return TextModel(args.text_encoder)


@contextmanager
def _display(clips: int, quiet: bool) -> Generator[Callable[[Summary], None]]:
    """Clips done, speed and remaining time on stderr; none where stderr is no terminal."""
    show_bar: Any = tqdm  # its stubs are partly untyped
    bar = show_bar(total=clips, unit="clip", disable=quiet or None, leave=False, desc="encode")
    before: int | None = None

    def show(summary: Summary) -> None:
        nonlocal before
        done = len(summary.entries) + len(summary.skipped)
        if before is None:  # what was there before says nothing of the speed
            bar.initial = before = done
            bar.n = done
        else:
            bar.update(done - bar.n)
        speed = summary.frames / summary.seconds if summary.seconds else 0.0
        bar.set_postfix_str(f"{speed:.1f} frames/s, {len(summary.skipped)} skipped")

    try:
        yield show
    finally:
        bar.close()


def _workers(
    args: Namespace, vae: VideoVAE, recipe: Recipe
) -> Callable[[Sequence[SourceClip]], Iterator[Outcome]]:
    """One process, or Ray's."""
    if args.ray is None:
        return partial(one_process, Encoding(vae, recipe, shards_for(args.output, recipe.format)))
    path = vae_path(args.vae, args.family).resolve()
    device, threads = device_name(args.device), torch.get_num_threads()
    work = Work(path, DTYPES[args.dtype], device, threads, recipe, args.output.resolve())
    return partial(ray_workers, work, Cluster(args.ray, args.workers))


def _encoder(args: Namespace) -> VideoVAE:
    """The VAE to encode with. Raises `SettingsError` where the trainer takes none of its family."""
    vae = load_for(args)
    if args.format == FACTORY and vae.family is not COGVIDEOX:
        raise SettingsError(
            f"--format {FACTORY} is for CogVideoX; the VAE is of {vae.family.title}."
        )
    return vae


def encode_dataset(args: Namespace) -> None:
    """A folder of clips to a folder of latents."""
    recipe = _recipe(args)
    if args.workers is not None and (args.ray is None or args.workers < 1):
        raise SettingsError("--workers is for --ray, and at least 1.")
    text = _text_model(args)
    found = find_clips(args.folder, args.output)
    clips, problems = (found.clips, []) if text is None else with_captions(found.clips)
    vae = _encoder(args)
    recipe = replace(recipe, buckets=recipe.buckets or (Bucket(*vae.family.published.size),))
    for bucket in recipe.buckets:  # a budget that is too small is told at once
        bucket.check(vae.ratios)
        vae.plan_encode((1, vae.sample_channels, bucket.frames, *bucket.size), recipe.settings)
    shards, words = shards_for(args.output, recipe.format), recipe.as_dict(vae)
    words |= {} if text is None else {"text_encoder": text.digest()}
    shards.check(words)
    shards.create()
    problems += found.problems
    with locked(args.output), _display(len(clips), args.quiet) as show:
        shards.prepare(words)
        summary = run(shards, clips, _workers(args, vae, recipe), show, problems)
        if text is not None:
            load_text = partial(text.load, DTYPES[args.dtype], device_name(args.device))
            write_embeds(args.output, summary.entries.values(), text.digest(), load_text)
    _say_summary(args.output, summary)
    _say_notes(summary, found.remarks)
    if text is not None:
        say(f"for {FACTORY}: --data_root {args.output} {options_for(recipe.buckets)}")


def _say_summary(output: Path, summary: Summary) -> None:
    for one in sorted(summary.skipped, key=lambda one: one.source):
        say(printable(f"skipped: {one.source}: {' '.join(one.reason.split())}"))
    before = len(summary.entries) - summary.encoded
    speed = f" ({summary.frames / summary.seconds:.1f} a second)" if summary.seconds else ""
    say(
        f"{output}: {summary.encoded} clips encoded, {before} there before,"
        f" {len(summary.skipped)} skipped; {summary.frames} sample frames in"
        f" {summary.seconds:.1f} s{speed}"
    )
    sizes = Counter(
        f"{one.frames}x{one.height_px}x{one.width_px}" for one in summary.entries.values()
    )
    for size, count in sorted(sizes.items()):
        say(f"bucket {size}: {count} clips")
    say(f"index: {output / INDEX}" + (f", {SKIPPED}" if summary.skipped else ""))


def _say_notes(summary: Summary, remarks: Sequence[str]) -> None:
    """What is not as it may seem: once each, with the first of the clips that it is true of."""
    clips: dict[str, list[str]] = {}
    for one in sorted(summary.entries.values(), key=lambda entry: entry.source):
        for note in one.notes:
            clips.setdefault(note, []).append(one.source)
    for note, sources in clips.items():
        more = f" and {len(sources) - 1} more" if sources[1:] else ""
        say(printable(f"note: {sources[0]}{more}: {note}"))
    for remark in remarks:
        say(printable(f"note: {remark}"))
    missing = sum(not one.caption for one in summary.entries.values())
    if missing:
        say(f"note: {missing} clips have no caption, so there is no prompts.txt.")


def printable(text: str) -> str:
    """`text` with what is no UTF-8, as paths may have it, written as backslashes and digits."""
    return text.encode("utf-8", "backslashreplace").decode()


def _source(folder: Path, entry: Entry) -> SourceClip:
    return SourceClip(folder / entry.source, entry.source, entry.name, "", Stamp(0, 0, ""))


def _recipe_of(said: dict[str, Any], settings: Settings) -> Recipe:
    """The recipe that a folder was made by, as far as its frames go. Raises `VideoError`."""
    try:
        sides = [tuple(map(int, bucket.split("x"))) for bucket in said["buckets"]]
        buckets = tuple(Bucket(*one) for one in sides)
        fps = Fraction(said["fps"]) if said["fps"] else None
        frames = said["frames"]
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise VideoError(
            f"{RECIPE} is damaged: it does not say buckets, fps and frames."
        ) from error
    if frames not in (FIRST, SPREAD):
        raise VideoError(f"its frames were chosen by a rule of old, {frames!r}, that is gone")
    return Recipe(buckets, settings, frames == SPREAD, fps)


def _psnr(args: Namespace, vae: VideoVAE, shards: Shards, entry: Entry) -> str:
    """How near the decoded latents come to their clip, in words."""
    settings = settings_of(args)
    try:
        recipe = _recipe_of(shards.recipe(), settings)
    except VaeCoreError as error:
        return f"not compared: {error}"
    ready = prepare(_source(args.decode, entry), recipe)
    if not isinstance(ready, Prepared) or _has_changed(ready, entry):
        reason = "its clip has changed" if isinstance(ready, Prepared) else ready.reason
        return f"not compared: {reason}"
    tensor = shards.tensor(entry)[None]  # [1, 2c or c, n, h, w]
    latents = tensor.chunk(2, dim=1)[0] if entry.kind == "moments" else tensor
    video = tensor_to_frames(vae.decode(latents, settings))
    likeness = compare(np.stack(ready.frames), video)
    return f"{decibels(likeness.psnr_db)} (worst frame {decibels(likeness.worst_frame_db)})"


def _has_changed(ready: Prepared, entry: Entry) -> bool:
    other = bool(entry.content) and ready.content != entry.content
    return other or len(ready.frames) != entry.frames


def verify(args: Namespace) -> None:
    """A folder of latents against its index, and on request against its clips."""
    said = Shards(args.folder).recipe()
    shards = shards_for(args.folder, said.get("format"))
    if args.decode is not None and not args.decode.is_dir():
        raise VideoError(f"{args.decode} is no folder; --decode needs that of the clips.")
    vae = _decoder(args, said) if args.decode is not None else None
    bad = clips = 0
    for finding in check(shards):
        clips += 1
        bad += bool(finding.complaints)
        _say_finding(finding)
        if vae and finding.entry and not finding.complaints:
            likeness = _psnr(args, vae, shards, finding.entry)
            say(printable(f"{finding.entry.source}: {likeness}"))
    if bad:
        raise VideoError(f"{bad} of {clips} clips in {args.folder} are not as they should be.")
    say(f"{args.folder}: {clips} clips, each as the index says, whole and finite")


def _say_finding(finding: Finding) -> None:
    for complaint in finding.complaints:
        say(printable(f"{finding.name}: {complaint}"))


def _decoder(args: Namespace, said: dict[str, Any]) -> VideoVAE:
    """The VAE to decode with. Raises `SettingsError` where it is not the one that encoded."""
    family = args.family or (None if args.vae else said.get("family"))
    vae = load(args.vae, family, DTYPES[args.dtype], args.device)
    same_kind = str(vae.dtype).removeprefix("torch.") == said.get("dtype")
    if same_kind and weights_digest(vae) != said.get("weights_sha256"):
        raise SettingsError(
            f"{args.folder} was encoded by {said.get('vae')}, which has other weights; name it by"
            " --vae."
        )
    return vae
