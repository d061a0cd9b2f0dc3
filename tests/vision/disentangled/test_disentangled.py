"""Disentangled learning: nights, losses, and whole runs from the command line that resume exactly."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from launch import ROOT, command, forked, together
from safetensors.torch import load_file
from tiny_images import tiny_resnet, write_npz

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import read_results
from sleepkit.runs.arguments.disentangled import parse_disentangled, parse_sprites_data
from sleepkit.runs.disentangled import run_disentangled, write_sprites_data
from sleepkit.vision.data.images import load_images
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.disentangled.canonicalizer import Canonicalizer, CanonicalizerConfig
from sleepkit.vision.disentangled.exemplars import Exemplars
from sleepkit.vision.disentangled.learner import DisentangledLearner, build_canonicalizer, pose_rms
from sleepkit.vision.disentangled.sprites import build_sprites
from sleepkit.vision.idsprites.affine import factors_to_matrix
from sleepkit.vision.idsprites.factors import canonical
from sleepkit.vision.incremental.trainer import IncrementalTrainer

RECIPES = sorted((ROOT / "recipes" / "configs" / "disentangled").glob("*.yaml"))
SMALL = """--experiences 2 --classes_per_experience 3 --factor_values 2 --image_size 16 --test_share 0.1 --widths 4 8
    --hidden_size 16 --refine_widths 4 8 --per_device_train_batch_size 8 --novel_classes 4 --novel_images 2
    --logging_steps 5 --num_train_epochs 1 --use_cpu""".split()


def parsed(folder, *more):
    return parse_disentangled([*SMALL, "--output_dir", str(folder), *map(str, more)])


def make(folder, *more):
    args, config = parsed(folder, *more)
    stream = build_sprites(dataclasses.replace(config, seed=0), args.dataset)
    torch.manual_seed(0)
    return DisentangledLearner(build_canonicalizer(config, stream[0].exemplars), config), stream


def night(learner, stream, number, folder):
    torch.manual_seed(number)
    learner.wake(stream[number - 1])
    return learner.sleep(number, folder)


def loss_of(learner, stream, **changes):
    """Of eight images of the first night."""
    for name, value in changes.items():
        setattr(learner.config, name, value)
    batch = stream[0].train.batch(torch.arange(8))
    labels = torch.cat([batch["labels"][:, None].float(), batch["factors"]], dim=1)
    return learner.loss(learner.model, (batch["pixel_values"] * 255).byte(), labels, 0)


def test_a_night(tmp_path):
    learner, stream = make(tmp_path)
    start = {name: values.detach().clone() for name, values in learner.model.named_parameters()}
    assert [found.n for found in learner.evaluate(list(stream))] == [0, 0]
    log = night(learner, stream, 1, tmp_path)
    assert all(not torch.equal(values, start[name]) for name, values in learner.model.named_parameters())
    assert log["bytes"] == 3 * (44 * 44 + 8) and log["steps"] == 5 and log["history"] and log["cpu_seconds"] > 0
    assert 0 < log["pose_rms"] < log["forward_pose_rms"] * 1.5
    first, second = learner.evaluate(list(stream))
    assert (first.n, second.n) == (6, 0) and 0 <= first.class_il <= 1 and second.class_il != second.class_il
    night(learner, stream, 2, tmp_path)
    assert learner.exemplars.labels.tolist() == list(range(6)) and [one.n for one in learner.evaluate(list(stream))] == [6, 6]


def test_with_the_true_pose_everything_is_known(tmp_path, monkeypatch):
    learner, stream = make(tmp_path, "--image_size", 48)
    for number in (1, 2):
        night(learner, stream, number, tmp_path)
    for experience in stream:
        batch = experience.test.batch()
        monkeypatch.setattr(learner, "poses", lambda images, batch=batch: factors_to_matrix(batch["factors"]))
        (found,) = learner.evaluate([experience])
        assert found.class_il == found.task_il == 1


def test_what_a_night_changes_can_be_undone_and_saved(tmp_path):
    learner, stream = make(tmp_path)
    night(learner, stream, 1, tmp_path)
    evening = learner.snapshot()
    learner.save(tmp_path / "kept")
    night(learner, stream, 2, tmp_path)
    morning = learner.snapshot()
    assert any(not torch.equal(values, evening[name]) for name, values in morning.items())
    learner.restore(evening)
    other, _ = make(tmp_path, "--hidden_size", 16)
    other.load(tmp_path / "kept")
    for one in (learner, other):
        found = one.snapshot()
        assert found.keys() == evening.keys() and all(torch.equal(found[name], values) for name, values in evening.items())
        night(one, stream, 2, tmp_path)
        assert all(torch.equal(one.snapshot()[name], values) for name, values in morning.items())
    wide, _ = make(tmp_path, "--hidden_size", 24)
    with pytest.raises(SleepkitError, match="cannot be read .* start anew with --overwrite true"):
        wide.load(tmp_path / "kept")


def test_exemplars_of_first_images(tmp_path):
    learner, stream = make(tmp_path, "--exemplar_source", "first", "--exemplars_per_class", 2, "--image_size", 48)
    night(learner, stream, 1, tmp_path)
    assert learner.exemplars.labels.tolist() == [0, 0, 1, 1, 2, 2]
    rendered = learner.exemplars.view(stream[0].exemplars, torch.eye(3).expand(3, 3, 3))
    assert (learner.exemplars.pictures[::2] / 255 - rendered).abs().mean() < 0.05


def test_the_losses(tmp_path):
    learner, stream = make(tmp_path, "--pose_replay", 0)
    learner.today = stream[0]
    learner.exemplars.add(*learner._exemplars(stream[0]))
    plain = loss_of(learner, stream)
    assert torch.equal(plain, loss_of(learner, stream))  # nothing is drawn that the seed does not give
    learner._range = stream[0].train.batch(torch.arange(9))["factors"].aminmax(dim=0)
    assert loss_of(learner, stream, pose_replay=3) != plain


def test_what_a_run_leaves(tmp_path, capsys):
    (record,) = run_disentangled(*parsed(tmp_path, "--seed", 3))
    found = read_results(tmp_path)
    assert found["metrics"] == pytest.approx(record.metrics) and found["method"] == "disentangled" and found["seed"] == 3
    m = found["metrics"]
    for name in ("accuracy", "off_grid_accuracy", "one_shot", "one_shot_cleared", "auroc", "aupr", "fpr95", "oscr", "pose_rms"):
        assert {name, f"nearest_{name}", f"oracle_{name}", f"closed_form_nearest_{name}"} <= m.keys(), name
    assert m["oracle_pose_rms"] == m["oracle_novel_pose_rms"] == 0 and m["bytes_per_class"] == 44 * 44 + 8
    assert {"auroc_residual", "auroc_knn", "auroc_fusion", "sigma", "sigma_accepted"} <= m.keys()
    assert m["accuracy"] == pytest.approx(m["faa"]) == pytest.approx(m["class_il"])  # as many test images in each night
    assert len(found["accuracy_matrix"]) == 2 and found["accuracy_matrix"][0][1] is None
    report = (tmp_path / "report.md").read_text()
    assert "pictures/straightened.png" in report and (tmp_path / "pictures" / "accuracy_over_nights.png").is_file()
    assert "| closed form | nearest |" in (tmp_path / "baselines.md").read_text()
    assert "pose RMS" in capsys.readouterr().out
    assert len(Exemplars.load(tmp_path / "model" / "exemplars")) == 6
    again = run_disentangled(*parsed(tmp_path, "--seed", 3))[0]  # is read back
    assert again.metrics == pytest.approx(record.metrics)


@pytest.mark.usefixtures("undrawn")
def test_canonicalizer_and_exemplars_stand_with_a_card(tmp_path):
    run_disentangled(*parsed(tmp_path))
    folder = tmp_path / "model"
    card = ModelCard.load(folder / "README.md")
    assert {one.metric_type for one in card.data.eval_results} == {"accuracy", "off_grid_accuracy", "one_shot", "auroc"}
    assert "Infinite dSprites" in card.text
    assert len(Exemplars.load(folder / "exemplars")) == 6 and Canonicalizer.from_pretrained(folder).config.image_size == 16


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_killed_equals_one_that_was_not(tmp_path, monkeypatch):
    whole = run_disentangled(*parsed(tmp_path / "whole"))[0]
    train = IncrementalTrainer.run

    def dies(self):
        if "night_02" in str(self.args.output_dir):
            train(self)
            raise KeyboardInterrupt
        return train(self)

    monkeypatch.setattr(IncrementalTrainer, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        run_disentangled(*parsed(tmp_path / "killed"))
    monkeypatch.undo()
    again = run_disentangled(*parsed(tmp_path / "killed"))[0]
    assert again.accuracy_matrix == whole.accuracy_matrix
    one, other = (load_file(tmp_path / run / "state" / "night_02" / "learner.safetensors") for run in ("whole", "killed"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert len(one["exemplars.labels"]) == 6
    measured = {name: value for name, value in whole.metrics.items() if "seconds" not in name}
    assert {name: again.metrics[name] for name in measured} == measured


@pytest.mark.usefixtures("undrawn")
def test_a_run_with_damaged_exemplars_goes_on_from_the_state_before(tmp_path, capsys):
    (first,) = run_disentangled(*parsed(tmp_path))
    path = tmp_path / "state" / "night_02" / "learner.safetensors"
    whole = path.read_bytes()
    content = bytearray(whole)
    content[-1] ^= 1
    path.write_bytes(content)
    (again,) = run_disentangled(*parsed(tmp_path))
    word = "night_02 is damaged (learner.safetensors has changed); the state before it is used"
    assert word in capsys.readouterr().out
    assert path.read_bytes() == whole and again.accuracy_matrix == first.accuracy_matrix

    published = tmp_path / "model" / "exemplars" / "exemplars.safetensors"
    content = bytearray(published.read_bytes())
    content[-1] ^= 1
    published.write_bytes(content)  # by itself it is refused too
    with pytest.raises(SleepkitError, match="are damaged .its checksum"):
        Exemplars.load(published.parent)


def test_the_recipe_runs_two_steps(tmp_path):
    recipe = ["recipes/disentangled.py", "--config", "recipes/configs/disentangled/s1.yaml"]
    done = forked(command(*recipe, "--output_dir", tmp_path, *SMALL, "--max_steps", 2, "--seeds", 1))
    assert done.returncode == 0, done.stderr[-4000:]
    assert "closed form" in done.stdout and (tmp_path / "seed_1" / "results.json").is_file()
    assert (tmp_path / "comparison.md").is_file()


def test_the_stream_is_a_data_set_for_other_recipes(tmp_path):
    more = [*SMALL, "--output_dir", str(tmp_path / "sprites"), "--seed", "2"]
    data = load_images(write_sprites_data(*parse_sprites_data(more)))
    stream = build_sprites(parsed(tmp_path, "--seed", 2)[1])
    for number, experience in enumerate(build_stream(data, "class", 2)):
        for split in ("train", "validation", "test"):
            ours, theirs = getattr(stream[number], split), getattr(experience, split)
            assert torch.equal(ours.labels, theirs.labels) and torch.equal(ours.pixels(), theirs.pixels()), (number, split)
    with pytest.raises(SleepkitError, match="is not empty; choose a new folder"):
        write_sprites_data(*parse_sprites_data(more))


@pytest.mark.parametrize("option", [("--seeds", "1", "2"), ("--push_to_hub_repo", "me/sprites")])
def test_a_data_set_is_of_one_seed_and_no_model(tmp_path, option):
    with pytest.raises(SleepkitError, match=f"{option[0][2:]} is .*; (a data set is of one seed|nothing is trained)"):
        parse_sprites_data([*SMALL, "--output_dir", str(tmp_path / "sprites"), *option])


@pytest.mark.usefixtures("undrawn")
def test_pictures_of_a_data_set_in_unknown_poses(tmp_path):
    digits = write_npz(tmp_path / "digits", 6)
    more = ["--dataset", digits, "--images_per_class", 30, "--classes_per_experience", 2, "--novel_classes", 2]
    more += ["--exemplar_source", "first", "--exemplars_per_class", 2]
    args, config = parsed(tmp_path, *more)
    stream = build_sprites(dataclasses.replace(config, seed=0), args.dataset)
    still = stream.renderer(torch.arange(6), *canonical(6, "white"), torch.full((6,), 7))
    shown, pictures = still[..., 4:12, 4:12], stream.renderer.pictures[:, 7] / 255
    assert (shown - pictures).abs().mean() < 0.06 < (shown - pictures.roll(1, 0)).abs().mean()  # as they are, but for sampling
    (record,) = run_disentangled(*parsed(tmp_path / "run", *more))
    assert record.metrics["oracle_accuracy"] > 0.6 and record.metrics["bytes_per_class"] == 2 * (44 * 44 + 8)
    for wrong, words in (
        (["--images_per_class", 39], "images_per_class is 39; give 3 to 38"),
        (["--novel_classes", 3], "7 classes are wanted"),
    ):
        with pytest.raises(SleepkitError, match=words):
            run_disentangled(*parsed(tmp_path / "other", *more, *wrong))


@pytest.mark.parametrize("path", [path for path in RECIPES if "microsoft" in path.read_text()], ids=lambda path: path.stem)
def test_recipes_of_photographs_run_two_steps_on_a_tiny_backbone(path, tmp_path):
    digits, backbone = write_npz(tmp_path / "digits", 6), tiny_resnet(tmp_path / "backbone", channels=3)
    more = ["--config", path, "--dataset", digits, "--backbone", backbone, "--images_per_class", 30, "--image_size", 32]
    more += ["--experiences", 2, "--classes_per_experience", 2, "--novel_classes", 2, "--novel_images", 2, "--max_steps", 2]
    more += ["--exemplars_per_class", 3, "--per_device_train_batch_size", 4, "--output_dir", tmp_path / "run", "--use_cpu"]
    args, config = parse_disentangled([str(word) for word in more])
    pretrained = load_file(backbone / "model.safetensors")
    (record,) = run_disentangled(args, config)
    assert record.metrics["nights_committed"] == 2
    model = Canonicalizer.from_pretrained(tmp_path / "run" / "model")
    assert len(model.config.backbone_mean) == 3  # that of its own pixels
    learned = model.estimator.backbone.state_dict()
    name = next(name for name in learned if name.endswith("convolution.weight"))
    assert 0 < (learned[name] - pretrained[name]).abs().max() < 0.1  # it starts from the weights of the folder
    with pytest.raises(SleepkitError, match="takes 3 channels, the images have 1"):
        run_disentangled(*parsed(tmp_path / "grey", "--backbone", backbone))


def test_a_pretrained_backbone_sees_pixels_as_it_knows_them(tmp_path):
    backbone = tiny_resnet(tmp_path, channels=3)
    model = Canonicalizer.on_backbone(str(backbone), CanonicalizerConfig(num_channels=3, image_size=32, refinements=0)).eval()
    pixels = torch.rand(4, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.config.backbone_mean, model.config.backbone_std))
    found = model.estimator.backbone((pixels - mean) / std).pooler_output.flatten(1)
    torch.testing.assert_close(model.estimator(model.scaled(pixels)), model.estimator.head(found), atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_all_classes_are_tested_every_so_many_nights(tmp_path):
    more = ["--experiences", 4, "--evaluate_every", 3]
    (record,) = run_disentangled(*parsed(tmp_path, *more))
    tested = [[value is not None for value in row] for row in record.accuracy_matrix]
    assert tested == [[True, False, False, False], [False, True, False, False], [True, True, True, False], [True] * 4]
    assert "faa" in record.metrics and "bwt" in record.metrics and "aia" not in record.metrics
    whole = run_disentangled(*parsed(tmp_path / "whole", "--experiences", 4))[0]
    assert whole.metrics["accuracy"] == record.metrics["accuracy"] and whole.metrics["faa"] == record.metrics["faa"]


def test_further_looks_learn_any_orientation_where_turns_are_tried(tmp_path):
    learner, stream = make(tmp_path)
    learner.exemplars.add(*learner._exemplars(stream[0]))
    learner._range = stream[0].train.batch()["factors"].aminmax(dim=0)
    plain, again, turned = (loss_of(learner, stream, turns=turns).item() for turns in (1, 1, 4))
    assert plain == again != turned


@pytest.mark.usefixtures("undrawn")
def test_tables_of_distortions_and_of_the_number_of_exemplars(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import exemplar_sensitivity
    import image_table

    more = ["--exemplar_source", "first", "--exemplars_per_class", "3"]
    (record,) = run_disentangled(*parsed(tmp_path / "run", *more, "--elastic", 0.1))
    image_table.main(["distorted", str(tmp_path / "run"), "--results", str(tmp_path)])
    assert "| elastic 0.1 | " in (tmp_path / "distorted.md").read_text()
    command = [*SMALL, *more, "--elastic", "0.1", "--output_dir", str(tmp_path / "run")]
    exemplar_sensitivity.main(["few", "1", "3", "--results", str(tmp_path), *command])
    found = json.loads((tmp_path / "few.json").read_text())["sensitivity"]
    assert [row["bytes_per_class"] for row in found["exemplars"]] == [44 * 44 + 8, 3 * (44 * 44 + 8)]
    for name in ("accuracy", "off_grid_accuracy"):  # all exemplars: what the run itself measured
        assert found["exemplars"][1][name] == pytest.approx(record.metrics[name])
    assert found["exemplars"][1]["auroc_ratio"] == pytest.approx(record.metrics["auroc"])
    row = next(row for row in found["sigma"] if row["accepted"] == 0.95)
    assert row["sigma"] == pytest.approx(record.metrics["sigma"])
    assert row["known_accepted"] == pytest.approx(record.metrics["sigma_accepted"])
    sigmas = [row["sigma"] for row in found["sigma"]]
    assert sigmas == sorted(sigmas) and "| sigma |" in capsys.readouterr().out


@pytest.mark.distributed
def test_two_processes_keep_one_model(tmp_path):
    together(command("recipes/disentangled.py", *SMALL, "--output_dir", tmp_path, "--per_device_train_batch_size", 4))
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]["nights_committed"] == 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes(path):
    args, config = parse_disentangled(["--config", str(path)])
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in recipe.items():
        assert getattr(args if hasattr(args, key) else config, key) == value, key
    assert Path(config.output_dir) == Path("runs") / f"disentangled_{path.stem}"
    if args.dataset is None:
        build_sprites(config)
    else:
        assert args.dataset.count("/") == 1 and not Path(args.dataset).is_absolute()  # a Hub id, or data/name


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--output", "rigid"), "output is 'rigid'; use one of similarity4, affine6"),
        (("--backbone", "no/vit"), "backbone 'no/vit' cannot be loaded"),
        (("--evaluate_every", 0), "evaluate_every is 0; give a whole number of at least 1"),
        (("--match", "closest"), "match is 'closest'; use one of nearest, aligned"),
        (("--exemplar_source", "last"), "exemplar_source is 'last'; use one of render, first"),
        (("--exemplars_per_class", 3), "a class has one render; set exemplar_source to first"),
        (("--exemplar_size", 31), "exemplar_size is 31; give an even number of at least 8"),
        (("--candidates", 1), "candidates is 1; give at least 2"),
        (("--spread_low", 0.3), "spreads are 0.3 to 0.2; give two above 0"),
        (("--pose_replay", -1), "pose_replay is -1; give at least 0"),
        (("--factor_values", 0), "factor_values is 0; give a whole number of at least 1"),
        (("--factor_values", 1), "three splits need at least 3 combinations of factors"),
        (("--image_size", 20), "image_size is 20; give a multiple of 8"),
        (("--channels", 2), "channels is 2; give 1 (grey) or 3 (RGB)"),
        (("--colors", "whitish"), "color is 'whitish'; use a name"),
        (("--perspective", 0.5), "perspective is 0.5; give at least 0 and below 0.5"),
        (("--texture", 2), "texture is 2.0; give a share from 0 to 1"),
        (("--test_share", 0.5), "test_share is 0.5; give a share above 0 and below a half"),
        (("--novel_classes", 1), "novel_classes is 1; give at least 2"),
        (("--experiences", 1, "--classes_per_experience", 1), "there is one class"),
        (("--pose_repla", 1), "unknown argument '--pose_repla'; did you mean --pose_replay"),
    ],
)
def test_bad_input_is_one_line_before_training(tmp_path, more, words):
    with pytest.raises(SleepkitError) as error:
        run_disentangled(*parsed(tmp_path / "run", *more))
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run" / "state").exists()


def test_the_error_of_a_pose():
    assert pose_rms(torch.eye(3)[None], torch.eye(3)[None]) == 0
    assert pose_rms(torch.eye(3)[None] + 0.1, torch.eye(3)[None]) == pytest.approx(0.1)
