"""Models and a chat tokenizer small enough for tests, built in code: random weights, no files, no network.

The tokenizer knows 64 tokens: ChatML's marks, an unknown mark, and single characters (text is lower-cased first), so
any English text can be encoded and decoded. The models have 4 layers of hidden size 32.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
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
