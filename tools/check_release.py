"""Check that textcap can be released: build it, install it as a user does, and run the demo there.

    python tools/check_release.py [TAG]

Lists what only the owner can supply and is still missing from pyproject.toml. With a tag, such as v0.1.0, this is an
error, and so is a tag that is not the version, or a changelog without the date of the release. Needs Python 3.11 and
make, and prints the seconds of each step.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from test_scoring import find_python

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parent.parent
# The Python that textcap is installed on; the others are checked by resolution.
PYTHON_VERSION = "3.11"
URLS = {"Repository": "the address of the repository", "Security": "where to report a weakness"}
TIMEOUT_S = 1800


def find_missing(project: dict[str, Any]) -> list[str]:
    """Return one line for each fact that only the owner knows and that a `[project]` table does not state."""
    missing = []
    authors = project.get("authors", [])
    if not authors or not all(author.get("name", "").strip() for author in authors):
        missing.append("authors under [project]: the authors' names")
    for name, meaning in URLS.items():
        address = urlsplit(project.get("urls", {}).get(name, ""))
        if address.scheme != "https" or not address.netloc:
            missing.append(f"{name} under [project.urls]: {meaning}, an https address")
    return missing


def find_faults(version: str, citation: str, changelog: str, tag: str = "") -> list[str]:
    """Return one line for each place whose version is not that of pyproject.toml.

    Args:
        citation: The text of CITATION.cff.
        changelog: The text of CHANGELOG.md. Before the first release it has no version.
        tag: If given, the changelog must have this release, with its date.
    """
    faults = []
    cited = re.findall(r"^version: (.+)$", citation, flags=re.M)
    if cited != [version]:
        faults.append(f"CITATION.cff has version {' and '.join(cited) or 'none'}, but pyproject.toml has {version}")
    headings = [heading for heading in re.findall(r"^## (.+)$", changelog, flags=re.M) if heading != "[Unreleased]"]
    if (tag and not headings) or (headings and not _is_dated(headings[0], version)):
        newest = f"'## {headings[0]}'" if headings else "not there"
        faults.append(f"the newest release in CHANGELOG.md is {newest}, but must be '## [{version}] - YYYY-MM-DD'")
    if tag and tag != f"v{version}":
        faults.append(f"the tag is {tag}, but must be v{version}")
    return faults


def _is_dated(heading: str, version: str) -> bool:
    start, _, day = heading.partition(" - ")
    try:
        return start == f"[{version}]" and date.fromisoformat(day).isoformat() == day
    except ValueError:
        return False


@contextmanager
def timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Print a step's name, and keep how long it took."""
    print(f"== {step}", flush=True)
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started


def run(*command: str | Path, **options: Any) -> None:
    subprocess.run(list(map(str, command)), check=True, timeout=TIMEOUT_S, **options)


def install(wheel: Path, folder: Path) -> None:
    """Install a wheel with the newest tested versions into a new environment.

    Raises:
        RuntimeError: The version of Python that this needs is not installed.
    """
    python = find_python(PYTHON_VERSION)
    if python is None:
        raise RuntimeError(f"Python {PYTHON_VERSION} is not installed")
    run(python, "-m", "venv", folder)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "-c", ROOT / "constraints-modern.txt", wheel)


def run_demo(environment: Path, folder: Path) -> None:
    """Run the demo of an installed textcap in `folder`, with none of this machine's settings and caches."""
    own = ("PYTHON", "TEXTCAP_", "HF_", "TRANSFORMERS_")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    variables |= {"TEXTCAP_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub")}
    run(environment / "bin" / "textcap", "demo", "demo", cwd=folder, env=variables)


def main() -> None:
    tag = sys.argv[1] if len(sys.argv) > 1 else ""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "CHANGELOG.md")]
    missing = [f"missing from pyproject.toml: {line}" for line in find_missing(project)]
    faults = find_faults(project["version"], *texts, tag) + (missing if tag else [])
    if faults:
        sys.exit("\n".join([*faults, "docs/release.md says what to write"]))
    make, seconds = os.environ.get("MAKE", "make"), dict[str, float]()
    try:
        with timed("setup", seconds):
            run(make, "--no-print-directory", "setup", cwd=ROOT)
        with timed("build", seconds):
            run(make, "--no-print-directory", "build", cwd=ROOT)
        with tempfile.TemporaryDirectory() as scratch:
            environment = Path(scratch, "environment")
            with timed("install", seconds):
                (wheel,) = (ROOT / "dist").glob("*.whl")
                install(wheel, environment)
            with timed("demo", seconds):
                run_demo(environment, Path(scratch))
        with timed("resolution", seconds):
            run(make, "--no-print-directory", "check-resolution", cwd=ROOT)
    except (subprocess.SubprocessError, RuntimeError) as error:
        sys.exit(str(error))
    print(*missing, sep="\n", end="\n" * bool(missing))
    print("all right: " + ", ".join(f"{step} {taken:.0f} s" for step, taken in seconds.items()))


if __name__ == "__main__":
    main()
