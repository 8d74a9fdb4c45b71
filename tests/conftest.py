"""Shared by all tests: the torchaudio guard, few threads, no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)
