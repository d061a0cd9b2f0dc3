"""What a user can get wrong with images, from the recipes: one line and exit code 2, before anything is trained or written."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from tiny_images import pictures, tiny_resnet, write_npz
from tiny_painter import save_tiny_generator

from sleepkit.cli import guard
from sleepkit.runs.arguments.disentangled import parse_disentangled, parse_sprites_data
from sleepkit.runs.arguments.images import parse_dream2learn, parse_mygo, parse_vision
from sleepkit.runs.compare import run_comparison
from sleepkit.runs.disentangled import run_disentangled, write_sprites_data
from sleepkit.runs.dream2learn import run_dream2learn
from sleepkit.runs.generator import parse_generator, train_generator
from sleepkit.runs.images import run_vision

X, Y = pictures(4, 8)
SMALL = """--experiences 2 --cnn_widths 4 --hidden_size 8 --num_train_epochs 1 --per_device_train_batch_size 8 --buffer_size 12
    --buffer_policy class_balanced --replay_batch_size 8 --use_cpu""".split()
DREAMS = "--generator_hidden 8 --generator_latent 2 --generator_epochs 1 --sleep_steps 2 --dreams 8".split()
SPRITES = """--experiences 2 --classes_per_experience 2 --factor_values 2 --image_size 16 --novel_classes 2 --novel_images 2
    --max_steps 2 --use_cpu""".split()
RECIPES = {
    "vision": (SMALL, lambda argv: run_vision(*parse_vision(argv))),
    "mygo": ([*SMALL, *DREAMS], lambda argv: run_vision(*parse_mygo(argv))),
    "compare": ([*SMALL, "--methods", "er"], run_comparison),
    "dream2learn": ([*SMALL, "--method", "d2l_er"], lambda argv: run_dream2learn(*parse_dream2learn(argv))),
    "disentangled": (SPRITES, lambda argv: run_disentangled(*parse_disentangled(argv))),
    "sprites_data": (SPRITES, lambda argv: write_sprites_data(*parse_sprites_data(argv))),
    "generator": (["--use_cpu", "--max_steps", "1"], lambda argv: train_generator(*parse_generator(argv))),
}


def save(folder, **arrays):
    folder.mkdir()
    for split in ("train", "val", "test"):
        np.savez(folder / f"{split}.npz", **arrays)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data sets and models, good and bad, by name."""
    folder = tmp_path_factory.mktemp("files")
    write_npz(folder / "good")
    features = np.random.default_rng(0).random((32, 5))
    save(folder / "features", x=features, y=Y)
    save(folder / "infinite", x=np.full_like(features, np.inf), y=Y)
    save(folder / "fractions", x=X / 255, y=Y)
    save(folder / "channels_first", x=np.repeat(X[:, None], 3, 1), y=Y)
    save(folder / "half_labels", x=X, y=Y + 0.9)
    save(folder / "vast_label", x=X, y=np.where(Y == 3, 50_000_000, Y))
    save(folder / "one_class", x=X, y=np.zeros_like(Y))
    save(folder / "objects", x=X, y=Y.astype(object))
    save(folder / "rgb", x=np.repeat(X[..., None], 3, 3), y=Y)
    save(folder / "wide", x=np.concatenate([X, X], 2), y=Y)
    save(folder / "dots", x=X[:, :1, :1], y=Y)
    for number, image in enumerate(X):
        path = folder / "photos" / "train" / f"class {Y[number]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    path.write_bytes(path.read_bytes()[:60])
    (folder / "file").write_text("mine")
    tiny_resnet(folder / "resnet")
    save_tiny_generator(folder / "painter")
    return folder


@pytest.fixture
def refused(files, tmp_path, capsys):
    """Run a recipe in which words like {good} stand for paths; returns its one line."""

    def run(recipe, command):
        options, call = RECIPES[recipe]
        words = [word.format_map({path.name: str(path) for path in files.iterdir()}) for word in command.split()]
        draws = recipe in ("disentangled", "sprites_data", "generator")
        given = [] if "--dataset" in words or draws else ["--dataset", str(files / "good")]
        given += ["--generator", str(files / "painter")] if recipe == "dream2learn" and "--generator" not in words else []
        before = sorted(files.rglob("*"))
        code = guard(lambda: call([*given, *options, "--output_dir", str(tmp_path / "out"), *words]))
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sleepkit: ")]
        assert code == 2 and len(said) == 1 and ";" in said[0], said
        assert not list(tmp_path.glob("out/**/*")) and sorted(files.rglob("*")) == before
        return said[0]

    return run


@pytest.mark.parametrize(
    ("recipe", "command", "words"),
    [
        ("vision", "--dataset {fractions}", "train.npz has x of float64 and shape (32, 8, 8); give images, uint8"),
        ("vision", "--dataset {channels_first}", "channels stand last, as in x.transpose(0, 2, 3, 1)"),
        ("vision", "--dataset {half_labels}", "train.npz has y of float64"),
        ("vision", "--dataset {vast_label}", "has labels from 0 to 50000000 without [3, 4, 5, 6, 7]; number the classes from 0"),
        ("vision", "--dataset {one_class}", "the data have one class (0), which any answer gets right; give at least 2"),
        ("vision", "--dataset {objects}", "train.npz has Python objects in y"),
        ("vision", "--dataset {infinite}", "train.npz has features that are not finite"),
        ("vision", "--dataset {photos}", "31.png) is not an image that can be decoded"),
        ("vision", "--dataset {file}", "is not a .npz or .parquet file; convert it"),
        ("vision", "--dataset /nowhere", "dataset '/nowhere' does not exist"),
        ("vision", "--dataset ~nobody-at-all/digits", "'~nobody-at-all/digits'"),
        ("vision", "--test_dataset {rgb}", "are 1x8x8 and 3x8x8 (channels, height, width); set --channels"),
        ("vision", "--test_dataset {file}", "is not a .npz or .parquet file"),
        ("vision", "--label_column kind", "label_column is 'kind' and"),
        ("vision", "--dataset {good}/train.npz --test_share 0.9999", "the train split has no image of 4 classes"),
        ("vision", "--dataset procedural --image_size 8", "image_size is 8 and the data set 'procedural' is drawn as it is"),
        ("vision", "--class_order 3 1", "class_order is [3, 1]; use 'natural', 'random' or each of 0..3 once"),
        ("vision", "--class_order 0 1 2 2", "class_order is [0, 1, 2, 2]; use"),
        ("vision", "--experiences 3", "experiences is 3, which does not divide 4 classes"),
        ("vision", "--scenario domain --domains permutation --experiences 2000", "give at most 1000 domains"),
        ("vision", "--dataset {features} --scenario domain --domains rotation", "the data are features; use 'classes'"),
        ("vision", "--hidden_size 1000000000000", "the classifier would take"),
        ("vision", "--cnn_widths 1000000000", "the classifier would take"),
        ("vision", "--top_size 1000000000000", "the classifier would take"),
        ("vision", "--replay_batch_size 1000000000000", "replay_batch_size 1,000,000,000,000 would take"),
        ("vision", "--backbone /nowhere", "backbone '/nowhere' cannot be loaded"),
        ("vision", "--backbone {file}", "cannot be loaded"),
        ("vision", "--backbone {resnet}", "takes 3 channels, the images have 1; set channels to 3"),
        ("compare", "--dataset {objects}", "train.npz has Python objects in y"),
        ("mygo", "--dataset {dots} --generator conv_cgan", "generator 'conv_cgan' cannot learn images of 1 x 1 x 1"),
        ("mygo", "--generator_hidden 1000000000000", "generator 'vae' cannot learn images of 1 x 8 x 8"),
        ("mygo", "--dreams 1000000000000", "1,000,000,000,000 dreams would take"),
        ("mygo", "--dataset {infinite} --replay_space features", "features that are not finite"),
        ("dream2learn", "--dataset {rgb}", "the generator makes images of 1 channels, the data have 3; set channels to 1"),
        ("dream2learn", "--dataset {wide}", "the generator makes images of 16 x 16, the data have 8 x 16"),
        ("dream2learn", "--dataset {features}", "dreams are images and the data are features"),
        ("dream2learn", "--generator /nowhere", "generator '/nowhere' cannot be loaded"),
        ("dream2learn", "--generator {file}", "cannot be loaded"),
        ("dream2learn", "--generator {resnet}", "has no vae"),
        ("dream2learn", "--prompt_vectors 100", "prompt_vectors is 100, which makes prompts of 102 tokens"),
        ("dream2learn", "--max_units 3", "max_units is 3, which is fewer than the 4 classes"),
        ("dream2learn", "--others_dataset {rgb} --judge_epochs 1", "are 3 x 8 x 8 and those of the stream 1 x 8 x 8"),
        ("dream2learn", "--others_dataset /nowhere --judge_epochs 1", "dataset '/nowhere' does not exist"),
        ("disentangled", "--factor_values 1000000000", "the grid of factors has 1000000000 values of each; give 1 to 64"),
        ("disentangled", "--experiences 1000000000000", "2,000,000,000,000 classes of 16 images would take"),
        ("disentangled", "--novel_classes 1000000000", "1,000,000,000 novel_classes of 2 novel_images would take"),
        ("disentangled", "--test_share 0.49", "leave none to train on"),
        ("disentangled", "--elastic inf", "elastic is inf; give"),
        ("disentangled", "--noise nan", "noise is nan; give"),
        ("disentangled", "--colors nocolor", "color is 'nocolor'; use a name such as 'white'"),
        ("disentangled", "--dataset {features}", "has features, not images"),
        ("disentangled", "--dataset {objects}", "has Python objects in y"),
        ("disentangled", "--backbone /nowhere", "backbone '/nowhere' cannot be loaded"),
        ("sprites_data", "--output_dir {file}", "{file}"),
        ("sprites_data", "--output_dir {good}", "is not empty; choose a new folder"),
        ("generator", "--dataset {features}", "has features, and a generator paints squares"),
        ("generator", "--dataset {wide}", "has images of 8 x 16 pixels, and a generator paints squares"),
        ("generator", "--dataset {objects}", "has Python objects in y"),
        ("generator", "--images 1000000000000", "drawing 1000000000000 pictures would take"),
    ],
)
def test_one_line_before_anything_is_done(refused, files, recipe, command, words):
    assert words.replace("{file}", str(files / "file")) in refused(recipe, command)


def test_a_label_that_is_vast_takes_no_memory(refused):
    tracemalloc.start()
    try:
        refused("vision", "--dataset {vast_label}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6
