"""Both generations at the sizes of the released weights, on the meta device; the speed measurement on tiny ones."""

import torch
from tiny import make_tiny_config, make_tiny_config_2025

from affectgpt import AffectGPTForConditionalGeneration
from benchmarks import full_size


def test_what_trains_has_the_sizes_of_the_released_checkpoints():
    counts = {name: full_size.count(config) for name, config in full_size.configurations().items()}

    assert counts["paper (2024)"]["resamplers and fusion, trained"] == 44_959_744
    # Video-LLaMA's Vicuna-7B, and Qwen2.5-7B.
    assert counts["paper (2024)"]["language model"] == 6_738_415_616
    assert counts["2025"]["language model"] == 7_615_616_512


def test_2025_weights_have_the_shapes_of_the_release():
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(full_size.configurations()["2025"]).model

    assert model.video_resampler.projection.weight.shape == (3584, 768)
    assert model.image_resampler.projection.weight.shape == (3584, 768)
    assert model.audio_resampler.projection.weight.shape == (3584, 1024)
    assert model.fusion.video_projection.weight.shape == (1024, 768)
    assert model.fusion.audio_projection.weight.shape == (1024, 1024)
    assert model.fusion.attention_hidden.weight.shape == (1024, 2048)
    assert model.fusion.attention_score.weight.shape == (2, 1024)
    assert model.fusion.projection.weight.shape == (3584, 1024)


def test_measure_writes_loads_answers_and_trains(monkeypatch):
    monkeypatch.setattr(full_size, "NEW_TOKENS", 4)
    paper = make_tiny_config(max_audio_clips=8)
    paper.audio_config.num_mel_bins, paper.audio_config.num_frames = 128, 204

    for config in (paper, make_tiny_config_2025()):
        text = full_size.measure(config, "cpu")

        assert "\n| bfloat16 | " in text
        assert "\n| with gradient checkpointing | " in text


def test_describe_names_every_form_of_checkpoint():
    text = full_size.describe("tiny", make_tiny_config_2025())

    assert "| on disk in parts: trained weights and LoRA |" in text
    assert "Placeholders in the prompt of one clip: 3." in text
