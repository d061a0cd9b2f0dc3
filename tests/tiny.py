"""Models and a chat tokenizer small enough for tests, built in code: random weights, no files, no network.

The tokenizer knows 64 tokens: ChatML's marks, an unknown mark, and single characters (text is lower-cased first), so
any English text can be encoded and decoded. The models have 4 layers of hidden size 32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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
# Families with layers that carry states from token to token, then what else `make test-models` tries; no table of other tests.
PLAIN_GLU = {key: value for key, value in GLU.items() if key != "head_dim"}
DELTA = {f"linear_{name}": size for name, size in {"num_key_heads": 2, "num_value_heads": 4, "conv_kernel_dim": 4}.items()}
DELTA |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
TWICE = ["linear_attention", "full_attention"] * 2
HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_5_text": {**GLU, **DELTA, "layer_types": TWICE},
    "qwen3_next": {**GLU, **DELTA, **EXPERTS, "shared_expert_intermediate_size": 24, "layer_types": TWICE},
    "lfm2": {**PLAIN_GLU, "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {**PLAIN_GLU, **EXPERTS, "layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 2},
    "falcon_h1": {**GLU, **MAMBA, "mamba_d_ssm": 64},
    "bamba": {**PLAIN_GLU, **MAMBA, "attn_layer_indices": [1, 3]},
    "granitemoehybrid": {**PLAIN_GLU, **MAMBA, **LOCAL, "shared_intermediate_size": 48, "layer_types": TWICE},
    "jamba": {
        **PLAIN_GLU,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "nemotron_h": {
        **GLU,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 16,
        "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"],
    },
    "minimax": {**GLU, **LOCAL, "layer_types": TWICE, "block_size": 16},
    "olmo_hybrid": {**PLAIN_GLU, **DELTA, "layer_types": TWICE},
    "recurrent_gemma": {**GLU, "lru_width": 32, "attention_window_size": 16},
}
MORE: dict[str, dict[str, Any]] = {
    "qwen2": PLAIN_GLU,
    "gemma2": {**GLU, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "phi3": PLAIN_GLU,
    "mistral": {**GLU, "sliding_window": 16},
    "falcon": {"max_position_embeddings": 512},
    "olmo2": PLAIN_GLU,
    "granite": {**PLAIN_GLU, "logits_scaling": 4.0},
    "smollm3": {**PLAIN_GLU, "no_rope_layer_interval": 2},
    "deepseek_v3": {
        **PLAIN_GLU,
        "num_key_value_heads": 4,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "gpt_oss": {**GLU, **LOCAL, "sliding_window": 16},
    "llama4_text": {**GLU, "intermediate_size_mlp": 48, "num_local_experts": 4, "attention_chunk_size": 16},
    "gpt_neo": {
        "num_layers": 4,
        "attention_types": [[["global", "local"], 2]],
        "max_position_embeddings": 512,
        "window_size": 16,
    },
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 512},
    "bloom": {},
    "opt": {"ffn_dim": 48, "max_position_embeddings": 512, "word_embed_proj_dim": 32},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 16},
    "rwkv": {"context_length": 512, "attention_hidden_size": 32},
    "zamba2": {
        "intermediate_size": 48,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "n_mamba_heads": 4,
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "chunk_size": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "num_mem_blocks": 1,
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


def tiny_model(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> PreTrainedModel:
    """A random causal language model in evaluation mode, with the tokenizer's end; `config` adds or replaces fields."""
    torch.manual_seed(seed)
    marks = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": EOS}
    options = {**SIZES, **marks, "initializer_range": 0.1, **{**MORE, **HYBRIDS, **FAMILIES}.get(family, {}), **config}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**options), dtype=dtype)
    return model.eval()


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """The model with none of its parameters zero, as biases are that were never trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def scripted_model(tokenizer: PreTrainedTokenizerFast, says: Callable[[str], str]) -> PreTrainedModel:
    """A tiny model that goes on from each prompt as ``says`` of its text, token by token, until it is stopped.

    Its ``prompts`` are the texts that it was given.
    """
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=8192)
    model.generation_config.eos_token_id = None
    model.prompts = []

    def generate(input_ids, attention_mask, max_new_tokens, pad_token_id, eos_token_id, stopping_criteria=(), **_):
        texts = [tokenizer.decode(row[mask.bool()]) for row, mask in zip(input_ids, attention_mask, strict=True)]
        model.prompts += texts
        said = [tokenizer(says(text), add_special_tokens=False)["input_ids"] for text in texts]
        ended = torch.zeros(len(texts), dtype=torch.bool)
        for step in range(max_new_tokens):
            column = torch.tensor([row[step] if step < len(row) else pad_token_id for row in said])
            input_ids = torch.cat([input_ids, column.masked_fill(ended, pad_token_id)[:, None]], dim=1)
            ended |= torch.tensor([token in eos_token_id for token in input_ids[:, -1].tolist()])
            for stops in stopping_criteria:
                ended |= stops(input_ids, None)
            if ended.all():
                break
        return input_ids

    model.generate = generate
    return model


def tiny_batch(rows: int = 2, columns: int = 12, seed: int = 0) -> torch.Tensor:
    """Random token ids, (rows, columns)."""
    return torch.randint(0, len(VOCABULARY), (rows, columns), generator=torch.Generator().manual_seed(seed))
