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
from sleepkit.language.data.columns import text_of
from sleepkit.language.data.row_files import file_rows
from sleepkit.utils.files import replacing
from sleepkit.utils.paths import existing, new_folder

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
    """Read the rows of each split, and write the features of their texts, with the training split's labels in alphabetical order.

    All files are written at the end, so that none is left of a run that was stopped.

    Args:
        splits: file of rows by name, ``train`` among them.
        output_dir: for ``<split>.npz`` of each split.
        model: Hub id or folder of a causal language model.
        text_column, label_column: of the rows.
        max_tokens: of a text; what is longer is cut, and it is said how many were.
        batch_size: texts at once.
        loading: more, as `load_model` takes it.

    Raises:
        SleepkitError: no such file or model, a row without text or label, a label that the training split does not have, a folder
            that has features already, or numbers that are not finite.
    """
    from sleepkit.language.model_io import load_model

    for name, value in (("max_tokens", max_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise SleepkitError(f"{name} is {value}; give a whole number of at least 1")
    texts, labels = _read(splits, text_column, label_column)
    names = sorted(set(labels["train"]))
    known = {name: number for number, name in enumerate(names)}
    out = new_folder(output_dir, "output_dir")
    for split in splits:
        if (out / f"{split}.npz").exists():
            raise SleepkitError(f"{out} has {split}.npz already; choose another output_dir, or remove it")
    network, tokenizer = load_model(model, **loading)
    _require_window(network, max_tokens)
    found = {}
    for split, of_split in texts.items():
        x, cut = hidden_states(network, tokenizer, of_split, max_tokens, batch_size)
        y = np.array([known[label] for label in labels[split]])
        found[split] = {"x": x.numpy(), "y": y, "names": np.array(names)}
        print(f"{split}: {len(y)} texts, {cut} of them cut at {max_tokens} tokens")
    for split, arrays in found.items():
        _save(out / f"{split}.npz", arrays)
    print(f"written to {out}")


def _read(splits: dict[str, Path], text_column: str, label_column: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Texts and labels of each split."""
    texts, labels = {}, {}
    for split, path in splits.items():
        found = existing(path, split)
        if found is None or not found.is_file():
            raise SleepkitError(f"{path} does not exist; give a .jsonl or .jsonl.gz file with rows of text and label")
        rows = file_rows(found)
        if not rows:
            raise SleepkitError(f"{path} has no rows; give some with {text_column} and {label_column}")
        for place, row in rows:
            if not isinstance(row, dict):
                raise SleepkitError(
                    f"{place} is of type {type(row).__name__}; give an object with {text_column} and {label_column}"
                )
        texts[split] = [text_of(row, text_column, place) for place, row in rows]
        labels[split] = [text_of(row, label_column, place) for place, row in rows]
    unknown = sorted({label for found in labels.values() for label in found} - set(labels["train"]))
    if unknown:
        raise SleepkitError(f"the label {unknown[0]!r} is missing in {splits['train']}; add rows of it, or remove it elsewhere")
    return texts, labels


def _require_window(model: Any, max_tokens: int) -> None:
    window = getattr(model.config, "max_position_embeddings", None)
    if window is not None and max_tokens > window:
        raise SleepkitError(f"max_tokens is {max_tokens} and the model's window holds {window}; lower it")


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as draft, open(draft, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


@torch.no_grad()
def hidden_states(model: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int, batch_size: int) -> tuple[Tensor, int]:
    """Average the last hidden states of texts over their tokens.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        texts: of at least one token each.
        max_tokens: of a text; what is longer is cut.
        batch_size: texts at once.

    Returns:
        ``(texts, hidden)`` float16, and how many texts were longer than ``max_tokens``.

    Raises:
        SleepkitError: a text without tokens, or states that are not finite, or too large for float16.
    """
    tokens = [tokenizer(text).input_ids for text in texts]
    empty = [text for text, ids in zip(texts, tokens, strict=True) if not ids]
    if empty:
        raise SleepkitError(f"the text {empty[0]!r:.60} has no tokens; remove its row")
    order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))  # little padding
    found = torch.zeros(len(texts), model.config.hidden_size, dtype=torch.float16)
    inner = model.get_decoder().eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        own = [torch.tensor(tokens[row][:max_tokens]) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=tokenizer.pad_token_id)
        lengths = torch.tensor(list(map(len, own)))
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(model.device)
        states = inner(input_ids=ids.to(model.device), attention_mask=mask.long()).last_hidden_state.float()
        found[rows] = ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).half().cpu()
        if not found[rows].isfinite().all():
            raise SleepkitError(f"the hidden states of {texts[rows[0]]!r:.60} are not finite in float16; use another model")
    return found, sum(len(one) > max_tokens for one in tokens)
