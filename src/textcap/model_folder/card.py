"""The README of a model folder, a Markdown page written from what the folder records.

Text from outside (names, captions, the command) is escaped.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from textcap.data.text import printable

# What Markdown or the HTML in it could take for markup.
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~&<>$:@-])")


def model_card(name: str, config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the model card.

    Args:
        name: Of the model folder.
        config: The content of its `config.json`.
        metrics: One record for each epoch.
    """
    training, bridge, mapper = config["training"], config["bridge"], config["mapper"]
    texts, pairs = config["caption_files"], config["pair_files"]
    lines = [_file(file, "captions") for file in texts] + [_file(file, "captions of sounds") for file in pairs]
    files = "\n".join(lines)
    kinds = (["text alone"] if not pairs else ["text"] if texts else []) + ["pairs of sound and text"] * bool(pairs)
    no_audio = " No audio." if not pairs else ""
    packages = _text(", ".join(f"{package} {number}" for package, number in config["packages"].items()))
    return f"""# {_text(name)}

An audio captioner that was trained on {" and ".join(kinds)} with textcap. This folder holds the mapper, the only part
that was trained; the encoders and the language model belong to the backbone.

```python
from textcap import Captioner

for result in Captioner.load({_python_string(name)}).caption(["sound.wav"]):
    print(result.caption)
```

## What it was trained on

{files}

{config["n_training_captions"]:,} captions were learned, {config["n_held_out_captions"]:,} held out.{no_audio}

## How

| | |
|---|---|
| backbone | {_text(config["backbone_name"])}, content hash {_code(config["backbone_hash"])} |
| noise variance | {_noise(bridge)} |
{_audio_noise(bridge)}{_adapter(config["adapter"])}| mapper | {_mapper(mapper)} |
| epochs, batch size | {training["epochs"]}, {training["batch_size"]} |
| learning rate | {training["learning_rate"]:g} |
| warm-up steps | {training["warmup_steps"]}, at most a fifth of a run of fewer than 10,000 steps |
| seed | {training["seed"]} |
| computed on | {_text(config["device"])}, {_text(config["precision"])}, processes: {config["n_processes"]} |
| packages | {packages} |

{_fence(config["command"])}
{_results(metrics)}
The licence of the backbone's weights and of the captions applies to what is made with them.
"""


def _file(file: Mapping[str, Any], what: str) -> str:
    weight = f", weight {file['weight']:g}" if file["weight"] != 1 else ""
    return f"- {_text(file['name'])}: {file['n_captions']:,} {what}{weight}, SHA-256 {_code(file['sha256'])}"


def _noise(bridge: Mapping[str, Any]) -> str:
    text = f"{bridge['noise_variance']:.6g} (standard deviation {bridge['noise_std']:.6g})"
    if found := bridge["calibration"]:
        text += f", measured on {found['n_pairs']} pairs of {_text(found['pairs_name'])}"
        text += f" (seed {found['seed']}, {_text(found['rule'])})"
    return text


def _mapper(mapper: Mapping[str, Any]) -> str:
    return f"{mapper['n_layers']} layers, prefix length {mapper['prefix_length']}"


def _audio_noise(bridge: Mapping[str, Any]) -> str:
    variance = bridge["audio_noise_variance"]
    return f"| noise variance on sounds | {variance:.6g} |\n" if variance else ""


def _adapter(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return ""
    return (
        f"| linear adapter on text | {_text(facts['method'])}, strength {facts['strength']:g}, "
        f"{facts['n_pairs']:,} pairs of {_text(facts['pairs_name'])} |\n"
    )


def _results(metrics: Sequence[Mapping[str, Any]]) -> str:
    if not metrics:
        return ""
    last = metrics[-1]
    lines = [f"\n## After epoch {last['epoch']}\n", f"Training loss {last['loss']:.4f} nats per token."]
    if last["held_out_loss"] is not None:
        lines.append(
            f"Held-out loss {last['held_out_loss']:.4f}. Of the captions made from held-out text embeddings "
            f"with noise, {last['distinct_share']:.0%} are distinct; some of them:\n\n"
            "| reference | model |\n|---|---|"
        )
        lines += [f"| {_text(one['reference'])} | {_text(one['caption'])} |" for one in last["samples"]]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return _MARKUP.sub(r"\\\1", printable(text))


def _code(text: str) -> str:
    return f"`{re.sub(r'[^0-9a-zA-Z.-]', '?', text)}`"


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{printable(text)}\n{fence}"


def _python_string(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\`' else "?" for c in text) + '"'
