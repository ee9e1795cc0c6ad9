"""The loop that all stages of the training share; a stage that was killed continues at its last checkpoint."""

import contextlib
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from textcap.errors import DeviceError
from textcap.models.precision import check_precision

_STEPS_PER_CHECKPOINT = 50


def train(
    checkpoint: Path,
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    report: Callable[[int, float, float], None],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    warm_up: float = 0.1,
) -> None:
    """Train a model in place with AdamW and one cycle of the learning rate.

    Args:
        checkpoint: File for the state of an unfinished training; deleted by the caller when the result is written. One
            of other settings is replaced.
        loss_of: Returns the loss of a step, from 1 on; what it draws must depend on nothing but the step.
        report: Called now and then with the step, the mean of the last losses, and the seconds since the start.
        learning_rate: The peak of the cycle.
        warm_up: Share of the steps in which the learning rate rises.
    """
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=warm_up)
    n_done, before_s, settings = 0, 0.0, [steps, learning_rate, weight_decay, warm_up]
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else {}
    if state.get("settings") == settings:
        model.load_state_dict(state["model"]), optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        n_done, before_s = state["step"], state["seconds"]
    start, losses = time.monotonic() - before_s, []
    for step in range(n_done + 1, steps + 1):
        model.train()
        loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % _STEPS_PER_CHECKPOINT == 0 or step == steps:
            report(step, float(np.mean(losses[-_STEPS_PER_CHECKPOINT:])), time.monotonic() - start)
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "settings": settings,
            }
            state |= {"schedule": schedule.state_dict(), "seconds": time.monotonic() - start}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state, partial)
            os.replace(partial, checkpoint)


def half_precision() -> contextlib.AbstractContextManager[object]:
    """Return a context that computes in bfloat16 where the processor has instructions for it."""
    return torch.autocast("cpu", torch.bfloat16) if _has_bfloat16() else contextlib.nullcontext()


@cache
def _has_bfloat16() -> bool:
    try:
        check_precision("bf16", torch.device("cpu"))
    except DeviceError:
        return False
    return True
