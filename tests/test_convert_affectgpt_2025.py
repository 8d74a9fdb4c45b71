"""Conversion of the authors' 2025 checkpoints: tiny files of their layout, whole, damaged, foreign, interrupted."""

import json
import pickle
import shutil

import pytest
import torch
from peft import PeftModel
from tiny import make_tiny_tokenizer
from transformers import CLIPConfig, CLIPModel, HubertConfig, HubertModel, Qwen2Config, Qwen2ForCausalLM

from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTProcessor
from affectgpt.parts import read_weights
from hub import conversion
from hub.convert_affectgpt_2025 import convert, main
from hub.sources import Origin

WIDTH, CLIP_WIDTH, SOUND_WIDTH, RANK, QFORMER_WIDTH = 32, 12, 20, 4, 64
KINDS = ("attention", "mean", "qformer")


def write_clip(folder) -> None:
    tower = {"intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        projection_dim=CLIP_WIDTH,
        vision_config={**tower, "hidden_size": 16, "image_size": 28, "patch_size": 14},
        text_config={
            **tower,
            "hidden_size": 8,
            "vocab_size": 9,
            "max_position_embeddings": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )
    CLIPModel(config).save_pretrained(folder)


def write_hubert(folder) -> None:
    config = HubertConfig(
        hidden_size=SOUND_WIDTH,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        conv_dim=[8, 8],
        conv_kernel=[10, 8],
        conv_stride=[8, 8],
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    HubertModel(config).save_pretrained(folder)


def write_qwen(folder, dtype=torch.float32, **changes) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = "{{ messages }}"
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 16,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **changes,
    )
    model = Qwen2ForCausalLM(config).to(dtype)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config.update(do_sample=True, repetition_penalty=1.05, top_k=20)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    write_clip(folder / "clip")
    write_hubert(folder / "hubert")
    write_qwen(folder / "qwen2")
    return {"vision": folder / "clip", "audio": folder / "hubert", "language": folder / "qwen2"}


def qformer(name: str, encoder_width: int, num_queries: int, num_positions: int) -> dict[str, torch.Tensor]:
    positions = "video_frame_position" if name == "video" else f"{name}_position"
    weights = {
        f"{name}_query_tokens": torch.randn(1, num_queries, QFORMER_WIDTH),
        f"{positions}_embedding.weight": torch.randn(num_positions, encoder_width),
        f"{name}_Qformer.bert.embeddings.position_ids": torch.arange(6)[None],
    }
    linears = {
        "attention.output.dense": (QFORMER_WIDTH, QFORMER_WIDTH),
        "crossattention.output.dense": (QFORMER_WIDTH, QFORMER_WIDTH),
    }
    for kind, width in (("attention", QFORMER_WIDTH), ("crossattention", encoder_width)):
        linears[f"{kind}.self.query"] = (QFORMER_WIDTH, QFORMER_WIDTH)
        linears[f"{kind}.self.key"] = linears[f"{kind}.self.value"] = (QFORMER_WIDTH, width)
    linears["intermediate_query.dense"], linears["output_query.dense"] = (80, QFORMER_WIDTH), (QFORMER_WIDTH, 80)
    norms = ("attention.output.LayerNorm", "crossattention.output.LayerNorm", "output_query.LayerNorm")
    modules = [f"encoder.layer.{index}.{module}" for index in range(2) for module in (*linears, *norms)]
    for module in ["embeddings.LayerNorm", *modules]:
        shape = linears.get(module.split(".", 3)[-1] if module.startswith("encoder") else "", (QFORMER_WIDTH,))
        weights[f"{name}_Qformer.bert.{module}.weight"] = torch.randn(shape) / 8
        weights[f"{name}_Qformer.bert.{module}.bias"] = torch.randn(shape[0]) / 8
    return weights


def linear(name: str, num_out: int, num_in: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(num_out, num_in) / 8, f"{name}.bias": torch.randn(num_out) / 8}


def original_weights(kind: str) -> dict[str, torch.Tensor]:
    """`checkpoint["model"]` of the authors' code for a kind of fusion."""
    torch.manual_seed(1)
    weights = {}
    shapes = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
    modules = {f"self_attn.{name}": shape for name, shape in shapes.items()}
    modules |= {"mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32), "mlp.down_proj": (32, 48)}
    for index in range(2):
        for module, (num_out, num_in) in modules.items():
            name = f"llama_model.base_model.model.model.layers.{index}.{module}"
            weights[f"{name}.lora_A.default.weight"] = torch.randn(RANK, num_in) / 8
            weights[f"{name}.lora_B.default.weight"] = torch.randn(num_out, RANK) / 8
    fused = max(CLIP_WIDTH, SOUND_WIDTH)
    weights |= linear("image_llama_proj", WIDTH, CLIP_WIDTH)
    weights |= linear("multi_video_embs", fused, CLIP_WIDTH) | linear("multi_audio_embs", fused, SOUND_WIDTH)
    if kind == "qformer":
        weights |= qformer("video", CLIP_WIDTH, 4, 32) | qformer("audio", SOUND_WIDTH, 3, 8) | qformer("multi", fused, 5, 264)
        widths = {"affectgpt_proj": QFORMER_WIDTH, "audio_llama_proj": QFORMER_WIDTH, "multi_llama_proj": QFORMER_WIDTH}
    else:
        widths = {"affectgpt_proj": CLIP_WIDTH, "audio_llama_proj": SOUND_WIDTH, "multi_llama_proj": fused}
        weights |= linear("attention_mlp", fused, 2 * fused) | linear("fc_att", 2, fused)
    for name, width in widths.items():
        weights |= linear(name, WIDTH, width)
    if kind == "attention":
        weights |= linear("video_attention_mlp", 1, CLIP_WIDTH) | linear("audio_attention_mlp", 1, SOUND_WIDTH)
    return weights


def settings(mode: str = "multiface_audio_face_text", num_tokens: int = 1) -> dict:
    counts = {f"num_{name}_query_token": num_tokens for name in ("video", "audio", "multi", "image")}
    model = {**counts, "vis_processor": {"train": {"n_frms": 3}}}
    return {"model": model, "datasets": {"mercaptionplus": {"face_or_frame": mode}}, "run": {}}


def write_checkpoint(path, weights: dict, config: dict | None):
    torch.save({"model": weights, "optimizer": {}, "config": config, "scaler": None, "epoch": 30}, path)
    return path


@pytest.fixture
def sources(base, tmp_path):
    return {**base, "checkpoint": write_checkpoint(tmp_path / "best.pth", original_weights("attention"), settings())}


def example(processor: AffectGPTProcessor) -> dict:
    generator = torch.Generator().manual_seed(5)
    faces = torch.randint(0, 256, (3, 28, 28, 3), generator=generator, dtype=torch.uint8).numpy()
    sound = torch.randn(4000, generator=generator).clamp(-1, 1).numpy()
    name = "faces" if processor.takes_faces else "frames"
    return dict(processor(**{name: faces}, waveform=sound, subtitle="I am fine.", question="How?"))


@torch.no_grad()
@pytest.mark.parametrize("mode", ["multiface_audio_face_text", "multiframe_audio_frame_text"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_of_every_kind_load_and_agree(kind, mode, base, tmp_path):
    path = write_checkpoint(tmp_path / "best.pth", original_weights(kind), settings(mode, num_tokens=2))
    models = {}
    for form in ("parts", "full"):
        report = convert({**base, "checkpoint": path}, tmp_path / form, form=form)
        assert report.form == form
        models[form] = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / form).eval()
    processor = AffectGPTProcessor.from_pretrained(tmp_path / "parts")
    assert processor.takes_faces == ("face" in mode)
    assert processor.tokenizer.chat_template == processor.chat_template  # Qwen's own is gone
    assert processor.num_video_query_tokens == (4 if kind == "qformer" else 2)
    batch = example(processor)
    logits = {form: model(**batch).logits for form, model in models.items()}
    assert torch.isfinite(logits["full"]).all()
    torch.testing.assert_close(logits["parts"], logits["full"], atol=1e-5, rtol=0)
    assert sum(file.stat().st_size for file in (tmp_path / "parts").glob("*.safetensors")) < 0.8 * sum(
        file.stat().st_size for file in (tmp_path / "full").glob("*.safetensors")
    )
    ids = models["parts"].generate(**batch, max_new_tokens=3, tokenizer=processor.tokenizer)
    assert ids.shape[1] > batch["input_ids"].shape[1]


def test_full_form_has_the_lora_update_added_to_each_weight(sources, base, tmp_path):
    convert(sources, tmp_path / "full", form="full")
    written = read_weights(tmp_path / "full" / "model.safetensors")
    original, language = original_weights("attention"), read_weights(base["language"] / "model.safetensors")
    for module in ("layers.0.self_attn.k_proj", "layers.1.mlp.down_proj"):
        down, up = (original[f"llama_model.base_model.model.model.{module}.lora_{half}.default.weight"] for half in "AB")
        expected = language[f"model.{module}.weight"] + 32 / RANK * up @ down  # alpha is a constant of the authors' code
        torch.testing.assert_close(written[f"model.language_model.{module}.weight"], expected)
    assert torch.equal(written["model.language_model.norm.weight"], language["model.norm.weight"])
    assert torch.equal(written["model.video_resampler.score.bias"], original["video_attention_mlp.bias"])
    assert torch.equal(written["model.fusion.audio_projection.weight"], original["multi_audio_embs.weight"])
    assert AffectGPTConfig.from_pretrained(tmp_path / "full").parts is None


@torch.no_grad()
def test_adapter_loads_with_peft_and_changes_the_language_model_only(sources, tmp_path):
    convert(sources, tmp_path / "parts")
    merged = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "parts").eval()
    model = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "parts", merge_adapter=False).eval()
    batch = example(AffectGPTProcessor.from_pretrained(tmp_path / "parts"))
    without = model(**batch).logits
    adapted = PeftModel.from_pretrained(model, tmp_path / "parts" / "adapter")
    lora = [name for name, _ in adapted.named_modules() if name.endswith(".lora_A.default")]
    assert len(lora) == 2 * 7
    assert all(".language_model.layers." in name for name in lora)
    torch.testing.assert_close(adapted(**batch).logits, merged(**batch).logits, atol=1e-5, rtol=0)
    assert (adapted(**batch).logits - without).abs().max() > 1e-2


def test_parts_hold_what_was_trained_and_say_where_the_rest_lies(sources, base, tmp_path):
    origin = Origin("openai/clip", "a" * 40, {"config.json": "0" * 64, "model.safetensors": "1" * 64})
    report = convert(sources, tmp_path / "parts", origins={"vision": origin})
    config = AffectGPTConfig.from_pretrained(tmp_path / "parts")
    assert config.parts["vision"] == {
        "repo_id": "openai/clip",
        "revision": "a" * 40,
        "layout": "clip",
        "files": {"model.safetensors": "1" * 64},
    }
    assert config.parts["audio"]["repo_id"] == str(base["audio"])
    assert config.parts["language"]["adapter"] == "adapter"
    names = read_weights(tmp_path / "parts" / "model.safetensors")
    assert {name.split(".")[1] for name in names} == {"video_resampler", "audio_resampler", "image_resampler", "fusion"}
    assert "openai/clip" in str(report)
    assert "text tower" in str(report)


def test_language_model_in_bfloat16_stays_so_and_what_trains_is_float32(base, tmp_path):
    torch.manual_seed(0)
    write_qwen(tmp_path / "qwen2", torch.bfloat16)
    weights = {name: tensor.half() for name, tensor in original_weights("attention").items()}
    path = write_checkpoint(tmp_path / "best.pth", weights, settings())
    convert({**base, "language": tmp_path / "qwen2", "checkpoint": path}, tmp_path / "full", form="full")
    written = read_weights(tmp_path / "full" / "model.safetensors")
    assert written["model.language_model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
    assert written["model.fusion.projection.weight"].dtype == torch.float32
    assert AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "full").dtype == torch.bfloat16


@torch.no_grad()
def test_tied_embeddings_stay_tied(base, tmp_path):
    torch.manual_seed(0)
    write_qwen(tmp_path / "qwen2", tie_word_embeddings=True)
    path = write_checkpoint(tmp_path / "best.pth", original_weights("attention"), settings())
    for form in ("parts", "full"):
        convert({**base, "language": tmp_path / "qwen2", "checkpoint": path}, tmp_path / form, form=form)
        model = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / form)
        assert model.lm_head.weight is model.get_input_embeddings().weight
        assert model.lm_head.weight.any()


def test_sound_tower_under_older_names_converts(sources, base, tmp_path):
    folder = tmp_path / "hubert"
    shutil.copytree(base["audio"], folder)
    weights = dict(read_weights(folder / "model.safetensors"))
    conv = "encoder.pos_conv_embed.conv"
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        weights[f"{conv}.{old}"] = weights.pop(f"{conv}.parametrizations.weight.{new}").clone()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    convert({**sources, "audio": folder}, tmp_path / "full", form="full")
    written = read_weights(tmp_path / "full" / "model.safetensors")
    assert torch.equal(written[f"model.audio_tower.{conv}.parametrizations.weight.original0"], weights[f"{conv}.weight_g"])


def test_several_shards_load(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "MAX_SHARD_BYTES", 20_000)
    convert(sources, tmp_path / "full", form="full")
    assert len(list((tmp_path / "full").glob("model-*-of-*.safetensors"))) > 3
    AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "full")


# ---- wrong sources


def change(weights: dict, *, remove: tuple[str, ...] = (), add: dict | None = None) -> dict:
    return {name: tensor for name, tensor in weights.items() if name not in remove} | (add or {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"add": {"foreign.weight": torch.ones(1), "other.bias": torch.ones(1)}}, ["foreign.weight, other.bias", "best.pth"]),
        ({"remove": ("affectgpt_proj.bias", "fc_att.bias")}, ["video_resampler.projection.bias", "fusion.attention_score.bias"]),
        ({"add": {"fc_att.weight": torch.ones(2, 7)}}, ["fusion.attention_score.weight (2, 7) instead of (2, 20)"]),
        ({"remove": ("llama_model.base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight",)}, ["up_proj.weight:A"]),
        (
            {
                "add": {
                    f"llama_model.base_model.model.model.layers.7.mlp.up_proj.lora_{half}.default.weight": torch.ones(shape)
                    for half, shape in (("A", (RANK, 32)), ("B", (48, RANK)))
                }
            },
            ["adapter for weights that do not exist: model.language_model.layers.7"],
        ),
    ],
    ids=["unknown", "missing", "shape", "half an update", "update of nothing"],
)
def test_weights_that_do_not_fit_are_all_listed(changes, expected, base, tmp_path):
    path = write_checkpoint(tmp_path / "best.pth", change(original_weights("attention"), **changes), settings())
    with pytest.raises(ValueError) as raised:
        convert({**base, "checkpoint": path}, tmp_path / "out")
    for words in expected:
        assert words in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_language_model_of_another_width_raises_and_names_the_weights(sources, tmp_path):
    folder = tmp_path / "qwen3"
    shutil.copytree(sources["language"], folder)
    config = Qwen2Config.from_pretrained(folder)
    config.update({"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2})
    Qwen2ForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"video_resampler.projection.weight \(32, 12\) instead of \(16, 12\)"):
        convert({**sources, "language": folder}, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda path: torch.save({"state": 1, "epoch": 2}, path), "dictionary of state, epoch"),
        (lambda path: torch.save([torch.ones(1)], path), "got list"),
        (lambda path: torch.save({"model": {"video": "weights"}}, path), 'weights under "model"'),
        (lambda path: path.write_bytes(b"not a checkpoint"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
    ],
    ids=["other dictionary", "list", "no tensors", "text", "empty"],
)
def test_file_that_is_no_checkpoint_raises_and_is_named(content, expected, base, tmp_path):
    path = tmp_path / "foreign.pth"
    content(path)
    with pytest.raises(ValueError, match=expected) as raised:
        convert({**base, "checkpoint": path}, tmp_path / "out")
    assert "foreign.pth" in str(raised.value)


def test_truncated_checkpoint_raises_and_is_named(sources, tmp_path):
    content = sources["checkpoint"].read_bytes()
    sources["checkpoint"].write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"best\.pth.*cannot be read.*Fetch it again"):
        convert(sources, tmp_path / "out")


def test_truncated_part_raises_and_is_named(sources, base, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(base["vision"], folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"clip/model\.safetensors.*cannot be read"):
        convert({**sources, "vision": folder}, tmp_path / "out")


class _Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_checkpoint_with_code_is_refused_and_the_code_not_run(save, base, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    content = {"model": {"a": torch.ones(1)}, "config": _Code(str(trace))}
    if save == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"model": 1, "config": _Code(str(trace))}, protocol=2))
    trace.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"evil\.pth.*would run code"):
        convert({**base, "checkpoint": path}, tmp_path / "out")
    assert not trace.exists()


def test_sources_that_are_missing_unknown_or_not_there_raise(sources, tmp_path):
    with pytest.raises(ValueError, match="none for audio.*unknown sound"):
        convert({"sound" if name == "audio" else name: path for name, path in sources.items()}, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="vision: .*nowhere"):
        convert({**sources, "vision": tmp_path / "nowhere"}, tmp_path / "out")
    with pytest.raises(ValueError, match="type 'hubert', got 'clip'"):
        convert({**sources, "audio": sources["vision"]}, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="a folder"):
        convert({**sources, "checkpoint": sources["vision"]}, tmp_path / "out")
    with pytest.raises(ValueError, match="form among parts, full"):
        convert(sources, tmp_path / "out", form="whole")


def test_tokenizer_without_the_authors_tokens_raises(sources, tmp_path):
    folder = tmp_path / "qwen2"
    shutil.copytree(sources["language"], folder)
    make_tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(ValueError, match=r"<\|im_start\|> and <\|im_end\|>"):
        convert({**sources, "language": folder}, tmp_path / "out")


# ---- settings


def test_settings_without_a_mode_raise_and_mode_says_it(base, tmp_path):
    config = settings()
    del config["datasets"]
    sources = {**base, "checkpoint": write_checkpoint(tmp_path / "best.pth", original_weights("attention"), config)}
    with pytest.raises(ValueError, match=r"best\.pth.*face_or_frame.*got none.*--mode"):
        convert(sources, tmp_path / "out")
    convert(sources, tmp_path / "out", mode="multiframe_audio_frame_text")
    assert AffectGPTProcessor.from_pretrained(tmp_path / "out").media == ["fusion", "audio", "video"]


def test_settings_with_two_modes_raise(base, tmp_path):
    config = settings()
    config["datasets"]["other"] = {"face_or_frame": "frame"}
    path = write_checkpoint(tmp_path / "best.pth", original_weights("attention"), config)
    with pytest.raises(ValueError, match="got frame, multiface_audio_face_text"):
        convert({**base, "checkpoint": path}, tmp_path / "out")


@pytest.mark.parametrize("config", [None, {"datasets": {"x": {"face_or_frame": "face"}}}, settings(num_tokens="xxx")])
def test_settings_without_numbers_of_tokens_raise(config, base, tmp_path):
    path = write_checkpoint(tmp_path / "best.pth", original_weights("attention"), config)
    with pytest.raises(ValueError, match=r"best\.pth: expected `num_video_query_token`"):
        convert({**base, "checkpoint": path}, tmp_path / "out", mode="face")


def test_qformers_of_another_width_than_berts_need_its_folder(base, tmp_path):
    weights = original_weights("qformer")
    narrow = {name: cut_to(tensor, QFORMER_WIDTH, 40) for name, tensor in weights.items() if not name.startswith("llama_model.")}
    weights |= narrow
    sources = {**base, "checkpoint": write_checkpoint(tmp_path / "best.pth", weights, settings())}
    with pytest.raises(ValueError, match="multiple of 64 wide.*got 40"):
        convert(sources, tmp_path / "out")
    (tmp_path / "bert").mkdir()
    bert = {"model_type": "bert", "hidden_size": 40, "num_attention_heads": 5}
    (tmp_path / "bert" / "config.json").write_text(json.dumps(bert))
    convert({**sources, "qformer": tmp_path / "bert"}, tmp_path / "out")
    assert AffectGPTConfig.from_pretrained(tmp_path / "out").prefusion_config.num_attention_heads == 5


def cut_to(tensor: torch.Tensor, width: int, new: int) -> torch.Tensor:
    """`tensor` with `new` in place of each dimension of `width`."""
    return tensor[tuple(slice(new if size == width else size) for size in tensor.shape)].clone()


def test_checkpoint_without_lora_converts_and_says_so(base, tmp_path):
    weights = {name: tensor for name, tensor in original_weights("mean").items() if "lora" not in name}
    path = write_checkpoint(tmp_path / "best.pth", weights, settings())
    report = convert({**base, "checkpoint": path}, tmp_path / "out")
    assert "no LoRA" in str(report)
    assert "adapter" not in AffectGPTConfig.from_pretrained(tmp_path / "out").parts["language"]
    AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "out")


# ---- writing


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_interrupted_conversion_leaves_nothing_that_looks_whole(error, sources, tmp_path, monkeypatch):
    calls = []

    def fail_later(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return save_file(*args, **kwargs)

    save_file = conversion.save_file
    monkeypatch.setattr(conversion, "save_file", fail_later)
    before = set(tmp_path.iterdir())
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        convert(sources, tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def test_leavings_of_a_killed_conversion_do_no_harm(sources, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "model-00001-of-00009.safetensors").write_bytes(b"half")
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    convert(sources, tmp_path / "out")
    assert not partial.exists()
    assert not list((tmp_path / "out").glob("model-*"))
    AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "out")


def test_folder_with_files_is_refused_and_left_alone(sources, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        convert(sources, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_full_disk_is_said_before_anything_is_written(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 0))
    with pytest.raises(OSError, match=r"GB of free disk, got 0\.0 GB"):
        convert(sources, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_weights_that_come_back_changed_raise(sources, tmp_path, monkeypatch):
    save_file = conversion.save_file

    def save_wrongly(tensors, path, **kwargs):
        tensors = {name: tensor + 1 if name.endswith("fusion.projection.bias") else tensor for name, tensor in tensors.items()}
        save_file(tensors, path, **kwargs)

    monkeypatch.setattr(conversion, "save_file", save_wrongly)
    with pytest.raises(OSError, match="not what was written: model.fusion.projection.bias"):
        convert(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_prints_a_report_or_one_line_of_error(sources, tmp_path, capsys):
    arguments = [f"--{name}={path}" for name, path in sources.items()]
    assert main([*arguments, f"--output={tmp_path / 'out'}", "--form=full"]) == 0
    printed = capsys.readouterr().out
    assert "read back and found equal" in printed
    assert "parameters in model.fusion" in printed
    assert main([*arguments, f"--output={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
