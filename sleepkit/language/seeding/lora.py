"""A LoRA beside the linear layers of some decoder layers, and fine-tuning it on rows: what baselines and adapters share.

``W + 2 B A`` with rank 32, alpha 64 and learning rate 1e-3: SEAL's (arXiv 2506.10943).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from sleepkit.language.generation.chat import chat_ids, raw_ids, reply_ids
from sleepkit.language.models.decoder import find_decoder, find_decoder_layers
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.reporting.live.observer import observe
from sleepkit.utils.files import open_to_all, read_json, writable, write_json
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import conclude, recomputing_here
from sleepkit.utils.training_fields import one_device

if TYPE_CHECKING:
    from peft import PeftModel

    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

RANK, ALPHA, LEARNING_RATE = 32, 64, 1e-3
Penalty = Callable[[Mapping[str, Tensor], Tensor], Tensor]  # of a batch, and the last hidden states (rows, time, d) that it had


def add_lora(model: nn.Module, layers: Iterable[int], seed: int = 0) -> PeftModel:
    """Put a fresh, trainable LoRA beside all linear maps of some decoder layers, in place, and return the model with it.

    Args:
        model: any causal LM of Hugging Face.
        layers: indices of its decoder layers.
        seed: of the first weights.
    """
    from accelerate.utils import set_seed
    from peft import LoraConfig, get_peft_model

    assert isinstance(model, PreTrainedModel)
    names = list(linear_maps(model, layers))
    set_seed(seed)  # PEFT draws from the global generator, which a resumed run finds in another state
    return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, task_type="CAUSAL_LM"))


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write an adapter as PEFT does, readable by all; of a set that PEFT would list in any order, in one.

    Raises:
        SleepkitError: the disk does not take it.
    """
    with writable(folder):
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
        open_to_all(folder)
    path = folder / "adapter_config.json"
    config = read_json(path)
    write_json(path, {key: sorted(value) if key == "target_modules" else value for key, value in config.items()})


def linear_maps(model: nn.Module, layers: Iterable[int]) -> dict[str, nn.Module]:
    """All linear maps inside these decoder layers, by their full names."""
    decoder = find_decoder_layers(model)
    inside = {id(module) for index in layers for module in decoder[index].modules()}
    return {
        name: module for name, module in model.named_modules() if id(module) in inside and isinstance(module, (nn.Linear, Conv1D))
    }


def document_rows(tokenizer: PreTrainedTokenizerBase, chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    """Documents as they are, each with its title and an end."""
    texts = (raw_ids(tokenizer, f"{chunk.title}\n\n{chunk.text}") for chunk in chunks)
    return [{"input_ids": row, "labels": row} for row in (ids + [tokenizer.eos_token_id] for ids in texts)]


def chat_rows(tokenizer: PreTrainedTokenizerBase, items: Sequence[SyntheticExample]) -> list[dict[str, Any]]:
    """Prompt and reply in chat format; the prompt carries no loss."""
    rows = []
    for item in items:
        prompt, reply = chat_ids(tokenizer, item.prompt), reply_ids(tokenizer, item.reply)
        rows.append({"input_ids": prompt + reply, "labels": [-100] * len(prompt) + reply})
    return rows


def night_settings(seeding: KnowledgeSeedingConfig, night: int, folder: Path) -> KnowledgeSeedingConfig:
    """The settings of one night for a trainer of ours that trains a LoRA."""
    args = copy.copy(seeding)
    args.hub_token = None  # nights upload nothing
    args.output_dir, args.seed = str(folder / "checkpoints"), derive_seed(seeding.seed, "train", night)
    args.learning_rate, args.save_strategy = LEARNING_RATE, "no"
    return args


def trl_settings(seeding: KnowledgeSeedingConfig, night: int, folder: Path) -> dict[str, Any]:
    """Return the settings of one night as arguments for a trainer of TRL, whose defaults are others."""
    args = night_settings(seeding, night, folder)
    shared = (
        *("output_dir", "seed", "learning_rate", "lr_scheduler_type", "warmup_steps", "adam_beta2", "max_steps"),
        *("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps"),
        *("save_strategy", "use_cpu", "bf16", "disable_tqdm", "report_to"),
        *("gradient_checkpointing", "gradient_checkpointing_kwargs"),
    )
    return {"logging_nan_inf_filter": False, **{name: getattr(args, name) for name in shared}}


def finetune(
    student: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, Any]],
    options: dict[str, Any],
    penalty: Penalty | None = None,
    what: str = "training",
) -> dict[str, Any]:
    """TRL's SFT on rows of ``input_ids`` and ``labels``; nothing is cut.  Returns ``history`` and ``train_tokens``.

    Args:
        penalty: is added to the loss of a batch.
        what: is trained, for a message.

    Raises:
        SleepkitError: it was stopped before its last step, or weights are not finite.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    class PenalisedTrainer(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            batch = dict(inputs)  # TRL adds to the inputs
            seen: list[Tensor] = []
            handle = find_decoder(student).register_forward_hook(
                lambda module, args, output: seen.append(output.last_hidden_state)
            )
            try:
                found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            finally:
                handle.remove()
            added = 0.0 if penalty is None else penalty(batch, seen[-1])
            return (found[0] + added, found[1]) if return_outputs else found + added

    args = SFTConfig(**options, max_length=None, include_num_input_tokens_seen="non_padding")
    one_device(args)
    with writable(str(args.output_dir)):  # which it makes
        trainer = PenalisedTrainer(student, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    observe(trainer, "fine-tuning")
    with recomputing_here(student):
        trainer.train()
    conclude(trainer, what)
    history = [line for line in trainer.state.log_history if "loss" in line]
    return {"history": history, "train_tokens": int(trainer.state.num_input_tokens_seen)}
