"""Tell transformers' Auto classes about this package's classes, and the other way round. Imported when the first is asked for.

The configurations register themselves: they name each other, also where they run as custom code from the Hub. What is saved takes
the code of its class along, so that it loads with `trust_remote_code=True` where this package is not installed.
"""

from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

from .configuration_affectgpt import AffectGPTConfig, ImageBindAudioConfig
from .feature_extraction_imagebind import ImageBindAudioFeatureExtractor
from .feature_extraction_waveform import WaveformClipFeatureExtractor
from .image_processing_affectgpt import AffectGPTImageProcessor
from .modeling_affectgpt import AffectGPTForConditionalGeneration, AffectGPTModel
from .modeling_imagebind_audio import ImageBindAudioModel
from .processing_affectgpt import AffectGPTProcessor

AutoModel.register(ImageBindAudioConfig, ImageBindAudioModel, exist_ok=True)
AutoModel.register(AffectGPTConfig, AffectGPTModel, exist_ok=True)
AutoModelForMultimodalLM.register(AffectGPTConfig, AffectGPTForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(AffectGPTConfig, image_processor_classes={"pil": AffectGPTImageProcessor}, exist_ok=True)
AutoFeatureExtractor.register(ImageBindAudioConfig, ImageBindAudioFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(AffectGPTConfig, WaveformClipFeatureExtractor, exist_ok=True)
AutoProcessor.register(AffectGPTConfig, AffectGPTProcessor, exist_ok=True)

AffectGPTConfig.register_for_auto_class()
AffectGPTModel.register_for_auto_class("AutoModel")
AffectGPTForConditionalGeneration.register_for_auto_class("AutoModelForMultimodalLM")
AffectGPTProcessor.register_for_auto_class()
AffectGPTImageProcessor.register_for_auto_class()
ImageBindAudioFeatureExtractor.register_for_auto_class()
WaveformClipFeatureExtractor.register_for_auto_class()
