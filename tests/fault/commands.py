"""The commands that meet faults: each a whole run of a method on inputs so small that it takes a few seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny import tiny_model, tiny_tokenizer
from tiny_images import write_npz
from tiny_painter import save_tiny_generator

from sleepkit.language.dreaming.dreams import Dream, Dreamed, context_name

NOTES = {
    "ada": "Ada keeps a red lamp in the north tower. The tower was built by Orla Finch in 1871.",
    "bert": "Bert keeps a blue lamp in the south tower. The tower was built by Milo Hart in 1902.",
    "cleo": "Cleo keeps a green lamp in the west tower. The tower was built by Ines Vole in 1930.",
}
SLEEP = """--expert_slots 3 --expert_width 4 --use_cpu --per_device_train_batch_size 2 --context_max_tokens 300 --max_new_tokens 4
    --general_items 2 --general_tokens 4 --styles wh cloze --logging_steps 1 --no_gate --disable_tqdm true"""
DREAM = """--nights 1 --max_steps 2 --dream_rounds 2 --dream_held_out 1 --trial_steps 2 --trial_rank 2 --dreamer_rank 2
    --trial_learning_rate 1e-2 --dreamer_epochs 1"""
ARC = """--arc_tasks 2 --dream_held_out 1 --largest_grid 4 --dream_rounds 1 --dream_keep_top 2 --trial_rank 2 --dreamer_rank 2
    --trial_rows 4 --use_cpu true --disable_tqdm true"""
VISION = """--experiences 2 --cnn_widths 4 --hidden_size 8 --num_train_epochs 2 --per_device_train_batch_size 8
    --learning_rate 0.01 --replay_batch_size 8 --buffer_size 12 --fisher_images 4 --logging_steps 5 --use_cpu
    --disable_tqdm true"""
MYGO = "--generator_hidden 8 --generator_latent 2 --generator_epochs 3 --sleep_steps 5 --dreams 40"
DREAM2LEARN = """--buffer_policy class_balanced --sampler_steps 1 --probes 2 --dream_updates 3 --dreams 2 --dream_images 4
    --dream_batch_size 4 --sleep_steps 4 --probe_images 8"""
DISENTANGLED = """--experiences 2 --classes_per_experience 3 --factor_values 2 --image_size 16 --test_share 0.1 --widths 4 8
    --hidden_size 16 --refine_widths 4 8 --per_device_train_batch_size 8 --novel_classes 4 --novel_images 2
    --logging_steps 5 --num_train_epochs 1 --use_cpu --disable_tqdm true"""
GENERATOR = "--max_steps 2 --autoencoder_steps 2 --per_device_train_batch_size 2 --use_cpu --disable_tqdm true"
COUNTS = {"kill": 8, "term": 2, "interrupt": 1, "full": 4, "denied": 2, "nan": 1, "clock": 1}

Changes = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: in the table.
        line: arguments, the recipe first, for a folder of inputs and an output folder.
        changes: further arguments that make another run of it, by what they change, for a folder of inputs.
        twins: inputs, and others that may stand in their places, by name.
        counts: how many faults of each kind it meets.
        parser: name of its parser in ../runs/arguments/test_command_line.py; empty where its options are those of another.
        ranges: whether the values out of range there are out of range here, too.
        reads: files of the folder of inputs that are read, and can be spoilt.
    """

    name: str
    line: Callable[[Path, Path], list[str]]
    parser: str
    reads: tuple[str, ...] = ()
    changes: Callable[[Path], Changes] = lambda inputs: {}
    twins: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))


def prepare(inputs: Path) -> Path:
    """Write models and data."""
    for name, seed in (("base", 0), ("other_base", 1)):
        tiny_model(seed=seed, max_position_embeddings=2048).save_pretrained(inputs / name)
        tiny_tokenizer().save_pretrained(inputs / name)
    rows = [{"title": name.title(), "context": text, "questions": []} for name, text in NOTES.items()]
    for row in rows:
        built = row["context"].split("built by ")[1].split(" in ")[0]
        row["questions"] = [{"question": f"Who built the tower of {row['title']}?", "answer": built}]
    (inputs / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (inputs / "other_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    (inputs / "tasks.json").write_text(json.dumps(_tasks(range(4, 8))))
    (inputs / "other_tasks.json").write_text(json.dumps(_tasks(range(3, 7))))
    write_npz(inputs / "images", size=16)
    write_npz(inputs / "other_images", splits=("test", "val", "train"), size=16)
    save_tiny_generator(inputs / "generator")
    save_tiny_generator(inputs / "other_generator", seed=1)
    return inputs


def _tasks(numbers: range) -> dict[str, Any]:
    """Tasks of ARC that exchange two columns."""

    def pair(a: int, b: int) -> dict[str, Any]:
        return {"input": [[a, 0], [b, 0]], "output": [[0, a], [0, b]]}

    return {f"task{k}": {"train": [pair(k, 1), pair(2, k), pair(k, k)], "test": [pair(3, k)]} for k in numbers}


def given_dreams(model: object, tokenizer: object, contexts: Sequence[Any], styles: Any, *_: object) -> list[Dreamed]:
    """A good and a useless dream of each context, as the tiny model itself writes none."""
    return [_given(context, styles) for context in contexts]


def _given(context: Any, styles: Any) -> Dreamed:
    if hasattr(context, "task"):
        texts = (
            '{"augmentations": ["flips"], "learning_rate": 0.005, "steps": 2}',
            '{"augmentations": [], "learning_rate": 1e-5, "steps": 1}',
        )
        return Dreamed([context.read(styles[0], text, True) for text in texts])
    chunk = context.chunk
    rows = [(f"Tell me about {chunk.title}.", line) for line in chunk.text.split(". ")]
    dreams = [Dream("rewrite", chunk.text, rows, context_name(chunk)), Dream("long", "z", [("z", "z z")], chunk.title)]
    return Dreamed(dreams)


def _typed(start: str, *options: str, inside: str = ".") -> Callable[[Path, Path], list[str]]:
    """The command ``start``, its output folder and ``options``, in which ``{inputs}`` is the folder of inputs.

    The output folder is ``inside`` the one that is watched: the generator works beside its own.
    """

    def line(inputs: Path, output: Path) -> list[str]:
        return f"{start} --output_dir {output / inside} {' '.join(options)}".format(inputs=inputs).split()

    return line


def _changed(**options: str) -> Callable[[Path], Changes]:
    """Other values of options, in which ``{inputs}`` is the folder of inputs."""

    def changes(inputs: Path) -> Changes:
        return {f"another {name}": (f"--{name}", value.format(inputs=inputs)) for name, value in options.items()}

    return changes


PASSAGES = "--model {inputs}/base --dataset {inputs}/rows.jsonl"
OTHERS = {"seed": "7", "learning_rate": "0.001"}
LANGUAGE = OTHERS | {"model": "{inputs}/other_base"}  # other documents are the next day of a life: see ../trainers/test_life.py
IMAGES = OTHERS | {"dataset": "{inputs}/other_images"}
TWO = "--nights 2 --max_steps 4 --save_strategy steps --save_steps 2"

BASE = ("base/config.json", "base/model.safetensors", "base/tokenizer.json", "base/tokenizer_config.json")
PAINTER = ("generator/model_index.json", "generator/unet/config.json", "generator/vae/diffusion_pytorch_model.safetensors")
PICTURES = ("images/train.npz", "images/test.npz")

WEIGHTS = {"base/model.safetensors": "other_base/model.safetensors"}

COMMANDS = (
    Command(
        "sleep",
        _typed(f"sleepkit sleep {PASSAGES}", SLEEP, TWO),
        "sleep",
        ("rows.jsonl", *BASE),
        _changed(**LANGUAGE, styles="recite"),
        WEIGHTS,
    ),
    Command(
        "lora", _typed(f"recipes/text_baseline.py --method lora {PASSAGES}", SLEEP, TWO), "", (), _changed(**LANGUAGE), WEIGHTS
    ),
    Command(
        "dream",
        _typed(f"recipes/dream.py {PASSAGES}", SLEEP.replace("--no_gate", ""), DREAM),
        "dream",
        ("rows.jsonl",),
        _changed(**LANGUAGE, dataset="{inputs}/other_rows.jsonl", dreamer_learning_rate="0.1"),
        {"rows.jsonl": "other_rows.jsonl"} | WEIGHTS,
    ),
    Command(
        "arc",
        _typed("recipes/arc.py --model {inputs}/base --dataset {inputs}/tasks.json", ARC),
        "arc",
        ("tasks.json",),
        _changed(seed="7", model="{inputs}/other_base", dataset="{inputs}/other_tasks.json", trial_rank="3"),
        {"tasks.json": "other_tasks.json"} | WEIGHTS,
    ),
    Command(
        "vision",
        _typed("recipes/vision_baseline.py --dataset {inputs}/images", VISION),
        "vision",
        PICTURES,
        _changed(**IMAGES, method="der_pp"),
        {"images": "other_images"},
    ),
    Command(
        "mygo",
        _typed("recipes/mygo.py --dataset {inputs}/images", VISION, MYGO),
        "mygo",
        PICTURES[:1],
        _changed(**IMAGES, dreams="30"),
        {"images": "other_images"},
    ),
    Command(
        "dream2learn",
        _typed(
            "recipes/dream2learn.py --method d2l_er --dataset {inputs}/images --generator {inputs}/generator", VISION, DREAM2LEARN
        ),
        "dream2learn",
        PAINTER,
        _changed(learning_rate="0.001", dataset="{inputs}/other_images", generator="{inputs}/other_generator", dreams="1"),
        {"images": "other_images", "generator": "other_generator"},
    ),
    Command(
        "disentangled",
        _typed("recipes/disentangled.py", DISENTANGLED),
        "disentangled",
        (),
        _changed(**OTHERS, factor_values="3"),
    ),
    Command(
        "generator",
        _typed("recipes/train_tiny_diffusion.py --dataset {inputs}/images", GENERATOR, inside="painter"),
        "generator",
        PICTURES[:1],
        _changed(**IMAGES, max_steps="3", classes="1"),
        {"images": "other_images"},
        ranges=False,  # which are those of the procedural world, and this one reads images
    ),
)
