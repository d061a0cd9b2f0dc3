"""Exemplars: exact search, what alignment forgives, and that a damaged folder is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sleepkit.errors import SleepkitError
from sleepkit.vision.disentangled.canonicalizer import to_matrix
from sleepkit.vision.disentangled.exemplars import ABOUT, MATCHES, TENSORS, Exemplars
from sleepkit.vision.idsprites.affine import factors_to_matrix, rotations
from sleepkit.vision.idsprites.factors import FactorRanges
from sleepkit.vision.idsprites.renderer import SpriteRenderer

CLASSES = 60
RENDERER = SpriteRenderer(48, channels=1)


def images(seed=0):
    classes = torch.arange(CLASSES)
    factors, colors = FactorRanges(1, seed=seed).at(classes, torch.zeros_like(classes))
    return RENDERER(classes, factors, colors, classes), factors_to_matrix(factors).float(), classes


def filled(**options):
    memory = Exemplars(48, 1, **options)
    classes = torch.arange(CLASSES)
    memory.add(memory.view(RENDERER.exemplars(classes), torch.eye(3).expand(CLASSES, 3, 3)), classes)
    return memory


@pytest.mark.parametrize("match", MATCHES)
def test_the_nearest_exemplar_is_right_with_the_true_pose(match):
    """The digest's third experiment."""
    pixels, matrix, classes = images()
    found = filled().classify(pixels, matrix, match)
    assert (found.labels[:, 0] == classes).double().mean() > 0.98
    assert (found.distances.diff(dim=1) >= 0).all() and found.labels.shape == (CLASSES, 5)


@pytest.mark.parametrize("output", ["similarity4", "affine6"])
def test_alignment_forgives_an_error_of_the_pose(output):
    pixels, matrix, classes = images()
    torch.manual_seed(0)
    wrong = matrix @ to_matrix(0.05 * torch.randn(CLASSES, 4))
    memory = filled(output=output)
    nearest, aligned = (memory.classify(pixels, wrong, match) for match in MATCHES)
    right = [(found.labels[:, 0] == classes).double().mean() for found in (nearest, aligned)]
    assert right[0] < 0.8 and right[1] > 0.9
    assert torch.equal(nearest.matrix, wrong)
    error = [(found - matrix)[:, :2].square().mean((1, 2)).sqrt().median() for found in (wrong, aligned.matrix)]
    assert error[1] < error[0] / 5


@pytest.mark.parametrize("match", MATCHES)
def test_a_wrong_orientation_is_found_by_trying_others(match):
    pixels, matrix, classes = images()
    turned = matrix @ rotations(torch.randint(4, (CLASSES,), generator=torch.Generator().manual_seed(0)) * torch.pi / 2)
    one, four = (filled().classify(pixels, turned, match, turns=turns) for turns in (1, 4))
    right = [(found.labels[:, 0] == classes).double().mean() for found in (one, four)]
    assert right[0] < 0.5 and right[1] > 0.95


@pytest.mark.parametrize("tangent", [False, True])
def test_search_is_exact(tangent):
    memory = filled()
    pixels, matrix, _ = images(1)
    seen = memory.described(pixels[:9], matrix[:9])
    distances, places = memory.search(seen, CLASSES, tangent)
    assert (distances.diff(dim=1) >= 0).all()
    assert torch.equal(places.sort(1).values, torch.arange(CLASSES).expand(9, -1))
    for row in (0, 8):
        rest = seen[row] - memory._points
        expected = rest.square().sum(1)
        if tangent:  # what is left of the best step along the tangents
            steps = torch.linalg.lstsq(memory._orthonormal, rest[..., None]).solution
            expected = (rest - (memory._orthonormal @ steps)[..., 0]).square().sum(1)
        torch.testing.assert_close(distances[row], expected[places[row]], atol=2e-3, rtol=1e-3)
    some = torch.tensor([5, 17, 40])
    assert set(memory.search(seen, 1, tangent, some)[1].flatten().tolist()) <= set(some.tolist())


def test_an_image_does_not_depend_on_the_others():
    memory = filled()
    pixels, matrix, _ = images(1)
    together = memory.classify(pixels[:12], matrix[:12])
    alone = [memory.classify(pixels[i : i + 1], matrix[i : i + 1]) for i in range(12)]
    assert torch.equal(together.labels, torch.cat([one.labels for one in alone]))
    torch.testing.assert_close(together.distances, torch.cat([one.distances for one in alone]), atol=1e-5, rtol=1e-3)


def test_several_exemplars_of_a_class_count_once():
    memory = filled()
    pixels, matrix, classes = images(2)
    memory.add(memory.view(pixels, matrix), classes)
    assert len(memory) == 2 * CLASSES and memory.bytes == 2 * CLASSES * (44 * 44 + 8)
    found = memory.classify(pixels, matrix)
    assert (found.labels[:, 0] == classes).all()
    assert all(len(set(row.tolist())) == 5 for row in found.labels)
    two = Exemplars(48, 1)
    two.add(memory.view(pixels[:2], matrix[:2]), torch.tensor([7, 7]))
    lonely = two.classify(pixels[:1], matrix[:1])
    assert lonely.labels.tolist() == [[7, -1]] and lonely.distances[0, 1].isinf()


def test_added_one_by_one_or_at_once():
    whole, parts = filled(), Exemplars(48, 1)
    for place in range(0, CLASSES, 20):
        rows = slice(place, place + 20)
        parts.add(whole.pictures[rows] / 255, whole.labels[rows])
    pixels, matrix, _ = images()
    for one, other in zip(whole.classify(pixels, matrix), parts.copy().classify(pixels, matrix), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)
    parts.set(whole.pictures.flip(0), whole.labels.flip(0))  # nothing of the old ones is kept
    assert torch.equal(parts.classify(pixels, matrix).labels, whole.classify(pixels, matrix).labels)


def test_a_warped_exemplar_is_seen_as_itself():
    memory = filled()
    _, matrix, classes = images()
    drawn = memory.warped(classes, matrix)
    assert drawn.shape == (CLASSES, 1, 48, 48)
    pixels, _, _ = images()
    assert (drawn - pixels).abs().mean() < 0.01  # the class in that pose, but for interpolation
    assert (memory.classify(drawn, matrix).labels[:, 0] == classes).double().mean() > 0.98


def test_it_is_saved_and_loaded(tmp_path):
    memory = filled(output="affine6", size=40)
    memory.save(tmp_path)
    again = Exemplars.load(tmp_path)
    assert torch.equal(again.pictures, memory.pictures) and torch.equal(again.labels, memory.labels)
    assert (again.output, again.size, again.image_size) == ("affine6", 40, 48)
    pixels, matrix, _ = images()
    assert torch.equal(again.classify(pixels, matrix).distances, memory.classify(pixels, matrix).distances)


@pytest.mark.parametrize("damage", ["byte", "cut", "gone", "labels", "field"])
def test_a_damaged_memory_is_refused(tmp_path, damage):
    filled().save(tmp_path)
    path = tmp_path / TENSORS
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[-100] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "gone":
        path.unlink()
    elif damage == "labels":
        found = load_file(path)
        save_file({**found, "labels": found["labels"].flip(0)}, path)
    else:
        about = json.loads((tmp_path / ABOUT).read_text())
        (tmp_path / ABOUT).write_text(json.dumps({name: value for name, value in about.items() if name != "size"}))
    with pytest.raises(SleepkitError, match=r"exemplars in .*exemplars\.safetensors are damaged .*; restore them") as error:
        Exemplars.load(tmp_path)
    assert "\n" not in str(error.value)


def test_nothing_kept_and_bad_sizes_are_named():
    pixels, matrix, _ = images()
    with pytest.raises(SleepkitError, match="there are no exemplars; add exemplars first"):
        Exemplars(48, 1).classify(pixels, matrix)
    with pytest.raises(SleepkitError, match="exemplars of 7 pixels .* give an even size of at least 8"):
        Exemplars(48, 1, size=7)
