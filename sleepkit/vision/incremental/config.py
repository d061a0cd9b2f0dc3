"""Configuration of a night's training on images: the fields that :class:`~transformers.TrainingArguments` does not have.

Names follow the papers: ``der_alpha`` and ``der_beta`` are DER++'s (arXiv 2004.07211), ``lwf_temperature`` is T of Learning
without Forgetting (arXiv 1606.09282), ``ewc_decay`` is gamma of online EWC (arXiv 1805.06370), ``si_weight`` is c of
Synaptic Intelligence (arXiv 1703.04200).  A method reads the fields of its own name and the general ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import TrainingArguments

from sleepkit.utils.options import option, require, require_choice
from sleepkit.utils.training_fields import check_training
from sleepkit.vision.data.augmentation import AUGMENTATIONS
from sleepkit.vision.incremental.replay_buffer import POLICIES

__all__ = ["UNUSED", "IncrementalTrainingConfig"]

UNUSED = {
    **dict.fromkeys(
        ("save_strategy", "save_steps", "save_total_limit", "save_on_each_node"),
        "a run goes on from its last night, and a night that is killed is trained again; leave it out",
    ),
    **dict.fromkeys(
        (
            "activation_checkpointing",
            "activation_checkpointing_kwargs",
            "gradient_checkpointing",
            "gradient_checkpointing_kwargs",
        ),
        "models of images keep their activations; leave it out",
    ),
}


@dataclass(repr=False)  # that of transformers shows no token
class IncrementalTrainingConfig(TrainingArguments):
    """Arguments of :class:`~sleepkit.vision.incremental.trainer.IncrementalTrainer` and of the baselines."""

    learning_rate: float = option(1e-3, "Initial learning rate of a night.")
    lr_scheduler_type: str = option("cosine", "Learning rate schedule of a night, as in transformers.")
    num_train_epochs: float = option(5, "Passes over the images of an experience; 1 is online learning.")
    per_device_train_batch_size: int = option(128, "New images per step and device.")
    per_device_eval_batch_size: int = option(512, "Images per step where nothing is learned.")
    max_grad_norm: float = option(0.0, "Limit of the gradient's norm; 0 for none.")
    logging_steps: float = option(50, "Steps between two lines of the log.")
    save_strategy: str = option("no", "Must stay 'no': a night that is killed is trained again from its evening.")
    disable_tqdm: bool | None = option(False, "Plain lines instead of the live view of a terminal.")
    remove_unused_columns: bool = option(False, "Must stay False: batches are tensors, not columns.")
    output_dir: str | None = option("runs/vision", "Folder of the run.")
    augmentation: str = option("none", f"Random changes of training images, one of {', '.join(AUGMENTATIONS)}.")

    # replay
    buffer_size: int = option(500, "Images that the replay memory keeps.")
    buffer_policy: str = option("reservoir", f"Which images it keeps, one of {', '.join(POLICIES)} (GDumb: class_balanced).")
    replay_batch_size: int = option(128, "Replayed images per step and device.")
    der_alpha: float = option(0.5, "DER++: weight of the distance to the stored logits.")
    der_beta: float = option(1.0, "DER++: weight of the labels of replayed images.")

    # regularisation
    lwf_weight: float = option(1.0, "LwF: weight of the distillation.")
    lwf_temperature: float = option(2.0, "LwF: temperature of the distillation.")
    ewc_weight: float = option(100.0, "EWC: weight of the penalty.")
    ewc_decay: float = option(1.0, "EWC: what is left of the Fisher information of earlier nights, 0 to 1.")
    fisher_images: int = option(200, "EWC: images that estimate a night's Fisher information.")
    si_weight: float = option(1.0, "SI: weight of the penalty.")

    # closed form and generative
    ridge: float = option(1.0, "Frozen features: weight decay of the closed-form classifier.")
    vae_latent: int = option(10, "Generative classifier: size of the latent vector of a class' VAE.")
    vae_hidden: int = option(200, "Generative classifier: hidden units of encoder and decoder.")
    vae_samples: int = option(16, "Generative classifier: importance samples of a test image's likelihood.")

    def __post_init__(self) -> None:
        check_training(self, UNUSED)
        super().__post_init__()
        require_choice(self, "augmentation", AUGMENTATIONS)
        require_choice(self, "buffer_policy", POLICIES)
        counts = ("buffer_size", "replay_batch_size", "fisher_images", "vae_latent", "vae_hidden", "vae_samples")
        require(self, counts, lambda value: value >= 1, "a whole number of at least 1")
        weights = ("der_alpha", "der_beta", "lwf_weight", "ewc_weight", "si_weight")
        require(self, weights, lambda value: value >= 0, "a number of at least 0")
        require(self, ("lwf_temperature", "ridge"), lambda value: value > 0, "a number above 0")
        require(self, ("ewc_decay",), lambda value: 0 <= value <= 1, "a number from 0 to 1")
