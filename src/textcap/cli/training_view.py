"""Show a training run on stderr: some lines at the start, a progress bar on a terminal, and a line for each epoch."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import TaskID

from textcap.cli.console import note, progress_bar
from textcap.cli.progress import download_progress, show_embedded
from textcap.config import MOVING
from textcap.data.text import counted

if TYPE_CHECKING:
    from textcap.training.events import Event, Measured, Started, Stepped


class TrainingView:
    """A context manager that shows the events of a training run if it is passed as the run's `report`.

    Args:
        output: The model folder that the run writes.

    Attributes:
        show_download: Shows the progress of a download; to be passed as the run's `download_progress`.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._bar = progress_bar()
        self._embedding: dict[str, TaskID] = {}
        self._training: TaskID | None = None
        self._downloads = ExitStack()
        self.show_download = self._downloads.enter_context(download_progress())

    def __enter__(self) -> "TrainingView":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._downloads.close()
        self._bar.stop()
        if kind in (KeyboardInterrupt, SystemExit) and self._training is not None:
            from textcap.training.state import has_saved

            path = f"{self._output}.partial"
            note(f"the last saved state is in {path}" if has_saved(self._output) else "no state was saved yet")

    def __call__(self, event: "Event") -> None:
        """Show an event."""
        from textcap.training.events import Embedded, Measured, Started, Stepped

        match event:
            case Embedded(n_done, n_total, what):
                self._start_bar()
                show_embedded(self._bar, self._embedding, n_done, n_total, what)
            case Started():
                self._show_start(event)
            case Stepped():
                self._show_step(event)
            case Measured():
                _show_measured(event)

    def _start_bar(self) -> None:
        """Start the bar if it has not started; a terminal shows one display at a time, so downloads end first."""
        self._downloads.close()
        self._bar.start()

    def _show_start(self, started: "Started") -> None:
        self._start_bar()
        for task in self._embedding.values():
            self._bar.remove_task(task)
        model = started.model
        devices = f"{model.n_processes} x " if model.n_processes > 1 else ""
        lines = [
            f"backbone {model.backbone} on {devices}{model.device}, {model.precision}",
            *_bridge_lines(started),
            *_source_lines(started),
            f"training on {counted(model.n_training_captions, 'caption')}, {model.n_held_out_captions:,} held out; "
            + counted(started.total_steps, "step")
            + ("" if model.training.steps else f" in {counted(model.training.epochs, 'epoch')}"),
        ]
        if started.warmup_steps != model.training.warmup_steps:
            lines.append(
                f"warm-up shortened from {model.training.warmup_steps:,} to {counted(started.warmup_steps, 'step')}, "
                "a fifth of this short run"
            )
        if started.first_step:
            lines.append(f"continuing an unfinished run from step {started.first_step:,}")
        note(*lines)
        self._training = self._bar.add_task(
            "training", total=started.total_steps, completed=started.first_step, status=""
        )

    def _show_step(self, stepped: "Stepped") -> None:
        if self._training is not None:
            status = f"loss {stepped.loss:.3f}, {stepped.captions_per_s:.3g} captions/s"
            self._bar.update(self._training, completed=stepped.step, status=status)


def _bridge_lines(started: "Started") -> list[str]:
    bridge, kinds = started.model.bridge, {source.kind for source in started.sources}
    noise = f"noise on text embeddings: variance {bridge.noise_variance:g} (standard deviation {bridge.noise_std:.4g})"
    if bridge.calibration is not None:
        noise += f", measured on {bridge.calibration.pairs_name}"
    lines = [noise] if "text" in kinds else []
    if bridge.kind in MOVING:
        sample = bridge.sample
        source = f"{counted(sample.n_sounds, 'sound')} of {sample.name}" if sample else "the backbone's means"
        lines.insert(0, f"bridge {bridge.kind}, computed from {source}")
    if started.model.adapter is not None:
        lines.append(f"linear adapter fitted on {started.model.adapter.pairs_name}")
    if "audio" in kinds:
        lines.append(f"noise on audio embeddings: variance {bridge.audio_noise_variance:g}")
    return lines


def _source_lines(started: "Started") -> list[str]:
    """Return a line for each source, or none if a single source gives each of its captions once per epoch."""
    if len(started.sources) == 1 and started.sources[0].n_per_epoch == started.model.n_training_captions:
        return []
    return [
        f"  {source.name}: {counted(source.n_captions, f'{source.kind} caption')}, {source.n_per_epoch:,} per epoch"
        for source in started.sources
    ]


def _show_measured(done: "Measured") -> None:
    step = f", step {done.step:,}" if done.within_epoch else ""
    parts = [f"epoch {done.epoch}/{done.epochs}{step}: loss {done.loss:.3f}"]
    if done.held_out_loss is not None:
        parts.append(f"held-out loss {done.held_out_loss:.3f}")
    if done.distinct_share is not None:
        parts.append(f"{done.distinct_share:.0%} distinct captions")
    parts.append(f"{done.captions_per_s:.3g} captions/s")
    note(", ".join(parts))
    for sample in done.samples:  # may contain any characters; `note` makes them safe
        note(f"  {sample.reference} -> {sample.caption}")
