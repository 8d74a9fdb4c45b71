"""What people say in EMER-Sketch, and how a clip is described, in English and Chinese.

A description goes through what is seen over time, what is heard and what the words mean given the face, and concludes; the opening
of each part names its modality. The sentences stand in `sentences.tsv`, each in both languages; the held-out ones use only words
that some training sentence has.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import chinese, english
from .grammar import phases_of, side_of

LANGUAGES = {"en": english, "zh": chinese}

SIGNS_OF = {  # expression -> three signs that tell it from the others
    "neutral": ("brows_rest", "mouth_level", "eyes_straight"),
    "smile": ("mouth_smile", "cheeks_up", "eyes_warm"),
    "polite_smile": ("mouth_polite", "brows_rest", "eyes_straight"),
    "laugh": ("mouth_laugh", "cheeks_up", "eyes_shut"),
    "weeping_smile": ("mouth_smile", "brows_inner", "tears"),
    "masking_smile": ("mouth_smile", "brows_inner", "gaze_down"),
    "surprise": ("brows_arch", "mouth_open", "eyes_wide"),
    "feigned_surprise": ("brows_arch", "mouth_open", "lids_droop"),
    "bashful": ("blush", "mouth_polite", "gaze_down"),
    "doubt": ("brow_one", "lips_pushed", "lids_tight"),
    "boredom": ("lids_droop", "mouth_level", "gaze_aside"),
    "sadness": ("brows_inner", "mouth_down", "gaze_down"),
    "grief": ("brows_inner", "mouth_down", "tears"),
    "fear": ("brows_inner", "lips_stretched", "eyes_wide"),
    "worry": ("brows_inner", "lips_pressed", "gaze_aside"),
    "scowl": ("brows_low", "lips_pressed", "lids_tight"),
    "snarl": ("brows_low", "teeth", "eyes_wide"),
    "disgust": ("nose", "upper_lip", "gaze_aside"),
    "smirk": ("mouth_one", "brow_one", "gaze_aside"),
    "pout": ("lips_pushed", "brows_low", "gaze_down"),
}

# Words that stand for a sign or a voice where the media will stand, when the language model is pretrained.
_SIGN_WORDS = {
    "brows_rest": "smooth rest",
    "brows_inner": "inner slant",
    "brows_arch": "arch jump",
    "brow_one": "single raised",
    "brows_low": "lower frown",
    "eyes_straight": "straight even",
    "eyes_warm": "crinkle warm",
    "eyes_shut": "shut squeeze",
    "eyes_wide": "wide whites",
    "lids_tight": "tight slits",
    "lids_droop": "droop heavy",
    "gaze_down": "down bowed",
    "gaze_aside": "aside away",
    "tears": "tears wet",
    "cheeks_up": "cheeks push",
    "blush": "red blush",
    "mouth_level": "level closed",
    "mouth_smile": "upward corners",
    "mouth_polite": "polite curve",
    "mouth_laugh": "laugh open",
    "mouth_one": "one side",
    "mouth_down": "sink turned",
    "lips_pressed": "pressed thin",
    "lips_stretched": "stretch flat",
    "lips_pushed": "pucker forward",
    "mouth_open": "jaw round",
    "teeth": "teeth bared",
    "nose": "nose wrinkle",
    "upper_lip": "curl upper",
}
_VOICE_WORDS = {
    "calm": "even steady smooth relaxed unhurried gently",
    "bright": "high lively quick ringing leaps swings",
    "dull": "monotonous slow dark dragging low note",
    "harsh": "loud hard rough sharp force grating",
    "trembling": "shaky wavering unsteady quiver quavering shaking",
    "breathy": "breathy soft airy hushed whisper air",
    "hesitant": "halting broken stumbling interrupted pauses gaps",
    "laughing": "chuckling giggling bouncing bubbling laughter bursts",
}


@dataclass(frozen=True)
class Impression:
    """What somebody takes a clip for: all that a description of it depends on.

    Attributes:
        course: of the face, one of `grammar.COURSES`; `timing` of `actions.TIMINGS`, or "turn".
        level, voice_level: how much of it shows and sounds, of `grammar.LEVELS`.
    """

    course: str
    level: str
    timing: str
    voice: str
    voice_level: str
    text_act: str


@functools.cache
def sentences() -> dict[str, dict[str, tuple[tuple[str, str], ...]]]:
    """Text act -> "train" or "held_out" -> pairs of an English sentence and its Chinese."""
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for line in Path(__file__).with_name("sentences.tsv").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            act, part, *pair = line.split("\t")
            found.setdefault(act, {}).setdefault(part, []).append(tuple(pair))
    return {act: {part: tuple(pairs) for part, pairs in parts.items()} for act, parts in found.items()}


def describe(
    impression: Impression, labels: list[str], rng: np.random.Generator, *, language: str = "en"
) -> tuple[dict[str, str], str]:
    """Say in four sentences what is seen, heard and meant, and what follows.

    Args:
        impression (`Impression`): what is described.
        labels (`list[str]`): the English labels that it ends with.
        rng (`np.random.Generator`): chooses among the phrases.
        language (`str`): "en" or "zh".

    Returns:
        `dict[str, str]`, `str`: the sentences about "video", "audio" and "text" in this order, and the conclusion.
    """
    phrases = LANGUAGES[language]
    clues = {
        "video": _seen(impression, rng, language),
        "audio": _heard(impression, rng, language),
        "text": _pick(phrases.SAID, rng).format(
            act=_pick(phrases.ACTS[impression.text_act], rng),
            given=_pick(phrases.GIVEN, rng),
            meaning=_pick(phrases.MEANINGS[impression.text_act][side_of(impression.course)], rng),
        ),
    }
    opener, subject, verb = (_pick(choices, rng) for choices in (phrases.OPENERS, phrases.SUBJECTS, phrases.VERBS))
    if language == "zh":
        named = [chinese.LABELS[label] for label in labels]
        return clues, f"{opener}，{subject}{verb.format(_listed_in_chinese(named))}。"
    clues["text"] = clues["text"][0].upper() + clues["text"][1:]
    return clues, f"{opener}, {subject} {verb} {_listed(labels)}."


def join(clues: dict[str, str], conclusion: str, language: str = "en") -> str:
    """The description that sentences and conclusion make."""
    return ("" if language == "zh" else " ").join([*clues.values(), conclusion])


def _listed(labels: list[str]) -> str:
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def _listed_in_chinese(labels: list[str]) -> str:
    return "和".join(["、".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def _seen(impression: Impression, rng: np.random.Generator, language: str) -> str:
    phrases = LANGUAGES[language]
    degree = "" if impression.course == "neutral" else _pick(phrases.FACE_DEGREES[impression.level], rng)
    space = "" if language == "zh" else " "

    def told(signs, degrees) -> list[str]:
        ways = [_pick(phrases.SIGNS[sign], rng) for sign in signs]
        return [way.replace("|", space + more + space if more else space) for way, more in zip(ways, degrees, strict=True)]

    opening = _pick(phrases.SEEN_OPENINGS, rng)
    expressions = phases_of(impression.course)
    if len(expressions) == 1:
        first, second, third = told(SIGNS_OF[impression.course], (degree, "", ""))
        timing = _pick(phrases.STILL if impression.course == "neutral" else phrases.TIMINGS[impression.timing], rng)
        if language == "zh":
            return f"{opening}{first}，{second}，{third}，{timing}。"
        return f"{opening}{first}, {second} and {third}, {timing}."
    # Of each phase two of its signs, in their order.
    pairs = []
    for expression in expressions:
        left_out = rng.integers(3)
        signs = [sign for place, sign in enumerate(SIGNS_OF[expression]) if place != left_out]
        pairs.append(told(signs, ("" if expression == "neutral" else degree, "")))
    (one, two), (three, four) = pairs
    before, after = _pick(phrases.FIRST, rng), _pick(phrases.THEN, rng)
    if language == "zh":
        return f"{opening}{before}{one}，{two}{after}{three}，{four}。"
    return f"{opening}{before}{one} and {two}{after}{three} and {four}."


def _heard(impression: Impression, rng: np.random.Generator, language: str) -> str:
    phrases = LANGUAGES[language]
    qualities, doings = phrases.HEARD[impression.voice]
    first, second = (qualities[place] for place in rng.permutation(len(qualities))[:2])
    degree = _pick(phrases.VOICE_DEGREES[impression.voice_level], rng)
    opening, doing = _pick(phrases.HEARD_OPENINGS, rng), _pick(doings, rng)
    if language == "zh":
        return f"{opening}{degree}{first}、{second}，{doing}。"
    return f"{opening} {degree}{first} and {second}, {doing}."


def face_words(course: str, level: str, timing: str, rng: np.random.Generator) -> list[str]:
    """Words that fix a course of the face, how much it shows and when, shuffled within each phase; "then" parts two phases."""
    words: list[str] = []
    expressions = phases_of(course)
    for number, expression in enumerate(expressions):
        own = [word for sign in SIGNS_OF[expression] for word in _SIGN_WORDS[sign].split()]
        own = [str(word) for word in rng.permutation(own)[: 5 if len(expressions) == 1 else 4]]
        words += ["then", *own] if number else own
    if course == "neutral":
        return words
    degree = "slightly" if level == "slight" else "strongly"
    return [degree, *words] if timing == "turn" else [degree, timing, *words]


def voice_words(voice: str, level: str, rng: np.random.Generator) -> list[str]:
    """Five words that fix a voice and how much of it there is, the degree first."""
    own = [str(word) for word in rng.permutation(_VOICE_WORDS[voice].split())[:4]]
    return ["slightly" if level == "slight" else "clearly", *own]


def _pick(choices, rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]
