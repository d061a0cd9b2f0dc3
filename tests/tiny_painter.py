"""A Stable Diffusion folder with a few thousand random weights, for images of 16 x 16, built in code."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from sleepkit.vision.dream2learn.tiny_diffusion import LATENTS, build_tiny_diffusion

WORDS = ["a", "photo", "of", "red", "blue", "square"]


def save_tiny_generator(folder: Path, channels: int = 1, size: int = 16, seed: int = 0) -> Path:
    """The classes of Stable Diffusion: AutoencoderKL, UNet2DConditionModel, CLIPTextModel, CLIPTokenizer."""
    torch.manual_seed(seed)
    pipe = build_tiny_diffusion(WORDS, channels, size, widths=(8, 8), text_size=16, autoencoder_width=8)
    vae = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        latent_channels=LATENTS,
        sample_size=size,
    )
    pipe.register_modules(vae=vae)
    pipe.save_pretrained(folder)
    return folder
