"""Check that a plain install brings the newest numpy and transformers, and none of the heavy packages of the extras."""

import importlib.metadata
import importlib.util
import sys

from check_resolution import UNWANTED

AT_LEAST = {"numpy": 2, "transformers": 5, "huggingface-hub": 2}


def find_faults() -> list[str]:
    """Return one line for each installed package that a plain install should not have, or not in this version."""
    installed = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
    faults = [f"{name} is installed" for name in UNWANTED if name in installed]
    for name, major in AT_LEAST.items():
        version = importlib.metadata.version(name)
        if int(version.split(".")[0]) < major:
            faults.append(f"{name} is {version}, but must be {major} or later")
    return faults


if __name__ == "__main__":
    found = find_faults()
    if found:
        sys.exit("not a plain, modern environment: " + "; ".join(found))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in AT_LEAST)
    print(f"{versions}; without {', '.join(UNWANTED)}")
