"""A catalogue of six tiny files in the places of the real ones, and archives that contain them."""

import gzip
import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

import pytest

from textcap.scoring import jar_fetching, jars
from textcap.scoring.jars import JarFile
from textcap.weights.download import RemoteFile

WHEEL, CORENLP_ZIP = "pycocoevalcap-1.2-py3-none-any.whl", "stanford-corenlp-full-2015-12-09.zip"
CORENLP, MODELS = "stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"


def tiny_jar(text: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo("content.txt"), text * 2000)
    return content.getvalue()


CONTENTS = {
    "stanford_nlp/stanford-corenlp-3.4.1.jar": tiny_jar("tokenizer"),
    "meteor/meteor-1.5.jar": tiny_jar("meteor"),
    "meteor/data/paraphrase-en.gz": gzip.compress(b"paraphrases" * 500, mtime=0),
    "spice/spice-1.0.jar": tiny_jar("spice"),
    f"spice/lib/{CORENLP}": tiny_jar("corenlp"),
    f"spice/lib/{MODELS}": tiny_jar("models"),
}
BY_NAME = {path.rpartition("/")[2]: content for path, content in CONTENTS.items()}
PROGRAMS = {"stanford_nlp": "ptb", "meteor": "meteor", "spice": "spice"}


def packaged_path(path: str) -> str | None:
    if path.startswith("spice/lib/"):
        return None
    return path.replace("stanford_nlp", "tokenizer")


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache  # a zip file holds the time at which it was written
def wheel() -> bytes:
    """Return a wheel with the files of the package, and one file with a known name in the wrong place."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("pycocoevalcap/__init__.py", "raise ImportError('not to be imported')")
        archive.writestr("pycocoevalcap/elsewhere/meteor-1.5.jar", tiny_jar("another"))
        for path, jar in CONTENTS.items():
            if packaged_path(path):
                archive.writestr(f"pycocoevalcap/{packaged_path(path)}", jar)
    return content.getvalue()


def corenlp_zip(**changed: bytes) -> bytes:
    """Return CoreNLP's zip file with its two jars, another file, and a name that leads out of the target folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("stanford-corenlp-full-2015-12-09/README.txt", "read me" * 100)
        archive.writestr("../../../evil.txt", "evil")
        for name in (CORENLP, MODELS):
            jar = changed.get(name.replace("-", "_").replace(".", "_"), BY_NAME[name])
            archive.writestr(f"stanford-corenlp-full-2015-12-09/{name}", jar)
    return content.getvalue()


def use_tiny_catalogue(monkeypatch: pytest.MonkeyPatch, server: str = "http://127.0.0.1:9") -> None:
    """Replace the catalogue of the Java programs by the tiny one, to be downloaded from a server."""
    files = tuple(
        JarFile(
            PROGRAMS[path.split("/")[0]],  # type: ignore[arg-type]
            path,
            hash_of(content),
            len(content),
            "MIT",
            packaged_path(path),
            None if packaged_path(path) else f"{server}/store/maven/{path.rpartition('/')[2]}",
        )
        for path, content in CONTENTS.items()
    )
    monkeypatch.setattr(jars, "CATALOGUE", files)
    remote = RemoteFile(WHEEL, f"{server}/store/pypi/{WHEEL}", hash_of(wheel()), len(wheel()))
    monkeypatch.setattr(jar_fetching, "WHEEL", remote)


def install_package(folder: Path, **changed: bytes) -> None:
    """Write the files that pycocoevalcap installs to a folder of packages."""
    for path, jar in CONTENTS.items():
        inside = packaged_path(path)
        if inside:
            place = folder / "pycocoevalcap" / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(changed.get(place.stem.replace("-", "_").replace(".", "_"), jar))
    (folder / "pycocoevalcap" / "__init__.py").write_text("raise ImportError('not to be imported')")


def fill_cache(cache: Path, without: tuple[str, ...] = ()) -> None:
    """Write every file of the catalogue to its place in a cache folder."""
    for path, content in CONTENTS.items():
        if path.rpartition("/")[2] not in without:
            place = cache / "aac-metrics" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
