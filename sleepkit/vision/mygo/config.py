"""Configuration of MyGO, wake-sleep generative replay (Cotix-AI/MyGO, arXiv 2508.21296): what a baseline's does not have.

``num_train_epochs``, ``learning_rate`` and ``augmentation`` are those of the fast learner; the augmentation is the sleep's too.
The weights of the sleep's loss are those of learner.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from sleepkit.errors import SleepkitError
from sleepkit.utils.options import option, require, require_choice
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.mygo.generators import GENERATORS, OF_SPACE

__all__ = ["GenerativeReplayConfig"]


@dataclass(repr=False)  # that of transformers shows no token
class GenerativeReplayConfig(IncrementalTrainingConfig):
    """Options of a [`GenerativeReplayTrainer`]: an `IncrementalTrainingConfig` with the options of generators and sleep.

    Each field has a line of help, which ``python recipes/mygo.py --help`` lists.

    Args:
        generator (`str`, defaults to `"vae"`): what is kept of an experience in the place of its images.
        replay_space (`str`, defaults to `"pixels"`): what is dreamt, ``"pixels"`` or ``"features"``.
        generator_epochs (`float`, defaults to 20): passes over the images of an experience for its generator.
        min_fidelity (`float`, defaults to 0.8): share of a class' dreams that the fast learner must recognise, 0 to 1.

    Raises:
        SleepkitError: a value out of range, or options that do not go together; the message names them and the remedy.

    Example:

        >>> GenerativeReplayConfig(output_dir="runs/digits", experiences=5, generator="vae")
    """

    freeze_features: bool = option(False, "Train heads only, on features that stay as they were at first.")

    # generators
    replay_space: str = option("pixels", "What is dreamt: 'pixels', or 'features' of a backbone that is frozen after one night.")
    generator: str = option("vae", f"What is kept of an experience, one of {', '.join(GENERATORS)}.")
    generator_epochs: float = option(20, "Passes over the images of an experience for its generator.")
    generator_hidden: int = option(200, "Hidden units of a generator, or channels of its widest convolution.")
    generator_latent: int = option(10, "Size of a generator's latent vector, or directions of a Gaussian.")
    generator_components: int = option(4, "Gaussians of a class (gaussian).")
    min_fidelity: float = option(0.8, "Share of a class' dreams that the fast learner must recognise, 0 to 1.")
    min_diversity: float = option(0.2, "Variance of a class' dreams over that of its images, at least 0.")
    generator_retries: int = option(1, "New trainings of a generator that is below either; the best is taken.")

    # sleep
    sleep_steps: int = option(1000, "Optimizer steps of a sleep.")
    sleep_learning_rate: float = option(1e-3, "Initial learning rate of a sleep.")
    dreams: int = option(20000, "Dreams of a sleep, as many of each class.")
    label_weight: float = option(1.0, "Weight of the cross-entropy with the dreams' labels.")
    logit_weight: float = option(0.0, "Weight of the squared distance to the teachers' logits.")
    kl_weight: float = option(0.0, "Weight of the divergence from the teachers' softmax.")
    kl_temperature: float = option(2.0, "Its temperature.")
    feature_weight: float = option(0.0, "Weight of the squared distance to the teachers' features.")
    validation_steps: int = option(250, "Steps between two checkpoints of a sleep.")
    max_drop: float = option(0.005, "Loss of accuracy against the best checkpoint, from which on that one is taken instead.")

    # measuring
    judged_dreams: int = option(200, "Dreams of each class that a judge of all classes looks at; 0: there is no judge.")
    judge_epochs: float = option(4, "Passes over all images for the judge, which nothing is trained with.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "generator", GENERATORS)
        require_choice(self, "replay_space", OF_SPACE)
        if self.generator not in OF_SPACE[self.replay_space]:
            usable = " or ".join(OF_SPACE[self.replay_space])
            raise SleepkitError(f"generator {self.generator} does not dream {self.replay_space}; use {usable}")
        counts = ("generator_hidden", "generator_latent", "generator_components", "sleep_steps", "dreams", "validation_steps")
        require(self, counts, lambda value: value >= 1, "at least 1")
        multiple = {"conv_cgan": 8, "diffusion": 16}.get(self.generator, 1)
        if self.generator_hidden % multiple:
            raise SleepkitError(f"generator_hidden is {self.generator_hidden}; {self.generator} takes a multiple of {multiple}")
        weights = ("label_weight", "logit_weight", "kl_weight", "feature_weight")
        from_zero = (*weights, "min_fidelity", "min_diversity", "max_drop", "generator_retries", "judged_dreams")
        require(self, from_zero, lambda value: value >= 0, "a number of at least 0")
        above_zero = ("kl_temperature", "generator_epochs", "judge_epochs", "sleep_learning_rate")
        require(self, above_zero, lambda value: value > 0, "a number above 0")
        if not any(getattr(self, name) for name in weights):
            raise SleepkitError("label_weight, logit_weight, kl_weight and feature_weight are all 0; give one of them a weight")
