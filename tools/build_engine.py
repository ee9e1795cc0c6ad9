"""Compile the Java classes of textcap, which run the Java programs and write SPICE's result, into a jar beside them.

Needs javac of Java 9 or later. The same compiler gives the same bytes, because entries are sorted and timestamps fixed.
Prints the SHA-256 of the jar; copy it to `_ENGINE_SHA256` in `textcap.scoring.jars`.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

SOURCES = sorted((Path(__file__).parent.parent / "src" / "textcap" / "scoring" / "engine").glob("*.java"))
JAR = SOURCES[0].with_name("textcap-java.jar")
ENGINE = "textcap.TextEngine"
OLDEST_JAVA = 8
FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
TIMEOUT_S = 120


def compile_classes(javac: str, sources: Sequence[Path]) -> dict[str, bytes]:
    """Return the class files compiled from sources, keyed by their names in a jar.

    Raises:
        RuntimeError: The compiler reported an error or a warning.
    """
    with tempfile.TemporaryDirectory() as folder:
        # -options: newer compilers warn that support for Java 8 will end.
        options = ["--release", str(OLDEST_JAVA), "-Xlint:all,-options", "-Werror", "-g:none", "-encoding", "UTF-8"]
        command = [javac, *options, "-d", folder, *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        root = Path(folder)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.class"))}


def write_jar(path: Path, classes: dict[str, bytes], sources: Sequence[Path]) -> None:
    """Write class files as a jar in which Java finds the script engine, with the SHA-256 of their sources."""
    entries = {
        "META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\n\r\n",
        "META-INF/services/javax.script.ScriptEngineFactory": f"{ENGINE}\n".encode(),
        "META-INF/source.sha256": sha256_of_sources(sources).encode(),
        **classes,
    }
    with zipfile.ZipFile(path, "w") as jar:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, FIRST_TIME)
            entry.create_system = 3  # Unix, whatever system this runs on
            entry.external_attr = 0o644 << 16
            jar.writestr(entry, content)  # not compressed, because libraries compress differently


def sha256_of_sources(sources: Sequence[Path]) -> str:
    """Return the SHA-256 of sources one after the other."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=JAR, help="the jar to write (default: beside the source)")
    parser.add_argument("--javac", default=shutil.which("javac"), help="the compiler (default: the one on PATH)")
    options = parser.parse_args()
    if options.javac is None:
        sys.exit("javac is not on PATH (install a JDK, or name its javac with --javac)")
    write_jar(options.output, compile_classes(options.javac, SOURCES), SOURCES)
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(f"{options.output}: {options.output.stat().st_size:,} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    main()
