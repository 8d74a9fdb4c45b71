"""What is true in the drawn world: faces, voices and words combined by stated rules.

A combination joins one of 28 courses of the face (20 expressions, 8 of one turning into another), 8 voices and 8 text acts. Its
labels are emotion words of a hierarchy (`FINE`: 7 broad words, 17 fine ones) and come from three rules, each a small table over a
pair of modalities:

1. `FELT`, face and voice: what the face does, and the manner of the voice, name the feeling. Where the face shows it only slightly,
   its broad word is all that can be told.
2. `TONE`, voice and words: the tone of voice in which something bright, dark or plain is said colours it.
3. `STANCE`, words and face: the words mean what the side that the face takes in the end lets them mean.

So each label needs two modalities, and a combination that was never seen has its answer all the same. `ceilings` says exactly how
far fewer modalities lead.
"""

import itertools
from collections.abc import Iterable

import numpy as np

FINE = {  # broad word -> fine words
    "neutral": ("calm", "bored"),
    "happy": ("amused", "excited", "proud", "grateful", "relieved"),
    "sad": ("disappointed", "hurt"),
    "angry": ("frustrated", "contemptuous", "disgusted", "sarcastic"),
    "afraid": ("worried", "nervous"),
    "surprised": ("confused",),
    "embarrassed": ("guilty",),
}
BROAD = {fine: broad for broad, fines in FINE.items() for fine in (broad, *fines)}
LABELS = tuple(sorted(BROAD))

LEVELS = {"slight": (0.42, 0.55), "full": (0.85, 1.0)}  # of intensity

# Side that a face takes: what decides how words are meant. Of two phases, the last counts.
SIDES = ("glad", "composed", "hurting", "hostile")
SIDE = {
    "neutral": "composed",
    "smile": "glad",
    "polite_smile": "composed",
    "laugh": "glad",
    "weeping_smile": "glad",
    "masking_smile": "hurting",
    "surprise": "glad",
    "feigned_surprise": "hostile",
    "bashful": "glad",
    "doubt": "composed",
    "boredom": "composed",
    "sadness": "hurting",
    "grief": "hurting",
    "fear": "hurting",
    "worry": "hurting",
    "scowl": "hostile",
    "snarl": "hostile",
    "disgust": "hostile",
    "smirk": "hostile",
    "pout": "hostile",
}

MANNERS = ("settled", "strong", "shaking", "faint", "laughing")
MANNER = {
    "calm": "settled",
    "dull": "settled",
    "bright": "strong",
    "harsh": "strong",
    "trembling": "shaking",
    "breathy": "faint",
    "hesitant": "faint",
    "laughing": "laughing",
}

TOPICS = ("bright", "dark", "plain")
TOPIC = {
    "praise": "bright",
    "good_news": "bright",
    "promise": "bright",
    "bad_news": "dark",
    "complaint": "dark",
    "warning": "dark",
    "apology": "plain",
    "remark": "plain",
}

FELT = {  # course of the face -> label by `MANNERS`
    "neutral": ("neutral", "frustrated", "nervous", "calm", "amused"),
    "smile": ("proud", "excited", "nervous", "relieved", "amused"),
    "polite_smile": ("calm", "frustrated", "nervous", "embarrassed", "sarcastic"),
    "laugh": ("amused", "excited", "nervous", "relieved", "amused"),
    "weeping_smile": ("grateful", "proud", "grateful", "relieved", "excited"),
    "masking_smile": ("hurt", "disappointed", "hurt", "guilty", "nervous"),
    "surprise": ("confused", "surprised", "afraid", "confused", "excited"),
    "feigned_surprise": ("sarcastic", "amused", "nervous", "bored", "sarcastic"),
    "bashful": ("embarrassed", "proud", "nervous", "guilty", "embarrassed"),
    "doubt": ("confused", "contemptuous", "worried", "confused", "sarcastic"),
    "boredom": ("bored", "frustrated", "disappointed", "bored", "contemptuous"),
    "sadness": ("disappointed", "frustrated", "hurt", "guilty", "nervous"),
    "grief": ("sad", "disappointed", "afraid", "hurt", "hurt"),
    "fear": ("worried", "afraid", "afraid", "nervous", "nervous"),
    "worry": ("worried", "frustrated", "nervous", "guilty", "nervous"),
    "scowl": ("disappointed", "angry", "hurt", "frustrated", "contemptuous"),
    "snarl": ("disgusted", "angry", "angry", "frustrated", "contemptuous"),
    "disgust": ("disgusted", "disgusted", "afraid", "disgusted", "contemptuous"),
    "smirk": ("contemptuous", "proud", "nervous", "amused", "sarcastic"),
    "pout": ("disappointed", "frustrated", "hurt", "embarrassed", "amused"),
    "scowl>smile": ("relieved", "amused", "relieved", "embarrassed", "amused"),
    "neutral>laugh": ("amused", "excited", "nervous", "relieved", "amused"),
    "smile>sadness": ("disappointed", "hurt", "hurt", "guilty", "embarrassed"),
    "surprise>smile": ("relieved", "surprised", "grateful", "confused", "amused"),
    "surprise>fear": ("worried", "afraid", "afraid", "worried", "nervous"),
    "worry>smile": ("relieved", "excited", "grateful", "relieved", "relieved"),
    "polite_smile>scowl": ("frustrated", "angry", "hurt", "disappointed", "sarcastic"),
    "sadness>polite_smile": ("calm", "proud", "hurt", "guilty", "embarrassed"),
}
TONE = {  # voice -> label by `TOPICS`
    "calm": ("grateful", "calm", "neutral"),
    "bright": ("excited", "sarcastic", "happy"),
    "dull": ("bored", "sad", "neutral"),
    "harsh": ("contemptuous", "angry", "frustrated"),
    "trembling": ("nervous", "afraid", "worried"),
    "breathy": ("relieved", "hurt", "embarrassed"),
    "hesitant": ("embarrassed", "worried", "confused"),
    "laughing": ("happy", "nervous", "amused"),
}
STANCE = {  # text act -> label by `SIDES`
    "praise": ("proud", "bored", "hurt", "sarcastic"),
    "good_news": ("excited", "relieved", "disappointed", "contemptuous"),
    "promise": ("happy", "calm", "guilty", "frustrated"),
    "bad_news": ("nervous", "hurt", "sad", "frustrated"),
    "complaint": ("amused", "disappointed", "hurt", "angry"),
    "warning": ("amused", "worried", "afraid", "angry"),
    "apology": ("embarrassed", "bored", "guilty", "sarcastic"),
    "remark": ("calm", "neutral", "sad", "contemptuous"),
}

COURSES = tuple(FELT)
VOICE_NAMES = tuple(TONE)
TEXT_ACTS = tuple(STANCE)
Combination = tuple[str, str, str]  # course, voice, text act
COMBINATIONS: tuple[Combination, ...] = tuple(itertools.product(COURSES, VOICE_NAMES, TEXT_ACTS))


def phases_of(course: str) -> tuple[str, ...]:
    """The one or two expressions of a course: "scowl>smile" is a scowl that turns into a smile."""
    return tuple(course.split(">"))


def side_of(course: str) -> str:
    """The side that the face takes in the end, one of `SIDES`."""
    return SIDE[phases_of(course)[-1]]


def labels_of(course: str, level: str, voice: str, text_act: str) -> list[str]:
    """The one to three labels of a combination, by the rules `FELT`, `TONE` and `STANCE` in this order.

    Args:
        course (`str`): one of `COURSES`.
        level (`str`): how much of it the face shows, one of `LEVELS`.
        voice (`str`): one of `VOICE_NAMES`.
        text_act (`str`): one of `TEXT_ACTS`.

    Raises:
        ValueError: if one of them is not among those.
    """
    for part, known in ((course, COURSES), (level, LEVELS), (voice, VOICE_NAMES), (text_act, TEXT_ACTS)):
        if part not in known:
            raise ValueError(f"Expected one of {', '.join(known)}, got {part!r}. Give course, level, voice and text act in order.")
    felt = FELT[course][MANNERS.index(MANNER[voice])]
    if level == "slight" and course != "neutral":  # a face at rest is at rest at any strength
        felt = BROAD[felt]
    tone = TONE[voice][TOPICS.index(TOPIC[text_act])]
    stance = STANCE[text_act][SIDES.index(side_of(course))]
    return list(dict.fromkeys([felt, tone, stance]))


def is_held_out(course: str, voice: str, text_act: str) -> bool:
    """Whether only the test split (and, mixed with the others, the fine test split) has this combination.

    A lattice through the lists of parts: a fifth of the combinations, while each pair of parts, and so each cell of each rule, is
    seen in at least four.
    """
    return (COURSES.index(course) + VOICE_NAMES.index(voice) + TEXT_ACTS.index(text_act)) % 5 == 0


MODALITIES = ("face", "voice", "words")
MAX_LABELS = 4  # a prediction may not buy recall with more labels than annotators give


def ceilings(combinations: Iterable[Combination] | None = None) -> dict[str, float]:
    """The best Avg of the set metric, on exact labels, that each set of modalities allows.

    Whoever knows some parts of a combination (and, of the face, how much it shows) answers with the one to four labels of the
    highest expected Avg over all combinations that share those parts. For k labels the expected Avg is a sum of one term per label,
    so the k best terms are the exact optimum.

    Args:
        combinations (`Iterable`, *optional*): the combinations to average over, the held-out ones by default.

    Returns:
        `dict[str, float]`: percent, by "none", "face", ..., "face+voice+words".
    """
    if combinations is None:
        combinations = [combination for combination in COMBINATIONS if is_held_out(*combination)]
    truth = {
        ((course, level), voice, act): set(labels_of(course, level, voice, act))
        for course, voice, act in COMBINATIONS
        for level in LEVELS
    }
    asked = [((course, level), voice, act) for course, voice, act in combinations for level in LEVELS]
    result = {}
    for known in itertools.chain.from_iterable(itertools.combinations(range(3), size) for size in range(4)):
        alike: dict[tuple, list[set[str]]] = {}
        for parts, labels in truth.items():
            alike.setdefault(tuple(parts[place] for place in known), []).append(labels)
        answers = {parts: best_answer(rows) for parts, rows in alike.items()}
        scores = [avg(answers[tuple(parts[place] for place in known)], truth[parts]) for parts in asked]
        result["+".join(MODALITIES[place] for place in known) or "none"] = 100 * float(np.mean(scores))
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
