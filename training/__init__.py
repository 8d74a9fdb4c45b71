"""Training AffectGPT: the two stages, the sketch world, evaluation."""

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)
