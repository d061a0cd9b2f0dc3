"""Configuration of Dream2Learn: what a rehearsal baseline's does not have.

The paper's settings are not public; defaults are ours, chosen on the procedural world (procedural_world.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from sleepkit.errors import SleepkitError
from sleepkit.utils.options import option, require, require_choice
from sleepkit.utils.precision import DTYPES
from sleepkit.vision.dream2learn.assignment import ASSIGNMENTS
from sleepkit.vision.dream2learn.soft_prompt import STARTS
from sleepkit.vision.incremental.config import IncrementalTrainingConfig

__all__ = ["Dream2LearnConfig"]

ORACLES = ("learned", "none")


@dataclass(repr=False)  # that of transformers shows no token
class Dream2LearnConfig(IncrementalTrainingConfig):
    """Options of a [`Dream2LearnTrainer`]: an `IncrementalTrainingConfig` with the options of generator, prompts and sleep.

    Each field has a line of help, which ``python recipes/dream2learn.py --help`` lists.

    Args:
        generator (`str`, defaults to `"runs/procedural_generator"`):
            Folder or Hub id of a diffusion model in the layout of Stable Diffusion 1.x; its weights stay frozen.
        strength (`float`, defaults to 0.8): share of a start image that noise replaces, above 0 to 1.
        sampler_steps (`int`, defaults to 4): calls of the UNet for an image.

    Raises:
        SleepkitError: a value out of range, or options that do not go together; the message names them and the remedy.

    Example:

        >>> Dream2LearnConfig(output_dir="runs/dreams", generator="runs/generator", buffer_policy="class_balanced")
    """

    # generator
    generator: str = option(
        "runs/procedural_generator", "Folder or Hub id in the layout of Stable Diffusion 1.x; it stays frozen."
    )
    generator_dtype: str = option(
        "float32", f"Precision of the generator, one of {', '.join(DTYPES)}; auto: bfloat16 if the device computes in it."
    )
    lcm_lora: str | None = option(None, "Folder or Hub id of an LCM-LoRA for it, which brings the few-step scheduler.")
    sampler_steps: int = option(4, "Calls of the UNet for an image.")
    strength: float = option(0.8, "Share of a start image that noise replaces, above 0 to 1.")
    shared_noise: float = option(0.0, "Share of the noise that all images of a dream have in common, 0 to 1.")
    grad_steps: int = option(0, "Last steps of the sampler that carry a gradient; 0: all.")
    checkpointing: bool = option(False, "Compute the UNet's activations twice, to save memory.")

    # prompts
    prompt_template: str = option("{}", "The prompt; vectors stand where {} is.")
    prompt_start: str = option("tokens", f"Where prompts start, one of {', '.join(STARTS)}.")
    prompt_vectors: int = option(4, "Learnable vectors of a prompt.")
    prompt_learning_rate: float = option(0.2, "Adam's, in units of the rms of the generator's token embeddings.")
    probes: int = option(6, "Images that a prompt is optimised on.")
    prompts_per_batch: int = option(6, "Prompts that are optimised together.")
    checkpoint_updates: int = option(5, "Updates between two checkpoints of the prompts.")

    # oracle
    oracle: str = option("learned", "'learned' in the first night; 'none': all prompts make all updates.")
    dream_updates: int = option(20, "Most updates of a prompt; 0: prompts stay as they start.")
    least_updates: int = option(2, "Fewest, before the oracle is asked.")
    stop_threshold: float = option(0.5, "Probability from which on the oracle stops a dream.")

    # life of dreams
    dreams: int = option(12, "Dreams that are kept at a time; 0: none.")
    max_units: int | None = option(None, "Units that the head may have; None: as many as it takes.")
    assignment: str = option("greedy", f"How new classes take over dreams' units, one of {', '.join(ASSIGNMENTS)}.")
    refresh: bool = option(False, "Lead kept prompts again each night, from where they are.")

    # learning from dreams
    dream_images: int = option(64, "Images painted of each dream, again every night.")
    repaint: bool = option(True, "Also learn the replay buffer's images as the generator's autoencoder reproduces them.")
    dream_weight: float = option(1.0, "Weight of the dreams' cross-entropy asleep.")
    wake_dream_weight: float = option(1.0, "The same awake; 0: dreams are learned asleep only, and have no say awake.")
    dream_batch_size: int = option(64, "Dreamt images per step and device.")
    sleep_steps: int = option(60, "Steps on replay buffer and dreams after dreaming; 0: none.")
    memory_steps: int = option(0, "Steps on the replay buffer alone after these; 0: none.")
    sleep_learning_rate: float = option(1e-3, "Initial learning rate of these.")

    # measuring
    others_dataset: str | None = option(None, "Images of classes that no stream has, for the judge.")
    judge_epochs: float = option(0, "Passes over these and the stream's images for a judge of leaks; 0: there is no judge.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "generator_dtype", DTYPES)
        require_choice(self, "oracle", ORACLES)
        require_choice(self, "assignment", ASSIGNMENTS)
        require_choice(self, "prompt_start", STARTS)
        counts = ("sampler_steps", "prompt_vectors", "prompts_per_batch", "checkpoint_updates", "dream_images")
        require(self, (*counts, "dream_batch_size"), lambda value: value >= 1, "at least 1")
        require(self, ("probes",), lambda value: value >= 2, "at least 2, as a dream's images are compared with each other")
        weights, steps = ("dream_weight", "wake_dream_weight"), ("sleep_steps", "memory_steps", "grad_steps")
        from_zero = (*weights, *steps, "dream_updates", "least_updates", "dreams", "judge_epochs")
        require(self, from_zero, lambda value: value >= 0, "a number of at least 0")
        require(self, ("prompt_learning_rate", "sleep_learning_rate"), lambda value: value > 0, "a number above 0")
        require(self, ("strength",), lambda value: 0 < value <= 1, "a number above 0, to 1")
        require(self, ("stop_threshold", "shared_noise"), lambda value: 0 <= value <= 1, "a number from 0 to 1")
        require(self, ("max_units",), lambda value: value is None or value >= 1, "at least 1")
        if self.others_dataset is None and self.judge_epochs:
            raise SleepkitError("others_dataset is missing, which the judge needs; give one, or judge_epochs 0")
        if self.prompt_template.count("{}") != 1:
            raise SleepkitError(f"prompt_template is {self.prompt_template!r}; give one with one {{}}, where the vectors stand")
