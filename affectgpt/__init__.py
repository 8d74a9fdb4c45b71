"""AffectGPT for Hugging Face: explains from picture, voice and words what a person in a clip seems to feel."""

from importlib import import_module

from ._auto_names import announce
from ._torchaudio_guard import guard_torchaudio

__version__ = "0.1.0"

guard_torchaudio()
announce(__name__)

# Public name -> module that defines it. Nothing is imported before it is asked for: `affectgpt.metrics` must not need torch.
_PUBLIC = {
    "AffectGPTConfig": "configuration_affectgpt",
    "AffectGPTPoolingConfig": "configuration_affectgpt",
    "ImageBindAudioConfig": "configuration_affectgpt",
    "AffectGPTModel": "modeling_affectgpt",
    "AffectGPTForConditionalGeneration": "modeling_affectgpt",
    "ImageBindAudioModel": "modeling_imagebind_audio",
    "AffectGPTProcessor": "processing_affectgpt",
    "AffectGPTImageProcessor": "image_processing_affectgpt",
    "ImageBindAudioFeatureExtractor": "feature_extraction_imagebind",
    "WaveformClipFeatureExtractor": "feature_extraction_waveform",
    "AffectGPTCollator": "collator",
    "attach_media": "corpus",
    "FaceTrack": "faces",
    "find_faces": "faces",
    "read_face_crops": "faces",
    "Clip": "media",
    "MediaError": "media",
    "read_clip": "media",
    "Explanation": "explanation",
    "explain": "explanation",
    "explain_stream": "explanation",
    "load_model": "explanation",
    "load_explainer": "explainers",
    "Subtitle": "subtitles",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _PUBLIC[name].startswith(("configuration_", "modeling_", "processing_", "image_processing_", "feature_extraction_")):
        import_module(".registration", __name__)
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
