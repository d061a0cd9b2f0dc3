"""A frozen latent diffusion model, through which a gradient flows back to the prompt.

    text   = text encoder(bos, before.., p_1 .. p_n, ..after, eos..)     (prompts, length, text size)     `embed`
    z      = scaling * E(image)                                          (batch, 4, h, w)                 `encode`
    z_t    = noise added up to the first of K time steps (`strength`)                                     `start`
    z_0    = K steps of the scheduler, each with one call of the UNet                                     `denoise`
    image  = D(z_0 / scaling), from 0 to 1                               (batch, channels, size, size)    `decode`

Any folder or Hub id that `StableDiffusionPipeline` loads will do: Stable Diffusion 1.x, with LCM-LoRA (4 steps), or the small
model of tiny_diffusion.py.  Pipelines run without gradient, so the loop over time steps is ours; `CLIPTextModel` takes no vectors
in place of tokens, so a hook on its token embedding puts them where placeholders stand.  No classifier-free guidance: it would
double the calls of the UNet.

`grad_steps` keeps the gradient of the last steps only (DRaFT-K, Clark et al. 2023, arXiv 2309.17400); `checkpointing` computes
each step's activations again on the way back.  The weights never change; `digest` is for proving it.

In half precision the networks' inside is half, latents between them stay float32.  On a CPU that is fast with two changes:
attention in plain products (the gradient of PyTorch's fused attention takes ten times as long there), and channels last in the
autoencoder.

Source: soft prompts through a few-step sampler are those of DEXTER (the lab of Dream2Learn, arXiv 2603.01935, whose equations
are not public); image-to-image starts as in SDEdit (arXiv 2108.01073).  Left out: SDXL and transformers in place of the UNet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.precision import computes

__all__ = ["SCHEDULERS", "DreamPainter"]

SCHEDULERS = ("DDIMScheduler", "LCMScheduler")  # whose `step` is differentiable, and takes a start in the middle
PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")


class DreamPainter:
    """Frozen latent diffusion model that paints images under soft prompts, with a gradient back to the prompt.

    Args:
        source: folder or Hub id.
        sampler_steps: K, calls of the UNet for an image.
        strength: how much of the start image is replaced by noise, above 0 to 1.
        shared_noise: share of its variance that images have in common which are given a common seed, 0 to 1.
        grad_steps: how many of the last steps carry a gradient; 0: all.
        checkpointing: trade computation for memory.
        template: the prompt, with ``{}`` where the vectors come.
        lcm_lora: folder or Hub id of an LCM-LoRA, which brings its scheduler; None: the folder's own scheduler.
        dtype: one of `sleepkit.utils.precision.DTYPES`; ``auto``: bfloat16, or float32 where the device only emulates it.

    Raises:
        SleepkitError: what cannot be loaded or cannot paint, parts or weights that are missing or not finite, a scheduler that is
            not one of `SCHEDULERS`.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        sampler_steps: int = 4,
        strength: float = 0.8,
        shared_noise: float = 0.0,
        grad_steps: int = 0,
        checkpointing: bool = False,
        template: str = "{}",
        lcm_lora: str | None = None,
        dtype: str = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        fitting = "bfloat16" if computes(torch.bfloat16, self.device) else "float32"
        self.dtype: torch.dtype = getattr(torch, fitting if dtype == "auto" else dtype)
        self.source = str(source)
        self.pipe = _loaded(self.source, lcm_lora, self.dtype)
        self.vae, self.unet, self.text_encoder = (getattr(self.pipe, name) for name in PARTS[:3])
        for part in (self.vae, self.unet, self.text_encoder):
            part.eval().requires_grad_(False).to(device)
        self.tokenizer, self.scheduler = self.pipe.tokenizer, self.pipe.scheduler
        if self.device.type == "cpu" and self.dtype != torch.float32:
            self._suit_cpu()
        self.steps, self.strength, self.shared_noise = sampler_steps, strength, shared_noise
        self.grad_steps, self.checkpointing = grad_steps or sampler_steps, checkpointing
        self.before, _, self.after = template.partition("{}")
        self.calls = 0  # of the UNet, one for each image and step
        self.flops = 0  # of sampler and decoder
        self.channels = int(self.vae.config.in_channels)
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        try:
            self.size = int(self.unet.config.sample_size) * self.factor
            self.timesteps = self._timesteps()
            self.flops_per_image = self._first_flops()
        except SleepkitError:
            raise
        except Exception as error:  # parts that do not fit each other fail in many ways
            raise SleepkitError(
                f"generator {self.source!r} is loaded and cannot paint ({first_line(error)}); its parts do not fit, save it again"
            ) from None

    def require_images(self, channels: int, height: int, width: int) -> None:
        """Raises `SleepkitError` if images of this form cannot be the start of a dream, or would be more than it."""
        if channels != self.channels:
            raise SleepkitError(
                f"the generator makes images of {self.channels} channels, the data have {channels}; "
                f"set channels to {self.channels}"
            )
        if height != width or height > self.size:
            raise SleepkitError(
                f"the generator makes images of {self.size} x {self.size}, the data have {height} x {width}; "
                f"set image_size to {self.size} or less"
            )

    # -- the prompt -------------------------------------------------------------------------------------------------
    @property
    def table(self) -> Tensor:
        """Embeddings of all tokens, ``(tokens, text size)``."""
        weight: Tensor = self.text_encoder.get_input_embeddings().weight
        return weight.detach().float()

    def embed(self, vectors: Tensor) -> Tensor:
        """``(prompts, n, token size)`` -> ``(prompts, length, text size)``; the gradient flows to the vectors."""
        tokenizer, count = self.tokenizer, vectors.shape[1]
        before, after = (tokenizer(part, add_special_tokens=False).input_ids for part in (self.before, self.after))
        ids = [tokenizer.bos_token_id, *before, *[tokenizer.eos_token_id] * count, *after, tokenizer.eos_token_id]
        if len(ids) > tokenizer.model_max_length:
            raise SleepkitError(
                f"prompt_vectors is {count}, which makes prompts of {len(ids)} tokens; the generator takes "
                f"{tokenizer.model_max_length}: use fewer, or a shorter prompt_template"
            )
        ids += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))
        first = 1 + len(before)

        def put(module: Any, inputs: Any, found: Tensor) -> Tensor:
            return torch.cat([found[:, :first], vectors.to(found.dtype), found[:, first + count :]], dim=1)

        hook = self.text_encoder.get_input_embeddings().register_forward_hook(put)
        try:
            text: Tensor = self.text_encoder(torch.tensor([ids] * len(vectors), device=self.device)).last_hidden_state
        finally:
            hook.remove()
        return text

    # -- images -----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` from 0 to 1, or uint8 -> latents."""
        pixels = images.to(self.device).float() / (255 if images.dtype == torch.uint8 else 1)
        found = self.vae.encode((2 * _resized(pixels, self.size) - 1).to(self.dtype))
        latents: Tensor = found.latents if "latents" in found else found.latent_dist.mode()
        return latents.to(torch.promote_types(latents.dtype, torch.float32)) * self.vae.config.scaling_factor

    def start(self, latents: Tensor, seeds: Sequence[int], common: Sequence[int] = ()) -> Tensor:
        """Latents with noise; that of each image is drawn from its seed, and where it has a common seed, a share from that."""
        noise = _drawn(latents, seeds)
        if common and self.shared_noise:
            noise = (1 - self.shared_noise) ** 0.5 * noise + self.shared_noise**0.5 * _drawn(latents, common)
        noisy: Tensor = self.scheduler.add_noise(latents, noise, self.timesteps[:1].expand(len(latents)))
        return noisy

    def denoise(self, latents: Tensor, text: Tensor, seeds: Sequence[int]) -> Tensor:
        """Denoise latents ``(batch, 4, h, w)`` under texts ``(batch, length, text size)``; returns clean ones."""
        self._timesteps()  # a scheduler counts its steps
        noise = [torch.Generator().manual_seed(seed + 1) for seed in seeds]  # which LCM adds between two steps
        more = {"generator": noise} if type(self.scheduler).__name__ == "LCMScheduler" else {}
        for number, time in enumerate(self.timesteps):
            carries = torch.is_grad_enabled() and number >= len(self.timesteps) - self.grad_steps
            with torch.set_grad_enabled(carries):
                if carries and self.checkpointing:
                    found = checkpoint(self._predict, latents, time, text, use_reentrant=False)
                else:
                    found = self._predict(latents, time, text)
                latents = self.scheduler.step(found, time, latents, **more).prev_sample
        self.calls += len(latents) * len(self.timesteps)
        return latents

    def decode(self, latents: Tensor, size: int | None = None) -> Tensor:
        """Clean latents -> images from 0 to 1, of another size if that is asked for."""
        found = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.dtype)).sample.float()
        return _resized((found / 2 + 0.5).clamp(0, 1), size or self.size)

    def paint(
        self, latents: Tensor, vectors: Tensor, seeds: Sequence[int], size: int | None = None, common: Sequence[int] = ()
    ) -> Tensor:
        """Paint dreams of start images under soft prompts: noise, denoise and decode them.

        Args:
            latents: of start images, ``(prompts * m, ...)``, ``m`` of each prompt in turn.
            vectors: of the prompts, ``(prompts, n, token size)``; they may have a gradient.
            seeds: of each image's noise.
            size: of the pictures in pixels; None takes the generator's.
            common: a seed for each image, whose noise has a share in it; images with the same seed share it.
        """
        backward = torch.is_grad_enabled() and vectors.requires_grad
        self.flops += self.flops_per_image * len(latents) * (3 if backward else 1)
        text = self.embed(vectors)
        text = text.repeat_interleave(len(latents) // len(text), 0)
        return self.decode(self.denoise(self.start(latents, seeds, common), text, seeds), size)

    @torch.no_grad()
    def _first_flops(self) -> int:
        """Paint a grey image; floating point operations of sampler and decoder for one image, forward."""
        latents = self.start(self.encode(torch.full((1, self.channels, self.size, self.size), 0.5)), [0])
        with FlopCounterMode(display=False) as counter:
            image = self.decode(self.denoise(latents, self.embed(self.table[None, :1]), [0]))
        self.calls = 0
        if not image.isfinite().all():
            raise SleepkitError(
                f"generator {self.source!r} paints numbers that are not finite; its weights are damaged, or the "
                "generator_dtype is too short for it"
            )
        return int(counter.get_total_flops())

    def digest(self) -> str:
        """Return a hash of all of the generator's weights."""
        total = hashlib.sha256()
        for part in (self.vae, self.unet, self.text_encoder):
            for name, values in sorted(part.state_dict().items()):
                total.update(name.encode())
                total.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    def _predict(self, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
        scaled = self.scheduler.scale_model_input(latents, time).to(self.dtype)
        found: Tensor = self.unet(scaled, time, encoder_hidden_states=text.to(self.dtype)).sample
        return found.to(latents.dtype)

    def _suit_cpu(self) -> None:
        from diffusers.models.attention_processor import AttnProcessor

        self.unet.set_attn_processor(AttnProcessor())
        self.vae.to(memory_format=torch.channels_last)

    def _timesteps(self) -> Tensor:
        """``(K,)``, the first is where images start."""
        if type(self.scheduler).__name__ == "LCMScheduler":
            self.scheduler.set_timesteps(self.steps, device=self.device, strength=self.strength)
        else:
            self.scheduler.set_timesteps(max(self.steps, round(self.steps / self.strength)), device=self.device)
        steps: Tensor = self.scheduler.timesteps[-self.steps :]
        return steps


def _text_encoder(place: str) -> Any:
    """The text encoder of a folder or Hub id; a pipeline would not tell that weights of it are missing."""
    from transformers import CLIPTextModel

    loaded: Any = CLIPTextModel.from_pretrained(place, subfolder="text_encoder", dtype=torch.float32, output_loading_info=True)
    model, found = loaded
    missing = sorted(found["missing_keys"])
    if missing:
        raise SleepkitError(f"generator {place!r} has no weights of {missing[0]} and {len(missing) - 1} more; save it again")
    return model


def _drawn(latents: Tensor, seeds: Sequence[int]) -> Tensor:
    draws = [torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws).to(latents)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def _loaded(source: str, lcm_lora: str | None, dtype: torch.dtype) -> Any:
    try:
        from diffusers import LCMScheduler, StableDiffusionPipeline
        from diffusers.utils import logging
    except ImportError:
        raise SleepkitError("dreams are painted by diffusers, which is not installed; install sleepkit[vision]") from None
    folder = Path(source).expanduser()
    if folder.is_dir():
        missing = [part for part in PARTS if not (folder / part).is_dir()]
        if missing:
            raise SleepkitError(f"generator {source} has no {missing[0]}; give a folder that StableDiffusionPipeline has saved")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # an AutoencoderTiny is not what a pipeline expects, but what it takes
    try:
        place = str(folder if folder.is_dir() else source)
        pipe: Any = StableDiffusionPipeline.from_pretrained(
            place, text_encoder=_text_encoder(place), safety_checker=None, requires_safety_checker=False
        )
        if lcm_lora is not None:
            pipe.load_lora_weights(lcm_lora)
            pipe.fuse_lora()
            pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
        if dtype != torch.float32:
            pipe.to(dtype=dtype)
        unset = [name for part in PARTS[:2] for name, values in getattr(pipe, part).named_parameters() if values.is_meta]
        if unset:
            raise SleepkitError(f"generator {source!r} has no weights of {unset[0]} and {len(unset) - 1} more; save it again")
    except SleepkitError:
        raise
    except Exception as error:  # the Hub, the network and each part raise their own
        raise SleepkitError(
            f"generator {source!r} cannot be loaded ({first_line(error)}); give a folder in the layout of Stable Diffusion 1.x "
            "(recipes/train_tiny_diffusion.py makes one) or a Hub id"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    found = type(pipe.scheduler).__name__
    if found not in SCHEDULERS:
        raise SleepkitError(
            f"generator {source} has the scheduler {found}, through which no gradient flows here; save it with one of "
            f"{', '.join(SCHEDULERS)} (from_config), or give lcm_lora"
        )
    return pipe
