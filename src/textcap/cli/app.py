"""The Typer application: every command, and the one place where errors become exit codes."""

import errno
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from textcap.cli import corpus, options
from textcap.cli.cache import cache
from textcap.cli.caption import caption
from textcap.cli.console import LogHandler, keep_stdout_for_results, print_error, set_verbosity
from textcap.cli.demo import demo
from textcap.cli.embed import embed
from textcap.cli.fetch import fetch
from textcap.cli.fit_adapter import fit_adapter
from textcap.cli.gap import gap
from textcap.cli.info import info
from textcap.cli.page import VOTES_EXAMPLES, page, votes
from textcap.cli.score import score
from textcap.cli.search import TAG_EXAMPLES, search, tag
from textcap.cli.signals import signals_as_exits
from textcap.cli.train import train
from textcap.cli.verify import verify
from textcap.errors import TextcapError

_LOG_HANDLER = LogHandler()


class TextcapGroup(TyperGroup):
    """Turns a TextcapError, Ctrl-C or a signal in any command into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; known errors show a traceback only with --debug."""
        try:
            with signals_as_exits():
                return super().invoke(ctx)
        except TextcapError as error:
            if ctx.params.get("debug"):
                raise
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename:
                raise
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # what is left cannot be written, either
            print_error(f"standard output cannot be written: {error.strerror}")
            raise typer.Exit(1) from error
        except (KeyboardInterrupt, SystemExit) as stop:
            name = (ctx.invoked_subcommand or "").replace("-", "_")
            advice = getattr(sys.modules.get(f"textcap.cli.{name}"), "WHEN_STOPPED", "")
            print_error("stopped" + (f" ({advice})" if advice else ""))
            code = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
            raise typer.Exit(code) from stop


app = typer.Typer(
    cls=TextcapGroup,
    name="textcap",
    help="Train audio captioners on text alone, and caption sound files with them.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"textcap {version('textcap')}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when a command fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del debug, version
    logging.getLogger("textcap").addHandler(_LOG_HANDLER)


def _add(group: typer.Typer, command: Callable[..., None], examples: str) -> None:
    """Add a command to a group, with the two options that every command has."""
    own = inspect.signature(command)
    verbosity = {"quiet": options.QuietOption, "verbose": options.VerboseOption}

    @functools.wraps(command)
    def run(quiet: bool, verbose: bool, **values: Any) -> None:
        set_verbosity(quiet, verbose)
        command(**values)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in verbosity.items()
    ]
    vars(run).update(__signature__=own.replace(parameters=[*own.parameters.values(), *added]))
    run.__annotations__ = {**command.__annotations__, **verbosity}
    # Each paragraph of a help text is on one line, for Typer to wrap.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    group.command(help=text, epilog=examples)(run)


corpora = typer.Typer(help="Plan, caption and export far more sounds than one run can caption.", no_args_is_help=True)
for name, example in corpus.EXAMPLES.items():
    _add(corpora, getattr(corpus, name), example)
app.add_typer(corpora, name="corpus")

COMMANDS = (fetch, train, gap, fit_adapter, caption, search, tag, score, page, votes, embed, demo, verify, cache, info)
for command in COMMANDS:
    # Every command's help ends with two commands that can be pasted.
    examples = {tag: TAG_EXAMPLES, votes: VOTES_EXAMPLES}.get(command)
    _add(app, command, examples or sys.modules[command.__module__].EXAMPLES)


# Read when torch is loaded. Threads that wait for others would otherwise spin for milliseconds, which takes the
# processors from whatever else runs on the machine. GNU's OpenMP looks 10,000 times, for a fraction of a millisecond,
# before a thread sleeps: the parts of a small model are that short, and waking a thread takes longer.
IDLE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def main() -> None:
    """Run the command line."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.update({**IDLE_THREADS, **os.environ})
    keep_stdout_for_results()
    # File names need not be UTF-8: stdout reproduces their bytes, stderr only shows them.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors=errors)
    app()
