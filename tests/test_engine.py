"""Our own jar, with SPICE's script engine: the packaged one, and one that is compiled by the test."""

import hashlib
import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from textcap.scoring.jars import engine_jar
from textcap.scoring.java import JavaError, find_java
from textcap.scoring.processes import run_java

TOOL = Path(__file__).parent.parent / "tools" / "build_engine.py"
# Uses the engine as SPICE does: the same variable names and the same script.
HARNESS = """
import javax.script.*;

class Harness {
    public static void main(String[] words) throws Exception {
        ScriptEngine engine = new ScriptEngineManager().getEngineByName("JavaScript");
        if (engine == null) {
            System.out.println("no engine");
            return;
        }
        StringBuilder text = new StringBuilder();
        for (int c; (c = System.in.read()) >= 0; ) text.append((char) c);
        engine.put("jsonString", text.toString());
        engine.eval(words.length > 0 ? words[0] : "result = JSON.stringify(JSON.parse(jsonString), null, 2)");
        System.out.print(engine.getClass().getName() + " " + (String) engine.get("result"));
    }
}
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_engine", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def javac() -> str:
    found = shutil.which("javac")
    if found is None:
        pytest.skip("needs javac")
    return found


@pytest.fixture(scope="module")
def harness(javac: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    source = folder / "Harness.java"
    source.write_text(HARNESS)
    subprocess.run([javac, "--release", "8", "-Xlint:-options", "-d", str(folder), str(source)], check=True)
    return folder


@pytest.fixture(params=["packaged", "compiled"])
def jar(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "packaged":
        return engine_jar()
    tool, javac = request.getfixturevalue("tool"), request.getfixturevalue("javac")
    path = tmp_path / "engine.jar"
    tool.write_jar(path, tool.compile_classes(javac, tool.SOURCES), tool.SOURCES)
    return path


def run_with(jar: Path, classes: Path, text: bytes = b"[{}]", script: str | None = None) -> str:
    words = ["Harness", script] if script else ["Harness"]
    return run_java(find_java(), [jar, classes], words, stdin=text, timeout_s=120).decode()


@pytest.mark.java
def test_engine_returns_the_text_unchanged(jar, harness):
    if find_java().major < 15:
        pytest.skip("this Java may have an engine of its own")
    text = '[{"scores":{"All":{"f":0.5}},"x":null}]' * 1000
    assert run_with(jar, harness, text=text.encode()) == f"textcap.TextEngine {text}"


@pytest.mark.java
def test_current_java_has_no_engine_of_its_own(harness, tmp_path):
    if find_java().major < 15:
        pytest.skip("this Java may have an engine of its own")
    with zipfile.ZipFile(engine_jar()) as jar, zipfile.ZipFile(tmp_path / "without.jar", "w") as without:
        without.writestr("textcap/Runner.class", jar.read("textcap/Runner.class"))
    assert run_with(tmp_path / "without.jar", harness).strip() == "no engine"


@pytest.mark.java
def test_engine_rejects_any_other_script(jar, harness):
    if find_java().major < 15:
        pytest.skip("this Java may have an engine of its own")
    with pytest.raises(JavaError, match="ScriptException: this engine knows one script only, and not: 1 [+] 1"):
        run_with(jar, harness, script="1 + 1")


def test_jar_registers_its_engine_and_runs_on_java_8(jar):
    with zipfile.ZipFile(jar) as archive:
        name = archive.read("META-INF/services/javax.script.ScriptEngineFactory").decode().strip()
        classes = [archive.read(f"{one.replace('.', '/')}.class") for one in (name, "textcap.Runner")]
        assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())
    for content in classes:
        assert content[:4] == b"\xca\xfe\xba\xbe"
        assert int.from_bytes(content[6:8], "big") == 52  # the class file version of Java 8
    assert jar.stat().st_size < 16384


def test_packaged_jar_was_built_from_the_sources_beside_it(tool):
    with zipfile.ZipFile(engine_jar()) as archive:
        noted = archive.read("META-INF/source.sha256").decode()
    sources = b"".join(path.read_bytes() for path in sorted(engine_jar().parent.glob("*.java")))
    assert noted == hashlib.sha256(sources).hexdigest(), "run tools/build_engine.py"


def test_same_classes_give_the_same_jar(tool, tmp_path):
    classes = {"a/B.class": b"content", "a/C.class": b"more"}
    for name in ("one.jar", "two.jar"):
        tool.write_jar(tmp_path / name, classes, [TOOL])
    assert (tmp_path / "one.jar").read_bytes() == (tmp_path / "two.jar").read_bytes()


def test_source_that_does_not_compile_is_reported(tool, javac, tmp_path):
    (tmp_path / "Bad.java").write_text("class Bad { int x = ; }")
    with pytest.raises(RuntimeError, match="Bad.java:1"):
        tool.compile_classes(javac, [tmp_path / "Bad.java"])
