"""Every recipe is read by the parser that runs it, so that no stale key survives, and says where its results go.

Those of vision are in test_vision_run.py.
"""

from pathlib import Path

import pytest
import yaml

from sleepkit.runs.arguments.language import parse

ROOT = Path(__file__).parents[1]
RECIPES = [path for method in ("sleep", "dream") for path in sorted((ROOT / "recipes" / "configs" / method).glob("*.yaml"))]


def test_the_promised_recipes_are_there():
    assert {path.stem for path in RECIPES if path.parent.name == "dream"} == {"squad_smollm2_cpu"}
    assert {path.stem for path in RECIPES if path.parent.name == "sleep"} >= {
        "demo",
        "squad_smollm2_cpu",
        "squad_qwen2.5_7b_1passage",
        "squad_qwen2.5_7b_200passages",
        "math_qwen3_1.7b",
        "math_qwen3_8b",
        "gsm8k_smollm2_cpu",
        "long_context_smollm2_cpu",
        "translation_smollm2_cpu",
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_parses_to_what_it_says(path):
    args, config = parse(["--config", str(path)])
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in recipe.items():
        found = next(getattr(part, key) for part in (args, config) if hasattr(part, key))
        assert found == (float(value) if key == "learning_rate" else value), key
    names = {path.stem, f"{path.parent.name}_{path.stem}"}
    assert Path(config.output_dir).parent == Path("runs") and Path(config.output_dir).name in names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_there_is_an_expert_for_each_night_and_local_data_exist(path):
    args, config = parse(["--config", str(path)])
    assert config.nights is not None and config.nights <= config.expert_slots
    assert args.dataset.count("/") == 1 or (ROOT / args.dataset).is_file()


@pytest.mark.parametrize("path", [path for path in RECIPES if "qwen" in path.stem], ids=lambda path: path.stem)
def test_the_papers_numbers(path):
    _, config = parse(["--config", str(path)])
    devices = 8 if path.stem == "math_qwen3_8b" else 1
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps * devices == 32
    assert (config.learning_rate, config.max_steps, config.expert_width, config.expert_slots) == (5e-6, 100, 64, 5)
