"""The loss of a diffusion model that predicts v, the velocity between image and noise (Salimans & Ho 2022, arXiv 2202.00512)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sleepkit.utils.ranks import own_draws

__all__ = ["velocity_loss"]


def velocity_loss(scheduler: Any, images: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean squared error of v, each image at a time step of its own.

    Args:
        scheduler: of diffusers, with ``add_noise`` and ``get_velocity``.
        images: ``(n, ...)``, or latents.
        predict: from noisy images and time steps ``(n,)`` to v.
    """
    steps, device = scheduler.config.num_train_timesteps, images.device
    times = own_draws(lambda count: torch.randint(steps, (count,), device=device), len(images))
    noise = own_draws(lambda count: torch.randn(count, *images.shape[1:], dtype=images.dtype, device=device), len(images))
    found = predict(scheduler.add_noise(images, noise, times), times)
    return F.mse_loss(found, scheduler.get_velocity(images, noise, times))
