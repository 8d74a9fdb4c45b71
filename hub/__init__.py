"""Conversion of released checkpoints, and what is pushed to the Hugging Face Hub."""

import affectgpt  # noqa: F401  (before transformers and peft: see affectgpt/_torchaudio_guard.py)
