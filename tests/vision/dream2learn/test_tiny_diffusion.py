"""The embedded generator: it learns, and what it leaves is a folder of Stable Diffusion."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from tiny_images import write_npz

from sleepkit.errors import SleepkitError
from sleepkit.runs.generator import _pictures, parse_generator, train_generator
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import initial_vectors
from sleepkit.vision.dream2learn.tiny_diffusion import TinyDiffusionConfig, build_tiny_diffusion, train_tiny_diffusion

CONFIGS = Path(__file__).parents[3] / "recipes" / "configs"
RECIPES, DREAMING = (sorted((CONFIGS / name).glob("*.yaml")) for name in ("tiny_diffusion", "dream2learn"))
SHIPPED = CONFIGS.parent / "generators"
BRIEF = {
    "max_steps": 4,
    "autoencoder_steps": 150,
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "logging_steps": 10,
    "warmup_steps": 0,
}


def test_it_learns_and_pipelines_load_it(tmp_path, capsys):
    torch.manual_seed(0)
    shades = torch.randint(0, 256, (32, 3, 1, 1), dtype=torch.uint8)
    pixels = shades.expand(-1, -1, 16, 16).contiguous()
    captions = [f"{'dark' if shade.float().mean() < 128 else 'light'} square" for shade in shades]
    config = TinyDiffusionConfig(output_dir=str(tmp_path), **BRIEF)
    assert train_tiny_diffusion(pixels, captions, config) == tmp_path
    assert "Autoencoder: 150 steps" in capsys.readouterr().out
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path)
    tokens = pipe.tokenizer("dark square").input_ids
    assert len(tokens) == 4 and pipe.tokenizer.model_max_length == 10
    painter = DreamPainter(tmp_path, sampler_steps=2)
    latents = painter.encode(pixels)
    assert latents.shape == (32, 8, 4, 4) and latents.pow(2).mean().sqrt().item() == pytest.approx(1, abs=0.05)
    true = pixels / 255
    one_for_all = (true - true.mean((0, 2, 3), keepdim=True)).abs().mean()
    assert (painter.decode(latents) - true).abs().mean() < 0.85 * one_for_all
    assert painter.paint(latents[:2], initial_vectors(painter.table, 2, 0)[None], [0, 1]).shape == (2, 3, 16, 16)


def test_the_same_seed_gives_the_same_generator(tmp_path):
    pixels, captions = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8), ["a b"] * 8
    found = []
    for name in ("one", "other"):
        config = TinyDiffusionConfig(output_dir=str(tmp_path / name), **{**BRIEF, "autoencoder_steps": 2})
        found.append(DreamPainter(train_tiny_diffusion(pixels, captions, config)).digest())
    assert found[0] == found[1]


def test_a_part_of_a_data_set(tmp_path):
    data = write_npz(tmp_path / "data", size=16)
    command = ["--dataset", str(data), "--classes", "1", "3", "--output_dir", str(tmp_path / "generator"), "--use_cpu"]
    command += ["--max_steps", "1", "--autoencoder_steps", "1", "--per_device_train_batch_size", "2"]
    folder = train_generator(*parse_generator(command))
    words = StableDiffusionPipeline.from_pretrained(folder).tokenizer.get_added_vocab()
    assert {"1", "3"} <= words.keys() and not {"0", "2"} & words.keys()
    args = parse_generator([*command, "--test_share", "0.5", "--invert", "true"])[0]
    whole, captions = _pictures(parse_generator(command)[0], 0)
    half, names = _pictures(args, 0)
    assert 0 < len(half) < len(whole) == len(captions) and {"1", "3"} == set(names)
    assert {255 - pixel for pixel in half.flatten().tolist()} <= set(whole.flatten().tolist())
    with pytest.raises(SleepkitError, match="has the labels 0 to 3"):
        train_generator(*parse_generator([*command, "--classes", "4"]))


def test_bad_input(tmp_path):
    config = TinyDiffusionConfig(output_dir=str(tmp_path), **BRIEF)
    with pytest.raises(SleepkitError, match="has more than 8 words; shorten it"):
        train_tiny_diffusion(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), ["a b c d e f g h i"], config)
    with pytest.raises(SleepkitError, match="images have 28 pixels a side; resize them to a multiple of 8"):
        build_tiny_diffusion(["a"], size=28)
    with pytest.raises(SleepkitError, match="caption_dropout is 1; give a number from 0 to 1, below 1"):
        TinyDiffusionConfig(output_dir=str(tmp_path), caption_dropout=1)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes(path):
    args, config = parse_generator(["--config", str(path)])
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        assert getattr(args if hasattr(args, key) else config, key) == value, key
    assert Path(config.output_dir) == Path("runs") / f"{path.stem}_generator"
    painted = [yaml.safe_load(one.read_text(encoding="utf-8"))["generator"] for one in DREAMING]
    assert (f"recipes/generators/{path.stem}" if (SHIPPED / path.stem).is_dir() else config.output_dir) in painted


def test_the_generator_that_ships_paints_what_its_caption_says():
    folder = SHIPPED / "procedural"
    assert sum(path.stat().st_size for path in folder.glob("*/*")) < 10e6
    painter = DreamPainter(folder, sampler_steps=4, strength=1.0)
    shades = {"red": (1, 0, 0), "green": (0, 1, 0), "yellow": (1, 1, 0)}
    ids = [painter.tokenizer(f"{name} plain square on grey", add_special_tokens=False).input_ids for name in shades]
    grounds = torch.full((len(shades), 3, 32, 32), 0.5)
    with torch.no_grad():
        images = painter.paint(painter.encode(grounds), painter.table[torch.tensor(ids)], range(len(shades)))
    middle = images[:, :, 12:20, 12:20].mean((2, 3))
    assert ((middle > 0.5).int() == torch.tensor(list(shades.values()))).all(), middle


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--images", "1000000000"], "drawing 1000000000 pictures would take"),
        (["--dataset", "WIDE"], "has images of 8 x 16 pixels, and a generator paints squares; give image_size"),
        (["--dataset", "FEATURES"], "has features, and a generator paints squares"),
        (["--dataset", "WIDE", "--image_size", "12"], "multiple of 8"),
        (["--dataset", ""], "dataset is empty; give a file or folder"),
    ],
)
def test_pictures_that_are_refused(tmp_path, options, words):
    rng, y = np.random.default_rng(0), np.arange(8) % 2
    for name, x in (("WIDE", rng.integers(0, 255, (8, 8, 16), dtype=np.uint8)), ("FEATURES", rng.random((8, 3)))):
        for split in ("train", "test"):
            (tmp_path / name).mkdir(exist_ok=True)
            np.savez(tmp_path / name / f"{split}.npz", x=x, y=y)
    given = [str(tmp_path / word) if word in ("WIDE", "FEATURES") else word for word in options]
    with pytest.raises(SleepkitError, match=words):
        train_generator(*parse_generator([*given, "--output_dir", str(tmp_path / "out"), "--use_cpu", "--max_steps", "1"]))
    assert not list((tmp_path / "out").glob("*"))
