"""Configuration of a night's training on images: the fields that :class:`~transformers.TrainingArguments` does not have.

Names follow the papers: ``der_alpha`` and ``der_beta`` are DER++'s (arXiv 2004.07211), ``lwf_temperature`` is T of Learning
without Forgetting (arXiv 1606.09282), ``ewc_decay`` is gamma of online EWC (arXiv 1805.06370), ``si_weight`` is c of
Synaptic Intelligence (arXiv 1703.04200).  A method reads the fields of its own name and the general ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from sleepkit.errors import SleepkitError
from sleepkit.memory import POLICIES
from sleepkit.vision.augmentation import AUGMENTATIONS

__all__ = ["IncrementalTrainingConfig"]


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class IncrementalTrainingConfig(TrainingArguments):
    """Arguments of :class:`~sleepkit.vision.trainer.IncrementalTrainer` and of the baselines."""

    learning_rate: float = _option(1e-3, "Initial learning rate of a night.")
    lr_scheduler_type: str = _option("cosine", "Learning rate schedule of a night, as in transformers.")
    num_train_epochs: float = _option(5, "Passes over the images of an experience; 1 is online learning.")
    per_device_train_batch_size: int = _option(128, "New images per step and device.")
    per_device_eval_batch_size: int = _option(512, "Images per step where nothing is learned.")
    max_grad_norm: float = _option(0.0, "Limit of the gradient's norm; 0 for none.")
    logging_steps: float = _option(50, "Steps between two lines of the log.")
    save_strategy: str = _option("no", "Must stay 'no': a night that is killed is trained again from its evening.")
    disable_tqdm: bool | None = _option(True, "No progress bar.")
    remove_unused_columns: bool = _option(False, "Must stay False: batches are tensors, not columns.")
    output_dir: str | None = _option("runs/vision", "Folder of the run.")
    augmentation: str = _option("none", f"Random changes of training images, one of {', '.join(AUGMENTATIONS)}.")

    # replay
    buffer_size: int = _option(500, "Images that the replay memory keeps.")
    buffer_policy: str = _option("reservoir", f"Which images it keeps, one of {', '.join(POLICIES)} (GDumb: class_balanced).")
    replay_batch_size: int = _option(128, "Replayed images per step and device.")
    der_alpha: float = _option(0.5, "DER++: weight of the distance to the stored logits.")
    der_beta: float = _option(1.0, "DER++: weight of the labels of replayed images.")

    # regularisation
    lwf_weight: float = _option(1.0, "LwF: weight of the distillation.")
    lwf_temperature: float = _option(2.0, "LwF: temperature of the distillation.")
    ewc_weight: float = _option(100.0, "EWC: weight of the penalty.")
    ewc_decay: float = _option(1.0, "EWC: what is left of the Fisher information of earlier nights, 0 to 1.")
    fisher_images: int = _option(200, "EWC: images that estimate a night's Fisher information.")
    si_weight: float = _option(1.0, "SI: weight of the penalty.")

    # closed form and generative
    ridge: float = _option(1.0, "Frozen features: weight decay of the closed-form classifier.")
    vae_latent: int = _option(10, "Generative classifier: size of the latent vector of a class' VAE.")
    vae_hidden: int = _option(200, "Generative classifier: hidden units of encoder and decoder.")
    vae_samples: int = _option(16, "Generative classifier: importance samples of a test image's likelihood.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("augmentation", AUGMENTATIONS), ("buffer_policy", POLICIES)):
            if getattr(self, name) not in known:
                raise SleepkitError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(known)}")
        if str(getattr(self.save_strategy, "value", self.save_strategy)) != "no":
            raise SleepkitError(f"save_strategy is {self.save_strategy}; a run resumes from its last night, leave it at 'no'")
        for name in ("buffer_size", "replay_batch_size", "fisher_images", "vae_latent", "vae_hidden", "vae_samples"):
            if getattr(self, name) < 1:
                raise SleepkitError(f"{name} is {getattr(self, name)}; give at least 1")
        for name in ("der_alpha", "der_beta", "lwf_weight", "ewc_weight", "si_weight"):
            if not getattr(self, name) >= 0:
                raise SleepkitError(f"{name} is {getattr(self, name)}; give a number of at least 0")
        for name in ("lwf_temperature", "ridge"):
            if not getattr(self, name) > 0:
                raise SleepkitError(f"{name} is {getattr(self, name)}; give a number above 0")
        if not 0 <= self.ewc_decay <= 1:
            raise SleepkitError(f"ewc_decay is {self.ewc_decay}; give a number from 0 to 1")
