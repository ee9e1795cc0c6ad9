"""Programs that are taken for Java: small Python scripts that answer, fail or hang as a test wants."""

import shutil
import sys
from pathlib import Path

_SCRIPT = """#!{python} -S
import json, os, sys, time
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
program = next((name for name in ("PTBTokenizer", "Meteor", "SpiceScorer") if any(name in a for a in arguments)), "")
REAL = {real!r}
def run_real():
    os.execv(REAL, [REAL, *arguments])
def answer(scores):
    path = arguments[arguments.index("-out") + 1]
    with open(path, "w") as file:
        json.dump([{{"image_id": i, "scores": {{"All": {{"f": f}}}}}} for i, f in scores], file)
def parsed():
    return os.path.join(arguments[arguments.index("-cache") + 1], "data.mdb")
def asked():
    with open(arguments[arguments.index("-cache") - 1]) as file:
        return json.load(file)
{body}
"""


def write_java(folder: Path, body: str) -> Path:
    """Write a program `java` that calls itself Java 17 and does what `body` says; it logs how it is called.

    Args:
        folder: Made, with `bin/java`, `release` and, once it has run, `log`.
        body: Python, with `arguments`, `program`, `run_real()`, `asked()`, `answer(scores)`, `parsed()` at hand.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "release").write_text('JAVA_VERSION="17.0.1"\n')
    path = folder / "bin" / "java"
    log, real = str(folder / "log"), shutil.which("java") or ""
    path.write_text(_SCRIPT.format(python=sys.executable, log=log, real=real, body=body))
    path.chmod(0o755)
    return path


def count_starts(java: Path) -> int:
    """Return how often such a program was started."""
    log = java.parent.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0
