"""The errors a user can do something about.

The library raises these and never prints or exits; the command line turns them into one line and an exit code.
Anything else that escapes is a bug of textcap and keeps its traceback.
"""


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


class CheckpointError(TextcapError):
    """A model folder or a weight file is not what it should be."""


class DownloadError(TextcapError):
    """Weights could not be fetched, or are not on disk and may not be fetched."""


class DeviceError(TextcapError):
    """The device that was asked for cannot be used."""


class DependencyError(TextcapError):
    """A package or program that this command needs is missing."""
