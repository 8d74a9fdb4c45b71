"""Stage 0 of the sketch world: make the parts that stay frozen, and put them together as an untrained AffectGPT checkpoint.

    python -m training.sketch_backbones --output runs/sketch/backbones

They stand in for EVA-CLIP, BLIP-2's Q-Former, ImageBind and Vicuna. The vision tower and the image Q-Former learn the geometry of
drawn faces, the audio tower the prosody of synthetic voices, the language model the explanations of scenes whose clue words stand
where the media will stand. Nothing here reads a rendered clip. Each part is saved when it is done and found again when the
command is run again.
"""

import argparse
import itertools
import logging
import math
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import Blip2VisionModel, GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)
from affectgpt import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTImageProcessor,
    AffectGPTProcessor,
    ImageBindAudioFeatureExtractor,
)
from affectgpt.explanation import load_model
from affectgpt.modeling_imagebind_audio import ImageBindAudioModel
from affectgpt.modeling_resamplers import AffectGPTImageQFormer
from affectgpt.processing_affectgpt import IN_CHINESE
from training.sketch import faces, scenarios, voices
from training.sketch.text import join

logger = logging.getLogger(__name__)

IMAGE_SIZE, PATCH_SIZE, NUM_FRAMES, NUM_AUDIO_CLIPS = 112, 14, 8, 2
NUM_VIDEO_QUERY_TOKENS, NUM_AUDIO_QUERY_TOKENS, NUM_IMAGE_QUERY_TOKENS = 8, 4, 8
VOCAB_SIZE = 2400  # and the phrases of prompts
MEDIA_TOKENS = ("<ImageHere>", "<AudioHere>")
# How often a medium is left out of a scene when the language model learns, how often one of its clues is unreadable, how often the
# answer is Chinese, and how often the subtitle is in the other language.
MISSING_SHARE, UNCLEAR_SHARE, CHINESE_SHARE, OTHER_SHARE = 0.08, 0.12, 0.4, 0.15
EXCERPTS, SCENES = 64, 12  # rows of a batch, which cost about the same
_FIRST_CLAUSE = re.compile(r"[^,;，；]+")


def sketch_config(tokenizer: PreTrainedTokenizerFast) -> AffectGPTConfig:
    """Sizes of affectgpt-sketch: the paper's architecture, small enough for a laptop.

    Weights of towers and Q-Formers begin with a standard deviation of one over the root of the width. The usual 0.02 is that of
    widths above a thousand; here signals would fade, and 300 steps of stage 1 lead to an Avg of 61 on clips of the coarse split
    instead of 69. The language model keeps 0.02: begun at the scale of its width it knew the rules less well (Avg 94 instead of 99
    on scenes given in words), and the resamplers learnt to speak to it more slowly.
    """
    qformer = {
        "model_type": "blip_2_qformer",
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return AffectGPTConfig(
        vision_config={
            "model_type": "blip_2_vision_model",
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "initializer_range": 96**-0.5,
        },
        image_qformer_config={
            **qformer,
            "initializer_range": 96**-0.5,
            "hidden_size": 96,
            "intermediate_size": 384,
            "encoder_hidden_size": 96,
            "cross_attention_frequency": 1,
        },
        audio_config={
            "model_type": "imagebind_audio",
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "stride": 16,
            "embed_dim": 96,
            "initializer_range": 96**-0.5,
        },
        video_resampler_config={
            **qformer,
            "initializer_range": 128**-0.5,
            "hidden_size": 128,
            "intermediate_size": 512,
            "encoder_hidden_size": 96,
            "cross_attention_frequency": 1,
        },
        audio_resampler_config={
            **qformer,
            "initializer_range": 128**-0.5,
            "hidden_size": 128,
            "intermediate_size": 512,
            "encoder_hidden_size": 96,
            "cross_attention_frequency": 1,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "vocab_size": len(tokenizer) - len(MEDIA_TOKENS),  # those come last
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        num_image_query_tokens=NUM_IMAGE_QUERY_TOKENS,
        num_video_query_tokens=NUM_VIDEO_QUERY_TOKENS,
        num_audio_query_tokens=NUM_AUDIO_QUERY_TOKENS,
        max_frames=32,
        max_audio_clips=8,
        video_token_id=tokenizer.convert_tokens_to_ids(MEDIA_TOKENS[0]),
        audio_token_id=tokenizer.convert_tokens_to_ids(MEDIA_TOKENS[1]),
        tie_word_embeddings=True,
        drawings_only=True,
    )


def make_tokenizer(texts: list[str], phrases: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the sketch world's sentences, each of `phrases` one token; any other text is still encodable."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=list(MEDIA_TOKENS),
    )


def prompt_phrases(processor: AffectGPTProcessor) -> list[str]:
    """What every prompt says around media, subtitle and question, sentence by sentence, and the question.

    Word by word it would be 85 of the 190 tokens of a row, and the sketch's language model takes most of the time of training.
    """
    question = processor.default_question
    between = re.compile(rf"(###Human: |</?\w+>(?:\. )?| ###Assistant: |{re.escape(question)})")
    phrases = {IN_CHINESE}
    for video, audio, has_subtitle in itertools.product((False, True), repeat=3):
        prompt = processor.render_prompt(video=video, audio=audio, subtitle="" if has_subtitle else None)
        phrases.update(between.split(prompt))
    return sorted(phrases - {"", processor.video_token, processor.audio_token})


def make_processor(tokenizer: PreTrainedTokenizerFast) -> AffectGPTProcessor:
    return AffectGPTProcessor(
        image_processor=AffectGPTImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, num_frames=NUM_FRAMES),
        feature_extractor=ImageBindAudioFeatureExtractor(num_clips=NUM_AUDIO_CLIPS),
        tokenizer=tokenizer,
        num_video_query_tokens=NUM_VIDEO_QUERY_TOKENS,
        num_audio_query_tokens=NUM_AUDIO_QUERY_TOKENS,
    )


def _draw_faces(job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """`count` faces of one identity -> images `(count, size, size, 3)` uint8, and geometry and actions `(count, targets)`."""
    seed, person, count = job
    rng = np.random.default_rng([seed, person])
    identity = faces.Identity.sample(rng)
    names = list(faces.EXPRESSIONS)
    images, targets = [], []
    for _ in range(count):
        # A mixture of an expression of any strength and single actions, so that the actions are learnt one by one.
        actions = dict.fromkeys(faces.ACTION_UNITS, 0.0)
        strength = rng.uniform(0.0, 1.0) ** 0.7
        for name, value in faces.EXPRESSIONS[names[rng.integers(len(names))]].items():
            actions[name] = value * strength
        for name in rng.choice(faces.ACTION_UNITS, size=rng.integers(0, 6), replace=False):
            signed = name.startswith(("gaze", "head"))
            actions[name] = float(rng.uniform(-1.0 if signed else 0.0, 1.0))
        if rng.random() < 0.5:
            actions["jaw_drop"] = float(rng.uniform(0.0, 0.7))  # speech
        image = faces.draw_face(identity, actions).convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), resample=2)
        images.append(np.asarray(image))
        targets.append([*faces.face_targets(identity, actions), *actions.values()])
    return np.stack(images), np.array(targets, dtype=np.float32)


def _speak(job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """`count` sentences of random speakers -> log-mels `(count, clips, bins, frames)` and prosody `(count, targets)`."""
    seed, chunk, count = job
    torch.set_num_threads(1)
    extractor = ImageBindAudioFeatureExtractor(num_clips=NUM_AUDIO_CLIPS)
    scenes = scenarios.sample_scenes("coarse", count, seed=seed * 1000 + chunk)
    mels, targets = [], []
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, chunk, index])
        speech = voices.speak(scene.words, scene.speaker, scene.voice, scene.voice_intensity, rng, language=scene.spoken)
        # Silence around the speech, as in a clip, and what is behind it.
        sound = np.pad(speech, rng.integers(1_600, 6_400, size=2))
        sound += voices.background(len(sound), scene.speaker, rng)
        mels.append(extractor([sound], sampling_rate=16_000, return_tensors="pt")["input_features"][0].half().numpy())
        targets.append(voices.voice_targets(scene.speaker, scene.voice, scene.voice_intensity))
    return np.stack(mels), np.stack(targets)


def _in_parallel(function, jobs: list) -> tuple[np.ndarray, np.ndarray]:
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn")) as pool:
        results = list(pool.map(function, jobs))
    return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))


def explained_variance(predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """R2 of each target column."""
    return 1 - ((predicted - targets) ** 2).mean(0) / targets.var(0, correction=0).clamp(min=1e-6)


def fit_regression(
    modules: list[nn.Module],
    predict,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> float:
    """Train `modules` so that `predict(inputs)` gives the standardised `targets`; the last tenth is held out.

    Returns:
        The mean R2 over targets on the held-out tenth.
    """
    num_train = len(inputs) - len(inputs) // 10
    mean, std = targets[:num_train].mean(0), targets[:num_train].std(0).clamp(min=1e-3)
    targets = (targets - mean) / std
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    batch_size = min(batch_size, num_train)
    steps_per_epoch = num_train // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps_per_epoch)
    start = time.monotonic()
    score = torch.zeros(())
    for epoch in range(epochs):
        for batch in torch.randperm(num_train)[: steps_per_epoch * batch_size].view(-1, batch_size):
            loss = nn.functional.smooth_l1_loss(predict(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            held_out = torch.cat([predict(batch) for batch in inputs[num_train:].split(128)])
        score = explained_variance(held_out, targets[num_train:])
        logger.info(
            "  epoch %d of %d: held-out R2 mean %.3f, lowest %.3f (%.0f s).",
            epoch + 1, epochs, score.mean(), score.min(), time.monotonic() - start,
        )  # fmt: skip
    return float(score.mean())


def train_vision(
    config: AffectGPTConfig, processor: AffectGPTProcessor, *, seed: int, num_people: int, epochs: int, qformer_epochs: int
) -> dict:
    """Vision tower, then image Q-Former on the frozen tower -> their state dicts under the model's names."""
    images, geometry = _in_parallel(_draw_faces, [(seed, person, 12) for person in range(num_people)])
    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    geometry = torch.from_numpy(geometry)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )

    def normalise(batch):
        # A little noise, since clips come through a video codec.
        pixels = batch.float() / 255
        return (pixels + 0.02 * torch.randn(len(pixels), 1, 1, 1) + 0.01 * torch.randn_like(pixels) - mean) / std

    tower = Blip2VisionModel(config.vision_config)
    tower.post_layernorm.eps = config.vision_norm_eps
    with torch.no_grad():
        tower.embeddings.position_embedding[:, 1:] = 0.3 * grid_positions(
            IMAGE_SIZE // PATCH_SIZE, config.vision_config.hidden_size
        )
    num_tokens = (IMAGE_SIZE // PATCH_SIZE) ** 2
    head = nn.Linear(num_tokens * config.vision_config.hidden_size, geometry.shape[1])
    logger.info("Vision tower: %d drawings of %d identities.", len(images), num_people)
    fit_regression(
        [tower, head],
        lambda batch: head(tower(normalise(batch)).last_hidden_state[:, 1:].flatten(1)),
        images, geometry, epochs=epochs, batch_size=32, learning_rate=1.5e-3,
    )  # fmt: skip

    tower.requires_grad_(False).eval()
    with torch.no_grad():
        tokens = torch.cat([tower(normalise(batch)).last_hidden_state for batch in images.split(256)])
    qformer = AffectGPTImageQFormer(config)
    nn.init.normal_(qformer.query_tokens, std=config.initializer_range)
    head = nn.Linear(config.num_image_query_tokens * config.image_qformer_config.hidden_size, geometry.shape[1])
    logger.info("Image Q-Former on the frozen tower.")
    fit_regression(
        [qformer, head],
        lambda batch: head(qformer(batch).flatten(1)),
        tokens, geometry, epochs=qformer_epochs, batch_size=64, learning_rate=2e-3,
    )  # fmt: skip
    return {f"vision_tower.{k}": v for k, v in tower.state_dict().items()} | {
        f"image_qformer.{k}": v for k, v in qformer.state_dict().items()
    }


def grid_positions(side: int, width: int) -> torch.Tensor:
    """Sine and cosine of each patch's row and column: `(side * side, width)`."""
    frequencies = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def train_audio(config: AffectGPTConfig, *, seed: int, num_sounds: int, epochs: int) -> dict:
    """The audio tower -> its state dict under the model's names."""
    chunk = 100
    mels, prosody = _in_parallel(_speak, [(seed, index, chunk) for index in range(max(1, num_sounds // chunk))])
    mels, prosody = torch.from_numpy(mels), torch.from_numpy(prosody).float()
    tower = ImageBindAudioModel(config.audio_config)
    head = nn.Linear(NUM_AUDIO_CLIPS * config.audio_config.embed_dim, prosody.shape[1])
    logger.info("Audio tower: %d sentences.", len(mels))
    fit_regression(
        [tower, head],
        lambda batch: head(tower(batch.float()).pooler_output.flatten(1)),
        mels, prosody, epochs=epochs, batch_size=32, learning_rate=1e-3,
    )  # fmt: skip
    return {f"audio_tower.{k}": v for k, v in tower.state_dict().items()}


def scene_text(processor: AffectGPTProcessor, scene: scenarios.Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Prompt and answer of a scene in which clue words stand where the media will stand (SKETCH recipe, point 4)."""
    language, other = ("zh", "en") if rng.random() < CHINESE_SHARE else ("en", "zh")
    clues, conclusion = scenarios.tell(scene, language)
    subtitles = dict(zip(scenarios.SPOKEN, scene.sentence, strict=True))
    subtitle = subtitles[other if rng.random() < OTHER_SHARE else language]
    given = {name: rng.random() >= MISSING_SHARE for name in clues}
    question = processor.default_question if language == "en" else f"{processor.default_question} {IN_CHINESE}"
    prompt = processor.render_prompt(
        video=given["video"], audio=given["audio"], subtitle=subtitle if given["text"] else None, question=question
    )
    words = scenarios.clue_words(scene)
    for name, token in (("video", processor.video_token), ("audio", processor.audio_token)):
        told = ["unclear"] if rng.random() < UNCLEAR_SHARE else words[name]
        prompt = prompt.replace(token, " " + " ".join(told))
    return prompt, join({name: clue for name, clue in clues.items() if given[name]}, conclusion, language)


def excerpt_text(processor: AffectGPTProcessor, scene: scenarios.Scene, rng: np.random.Generator) -> tuple[str, str]:
    """One slot of a scene's prompt, and the sentence that it leads to; of the words only what they do, which needs no face."""
    language = "zh" if rng.random() < CHINESE_SHARE else "en"
    clues, _ = scenarios.tell(scene, language)
    name = ("video", "audio", "text")[rng.integers(3)]
    if name == "text":
        filled, sentence = (
            f"<Subtitle>{scene.sentence[scenarios.SPOKEN.index(language)]}</Subtitle>",
            _FIRST_CLAUSE.match(clues[name])[0],
        )
    else:
        tag = {"video": "Video", "audio": "Audio"}[name]
        filled, sentence = f"<{tag}> {' '.join(scenarios.clue_words(scene)[name])}</{tag}>", clues[name]
    return f"{filled}. {IN_CHINESE if language == 'zh' else ''} ###Assistant: ", sentence


def train_language_model(config: AffectGPTConfig, processor: AffectGPTProcessor, *, seed: int, steps: int) -> dict:
    """The language model on scenes in words -> its state dict under the model's names.

    The first third of the steps is on excerpts, which are short: many more sentences and clue words pass than whole scenes would
    hold, and that is what it takes to learn what each stands for.
    """
    model = LlamaForCausalLM(config.text_config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    logger.info("Language model: %d steps, %d parameters.", steps, model.num_parameters())
    start, pad = time.monotonic(), processor.tokenizer.pad_token_id
    for step, rows in enumerate(text_batches(processor, seed=seed, steps=steps)):
        length = max(map(len, rows))
        input_ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
        attention_mask = (input_ids != pad).long()
        loss = model(input_ids, attention_mask=attention_mask, labels=input_ids.masked_fill(attention_mask == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            logger.info("  step %d of %d: loss %.3f (%.0f s).", step + 1, steps, loss.item(), time.monotonic() - start)
    return {f"language_model.{k}": v for k, v in model.model.state_dict().items()}


def text_batches(processor: AffectGPTProcessor, *, seed: int, steps: int) -> Iterator[list[list[int]]]:
    """Token ids of prompt and answer, row by row: a third of the batches of excerpts, the rest of whole scenes."""
    rng = np.random.default_rng([seed, 7])
    num_excerpts, num_scenes = steps // 3 * EXCERPTS, (steps - steps // 3) * SCENES
    scenes = scenarios.sample_scenes("coarse", max(num_excerpts, num_scenes), seed=seed)
    for text, count, batch_size in ((excerpt_text, num_excerpts, EXCERPTS), (scene_text, num_scenes, SCENES)):
        for begin in range(0, count, batch_size):
            rows = []
            for scene in scenes[begin : begin + batch_size]:
                prompt, answer = text(processor, scene, rng)
                ids = processor.tokenizer([prompt, answer + processor.stop_string], add_special_tokens=False)["input_ids"]
                rows.append([processor.tokenizer.bos_token_id, *ids[0], *ids[1]])
            yield rows


def scale_projections(model: AffectGPTForConditionalGeneration) -> None:
    """Let the resamplers' tokens start at the scale of word embeddings (SKETCH recipe, point 5)."""
    word_std = model.get_input_embeddings().weight.detach().std()
    for resampler in (model.model.video_resampler, model.model.audio_resampler):
        nn.init.normal_(resampler.projection.weight, std=float(word_std) / math.sqrt(resampler.projection.in_features))
        nn.init.zeros_(resampler.projection.bias)


def made_parts(parts: Path, args: argparse.Namespace) -> tuple[AffectGPTConfig, AffectGPTProcessor, dict]:
    """Configuration, processor and weights of what stays frozen, each part from its file in `parts` if it is there."""
    parts.mkdir(parents=True, exist_ok=True)
    set_seed(args.seed)
    texts = []
    tokenizer_seed_scenes = scenarios.sample_scenes("coarse", 3000, seed=args.seed)
    probe = make_processor(make_tokenizer([], []))
    for index, scene in enumerate(tokenizer_seed_scenes):
        texts.extend(scene_text(probe, scene, np.random.default_rng([args.seed, index])))
    processor = make_processor(make_tokenizer(texts, prompt_phrases(probe)))
    config = sketch_config(processor.tokenizer)

    makers = {
        "vision": lambda: train_vision(
            config,
            processor,
            seed=args.seed,
            num_people=args.num_people,
            epochs=args.vision_epochs,
            qformer_epochs=args.qformer_epochs,
        ),
        "audio": lambda: train_audio(config, seed=args.seed, num_sounds=args.num_sounds, epochs=args.audio_epochs),
        "text": lambda: train_language_model(config, processor, seed=args.seed, steps=args.text_steps),
    }
    state = {}
    for name, make in makers.items():
        path = parts / f"{name}.safetensors"
        if path.exists():
            logger.info("%s is there already: %s.", name.capitalize(), path)
        else:
            set_seed(args.seed)
            save_file({key: value.contiguous() for key, value in make().items()}, path.with_suffix(".partial"))
            path.with_suffix(".partial").rename(path)
        state |= load_file(path)
    return config, processor, state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="Folder of the checkpoint to make.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-people", type=int, default=3000, help="Identities whose drawings the vision tower learns from.")
    parser.add_argument("--vision-epochs", type=int, default=4)
    parser.add_argument("--qformer-epochs", type=int, default=8, help="Of the image Q-Former, on the frozen tower.")
    parser.add_argument("--num-sounds", type=int, default=6000, help="Spoken sentences the audio tower learns from.")
    parser.add_argument("--audio-epochs", type=int, default=6)
    parser.add_argument("--text-steps", type=int, default=2400, help="Steps of the language model.")
    parser.add_argument(
        "--frozen-from",
        metavar="CHECKPOINT",
        help="Take the frozen parts of this checkpoint, e.g. the shipped one; nothing learns here.",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    output = Path(args.output)
    if args.frozen_from is None:
        config, processor, state = made_parts(output.with_name(output.name + "-parts"), args)
    else:
        trained, processor = load_model(args.frozen_from)
        config, state = trained.config, trained.model.state_dict()

    set_seed(args.seed)
    model = AffectGPTForConditionalGeneration(config)
    untrained = {k: v for k, v in model.model.state_dict().items() if k.startswith(("video_resampler.", "audio_resampler."))}
    model.model.load_state_dict(state | untrained)
    scale_projections(model)
    model.generation_config = GenerationConfig(
        max_new_tokens=200,
        do_sample=False,
        stop_strings=[processor.stop_string],
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    model.save_pretrained(output)
    processor.save_pretrained(output)
    logger.info("Saved %s with %d parameters.", output, model.num_parameters())


if __name__ == "__main__":
    main()
