"""A run on several machines: each process has a folder, a cache and a disk of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from test_training import CAPTIONS
from textcap.config import TrainingConfig
from textcap.model_folder import load_model
from textcap.training import train

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from textcap.config import TrainingConfig
from textcap.models.gpt2 import Gpt2LanguageModel
from textcap.training import loop, train
from textcap.training.events import Stepped

backbone, stop_at, failing = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rank = os.environ.get("RANK", "0")
os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}  # the first process of a machine of its own
folder = Path(f"machine-{rank}")
folder.mkdir(exist_ok=True)
os.chdir(folder)
os.environ["TEXTCAP_CACHE"] = str(Path("cache").absolute())
loss = Gpt2LanguageModel.loss

def loss_of_few(self, prefixes, *rest):
    if rank == failing and len(prefixes) > 2 and prefixes.requires_grad:
        raise torch.OutOfMemoryError("tried to allocate")
    return loss(self, prefixes, *rest)

def report(event):
    if isinstance(event, Stepped) and event.step == stop_at:
        os.killpg(0, signal.SIGKILL)

Gpt2LanguageModel.loss = loss_of_few
loop.SAVE_EVERY_S = 0.0
config = TrainingConfig(epochs=1, batch_size=13, learning_rate=1e-4, seed=3)
captions = "captions.txt" if len(sys.argv) == 4 else "-"
train(captions, "model", backbone=backbone, config=config, device="cpu", report=report)
"""


def run(place: Path, *arguments: object) -> int:
    """Run the script in two processes, and return the exit code."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, "run.py", *map(str, arguments)]
    text = "\n".join(CAPTIONS).encode()
    done = subprocess.run(command, cwd=place, timeout=300, input=text, capture_output=True, start_new_session=True)
    assert b"Traceback" not in done.stderr or done.returncode, done.stderr
    return done.returncode


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "run.py").write_text(SCRIPT)
    (tmp_path / "machine-0").mkdir()
    (tmp_path / "machine-0" / "captions.txt").write_text("\n".join(CAPTIONS))
    return tmp_path


def check(place: Path, backbone: Path) -> None:
    """Compare the mapper with that of a plain run, and what is left on both machines."""
    config = TrainingConfig(epochs=1, batch_size=13, learning_rate=1e-4, seed=3)
    captions = place / "machine-0" / "captions.txt"
    plain = load_model(train(captions, place / "plain", backbone=backbone, config=config, device="cpu"))
    found = load_model(place / "machine-0" / "model").mapper.state_dict()
    for name, tensor in plain.mapper.state_dict().items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0, msg=name)
    left = [sorted(path.name for path in (place / f"machine-{rank}").iterdir()) for rank in (0, 1)]
    assert left == [["cache", "captions.txt", "model"], ["cache"]]


@pytest.mark.long
def test_machines_without_a_shared_disk_continue_together(place: Path, backbone_folder: Path) -> None:
    assert run(place, backbone_folder, 8, "none") != 0
    assert (place / "machine-0" / "model.partial" / "state.safetensors").exists()
    assert not (place / "machine-1" / "model.partial" / "state.safetensors").exists()
    assert run(place, backbone_folder, 0, "none") == 0
    check(place, backbone_folder)


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["0", "1"])
def test_memory_that_runs_out_in_one_process_stops_none(place: Path, backbone_folder: Path, failing: str) -> None:
    assert run(place, backbone_folder, 0, failing) == 0
    check(place, backbone_folder)


@pytest.mark.slow
def test_standard_input_is_read_by_the_main_process_alone(place: Path, backbone_folder: Path) -> None:
    assert os.name == "posix"
    assert run(place, backbone_folder, 0, "none", "from standard input") == 0
    check(place, backbone_folder)
