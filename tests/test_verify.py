"""The comparison with msclap: its errors if msclap is missing, and that it finds a wrong tensor."""

import copy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from textcap import verify
from textcap.cli.app import app
from textcap.errors import CheckpointError, DependencyError


@pytest.fixture
def no_msclap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msclap", None)  # makes every import of it fail
    monkeypatch.setitem(sys.modules, "msclap.CLAPWrapper", None)


@pytest.mark.usefixtures("no_msclap")
def test_missing_msclap_is_one_line_with_the_install_command() -> None:
    result = CliRunner().invoke(app, ["verify", "--offline"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("textcap: verify needs msclap, which is not installed (")


@pytest.mark.usefixtures("no_msclap")
@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ((3, 12, 9), "pip install 'textcap[verify]'"),
        ((3, 13, 0), "msclap cannot be installed on Python 3.13 and later: use Python 3.12"),
        ((3, 14, 1), "msclap cannot be installed on Python 3.13 and later: use Python 3.12"),
    ],
)
def test_hint_names_a_python_version_that_msclap_supports(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], hint: str
) -> None:
    monkeypatch.setattr(verify, "sys", SimpleNamespace(version_info=version, modules=sys.modules))
    with pytest.raises(DependencyError) as caught:
        verify.import_msclap()
    assert caught.value.hint == hint


def test_package_missing_for_msclap_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "CLAPWrapper.py").write_text("import no_such_dependency\n", encoding="utf-8")
    msclap = ModuleType("msclap")
    msclap.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "msclap", msclap)
    monkeypatch.delitem(sys.modules, "msclap.CLAPWrapper", raising=False)
    result = CliRunner().invoke(app, ["verify", "--offline"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (1, "")
    message = "verify needs msclap, which cannot be imported: No module named 'no_such_dependency'"
    assert result.stderr.splitlines() == [f"textcap: {message}"]


def test_difference_above_the_tolerance_or_nan_does_not_agree() -> None:
    assert verify.MsclapComparison("a", 1e-6, 1e-5).agrees
    assert not verify.MsclapComparison("a", 2e-5, 1e-5).agrees
    assert not verify.MsclapComparison("a", float("nan"), 1e-5).agrees


def assert_verify_finds(full: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, part: str, tensor: str) -> None:
    """Compare a full-size backbone with msclap, first as it is loaded and then with one damaged tensor.

    Args:
        full: Object with the backbone as `backbone`.
        part: The method of the backbone that loads the part with the tensor, such as "audio_encoder".
        tensor: Name of the tensor to damage in our module.
    """
    monkeypatch.setattr(verify, "CAPTION_TOKENS", 4)
    comparisons = list(verify.compare_with_msclap(full.backbone))
    assert comparisons and all(comparison.agrees for comparison in comparisons), comparisons
    damaged = copy.deepcopy(getattr(full.backbone, part)())
    with torch.no_grad():
        damaged.get_parameter(tensor).flatten()[0::7] += 0.5
    monkeypatch.setattr(full.backbone, part, lambda *arguments: damaged)
    assert not all(comparison.agrees for comparison in verify.compare_with_msclap(full.backbone))


class _RunsCode:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("code ran",)


def test_weight_file_with_code_is_refused_without_advice_to_run_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": _RunsCode()}, tmp_path / "weights.pth")
    kind = SimpleNamespace(audio_encoder=SimpleNamespace(role="clap"), mapper=None)
    backbone = SimpleNamespace(kind=kind, weight_paths={"clap": tmp_path / "weights.pth"})
    with pytest.raises(CheckpointError, match=r"weights\.pth is not a weight file, or contains more than") as caught:
        list(verify.compare_with_msclap(backbone))  # type: ignore[arg-type]
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
