import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from affectgpt import explain, load_model
from training import sketch_backbones, sketch_checkpoint
from training.sketch import chinese, english
from training.sketch.scenarios import sample_scenes
from training.sketch_backbones import (
    EXCERPTS,
    SCENES,
    excerpt_text,
    explained_variance,
    grid_positions,
    make_processor,
    make_tokenizer,
    scene_text,
    text_batches,
)
from training.sketch_checkpoint import Clock

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
    model, processor = load_model(output / "trainings/full-0/stage2")
    assert model.config.drawings_only
    clip = next((output / "corpus/clips/test").glob("*.mp4"))
    explanation = explain(model, processor, clip, subtitle="It is late.", max_new_tokens=5)
    assert not explanation.refused
    assert len(explanation.frame_times) == 8
    assert len(explanation.sound_spans) == 2


def test_frozen_parts_are_bit_identical_after_both_stages(made):
    output, _ = made
    before = load_model(output / "backbones")[0].state_dict()
    after = load_model(output / "trainings/full-0/stage2")[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("model.video_resampler.", "model.audio_resampler.")) for name in changed)


def test_one_command_given_again_does_nothing_twice(made, capsys):
    output, _ = made
    weights = output / "trainings/full-0/stage2/model.safetensors"
    written = weights.stat().st_mtime_ns
    assert sketch_checkpoint.make(output, sketch_checkpoint.TINY, seed=0) == weights.parent
    again = capsys.readouterr().out
    assert [line.split("]")[0] + "]" for line in again.splitlines() if "is done" in line] == [
        "[corpus]",
        "[backbones]",
        "[features of EMER-Sketch-Coarse]",
        "[features of EMER-Sketch-Fine]",
        "[stage1]",
        "[stage2]",
    ]
    assert weights.stat().st_mtime_ns == written


def test_frozen_parts_can_be_those_of_a_trained_checkpoint(made, tmp_path, monkeypatch):
    output, _ = made
    trained = output / "trainings/full-0/stage2"
    monkeypatch.setattr(sys, "argv", ["", "--frozen-from", str(trained), "--output", str(tmp_path)])
    sketch_backbones.main()
    for name in ("model.safetensors", "tokenizer.json", "processor_config.json"):
        assert (tmp_path / name).read_bytes() == (output / "backbones" / name).read_bytes()


def test_clock_adds_up_what_steps_take_and_holds_it_against_the_budget(tmp_path):
    clock = Clock(tmp_path / "minutes.json")
    clock.add("corpus", 10)
    clock.add("corpus", 5.5)
    clock.add("stage1", 95)
    assert Clock(tmp_path / "minutes.json").summary() == (
        "rendering 15.5 of 40 min, training 95.0 of 90 min (over); by step: corpus 15.5, stage1 95.0"
    )


def test_minutes_are_kept_while_a_step_runs_and_it_ends_with_an_interrupt(tmp_path, monkeypatch):
    monkeypatch.setattr(sketch_checkpoint, "TICK", 0.1)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "slow.py").write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    monkeypatch.chdir(tmp_path)
    clock = Clock(tmp_path / "minutes.json")
    add = Clock.add

    def interrupt(self, step, minutes):
        add(self, step, minutes)
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr(Clock, "add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sketch_checkpoint.run("slow", tmp_path / "never", clock, "slow")
    assert 0 < Clock(tmp_path / "minutes.json").minutes["slow"] < 0.5
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_step_that_fails_ends_the_run(tmp_path):
    with pytest.raises(subprocess.CalledProcessError, match="no_such_module"):
        sketch_checkpoint.run("bad", tmp_path / "never", Clock(tmp_path / "minutes.json"), "no_such_module")


@pytest.fixture(scope="module")
def processor():
    return make_processor(make_tokenizer([], []))


def test_language_model_learns_from_excerpts_first_and_then_from_whole_scenes(processor):
    batches = list(text_batches(processor, seed=0, steps=7))
    assert [len(rows) for rows in batches] == [EXCERPTS] * 2 + [SCENES] * 5
    texts = [processor.tokenizer.decode(row) for row in batches[0] + batches[-1]]
    assert all(text.startswith("<s>") and text.endswith("###") and "###Assistant: " in text for text in texts)
    assert batches == list(text_batches(processor, seed=0, steps=7))


def test_excerpts_lead_from_one_slot_to_its_sentence(processor):
    kinds = set()
    for seed, scene in enumerate(sample_scenes("coarse", 60, seed=1)):
        prompt, answer = excerpt_text(processor, scene, np.random.default_rng(seed))
        kind = prompt[1 : prompt.index(">")]
        kinds.add((kind, "中文" in prompt))
        if kind == "Subtitle":
            assert any(sentence in prompt for sentence in scene.sentence)
            ways = (chinese if "中文" in prompt else english).ACTS[scene.text_act]
            assert answer.lower() in ways
    assert kinds == {(kind, is_chinese) for kind in ("Video", "Audio", "Subtitle") for is_chinese in (False, True)}


def test_scenes_in_words_leave_media_out_in_both_languages(processor):
    texts = [scene_text(processor, scene, np.random.default_rng(k)) for k, scene in enumerate(sample_scenes("coarse", 300, seed=1))]
    in_chinese = sum("请用中文回答" in prompt for prompt, _ in texts)
    assert 90 <= in_chinese <= 150
    for part in ("<Audio>", "<Video>", "<Subtitle>"):
        assert 250 <= sum(part in prompt for prompt, _ in texts) < 300
    assert all(token not in prompt for prompt, _ in texts for token in (processor.video_token, processor.audio_token))


def test_explained_variance_is_one_for_perfect_and_zero_for_the_mean():
    targets = torch.randn(50, 3)
    assert torch.equal(explained_variance(targets, targets), torch.ones(3))
    torch.testing.assert_close(explained_variance(targets.mean(0).expand(50, 3), targets), torch.zeros(3), atol=1e-6, rtol=0)


def test_grid_positions_tell_every_patch_apart():
    positions = grid_positions(8, 96)
    assert positions.shape == (64, 96)
    assert torch.cdist(positions, positions).add(torch.eye(64)).min() > 0.05
