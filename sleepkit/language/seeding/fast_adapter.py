"""A fast LoRA that learns while awake, and the night that moves it into an expert.

    awake     SFT of a LoRA on the documents and on the questions that the model wrote about them
    asleep    teacher p( . | x, y_<t)  LoRA on, nothing in its prompt;  student q( . | x, y_<t)  LoRA off, new expert on
    morning   the LoRA is dropped: the sender is reset ("synaptic pruning")

Source: "Language Models Need Sleep" (arXiv 2606.03979), whose senders are weights of a faster block; that the faster
block is a LoRA on the same base is ours.  Left out: weights that ZeRO-3 splits, for a LoRA cannot be added to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.language.seeding.lora import add_lora, chat_rows, document_rows, finetune, trl_settings
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from peft import PeftModel

    from sleepkit.language.questions.context import Chunk
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

__all__ = ["AdapterSeedingTrainer", "learn_awake"]


@contextmanager
def learn_awake(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    layers: Sequence[int],
    chunks: Sequence[Chunk],
    items: Sequence[SyntheticExample],
    seeding: KnowledgeSeedingConfig,
    night: int,
    folder: Path,
) -> Iterator[PeftModel]:
    """Run the block with a LoRA on ``model`` that knows the documents, switched off; afterwards the model is as it was.

    Args:
        layers: decoder layers that get the LoRA.
        items: the night's items; those about the context are learned.
    """
    adapted = add_lora(model, layers, derive_seed(seeding.seed, "lora", night))
    try:
        rows = document_rows(tokenizer, chunks) + chat_rows(tokenizer, [item for item in items if item.is_learned])
        what = f"night {night}, its fast adapter,"
        finetune(adapted, tokenizer, rows, trl_settings(seeding, night, folder), what=what)
        adapted.base_model.disable_adapter_layers()  # type: ignore[operator]
        model.eval()
        yield adapted
    finally:
        adapted.unload()


class AdapterSeedingTrainer(KnowledgeSeedingTrainer):
    """Knowledge seeding from a LoRA: it knows what the context says, so the teacher's prompt is the student's."""

    def __init__(self, adapted: PeftModel, *args: Any, **options: Any) -> None:
        self.adapted = adapted
        super().__init__(*args, **options)

    def teacher_prompt(self, item: SyntheticExample) -> list[int]:
        """Return the tokens of the prompt alone: the LoRA knows what the context says."""
        return chat_ids(self.chat_tokenizer, item.prompt)

    @contextmanager
    def teacher_view(self) -> Iterator[None]:
        """The model before tonight with the LoRA on."""
        tuner: Any = self.adapted.base_model
        with super().teacher_view():
            tuner.enable_adapter_layers()
            try:
                yield
            finally:
                tuner.disable_adapter_layers()
