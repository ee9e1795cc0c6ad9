"""Fit a linear adapter on a file of pairs: from what was heard to an adapter that says where it comes from.

Knows no command line and no arithmetic of the fit.
"""

import torch

from textcap.adapter import LinearAdapter
from textcap.adapter_fit import fit_adapter
from textcap.backbone import Backbone
from textcap.config import AdapterFacts
from textcap.pair_embeddings import HeardPairs, embed_pair_captions


def fit_adapter_on_pairs(
    heard: HeardPairs,
    backbone: Backbone,
    device: torch.device,
    *,
    method: str = "ridge",
    strength: float | None = None,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> LinearAdapter:
    """Embed the captions of pairs and fit h on all of them; settings as `fit_adapter` takes them.

    Raises:
        InputError: There are too few pairs, or a setting is out of range.
    """
    text = embed_pair_captions(heard, backbone, device)
    fitted = fit_adapter(
        heard.audio,
        text,
        heard.owners,
        method=method,
        strength=strength,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
    )
    facts = AdapterFacts(
        backbone_name=backbone.config.name,
        backbone_hash=backbone.content_hash,
        method=fitted.method,
        strength=fitted.strength,
        n_pairs=len(heard.pairs),
        n_captions=len(heard.captions),
        n_held_out=fitted.n_held_out,
        pairs_name=heard.source.file.name,
        pairs_sha256=heard.source.file.sha256,
        seed=seed,
        cosine_before=fitted.before.cosine,
        cosine_after=fitted.after.cosine,
        recall_at_1_before=fitted.before.recall_at_1,
        recall_at_1_after=fitted.after.recall_at_1,
        recall_at_10_before=fitted.before.recall_at_10,
        recall_at_10_after=fitted.after.recall_at_10,
    )
    return LinearAdapter(torch.from_numpy(fitted.matrix), torch.from_numpy(fitted.bias), facts)
