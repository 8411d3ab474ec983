"""Does every accepted file give the same weights, and every other file a sentence?"""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file

from vae_core.errors import LoadError, SettingsError
from vae_core.families.loading import architecture_of_state, load_module

diffusers = pytest.importorskip("diffusers", reason="needs diffusers to build the module")

State = dict[str, torch.Tensor]
Build = Callable[[Path, State], Path]
WIDTHS = (32, 32, 64, 64)
CONFIG = {
    "_class_name": "AutoencoderKLCogVideoX",
    "block_out_channels": list(WIDTHS),
    "layers_per_block": 1,
    "scaling_factor": 0.7,
}
STEM = "diffusion_pytorch_model"
SHARDS = (f"{STEM}-00001-of-00002.safetensors", f"{STEM}-00002-of-00002.safetensors")


def shapes_of(widths: tuple[int, ...], layers: int) -> dict[str, tuple[int, ...]]:
    network = diffusers.AutoencoderKLCogVideoX
    with torch.device("meta"):
        module = network(block_out_channels=widths, layers_per_block=layers)
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def state() -> Iterator[State]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only cost time on tensors as small as these
    generator = torch.Generator().manual_seed(7)
    yield {n: torch.randn(s, generator=generator) for n, s in shapes_of(WIDTHS, 1).items()}
    torch.set_num_threads(threads)


def sat_name(name: str) -> str:
    name = re.sub(r"up_blocks\.(\d)", lambda hit: f"up.{3 - int(hit[1])}", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda hit: f"mid.block_{int(hit[1]) + 1}", name)
    name = name.replace("down_blocks", "down").replace("resnets", "block")
    return name.replace("samplers.0", "sample").replace("conv_shortcut", "nin_shortcut")


def renamed(state: State, prefix: str = "", rename: Callable[[str], str] = str) -> State:
    return {prefix + rename(name): tensor for name, tensor in state.items()}


OTHERS = {
    "model.diffusion_model.transformer.layers.0.mlp.weight": torch.zeros(2, 2),
    "loss.discriminator.weight": torch.zeros(3, dtype=torch.int64),
}


def safetensors(path: Path, state: State) -> Path:
    save_file(state, path)
    return path


def checkpoint(path: Path, value: object, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def folder(path: Path, config: object = CONFIG) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return written(path / "config.json", json.dumps(config).encode()).parent


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


old_checkpoint = partial(checkpoint, zipped=False)
Wrap = Callable[[State], object]
FORMATS: dict[str, tuple[str, Callable[..., Path], Wrap]] = {
    "a diffusers folder": (f"{STEM}.safetensors", safetensors, dict),
    "a pipeline's root": (f"vae/{STEM}.safetensors", safetensors, dict),
    "the only variant": (f"{STEM}.fp16.safetensors", safetensors, dict),
    "a .bin folder": (f"{STEM}.bin", checkpoint, dict),
    "one safetensors file": ("v.safetensors", safetensors, dict),
    "a whole model": ("v.safetensors", safetensors, lambda s: renamed(s, "vae.") | OTHERS),
    "SAT names": ("v", safetensors, lambda s: renamed(s, "first_stage_model.", sat_name)),
    "SAT's": ("v.pt", checkpoint, lambda s: {"state_dict": renamed(s, "", sat_name) | OTHERS}),
    "a nested .ckpt": ("v.ckpt", checkpoint, lambda s: {"module": {"model": renamed(s, "vae.")}}),
    "parameters": ("v.pt", checkpoint, lambda s: {n: torch.nn.Parameter(t) for n, t in s.items()}),
    "an old pickle": ("v.pt", old_checkpoint, dict),
    "a checkpoint misnamed": ("v.safetensors", checkpoint, dict),
    "an old pickle misnamed": ("v.safetensors", old_checkpoint, dict),
    "safetensors misnamed": ("v.pt", safetensors, dict),
}


@pytest.mark.parametrize(("name", "write", "wrap"), FORMATS.values(), ids=FORMATS.keys())
def test_every_format_gives_the_same_weights(
    name: str, write: Callable[..., Path], wrap: Wrap, tmp_path: Path, state: State
):
    has_config = STEM in name
    if has_config:
        folder((tmp_path / name).parent)
    path = write(tmp_path / name, wrap(state))
    source = tmp_path if has_config else path
    loaded = load_module(source)
    with path.open("r+b") as file:  # in place: a module that maps its file would see it
        file.write(b"\xff" * path.stat().st_size)
    assert holds(loaded.module, state)
    assert isinstance(loaded.module, diffusers.AutoencoderKLCogVideoX)
    assert not any(p.requires_grad or loaded.module.training for p in loaded.module.parameters())
    assert loaded.architecture == architecture_of_state(state)
    assert (loaded.source, loaded.scaling_factor) == (source, 0.7 if has_config else None)


def holds(module: torch.nn.Module, state: State) -> bool:
    weights = module.state_dict()
    return weights.keys() == state.keys() and all(torch.equal(weights[n], state[n]) for n in state)


def test_shards_and_a_named_config_give_the_same_weights(tmp_path: Path, state: State):
    names = {name: SHARDS[i % 2] for i, name in enumerate(state)}
    for shard in SHARDS:
        safetensors(folder(tmp_path) / shard, {n: state[n] for n in names if names[n] == shard})
    index = tmp_path / f"{STEM}.safetensors.index.json"
    written(index, json.dumps({"weight_map": names}).encode())
    assert holds(load_module(tmp_path).module, state)
    assert holds(load_module(tmp_path / "config.json").module, state)


@pytest.mark.parametrize(
    ("kinds", "given"),
    [  # (stored, stored too, asked for), given
        ((torch.float16, torch.float16), torch.float16),
        ((torch.float64, torch.float64), torch.float64),
        ((torch.float16, torch.bfloat16), torch.float32),
        ((torch.bfloat16, torch.bfloat16, torch.float32), torch.float32),
        ((torch.float8_e4m3fn, torch.float32, torch.bfloat16), torch.bfloat16),
    ],
)
def test_weights_come_as_asked_or_in_the_dtype_that_holds_them_all(
    kinds: tuple[torch.dtype, ...], given: torch.dtype, tmp_path: Path, state: State
):
    one, other, *asked = kinds
    stored = {name: t.to((one, other)[i % 2]) for i, (name, t) in enumerate(state.items())}
    loaded = load_module(safetensors(tmp_path / "v", stored), *asked)
    assert holds(loaded.module, {name: tensor.to(given) for name, tensor in stored.items()})
    assert set(loaded.architecture.dtypes) == {str(k).removeprefix("torch.") for k in (one, other)}


def test_a_config_beside_a_file_is_used_only_if_it_fits(tmp_path: Path, state: State):
    path = safetensors(tmp_path / "anything.safetensors", state)
    fit, lie = CONFIG | {"norm_num_groups": 16}, CONFIG | {"layers_per_block": 3}
    for config, groups in ((fit, 16), (lie, 32), ({"_class_name": "AutoencoderKL"}, 32), ([], 32)):
        folder(tmp_path, config)
        loaded = load_module(path)
        assert loaded.module.config["norm_num_groups"] == groups
        assert loaded.architecture.norm_num_groups == groups
        assert loaded.scaling_factor == (0.7 if groups == 16 else None)


def test_the_full_size_architecture_is_read_from_shapes_alone():
    shapes = shapes_of((128, 256, 256, 512), 3)
    found = architecture_of_state(shapes)
    assert found.block_out_channels == (128, 256, 256, 512)
    assert (found.layers_per_block, found.latent_channels) == (3, 16)
    assert (found.in_channels, found.out_channels, found.norm_num_groups) == (3, 3, 32)
    ratio = found.temporal_compression_ratio
    assert (ratio, found.dtypes, found.parameters) == (4, (), 215_583_907)
    sat = {"vae." + sat_name(name): torch.empty(s, device="meta") for name, s in shapes.items()}
    assert architecture_of_state(sat).block_out_channels == found.block_out_channels
    assert architecture_of_state(sat, norm_num_groups=4).dtypes == ("float32",)
    with pytest.raises(LoadError, match=r"48 groups must divide .*\(128, 256, 256, 512\)"):
        architecture_of_state(shapes, norm_num_groups=48)


def anonymous_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's RssAnon")
@pytest.mark.parametrize("write", [safetensors, checkpoint])
def test_loading_holds_one_copy_of_the_weights(write: Callable[..., Path], tmp_path: Path):
    shapes = shapes_of((96, 192, 192, 384), 1)
    ones = {n: torch.ones(shape, dtype=torch.bfloat16) for n, shape in shapes.items()}
    path = write(tmp_path / "v", ones)
    weight_bytes = 4 * sum(tensor.numel() for tensor in ones.values())
    del ones
    peak = before = anonymous_bytes()
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load_module, path, torch.float32)
        while not loading.done():
            peak = max(peak, anonymous_bytes())
            time.sleep(0.002)
    assert loading.result().architecture.parameters * 4 == weight_bytes
    assert peak - before < 1.4 * weight_bytes


class Unsafe:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must never be printed",)


def tensors(**changes: torch.Tensor | None) -> Build:
    """A file whose tensors, `__` for a dot, are replaced, or left out where None."""
    new = {name.replace("__", "."): tensor for name, tensor in changes.items()}

    def build(tmp: Path, state: State) -> Path:
        return safetensors(tmp / "v", {n: t for n, t in (state | new).items() if t is not None})

    return build


def cut(share: float, write: Callable[[Path, State], Path]) -> Build:
    def build(tmp: Path, state: State) -> Path:
        path = write(tmp / "v", state)
        return written(path, path.read_bytes()[: int(path.stat().st_size * share)])

    return build


def config(**values: object) -> Build:
    file = f"{STEM}.safetensors"
    return lambda tmp, state: safetensors(folder(tmp, CONFIG | values) / file, state).parent


def archive(name: str) -> Build:
    def build(tmp: Path, _: State) -> Path:
        with zipfile.ZipFile(tmp / "v.pt", "w") as file:
            file.writestr(f"v/{name}", b"x")
        return tmp / "v.pt"

    return build


def of_class(name: str) -> Build:
    return lambda tmp, _: folder(tmp, {"_class_name": name})


def held(content: bytes) -> Build:
    return lambda tmp, _: written(tmp / "v.safetensors", content)


def refusal(path: Path) -> str:
    with pytest.raises(LoadError) as caught:
        load_module(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path.parent if path.name == "config.json" else path))
    return sentence


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 431170000\n"
GONE, WANDERING = b'{"weight_map": {"a": "y"}}', b'{"weight_map": {"a": "../y"}}'
EIGHT_BIT = torch.ones(3).to(torch.float8_e4m3fn)
WRONG: dict[str, tuple[Build, str]] = {
    "nothing there": (lambda tmp, _: tmp / "no.pt", "no such file|Expected"),
    "an empty folder": (lambda tmp, _: tmp, "no config.json|holds nothing|Expected"),
    "only a README": (lambda tmp, _: written(tmp / "README.md", b"#").parent, "README.md|Expected"),
    "no config": (lambda tmp, s: safetensors(tmp / "v.safetensors", s).parent, "Give the file it"),
    "shards alone": (
        lambda tmp, s: safetensors(written(tmp / "x.index.json", GONE).with_name("a-1"), s).parent,
        "the file itself: |x.index.json.",
    ),
    "no weights": (lambda tmp, _: folder(tmp), f"no {STEM}.safetensors"),
    "a shard gone": (lambda tmp, _: written(tmp / "x.index.json", GONE), "1 of the 1 files|(y)"),
    "a config that lies": (config(layers_per_block=3), "contradicts|layers_per_block 3 against 1"),
    "groups that do not fit": (config(norm_num_groups=48), "48 groups must divide"),
    "a scale in words": (config(scaling_factor="x"), "scaling_factor|'x'"),
    "unknown blocks": (config(down_block_types=["No"] * 4), "cannot build"),
    "two VAEs": (lambda tmp, s: checkpoint(tmp / "v", s | renamed(s, "ema.")), "2 CogVideoX|ema."),
    "one twice": (lambda tmp, s: checkpoint(tmp / "v", s | renamed(s, "", sat_name)), "are both"),
    "no tensors": (lambda tmp, _: safetensors(tmp / "v", {}), "holds no tensors"),
    "one missing": (tensors(encoder__norm_out__bias=None), "1 missing (encoder.norm_out.bias)"),
    "conv_in missing": (tensors(encoder__conv_in__conv__weight=None), "conv_in.conv.weight is mis"),
    "one too many": (tensors(encoder__extra=torch.ones(1)), "1 unexpected (encoder.extra)"),
    "misshapen": (tensors(encoder__norm_out__bias=torch.ones(31)), "(31,) instead of (64,)"),
    "2D": (tensors(encoder__conv_in__conv__weight=torch.ones(32, 3, 3, 3)), "a 3D convolution's"),
    "NaN": (tensors(encoder__norm_out__bias=torch.full((64,), torch.nan)), "bias|not finite"),
    "integers": (tensors(decoder__conv_out__conv__bias=torch.ones(3).int()), "floating|I32"),
    "fp8": (tensors(decoder__conv_out__conv__bias=EIGHT_BIT), "float8_e4m3fn|dtype=torch.bfloat16"),
    "a checkpoint cut short": (cut(0.6, checkpoint), "cut short|list of contents"),
    "a pickle cut short": (cut(0.9, old_checkpoint), "damaged torch check"),
    "a pickle with code": (lambda tmp, _: checkpoint(tmp / "v", Unsafe()), "refused|code|print"),
    "a checkpoint of a list": (lambda tmp, _: checkpoint(tmp / "v", [1]), "a list, no tensors by"),
    "a broken config": (lambda tmp, _: written(tmp / "config.json", b"{"), "is no JSON"),
    "a wandering index": (lambda tmp, _: written(tmp / "x.index.json", WANDERING), "weight_map"),
    "nothing": (held(b""), "empty (0 bytes)|Download"),
    "HTML": (held(b"\n<!DOCTYPE html><html>Log in</html>"), "a web page|login"),
    "JSON": (held(b'{"error": "not found"}'), "JSON text"),
    "text": (held(b"Entry not found"), "text that begins 'Entry not found'"),
    "a Git LFS pointer": (held(LFS), "Git LFS|431170000 bytes|git lfs pull"),
    "GGUF": (held(b"GGUF\3\0\0\0" + bytes(90)), "a GGUF file"),
    "noise": (held(b"\1\2\3\xfe\xff"), "something unknown|01 02 03"),
    "half a header": (held((5000).to_bytes(8, "little") + b'{"a":'), "5008 bytes|has 13"),
    "a broken header": (held((3).to_bytes(8, "little") + b"{a}"), "header is damaged"),
    "a plain pickle": (held(b"\x80\x04}\x94."), "refused|more than tensors"),
    "TorchScript": (archive("constants.pkl"), "TorchScript"),
    "a document": (archive("document.xml"), "a zip archive of v/document.xml"),
    "AutoencoderKL": (of_class("AutoencoderKL"), "names AutoencoderKL, an image VAE"),
    "AutoencoderKLMagvit": (of_class("AutoencoderKLMagvit"), "an autoencoder of another family"),
    "AutoencoderKLHunyuanImage": (
        of_class("AutoencoderKLHunyuanImage"),
        "names AutoencoderKLHunyuanImage, a Hunyuan VAE",
    ),
    "AutoencoderKLLTX2Audio": (
        of_class("AutoencoderKLLTX2Audio"),
        "names AutoencoderKLLTX2Audio, the audio VAE of LTX-2",
    ),
    "CogVideoXTransformer3DModel": (
        of_class("CogVideoXTransformer3DModel"),
        "names CogVideoXTransformer3DModel, a diffusion transformer",
    ),
    "T5EncoderModel": (of_class("T5EncoderModel"), "names T5EncoderModel, a text encoder"),
}


@pytest.mark.parametrize(("build", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_gets_a_sentence(
    build: Build, words: str, tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]
):
    sentence = refusal(build(tmp_path, state))
    assert [word for word in words.split("|") if word not in sentence] == []
    assert capsys.readouterr().out == ""


FAMILIES = """
an image VAE (2D: encoder.down_blocks.0.resnets.0.conv1.weight/4
an image VAE (2D: first_stage_model.encoder.down.0.block.0.conv1.weight/4
a whole image checkpoint: model.diffusion_model.a/1 vae.encoder.down.0.block.0.conv1.weight/4
a Wan: encoder.downsamples.0.residual.0.gamma/4 conv1.weight/5
a HunyuanVideo VAE: encoder.down.0.block.0.conv1.conv.weight/5 encoder.mid.attn_1.q.weight/5
an LTX VAE without: per_channel_statistics.mean-of-means/1 encoder.conv_in.conv.weight/5
a MoVQ image VAE: decoder.up_blocks.0.resnets.0.norm1.conv_y.weight/4
a video VAE of another family: encoder.conv_in.conv_t.weight/5
the encoder half: encoder.down_blocks.0.resnets.0.conv1.conv.weight/5
a tiny autoencoder: decoder.3.conv.0.weight/4
a diffusion transformer: transformer_blocks.0.ff.weight/2
a diffusion transformer: blocks.0.ffn.0.weight/2
a diffusion transformer: model.diffusion_model.transformer.layers.0.mlp.weight/2
a diffusion U-Net: model.diffusion_model.input_blocks.0.0.weight/4
a text encoder: shared.weight/2
a text encoder: encoder.block.0.layer.0.SelfAttention.q.weight/2
a LoRA: transformer_blocks.0.to_q.lora_A.weight/2
a LoRA: lora_unet_x.lora_down.weight/2 lora_unet_x.alpha/1
a network of no family that is known here (1 tensors: x): x/1
"""


@pytest.mark.parametrize("row", FAMILIES.split("\n")[1:-1])
def test_another_network_is_named_by_its_tensors(row: str, tmp_path: Path):
    words, names = row.rsplit(": ", 1)
    other = {name[:-2]: torch.zeros([2] * int(name[-1])) for name in names.split()}
    assert f"this looks like {words}" in refusal(safetensors(tmp_path / "v", other))


def test_of_several_variants_none_is_guessed(tmp_path: Path):
    for kind in ("fp16", "bf16"):
        written(folder(tmp_path) / f"{STEM}.{kind}.safetensors", b"")
    assert f"several files of weights: {STEM}.bf16.safetensors, {STEM}.fp16" in refusal(tmp_path)


def test_a_file_cut_short_names_both_sizes(tmp_path: Path, state: State):
    whole_bytes = safetensors(tmp_path / "whole", state).stat().st_size
    path = cut(0.5, safetensors)(tmp_path, state)
    assert re.search(f"{whole_bytes} bytes.* has {path.stat().st_size}", refusal(path))


def test_values_that_overflow_the_dtype_are_refused(tmp_path: Path, state: State):
    path = tensors(encoder__norm_out__bias=torch.full((64,), 1e9))(tmp_path, state)
    with pytest.raises(LoadError, match=r"would overflow torch\.float16.*bfloat16"):
        load_module(path, torch.float16)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path / "v.safetensors", b"x")
    forbidden = Mock(side_effect=PermissionError(13, "Permission denied"))
    monkeypatch.setattr(Path, "open", forbidden)  # root may read everything
    assert "cannot be read (Permission denied)" in refusal(path)


@pytest.mark.parametrize("wish", [{"dtype": torch.int8}, {"device": "nowhere"}])
def test_a_wish_that_cannot_be_met_is_refused(wish: dict[str, Any], tmp_path: Path):
    with pytest.raises(SettingsError, match=r"must be one of bfloat16|cannot be used"):
        load_module(tmp_path, **wish)
