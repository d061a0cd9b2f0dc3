"""A latent diffusion model of a million weights, made and trained on a CPU in minutes, in the folder layout of Stable Diffusion.

    z    = s * E(x)                          (batch, 8, size / 4, size / 4)   autoencoder: |D(E(x)) - x|^2
    z_t  = sqrt(a_t) z + sqrt(1 - a_t) e     e ~ N(0, 1), t uniform
    v    = sqrt(a_t) e - sqrt(1 - a_t) z     loss |v_theta(z_t, t, text(caption)) - v|^2, captions left out with `caption_dropout`

Parts are `AutoencoderTiny` (no normalisation, which on a few channels takes the colours away), `UNet2DConditionModel`,
`CLIPTextModel` (trained with the UNet), `CLIPTokenizer` with one token for
each word of the captions, `DDIMScheduler`: what `StableDiffusionPipeline.from_pretrained` loads.

Sources: Rombach et al. 2022 (arXiv 2112.10752), v-prediction: Salimans & Ho 2022 (arXiv 2202.00512).  Ours: the sizes.
Left out: adversarial and perceptual losses of the autoencoder, moving averages.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainingArguments

from sleepkit.errors import SleepkitError
from sleepkit.utils.digests import digest
from sleepkit.utils.options import option, require
from sleepkit.utils.phases import PhaseFolder, digest_of
from sleepkit.utils.ranks import main_finds, main_holds, main_only, own_draws
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import settings_digest
from sleepkit.utils.training_fields import DDP_TIMEOUT, DDP_TIMEOUT_HELP, check_launch, check_training, refuse_zero3
from sleepkit.vision.incremental.config import UNUSED
from sleepkit.vision.incremental.denoising import velocity_loss
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows

__all__ = ["TinyDiffusionConfig", "build_tiny_diffusion", "train_tiny_diffusion"]

LONGEST_CAPTION = 8  # words
DOWN = 4  # pixels of a latent's side
LATENTS = 8  # channels
_BY_STEPS = "a generator is trained for max_steps and autoencoder_steps; leave it out"


@dataclass(repr=False)  # that of transformers shows no token
class TinyDiffusionConfig(TrainingArguments):
    """How a generator is trained; `max_steps` are those of the diffusion model."""

    max_steps: int = option(3000, "Steps of the UNet and the text encoder.")
    autoencoder_steps: int = option(2000, "Steps of the autoencoder, before.")
    autoencoder_batch_size: int = option(8, "Images of these per step and device; each has many patches to learn from.")
    learning_rate: float = option(2e-3, "Initial learning rate of both.")
    lr_scheduler_type: str = option("cosine", "Learning rate schedule of both, as in transformers.")
    warmup_steps: float = option(100, "Steps until the learning rate is reached.")
    per_device_train_batch_size: int = option(32, "Images per step and device.")
    caption_dropout: float = option(0.1, "Share of captions that are left empty, 0 to 1.")
    logging_steps: float = option(200, "Steps between two lines of the log.")
    ddp_timeout: int = option(DDP_TIMEOUT, DDP_TIMEOUT_HELP)
    save_strategy: str = option("no", "Must stay 'no': it trains for minutes.")
    disable_tqdm: bool | None = option(False, "Plain lines instead of the live view of a terminal.")
    remove_unused_columns: bool = option(False, "Must stay False: batches are tensors, not columns.")
    output_dir: str | None = option("runs/tiny_diffusion", "Folder of the generator.")

    def __post_init__(self) -> None:
        check_training(self, {**UNUSED, **dict.fromkeys(("num_train_epochs", "per_device_eval_batch_size"), _BY_STEPS)})
        super().__post_init__()
        check_launch(self)
        refuse_zero3("a generator is trained")
        require(self, ("max_steps", "autoencoder_steps", "autoencoder_batch_size"), lambda value: value >= 1, "at least 1")
        require(self, ("caption_dropout",), lambda value: 0 <= value < 1, "a number from 0 to 1, below 1")


def build_tiny_diffusion(
    words: Sequence[str],
    channels: int = 3,
    size: int = 32,
    widths: Sequence[int] = (48, 64),
    text_size: int = 64,
    autoencoder_width: int = 32,
) -> Any:
    """A `StableDiffusionPipeline` with random weights from torch's generator.

    Args:
        words: of the captions; each becomes one token.
        channels, size: of the images; the size is a multiple of 8.
        widths: channels of the UNet at latent size and half of it, multiples of 8.
        text_size: of the token embeddings, a multiple of 16.
        autoencoder_width: channels of the autoencoder.
    """
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    if size % (2 * DOWN):
        raise SleepkitError(f"images have {size} pixels a side; resize them to a multiple of {2 * DOWN}")
    tokenizer = _tokenizer(words)
    vae = AutoencoderTiny(
        in_channels=channels,
        out_channels=channels,
        encoder_block_out_channels=(autoencoder_width,) * 3,
        decoder_block_out_channels=(autoencoder_width,) * 3,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=LATENTS,
    )
    unet = UNet2DConditionModel(
        sample_size=size // DOWN,
        in_channels=LATENTS,
        out_channels=LATENTS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(widths),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=text_size,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=text_size,
            intermediate_size=2 * text_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def train_tiny_diffusion(pixels: Tensor, captions: Sequence[str], config: TinyDiffusionConfig) -> Path:
    """Train a generator and save it to ``config.output_dir``, which is returned; one that is there already is not trained again.

    Args:
        pixels: ``(n, channels, size, size)`` uint8.
        captions: of each picture, `LONGEST_CAPTION` words at most.

    Raises:
        SleepkitError: captions that are too long, images whose size does not fit, or a folder that holds something else.
    """
    folder = Path(str(config.output_dir))
    longest = max(captions, key=lambda caption: len(caption.split()))
    if len(longest.split()) > LONGEST_CAPTION:
        raise SleepkitError(f"caption {longest!r} has more than {LONGEST_CAPTION} words; shorten it")
    work = folder.with_name(f".{folder.name}.work")  # beside it, as the generator takes the folder's place when it is whole
    with main_holds(work):
        phase = PhaseFolder(folder, _identity(pixels, captions, config))
        main_only(lambda: _require_free(phase))
        if main_finds(phase.read) is None:
            pipe = _trained(pixels, captions, config, work)
            main_only(lambda: phase.write(pipe.save_pretrained))
        main_only(lambda: shutil.rmtree(work, ignore_errors=True))
    return folder


def _identity(pixels: Tensor, captions: Sequence[str], config: TinyDiffusionConfig) -> dict[str, Any]:
    images = digest({"pixels": pixels})[:16]
    return {"images": images, "captions": digest_of(list(captions)), "settings": settings_digest(config)}


def _require_free(phase: PhaseFolder) -> None:
    """Raise unless the folder is empty, or holds this generator or one of ours that is damaged."""
    folder = phase.path
    if folder.is_dir() and any(folder.iterdir()) and not phase.is_same():
        raise SleepkitError(f"{folder} holds another generator or other files; choose another output_dir, or delete it")


def _trained(pixels: Tensor, captions: Sequence[str], config: TinyDiffusionConfig, folder: Path) -> Any:
    """Train a pipeline and return it."""
    set_seed(derive_seed(config.seed, "start"))
    words = sorted({word for caption in captions for word in caption.split()})
    pipe = build_tiny_diffusion(words, pixels.shape[1], pixels.shape[2])
    device = config.device
    _train_autoencoder(pipe.vae.to(device), pixels, config, folder)
    latents = _encoded(pipe.vae, pixels)
    pipe.vae.register_to_config(scaling_factor=1 / latents.pow(2).mean().sqrt().item())
    ids = pipe.tokenizer(list(captions), padding="max_length", return_tensors="pt").input_ids
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids.to(device)
    joint = nn.ModuleDict({"unet": pipe.unet, "text_encoder": pipe.text_encoder}).to(device)
    model = Denoiser(joint, pipe.scheduler, empty, config.caption_dropout)
    rows = TensorRows(latents * pipe.vae.config.scaling_factor, ids, config.max_steps * config.train_batch_size)
    _run(model, rows, config, derive_seed(config.seed, "diffusion"), folder)
    return pipe


class Autoencoder(nn.Module):
    """Its loss as a module, for `transformers.Trainer`."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor, _: Tensor) -> Tensor:
        images = pixels.float() / 127.5 - 1
        return F.mse_loss(self.vae.decode(self.vae.encode(images).latents).sample, images)


class Denoiser(nn.Module):
    """The loss of UNet and text encoder, for `transformers.Trainer`."""

    def __init__(self, parts: nn.ModuleDict, scheduler: Any, empty: Tensor, caption_dropout: float) -> None:
        super().__init__()
        self.parts, self.scheduler, self.empty, self.caption_dropout = parts, scheduler, empty, caption_dropout

    def forward(self, latents: Tensor, ids: Tensor) -> Tensor:
        dropped = own_draws(lambda count: torch.rand(count, 1, device=ids.device), len(latents)) < self.caption_dropout
        text = self.parts["text_encoder"](torch.where(dropped, self.empty, ids)).last_hidden_state

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            found: Tensor = self.parts["unet"](noisy, times, encoder_hidden_states=text).sample
            return found

        return velocity_loss(self.scheduler, latents, predict)


def _train_autoencoder(vae: Any, pixels: Tensor, config: TinyDiffusionConfig, folder: Path) -> None:
    config = copy.copy(config)
    config.max_steps, config.per_device_train_batch_size = config.autoencoder_steps, config.autoencoder_batch_size
    rows = TensorRows(pixels, torch.zeros(len(pixels), dtype=torch.int64), config.max_steps * config.train_batch_size)
    _run(Autoencoder(vae), rows, config, derive_seed(config.seed, "autoencoder"), folder)
    vae.eval().requires_grad_(False)


def _run(model: nn.Module, rows: TensorRows, config: TinyDiffusionConfig, seed: int, folder: Path) -> None:
    log = IncrementalTrainer(
        model, lambda whole, *batch: whole(*batch[:2]), config, rows, seed, folder, what=f"the {type(model).__name__}"
    ).run()
    last = log["history"][-1]["loss"] if log["history"] else float("nan")
    if config.process_index == 0:
        print(f"{type(model).__name__}: {log['steps']} steps, {log['train_seconds']:.0f} s, loss {last:.4f}", flush=True)


@torch.no_grad()
def _encoded(vae: Any, pixels: Tensor) -> Tensor:
    """``(n, 8, size / 4, size / 4)``, unscaled, on the CPU."""
    parts = pixels.split(256)
    return torch.cat([vae.encode(part.to(vae.device).float() / 127.5 - 1).latents.cpu() for part in parts])


def _tokenizer(words: Sequence[str]) -> Any:
    """A `CLIPTokenizer` of single letters, and one more token for each word."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    known = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps({token: number for number, token in enumerate(known)}), encoding="utf-8")
        merges.write_text("#version: 0.2\n", encoding="utf-8")
        tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=LONGEST_CAPTION + 2)
    tokenizer.add_tokens(list(words))
    return tokenizer
