"""Check that a built wheel has all files of the package and no others, and that its command runs.

Takes the folder that holds the wheel. Run it in an environment that has textcap's dependencies.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "textcap"
ENGINE = tuple(f"textcap/scoring/engine/{name}" for name in ("Runner.java", "TextEngine.java", "textcap-java.jar"))
MAX_EMBEDDED_BYTES = 10 * 2**20
MAX_WHEEL_BYTES = 12 * 2**20
TIMEOUT_S = 300


def find_faults(wheel: Path) -> list[str]:
    """Return one line for each file that is missing from the wheel, does not belong there or is too large."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    package = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = [path.relative_to(SOURCE.parent).as_posix() for path in package]
    faults = [f"{name} is missing" for name in wanted if name not in sizes]
    faults += [f"{name} is missing" for name in ENGINE if name not in wanted and name not in sizes]
    information = tuple(name.split("/")[0] + "/" for name in sizes if name.endswith(".dist-info/RECORD"))
    faults += [f"{name} does not belong there" for name in sizes.keys() - {*wanted} if not name.startswith(information)]
    embedded = {name: size for name, size in sizes.items() if name.startswith("textcap/demo/embedded/")}
    if not any(name.endswith(".safetensors") for name in embedded):
        faults.append("the embedded weights are missing")
    if sum(embedded.values()) > MAX_EMBEDDED_BYTES:
        faults.append(
            f"the embedded files are {sum(embedded.values()):,} bytes, but must be at most {MAX_EMBEDDED_BYTES:,}"
        )
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in sizes):
        faults.append("LICENSE is missing")
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        faults.append(f"the wheel is {wheel.stat().st_size:,} bytes, but must be at most {MAX_WHEEL_BYTES:,}")
    return faults


def run_command(wheel: Path) -> str:
    """Install the wheel in a temporary folder and return the version line that its command prints.

    Raises:
        RuntimeError: A command failed, or Python imported textcap from another place.
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
                raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
            outputs.append(done.stdout.strip())
        if not outputs[0].startswith(folder):
            raise RuntimeError(f"textcap was imported from {outputs[0]}, not from the wheel")
        return outputs[-1]


def main() -> None:
    wheels = list(Path(sys.argv[1]).glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"the number of wheels in {sys.argv[1]} is {len(wheels)}, but must be 1")
    faults = find_faults(wheels[0])
    if faults:
        sys.exit(f"{wheels[0].name}: " + "; ".join(faults))
    print(f"{wheels[0].name}: {wheels[0].stat().st_size:,} bytes, textcap --version prints {run_command(wheels[0])!r}")


if __name__ == "__main__":
    main()
