"""`textcap info`: what it tells, and what it must not."""

import getpass
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import av
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from fake_java import fake_java
from textcap.cli.app import app
from textcap.environment import inspect_environment


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["info", *arguments], catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_versions_and_formats_are_those_of_the_packages() -> None:
    found = inspect_environment()
    versions = found["versions"]
    assert (versions["python"], versions["textcap"]) == (platform.python_version(), version("textcap"))
    assert (versions["torch"], versions["numpy"]) == (version("torch"), version("numpy"))
    assert versions["libsndfile"] == soundfile.__libsndfile_version__
    assert versions["av"] == av.__version__ and versions["libavcodec"].count(".") == 2
    assert "wav" in found["formats"]["libsndfile"] and "m4a" in found["formats"]["FFmpeg"]
    cpu = found["devices"]["cpu"]
    assert cpu["n_threads"] == torch.get_num_threads() and cpu.get("memory_bytes", 1e12) > 1e8


def test_caches_have_their_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, hub = tmp_path / "cache", tmp_path / "hub"
    repo = hub / "models--microsoft--msclap" / "blobs"
    for folder, size in ((cache / "embeddings", 1000), (cache / "spice", 500), (repo, 2_000_000)):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * size)
    monkeypatch.setenv("TEXTCAP_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    caches = {folder: facts["size_bytes"] for folder, facts in inspect_environment()["caches"].items()}
    assert caches == {str(cache): 1500, str(cache / "embeddings"): 1000, str(repo.parent): 2_000_000}
    assert f"caches\t{repo.parent}\tsize 2.0 MB" in run().splitlines()


def test_java_is_found_or_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", str(tmp_path / "nowhere"))
    assert "must be a program" in inspect_environment()["java"]["problem"]
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", str(fake_java(tmp_path, version="21.0.1")))
    assert inspect_environment()["java"]["version"] == "21.0.1"


@pytest.mark.skipif(os.name != "posix", reason="sets HOME")
def test_nothing_private_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, scratch = tmp_path / "home" / "annabell", tmp_path / "scratch" / "annabell" / "cache"
    (home / "hub" / "models--microsoft--msclap").mkdir(parents=True)
    scratch.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TEXTCAP_CACHE", str(scratch))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_5ecret")
    for out in (run(), run("--json")):
        assert "annabell" not in out and "5ecret" not in out
        assert "~/hub/models--microsoft--msclap" in out and "/scratch/USER/cache" in out
    assert json.loads(run("--json")) == inspect_environment()
    monkeypatch.setenv("HOME", str(home.parent / "anna"))
    assert f"{tmp_path}/home/annabell/hub" in run()
    monkeypatch.setenv("HOME", "/")
    assert f"{tmp_path}/home/annabell/hub" in run()
    assert getpass.getuser() != "annabell"
