"""Configuration of learning from a stream of images: the fields that :class:`~transformers.TrainingArguments` does not have.

    ImageTrainingConfig         how a night on images is trained                               all methods
    IncrementalTrainingConfig   data, stream, classifier, measures, and the baselines' own     all methods that have a classifier

Names follow the papers: ``der_alpha`` and ``der_beta`` are DER++'s (arXiv 2004.07211), ``lwf_temperature`` is T of Learning
without Forgetting (arXiv 1606.09282), ``ewc_decay`` is gamma of online EWC (arXiv 1805.06370), ``si_weight`` is c of
Synaptic Intelligence (arXiv 1703.04200).  A method reads the fields of its own name and the general ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from transformers import TrainingArguments

from sleepkit.errors import SleepkitError
from sleepkit.utils.options import RunConfig, option, require, require_choice, require_repo
from sleepkit.utils.training_fields import DDP_TIMEOUT, DDP_TIMEOUT_HELP, check_launch, check_training, refuse_zero3
from sleepkit.vision.data.augmentation import AUGMENTATIONS
from sleepkit.vision.data.streams import DOMAINS, SCENARIOS
from sleepkit.vision.incremental.replay_buffer import POLICIES

__all__ = ["UNUSED", "ImageTrainingConfig", "IncrementalTrainingConfig"]

PROBE_SCOPES = ("experience", "stream")
LARGEST_SIDE = 4096  # pixels of an image

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
class ImageTrainingConfig(TrainingArguments, RunConfig):
    """How a night on images is trained: what the configurations of all methods on images have in common."""

    learning_rate: float = option(1e-3, "Initial learning rate of a night.")
    lr_scheduler_type: str = option("cosine", "Learning rate schedule of a night, as in transformers.")
    num_train_epochs: float = option(5, "Passes over the images of an experience; 1 is online learning.")
    per_device_train_batch_size: int = option(128, "New images per step and device.")
    per_device_eval_batch_size: int = option(512, "Images per step where nothing is learned.")
    max_grad_norm: float = option(0.0, "Limit of the gradient's norm; 0 for none.")
    logging_steps: float = option(50, "Steps between two lines of the log.")
    ddp_timeout: int = option(DDP_TIMEOUT, DDP_TIMEOUT_HELP)
    save_strategy: str = option("no", "Must stay 'no': a night that is killed is trained again from its start.")
    disable_tqdm: bool | None = option(False, "Plain lines instead of the live view of a terminal.")
    remove_unused_columns: bool = option(False, "Must stay False: batches are tensors, not columns.")
    output_dir: str | None = option("runs/vision", "Folder of the run.")

    # run
    push_to_hub_repo: str | None = option(None, "Upload the model to this Hub repository (private) at the end.")

    def __post_init__(self) -> None:
        check_training(self, UNUSED)
        super().__post_init__()
        check_launch(self)
        refuse_zero3("images are learned")
        require_repo(self, ("push_to_hub_repo",))


@dataclass(repr=False)
class IncrementalTrainingConfig(ImageTrainingConfig):
    """Options of an [`ImageTrainer`]: a `transformers.TrainingArguments` with the options of data, stream, classifier and method.

    Each field has a line of help, which ``python recipes/vision_baseline.py --help`` lists.

    Args:
        output_dir (`str`, defaults to `"runs/vision"`): folder of the run.
        scenario (`str`, defaults to `"class"`): ``"class"``, ``"task"`` or ``"domain"`` incremental.
        experiences (`int`, defaults to 5): number of experiences, one a night.
        buffer_size (`int`): images that the replay buffer holds at most, where the method has one.
        num_train_epochs (`float`, defaults to 5): passes over the images of an experience; 1 is online learning.

    Raises:
        SleepkitError: a value out of range, or options that do not go together; the message names them and the remedy.

    Example:

        >>> IncrementalTrainingConfig(output_dir="runs/digits", experiences=5, buffer_size=500)
    """

    # data
    image_size: int | None = option(None, "Resize images to this height and width; None keeps their size.")
    channels: int | None = option(None, "Turn images into 1 (grey) or 3 (RGB) channels; None keeps them.")
    label_column: str | None = option(None, "Column of the label, where the data set is a table; None finds it.")
    test_share: float | None = option(None, "Draw this share of each class as the test split; other splits are left aside.")

    # stream
    scenario: str = option("class", "'class', 'task' or 'domain' incremental.")
    experiences: int = option(5, "Number of experiences, one a night.")
    domains: str = option("classes", "Domain scenario: 'classes', 'permutation', 'rotation' or 'corruption'.")
    class_order: list[str] = option(
        ("natural",), "Order of the classes: 'natural', 'random' (by the seed), or all labels, such as '3 1 0 2'."
    )

    # classifier
    pretrained: bool = option(True, "Take the backbone's weights; False takes its architecture only.")
    cnn_widths: list[int] = option((32, 64), "Channels of the CNN's convolutions.")
    cnn_max_pool: bool = option(False, "Halve images by maxima after each convolution, not by its stride.")
    hidden_size: int = option(256, "Outputs of the CNN; 0: means of the last convolution over the quarters of an image.")
    top_size: int = option(0, "Units of a hidden layer between backbone and head; 0: none.")

    # measures
    probe_images: int = option(0, "Training images of an experience that a linear probe learns from, for fwt_probe; 0: no probe.")
    probe_draws: int = option(1, "Probes of an experience, each from other images; the mean is taken.")
    probe_scope: str = option("experience", f"Classes that a probe tells apart, those of the {' or the '.join(PROBE_SCOPES)}.")

    # training
    augmentation: str = option("none", f"Random changes of training images, one of {', '.join(AUGMENTATIONS)}.")

    # replay
    buffer_size: int = option(500, "Images that the replay buffer keeps.")
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
        super().__post_init__()
        require_choice(self, "probe_scope", PROBE_SCOPES)
        require_choice(self, "scenario", SCENARIOS)
        require_choice(self, "domains", DOMAINS)
        require(self, ("image_size",), lambda size: size is None or 1 <= size <= LARGEST_SIDE, f"1 to {LARGEST_SIDE} pixels")
        require(self, ("test_share",), lambda share: share is None or 0 < share < 1, "a share above 0 and below 1")
        require(self, ("experiences", "probe_draws"), lambda count: count >= 1, "a whole number of at least 1")
        require(self, ("hidden_size", "top_size", "probe_images"), lambda count: count >= 0, "a whole number of at least 0")
        require(self, ("channels",), lambda channels: channels in (None, 1, 3), "1 (grey) or 3 (RGB)")
        require(self, ("cnn_widths",), lambda widths: widths and min(widths) >= 1, "at least one number, each at least 1")
        if self.domains != "classes" and self.scenario != "domain":
            raise SleepkitError(
                f"domains is {self.domains!r} and scenario {self.scenario!r}; give scenario domain, or leave it out"
            )
        self.class_order = cast(Any, _class_order(self.class_order))  # now as `build_stream` wants it
        require_choice(self, "augmentation", AUGMENTATIONS)
        require_choice(self, "buffer_policy", POLICIES)
        counts = ("buffer_size", "replay_batch_size", "fisher_images", "vae_latent", "vae_hidden", "vae_samples")
        require(self, counts, lambda value: value >= 1, "a whole number of at least 1")
        weights = ("der_alpha", "der_beta", "lwf_weight", "ewc_weight", "si_weight")
        require(self, weights, lambda value: value >= 0, "a number of at least 0")
        require(self, ("lwf_temperature", "ridge"), lambda value: value > 0, "a number above 0")
        require(self, ("ewc_decay",), lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _class_order(value: Any) -> str | list[int]:
    """Read an order of classes: ``["random"]`` -> ``"random"``, ``["1", "0"]`` -> ``[1, 0]``."""
    words = list(value) if isinstance(value, (list, tuple)) else [value]
    if words in (["natural"], ["random"]):
        return str(words[0])
    try:
        if any(isinstance(word, (bool, float)) for word in words):  # of a recipe: 1.9 is no label
            raise ValueError
        return [int(word) for word in words]
    except (TypeError, ValueError):
        raise SleepkitError(f"class_order is {' '.join(map(str, words))!r}; use 'natural', 'random' or all labels") from None
