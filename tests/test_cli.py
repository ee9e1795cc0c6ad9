"""What all commands share: what goes to stdout and to stderr, terminal output, and the examples in the help."""

import inspect
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
from typer.testing import CliRunner

from textcap.captioner import Captioner
from textcap.cli.app import app
from textcap.cli.caption import caption
from textcap.cli.console import print_error, set_verbosity
from textcap.cli.progress import download_progress
from textcap.config import BackboneConfig
from textcap.errors import InputError
from textcap.results import Candidate, CaptionResult

# Runs `textcap caption` with a fake captioner, because only the command line is tested.
FAKE_CAPTION_SCRIPT = """
import os, sys, types
from textcap import captioner
from textcap.cli.app import main
from textcap.config import BackboneConfig
from textcap.results import Candidate, CaptionResult

class Captioner:
    name, device, precision = "stand-in", "cpu", "float32"
    backbone = types.SimpleNamespace(
        name="stand-in", kind=types.SimpleNamespace(remark=""), config=BackboneConfig()
    )

    @classmethod
    def load(cls, *arguments, **options):
        os.write(1, b"noise of a library")
        return cls()

    def identities(self, paths):
        return [None for _ in paths]

    def caption(self, paths, **options):
        for path in paths:
            yield CaptionResult(path, (Candidate("a dog\\x1b[31m barks", -0.5),))

captioner.Captioner = Captioner
sys.argv[0] = "textcap"
main()
"""


@pytest.fixture(autouse=True)
def _reset_verbosity() -> None:
    set_verbosity(quiet=False, verbose=False)  # every command changes it for the whole process


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_results_stay_on_stdout_when_stderr_is_a_terminal(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    terminal, stderr = os.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while block := os.read(terminal, 4096):
                shown.extend(block)
        except OSError:  # on Linux this means that the other side is closed
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    command = [sys.executable, "-c", FAKE_CAPTION_SCRIPT, "caption", "a.wav", "b.wav"]
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, cwd=tmp_path, timeout=120)
    os.close(stderr)
    reader.join(timeout=10)
    os.close(terminal)
    assert done.returncode == 0, shown.decode()
    assert done.stdout == b"a.wav\ta dog\\x1b[31m barks\nb.wav\ta dog\\x1b[31m barks\n"
    assert b"a dog" not in shown
    assert b"captioning" in shown  # the progress bar was shown
    assert b"noise of a library" in shown


class FakeCaptioner:
    """Gives a caption to each sound, whatever it is."""

    name, device, precision = "stand-in", "cpu", "float32"
    backbone = SimpleNamespace(name="stand-in", kind=SimpleNamespace(remark=""), config=BackboneConfig())

    def __init__(self, caption: str) -> None:
        self.said = caption

    def identities(self, paths: Sequence[str]) -> list[None]:
        return [None for _ in paths]

    def caption(self, sources: Sequence[str], **options: object) -> list[CaptionResult]:
        return [CaptionResult(source, (Candidate(self.said, -1.0),), None, 1.0) for source in sources]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that makes files, which then get a caption, in the current folder."""

    def prepare(caption: str, *names: str) -> None:
        monkeypatch.chdir(tmp_path)
        for name in names:
            Path(name).touch()
        monkeypatch.setattr(Captioner, "load", lambda *arguments, **options: FakeCaptioner(caption))

    return prepare


def run(*arguments: str) -> tuple[int, str, str]:
    """Run a command and return the exit code, stdout and stderr."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_control_characters_are_escaped(say: Callable[..., None]) -> None:
    say("loud\x1b]0;title\x07 bell\x85", "a\x9b31m.wav")
    code, out, err = run("caption", "a\x9b31m.wav", "b\x1b[2J\n.wav")
    assert code == 3
    assert out == "a\\x9b31m.wav\tloud\\x1b]0;title\\x07 bell\\x85\n"
    assert any(line.startswith("skipped: b\\x1b[2J\\x0a.wav does not exist") for line in err.splitlines())


def test_csv_has_a_header_and_quotes_cells(say: Callable[..., None]) -> None:
    say("a dog barks,\x1b rain", 'a,"b".wav')
    code, out, _ = run("caption", 'a,"b".wav', "--format", "csv")
    assert (code, out) == (0, 'file_name,caption_predicted\n"a,""b"".wav","a dog barks,\\x1b rain"\n')
    assert run("caption", 'a,"b".wav', "--format", "csv", "--json")[0] == 2


def test_json_is_exact_and_valid_utf8_for_any_name(say: Callable[..., None]) -> None:
    name = os.fsdecode(b"caf\xe9 \xc3\xa9 \xc2\x9b.wav")
    say("a\u2028b\x1b", name)
    code, out, _ = run("caption", name, "--json")
    line = out.encode("utf-8").decode("utf-8")  # fails on a lone surrogate
    assert code == 0
    assert out.count("\n") == 1 and len(out.splitlines()) == 1
    assert "é" in line and "\x9b" not in line
    wanted = {"path": name, "caption": "a\u2028b\x1b", "score": -1.0, "duration_s": 1.0, "silent": False}
    assert json.loads(line) == wanted


def test_error_is_printed_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(InputError("no  file [bold]:dog:.wav"))
    assert capsys.readouterr() == ("", "textcap: no  file [bold]:dog:.wav\n")


def test_log_messages_are_plain_lines_on_stderr(say: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    say("", "a")

    def load(*arguments: object, **options: object) -> object:
        logging.getLogger("textcap").info("detail [bold]\x1b")
        logging.getLogger("textcap").warning("a warning")
        raise InputError("stop")

    monkeypatch.setattr(Captioner, "load", load)
    assert run("caption", "a")[2].splitlines() == ["warning: a warning", "textcap: stop"]
    assert run("caption", "a", "-v")[2].splitlines()[0] == "textcap: detail [bold]\\x1b"
    assert run("caption", "a", "-q")[2].splitlines() == ["textcap: stop"]


def test_download_display_prints_only_downloads(capsys: pytest.CaptureFixture[str]) -> None:
    with download_progress():
        pass
    assert capsys.readouterr() == ("", "")
    with download_progress() as progress:
        progress("a.bin", 1, 2_000_000)
        progress("a.bin", 2_000_000, 2_000_000)
    assert capsys.readouterr() == ("", "downloading a.bin (2.0 MB)\n")


@pytest.mark.parametrize("command", ["fetch", "train", "caption", "demo", "verify"])
def test_help_ends_with_two_examples(command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    examples = [line.strip() for line in out.splitlines() if line.strip()][-2:]
    assert all(example.startswith("textcap ") for example in examples)
    assert any(example.startswith(f"textcap {command}") for example in examples)


def test_help_of_caption_shows_the_defaults() -> None:
    _, out, _ = run("caption", "--help")
    assert "[default: (textcap-model if that folder exists, else clapcap)]" in " ".join(out.replace("│", " ").split())
    batch_size = inspect.signature(caption).parameters["batch_size"].default
    assert batch_size == inspect.signature(Captioner.caption).parameters["batch_size"].default


def test_demo_passes_its_switches_to_the_commands_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    failing = subprocess.Popen

    def record(command: list[str], **options: Any) -> subprocess.Popen[str]:
        ran.append(command[3:])
        return failing([sys.executable, "-c", "raise SystemExit(1)"], **options)

    monkeypatch.setattr("textcap.cli.demo.N_CAPTIONS", 5)
    monkeypatch.setattr("textcap.demo.folder.write_sounds", _write_one_sound)
    monkeypatch.setattr("textcap.cli.demo.subprocess.Popen", record)
    code, _, err = run("demo", str(tmp_path / "a"), "--seed", "7")
    assert code == 1
    assert "$ textcap " + " ".join(ran[0]) in err.splitlines()
    assert ran[0][-2:] == ["--seed", "7"]
    code, _, err = run("demo", str(tmp_path / "b"), "-q")
    assert (code, err) == (1, "")
    assert ran[1][-1] == "-q"


def test_demo_continues_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    programs = {
        "train": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "caption": "print('001.wav\\tRain')",
    }
    start = subprocess.Popen

    def pretend(command: list[str], **options: Any) -> subprocess.Popen[str]:
        ran.append(command[3])
        return start([sys.executable, "-c", programs[command[3]]], **options)

    monkeypatch.setattr("textcap.cli.demo.N_CAPTIONS", 5)
    monkeypatch.setattr("textcap.demo.folder.write_sounds", _write_one_sound)
    monkeypatch.setattr("textcap.cli.demo.subprocess.Popen", pretend)
    monkeypatch.setattr("textcap.demo.folder.N_SEEN", 1)
    monkeypatch.setattr("textcap.demo.folder.N_UNSEEN", 0)
    folder = tmp_path / "demo"
    code, out, err = run("demo", str(folder))
    assert (code, out) == (1, "")
    if os.name == "posix":
        assert err.splitlines()[-1] == (
            "textcap: textcap train was killed by SIGKILL "
            "(the machine may have run out of memory; run the same command to continue)"
        )
    written = (folder / "captions.txt").stat()
    programs["train"] = "import os; os.mkdir('textcap-model')"
    for expected in (["train", "train", "caption"], ["train", "train", "caption", "caption"]):
        code, out, err = run("demo", str(folder))
        assert code == 0 and ran == expected
        assert "continuing the demo in" in err and "001.wav" in out
    assert (folder / "captions.txt").stat().st_ino == written.st_ino
    code, _, err = run("demo", str(folder), "--seed", "1")
    assert code == 1 and "already exists" in err


def _write_one_sound(clips: list[object], folder: Path) -> list[str]:
    folder.mkdir()
    soundfile.write(folder / "001.wav", [0.0], 16000)
    return ["001.wav"] * len(clips)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_disk_in_demo_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = soundfile.write
    monkeypatch.setattr(soundfile, "write", lambda path, *arguments: write("/dev/full", *arguments, format="WAV"))
    monkeypatch.setattr("textcap.cli.demo.N_CAPTIONS", 5)
    code, out, err = run("demo", str(tmp_path / "demo"))
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1 and "cannot be written" in err and "free some space" in err


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["PASSIVE", "10000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
        ({"GOMP_SPINCOUNT": "5"}, ["PASSIVE", "5"]),
    ],
)
def test_idle_threads_sleep_unless_the_user_has_chosen(chosen: dict[str, str], expected: list[str]) -> None:
    # Set before torch, which reads it when it is loaded; the library alone leaves the environment as it is.
    script = (
        "import os, sys, textcap, textcap.cli.app as app; get = os.environ.get; names = sys.argv[1:];"
        "before = list(map(get, names)); app.app = lambda: print(*before, *map(get, names), 'torch' in sys.modules);"
        "app.main()"
    )
    names = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    environment = {name: value for name, value in os.environ.items() if name not in names} | chosen
    command = [sys.executable, "-c", script, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*(str(chosen.get(name)) for name in names), *expected, "False"]
