"""Build the source distribution (sdist) and the wheel, and check that nothing is lost on the way.

    python tools/build_release.py FOLDER

The wheel in FOLDER is built from the sdist. It must equal the wheel built from the tree, and the sdist must have every
file that git tracks, and no other: then it is enough to build and test textcap. Needs hatchling.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_SDIST_BYTES = 15 * 2**20
TIMEOUT_S = 300
# Written by hatchling.
GENERATED = {"PKG-INFO"}


def build(target: str, source: Path, folder: Path) -> Path:
    """Build an "sdist" or a "wheel" of the tree at `source` into `folder`, and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode != 0:
        sys.exit(f"hatchling cannot build the {target}:\n{done.stderr}")
    (path,) = folder.glob("*.tar.gz" if target == "sdist" else "*.whl")
    return path


def compare_wheels(first: Path, second: Path) -> list[str]:
    """Return one line for each file that is not the same, with the same mode, in two wheels."""
    contents = []
    for path in (first, second):
        with zipfile.ZipFile(path) as archive:
            contents.append({one.filename: (archive.read(one), one.external_attr) for one in archive.infolist()})
    ours, theirs = contents
    faults = [f"{name} is only in one wheel" for name in sorted(ours.keys() ^ theirs.keys())]
    return faults + [f"{name} differs" for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]


def compare_with_tracked(sdist: Path, tracked: set[str]) -> list[str]:
    """Return one line for each file that the sdist lacks or should not have, and one if it is too large."""
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if not member.isdir()}
    faults = [f"{name} is missing from the sdist" for name in sorted(tracked - names)]
    faults += [
        f"{name} is in the sdist, but not in git: add, ignore or delete it"
        for name in sorted(names - tracked - GENERATED)
    ]
    if sdist.stat().st_size > MAX_SDIST_BYTES:
        faults.append(f"the sdist has {sdist.stat().st_size:,} bytes, but at most {MAX_SDIST_BYTES:,} are allowed")
    return faults


def tracked_files() -> set[str]:
    """Return the files of the tree that git tracks, relative to it."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name}


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    sdist = build("sdist", ROOT, folder)
    # Whoever builds from an sdist has no git.
    faults = compare_with_tracked(sdist, tracked_files()) if (ROOT / ".git").exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        (unpacked,) = Path(scratch).iterdir()
        wheel = build("wheel", unpacked, folder)
        faults += compare_wheels(wheel, build("wheel", ROOT, Path(scratch, "tree")))
    if faults:
        sys.exit("\n".join(faults))
    print(f"{sdist.name}: {sdist.stat().st_size:,} bytes")
    print(f"{wheel.name}: the same from the sdist and from the tree")


if __name__ == "__main__":
    main()
