"""Does a trainer load what is written for it?

What cogvideox-factory does with a folder of latents is done here again, step by step, after
https://github.com/a-r-r-o-w/cogvideox-factory/blob/223add1a59440761e91e573921a57fe7b796e17f/training/cogvideox/dataset.py
"""

from __future__ import annotations

import shutil
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import clip_folders
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

import vae_core
from vae_core.cli import main
from vae_core.datasets import trainers
from vae_core.datasets.tensor_files import Safetensors, TorchFile
from vae_core.errors import VideoError
from vae_core.media.video import Resize, frames_to_tensor, read_video
from vae_core.media.video_writing import write_video

SIZES = ("--bucket", "9x32x48", "--bucket", "5x32x32")
WIDTH = 8


vae = clip_folders.vae
moving_clip = partial(clip_folders.moving_clip, pace=(9, 5))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Clips of two sizes with captions, and one without."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, size in {
        "wide": (9, 32, 48),
        "square": (6, 32, 32),
        "also.wide": (12, 32, 48),
    }.items():
        write_video(folder / f"{name}.mp4", moving_clip(*size), Fraction(24))
        (folder / f"{name}.txt").write_text(f"a clip that is {name}\n")
    write_video(folder / "mute.mp4", moving_clip(9), Fraction(24))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model, with no weights in it."""
    for part in ("tokenizer", "text_encoder"):
        (tmp_path / "model" / part).mkdir(parents=True)
        (tmp_path / "model" / part / "config.json").write_text("{}")
    return tmp_path / "model"


def embeds_of(caption: str) -> torch.Tensor:
    """What stands here for a text encoder."""
    return torch.tensor([float(ord(letter)) for letter in caption.ljust(226)]).outer(
        torch.arange(1.0, WIDTH + 1)
    )


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The captions that were encoded, by a stand-in for transformers."""
    found: list[str] = []

    def encode(caption: str) -> torch.Tensor:
        found.append(caption)
        return embeds_of(caption)

    monkeypatch.setattr(trainers, "_transformers", lambda: None)
    monkeypatch.setattr(trainers.TextModel, "load", lambda *_: encode)
    return found


def encode(clips: Path, vae: Path, model: Path, *more: object) -> int:
    argv = ["encode-dataset", clips, "-o", clips.with_name("out"), "--vae", vae, *SIZES]
    argv += ["--format", "cogvideox-factory", "--text-encoder", model, *more]
    return main([str(one) for one in argv])


def told(out: str) -> dict[str, list[str]]:
    """The options that the last line says a trainer needs."""
    line = out.rpartition("for cogvideox-factory: ")[2].split()
    found: dict[str, list[str]] = {}
    name = ""
    for word in line:
        name = word[2:] if word.startswith("--") else name
        found.setdefault(name, [])
        if not word.startswith("--"):
            found[name].append(word)
    return found


def factory_loads(options: dict[str, list[str]]) -> list[dict]:
    """What cogvideox-factory's `VideoDataset` gives with `load_tensors`, in its `BucketSampler`."""
    root = Path(options["data_root"][0])
    lists = []
    for option in ("caption_column", "video_column"):
        lines = (root / options[option][0]).read_text(encoding="utf-8").splitlines()
        lists.append([line.strip() for line in lines if line.strip()])
    prompts, videos = lists[0], [root / line for line in lists[1]]
    assert len(prompts) == len(videos)
    sizes = {
        (int(f), int(h), int(w))
        for f in options["frame_buckets"]
        for h in options["height_buckets"]
        for w in options["width_buckets"]
    }
    items = []
    for prompt, path in zip(prompts, videos, strict=True):
        name = f"{path.name.split('.')[0]}.pt"
        latents, embeds = (
            torch.load(path.parent.parent / folder / name, map_location="cpu", weights_only=True)
            for folder in ("video_latents", "prompt_embeds")
        )
        count = latents.size(1)
        frames = 4 * count if count % 2 == 0 else 4 * (count - 1) + 1
        assert (frames, 8 * latents.size(2), 8 * latents.size(3)) in sizes
        items.append({"caption": prompt, "video": latents, "prompt": embeds})
    return items


def test_cogvideox_factory_loads_the_moments_and_the_encoded_captions(
    clips: Path, vae: Path, model: Path, encoded: list[str], capsys
) -> None:
    assert encode(clips, vae, model) == 0
    out = capsys.readouterr().out
    assert "skipped: mute.mp4: it has no caption" in out
    items = factory_loads(told(out))
    assert {one["caption"] for one in items} == {
        "a clip that is wide", "a clip that is square", "a clip that is also.wide",
    }  # fmt: skip
    engine = vae_core.load(vae, dtype=torch.float32)
    for item in items:
        name = item["caption"].removeprefix("a clip that is ")
        size = Resize(32, 32 if name == "square" else 48)
        frames = read_video(clips / f"{name}.mp4", resize=size).frames[
            : 5 if name == "square" else 9
        ]
        expected = engine.encode(frames_to_tensor(frames)).moments
        # The trainer draws its sample from what it loads, of a batch at a time.
        drawn = DiagonalGaussianDistribution(torch.stack([item["video"]]))
        torch.testing.assert_close(drawn.mean, expected[:, :16], rtol=0, atol=0)
        torch.testing.assert_close(drawn.logvar, expected[:, 16:], rtol=0, atol=0)
        assert torch.equal(item["prompt"], embeds_of(item["caption"]))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_second_run_encodes_only_captions_that_changed(
    clips: Path, vae: Path, model: Path, encoded: list[str], capsys
) -> None:
    assert encode(clips, vae, model) == 0
    before, results = contents(clips.with_name("out")), clips.with_name("out")
    assert len(encoded) == 3
    assert encode(clips, vae, model) == 0
    assert len(encoded) == 3
    assert contents(results) == before
    shutil.rmtree(results)
    assert encode(clips, vae, model) == 0
    assert contents(results) == before  # the same files, whenever they are made
    del encoded[:]
    (clips / "wide.txt").write_text("another caption")
    assert encode(clips, vae, model) == 0
    assert encoded == ["another caption"]
    capsys.readouterr()
    assert main(["verify", str(results), "--vae", str(vae), "--decode", str(clips)]) == 0
    assert capsys.readouterr().out.count(" dB (worst frame ") == 3


def test_another_format_or_text_encoder_in_the_same_folder_is_refused(
    clips: Path, vae: Path, model: Path, encoded: list[str], capsys
) -> None:
    assert encode(clips, vae, model) == 0
    (model / "text_encoder" / "config.json").write_text('{"d_model": 8}')
    assert encode(clips, vae, model) == 2
    assert "text_encoder" in capsys.readouterr().err
    argv = ["encode-dataset", clips, "-o", clips.with_name("out"), "--vae", vae, *SIZES]
    assert main([str(one) for one in argv]) == 2
    assert "made with other settings: format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--latents",), "leave out --latents"),
        (("--text-encoder", "nowhere"), "has no tokenizer"),
        (("--format", "exact-video-vae"), "--text-encoder is for --format"),
    ],
)
def test_what_the_trainer_could_not_use_is_refused_before_anything_runs(
    clips: Path, vae: Path, model: Path, encoded: list[str], capsys, more, sentence
) -> None:
    assert encode(clips, vae, model, *more) == 2
    assert sentence in capsys.readouterr().err
    assert not clips.with_name("out").exists()


def test_transformers_that_is_missing_is_said_to_be(
    clips: Path, vae: Path, model: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert encode(clips, vae, model) == 2
    assert "pip install exact-video-vae[text]" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_captions_are_encoded_as_the_pipelines_text_encoder_does_it(tmp_path: Path) -> None:
    library = pytest.importorskip("transformers", reason="needs transformers: the extra `text`")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "cat": 4}
    level = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    level.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.PreTrainedTokenizerFast(
        tokenizer_object=level, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "tokenizer")
    torch.manual_seed(0)
    config = library.T5Config(
        vocab_size=8, d_model=WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2
    )
    encoder = library.T5EncoderModel(config).eval()
    encoder.save_pretrained(tmp_path / "text_encoder")
    encode_caption = trainers.TextModel(tmp_path).load(torch.float32, "cpu")
    ids = torch.tensor([[3, 4] + [0] * 224])
    with torch.no_grad():
        expected = encoder(ids)[0][0]
    torch.testing.assert_close(encode_caption("a cat"), expected)


@pytest.mark.parametrize("files", [Safetensors(), TorchFile()], ids=lambda kind: kind.suffix)
def test_a_file_of_either_kind_is_whole_or_none(tmp_path: Path, files) -> None:
    path, said = tmp_path / f"a{files.suffix}", {"name": "a", "shape": "[2, 3]"}
    tensor = torch.arange(6.0).reshape(2, 3)
    files.save(path, "moments", tensor.t(), said)
    assert files.said(path) == said
    assert torch.equal(files.tensor(path, "moments"), tensor.t())
    whole = path.read_bytes()
    files.save(path, "moments", tensor.t(), said)
    assert path.read_bytes() == whole
    for data in (whole[:-20], b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(data)
        assert files.said(path) is None
        with pytest.raises(VideoError, match="cannot be read"):
            files.tensor(path, "moments")
    assert files.said(tmp_path / "none") is None
