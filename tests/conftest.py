"""Shared by all tests: the torchaudio guard, no network, what is skipped and why."""

import os

import pytest

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # more threads than cores slow each other down
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="Needs a CUDA device; there is none here."))
