"""The 2025 model in the same classes, on tiny weights: media present and absent, batches, fusion, training, saving."""

import numpy as np
import pytest
import torch
from tiny import NUM_FRAMES, make_tiny_config_2025, make_tiny_model_2025, make_tiny_processor_2025

from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTModel, AffectGPTPoolingConfig

QFORMER = {
    "model_type": "blip_2_qformer",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "cross_attention_frequency": 1,
    "initializer_range": 0.2,
}
WITH_QFORMERS = {
    "video_resampler_config": {**QFORMER, "encoder_hidden_size": 12},
    "audio_resampler_config": {**QFORMER, "encoder_hidden_size": 20},
    "prefusion_config": {**QFORMER, "encoder_hidden_size": 20},
    "num_video_query_tokens": 4,
    "num_audio_query_tokens": 3,
    "num_fusion_query_tokens": 5,
}
QUERY_TOKENS = {"num_video_query_tokens": 4, "num_audio_query_tokens": 3, "num_fusion_query_tokens": 5}


@pytest.fixture(scope="module")
def model():
    return make_tiny_model_2025()


@pytest.fixture(scope="module")
def processor():
    return make_tiny_processor_2025()


def crops(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (NUM_FRAMES, 28, 28, 3), dtype=np.uint8)


def sound(seed: int, seconds: float = 0.7) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)


def test_forward_takes_faces_sound_and_their_fusion(model, processor):
    batch = processor(faces=crops(0), waveform=sound(0), subtitle="hello")

    with torch.no_grad():
        outputs = model(**batch)

    assert set(batch) == {"input_ids", "attention_mask", "pixel_values_faces", "input_values"}
    assert set(outputs.media_hidden_states) == {"face", "audio", "fusion"}
    assert torch.isfinite(outputs.logits).all()


@pytest.mark.parametrize("changes, tokens", [({}, {}), (WITH_QFORMERS, QUERY_TOKENS)], ids=["attention", "qformer"])
def test_batch_of_mixed_rows_equals_the_rows_alone(changes, tokens):
    model, processor = make_tiny_model_2025(**changes), make_tiny_processor_2025(**tokens)
    faces, sounds = [crops(0), None, crops(1), None], [sound(0), sound(1), None, None]
    subtitles = ["one", "two words", "", None]

    with torch.no_grad():
        batch = processor(faces=faces, waveform=sounds, subtitle=subtitles)
        together = model(**batch).logits[:, -1]
        alone = [
            model(**processor(faces=face, waveform=wave, subtitle=subtitle)).logits[0, -1]
            for face, wave, subtitle in zip(faces, sounds, subtitles, strict=True)
        ]

    torch.testing.assert_close(together, torch.stack(alone), atol=2e-5, rtol=1e-4)


def test_fusion_takes_faces_of_rows_that_have_them_and_frames_of_others():
    model, processor = make_tiny_model_2025(), make_tiny_processor_2025(media=("fusion", "audio", "video", "face"))
    frames, faces = [crops(0), crops(1)], [crops(2), None]

    with torch.no_grad():
        together = model(**processor(frames=frames, faces=faces, waveform=[sound(0), sound(1)])).media_hidden_states["fusion"]
        with_face = model(**processor(faces=crops(2), waveform=sound(0))).media_hidden_states["fusion"]
        with_frames = model(**processor(frames=crops(1), waveform=sound(1))).media_hidden_states["fusion"]
        # Frames have their channels as they are, crops have them turned round.
        turned = model(**processor(frames=crops(2)[..., ::-1].copy(), waveform=sound(0))).media_hidden_states["fusion"]

    torch.testing.assert_close(together, torch.cat([with_face, with_frames]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(with_face, turned)


def test_prompt_with_fusion_alone_uses_both_media(model):
    processor = make_tiny_processor_2025(media=("fusion",))
    reference = make_tiny_processor_2025()

    with torch.no_grad():
        alone = model(**processor(faces=crops(0), waveform=sound(0))).media_hidden_states["fusion"]
        expected = model(**reference(frames=None, faces=crops(0), waveform=sound(0))).media_hidden_states["fusion"]

    torch.testing.assert_close(alone, expected)


def test_fusion_without_sound_raises(model, processor):
    batch = processor(faces=crops(0), waveform=sound(0))
    del batch["input_values"]

    with pytest.raises(ValueError, match="Expected faces or frames, and sound, in every row"):
        model(**batch)


def test_attention_weights_are_not_normalised():
    model = make_tiny_model_2025()
    pooling = model.model.video_resampler
    features = torch.randn(2, 5, 1, 12)

    with torch.no_grad():
        once, twice = pooling.pool(features[:, :, 0]), pooling.pool(features[:, :, 0].repeat(1, 2, 1))

    torch.testing.assert_close(twice, 2 * once)


def test_still_picture_has_its_own_tokens(model):
    processor = make_tiny_processor_2025(media=("image",))
    picture = crops(3)[0]

    with torch.no_grad():
        outputs = model(**processor(image=picture, question="What does the person feel?"))

    assert outputs.media_hidden_states["image"].shape == (1, 1, 32)


def test_generate_encodes_media_once_and_equals_argmax(model, processor, monkeypatch):
    batch = processor(faces=[crops(0), crops(1)], waveform=[sound(0), sound(1)], subtitle=["a", "longer"])
    calls = []
    encode = AffectGPTModel.encode_frames
    monkeypatch.setattr(AffectGPTModel, "encode_frames", lambda self, pixels: calls.append(1) or encode(self, pixels))

    options = {"do_sample": False, "max_new_tokens": 5, "tokenizer": processor.tokenizer}
    generated = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]

    assert len(calls) == 1
    ids, mask = batch["input_ids"], batch["attention_mask"]
    media = {name: batch[name] for name in ("pixel_values_faces", "input_values")}
    with torch.no_grad():
        for step in range(5):
            best = model(input_ids=ids, attention_mask=mask, **media).logits[:, -1].argmax(dim=-1)
            assert torch.equal(best, generated[:, step])
            ids, mask = torch.cat([ids, best[:, None]], dim=1), torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


def test_beam_search_with_fusion_runs_for_every_row(model, processor):
    batch = processor(faces=[crops(0), None], waveform=[sound(0), sound(1)], subtitle=["a", "b"])

    options = {"num_beams": 3, "max_new_tokens": 3, "do_sample": False, "tokenizer": processor.tokenizer}
    assert model.generate(**batch, **options).shape[0] == 2


def test_training_rows_start_with_bos_and_end_with_eos_and_prompts_do_not(processor):
    tokenizer = processor.tokenizer

    trained = processor(subtitle="hello", answer="calm")
    asked = processor(subtitle="hello")

    assert trained["input_ids"][0, 0] == tokenizer.bos_token_id
    assert trained["labels"][0, -1] == tokenizer.eos_token_id
    assert asked["input_ids"][0, 0] != tokenizer.bos_token_id
    assert tokenizer.decode(trained["labels"][0][trained["labels"][0] != -100]) == "calm###</s>"


def test_face_model_given_frames_raises_and_says_what_to_give(processor):
    with pytest.raises(ValueError, match="Give the crops of `affectgpt.faces`"):
        processor(frames=crops(0))


def test_frozen_encoders_stay_in_evaluation_mode_while_training():
    model = make_tiny_model_2025()
    model.requires_grad_(False)
    model.model.video_resampler.requires_grad_(True)

    model.train()

    assert not model.model.audio_tower.training
    assert not model.model.vision_tower.training
    assert model.model.video_resampler.training
    model.model.audio_tower.requires_grad_(True)
    assert model.train().model.audio_tower.training


def test_cached_features_give_the_same_loss(model, processor):
    batch = processor(faces=crops(0), waveform=sound(0), subtitle="hello", answer="calm")
    with torch.no_grad():
        features = {
            "face_features": model.model.encode_frames(batch["pixel_values_faces"]),
            "audio_features": model.model.encode_sound(batch["input_values"]),
        }
        expected = model(**batch).loss
        text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        torch.testing.assert_close(model(**text, **features).loss, expected)


def test_config_round_trip_keeps_pooling_and_absent_parts(tmp_path):
    config = make_tiny_config_2025()

    config.save_pretrained(tmp_path)
    loaded = AffectGPTConfig.from_pretrained(tmp_path)

    assert loaded.to_dict() == config.to_dict()
    assert isinstance(loaded.prefusion_config, AffectGPTPoolingConfig)
    assert loaded.image_qformer_config is None


@pytest.mark.parametrize("changes", [{}, WITH_QFORMERS], ids=["attention", "qformer"])
def test_save_and_load_gives_identical_weights_and_the_same_logits(changes, tmp_path):
    model = make_tiny_model_2025(**changes)
    processor = make_tiny_processor_2025(**(QUERY_TOKENS if changes else {}))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    loaded = AffectGPTForConditionalGeneration.from_pretrained(tmp_path)
    again = type(processor).from_pretrained(tmp_path)

    batch, batch_again = (kind(faces=crops(0), waveform=sound(0), subtitle="x") for kind in (processor, again))
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, loaded(**batch_again).logits, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_width_that_does_not_fit_raises():
    with pytest.raises(ValueError, match=r"video_resampler_config.encoder_hidden_size.* 12, got 13"):
        make_tiny_config_2025(video_resampler_config={"model_type": "affectgpt_pooling", "encoder_hidden_size": 13})
