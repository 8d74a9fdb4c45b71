"""Explanations, not only labels: what an answer states about face, voice and words, held against what EMER-Sketch shows.

The truth comes from the scene, not from the text that a model learnt from: the action units of the drawn face, the prosody of the
synthetic voice, what the sentence does and means. An answer is read by what it states: its sentences about a modality
(`affectgpt.labels.split_clues`) are cut into clauses, and a clause gives aspects of face or voice a value ("one brow goes up":
brows, one raised), in whatever words of `_STATES`.

A statement is *right*; *contradicted*, if the clip has the opposite (a faint voice called loud) or if it denies what is plain there
(a scowl whose brows are said to rest); or *unsupported*, if it tells of something that is not there. Degrees ("slightly") and the
course over time are not judged; where one expression turns into another, what either shows is there. What the words mean given the
face is looked up among the phrases of `sketch/english.py`, in any order of words.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from affectgpt.labels import split_clues
from affectgpt.lexicon import load_entries, synonym_sets
from affectgpt.metrics import bootstrap_interval

from .sketch.actions import EXPRESSIONS, read_action_units
from .sketch.english import MEANINGS
from .sketch.grammar import SIDES, STANCE, phases_of, side_of
from .sketch.voices import VOICES

SOURCE = "EMER-Sketch"  # `provenance.source` of rows whose scenes are known
MODALITIES = {"video": "face", "audio": "voice", "text": "words"}
RIGHT, CONTRADICTED, UNSUPPORTED = "right", "contradicted", "unsupported"

REST = "at rest"
# Strength, of 0 to 1, from which something may be stated, and from which a description that leaves it out is incomplete.
_THERE, _PLAIN = 0.15, 0.5
_SHUT = 0.75  # of a blink, beyond which lids no longer droop
# Valence, of -1 to 1, beyond which a meaning is a good or a bad one.
_CLEAR_VALENCE = 0.3


def _any(*alternatives: str) -> re.Pattern:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b")


_UP = (
    r"(?:rais(?:e|es|ed|ing)|ris(?:e|es|en|ing)|lift(?:s|ed|ing)?|arch(?:es|ed|ing)?|curls?|curled|"
    r"(?:go|goes|going|jump|pull|push|shoot|slant|turn|curve|quirk)(?:s|es|ed|ing)?(?: \w+)? (?:up|upward|upwards)|upturned)"
)
_DOWN = r"(?:lower(?:s|ed|ing)?|sinks?|sunk|drop(?:s|ped|ping)?|fall(?:s|ing)?|down|downward|downwards|downturned)"
_STILL = r"(?:rest(?:s|ing)?|relaxed|level|straight|even|neutral|still|smooth|hardly moves?|does not move|do not move)"
_BROWS = r"(?:(?:eye)?brows?|forehead)\b"
_EYES = r"(?:eyes?|lids?|eyelids?|look|stare)\b"
_LIPS = r"(?:lips?|mouth)\b"
# Parts named after others, as one word each, lest "the corners of the mouth drop" be read of the mouth.
_PARTS = [
    (re.compile(r"(?:lip|mouth) corner(s?)|corner(s?) of (?:the|her|his|their) (?:mouth|lips)"), r"lipcorner\1\2"),
    (re.compile(r"upper lip\b"), "upperlip"),
]
_CORNERS = r"lipcorners?\b"

# modality -> aspect -> value -> what states it within a clause
_STATES: dict[str, dict[str, dict[str, re.Pattern]]] = {
    "video": {
        "brows": {
            "one raised": _any(
                rf"(?:one|a single|only one) (?:eye)?brow\b.*{_UP}", r"(?:one|a single) (?:raised|arched) (?:eye)?brow"
            ),
            "raised": _any(rf"{_BROWS}.*{_UP}", r"(?:raised|arched|lifted) (?:eye)?brows"),
            "lowered": _any(rf"{_BROWS}.*{_DOWN}", r"lowered (?:eye)?brows", r"frowns?", r"frowning"),
            "together": _any(
                rf"{_BROWS}.*\b(?:together|knit(?:ted)?|furrow(?:s|ed)?)",
                r"(?:knitted|furrowed) (?:eye)?brows?",
                r"frowns?",
                r"frowning",
            ),
            REST: _any(rf"{_BROWS}.*\b{_STILL}"),
        },
        "eyes": {
            "shut": _any(r"(?:eyes?|lids|eyelids)\b.*\b(?:shut|closes? tightly|closed tightly)", r"closed eyes"),
            "wide": _any(
                rf"{_EYES}.*\b(?:wide(?:n|ns|ned)?|round|whites|shoot up|open)", r"(?:wide|widened|round) eyes", r"wide-eyed"
            ),
            "narrowed": _any(
                rf"{_EYES}.*\b(?:narrow(?:s|ed)?|tight(?:en|ens|ened)?|crinkle[sd]?|squint(?:s|ed|ing)?|hard|hardens|push up)",
                r"(?:narrowed|squinting|tightened|crinkled) (?:eyes|lids|gaze|look)",
            ),
            "drooping": _any(
                r"(?:drooping|lowered|half-closed|heavy) (?:eyes|lids|eyelids)",
                rf"{_EYES}.*\b(?:droop|half-closed)",
                r"lids\b.*\bhang low",
            ),
            REST: _any(rf"{_EYES}.*\b(?:at rest|relaxed|neutral)"),
        },
        "gaze": {
            "aside": _any(
                r"(?:gaze|eyes?|lids|look|head|glance)\b.*\b(?:aside|away|sideways|to the side|averted)",
                r"(?:looks?|glances?|turns?) (?:aside|away|sideways)",
                r"averted (?:gaze|eyes)",
            ),
            "down": _any(
                r"(?:gaze|eyes|head)\b.*\b(?:down|downcast|bowed)", r"lowered (?:eyes|gaze|head)", r"(?:looks?|looking) down"
            ),
            REST: _any(r"(?:gaze|eyes?|look)\b.*\b(?:ahead|even|steady|directly|into the camera)", r"looks? straight"),
        },
        "cheeks": {
            "raised": _any(rf"cheeks?\b.*{_UP}", r"(?:raised|lifted) cheeks?"),
            REST: _any(rf"cheeks?\b.*\b{_STILL}"),
        },
        "lip corners": {
            "one up": _any(
                rf"one (?:lipcorner|side of (?:the|her|his|their) mouth)\b.*{_UP}",
                rf"{_LIPS}.*{_UP}.*\bone side",
                r"smirk(?:s|ing)?",
            ),
            "up": _any(
                rf"{_CORNERS}.*{_UP}",
                rf"(?<!side of the )mouth\b.*{_UP}(?!.*\bone side)",
                rf"(?<!upper)lips\b.*{_UP}",
                r"upturned (?:mouth|lips)",
                r"smil(?:es?|ing)",
                r"grin(?:s|ning)?",
                r"laugh(?:s|ing)?",
            ),
            "down": _any(rf"{_CORNERS}.*\b{_DOWN}", r"mouth\b.*\b(?:down|downward|downwards|downturned)"),
            REST: _any(rf"{_LIPS}.*\b(?:level|straight|neutral)"),
        },
        "mouth": {
            "open": _any(rf"(?:{_LIPS}|jaw\b).*\b(?:open|opens|round|agape|drops?|dropped)", r"(?:open|gaping) mouth"),
            "pressed": _any(rf"{_LIPS}.*\b(?:press(?:es|ed)?|tight|thin)", r"(?:pressed|tight|thin) lips"),
            "stretched": _any(rf"{_LIPS}.*\b(?:stretch(?:es|ed)?|pulled back|drawn back)", r"stretched (?:lips|mouth)"),
            "pushed out": _any(
                rf"{_LIPS}.*\b(?:push(?:es|ed)? (?:forward|out)|pursed|puckers?|puckered)", r"pursed lips", r"pout(?:s|ing)?"
            ),
            REST: _any(rf"{_LIPS}.*\b(?:rest(?:s|ing)? together|closed|relaxed)"),
        },
        "teeth": {"bared": _any(r"teeth")},
        "blush": {"there": _any(r"blush(?:es|ed|ing)?", r"flush(?:es|ed)?", r"cheeks?\b.*\bred")},
        "nose": {"wrinkled": _any(r"nose\b.*\bwrinkle[sd]?", r"wrinkled nose", r"folds?\b.*\bnose")},
        "upper lip": {"raised": _any(rf"upperlip\b.*{_UP}", r"(?:raised|curled) upperlip")},
        "tears": {"there": _any(r"tears?", r"tearful", r"cry", r"cries", r"crying", r"weep(?:s|ing)?", r"sob(?:s|bing)?")},
        "whole": {
            "still": _any(
                r"hardly any change",
                r"nothing shifts",
                r"(?:neutral|blank|impassive|calm|composed) (?:face|expression|look)",
                r"(?:face|expression)\b.*\b(?:neutral|blank|impassive|calm|composed|still)",
                r"expressionless",
            ),
        },
    },
    "audio": {
        "pitch": {
            "high": _any(r"high(?:er)?(?:-pitched)?", r"shrill", r"raised pitch"),
            "low": _any(r"low(?:er)? (?:note|pitch|tone|voice|register)", r"low-pitched", r"deep(?:er)?"),
        },
        "melody": {
            "lively": _any(r"lively", r"animated", r"wide swings", r"leaps? up and down", r"rising far", r"sing-?song"),
            "flat": _any(r"flat", r"monoton\w+", r"no melody", r"one low note", r"single drawn line", r"toneless"),
            REST: _any(r"pitch moves gently"),
        },
        "pace": {
            "fast": _any(r"quick(?:ly)?", r"fast(?:er)?", r"rapid(?:ly)?", r"hurried(?:ly)?", r"rushed"),
            "slow": _any(r"slow(?:ly|er)?", r"drag(?:s|ging)?", r"drawling"),
            REST: _any(r"unhurried", r"(?:normal|moderate|measured) (?:pace|speed|rate)"),
        },
        "loudness": {
            "loud": _any(r"loud(?:ly|er)?", r"shout(?:s|ed|ing)?", r"yell(?:s|ing)?", r"booming"),
            "soft": _any(
                r"soft(?:ly|er)?", r"faint(?:ly)?", r"quiet(?:ly|er)?", r"hushed", r"whisper(?:s|ed|ing)?", r"thin", r"weak"
            ),
        },
        "timbre": {
            "rough": _any(r"rough", r"hard", r"harsh", r"sharp", r"grating", r"hoarse", r"rasp\w*"),
            "dark": _any(r"dark", r"dull", r"muffled"),
            "ringing": _any(r"ringing", r"bright"),
            "smooth": _any(r"smooth", r"mellow"),
        },
        "steadiness": {
            "trembling": _any(r"shak(?:y|es|ing)", r"trembl\w+", r"waver\w*", r"unsteady", r"quiver\w*", r"quaver\w*"),
            "halting": _any(
                r"halting",
                r"broken",
                r"stumbl\w+",
                r"interrupted",
                r"pauses?",
                r"stops again",
                r"gaps?",
                r"hesita\w+",
                r"stammer\w*",
                r"falter\w*",
            ),
            REST: _any(r"steady", r"even", r"firm", r"level", r"flow", r"fluent(?:ly)?"),
        },
        "laughter": {"there": _any(r"laugh\w*", r"chuckl\w+", r"giggl\w+", r"bubbling")},
        "breath": {"breathy": _any(r"breathy", r"airy", r"much air", r"air runs", r"whisper(?:s|ed|ing)?")},
        "effort": {
            "forced": _any(r"force", r"forceful(?:ly)?", r"hammered", r"emphatic(?:ally)?"),
            "strained": _any(r"strained", r"tense", r"tight"),
            REST: _any(r"relaxed", r"nothing forced"),
        },
        "whole": {"plain": _any(r"(?:calm|plain|ordinary|normal|neutral) (?:voice|tone)", r"(?:voice|tone)\b.*\b(?:calm|neutral)")},
    },
    "text": {
        "act": {
            "praise": _any(r"prais\w+", r"compliment\w*"),
            "good_news": _any(r"good news"),
            "promise": _any(r"promis\w+", r"agrees? to help"),
            "bad_news": _any(r"bad news", r"loss"),
            "complaint": _any(r"complain\w*", r"blames?", r"finds? fault"),
            "warning": _any(r"warn\w*", r"danger"),
            "apology": _any(r"apolog\w+", r"pardon"),
            "remark": _any(r"remark", r"small talk", r"states? a fact"),
        },
    },
}
# On one aspect; "one raised" and "raised" are no opposites, only not the same.
_OPPOSITES = {
    "brows": [("raised", "lowered"), ("one raised", "lowered")],
    "eyes": [("wide", "narrowed"), ("wide", "drooping")],
    "lip corners": [("up", "down"), ("one up", "down")],
    "mouth": [("open", "pressed")],
    "pitch": [("high", "low")],
    "melody": [("lively", "flat")],
    "pace": [("fast", "slow")],
    "loudness": [("loud", "soft")],
    "timbre": [("rough", "smooth"), ("dark", "ringing")],
    "act": [("good_news", "bad_news"), ("praise", "complaint")],
}
_NEGATION = re.compile(r"\b(?:no|not|never|without|neither|nor|hardly|nothing)\b|n[’']t\b")
_UNMOVED = re.compile(r"\b(?:hardly|do not|does not|never) (?:move|moves|shift|shifts|change|changes)\b")
_CLAUSE_END = re.compile(
    r"[,;:.!?]|\bwhile\b|\bwith (?=(?:the|her|his|their|its)\b)|\band (?=(?:the|one|an?|both|her|his|their|its|tears?|folds|heavy|"
    r"eyes|(?:eye)?brows|lips|mouth|cheeks|nose|head|gaze|voice|pitch)\b)"
)


@dataclass(frozen=True)
class Statement:
    """What a clause says of one aspect of a clip, and whether that is so: `RIGHT`, `CONTRADICTED` or `UNSUPPORTED`."""

    modality: str
    aspect: str
    value: str
    verdict: str
    truth: str  # what is there instead, or too

    def __str__(self) -> str:
        return f"{MODALITIES[self.modality]}, {self.aspect} {self.value}: {self.verdict} (there: {self.truth})"


@dataclass(frozen=True)
class ClipClues:
    """One answer about one clip.

    Attributes:
        statements (`list[Statement]`): each once.
        recalled (`dict[str, tuple[int, int]]`): modality -> how many of its plain aspects the answer has right, and how many there
            are.
    """

    statements: list[Statement]
    recalled: dict[str, tuple[int, int]]

    def counts(self, modality: str) -> tuple[int, int, int, int, int]:
        """Statements about a modality, those right, those contradicted; plain aspects recalled, plain aspects."""
        verdicts = [statement.verdict for statement in self.statements if statement.modality == modality]
        return (len(verdicts), verdicts.count(RIGHT), verdicts.count(CONTRADICTED), *self.recalled[modality])


@dataclass(frozen=True)
class ClueScore:
    """Of one modality, over clips; each figure in [0, 1] with its 95 % bootstrap interval over clips.

    Attributes:
        precision: share of statements that are right; `None` where nothing was stated.
        recall: share of what is plain in the clips that is stated.
        contradicted: share of statements that the clip contradicts; `None` where nothing was stated.
        num_statements (`int`), num_silent (`int`): statements in all, clips of which nothing was stated in this modality.
    """

    precision: tuple[float, float, float] | None
    recall: tuple[float, float, float]
    contradicted: tuple[float, float, float] | None
    num_statements: int
    num_silent: int
    num_clips: int


Strengths = dict[str, dict[str, float]]  # aspect -> value -> how much of it there is, in [0, 1]


@dataclass(frozen=True)
class SceneTruth:
    """`phases[modality]` is how much of each value there is, one after the other; `meaning` is the act and the label it earns."""

    phases: dict[str, list[Strengths]] = field(repr=False)
    meaning: tuple[str, str]

    def there(self, modality: str, aspect: str, least: float) -> list[str]:
        """The values of an aspect of which there is at least so much in any phase."""
        values = [
            value for phase in self.phases[modality] for value, strength in phase.get(aspect, {}).items() if strength >= least
        ]
        return list(dict.fromkeys(values))

    def rests(self, modality: str, aspect: str) -> bool:
        """Whether there is a phase in which nothing of an aspect is plain."""
        return any(max(phase.get(aspect, {}).values(), default=0.0) < _PLAIN for phase in self.phases[modality])


def scene_truth(provenance: Mapping[str, str]) -> SceneTruth:
    """What is to be seen, heard and understood in a clip of EMER-Sketch.

    Args:
        provenance: of its row; `expression`, `voice` and `text_act` are read.

    Raises:
        ValueError: if the row is of another corpus.
    """
    if provenance["source"] != SOURCE:
        raise ValueError(f"Expected a row of {SOURCE}, whose scenes are known, got one of {provenance['source']}.")
    course, act = provenance["expression"], provenance["text_act"]
    phases = {
        "video": [_with_whole(_face(expression), "still") for expression in phases_of(course)],
        "audio": [_with_whole(_voice(provenance["voice"]), "plain")],
        "text": [{"act": {act: 1.0}}],
    }
    return SceneTruth(phases, (act, STANCE[act][SIDES.index(side_of(course))]))


def _with_whole(strengths: Strengths, name: str) -> Strengths:
    is_plain = any(value >= _PLAIN for values in strengths.values() for value in values.values())
    return strengths | {"whole": {name: 0.0 if is_plain else 1.0}}


def _face(expression: str) -> Strengths:
    au = read_action_units(EXPRESSIONS[expression])
    brows = (au["outer_brow_raise_left"], au["outer_brow_raise_right"])
    corners = (au["lip_corner_up_left"], au["lip_corner_up_right"])
    one_brow, one_corner = max(brows) - min(brows), max(corners) - min(corners)
    return {
        "brows": {
            "one raised": one_brow if au["inner_brow_raise"] < _PLAIN else 0.0,
            "raised": max(au["inner_brow_raise"], min(brows)),
            # Below that, the brows are drawn together without sinking.
            "lowered": au["brow_lower"] if au["brow_lower"] >= _PLAIN else 0.0,
            "together": au["brow_lower"],
        },
        "eyes": {
            "shut": au["blink"] if au["blink"] > _SHUT else 0.0,
            "wide": au["lid_raise"],
            "narrowed": max(au["lid_tighten"], au["cheek_raise"]),
            "drooping": au["blink"] if au["blink"] <= _SHUT else 0.0,
        },
        "gaze": {"aside": max(abs(au["gaze_x"]), abs(au["head_x"])), "down": max(au["gaze_y"], au["head_y"])},
        "cheeks": {"raised": au["cheek_raise"]},
        "lip corners": {"one up": one_corner, "up": min(corners), "down": au["lip_corner_down"]},
        "mouth": {
            "open": au["jaw_drop"],
            "pressed": au["lip_press"],
            "stretched": au["lip_stretch"],
            "pushed out": au["lip_pucker"],
        },
        "teeth": {"bared": min(au["upper_lip_raise"], au["lip_stretch"])},
        "nose": {"wrinkled": au["nose_wrinkle"]},
        "upper lip": {"raised": au["upper_lip_raise"]},
        "tears": {"there": au["tears"]},
        "blush": {"there": au["blush"]},
    }


def _voice(voice: str) -> Strengths:
    # Each scale reaches `_PLAIN` where listeners hear it at once: 3 semitones, 200 and 140 words a minute, 4 dB, ...
    prosody = VOICES[voice]
    clean = max(prosody.roughness, prosody.tremor, prosody.breath) == 0
    return {
        "pitch": {"high": (prosody.pitch - 1) / 4, "low": (-prosody.pitch - 0.5) / 2},
        "melody": {"lively": 2 * prosody.melody - 1, "flat": 1 - prosody.melody / 0.3},
        "pace": {"fast": (prosody.pace - 175) / 50, "slow": (165 - prosody.pace) / 50},
        "loudness": {"loud": prosody.loudness / 8, "soft": -prosody.loudness / 8},
        "timbre": {
            "rough": prosody.roughness,
            "dark": -prosody.tilt / 6,
            "ringing": prosody.tilt / 5,
            "smooth": _THERE if clean else 0.0,
        },
        "steadiness": {"trembling": prosody.tremor, "halting": prosody.pauses / 0.35},
        "laughter": {"there": prosody.laughter},
        "breath": {"breathy": prosody.breath},
        "effort": {"forced": prosody.roughness, "strained": prosody.tremor},
    }


def judge_clues(text: str, truth: SceneTruth) -> ClipClues:
    """What an answer states about a clip, each statement with its verdict, and how much of the clip it covers."""
    parts = split_clues(text)
    statements: dict[tuple[str, str, str], Statement] = {}
    for modality, aspects in _STATES.items():
        for clause in _clauses(parts.get(modality, "")):
            for aspect, values in aspects.items():
                for value, is_denied in _stated(clause, values):
                    # "The praise is not meant" is praise all the same.
                    statement = _judged(modality, aspect, value, truth, is_denied=is_denied and modality != "text")
                    if statement is not None:
                        statements.setdefault((modality, aspect, statement.value), statement)
            if modality == "text":
                for act, meaning in _meanings(clause):
                    statements.setdefault(("text", "meaning", meaning), _judged_meaning(act, meaning, truth))
    found = list(statements.values())
    return ClipClues(found, {modality: _recalled(modality, found, truth) for modality in MODALITIES})


def _clauses(text: str) -> list[str]:
    text = text.lower()
    for part, word in _PARTS:
        text = part.sub(word, text)
    return [clause for clause in (part.strip() for part in _CLAUSE_END.split(text)) if clause]


def _stated(clause: str, values: Mapping[str, re.Pattern]) -> list[tuple[str, bool]]:
    """The values that a clause states, and whether it denies them."""
    stated = []
    for value, pattern in values.items():
        match = pattern.search(clause)
        if match is None:
            continue
        # "No melody" is a way to say flat; "the brows do not rise" is a denial.
        own = _NEGATION.match(match[0])
        negated = own is None and _NEGATION.search(_UNMOVED.sub("", clause)) is not None
        if not negated or value != REST:
            stated.append((value, negated))
    names = [value for value, _ in stated]
    # The more exact of two readings of the same words.
    for exact, vague in (("one raised", "raised"), ("one up", "up")):
        if exact in names:
            stated = [item for item in stated if item[0] != vague]
    return stated


def _judged(modality: str, aspect: str, value: str, truth: SceneTruth, *, is_denied: bool) -> Statement | None:
    plain, there = truth.there(modality, aspect, _PLAIN), truth.there(modality, aspect, _THERE)
    shown = ", ".join(there) or REST
    if is_denied:
        # That something is not there, of all that is not, is no clue; that it is not, where it is, is a wrong one.
        return Statement(modality, aspect, f"not {value}", CONTRADICTED, shown) if value in plain else None
    if value == REST:
        return Statement(modality, aspect, value, RIGHT if truth.rests(modality, aspect) else CONTRADICTED, shown)
    if value in there:
        return Statement(modality, aspect, value, RIGHT, shown)
    opposed = any({value, other} == set(pair) for other in there for pair in _OPPOSITES.get(aspect, ()))
    denies_all = aspect == "whole"  # "a blank face" of one that is not
    return Statement(modality, aspect, value, CONTRADICTED if opposed or denies_all else UNSUPPORTED, shown)


def _recalled(modality: str, statements: Sequence[Statement], truth: SceneTruth) -> tuple[int, int]:
    right = {(statement.aspect, statement.value) for statement in statements if statement.modality == modality}
    right &= {(statement.aspect, statement.value) for statement in statements if statement.verdict == RIGHT}
    plain = [aspect for aspect in truth.phases[modality][0] if truth.there(modality, aspect, _PLAIN)]
    known = {aspect for aspect, value in right if value != REST}
    if any(value == REST for _, value in right):
        known.add("whole")  # of a face or a voice at rest, that is all there is to say
    if modality == "text":
        plain.append("meaning")
    return sum(aspect in known for aspect in plain), len(plain)


# Words of each phrase -> the act and the label that it stands for.
_PHRASES = {
    frozenset(phrase.split()): (act, STANCE[act][SIDES.index(side)])
    for act, meanings in MEANINGS.items()
    for side, phrases in meanings.items()
    for phrase in phrases
}


def _meanings(clause: str) -> list[tuple[str, str]]:
    words = set(re.findall(r"[a-z'-]+", clause))
    found = [phrase for phrase in _PHRASES if phrase <= words]
    # "A threat" is part of "a playful threat", and means something else.
    return [_PHRASES[phrase] for phrase in found if not any(phrase < longer for longer in found)]


def _judged_meaning(act: str, meaning: str, truth: SceneTruth) -> Statement:
    true_act, true_meaning = truth.meaning
    if meaning == true_meaning and act == true_act:
        verdict = RIGHT
    else:
        verdict = CONTRADICTED if _valence(meaning) * _valence(true_meaning) < 0 else UNSUPPORTED
    return Statement("text", "meaning", meaning, verdict, true_meaning)


def _valence(label: str) -> int:
    valence = synonym_sets()[load_entries("en")[label].synonyms].valence
    return (valence > _CLEAR_VALENCE) - (valence < -_CLEAR_VALENCE)


def clue_scores(clips: Mapping[str, ClipClues], *, seed: int = 0) -> dict[str, ClueScore]:
    """Precision, recall and contradictions of each of `MODALITIES`, over all statements of all clips.

    Raises:
        ValueError: if there is no clip.
    """
    return {modality: _clue_score([clip.counts(modality) for clip in clips.values()], seed) for modality in MODALITIES}


def _clue_score(counts: Sequence[tuple[int, ...]], seed: int) -> ClueScore:
    table = np.array(counts, dtype=float).reshape(-1, 5)  # (clips, 5), see `ClipClues.counts`

    def share(part: int, whole: int) -> tuple[float, float, float] | None:
        if not table[:, whole].any():
            return None

        def of_means(means: np.ndarray) -> np.ndarray:
            return np.divide(means[:, 0], means[:, 1], out=np.zeros(len(means)), where=means[:, 1] > 0)

        columns = table[:, [part, whole]]
        low, high = bootstrap_interval(columns, statistic=of_means, seed=seed)
        return float(of_means(columns.mean(axis=0, keepdims=True))[0]), low, high

    silent = int((table[:, 0] == 0).sum())
    return ClueScore(share(1, 0), share(3, 4), share(2, 0), int(table[:, 0].sum()), silent, len(table))


def describe_clues(scores: Mapping[str, ClueScore]) -> str:
    """A table in Markdown, in percent."""

    def cell(figure: tuple[float, float, float] | None) -> str:
        if figure is None:
            return ""
        value, low, high = (100 * part for part in figure)
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"

    lines = ["| clues about | precision | recall | contradicted | statements | clips without |", "|---|---|---|---|---|---|"]
    for modality, score in scores.items():
        figures = " | ".join(cell(figure) for figure in (score.precision, score.recall, score.contradicted))
        lines.append(f"| {MODALITIES[modality]} | {figures} | {score.num_statements} | {score.num_silent} of {score.num_clips} |")
    return "\n".join(lines)
