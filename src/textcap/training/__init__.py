"""Train a captioner on captions alone, on pairs of sound and text, or on both, and write its model folder.

Joins the other modules: text embeddings, examples, the training loop, the model folder. Prints nothing; progress is
reported as events. A run that was killed continues when `train` is called again with the same job.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import InitProcessGroupKwargs

from textcap.config import MapperConfig, to_dict
from textcap.data.captions import CaptionFile, CaptionSet
from textcap.data.pairs import PairSet
from textcap.data.text import STDIN, printable
from textcap.device import memory_errors, resolve_device
from textcap.errors import DeviceError
from textcap.files import check_folder_place
from textcap.gap.bridge import Bridge
from textcap.model_folder import ModelConfig, is_model_folder, package_versions, save_model
from textcap.models.backbone import EMBEDDED, Backbone, check_trainable
from textcap.training.data import Examples
from textcap.training.events import Event, Report, Started
from textcap.training.job import TrainingJob
from textcap.training.loop import MapperTraining
from textcap.training.prepare import (
    MEMORY_HINT,
    TrainingData,
    embed_all_pairs,
    identity,
    load_job_adapter,
    make_bridge,
    make_job_examples,
    max_tokens,
    pair_files,
)
from textcap.training.processes import launch, torchrun_place
from textcap.training.state import WorkFolder, load_state
from textcap.weights import WEIGHT_SETS, DownloadProgress


def train(
    job: TrainingJob,
    captions: CaptionSet | None,
    report: Report | None = None,
    *,
    pairs: Sequence[PairSet] = (),
    noise_pairs: PairSet | None = None,
    n_processes: int | None = None,
    download_progress: DownloadProgress | None = None,
) -> Path:
    """Train a mapper on captions, on pairs or on both, and write its model folder.

    Until the run is done, a work folder beside the output keeps what is needed to continue after an interruption.

    Args:
        job: The settings, and where to write the model folder.
        captions: Captions to learn from their text embeddings with noise (the paper's method); None to train on
            pairs only.
        report: Called with each event, in this process.
        pairs: Sounds with captions. Each caption is learned from the embedding of its sound (the paper's audio-text
            training).
        noise_pairs: Pairs to measure the noise on text with, used if `job.bridge` is None.
        n_processes: The number of processes. By default one for each visible CUDA device if `job.device` resolves to
            CUDA without a device number, else one. Ignored under torchrun, which has started the processes itself.
        download_progress: Called with the bytes downloaded if the backbone has to be downloaded.

    Returns:
        The model folder.

    Raises:
        InputError: The output exists and may not be overwritten, there is an unfinished run with other settings, or
            the captions, pairs or settings cannot be used.
        DeviceError: The device cannot be used, or has not enough memory.
        DownloadError: The backbone is not on disk and cannot be downloaded.
        CheckpointError: The backbone, the adapter or the state of the unfinished run cannot be used.
    """
    report = report or _ignore_event
    data = TrainingData(captions, tuple(pairs), noise_pairs)
    output = Path(os.path.abspath(job.output))
    check_output(job, data.names)
    n_started = torchrun_place()[1]
    check_trainable(job.backbone)
    device = resolve_device(job.device)
    backbone = Backbone.load(job.backbone, offline=job.offline, progress=download_progress)
    max_tokens(backbone, mapper_config(job, backbone))
    load_job_adapter(job, backbone)
    if n_started > 1:
        n_processes = 1  # torchrun, or `launch` below, has started the other processes
    elif n_processes is None:
        use_all_devices = device.type == "cuda" and device.index is None
        n_processes = torch.cuda.device_count() if use_all_devices else 1
    if n_processes > 1:
        try:
            launch(replace(job, output=str(output)), data, n_processes, report)
        finally:
            WorkFolder.sweep(output)
    else:
        with _accelerator(device) as accelerator:
            _train_in_this_process(replace(job, output=str(output)), data, backbone, accelerator, report)
    return output


def check_output(job: TrainingJob, caption_paths: Iterable[str | Path] = ()) -> None:
    """Check that the model folder of a job may be written, before any work is done for it.

    Args:
        job: The job that names the output.
        caption_paths: The files that will be read. A folder that contains one of them is never overwritten.

    Raises:
        InputError: The output exists and may not be overwritten.
    """
    paths = [path for path in caption_paths if str(path) != STDIN]
    check_folder_place(Path(job.output), force=job.force, is_ours=is_model_folder, inputs=paths)


def mapper_config(job: TrainingJob, backbone: Backbone) -> MapperConfig:
    """Return the mapper sizes of a job: those of the backbone, with the changes that the job asks for."""
    changes: dict[str, Any] = {"prefix_length": job.prefix_length, "n_layers": job.mapper_layers}
    return replace(backbone.config.mapper, **{name: value for name, value in changes.items() if value is not None})


@contextmanager
def _accelerator(device: torch.device) -> Iterator[Accelerator]:
    """Yield the accelerator for a device, and afterwards reset the process-wide state that it created."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    use_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    was_initialized = is_initialized()
    # The other processes wait while the main one computes the embeddings, and at the end of each epoch.
    long_timeout = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if use_bfloat16 else "no",
        kwargs_handlers=[long_timeout],
    )
    try:
        if accelerator.device.type != device.type:
            message = f"accelerate chose the device {accelerator.device}, not {device} as requested"
            raise DeviceError(message, hint="unset the environment variables ACCELERATE_*")
        yield accelerator
    finally:
        if not was_initialized:
            accelerator.end_training()
            # accelerate has no public way to let a process train on another device later.
            AcceleratorState._reset_state(True)


def _ignore_event(event: Event) -> None:
    del event


def _train_in_this_process(
    job: TrainingJob, data: TrainingData, backbone: Backbone, accelerator: Accelerator, report: Report
) -> None:
    is_main = accelerator.is_main_process
    report = report if is_main else _ignore_event
    device = accelerator.device
    with accelerator.main_process_first():  # the other processes read its results from the cache
        embedded = embed_all_pairs(data, backbone, device, report)
        bridge = make_bridge(job, data, backbone, device, report)
    mapper = mapper_config(job, backbone)
    settings = {
        **identity(data, embedded, bridge),
        "backbone": backbone.content_hash,
        "bridge": to_dict(bridge.config),
        "mapper": to_dict(mapper),
        "training": to_dict(job.training),
    }
    output = Path(job.output)
    work = WorkFolder.open(output, settings, force=job.force) if is_main else None
    try:
        examples = make_job_examples(job, data, embedded, backbone, mapper, device, report)
        with memory_errors(f"on {accelerator.device} while loading the models", hint=MEMORY_HINT):
            run = MapperTraining(
                examples,
                backbone.language_model(accelerator.device),
                backbone.tokenizer,
                bridge,
                mapper,
                job.training,
                accelerator,
                report=report,
                work=work,
            )
        accelerator.wait_for_everyone()  # the main process has now kept or discarded the state of an earlier run
        if state := load_state(WorkFolder.path_of(output)):
            run.resume(*state)
        started = _started(job, backbone, bridge, examples, run)
        report(started)
        trained = run.run()
        if work is not None:
            config = ModelConfig(
                backbone_name=_absolute_name(job.backbone),
                backbone_hash=backbone.content_hash,
                bridge=bridge.config,
                mapper=mapper,
                training=job.training,
                end_token_id=backbone.tokenizer.end_id,
                n_training_captions=len(examples.training),
                n_held_out_captions=len(examples.held_out),
                caption_files=_printable(data.texts.files if data.texts else ()),
                pair_files=_printable(pair_files(embedded)),
                adapter=bridge.adapter.facts if bridge.adapter is not None else None,
                packages=package_versions(),
                command=printable(job.command),
                device=started.device,
                precision=started.precision,
                n_processes=started.n_processes,
            )
            save_model(output, config, trained.mapper, trained.metrics, adapter=bridge.adapter, force=job.force)
            work.remove()
    finally:
        if work is not None:
            work.close()


def _printable(files: Iterable[CaptionFile]) -> tuple[CaptionFile, ...]:
    return tuple(replace(file, name=printable(file.name)) for file in files)


def _started(job: TrainingJob, backbone: Backbone, bridge: Bridge, examples: Examples, run: MapperTraining) -> Started:
    accelerator = run.accelerator
    return Started(
        backbone=backbone.name,
        device=str(accelerator.device),
        precision="bfloat16" if accelerator.mixed_precision == "bf16" else "float32",
        n_processes=accelerator.num_processes,
        n_captions=len(examples.training),
        n_held_out=len(examples.held_out),
        noise_variance=bridge.config.noise_variance,
        noise_std=bridge.config.noise_std,
        epochs=job.training.epochs,
        total_steps=run.total_steps,
        first_step=run.progress.step,
        warmup_steps=run.warmup_steps,
        warmup_asked=job.training.warmup_steps,
        sources=examples.counts,
        noise_from=bridge.config.calibration.pairs_name if bridge.config.calibration else None,
        audio_noise_variance=bridge.config.audio_noise_variance,
        adapter=job.adapter,
    )


def _absolute_name(backbone: str) -> str:
    """Return a backbone's name in a form that is valid in any working folder: a path becomes absolute."""
    return backbone if backbone == EMBEDDED or backbone in WEIGHT_SETS else os.path.abspath(backbone)
