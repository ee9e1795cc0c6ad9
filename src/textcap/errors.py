"""Errors that users can act on.

The library raises them and never prints or exits; the command line turns them into one line and an exit code. Any other
exception that escapes is a bug in textcap and keeps its traceback.
"""

from pathlib import Path

_MAX_SHOWN = 200  # characters of a value in a message


class TextcapError(Exception):
    """Base class of the errors that a user can do something about; the others are in `textcap.errors`.

    Args:
        message: What is wrong, and with which file or value, in one line.
        hint: What to do next, in one line.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are rebuilt from their message alone otherwise, which subclasses with other parameters cannot be.
        return _rebuild, (type(self), self.args, vars(self))


def _rebuild(kind: type[TextcapError], args: tuple[object, ...], fields: dict[str, object]) -> TextcapError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class InputError(TextcapError):
    """A file or value given by the user cannot be used."""


class SettingError(InputError):
    """A setting is out of range.

    Args:
        field: Name of the dataclass field or function argument.
        value: The value it was given.
        rule: What the value must be, such as "at least 1".
    """

    def __init__(self, field: str, value: object, rule: str, *, hint: str | None = None) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."
        super().__init__(f"{field} is {shown}, but must be {rule}", hint=hint)
        self.field, self.value, self.rule = field, value, rule


class FileError(InputError):
    """A file given by the user cannot be used.

    Args:
        path: The file.
        problem: What is wrong with it, worded to follow the path, such as "does not exist".
    """

    def __init__(self, path: str | Path, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path} {problem}", hint=hint)
        self.path, self.problem = path, problem

    def at(self, path: str | Path) -> "FileError":
        """Return the same error for another path, that of a file with the same content."""
        return FileError(path, self.problem, hint=self.hint)


class CheckpointError(TextcapError):
    """A model folder or a weight file is missing, broken or does not fit."""


class DownloadError(TextcapError):
    """Weights cannot be downloaded, or are not on disk while downloads are disabled."""


class DeviceError(TextcapError):
    """The requested device does not exist, does not work, or is out of memory."""


class DependencyError(TextcapError):
    """A required package or program is missing."""


class UndefinedError(TextcapError):
    """A metric is undefined for these clips, so that nothing needs fixing."""


def first_line(error: Exception) -> str:
    """Return the first line of what an error of another package says, or if it says nothing its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
