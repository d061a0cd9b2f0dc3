"""Knowledge seeding: the model with its context in view teaches a larger self that no longer sees it.

Per reply token y_t of an item (prompt x, context c, reply y), with the same weights twice::

    teacher  p( . | c, x, y, x, y_<t)   new expert masked, context and worked pair in the prompt, frozen
    student  q( . | x, y_<t)            new expert on, no context; only the new expert trains

    teacher data      L = F(p || q)                                        F: forward KL, reverse KL or JSD
    student rollouts  L = alpha F(p || q) - (1 - alpha) min(ratio A, clip(ratio) A)
    replay            L = F(p || q) with p the model before tonight, no context
    general           L = F(p || q) with p the unslept model, no context: what nights have moved, a later one moves back

A share lambda of each batch's new items are rollouts (GKD); reward and advantage A are those of imitation.py, on
the very same rollouts.  Sources: "Language Models Need Sleep" (arXiv 2606.03979), SDFT (2601.19897), GKD (2306.13649).

Ours: the mixture with the worked reply (``reply_weight``), because a small teacher may copy a rare name from its prompt
with p = 0.05, and a student that matches it never says the name; packing and cached lower layers (packing.py); teacher
targets computed once for each item that a batch draws (preparation.py); the gate penalty, which asks the new expert to be
silent on everything that is not in tonight's documents.

Built on `transformers.Trainer`, not on TRL's online trainers: those generate at every step and keep a second model,
while here most of the data is fixed, so that teacher and lower layers need one pass a night.  ZeRO-3 splits the model
while it trains; before and after each rank holds it whole, as it writes examples and answers.  Left out: trainable
output heads, vLLM rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.models.fingerprint import weights_fingerprint
from sleepkit.language.models.zero3 import unsplit, whole
from sleepkit.language.questions.examples import ROLES, SyntheticExample
from sleepkit.language.seeding.batch_plan import BatchPlan
from sleepkit.language.seeding.checkpoints import LAUNCH, last_checkpoint, seal_checkpoint
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.divergence import OutputHead, TeacherTargets, token_divergence, token_log_probs
from sleepkit.language.seeding.imitation import clipped_surrogate
from sleepkit.language.seeding.packing import Backbone, PackedBatch, PreparedItem, flat_hidden, through_wrapper
from sleepkit.language.seeding.preparation import Preparation
from sleepkit.language.seeding.rollouts import sample_rollouts
from sleepkit.reporting.live.meter import timed
from sleepkit.reporting.live.observer import observe
from sleepkit.utils.digests import digest
from sleepkit.utils.files import replacing, writable
from sleepkit.utils.phases import digest_of
from sleepkit.utils.ranks import main_finds, main_only
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import conclude, recomputing_here, settings_digest

EXPERT_STATE = "expert.safetensors"
BEGIN_TOKENS = 2  # of a reply
LOGGED = ("kl_memory", "kl_general", "gate_memory", "gate_general", "gate_begin", "reward", "reward_std")


class KnowledgeSeedingTrainer(Trainer):
    """Trains the newest expert of a grown model on a night's items.

    Args:
        model (`PreTrainedModel`): causal LM with an [`ExpertBank`] whose newest slot is active and trainable.
        args (`KnowledgeSeedingConfig`): how the night is trained.
        items (sequence of `SyntheticExample`): new, general and replayed items; replies to the last two are the model's own.
        processing_class (`PreTrainedTokenizerBase`): tokenizer of the model.
        slot (`int`): the slot that trains (`trained` holds it); the teacher sees the model without it.
        senders (sequence of `int`): slots that the teacher has and the student has not: their content moves into ``slot``.
        kept (`dict`, *optional*): general items as they were prepared on an earlier night of the same settings, which makes
            no difference to them; those that are missing are added.

    Raises:
        SleepkitError: no new items, or a prompt that does not fit the model's window.

    Example:

        >>> bank = ExpertBank.grow(model, ExpertBankConfig(slots=5, width=64))
        >>> slot = bank.activate(0)
        >>> trainer = KnowledgeSeedingTrainer(model, KnowledgeSeedingConfig(max_steps=100), items, tokenizer, slot)
        >>> trainer.run("night 1")
    """

    _tag_names = ["sleepkit", "knowledge-seeding"]
    preparation_class = Preparation  # how items become tokens

    def __init__(
        self,
        model: nn.Module,
        args: KnowledgeSeedingConfig,
        items: Sequence[SyntheticExample],
        processing_class: PreTrainedTokenizerBase,
        slot: int,
        senders: Sequence[int] = (),
        kept: dict[SyntheticExample, PreparedItem] | None = None,
        **kwargs: Any,
    ) -> None:
        self.items = list(items)
        of_role = {role: [i for i, item in enumerate(self.items) if item.role == role] for role in ROLES}
        self.new, *self.others = of_role.values()  # indices of what is new, and of what takes turns beside it
        if not self.new:
            raise SleepkitError("a night needs at least one new item, and the examples hold none")
        unsplit(model)
        self.bank = ExpertBank.of(model)
        self.slot, self.senders = slot, tuple(senders)
        self.trained: tuple[int, ...] = (slot,)
        self.chat_tokenizer, self.lm = processing_class, model
        self.seeding = args
        self.head = OutputHead.of(model)
        self.backbone = Backbone(model, self.bank)
        self.tokens = TokenCount()
        self.tokens_before, self.seconds_before = 0, 0.0  # of sessions that were killed
        self._started = time.perf_counter()
        self._rollouts: list[PreparedItem] = []  # of all processes
        self._used_rollouts = 0  # by all processes
        self._rollouts_of = -1  # the step that they were drawn at
        self._sums: dict[str, Tensor] = {}  # of each of `LOGGED`: sum and number
        args.logging_nan_inf_filter = False  # which would log other losses in place of those that are not finite
        with writable(str(args.output_dir)):  # which it makes
            super().__init__(model=model, args=args, processing_class=processing_class, train_dataset=self.items, **kwargs)
        self.model_accepts_loss_kwargs = False
        observe(self, "training")
        if args.max_steps <= 0:
            args.max_steps = self._steps_of_epochs()
        whole_layers = not self.is_deepspeed_enabled
        self.preparation = self.preparation_class(model, self.backbone, self.head, processing_class, args, whole_layers, kept)
        self.prepared = self.prepare(self.items)

    # -- teacher and student ----------------------------------------------------------------------------------------
    @timed("targets")
    def prepare(self, items: Sequence[SyntheticExample]) -> list[PreparedItem]:
        """Items, with their teachers' targets where the night's batches draw them."""
        return self.preparation.prepare(items, self.drawn, self.teacher_prompt, self.teacher_view, self.unslept_view)

    @cached_property
    def drawn(self) -> Collection[int]:
        """Return the indices of the items that some batch of the night holds, in order."""
        return sorted({i for batch in self._plan(0, 1) for i in batch})

    def teacher_prompt(self, item: SyntheticExample) -> list[int]:
        """Return the tokens that the teacher reads before the reply."""
        return teacher_prompt(self.chat_tokenizer, item)

    def teacher_view(self) -> AbstractContextManager[None]:
        """Show the model as it was before tonight, inside the block."""
        return self.bank.view([slot for slot in self.bank.active if slot != self.slot])

    def student_view(self) -> AbstractContextManager[None]:
        """Show the model that tonight makes, inside the block."""
        return self.bank.view([slot for slot in self.bank.active if slot not in self.senders])

    def unslept_view(self) -> AbstractContextManager[None]:
        """Show the model as it was before any night, inside the block."""
        return self.bank.view(())

    # -- data -----------------------------------------------------------------------------------------------------
    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches by `BatchPlan`; each rank takes its own slice, so accelerate must not split them again."""
        plan = self._plan(self.seeding.process_index, self.seeding.world_size)
        indices: Any = list(range(len(self.items)))
        return DataLoader(indices, batch_sampler=plan, collate_fn=lambda chosen: {"indices": chosen})

    def _plan(self, rank: int, world: int) -> BatchPlan:
        """All batches of the night, cut into ``world`` slices."""
        args = self.seeding
        size = args.per_device_train_batch_size * args.world_size // world
        steps = args.max_steps * args.gradient_accumulation_steps
        return BatchPlan(self.new, self.others, size, args.general_share, steps, args.seed, rank, world)

    def _steps_of_epochs(self) -> int:
        """Steps after which each new item was seen ``num_train_epochs`` times, ``min_steps`` at least."""
        args = self.seeding
        size, share = args.per_device_train_batch_size, args.general_share
        plan = BatchPlan(self.new, self.others, size, share, 1, 0, 0, args.world_size)
        return plan.steps_of(args.num_train_epochs, args.gradient_accumulation_steps, args.min_steps)

    # -- rollouts -------------------------------------------------------------------------------------------------
    @timed("rollouts")
    def refresh_rollouts(self) -> None:
        """Let the student answer, the teacher and the judge respond: one round of on-policy items."""
        args = self.seeding
        model = self.accelerator.unwrap_model(self.model)
        rollouts, rewards = sample_rollouts(
            model,
            self.chat_tokenizer,
            self.prepared,
            self.new,
            args,
            derive_seed(args.seed, "rollouts", self.state.global_step),
            self.teacher_view,
        )
        self._rollouts = [
            PreparedItem(self.prepared[r.index].prompt_ids, r.reply_ids, True, first_token=r.cut, advantage=r.advantage)
            for r in rollouts
        ]
        prompts = [self.teacher_prompt(self.items[r.index]) for r in rollouts]
        self.preparation.run_teacher(self._rollouts, prompts, self.teacher_view, sampled=True)
        self.preparation.keep_lower(self._rollouts)
        self.preparation.note_log_probs(self._rollouts)
        self._used_rollouts = 0
        self._log_sum("reward", rewards)
        self._log_sum("reward_std", rewards.std(dim=1))

    def _with_rollouts(self, items: list[PreparedItem]) -> list[PreparedItem]:
        """Replace a share lambda of the new items by rollouts."""
        args, step = self.seeding, self.state.global_step
        if not args.on_policy:
            return items
        if step % args.rollout_every == 0 and self._rollouts_of != step:
            self.refresh_rollouts()
            self._rollouts_of = step
        world, count = args.world_size, self._plan(0, 1).n_new  # of the batch of all processes, which new items begin
        replaced = round(args.lmbda_at(step, self.state.max_steps) * count) if self._rollouts else 0
        for k, place in enumerate(range(args.process_index, min(replaced, len(items) * world), world)):
            items[k] = self._rollouts[(self._used_rollouts + place) % len(self._rollouts)]
        self._used_rollouts += replaced
        return items

    # -- objective ------------------------------------------------------------------------------------------------
    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean objective per reply token over all ranks, plus the gate penalty.

        Args:
            model: as the trainer has wrapped it.
            inputs: with the ``indices`` of a batch's items.
            return_outputs: return ``(loss, {})``.
            num_items_in_batch: of `transformers.Trainer`, which is not used.
        """
        items = self._with_rollouts([self.prepared[i] for i in inputs["indices"]])
        batch = self.preparation.collate(items)
        with self.bank.watch_gates(self.slot) as layers:
            hidden = through_wrapper(model, self.backbone.hidden, batch)
            gates = [layer.gates for layer in layers if layer.gates is not None]
        flat = flat_hidden(hidden, batch)
        args = self.seeding
        targets = TeacherTargets.cat([item.teacher for item in items if item.teacher is not None])
        per_token = token_divergence(flat, self.head, targets, args.divergence, args.beta, args.chunk_size)  # (n,)
        is_learned = torch.tensor([item.is_learned for item in items], device=self.backbone.device)[batch.item_of]
        self._log_sum("kl_memory", per_token[is_learned])
        self._log_sum("kl_general", per_token[~is_learned])
        rolled = torch.tensor([item.advantage is not None for item in items], device=self.backbone.device)[batch.item_of]
        objective = per_token
        if rolled.any():
            objective = torch.where(
                rolled,
                args.alpha * per_token + (1 - args.alpha) * self._policy_term(flat, items, batch, rolled),
                per_token,
            )
        counts = torch.tensor([len(per_token), batch.n_tokens], device=self.backbone.device)
        count, tokens = self.accelerator.reduce(counts, "sum").tolist()
        self.tokens.add(self.state.global_step, tokens)
        loss = objective.sum() / count * args.world_size
        if gates and args.gate_penalty:
            ramp = min(1.0, self.state.global_step / max(1, 0.3 * self.state.max_steps))  # first learn, then fall silent
            loss = loss + args.gate_penalty * self.bank.penalty * ramp * self._openness(gates, batch)
            self._log_sum("gate_memory", torch.stack([gate[batch.learned_tokens] for gate in gates]))
        return (loss, {"hidden": flat}) if return_outputs else loss

    def _openness(self, gates: Sequence[Tensor], batch: PackedBatch) -> Tensor:
        """Mean gate on what must stay, over all its tokens, plus that over those that decide how a reply begins.

        These are `BEGIN_TOKENS` an item: an expert that leaks there, and there alone, answers another night's question, or
        goes on from "The" with tonight's name.
        """
        everywhere = batch.other_tokens.float()
        prefix = self.preparation.prefix if self.seeding.packing else 0
        everywhere[:, :prefix] /= self.args.world_size  # the prefix is the same on all ranks, so it is counted once
        begins = torch.zeros_like(everywhere)
        first = batch.item_of.diff(prepend=batch.item_of.new_tensor([-1])) > 0
        for _ in range(BEGIN_TOKENS):
            begins.view(-1)[batch.predicts[first]] = 1
            first = first.roll(1)
        openness = torch.zeros((), device=everywhere.device)
        for name, weight in (("gate_general", everywhere), ("gate_begin", begins * batch.other_tokens)):
            total = self.accelerator.reduce(weight.sum(), "sum").clamp(min=1)
            mean = torch.stack([(gate[..., 0] * weight).sum() for gate in gates]).mean() / total * self.args.world_size
            self._log_sum(name, mean)
            openness = openness + mean
        return openness

    def _policy_term(self, flat: Tensor, items: Sequence[PreparedItem], batch: PackedBatch, rolled: Tensor) -> Tensor:
        """Clipped policy-gradient loss per token, zero where there is no advantage, ``(n,)``."""
        log_probs = token_log_probs(flat, self.head, self.preparation.reply_tokens(items), self.seeding.chunk_size)
        old = torch.cat(
            [
                item.old_log_probs
                if item.old_log_probs is not None
                else torch.zeros(len(item.reply_ids) - item.first_token, device=flat.device)
                for item in items
            ]
        )
        advantage = torch.tensor([item.advantage or 0.0 for item in items], device=flat.device)[batch.item_of]
        return clipped_surrogate(log_probs, torch.where(rolled, old, log_probs.detach()), advantage, self.seeding.clip_range)

    # -- bookkeeping ----------------------------------------------------------------------------------------------
    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Two groups: experts, and what decides where they are open, with its own learning rate."""
        if self.optimizer is None:
            cls, options = self.get_optimizer_cls_and_kwargs(self.args)
            rate = self.args.learning_rate
            groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
            for slot in self.trained:
                named, fast = self.bank.named_parameters(slot), self.bank.fast_parameters(slot)
                for name, factor in self.bank.rates(slot, self.seeding.gate_lr_scale).items():
                    groups.setdefault((factor, name in fast), []).append(named[name])
            settings = [
                {"params": group, "lr": rate * factor, "weight_decay": 0.0 if is_fast else self.args.weight_decay}
                for (factor, is_fast), group in groups.items()
            ]
            self.optimizer = cls(settings, **options)
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: operations are not estimated, as ``inputs`` hold indices; tokens are counted."""
        return 0

    def _log_sum(self, name: str, values: Tensor) -> None:
        total = values.detach().float().sum().to(self.backbone.device)
        self._sums[name] = self._sums.get(name, 0) + torch.stack([total, torch.full_like(total, values.numel())])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add means since the last line to the log, over all processes; all call it."""
        nothing = torch.zeros(2, device=self.backbone.device)
        sums = torch.stack([self._sums.get(name, nothing) for name in LOGGED])
        for name, (total, count) in zip(LOGGED, self.accelerator.reduce(sums, "sum").tolist(), strict=True):
            if count:
                logs[name] = round(total / count, 5)
        self._sums.clear()
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Checkpoints hold what trains alone: safetensors, kilobytes to megabytes.  All ranks call it."""
        folder = Path(output_dir or self.args.output_dir or ".")
        named = self._trained_parameters()
        with whole(named.values()):
            state = {name: parameter.detach().cpu().clone() for name, parameter in named.items()}
        if self.args.should_save:
            with replacing(folder / EXPERT_STATE) as draft:
                save_file(state, draft)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / EXPERT_STATE
        try:
            state = load_file(path)
        except Exception as error:
            raise SleepkitError(f"{path} cannot be read ({error}); delete the checkpoint to repeat the night") from error
        with torch.no_grad():
            for name, parameter in self._trained_parameters().items():
                parameter.copy_(state[name])

    def _trained_parameters(self) -> dict[str, nn.Parameter]:
        named = {slot: self.bank.named_parameters(slot) for slot in self.trained}
        return {f"slot.{slot}.{name}": parameter for slot, own in named.items() for name, parameter in own.items()}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint as transformers does, and seal it, with what was counted up to here."""
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.is_deepspeed_enabled:  # whose own checkpoint would hold the base too
            engine: Any = self.model_wrapped
            engine.save_checkpoint = partial(type(engine).save_checkpoint, engine, exclude_frozen_parameters=True)
        with writable(folder):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each rank has written the state of its generators
        tokens = self.tokens_before + self.tokens.before(self.state.global_step)
        counters = {"train_tokens": tokens, "train_seconds": self.train_seconds}
        main_only(lambda: seal_checkpoint(folder, self.identity, counters))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return what decides a training before its first step: a checkpoint of another one is not gone on from."""
        trained = {name: values for name, values in self.lm.named_parameters() if ".lora_" in name}
        return {
            "items": digest_of(self.items),
            "settings": settings_digest(self.seeding),
            "weights": weights_fingerprint(self.lm),
            "experts": digest({**self.bank.state_dict(), **trained}),
            "slots": {"trained": self.trained, "senders": self.senders},
            LAUNCH: self._launch(),
        }

    def _launch(self) -> str:
        """How its processes share the work: an optimizer's state is split so, and batches are."""
        plugin = self.args.deepspeed_plugin
        count = self.args.world_size
        sharing = f" under ZeRO-{plugin.zero_stage}" if plugin is not None else ""
        return f"{count} process{'es' if count > 1 else ''}{sharing}"

    @property
    def train_seconds(self) -> float:
        """Seconds of training, of this session and of those before it that were killed."""
        return self.seconds_before + time.perf_counter() - self._started

    @timed("training")
    def run(self, what: str = "training") -> dict[str, Any]:
        """Train to the end, resuming from the last checkpoint in ``output_dir``; returns history and cost.

        Raises:
            SleepkitError: it was stopped before its last step, or weights are not finite (``what`` names it).
        """
        checkpoint = self._resumed()
        self._started = time.perf_counter()
        training = self.lm.training
        with self.student_view(), self.backbone.in_blocks(), recomputing_here(self.lm), _without_frozen(self.lm):
            self.preparation.check_shortcuts([item for item in self.prepared if item.teacher is not None])
            self.train(resume_from_checkpoint=checkpoint)
        seconds, tokens = self.train_seconds, self.tokens_before + self.tokens.total
        if self.is_deepspeed_enabled:
            engine: Any = self.model_wrapped
            engine.destroy()
            unsplit(self.lm)
        conclude(self, what)
        self.lm.train(training)
        history = [line for line in self.state.log_history if "loss" in line]
        return {"history": history, "train_tokens": tokens, "train_seconds": seconds}

    def _resumed(self) -> str | None:
        """The checkpoint to go on from, whose counts are taken over."""
        args = self.seeding
        if not args.output_dir or (args.save_strategy == "no" and not args.enable_jit_checkpoint):
            return None
        folder, every = Path(args.output_dir), args.rollout_every if args.on_policy else 1
        identity = self.identity
        checkpoint = main_finds(lambda: last_checkpoint(folder, identity, every))
        if checkpoint is None:
            return None
        path, counters = checkpoint
        self.tokens_before, self.seconds_before = counters["train_tokens"], counters["train_seconds"]
        return str(path)


def teacher_prompt(tokenizer: PreTrainedTokenizerBase, item: SyntheticExample) -> list[int]:
    """Return the tokens that the teacher reads before the reply: the context, the worked pair, then the prompt again."""
    if not item.context:  # general and replayed items, and what the senders know
        return chat_ids(tokenizer, item.prompt)
    return chat_ids(
        tokenizer,
        [
            {"role": "user", "content": f"{item.context}\n\n{item.prompt}"},
            {"role": "assistant", "content": item.reply},
            {"role": "user", "content": item.prompt},
        ],
    )


@contextmanager
def _without_frozen(model: nn.Module) -> Iterator[None]:
    """Let ``model`` take up a checkpoint that leaves out what is frozen, inside the block; DeepSpeed would ask for all of it."""

    def are_here(_: nn.Module, keys: Any) -> None:
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        keys.missing_keys[:] = [name for name in keys.missing_keys if name in trained]

    handle = model.register_load_state_dict_post_hook(are_here)
    try:
        yield
    finally:
        handle.remove()


class TokenCount:
    """Tokens of all ranks by step, as a checkpoint may be written in the middle of a step, which is then taken again."""

    def __init__(self) -> None:
        self.total, self._step, self._of_step = 0, -1, 0

    def add(self, step: int, tokens: int) -> None:
        """Count tokens of a step."""
        if step != self._step:
            self._step, self._of_step = step, 0
        self._of_step += tokens
        self.total += tokens

    def before(self, step: int) -> int:
        """Those of all steps before."""
        return self.total - (self._of_step if self._step >= step else 0)
