"""What an EMER-Sketch clip shows, and what is true of it: faces, voices and words combined by stated rules.

A scene joins one of 8 expressions, 7 voices and 6 text acts (336 combinations; about a fifth is held out for the test split). Its
labels come from three rules, each a small table:

1. `FELT`: the expression, and the manner of the voice, name the feeling.
2. `COLOUR`: the voice, and the side that the face takes, colour it.
3. `STANCE`: the words mean what the side of the face and the warmth of the voice let them mean.

So every label needs two or three modalities; `ceilings` says exactly how far fewer of them lead.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .faces import EXPRESSIONS, Identity
from .text import SENTENCES, STANCES, Bearing, clue_pool, describe
from .voices import VOICES, Speaker

SPLITS = ("coarse", "fine_train", "fine_test", "test")
INTENSITIES = (0.6, 1.0)
DESCRIPTION_STREAM, CLUE_STREAM = 10, 11  # of a scene's seed; render.py uses others
MISREAD_RATE = 0.3  # of faces, and of voices, by whoever annotates the coarse split

MANNERS = ("settled", "strong", "shaking", "faint")
MANNER = {
    "calm": "settled",
    "dull": "settled",
    "bright": "strong",
    "harsh": "strong",
    "trembling": "shaking",
    "breathy": "faint",
    "hesitant": "faint",
}
WARM_VOICES = ("calm", "bright", "breathy")

SIDES = ("open", "hurting", "hostile")
SIDE = {
    "neutral": "open",
    "smile": "open",
    "surprise": "open",
    "grief": "hurting",
    "fear": "hurting",
    "scowl": "hostile",
    "disgust": "hostile",
    "smirk": "hostile",
}

FELT = {  # expression -> label by `MANNERS`
    "neutral": ("calm", "tense", "nervous", "shy"),
    "smile": ("calm", "happy", "nervous", "hopeful"),
    "grief": ("sad", "frustrated", "hurt", "sad"),
    "scowl": ("disappointed", "angry", "tense", "frustrated"),
    "fear": ("worried", "afraid", "afraid", "nervous"),
    "surprise": ("surprised", "surprised", "afraid", "hopeful"),
    "disgust": ("contemptuous", "disgusted", "disgusted", "disgusted"),
    "smirk": ("contemptuous", "proud", "guarded", "amused"),
}
COLOUR = {  # voice -> label by `SIDES`
    "calm": ("calm", "guarded", "disappointed"),
    "bright": ("happy", "hopeful", "amused"),
    "dull": ("bored", "disappointed", "bored"),
    "harsh": ("frustrated", "angry", "angry"),
    "trembling": ("worried", "worried", "nervous"),
    "breathy": ("relieved", "hurt", "disappointed"),
    "hesitant": ("nervous", "nervous", "guarded"),
}
STANCE = {act: {bearing: label for bearing, (label, _) in stances.items()} for act, stances in STANCES.items()}

TEXT_ACTS = tuple(SENTENCES)
COMBINATIONS = tuple(itertools.product(EXPRESSIONS, VOICES, TEXT_ACTS))
LABELS = tuple(sorted({label for row in (*FELT.values(), *COLOUR.values(), *map(dict.values, STANCE.values())) for label in row}))

# What a hurried annotator takes a face or a voice for.
FACE_CONFUSIONS = {
    "neutral": ("grief", "scowl", "smirk"),
    "smile": ("smirk", "neutral"),
    "grief": ("fear", "neutral"),
    "scowl": ("disgust", "neutral"),
    "fear": ("surprise", "grief"),
    "surprise": ("fear", "smile"),
    "disgust": ("scowl", "smirk"),
    "smirk": ("smile", "disgust"),
}
VOICE_CONFUSIONS = {
    "calm": ("dull", "breathy"),
    "bright": ("calm", "harsh"),
    "dull": ("breathy", "calm"),
    "harsh": ("bright", "trembling"),
    "trembling": ("hesitant", "harsh"),
    "breathy": ("dull", "trembling"),
    "hesitant": ("trembling", "calm"),
}


@dataclass(frozen=True)
class Scene:
    """All that fixes one clip and its annotation. Intensities are in [0, 1]; `seed` drives whatever chance is left."""

    name: str
    seed: int
    expression: str
    intensity: float
    voice: str
    voice_intensity: float
    text_act: str
    sentence: str
    identity: Identity
    speaker: Speaker


def bearing_of(expression: str, voice: str) -> Bearing:
    """The side that the face takes and whether the voice is warm: what decides how words are meant."""
    return SIDE[expression], voice in WARM_VOICES


def labels_of(expression: str, voice: str, text_act: str) -> list[str]:
    """The two or three labels of a combination, by the rules `FELT`, `COLOUR` and `STANCE` in this order.

    Raises:
        ValueError: if a part is not one of `EXPRESSIONS`, `VOICES` and `TEXT_ACTS`.
    """
    for part, known in ((expression, EXPRESSIONS), (voice, VOICES), (text_act, TEXT_ACTS)):
        if part not in known:
            raise ValueError(f"Expected one of {', '.join(known)}, got {part!r}. Give expression, voice and text act in order.")
    felt = FELT[expression][MANNERS.index(MANNER[voice])]
    colour = COLOUR[voice][SIDES.index(SIDE[expression])]
    return list(dict.fromkeys([felt, colour, STANCE[text_act][bearing_of(expression, voice)]]))


def is_held_out(expression: str, voice: str, text_act: str) -> bool:
    """Whether only the test split (and, mixed with the others, the fine test split) has this combination.

    A lattice through the lists of parts: each pair of parts, and each cell of each rule, is seen in at least four combinations.
    """
    place = list(EXPRESSIONS).index(expression) + list(VOICES).index(voice) + TEXT_ACTS.index(text_act)
    return place % 5 == 0


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
    return [
        _scene(
            f"{split}_{index:05d}", combinations[place], split in ("fine_test", "test"), np.random.default_rng([*stream, 1 + index])
        )
        for index, place in enumerate(np.concatenate(rounds)[:count] if rounds else [])
    ]


def _scene(name: str, combination: tuple[str, str, str], unseen_sentence: bool, rng: np.random.Generator) -> Scene:
    expression, voice, text_act = combination
    sentences = SENTENCES[text_act]["held_out" if unseen_sentence else "train"]
    return Scene(
        name=name,
        seed=int(rng.integers(2**31)),
        expression=expression,
        intensity=float(rng.uniform(*INTENSITIES)),
        voice=voice,
        voice_intensity=float(rng.uniform(*INTENSITIES)),
        text_act=text_act,
        sentence=sentences[rng.integers(len(sentences))],
        identity=Identity.sample(rng),
        speaker=Speaker.sample(rng),
    )


def misread(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """What an imperfect annotator takes the expression and the voice for: each wrong with probability `MISREAD_RATE`."""
    return _mistake(scene.expression, FACE_CONFUSIONS, rng), _mistake(scene.voice, VOICE_CONFUSIONS, rng)


def _mistake(part: str, confusions: dict[str, tuple[str, ...]], rng: np.random.Generator) -> str:
    wrong, others = rng.random() < MISREAD_RATE, confusions[part]
    other = others[rng.integers(len(others))]
    return other if wrong else part


def row_of(scene: Scene, seen: tuple[str, str] | None = None) -> dict:
    """The corpus row of a scene, all but its `video`.

    Args:
        scene (`Scene`): the scene.
        seen (`tuple[str, str]`, *optional*): the expression and the voice that the annotator believed (`misread`); description and
            labels follow them. The truth by default.

    Returns:
        `dict`: `name`, `subtitle`, `subtitle_zh`, `description`, `description_zh`, `labels`, `clues`, `provenance`.
    """
    expression, voice = seen or (scene.expression, scene.voice)
    labels = labels_of(expression, voice, scene.text_act)
    rng = np.random.default_rng([scene.seed, DESCRIPTION_STREAM])
    clues, conclusion = describe(
        expression=expression,
        intensity=scene.intensity,
        voice=voice,
        voice_intensity=scene.voice_intensity,
        text_act=scene.text_act,
        bearing=bearing_of(expression, voice),
        labels=labels,
        rng=rng,
    )
    return {
        "name": scene.name,
        "subtitle": scene.sentence,
        "subtitle_zh": "",
        "description": " ".join([*clues.values(), conclusion]),
        "description_zh": "",
        "labels": labels,
        "clues": clues,
        "provenance": {
            "source": "EMER-Sketch",
            "seed": str(scene.seed),
            "expression": scene.expression,
            "voice": scene.voice,
            "text_act": scene.text_act,
            "seen_expression": expression,
            "seen_voice": voice,
        },
    }


def clue_words(scene: Scene) -> dict[str, list[str]]:
    """A few words per modality that fix its clue: they stand in the media slots when the language model is pretrained.

    Returns:
        `dict[str, list[str]]`: "video" and "audio", four to five lower-case words each, in random order.
    """
    rng = np.random.default_rng([scene.seed, CLUE_STREAM])
    return {
        modality: [str(word) for word in rng.permutation(clue_pool(part, intensity))[:5]]
        for modality, part, intensity in (
            ("video", scene.expression, scene.intensity),
            ("audio", scene.voice, scene.voice_intensity),
        )
    }


MODALITIES = ("face", "voice", "words")
MAX_LABELS = 4  # a prediction may not buy recall with more labels than annotators give


def ceilings(combinations: Iterable[tuple[str, str, str]] | None = None) -> dict[str, float]:
    """The best Avg of the set metric, on exact labels, that each set of modalities allows.

    Whoever knows some parts of a combination answers with the one to four labels of the highest expected Avg over all combinations
    that share those parts. For k labels the expected Avg is a sum of one term per label, so the k best terms are the exact optimum.

    Args:
        combinations (`Iterable`, *optional*): the combinations to average over, the held-out ones by default.

    Returns:
        `dict[str, float]`: percent, by "none", "face", ..., "face+voice+words".
    """
    if combinations is None:
        combinations = [combination for combination in COMBINATIONS if is_held_out(*combination)]
    combinations = list(combinations)
    truth = {combination: set(labels_of(*combination)) for combination in COMBINATIONS}
    result = {}
    for known in itertools.chain.from_iterable(itertools.combinations(range(3), size) for size in range(4)):
        alike: dict[tuple[str, ...], list[set[str]]] = {}
        for combination, labels in truth.items():
            alike.setdefault(tuple(combination[part] for part in known), []).append(labels)
        answers = {parts: best_answer(rows) for parts, rows in alike.items()}
        scores = [avg(answers[tuple(combination[part] for part in known)], truth[combination]) for combination in combinations]
        result["+".join(MODALITIES[part] for part in known) or "none"] = 100 * float(np.mean(scores))
    return result


def best_answer(rows: list[set[str]]) -> set[str]:
    """The one to `MAX_LABELS` labels with the highest mean `avg` over `rows`."""
    best, best_gain = set(), -1.0
    for size in range(1, MAX_LABELS + 1):
        gains = {label: sum((1 / size + 1 / len(row)) / 2 for row in rows if label in row) for label in LABELS}
        chosen = sorted(LABELS, key=lambda label: (-gains[label], label))[:size]
        gain = sum(gains[label] for label in chosen)
        if gain > best_gain:
            best, best_gain = set(chosen), gain
    return best


def avg(predicted: set[str], truth: set[str]) -> float:
    """Mean of accuracy and recall of one prediction, in [0, 1]."""
    common = len(predicted & truth)
    return (common / len(predicted) + common / len(truth)) / 2
