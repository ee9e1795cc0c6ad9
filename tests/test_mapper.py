"""The mapper: its size, initialisation and gradients, and its output compared with msclap's mapper."""

import pytest
import torch

from full_size import import_msclap, randomise
from textcap.config import MapperConfig
from textcap.errors import CheckpointError
from textcap.models.loading import Checkpoint
from textcap.models.mapper import Mapper, load_clapcap_mapper

SMALL = MapperConfig(embedding_width=12, width=16, prefix_length=3, n_layers=2, n_heads=4)
# msclap's mapper always has 8 heads and a hidden ratio of 2.
MIDDLE = MapperConfig(embedding_width=20, width=32, prefix_length=5, n_layers=3, n_heads=8)


def _clapcap_tensors(config: MapperConfig, seed: int = 0):
    """Return an msclap mapper with random weights, and its tensors by their names in the clapcap checkpoint."""
    import_msclap()
    from msclap.models.mapper import TransformerMapper

    sizes = (
        config.embedding_width,
        config.width,
        config.prefix_length,
        config.prefix_length,
        config.n_layers,
    )
    reference = TransformerMapper(*sizes)
    reference.load_state_dict(randomise(reference.state_dict(), seed))
    return reference, {f"clap_project.{name}": tensor for name, tensor in reference.state_dict().items()}


def test_size_of_the_paper_has_the_published_number_of_parameters():
    with torch.device("meta"):
        mapper = Mapper(MapperConfig())
    assert sum(parameter.numel() for parameter in mapper.parameters()) == 69_316_608
    assert all(parameter.requires_grad for parameter in mapper.parameters())


def test_prefix_has_the_expected_shape_and_is_independent_of_the_batch():
    torch.manual_seed(0)
    mapper = Mapper(SMALL)
    embeddings = torch.nn.functional.normalize(torch.randn(4, 12), dim=-1)
    prefix = mapper(embeddings)
    assert prefix.shape == (4, 3, 16)
    torch.testing.assert_close(prefix[2:3], mapper(embeddings[2:3]), rtol=0, atol=1e-6)
    assert not torch.allclose(prefix[0], prefix[1], atol=1e-3)


def test_same_seed_gives_equal_weights():
    torch.manual_seed(7)
    first = Mapper(SMALL).state_dict()
    torch.manual_seed(7)
    second = Mapper(SMALL).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(8)
    assert not torch.equal(Mapper(SMALL).constants, first["constants"])


def test_constants_start_as_standard_normal():
    torch.manual_seed(0)
    constants = Mapper(MapperConfig(width=256, prefix_length=40, n_layers=1)).constants
    assert constants.std().item() == pytest.approx(1.0, abs=0.03)
    assert constants.mean().item() == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_prefix_equals_msclap(seed):
    reference, tensors = _clapcap_tensors(MIDDLE, seed)
    mapper = load_clapcap_mapper(MIDDLE, Checkpoint("clapcap.pth", tensors))
    embeddings = torch.nn.functional.normalize(torch.randn(6, 20), dim=-1)
    with torch.no_grad():
        expected = reference(embeddings)
        assert (mapper(embeddings) - expected).abs().max() <= 1e-6 * expected.abs().max()
        mapper, reference, embeddings = mapper.double(), reference.double(), embeddings.double()
        assert reference(embeddings).abs().max() > 0.5
        torch.testing.assert_close(mapper(embeddings), reference(embeddings), rtol=0, atol=1e-13)


def test_every_tensor_of_the_checkpoint_is_required_by_name():
    _, tensors = _clapcap_tensors(MIDDLE)
    checkpoint = Checkpoint("clapcap.pth", tensors | {"clap_project.more": torch.zeros(1)})
    load_clapcap_mapper(MIDDLE, checkpoint)
    assert checkpoint.unused == ["clap_project.more"]
    for name in tensors:
        without = {other: tensor for other, tensor in tensors.items() if other != name}
        with pytest.raises(CheckpointError, match=f"clapcap.pth lacks the tensor {name}"):
            load_clapcap_mapper(MIDDLE, Checkpoint("clapcap.pth", without))


def test_tensor_of_the_wrong_shape_is_an_error_with_both_shapes():
    _, tensors = _clapcap_tensors(MIDDLE)
    tensors["clap_project.prefix_const"] = torch.zeros(4, 32)
    with pytest.raises(CheckpointError, match=r"clap_project.prefix_const has shape \[4, 32\] instead of \[5, 32\]"):
        load_clapcap_mapper(MIDDLE, Checkpoint("clapcap.pth", tensors))


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    mapper = Mapper(SMALL)
    mapper(torch.randn(2, 12)).square().sum().backward()
    without_gradient = [name for name, p in mapper.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without_gradient == []
