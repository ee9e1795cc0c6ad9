"""Train a mapper: the language model stays frozen; the mapper learns the prefix that makes it write a caption.

Reading captions and writing the model folder are left to `textcap.training`. The number of processes changes the result
by rounding only, about 1e-6: the noise of a step is drawn for its whole batch, each process takes its share, and the
loss is divided by the number of tokens in the whole batch.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from textcap.config import MapperConfig, TrainingConfig
from textcap.device import is_out_of_memory, memory_errors, seeded_generator
from textcap.errors import InputError
from textcap.gap.bridge import Bridge
from textcap.models.language_model import CaptionTokenizer, LanguageModel
from textcap.models.mapper import Mapper
from textcap.training.data import MAPPER_STREAM, NOISE_STREAM, Examples, n_steps, rate_factor, scaled_warmup
from textcap.training.events import Measured, Report, Stepped
from textcap.training.held_out import evaluate_held_out
from textcap.training.sources import Indices
from textcap.training.state import TrainingProgress, WorkFolder

SAVE_EVERY_S = 300.0
MEASURE_EVERY = 2000  # steps at most

# Hidden values, captions times positions times width times layers, in one micro-batch: about 1.5 GB of activations on
# the CPU; other devices need larger products to be busy.
_MICRO_BATCH_VALUES = {"cpu": 2**24, "other": 2**27}
_STEPS_PER_REPORT = 10  # on any device but the CPU: reading the loss waits for the device
_ADAM_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

_logger = logging.getLogger("textcap")


class MapperTraining:
    """One training run on one set of examples.

    Args:
        examples: The captions and embeddings to train on.
        language_model: The frozen language model, on the accelerator's device.
        tokenizer: The language model's tokenizer.
        bridge: Applied to the embeddings before the mapper.
        mapper_config: The sizes of the mapper to train.
        config: Epochs or steps, batch size, learning rate, seed, and which mapper to keep.
        accelerator: The device, the precision and the processes.
        report: Called with steps and epochs; to be given to the main process only.
        work: The folder that the main process saves the state in; None to save nothing.
    """

    def __init__(
        self,
        examples: Examples,
        language_model: LanguageModel,
        tokenizer: CaptionTokenizer,
        bridge: Bridge,
        mapper_config: MapperConfig,
        config: TrainingConfig,
        accelerator: Accelerator,
        *,
        report: Report = lambda event: None,
        work: WorkFolder | None = None,
    ) -> None:
        self.examples, self.bridge, self.config = examples, bridge, config
        self.language_model, self.tokenizer = language_model, tokenizer
        self.accelerator, self.report, self.work = accelerator, report, work
        self._steps_per_epoch = n_steps(examples.n_per_epoch, config.batch_size, 1)
        self.total_steps = config.steps or self._steps_per_epoch * config.epochs
        self._n_epochs = math.ceil(self.total_steps / self._steps_per_epoch)
        self.warmup_steps = scaled_warmup(config.warmup_steps, self.total_steps)
        self.progress = TrainingProgress(n_threads=torch.get_num_threads(), n_processes=accelerator.num_processes)
        mapper = new_mapper(mapper_config, config.seed)
        optimizer = torch.optim.Adam(mapper.parameters(), lr=config.learning_rate)
        # Not wrapped for several processes: their gradients are summed in `_step`.
        self.mapper: Mapper = accelerator.prepare_model(mapper, evaluation_mode=True)
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self._n_divided = 1  # by how much steps are divided further, after memory ran out
        self._best: dict[str, Tensor] = {}  # parameters of the best mapper so far, if it is kept
        self._last_saved = time.monotonic()
        self._steps_per_reading = 1 if accelerator.device.type == "cpu" else _STEPS_PER_REPORT

    def resume(self, progress: TrainingProgress, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a saved state, as if the run had never stopped; log a warning if rounding will differ.

        Args:
            progress: How far the run had come.
            tensors: The mapper's parameters and Adam's moments, as they were saved.
        """
        now = self.progress
        for what in ("threads", "processes"):
            count, before = (getattr(one, f"n_{what}") for one in (now, progress))
            if count != before:
                change = f"the run continues with {count} instead of {before} {what}"
                _logger.warning("%s: rounding may change its mapper by up to about 1e-6", change)
        self.progress = dataclasses.replace(progress, n_threads=now.n_threads, n_processes=now.n_processes)
        names = [name for name, _ in self.mapper.named_parameters()]
        self.mapper.load_state_dict({name: tensors[f"mapper.{name}"] for name in names})
        state = {
            index: {moment: tensors[f"{moment}.{name}"] for moment in _ADAM_MOMENTS} for index, name in enumerate(names)
        }
        self._best = {name: tensors[f"best.{name}"] for name in names if f"best.{name}" in tensors}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def run(self) -> Mapper:
        """Train to the end, and return the mapper on the CPU, frozen; its metrics are in `progress`.

        Raises:
            InputError: The loss has become NaN or infinite, or the state cannot be saved.
            DeviceError: The device has not enough memory.
        """
        device, batch = self.accelerator.device, self.config.batch_size
        hint = f"lower --batch-size, say to {max(1, batch // 2)}"
        with memory_errors(f"on {device} with batches of {batch}", hint=hint):
            self._run_steps()
        mapper = Mapper(self.mapper.config)
        last = {name: tensor.cpu() for name, tensor in self.mapper.state_dict().items()}
        mapper.load_state_dict({**last, **self._best})
        return mapper.eval().requires_grad_(False)

    def _run_steps(self) -> None:
        config = self.config
        while self.progress.step < self.total_steps and not self._is_stalled():
            epoch, first = divmod(self.progress.step, self._steps_per_epoch)
            batches = self.examples.epoch_batches(config.batch_size, config.seed, epoch)
            last = min(len(batches), first + self.total_steps - self.progress.step)
            meter = _Meter()
            for index in range(first, last):
                loss_sum = self._step(batches[index], epoch, self.progress.step + meter.n_unread)
                batch = batches[index]
                meter.add(loss_sum, len(batch), int(self.examples.tokens.lengths[batch].sum()))
                is_measured = index + 1 == last or (index + 1) % MEASURE_EVERY == 0
                if meter.n_unread >= self._steps_per_reading or is_measured:
                    self._read_meter(meter)
                if is_measured:
                    self._measure(epoch, meter.captions_per_s)
                    if self._is_stalled():
                        return
                elif not meter.n_unread and time.monotonic() - self._last_saved > SAVE_EVERY_S:
                    self._save()

    def _is_stalled(self) -> bool:
        """Return, in every process, whether the held-out loss has not fallen for as long as the settings allow."""
        if self.config.patience is None:
            return False
        stalled: bool = broadcast_object_list([self.progress.n_worse >= self.config.patience])[0]
        if stalled and self.accelerator.is_main_process:
            _logger.info("stopped after step %s: the best was step %s", self.progress.step, self.progress.best_step)
        return stalled

    def _step(self, indices: Indices, epoch: int, step: int) -> Tensor:
        """Train on one batch; return this process's part of the summed loss in nats, a scalar."""
        generator = seeded_generator(self.config.seed, NOISE_STREAM, epoch, step)
        noisy = self.examples.bridged(indices, self.bridge, generator)  # [B, E] for all processes
        n_tokens = int(self.examples.tokens.lengths[indices].sum())

        rank, n_processes = self.accelerator.process_index, self.accelerator.num_processes
        # The last batch may be smaller than the number of processes. Those without a caption take the first one at
        # weight 0.
        mine = np.arange(len(indices))[rank::n_processes] if rank < len(indices) else np.zeros(1, np.int64)
        weight = 1.0 if rank < len(indices) else 0.0
        while True:
            try:
                parts = self._micro_batches(indices, mine)
                loss_sum = self._accumulate(indices, parts, noisy, weight, n_tokens)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(parts) == len(mine):
                    raise
            # Out here, where the error no longer holds on to what was being computed.
            self.optimizer.zero_grad()
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            self._n_divided *= 2
            _logger.warning("%s is out of memory: steps are divided further from here on", self.accelerator.device)
        if n_processes > 1:
            # Once, and by hand: a process that repeats its parts would wait for others in a sum of its own.
            for parameter in self.mapper.parameters():
                assert parameter.grad is not None
                torch.distributed.all_reduce(parameter.grad)
        # Set here because accelerate would advance a scheduler once for each process.
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_at(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss_sum

    def _accumulate(
        self, indices: Indices, parts: list[Indices], noisy: Tensor, weight: float, n_tokens: int
    ) -> Tensor:
        """Add up the gradients of this process's parts of a batch of `n_tokens`; return their summed loss in nats."""
        device = self.accelerator.device
        loss_sum = torch.zeros((), device=device)
        for part in parts:
            tokens, lengths = self.examples.tokens.padded(indices[part])
            with self.accelerator.autocast():
                prefixes = self.mapper(noisy[part].to(device))
                mean = self.language_model.loss(prefixes, tokens.to(device), lengths.to(device))
            part_sum = mean * (weight * int(lengths.sum()))
            self.accelerator.backward(part_sum * (1 / n_tokens))
            loss_sum += part_sum.detach()
        return loss_sum

    def _micro_batches(self, indices: Indices, mine: Indices) -> list[Indices]:
        """Divide this process's places in a batch into parts whose activations fit into memory at once."""
        longest = int(self.examples.tokens.lengths[indices[mine]].max())
        values = self.language_model.n_values(self.mapper.config.prefix_length, longest)
        most = _MICRO_BATCH_VALUES["cpu" if self.accelerator.device.type == "cpu" else "other"]
        n_parts = min(len(mine), math.ceil(len(mine) * values / most) * self._n_divided)
        return np.array_split(mine, n_parts)

    def rate_at(self, step: int) -> float:
        """Return the learning rate at a step counted from 0."""
        return self.config.learning_rate * rate_factor(step, self.warmup_steps, self.total_steps)

    def _read_meter(self, meter: "_Meter") -> None:
        """Add the meter's sums to the progress of the run, and report it."""
        if not meter.n_unread:
            return
        step = self.progress.step + meter.n_unread
        loss_sum, n_tokens = meter.read(lambda loss: self.accelerator.reduce(loss, reduction="sum"))
        if not math.isfinite(loss_sum):
            raise InputError(f"the loss at step {step} is {loss_sum}", hint="lower --learning-rate")
        self.progress = dataclasses.replace(
            self.progress,
            step=step,
            loss_sum=self.progress.loss_sum + loss_sum,
            n_tokens=self.progress.n_tokens + n_tokens,
        )
        self.report(Stepped(step=step, loss=loss_sum / n_tokens, captions_per_s=meter.captions_per_s))

    def _measure(self, epoch: int, captions_per_s: float) -> None:
        """Measure the mapper, keep it if it is the best so far, and save the state of the run."""
        progress = self.progress
        if self.accelerator.is_main_process:
            done = self._measured(epoch, progress.loss_sum / progress.n_tokens, captions_per_s)
            loss = done.held_out_loss
            if loss is not None and (loss < progress.best_loss or not progress.best_step):
                progress = dataclasses.replace(progress, best_step=progress.step, best_loss=loss)
                if self.config.keep == "best":
                    self._best = {name: one.detach().cpu().clone() for name, one in self.mapper.named_parameters()}
            progress = dataclasses.replace(progress, metrics=(*progress.metrics, dataclasses.asdict(done)))
            self.report(done)
        self.progress = dataclasses.replace(progress, loss_sum=0.0, n_tokens=0)
        self._save()

    def _measured(self, epoch: int, loss: float, captions_per_s: float) -> Measured:
        config = self.config
        held_out = None
        if len(self.examples.held_out):
            with self.accelerator.autocast():
                held_out = evaluate_held_out(
                    self.examples,
                    self.mapper,
                    self.bridge,
                    self.language_model,
                    self.tokenizer,
                    config.seed,
                )
            # After the first of several epochs, every run still generates the same caption for everything.
            if held_out.collapsed and (epoch > 0 or self._n_epochs == 1):
                distinct = f"{held_out.distinct_share:.0%} of its captions are distinct"
                _logger.warning("the model generates nearly the same captions for everything: %s", distinct)
        return Measured(
            epoch=epoch + 1,
            epochs=self._n_epochs,
            step=self.progress.step,
            loss=loss,
            held_out_loss=held_out.loss if held_out else None,
            learning_rate=self.rate_at(self.progress.step - 1),
            captions_per_s=captions_per_s,
            distinct_share=held_out.distinct_share if held_out else None,
            samples=held_out.samples if held_out else (),
            within_epoch=self.progress.step % self._steps_per_epoch > 0 and self.progress.step < self.total_steps,
        )

    def _save(self) -> None:
        self._last_saved = time.monotonic()
        if self.work is None or not self.accelerator.is_main_process:
            return
        parameters, state = dict(self.mapper.named_parameters()), self.optimizer.state_dict()["state"]
        tensors: dict[str, Tensor] = {f"mapper.{name}": parameter for name, parameter in parameters.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for index, name in enumerate(parameters):
            tensors |= {f"{moment}.{name}": state[index][moment] for moment in _ADAM_MOMENTS}
        self.work.save(self.progress, tensors)


class _Meter:
    """Collects the losses of an epoch on the device, so that they need to be read only every few steps."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._losses: list[Tensor] = []  # not yet read
        self._unread_tokens = 0
        self._n_captions = 0
        self._elapsed_s = 0.0  # at the last reading

    @property
    def n_unread(self) -> int:
        """The number of steps since the last reading."""
        return len(self._losses)

    @property
    def captions_per_s(self) -> float:
        """Captions per second up to the last reading."""
        return self._n_captions / max(self._elapsed_s, 1e-9)

    def add(self, loss_sum: Tensor, n_captions: int, n_tokens: int) -> None:
        """Count one step.

        Args:
            loss_sum: The summed loss of this process, a scalar in nats.
            n_captions: The number of captions in the whole batch.
            n_tokens: The number of tokens in the whole batch.
        """
        self._losses.append(loss_sum)
        self._unread_tokens += n_tokens
        self._n_captions += n_captions

    def read(self, reduce: Callable[[Tensor], Any]) -> tuple[float, int]:
        """Return the summed loss in nats and the number of tokens since the last reading; waits for the device.

        Args:
            reduce: Sums a scalar tensor over all processes.
        """
        totals = float(reduce(torch.stack(self._losses).sum())), self._unread_tokens
        self._losses, self._unread_tokens = [], 0
        self._elapsed_s = time.monotonic() - self._started
        return totals


def new_mapper(config: MapperConfig, seed: int) -> Mapper:
    """Return a mapper with random weights that follow from the seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeded_generator(seed, MAPPER_STREAM).initial_seed())
        return Mapper(config)
