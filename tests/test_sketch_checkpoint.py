import subprocess
import sys
from pathlib import Path

import pytest
import torch

from affectgpt import explain, load_model
from training.sketch_backbones import explained_variance, grid_positions

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything from nothing, at sizes that take seconds: corpus, frozen parts, both stages."""
    output = tmp_path_factory.mktemp("sketch")
    return output, make(output)


def make(output):
    command = [sys.executable, "-m", "training.sketch_checkpoint", "--tiny", "--output", str(output)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_one_command_makes_a_checkpoint_that_explains_a_rendered_clip(made):
    output, _ = made
    model, processor = load_model(output / "stage2")
    assert model.config.drawings_only
    clip = next((output / "corpus/clips/test").glob("*.mp4"))
    explanation = explain(model, processor, clip, subtitle="It is late.", max_new_tokens=5)
    assert not explanation.refused
    assert len(explanation.frame_times) == 8
    assert len(explanation.sound_spans) == 2


def test_frozen_parts_are_bit_identical_after_both_stages(made):
    output, _ = made
    before = load_model(output / "backbones")[0].state_dict()
    after = load_model(output / "stage2")[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("model.video_resampler.", "model.audio_resampler.")) for name in changed)


def test_one_command_given_again_does_nothing_twice(made):
    output, _ = made
    weights = output / "stage2/model.safetensors"
    written = weights.stat().st_mtime_ns
    again = make(output)
    assert [line.split("]")[0] + "]" for line in again.splitlines() if "is done" in line] == [
        "[corpus]",
        "[backbones]",
        "[stage1]",
        "[stage2]",
    ]
    assert weights.stat().st_mtime_ns == written


def test_explained_variance_is_one_for_perfect_and_zero_for_the_mean():
    targets = torch.randn(50, 3)
    assert torch.equal(explained_variance(targets, targets), torch.ones(3))
    torch.testing.assert_close(explained_variance(targets.mean(0).expand(50, 3), targets), torch.zeros(3), atol=1e-6, rtol=0)


def test_grid_positions_tell_every_patch_apart():
    positions = grid_positions(8, 96)
    assert positions.shape == (64, 96)
    assert torch.cdist(positions, positions).add(torch.eye(64)).min() > 0.05
