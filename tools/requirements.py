"""Print pyproject.toml's requirements, one a line, leaving out the packages that are named."""

import argparse
import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def canonical_name(requirement: str) -> str:
    """Return the package name a requirement starts with, in lower case with single hyphens."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    if name is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def read_requirements(extras: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> list[str]:
    """Return the requirements of the project and of `extras`, less the packages in `without`.

    Raises:
        ValueError: A package to leave out is not among them, so the caller's list is out of date.
    """
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    unknown = set(without) - {canonical_name(line) for line in requirements}
    if unknown:
        raise ValueError(f"not required by pyproject.toml: {', '.join(sorted(unknown))}")
    return [line for line in requirements if canonical_name(line) not in without]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", action="append", default=[], help="add the requirements of this extra")
    parser.add_argument("--without", action="append", default=[], help="leave this package out")
    options = parser.parse_args()
    sys.stdout.writelines(line + "\n" for line in read_requirements(options.extra, options.without))


if __name__ == "__main__":
    main()
