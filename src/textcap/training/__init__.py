"""Train a captioner, on captions alone or on pairs of sound and text: from what is read to a model folder.

Puts together what the other modules do: text embeddings, examples, the loop, the model folder. It prints
nothing; what happens is reported as events. A run that was killed goes on when it is asked for again.
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

    What is needed to go on after an interruption lies in a folder beside the output until the run is done.

    Args:
        captions: Learned from their text embeddings, with noise (the paper's method); None where there are pairs.
        report: Told what happens, in this process.
        pairs: Captions that are learned from the embeddings of their sounds (the paper's audio-text training).
        noise_pairs: The noise on text is measured on them, where `job.bridge` does not give it.
        n_processes: By default one for each CUDA device that is visible when `job.device` names none of them,
            else one. Under torchrun this process is one of those it started.
        download_progress: Told of bytes when the backbone has to be fetched.

    Returns:
        The model folder.

    Raises:
        InputError: The output is there already and may not be replaced, or an unfinished run with other settings
            is; captions or settings cannot be used.
        DeviceError: The device cannot be used, or its memory does not suffice.
        DownloadError: The backbone is not on disk and cannot be fetched.
        CheckpointError: The backbone or the state of the unfinished run is broken.
    """
    report = report or _report_nothing
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
        n_processes = 1  # torchrun, or `launch` below, has started the others
    elif n_processes is None:
        every = device.type == "cuda" and device.index is None
        n_processes = torch.cuda.device_count() if every else 1
    if n_processes > 1:
        try:
            launch(replace(job, output=str(output)), data, n_processes, report)
        finally:
            WorkFolder.sweep(output)
    else:
        with _accelerator(device) as accelerator:
            _train_here(replace(job, output=str(output)), data, backbone, accelerator, report)
    return output


def check_output(job: TrainingJob, caption_paths: Iterable[str | Path] = ()) -> None:
    """Make sure that the model folder of a job may be written, before any work is done for it.

    Args:
        caption_paths: The files that are read; a folder that holds one is never replaced.

    Raises:
        InputError: The output is there already and may not be replaced.
    """
    paths = [path for path in caption_paths if str(path) != STDIN]
    check_folder_place(Path(job.output), force=job.force, is_ours=is_model_folder, inputs=paths)


def mapper_config(job: TrainingJob, backbone: Backbone) -> MapperConfig:
    """Return the sizes of the mapper that a job trains."""
    changes: dict[str, Any] = {"prefix_length": job.prefix_length, "n_layers": job.mapper_layers}
    return replace(backbone.config.mapper, **{name: value for name, value in changes.items() if value is not None})


@contextmanager
def _accelerator(device: torch.device) -> Iterator[Accelerator]:
    """Give the accelerator for a device; its state, one for the whole process, ends with the block."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    use_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    was_initialized = is_initialized()
    # Processes wait for the main one at the end of an epoch, and for the one that computes the embeddings.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if use_bfloat16 else "no",
        kwargs_handlers=[patience],
    )
    try:
        if accelerator.device.type != device.type:
            message = f"training on {device} was asked for, and accelerate chose {accelerator.device}"
            raise DeviceError(message, hint="unset the environment variables ACCELERATE_*")
        yield accelerator
    finally:
        if not was_initialized:
            accelerator.end_training()
            # The only way to train on another device in this process.
            AcceleratorState._reset_state(True)


def _report_nothing(event: Event) -> None:
    del event


def _train_here(
    job: TrainingJob, data: TrainingData, backbone: Backbone, accelerator: Accelerator, report: Report
) -> None:
    is_main = accelerator.is_main_process
    report = report if is_main else _report_nothing
    device = accelerator.device
    with accelerator.main_process_first():  # the others find in the cache what it has computed
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
        accelerator.wait_for_everyone()  # until the main process has sorted out what an earlier run left
        if state := load_state(WorkFolder.path_of(output)):
            run.resume(*state)
        started = _started(job, backbone, bridge, examples, run)
        report(started)
        trained = run.run()
        if work is not None:
            config = ModelConfig(
                backbone_name=_lasting_name(job.backbone),
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


def _lasting_name(backbone: str) -> str:
    """Return a backbone's name as it is found from any folder."""
    return backbone if backbone == EMBEDDED or backbone in WEIGHT_SETS else os.path.abspath(backbone)
