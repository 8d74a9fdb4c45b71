import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import NUM_FRAMES, make_tiny_config, make_tiny_model, make_tiny_processor
from transformers import AutoModel, AutoModelForMultimodalLM, AutoProcessor, LogitsProcessorList

from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTModel

PROMPT_PRESENCE = {"both": (True, True), "video": (True, False), "audio": (False, True), "none": (False, False)}


@pytest.fixture(scope="module")
def processor():
    return make_tiny_processor()


@pytest.fixture(scope="module")
def model():
    return make_tiny_model()


def make_rows(processor, presences, *, answers=None, padding_side=None, subtitle="What a day."):
    """A batch with the media named in `presences`, other content in every row."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (NUM_FRAMES, 28, 28, 3), dtype=np.uint8) for _ in presences]
    sounds = [0.1 * rng.standard_normal(40_000).astype(np.float32) for _ in presences]
    return processor(
        frames=[f if PROMPT_PRESENCE[p][0] else None for f, p in zip(frames, presences, strict=True)],
        waveform=[s if PROMPT_PRESENCE[p][1] else None for s, p in zip(sounds, presences, strict=True)],
        subtitle=[subtitle + "!" * index for index in range(len(presences))],
        answer=answers,
        padding_side=padding_side,
    )


def rows_alone(batch, presences):
    """Each row of a batch as a batch of its own, without padding."""
    media = {name: list(batch[name]) for name in ("pixel_values_videos", "input_features")}
    for row, presence in enumerate(presences):
        keep = batch["attention_mask"][row].bool()
        alone = {"input_ids": batch["input_ids"][row][keep][None], "attention_mask": batch["attention_mask"][row][keep][None]}
        for name, is_there in zip(media, PROMPT_PRESENCE[presence], strict=True):
            if is_there:
                alone[name] = media[name].pop(0)[None]
        yield alone


def test_config_default_trains_the_papers_number_of_parameters():
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(AffectGPTConfig())
    num_video = sum(parameter.numel() for parameter in model.model.video_resampler.parameters())
    num_audio = sum(parameter.numel() for parameter in model.model.audio_resampler.parameters())
    assert (num_video, num_audio) == (22_104_064, 22_855_680)
    assert num_video + num_audio == 44_959_744


def test_config_round_trip_keeps_every_field(tmp_path):
    config = make_tiny_config(drawings_only=True)
    config.save_pretrained(tmp_path)
    assert AffectGPTConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_config_with_other_resampler_width_raises():
    config = make_tiny_config().to_dict()
    config["video_resampler_config"]["encoder_hidden_size"] = 7
    with pytest.raises(ValueError, match="video_resampler_config.encoder_hidden_size.*24, got 7"):
        AffectGPTConfig(**config)


@pytest.mark.parametrize("presence", PROMPT_PRESENCE)
def test_forward_with_any_modality_missing_gives_finite_loss(model, processor, presence):
    batch = make_rows(processor, [presence], answers=["calm"])
    assert ("pixel_values_videos" in batch, "input_features" in batch) == PROMPT_PRESENCE[presence]
    outputs = model(**batch)
    assert torch.isfinite(outputs.loss)
    assert outputs.logits.shape == (*batch["input_ids"].shape, model.config.text_config.vocab_size)


def test_forward_of_mixed_batch_equals_row_by_row(model, processor):
    presences = ["audio", "both", "none", "video", "both"]
    batch = make_rows(processor, presences, padding_side="right")
    logits = model(**batch).logits
    for row, alone in enumerate(rows_alone(batch, presences)):
        keep = batch["attention_mask"][row].bool()
        torch.testing.assert_close(model(**alone).logits[0], logits[row][keep], atol=2e-5, rtol=0)


def test_training_makes_logits_of_the_answer_alone_with_the_same_loss_and_gradients(model, processor):
    batch = make_rows(processor, ["both", "audio"], padding_side="right", answers=["calm", "so worried"])
    found = []
    for training in (False, True):
        model.training = training  # of the whole alone: no dropout within
        model.zero_grad()
        outputs = model(**batch)
        outputs.loss.backward()
        assert (outputs.logits is None) == training
        found.append((outputs.loss, model.model.video_resampler.projection.weight.grad.clone()))
    model.training = False
    torch.testing.assert_close(found[0], found[1], atol=1e-7, rtol=1e-5)


def test_forward_left_and_right_padding_give_the_same_logits(model, processor):
    left = make_rows(processor, ["both", "none", "video"], padding_side="left")
    right = make_rows(processor, ["both", "none", "video"], padding_side="right")
    left_logits = model(**left).logits[left["attention_mask"].bool()]
    right_logits = model(**right).logits[right["attention_mask"].bool()]
    torch.testing.assert_close(left_logits, right_logits, atol=2e-5, rtol=0)


def test_forward_with_encoder_features_equals_media(model, processor):
    batch = make_rows(processor, ["both", "video"])
    expected = model(**batch).logits
    with torch.no_grad():
        batch["video_features"] = model.model.encode_frames(batch.pop("pixel_values_videos"))
        batch["audio_features"] = model.model.encode_sound(batch.pop("input_features"))
    torch.testing.assert_close(model(**batch).logits, expected, atol=0, rtol=0)


def test_forward_depends_on_every_medium_and_on_the_order_of_frames(model, processor):
    batch = make_rows(processor, ["both"])
    logits = model(**batch).logits
    for change in (
        {"pixel_values_videos": batch["pixel_values_videos"].flip(1)},
        {"pixel_values_videos": torch.zeros_like(batch["pixel_values_videos"])},
        {"input_features": torch.zeros_like(batch["input_features"])},
    ):
        assert (model(**{**batch, **change}).logits - logits).abs().max() > 1e-4


def test_forward_media_without_placeholders_raises(model, processor):
    batch = make_rows(processor, ["both"])
    text_only = make_rows(processor, ["none"])
    with pytest.raises(ValueError, match="4 video placeholders"):
        model(input_ids=text_only["input_ids"], pixel_values_videos=batch["pixel_values_videos"])


def test_forward_placeholders_without_media_raises(model, processor):
    batch = make_rows(processor, ["both"])
    del batch["input_features"]
    with pytest.raises(ValueError, match="audio placeholders"):
        model(**batch)


def test_forward_more_frames_than_positions_raises(model, processor):
    batch = make_rows(processor, ["video"])
    batch["pixel_values_videos"] = batch["pixel_values_videos"].repeat(1, 5, 1, 1, 1)
    with pytest.raises(ValueError, match="at most 8 time steps.*got 15"):
        model(**batch)


def test_generate_greedy_equals_step_by_step_argmax(model, processor):
    batch = make_rows(processor, ["both"])
    generated = model.generate(**batch, max_new_tokens=8, do_sample=False, stop_strings=None)[0, batch["input_ids"].shape[1] :]
    ids, mask = batch["input_ids"], batch["attention_mask"]
    for token in generated:
        logits = model(**{**batch, "input_ids": ids, "attention_mask": mask}).logits[0, -1]
        assert int(logits.argmax()) == int(token)
        ids = torch.cat([ids, token[None, None]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


def test_generate_mixed_batch_equals_row_by_row(model, processor):
    presences = ["both", "none", "audio", "video"]
    batch = make_rows(processor, presences)
    together = model.generate(**batch, max_new_tokens=6, stop_strings=None)[:, batch["input_ids"].shape[1] :]
    for row, alone in enumerate(rows_alone(batch, presences)):
        generated = model.generate(**alone, max_new_tokens=6, stop_strings=None)[0, alone["input_ids"].shape[1] :]
        assert generated.tolist() == together[row][: len(generated)].tolist()


@pytest.mark.parametrize("arguments", [{}, {"do_sample": True, "top_p": 0.9}, {"num_beams": 3}, {"use_features": True}])
def test_generate_encodes_media_once(model, processor, arguments):
    batch = make_rows(processor, ["both", "video"])
    arguments = dict(arguments)
    if arguments.pop("use_features", False):
        with torch.no_grad():
            batch["video_features"] = model.model.encode_frames(batch.pop("pixel_values_videos"))
            batch["audio_features"] = model.model.encode_sound(batch.pop("input_features"))
    calls = {"video_resampler": 0, "audio_resampler": 0}
    hooks = []
    for name in calls:

        def count(module, inputs, output, name=name):
            calls[name] += 1

        hooks.append(model.model.get_submodule(name).register_forward_hook(count))
    generated = model.generate(**batch, max_new_tokens=5, min_new_tokens=5, stop_strings=None, **arguments)
    for hook in hooks:
        hook.remove()
    assert calls == {"video_resampler": 1, "audio_resampler": 1}
    assert generated.shape == (2, batch["input_ids"].shape[1] + 5)


def test_generate_beam_search_of_mixed_batch_keeps_rows_apart(model, processor):
    batch = make_rows(processor, ["video", "none", "both"])
    together = model.generate(**batch, max_new_tokens=5, min_new_tokens=5, num_beams=2, stop_strings=None)
    alone = make_rows(processor, ["video", "none", "both"])
    last = {
        "input_ids": alone["input_ids"][2:],
        "attention_mask": alone["attention_mask"][2:],
        "pixel_values_videos": alone["pixel_values_videos"][1:],
        "input_features": alone["input_features"],
    }
    assert (
        model.generate(**last, max_new_tokens=5, min_new_tokens=5, num_beams=2, stop_strings=None)[0].tolist()
        == together[2].tolist()
    )


def test_generate_stops_at_the_stop_string(model, processor):
    hash_id = processor.tokenizer.convert_tokens_to_ids("#")

    def always_hash(input_ids, scores):
        return scores.index_fill(1, torch.tensor([hash_id]), 100.0)

    batch = make_rows(processor, ["both"])
    generated = model.generate(
        **batch, max_new_tokens=20, tokenizer=processor.tokenizer, logits_processor=LogitsProcessorList([always_hash])
    )
    assert processor.tokenizer.decode(generated[0, batch["input_ids"].shape[1] :]) == "###"


def test_save_and_load_gives_identical_logits_and_generation_config(model, processor, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    batch = make_rows(processor, ["both", "audio"])
    expected = model(**batch).logits
    for auto_class in (AffectGPTForConditionalGeneration, AutoModelForMultimodalLM):
        loaded = auto_class.from_pretrained(tmp_path).eval()
        assert isinstance(loaded, AffectGPTForConditionalGeneration)
        torch.testing.assert_close(loaded(**batch).logits, expected, atol=0, rtol=0)
        assert loaded.generation_config.stop_strings == ["###"]
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(base, AffectGPTModel)
    torch.testing.assert_close(base(**batch).last_hidden_state, model.model(**batch).last_hidden_state, atol=0, rtol=0)
    again = AutoProcessor.from_pretrained(tmp_path)
    for name, value in make_rows(again, ["both", "audio"]).items():
        assert torch.equal(value, batch[name])


def test_save_and_load_with_tied_embeddings_keeps_them_tied(tmp_path):
    tied = {**make_tiny_config().text_config.to_dict(), "tie_word_embeddings": True}
    model = make_tiny_model(text_config=tied, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    loaded = AffectGPTForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_load_in_bfloat16_keeps_the_resamplers_in_float32(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AffectGPTForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert loaded.model.language_model.embed_tokens.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in loaded.model.video_resampler.parameters()} == {torch.float32}
    batch = make_rows(processor, ["both"])
    difference = (loaded(**batch).logits.float() - model(**batch).logits).abs().mean()
    assert difference < 0.1 * model(**batch).logits.std()


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
def test_load_with_keys_that_do_not_fit_raises_and_names_them(tmp_path, damage):
    make_tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = "model.video_resampler.projection.weight"
    if damage == "missing":
        del weights[key]
    elif damage == "unexpected":
        key = "model.video_resampler.other.weight"
        weights[key] = torch.zeros(2)
    else:
        weights[key] = torch.zeros(3, 3)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        AffectGPTForConditionalGeneration.from_pretrained(tmp_path)


def test_load_with_device_map_gives_the_same_logits(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AffectGPTForConditionalGeneration.from_pretrained(tmp_path, device_map={"": "cpu"}).eval()
    batch = make_rows(processor, ["both"])
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, atol=0, rtol=0)


def test_eager_attention_equals_sdpa(model, processor):
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    batch = make_rows(processor, ["both", "video"])
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(eager(**batch).logits[real], model(**batch).logits[real], atol=2e-5, rtol=0)


def test_peft_adapter_round_trip_changes_and_restores_the_language_model(processor, tmp_path):
    model = make_tiny_model()
    batch = make_rows(processor, ["both"])
    expected = model(**batch).logits
    lora = LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    adapted = get_peft_model(model, lora).eval()
    changed = adapted(**batch).logits
    assert (changed - expected).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_tiny_model(), tmp_path).eval()
    torch.testing.assert_close(again(**batch).logits, changed, atol=1e-6, rtol=0)
    generated = again.generate(**batch, max_new_tokens=3, stop_strings=None)
    assert generated.shape[1] > batch["input_ids"].shape[1]


@pytest.mark.gpu
def test_logits_on_a_gpu_equal_those_on_the_cpu(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    on_gpu = AffectGPTForConditionalGeneration.from_pretrained(tmp_path, device_map="cuda").eval()
    batch = make_rows(processor, ["both", "audio"])
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(
        on_gpu(**batch.to("cuda")).logits.cpu()[real], model(**batch.to("cpu")).logits[real], atol=1e-2, rtol=0
    )


def test_gradients_reach_only_what_is_trained(processor):
    model = make_tiny_model().train()
    model.requires_grad_(False)
    model.model.video_resampler.requires_grad_(True)
    model(**make_rows(processor, ["both"], answers=["calm"])).loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if name.startswith("model.video_resampler.")}
    assert all(model.get_parameter(name).grad.abs().sum() > 0 for name in with_gradient if not name.endswith("key.bias"))


def test_gradient_checkpointing_gives_the_same_gradients_and_leaves_frozen_encoders_out(processor):
    batch = make_rows(processor, ["both"], answers=["calm"])
    gradients = []
    for is_checkpointing in (False, True):
        model = make_tiny_model()
        model.requires_grad_(False)
        model.model.video_resampler.requires_grad_(True)
        if is_checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        model.train()(**batch).loss.backward()
        gradients.append([parameter.grad for parameter in model.model.video_resampler.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
    assert not model.model.encode_frames(batch["pixel_values_videos"]).requires_grad
    assert not model.model.encode_sound(batch["input_features"]).requires_grad
    model.disable_input_require_grads()
    assert not model.get_input_embeddings()(batch["input_ids"].clamp(max=9)).requires_grad
