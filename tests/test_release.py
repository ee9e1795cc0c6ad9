"""What a release needs: the owner's facts, one version in every file, equal wheels, pinned actions."""

import io
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import check_release
from build_release import compare_wheels, compare_with_tracked
from check_release import find_faults, find_missing
from check_wheel import SOURCE
from check_wheel import find_faults as find_wheel_faults

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PYPROJECT["project"]["version"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
URLS = {"Repository": "https://host.example/textcap", "Security": "https://host.example/textcap/security"}
COMPLETE = {"authors": [{"name": "Ada Lovelace"}], "urls": URLS}
CITATION = f"cff-version: 1.2.0\nversion: {VERSION}\n"


def released(heading: str) -> str:
    return f"# Changelog\n\n## [Unreleased]\n\n## {heading}\n\n### Added\n\n- A thing.\n"


# What only the owner knows


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, []),
        ({"authors": []}, ["authors"]),
        ({"authors": [{"email": "ada@host.example"}]}, ["authors"]),
        ({"authors": [{"name": " "}]}, ["authors"]),
        ({"urls": {}}, ["Repository", "Security"]),
        ({"urls": {**URLS, "Security": "http://host.example"}}, ["Security"]),
        ({"urls": {**URLS, "Repository": ""}}, ["Repository"]),
    ],
)
def test_missing_facts_are_listed(change: dict[str, Any], missing: list[str]) -> None:
    assert [line.split()[0] for line in find_missing({**COMPLETE, **change})] == missing


def test_facts_that_are_missing_stand_in_docs_release() -> None:
    page = (ROOT / "docs" / "release.md").read_text(encoding="utf-8")
    for line in find_missing({}):
        where, meaning = line.split(": ")
        name, table = where.split(" under ")
        assert re.search(rf"^\| {re.escape(meaning.split(',')[0])} \| `{name}` under `{re.escape(table)}`", page, re.M)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A tree without any of the owner's facts, and the steps that are run there instead of the real ones."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "textcap.whl").touch()
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "textcap"\nversion = "{VERSION}"\n')
    (tmp_path / "CITATION.cff").write_text(CITATION)
    (tmp_path / "CHANGELOG.md").write_text(released(f"[{VERSION}] - 2026-01-31"))
    names: list[str] = []
    monkeypatch.setattr(check_release, "ROOT", tmp_path)
    monkeypatch.setattr(check_release, "run", lambda *command, **options: names.append(command[-1]))
    monkeypatch.setattr(check_release, "install", lambda *_: names.append("install"))
    monkeypatch.setattr(check_release, "run_demo", lambda *_: names.append("demo"))
    return names


@pytest.mark.parametrize("arguments", [[], [""]])
def test_without_a_tag_missing_facts_are_listed_and_all_steps_run(
    steps: list[str], arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check_release.py", *arguments])
    check_release.main()
    assert steps == ["setup", "build", "install", "demo", "check-resolution"]
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("missing from pyproject.toml: ")]) == 3
    assert re.fullmatch(r"all right: setup \d+ s, build \d+ s, install \d+ s, demo \d+ s, resolution \d+ s", lines[-1])


def test_with_a_tag_missing_facts_are_refused_before_any_step(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["check_release.py", f"v{VERSION}"])
    with pytest.raises(SystemExit, match="missing from pyproject.toml: authors") as stop:
        check_release.main()
    assert not steps and "docs/release.md" in str(stop.value)


def test_with_a_tag_a_complete_tree_passes(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = "authors = [{ name = 'Ada' }]\n[project.urls]\n" + "".join(f"{k} = '{v}'\n" for k, v in URLS.items())
    path = check_release.ROOT / "pyproject.toml"
    path.write_text(path.read_text() + facts)
    monkeypatch.setattr(sys, "argv", ["check_release.py", f"v{VERSION}"])
    check_release.main()
    assert len(steps) == 5


def test_step_that_fails_ends_the_check_in_one_line(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*command: str, **options: Any) -> None:
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(check_release, "run", fail)
    monkeypatch.setattr(sys, "argv", ["check_release.py"])
    with pytest.raises(SystemExit, match="setup.* returned non-zero exit status 2"):
        check_release.main()


# One version


def test_versions_of_this_tree_agree() -> None:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "CHANGELOG.md")]
    assert not find_faults(VERSION, *texts)


@pytest.mark.parametrize(
    ("citation", "changelog", "tag", "fault"),
    [
        (CITATION, released(f"[{VERSION}] - 2026-01-31"), "", None),
        (CITATION, released(f"[{VERSION}] - 2026-01-31"), f"v{VERSION}", None),
        (CITATION, "## [Unreleased]\n", "", None),
        (CITATION, "## [Unreleased]\n", f"v{VERSION}", "is not there, but must be"),
        (CITATION, released(f"[{VERSION}]"), "", "YYYY-MM-DD"),
        (CITATION, released(f"[{VERSION}] - 2026-02-31"), "", "YYYY-MM-DD"),
        (CITATION, released("[9.9.9] - 2026-01-31"), "", r"is '## \[9.9.9\] - 2026-01-31'"),
        (CITATION, released(f"[{VERSION}] - 2026-01-31"), "v9.9.9", f"the tag is v9.9.9, but must be v{VERSION}"),
        ("version: 9.9.9\n", "## [Unreleased]\n", "", "CITATION.cff has version 9.9.9"),
        ("cff-version: 1.2.0\n", "## [Unreleased]\n", "", "CITATION.cff has version none"),
    ],
)
def test_versions_that_differ_are_found(citation: str, changelog: str, tag: str, fault: str | None) -> None:
    faults = find_faults(VERSION, citation, changelog, tag)
    assert len(faults) == (fault is not None)
    assert fault is None or re.search(fault, faults[0])


# What is built


def write_wheel(path: Path, files: dict[str, bytes], mode: int = 0o644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return path


def test_comparison_of_wheels_finds_every_difference(tmp_path: Path) -> None:
    files = {"textcap/__init__.py": b"a", "textcap/cli.py": b"b"}
    first = write_wheel(tmp_path / "first.whl", files)
    second = tmp_path / "second.whl"
    assert compare_wheels(first, write_wheel(second, files)) == []
    assert compare_wheels(first, write_wheel(second, {**files, "textcap/cli.py": b"c"})) == ["textcap/cli.py differs"]
    fewer = {"textcap/cli.py": b"b", "x": b""}
    lines = ["textcap/__init__.py is only in one wheel", "x is only in one wheel"]
    assert compare_wheels(first, write_wheel(second, fewer)) == lines
    assert len(compare_wheels(first, write_wheel(second, files, 0o755))) == 2


def test_comparison_of_the_sdist_finds_lost_and_foreign_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdist = tmp_path / "textcap.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("PKG-INFO", "src/a.py", "notes.txt"):
            archive.addfile(tarfile.TarInfo(f"textcap-1/{name}"), io.BytesIO())
    assert compare_with_tracked(sdist, {"src/a.py", "notes.txt"}) == []
    faults = compare_with_tracked(sdist, {"src/a.py", "tests/b.py"})
    assert [line.split()[0] for line in faults] == ["tests/b.py", "notes.txt"]
    monkeypatch.setattr("build_release.MAX_SDIST_BYTES", 10)
    assert "at most 10 are allowed" in compare_with_tracked(sdist, {"src/a.py", "notes.txt"})[0]


def test_wheel_must_have_the_package_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files = {path.relative_to(SOURCE.parent).as_posix(): path.read_bytes() for path in package}
    files |= {"textcap-1.dist-info/RECORD": b"", "textcap-1.dist-info/licenses/LICENSE": b""}
    path = tmp_path / "textcap.whl"
    assert find_wheel_faults(write_wheel(path, files)) == []
    changed = {name: content for name, content in files.items() if name != "textcap/errors.py"} | {"tests/a.py": b""}
    faults = find_wheel_faults(write_wheel(path, changed))
    assert faults == ["textcap/errors.py is missing", "tests/a.py does not belong there"]
    monkeypatch.setattr("check_wheel.MAX_WHEEL_BYTES", 10)
    assert "at most 10" in find_wheel_faults(write_wheel(path, files))[0]


def test_tools_of_a_release_are_pinned() -> None:
    lines = (ROOT / "constraints-release.txt").read_text(encoding="utf-8").lower().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    (recipe,) = re.findall(r"-c constraints-release\.txt (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert set(recipe.split()) <= pins.keys()
    for requirement in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert pins[requirement.name] in requirement.specifier


# Pages and workflows


@pytest.mark.parametrize("name", ["CITATION.cff", "SECURITY.md", "CONTRIBUTING.md"])
def test_pages_around_the_owner_are_short_and_invent_nothing(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 15
    assert "@" not in text
    addresses = re.findall(r"[a-z]+://\S+", text)
    assert all(address == "https://arxiv.org/abs/2309.07372" for address in addresses)


def test_citation_is_valid() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == VERSION and citation["license"] == PYPROJECT["project"]["license"]
    for work in (citation, *citation["references"]):
        assert work["authors"] and all({"name"} <= a.keys() or {"family-names"} <= a.keys() for a in work["authors"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_or_named(path: Path) -> None:
    policies = yaml.safe_load((ROOT / ".github" / "zizmor.yml").read_text())["rules"]["unpinned-uses"]["config"]
    by_tag = {action for action, policy in policies["policies"].items() if policy == "ref-pin"}
    used = re.findall(r"uses: (\S+?)@(.+)$", path.read_text(encoding="utf-8"), flags=re.M)
    assert used
    loose = {action for action, version in used if not re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", version)}
    assert loose <= by_tag


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_the_least_permissions(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] in ({}, {"contents": "read"})
    granted = [job["permissions"] for job in workflow["jobs"].values() if "permissions" in job]
    assert granted == ([{"contents": "read"}, {"id-token": "write"}] if path.name == "release.yml" else [])
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts and all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_only_what_was_checked_is_published() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))["jobs"]
    build, publish = jobs["build"]["steps"], jobs["publish"]
    (check,) = [step for step in build if "run" in step]
    assert check == {"run": "make release-check", "env": {"TAG": "${{ github.ref_name }}"}}
    assert publish["needs"] == "build" and publish["environment"] == "pypi"
    assert not [step for step in publish["steps"] if "run" in step]
    assert "attestations" not in publish["steps"][-1].get("with", {})  # on by default
