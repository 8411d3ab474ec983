"""Where does the tiny Wan autoencoder start?

Close to a linear transform coder whose maps are computed, not trained:

1. Encoder, one reduction after the other: the principal components of the blocks of 2 x 2 pixels,
   or of pairs of frames, of what the reduction before has left of the given crops.  Components of
   a pair are turned so that a pair without motion comes out as one of its frames, because the
   first frame of a clip passes by the maps in time.
2. Decoder, one map after the other: the ridge regression of what the encoder had at the same
   resolution from what the decoder has got so far.
3. Residual branches stay as they were, silent at their ends.

The module moves nothing by gradients and knows the Wan network only.
"""

import torch
from branches_wan import boost_all
from data import CropSampler, CropShape
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from network_wan import resample, resample_space, resample_time
from torch import nn
from torch.nn import functional

# Channels that carry the picture behind each halving of the sides; the last is always constant.
HALF, QUARTER, EIGHTH = 12, 27, 27
RIDGE = 1e-6
# Least variance, as a share of the largest, that is lifted to one in the latents.
FLOOR = 1e-5
CROPS = 96
SHAPE = CropShape(1, 9, 64, 64)
# Share of the crops whose colour channels are permuted.
PERMUTED = 0.4
# Rows that one regression sees at most.
ROWS = 200_000
LOG_VARIANCE = -7.0
QUIET = 0.01


def components(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return the leading eigenvectors [count, f] of the second moments of rows [n, f]."""
    rows = rows.double()
    vectors = torch.linalg.eigh(rows.T @ rows / len(rows)).eigenvectors
    return vectors[:, -count:].flip(1).T.float()


def regress(features: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight [k, f] and bias [k] that predict target [n, k] from features [n, f]."""
    seen = torch.randperm(len(features))[:ROWS]
    features, target = features[seen], target[seen]
    rows = functional.pad(features, (0, 1), value=1.0).double()
    gram = rows.T @ rows / len(rows)
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(gram, rows.T @ target.double() / len(rows)).T.float()
    return solved[:, :-1], solved[:, -1]


def as_rows(stream: torch.Tensor) -> torch.Tensor:
    """Return [b, c, t, h, w] as rows [b t h w, c]."""
    return stream.movedim(1, -1).flatten(0, 3)


def pictures(stream: torch.Tensor) -> torch.Tensor:
    """Return [b, c, t, h, w] as [b t, c, h, w]."""
    return stream.transpose(1, 2).flatten(0, 1)


def windows(stream: torch.Tensor) -> torch.Tensor:
    """Return the 3 x 3 neighbourhoods of [b, c, t, h, w] as rows [b t h w, c 9]."""
    return functional.unfold(pictures(stream), 3, padding=1).movedim(1, -1).flatten(0, 1)


def pairs(stream: torch.Tensor) -> torch.Tensor:
    """Return the pairs of frames behind the first one, one beside the other [b, 2c, t, h, w]."""
    return torch.cat([stream[:, :, 1::2], stream[:, :, 2::2]], dim=1)


def place(conv: nn.Module, rows: list[int], columns: list[int], values: torch.Tensor) -> None:
    """Write values [rows, columns, ...] into a weight; other inputs of these rows are dropped."""
    conv.weight[rows] = 0.0
    conv.weight[torch.tensor(rows)[:, None], torch.tensor(columns)] = values


def doubled(conv: nn.Module, rows: list[int]) -> None:
    """Follow each of these output channels by its negative."""
    below = [row + 1 for row in rows]
    conv.weight[below], conv.bias[below] = -conv.weight[rows], -conv.bias[rows]


def halve_sides(conv: nn.Conv2d, stream: torch.Tensor, rows: list[int]) -> None:
    """Keep components of the blocks of 2 x 2 pixels of the stream [b, c, t, h, w]."""
    count = stream.shape[1]
    blocks = functional.unfold(pictures(stream), 2, stride=2).movedim(1, -1).flatten(0, 1)
    kernels = 0.5 * components(blocks, len(rows)).unflatten(1, (count, 2, 2))
    place(conv, rows, [*range(count)], functional.pad(kernels, (0, 1, 0, 1)))


def halve_frames(conv: nn.Conv3d, stream: torch.Tensor, rows: list[int]) -> None:
    """Keep as many components of a pair of frames [b, c, t, h, w] as one frame has."""
    count = stream.shape[1]
    vectors = components(as_rows(pairs(stream)), count) / 2.0**0.5
    left, _, right = torch.linalg.svd(vectors[:, :count] + vectors[:, count:])
    early, late = ((left @ right).T @ vectors).split(count, dim=1)
    taps = torch.stack([torch.zeros_like(early), early, late], dim=-1)
    place(conv, rows, rows, taps[..., None, None])


def double_frames(conv: nn.Conv3d, stream: torch.Tensor, target: torch.Tensor) -> None:
    """Predict the frames of target [b, k, 2t+1, h, w] from a stream [b, c, t+1, h, w]."""
    past = functional.pad(stream[:, :, 1:], (0, 0, 0, 0, 2, 0))
    taps = past.unfold(2, 3, 1).movedim(-1, 2).flatten(1, 2)  # [b, 3c, t, h, w]
    weight, bias = regress(as_rows(taps), as_rows(pairs(target)))
    count, channels = target.shape[1], stream.shape[1]
    rows = [*range(count), *range(conv.out_channels // 2, conv.out_channels // 2 + count)]
    place(conv, rows, [*range(channels)], weight.unflatten(1, (channels, 3, 1, 1)))
    conv.bias[rows] = bias


def double_sides(
    conv: nn.Conv2d, stream: torch.Tensor, target: torch.Tensor, rows: list[int]
) -> None:
    """Predict target [b, k, t, 2h, 2w] from the stream [b, c, t, h, w]."""
    wide = stream.repeat_interleave(2, -1).repeat_interleave(2, -2)
    weight, bias = regress(windows(wide), as_rows(target))
    place(conv, rows, [*range(stream.shape[1])], weight.unflatten(1, (stream.shape[1], 3, 3)))
    conv.bias[rows] = bias


def head(end: nn.Module, stream: torch.Tensor, target: torch.Tensor, kept: int) -> None:
    """Predict target [b, k, t, h, w] by an encoder's or a decoder's last convolution."""
    features = windows(functional.silu(end.norm_out(stream)))
    weight, bias = regress(features, as_rows(target))
    end.conv_out.weight[:kept] = 0.0
    end.conv_out.weight[:kept, :, -1] = weight.unflatten(1, (stream.shape[1], 3, 3))
    end.conv_out.bias[:kept] = bias


def embed(conv: nn.Conv3d, count: int) -> None:
    """Make a 1 x 1 x 1 convolution pass the first channels on."""
    place(conv, [*range(count)], [*range(count)], torch.eye(count)[..., None, None, None])


@torch.no_grad()
def start(vae: AutoencoderKLWan, sampler: CropSampler) -> None:
    """Compute the maps of a network with silent branches on training crops."""
    sampler.permuted = PERMUTED
    video = torch.cat([sampler.batch(SHAPE) for _ in range(CROPS)])
    stages = start_encoder(vae, video)
    latent = start_latents(vae, stages)
    start_decoder(vae, latent, stages)


def start_encoder(vae: AutoencoderKLWan, video: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compute the encoder's maps; return what each resolution has, before and behind the pairs."""
    encoder = vae.encoder
    first, second, third = (b for b in encoder.down_blocks if isinstance(b, WanResample))
    widened = [b.conv_shortcut for b in encoder.down_blocks if hasattr(b, "conv_shortcut")]
    widened = [conv for conv in widened if isinstance(conv, nn.Conv3d)]
    embed_present(encoder.conv_in)
    stream = encoder.conv_in(video)
    halve_sides(first.resample[1], stream[:, :3], [*range(HALF)])
    stream = resample(first, stream)
    stages = {"pixels": video, "half": stream[:, :HALF]}
    embed(widened[0], HALF)
    stream = widened[0](stream)
    halve_sides(second.resample[1], stream[:, :HALF], [*range(QUARTER)])
    stages["quarter_frames"] = resample_space(second, stream)[:, :QUARTER]
    halve_frames(second.time_conv, stages["quarter_frames"], [*range(QUARTER)])
    stream = resample(second, stream)
    stages["quarter"] = stream[:, :QUARTER]
    embed(widened[1], QUARTER)
    stream = widened[1](stream)
    even = [*range(0, 2 * EIGHTH, 2)]
    halve_sides(third.resample[1], stream[:, :QUARTER], even)
    doubled(third.resample[1], even)
    stages["eighth_frames"] = resample_space(third, stream)[:, even]
    halve_frames(third.time_conv, stages["eighth_frames"], even)
    doubled(third.time_conv, even)
    stages["stream"] = resample(third, stream)
    stages["eighth"] = stages["stream"][:, even]
    return stages


def embed_present(conv: nn.Conv3d) -> None:
    """Make a 3 x 3 x 3 convolution pass its inputs on as its first channels."""
    count = conv.in_channels
    place(
        conv,
        [*range(count)],
        [*range(count)],
        functional.pad(torch.eye(count)[..., None, None, None], (1, 1, 1, 1, 2, 0)),
    )


def whiten(eighth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return map [k, c] and offset [c] that turn the components even, the latents first.

    Even latents make the optimiser's steps, of one size in every direction, equally daring.
    """
    rows = as_rows(eighth)
    offset = rows.mean(dim=0)
    vectors = components(rows - offset, EIGHTH)
    spread = ((rows - offset) @ vectors.T).square().mean(dim=0)
    return vectors / spread.clamp(min=FLOOR * spread.max()).sqrt()[:, None], offset


def turned(stream: torch.Tensor, turn: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Return [b, k, t, h, w] from [b, c, t, h, w]."""
    return ((stream.movedim(1, -1) - offset) @ turn.T).movedim(-1, 1)


def start_latents(vae: AutoencoderKLWan, stages: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute what leads to the latents and return them; turn the last resolution likewise."""
    count = vae.config.z_dim
    turn, offset = whiten(stages["eighth"])
    for name in ("eighth", "eighth_frames"):
        stages[name] = turned(stages[name], turn, offset)
    encoder = vae.encoder
    head(encoder, stages["stream"], stages["eighth"][:, :count], count)
    encoder.conv_out.weight[count:] *= QUIET
    encoder.conv_out.bias[count:] = LOG_VARIANCE
    for conv in (vae.quant_conv, vae.post_quant_conv):
        embed(conv, conv.in_channels)
    return encoder.conv_out(functional.silu(encoder.norm_out(stages["stream"])))[:, :count]


def start_decoder(
    vae: AutoencoderKLWan, latent: torch.Tensor, stages: dict[str, torch.Tensor]
) -> None:
    """Compute the decoder's maps from latents [b, c, t, h, w] to the pixels of the stages."""
    decoder = vae.decoder
    first, second, third = (block.upsamplers[0] for block in decoder.up_blocks[:3])
    stream = start_decoder_entry(decoder.conv_in, latent, stages["eighth"])
    double_frames(first.time_conv, stream[:, :EIGHTH], stages["eighth_frames"])
    wide = resample_time(first, stream)[:, :EIGHTH]
    double_sides(first.resample[1], wide, stages["quarter"], [*range(QUARTER)])
    stream = resample(first, stream)
    widened = decoder.up_blocks[1].resnets[0].conv_shortcut
    embed(widened, QUARTER)
    stream = boost_all(decoder.up_blocks[1], stream, stages["quarter"])
    double_frames(second.time_conv, stream[:, :QUARTER], stages["quarter_frames"])
    wide = resample_time(second, stream)[:, :QUARTER]
    double_sides(second.resample[1], wide, stages["half"], [*range(HALF)])
    stream = resample(second, stream)
    stream = boost_all(decoder.up_blocks[2], stream, stages["half"])
    colours = [0, 2, 4]
    double_sides(third.resample[1], stream[:, :HALF], stages["pixels"], colours)
    doubled(third.resample[1], colours)
    stream = resample(third, stream)
    # The stream's colours come in pairs of opposite sign.
    both = torch.stack([stages["pixels"], -stages["pixels"]], dim=2).flatten(1, 2)
    stream = boost_all(decoder.up_blocks[3], stream, both)
    head(decoder, stream, stages["pixels"], len(colours))


def start_decoder_entry(
    conv: nn.Conv3d, latent: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Pass the latents on and predict the weaker components from their neighbourhood."""
    count = latent.shape[1]
    embed_present(conv)
    weight, bias = regress(windows(latent), as_rows(target[:, count:]))
    rows = [*range(count, target.shape[1])]
    present = functional.pad(weight.unflatten(1, (count, 1, 3, 3)), (0, 0, 0, 0, 2, 0))
    place(conv, rows, [*range(count)], present)
    conv.bias[rows] = bias
    return conv(latent)
