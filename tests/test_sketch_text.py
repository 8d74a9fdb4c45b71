import re
from collections import Counter

import numpy as np
import pytest

from affectgpt.labels import extract_labels, split_clues
from training.sketch import chinese, english
from training.sketch.grammar import COURSES, SIDES, TEXT_ACTS, VOICE_NAMES
from training.sketch.scenarios import row_of, sample_scenes, tell
from training.sketch.text import SIGNS_OF, Impression, describe, face_words, sentences, voice_words

FINE = sample_scenes("fine_train", 266, seed=0) + sample_scenes("fine_test", 66, seed=0)
SENTENCE_END = {"en": r"(?<=\.) ", "zh": r"(?<=。)"}
COLUMN = {"en": "description", "zh": "description_zh"}


def words_of(text):
    return re.findall(r"[a-z']+", text.lower())


def characters_of(text):
    return re.findall(r"[\u3400-\u9fff]", text)


def test_sentences_are_several_hundred_short_distinct_pairs():
    pairs = [pair for parts in sentences().values() for part in parts.values() for pair in part]
    assert set(sentences()) == set(TEXT_ACTS) and len(pairs) >= 400
    for language in range(2):
        assert len({pair[language] for pair in pairs}) == len(pairs)
    assert all(5 <= len(english_.split()) <= 9 for english_, _ in pairs)
    assert all(4 <= len(characters_of(chinese_)) <= 16 for _, chinese_ in pairs)
    assert not any(re.search(r"[A-Za-z0-9]", chinese_) for _, chinese_ in pairs)
    for parts in sentences().values():
        assert len(parts["train"]) >= 36 and len(parts["held_out"]) >= 12


@pytest.mark.parametrize("language, units", [(0, words_of), (1, characters_of)])
def test_held_out_sentences_use_known_words_and_tell_their_act(language, units):
    counts = {act: Counter(unit for pair in parts["train"] for unit in units(pair[language])) for act, parts in sentences().items()}
    held_out = [(act, units(pair[language])) for act, parts in sentences().items() for pair in parts["held_out"]]
    assert {unit for _, said in held_out for unit in said} <= set().union(*counts.values())

    def likelihood(act, said):
        return sum(np.log((counts[act][unit] + 0.3) / (counts[act].total() + 200)) for unit in said)

    guesses = [max(counts, key=lambda act: likelihood(act, said)) == truth for truth, said in held_out]
    assert np.mean(guesses) > 0.9


def test_both_languages_have_phrases_for_the_same_things():
    for name in ("SIGNS", "HEARD", "ACTS", "MEANINGS", "TIMINGS", "FACE_DEGREES", "VOICE_DEGREES"):
        assert set(getattr(english, name)) == set(getattr(chinese, name)), name
    assert {sign for signs in SIGNS_OF.values() for sign in signs} == set(english.SIGNS)
    for phrases in (english, chinese):
        assert all(set(meanings) == set(SIDES) for meanings in phrases.MEANINGS.values())
        ways = [way for meanings in phrases.MEANINGS.values() for side in meanings.values() for way in side]
        assert len(ways) == len(set(ways)) == 8 * 4 * 3
    assert len({frozenset(signs) for signs in SIGNS_OF.values()}) == len(SIGNS_OF)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_fine_descriptions_repeat_at_most_a_twentieth_of_their_sentences(language):
    told = [part for scene in FINE for part in re.split(SENTENCE_END[language], row_of(scene)[COLUMN[language]]) if part]
    assert len(told) == 4 * len(FINE)
    times = Counter(told)
    assert sum(count for count in times.values() if count > 1) <= 0.05 * len(told)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_labels_and_clues_can_be_read_back_from_descriptions(language):
    scenes = sample_scenes("coarse", 700, seed=3) + FINE
    for scene in scenes:
        row, (clues, _) = row_of(scene), tell(scene, language)
        labels = row["labels"] if language == "en" else [chinese.LABELS[label] for label in row["labels"]]
        assert extract_labels(row[COLUMN[language]], language=language) == labels
        assert split_clues(row[COLUMN[language]]) == clues and list(clues) == ["video", "audio", "text"]


def test_chinese_descriptions_are_chinese_and_english_ones_english():
    for scene in FINE:
        row = row_of(scene)
        assert not re.search(r"[A-Za-z|{}]", row["description_zh"])
        assert not re.search(r"[\u3000-\u9fff|{}]", row["description"])
        assert 30 <= len(row["description"].split()) <= 80 and 50 <= len(row["description_zh"]) <= 160


def test_description_tells_how_much_and_when():
    def seen(**changes):
        impression = Impression(
            **{"course": "smile", "level": "full", "timing": "late", "voice": "calm", "voice_level": "full", "text_act": "remark"}
            | changes
        )
        return {describe(impression, ["calm"], np.random.default_rng(seed))[0]["video"] for seed in range(30)}

    assert all("slightly" in text for text in seen(level="slight"))
    assert not any("slightly" in text for text in seen())
    assert all(text.endswith(tuple(f", {way}." for way in english.TIMINGS["late"])) for text in seen())
    turning = seen(course="scowl>smile", timing="turn")
    assert all(any(first in text for first in english.FIRST) and any(then in text for then in english.THEN) for text in turning)
    assert not any("slightly" in text for text in seen(course="neutral", level="slight"))


def test_clue_words_tell_courses_and_voices_apart():
    rng = np.random.default_rng(0)
    faces = {course: {frozenset(face_words(course, "full", "held", rng)) for _ in range(60)} for course in COURSES}
    for first in COURSES:
        for second in COURSES:
            assert first == second or not faces[first] & faces[second]
    voices = {voice: {frozenset(voice_words(voice, "full", rng)) for _ in range(60)} for voice in VOICE_NAMES}
    assert all(first == second or not voices[first] & voices[second] for first in voices for second in voices)
    assert "then" in face_words("scowl>smile", "full", "turn", rng) and "then" not in face_words("scowl", "full", "late", rng)
