"""Emotion labels from English prose by the lexicon: which of its words the text says of the main character.

A word counts unless it is denied ("not angry"), cannot be told ("hard to say whether he is angry"), or is someone else's; a word
that often means something else ("a calm tone", "a warm room") has to be said of a person. Where a text concludes, the conclusion
decides.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from .lexicon import Entry, load_entries


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_QUOTED = re.compile(r'"[^"\n]*"|“[^”\n]*”')
_SHORT_QUOTE = 2  # spaces: up to three words in quotes are a term, more are speech
_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\")]|$)|\n+")
_TOKEN = re.compile(r"[a-z]+(?:['-][a-z]+)*|[,;:()/\"]")

# What no label reaches across.
_STOPS = _words('; : ( ) "')
_TURNS = _words("but however although though yet while whereas nevertheless nonetheless instead")

_NEGATIONS = _words(
    "not no never without neither nor cannot can't isn't aren't wasn't weren't doesn't don't didn't won't wouldn't hardly barely"
)
_NEGATION_REACH = 5  # words
_HARMLESS_AFTER_NOT = _words("only just merely simply doubt longer")
_DENIALS = frozenset(
    {
        ("rather", "than"),
        ("instead", "of"),
        ("lack", "of"),
        ("absence", "of"),
        ("free", "of"),
        ("free", "from"),
        ("far", "from"),
        ("devoid", "of"),
        ("opposed", "to"),
        ("lacks", "any"),
        ("lacking", "any"),
    }
)

# "It is difficult to determine whether ...": an inquiry that something before it says to fail.
_INQUIRIES = _words(
    "determine determined determining discern discerned tell infer inferred judge judged judging identify identified say know "
    "ascertain predict pinpoint conclude assess interpret whether"
)
_FAILS = _words(
    "cannot can't not unable impossible difficult hard challenging inability insufficient unclear uncertain unsure without lack no "
    "doesn't don't couldn't"
)
_FAIL_REACH = 10  # words
_CAN = _words("can could may might")
_SUBJECTS = _words("it she he we they the this there i based her his you one")

_JOINTS = _words(", and or nor / as well both also even with along")
_MAX_JOINTS = 3

# Words that may stand between a verb of feeling and the word for what is felt.
_FILLERS = _words(
    "a an the of to very quite somewhat rather slightly bit little more most so too deeply extremely highly really and or , as "
    "like such including both also even his her their some certain strong intense slight mild deep great hint touch kind may might "
    "must probably possibly likely perhaps in by with mix mixture combination range variety multiple positive negative complex "
    "level generally overall mostly currently still fairly pretty first then finally later initially at"
)
_FEELING = _words(
    "feel feels feeling feelings felt emotion emotions emotional emotionally mood sense state states experiencing experience "
    "experiences sentiment sentiments filled full"
)
_SEEMING = _words(
    "seem seems seemed appear appears appeared appearing becomes become became becoming is are was were be been being looks look "
    "looked sounds sound sounded looking sounding gets got grew grows turns turned"
)
_NUM_LEAD_WORDS = 12
# One state after another: both count, however plain the words ("first calm, then furious").
_TIMES = _words("first initially then finally later eventually gradually beginning start end afterwards")

_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|overall|conclusion|summary|sum up|taken together|all in all|in short|combining|based on"
    r"|infer(?:red)?|speculated|concluded|likely that)\b"
)
_OPENS_CONCLUSION = re.compile(
    r"\s*(?:and |so,? )?(?:therefore|thus|hence|overall|in conclusion|in summary|to sum up|taken together|all in all|in short|so)\b"
)
_NAMES_STATE = re.compile(
    r"\b(?:emotional state|emotions?|mood|feel\w*|experienc\w*|seems?|appears?|(?:person|speaker|he|she|they) (?:is|are))\b"
)
_SPEAKS_OF_WORDS = re.compile(r"\b(?:this|the) sentence\b")
_REPEATED = 2

# Whom a word is said of, where a text speaks of a man and a woman: the one it speaks of more is its main character.
_MALE = _words("he him himself man boy male gentleman father husband grandfather uncle brother son guy boyfriend")
_FEMALE = _words("she herself woman girl female lady mother wife grandmother aunt sister daughter girlfriend")
_HER = _words("her hers")
_HIS = _words("his")
_PEOPLE = _MALE | _FEMALE | _HER | _HIS
_CLEARLY_MORE = 2  # times

_OTHERS = _words("person people party side character others man woman someone somebody")
_PERSONS = _MALE | _FEMALE | _OTHERS | _words("speaker individual individuals child they protagonist figure subject")
_OTHERS_POSSESSIVE = _words("person's party's others' people's character's")


class Mention(NamedTuple):
    """A word of the lexicon that the text says of somebody, and the number of the sentence.

    `is_certain` is false for a word of many meanings that the text, short of concluding so, says of a person ("he is calm").
    """

    entry: Entry
    sentence: int
    is_certain: bool


def extract_english(text: str) -> list[str]:
    """The labels of an English description by the lexicon, lower-cased, in the order of its conclusion and then of the text."""
    sentences = _sentences(text)
    mentions, first_concluding = _mentions(sentences)
    return _labels(_select(sentences, mentions, first_concluding))


def _sentences(text: str) -> list[str]:
    text = text.lower().replace("’", "'")
    if '"' in text or "“" in text:
        text = _QUOTED.sub(lambda match: match[0][1:-1] if match[0].count(" ") <= _SHORT_QUOTE else ' "" ', text)
    return [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def _mentions(sentences: list[str]) -> tuple[list[Mention], int | None]:
    concluding = next((number for number in range(len(sentences) - 1, -1, -1) if _CONCLUDES.search(sentences[number])), None)
    tokens = [_TOKEN.findall(sentence) for sentence in sentences]
    aside = _minor_character(tokens)
    mentions = []
    for number, sentence in enumerate(sentences):
        # A single sentence is its own conclusion.
        concludes = len(sentences) == 1 or (
            concluding is not None and number >= concluding and _OPENS_CONCLUSION.match(sentence) is not None
        )
        mentions += [Mention(entry, number, is_certain or concludes) for entry, is_certain in _said(tokens[number], aside)]
    certain = [mention for mention in mentions if mention.is_certain]
    return certain or mentions, concluding


def _minor_character(sentences: list[list[str]]) -> frozenset[str]:
    """The words for the one of a man and a woman of whom the text speaks clearly less; none where it speaks of one only."""
    words = Counter(token for tokens in sentences for token in tokens if token in _PEOPLE)
    male, female = (sum(words[word] for word in group) for group in (_MALE | _HIS, _FEMALE | _HER))
    if male and female >= _CLEARLY_MORE * male:
        return _MALE
    if female and male >= _CLEARLY_MORE * female:
        return _FEMALE
    return frozenset()


def _select(sentences: list[str], mentions: list[Mention], concluding: int | None) -> list[Mention]:
    """The conclusion's mentions; where it does not name the state outright, also what the text says more than once."""
    core = [] if concluding is None else [mention for mention in mentions if mention.sentence >= concluding]
    if not core:
        return mentions
    tail = " . ".join(sentences[concluding:])
    if _NAMES_STATE.search(tail) and not _SPEAKS_OF_WORDS.search(tail):
        return core
    times = Counter(mention.entry.synonyms for mention in mentions)
    return core + [mention for mention in mentions if times[mention.entry.synonyms] >= _REPEATED]


def _labels(mentions: Iterable[Mention]) -> list[str]:
    labels: dict[int, str] = {}
    for mention in mentions:
        labels.setdefault(mention.entry.family, mention.entry.form)
    return list(labels.values())


def _said(tokens: list[str], aside: frozenset[str]) -> list[tuple[Entry, bool]]:
    """The entries that one sentence says of the main character, and whether this is certain."""
    index = _english_index()
    found: list[tuple[Entry, bool]] = []
    last_stop, last_denied, last_evidence = -10, False, ""
    blocked = False
    position, count = 0, len(tokens)
    while position < count:
        forms = index.get(tokens[position])
        if forms is None:
            position += 1
            continue
        if forms is _INQUIRY:
            blocked = blocked or _fails(tokens, position)
            position += 1
            continue
        if forms is _TURN:
            blocked = blocked and tokens[position] == "," and not (position + 1 < count and tokens[position + 1] in _SUBJECTS)
            position += 1
            continue
        start = position
        words, entry = next((form for form in forms if tokens[start : start + len(form[0])] == form[0]), (tokens[start], None))
        position += len(words) if entry else 1
        if entry is None or entry.use == "label":
            continue
        joined = start - last_stop <= _MAX_JOINTS and all(token in _JOINTS for token in tokens[last_stop:start])
        denied = _is_denied(tokens, start) or (joined and last_denied)
        evidence = _evidence(tokens, start) or (last_evidence if joined else "")
        last_stop, last_denied, last_evidence = position, denied, evidence
        if denied or blocked or evidence == "other" or (aside and _is_of(tokens, start, aside)):
            continue
        in_time = evidence == "seem" and not _TIMES.isdisjoint(tokens[:start])
        is_certain = entry.use == "state" or evidence == "feel" or in_time
        if is_certain or evidence == "seem":
            found.append((entry, is_certain))
    return found


def _fails(tokens: list[str], position: int) -> bool:
    """Whether the inquiry at `position` is said to fail ("we cannot determine"), in its own clause."""
    lead = tokens[max(0, position - 2) : position]
    if lead[-1:] != ["to"] and not _CAN.isdisjoint(lead) and _FAILS.isdisjoint(lead):  # "we can infer", "it can be inferred"
        return False
    for place in range(position - 1, max(-1, position - 1 - _FAIL_REACH), -1):
        if tokens[place] in _FAILS:
            return True
        if tokens[place] in _TURNS or (tokens[place] == "," and not _SUBJECTS.isdisjoint(tokens[place + 1 : place + 3])):
            return False
    return False


def _is_denied(tokens: list[str], start: int) -> bool:
    for place in range(start - 1, max(-1, start - 1 - _NEGATION_REACH), -1):
        token = tokens[place]
        if token == "," or token in _STOPS or token in _TURNS:
            return place > 0 and (tokens[place - 1], token) in _DENIALS
        if token in _NEGATIONS:
            return tokens[place + 1] not in _HARMLESS_AFTER_NOT
        if place and (tokens[place - 1], token) in _DENIALS:
            return True
    return False


def _evidence(tokens: list[str], start: int) -> str:
    """What leads to the word: a word of feeling ("feel"), a person and a verb ("seem"), somebody else ("other") or nothing."""
    through_verb = False
    for place in range(start - 1, max(-1, start - 1 - _NUM_LEAD_WORDS), -1):
        token = tokens[place]
        is_another = place > 0 and tokens[place - 1] in ("other", "another")
        if token in _OTHERS_POSSESSIVE and is_another:
            return "other"
        if token in _FEELING:
            before = tokens[place - 1] if place else ""
            return "other" if before in _OTHERS and place > 1 and tokens[place - 2] in ("other", "another") else "feel"
        if token in _SEEMING:
            through_verb = True
        elif through_verb and token in _PERSONS:
            return "other" if is_another else "seem"
        elif token not in _FILLERS:
            return ""
    return ""


def _is_of(tokens: list[str], start: int, people: frozenset[str]) -> bool:
    """Whether the last person named before the word is one of `people`."""
    for token in reversed(tokens[:start]):
        if token in _PEOPLE:
            return token in people
    return False


# Marks in the index, told apart by identity, of words that name nothing but change what follows.
_INQUIRY: list = []
_TURN: list = []


@functools.cache
def _english_index() -> dict[str, list[tuple[list[str], Entry]]]:
    """First word -> the forms that begin with it, longest first; or what the word does to the sentence."""
    index: dict[str, list[tuple[list[str], Entry]]] = dict.fromkeys(_TURNS | {","}, _TURN) | dict.fromkeys(_INQUIRIES, _INQUIRY)
    for entry in load_entries("en").values():
        words = entry.form.split()
        forms = index.setdefault(words[0], [])
        if forms is not _INQUIRY and forms is not _TURN:
            forms.append((words, entry))
    for forms in index.values():
        forms.sort(key=lambda form: -len(form[0]))
    return index
