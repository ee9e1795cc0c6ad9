"""Check that this environment is what `make test-modern` promises: new numpy and transformers, no msclap."""

import importlib.metadata
import importlib.util
import sys

ABSENT = ("msclap", "aac_metrics", "torchaudio", "librosa")
AT_LEAST = {"numpy": 2, "transformers": 5, "huggingface-hub": 2}


def find_faults() -> list[str]:
    """Return one line for each thing that is not as promised."""
    faults = [f"{name} can be imported" for name in ABSENT if importlib.util.find_spec(name) is not None]
    for name, major in AT_LEAST.items():
        version = importlib.metadata.version(name)
        if int(version.split(".")[0]) < major:
            faults.append(f"{name} is {version}, {major} or later was promised")
    return faults


if __name__ == "__main__":
    found = find_faults()
    if found:
        sys.exit("not the modern environment: " + "; ".join(found))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in AT_LEAST)
    print(f"{versions}; none of {', '.join(ABSENT)} can be imported")
