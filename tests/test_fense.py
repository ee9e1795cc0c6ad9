"""FENSE: equal to aac-metrics on small models in the formats of the real ones, and fetched like other weights."""

import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fake_hub import FakeHub
from fake_jars import fill_cache, use_tiny_catalogue
from textcap.cli.app import app
from textcap.errors import DependencyError, DownloadError, TextcapError
from textcap.scoring import fense
from textcap.scoring.results import add_combined, score_of_clips
from textcap.weights import FetchedFile, Hub, fetch, verify_cache
from textcap.weights.catalogue import BERT, FENSE, METRIC_MODELS, TINYBERT, find_folder

CLIPS = json.loads((Path(__file__).parent / "scored_clips.json").read_text(encoding="utf-8"))
REFERENCES = [clip["references"] for clip in CLIPS["clips"]]
ODD = ["", "  ", "a a a a dog .", "A Dog, barking!", "été 雨 \u0301 \U0001f415", "dog " * 200, "-lrb- x -rrb-"]
CAPTIONS = [*CLIPS["tokens"], *ODD]
REFERENCES_OF_ALL = [*REFERENCES, *([text, "a dog barks"] for text in ODD)]
CHECKPOINT = METRIC_MODELS[FENSE][0].name
LATER = "b" * 40

needs_sentences = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="needs sentence-transformers"
)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models in the formats of the real ones, with some thousands of weights, in a folder for `--fense`.

    Beside them are the encoder's own weights, which only the reference needs.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("fense")
    words = sorted({word for caption in CAPTIONS for word in caption.lower().split()})
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(vocabulary)[:5])
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(**sizes, num_hidden_layers=1, max_position_embeddings=512, initializer_range=0.5)
    for name in ("paraphrase-TinyBERT-L6-v2", "bert-base-uncased", "whole"):
        encoder = BertModel(config)
        encoder.save_pretrained(folder / name)
        tokenizer.save(str(folder / name / "tokenizer.json"))
        write_json(folder / name / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 512})
    (folder / "bert-base-uncased" / "model.safetensors").unlink()
    sentence = folder / "paraphrase-TinyBERT-L6-v2"
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(sentence / "modules.json", modules)
    write_json(sentence / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    modes = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in ("cls_token", "mean_tokens", "max_tokens")}
    write_json(sentence / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, **modes})
    # The checkpoint is of an old transformers, which kept the positions as a buffer.
    weights = {f"encoder.{name}": tensor for name, tensor in BertModel(config).state_dict().items()}
    weights["encoder.embeddings.position_ids"] = torch.arange(512)[None]
    weights |= {"clf.weight": torch.randn(6, 16), "clf.bias": torch.full((6,), 2.0)}
    states = {"model_type": "bert-base-uncased", "num_classes": 6, "state_dict": weights}
    torch.save(states, folder / CHECKPOINT)
    return folder


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Path:
    """A copy of the models that a test may change."""
    return shutil.copytree(models, tmp_path / "models")


@pytest.fixture
def hub(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the models, which serves the release of the detector as well."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    contents = {
        (file.repo, file.name): (models / file.role).read_bytes() for files in METRIC_MODELS.values() for file in files
    }
    large = {key: content for key, content in contents.items() if key[1] in ("model.safetensors", CHECKPOINT)}
    small = {key: content for key, content in contents.items() if key not in large}
    with FakeHub(large=large, small=small) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        sha256 = hashlib.sha256(large[FENSE, CHECKPOINT]).hexdigest()
        release = replace(METRIC_MODELS[FENSE][0], url=f"{fake.url}/store/{FENSE}/{CHECKPOINT}", sha256=sha256)
        monkeypatch.setitem(METRIC_MODELS, FENSE, (release,))
        yield fake


def fetch_from(hub: FakeHub) -> list[FetchedFile]:
    return fetch(list(METRIC_MODELS), hub=Hub(hub.url, timeout_s=5.0, retries=1, first_wait_s=0.001))


def n_downloaded(hub: FakeHub) -> int:
    return sum(request.n_sent > 0 for request in hub.requests)


# Values


@pytest.fixture
def reference() -> ModuleType:
    """The metrics of aac-metrics."""
    if importlib.util.find_spec("aac_metrics") is None:
        pytest.skip("needs aac-metrics")
    from textcap.verify import import_msclap

    import_msclap()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("aac_metrics.functional")


@needs_sentences
def test_values_equal_those_of_aac_metrics(models: Path, reference: ModuleType) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    states = torch.load(models / CHECKPOINT, weights_only=True)
    states["state_dict"].pop("encoder.embeddings.position_ids")
    detector = sys.modules["aac_metrics.functional.fer"].BERTFlatClassifier(str(models / "whole"), num_classes=6)
    detector.load_state_dict(states["state_dict"])
    corpus, clips = reference.fense(
        CAPTIONS,
        REFERENCES_OF_ALL,
        sbert_model=SentenceTransformer(str(models / "paraphrase-TinyBERT-L6-v2"), device="cpu"),
        echecker=detector,
        echecker_tokenizer=AutoTokenizer.from_pretrained(models / "whole"),
        device="cpu",
    )
    others = CAPTIONS[::-1]
    errors, errors_of_others = fense.fluency_errors([CAPTIONS, others], "cpu", models)
    similarities = fense.sentence_similarities([CAPTIONS, others], REFERENCES_OF_ALL, "cpu", models)[0]
    assert 0 < errors.sum() < len(errors)
    assert errors.tolist() == clips["fer"].tolist() == errors_of_others[::-1].tolist()
    assert similarities.tolist() == pytest.approx(clips["sbert_sim"].tolist(), abs=1e-6)
    scores = {name: score_of_clips(name, one) for name, one in (("sbert_sim", similarities), ("fer", errors))}
    add_combined(scores, ["fense"])
    assert scores["fense"].value == pytest.approx(float(corpus["fense"]), abs=1e-6)


@needs_sentences
def test_values_do_not_depend_on_the_batch(models: Path) -> None:
    from textcap.scoring.fense_models import embed, error_probabilities

    captions = list(dict.fromkeys(CAPTIONS))
    detector, encoder = models / CHECKPOINT, models / "bert-base-uncased"
    together = error_probabilities(detector, encoder, captions, "cpu")
    assert np.ptp(together) > 0.1
    alone = np.concatenate([error_probabilities(detector, encoder, [caption], "cpu") for caption in captions])
    assert together == pytest.approx(alone, abs=1e-5)
    sentence = models / "paraphrase-TinyBERT-L6-v2"
    embeddings = embed(sentence, captions, "cpu")
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1.0, abs=1e-5)
    alone = np.concatenate([embed(sentence, [caption], "cpu") for caption in captions[:3] + ODD])
    assert embeddings[[captions.index(caption) for caption in captions[:3] + ODD]] == pytest.approx(alone, abs=1e-5)


@needs_sentences
def test_each_caption_is_embedded_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    embedded = []
    encode = SentenceTransformer.encode

    def counted(self: Any, captions: list[str], **options: Any) -> Any:
        embedded.extend(captions)
        return encode(self, captions, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", counted)
    fense.sentence_similarities([["a", "b"], ["b", "b"]], [["a", "c"], ["c"]], "cpu", models)
    assert sorted(embedded) == ["a", "b", "c"]


def test_formula_on_published_similarities_and_errors(test_data: Path) -> None:
    """The formula only: similarities and errors are published, and are not computed here."""
    oracle = json.loads((test_data / "oracle" / "conette_audiocaps_test.json").read_text(encoding="utf-8"))
    clips = {name: np.array([item["scores"][name] for item in oracle["items"]]) for name in oracle["published"]}
    parts = ("cider_d", "spice", "sbert_sim", "fer")
    scores = {name: score_of_clips(name, clips[name]) for name in parts}
    add_combined(scores, ["spider", "spider_fl", "fense"])
    for name in ("spider", "spider_fl", "fense"):
        assert scores[name].per_clip == pytest.approx(clips[name], abs=1e-9), name
        assert scores[name].value == pytest.approx(oracle["published"][name], abs=1e-9), name


def test_random_state_and_log_level_are_left_alone(models: Path) -> None:
    import torch
    from transformers.utils import logging

    state, verbosity = torch.random.get_rng_state(), logging.get_verbosity()
    fense.fluency_errors([["a dog"]], "cpu", models)
    assert torch.equal(state, torch.random.get_rng_state())
    assert logging.get_verbosity() == verbosity and logging.is_progress_bar_enabled()


# Models that are missing or broken


def test_missing_models_are_named_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for compute in (
        lambda: fense.fluency_errors([["a"]], "cpu"),
        lambda: fense.model_versions(["fer"]),
    ):
        with pytest.raises(DependencyError, match="a model of FENSE is not on disk, or is damaged: ") as caught:
            compute()
        assert caught.value.hint == "run textcap fetch metrics --fense"
    assert not fense.is_available()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="sentence-transformers, .* is not installed") as caught:
        fense.sentence_similarities([["a"]], [["a"]], "cpu")
    assert caught.value.hint == "pip install 'textcap[fense]'"


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def break_detector(copy: Path, how: str) -> None:
    import torch

    path = copy / CHECKPOINT
    states = torch.load(path, weights_only=True)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Harmful()))
    elif how == "code in a checkpoint":
        torch.save({**states, "state_dict": Harmful()}, path)
    elif how == "no weights":
        torch.save([], path)
    elif how == "other encoder":
        states["state_dict"].pop("encoder.embeddings.word_embeddings.weight")
        torch.save(states, path)
    elif how == "tokenizer":
        (copy / "bert-base-uncased" / "tokenizer.json").write_text('{"model": 1}')
    elif how == "foreign code":
        config = copy / "bert-base-uncased" / "config.json"
        write_json(config, {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}})
        (config.parent / "own.py").write_text("import os; os.mkdir('harmed')")
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "pickle",
        "code in a checkpoint",
        "no weights",
        "other encoder",
        "tokenizer",
        "foreign code",
        "missing",
    ],
)
def test_broken_detector_is_a_one_line_error_and_runs_no_code(
    how: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    break_detector(copy, how)
    with pytest.raises(DependencyError) as caught:
        fense.fluency_errors([["a dog"]], "cpu", copy)
    assert str(copy) in caught.value.message and "\n" not in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "harmed").exists()


@needs_sentences
@pytest.mark.parametrize("how", ["module", "weights", "no list", "missing"])
def test_broken_sentence_model_is_a_one_line_error_and_runs_no_code(
    how: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = copy / "paraphrase-TinyBERT-L6-v2"
    if how == "module":
        write_json(model / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "own.Transformer"}])
        (model / "own.py").write_text("import os; os.mkdir('harmed')")
    elif how == "no list":
        (model / "modules.json").write_text("{")
    elif how == "weights":
        (model / "model.safetensors").write_bytes(b"x" * 100)
    else:
        (model / "model.safetensors").unlink()
    with pytest.raises(TextcapError) as caught:
        fense.sentence_similarities([["a dog"]], [["a dog"]], "cpu", copy)
    assert str(model) in caught.value.message and "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()


@needs_sentences
def test_versions_of_a_folder_are_hashes(copy: Path) -> None:
    assert fense.is_available(copy)
    versions = fense.model_versions(["sbert_sim", "fer", "rouge_l"], copy)
    assert set(versions) == {TINYBERT, BERT, FENSE}
    assert versions[FENSE] == hashlib.sha256((copy / CHECKPOINT).read_bytes()).hexdigest()
    (copy / "bert-base-uncased" / "tokenizer_config.json").write_text("{}")
    changed = fense.model_versions(["fer"], copy)
    assert changed.keys() == {BERT, FENSE}
    assert changed[BERT] != versions[BERT] and changed[FENSE] == versions[FENSE]
    (copy / CHECKPOINT).unlink()
    assert not fense.is_available(copy)


def test_search_for_the_models_loads_neither_torch_nor_sentence_transformers(models: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from textcap.scoring.fense import is_available, model_versions
is_available(), is_available(Path({str(models)!r})), model_versions(["fer"], Path({str(models)!r}))
print(sorted({{"torch", "transformers", "sentence_transformers"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


# Fetching


@needs_sentences
def test_fetched_models_are_those_of_the_hub(hub: FakeHub, models: Path) -> None:
    fetched = fetch_from(hub)
    assert all(one.downloaded for one in fetched)
    assert {one.commit for one in fetched if one.file.repo != FENSE} == {hub.commit}
    for one in fetched:
        assert one.path.read_bytes() == (models / one.file.role).read_bytes()
        assert one.path.resolve().parent.name == "blobs"
    assert {one.state for one in verify_cache(list(METRIC_MODELS))} == {"right"}
    assert fense.is_available()
    versions = fense.model_versions(["sbert_sim", "fer"])
    assert versions == {TINYBERT: hub.commit, BERT: hub.commit, FENSE: METRIC_MODELS[FENSE][0].sha256}
    theirs = (
        fense.fluency_errors([CAPTIONS], "cpu", models),
        fense.sentence_similarities([CAPTIONS], REFERENCES_OF_ALL, "cpu", models),
    )
    ours = fense.fluency_errors([CAPTIONS], "cpu"), fense.sentence_similarities([CAPTIONS], REFERENCES_OF_ALL, "cpu")
    assert [one[0].tolist() for one in ours] == [one[0].tolist() for one in theirs]
    hub.requests.clear()
    assert not any(one.downloaded for one in fetch_from(hub))
    assert not hub.requests


def test_interrupted_download_continues(hub: FakeHub) -> None:
    size = len(hub.large[FENSE, CHECKPOINT])
    hub.drop_after = [10**9] * (n_files() - 1) + [9000, 100]
    with pytest.raises(DownloadError):
        fetch_from(hub)
    first = n_downloaded(hub)
    fetched = fetch_from(hub)
    assert [one.file.name for one in fetched if one.downloaded] == [CHECKPOINT]
    assert n_downloaded(hub) == first + 1
    assert hub.requests[-1].first_byte == size - hub.requests[-1].n_sent > 0


def n_files() -> int:
    return sum(map(len, METRIC_MODELS.values()))


def test_detector_with_another_hash_is_never_used(hub: FakeHub) -> None:
    right = hub.large[FENSE, CHECKPOINT]
    hub.large[FENSE, CHECKPOINT] = right[:-1] + b"x"
    with pytest.raises(DownloadError, match="with a hash other than"):
        fetch_from(hub)
    assert find_folder(FENSE) is None and find_folder(TINYBERT) is not None
    hub.large[FENSE, CHECKPOINT] = right
    fetch_from(hub)
    assert find_folder(FENSE) is not None


@pytest.mark.parametrize("name", [CHECKPOINT, "model.safetensors", "1_Pooling/config.json"])
def test_damaged_file_is_not_used_and_is_downloaded_again(hub: FakeHub, name: str) -> None:
    [damaged] = [one for one in fetch_from(hub) if one.file.name == name]
    content = damaged.path.read_bytes()
    damaged.path.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [one.file.name for one in verify_cache(list(METRIC_MODELS)) if one.state == "damaged"] == [name]
    with pytest.raises(DependencyError, match=f"not on disk, or is damaged: {damaged.file.repo}"):
        fense.model_versions(["sbert_sim", "fer"])
    first = n_downloaded(hub)
    fetch_from(hub)
    assert n_downloaded(hub) == first + 1 and damaged.path.read_bytes() == content
    assert {one.state for one in verify_cache(list(METRIC_MODELS))} == {"right"}


def test_files_of_two_commits_are_brought_into_one_folder(hub: FakeHub) -> None:
    [lost] = [one for one in fetch_from(hub) if one.file.name == "modules.json"]
    lost.path.resolve().unlink()
    lost.path.unlink()
    first, hub.commit = n_downloaded(hub), LATER
    fetched = [one for one in fetch_from(hub) if one.file.repo == TINYBERT]
    assert {one.commit for one in fetched} == {LATER}
    assert {one.path.parents[one.file.name.count("/")] for one in fetched} == {find_folder(TINYBERT)}
    assert n_downloaded(hub) == first + 1  # the others have not changed


@pytest.mark.parametrize("also_no_hard_links", [False, True])
def test_file_systems_without_symbolic_links_work(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, also_no_hard_links: bool
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    if also_no_hard_links:
        monkeypatch.setattr(os, "link", refuse)
    fetch_from(hub)
    assert all(find_folder(name) is not None for name in METRIC_MODELS)
    states = {one.file.name: one.state for one in verify_cache(list(METRIC_MODELS))}
    assert states.pop(CHECKPOINT) == "right"
    assert set(states.values()) == {"unknown" if also_no_hard_links else "right"}


def test_models_that_other_packages_downloaded_are_used(
    hub: FakeHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detector of aac-metrics, and an encoder under its former name on the hub."""
    monkeypatch.setenv("FENSE_DATA", str(tmp_path))
    shutil.copy(models / CHECKPOINT, tmp_path)
    snapshot = Path(os.environ["HF_HOME"], "hub", "models--bert-base-uncased", "snapshots", LATER)
    shutil.copytree(models / "bert-base-uncased", snapshot)
    fetched = {one.file.repo: one for one in fetch_from(hub)}
    assert not fetched[BERT].downloaded and not fetched[FENSE].downloaded and fetched[TINYBERT].downloaded
    assert fetched[FENSE].path == tmp_path / CHECKPOINT
    assert fense.model_versions(["fer"]) == {BERT: LATER, FENSE: METRIC_MODELS[FENSE][0].sha256}
    (tmp_path / CHECKPOINT).write_bytes(b"half of it")
    assert find_folder(FENSE) is None
    assert [one.downloaded for one in fetch_from(hub)][-1]
    assert (tmp_path / CHECKPOINT).read_bytes() == b"half of it"


def test_nothing_is_fetched_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="forbids downloads"):
        fetch_from(hub)
    assert not hub.requests


def run(*arguments: str, exit_code: int = 0) -> tuple[list[list[str]], str]:
    result = CliRunner().invoke(app, ["fetch", *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == exit_code, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()], result.stderr


def test_command_fetches_and_checks_jars_and_models(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny_catalogue(monkeypatch)
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path))
    fill_cache(tmp_path)
    rows, _ = run("metrics", "--fense", "--verify", exit_code=1)
    assert [row[1] for row in rows].count("missing") == n_files()
    rows, stderr = run("metrics", "--fense")
    assert f"{n_files()} fetched, 0 already on disk" in stderr
    assert [row[3] for row in rows if row[0] == "modules.json"] == [f"{TINYBERT}@{hub.commit}"]
    assert [row[1] for row in rows if row[0] == CHECKPOINT] == ["MIT"]
    assert find_folder(FENSE) is not None
    assert {row[1] for row in run("metrics", "--fense", "--verify")[0]} == {"right"}
    Path(rows[-1][4]).resolve().write_bytes(b"x")
    rows, stderr = run("metrics", "--fense", "--verify", exit_code=1)
    assert stderr == f"textcap: damaged or missing: 1 of {len(rows)} files (run textcap fetch metrics --fense)\n"
    assert run("clapcap", "--fense", exit_code=2)[0] == []
