"""The recordings of the authors' 2025 model: their files, what these convert to, and the stages that have names in them."""

import copy
import json
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_reference_parity import qformer_stages, record_outputs
from transformers import StoppingCriteriaList

from affectgpt import (
    AffectGPTForConditionalGeneration,
    AffectGPTImageProcessor,
    AffectGPTPoolingConfig,
    AffectGPTProcessor,
    WaveformClipFeatureExtractor,
)
from affectgpt.faces import read_face_crops
from affectgpt.media import SAMPLING_RATE, read_clip
from affectgpt.modeling_resamplers import AffectGPTPooling, AffectGPTResampler
from hub.convert_affectgpt_2025 import convert, convert_names


class Reference:
    """The files of one set, and the models and processor that its checkpoint converts to."""

    def __init__(self, folder: Path, scratch: Path):
        self.folder, self.scratch = folder, scratch
        self.facts, self.prompts, self.generation = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "prompts.json", "generate.json")
        )
        self.tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
        self.weights = self.tensors["weights"]
        self.reports = self._convert()
        self.processor = AffectGPTProcessor.from_pretrained(scratch / "parts")
        self.merged = AffectGPTForConditionalGeneration.from_pretrained(scratch / "full").eval()
        # The layers of the adapter are put into the model itself.
        self.model = AffectGPTForConditionalGeneration.from_pretrained(scratch / "parts", merge_adapter=False)
        PeftModel.from_pretrained(self.model, scratch / "parts" / "adapter")
        self.model.requires_grad_(True).eval()
        self.num_frames, self.num_clips = self.processor.image_processor.num_frames, self.processor.feature_extractor.num_clips
        self.samples = self.facts["batch"]["samples"]
        self.is_face = self.facts["batch"]["visual"] == "face"

    def _convert(self) -> dict:
        checkpoint = {
            "model": self.weights,
            "optimizer": {"state": {}, "param_groups": []},
            "config": {"model": self.facts["model_cfg"], "datasets": {"corpus": self.facts["dataset_cfg"]}, "run": {}},
            "scaler": None,
            "epoch": self.facts["checkpoint"]["epoch"],
        }
        path = self.scratch / self.facts["checkpoint"]["file_name"]
        torch.save(checkpoint, path)
        base = self.folder / "base"
        sources = {"checkpoint": path, "vision": base / "clip", "audio": base / "hubert", "language": base / "qwen2"}
        if (base / "bert").is_dir():
            sources["qformer"] = base / "bert"
        return {form: convert(sources, self.scratch / form, form=form) for form in ("parts", "full")}

    @property
    def loader_size(self) -> int:
        """Height and width to which the authors' loaders bring all pictures."""
        shapes = self.facts["batch"]["shapes"]
        return next(shapes[name][-1] for name in ("raw_faces", "raw_frames") if name in shapes)

    def pictures(self, sample: str) -> np.ndarray:
        """What the product reads from a sample's files: RGB, `(T, height, width, 3)`."""
        if not self.is_face:
            size = (self.loader_size, self.loader_size)
            return read_clip(self.folder / "media" / f"{sample}.mp4", num_frames=self.num_frames, size=size, audio=False).frames
        path = self.scratch / f"{sample}.npy"
        np.save(path, self.tensors["source"][f"{sample}.face_npy"].numpy())
        return read_face_crops(path, num_frames=self.num_frames, size=self.loader_size).crops

    def waveform(self, sample: str) -> np.ndarray:
        return self.tensors["source"][f"{sample}.wav_int16"].numpy().astype(np.float32) / 32768

    def batch(self, samples: list[str], questions: list[str], **kwargs) -> dict[str, torch.Tensor]:
        """What the product's processor makes of samples."""
        return dict(
            self.processor(
                **{"faces" if self.is_face else "frames": [self.pictures(sample) for sample in samples]},
                waveform=[self.waveform(sample) for sample in samples],
                subtitle=[self.facts["subtitles"][sample] for sample in samples],
                question=[self.facts["qa_pairs"][name]["question"] for name in questions],
                **kwargs,
            )
        )

    def visual(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["pixel_values_faces" if self.is_face else "pixel_values_videos"]

    def joint_input_values(self) -> torch.Tensor:
        """The batch's clips as the authors' training normalises them: over all sounds at once."""
        extractor = WaveformClipFeatureExtractor(num_clips=self.num_clips, do_normalize=False)
        clips = torch.stack(
            [extractor(self.waveform(sample), SAMPLING_RATE, return_tensors="pt").input_values[0] for sample in self.samples]
        )
        return (clips - clips.mean()) / torch.sqrt(clips.var(correction=0) + 1e-7)

    def training_batch(self) -> dict[str, torch.Tensor]:
        label_types = self.facts["batch"]["label_types"]
        answers = [self.facts["qa_pairs"][name]["answer"] for name in label_types]
        batch = self.batch(self.samples, label_types, answer=answers)
        return {**batch, "input_values": self.joint_input_values()}

    def trainable_name(self, key: str) -> str:
        """Name of an original weight in the model that has the adapter's layers."""
        converted, _ = convert_names(self.weights)
        name = next(name for name, tensor in converted.items() if tensor is self.weights[key])
        return f"{name[:-2].removesuffix('.weight')}.lora_{name[-1]}.default.weight" if name.endswith((":A", ":B")) else name


def mean_tokens(resampler: AffectGPTPooling, inputs: torch.Tensor) -> torch.Tensor:
    """Tokens of the kind of pooling without scores, with the same projection."""
    projection = resampler.projection
    config = AffectGPTPoolingConfig(encoder_hidden_size=projection.in_features, has_scores=False)
    mean = AffectGPTPooling(config, resampler.num_query_tokens, projection.out_features)
    mean.projection = projection
    return mean(inputs)


def branch_outputs(name: str, module: torch.nn.Module, call) -> dict[str, torch.Tensor]:
    """The recorded stages of one branch (`video`, `audio`, `multi`), whatever it is made of."""
    resampler = module if name != "multi" else module.resampler
    stages, outputs = {f"{name}.llm_tokens": module}, {}
    if name == "multi":
        stages |= {f"{name}.video_emb": module.video_projection, f"{name}.audio_emb": module.audio_projection}
    if isinstance(resampler, AffectGPTResampler):
        stages |= {f"{name}.qformer_out": resampler.qformer} | qformer_stages("layers", resampler.qformer)
        outputs = record_outputs(stages, call)
        outputs[f"{name}.qformer_encoder_hidden_states"] = outputs[f"{name}.qformer_out.in.encoder_hidden_states"]
        if name == "multi":
            outputs[f"{name}.hidden"] = outputs[f"{name}.qformer_out"]
        return outputs
    if name == "multi":
        stages |= {f"{name}.attention_mlp_out": module.attention_hidden, f"{name}.weights": module.attention_score}
    elif module.score is not None:
        stages[f"{name}.attention_scores"] = module.score
    projected = []
    handle = module.projection.register_forward_pre_hook(lambda _, args: projected.append(args[0]))
    try:
        outputs = record_outputs(stages, call)
    finally:
        handle.remove()
    outputs[f"{name}.fused"] = projected[0]
    if name == "multi":
        outputs |= {f"{name}.{medium}_emb": outputs[f"{name}.{medium}_emb"].mean(dim=1) for medium in ("video", "audio")}
        outputs[f"{name}.hidden"] = projected[0]
    return outputs


def picture_outputs(reference: Reference) -> dict[str, torch.Tensor]:
    """The branch of still pictures: stretched by the loader, then brought to the tower's size."""
    recorded = reference.tensors["fusion"]
    if "image.source_uint8" not in recorded:
        return {}
    loader = AffectGPTImageProcessor(size=reference.loader_size, num_frames=1, do_rescale=False, do_normalize=False)
    picture = loader(recorded["image.source_uint8"].numpy()[None], return_tensors="pt").pixel_values_videos[0]
    loaded = picture.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    pixel_values = reference.processor.image_processor(loaded, num_frames=1, return_tensors="pt").pixel_values_videos[:, 0]
    output = reference.model.get_image_features(pixel_values)
    return {
        "image.raw_image_uint8": picture.transpose(0, 1),
        "image.features": output.last_hidden_state.flatten(0, 2),
        "image.llm_tokens": output.pooler_output,
    }


def stop_at_recorded_ids(reference: Reference) -> StoppingCriteriaList:
    """The authors' rule: certain ids at the end."""
    ids = reference.facts["stop_ids"]
    ends = [[ids["tre_jin"]], [ids["two_jin"], ids["one_jin"]], [ids["one_jin"], ids["two_jin"]]]

    def is_end(written, scores, **kwargs):
        return torch.tensor([any(row[-len(end) :].tolist() == end for end in ends) for row in written])

    return StoppingCriteriaList([is_end])


def generate_like_the_reference(reference: Reference, model, max_new_tokens: int, **inputs) -> torch.Tensor:
    """Greedy ids with the converted settings, except that only the authors' rule stops."""
    settings = model.generation_config
    model.generation_config = copy.deepcopy(settings)
    model.generation_config.update(stop_strings=None, max_new_tokens=max_new_tokens)
    try:
        return model.generate(**inputs, stopping_criteria=stop_at_recorded_ids(reference))
    finally:
        model.generation_config = settings


def continued(reference: Reference, batch: dict, answer: torch.Tensor) -> torch.Tensor:
    """Logits at each step of `answer` `(1, S)`, given all steps before."""
    start = batch["input_ids"].shape[1] - 1
    input_ids = torch.cat([batch["input_ids"], answer[:, :-1]], dim=1)
    return reference.model(**{**batch, "input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}).logits[0, start:]
