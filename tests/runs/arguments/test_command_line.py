"""What a user mistypes, in every command that has fields: one line that names it, exit code 2, and nothing is written."""

import os
import stat

import pytest
from launch import ROOT, command, forked

from sleepkit import cli
from sleepkit.errors import SleepkitError
from sleepkit.runs.arc import parse_arc
from sleepkit.runs.arguments.command_line import check_folder, check_text, home_expanded
from sleepkit.runs.arguments.disentangled import parse_disentangled
from sleepkit.runs.arguments.images import parse_dream2learn, parse_mygo, parse_vision
from sleepkit.runs.arguments.language import parse, parse_baseline, parse_dream
from sleepkit.runs.compare import run_comparison
from sleepkit.runs.generator import parse_generator

PARSERS = {
    "sleep": (parse, "--dataset x"),
    "baseline": (parse_baseline, "--dataset x"),
    "dream": (parse_dream, "--dataset x"),
    "arc": (parse_arc, "--dataset x"),
    "vision": (parse_vision, "--dataset x"),
    "mygo": (parse_mygo, "--dataset x"),
    "dream2learn": (parse_dream2learn, "--dataset x --method d2l_er"),
    "disentangled": (parse_disentangled, ""),
    "generator": (parse_generator, ""),
    "compare": (run_comparison, "--dataset x"),
}
EVERY = pytest.mark.parametrize("command", PARSERS)


def refused(command, *words, tmp_path=None):
    """The one line of an error of a command."""
    parser, base = PARSERS[command]
    with pytest.raises(SleepkitError) as error:
        parser([*base.split(), *map(str, words)])
    said = str(error.value)
    assert "\n" not in said and 10 < len(said) < 700, said
    return said


# -- names ------------------------------------------------------------------------------------------------------------
@EVERY
def test_a_name_that_is_nearly_right_is_told_first(command):
    parser, base = PARSERS[command]
    with pytest.raises(SleepkitError, match="unknown argument '--datset'; did you mean --dataset") as error:
        parser(["--datset", "x"])  # not: dataset is missing
    assert "\n" not in str(error.value)
    assert "did you mean --learning_rate" in refused(command, "--learning-rat", "1")
    assert "did you mean --learning_rate?" in refused(command, "--lr", "1")
    assert "did you mean --output_dir" in refused(command, "--ouput_dir=x")
    assert "unknown argument 'stray'" in refused(command, "stray")
    assert "did you mean --seed" in refused(command, "\N{EM DASH}seed", "1")
    assert "--seed: expected one argument" in refused(command, "--seed")


def test_a_secret_is_not_repeated():
    for line in (["--hub_tokn=hf_planted"], ["--hub_tokn", "hf_planted"], ["--token", "hf_planted"], ["--hub_token"]):
        assert "hf_planted" not in refused("sleep", *line)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("model_name_or_path", "model"),
        ("dataset_name", "dataset"),
        ("torch_dtype", "dtype"),
        ("revision", "model_revision"),
        ("epochs", "num_train_epochs"),
        ("batch_size", "per_device_train_batch_size"),
        ("attn_impl", "attn_implementation"),
        ("trust_remote", "trust_remote_code"),
        ("night", "nights"),
        ("nigths", "nights"),
        ("push_to_hub_rep", "push_to_hub_repo"),
    ],
)
def test_names_of_other_programs(typed, meant):
    assert f"--{meant}" in refused("sleep", f"--{typed}", "x").split("did you mean")[1]


def test_a_map_of_devices_is_said_to_be_for_launchers():
    assert "for a larger one give load_in_4bit" in refused("sleep", "--device_map", "auto")


# -- recipes ----------------------------------------------------------------------------------------------------------
@EVERY
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate: [0.1]", "learning_rate is a list, [0.1]; give a number"),
        ("learning_rate: '0.1'", "learning_rate is the text '0.1'; give a number"),
        ("learning_rate: {a: 1}", "learning_rate is a mapping"),
        ("learning_rate:", "learning_rate is without a value"),
        ("learning_rate: true", "learning_rate is True"),
        ("learning_rate: .nan", "learning_rate is nan; give a"),
        ("learning_rate: -.inf", "learning_rate is -inf; give a"),
        ("max_steps: 1.5", "max_steps is 1.5; give a whole number"),
        ("max_steps: 2024-01-15", "max_steps is the text '2024-01-15'; give a whole number"),
        ("max_steps: 100000000000000000000000000", "max_steps is a number beyond 2**63"),
        ("use_cpu: 'yes'", "use_cpu is the text 'yes'; give true or false"),
        ("use_cpu: 1", "use_cpu is 1; give true or false"),
        ("output_dir: no", "output_dir is False (YAML reads"),
        ("output_dir: 5", "output_dir is 5; give a text"),
        ("output_dir: ''", "output_dir is empty"),
        ("output_dir: ' '", "output_dir is empty"),
        ("output_dir: null", "output_dir is empty"),
        ('output_dir: "a\\0b"', "has bytes that are no text"),
        ('output_dir: "a\\uDC80b"', "has bytes that are no text"),
        ("dataset: [a, b]", "dataset is a list"),
        ("dataset: true", "dataset is True"),
        ("seed: 1.5", "seed is 1.5; give a whole number"),
        ("seed: -1", "seed is -1; give a whole number from 0"),
        ("learning_rat: 1", "unknown key 'learning_rat'; did you mean learning_rate"),
        ("env: {A: b}", "unknown key 'env'"),
        ("seed: 1\nseed: 2", "the key 'seed' stands twice"),
        ("push_to_hub: true", "push_to_hub is True; give push_to_hub_repo"),
        ("eval_strategy: steps", "eval_strategy is 'steps'; a run measures between its nights"),
        ("config: other.yaml", "unknown key 'config'"),
        ("traceback: true", "unknown key 'traceback'"),
        ("report_to: [5.5]", "report_to is "),
    ],
)
def test_a_recipe_that_cannot_be_meant(command, text, words, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    if command == "arc" and text.startswith(("learning_rate: .nan", "learning_rate: -.inf", "max_steps: 1000")):
        words = text.split(":")[0]  # which no dream learns by
    assert words in refused(command, "--config", tmp_path / "r.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nights: true", "nights is True (YAML reads"),
        ("nights: '2'", "nights is the text '2'"),
        ("nights: [2]", "nights is a list"),
        ("styles: []", "styles is an empty list"),
        ("styles: [cloze, [wh]]", "styles is a list"),
        ("styles: clozes", "styles has 'clozes'; use any of"),
        ("styles: null", "styles is without a value"),
        ("order: no", "order is False; use one of file, random"),
        ("chain: 1 4", "chain is the text '1 4'; give a whole number"),
        ("chain: [1, 4.0]", "chain is 4.0"),
        ("gate: 'false'", "gate is the text 'false'"),
        ("gate_anchor_kl: .inf", "gate_anchor_kl is inf; give a finite number"),
        ("model: null", "model is without a value"),
        ("seeds: [1, 1]", "seeds is [1, 1]; give each seed once"),
        ("seeds: []", "seeds is an empty list"),
        ("seeds: [true]", "seeds is True"),
        ("expert_layers: [1, 1]", "expert_layers is ['1', '1']; give"),
        ("expert_layers: [-1]", "expert_layers is ['-1']; give"),
        ("expert_layers: [0.5]", "expert_layers is 0.5"),
        ("tasks: {a: b}", "tasks is a mapping"),
        ("lr_scheduler_kwargs: [1]", "lr_scheduler_kwargs is "),
        ("dreaming: {}", "unknown key 'dreaming'"),
    ],
)
def test_more_recipes_of_sleep(text, words, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    assert words in refused("sleep", "--config", tmp_path / "r.yaml")


def test_one_value_is_a_list_of_one(tmp_path):
    (tmp_path / "r.yaml").write_text("dataset: x\nstyles: cloze\nseeds: 4\nexpert_layers: 3\nchain: 1\nreport_to: none\n")
    args, config = parse(["--config", str(tmp_path / "r.yaml")])
    assert (config.styles, args.seeds, config.expert_layers, config.chain, config.report_to) == (["cloze"], [4], [3], [1], [])


@EVERY
def test_what_is_no_recipe(command, tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "noise.yaml").write_bytes(bytes(range(256)))
    for name in ("", "empty.yaml", "noise.yaml", "none.yaml"):
        assert str(tmp_path / name) in refused(command, "--config", tmp_path / name)
    assert "given twice" in refused(command, "--config", "a", "--config", "b")
    assert "expected one argument" in refused(command, "--config")
    assert "cannot be read" in refused(command, "--config", "")


# -- the output folder ------------------------------------------------------------------------------------------------
@EVERY
def test_an_output_folder_that_cannot_be_made(command, tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "file/run", "link", "x" * 300, "a/" * 2000, "/proc/run", "/dev/null", "/dev/null/run"):
        said = refused(command, "--output_dir", tmp_path / name)
        assert said.startswith("output_dir")
    assert (tmp_path / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert "cannot be written to" in refused("sleep", "--output_dir", tmp_path / "run")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    check_folder("output_dir", tmp_path / "a" / "b" / "c")
    check_folder("output_dir", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    args, config = parse(["--dataset", "~/notes", "--output_dir", "~/run", "--model", "~/base", "--instruction", "~ is tilde"])
    assert (args.dataset, config.output_dir, args.model) == (f"{tmp_path}/notes", f"{tmp_path}/run", f"{tmp_path}/base")
    assert config.instruction == "~ is tilde"
    (tmp_path / "r.yaml").write_text("dataset: ~/notes\n")
    assert parse(["--config", "~/r.yaml"])[0].dataset == f"{tmp_path}/notes"
    assert "there is no user of that name" in refused("sleep", "--dataset", "~nobody_of_that_name/x")
    assert home_expanded("instruction", "~/x") == "~/x"


# -- texts ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", ["", "  ", "a\0b", "a\udc80", ["a", ""], ["\ud800"]])
def test_texts_that_no_file_holds(value):
    with pytest.raises(SleepkitError, match="^it (is empty|is .* no text in UTF-8)"):
        check_text("it", value)


@pytest.mark.parametrize("name", ["model", "general_prompts", "dataset_split", "text_column", "push_to_hub_repo", "dreamer_path"])
def test_empty_texts(name):
    assert f"{name} is empty" in refused("sleep", f"--{name}=")
    assert f"{name} is empty" in refused("sleep", f"--{name}", " ")


# -- numbers ----------------------------------------------------------------------------------------------------------
SLEEP = """expert_slots 0|expert_width -1|nights 0|nights -3|passages_per_night 0|context_max_tokens 0|context_overlap -1
    max_new_tokens 0|test_rows_per_label 0|chain 0|chain 2|chain 4 1|chain_epochs 0|chain_epochs -1|gate_anchor_kl -0.1
    gate_anchor_drop nan|gate_min_gain inf|gate_min_gain nan|gate_retention_drop -1|expert_layers some|expert_layers
    alpha 1.1|beta -0.1|beta 2|gamma nan|lmbda 2|lmbda_start -1|general_share 1.01|reply_weight -0.1|top_k -1
    chunk_size 0|mask_first_tokens -1|gate_penalty -1|gate_lr_scale -1|gate_lr_scale nan|z0 -1|num_generations 0
    rollout_prompts 0|rollout_every 0|max_completion_length 0|temperature 0|temperature -1|temperature inf|clip_range 0
    clip_range 1|questions_per_span 0|general_items -1|general_tokens 0|replay_items -1|notes_kept -1|rehearse_as_new some
    divergence l2|judge me|dream_rounds -1|dreams_per_context 0|dream_max_tokens 0|dream_temperature 0
    dream_temperature nan|dream_top_p 0|dream_top_p 1.1|dream_expert_gate 2|dream_keep_top -1|trial_steps 0
    trial_learning_rate 0|trial_learning_rate nan|trial_rank 0|trial_seeds 0|dreamer me|dreamer_learning_rate -1
    dreamer_epochs 0|dreamer_rank 0|dream_replay_share 2|dream_rehearsal_steps 0|dream_held_out 0|dream_pool -1
    dream_styles some|dreamer_path nowhere|dtype int8|attn_implementation flash|push_to_hub_repo a/b/c
    push_to_hub_repo -a/b|push_to_hub_form whole|push_to_hub_dreams_repo a/b|model_revision v1|answer_score best|sender mail
    order up|label_column a --answer_column b"""
VISION = """experiences 0|experiences -1|experiences 1.5|image_size 0|image_size 100000|channels 2|test_share 0
    test_share 1|test_share nan|cnn_widths 0|cnn_widths|hidden_size -1|top_size -1|probe_images -1|probe_draws 0
    probe_scope all|method best|scenario online|domains moons|domains rotation|class_order upwards|num_train_epochs 0
    per_device_eval_batch_size 0|per_device_eval_batch_size -1|per_device_train_batch_size 0|buffer_size 0
    replay_batch_size 0|der_alpha -1|der_beta nan|lwf_weight -1|lwf_temperature 0|ewc_weight -1|ewc_decay 1.1
    fisher_images 0|si_weight -1|ridge 0|vae_latent 0|vae_hidden 0|vae_samples 0|augmentation magic|buffer_policy oldest
    push_to_hub_repo a/b/c|save_strategy steps|save_steps 5|activation_checkpointing true|seeds 1 1|seeds -1"""
MYGO = """generator gan|replay_space time|generator_epochs 0|generator_hidden 0|generator_latent 0
    generator_components 0|min_fidelity -1|min_diversity -1|generator_retries -1|sleep_steps 0|sleep_learning_rate 0
    sleep_learning_rate nan|dreams 0|label_weight -1|logit_weight nan|kl_temperature 0|validation_steps 0|max_drop -1
    judged_dreams -1|judge_epochs 0|method lwf|label_weight 0"""
D2L = """generator_dtype int8|sampler_steps 0|strength 0|strength 1.1|shared_noise -1|grad_steps -1|prompt_template x
    prompt_start here|prompt_vectors 0|prompt_learning_rate 0|probes 1|prompts_per_batch 0|checkpoint_updates 0
    oracle delphi|dream_updates -1|least_updates -1|stop_threshold 2|dreams -1|max_units 0|assignment best
    dream_images 0|dream_weight -1|wake_dream_weight nan|dream_batch_size 0|sleep_steps -1
    memory_steps -1|sleep_learning_rate 0|judge_epochs 1|method er"""
DISENTANGLED = """experiences 0|classes_per_experience 0|factor_values 0|test_share 0|test_share 0.5|images_per_class 2
    image_size 20|image_size 8|image_size 100000|channels 2|colors mauvve|texture 2|noise -1|clutter -1|occluders -1
    perspective -1|elastic nan|novel_classes 1|novel_images 0|output best|widths 0|hidden_size 0|refinements -1
    refine_widths 0|pose_replay -1|spread_low 0|spread_high 0.001
    evaluate_every 0|exemplar_source best|exemplars_per_class 0|exemplar_size 7|match best|candidates 1
    align_steps 0|turns 0|push_to_hub_repo a/b/c|max_steps -5"""
GENERATOR = """images 0|image_size 12|image_size 32|channels 2|channels 3|classes 1|classes -1|test_share 0.5
    invert true|autoencoder_steps 0|autoencoder_batch_size 0|max_steps -1|max_steps 0|caption_dropout 1
    caption_dropout nan|num_train_epochs 5|per_device_eval_batch_size 4|save_strategy steps|dataset y --images 5"""
ARC = """arc_tasks 0|largest_grid 0|trial_rows 0|trial_layers some|dream_held_out 0|styles cloze|learning_rate 0.1
    max_steps 5|replay_items 3|packing false|alpha 0.1|lmbda 0.5|save_strategy steps|dream_styles rewrite
    trial_control false|dream_pool 5"""
DREAM = """gate false|gate_anchor_kl 0.1|chain 1 2|seeds 1 2
    passages_per_night 2|push_to_hub_repo a/b|push_to_hub_form lora|label_column label|instruction x|expansion false|dream_set x
    replay_items 1"""
COMPARE = "method lwf|methods er2|methods er er|methods|methods mygo d2l_er|experiences 0"
CASES = {
    **{"sleep": SLEEP, "vision": VISION, "mygo": MYGO, "dream2learn": D2L, "disentangled": DISENTANGLED},
    **{"generator": GENERATOR, "arc": ARC, "dream": DREAM, "compare": COMPARE},
}


@pytest.mark.parametrize(
    ("command", "line"),
    [(command, line.strip()) for command, text in CASES.items() for row in text.splitlines() for line in row.split("|")],
)
def test_values_out_of_range_or_without_effect(command, line):
    name = line.split()[0]
    said = refused(command, *f"--{line}".split())
    named = {"spread_low": "spreads", "spread_high": "spreads"}
    named |= {"dataset": "images", "colors": "mauvve", "push_to_hub_dreams_repo": "push_to_hub_dreams_repo"}
    assert named.get(name, name) in said or "others_dataset" in said, said


def test_names_are_those_that_were_typed():
    assert "lmbda is 3.0" in refused("sleep", "--lmbda", "3")
    assert "lambda" not in refused("sleep", "--lmbda", "3")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--push_to_hub_repo a/b", "push_to_hub_repo is 'a/b'; a baseline has no experts to upload"),
        ("--dream_rounds 1", "dream_rounds is 1; a baseline does not dream"),
        ("--load_in_4bit", "load_in_4bit is True; a baseline changes whole weights"),
        ("--method rag", "--method: invalid choice: 'rag' (choose from 'no_sleep'"),
    ],
)
def test_what_a_baseline_does_not_do(line, words):
    assert words in refused("baseline", *line.split())


def test_options_that_do_nothing_together():
    assert "both given" in refused("sleep", "--load_in_4bit", "--load_in_8bit")


def test_bits_need_a_package(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else real(name, *more))
    assert "load_in_4bit needs bitsandbytes; install it: pip install bitsandbytes" in refused("sleep", "--load_in_4bit")
    assert "load_in_8bit needs bitsandbytes" in refused("arc", "--load_in_8bit", "true")


# -- as a user runs them ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "recipes").glob("*.py")))
def test_every_recipe_says_one_line_and_writes_nothing(script, tmp_path):
    done = forked(lambda: os.chdir(tmp_path) or command(f"recipes/{script}", "--sed", "1")())
    lines = [line for line in done.stderr.splitlines() if "sleepkit: error:" in line]
    assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    assert "unknown argument '--sed'" in lines[0] or "required" in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["sleep", "ask", "report", "expand", "idsprites"])
def test_help_names_defaults(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "--traceback" in shown
    assert "(default: " in shown or command == "report"


def test_help_shows_what_most_people_set_in_titled_groups_and_help_all_the_rest(capsys):
    texts = []
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as end:
            cli.main(["sleep", flag])
        assert end.value.code == 0
        texts.append(capsys.readouterr().out)
    few, every = ([line.split()[0] for line in text.splitlines() if line.startswith("  --")] for text in texts)
    assert len(few) < 50 < 100 < len(every) and set(few) < set(every) and {"--alpha", "--dream_top_p"} <= {*every} - {*few}
    for title in ("data:", "model:", "a night: questions and training:", "gate:", "publishing:", "run:"):
        assert f"\n{title}\n" in texts[0], title
