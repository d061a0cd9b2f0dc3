"""Configuration of dreaming.

All names begin with `dream` or `trial`, as a recipe is flat.  Every ablation of Table 3 of "Language Models Need Sleep"
(arXiv 2606.03979) is a value here: ``dream_gradient_selection``, ``dream_random_expert``, and ``dream_rounds=0``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sleepkit.errors import SleepkitError
from sleepkit.utils.options import check_numbers, option, require, require_choice

STYLES = ("rewrite", "implications", "self_qa", "long")


_FROM_ZERO = ("dream_rounds", "dream_keep_top", "dream_keep_random", "dream_pool")
_ABOVE_ZERO = ("trial_learning_rate", "dreamer_learning_rate", "dream_temperature", "dream_top_p")
_FROM_ONE = (
    *("dreams_per_context", "trial_steps", "trial_rank", "trial_seeds", "dreamer_epochs", "dreamer_rank"),
    *("dream_max_tokens", "dream_rehearsal_steps", "dream_held_out"),
)
_SHARES = ("dream_top_p", "dream_replay_share", "dream_expert_gate")


@dataclass
class DreamingConfig:
    """What is dreamed, how dreams are chosen and tried, and how the dreamer learns from them.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    dream_rounds: int = option(0, "Rounds of dreaming and learning from it; 0: no dreaming.")
    dreams_per_context: int = option(24, "Dreams of one context and round.")
    dream_styles: list[str] = option(STYLES, f"Styles of dreams, any of {', '.join(STYLES)}.")
    dream_learn_styles: bool = option(True, "From the second round on, dream more in styles that have helped; False: all alike.")
    dream_max_tokens: int = option(192, "Tokens of a dream; one without an end by then is dropped (not 'long').")
    dream_temperature: float = option(1.0, "Sampling temperature of dreams.")
    dream_top_p: float = option(0.95, "Nucleus of the sampling.")
    dream_random_expert: bool = option(True, "While dreaming, open one random expert more in each layer.")
    dream_expert_gate: float = option(0.25, "How far that expert is open at least, 0 to 1.")
    dream_gradient_selection: bool = option(True, "Try the dreams with the largest gradients; False: any.")
    dream_keep_top: int = option(8, "Dreams of a context that are tried for their gradient.")
    dream_keep_random: int = option(4, "Dreams of a context that are tried by chance.")
    trial_steps: int = option(10, "Optimizer steps of a trial.")
    trial_learning_rate: float = option(1e-3, "Learning rate of a trial.")
    trial_rank: int = option(32, "Rank of a trial's LoRA.")
    trial_control: bool = option(
        True, "Reward what a dream teaches beyond the style's worked dream, which is about something else; False: all of it."
    )
    trial_seeds: int = option(1, "Trials of a dream, from different starts; the reward is their mean.")
    dreamer: Literal["rest_em", "grpo"] = option("rest_em", "SFT on rewarded dreams, or policy gradient with advantages.")
    dreamer_path: str | None = option(
        None, "Folder of a dreamer that has learned before (dreams/dreamer_<n> of recipes/dream.py); it dreams the first round."
    )
    dreamer_learning_rate: float = option(3e-4, "Learning rate of the dreamer's LoRA.")
    dreamer_epochs: int = option(2, "Epochs over the dreams of a round.")
    dreamer_rank: int = option(64, "Rank of the dreamer's LoRA; its alpha is twice as much.")
    dream_rehearsal_steps: int = option(40, "Optimizer steps on tonight's examples with the accepted dreams.")
    dream_replay_share: float = option(0.2, "Share of old dreams among what a later night replays.")
    dream_held_out: int = option(3, "recipes/dream.py: passages that are dreamed of but never learned from.")
    dream_pool: int = option(256, "Old dreams that are kept for replay, drawn as a reservoir.")

    def __post_init__(self) -> None:
        check_numbers(self)
        unknown = sorted(set(self.dream_styles) - set(STYLES))
        if unknown or not self.dream_styles:
            raise SleepkitError(f"dream_styles has {(unknown or ['nothing'])[0]!r}; use any of {', '.join(STYLES)}")
        require(self, _FROM_ZERO, lambda value: value >= 0, "at least 0")
        require(self, _FROM_ONE, lambda value: value >= 1, "at least 1")
        require(self, _SHARES, lambda value: 0 <= value <= 1, "a number from 0 to 1")
        require(self, _ABOVE_ZERO, lambda value: value > 0, "a number above 0")
        if self.dream_keep_top + self.dream_keep_random < 1:
            raise SleepkitError("dream_keep_top and dream_keep_random are both 0; try at least one dream")
        require_choice(self, "dreamer", ("rest_em", "grpo"))
        if self.dreamer_path and not (Path(self.dreamer_path) / "adapter_config.json").is_file():
            raise SleepkitError(f"dreamer_path {self.dreamer_path} holds no dreamer; give one that recipes/dream.py has written")
