"""How near explanations come to the corpus's own: cosine of the mean-pooled states of a named sentence encoder."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from affectgpt.generation import loading_options
from affectgpt.metrics import bootstrap_interval

_MAX_TOKENS = 512


class SentenceEncoder:
    """A model of transformers that turns texts into vectors of length 1.

    Args:
        name_or_path: folder or Hub id, such as "sentence-transformers/all-MiniLM-L6-v2".
        device (`str`, *optional*): by default the GPU if there is one.
        batch_size (`int`): texts encoded at a time.

    Raises:
        OSError: if the Hub has no such repository or cannot be reached.
    """

    def __init__(self, name_or_path: str, *, device: str | None = None, batch_size: int = 32):
        self.name = name_or_path
        self._tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        self._model = AutoModel.from_pretrained(name_or_path, **loading_options(device=device, dtype="float32")).eval()
        positions = getattr(self._model.config, "max_position_embeddings", _MAX_TOKENS)
        self._max_tokens = min(_MAX_TOKENS, positions, self._tokenizer.model_max_length)
        self._batch_size = batch_size

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape `(len(texts), D)`: states of the last layer, mean over a text's tokens, at length 1.

        A text beyond the tokens that the encoder takes is cut; one without any gets a vector of zeros.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # long ones together: less padding
        vectors: dict[int, np.ndarray] = {}
        for start in range(0, len(order), self._batch_size):
            numbers = order[start : start + self._batch_size]
            inputs = self._tokenizer(
                [texts[index] or " " for index in numbers],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._model.device)
            states = self._model(**inputs).last_hidden_state  # (B, S, D)
            mask = inputs["attention_mask"][..., None]
            means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            means = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
            vectors |= {index: vector * bool(texts[index].strip()) for index, vector in zip(numbers, means, strict=True)}
        return np.stack([vectors[index] for index in range(len(texts))])


def similarity(
    encoder: SentenceEncoder, answers: Mapping[str, str], references: Mapping[str, str], *, seed: int = 0
) -> tuple[dict, dict[str, float]]:
    """Cosine of each clip's answer and reference.

    Args:
        answers, references: clip -> text. Clips without a reference are left out.

    Returns:
        Figures (`mean` and its 95 % bootstrap interval over clips; `of_another`, the mean where each answer meets the reference of
        another clip, which is what a cosine of two explanations is worth by itself), and the cosine of each clip.

    Raises:
        ValueError: if fewer than two clips have a reference.
    """
    names = [name for name in answers if (references.get(name) or "").strip()]
    if len(names) < 2:
        raise ValueError(
            f"Expected references for the answers, got {len(names)} among {len(answers)} clips. Leave the encoder out."
        )
    given = encoder.encode([answers[name] for name in names])
    wanted = encoder.encode([references[name] for name in names])
    cosines = (given * wanted).sum(axis=1)
    low, high = bootstrap_interval(cosines, seed=seed)
    order = np.random.default_rng(seed).permutation(len(names))
    others = wanted[order[(np.argsort(order) + 1) % len(names)]]  # one cycle: nobody meets their own
    figures = {
        "encoder": encoder.name,
        "n": len(names),
        "mean": float(cosines.mean()),
        "interval_95": [low, high],
        "of_another": float((given * others).sum(axis=1).mean()),
    }
    return figures, dict(zip(names, map(float, cosines), strict=True))
