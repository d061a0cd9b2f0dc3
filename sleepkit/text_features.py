"""Texts as a frozen language model sees them, for the methods of vision/: what recipes/text_features.py does.

    feature = mean over a text's tokens of the last hidden state        (hidden,) float16

    rows.jsonl[.gz] with a text and a label     ->  <output_dir>/train.npz, test.npz      x (N, hidden), y, names

The folder is a `--dataset` of recipes/mygo.py and recipes/vision_baseline.py, where a row takes the place of an image.
Texts longer than ``max_tokens`` are cut there, and it is said how many were.  Left out: training the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.stream import file_rows, text_of

__all__ = ["hidden_states", "write_features"]


def write_features(
    splits: dict[str, Path],
    output_dir: Path,
    model: str,
    text_column: str = "text",
    label_column: str = "label",
    max_tokens: int = 256,
    batch_size: int = 32,
    **loading: Any,
) -> None:
    """Read the rows of each split, and write its features; ``names`` are the training split's labels in alphabetical order.

    ``loading`` is more for `load_model`.

    Raises:
        SleepkitError: no such file or model, a row without text or label, a label that the training split does not have.
    """
    from sleepkit.language.model_io import load_model

    texts, labels = {}, {}
    for split, path in splits.items():
        if not path.is_file():
            raise SleepkitError(f"{path} does not exist; give a .jsonl or .jsonl.gz file with rows of text and label")
        rows = file_rows(path)
        texts[split] = [text_of(row, text_column, place) for place, row in rows]
        labels[split] = [text_of(row, label_column, place) for place, row in rows]
    names = sorted(set(labels["train"]))
    unknown = sorted({label for found in labels.values() for label in found} - set(names))
    if unknown:
        raise SleepkitError(f"the label {unknown[0]!r} is missing in {splits['train']}; add rows of it, or remove it elsewhere")
    network, tokenizer = load_model(model, **loading)
    output_dir.mkdir(parents=True, exist_ok=True)
    for split, found in texts.items():
        x, cut = hidden_states(network, tokenizer, found, max_tokens, batch_size)
        y = np.array([names.index(label) for label in labels[split]])
        np.savez(output_dir / f"{split}.npz", x=x.numpy(), y=y, names=np.array(names))
        print(f"{split}: {len(y)} texts, {cut} of them cut at {max_tokens} tokens")
    print(f"written to {output_dir}")


@torch.no_grad()
def hidden_states(model: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int, batch_size: int) -> tuple[Tensor, int]:
    """Mean last hidden states ``(texts, hidden)`` float16, and how many texts were longer than ``max_tokens``."""
    tokens = [tokenizer(text).input_ids for text in texts]
    order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))  # little padding
    found = torch.empty(len(texts), model.config.hidden_size, dtype=torch.float16)
    inner = model.get_decoder().eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        own = [torch.tensor(tokens[row][:max_tokens]) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=tokenizer.pad_token_id)
        lengths = torch.tensor(list(map(len, own)))
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(model.device)
        states = inner(input_ids=ids.to(model.device), attention_mask=mask.long()).last_hidden_state.float()
        found[rows] = ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).half().cpu()
    return found, sum(len(one) > max_tokens for one in tokens)
