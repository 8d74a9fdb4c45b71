"""Emotion labels from Chinese prose by the lexicon; the rules are those of `extraction.py`, on characters instead of words."""

import functools
import re
from collections import Counter

from .lexicon import Entry, load_entries

_QUOTED = re.compile(r'“[^”\n]*”|"[^"\n]*"|「[^」\n]*」|『[^』\n]*』')
_SENTENCE_END = re.compile(r"[。！？!?\n]+|；+")

_UNKNOWABLE = re.compile(
    r"(?:无法|不能|难以|很难|不好|没有办法|未能|不足以|不确定|不清楚)[^，。；]{0,12}?"
    r"(?:判断|确定|推断|推测|得知|知道|辨别|识别|确认|看出|分辨|是否)[^，。；]*"
)
_DENIED = re.compile(
    r"(?:并不|并非|并没有|没有|不是|毫无|毫不|而不是|而非|不再|不太|不会|不要|不必|不用|缺乏|缺少|从不|绝非|绝不|不那么|不够|不|没|无|未|非|勿|(?<![特分区])别)"
    r"(?:任何|什么|明显的?|太多的?|过多的?|表现出|显示出|感到|觉得|真正|很|十分|特别|那么|过度|过于|有|是|过)*$"
)
_DENIAL_REACH = 9  # characters
_OTHERS = re.compile(r"(?:对方|别人|他人|其他人|另一个人|另一方)的?$")

# Where a text speaks of a man and a woman, the one it speaks of more is its main character.
_MALE = re.compile("(?<!其)他(?![人们])|男")
_FEMALE = re.compile("她(?!们)|女")
_CLEARLY_MORE = 2  # times

_FEELS = re.compile(
    r"(?:感到|觉得|感觉|情绪|心情|情感|状态|充满|内心|心里|心中|心理|感受|流露|显得|比较|一种|有些|非常|十分|略显|带着|带有|表达)"
    r"[^，。；]{0,6}$"
)
_IS_FELT = re.compile(r"^(?:和|与|或|、|以及|且|并|又)?[^，。；]{0,6}?(?:情绪|心情|情感|感受|心态|的状态|之情|之心)")

_CONCLUDES = re.compile(r"因此|综上|总之|所以|总的来说|总体|整体|综合|推断|推测|由此|可见|可以看出")
_REPEATED = 3


def extract_chinese(text: str) -> list[str]:
    """The labels of a Chinese description by the lexicon, in the order of its conclusion and then of the text."""
    sentences = _sentences(text)
    concluding = next((number for number in range(len(sentences) - 1, -1, -1) if _CONCLUDES.search(sentences[number])), None)
    main, minor = _characters(text)
    said = [
        (entry, number, is_certain)
        for number, sentence in enumerate(sentences)
        for entry, is_certain in _said(sentence, main, minor)
    ]
    certain = [(entry, number) for entry, number, is_certain in said if is_certain]
    mentions = certain or [(entry, number) for entry, number, _ in said]
    return list(dict.fromkeys(entry.form for entry in _select(mentions, concluding)))


def _sentences(text: str) -> list[str]:
    text = _UNKNOWABLE.sub("", _QUOTED.sub("", text))
    return [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def _select(mentions: list[tuple[Entry, int]], concluding: int | None) -> list[Entry]:
    """The conclusion's mentions, and what the text says three times."""
    core = [] if concluding is None else [entry for entry, number in mentions if number >= concluding]
    times = Counter(entry.synonyms for entry, _ in mentions)
    return core + [entry for entry, _ in mentions if not core or times[entry.synonyms] >= _REPEATED]


def _characters(text: str) -> tuple[re.Pattern, re.Pattern | None]:
    """What names the main character, and the one of a man and a woman of whom the text speaks clearly less, if there is one."""
    male, female = len(_MALE.findall(text)), len(_FEMALE.findall(text))
    if male and female >= _CLEARLY_MORE * male:
        return _FEMALE, _MALE
    return _MALE, _FEMALE if female and male >= _CLEARLY_MORE * female else None


def _said(sentence: str, main: re.Pattern, minor: re.Pattern | None) -> list[tuple[Entry, bool]]:
    """The entries that one sentence says of the main character, and whether this is certain."""
    index = _chinese_index()
    found = []
    position, end = 0, len(sentence) - 1
    while position < end:
        forms = index.get(sentence[position : position + 2])
        if forms is None:
            position += 1
            continue
        start = position
        entry = next((entry for form, entry in forms if sentence.startswith(form, start)), None)
        position += len(entry.form) if entry else 1
        if entry is None or entry.use == "label":
            continue
        before = sentence[max(0, start - _DENIAL_REACH) : start]
        if _DENIED.search(before) or _OTHERS.search(before) or (minor and _is_of(sentence[:start], main, minor)):
            continue
        is_certain = entry.use == "state" or bool(_FEELS.search(before) or _IS_FELT.search(sentence[position : position + 10]))
        found.append((entry, is_certain))
    return found


def _is_of(before: str, main: re.Pattern, minor: re.Pattern) -> bool:
    """Whether the last person named in `before` is the minor one."""
    places = [max((match.start() for match in pattern.finditer(before)), default=-1) for pattern in (main, minor)]
    return places[1] > places[0]


@functools.cache
def _chinese_index() -> dict[str, list[tuple[str, Entry]]]:
    """First two characters -> the forms that begin with them, longest first. Single characters are labels only."""
    index: dict[str, list[tuple[str, Entry]]] = {}
    for entry in load_entries("zh").values():
        if len(entry.form) > 1:
            index.setdefault(entry.form[:2], []).append((entry.form, entry))
    for forms in index.values():
        forms.sort(key=lambda form: -len(form[0]))
    return index
