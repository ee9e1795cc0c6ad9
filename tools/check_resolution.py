"""Check that pip finds versions for all of pyproject's requirements on each Python, installing none.

pip's --python-version picks wheels for another Python but reads markers for the one that runs, so pip is
started here with its marker environment replaced. One line per version; exit 1 when one of them fails.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from requirements import canonical_name, read_requirements

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# The packages that stop at a Python version, and the first one that goes without them.
CAPPED = {"msclap": (3, 13), "aac-metrics": (3, 13)}
# pip resolves for another Python from wheels only, and this one publishes none; it is pure Python.
SOURCE_ONLY = ("aac-metrics",)
TIMEOUT_S = 1200

RUN_PIP_AS = """
import sys
from pip._vendor.packaging import markers

version = sys.argv.pop(1)
running = markers.default_environment
markers.default_environment = lambda: {
    **running(), "python_version": version, "python_full_version": version + ".0"
}
from pip._internal.cli.main import main

sys.exit(main(sys.argv[1:]))
"""


def build_source_only(requirements: list[str], folder: Path) -> None:
    """Build wheels into `folder` of the packages that publish none."""
    lines = [line.split(";")[0].strip() for line in requirements if line.startswith(SOURCE_ONLY)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        *lines,
    ]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)


def resolve(version: str, requirements: list[str], wheels: Path) -> dict[str, str]:
    """Return the versions pip would install on Python `version`, by canonical name.

    Raises:
        RuntimeError: pip found no set of versions; the message is pip's.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--python-version", version]
        options += ["--target", folder, "--find-links", str(wheels), "--report", str(report), "--quiet"]
        command = [sys.executable, "-c", RUN_PIP_AS, version, "install", *options, *requirements]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = [item["metadata"] for item in installs]
    return {canonical_name(metadata["name"]): metadata["version"] for metadata in found}


def find_faults(version: str, found: dict[str, str]) -> list[str]:
    """Return what is wrong with a resolved set: a capped package that is in or out where it should not be."""
    python = tuple(int(part) for part in version.split("."))
    faults = []
    for name, gone in CAPPED.items():
        if (name in found) != (python < gone):
            faults.append(f"{name} is {'in' if name in found else 'missing'}")
    for name, major in (("numpy", 2), ("transformers", 5)):
        newer = int(found[name].split(".")[0]) >= major
        if newer != (python >= CAPPED["msclap"]):
            faults.append(f"{name} is {found[name]}")
    return faults


def check(version: str, requirements: list[str], wheels: Path) -> bool:
    """Resolve for one Python, print the line about it, and return whether it is right."""
    try:
        found = resolve(version, requirements, wheels)
    except RuntimeError as error:
        print(f"{version}: no solution\n{error}", flush=True)
        return False
    faults = find_faults(version, found)
    shown = [f"{name} {found.get(name, 'absent')}" for name in ("torch", "numpy", "transformers", *CAPPED)]
    verdict = f"WRONG: {'; '.join(faults)}" if faults else "ok"
    print(f"{version}: {verdict}: {len(found)} packages, {', '.join(shown)}", flush=True)
    return not faults


def main() -> None:
    requirements = read_requirements(("dev",))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        build_source_only(requirements, Path(folder))
        results = list(pool.map(lambda version: check(version, requirements, Path(folder)), VERSIONS))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
