"""Train a captioner on captions alone, on pairs of sound and text, or on both, and write its model folder.

Joins the other modules: text embeddings, examples, the training loop, the model folder. Prints nothing; progress is
reported as events, and warnings are logged. A run that was stopped or killed continues when `train` is called again
with the same arguments.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from textcap.config import MOVING, BackboneConfig, BridgeConfig, MapperConfig, TrainingConfig
from textcap.data.captions import CaptionFile, CaptionSet, load_captions, split_weight
from textcap.data.pairs import PairSet, is_pairs_file, read_pairs
from textcap.data.stored import store_captions
from textcap.data.text import STDIN, printable
from textcap.device import computes_bfloat16, memory_errors, resolve_device
from textcap.embedding.pairs import EmbeddedPairs
from textcap.embedding.sample import find_sample
from textcap.errors import DeviceError, InputError
from textcap.files import MODEL_FOLDER, check_folder_place
from textcap.gap.adapter import LinearAdapter, load_adapter
from textcap.model_folder import ModelConfig, package_versions, save_model
from textcap.models.backbone import Backbone, BackboneNames, read_backbone_config
from textcap.training.events import Event, Report, Started
from textcap.training.loop import MapperTraining
from textcap.training.prepare import (
    MEMORY_HINT,
    Task,
    embed_all_pairs,
    identity,
    make_bridge,
    make_task_examples,
    max_tokens,
)
from textcap.training.processes import launch, torchrun_place
from textcap.training.sharing import leaving_no_copies, share_captions, share_state
from textcap.training.state import CAPTIONS, WorkFolder, load_state
from textcap.weights import DownloadProgress

_logger = logging.getLogger("textcap")


def train(
    captions: CaptionSet | str | Path | Sequence[str | Path] | None,
    output: str | Path,
    *,
    plain_text: bool = False,
    backbone: Backbone | BackboneNames | str | Path = "msclap-2023",
    pairs: PairSet | str | Path | Sequence[PairSet | str | Path] = (),
    bridge: BridgeConfig | None = None,
    audio_sample: str | Path | Sequence[str | Path] = (),
    noise_from: PairSet | str | Path | None = None,
    adapter: LinearAdapter | str | Path | None = None,
    mapper: MapperConfig | None = None,
    config: TrainingConfig = TrainingConfig(),
    val: PairSet | str | Path | None = None,
    device: torch.device | str = "auto",
    n_processes: int | None = None,
    force: bool = False,
    offline: bool | None = None,
    report: Report | None = None,
    download_progress: DownloadProgress | None = None,
    command: str = "",
) -> Path:
    """Train a mapper on captions, on pairs or on both, and write its model folder.

    Captions, pairs, backbone and adapter are loaded objects, or files and names to load. Until the run is done, a work
    folder beside the output keeps what is needed to continue after an interruption: a call with the same arguments
    always continues an unfinished run.

    Args:
        captions: Caption files, as `load_captions` reads them, to learn from their text embeddings with noise (the
            paper's method); None to train on pairs only.
        output: The model folder to write.
        plain_text: Take each line of the caption files as a caption, also of those that look like tables.
        backbone: The frozen CLAP and language model.
        pairs: Pairs files, as `read_pairs` reads them. Each caption is learned from the embedding of its sound (the
            paper's audio-text training).
        bridge: How embeddings are moved, and the noise on them; None for the backbone's on text and none on sounds. A
            kind of None is what suits a sample of sounds of its size, "noise" with an adapter, and else the backbone's.
        audio_sample: Recordings without captions, or a folder of them, to compute the bridge from.
        noise_from: Pairs to measure the noise on text with, in place of the bridge's.
        adapter: Applied to text embeddings before the noise.
        mapper: The sizes of the mapper; None for the backbone's.
        config: Epochs or steps, batch size, learning rate, seed, and which of the measured mappers to keep.
        val: Captions, or pairs, to measure the loss on in place of held-out captions; a file that names sounds beside
            captions is one of pairs. Training captions that also stand there are left out.
        device: A torch device, or "auto", "cpu", "mps", "cuda", "cuda:1" and so on.
        n_processes: The number of processes. By default one for each visible CUDA device if `device` resolves to CUDA
            without a device number, else one. Ignored under torchrun, which has started the processes itself.
        force: Overwrite the output if it is a model folder, and discard an unfinished run with other settings.
        offline: Whether to work without the network; by default the environment variable HF_HUB_OFFLINE decides.
        report: Called with each event, in this process.
        download_progress: Called while weights are downloaded with a file's name, its bytes so far, the total and a
            note.
        command: The command line to record in the model folder.

    Returns:
        The model folder, as an absolute path.

    Raises:
        InputError: The output exists and may not be overwritten, there is an unfinished run with other settings, or
            the captions, pairs or settings cannot be used.
        DeviceError: The device cannot be used, or has not enough memory.
        DownloadError: The backbone is not on disk and cannot be downloaded.
        CheckpointError: The backbone, the adapter or the state of the unfinished run cannot be used.
    """
    rank, n_started = torchrun_place()
    if report is None or rank:
        report = _ignore_event
    sounds = tuple(_read_pairs(one) for one in _several(pairs))
    noise_pairs = None if noise_from is None else _read_pairs(noise_from)
    if isinstance(captions, CaptionSet):
        names = [file.name for file in captions.files]
    else:
        names = [split_weight(path)[0] for path in _several(captions)]
    # Before captions are read: standard input may keep this process waiting.
    inputs = [name for name in [*names, *(p.file.name for p in (*sounds, noise_pairs) if p)] if name != STDIN]
    may_exist = force or WorkFolder.done_run(Path(output)) is not None
    check_folder_place(Path(output), kind=MODEL_FOLDER, force=may_exist, inputs=inputs)
    folders = [str(path) for path in _several(audio_sample)]
    has_text = isinstance(captions, CaptionSet) or bool(names)
    has_sounds = isinstance(val, PairSet) or (val is not None and not plain_text and is_pairs_file(val))
    val_pairs = _read_pairs(val) if val is not None and has_sounds else None
    validates_on_text = val is not None and val_pairs is None
    if validates_on_text and not has_text:
        raise InputError("captions to validate on were given, but none to train on", hint="validate on pairs")
    if not has_text and not sounds:
        raise InputError("there is nothing to train on", hint="give a caption file or a pairs file")
    moves = bridge is not None and bridge.kind in MOVING
    if not has_text and (noise_pairs is not None or adapter is not None or folders or moves):
        raise InputError("noise, bridges or adapters for text were given, but no captions", hint="give a caption file")
    halves = backbone.names if isinstance(backbone, Backbone) else BackboneNames.of(backbone)
    halves.check_trainable()
    if not isinstance(backbone, Backbone) and halves.has_other_halves:  # whose sizes they alone know
        backbone = Backbone.load(halves, offline=offline, progress=download_progress)
    sizes = backbone.config if isinstance(backbone, Backbone) else read_backbone_config(halves.backbone)
    is_measured = noise_pairs is not None or bool(folders) or not has_text
    bridge = bridge or BridgeConfig(sizes.noise_for(None, is_measured=is_measured))
    bridge = _complete(bridge, sizes, has_sample=bool(folders), has_adapter=adapter is not None)
    sample = find_sample(folders) if folders else []
    given = captions if isinstance(captions, CaptionSet) else _several(captions)
    if validates_on_text:
        if isinstance(given, CaptionSet):
            more = load_captions([str(val)], plain_text=plain_text)
            files = given.files or (CaptionFile("captions", "", len(given.captions)),)
            given = CaptionSet([*given.captions, *more.captions], (*files, *more.files))
        else:
            given = [*given, str(val)]
    work = None if rank else WorkFolder.lock(Path(output))
    with closing(work) if work else nullcontext():
        # Before the backbone is loaded, or downloaded: captions are what is most often wrong.
        texts = store_captions(given, work.path / CAPTIONS, plain_text=plain_text) if work and has_text else None
        chosen = resolve_device(str(device))
        if not isinstance(backbone, Backbone):
            backbone = Backbone.load(halves, offline=offline, progress=download_progress)
        mapper = mapper or backbone.config.mapper
        max_tokens(backbone, mapper)
        fitted = load_adapter(Path(adapter)) if isinstance(adapter, str | Path) else adapter
        if fitted is not None:
            fitted.check_backbone(backbone, "the adapter" if fitted is adapter else str(adapter))
        task = Task(
            output=Path(os.path.abspath(output)),
            has_text=has_text,
            captions=texts,
            pairs=sounds,
            validates_on_text=validates_on_text,
            val_pairs=val_pairs,
            bridge=bridge if has_text else replace(bridge, kind="noise", noise_variance=0.0),
            audio_sample=sample,
            audio_sample_name=", ".join(folders),
            noise_from=noise_pairs,
            adapter=fitted,
            mapper=mapper,
            config=config,
            force=force,
            command=command,
        )
        if n_started > 1:
            n_processes = 1  # torchrun has started the other processes
        elif n_processes is None:
            use_all_devices = chosen.type == "cuda" and chosen.index is None
            n_processes = torch.cuda.device_count() if use_all_devices else 1
        if n_processes == 1:
            run_task(task, backbone, chosen, report, work)
            return task.output
        assert work is not None
        work.release()  # to the main one of the processes
    try:
        launch((task, halves, chosen), n_processes, report)
    finally:
        WorkFolder.sweep(task.output)
    return task.output


def run_task(
    task: Task, backbone: Backbone, device: torch.device, report: Report, work: WorkFolder | None = None
) -> MapperTraining | None:
    """Run a task in this process, which may be one of several.

    Args:
        task: What to train.
        backbone: The backbone to train on.
        device: The device to compute on.
        report: Called with each event, in the main process only.
        work: The work folder, if the main process has locked it.

    Returns:
        The finished run; None if it was finished before, and killed before it deleted its work folder.

    Raises:
        TextcapError: The same errors as of `train`.
    """
    with _accelerator(device) as accelerator:
        report = report if accelerator.is_main_process else _ignore_event
        device = accelerator.device
        if work is None and accelerator.is_main_process:
            work = WorkFolder.lock(task.output)
        with closing(work) if work else leaving_no_copies(task.output):
            with memory_errors(f"on {device} while loading the models", hint=MEMORY_HINT):
                language_model = backbone.language_model(device)  # first: one that cannot be used is told at once
            if task.has_text:
                task = replace(task, captions=share_captions(task.captions, task.output))
            with accelerator.local_main_process_first():  # the others read its results from the cache
                embedded = embed_all_pairs(task, backbone, device, report)
                bridge = make_bridge(task, backbone, device, report)
            if work is not None:
                settings = {
                    **identity(task, embedded),
                    "clap": backbone.clap.content_hash,
                    "language_model": backbone.language_model_half.content_hash,
                    "bridge": asdict(bridge.config),
                    "mapper": asdict(task.mapper),
                    "training": asdict(task.config),
                }
                work.begin(task.output, settings, force=task.force)
            # The main process has now kept or discarded the state of an earlier run.
            if broadcast_object_list([work is not None and work.is_done])[0]:
                if work is not None:
                    _logger.warning("%s is complete; the run was killed before it deleted %s", task.output, work.path)
                    work.remove()
                return None
            with accelerator.local_main_process_first():  # the others map what it has written
                examples = make_task_examples(task, embedded, backbone, device, report)
            with memory_errors(f"on {device} while loading the models", hint=MEMORY_HINT):
                run = MapperTraining(
                    examples,
                    language_model,
                    backbone.tokenizer,
                    bridge,
                    task.mapper,
                    task.config,
                    accelerator,
                    report=report,
                    work=work,
                )
            if state := share_state(load_state(work.path) if work else None, device):
                run.resume(*state)
            config = _model_config(task, backbone, embedded, run)
            if (task.config.keep == "best" or task.config.patience) and not len(examples.held_out):
                raise InputError("no caption is held out to tell which mapper is best", hint="give --val")
            report(Started(config, examples.counts, run.total_steps, run.progress.step, run.warmup_steps))
            mapper = run.run()
            if work is not None:
                save_model(
                    task.output,
                    replace(config, run=work.run),
                    mapper,
                    run.progress.metrics,
                    adapter=task.adapter,
                    affine=bridge.affine,
                    force=task.force,
                    within=work.path,
                )
                work.remove()
            return run


def _complete(bridge: BridgeConfig, backbone: BackboneConfig, *, has_sample: bool, has_adapter: bool) -> BridgeConfig:
    """Return the bridge that was asked for, or suits, before it is computed; a sample may leave its kind open.

    Raises:
        InputError: It lacks what it is computed from, or something given would stay unused.
    """
    default = None if has_sample else "noise" if has_adapter else backbone.default_bridge
    bridge = replace(bridge, kind=bridge.kind or default, calibration=None, sample=None)
    if bridge.kind == "noise":
        if has_sample:
            raise InputError("the bridge noise uses no sounds", hint="take another bridge, or give no audio sample")
        return bridge
    if has_adapter:
        problem = f"the bridge {bridge.kind or 'of an audio sample'} cannot be combined with an adapter"
        raise InputError(problem, hint="give one of them")
    if not has_sample and not (bridge.kind == "centre" and backbone.mean_sound):
        problem = f"the bridge {bridge.kind} is computed from sounds, which {backbone.name} does not have"
        raise InputError(problem, hint="give a folder of sounds as audio sample")
    return bridge


def _several(given: Any) -> list[Any]:
    """Return as a list what may be one thing, several or None."""
    if given is None:
        return []
    return [given] if isinstance(given, str | Path | PairSet) else list(given)


def _read_pairs(pairs: PairSet | str | Path) -> PairSet:
    return pairs if isinstance(pairs, PairSet) else read_pairs(pairs)


@contextmanager
def _accelerator(device: torch.device) -> Iterator[Accelerator]:
    """Yield the accelerator for a device, and afterwards reset the process-wide state that it created."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    was_initialized = is_initialized()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if computes_bfloat16(device) else "no",
        # The other processes wait while the main one computes the embeddings, and at the end of each epoch.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
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


def _model_config(
    task: Task, backbone: Backbone, embedded: Sequence[EmbeddedPairs], run: MapperTraining
) -> ModelConfig:
    """Return what the model folder records about a run."""
    clap, language_model = backbone.clap, backbone.language_model_half
    texts, pairs = task.captions.files if task.captions else (), [one.source.file for one in embedded]
    return ModelConfig(
        backbone=backbone.names.absolute(),
        clap_hash=clap.content_hash,
        clap_licence=clap.licence,
        language_model_hash=language_model.content_hash,
        language_model_licence=language_model.licence,
        bridge=run.bridge.config,
        mapper=task.mapper,
        training=task.config,
        end_token_id=backbone.tokenizer.end_id,
        n_training_captions=len(run.examples.training),
        n_held_out_captions=len(run.examples.held_out),
        caption_files=_printable(texts[:-1] if task.validates_on_text else texts),
        pair_files=_printable(pairs[:-1] if task.val_pairs else pairs),
        validation_files=_printable(texts[-1:] if task.validates_on_text else pairs[-1:] if task.val_pairs else ()),
        adapter=task.adapter.facts if task.adapter else None,
        packages=package_versions(),
        command=printable(task.command),
        device=str(run.accelerator.device),
        precision="bfloat16" if run.accelerator.mixed_precision == "bf16" else "float32",
        n_processes=run.accelerator.num_processes,
        n_threads=run.progress.n_threads,
    )


def _printable(files: Iterable[CaptionFile]) -> tuple[CaptionFile, ...]:
    return tuple(replace(file, name=printable(file.name)) for file in files)
