"""Open-vocabulary emotion labels: read off descriptions, grouped by meaning; and the sentences of an explanation by modality.

Two backends. "lexicon" needs nothing and gives the same answer every time (`extraction.py`, `extraction_zh.py`, `lexicon/`). Any
object with `complete_many(conversations, parse=...)`, such as those of `chat.py`, answers the paper's prompts instead.
"""

import re
from collections.abc import Sequence
from typing import Protocol

from .extraction import extract_english
from .extraction_zh import extract_chinese
from .lexicon import group_words, is_chinese, load_entries

# Prompts of the paper (arXiv 2407.07653, section on label grouping) and of its authors' later code (few-shot label extraction).
EXTRACTION_PROMPT = (
    "Please assume the role of an expert in the field of emotions. "
    "We provide clues that may be related to the emotions of the characters. "
    "Based on the provided clues, please identify the emotional states of the main character. "
    "The main character is the one with the most detailed clues. "
    "Please separate different emotional categories with commas "
    "and output only the clearly identifiable emotional categories in a list format. "
    "If none are identified, please output an empty list. "
    "Input: We cannot recognize his emotional state; Output: [] "
    "Input: His emotional state is happy, sad, and angry; Output: [happy, sad, angry] "
    "Input: {description}; Output: "
)
GROUPING_PROMPT = (
    "Please assume the role of an expert in the field of emotions. We provide a set of emotions. "
    "Please group the emotions, with each group containing emotions with the same meaning. "
    "Directly output the results. The output format should be a list containing multiple lists. "
    "Input: [{labels}]; Output: "
)

_EXTRACTORS = {"en": extract_english, "zh": extract_chinese}

_BRACKETS = str.maketrans("［］【】，、；", "[][],,;")
_FENCE = re.compile(r"```\w*")
_INNER_LIST = re.compile(r"\[([^\[\]]*)\]")
_LIST_ONLY = re.compile(
    r"(?:(?:the )?(?:output|answer|result)s?(?: is| are)?\s*[:：]?|输出\s*[:：]?)?\s*(\[.*\])\s*[.。;；]?",
    re.IGNORECASE | re.DOTALL,
)
_BARE_SEPARATOR = re.compile(r"\s*[,，、;；/\n]\s*(?:and\s+)?|\s+(?:and|or)\s+|[和与]")
_MAX_LISTED_CHARACTERS = 300
_NOTHING = frozenset({"", "none", "null", "n/a", "无"})
# A label of more words, or with the punctuation of a sentence, is prose that the model put between brackets.
_MAX_LABEL_WORDS = 6
_MAX_LABEL_CHARACTERS = 48
_PROSE = re.compile(r"[.!?:：。！？{}]")

_QUOTED = re.compile(r'"[^"\n]*"|“[^”\n]*”')
_SENTENCE_END = re.compile(r"[.!?]+[\"”')\]]*\s+(?=[^a-z\s])|[。！？]+[”’」』）)]*|\s*\n\s*")


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
# In Chinese, by the characters that it opens with.
_NUM_OPENING_CHARACTERS = 12
_CHINESE_MODALITY_WORDS = {
    "video": ("视频", "画面", "镜头", "面部", "表情", "神态", "脸", "眼", "眉", "嘴", "目光", "视线"),
    "audio": ("音频", "声音", "嗓音", "语音", "语调", "语气", "音调", "说话声", "说话的声"),
    "text": ("字幕", "台词", "文本", "这句话", "话语"),
}
_MODALITY_OF_CHINESE_WORD = {word: modality for modality, words in _CHINESE_MODALITY_WORDS.items() for word in words}
_CHINESE_WORD = re.compile("|".join(_MODALITY_OF_CHINESE_WORD))

_CONCLUDES = re.compile(
    r"(?:therefore|thus|hence|consequently|so|overall|altogether|taken together|all in all"
    r"|in (?:conclusion|summary|short|sum)|to sum up|based on|combining|judging (?:by|from))\b"
    r"|因此|综上|总之|所以|总的来说|总体|综合|由此",
    re.IGNORECASE,
)
_SOMEBODY = r"\b(?:person|people|man|woman|boy|girl|child|lady|individual|character|speaker|he|she|they)(?:['’]s)?\b"
_STATE_IS = r"\bemotion(?:s|al (?:state|condition)s?)?\b[^.,;:]*?\b(?:is|are|be|as|include)\b"
_SPEAKS_OF_STATE = re.compile(rf"{_SOMEBODY}[^.;:]*?\b(?:seem|appear|feel)s?\b|{_STATE_IS}", re.IGNORECASE)


class ChatBackend(Protocol):
    """What a backend other than the lexicon has to offer: `ChatModel` and `LocalChatModel` of `chat.py` do."""

    def complete_many(self, conversations, *, parse=None) -> list: ...


def extract_labels(
    text: str | Sequence[str], language: str = "en", backend: str | ChatBackend = "lexicon"
) -> list[str] | list[list[str]]:
    """The emotion labels that a description states of its main character.

    A text that is nothing but a list in square brackets is read as that list, whatever the backend.

    Args:
        text (`str` or `Sequence[str]`): a description, or a batch of them.
        language (`str`): "en" or "zh", the language of the descriptions.
        backend (`str` or `ChatBackend`): "lexicon", or a chat model. The prompt that a chat model gets is the same for both
            languages; its labels come in the language it chooses.

    Returns:
        `list[str]`: lower-cased labels, each once; a list of such lists for a batch. Empty where no state is told.

    Raises:
        ValueError: on another language or backend.
        TypeError: if `text` holds something that is no string.
    """
    if language not in _EXTRACTORS:
        raise ValueError(f'Expected the language "en" or "zh", got {language!r}. Translate the descriptions first.')
    texts = [text] if isinstance(text, str) else list(text)
    for item in texts:
        if not isinstance(item, str):
            raise TypeError(
                f"Expected descriptions as strings, got {type(item).__name__}. Give '' for a clip without a description."
            )
    model = _chat_model(backend)
    labels: list = [_labels_of_bare_list(item) for item in texts]
    asked = [number for number, found in enumerate(labels) if found is None]
    if model is None:
        found = [_EXTRACTORS[language](texts[number]) for number in asked]
    else:
        # Nothing to read in an empty text: no request, and no label.
        asked_of_model = [number for number in asked if texts[number].strip()]
        prompts = [_conversation(EXTRACTION_PROMPT.replace("{description}", texts[number].strip())) for number in asked_of_model]
        answers = dict(zip(asked_of_model, model.complete_many(prompts, parse=parse_labels) if prompts else [], strict=True))
        found = [answers.get(number, []) for number in asked]
    for number, item in zip(asked, found, strict=True):
        labels[number] = item
    return labels[0] if isinstance(text, str) else labels


def group_labels(
    labels: Sequence[str] | Sequence[Sequence[str]], backend: str | ChatBackend = "lexicon"
) -> list[list[str]] | list[list[list[str]]]:
    """Group the labels of one clip by meaning; English and Chinese labels may be mixed.

    Args:
        labels (`Sequence`): the annotated and predicted labels of one clip, or a batch: one such list per clip.
        backend (`str` or `ChatBackend`): "lexicon" (see `lexicon.group_words`), or a chat model. A label that a model forgets is a
            group of its own, one that it invents is dropped, and one that it names twice stays where it came first.

    Returns:
        `list[list[str]]`: groups of lower-cased labels that together hold each label once; a list of such groupings for a batch.

    Raises:
        ValueError: on another backend.
        TypeError: if `labels` is a string, or mixes strings with lists.
    """
    if isinstance(labels, str):
        raise TypeError(f"Expected a list of labels, got the string {labels!r}. Put it in a list, or extract its labels first.")
    labels = list(labels)
    is_batch = bool(labels) and not isinstance(labels[0], str)
    clips = labels if is_batch else [labels]
    for clip in clips:
        if isinstance(clip, str):
            raise TypeError(f"Expected one list of labels per clip, got the string {clip!r} among them. Put it in a list.")
        for label in clip:
            if not isinstance(label, str):
                raise TypeError(
                    f"Expected labels as strings, got {type(label).__name__}. Give either one list of labels or one per clip."
                )
    model = _chat_model(backend)
    if model is None:
        groupings = [group_words(clip) for clip in clips]
    else:
        clips = [[label for label in dict.fromkeys(label.strip().lower() for label in clip) if label] for clip in clips]
        asked = [number for number, clip in enumerate(clips) if len(clip) > 1]
        prompts = [_conversation(GROUPING_PROMPT.replace("{labels}", ", ".join(clips[number]))) for number in asked]
        answers = dict(zip(asked, model.complete_many(prompts, parse=parse_groups) if prompts else [], strict=True))
        groupings = [_complete(answers.get(number, []), clip) for number, clip in enumerate(clips)]
    return groupings if is_batch else groupings[0]


def parse_labels(answer: str) -> list[str]:
    """Read a model's list of labels: `[happy, sad]`, with or without quotes, in Chinese punctuation or a code fence.

    Raises:
        ValueError: if the answer is something else than one list of labels, prose between brackets for example.
    """
    inside = _only_list(answer)
    if inside is None or "[" in inside[1:-1] or "]" in inside[1:-1]:
        raise ValueError(f"Expected a list of labels such as [happy, sad], got {_shortened(answer)}. Ask the model again.")
    return _items(inside[1:-1], answer)


def parse_groups(answer: str) -> list[list[str]]:
    """Read a model's groups of labels: `[[happy, glad], [sad]]`, as tolerantly as `parse_labels`.

    Raises:
        ValueError: if the answer is something else than a list of lists of labels.
    """
    inside = _only_list(answer)
    lists = [] if inside is None else _INNER_LIST.findall(inside[1:-1])
    if inside is None or not lists or _INNER_LIST.sub("", inside[1:-1]).strip(" ,;\n\t"):
        raise ValueError(f"Expected a list of lists such as [[happy, glad], [sad]], got {_shortened(answer)}. Ask the model again.")
    return [group for group in (_items(text, answer) for text in lists) if group]


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
    space = "" if is_chinese(text) else " "
    return {modality: space.join(clues[modality]) for modality in _MODALITY_WORDS if modality in clues}


def _chat_model(backend: str | ChatBackend) -> ChatBackend | None:
    if backend == "lexicon":
        return None
    if not callable(getattr(backend, "complete_many", None)):
        raise ValueError(
            f'Expected the backend "lexicon" or a chat model with `complete_many`, got {backend!r}. See affectgpt.chat.'
        )
    return backend


def _conversation(prompt: str) -> list[dict]:
    return [{"role": "user", "content": prompt}]


def _labels_of_bare_list(text: str) -> list[str] | None:
    """The labels of a text that is no prose: a list in square brackets, or words of the lexicon with commas between them."""
    if "[" in text:
        try:
            return parse_labels(text)
        except ValueError:
            return None  # prose, or brackets around prose: read it as prose
    if len(text) > _MAX_LISTED_CHARACTERS:
        return None
    items = [item.strip(" \t\n.。'\"").lower() for item in _BARE_SEPARATOR.split(text)]
    if all(item in load_entries("zh" if is_chinese(item) else "en") for item in items):
        return list(dict.fromkeys(items))
    return None


def _only_list(answer: str) -> str | None:
    """The list that the answer consists of, with ASCII brackets and commas."""
    match = _LIST_ONLY.fullmatch(_FENCE.sub("", answer).translate(_BRACKETS).strip())
    return match and match[1]


def _items(text: str, answer: str) -> list[str]:
    items = [item.strip(" \t\n'\"“”‘’").replace("_", " ").lower() for item in re.split(r"[,;\n]", text)]
    for item in items:
        if _PROSE.search(item) or len(item.split()) > _MAX_LABEL_WORDS or len(item) > _MAX_LABEL_CHARACTERS:
            raise ValueError(f"Expected labels of a few words, got {item!r} in {_shortened(answer)}. Ask the model again.")
    return list(dict.fromkeys(item for item in items if item not in _NOTHING))


def _complete(groups: list[list[str]], labels: list[str]) -> list[list[str]]:
    """The model's groups restricted to `labels`, and a group for each label that it forgot."""
    rest = dict.fromkeys(labels)
    kept = [[label for label in group if rest.pop(label, "gone") is None] for group in groups]
    return [group for group in kept if group] + [[label] for label in rest]


def _shortened(answer: str) -> str:
    return repr(answer if len(answer) <= 120 else answer[:117] + "...")


def _is_conclusion(sentence: str) -> bool:
    if _CONCLUDES.match(sentence):
        return True
    return _modality(sentence) is None and _SPEAKS_OF_STATE.search(_QUOTED.sub('""', sentence)) is not None


def _modality(sentence: str) -> str | None:
    for word in re.findall(r"[^\W_]+", sentence.lower())[:_NUM_OPENING_WORDS]:
        if word in _MODALITY_OF_WORD:
            return _MODALITY_OF_WORD[word]
    word = _CHINESE_WORD.search(sentence[:_NUM_OPENING_CHARACTERS])
    return word and _MODALITY_OF_CHINESE_WORD[word[0]]
