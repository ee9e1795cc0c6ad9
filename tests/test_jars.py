"""The jars of the Java programs: found where aac-metrics keeps them, and checked before they are run."""

import csv
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import time
import types
import zipfile
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_jars import CONTENTS, CORENLP, MODELS, fill_cache, hash_of, tiny_jar, use_tiny_catalogue
from textcap.errors import DependencyError
from textcap.scoring import jars
from textcap.scoring.jar_fetching import fetch_metrics
from textcap.scoring.jars import CATALOGUE, engine_jar, find_jars, metrics_folder, remember_given


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that contains all files of a tiny catalogue."""
    use_tiny_catalogue(monkeypatch)
    folder = tmp_path / "cache"
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(folder))
    fill_cache(folder)
    return folder


def place(cache: Path, path: str) -> Path:
    return cache / "aac-metrics" / path


# The real catalogue


def test_catalogue_is_complete_without_duplicates():
    assert len({file.path for file in CATALOGUE}) == len(CATALOGUE) == 23
    assert len({file.sha256 for file in CATALOGUE}) == len(CATALOGUE)
    for file in CATALOGUE:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256), file.path
        assert file.licence and file.size_bytes > 0
        assert not Path(file.path).is_absolute() and ".." not in file.path
    lacking = [file.name for file in CATALOGUE if file.packaged is None]
    assert lacking == [CORENLP, MODELS]
    assert [file.name for file in CATALOGUE if file.url and file.url.endswith(f"/{file.name}")] == lacking


def test_catalogue_agrees_with_the_record_of_pycocoevalcap():
    try:
        package = importlib.metadata.distribution("pycocoevalcap")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs pycocoevalcap")
    record = {
        name: (digest, size) for name, digest, size in csv.reader((package.read_text("RECORD") or "").splitlines())
    }
    for file in CATALOGUE:
        if file.packaged is not None:
            digest, size = record[f"pycocoevalcap/{file.packaged}"]
            assert urlsafe_b64decode(digest.removeprefix("sha256=") + "=").hex() == file.sha256, file.path
            assert int(size) == file.size_bytes


def test_class_path_has_the_order_of_the_manifest(metric_jars, monkeypatch):
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(metric_jars))
    spice = metric_jars / "aac-metrics" / "spice" / "spice-1.0.jar"
    with zipfile.ZipFile(spice) as archive:
        manifest = archive.read("META-INF/MANIFEST.MF").decode().replace("\r\n ", "").replace("\n ", "")
    wanted = re.search(r"^Class-Path: (.*?)\r?$", manifest, re.MULTILINE)
    ours = [file.path.removeprefix("spice/") for file in CATALOGUE if file.program == "spice"]
    assert wanted is not None
    assert [name for name in ours if name in wanted[1].split()] == wanted[1].split()


def test_real_jars_are_found_and_differing_files_are_named(spice_jars, monkeypatch):
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
    tokenizer = spice_jars / "aac-metrics/stanford_nlp/stanford-corenlp-3.4.1.jar"
    assert find_jars("ptb").class_path == (tokenizer, engine_jar())
    meteor = find_jars("meteor")
    assert meteor.class_path == (spice_jars / "aac-metrics/meteor/meteor-1.5.jar", engine_jar())
    assert set(meteor.hashes) == {"meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz", "textcap-java.jar"}
    spice = find_jars("spice")
    files = [spice_jars / "aac-metrics" / file.path for file in CATALOGUE if file.program == "spice"]
    assert spice.class_path == (*files, engine_jar())
    assert len(spice.hashes) == 21
    models = spice_jars / "aac-metrics/spice/lib" / MODELS
    known = next(file.sha256 for file in CATALOGUE if file.name == MODELS)
    assert spice.unknown == ([] if hash_of(models.read_bytes()) == known else [f"spice/lib/{MODELS}"])


@pytest.fixture
def aac_metrics_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that imports a module of aac-metrics without the package itself, msclap and torchaudio."""
    package = importlib.util.find_spec("aac_metrics")
    if package is None:
        pytest.skip("needs aac-metrics")
    for name in [name for name in sys.modules if name.split(".")[0] == "aac_metrics"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("aac_metrics", "aac_metrics.functional", "aac_metrics.utils"):
        bare = types.ModuleType(name)
        bare.__path__ = [str(Path(package.submodule_search_locations[0], *name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, bare)

    def load(name: str) -> Any:
        before = set(sys.modules)
        module = importlib.import_module(name)
        for new in set(sys.modules) - before:
            if new.startswith("aac_metrics."):
                kept = sys.modules.pop(new)
                monkeypatch.setitem(sys.modules, new, kept)  # removed when the test ends
        return module

    return load


def test_layout_is_the_one_that_aac_metrics_expects(spice_jars, monkeypatch, aac_metrics_module):
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
    assert Path(aac_metrics_module("aac_metrics.utils.globals").get_default_cache_path()) == metrics_folder().parent
    (spice_jars / "aac-metrics" / "spice" / "cache").mkdir(exist_ok=True)
    spice = aac_metrics_module("aac_metrics.functional.spice")
    spice.check_spice_install(str(spice_jars))
    names = [
        aac_metrics_module("aac_metrics.utils.tokenization").FNAME_STANFORD_CORENLP_3_4_1_JAR,
        aac_metrics_module("aac_metrics.functional.meteor").FNAME_METEOR_JAR,
        spice.FNAME_SPICE_JAR,
    ]
    assert [find_jars(program).class_path[0] for program in ("ptb", "meteor", "spice")] == [
        spice_jars / name for name in names
    ]


def test_pinned_hash_of_the_engine_is_that_of_its_file():
    assert jars._ENGINE_SHA256 == hash_of(engine_jar().read_bytes())


def test_engine_with_another_hash_is_never_run(cache, tmp_path, monkeypatch):
    other = tmp_path / "scoring" / "engine" / "textcap-java.jar"
    monkeypatch.setattr(jars, "files", lambda package: tmp_path)
    for content in (None, tiny_jar("an engine of somebody else")):
        if content is not None:
            other.parent.mkdir(parents=True)
            other.write_bytes(content)
        for program in ("ptb", "meteor", "spice"):
            with pytest.raises(DependencyError, match="textcap-java.jar .*is not the known file.*reinstall textcap"):
                find_jars(program)


# Any catalogue


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "{home}/.cache"), ("", "{home}/.cache"), ("~/x", "{home}/x"), ("$THERE/y", "/there/y"), ("z", "{here}/z")],
)
def test_cache_folder_follows_the_variable_of_aac_metrics(value, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("THERE", "/there")
    monkeypatch.chdir(tmp_path)
    if value is None:
        monkeypatch.delenv("AAC_METRICS_CACHE_PATH")
    else:
        monkeypatch.setenv("AAC_METRICS_CACHE_PATH", value)
    assert metrics_folder() == Path(expected.format(home=tmp_path / "home", here=tmp_path)) / "aac-metrics"


def test_programs_have_their_jars_and_hashes(cache):
    ptb, meteor, spice = (find_jars(program) for program in ("ptb", "meteor", "spice"))
    assert [path.name for path in ptb.class_path] == ["stanford-corenlp-3.4.1.jar", "textcap-java.jar"]
    assert [path.name for path in meteor.class_path] == ["meteor-1.5.jar", "textcap-java.jar"]
    assert [path.name for path in spice.class_path] == ["spice-1.0.jar", CORENLP, MODELS, "textcap-java.jar"]
    for program in (ptb, meteor, spice):
        assert program.unknown == []
        for path, sha256 in program.hashes.items():
            content = engine_jar().read_bytes() if path == "textcap-java.jar" else place(cache, path).read_bytes()
            assert sha256 == hash_of(content)
    assert set(meteor.hashes) == {"meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz", "textcap-java.jar"}


@pytest.mark.parametrize("path", sorted(CONTENTS))
def test_missing_file_affects_only_its_program(path, cache):
    place(cache, path).unlink()
    program = {"stanford_nlp": "ptb"}.get(path.split("/")[0], path.split("/")[0])
    with pytest.raises(DependencyError) as error:
        find_jars(program)
    assert str(place(cache, path)) in error.value.message
    assert error.value.hint == "run textcap fetch metrics"
    for other in {"ptb", "meteor", "spice"} - {program}:
        assert find_jars(other).name == other


def test_all_missing_files_are_counted(tmp_path, monkeypatch):
    use_tiny_catalogue(monkeypatch)
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(DependencyError, match=r"SPICE is missing .*spice-1.0.jar and 2 more files"):
        find_jars("spice")


@pytest.mark.parametrize("path", sorted(CONTENTS))
def test_file_with_other_content_is_never_run(path, cache):
    place(cache, path).write_bytes(CONTENTS[path][:-1] + b"x")
    program = {"stanford_nlp": "ptb"}.get(path.split("/")[0], path.split("/")[0])
    with pytest.raises(DependencyError, match="is not the known file of") as error:
        find_jars(program)
    assert str(place(cache, path)) in error.value.message
    assert f"textcap fetch metrics --from {place(cache, path)}" in str(error.value)
    assert "\n" not in str(error.value)


def test_file_that_changes_after_a_check_is_checked_again(cache):
    find_jars("meteor")
    jar = place(cache, "meteor/meteor-1.5.jar")
    jar.write_bytes(tiny_jar("changed"))
    with pytest.raises(DependencyError, match="is not the known file of METEOR"):
        find_jars("meteor")


def test_file_that_the_user_gave_is_used_and_named(cache):
    path = f"spice/lib/{MODELS}"
    mine = tiny_jar("my own models")
    place(cache, path).write_bytes(mine)
    remember_given(next(file for file in jars.CATALOGUE if file.path == path), hash_of(mine))
    spice = find_jars("spice")
    assert spice.unknown == [path]
    assert spice.hashes[path] == hash_of(mine)
    place(cache, path).write_bytes(tiny_jar("somebody else's"))
    with pytest.raises(DependencyError):
        find_jars("spice")


@pytest.mark.parametrize("content", ["", "[]", "nonsense", '{"spice/lib/x": 3}', "\x00"])
def test_damaged_record_of_given_files_makes_no_file_trusted(content, cache):
    (cache / "aac-metrics" / "textcap-given.json").write_text(content)
    assert find_jars("spice").unknown == []
    place(cache, f"spice/lib/{MODELS}").write_bytes(tiny_jar("other"))
    with pytest.raises(DependencyError):
        find_jars("spice")


def test_given_files_are_recorded_as_json_beside_the_jars(cache):
    for file in jars.CATALOGUE[:2]:
        remember_given(file, "0" * 64)
    kept = json.loads((cache / "aac-metrics" / "textcap-given.json").read_text())
    assert kept == {file.path: "0" * 64 for file in jars.CATALOGUE[:2]}


def test_folder_with_the_class_path_separator_is_rejected(tmp_path, monkeypatch):
    use_tiny_catalogue(monkeypatch)
    folder = tmp_path / f"a{os.pathsep}b"
    fill_cache(folder)
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(folder))
    with pytest.raises(DependencyError, match="class paths are separated by"):
        find_jars("meteor")


def test_file_that_cannot_be_read_is_reported(cache):
    jar = place(cache, "meteor/meteor-1.5.jar")
    jar.chmod(0)
    if os.access(jar, os.R_OK):
        pytest.skip("this user can read every file")
    with pytest.raises(DependencyError, match="cannot be read"):
        find_jars("meteor")


def test_old_leftovers_of_killed_runs_are_removed(cache, tmp_path):
    jar = place(cache, "meteor/meteor-1.5.jar")
    old, new = jar.with_name(".textcap-000000000000.tmp"), jar.with_name(".textcap-111111111111.tmp")
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    jar.rename(tmp_path / jar.name)
    assert [one.path for one in fetch_metrics([tmp_path / jar.name]) if one.new] == [jar]
    assert new.exists() and not old.exists()


def test_symbolic_links_are_followed(cache, tmp_path):
    jar = place(cache, "meteor/meteor-1.5.jar")
    jar.rename(tmp_path / "elsewhere.jar")
    jar.symlink_to(tmp_path / "elsewhere.jar")
    assert find_jars("meteor").class_path == (jar, engine_jar())
    (tmp_path / "elsewhere.jar").unlink()
    with pytest.raises(DependencyError, match="METEOR is missing"):
        find_jars("meteor")


def test_cache_of_textcap_that_cannot_be_written_is_ignored(cache, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("TEXTCAP_CACHE", str(blocked))
    assert find_jars("spice").unknown == []
