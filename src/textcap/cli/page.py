"""`textcap page` and `textcap votes`: listen to clips, compare what captioners say of them, and count blind votes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from textcap.cli import options
from textcap.cli.console import note, print_result, print_skipped, progress_bar
from textcap.data.text import STDIN, counted

EXAMPLES = (
    "textcap page scores.csv --audio-dir recordings -o page.html\n\n"
    "textcap page a.jsonl b.jsonl --audio-dir recordings --blind -o vote.html"
)
VOTES_EXAMPLES = "textcap votes a.jsonl b.jsonl anna.json ben.json\n\ntextcap votes a.jsonl b.jsonl anna.json --json"


def page(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files of captions: what textcap score reads as predictions or writes with -o, and JSON Lines of "
            "textcap caption or search; - is standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, options.output(help="The page to write.", show_default=False)],
    refs: Annotated[Path | None, typer.Option(exists=True, help="Captions by humans to show, as score reads.")] = None,
    audio_dir: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder to look for sounds in that are not where their file says."
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Show so many clips, drawn at random.", show_default="all")
    ] = None,
    seed: Annotated[int, options.seed(help="Seed of --sample, and of the sides of --blind.")] = 0,
    embed: Annotated[bool, typer.Option("--embed", help="Put the sounds into the page, as MP3.")] = False,
    embed_limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1_000_000,
            metavar="MB",
            help="Leave out sounds with which --embed would add more megabytes to the page.",
            show_default="100",
        ),
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide which system wrote which caption, for votes, without references.")
    ] = False,
    force: options.ForceOption = False,
) -> None:
    """Write a page to listen to clips and compare what captioners say of them.

    One HTML file, which a browser opens as it is: it plays each clip, shows its spectrogram, captions, scores and
    references, sorts by the difference between two systems and filters as you type. Sounds stay where they are unless
    --embed puts them in. Those that are missing are rows that say so; those that cannot be read are named on stderr
    (exit code 3). With --blind, listeners vote which of two captions is better, and textcap votes counts.
    """
    options.refuse_misuse(
        {
            "a blind page has no references: leave out --refs": blind and refs is not None,
            "--blind takes two files": blind and len(sources) != 2,
            "--embed-limit needs --embed": embed_limit is not None and not embed,
        }
    )
    options.check_ending(output, ".html", ".htm")
    from textcap.files import check_file_place, check_writable
    from textcap.page.sources import find_clips, read_sources
    from textcap.page.votes import draw_ballot
    from textcap.page.write import write_page
    from textcap.scoring.metric_names import TITLES

    check_file_place(output, force=force, inputs=[*sources, *([refs] if refs else [])])
    check_writable(output)
    read = read_sources(sources)
    names, facts = [source.name for source in read], None
    if blind:
        ballot = draw_ballot(read, sample=sample, seed=seed)
        names, clips, facts, notes = [], ballot.clips, ballot.facts, ballot.notes
    else:
        clips = find_clips(read, refs, sample=sample, seed=seed)
        is_scored = any(TITLES.keys() & take["scores"].keys() for clip in clips for take in clip.takes if take)
        notes = [] if is_scored or refs is None else ["for scores, name the file that textcap score writes with -o"]
    with progress_bar() as bar:
        task = bar.add_task("reading sounds", total=len(clips), status="")
        errors = write_page(
            output,
            names,
            clips,
            folders=[Path(path).parent for path in sources if path != STDIN],
            audio_dir=audio_dir,
            embed_limit=(100 if embed_limit is None else embed_limit) * 1_000_000 if embed else None,
            blind=facts,
            progress=lambda n_done: bar.update(task, completed=n_done),
        )
    note(*notes)
    print_skipped(*errors)
    print(output, flush=True)
    if errors:
        raise typer.Exit(3)


def votes(
    first: Annotated[Path, typer.Argument(help="The first file that the page was made of.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="The second.", show_default=False)],
    raters: Annotated[list[Path], typer.Argument(help="Votes, as the page exports them.", show_default=False)],
    as_json: options.JsonOption = False,
) -> None:
    """Count the votes on a page of textcap page --blind.

    Prints for each rater, and for the majority of several, how often each system won, ties, and the p-value of the
    exact sign test. Whether one system is better is told from 30 judged clips on. Several raters' agreement is that of
    two raters of one clip, and Krippendorff's alpha.
    """
    from textcap.cli.score_view import print_verdict
    from textcap.page.sources import read_sources
    from textcap.page.votes import count_votes

    sources = read_sources([str(first), str(second)])
    count, names = count_votes(sources, raters), [source.name for source in sources]
    if as_json:
        tallies = [{**asdict(one), "p_value": one.p_value, "verdict": one.verdict} for one in count.tallies]
        print(json.dumps({"systems": names, **asdict(count), "tallies": tallies}), flush=True)
        return
    print_result("rater", *names, "ties", "p")
    for one in count.tallies:
        print_result(one.rater, str(one.first), str(one.second), str(one.ties), f"{one.p_value:.3g}")
    last = count.tallies[-1]
    print_verdict(
        names[0], names[1], last.verdict, f": p = {last.p_value:.2g}, {counted(last.n_judged, 'judged clip')}"
    )
    if count.agreement is not None:
        alpha = "" if count.alpha is None else f", Krippendorff's alpha {count.alpha:.2f}"
        note(f"raters agree in {count.agreement:.0%} of their votes on {counted(count.n_shared, 'clip')}{alpha}")
