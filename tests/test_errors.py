"""Errors that users see: their fields, and that they survive the way between processes."""

import copy
import inspect
import pickle

import pytest

from textcap import errors
from textcap.errors import FileError, InputError, SettingError, TextcapError
from textcap.scoring.java import JavaError

ERRORS = [
    *(
        kind("something is wrong", hint="do this")
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, TextcapError) and kind not in (FileError, SettingError)
    ),
    FileError("a.wav", "is empty", hint="do this"),
    SettingError("epochs", 0, "at least 1", hint="do this"),
    JavaError("Java failed", problem="died", hint="do this"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled_and_copied(error: TextcapError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), vars(again), again.args) == (str(error), vars(error), error.args)
        assert str(again).endswith("(do this)")


def test_file_error_can_be_raised_for_a_copy_of_the_file() -> None:
    error = FileError("a.wav", "is empty", hint="record it again")
    assert isinstance(error, InputError)
    assert str(error.at("b.wav")) == "b.wav is empty (record it again)"


def test_setting_error_names_field_value_and_rule() -> None:
    error = SettingError("epochs", 0, "at least 1")
    assert (error.field, error.value, error.rule) == ("epochs", 0, "at least 1")
    assert str(error) == "epochs is 0, but must be at least 1"
