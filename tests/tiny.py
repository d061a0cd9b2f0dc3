"""Models and a chat tokenizer small enough for tests, built in code: random weights, no files, no network.

The tokenizer knows 64 tokens: ChatML's marks, an unknown mark, and single characters (text is lower-cased first), so
any English text can be encoded and decoded. The models have 4 layers of hidden size 32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = ["<|im_start|>", "<|im_end|>", "<|unk|>", *"abcdefghijklmnopqrstuvwxyz0123456789 \n.,?!:;'\"-()/&%+=*_"]
VOCABULARY += [f"<|unused_{index}|>" for index in range(64 - len(VOCABULARY))]
EOS = VOCABULARY.index("<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
GLU = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GLU,
    "qwen3": GLU,
    "gemma3_text": {**GLU, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gpt2": {"n_inner": 48, "n_positions": 512, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": {"intermediate_size": 48, "max_position_embeddings": 512},
    "mixtral": {**GLU, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        **GLU,
        "moe_intermediate_size": 24,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [1],
    },
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, `<|im_end|>` as end of sequence and padding, and a ChatML template."""
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCABULARY)}, unk_token="<|unk|>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|unk|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


# As the pre-tokenizers of GPT-4, Llama 3 and Qwen: a line break joins the punctuation before it.
MERGES_LINE_ENDS = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def merging_tokenizer(
    special: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
    tags: Sequence[str] = (),
    template: str | None = CHAT_TEMPLATE,
    begins_with: str | None = None,
    ends_with: str = "<|im_end|>",
) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which ``?`` and two line ends are one token.

    Args:
        special: control tokens.
        tags: further tokens that are found in any text, as ``<think>`` of Qwen3.
        begins_with: control token that the tokenizer puts before any text.
        ends_with: end of sequence, and padding.
    """
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(MERGES_LINE_ENDS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
    backend.train_from_iterator(["What?\n\n Who.\n\n Question: the"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=ends_with,
        pad_token=ends_with,
        bos_token=begins_with,
        additional_special_tokens=[token for token in special if token not in (begins_with, ends_with)],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(tags))
    if begins_with is not None:
        number = tokenizer.convert_tokens_to_ids(begins_with)
        one, two = f"{begins_with} $A", f"{begins_with} $A {begins_with} $B"
        process = processors.TemplateProcessing(single=one, pair=two, special_tokens=[(begins_with, number)])
        tokenizer.backend_tokenizer.post_processor = process
    tokenizer.chat_template = template
    return tokenizer


class ScriptedModel(nn.Module):
    """Continues each prompt as a function of its text says, token by token, until it is stopped; it computes nothing."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, says: Callable[[str], str]) -> None:
        super().__init__()
        self.tokenizer, self.says, self.prompts = tokenizer, says, []
        self.config = CONFIG_MAPPING["mistral"](**SIZES, sliding_window=8)  # nothing is read before `generate`
        self.head = nn.Linear(2, 2)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def generate(self, input_ids, attention_mask, max_new_tokens, pad_token_id, eos_token_id, stopping_criteria=(), **_):
        """Return prompts with what follows them, ``(rows, time)``, as transformers does."""
        texts = [self.tokenizer.decode(row[mask.bool()]) for row, mask in zip(input_ids, attention_mask, strict=True)]
        self.prompts += texts
        said = [self.tokenizer(self.says(text), add_special_tokens=False)["input_ids"] for text in texts]
        ended = torch.zeros(len(texts), dtype=torch.bool)
        for step in range(max_new_tokens):
            column = [row[step] if step < len(row) else pad_token_id for row in said]
            input_ids = torch.cat([input_ids, torch.tensor(column).masked_fill(ended, pad_token_id)[:, None]], dim=1)
            ended |= torch.tensor([token in eos_token_id for token in input_ids[:, -1].tolist()])
            for stops in stopping_criteria:
                ended |= stops(input_ids, None)
            if ended.all():
                break
        return input_ids


def tiny_model(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> PreTrainedModel:
    """A random causal language model in evaluation mode, with the tokenizer's end; `config` adds or replaces fields."""
    torch.manual_seed(seed)
    marks = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": EOS}
    options = {**SIZES, **marks, "initializer_range": 0.1, **FAMILIES.get(family, {}), **config}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**options), dtype=dtype)
    return model.eval()


def tiny_batch(rows: int = 2, columns: int = 12, seed: int = 0) -> torch.Tensor:
    """Random token ids, (rows, columns)."""
    return torch.randint(0, len(VOCABULARY), (rows, columns), generator=torch.Generator().manual_seed(seed))
