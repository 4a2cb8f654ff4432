"""The loop: stages of epochs of steps, validation, early stopping, checkpoints.

Everything random in a step follows from ``(seed, epoch, step)`` alone, so a run that was killed
goes on from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from nextup.data.stream import hash_seed
from nextup.errors import DivergedError
from nextup.evaluation.metrics import metrics
from nextup.models.base import Recommender, Stage
from nextup.settings import make_config
from nextup.train import checkpoint, kept
from nextup.train.assess import rank_everywhere
from nextup.train.checkpoint import Progress
from nextup.train.config import TrainConfig, with_metric
from nextup.train.device import sum_over_processes
from nextup.train.job import Job
from nextup.train.optimizer import make_optimizer, takes_sparse
from nextup.train.progress import Bar, Log, peak_memory_mb
from nextup.train.schedule import step_size
from nextup.train.weights import Weights, follow, weights_of


class Loop:
    """Trains one model to its end, from wherever its checkpoint stands."""

    def __init__(self, job: Job) -> None:
        self.job, self.model = job, job.model
        self.fabric = job.fabric
        self.model.prepare(job.train, self.fabric.device)
        self.stages = self.model.stages()
        self.configs = [self._config_of(stage) for stage in self.stages]
        self.progress = Progress()
        self.best: Weights = {}
        self.average: Weights = {}
        self.sums: Weights = {}
        self.file = job.folder / "checkpoint" / "state.safetensors"
        resumed = self.file.is_file()
        if resumed:
            self.progress = checkpoint.read_progress(self.file)
        self._begin_stage(resumed)
        if resumed:
            self._restore()
        log = job.folder / "log.jsonl" if self.fabric.is_global_zero else None
        self.log = Log(log, self.progress.log_bytes)

    def run(self) -> dict[str, Any]:
        """Train all stages to their end, the best weights in the model; return what to remember."""
        while True:
            stage = self.stages[self.progress.stage]
            done = self._found(stage) or self._trained(stage)
            if self.progress.stage + 1 == len(self.stages):
                self.model.conclude(self.job.train, self.fabric.device)
                break
            self.progress = Progress(
                stage=self.progress.stage + 1,
                seconds=self.progress.seconds,
                began=self.progress.seconds,
                extra={**self.progress.extra, stage.name: done},
            )
            self._begin_stage(resumed=False)
        facts = {**done, "train_seconds": round(self.progress.seconds, 3)}
        return {**facts, "stages": self.progress.extra} if len(self.stages) > 1 else facts

    # ---- a stage ------------------------------------------------------------------------------
    def _config_of(self, stage: Stage) -> TrainConfig:
        """Return the settings of training in a stage, checked."""
        values = {**self.job.config.model_dump(), **stage.settings}
        config = make_config(TrainConfig, values, f"training, stage `{stage.name}`")
        return with_metric(config, self.job.protocol)

    def _trained(self, stage: Stage) -> dict[str, Any]:
        """Train a stage from wherever it stands; return what to remember of it."""
        shown = self.job.shown and self.fabric.is_global_zero
        label = stage.name if len(self.stages) > 1 else ""
        with Bar(shown, self.config.epochs, self.config.metric, label) as bar:
            while not self.progress.stopped and self.progress.epoch < self.config.epochs:
                self._epoch(bar)
        if self.best:
            self.model.load_state_dict(self.best)
        elif self.average:
            self.model.load_state_dict(self.average)
        if not stage.validates:
            self._check_weights(stage)
        done = {"epochs": self.progress.epoch, "best_epoch": self.progress.best_epoch + 1}
        if self.progress.out_of_time:
            done["out_of_time"] = True
        key = self._key(stage) if self.progress.code == kept.code_mark() else None
        if self.job.kept is not None and key is not None and self.fabric.is_global_zero:
            seconds = round(self.progress.seconds - self.progress.began, 3)
            last = {name: float(value) / len(self.stream) for name, value in self.sums.items()}
            facts = {**done, "seconds": seconds, "last": last}
            kept.keep(self.job.kept, key, self.model.learning.state_dict(), facts)
        return done

    def _check_weights(self, stage: Stage) -> None:
        """Check what no validation has looked at: its last step may have broken them."""
        if not all(bool(torch.isfinite(each).all()) for each in self.parameters):
            raise DivergedError(
                f"training: stage `{stage.name}` ended with weights that are not finite; try a "
                "smaller learning_rate, a clip_norm of 1, or precision 32"
            )

    def _key(self, stage: Stage) -> str | None:
        """Everything that decides a stage's weights, as text; None if it is never shared."""
        return kept.key_of(stage, self.config, self.job.about, self.fabric.world_size)

    def _found(self, stage: Stage) -> dict[str, Any] | None:
        """Take over the weights of a stage that was trained before, if any were kept."""
        key = self._key(stage)
        fresh = self.progress.epoch == self.progress.step == 0
        if self.job.kept is None or key is None or not fresh:
            return None
        found = kept.find(self.job.kept, key)
        # The first process says whether it is there: others may look before or after.
        if not self.fabric.broadcast(found is not None):
            return None
        found = found or kept.find(self.job.kept, key)
        assert found is not None
        weights, facts = found
        self.model.learning.load_state_dict(weights)
        last = facts.pop("last", {})  # the parts of its loss, where it was trained
        self.log.write(stage=stage.name, reused=True, **facts, **last)
        self.progress.seconds += facts["seconds"]  # they were spent, if elsewhere
        return {**facts, "reused": True}

    def _begin_stage(self, resumed: bool) -> None:
        """Set up the stage that `progress` names: its settings, batches and optimiser."""
        job, number = self.job, self.progress.stage
        stage = self.stages[number]
        self.config = self.configs[number]
        if not resumed:
            self.progress.code = kept.code_mark()
        within = number if stage.number is None else stage.number
        self.seed = job.seed if within == 0 else hash_seed(job.seed, within)
        self._seed(hash_seed(self.seed, 2))
        self.model.begin_stage(stage.name, resumed)
        self.stream = self.model.training_stream(
            job.train,
            batch_size=self.config.batch_size,
            seed=self.seed,
            device=self.fabric.device,
            whole=job.split.whole,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        groups = self.model.parameter_groups()
        self.parameters = [p for group in groups for p in group.parameters]
        self.rates = [group.rate for group in groups]
        self.optimizer = make_optimizer(self.config, groups)
        sparse = takes_sparse(self.config, self.fabric.world_size)
        for part in self.model.modules():
            if isinstance(part, Recommender):
                part.sparse_gradients = sparse
        self.best, self.sums = {}, {}
        self.average = weights_of(self.model, copy=True) if self.config.average else {}

    # ---- an epoch -----------------------------------------------------------------------------
    def _epoch(self, bar: Bar) -> None:
        progress, epoch = self.progress, self.progress.epoch
        clock = saved = time.perf_counter()
        first = progress.step
        bar.start_epoch(epoch, len(self.stream), first)
        if first == 0:
            self.sums = {}
            self.model.begin_epoch(epoch)
        order = self.stream.order(epoch)
        rows = 0
        self.model.train()
        for step in range(first, len(self.stream)):
            total = self._step(order, epoch, step)
            left = self.stream.rows - step * self.config.batch_size
            rows += max(min(self.config.batch_size, left), 0)
            progress.step = step + 1
            now = time.perf_counter()
            shown = bar.live and step % 10 == 0
            bar.step(float(total) if shown else None, rows / (now - clock))
            if now - saved > self.config.checkpoint_seconds:
                progress.seconds += now - saved
                saved = now
                self._save(together=False)
            if progress.step < len(self.stream) and self._over(now - saved):
                break
        ran, cut = progress.step, progress.step < len(self.stream)
        self._check_finite(epoch)
        trained = time.perf_counter()
        entry: dict[str, Any] = {
            **({"stage": self.stages[progress.stage].name} if len(self.stages) > 1 else {}),
            "epoch": epoch + 1,
            **{name: float(value) / ran for name, value in self.sums.items()},
            **({"steps": ran} if cut else {}),
            "sequences_per_second": round(rows / max(trained - clock, 1e-9), 1),
            "seconds": round(trained - clock, 3),
        }
        progress.epoch, progress.step = epoch + 1, 0
        best = False
        out = cut or self._over(trained - saved)
        due = progress.epoch % self.config.validate_every == 0
        validates = self.job.validates and self.stages[progress.stage].validates
        if validates and (due or out or progress.epoch == self.config.epochs):
            measured = self._validate()
            entry.update({name: round(value, 6) for name, value in measured.items()})
            best = measured[self.config.metric] > progress.best_value
            if best:
                progress.best_value = measured[self.config.metric]
                progress.best_epoch, progress.stale = epoch, 0
                self.best = {k: v.clone() for k, v in self._answering_weights().items()}
            elif progress.epoch * len(self.stream) >= self.config.warmup_steps:
                progress.stale += 1  # (a step size that still rises is no time to give up)
            progress.stopped = 0 < self.config.patience <= progress.stale
            out = out or self._over(time.perf_counter() - saved)
        ended = progress.stopped or (progress.epoch == self.config.epochs and not cut)
        progress.out_of_time = out and not ended
        progress.stopped = progress.stopped or progress.out_of_time
        entry.update({k: round(v, 6) for k, v in self.model.diagnostics().items()})
        end = time.perf_counter()
        entry["validation_seconds"] = round(end - trained, 3)
        entry["peak_memory_mb"] = peak_memory_mb()
        progress.seconds += end - saved
        self.log.write(**entry)
        bar.end_epoch(epoch, entry, best)
        self._save()

    def _over(self, more: float = 0.0) -> bool:
        """Whether the stage's time is up; all processes go by the clock of the first."""
        limit = self.config.max_seconds
        if limit is None:
            return False
        up: bool = self.fabric.broadcast(self.progress.time_is_up(limit, len(self.stages), more))
        return up

    def _step(self, order: object, epoch: int, step: int) -> Tensor:
        at = epoch * len(self.stream) + step
        now = step_size(self.config, at, len(self.stream))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = now * rate
        batch = self.stream.batch(order, epoch, step)  # type: ignore[arg-type]
        self._seed(hash_seed(self.seed, epoch, step, self.fabric.global_rank, 1))
        with self.fabric.autocast():
            losses = self.model.loss(batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        sum_over_processes(self.fabric, self.parameters)
        if self.config.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            follow(self.average, self.model, self.config.average, at)
        return self._add_up({"loss": losses.total.detach(), **losses.parts})

    def _add_up(self, values: Weights) -> Tensor:
        """Add a step's loss and its parts to the epoch's sums; return the loss."""
        together = torch.stack([value.double() for value in values.values()])
        if self.fabric.world_size > 1:
            together = self.fabric.all_reduce(together, reduce_op="sum")  # type: ignore[assignment]
        for name, value in zip(values, together, strict=True):
            self.sums[name] = value if name not in self.sums else self.sums[name] + value
        return together[0]

    def _seed(self, seed: int) -> None:
        """Seed the generators that a step draws from (`torch.manual_seed` asks every backend)."""
        torch.default_generator.manual_seed(seed)
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # ---- validation ---------------------------------------------------------------------------
    def _validate(self) -> dict[str, float]:
        job = self.job
        current = weights_of(self.model, copy=True) if self.average else None
        if self.average:
            self.model.load_state_dict(self.average)
        self.model.pause(job.train, job.split.valid.users)
        ranked = rank_everywhere(self.fabric, self.model, job.split.valid, job.split, job.protocol)
        if current is not None:
            self.model.load_state_dict(current)
        return metrics(ranked)

    def _answering_weights(self) -> Weights:
        return self.average or weights_of(self.model)

    def _check_finite(self, epoch: int) -> None:
        if not all(bool(torch.isfinite(value)) for value in self.sums.values()):
            raise DivergedError(
                f"training: the loss of epoch {epoch + 1} is not finite; try a smaller "
                "learning_rate, a clip_norm of 1, or precision 32"
            )

    # ---- checkpoints --------------------------------------------------------------------------
    def _save(self, together: bool = True) -> None:
        """Write a checkpoint; by the clock of a process alone, none waits for another."""
        if self.fabric.is_global_zero:
            self.progress.log_bytes = self.log.length
            others = {"best": self.best, "average": self.average, "sums": self.sums}
            checkpoint.save(
                self.file, self.progress, weights_of(self.model), self.optimizer, others
            )
        if together:
            self.fabric.barrier()

    def _restore(self) -> None:
        _, groups = checkpoint.load(self.file, self.fabric.device, self.optimizer)
        self.model.load_state_dict(groups["model"])
        self.best = groups.get("best", {})
        self.average = groups.get("average", {})
        self.sums = groups.get("sums", {})
