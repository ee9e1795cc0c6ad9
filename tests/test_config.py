"""Configurations: defaults, JSON, and the errors for values out of range."""

import json
import re
from dataclasses import asdict

import pytest

from textcap.config import (
    AudioConfig,
    AudioTowerConfig,
    BackboneConfig,
    ClapConfig,
    DecodingConfig,
    LanguageModelConfig,
    MapperConfig,
    TextTowerConfig,
    TrainingConfig,
    from_dict,
)
from textcap.errors import InputError


@pytest.mark.parametrize("config", [BackboneConfig(), TrainingConfig(epochs=3), DecodingConfig(beam_size=2)])
def test_config_is_equal_after_json(config: object) -> None:
    assert from_dict(type(config), json.loads(json.dumps(asdict(config)))) == config


def test_defaults_are_the_papers() -> None:
    training = TrainingConfig()
    assert (training.epochs, training.batch_size, training.learning_rate, training.warmup_steps) == (
        30,
        128,
        1e-4,
        2000,
    )
    assert BackboneConfig().noise_variance == 0.015
    assert MapperConfig().prefix_length == 40
    assert DecodingConfig().beam_size == 5


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (TrainingConfig, "epochs", 0),
        (TrainingConfig, "batch_size", 0),
        (TrainingConfig, "learning_rate", 0.0),
        (TrainingConfig, "learning_rate", float("nan")),
        (TrainingConfig, "warmup_steps", -1),
        (TrainingConfig, "seed", -1),
        (DecodingConfig, "beam_size", 0),
        (DecodingConfig, "temperature", 0.0),
        (DecodingConfig, "max_tokens", 0),
        (DecodingConfig, "n_best", 6),
        (MapperConfig, "prefix_length", 0),
        (MapperConfig, "n_layers", 0),
        (MapperConfig, "n_heads", 7),
        (AudioConfig, "hop_s", 8.0),
        (AudioConfig, "window_s", 0.0),
        (AudioConfig, "window_s", float("inf")),
        (AudioConfig, "n_fft", 0),
        (AudioConfig, "stft_hop_samples", -1),
        (AudioConfig, "mel_max_hz", 50.0),
        (AudioConfig, "mel_min_hz", float("nan")),
        (AudioTowerConfig, "depths", (2, 0, 6, 2)),
        (AudioTowerConfig, "n_heads", (5, 8, 16, 32)),
        (AudioTowerConfig, "patch_size", 7),
        (TextTowerConfig, "max_tokens", 0),
        (TextTowerConfig, "max_tokens", 1025),
        (TextTowerConfig, "n_heads", 0),
        (ClapConfig, "embedding_width", -24),
        (LanguageModelConfig, "n_heads", 0),
        (LanguageModelConfig, "n_heads", 5),
        (LanguageModelConfig, "n_positions", 0),
        (MapperConfig, "n_heads", 0),
        (MapperConfig, "n_heads", -2),
        (MapperConfig, "hidden_ratio", float("nan")),
        (MapperConfig, "hidden_ratio", -1.0),
        (MapperConfig, "embedding_width", 0),
        (MapperConfig, "width", 10**30),
        (BackboneConfig, "noise_variance", -1.0),
        (TrainingConfig, "seed", 2**63),
    ],
)
def test_value_out_of_range_names_field_and_value(cls: type, field: str, value: float) -> None:
    with pytest.raises(InputError, match=re.escape(f"{field} is {value!r}")):
        cls(**{field: value})


@pytest.mark.parametrize(
    ("mapper", "message"),
    [
        (MapperConfig(width=32), "mapper.width is 32, but must be 768, the width of the language model"),
        (MapperConfig(embedding_width=512), "mapper.embedding_width is 512, but must be 1024, the width of CLAP"),
    ],
)
def test_mapper_must_match_the_widths_of_clap_and_the_language_model(mapper: MapperConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BackboneConfig(mapper=mapper)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "many"}, "epochs is 'many'"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"surprise": 1}, "no field surprise"),
        ({"seed": None}, "seed is None"),
    ],
)
def test_json_with_a_wrong_field_is_an_error(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_dict(TrainingConfig, {**asdict(TrainingConfig()), **change})


def test_json_without_a_field_or_an_object_is_an_error() -> None:
    data = asdict(TrainingConfig())
    del data["epochs"]
    with pytest.raises(InputError, match="lacks epochs"):
        from_dict(TrainingConfig, data)
    with pytest.raises(InputError, match="must be an object"):
        from_dict(TrainingConfig, [])  # type: ignore[arg-type]
