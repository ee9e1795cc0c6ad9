"""Find the sounds that the user named: files, folders, patterns, lists of names, standard input and addresses.

Imports nothing large, so that the command line can look at its inputs before it loads torch. Opening what was found is
left to `textcap.remote`.
"""

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from textcap.data.text import STDIN, TextReader, counted
from textcap.errors import FileError, InputError
from textcap.files import unreadable

# What a file in a folder must end with to be taken; a file that is named itself may be called anything.
ENDINGS = frozenset(
    "3g2 3ga 3gp 8svx aac ac3 aif aifc aiff amr ape asf au avi avr awb caf divx dts eac3 f4v flac flv gsm htk iff "
    "ircam m2ts m4a m4b m4v mka mkv mov mp+ mp1 mp2 mp3 mp4 mpc mpeg mpg mpga mts mxf nist oga ogg ogv opus paf pvf "
    "qcp ra rf64 rm rmvb sd2 sds sf shn snd sph spx svx tak thd ts tta vob voc w64 wav wave webm wma wmv wv xi".split()
)

_BOM = b"\xef\xbb\xbf"
_USER = re.compile(r"(?<=://)(?<!zip://)[^/?#\s]*@")
_SECRET = re.compile(r"([?&][^=&\s]*(?:auth|cred|key|pass|policy|secret|sig|token)[^=&\s]*=)[^&#\s]*", re.IGNORECASE)
_Found = tuple[str, "Input | InputError"]  # with what is the same for two names of one sound


@dataclass(frozen=True, slots=True)
class Input:
    """One sound to read.

    Attributes:
        name: Its name in results and messages, as it was given, but without the passwords and keys of an address; "-"
            for standard input. For a file in a folder, the folder as it was given and the path below it.
        address: The address of a remote sound as it was given; empty for a file and for standard input.
        below: For a file in a folder, its path below the folder that was named; else empty.
    """

    name: str
    address: str = field(default="", repr=False)
    below: str = ""


@dataclass(frozen=True)
class FoundInputs:
    """What `find_inputs` has found."""

    entries: list[Input | InputError]  # sounds, and errors in the places of what cannot be read, in the order named
    notes: list[str]  # what the user should know, each one line

    @property
    def inputs(self) -> list[Input]:
        """The sounds, in the order named."""
        return [entry for entry in self.entries if isinstance(entry, Input)]

    @property
    def errors(self) -> list[InputError]:
        """One error for each name that leads to no sound, in the order named."""
        return [entry for entry in self.entries if not isinstance(entry, Input)]


def find_inputs(arguments: Sequence[str], *, recursive: bool = False, files_from: str | None = None) -> FoundInputs:
    """Find the sounds that names stand for, without reading them.

    A name is a file of any name; a folder, of which the files are taken that end as sounds or films do, in the order of
    their names, without hidden ones and links; a pattern such as "*.wav", if no file has that name; "-" for standard
    input; or an address such as "https://host/a.wav". A sound that is named twice is taken once, and a note counts
    them.

    Args:
        arguments: The names.
        recursive: Take the files in the folders below a folder, too.
        files_from: A file with more names, one a line, relative to the current folder; "-" is standard input. A name
            that is not UTF-8 is the one of these bytes.

    Raises:
        InputError: The list cannot be read or names nothing, or standard input would be both a list and a sound.
    """
    notes, n_repeated = list[str](), 0
    entries: dict[str, Input | InputError] = {}
    for key, entry in each_input(arguments, notes, recursive=recursive, files_from=files_from):
        n_repeated += key in entries
        entries.setdefault(key, entry)
    if n_repeated:
        notes.append(f"{counted(n_repeated, 'input')} named more than once, and taken once")
    return FoundInputs(list(entries.values()), notes)


def each_input(
    arguments: Sequence[str], notes: list[str], *, recursive: bool = False, files_from: str | None = None
) -> Iterator[tuple[str, Input | InputError]]:
    """Yield what `find_inputs` finds as it is found, with what is the same for two names of one sound: its real path.

    Args:
        arguments, recursive, files_from: As in `find_inputs`.
        notes: What the user should know is appended.

    Raises:
        InputError: As in `find_inputs`.
    """
    names = list(arguments)
    if files_from is not None:
        names += _read_list(files_from)
        if files_from == STDIN in names:
            raise InputError("standard input cannot be both a list of names and a sound", hint="put one into a file")
    for name in names:
        yield from _find(name, recursive, notes)


def mask(text: str) -> str:
    """Return text without the user names, passwords and keys in the addresses in it."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", text))


def _read_list(path: str) -> list[str]:
    reader = TextReader(path)
    content = b"".join(reader.pieces())
    if b"\0" in content:
        raise InputError(f"{reader.name} contains NUL bytes", hint="write one name per line, in UTF-8")
    lines = content.removeprefix(_BOM).replace(b"\r\n", b"\n").split(b"\n")
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise InputError(f"{reader.name} names no inputs", hint="write one name per line")
    return names


def _find(name: str, recursive: bool, notes: list[str]) -> Iterator[_Found]:
    """Yield the sounds that a name stands for, or an error."""
    if name == STDIN:
        yield name, Input(name)
        return
    try:
        status = os.stat(name)
    except (OSError, ValueError) as error:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
            yield name, Input(mask(name), name)
        elif glob.escape(name) != name and not os.path.lexists(name):
            yield from _match(name, recursive, notes)
        else:
            yield name, unreadable(name or "''", error)
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _search(name, recursive, notes)
    else:
        yield _file(name, os.path.realpath(name))


def _file(name: str, real: str, below: str = "") -> _Found:
    if not os.access(name, os.R_OK):
        return name, FileError(name, "cannot be read: Permission denied")
    return real, Input(name, below=below)


def _match(pattern: str, recursive: bool, notes: list[str]) -> Iterator[_Found]:
    folder = os.path.dirname(pattern)
    # In "Album [1999]/*.wav", the brackets are part of a name.
    literal = glob.escape(folder) if os.path.isdir(folder) else folder
    matches = sorted(glob.glob(literal + pattern[len(folder) :]))
    if not matches:
        yield pattern, FileError(pattern, "does not exist, and as a pattern it matches nothing")
    for match in matches:
        yield from _find(match, recursive, notes)


def _search(folder: str, recursive: bool, notes: list[str]) -> Iterator[_Found]:
    """Yield the sounds in a folder, sorted by the parts of their paths as code points, the same on every system."""
    real = os.path.realpath(folder)
    n_found = n_links = n_folders = 0
    # Folders that are being listed, each with the names in it that are left; that of a folder ends in a separator.
    pending = [("", iter([os.sep]))]
    while pending:
        place, names = pending[-1]
        if (name := next(names, None)) is None:
            pending.pop()
            continue
        path = folder if name == os.sep else os.path.join(place, name.rstrip(os.sep))
        try:
            if not name.endswith(os.sep):
                n_found += 1
                below = path[len(folder) :].lstrip(os.sep)
                yield _file(path, os.path.join(real, below), below)  # links below are not followed
                continue
            found: list[str] = []
            with os.scandir(path) as scanned:
                for entry in scanned:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        n_folders += 1
                        found += [entry.name + os.sep] * recursive
                    elif os.path.splitext(entry.name)[1][1:].lower() in ENDINGS or (recursive and os.path.isdir(entry)):
                        n_links += entry.is_symlink()
                        found += [entry.name] * entry.is_file(follow_symlinks=False)
        except OSError as error:
            n_found += 1
            yield path, FileError(path, f"cannot be listed: {error.strerror or error}")
            continue
        pending.append((path, iter(sorted(found, key=lambda one: one.rstrip(os.sep)))))
    if not n_found:
        links = f" but {counted(n_links, 'link')}, which it does not follow" if n_links else ""
        hint = "use --recursive for the folders in it" if n_folders and not recursive else "name files to take any"
        yield folder, FileError(folder, f"contains no sound files{links}", hint=hint)
    elif n_links:
        notes.append(f"{counted(n_links, 'link')} in {folder} left out; a link is followed if it is named itself")
