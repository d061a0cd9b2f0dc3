"""Contents of `results.json` as runs leave them, made up: own documents without questions, questions of a data set, images."""

from __future__ import annotations

from typing import Any

from sleepkit.reporting.results import RunRecord

KEPT = "anchor KL 0.0123 (<= 0.05); anchor accuracy 0.900 -> 0.900 (drop <= 0.02); own questions 0.062 -> 0.812 (gain > 0)"
UNDONE = "anchor KL 0.0712 (not <= 0.05); earlier nights 0.900 -> 0.600 (not drop <= 0.1)"


def sample_run(**changes: Any) -> dict[str, Any]:
    """A run that measured nothing."""
    hardware = {"cpu": "Some CPU", "cores": 2, "ram_bytes": 2**34, "gpus": []}
    record = RunRecord("knowledge_seeding", 0, {"model": "tiny", "dataset": "notes"}, 432.7, hardware=hardware)
    return {**record.to_dict(), "versions": {"python": "3.11.7"}, "peak_memory_bytes": 3 * 2**30, **changes}


def own_example(night: int, number: int, right: bool) -> dict[str, Any]:
    """A held-out question of a night, which nobody could answer before."""
    return {
        "own": True,
        "night": night,
        "question": f"Who kept <light> {number} in night {night}?",
        "gold": f"Orla & {number}",
        "before": "I do not know.",
        "after": f"Orla & {number} kept it." if right else "The *sea* kept it.",
        "right_before": False,
        "right_after": right,
    }


def own_run(**changes: Any) -> dict[str, Any]:
    """Two documents, none of them with a question; the second night was undone."""
    counts = {"held_out_n": 16, "retention_n": 0}
    first = {"night": 1, "experience": "lighthouse.md", "committed": True, "reason": KEPT, "anchor_kl": 0.0123}
    first |= {"held_out_before": 0.0625, "held_out_after": 0.8125, "seconds": 312.2, "items": 1234, **counts}
    second = {"night": 2, "experience": "minutes of <March>.md", "committed": False, "reason": UNDONE, "anchor_kl": 0.0712}
    second |= {"held_out_before": 0.0, "held_out_after": 0.75, "seconds": 290.0, "items": 900, **counts}
    second |= {"retention_before": 0.9, "retention_after": 0.6, "retention_n": 16}
    metrics = {"self_test_before": 0.03125, "self_test_after": 0.78125, "self_test_n": 32, "anchor_kl": 0.0123}
    metrics |= {"anchor_accuracy_before": 0.9, "anchor_accuracy_after": 0.9, "nights_committed": 1}
    examples = [own_example(night, k, right=k % 4 > 0) for night in (1, 2) for k in range(16)]
    history = [{"night": n, "step": s, "loss": 2 / s, "kl_memory": 1 / s} for n in (1, 2) for s in range(1, 100, 9)]
    run = {"metrics": metrics, "nights": [first, second], "examples": examples, "history": history}
    return sample_run(**run, accuracy_matrix=[[None, None], [None, None]], **changes)


def asked_run(nights: int = 3, **changes: Any) -> dict[str, Any]:
    """Passages with questions, one night each; what was learned fades."""
    matrix = [[round(1 - 0.02 * (i - j), 2) if j <= i else 0.05 for j in range(nights)] for i in range(nights)]
    metrics = {"closed_book_before": 0.02, "closed_book_after": 0.62, "in_context": 0.8, "recovery": 0.77, "anchor_kl": 0.03}
    metrics |= {"self_test_before": 0.0, "self_test_after": 0.5, "self_test_n": 16 * nights}
    rows = [
        {"night": k + 1, "experience": f"Passage {k}", "committed": True, "reason": KEPT, "closed_book": matrix[k][k]}
        for k in range(nights)
    ]
    examples = [{"question": f"Q{k}?", "gold": f"G{k}", "before": "-", "after": f"G{k}", "in_context": "C"} for k in range(12)]
    history = [
        {"night": n, "step": s, "loss": 2 / s, "reward": s / 200} for n in range(1, nights + 1) for s in range(20, 201, 20)
    ]
    run = {"metrics": metrics, "nights": rows, "examples": examples, "history": history, "accuracy_matrix": matrix}
    return sample_run(**run, **changes)


def image_run(**changes: Any) -> dict[str, Any]:
    """Three groups of classes, with two accuracies."""
    matrix = [[0.99, None, None], [0.9, 0.97, None], [0.8, 0.85, 0.98]]
    task = [[0.99, None, None], [0.98, 0.99, None], [0.97, 0.98, 0.99]]
    metrics = {"class_il": 0.876, "task_il": 0.98, "bwt": -0.1, "forgetting": 0.12}
    nights = [
        {"night": k, "experience": f"group {k}", "committed": True, "reason": "no gate", "class_il": 0.9, "train_flops": 7}
        for k in (1, 2, 3)
    ]
    run = {"metrics": metrics, "nights": nights, "accuracy_matrix": matrix, "matrices": {"task_il": task}}
    return sample_run(method="mygo", **run, **changes)
