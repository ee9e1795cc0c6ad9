"""A user's script is checked against the types of the installed package."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from pathlib import Path

from textcap import Captioner, CaptionResult, DecodingConfig, TextcapError


def caption_folder(folder: Path, model: str | None = None) -> dict[str, str]:
    captioner = Captioner.load(model, device="cpu", offline=True)
    results: list[CaptionResult] = list(captioner.caption(folder.glob("*.wav"), decoding=DecodingConfig(beam_size=3)))
    return {f"{result.path} ({result.duration_s:.1f} s)": result.caption for result in results if result.error is None}


try:
    print(caption_folder(Path("sounds")))
except TextcapError as error:
    print(error.message, error.hint)
"""


def check_types(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)


@pytest.mark.long
def test_a_users_script_is_checked_against_the_installed_package(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    done = check_types(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stdout
    wrong = check_types(SCRIPT.replace("beam_size=3", 'beam_size="three"'), tmp_path)
    assert wrong.returncode == 1 and 'expected "int"' in wrong.stdout
