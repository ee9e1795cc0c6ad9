"""The comparison with msclap: what it says without msclap, and that a wrong tensor cannot hide."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from textcap import verify
from textcap.cli.app import app
from textcap.errors import DependencyError


@pytest.fixture
def no_msclap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msclap", None)  # how Python marks what cannot be imported
    monkeypatch.setitem(sys.modules, "msclap.CLAPWrapper", None)


@pytest.mark.usefixtures("no_msclap")
def test_without_msclap_one_line_says_what_to_install() -> None:
    result = CliRunner().invoke(app, ["verify", "--offline"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("textcap: verify compares with msclap, which is not installed (")


@pytest.mark.usefixtures("no_msclap")
@pytest.mark.parametrize(
    ("version", "hint"), [((3, 12, 9), "pip install msclap"), ((3, 13, 0), "use Python 3.12"), ((3, 14, 1), "3.12")]
)
def test_hint_names_a_python_that_msclap_has(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], hint: str
) -> None:
    monkeypatch.setattr(verify, "sys", SimpleNamespace(version_info=version, modules=sys.modules))
    with pytest.raises(DependencyError) as caught:
        verify.import_msclap()
    assert hint in str(caught.value.hint)


def test_what_msclap_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torchlibrosa'", name="torchlibrosa")

    monkeypatch.setattr(verify, "_torchaudio_or_placeholder", lambda: torch.no_grad())
    monkeypatch.setattr(verify, "importlib", SimpleNamespace(import_module=refuse))
    with pytest.raises(DependencyError, match="cannot be imported: No module named 'torchlibrosa'"):
        verify.import_msclap()


def test_nan_never_agrees() -> None:
    assert verify.MsclapComparison("a", 1e-6, 1e-5).agrees
    assert not verify.MsclapComparison("a", 2e-5, 1e-5).agrees
    assert not verify.MsclapComparison("a", float("nan"), 1e-5).agrees


def assert_verify_finds(full: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, part: str, tensor: str) -> None:
    """Compare a backbone of full size with msclap, as loaded and with one tensor of ours a little off."""
    monkeypatch.setattr(verify, "CAPTION_TOKENS", 4)
    comparisons = list(verify.compare_with_msclap(full.backbone))
    assert comparisons and all(comparison.agrees for comparison in comparisons), comparisons
    off = copy.deepcopy(getattr(full.backbone, part)())
    with torch.no_grad():
        off.get_parameter(tensor).flatten()[0::7] += 0.5
    monkeypatch.setattr(full.backbone, part, lambda *arguments: off)
    assert not all(comparison.agrees for comparison in verify.compare_with_msclap(full.backbone))
