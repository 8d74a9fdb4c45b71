"""What the prose of an explanation states: its sentences by modality, and the emotion labels of its conclusion.

Rules for English answers that go through picture, voice and words and then conclude ("Therefore, the person seems worried."),
and, as far as short rules can, for the freer prose of larger models. Text in double quotes is speech, no conclusion.
"""

import re
from collections.abc import Iterable

_QUOTED = re.compile(r'"[^"\n]*"|“[^”\n]*”')
_SENTENCE_END = re.compile(r"[.!?]+[\"”')\]]*\s+(?=[^a-z\s])|\s*\n\s*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A sentence speaks of the modality whose word comes first among its opening words.
_NUM_OPENING_WORDS = 7
_MODALITY_WORDS = {
    "video": _words(
        "video picture image frame frames face facial expression eye eyes eyelids brow brows eyebrow eyebrows gaze forehead mouth "
        "lip lips smile cheek cheeks nose head jaw body posture gesture gestures hands visually camera"
    ),
    "audio": _words("audio voice tone sound sounds speech pitch acoustic loudness intonation speaking volume"),
    "text": _words("subtitle subtitles text word words sentence transcript wording phrase"),
}
_MODALITY_OF_WORD = {word: modality for modality, words in _MODALITY_WORDS.items() for word in words}

_CONCLUDES = re.compile(
    r"(?:therefore|thus|hence|consequently|so|overall|altogether|taken together|all in all"
    r"|in (?:conclusion|summary|short|sum)|to sum up|based on|combining|judging (?:by|from))\b",
    re.IGNORECASE,
)
_SOMEBODY = r"\b(?:person|people|man|woman|boy|girl|child|lady|individual|character|speaker|he|she|they)(?:['’]s)?\b"
_FEELS = r"\b(?:seem|appear|feel|look|sound|become)(?:s|ing)?\b|\b(?:experiencing|likely|(?:may|might|could|must)(?: also)? be)\b"
_STATE_IS = r"\bemotion(?:s|al (?:state|condition)s?)?\b[^.,;:]*?\b(?:is|are|be|as|include)\b"
_SPEAKS_OF_STATE = re.compile(rf"{_SOMEBODY}[^.;:]*?\b(?:seem|appear|feel)s?\b|{_STATE_IS}", re.IGNORECASE)
_LEADS_TO_LABELS = re.compile(
    rf"{_STATE_IS}|{_FEELS}|\bexpress(?:es|ing) (?:[\w-]+ ){{0,3}}?(?:[\w-]+['’]s|his|her|their)\b", re.IGNORECASE
)
_IS = re.compile(rf"{_SOMEBODY} (?:is|are)\b", re.IGNORECASE)

_SEPARATOR = re.compile(r"\s*(?:[,/]|\b(?:as well as|along with|and|or|but|though|although|yet)\b)\s*", re.IGNORECASE)
_NAMES_FOLLOW = re.compile(
    r".*\b(?:(?:such|described) as|including|(?:mix|mixture|combination|range|sense|state|feelings?|emotions?|one) of)\b"
)
_WORDS_BEFORE_A_LABEL = _words(
    "a an in to be is are seem seems appear appears feel feels feeling look looks experiencing have also both either he she they "
    "of perhaps possibly probably maybe likely slightly somewhat rather quite very really deeply mostly mainly mildly strongly "
    "fairly even still then strong intense little bit touch hint some like"
)
_WORDS_THAT_CUT_A_LABEL = _words(
    "about with at by for over during in on from after before despite toward towards throughout than given to of now too here "
    "suggests overall emotional emotion emotions state states feeling feelings"
)
# A new clause: nothing after it is a label any more.
_CLAUSE_OPENERS = _words(
    "because since as due when while if which that who whose where how what so the this these those it its his her their there we "
    "i suggesting indicating implying reflecting showing making hoping"
)
_DOING = re.compile(r"(?<!car)(?<!lov)(?<!long)(?<!suffer)ing$")
_NEGATIONS = _words("not neither nor no never hardly without unable unclear unknown")
_MAX_LABEL_WORDS = 2

_LIST = re.compile(r"\[([^\[\]]*)\]")


def split_sentences(text: str) -> list[str]:
    """Split `text` into sentences.

    A full stop inside double quotes ends none, unless it closes a quotation that no small letter follows.
    """
    masked = _QUOTED.sub(lambda match: match[0][:1] + "x" * (len(match[0]) - 3) + match[0][1:][-2:], text)
    bounds = [0, *(match.end() for match in _SENTENCE_END.finditer(masked)), len(text)]
    sentences = [text[start:end].strip() for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
    return [sentence for sentence in sentences if sentence]


def split_clues(text: str) -> dict[str, str]:
    """Sort the sentences of an explanation by what they speak of.

    Args:
        text (`str`): an explanation, or the beginning of one.

    Returns:
        `dict[str, str]`: the sentences about "video", "audio" and "text"; a modality of which nothing is said has no key. A
        sentence that names no modality goes with the one before it, and the conclusion goes nowhere.
    """
    clues: dict[str, list[str]] = {}
    current = None
    for sentence in split_sentences(text):
        current = None if _is_conclusion(sentence) else _modality(sentence) or current
        if current is not None:
            clues.setdefault(current, []).append(sentence)
    return {modality: " ".join(clues[modality]) for modality in _MODALITY_WORDS if modality in clues}


def stated_labels(text: str) -> list[str]:
    """The emotion labels that the conclusion of an explanation states.

    Args:
        text (`str`): an explanation, or a list of labels in square brackets.

    Returns:
        `list[str]`: lower-cased labels in the order of the text, each once. Empty when nothing is concluded.
    """
    lists = _LIST.findall(_QUOTED.sub(lambda match: "" if "[" in match[0] else match[0], text))
    if lists:
        return _unique(item.strip(" \t\n'\"").lower() for item in lists[-1].split(","))
    conclusions = [_QUOTED.sub('""', sentence) for sentence in split_sentences(text) if _is_conclusion(sentence)]
    marked = [index for index, sentence in enumerate(conclusions) if _CONCLUDES.match(sentence)]
    for first in reversed(marked or range(len(conclusions))):  # the last may only say that the signs are weak: then go one back
        labels = _unique(label for sentence in conclusions[first:] for label in _labels_of(sentence))
        if labels:
            return labels
    return []


def _is_conclusion(sentence: str) -> bool:
    if _CONCLUDES.match(sentence):
        return True
    return _modality(sentence) is None and _SPEAKS_OF_STATE.search(_QUOTED.sub('""', sentence)) is not None


def _modality(sentence: str) -> str | None:
    for word in re.findall(r"[^\W_]+", sentence.lower())[:_NUM_OPENING_WORDS]:
        if word in _MODALITY_OF_WORD:
            return _MODALITY_OF_WORD[word]
    return None


def _labels_of(conclusion: str) -> list[str]:
    for lead in [*_LEADS_TO_LABELS.finditer(conclusion), *_IS.finditer(conclusion)]:
        labels = _listed(conclusion[lead.end() :])
        if labels:
            return labels
    return []


def _listed(text: str) -> list[str]:
    """The labels that `text` begins with: an enumeration, up to a new clause."""
    labels = []
    for item in _SEPARATOR.split(text):
        words = re.findall(r"[\w'’-]+", _NAMES_FOLLOW.sub("", item.lower()))
        while words and words[0] in _WORDS_BEFORE_A_LABEL:
            words.pop(0)
        label = []
        for word in words:
            if word in _CLAUSE_OPENERS or word in _WORDS_THAT_CUT_A_LABEL:
                break
            label.append(word)
        if len(label) > _MAX_LABEL_WORDS or (words and words[0] in _CLAUSE_OPENERS):
            break
        if label and label[0] not in _NEGATIONS and not _DOING.search(label[-1]):
            labels.append(" ".join(label))
        if any(word in _CLAUSE_OPENERS for word in words):
            break
    return labels


def _unique(labels: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(label for label in labels if label))
