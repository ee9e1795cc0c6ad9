"""The errors that a user can do something about.

The library raises these and never prints or exits; the command line turns them into one line and an exit code.
Anything else that escapes is a bug in textcap and keeps its traceback.
"""

from pathlib import Path


class TextcapError(Exception):
    """Root of the errors that textcap raises for its users.

    Args:
        message: One line: what is wrong and with which file or value.
        hint: One line: what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(TextcapError):
    """A file or value that the user gave cannot be used."""


class SettingError(InputError):
    """A setting is out of range.

    Args:
        field: The setting, as its dataclass or function names it.
        value: What it was set to.
        rule: What it must be, such as "at least 1".
    """

    def __init__(self, field: str, value: object, rule: str, *, hint: str | None = None) -> None:
        super().__init__(f"{field} is {value!r}, but must be {rule}", hint=hint)
        self.field, self.value, self.rule = field, value, rule


class FileError(InputError):
    """A file that the user named cannot be used.

    Args:
        path: The file.
        problem: What is wrong with it, as the rest of a sentence that begins with its name.
    """

    def __init__(self, path: str | Path, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path} {problem}", hint=hint)
        self.path, self.problem = path, problem

    def at(self, path: str | Path) -> "FileError":
        """Return the same error for another file, which is a copy of this one."""
        return FileError(path, self.problem, hint=self.hint)


class CheckpointError(TextcapError):
    """A model folder or a weight file is not what it should be."""


class DownloadError(TextcapError):
    """Weights could not be fetched, or are not on disk and must not be fetched."""


class DeviceError(TextcapError):
    """The requested device cannot be used."""


class DependencyError(TextcapError):
    """A package or program that this command needs is missing."""
