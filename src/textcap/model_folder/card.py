"""Write the README of a model folder, a Markdown page, from what the folder records.

Text that comes from users or models (names, captions, the command line) is escaped. Of an absolute path only the last
part is shown, because the folders above it tell about the author's machine.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from textcap.config import MOVING
from textcap.data.text import counted, printable
from textcap.models.weight_files import BASES, kind_of
from textcap.weights.repository import is_repository

# Characters that have a meaning in Markdown, or in HTML inside it.
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~&<>$:@-])")


def model_card(name: str, config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the model card as Markdown.

    Args:
        name: Name of the model folder.
        config: Content of its `config.json`.
        metrics: One record for each epoch.
    """
    training, bridge, mapper = config["training"], config["bridge"], config["mapper"]
    sizes = f"{counted(mapper['n_layers'], 'layer')}, prefix length {mapper['prefix_length']}"
    texts, pairs = config["caption_files"], config["pair_files"]
    lines = [_file(file) for file in texts] + [_file(file, " of sounds") for file in pairs]
    trained = counted(config["n_training_captions"], "caption")
    held_out = counted(config["n_held_out_captions"], "caption")
    files = "\n".join(lines)
    kinds = (["text alone"] if not pairs else ["text"] if texts else []) + ["pairs of sound and text"] * bool(pairs)
    validated = ", ".join(_text(_place(file["name"])) for file in config["validation_files"])
    validation = f" These are the captions of {validated}." if validated else ""
    length = "steps" if training["steps"] else "epochs"
    no_audio = "" if pairs else " No captions of sounds were used." if _moved(bridge) else " No audio was used."
    remark = kind_of(config["backbone"]["backbone"]).remark
    remark = f"\n{_text(remark[:1].upper() + remark[1:])}.\n" if remark else ""
    packages = _text(", ".join(f"{package} {number}" for package, number in config["packages"].items()))
    return f"""{_front_matter(config["backbone"])}
# {_text(name)}

An audio captioner that was trained on {" and ".join(kinds)} with textcap. This folder holds the mapper, the only part
that was trained. The encoders and the language model belong to the backbone, which is not in this folder.
{remark}
```python
from textcap import Captioner

for result in Captioner.load({_python_string(name)}).caption(["sound.wav"]):
    print(result.caption)
```

## Training data

{files}

Trained on {trained}, with {held_out} held out.{validation}{no_audio}

## Training

| | |
|---|---|
{_halves(config)}| noise variance on text embeddings | {_noise(bridge)} |
{_moved(bridge)}{_audio_noise(bridge)}{_adapter(config["adapter"])}| mapper | {sizes} |
| {length}, batch size | {training[length]}, {training["batch_size"]} |
| learning rate | {training["learning_rate"]:g} |
| warm-up steps | {training["warmup_steps"]:,}, at most a fifth of the steps in a run of fewer than 10,000 |
| seed | {training["seed"]} |
| device | {_text(config["device"])}, {_text(config["precision"])}, number of processes: {config["n_processes"]} |
| packages | {packages} |

{_fence(_command(config["command"]))}
{_results(metrics, keeps_best=training["keep"] == "best")}
The licences of the backbone's weights and of the training captions apply to what is made with them.
"""


def _front_matter(names: Mapping[str, str | None]) -> str:
    """Return what a hub reads of the card, with the repositories of both halves if they have one."""
    own = BASES.get(names["backbone"] or "", ("", ""))
    bases = [given or base for given, base in zip((names["clap"], names["language_model"]), own, strict=True)]
    listed = [f"- {base}" for base in bases if base and is_repository(base)]
    lines = ["---", "library_name: textcap", "pipeline_tag: audio-to-text", "tags:", "- audio-captioning"]
    return "\n".join([*lines, *(["base_model:", *listed] if listed else []), "---", ""])


def _halves(config: Mapping[str, Any]) -> str:
    names = config["backbone"]
    rows = ""
    for what, half in (("CLAP", "clap"), ("language model", "language_model")):
        name = _text(_place(names[half] or names["backbone"]))
        licence = _text(config[f"{half}_licence"] or "unknown")
        rows += f"| {what} | {name}, licence: {licence}, content hash {_code(config[f'{half}_hash'])} |\n"
    return rows


def _file(file: Mapping[str, Any], kind: str = "") -> str:
    weight = f", weight {file['weight']:g}" if file["weight"] != 1 else ""
    captions = f"{counted(file['n_captions'], 'caption')}{kind}"
    return f"- {_text(_place(file['name']))}: {captions}{weight}, SHA-256 {_code(file['sha256'])}"


def _noise(bridge: Mapping[str, Any]) -> str:
    text = f"{bridge['noise_variance']:.6g} (standard deviation {bridge['noise_variance'] ** 0.5:.6g})"
    if calibration := bridge["calibration"]:
        text += f", measured on {counted(calibration['n_pairs'], 'pair')} of {_text(_place(calibration['pairs_name']))}"
        text += f" (seed {calibration['seed']}, {_text(calibration['rule'])})"
    return text


def _moved(bridge: Mapping[str, Any]) -> str:
    if bridge["kind"] not in MOVING:
        return ""
    sample = bridge["sample"]
    source = f"{counted(sample['n_sounds'], 'sound')} of {_text(_place(sample['name']))}" if sample else "the backbone"
    return f"| bridge before the noise | {_text(bridge['kind'])}, computed from {source} |\n"


def _audio_noise(bridge: Mapping[str, Any]) -> str:
    variance = bridge["audio_noise_variance"]
    return f"| noise variance on audio embeddings | {variance:.6g} |\n" if variance else ""


def _adapter(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return ""
    return (
        f"| linear adapter on text embeddings | {_text(facts['method'])}, strength {facts['strength']:g}, "
        f"fitted on {counted(facts['n_pairs'], 'pair')} of {_text(_place(facts['pairs_name']))} |\n"
    )


def _results(metrics: Sequence[Mapping[str, Any]], *, keeps_best: bool) -> str:
    if not metrics:
        return ""
    measured = [one for one in metrics if one["held_out_loss"] is not None]
    last = min(measured, key=lambda one: float(one["held_out_loss"])) if keeps_best and measured else metrics[-1]
    place = f"step {last['step']:,}" if last.get("within_epoch") else f"epoch {last['epoch']}"
    lines = [f"\n## After {place}\n", f"Training loss {last['loss']:.4f} nats per token."]
    if last["held_out_loss"] is not None:
        lines.append(
            f"Held-out loss {last['held_out_loss']:.4f} nats per token. Of the captions generated from held-out "
            f"embeddings, {last['distinct_share']:.0%} are distinct. Examples:\n\n"
            "| reference | generated caption |\n|---|---|"
        )
        lines += [f"| {_text(one['reference'])} | {_text(one['caption'])} |" for one in last["samples"]]
    return "\n".join(lines) + "\n"


def _place(path: str) -> str:
    """Return a path as it was given, or only its last part if it is absolute or starts at a home folder."""
    is_absolute = path.startswith(("/", "~", "\\\\")) or re.match(r"[A-Za-z]:[\\/]", path)
    return re.split(r"[\\/]", path.rstrip("/\\"))[-1] if is_absolute else path


def _command(command: str) -> str:
    """Return a command line with `_place` of each word, and of what follows the = of an option."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote: not a command line
        words = command.split()
    parts = [word.partition("=") if word.startswith("-") else ("", "", word) for word in words]
    return shlex.join(name + equals + _place(value) if equals or not name else name for name, equals, value in parts)


def _text(text: str) -> str:
    """Return text escaped so that Markdown shows it unchanged, on one line."""
    return _MARKUP.sub(r"\\\1", printable(text))


def _code(text: str) -> str:
    return f"`{re.sub(r'[^0-9a-zA-Z.-]', '?', text)}`"


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{printable(text)}\n{fence}"


def _python_string(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\`' else "?" for c in text) + '"'
