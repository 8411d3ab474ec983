"""What do the pictures of the argument show, in words and numbers?

1. `caption` takes the numbers of `argument.json` and returns `argument.md`, one section a picture.
2. `readme_part` returns the same argument in the few lines that a README has room for.
3. Each figure in it is one of those numbers, rounded; no sentence depends on how they turned out.

It needs the standard library alone, so that checking the caption costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Numbers = Mapping[str, Any]

TILE_NAMES = {
    "exact": "exact tiles",
    "blend_0": "blended over 0 px",
    "blend_16": "blended over 16 px",
    "blend_32": "blended over 32 px",
}
CACHE_NAMES = {
    "kept": "kept",
    "once": "lost once, after sample frame 0",
    "encode": "dropped at every chunk, encoder",
    "both": "dropped at every chunk, encoder and decoder",
}


def decibels(value: float | None, digits: int = 2) -> str:
    """A PSNR; what is identical has no finite one."""
    return "identical" if value is None else f"{value:.{digits}f} dB"


def level(value: float) -> str:
    """A difference on the scale of 0 to 255: two significant digits below 10."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def row(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def _listed(parts: Sequence[str]) -> str:
    """Several figures in a sentence."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def tiles_table(tiles: Numbers) -> list[str]:
    """How far each way to tile is from untiled, and from the source."""
    head = (
        "tiles", "PSNR from untiled", "largest difference, of 255", "share of range",
        "largest shift of a 16x16 block, of 255", "PSNR from source", "latents, share of range",
    )  # fmt: skip
    untiled = decibels(tiles["untiled"]["source_psnr_db"])
    lines = [row(head), row(["-"] * 7), row(["none", *["reference"] * 4, untiled, "reference"])]
    for key, name in TILE_NAMES.items():
        case = tiles["cases"][key]
        cells = [
            name,
            decibels(case["psnr_db"]),
            level(case["largest_level"]),
            f"{case['share_of_range']:.1e}",
            level(case["shift_level"]),
            decibels(case["source_psnr_db"]),
            f"{case['latents_share_of_range']:.1e}",
        ]
        lines.append(row(cells))
    return lines


def tiles_words(tiles: Numbers) -> str:
    """The caption of the first picture."""
    t, h, w = tiles["size"]
    exact, unblended = tiles["cases"]["exact"], tiles["cases"]["blend_0"]
    blended = [case for case in tiles["cases"].values() if case["overlap_px"] is not None]
    overlaps_px = [str(case["overlap_px"]) for case in blended]
    shifts = [level(case["shift_level"]) for case in blended]
    return (
        f"The latents of {t} sample frames of {h}x{w} px, decoded untiled and in tiles of"
        f" {tiles['tile_px']} px; sample frame {tiles['frame']} of the clip is shown, differences"
        f" are magnified {tiles['factor']} times. Exact tiles are at most"
        f" {level(exact['largest_level'])} of 255 from untiled: that is rounding"
        f" ({exact['share_of_range']:.1e} of the range), and black at any magnification below"
        f" {0.5 / exact['largest_level']:.0f}. Blended tiles take their own statistics and do not"
        " see past their edges: without overlap the difference jumps"
        f" {unblended['seam_ratio']:.1f} times as much where tiles meet as between other columns."
        f" Over {_listed(overlaps_px)} px of overlap the mean of a block of 16x16 px is off by up"
        f" to {_listed(shifts)} of 255. The table's latents were encoded in the same tiles."
    )


def scope_words(scopes: Numbers) -> str:
    """The caption of the second picture's upper part."""
    t, h, w = scopes["size"]
    source_db = scopes["source_psnr_db"]
    return (
        f"{t} sample frames of {h}x{w} px, encoded and decoded with normalisation statistics over"
        f" chunks of {scopes['chunk_frames']} sample frames: {decibels(source_db['chunk'])} from"
        f" the source; over the whole clip: {decibels(source_db['clip'])}. The two are"
        f" {decibels(scopes['apart_psnr_db'])} apart, at most"
        f" {level(scopes['apart_largest_level'])} of 255, and their latents"
        f" {scopes['latents_share_of_range']:.1e} of the range. Sample frame {scopes['frame']} is"
        " shown, where they differ most; their difference is magnified"
        f" {scopes['factor']} times."
    )


def cache_words(caches: Numbers) -> str:
    """The caption of the second picture's lower part."""
    starts = ", ".join(str(frame) for frame in caches["boundaries"])
    both = caches["cases"]["both"]
    gains = ", ".join(f"{gain:+.2f}" for gain in both["boundary_gain_db"])
    ours, theirs = caches["cases"]["kept"]["flicker_level"], both["flicker_level"]
    return (
        f"The same clip with the causal cache kept from chunk to chunk, and without it. Chunks"
        f" begin at sample frames {starts}. With the cache dropped in the encoder and the decoder,"
        f" those sample frames change by {gains} dB of PSNR from the source, and all sample frames"
        f" by {min(both['frame_gain_db']):+.2f} to {max(both['frame_gain_db']):+.2f} dB. From"
        " one sample frame to the next, the step across a boundary is wrong by"
        f" {theirs['boundary']:.1f} of 255 on average, with the cache by"
        f" {ours['boundary']:.1f} (elsewhere {theirs['elsewhere']:.1f} and"
        f" {ours['elsewhere']:.1f}). The run that loses the cache once encodes sample frame 0"
        " alone and the next ones with no history, so that its first chunk also takes other"
        " statistics; its later chunks are the same. The strips show one slice of every sample"
        " frame;"
        f" their difference is magnified {caches['factor']} times."
    )


def caches_table(caches: Numbers) -> list[str]:
    """How near each run comes to the source and to the run that keeps its cache."""
    head = (
        "causal cache",
        "PSNR from source",
        "PSNR from kept",
        "sample frames that begin a chunk",
    )
    lines = [row(head), row(["-"] * 4)]
    for key, name in CACHE_NAMES.items():
        case = caches["cases"][key]
        gains = ", ".join(f"{gain:+.2f}" for gain in case["boundary_gain_db"])
        cells = [name, decibels(case["source_psnr_db"]), decibels(case["kept_psnr_db"])]
        lines.append(row([*cells, f"{gains} dB"]))
    return lines


def made_words(made: Numbers) -> str:
    """What the numbers were made with, and how to make them again."""
    return (
        f"Made by `python docs/argument.py` with torch {made['torch']} on {made['device']},"
        f" {made['dtype']}, from `assets/clips/{made['clip']}` (*Big Buck Bunny*, (c) 2008 Blender"
        " Foundation, CC BY 3.0) and the small VAE in `assets/tiny_vae` (SHA-256"
        f" {made['weights_sha256'][:12]}...). That VAE was trained for this repository: its quality"
        " says nothing about CogVideoX's own, and the sizes of these differences need not be"
        " those of other weights. PSNR is against 255, of pixels that are clipped and not"
        " rounded; shares of the range are taken before clipping."
    )


def caption(numbers: Numbers) -> str:
    """`argument.md`, from the numbers of `argument.json`."""
    tiles, scopes, caches = numbers["tiles"], numbers["scopes"], numbers["caches"]
    lines = [
        "# The argument, in pictures",
        "",
        "Written by `docs/argument.py` from `docs/argument.json`; do not edit.",
        "",
        "## Tiles",
        "",
        "![One frame decoded untiled, in exact tiles and in blended tiles, with the differences]"
        "(argument_tiles.png)",
        "",
        tiles_words(tiles),
        "",
        *tiles_table(tiles),
        "",
        "## Statistics and caches",
        "",
        "![Chunk scope beside clip scope; PSNR over time with and without the causal cache]"
        "(argument_time.png)",
        "",
        f"**Norm scope.** {scope_words(scopes)}",
        "",
        f"**Causal cache.** {cache_words(caches)}",
        "",
        *caches_table(caches),
        "",
        "## How it was made",
        "",
        made_words(numbers["made_with"]),
        "",
    ]
    return "\n".join(lines)


def readme_part(numbers: Numbers) -> str:
    """The first picture and its figures, for the README; links are from the repository's root."""
    tiles, both = numbers["tiles"], numbers["caches"]["cases"]["both"]
    blended = [case for case in tiles["cases"].values() if case["overlap_px"] is not None]
    overlaps_px = [str(case["overlap_px"]) for case in blended]
    psnrs = [decibels(case["psnr_db"], 1) for case in blended]
    exact = tiles["cases"]["exact"]
    ours = numbers["caches"]["cases"]["kept"]["flicker_level"]
    theirs = both["flicker_level"]
    lines = [
        "![One frame decoded untiled, in exact tiles and in blended tiles, with the differences]"
        "(docs/argument_tiles.png)",
        "",
        f"The shipped clip and VAE, decoded in tiles of {tiles['tile_px']} px. Exact tiles are at"
        f" most {level(exact['largest_level'])} of 255 from untiled",
        f"({decibels(exact['psnr_db'], 1)}); tiles blended over {_listed(overlaps_px)} px reach"
        f" {_listed(psnrs)}. Losing the causal",
        "cache between chunks, in encoder and decoder, changes the PSNR of single sample frames by"
        f" {min(both['frame_gain_db']):+.1f} to",
        f"{max(both['frame_gain_db']):+.1f} dB; the step across a chunk's boundary is then wrong by"
        f" {theirs['boundary']:.1f} of 255 on average, with the cache by",
        f"{ours['boundary']:.1f}. [More pictures, all figures, and how they were made]"
        "(docs/argument.md).",
        "",
    ]
    return "\n".join(lines)
