"""Check that pip finds versions for textcap on each Python, plain and with all extras, without installing anything.

A plain install must allow numpy 2 and transformers 5, and bring none of the heavy packages of the extras. pip's
--python-version chooses wheels for another Python but evaluates markers for the one that runs it, so pip is started
here with its marker environment replaced. Prints one line per Python and set of requirements; exits with 1 if one of
them fails.
"""

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
UNWANTED = ("msclap", "aac-metrics", "torchaudio", "librosa", "pandas", "scikit-learn", "scipy")
# The packages of the extras that support no newer Python, and the first Python version without them.
CAPPED = {"msclap": (3, 13), "aac-metrics": (3, 13)}
# pip resolves for another Python from wheels only, and this package publishes none; it is pure Python.
SOURCE_ONLY = "aac-metrics"
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


def read_requirements(extra: str | None = None) -> list[str]:
    """Return the requirements of a plain install, or of one with an extra and the extras that it names."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    requirements, extras = list(project["dependencies"]), [extra] if extra else []
    for name in extras:
        for line in project["optional-dependencies"][name]:
            own = re.fullmatch(r"textcap\[(.+)\]", line)
            if own:
                extras += own[1].split(",")
            else:
                requirements.append(line)
    return requirements


def build_source_only(folder: Path) -> None:
    """Build a wheel into `folder` of the package that publishes none."""
    lines = [line.split(";")[0].strip() for line in read_requirements("all") if line.startswith(SOURCE_ONLY)]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *lines]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)


def resolve(version: str, requirements: list[str], wheels: Path) -> dict[str, str]:
    """Return the versions that pip would install on Python `version`, by canonical name.

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
    return {re.sub(r"[-_.]+", "-", metadata["name"]).lower(): metadata["version"] for metadata in found}


def find_faults(version: str, extra: str | None, found: dict[str, str]) -> list[str]:
    """Return one line for each thing that is wrong with a set of versions."""
    faults = []
    if extra is None:
        faults = [f"{name} is included" for name in UNWANTED if name in found]
        for name, major in (("numpy", 2), ("transformers", 5)):
            if int(found[name].split(".")[0]) < major:
                faults.append(f"{name} is {found[name]}, but must be {major} or later")
        return faults
    python = tuple(int(part) for part in version.split("."))
    for name, gone in CAPPED.items():
        if (name in found) != (python < gone):
            faults.append(f"{name} is {'included' if name in found else 'missing'}")
    return faults


def check(version: str, extra: str | None, wheels: Path) -> bool:
    """Resolve for one Python, print one line about it, and return whether it is right."""
    label = f"{version} {extra or 'plain'}"
    try:
        found = resolve(version, read_requirements(extra), wheels)
    except RuntimeError as error:
        print(f"{label}: no solution\n{error}", flush=True)
        return False
    faults = find_faults(version, extra, found)
    shown = [f"{name} {found.get(name, 'absent')}" for name in ("torch", "numpy", "transformers", *CAPPED)]
    verdict = f"WRONG: {'; '.join(faults)}" if faults else "ok"
    print(f"{label}: {verdict}: {len(found)} packages, {', '.join(shown)}", flush=True)
    return not faults


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        build_source_only(Path(folder))
        sets = [(version, extra) for version in VERSIONS for extra in (None, "all")]
        results = list(pool.map(lambda one: check(*one, Path(folder)), sets))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
