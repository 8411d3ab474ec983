"""Which command lines are refused, with which words? `{files}`: the folder of `test_cli.py`."""

from __future__ import annotations

ENCODE = ("encode", "{files}/clip.mp4", "-o", "out.latent", "--vae", "{files}/vae")
DECODE = ("decode", "{files}/latents.safetensors", "-o", "out.mp4", "--vae", "{files}/vae")


def encode(clip: str, *rest: str) -> tuple[str, ...]:
    return ("encode", f"{{files}}/{clip}", "-o", "out.latent", "--vae", "{files}/vae", *rest)


def decode(latents: str, *rest: str) -> tuple[str, ...]:
    return ("decode", f"{{files}}/{latents}", "-o", "out.mp4", "--vae", "{files}/vae", *rest)


BAD = {
    "no command": ((), "COMMAND"),
    "unknown command": (("transcode",), "invalid choice"),
    "unknown option": ((*ENCODE, "--fast"), "--fast"),
    "no output": (("encode", "{files}/clip.mp4"), "-o"),
    "missing clip": (encode("nowhere.mp4"), "does not exist"),
    "empty clip": (encode("empty.mp4"), "is empty"),
    "corrupted clip": (encode("cut.mp4"), "not a video"),
    "text as clip": (encode("text.mp4"), "not a video"),
    "skipping everything": (encode("clip.mp4", "--skip-frames", "99"), "no frame"),
    "zero frames": (encode("clip.mp4", "--max-frames", "0"), "at least 1"),
    "chunk 6": ((*ENCODE, "--chunk-frames", "6"), "multiple of 4"),
    "chunk 0": ((*ENCODE, "--chunk-frames", "0"), "at least 1"),
    "chunk in words": ((*ENCODE, "--chunk-frames", "many"), "not a whole number"),
    "tile 0": ((*ENCODE, "--tile", "0"), "at least 16"),
    "tile in three parts": ((*ENCODE, "--tile", "1x2x3"), "no tile"),
    "unknown tiling": ((*ENCODE, "--tiling", "magic"), "invalid choice"),
    "unknown dtype": ((*ENCODE, "--dtype", "int8"), "invalid choice"),
    "unknown device": ((*ENCODE, "--device", "abacus"), "abacus"),
    "absent device": ((*ENCODE, "--device", "cuda:99"), "cuda"),
    "a device without values": ((*ENCODE, "--device", "meta"), "hold no values"),
    "latents for a device without values": ((*DECODE, "--device", "meta"), "hold no values"),
    "a device that no plan knows": (("plan", "--shape", "5x64x64", "--device", "abacus"), "abacus"),
    "seed without sample": ((*ENCODE, "--seed", "3"), "--sample"),
    "frames that do not fit": (encode("odd.mp4", "--frame-fit", "error"), "4k+1"),
    "wrong shape": (("plan", "--shape", "81x768"), "no shape"),
    "negative shape": (("plan", "--shape=-1x64x64"), "no shape"),
    "empty shape": (("plan", "--shape", "0x64x64"), "at least one"),
    "more frames than anybody plans": (("plan", "--shape", f"{2**31 - 1}x64x64"), "4194304"),
    "missing VAE": ((*ENCODE, "--vae", "nowhere.safetensors"), "nowhere.safetensors"),
    "text as VAE": ((*ENCODE, "--vae", "{files}/text.txt"), "text.txt"),
    "latents as VAE": ((*ENCODE, "--vae", "{files}/latents.safetensors"), "latents.safetensors"),
    "missing latents": (decode("nowhere.safetensors"), "does not exist"),
    "text as latents": (decode("text.safetensors"), "no latent file"),
    "VAE as latents": (decode("vae/diffusion_pytorch_model.safetensors"), "latent_tensor"),
    "NaN latents": (decode("nan.safetensors"), "must be finite"),
    "4-channel latents": (decode("four.safetensors"), "16 channels"),
    "integer latents": (decode("integers.safetensors"), "floating point"),
    "image latents": (decode("flat.safetensors"), "[b, c, t, h, w]"),
    "batch of latents": (decode("batch.safetensors"), "holds one clip"),
    "unknown codec": ((*DECODE, "--codec", "nonsense"), "not a video encoder"),
    "frame rate in words": ((*DECODE, "--fps", "fast"), "no frame rate"),
    "frame rate 0": ((*DECODE, "--fps", "0"), "no frame rate"),
    "quality out of range": ((*DECODE, "--crf", "-7"), "cannot write"),
    "codec of another container": ((*DECODE, "-o", "out.webm", "--codec", "libx264"), "out.webm"),
    "output in no folder": ((*ENCODE, "-o", "nowhere/out.latent"), "does not exist"),
    "output is a folder": ((*DECODE, "-o", "{files}/../folder.mp4"), "is a folder"),
    "wrong suffix": ((*ENCODE, "-o", "out.mp4"), "must end in"),
    "output is the input": (
        ("roundtrip", "{files}/clip.mp4", "-o", "{files}/clip.mp4"),
        "the input itself",
    ),
    "output is the VAE": (
        (*ENCODE, "--vae", "{files}/one.safetensors", "-o", "{files}/one.safetensors"),
        "the input itself",
    ),
    "output is the sound": (
        (*DECODE, "--audio", "{files}/clip.mp4", "-o", "{files}/clip.mp4"),
        "the input itself",
    ),
    "a name that is too long": ((*ENCODE, "-o", f"{'n' * 300}.latent"), "too long"),
    "an input's name that is too long": (encode(f"{'n' * 300}.mp4"), "n.mp4"),
    "a name with a zero": ((*ENCODE, "-o", "a\0b.latent"), "cannot write"),
    "a seed of 2^64": ((*ENCODE, "--sample", "--seed", str(2**64)), "no seed"),
    "a seed below -2^63": ((*ENCODE, "--sample", f"--seed={-(2**63) - 1}"), "no seed"),
    "start at infinity": ((*ENCODE, "--start", "inf"), "no time"),
    "start at no number": ((*ENCODE, "--start", "nan"), "no time"),
    "stop after all time": ((*ENCODE, "--stop", "9" * 400 + ":1"), "no time"),
    "a rate of next to nothing": ((*ENCODE, "--resample", "1e-9"), "no frame rate"),
    "a rate that takes for ever to read": ((*ENCODE, "--resample", "1e9999999999"), "frame rate"),
    "more frames than there are numbers": ((*ENCODE, "--max-frames", str(2**64)), "whole number"),
    "a stride beyond counting": ((*ENCODE, "--stride", str(2**31)), "the most there can be"),
    "a quality beyond counting": ((*DECODE, "--crf", "9" * 5000), "not a whole number"),
    "a picture beyond counting": ((*ENCODE, "--size", f"{2**64}x8"), "whole number"),
    "a tile beyond counting": ((*ENCODE, "--tile", f"{2**40}"), "whole number"),
    "a shape beyond counting": (("plan", "--shape", f"5x{2**40}x8"), "whole number"),
    "a budget beyond counting": ((*ENCODE, "--budget", "9" * 400 + "GiB"), "no size"),
    "digits of another script": ((*ENCODE, "--size", "²x²"), "no size"),
    "json over the clip": (("roundtrip", "--json", "{files}/clip.mp4"), "must end in .json"),
}
