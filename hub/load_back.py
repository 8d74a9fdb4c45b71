"""Load what was pushed as anyone would, from the Hub: `hub.publish` runs it in a process and with a cache of its own.

    python -m hub.load_back model ORG/NAME COMMIT
    python -m hub.load_back adapter ORG/NAME COMMIT BASE
    python -m hub.load_back dataset ORG/NAME COMMIT EXPECTED
    python -m hub.load_back space ORG/NAME COMMIT

It ends with an error if something does not load, or says nothing.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)

_START_SPACE = "import app; app.load_demo(); print('started')"


def load_model(repo_id: str, commit: str) -> str:
    """Load a model by its Auto classes and let it answer."""
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    processor = AutoProcessor.from_pretrained(repo_id, revision=commit)
    model = AutoModelForMultimodalLM.from_pretrained(repo_id, revision=commit)
    return f"It loads and answers: {model.num_parameters():,} parameters, {answer(model, processor)} tokens."


def load_adapter(repo_id: str, commit: str, base: str) -> str:
    """Load an adapter on its base and let both answer."""
    from peft import PeftModel
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    processor = AutoProcessor.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForMultimodalLM.from_pretrained(base), repo_id, revision=commit)
    return f"It loads on {base} and answers: {answer(model, processor)} tokens."


def answer(model, processor) -> int:
    """Number of tokens that a model answers to words alone, at most eight."""
    inputs = processor(subtitle="We finally got tickets for the final.")
    ids = model.generate(**inputs, tokenizer=processor.tokenizer, max_new_tokens=8)
    number = ids.shape[1] - inputs["input_ids"].shape[1]
    if number == 0:
        raise ValueError("Expected an answer, got none.")
    return number


def names_digest(names: list[str]) -> str:
    """A hash of the names of a split's rows, in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def load_dataset(repo_id: str, commit: str, expected: str) -> str:
    """Load every split, whole and streaming, and compare the rows' names with `expected`, JSON of [configuration, split, hash]."""
    import datasets

    for configuration, split, digest in json.loads(expected):
        rows = datasets.load_dataset(repo_id, configuration, split=split, revision=commit)
        if names_digest(rows["name"][:]) != digest:
            raise ValueError(f"{configuration}, {split}: expected the rows that were sent, got {len(rows)} others.")
        streamed = next(iter(datasets.load_dataset(repo_id, configuration, split=split, revision=commit, streaming=True)))
        if streamed["name"] != rows[0]["name"]:
            raise ValueError(f"{configuration}, {split}: expected the first row when streaming, got {streamed['name']!r}.")
    return f"It loads: {len(json.loads(expected))} splits, whole and streaming."


def load_space(repo_id: str, commit: str) -> str:
    """Build the page of a Space out of nothing but its files."""
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "space"
        shutil.copytree(snapshot_download(repo_id, repo_type="space", revision=commit), place)
        start_space(place)
    return "It starts."


def start_space(folder: Path) -> None:
    """Import a Space's `app.py` and build its page in a process that finds nothing else of this project.

    Raises:
        RuntimeError: with what the process said, if it fails.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("AFFECTGPT_")}
    done = subprocess.run(
        [sys.executable, "-c", _START_SPACE], cwd=folder, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode or not done.stdout.strip().endswith("started"):
        raise RuntimeError(f"The Space does not start:\n{done.stderr.strip()}")


def main() -> None:
    kinds = {"model": load_model, "adapter": load_adapter, "dataset": load_dataset, "space": load_space}
    kind, *arguments = sys.argv[1:]
    print(kinds[kind](*arguments))


if __name__ == "__main__":
    main()
