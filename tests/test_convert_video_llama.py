"""Conversion of the model of the paper: tiny files under the names and in the layouts of the released ones."""

import shutil

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_tiny_tokenizer
from transformers import (
    Blip2Config,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTProcessor
from affectgpt.parts import read_weights
from hub.convert_video_llama import convert, convert_key, main
from hub.sources import Origin

# Widths of one head each, as the files do not say how many there are.
EVA, BERT, SOUND, SOUND_OUT, WIDTH = 88, 64, 64, 20, 32
NUM_BLOCKS = 40  # of eva_vit_g.pth


def linear(name: str, num_out: int, num_in: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(num_out, num_in) / 8, f"{name}.bias": torch.randn(num_out) / 8}


def norm(name: str, width: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": 1 + torch.randn(width) / 8, f"{name}.bias": torch.randn(width) / 8}


def eva_file() -> dict[str, torch.Tensor]:
    """eva_vit_g.pth: names without a prefix, half precision, one block more than BLIP-2 uses."""
    weights = {
        "cls_token": torch.randn(1, 1, EVA),
        "pos_embed": torch.randn(1, 1 + 2 * 2, EVA),
        "patch_embed.proj.weight": torch.randn(EVA, 3, 14, 14) / 8,
        "patch_embed.proj.bias": torch.randn(EVA),
        **norm("norm", EVA),
        **linear("head", 5, EVA),
    }
    for index in range(NUM_BLOCKS):
        block = f"blocks.{index}"
        weights |= norm(f"{block}.norm1", EVA) | norm(f"{block}.norm2", EVA)
        weights |= {f"{block}.attn.q_bias": torch.randn(EVA), f"{block}.attn.v_bias": torch.randn(EVA)}
        weights[f"{block}.attn.qkv.weight"] = torch.randn(3 * EVA, EVA) / 20
        weights |= (
            linear(f"{block}.attn.proj", EVA, EVA) | linear(f"{block}.mlp.fc1", 40, EVA) | linear(f"{block}.mlp.fc2", EVA, 40)
        )
    return {name: tensor.half() for name, tensor in weights.items()}


def qformer(prefix: str, encoder_width: int, num_layers: int, every: int) -> dict[str, torch.Tensor]:
    """A Q-Former under its original names, its text half included, as BLIP-2's file has it."""
    bert = f"{prefix}Qformer.bert"
    weights = norm(f"{bert}.embeddings.LayerNorm", BERT) | {f"{bert}.embeddings.position_ids": torch.arange(4)[None]}
    weights[f"{bert}.embeddings.word_embeddings.weight"] = torch.randn(7, BERT)
    weights |= linear(f"{prefix}Qformer.cls.predictions.transform.dense", BERT, BERT)
    for index in range(num_layers):
        layer = f"{bert}.encoder.layer.{index}"
        for kind, width in (("attention", BERT), ("crossattention", encoder_width)):
            if kind == "attention" or index % every == 0:
                weights |= linear(f"{layer}.{kind}.self.query", BERT, BERT) | linear(f"{layer}.{kind}.output.dense", BERT, BERT)
                weights |= linear(f"{layer}.{kind}.self.key", BERT, width) | linear(f"{layer}.{kind}.self.value", BERT, width)
                weights |= norm(f"{layer}.{kind}.output.LayerNorm", BERT)
        for ending in ("", "_query"):
            weights |= linear(f"{layer}.intermediate{ending}.dense", 80, BERT) | linear(f"{layer}.output{ending}.dense", BERT, 80)
            weights |= norm(f"{layer}.output{ending}.LayerNorm", BERT)
    return weights


def blip2_file() -> dict[str, torch.Tensor]:
    """blip2_pretrained_flant5xxl.pth: what BLIP-2 trained."""
    weights = qformer("", EVA, num_layers=4, every=2) | {"query_tokens": torch.randn(1, 5, BERT)}
    return weights | norm("ln_vision", EVA) | linear("t5_proj", 9, BERT)


def imagebind_file() -> dict[str, torch.Tensor]:
    """imagebind_huge.pth: all modalities, of which the sound's is used."""
    audio, trunk = "modality_preprocessors.audio", "modality_trunks.audio.blocks"
    weights = {
        f"{audio}.cls_token": torch.randn(1, 1, SOUND),
        f"{audio}.pos_embedding_helper.pos_embed": torch.randn(1, 229, SOUND),
        f"{audio}.rgbt_stem.proj.weight": torch.randn(SOUND, 1, 16, 16) / 8,
        **norm(f"{audio}.rgbt_stem.norm_layer", SOUND),
        **norm("modality_heads.audio.0", SOUND),
        "modality_heads.audio.2.weight": torch.randn(SOUND_OUT, SOUND) / 8,
        "modality_postprocessors.audio.1.log_logit_scale": torch.tensor(20.0).log(),
        "modality_preprocessors.vision.cls_token": torch.randn(1, 1, 6),
        "modality_preprocessors.text.mask": torch.zeros(3, 3),
        "modality_postprocessors.imu.1.log_logit_scale": torch.tensor(1.0),
    }
    for index in range(2):
        block = f"{trunk}.{index}"
        weights |= norm(f"{block}.norm_1", SOUND) | norm(f"{block}.norm_2", SOUND) | linear(f"{block}.attn.out_proj", SOUND, SOUND)
        weights |= linear(f"{block}.mlp.fc1", 40, SOUND) | linear(f"{block}.mlp.fc2", SOUND, 40)
        weights[f"{block}.attn.in_proj_weight"], weights[f"{block}.attn.in_proj_bias"] = (
            torch.randn(3 * SOUND, SOUND) / 8,
            torch.randn(3 * SOUND),
        )
        weights[f"{block}.attn.bias_k"] = weights[f"{block}.attn.bias_v"] = torch.randn(1, 1, SOUND)
    return weights


def branch_file(name: str) -> dict[str, torch.Tensor]:
    """A branch of Video-LLaMA: what trained, and buffers of what did not."""
    encoder_width, num_positions = {"video": (BERT, 32), "audio": (SOUND_OUT, 8)}[name]
    positions = "video_frame_position_embedding" if name == "video" else "audio_position_embedding"
    weights = {f"{name}_query_tokens": torch.randn(1, 4, BERT), f"{positions}.weight": torch.randn(num_positions, encoder_width)}
    weights |= {key: tensor for key, tensor in qformer(f"{name}_", encoder_width, 2, 1).items() if not is_of_text(key)}
    weights |= linear("llama_proj" if name == "video" else "audio_llama_proj", WIDTH, BERT)
    weights["Qformer.bert.embeddings.position_ids"] = torch.arange(4)[None]
    weights["llama_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    if name == "audio":
        weights["audio_encoder.modality_preprocessors.text.mask"] = torch.zeros(3, 3)
        weights["audio_encoder.modality_postprocessors.audio.1.log_logit_scale"] = torch.tensor(20.0).log()
    return weights


def is_of_text(key: str) -> bool:
    return any(part in key for part in (".cls.", "word_embeddings", ".intermediate.", ".output.")) and "attention" not in key


def write_llama(folder, dtype=torch.float16) -> None:
    tokenizer = make_tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_blip2(folder) -> None:
    """A folder of transformers' BLIP-2, with a language model that is not needed."""
    vision = Blip2VisionConfig(
        hidden_size=EVA, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    qformer_config = Blip2QFormerConfig(
        hidden_size=BERT,
        intermediate_size=80,
        num_hidden_layers=4,
        num_attention_heads=4,
        encoder_hidden_size=EVA,
        cross_attention_frequency=2,
        vocab_size=7,
    )
    weights = {f"vision_model.{name}": tensor for name, tensor in Blip2VisionModel(vision).state_dict().items()}
    weights |= {f"qformer.{name}": tensor for name, tensor in Blip2QFormerModel(qformer_config).state_dict().items()}
    weights |= {"query_tokens": torch.randn(1, 5, BERT), **linear("language_projection", 9, BERT)}
    weights["language_model.shared.weight"] = torch.randn(11, 9)
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    text = {"model_type": "opt", "hidden_size": 9, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 11}
    Blip2Config(
        vision_config=vision.to_dict(), qformer_config=qformer_config.to_dict(), text_config=text, num_query_tokens=5
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("released")
    torch.save(eva_file(), folder / "eva_vit_g.pth")
    torch.save({"model": blip2_file()}, folder / "blip2_pretrained_flant5xxl.pth")
    torch.save(imagebind_file(), folder / "imagebind_huge.pth")
    for name in ("video", "audio"):
        torch.save({"model": branch_file(name), "epoch": 3}, folder / f"{name}.pth")
    torch.save({"model": branch_file("video") | branch_file("audio"), "config": {}}, folder / "affectgpt.pth")
    write_llama(folder / "vicuna")
    write_blip2(folder / "blip2")
    return folder


@pytest.fixture
def original(files):
    """Sources in the authors' files."""
    return {
        "vision": files / "eva_vit_g.pth",
        "image_qformer": files / "blip2_pretrained_flant5xxl.pth",
        "audio": files / "imagebind_huge.pth",
        "language": files / "vicuna",
        "video_branch": files / "video.pth",
        "audio_branch": files / "audio.pth",
    }


@pytest.fixture
def public(original, files):
    """Sources as `hub.assemble` fetches them: the picture's half from transformers' BLIP-2."""
    return {**original, "vision": files / "blip2", "image_qformer": files / "blip2"}


def weights_of(path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    return content.get("model", content)


def answer(folder) -> torch.Tensor:
    model = AffectGPTForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AffectGPTProcessor.from_pretrained(folder)
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (8, 28, 28, 3), generator=generator, dtype=torch.uint8).numpy()
    sound = torch.randn(40_000, generator=generator).clamp(-1, 1).numpy()
    batch = processor(frames=frames, waveform=sound, subtitle="I am fine.")
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("sources", ["original", "public"])
def test_both_forms_load_and_agree(sources, request, tmp_path):
    logits = {}
    for form in ("parts", "full"):
        convert(request.getfixturevalue(sources), tmp_path / form, form=form)
        logits[form] = answer(tmp_path / form)
    assert torch.isfinite(logits["full"]).all()
    torch.testing.assert_close(logits["parts"], logits["full"], atol=1e-5, rtol=0)
    processor, config = AffectGPTProcessor.from_pretrained(tmp_path / "full"), AffectGPTConfig.from_pretrained(tmp_path / "full")
    assert processor.tokenizer.pad_token == processor.tokenizer.eos_token == "</s>"
    assert processor.tokenizer.convert_tokens_to_ids("<ImageHere>") == config.video_token_id
    assert config.dtype == torch.float16


def test_weights_of_the_authors_files_land_where_they_belong(original, files, tmp_path):
    report = convert(original, tmp_path / "full", form="full")
    written = read_weights(tmp_path / "full" / "model.safetensors")
    eva, blip2, imagebind = (weights_of(original[name]) for name in ("vision", "image_qformer", "audio"))
    layer = "model.vision_tower.encoder.layers.38.self_attn"
    query, key, value = written[f"{layer}.qkv.bias"].chunk(3)
    assert torch.equal(query, eva["blocks.38.attn.q_bias"])
    assert torch.equal(value, eva["blocks.38.attn.v_bias"])
    assert not key.any()
    assert written[f"{layer}.qkv.bias"].dtype == torch.float16
    assert not any(name.startswith("model.vision_tower.encoder.layers.39") for name in written)
    assert torch.equal(written["model.vision_tower.post_layernorm.weight"], blip2["ln_vision.weight"])
    assert torch.equal(
        written["model.image_qformer.qformer.encoder.layer.2.crossattention.attention.key.weight"],
        blip2["Qformer.bert.encoder.layer.2.crossattention.self.key.weight"],
    )
    assert torch.equal(
        written["model.audio_tower.layers.1.self_attn.bias_v"], imagebind["modality_trunks.audio.blocks.1.attn.bias_v"]
    )
    assert torch.equal(written["model.video_resampler.projection.bias"], weights_of(files / "video.pth")["llama_proj.bias"])
    assert torch.equal(written["model.audio_resampler.projection.bias"], weights_of(files / "audio.pth")["audio_llama_proj.bias"])
    config = AffectGPTConfig.from_pretrained(tmp_path / "full")
    assert config.vision_config.num_hidden_layers == 39
    assert config.image_qformer_config.cross_attention_frequency == 2
    assert config.video_resampler_config.cross_attention_frequency == 1
    for words in ("the last block", "ImageBind's other modalities", "own language model", "text half", "numbers 0, 1, 2"):
        assert words in str(report)


def test_sizes_of_released_files_are_read_from_the_tensors(original, tmp_path):
    convert(original, tmp_path / "parts")
    config = AffectGPTConfig.from_pretrained(tmp_path / "parts")
    assert (config.vision_config.hidden_size, config.vision_config.num_attention_heads, config.vision_config.image_size) == (
        88,
        1,
        28,
    )
    assert (config.max_frames, config.max_audio_clips) == (32, 8)
    assert (config.num_image_query_tokens, config.num_video_query_tokens, config.num_audio_query_tokens) == (5, 4, 4)
    assert config.audio_config.embed_dim == SOUND_OUT


def test_public_parts_stay_in_their_homes(public, tmp_path):
    commit, digest = "b" * 40, "2" * 64
    origins = {
        "vision": Origin("Salesforce/blip2", commit, {"model-1.safetensors": digest, "config.json": digest}),
        "image_qformer": Origin("Salesforce/blip2", commit, {"model-2.safetensors": digest}),
        "audio": Origin("someone/imagebind", commit, {"weights/imagebind_huge.pth": digest}),
    }
    report = convert(public, tmp_path / "parts", origins=origins)
    parts = AffectGPTConfig.from_pretrained(tmp_path / "parts").parts
    assert parts["vision"]["files"] == {"model-1.safetensors": digest, "model-2.safetensors": digest}
    assert (parts["vision"]["repo_id"], parts["vision"]["layout"]) == ("Salesforce/blip2", "blip2")
    assert parts["audio"]["files"] == {"weights/imagebind_huge.pth": digest}
    assert parts["language"]["repo_id"] == str(public["language"])
    names = read_weights(tmp_path / "parts" / "model.safetensors")
    assert {name.split(".")[1] for name in names} == {"video_resampler", "audio_resampler"}
    assert report.notes == []


def test_parts_without_a_home_of_their_own_are_held_by_the_checkpoint(original, tmp_path):
    report = convert(original, tmp_path / "parts")
    assert "vision" not in AffectGPTConfig.from_pretrained(tmp_path / "parts").parts
    assert any(name.startswith("model.vision_tower.") for name in read_weights(tmp_path / "parts" / "model.safetensors"))
    assert "do not lie together" in str(report)


def test_checkpoint_of_the_authors_wins_over_the_branches(public, files, tmp_path):
    for name, sources in {
        "alone": {key: path for key, path in public.items() if not key.endswith("_branch")},
        "over": public,
    }.items():
        convert({**sources, "checkpoint": files / "affectgpt.pth"}, tmp_path / name)
        written = read_weights(tmp_path / name / "model.safetensors")
        trained = weights_of(files / "affectgpt.pth")
        assert torch.equal(written["model.video_resampler.query_tokens"], trained["video_query_tokens"])


def test_trained_file_with_another_sound_scale_keeps_it(public, tmp_path):
    weights = weights_of(public["audio_branch"])
    weights["audio_encoder.modality_postprocessors.audio.1.log_logit_scale"] = torch.tensor(2.5)
    torch.save({"model": weights}, tmp_path / "audio.pth")
    report = convert({**public, "audio_branch": tmp_path / "audio.pth"}, tmp_path / "parts")
    assert "audio" not in AffectGPTConfig.from_pretrained(tmp_path / "parts").parts
    assert read_weights(tmp_path / "parts" / "model.safetensors")["model.audio_tower.log_logit_scale"].item() == 2.5
    assert "other weights of the part audio" in str(report)


def test_missing_branch_raises_and_is_named(public, tmp_path):
    without = {name: path for name, path in public.items() if name != "audio_branch"}
    with pytest.raises(ValueError, match=r"got no model\.audio_resampler"):
        convert(without, tmp_path / "out")
    with pytest.raises(ValueError, match="what was trained"):
        convert({name: path for name, path in without.items() if name != "video_branch"}, tmp_path / "out")
    with pytest.raises(ValueError, match=r"got no model\.image_qformer\.query_tokens"):
        convert(
            {**{name: path for name, path in public.items() if name != "image_qformer"}, "vision": tmp_file(tmp_path, eva_file())},
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def tmp_file(folder, weights):
    torch.save(weights, folder / "weights.pth")
    return folder / "weights.pth"


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("video_branch", {"video_llama_proj.weight": torch.ones(1)}, "weights.pth: .*1 weights .* video_llama_proj.weight"),
        ("vision", {"blocks.0.attn.k_bias": torch.ones(1)}, "weights.pth: .*blocks.0.attn.k_bias"),
        ("audio", {"modality_trunks.audio.blocks.0.attn.lora": torch.ones(1)}, r"weights.pth: .*attn\.lora"),
        ("video_branch", {"video_query_tokens": torch.ones(1, 4, 32)}, "video_resampler.*be a multiple of 64 wide"),
        ("video_branch", {"llama_proj.bias": torch.ones(5)}, r"projection\.bias \(5,\) instead of \(32,\)"),
    ],
)
def test_names_and_shapes_that_do_not_fit_raise(name, change, expected, original, tmp_path):
    path = tmp_file(tmp_path, weights_of(original[name]) | change)
    with pytest.raises(ValueError, match=expected):
        convert({**original, name: path}, tmp_path / "out")


def test_half_of_an_attention_bias_raises(original, tmp_path):
    weights = weights_of(original["vision"])
    del weights["blocks.3.attn.v_bias"]
    with pytest.raises(ValueError, match=r"one without the other: .*layers\.3\.self_attn\.q_bias"):
        convert({**original, "vision": tmp_file(tmp_path, weights)}, tmp_path / "out")


@pytest.mark.parametrize("name", ["vision", "image_qformer", "audio", "video_branch"])
def test_truncated_or_foreign_files_raise_and_are_named(name, original, tmp_path):
    content = original[name].read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"<html>404</html>"):
        (tmp_path / "damaged.pth").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged\.pth"):
            convert({**original, name: tmp_path / "damaged.pth"}, tmp_path / "out")
    with pytest.raises(ValueError, match=r"damaged\.pth"):
        torch.save({"model": {"transformer.h.0.weight": torch.ones(1)}}, tmp_path / "damaged.pth")
        convert({**original, name: tmp_path / "damaged.pth"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["vision", "audio", "video_branch"])
def test_file_with_code_is_refused_and_the_code_not_run(name, original, tmp_path):
    path = tmp_file(tmp_path, {"model": {"a": torch.ones(1)}, "config": _Code(str(tmp_path / "trace"))})
    (tmp_path / "trace").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"weights\.pth.*would run code"):
        convert({**original, name: path}, tmp_path / "out")
    assert not (tmp_path / "trace").exists()


def test_folder_that_is_not_blip2_raises(public, tmp_path):
    with pytest.raises(ValueError, match="layout \"blip2\"|type 'blip-2'"):
        convert({**public, "vision": public["language"], "image_qformer": public["language"]}, tmp_path / "out")


def test_tokenizer_with_empty_roles_gets_those_of_llama(public, tmp_path):
    folder = tmp_path / "vicuna"
    shutil.copytree(public["language"], folder)
    tokenizer = make_tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = ""
    tokenizer.save_pretrained(folder)
    convert({**public, "language": folder}, tmp_path / "out")
    tokenizer = AffectGPTProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")


def test_convert_key_knows_each_rule():
    assert convert_key("visual_encoder.blocks.3.attn.q_bias") == "model.vision_tower.encoder.layers.3.self_attn.q_bias"
    assert convert_key("llama_model.lm_head.weight") == "lm_head.weight"
    assert convert_key("audio_encoder.modality_heads.audio.2.weight") == "model.audio_tower.projection.weight"
    assert convert_key("audio_encoder.modality_heads.vision.2.weight") is None
    assert convert_key("video_Qformer.bert.encoder.layer.0.output.dense.weight") is None
    with pytest.raises(KeyError):
        convert_key("video_Qformer.bert.encoder.layer.0.foreign.weight")


def test_command_prints_a_report_or_one_line_of_error(public, tmp_path, capsys):
    arguments = [f"--{name.replace('_', '-')}={path}" for name, path in public.items()]
    assert main([*arguments, f"--output={tmp_path / 'out'}"]) == 0
    assert "parameters in model.video_resampler" in capsys.readouterr().out
    assert main([*arguments[:-1], f"--output={tmp_path / 'out2'}"]) == 1
    assert capsys.readouterr().err.startswith("error: Expected")
