"""Run the tests of scoring on other Python versions, with only the packages that scoring needs.

    python tools/test_scoring.py FOLDER VERSION...
    python tools/test_scoring.py --ignored

Each environment is made in FOLDER and kept. torch is in none of them. A version that is not installed on this machine
is named and left out. Exits with 1 if a test fails. --ignored prints the options with which pytest leaves out these
tests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ["numpy", "typer", "rich", "httpx2", "huggingface-hub", "filelock", "platformdirs"]
TEST_PACKAGES = ["pytest", "pytest-xdist", "hypothesis", "psutil"]
TESTS = [
    "test_cli_score.py",
    "test_comparison.py",
    "test_fetch_metrics.py",
    "test_jars.py",
    "test_java.py",
    "test_published.py",
    "test_scoring_matching.py",
    "test_scoring_metrics.py",
    "test_scoring_formats.py",
    "test_significance.py",
    "test_spice.py",
    "test_words.py",
]


def find_python(version: str) -> str | None:
    """Return the path of a Python of a version such as "3.10", or None if there is none."""
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        latest = subprocess.run(["pyenv", "latest", version], capture_output=True, text=True).stdout.strip()
        prefix = subprocess.run(["pyenv", "prefix", latest], capture_output=True, text=True).stdout.strip()
        candidates.append(f"{prefix}/bin/python" if prefix else None)
    for path in candidates:
        # A program of this name may be one that only says that the version is not chosen.
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return None


def make_environment(folder: Path, python: str) -> str:
    """Install the packages and textcap into an environment, and return its Python."""
    own = str(folder / "bin" / "python")
    pip = [own, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if not Path(own).exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
    subprocess.run([*pip, *PACKAGES, *TEST_PACKAGES], check=True)
    subprocess.run([*pip, "--no-deps", "pycocoevalcap"], check=True)  # for its jars; it requires pandas
    subprocess.run([*pip, "--no-deps", "--force-reinstall", str(ROOT)], check=True)
    return own


def main() -> None:
    """Run the tests on each version."""
    if sys.argv[1:] == ["--ignored"]:
        print(*(f"--ignore=tests/{name}" for name in TESTS))
        return
    folder, *versions = sys.argv[1:]
    failed = False
    for version in versions:
        python = find_python(version)
        if python is None:
            print(f"Python {version} is not installed and is left out")
            continue
        own = make_environment(Path(folder, version), python)
        print(f"Python {version}", flush=True)
        tests = [str(ROOT / "tests" / name) for name in TESTS]
        options = "-q -n 2 --dist loadfile --no-loadscope-reorder -p no:cacheprovider".split()
        command = [own, "-m", "pytest", *options, *tests]
        failed |= subprocess.run(command, cwd=ROOT, env={**os.environ, "COLUMNS": "120"}).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
