"""This project's own lexicon of emotion words, English and Chinese: forms, synonym sets, intensity, valence, and which sets merge.

The data are the three tables beside this file (README.md says how they were made):
- `groups.tsv`: the synonym sets, the family that each counts in, its domain, its valence;
- `english.tsv`, `chinese.tsv`: the forms of each set, one word family a line, with their intensity.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent
_HAN = re.compile(r"[\u4e00-\u9fff]")
_USES = {"?": "weak", "*": "label"}

# The longer the list, the coarser GPT-3.5 groups it: from so many labels of one clip on, these broad domains are one group each.
_NUM_LABELS_TO_COARSEN = 6
_COARSENED_DOMAINS = ("inward", "cognitive")
# "Excited" beside these is stirred up, not glad.
_EXCITED_IN_ANGER = frozenset({"anger", "sadness", "blame", "resentment"})

# What may stand before or after the word that names the emotion in a label.
_EDGES = re.compile(
    r"^(?:(?:slight|slightly|mild|mildly|somewhat|very|quite|rather|deep|deeply|strong|strongly|intense|intensely|extreme|extremely"
    r"|possible|possibly|potential|potentially|genuine|genuinely|inner|overall|a bit|a little|a|an|the|feeling|feels?|sense|state"
    r"|emotion|emotions|feelings|mood|expressing|being|of|more|most|some|much|great|utterly|truly|so|too)\s+)+"
    r"|(?:\s+(?:emotions?|feelings?|moods?|states?|emotional states?|attitude|tone|sentiments?"
    r"|about.*|with.*|at.*|towards?.*|for.*))+$"
)
_ENGLISH_ENDINGS = (  # ending of an unknown word -> endings of the base to look for
    ("iness", ("y",)),
    ("iest", ("y",)),
    ("ier", ("y",)),
    ("ness", ("",)),
    ("ically", ("ic",)),
    ("ily", ("y",)),
    ("fully", ("ful", "")),
    ("ably", ("able", "")),
    ("ly", ("", "le")),
    ("ful", ("",)),
    ("fulness", ("",)),
    ("less", ()),
    ("ingly", ("e", "", "ing")),
    ("ing", ("e", "")),
    ("edly", ("ed", "e", "")),
    ("ied", ("y",)),
    ("ed", ("e", "")),
    ("ies", ("y",)),
    ("es", ("e", "")),
    ("s", ("",)),
    ("ation", ("e", "")),
    ("ment", ("",)),
    ("ity", ("e", "")),
    ("ise", ("ize",)),
    ("ised", ("ized",)),
    ("our", ("or",)),
    ("oured", ("ored",)),
)
_CHINESE_CHARACTERS = {
    character: name
    for name, characters in {
        "joy": "喜乐欢悦欣",
        "anger": "怒愤恼",
        "displeasure": "怨",
        "sadness": "悲哀伤痛泣",
        "worry": "忧愁虑焦忐",
        "fear": "恐惧怕怯惶骇",
        "surprise": "惊讶愕诧",
        "disgust": "厌",
        "resentment": "恨仇",
        "shame": "耻辱",
        "embarrassment": "羞窘",
        "guilt": "愧疚悔歉",
        "confusion": "惑",
        "doubt": "疑",
        "love": "爱恋",
        "gratitude": "谢恩",
        "jealousy": "妒嫉",
        "contempt": "蔑鄙",
        "mockery": "讽嘲",
        "loneliness": "孤寂",
        "longing": "念思",
        "fatigue": "疲倦",
        "pride": "傲",
        "calm": "静",
        "hope": "盼",
        "admiration": "敬佩",
    }.items()
    for character in characters
}
_CHINESE_NEGATIONS = "不没無无非未"


@dataclass(frozen=True, slots=True)
class Entry:
    """One form.

    Args:
        form: lower-case; a phrase has spaces.
        synonyms: name of its synonym set, a row of `groups.tsv`.
        intensity: 1 weak, 2 plain, 3 strong.
        use: "state" (an emotion wherever prose has it), "weak" (only where prose says it of a person) or "label" (an emotion when
            given as a label, never in prose).
        family: number of its line: forms of one word family share it.
    """

    form: str
    synonyms: str
    intensity: int
    use: str
    family: int


@dataclass(frozen=True, slots=True)
class SynonymSet:
    """One row of `groups.tsv`.

    Args:
        families: the family it counts in; a set that stands between families has several, of which it takes the first that another
            label of the clip has, and otherwise stays alone (`is_bridge`).
        domain: "pleasant", "hostile", "inward" or "cognitive".
        valence: from -1 to 1.
    """

    name: str
    families: tuple[str, ...]
    is_bridge: bool
    domain: str
    valence: float
    chinese: str


@functools.cache
def synonym_sets() -> dict[str, SynonymSet]:
    """The rows of `groups.tsv` by name."""
    sets = {}
    for name, families, domain, valence, chinese in _rows("groups.tsv"):
        is_bridge = families.startswith("~")
        sets[name] = SynonymSet(name, tuple(families.lstrip("~ ").split()), is_bridge, domain, float(valence), chinese)
    return sets


@functools.cache
def load_entries(language: str) -> dict[str, Entry]:
    """The forms of one language.

    Args:
        language (`str`): "en" or "zh".

    Raises:
        ValueError: on another language.
    """
    files = {"en": "english.tsv", "zh": "chinese.tsv"}
    if language not in files:
        raise ValueError(f'Expected the language "en" or "zh", got {language!r}. The lexicon has English and Chinese words only.')
    entries = {}
    for family, (synonyms, intensity, forms) in enumerate(_rows(files[language])):
        for form in forms.split(", "):
            use = _USES.get(form[-1], "state")
            form = form.rstrip("?*")
            entries[form] = Entry(form, synonyms, int(intensity), use, family)
    return entries


def is_chinese(text: str) -> bool:
    """Whether `text` has a Chinese character."""
    return _HAN.search(text) is not None


@functools.lru_cache(maxsize=65536)
def synonym_set_of(label: str) -> str | None:
    """The name of the synonym set of a label in English or Chinese, `None` for a word that is none of the lexicon's.

    Known are the lexicon's forms, also within a longer label ("slight annoyance", "joy/excitement": the first), then words that
    derive from them by regular endings; a negated word ("not happy") is unknown, so that it does not join the word it denies. For
    Chinese: the longest form within the label, then its characters.
    """
    label = " ".join(label.strip(" \t\n'\"[]().,;。，、“”").lower().replace("_", " ").replace("’", "'").split())
    if is_chinese(label):
        return _chinese_set(label)
    entries = load_entries("en")
    if label in entries:
        return entries[label].synonyms
    trimmed = _EDGES.sub("", label)
    if trimmed in entries:
        return entries[trimmed].synonyms
    if " " not in trimmed:
        for part in re.split(r"[/&+-]", trimmed) if trimmed else ():
            if part in entries and part != trimmed:
                return entries[part].synonyms
        return _derived_set(trimmed)
    words = re.findall(r"[\w'-]+", trimmed)
    if {"not", "no", "without", "non", "lack", "never"} & set(words):
        return None
    for length in range(len(words), 0, -1):
        for start in range(len(words) - length + 1):
            entry = entries.get(" ".join(words[start : start + length]))
            if entry is not None and (length > 1 or entry.use != "label"):
                return entry.synonyms
    derived = (_derived_set(word) for word in words)
    return next((name for name in derived if name), None)


def group_words(labels: Iterable[str]) -> list[list[str]]:
    """Group the labels of one clip by meaning, in the way GPT-3.5 groups such lists.

    Two levels: labels of one synonym set, and sets of one family, make one group. The rest depends on the clip's other labels:
    - a bridging set (disappointment between displeasure and sadness) joins the first of its families that is present;
    - excitement beside anger, blame, resentment or sadness is agitation, otherwise joy;
    - contentment is joy, unless joy is set off from another pleasant family (calm, care, ...): then it stands apart;
    - from six labels on, all of the inward domain (sadness, worry, guilt, ...) are one group, and all of the cognitive domain.
    A label that is unknown to the lexicon is a group of its own.

    Args:
        labels (`Iterable[str]`): all labels of one clip, annotated and predicted together; lower-cased; duplicates collapse, blank
            ones are none.

    Returns:
        `list[list[str]]`: the groups, in the order of their first labels.
    """
    labels = [label for label in dict.fromkeys(label.strip().lower() for label in labels) if label]
    sets = synonym_sets()
    names = {label: synonym_set_of(label) for label in labels}
    present = {name for name in names.values() if name is not None}
    solid = {family for name in present if not sets[name].is_bridge for family in sets[name].families}
    family_of = {}
    for name in present:
        row = sets[name]
        family_of[name] = next((family for family in row.families if family in solid), name) if row.is_bridge else row.families[0]
    if "excitement" in present and solid & _EXCITED_IN_ANGER:
        family_of["excitement"] = "agitation"
    if any(sets[name].domain == "pleasant" and family != "joy" for name, family in family_of.items()):
        family_of |= {"contentment": "contentment"}
    if len(labels) >= _NUM_LABELS_TO_COARSEN:
        family_of = {
            name: sets[name].domain if sets[name].domain in _COARSENED_DOMAINS else family for name, family in family_of.items()
        }
    groups: dict[tuple, list[str]] = {}
    for label in labels:
        name = names[label]
        groups.setdefault(("unknown", label) if name is None else ("family", family_of[name]), []).append(label)
    return list(groups.values())


def _rows(file_name: str) -> Iterable[Sequence[str]]:
    for line in (_FOLDER / file_name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def _derived_set(word: str) -> str | None:
    entries = load_entries("en")
    for prefix in ("over", "hyper", "ultra", "semi-", "over-", "well-"):
        if word.startswith(prefix) and word[len(prefix) :] in entries:
            return entries[word[len(prefix) :]].synonyms
    for ending, replacements in _ENGLISH_ENDINGS:
        if not word.endswith(ending) or len(word) < len(ending) + 3:
            continue
        stem = word[: -len(ending)]
        for replacement in replacements:
            base = stem + replacement
            if base in entries:
                return entries[base].synonyms
            if replacement == "" and len(stem) > 3 and stem[-1] == stem[-2] and stem[:-1] in entries:  # "sobbing", "sadden"
                return entries[stem[:-1]].synonyms
    return None


def _chinese_set(label: str) -> str | None:
    entries = load_entries("zh")
    if label in entries:
        return entries[label].synonyms
    for length in range(len(label), 1, -1):
        for start in range(len(label) - length + 1):
            entry = entries.get(label[start : start + length])
            if entry is not None and not (start and label[start - 1] in _CHINESE_NEGATIONS):
                return entry.synonyms
    if label[:1] in _CHINESE_NEGATIONS:
        return None
    return next((_CHINESE_CHARACTERS[character] for character in label if character in _CHINESE_CHARACTERS), None)
