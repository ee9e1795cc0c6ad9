"""Check a built wheel: what has to be inside is, and its command runs from there.

Takes the folder that holds the one wheel; run it in an environment that has textcap's dependencies.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "textcap"
ENGINE = ("textcap/scoring/engine/TextEngine.java", "textcap/scoring/engine/textcap-engine.jar")
MAX_EMBEDDED_BYTES = 10 * 2**20
TIMEOUT_S = 300


def find_faults(wheel: Path) -> list[str]:
    """Return one line for each thing that is missing from the wheel or too large in it."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    package = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = [path.relative_to(SOURCE.parent).as_posix() for path in package]
    faults = [f"{name} is missing" for name in wanted if name not in sizes]
    faults += [f"{name} is missing" for name in ENGINE if name not in wanted and name not in sizes]
    embedded = {name: size for name, size in sizes.items() if name.startswith("textcap/demo/embedded/")}
    if not any(name.endswith(".safetensors") for name in embedded):
        faults.append("there are no embedded weights")
    if sum(embedded.values()) > MAX_EMBEDDED_BYTES:
        faults.append(f"the embedded files take {sum(embedded.values()):,} bytes")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in sizes):
        faults.append("there is no LICENSE")
    return faults


def run_command(wheel: Path) -> str:
    """Install the wheel in a folder of its own and return what its command says of its version.

    Raises:
        RuntimeError: The command failed, or another textcap answered.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--no-index", "--target", folder]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
        environment = {**os.environ, "PYTHONPATH": folder}
        where = [sys.executable, "-c", "import textcap; print(textcap.__file__)"]
        outputs = []
        for command in (
            where,
            [f"{folder}/bin/textcap", "demo", "--help"],
            [f"{folder}/bin/textcap", "--version"],
        ):
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, cwd=folder, timeout=TIMEOUT_S
            )
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
            outputs.append(done.stdout.strip())
        if not outputs[0].startswith(folder):
            raise RuntimeError(f"another textcap answered: {outputs[0]}")
        return outputs[-1]


def main() -> None:
    wheels = list(Path(sys.argv[1]).glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"one wheel was expected in {sys.argv[1]}, {len(wheels)} are there")
    faults = find_faults(wheels[0])
    if faults:
        sys.exit(f"{wheels[0].name}: " + "; ".join(faults))
    print(f"{wheels[0].name}: {wheels[0].stat().st_size:,} bytes, its command says {run_command(wheels[0])!r}")


if __name__ == "__main__":
    main()
