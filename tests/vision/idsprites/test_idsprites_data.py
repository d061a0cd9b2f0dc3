"""Data sets, the stream, files and the contact sheet."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

from sleepkit import cli
from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites.dataset import SpritesDataset, SpritesLoader, to_iterable
from sleepkit.vision.idsprites.distortion import distorted
from sleepkit.vision.idsprites.export import export_parquet, sprites_card
from sleepkit.vision.idsprites.factors import FactorGrid, FactorRanges
from sleepkit.vision.idsprites.renderer import SpriteRenderer
from sleepkit.vision.idsprites.sheet import contact_sheet
from sleepkit.vision.idsprites.stream import SpritesStream

SMALL = SpriteRenderer(16)


def sprites(classes=(4, 9, 2), factors=None, renderer=SMALL):
    return SpritesDataset(classes, factors or FactorGrid.regular(2), renderer)


def test_an_index_gives_an_image_its_label_and_its_factors():
    data = sprites()
    assert len(data) == 3 * 16 and data.labels.tolist() == [4] * 16 + [9] * 16 + [2] * 16
    row = data[17]
    assert row["pixel_values"].shape == (3, 16, 16) and row["labels"].item() == 9
    assert row["factors"].tolist() == [0.5, 0, 0, 1]
    assert torch.equal(data[-1]["pixel_values"], data[47]["pixel_values"])
    pixels = data.pixels(torch.tensor([17]))
    assert pixels.dtype == torch.uint8 and torch.equal(pixels[0], (row["pixel_values"] * 255).round().byte())
    assert data.pixels().shape == (48, 3, 16, 16)
    part = data.select(torch.tensor([40, 17])).select(torch.tensor([1]))
    assert len(part) == 1 and torch.equal(part[0]["pixel_values"], row["pixel_values"])
    with pytest.raises(IndexError, match="in a data set of 48 images"):
        data[48]
    assert len(list(data)) == len(list(data)) == 48  # twice


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_map_style_epoch(workers):
    data = sprites(renderer=SpriteRenderer(16, noise=0.1, clutter=1))
    alone, shared = (list(DataLoader(data, batch_size=10, num_workers=n)) for n in (0, workers))
    assert len(alone) == len(shared) == 5
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def batches(workers, **options):
    data = SpritesDataset(range(10**9), FactorRanges(), SpriteRenderer(16, noise=0.1))
    loader = SpritesLoader(data, 3, seed=5, **{"steps": 6, **options})
    return [batch["pixel_values"] for batch in DataLoader(loader, batch_size=None, num_workers=workers)]


def test_the_iterable_is_the_same_with_any_number_of_workers_and_ranks_and_when_resumed():
    alone = batches(0)
    assert len(alone) == 6 and not torch.equal(alone[0], alone[1])
    for workers in (1, 2):
        assert all(torch.equal(one, other) for one, other in zip(alone, batches(workers), strict=True))
    ranks = [batches(2, rank=rank, world_size=2, steps=3) for rank in range(2)]
    together = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(alone[4:], batches(0, start=4, steps=2), strict=True))


def test_the_iterable_has_no_end():
    found = iter(SpritesLoader(sprites(), 2))
    assert [next(found)["labels"].shape for _ in range(30)] == [(2,)] * 30


def test_rows_of_datasets_are_shared_among_ranks_and_workers():
    from datasets.distributed import split_dataset_by_node

    data = sprites()
    rows = to_iterable(data, shards=4)
    alone = [row["pixel_values"].sum() for row in rows.with_format("torch")]
    assert torch.tensor(alone).tolist() == pytest.approx([row["pixel_values"].sum().item() for row in data])
    seen = []
    for rank in range(2):
        part = split_dataset_by_node(rows, rank=rank, world_size=2).with_format("torch")
        for batch in DataLoader(part, batch_size=4, num_workers=2):
            seen += list(zip(batch["labels"].tolist(), map(tuple, batch["factors"].tolist()), strict=True))
    assert len(seen) == len(set(seen)) == 48


def test_experiences_bring_new_classes_and_disjoint_splits():
    stream = SpritesStream(5, 3, FactorGrid.regular(3), SMALL, shares=(0.8, 0.1, 0.1))
    assert len(list(stream)) == len(stream) == 5
    first, last = stream[0], stream[4]
    assert first.labels == (0, 1, 2) and last.labels == (12, 13, 14) and last.label_names[0] == "shape 12"
    assert last.exemplars.shape == (3, 3, 16, 16) and first.name == "shapes 0 to 2"
    rows = torch.cat([part.rows for part in (last.train, last.validation, last.test)])
    assert sorted(rows.tolist()) == list(range(3 * 81))
    assert [len(part) for part in (last.train, last.validation, last.test)] == [3 * 65, 3 * 8, 3 * 8]
    assert last.test.labels.bincount()[12:].tolist() == [8, 8, 8]
    assert torch.equal(stream[4].test.pixels(), last.test.pixels())
    assert not torch.equal(first.test.rows, last.test.rows)  # each class has a split of its own


def test_the_accumulated_test_set_is_balanced_and_made_of_test_images():
    stream = SpritesStream(5, 3, FactorGrid.regular(3), SMALL, shares=(0.8, 0.1, 0.1))
    whole, few = stream.accumulated_test(2), stream.accumulated_test(2, size=20)
    assert len(whole) == 9 * 8 and few.labels.bincount().tolist() == [2] * 9
    tests = torch.cat([stream[number].test.pixels() for number in range(3)])
    assert torch.equal(whole.pixels(), tests)


def test_files_are_read_back(tmp_path):
    import datasets

    data = sprites(renderer=SpriteRenderer(16, channels=1))
    folder = export_parquet({"train": data, "test": data.select(torch.arange(5))}, tmp_path / "out", license="cc0-1.0", shard=30)
    files = {split: [str(path) for path in sorted(folder.glob(f"data/{split}-*.parquet"))] for split in ("train", "test")}
    assert [len(paths) for paths in files.values()] == [2, 1]
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["label"] == data.labels.tolist() and len(loaded["test"]) == 5
    row = loaded["train"][33]
    expected = data[33]
    assert list(row["image"].get_flattened_data()) == (expected["pixel_values"] * 255).round().flatten().tolist()
    assert [row[name] for name in ("scale", "orientation", "position_x", "position_y")] == expected["factors"].tolist()
    card = (folder / "README.md").read_text()
    assert "arxiv.org/abs/2312.16731" in card and "| train | 48 | 3 |" in card and "license: cc0-1.0" in card
    with pytest.raises(SleepkitError, match="is not empty"):
        export_parquet({"train": data}, folder)


def test_the_contact_sheet_is_a_command(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert cli.main(["idsprites", "--output", str(path), "--columns", "3", "--image_size", "16"]) == 0
    assert path.read_bytes()[:4] == b"\x89PNG" and str(path) in capsys.readouterr().out
    before = path.read_bytes()
    (tmp_path / "folder.png").mkdir()
    for arguments, message in (
        (["--vertices", "5", "50"], "vertices is (5, 50)"),
        (["--columns", "1"], "--columns: '1' cannot be used"),
        (["--columns", "1000000000"], "columns"),
        (["--image_size", "4096"], "image_size"),
        (["--image_size", "-1"], "image_size"),
        (["--first_class", "-1"], "first_class"),
        (["--first_class", str(10**30)], "first_class"),
        (["--seed", "-1"], "seed"),
        (["--seed", str(10**30)], "seed"),
        (["--output", ""], "output is empty"),
        (["--output", "a" * 300 + ".png"], "cannot be looked at"),
        (["--output", str(tmp_path / "none" / "sheet.png")], "cannot write"),
        (["--output", str(tmp_path / "sheet.xyz")], "cannot write"),
        (["--output", str(tmp_path / "sheet")], "no ending is unknown; give an existing folder and a name that ends in"),
        (["--output", str(tmp_path)], "cannot write"),
        (["--output", str(tmp_path / "folder.png")], "it is a folder; give"),
        (["--output", "/proc/sheet.png"], "cannot write /proc/sheet.png: "),
    ):
        assert cli.main(["idsprites", "--image_size", "16", "--output", str(path), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert path.read_bytes() == before and {one.name for one in tmp_path.iterdir()} == {"sheet.png", "folder.png"}
    assert cli.main(["idsprites", "--output", str(tmp_path / "other.PDF"), "--columns", "2", "--seed", str(2**63 - 1)]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sprites(classes=()), r"classes is \(\); give at least one"),
        (lambda: sprites(classes=(3, -1)), "counting from 0"),
        (lambda: sprites(factors=FactorGrid(scale=(2.0,))), "reach scale 2; give the renderer a max_scale"),
        (lambda: SpritesLoader(sprites(), 0), "batch_size 0"),
        (lambda: SpritesLoader(sprites(), 1, rank=2, world_size=2), "rank is 2 of 2"),
        (lambda: SpritesStream(0), "experiences 0"),
        (lambda: SpritesStream(shares=(0.5, 0.5, 0.5)), r"shares are \(0.5, 0.5, 0.5\)"),
        (lambda: SpritesStream(factors=FactorGrid()), "a class has 1 images"),
        (lambda: SpritesStream(10**9, 10**3), "1,000,000,000,000 classes of 4,096 images would take .* GiB of memory"),
        (lambda: SpritesStream(factors=FactorGrid.regular(2), shares=(0.02, 0.49, 0.49)), "leave none to train on"),
        (lambda: SpriteRenderer(noise=math.inf), "noise is inf; give"),
        (lambda: SpriteRenderer(noise=math.nan), "noise is nan; give"),
        (lambda: SpriteRenderer(texture=math.nan), "texture is nan; give"),
        (lambda: SpriteRenderer(seed=2**63), "seed is .*; give a whole number from 0"),
        (lambda: SpriteRenderer(4096), "image_size is 4096; give at most 2048"),
        (lambda: SpriteRenderer(-1), "image_size is -1; give at least 8"),
        (lambda: contact_sheet(SMALL, 10**9), "columns is 1000000000; give 2 to 32768, which images of 16 pixels leave room for"),
        (lambda: contact_sheet(SpriteRenderer(2048), 3), "columns is 3; give 2 to 2"),
        (lambda: contact_sheet(SMALL, 3, -1), r"first_class is -1; give a number from 0 to 2\*\*40, less two rows"),
        (lambda: contact_sheet(SMALL, 3, 10**30), r"give a number from 0 to 2\*\*40"),
        (lambda: distorted(SpriteRenderer(), 0.1, math.inf), "elastic is inf; give"),
        (lambda: export_parquet({"train": sprites()}, "/proc/nothing"), "folder /proc/nothing cannot be written to"),
        (lambda: export_parquet({"train": sprites()}, __file__), "cannot be written to"),
        (lambda: SpritesStream(5, 3).accumulated_test(2, size=8), "size is 8 for 9 classes"),
        (lambda: sprites_card({}, name="none"), "no split"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(SleepkitError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
