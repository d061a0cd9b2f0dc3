"""What `sleepkit plan` does: it says what `sleepkit sleep` of the same options would cost, and runs nothing of it.

sleepkit plan --model Qwen/Qwen2.5-7B --dataset notes/ --gpus 8x80
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sleepkit.runs.arguments.language import PlanArguments

if TYPE_CHECKING:
    from sleepkit.language.plan.plan import RunPlan
    from sleepkit.trainers.config import SleepConfig

__all__ = ["make_plan", "run_plan"]


def run_plan(args: PlanArguments, config: SleepConfig) -> bool:
    """Print the plan of a run, in words or as JSON; returns whether it fits.

    Raises `SleepkitError` for what `sleepkit sleep` would refuse too, as far as that does not need the weights.
    """
    from sleepkit.language.plan.text import plan_lines

    plan = make_plan(args, config)
    print(json.dumps(plan.to_dict(), indent=1, ensure_ascii=False) if args.json else plan_lines(plan))
    return plan.fits


def make_plan(args: PlanArguments, config: SleepConfig) -> RunPlan:
    """Plan the run of these arguments: a new life, of all nights that its data set brings."""
    from sleepkit.language.plan.plan import Material
    from sleepkit.language.plan.run import plan_of
    from sleepkit.language.retention import read_prompts
    from sleepkit.trainers.inputs import ready_passages
    from sleepkit.trainers.life import extended

    passages = ready_passages(args.dataset, args.test_dataset, config)
    experiences = extended([], 0, passages, config.together).experiences
    general = [row["prompt"] for row in read_prompts(args.general_prompts, "general_prompts")]
    material = Material(experiences, general, read_prompts(args.anchors, "anchors"))
    return plan_of(args.model, config, material, args.gpus)
