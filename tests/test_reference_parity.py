"""Every recorded stage of the authors' 2023/24 model, from media to generated ids, against this project's.

Two folders of recorded tensors are read, in the same layout: `tests/reference_subset` (see its README), and the complete set in the
folder that AFFECTGPT_REFERENCE_DIR names. All sizes, lengths and names come from the files. Where a name ends in slices or a number
of clips (`[:, ::3]`, `[:2clips]`), only that part was recorded.

Not held here: augmentations of training (random crops), and generation with a repetition penalty other than 1, which counts the
start token that transformers 4.28 put in front.
"""

import functools
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Blip2VisionConfig, StoppingCriteriaList
from transformers.models.blip_2.modeling_blip_2 import Blip2VisionEmbeddings

from affectgpt import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTImageProcessor,
    AffectGPTProcessor,
    ImageBindAudioFeatureExtractor,
)
from affectgpt.media import SAMPLING_RATE, read_clip, resample, sample_indices
from hub.convert_video_llama import convert_key, convert_state_dict

# 1e-4 would let a Q-Former with the wrong norm epsilon pass.
ACTIVATION_ATOL = 2e-5
# Of a tensor's largest value: four roundings of float32. A CPU with other kernels was seen to need 2.3e-5 of 60.
ROUNDING = 5e-7
LOSS_ATOL = 1e-5
MEL_ATOL = 5e-4
RESAMPLE_ATOL = 1e-6

ROOT = Path(__file__).parent.parent
SUBSET = ROOT / "tests" / "reference_subset"
COMPLETE = Path(os.environ.get("AFFECTGPT_REFERENCE_DIR", ROOT.parent / "shared" / "reference" / "video-llama"))
NOT_HELD = ("train_", "greedy_rep")


class Reference:
    """The files of one folder, and a model with their weights."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
        self.model_facts, self.preproc_facts = (
            json.loads((folder / name).read_text()) if (folder / name).exists() else {} for name in ("model.json", "preproc.json")
        )
        self.weights = dict(self.tensors.get("weights", {}))
        self.weights |= {f"llama_model.{key}": tensor for key, tensor in self.tensors.get("llama", {}).items()}
        self.model = AffectGPTForConditionalGeneration(self.config()).eval()
        self.load_result = self.model.load_state_dict(convert_state_dict(self.weights), strict=False)

    def config(self) -> AffectGPTConfig:
        sizes, derived = self.model_facts["config"], self.model_facts.get("derived", {})
        eps = derived.get("eps", {})
        vit, bert, imagebind = sizes["vit"], sizes["bert"], sizes["ib"]
        llama = {**derived.get("llama_config", {}), **sizes["llama"]}
        qformer = {
            "model_type": "blip_2_qformer",
            "hidden_act": "gelu",
            **bert,
            "layer_norm_eps": eps.get("bert LayerNorm", 1e-12),
            "use_qformer_text_input": False,
        }
        resampler = {
            **qformer,
            "num_hidden_layers": derived.get("bert_config", {}).get("num_hidden_layers", 2),
            "cross_attention_frequency": 1,
        }
        return AffectGPTConfig(
            vision_config={
                "model_type": "blip_2_vision_model",
                "hidden_size": vit["embed_dim"],
                "intermediate_size": derived.get("vit_mlp_hidden", int(vit["embed_dim"] * vit["mlp_ratio"])),
                "num_hidden_layers": vit["depth"],
                "num_attention_heads": vit["num_heads"],
                "image_size": vit["img_size"],
                "patch_size": vit["patch_size"],
                "layer_norm_eps": eps.get("vit norm1/norm2", 1e-6),
                "hidden_act": "gelu",
                "qkv_bias": True,
            },
            image_qformer_config={**qformer, "encoder_hidden_size": vit["embed_dim"], "cross_attention_frequency": 2},
            audio_config={
                "model_type": "imagebind_audio",
                "hidden_size": imagebind["audio_embed_dim"],
                "intermediate_size": 4 * imagebind["audio_embed_dim"],
                "num_hidden_layers": imagebind["audio_num_blocks"],
                "num_attention_heads": imagebind["audio_num_heads"],
                "embed_dim": imagebind["out_embed_dim"],
                "stem_norm_eps": eps.get("ib stem norm_layer", 1e-5),
                "layer_norm_eps": eps.get("ib block norm", 1e-6),
            },
            video_resampler_config={**resampler, "encoder_hidden_size": bert["hidden_size"]},
            audio_resampler_config={**resampler, "encoder_hidden_size": imagebind["out_embed_dim"]},
            text_config={"model_type": "llama", **llama},
            num_image_query_tokens=sizes["num_query_token"],
            num_video_query_tokens=sizes["num_video_query_token"],
            num_audio_query_tokens=sizes["num_audio_query_token"],
            max_frames=self.length("video_frame_position_embedding.weight", 32),
            max_audio_clips=self.length("audio_position_embedding.weight", 8),
            video_token_id=derived.get("IMAGE_PATCH_TOKEN_ID", llama["vocab_size"]),
            audio_token_id=derived.get("AUDIO_PATCH_TOKEN_ID", llama["vocab_size"] + 1),
            vision_norm_eps=eps.get("ln_vision", 1e-5),
        )

    def length(self, key: str, default: int) -> int:
        return len(self.weights[key]) if key in self.weights else default

    def has_weights(self, module: torch.nn.Module) -> bool:
        missing = set(self.load_result.missing_keys)
        names = {
            f"{prefix}.{name}" for prefix, child in self.model.named_modules() if child is module for name in module.state_dict()
        }
        return not names & missing

    def images(self) -> torch.Tensor:
        """`(B, T, 3, height, width)`; the reference has time behind the channels."""
        return self.tensors["video"]["in.images_fp16"].float().transpose(1, 2)

    def mels(self) -> torch.Tensor:
        """`(B, C, mel bins, frames)`: recorded as they are, or named as outputs of the audio preprocessing."""
        if "in.audios_fp16" in self.tensors["audio"]:
            mels = self.tensors["audio"]["in.audios_fp16"].float()
        else:
            names = re.findall(r"\['(.+?)'\]", self.model_facts["audio_input"])
            mels = torch.stack([self.tensors["preproc_audio"][name] for name in names])
        return mels.flatten(1, -3)


load = functools.cache(Reference)


@pytest.fixture(scope="module", params=[SUBSET, COMPLETE], ids=["subset", "complete"])
def reference(request):
    if not request.param.exists():
        pytest.skip(f"{request.param} does not exist; AFFECTGPT_REFERENCE_DIR names the folder of recorded tensors")
    return load(request.param)


@pytest.fixture(scope="module")
def complete():
    if not COMPLETE.exists():
        pytest.skip(f"{COMPLETE} does not exist; AFFECTGPT_REFERENCE_DIR names the folder of recorded tensors")
    return load(COMPLETE)


def recorded_part(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` cut down to what the slices at the end of `key` say. LBD: recorded with the clips in the middle."""
    name, _, slices = key.partition("[")
    if slices:
        parts = [re.sub(r"[^\d:-]", "", part).split(":") for part in slices.split(",")]
        tensor = tensor[tuple(slice(*(int(bound) if bound else None for bound in part)) for part in parts)]
    return tensor.transpose(0, 1) if name.endswith("(LBD)") else tensor


def hold(recorded: dict, actual: dict, *, inputs: tuple[str, ...] = (), atol: float = ACTIVATION_ATOL) -> None:
    """Compare each tensor of `recorded` with that of its name in `actual`, except `inputs` (regexes) and NOT_HELD.

    A name that `actual` does not know is an error, and so is having nothing to compare.
    """
    num_held = 0
    for key, expected in recorded.items():
        name = key.partition("[")[0]
        if name.startswith(NOT_HELD) or any(re.fullmatch(pattern, name) for pattern in inputs):
            continue
        if name not in actual:
            pytest.fail(f"{key} is recorded, but nothing here computes it; known are {sorted(actual)}")
        result = recorded_part(key, actual[name]).detach()
        assert result.shape == expected.shape, key
        difference = (result.float() - expected.float()).abs().max().item()
        bound = atol + ROUNDING * expected.float().abs().max().item()
        assert difference <= bound, f"{key} deviates by {difference:.2e}, more than {bound:.1e}"
        num_held += 1
    assert num_held, f"nothing to hold among {sorted(recorded)}"


def record_outputs(modules: dict[str, torch.nn.Module], call) -> dict[str, torch.Tensor]:
    """What `modules` give during `call()`, the first time each; as `NAME.in.ARGUMENT` the tensors among their keyword arguments."""
    outputs = {}

    def keep(name):
        def hook(module, args, kwargs, output):
            output = output[0] if isinstance(output, (tuple, dict)) else output
            outputs.setdefault(name, output)
            for argument, value in kwargs.items():
                if isinstance(value, torch.Tensor):
                    outputs.setdefault(f"{name}.in.{argument}", value)

        return hook

    handles = [module.register_forward_hook(keep(name), with_kwargs=True) for name, module in modules.items()]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def qformer_stages(prefix: str, qformer: torch.nn.Module) -> dict[str, torch.nn.Module]:
    stages = {prefix: qformer, f"{prefix}.embeddings": qformer.layernorm}
    for index, layer in enumerate(qformer.encoder.layer):
        stages |= {f"{prefix}.layer.{index}": layer, f"{prefix}.layer.{index}.attention": layer.attention}
        if layer.has_cross_attention:
            stages[f"{prefix}.layer.{index}.crossattention"] = layer.crossattention
    return stages


# ---- preprocessing


def test_frame_indices_of_every_length_equal_recorded(reference):
    tables = {key: table for key, table in reference.tensors["preproc_video"].items() if key.startswith("indices.")}
    assert tables
    for table in tables.values():
        num_frames = table.shape[1]
        processor = AffectGPTImageProcessor(size=1, num_frames=num_frames, do_rescale=False, do_normalize=False)
        for num_total, expected in enumerate(table.tolist(), start=1):
            assert sample_indices(num_total, num_frames) == expected
            numbered = np.zeros((num_total, 1, 1, 3), dtype=np.uint8)
            numbered[:, 0, 0, 0], numbered[:, 0, 0, 1] = np.arange(num_total) % 256, np.arange(num_total) // 256
            picked = processor(numbered, return_tensors="pt").pixel_values_videos[0, :, :, 0, 0]
            assert (picked[:, 0] + 256 * picked[:, 1]).tolist() == expected
    for num_total, facts in reference.preproc_facts.get("video", {}).get("decord_real", {}).items():
        assert sample_indices(int(num_total), len(facts["indices"])) == facts["indices"]


def test_decoded_frames_equal_recorded(complete):
    recorded = complete.tensors["preproc_video"]
    num_held = 0
    for path in sorted((complete.folder / "videos").iterdir()):
        if f"decord.{path.stem}.frames_uint8" in recorded:
            expected = recorded[f"decord.{path.stem}.frames_uint8"]  # (3, T, height, width)
            clip = read_clip(path, num_frames=expected.shape[1], size=tuple(expected.shape[2:]), audio=False)
            np.testing.assert_array_equal(clip.frames, expected.permute(1, 2, 3, 0).numpy())
            num_held += 1
        if f"decord.{path.stem}.native_uint8_THWC" in recorded:
            expected = recorded[f"decord.{path.stem}.native_uint8_THWC"]
            clip = read_clip(path, num_frames=len(expected), audio=False)
            np.testing.assert_array_equal(clip.frames, expected.numpy())
            num_held += 1
    assert num_held


def test_normalised_frames_equal_recorded(reference):
    recorded = reference.tensors["preproc_video"]
    num_held = 0
    for key, expected in recorded.items():
        if ".eval_processor_out" not in key:
            continue
        frames = recorded[key.partition(".eval_processor_out")[0] + ".frames_uint8"].permute(1, 2, 3, 0)
        processor = AffectGPTImageProcessor(
            size=dict(zip(("height", "width"), frames.shape[1:3], strict=True)), num_frames=len(frames)
        )
        pixel_values = processor(frames, return_tensors="pt").pixel_values_videos[0].transpose(0, 1)
        hold({key: expected}, {key.partition("[")[0]: pixel_values}, atol=0)
        num_held += 1
    assert num_held


def test_resized_image_equals_recorded(reference):
    recorded = reference.tensors["preproc_image"]
    size = reference.preproc_facts.get("image", {}).get("size") or recorded["eval.resized_uint8_HWC"].shape[0]
    plain = AffectGPTImageProcessor(size=size, num_frames=1, do_rescale=False, do_normalize=False)
    image = recorded["image_uint8_HWC"][None]
    outputs = {
        "eval.resized_uint8_HWC": plain(image, return_tensors="pt").pixel_values_videos[0, 0].permute(1, 2, 0),
        "eval.out": AffectGPTImageProcessor(size=size, num_frames=1)(image, return_tensors="pt").pixel_values_videos[0, 0],
    }
    hold(recorded, outputs, inputs=("image_uint8_HWC",), atol=0)


def test_mels_equal_recorded(reference):
    recorded = reference.tensors["preproc_audio"]
    tags = [key.removesuffix(".pcm_int16") for key in recorded if key.endswith(".pcm_int16")]
    assert tags
    for tag in tags:
        facts = reference.preproc_facts.get("audio", {}).get(tag, {})
        starts = recorded[f"{tag}.clip_sample_start_end"]
        waveform = recorded[f"{tag}.pcm_int16"].numpy().astype(np.float32) / 32768
        sampling_rate = facts.get("sample_rate", SAMPLING_RATE)
        if sampling_rate != SAMPLING_RATE:
            waveform = resample(waveform, sampling_rate)
        extractor = ImageBindAudioFeatureExtractor(num_clips=facts.get("clips_per_video", len(starts)))
        mels = extractor(waveform, SAMPLING_RATE, return_tensors="pt").input_features[0][:, None]
        spans = torch.tensor([[start, start + 2 * SAMPLING_RATE] for start in extractor.clip_starts(waveform.shape[-1])])
        saved = facts.get("saved clips", list(range(len(starts))))
        outputs = {f"{tag}.clip_sample_start_end": spans, f"{tag}.out": mels[saved]}
        of_this_tag = {key: tensor for key, tensor in recorded.items() if key.startswith(f"{tag}.")}
        # Whatever else is recorded of a sound is the beginning of its resampled waveform.
        resampled = {
            key: of_this_tag.pop(key) for key in list(of_this_tag) if key.partition("[")[0] not in {*outputs, f"{tag}.pcm_int16"}
        }
        hold(of_this_tag, outputs, inputs=(r".*\.pcm_int16",), atol=MEL_ATOL)
        for key, expected in resampled.items():
            name, _, slices = key.partition("[")
            start = torch.from_numpy(waveform if slices else waveform[..., : expected.shape[-1]].reshape(expected.shape))
            hold({key: expected}, {name: start}, atol=RESAMPLE_ATOL)
    for name, expected in reference.preproc_facts.get("audio", {}).get("sampler_table", {}).items():
        num_samples, num_clips = (int(part.partition("=")[2]) for part in name.split(","))
        starts = ImageBindAudioFeatureExtractor(num_clips=num_clips).clip_starts(num_samples)
        assert [[start, start + 2 * SAMPLING_RATE] for start in starts] == expected, name


# ---- single stages on recorded inputs


def test_default_norm_epsilons_are_the_recorded_ones(reference):
    eps, config = reference.model_facts.get("derived", {}).get("eps"), AffectGPTConfig()
    if eps is None:
        pytest.skip("the folder's model.json has no derived.eps")
    qformers = (config.image_qformer_config, config.video_resampler_config, config.audio_resampler_config)
    assert config.vision_config.layer_norm_eps == eps["vit norm1/norm2"]
    assert config.vision_norm_eps == eps["ln_vision"]
    assert {qformer.layer_norm_eps for qformer in qformers} == {eps["bert LayerNorm"]}
    assert config.audio_config.stem_norm_eps == eps["ib stem norm_layer"]
    assert config.audio_config.layer_norm_eps == eps["ib block norm"] == eps["ib head norm"]


@torch.no_grad()
def test_vision_norms_on_low_variance_rows_equal_recorded(reference):
    tower = reference.model.model.vision_tower
    recorded = {key: tensor for key, tensor in reference.tensors["video"].items() if key.startswith("ln_vision_probe.")}
    rows = recorded["ln_vision_probe.in"]
    outputs = {
        "ln_vision_probe.out": tower.post_layernorm(rows),
        "ln_vision_probe.block0_norm1.out": tower.encoder.layers[0].layer_norm1(rows),
    }
    hold(recorded, outputs, inputs=("ln_vision_probe.in",))


@torch.no_grad()
def test_interpolated_positions_equal_recorded(reference):
    recorded = {key: tensor for key, tensor in reference.tensors["video"].items() if key.startswith("pos_interp.")}
    outputs = {}
    for key, positions in recorded.items():
        if not key.endswith(".in"):
            continue
        source, target = (int(grid) for grid in key.split(".")[1].split("to"))
        config = Blip2VisionConfig(hidden_size=positions.shape[-1], image_size=source, patch_size=1)
        embeddings = Blip2VisionEmbeddings(config)
        embeddings.position_embedding.copy_(positions)
        tokens = torch.empty(1, 1 + target**2, positions.shape[-1])
        outputs[key.removesuffix("in") + "out"] = embeddings.interpolate_pos_encoding(tokens, target, target)
    hold(recorded, outputs, inputs=(r"pos_interp\..*\.in",), atol=0)


@torch.no_grad()
def test_audio_layer_on_recorded_tokens_equals_recorded(reference):
    recorded = {key.partition("[")[0]: tensor for key, tensor in reference.tensors["audio"].items()}
    num_held = 0
    for index, layer in enumerate(reference.model.model.audio_tower.layers):
        name = f"ib.block.{index}(LBD)"
        before = recorded.get("ib.tokens") if index == 0 else recorded.get(f"ib.block.{index - 1}(LBD)")
        if name not in recorded or before is None or not reference.has_weights(layer):
            continue
        output = layer(before if index == 0 else before.transpose(0, 1))
        keys = [key for key in reference.tensors["audio"] if key.startswith(name)]
        hold({key: reference.tensors["audio"][key] for key in keys}, {name: output})
        num_held += 1
    assert num_held


@torch.no_grad()
def test_audio_head_on_recorded_class_tokens_equals_recorded(reference):
    recorded, tower = reference.tensors["audio"], reference.model.model.audio_tower
    vectors = tower.projection(recorded["ib.head.select"])
    scale = tower.log_logit_scale.exp().clamp(max=tower.config.logit_scale_max)
    directions = torch.nn.functional.normalize(vectors, dim=-1)
    outputs = {"ib.head.linear": vectors, "ib.post.normalize": directions, "ib.post.logit_scale": directions * scale}
    hold({key: tensor for key, tensor in recorded.items() if key in outputs}, outputs)


@torch.no_grad()
def test_cross_attention_on_recorded_inputs_equals_recorded(reference):
    model = reference.model.model
    num_held = 0
    for file, prefix, qformer in (
        ("video", "qformer", model.image_qformer.qformer),
        ("video", "video_qformer", model.video_resampler.qformer),
        ("audio", "audio_qformer", model.audio_resampler.qformer),
    ):
        recorded = reference.tensors[file]
        for index, layer in enumerate(qformer.encoder.layer):
            name = f"{prefix}.layer.{index}.crossattention"
            if name not in recorded or not reference.has_weights(layer.crossattention):
                continue
            output = layer.crossattention(
                recorded[f"{prefix}.layer.{index}.attention"],
                encoder_hidden_states=recorded[f"{prefix}.in.encoder_hidden_states"],
            )
            hold({name: recorded[name]}, {name: output})
            num_held += 1
    assert num_held


# ---- whole branches


def test_every_original_weight_has_exactly_one_place(complete):
    assert complete.load_result.missing_keys == []
    assert complete.load_result.unexpected_keys == []
    for keys in complete.model_facts.get("checkpoint_layout", {}).values():
        for key in keys:
            convert_key(key)


def test_key_biases_of_the_vision_tower_are_zero(complete):
    # Softmax hides a wrong key bias from all outputs.
    for index, layer in enumerate(complete.model.model.vision_tower.encoder.layers):
        query, key, value = layer.self_attn.qkv.bias.chunk(3)
        assert torch.equal(query, complete.weights[f"visual_encoder.blocks.{index}.attn.q_bias"])
        assert torch.equal(value, complete.weights[f"visual_encoder.blocks.{index}.attn.v_bias"])
        assert not key.any()


@torch.no_grad()
def test_video_branch_equals_recorded(complete):
    model = complete.model.model
    stages = {"vit.embeddings": model.vision_tower.embeddings, "vit.patch_embed": model.vision_tower.embeddings.patch_embedding}
    stages |= {f"vit.block.{index}": layer for index, layer in enumerate(model.vision_tower.encoder.layers)}
    stages |= {"ln_vision": model.vision_tower.post_layernorm}
    stages |= qformer_stages("qformer", model.image_qformer.qformer)
    stages |= qformer_stages("video_qformer", model.video_resampler.qformer)
    stages |= {"llama_proj": model.video_resampler.projection}
    pixel_values = complete.images()

    outputs = record_outputs(stages, lambda: model.get_video_features(pixel_values))
    first_frame = record_outputs(stages, lambda: model.get_video_features(pixel_values[:1, :1]))

    outputs["vit.patch_embed"] = outputs["vit.patch_embed"].flatten(2).transpose(1, 2)
    outputs["vit.pos_drop"] = outputs["vit.embeddings"]
    outputs["vit.out"] = outputs[f"vit.block.{len(model.vision_tower.encoder.layers) - 1}"]
    for values in (outputs, first_frame):
        values["qformer.out"], values["video_qformer.out"] = values["qformer"], values["video_qformer"]
        values["out.inputs_llama"] = values["llama_proj"]
        values["out.atts_llama"] = torch.ones(values["llama_proj"].shape[:2])
    outputs |= {f"T1.{name}": value for name, value in first_frame.items()}
    hold(complete.tensors["video"], outputs, inputs=(r"in\..*", "ln_vision_probe.*", "pos_interp.*"))


@torch.no_grad()
def test_audio_branch_equals_recorded(complete):
    model = complete.model.model
    tower = model.audio_tower
    stages = {"ib.stem": tower.embeddings.norm, "ib.tokens": tower.embeddings, "ib.head.linear": tower.projection}
    stages |= {f"ib.block.{index}(LBD)": layer for index, layer in enumerate(tower.layers)}
    stages |= {"ib.head.select": tower.layernorm} | qformer_stages("audio_qformer", model.audio_resampler.qformer)
    stages |= {"audio_llama_proj": model.audio_resampler.projection}
    mels = complete.mels()

    outputs = record_outputs(stages, lambda: model.get_audio_features(mels))
    vectors = model.encode_sound(mels)

    outputs["ib.trunk"] = outputs[f"ib.block.{len(tower.layers) - 1}(LBD)"]
    outputs["ib.head.layernorm"] = tower.layernorm(outputs["ib.trunk"])
    outputs["get_audio_feature.modality_value"] = vectors
    outputs["get_audio_feature.audio_feature"] = outputs["ib.head.select"].unflatten(0, vectors.shape[:2])
    outputs["ib.post.logit_scale"] = vectors.flatten(0, 1)
    outputs["ib.post.normalize"] = torch.nn.functional.normalize(vectors.flatten(0, 1), dim=-1)
    outputs["audio_qformer.out"] = outputs["audio_qformer"]
    outputs["out.inputs_llama"] = outputs["audio_llama_proj"]
    outputs["out.atts_llama"] = torch.ones(outputs["audio_llama_proj"].shape[:2])
    hold(complete.tensors["audio"], outputs, inputs=(r"in\..*",))


def media_of(reference: Reference, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The recorded media of the rows that have placeholders. Reference: row i of the media belongs to row i of the batch, used or
    not."""
    config, media = reference.model.config, {}
    has_video, has_audio = ((input_ids == token).any(dim=1) for token in (config.video_token_id, config.audio_token_id))
    if has_video.any():
        media["pixel_values_videos"] = reference.images()[: len(input_ids)][has_video]
    if has_audio.any():
        media["input_features"] = reference.mels()[: len(input_ids)][has_audio]
    return media


def test_training_cases_equal_recorded(complete):
    recorded, model = complete.tensors["full"], complete.model
    cases = [key.removesuffix(".input_ids") for key in recorded if key.endswith(".input_ids")]
    assert cases
    language_model = model.model.language_model
    stages = {"language_model": language_model, "llama.norm": language_model.norm}
    stages |= {f"llama.layer.{index}": layer for index, layer in enumerate(language_model.layers)}
    names, parameters = {key: convert_key(key) for key in complete.weights}, dict(model.named_parameters())
    for case in cases:
        tensors = {key.removeprefix(f"{case}."): tensor for key, tensor in recorded.items() if key.startswith(f"{case}.")}
        batch = {
            "input_ids": tensors["input_ids"],
            "attention_mask": tensors["attention_masks"].long(),
            "labels": tensors["labels"],
            **media_of(complete, tensors["input_ids"]),
        }
        model.zero_grad()
        results = []
        outputs = record_outputs(stages, lambda batch=batch, results=results: results.append(model(**batch)))
        results[0].loss.backward()

        outputs |= {"inputs_embeds": outputs["language_model.in.inputs_embeds"], "logits": results[0].logits}
        gradients = {
            f"grad.{key}": parameters[name].grad
            for key, name in names.items()
            if name in parameters and parameters[name].grad is not None
        }
        loss = {"loss": tensors.pop("loss")}
        hold(
            {f"{case}.{key}": tensor for key, tensor in tensors.items()},
            {f"{case}.{name}": value for name, value in (outputs | gradients).items()},
            inputs=(r".*\.(input_ids|labels|attention_masks)",),
        )
        hold(loss, {"loss": results[0].loss}, atol=LOSS_ATOL)
        for key, norm in complete.model_facts.get("grad_norms_eval_mode", {}).get(case, {}).items():
            assert gradients[f"grad.{key}"].norm().item() == pytest.approx(norm, rel=1e-4, abs=ACTIVATION_ATOL), (case, key)


def test_labels_and_padding_of_training_cases_equal_recorded(complete):
    recorded, num_held = complete.tensors["full"], 0
    pad_id = complete.model_facts.get("derived", {}).get("pad_token_id", 2)
    processor = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=pad_id))
    for case in [key.removesuffix(".input_ids") for key in recorded if key.endswith(".input_ids")]:
        input_ids, labels, mask = (recorded[f"{case}.{name}"] for name in ("input_ids", "labels", "attention_masks"))
        prompts, targets = [], []
        for row, row_labels in zip(input_ids.tolist(), labels.tolist(), strict=True):
            answer = [index for index, label in enumerate(row_labels) if label != -100]
            prompts.append(row[: answer[0]])
            targets.append(row[answer[0] : answer[-1] + 1])
            if len(answer) != len(targets[-1]):
                break  # several turns, which the processor does not make
        else:
            batch = AffectGPTProcessor._pad(processor, prompts, targets, "right")
            assert torch.equal(batch["input_ids"], input_ids)
            assert torch.equal(batch["labels"], labels)
            # Reference: an end-of-text token within an answer is masked; the processor lets none into a text.
            visible = batch["attention_mask"].bool() & (input_ids != pad_id)
            assert torch.equal(visible, mask)
            num_held += 1
    assert num_held


@torch.no_grad()
def test_greedy_ids_from_media_equal_recorded(complete):
    recorded, model = complete.tensors["generate"], complete.model
    placeholders = {
        "Image": torch.full((recorded["video_emb"].shape[1],), model.config.video_token_id),
        "Audio": torch.full((recorded["audio_emb"].shape[1],), model.config.audio_token_id),
    }
    prompt_text = complete.model_facts.get("generation", {}).get("prompt", "<AudioHere><ImageHere>")
    parts = [recorded["segment_ids.0"]]
    for index, medium in enumerate(re.findall("<(Image|Audio)Here>", prompt_text), start=1):
        parts += [placeholders[medium], recorded[f"segment_ids.{index}"]]
    input_ids = torch.cat(parts)[None]
    batch = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **media_of(complete, input_ids)}

    outputs = record_outputs({"language_model": model.model.language_model}, lambda: model(**batch))
    outputs["inputs_embeds"] = outputs["language_model.in.inputs_embeds"]
    features = model.model(**batch)
    outputs |= {"video_emb": features.media_hidden_states["video"], "audio_emb": features.media_hidden_states["audio"]}

    expected = recorded["greedy.new_ids"]
    prompt = input_ids.shape[1]
    outputs["greedy.new_ids"] = model.generate(**batch, do_sample=False, max_new_tokens=len(expected))[0, prompt:]
    continued = torch.cat([input_ids, expected[None, :-1]], dim=1)
    logits = model(**{**batch, "input_ids": continued, "attention_mask": torch.ones_like(continued)}).logits
    outputs["greedy.step_logits_teacher_forced"] = logits[0, prompt - 1 :]
    # transformers 4.28 puts a start token before the ids that it generates from embeddings.
    start = recorded["greedy.output_ids_transformers4.28"][:, :1]
    outputs["greedy.output_ids_transformers4.28"] = torch.cat([start, outputs["greedy.new_ids"][None]], dim=1)
    for stop in ("stop_pair", "stop_single"):
        if f"{stop}.stop_ids" in recorded:
            ends = recorded[f"{stop}.stop_ids"].tolist()
            criteria = StoppingCriteriaList([lambda ids, scores, ends=ends: torch.tensor([ids[0, -len(ends) :].tolist() == ends])])
            ids = model.generate(**batch, do_sample=False, max_new_tokens=len(expected), stopping_criteria=criteria)[:, prompt:]
            outputs[f"{stop}.output_ids_transformers4.28"] = torch.cat([start, ids], dim=1)
    hold(recorded, outputs, inputs=(r"segment_ids\..*", r".*\.stop_ids"))
