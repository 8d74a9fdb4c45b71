"""Scenes of the drawn world, their truth as corpus rows, and how a hurried annotator misreads them."""

from dataclasses import dataclass

import numpy as np

from .actions import TIMINGS, Course
from .faces import Identity
from .grammar import COMBINATIONS, LEVELS, Combination, is_held_out, labels_of, phases_of
from .text import Impression, describe, face_words, join, sentences, voice_words
from .voices import Speaker

SPLITS = ("coarse", "fine_train", "fine_test", "test")
SPOKEN = ("en", "zh")
# Of a scene's seed; render.py uses others.
DESCRIPTION_STREAMS, CLUE_STREAM = {"en": 10, "zh": 11}, 12
MISREAD_RATE = 0.3  # of faces, and of voices, by whoever annotates the coarse split

# What a hurried annotator takes an expression or a voice for.
FACE_CONFUSIONS = {
    "neutral": ("boredom", "polite_smile", "doubt"),
    "smile": ("polite_smile", "laugh", "smirk"),
    "polite_smile": ("smile", "neutral", "smirk"),
    "laugh": ("smile", "snarl", "weeping_smile"),
    "weeping_smile": ("grief", "smile", "masking_smile"),
    "masking_smile": ("smile", "polite_smile", "sadness"),
    "surprise": ("fear", "feigned_surprise", "laugh"),
    "feigned_surprise": ("surprise", "boredom", "doubt"),
    "bashful": ("polite_smile", "sadness", "masking_smile"),
    "doubt": ("smirk", "scowl", "pout"),
    "boredom": ("neutral", "sadness", "doubt"),
    "sadness": ("worry", "grief", "boredom"),
    "grief": ("sadness", "weeping_smile", "fear"),
    "fear": ("surprise", "worry", "snarl"),
    "worry": ("sadness", "fear", "doubt"),
    "scowl": ("pout", "snarl", "doubt"),
    "snarl": ("scowl", "disgust", "fear"),
    "disgust": ("snarl", "smirk", "scowl"),
    "smirk": ("polite_smile", "doubt", "disgust"),
    "pout": ("scowl", "sadness", "doubt"),
}
VOICE_CONFUSIONS = {
    "calm": ("dull", "breathy"),
    "bright": ("calm", "laughing"),
    "dull": ("breathy", "calm"),
    "harsh": ("bright", "trembling"),
    "trembling": ("hesitant", "laughing"),
    "breathy": ("dull", "trembling"),
    "hesitant": ("trembling", "calm"),
    "laughing": ("bright", "trembling"),
}


@dataclass(frozen=True)
class Scene:
    """All that fixes one clip and its annotation. Intensities are in [0, 1]; `seed` drives whatever chance is left.

    `course`, `level`, `timing`, `voice`, `voice_level` and `text_act` are what is true of it; `intensity` and `voice_intensity` lie
    within their levels; `sentence` is what is said, in English and Chinese, and `spoken` the language in which it is.
    """

    name: str
    seed: int
    course: str
    level: str
    intensity: float
    timing: str
    voice: str
    voice_level: str
    voice_intensity: float
    text_act: str
    sentence: tuple[str, str]
    spoken: str
    identity: Identity
    speaker: Speaker

    @property
    def movement(self) -> Course:
        """What the face does, as the drawing takes it."""
        return Course(phases_of(self.course), self.intensity, self.timing)

    @property
    def words(self) -> str:
        """The sentence in the language in which it is spoken."""
        return self.sentence[SPOKEN.index(self.spoken)]

    @property
    def combination(self) -> Combination:
        return self.course, self.voice, self.text_act

    @property
    def truth(self) -> Impression:
        return Impression(self.course, self.level, self.timing, self.voice, self.voice_level, self.text_act)


def sample_scenes(split: str, count: int, seed: int) -> list[Scene]:
    """Draw the first `count` scenes of a split. Scene k is the same whatever `count` is.

    "coarse" and "fine_train" have seen combinations and training sentences, "test" held-out combinations, "fine_test" all of them;
    both test splits have held-out sentences. Every combination comes up equally often; every scene has a person of its own.

    Raises:
        ValueError: if `split` is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"Expected a split among {', '.join(SPLITS)}, got {split!r}. Use one of these names.")
    stream = [seed, SPLITS.index(split)]
    held_out = {"coarse": (False,), "fine_train": (False,), "fine_test": (False, True), "test": (True,)}[split]
    combinations = [combination for combination in COMBINATIONS if is_held_out(*combination) in held_out]
    order = np.random.default_rng(stream)
    rounds = [order.permutation(len(combinations)) for _ in range(-(-count // len(combinations)))]
    part = "held_out" if split in ("fine_test", "test") else "train"
    return [
        _scene(f"{split}_{index:05d}", combinations[place], part, np.random.default_rng([*stream, 1 + index]))
        for index, place in enumerate(np.concatenate(rounds)[:count] if rounds else [])
    ]


def _scene(name: str, combination: Combination, part: str, rng: np.random.Generator) -> Scene:
    course, voice, text_act = combination
    pairs = sentences()[text_act][part]
    level, voice_level = (list(LEVELS)[rng.integers(len(LEVELS))] for _ in range(2))
    return Scene(
        name=name,
        seed=int(rng.integers(2**31)),
        course=course,
        level=level,
        intensity=float(rng.uniform(*LEVELS[level])),
        timing="turn" if len(phases_of(course)) > 1 else TIMINGS[rng.integers(len(TIMINGS))],
        voice=voice,
        voice_level=voice_level,
        voice_intensity=float(rng.uniform(*LEVELS[voice_level])),
        text_act=text_act,
        sentence=pairs[rng.integers(len(pairs))],
        spoken=SPOKEN[rng.integers(len(SPOKEN))],
        identity=Identity.sample(rng),
        speaker=Speaker.sample(rng),
    )


def misread(scene: Scene, rng: np.random.Generator) -> Impression:
    """What an imperfect annotator takes a scene for.

    With probability `MISREAD_RATE` each, an expression is taken for a similar one, of two phases only the last is noticed, and a
    voice is taken for a similar one. The words, which can be read, and the degrees are taken as they are.
    """
    wrong_face, wrong_voice = rng.random(2) < MISREAD_RATE
    course, timing, voice = scene.course, scene.timing, scene.voice
    if wrong_face:
        *earlier, last = phases_of(course)
        course = last if earlier else _another(FACE_CONFUSIONS[last], rng)
        timing = "late" if earlier else timing
    if wrong_voice:
        voice = _another(VOICE_CONFUSIONS[voice], rng)
    return Impression(course, scene.level, timing, voice, scene.voice_level, scene.text_act)


def _another(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]


def row_of(scene: Scene, seen: Impression | None = None) -> dict:
    """The corpus row of a scene, all but its `video`.

    Args:
        scene (`Scene`): the scene.
        seen (`Impression`, *optional*): what the annotator believed (`misread`); descriptions and labels follow it. The truth by
            default.

    Returns:
        `dict`: `name`, `subtitle`, `subtitle_zh`, `description`, `description_zh`, `labels`, `clues`, `provenance`.
    """
    seen = seen or scene.truth
    labels = labels_of(seen.course, seen.level, seen.voice, seen.text_act)
    told = {language: tell(scene, language, seen) for language in SPOKEN}
    subtitle, subtitle_zh = scene.sentence
    return {
        "name": scene.name,
        "subtitle": subtitle,
        "subtitle_zh": subtitle_zh,
        "description": join(*told["en"]),
        "description_zh": join(*told["zh"], "zh"),
        "labels": labels,
        "clues": told["en"][0],
        "provenance": {
            "source": "EMER-Sketch",
            "seed": str(scene.seed),
            "expression": scene.course,
            "level": scene.level,
            "timing": scene.timing,
            "voice": scene.voice,
            "voice_level": scene.voice_level,
            "text_act": scene.text_act,
            "spoken": scene.spoken,
            "seen_expression": seen.course,
            "seen_voice": seen.voice,
        },
    }


def tell(scene: Scene, language: str, seen: Impression | None = None) -> tuple[dict[str, str], str]:
    """The sentences of a scene's description by modality, and its conclusion, in "en" or "zh"; as `seen`, or as it is."""
    seen = seen or scene.truth
    labels = labels_of(seen.course, seen.level, seen.voice, seen.text_act)
    rng = np.random.default_rng([scene.seed, DESCRIPTION_STREAMS[language]])
    return describe(seen, labels, rng, language=language)


def clue_words(scene: Scene) -> dict[str, list[str]]:
    """A few words per modality that fix its clue: they stand in the media slots when the language model is pretrained.

    Returns:
        `dict[str, list[str]]`: "video" and "audio", lower-case words.
    """
    rng = np.random.default_rng([scene.seed, CLUE_STREAM])
    return {
        "video": face_words(scene.course, scene.level, scene.timing, rng),
        "audio": voice_words(scene.voice, scene.voice_level, rng),
    }
