"""Train a captioner on captions alone: from a list of captions to a model folder.

Puts together what the other modules do: text embeddings, examples, the loop, the model folder. It prints
nothing; what happens is reported as events. A run that was killed goes on when it is asked for again.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import InitProcessGroupKwargs

from textcap.backbone import EMBEDDED, Backbone
from textcap.bridge import Bridge
from textcap.captions import CaptionSet
from textcap.checkpoint import ModelConfig, package_versions, save_model
from textcap.config import BridgeConfig, MapperConfig, to_dict
from textcap.device import resolve_device
from textcap.embeddings import default_cache_folder, embed_captions
from textcap.errors import InputError
from textcap.training.data import MAX_CAPTION_TOKENS, Examples, make_examples
from textcap.training.events import Embedded, Event, Report, Started, Warned
from textcap.training.job import TrainingJob
from textcap.training.loop import MapperTraining
from textcap.training.processes import launch
from textcap.training.state import WorkFolder, load_state
from textcap.weights import WEIGHT_SETS, Progress

_logger = logging.getLogger("textcap")


def train(
    job: TrainingJob,
    captions: CaptionSet,
    report: Report | None = None,
    *,
    n_processes: int | None = None,
    download_progress: Progress | None = None,
) -> Path:
    """Train a mapper on captions and write its model folder.

    What is needed to go on after an interruption lies in a folder beside the output until the run is done.

    Args:
        report: Told what happens, in this process.
        n_processes: By default one for each CUDA device that is visible when `job.device` names none of them,
            else one. Under torchrun this process is one of those it started.
        download_progress: Told of bytes when the backbone has to be fetched.

    Returns:
        The model folder.

    Raises:
        InputError: The output is there already, or an unfinished run with other settings is; captions or
            settings cannot be used; memory does not suffice.
        DeviceError: The device cannot be used.
        DownloadError: The backbone is not on disk and cannot be fetched.
        CheckpointError: The backbone or the state of the unfinished run is broken.
    """
    report = report or _report_nothing
    output = Path(os.path.abspath(job.output))
    if output.exists() and not (job.force and output.is_dir()):
        raise InputError(f"{job.output} is there already", hint="choose another -o, or --force to replace it")
    device = resolve_device(job.device)
    backbone = Backbone.load(job.backbone, offline=job.offline, progress=download_progress)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        n_processes = 1  # torchrun, or `launch` below, has started the others
    elif n_processes is None:
        every = device.type == "cuda" and device.index is None
        n_processes = torch.cuda.device_count() if every else 1
    if n_processes > 1:
        launch(replace(job, output=str(output)), captions, n_processes, report)
    else:
        with _accelerator(device) as accelerator:
            _train_here(replace(job, output=str(output)), captions, backbone, accelerator, report)
    return output


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
        yield accelerator
    finally:
        if not was_initialized:
            accelerator.end_training()
            # The only way to train on another device in this process.
            AcceleratorState._reset_state(True)


def _report_nothing(event: Event) -> None:
    del event


def _train_here(
    job: TrainingJob, captions: CaptionSet, backbone: Backbone, accelerator: Accelerator, report: Report
) -> None:
    is_main = accelerator.is_main_process
    report = report if is_main else _report_nothing
    bridge = job.bridge or BridgeConfig(noise_variance=backbone.config.noise_variance)
    mapper = mapper_config(job, backbone)
    settings = {
        "captions": captions.content_hash,
        "backbone": backbone.content_hash,
        "bridge": to_dict(bridge),
        "mapper": to_dict(mapper),
        "training": to_dict(job.training),
    }
    output = Path(job.output)
    work = WorkFolder.open(output, settings, force=job.force) if is_main else None
    try:
        examples = _make_examples(job, captions, backbone, mapper, accelerator.device, report)
        run = MapperTraining(
            examples,
            backbone.language_model(accelerator.device),
            backbone.tokenizer,
            Bridge(bridge),
            mapper,
            job.training,
            accelerator,
            report=report,
            work=work,
        )
        accelerator.wait_for_everyone()  # until the main process has sorted out what an earlier run left
        if state := load_state(WorkFolder.path_of(output)):
            run.resume(*state)
        report(_started(job, backbone, bridge, examples, run))
        trained = run.run()
        if work is not None:
            config = ModelConfig(
                backbone_name=_lasting_name(job.backbone),
                backbone_hash=backbone.content_hash,
                bridge=bridge,
                mapper=mapper,
                training=job.training,
                end_token_id=backbone.tokenizer.end_id,
                n_training_captions=len(examples.training),
                n_held_out_captions=len(examples.held_out),
                caption_files=captions.files,
                packages=package_versions(),
                command=job.command,
            )
            save_model(output, config, trained.mapper, trained.metrics, force=job.force)
            work.remove()
    finally:
        if work is not None:
            work.close()


def _make_examples(
    job: TrainingJob,
    captions: CaptionSet,
    backbone: Backbone,
    mapper: MapperConfig,
    device: torch.device,
    report: Report,
) -> Examples:
    folder = default_cache_folder()
    _logger.info("text embeddings are kept in %s", folder)
    embedded = embed_captions(
        captions.captions,
        content_hash=captions.content_hash,
        backbone_hash=backbone.content_hash,
        width=backbone.config.clap.embedding_width,
        load_encoder=lambda: backbone.text_encoder(device),
        cache_folder=folder,
        progress=lambda n_done: report(Embedded(n_done, len(captions.captions))),
    )
    for warning in embedded.warnings:
        report(Warned(warning))
    # The end token is predicted and never read, so it needs no position.
    room = backbone.config.language_model.n_positions - mapper.prefix_length + 1
    return make_examples(
        captions.captions,
        embedded.vectors,
        backbone.tokenizer,
        max_tokens=min(MAX_CAPTION_TOKENS, room),
        held_out_captions=job.training.held_out_captions,
        seed=job.training.seed,
    )


def _started(
    job: TrainingJob, backbone: Backbone, bridge: BridgeConfig, examples: Examples, run: MapperTraining
) -> Started:
    accelerator = run.accelerator
    return Started(
        backbone=backbone.name,
        device=str(accelerator.device),
        precision="bfloat16" if accelerator.mixed_precision == "bf16" else "float32",
        n_processes=accelerator.num_processes,
        n_captions=len(examples.training),
        n_held_out=len(examples.held_out),
        noise_variance=bridge.noise_variance,
        noise_std=bridge.noise_std,
        epochs=job.training.epochs,
        total_steps=run.total_steps,
        first_step=run.progress.step,
        warmup_steps=run.warmup_steps,
        warmup_asked=job.training.warmup_steps,
    )


def _lasting_name(backbone: str) -> str:
    """Return a backbone's name as it is found from any folder."""
    return backbone if backbone == EMBEDDED or backbone in WEIGHT_SETS else os.path.abspath(backbone)
