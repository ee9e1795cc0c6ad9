"""Draw training text: captions in all styles, preceded by a list of their sounds or another wording."""

import numpy as np

from textcap.demo.scenes import Event, Scene, sample_scene
from tiny.settings import EVENT_SHARES, LanguageSettings
from tiny.styles import STYLES

_PLAIN_SHARE = 0.6  # of all captions; the other styles have equal parts of the rest


def draw_caption(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Return the style of a caption, and the caption."""
    style = "plain" if rng.random() < _PLAIN_SHARE else str(rng.choice([name for name in STYLES if name != "plain"]))
    return style, STYLES[style].word(scene, rng)


def draw_text(rng: np.random.Generator, settings: LanguageSettings) -> tuple[str, str]:
    """Return the text before a caption (a list of its sounds, another wording or nothing), and the caption.

    The list names the style, unless it is plain; another wording is in the same style.
    """
    scene = sample_scene(rng, unseen=False, event_shares=EVENT_SHARES)
    style, caption = draw_caption(scene, rng)
    choice = rng.random()
    if choice < settings.list_share:
        named = "" if style == "plain" else f"{style} "
        return f"{named}list: {list_events(scene, rng)}. caption: ", caption
    if choice < settings.list_share + settings.rewrite_share:
        return f"rewrite: {STYLES[style].word(scene, rng)}. caption: ", caption
    return "", caption


def list_events(scene: Scene, rng: np.random.Generator) -> str:
    """Return the layout and sounds of a scene as a plain list, shuffled if they sound at once."""
    order = rng.permutation(len(scene.events)) if scene.layout == "together" else range(len(scene.events))
    return f"{scene.layout}: " + ", ".join(list_event(scene.events[i]) for i in order)


def list_event(event: Event) -> str:
    """Return a sound and its attributes as plain words."""
    values = [v for v in (event.level, event.distance, event.pace, "repeated" if event.repeated else None) if v]
    return " ".join([event.kind.replace("_", " "), *values])
