"""Finding inputs: what each kind of name stands for, in which order, and what is said about the others."""

import io
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textcap.audio.inputs import ENDINGS, find_inputs, mask
from textcap.errors import InputError

ROOT_USER = os.name == "posix" and os.geteuid() == 0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def names(*arguments: str, recursive: bool = False, files_from: str | None = None) -> list[str]:
    found = find_inputs(arguments, recursive=recursive, files_from=files_from)
    assert not found.errors and not found.notes
    return [one.name for one in found.inputs]


def messages(*arguments: str, recursive: bool = False) -> list[str]:
    return [str(error) for error in find_inputs(arguments, recursive=recursive).errors]


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_named_files_keep_their_names_and_order(folder: Path) -> None:
    write("b.wav", "a.txt", "in/.hidden")
    given_names = ["./b.wav", "a.txt", f"{folder}/in/.hidden"]
    assert names(*given_names) == given_names


def test_folder_gives_its_own_sounds_and_films_in_order() -> None:
    write("in/b.wav", "in/C.WAV", "in/a.mp4", "in/notes.txt", "in/wav", "in/.a.wav", "in/._b.wav", "in/sub/c.wav")
    assert names("in") == ["in/C.WAV", "in/a.mp4", "in/b.wav"]
    assert names("in/") == names("in")
    os.chdir("in")
    assert names(".")[-1] == "./b.wav"


def test_recursive_takes_all_below_but_hidden_folders() -> None:
    write("in/z.wav", "in/a/z.flac", "in/a/b/c.ogg", "in/a.wav", "in/.git/x.wav", "in/empty/notes.txt")
    assert names("in", recursive=True) == ["in/a/b/c.ogg", "in/a/z.flac", "in/a.wav", "in/z.wav"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_in_a_folder_are_not_followed_but_named_ones_are() -> None:
    write("in/a.wav", "other/b.wav", "links/notes.txt")
    os.symlink("..", "in/loop")
    os.symlink("../other/b.wav", "in/b.wav")
    os.symlink("../other/b.wav", "links/b.wav")
    os.symlink("nowhere", "broken.wav")
    found = find_inputs(["in"], recursive=True)
    assert [one.name for one in found.inputs] == ["in/a.wav"]
    assert found.notes == ["2 links in in left out; a link is followed if it is named itself"]
    assert names("in/b.wav", "links/../in/a.wav") == ["in/b.wav", "links/../in/a.wav"]
    assert messages("links") == [
        "links contains no sound files but 1 link, which it does not follow (name files to take any)"
    ]
    assert messages("broken.wav", "broken*") == ["broken.wav does not exist"]


def test_only_regular_files_of_a_folder_are_taken() -> None:
    write("in/a.wav")
    Path("in/b.wav").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo("in/c.wav")
    assert names("in") == ["in/a.wav"]


def test_folder_without_sounds_is_an_error_that_says_so() -> None:
    write("in/sub/a.wav", "texts/a.txt")
    assert messages("in", "texts") == [
        "in contains no sound files (use --recursive for the folders in it)",
        "texts contains no sound files (name files to take any)",
    ]


def test_pattern_gives_what_a_shell_would() -> None:
    write("a.wav", "b.wav", ".c.wav", "d.txt", "in/e.wav", "in/f.txt")
    assert names("*.wav") == ["a.wav", "b.wav"]
    assert names("./[ab].wav") == ["./a.wav", "./b.wav"]
    assert names("d.*") == ["d.txt"]
    assert names("i?") == ["in/e.wav"]
    assert messages("*.mp3") == ["*.mp3 does not exist, and as a pattern it matches nothing"]


@pytest.mark.skipif(os.name != "posix", reason="Windows forbids * in names")
def test_name_that_exists_is_never_a_pattern() -> None:
    write("*.wav", "a.wav", "[a].wav", "Album [1]/x.wav", "Album 1/y.wav")
    assert names("*.wav") == ["*.wav"]
    assert names("[a].wav") == ["[a].wav"]
    assert names("Album [1]/*.wav") == ["Album [1]/x.wav"]


def test_what_is_missing_is_one_error_each_in_its_place() -> None:
    write("a.wav", "b.wav")
    found = find_inputs(["a.wav", "nowhere.wav", "b.wav", "nowhere/c.wav", "", "x\0y"])
    assert [getattr(entry, "name", None) for entry in found.entries] == ["a.wav", None, "b.wav", None, None, None]
    assert [str(error) for error in found.errors] == [
        "nowhere.wav does not exist",
        "nowhere/c.wav does not exist",
        "'' does not exist",
        "x\0y cannot be read: embedded null byte",
    ]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
@pytest.mark.skipif(ROOT_USER, reason="root may read everything; `test_permissions_as_another_user` runs then")
def test_what_may_not_be_read_is_an_error() -> None:
    _check_permissions()


@pytest.mark.skipif(not ROOT_USER, reason="needs root, which can become another user")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_permissions_as_another_user(folder: Path) -> None:
    child = os.fork()
    if child == 0:  # no assertion may escape into the parent's test run
        try:
            os.chown(folder, 65534, 65534)
            for above in (*folder.parents,):
                if above.stat().st_uid == 0 and above.name.startswith("pytest"):
                    os.chmod(above, 0o755)
            os.setuid(65534)
            _check_permissions()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def _check_permissions() -> None:
    write("in/a.wav", "in/b.wav", "in/sub/c.wav", "c.wav")
    os.chmod("in/a.wav", 0)
    os.chmod("in/sub", 0)
    found = find_inputs(["in", "c.wav", "in/sub/c.wav"], recursive=True)
    os.chmod("in/sub", 0o700)
    assert [one.name for one in found.inputs] == ["in/b.wav", "c.wav"], found
    assert [str(error) for error in found.errors] == [
        "in/a.wav cannot be read: Permission denied",
        "in/sub cannot be listed: Permission denied",
        "in/sub/c.wav cannot be read: Permission denied",
    ], found.errors


def test_sound_named_twice_is_taken_once_with_a_note() -> None:
    write("a.wav", "in/b.wav")
    os.link("a.wav", "in/c.wav")  # a file of its own, which datasets without duplicates have
    os.symlink("a.wav", "link.wav")
    arguments = ["./a.wav", "a.wav", "link.wav", "in", "in/b.wav", "-", "-", "https://host/a.wav", "https://host/a.wav"]
    found = find_inputs(arguments)
    assert [one.name for one in found.inputs] == ["./a.wav", "in/b.wav", "in/c.wav", "-", "https://host/a.wav"]
    assert found.notes == ["5 inputs named more than once, and taken once"]
    assert [one.address for one in found.inputs] == ["", "", "", "", "https://host/a.wav"]


def test_list_names_files_relative_to_the_current_folder() -> None:
    write("in/a b.wav", "c.wav", " d.wav")
    Path("in/list.txt").write_bytes(b"\xef\xbb\xbfin/a b.wav\r\n\n   \r\n d.wav")
    assert names("c.wav", files_from="in/list.txt") == ["c.wav", "in/a b.wav", " d.wav"]
    Path("bad.txt").write_bytes("in/a b.wav".encode("utf-16"))
    Path("empty.txt").write_bytes(b"\n \n")
    for name, reason in (("bad.txt", "contains NUL"), ("empty.txt", "names no inputs"), ("no.txt", "does not exist")):
        with pytest.raises(InputError, match=reason):
            find_inputs([], files_from=name)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_names_that_are_not_utf_8_work() -> None:
    name = b"caf\xe9.wav"
    os.close(os.open(name, os.O_CREAT))
    Path("list.txt").write_bytes(name + b"\n")
    assert names(files_from="list.txt") == [os.fsdecode(name)] == names("*.wav")


def test_list_comes_from_standard_input_unless_a_sound_does(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.wav")
    feed(monkeypatch, b"a.wav\n")
    assert names(files_from="-") == ["a.wav"]
    for arguments, content in ((["-"], b"a.wav\n"), ([], b"a.wav\n-\n")):
        feed(monkeypatch, content)
        with pytest.raises(InputError, match="cannot be both a list of names and a sound"):
            find_inputs(arguments, files_from="-")


def test_addresses_show_no_passwords_or_keys() -> None:
    secret = "https://me:pa55@host/a.wav?id=7&X-Amz-Signature=5ec&access_token=5ec#t"
    found = find_inputs([secret, "zip://a@b.wav::memory://z.zip"])
    assert found.inputs[0].name == "https://***@host/a.wav?id=7&X-Amz-Signature=***&access_token=***#t"
    assert found.inputs[0].address == secret
    assert not {"pa55", "5ec"} & set(repr(found).split("'")) and "pa55" not in repr(found) and "5ec" not in repr(found)
    assert found.inputs[1].name == "zip://a@b.wav::memory://z.zip"
    assert mask("see s3://key@bucket/a: no") == "see s3://***@bucket/a: no"


def test_finding_inputs_loads_nothing_large() -> None:
    write("in/a.wav")
    code = (
        "import sys; from textcap.audio.inputs import find_inputs; assert find_inputs(['in', '*.wav', 'x']).inputs; "
        "assert not {'torch', 'numpy', 'soundfile', 'av', 'fsspec', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


_parts = st.text(st.sampled_from("ab.-[*é\u0301"), min_size=1, max_size=3).filter(lambda name: name.strip(".") != "")
_endings = st.sampled_from(["", ".wav", ".WAV", ".mp4", ".txt", "wav", ".wav.txt"])
_paths = st.builds(lambda parts, ending: "/".join(parts) + ending, st.lists(_parts, min_size=1, max_size=3), _endings)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(_paths, max_size=8), st.booleans())
@pytest.mark.skipif(sys.platform != "linux", reason="other systems change or refuse such names")
def test_any_tree_gives_each_sound_once_and_sorted(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], recursive: bool
) -> None:
    top = tmp_path_factory.mktemp("tree")
    made = set()
    for path in paths:
        try:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).touch(exist_ok=False)
        except OSError:  # a file and a folder of one name
            continue
        made.add(path)

    def is_wanted(path: str) -> bool:
        parts, suffix = PurePosixPath(path).parts, path.rpartition(".")[2].lower()
        is_sound = "." in parts[-1] and suffix in ENDINGS
        return is_sound and not any(part.startswith(".") for part in parts) and (recursive or len(parts) == 1)

    wanted = sorted((path for path in made if is_wanted(path)), key=lambda path: path.split("/"))
    found = find_inputs([str(top)], recursive=recursive)
    assert [one.name for one in found.inputs] == [f"{top}/{path}" for path in wanted]
    assert len(found.errors) == (not wanted) and not found.notes


@pytest.mark.slow
def test_many_names_are_found_quickly(folder: Path) -> None:
    import time

    for number in range(100):
        (folder / f"in/{number}").mkdir(parents=True)
        for inner in range(1000):
            os.close(os.open(f"in/{number}/{inner}.wav", os.O_CREAT))
    start = time.monotonic()
    assert len(names("in", recursive=True)) == 100_000
    assert time.monotonic() - start < 10
