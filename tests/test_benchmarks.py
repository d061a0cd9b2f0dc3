"""The scripts in benchmarks/: tables from saved results, lists of runs, and the comparison of one step."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from launch import succeed
from tiny import tiny_model, tiny_tokenizer
from tiny_images import tiny_classifier, tiny_data, write_npz
from tiny_painter import save_tiny_generator

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import RunRecord
from sleepkit.reporting.scores import contained
from sleepkit.runs.arguments.images import parse_dream2learn
from sleepkit.trainers.today import Line
from sleepkit.utils.files import read_json, read_jsonl
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.dream2learn import dreaming
from sleepkit.vision.incremental.output_units import DREAM, REAL

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import chat_sessions  # noqa: E402
import cost  # noqa: E402
import dream_controls  # noqa: E402
import forget  # noqa: E402
import gpu_night  # noqa: E402
import image_table  # noqa: E402
import make_tables  # noqa: E402
import run_table  # noqa: E402
import writers  # noqa: E402

RECIPE = str(BENCHMARKS.parent / "recipes" / "configs" / "sleep" / "demo.yaml")


def run_row(variant, seed, **values):
    return {"variant": variant, "seed": seed, "recovery": 0.8, "seconds": 61.25, "train_tokens": 12000.0, **values}


def test_the_table_of_shares():
    row = {"phase": "dreams", "tokens": 12000, "seconds": 4.0, "tokens_2": 1.0, "tokens_4": 1.08, "seconds_2": 1.1}
    table = make_tables.render({"shares": [row, {"phase": "other", "tokens": 0, "seconds": 1.25}], "processes": [1, 2, 4]})
    assert "| dreams | 12,000 | 1.00 | 1.08 | 4.0 | 1.10 | – |" in table
    assert "| other | 0 | – | – | 1.2 | – | – |" in table


def test_tables_are_replaced_between_their_markers_and_nothing_else_is(tmp_path, capsys):
    runs = [
        run_row("knowledge_seeding", 0, accuracy_matrix=[[0.5, 0.25], [0.5, None]]),
        run_row("knowledge_seeding", 1, recovery=0.6, accuracy_matrix=[[1, 0]]),
        run_row("no_sleep", 0, recovery=None, accuracy_matrix=[[0, 0], [0, 0]]),
    ]
    about = {"name": "squad", "config": "squad.yaml", "arguments": [], "hardware": {"cpu": "a CPU"}}
    (tmp_path / "squad.json").write_text(json.dumps({**about, "runs": runs}))
    record = RunRecord("knowledge_seeding", 0, seconds=72.0, metrics={"recovery": 0.75, "anchor_kl": 0.01})
    record.save(tmp_path)
    (tmp_path / "results.json").rename(tmp_path / "demo.json")
    (tmp_path / "faults.json").write_text("[]")  # of no run
    readme = tmp_path / "README.md"
    around = "before\n<!-- table:squad -->\nold\n<!-- /table -->\nbetween\n<!-- table:demo -->\n<!-- /table -->\n"
    around = f"<!-- table:main -->\n<!-- /table -->\n{around}"
    around = f"<!-- table:summary -->\n<!-- /table -->\n<!-- table:squad-matrix -->\n<!-- /table -->\n{around}"
    readme.write_text(f"{around}<!-- table:later -->\nkept\n<!-- /table -->\nafter\n")
    make_tables.main(["--pages", str(readme), "--results", str(tmp_path)])
    text = readme.read_text()
    assert "| knowledge_seeding | 2 | 0.700 ± 0.141 |" in text and "old" not in text
    assert "| no_sleep | 1 | – |" in text and "| 61 | 12,000 |" in text
    assert "0.750" in text and "1 min 12 s" in text
    assert "before\n" in text and "\nbetween\n" in text and text.endswith("kept\n<!-- /table -->\nafter\n")
    assert "| demo | 1 | – | – | – | 0.750 | 0.010 |" in text and "| squad | 2 |" in text  # the summary of both
    assert "one night (the demo) | 1 | – | – | – | – | 0.010 | 1 min 12 s |" in text
    assert "after night 2 of seed 0   0.50    – \n\nafter night 1 of seed 1   1.00  0.00\n" in text
    assert "on a CPU" in (tmp_path / "squad.md").read_text() and (tmp_path / "squad_retention.png").is_file()
    assert "later.json is not there" in capsys.readouterr().out
    make_tables.main(["--pages", str(readme), "--results", str(tmp_path)])
    assert readme.read_text() == text  # again: the same


def test_what_is_right_in_the_end_is_that_of_all_questions():
    row = run_row("knowledge_seeding", 0, closed_book_before=0.1, closed_book_after=0.5, in_context=0.5, recovery_final=0.75)
    assert "| 0.100 | 0.500 | 0.400 | 0.500 |" in make_tables.main_table({"squad_20": {"runs": [row]}})
    row["closed_book_final"] = 0.45
    assert "| 0.100 | 0.500 | 0.450 | 0.500 |" in make_tables.main_table({"squad_20": {"runs": [row]}})


def test_recovery_is_left_out_where_there_is_little_to_recover():
    rows = [run_row("knowledge_seeding", 0, recovery=9.6, closed_book_before=0.0, in_context=0.1)]
    assert "9.600" not in make_tables.render({"runs": rows}) and "9.600" not in make_tables.summary({"a": {"runs": rows}})
    assert "9.600" in make_tables.render({"runs": [{**rows[0], "in_context": 0.5}]})


def test_runs_on_images_are_collected_without_their_paths(tmp_path):
    published = {"generator": "cgan", "freeze_features": True}
    for seed, name, mode in ((0, "intended", {}), (1, "intended", {}), (0, "as_published", published)):
        metrics = {"class_il": 0.9 + 0.1 * seed, "task_il": 1.0, "bytes": 1e6, "cpu_seconds": 99.6}
        config = {**mode, "dataset": str(tmp_path), "output_dir": str(tmp_path)}
        record = RunRecord("mygo", seed, config, 100.0, [[0.9]], metrics=metrics)
        record.save(tmp_path / name / f"seed_{seed}")
    image_table.main(["split", str(tmp_path / "intended"), str(tmp_path / "as_published"), "--results", str(tmp_path)])
    text = (tmp_path / "split.json").read_text()
    assert str(tmp_path) not in text and len(read_json(tmp_path / "split.json")["image_runs"]) == 3
    table = make_tables.render(read_json(tmp_path / "split.json"))
    assert "| mygo | 2 | 0.950 ± 0.071 | 1.000 ± 0.000 | 1000000 ± 0 | 100 ± 0 | 100 ± 0 |" in table
    assert "| mygo as published | 1 | 0.900 |" in table
    assert not (tmp_path / "split.png").exists()  # one night
    assert table in (tmp_path / "split.md").read_text()
    assert "| mygo as published | 0.900, 1,000 kB |" in make_tables.streams(
        {"mygo_split_mnist": read_json(tmp_path / "split.json")}
    )


def test_dreamers_are_collected(tmp_path):
    for seed, share in ((0, 0.25), (1, 0.75)):
        metrics = {
            f"{m}{kind}_round_{r}": share * r / 2
            for m in ("share_positive", "mean_reward")
            for kind in ("", "_held_out")
            for r in (1, 2)
        }
        RunRecord("dreaming", seed, {"dream_rounds": 1}, metrics=metrics).save(tmp_path / "dream" / f"seed_{seed}")
    image_table.main(["dream", str(tmp_path / "dream"), "--results", str(tmp_path)])
    table = make_tables.render(read_json(tmp_path / "dream.json"))
    assert "| held out | share positive | 2 | 0.250 ± 0.177 | 0.500 ± 0.354 |" in table and "solved" not in table
    of_tasks = {"method": "arc_dreaming", "config": {"dream_rounds": 1}, "metrics": {"solved_held_out_round_1": 0.5}}
    assert "| held out | solved | 1 | 0.500 | – |" in make_tables.render({"image_runs": [of_tasks]})


def test_what_dreaming_costs():
    speeds = {"prompts_per_batch": 12, "batched_per_second": 40.0, "alone_per_second": 10.0, "speedup": 4.0}
    night = {"base": 5.0, "dreaming": 15.0, "led": 12, "ratio": 3.0}
    table = make_tables.render({"dream2learn": {"prompts": {"bfloat16": speeds}, "night": night}})
    assert "| updates of prompts a CPU second, 12 in a batch, bfloat16 | 40.0 | 10.0 | 4.0x |" in table
    assert "| CPU seconds of a night | 15.0 | 5.0 | 3.0x |" in table


def test_what_each_part_of_a_night_of_dreams_brings():
    alone = {"accuracy": 0.9, "probe": 0.6, "assigned": 0.2, "own": 0.8, "old then": 0.85}
    dreams = {**alone, "accuracy": 0.92, "collapse_rate": 0.1}
    controls = {"dreams": {"0": dreams}, "memory alone": {"0": alone, "1": alone}}
    table = make_tables.render({"night": 4, "dream_controls": controls})
    assert "| memory alone | 2 | 0.900 | 0.600 |" in table
    assert "| dreams | 1 | +0.020 | +0.000 | +0.000 | +0.000 | +0.000 | 0.100 |" in table


def test_gains_of_dreams_are_named_by_what_they_change():
    def run(**config):
        metrics = {f"{name}_gain": 0.02 for name in ("faa", "forgetting", "fwt_probe", "fwt_assigned")}
        return {"method": "dream2learn (er)", "metrics": {**metrics, "faa_base": 0.8, "cost_ratio": 2}, "config": config}

    table = make_tables.render({"image_runs": [run(seeds=[0, 1], dreams=12), run(seeds=[0], dreams=12, sleep_steps=0)]})
    assert "| as the recipe | 2 | 0.800 | +0.020 |" in table and "| sleep_steps 0 | 1 | 0.800 |" in table


def test_a_file_without_a_table_is_refused():
    with pytest.raises(SleepkitError, match="a results file with rows has no table"):
        make_tables.render({"rows": []})


def test_arguments_of_a_variant():
    variants = run_table.with_own({"lora": ["--method", "lora"], "knowledge_seeding": []}, ["lora.max_steps=50"])
    assert variants == {"lora": ["--method", "lora", "--max_steps", "50"], "knowledge_seeding": []}
    for word in ("no_sleep.max_steps=5", "lora=5", "lora.max_steps"):
        with pytest.raises(SleepkitError, match=repr(word)):
            run_table.with_own(variants, [word])


def test_joint_training_takes_what_all_nights_take():
    _, args = run_table.parse(["--config", RECIPE, "--nights", "3", "--passages_per_night", "2"])
    found = run_table.with_joint(run_table.expand(["joint", "lora"]), args)
    assert found == {
        "joint": ["--method", "lora", "--nights", "1", "--passages_per_night", "6"],
        "lora": ["--method", "lora"],
    }
    args.nights = None
    with pytest.raises(SleepkitError, match="give their number with --nights"):
        run_table.with_joint(found, args)


def fake_sleep(calls):
    """In place of the recipes: leaves results, except where a run is to fail."""

    def run(arguments, **_):
        given = dict(zip(arguments[2::1], arguments[3::1], strict=False))
        calls.append(arguments[2:])
        assert Path(arguments[1]).name == ("text_baseline.py" if "--method" in given else "sleep.py")
        if given.get("--method") == "lora":
            return SimpleNamespace(returncode=1)
        metrics = {"recovery": 0.5, "train_tokens": 300, "seconds_per_night": 2.0}
        RunRecord("any", int(given["--seed"]), metrics=metrics, nights=[{}, {}]).save(given["--output_dir"])
        return SimpleNamespace(returncode=0)

    return run


def test_runs_are_done_once_and_collected(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(run_table.subprocess, "run", fake_sleep(calls))
    command = ["squad", "--config", RECIPE, "--seeds", "0", "1", "--runs-dir", str(tmp_path / "runs")]
    command += ["--results", str(tmp_path), "--variants", "knowledge_seeding", "no_sleep", "lora", "--", "--nights", "2"]
    assert run_table.main(command) == 1  # lora fails, the others are kept
    assert len(calls) == 6 and "failed: lora, seed 0; lora, seed 1" in capsys.readouterr().err
    assert calls[1][:6] == ["--config", RECIPE, "--nights", "2", "--method", "no_sleep"]
    document = read_json(tmp_path / "squad.json")
    order = [(run["variant"], run["seed"]) for run in document["runs"]]
    assert order == [("knowledge_seeding", 0), ("knowledge_seeding", 1), ("no_sleep", 0), ("no_sleep", 1)]
    assert document["runs"][0]["train_tokens"] == 150 and document["versions"] and document["hardware"]
    run_table.main(command)
    assert len(calls) == 8  # only the failed ones again
    command[command.index("--variants") + 1 : command.index("--")] = ["finetune_qa"]
    (tmp_path / "runs").rename(tmp_path / "lost")
    assert run_table.main(command) == 0 and len(calls) == 10  # appended
    assert [run["variant"] for run in read_json(tmp_path / "squad.json")["runs"]][3:] == [
        "no_sleep",
        "finetune_qa",
        "finetune_qa",
    ]
    assert run_table.main([*command, "--order", "random"]) == 2 and "give the table another name" in capsys.readouterr().err


def test_two_processes_fill_one_table(tmp_path, monkeypatch):
    calls = []
    sleep = fake_sleep(calls)
    command = ["squad", "--config", RECIPE, "--runs-dir", str(tmp_path / "runs"), "--results", str(tmp_path), "--variants"]

    def meanwhile(arguments, **options):
        done = sleep(arguments, **options)
        if len(calls) == 1:  # while the first run goes, another process does two of its own
            run_table.main([*command, "in_context", "no_sleep"])
        return done

    monkeypatch.setattr(run_table.subprocess, "run", meanwhile)
    assert run_table.main([*command, "knowledge_seeding", "no_sleep"]) == 0
    variants = [run["variant"] for run in read_json(tmp_path / "squad.json")["runs"]]
    assert sorted(variants) == ["in_context", "knowledge_seeding", "no_sleep"] and len(calls) == 3  # none twice


def test_ablations_switch_off_what_the_recipe_does(capsys):
    assert list(run_table.expand(["ablations"])) == ["knowledge_seeding", *run_table.ABLATIONS]
    assert run_table.main(["a", "--config", RECIPE, "--variants", "rag"]) == 2
    assert "variant is 'rag'; use one of baselines, ablations, dream_ablations, knowledge_seeding" in capsys.readouterr().err


def planned(variants, *extra):
    """What would be run by the recipe."""
    return run_table.planned(SimpleNamespace(config=RECIPE, variants=variants, own=[]), extra)


def test_runs_are_checked_before_the_first_one():
    assert len(planned(["ablations", "baselines", "four_level"], "--lmbda", "0.5")) == 1 + 4 + 13 + 1
    assert len(planned(["dream_ablations"], "--dream_rounds", "1")) == 4
    with pytest.raises(SleepkitError, match="no_gradient_selection changes nothing without dreams"):
        planned(["dream_ablations"])
    with pytest.raises(SleepkitError, match="no_imitation changes nothing without rollouts"):
        planned(["ablations"], "--lmbda", "0", "--lmbda_start", "0")
    with pytest.raises(SleepkitError, match="chain .* needs at least 8"):
        planned(["four_level"], "--expert_slots", "7")


@pytest.mark.slow
def test_one_step_is_compared_with_trl(tmp_path):
    model = tiny_model(max_position_embeddings=1024)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    command = [sys.executable, str(BENCHMARKS / "bench_seeding.py"), "--model", str(tmp_path / "model")]
    command += ["--systems", "sleepkit", "trl_distillation", "trl_sdft_ckpt", "--nights", "2", "--batch-size", "2"]
    command += [
        "--steps",
        "2",
        "--rollout-steps",
        "1",
        "--warmup",
        "1",
        "--new-tokens",
        "4",
        "--output",
        str(tmp_path / "bench.json"),
    ]
    done = succeed(command)
    document = read_json(tmp_path / "bench.json")
    assert document["nights"]["2"]["experts_in_use"] == 2 and document["versions"]["trl"]
    for name, row in document["systems"].items():
        assert row["tokens"] == document["systems"]["sleepkit"]["tokens"] and row["peak_bytes"] > row["idle_bytes"], name
        assert row["speedup_step"] > 0 and row["memory_share"] > 0 and row["reason"]
    assert "trl_distillation" in done.stdout and "experts in use" in done.stdout


@pytest.mark.slow
def test_a_trial_is_compared_with_its_own_steps(tmp_path):
    model = tiny_model(max_position_embeddings=2048)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    command = [sys.executable, str(BENCHMARKS / "bench_dreaming.py"), "--model", str(tmp_path / "model")]
    command += ["--dreams", "2", "--steps", "2", "--max-tokens", "8", "--output", str(tmp_path / "bench.json")]
    done = succeed(command)
    document = read_json(tmp_path / "bench.json")
    assert document["dreaming"]["trials"]["rows"] == document["dreaming"]["peft"]["rows"] > 2
    assert all(ratio > 0 for ratio in document["ratios"].values())
    assert "its own SFT steps alone" in done.stdout


# -- controls of Dream2Learn ------------------------------------------------------------------------------------------
TINY_DREAMS = """--experiences 2 --cnn_widths 4 --hidden_size 8 --num_train_epochs 2 --per_device_train_batch_size 8 --use_cpu
    --replay_batch_size 8 --buffer_size 12 --buffer_policy class_balanced --sampler_steps 1 --probes 2 --dream_updates 2
    --dreams 2 --dream_images 4 --dream_batch_size 4 --sleep_steps 4 --repaint false""".split()


@pytest.mark.parametrize("kind", dream_controls.KINDS)
def test_what_stands_in_the_place_of_dreams(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(dreaming, "collapse", lambda *args: (False, False))
    data, generator = write_npz(tmp_path / "data"), save_tiny_generator(tmp_path / "generator")
    command = ["--dataset", str(data), "--generator", str(generator), "--method", "d2l_er", "--output_dir", str(tmp_path / "run")]
    args, config = parse_dream2learn([*command, *TINY_DREAMS, "--others_dataset", str(data)])
    stream = build_stream(tiny_data(), "class", 2)
    one = dream_controls.ControlledEr(tiny_classifier(), dream_controls.controlled(config, kind), stream)
    one.wake(stream[0])
    one.sleep(1, tmp_path / "run")
    dreamt = one.paint(0)
    assert len(dreamt) == 8 and (one.painter is None) == (kind not in ("prompt", "relabelled"))
    wanted = REAL if kind == "relabelled" else DREAM
    assert sorted(set(dreamt.labels.tolist())) == one.model.slots.where(wanted)


def test_a_whole_run_with_a_control(tmp_path):
    data = write_npz(tmp_path / "data")
    command = ["--dataset", str(data), "--output_dir", str(tmp_path / "run"), "--generator", "none", *TINY_DREAMS, "--seeds", "0"]
    record = dream_controls.whole("mixup", command)
    assert record.config["dream_kind"] == "mixup" and "faa_gain" in record.metrics
    with pytest.raises(SleepkitError, match="others_dataset is missing, which auxiliary images are taken of"):
        dream_controls.whole("auxiliary", command)


# -- what a night costs, and who writes its questions ------------------------------------------------------------------
def test_a_chronicle_has_the_words_that_were_asked_for_and_no_sentence_twice():
    text = cost.chronicle(3000)
    assert 3000 <= len(text.split()) < 3030 and text == cost.chronicle(3000)
    sentences = text.replace("\n\n", " ").split(". ")
    assert len(set(sentences)) == len(sentences)


def test_the_cost_of_a_night_is_multiplied_to_all_its_steps(tmp_path, monkeypatch):
    config = {"per_device_train_batch_size": 4, "general_share": 0.5, "num_train_epochs": 8}
    config |= {"gradient_accumulation_steps": 1, "min_steps": 1, "general_items": 10}
    night = {"items": 60, "train_seconds": 20.0, "train_tokens": 1000}
    night |= {"seconds_writing": 5.0, "seconds": 40.0}
    monkeypatch.setattr(cost.subprocess, "run", lambda *_, **__: None)
    monkeypatch.setattr(cost, "read_results", lambda folder: {"nights": [night], "config": config, "peak_memory_bytes": 2**30})
    row = cost.cost(300, "tiny", 20)
    assert (row["items"], row["steps"]) == (50, 200)  # two new items a step, each eight times
    assert (row["train_tokens"], row["train_seconds"], row["seconds"]) == (10_000, 200.0, 220.0)
    assert "| 300 | 50 | 200 | 10,000 |" in make_tables.render({"costs": [row]})


def test_a_language_that_the_model_cannot_answer_in_view_is_told_and_left_out(tmp_path, monkeypatch, capsys):
    asked = {"de": 0.5, "ar": 0.1}
    nights = []

    def run(model, language, folder, extra, recipe="sleep.py"):
        if recipe == "sleep.py":
            nights.append((model, language, extra))
        metrics = {"closed_book_before": 0.05, "in_context": asked[language], "closed_book_after": 0.4, "recovery": 0.78}
        return {"metrics": metrics, "nights": [{"items": 90, "committed": True, "seconds": 61.0, "coverage": 1.0}]}

    monkeypatch.setattr(writers, "run", run)
    line = ["--models", "smollm2", "--languages", "de", "ar", "--writers", "rules", "--results", str(tmp_path / "writers.json")]
    assert writers.main(line) == 0
    assert nights == [("smollm2", "de", ["--question_writer", "rules"])]
    shown = capsys.readouterr().out
    assert "| smollm2 | de | rules | 90 |" in shown and "| smollm2 | ar | none | – |" in shown


# -- nights at real size -----------------------------------------------------------------------------------------------
def test_a_night_of_random_weights_needs_no_download_and_is_measured_by_phase(tmp_path):
    row = gpu_night.case("checkpointing", "tiny", passages=1, steps=1, folder=tmp_path / "run")
    assert row["by_phase"]["training"]["trained"] > 0 and row["flops_per_second"] > 0 and len(row["losses"]) == 1
    assert row["peak_bytes"] > 0 and row["planned_peak_bytes"] > 0


def test_cases_that_fail_or_disagree_are_told_and_leave_the_others(tmp_path, monkeypatch, capsys):
    def tried(name, options, seconds):
        if name == "dreams":
            return {"case": name, "shape": "tiny", "failed": "CUDA out of memory"}
        row = {
            "case": name,
            "shape": "tiny",
            "losses": [2.0 if name != "padded" else 2.2],
            "seconds": 61.0,
            "planned_seconds": 50.0,
        }
        row |= {"peak_bytes": 2**30, "planned_peak_bytes": 2**30, "flops_per_second": 3e12}
        return row | {"by_phase": {"training": {"seconds": 40.0}}}

    monkeypatch.setattr(gpu_night, "tried", tried)
    out = tmp_path / "gpu.json"
    assert gpu_night.main(["--shape", "tiny", "--output", str(out)]) == 1
    document, shown = read_json(out), capsys.readouterr().out
    assert document["apart"] == {"padded": pytest.approx(0.1), "checkpointing": 0} and len(document["cases"]) == 5
    assert "| padded | tiny | 1 min 1 s | 50.0 s | 3.0 T | 1.00 GiB | 1.00 GiB | 10.0% | training 40.0 s |" in shown
    assert "| dreams | tiny | CUDA out of memory |" in shown
    assert gpu_night.main(["--shape", "tiny", "--cases", "night", "checkpointing", "--output", str(out)]) == 0
    assert gpu_night.main(["--shape", "tiny", "--minutes", "0", "--cases", "night", "--output", str(out)]) == 1
    assert read_json(out)["cases"][0]["failed"] == "no time was left"


# -- ten days of chats -------------------------------------------------------------------------------------------------
def test_the_sessions_answer_their_questions_and_say_what_replaces_them():
    sessions = read_jsonl(chat_sessions.SESSIONS)
    assert [session["day"] for session in sessions] == list(range(1, 11))
    said = {session["day"]: " ".join(line for line in session["lines"] if Line("user", line).is_learned) for session in sessions}
    replaced = []
    for session in sessions:
        assert 6 <= len(session["lines"]) <= 9 and len(session["questions"]) == 4
        for row in session["questions"]:
            assert contained(said[session["day"]], row["answer"]) and 1 <= len(row["answer"].split()) <= 3
            assert not contained(row["question"], row["answer"]) and row["question"] not in session["lines"]
            if later := row.get("replaced"):
                replaced.append(later)
                assert later["day"] > session["day"] and contained(said[later["day"]], later["answer"])
    assert len(replaced) > 4


def test_a_replaced_answer_is_right_until_its_day():
    rows = [chat_sessions.asked_of(read_jsonl(chat_sessions.SESSIONS), day) for day in (3, 4)]
    (early,), (late,) = ([row for row in found if row["question"] == "Who employs me?"] for found in rows)
    assert early["gold"] == "Corvel Loft" and "old" not in early
    assert (late["gold"], late["old"]) == ("Ashgrove School", "Corvel Loft")
    (scored,) = chat_sessions.scored([late], ["You worked for Corvel Loft."])
    assert not scored["right"] and scored["says_the_old"]


def chat_command(tmp_path, sessions):
    """A run of few days with a tiny model."""
    small = "--expert_width 4 --expert_slots 4 --max_steps 1 --general_items 2 --general_tokens 4 --max_new_tokens 4 --gate false"
    small += " --styles cloze --question_writer rules --per_device_train_batch_size 2 --context_max_tokens 700 --use_cpu true"
    paths = {"--folder": "run", "--results": "chat_sessions.json", "--picture": "picture.png"}
    words = [word for option, name in paths.items() for word in (option, str(tmp_path / name))]
    return ["--model", str(tmp_path / "base"), "--sessions", str(sessions), "--reply_tokens", "4", *words, "--", *small.split()]


def test_days_of_a_chat_are_played_once_and_go_on(tmp_path, monkeypatch, capsys):
    tiny_model(max_position_embeddings=2048).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    monkeypatch.setattr(chat_sessions.SleepChat, "ask", lambda self, asked, before=False: ["Pockle, so Pockle." for _ in asked])
    assert chat_sessions.main(chat_command(tmp_path, 1)) == 0
    first = read_json(tmp_path / "chat_sessions.json")["chat_sessions"]
    assert [len(first[name]) for name in ("before", "in_context", "nights")] == [4, 4, 1]
    slept, sleep = [], chat_sessions.SleepChat.sleep
    monkeypatch.setattr(chat_sessions.SleepChat, "sleep", lambda self: slept.append(self.today.experience()) or sleep(self))
    assert chat_sessions.main(chat_command(tmp_path, 2)) == 0
    found = read_json(tmp_path / "chat_sessions.json")["chat_sessions"]
    assert len(slept) == 1 and "Jory" in slept[0].documents[0] and "Pockle" not in slept[0].documents[0]
    assert found["nights"][0] == first["nights"][0] and [len(night["answers"]) for night in found["nights"]] == [4, 8]
    assert chat_sessions.shares(found["nights"]) == [[0.25, None], [0.25, 0.0]] and (tmp_path / "picture.png").is_file()
    assert len(found["before"]) == 8  # of the days that are new too
    assert "| night 2 | 1 | 0 | 1 of 8 | – | yes |" in capsys.readouterr().out


def test_lines_of_a_day_that_was_undone_or_killed_are_not_said_twice():
    days = [{"lines": ["a b", "c d"]}, {"lines": ["e f", "g h"]}, {"lines": ["i j"]}]

    def spoken(waiting, day):
        said = []
        today = SimpleNamespace(said=[SimpleNamespace(text=text) for text in waiting])
        chat_sessions.sleep_on(SimpleNamespace(today=today, reply=said.append, sleep=lambda: None), days[day], days[:day])
        return said

    assert spoken([], 1) == ["e f", "g h"] and spoken(["e f"], 1) == ["g h"]
    assert spoken(["a b", "c d"], 1) == ["e f", "g h"] and spoken(["a b", "c d", "e f"], 1) == ["g h"]
    assert spoken(["e f", "g h"], 2) == ["i j"] and spoken(["e f", "g h", "i j"], 2) == []


def test_the_table_of_chats_tells_what_was_undone_and_which_old_answers_are_still_said():
    answer = {"session": 1, "question": "?", "gold": "Orta", "reply": "Velm", "right": False}
    night = {"session": 1, "committed": False, "anchor_kl": 0.01, "seconds": 60.0, "answers": [answer | {"says_the_old": True}]}
    found = {"before": [answer], "in_context": [answer | {"right": True}], "nights": [night]}
    table = make_tables.render({"chat_sessions": found})
    assert "| nothing | 0 | 0 of 1 |" in table and "in the prompt | 1 | 1 of 1 |" in table
    assert "| night 1 | 0 | 0 of 1 | 1 of 1 | undone |" in table and "(chat_sessions.png)" in table
    assert "png" not in make_tables.render({"chat_sessions": found | {"nights": []}})


# -- nights that are taken out -----------------------------------------------------------------------------------------
def fake_life(calls):
    """In place of the recipe and of `sleepkit forget`: leaves results."""

    def run(command, **_):
        calls.append(command[1:])
        if command[1].endswith("sleep.py"):
            rows = [{"night": k, "experience": f"page {k}", "committed": k != 2} for k in range(1, 6)]
            RunRecord("any", 0, {"max_steps": 3}, nights=rows).save(command[command.index("--output_dir") + 1])
            return
        folder, night = command[4], int(command[-1])
        record = RunRecord.load(folder)
        assert not any(row.get("forgotten") for row in record.nights)  # a copy of its own
        measured = {"forgotten_before": 0.75, "forgotten_after": 0.0, "others_before": 0.5, "membership_after": 0.51}
        record.nights[night - 1] |= {"forgotten": True, **measured, "forgetting_steps": 40, "forgetting_seconds": 12.0}
        record.save(folder)

    return run


def test_three_nights_are_taken_out_of_copies_of_a_run_that_stays(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(forget.subprocess, "run", fake_life(calls))
    command = ["--run", str(tmp_path / "slept"), "--results", str(tmp_path / "forget.json")]
    assert forget.main([*command, "--", "--seed", "3"]) == 0
    assert calls[0][-2:] == ["--seed", "3"] and "field_notebook" in " ".join(calls[0])
    rows = read_json(tmp_path / "forget.json")["forgotten"]
    assert [row["night"] for row in rows] == [1, 3, 5] and rows[1]["experience"] == "page 3"  # night 2 was undone
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["slept"]
    assert not any(row.get("forgotten") for row in RunRecord.load(tmp_path / "slept").nights)
    assert "| 3 of 4 | 0.750 | 0.000 | – | 0.500 |" in capsys.readouterr().out
    assert forget.main([*command, "--nights", "4"]) == 0  # the run is there
    assert [row["night"] for row in read_json(tmp_path / "forget.json")["forgotten"]] == [4] and len(calls) == 5
