import itertools
from collections import Counter

import numpy as np
import pytest

from affectgpt.labels import extract_labels
from training.sketch.actions import EXPRESSIONS
from training.sketch.chinese import LABELS as CHINESE_LABELS
from training.sketch.grammar import (
    BROAD,
    COMBINATIONS,
    COURSES,
    FINE,
    LABELS,
    LEVELS,
    MANNER,
    MANNERS,
    SIDE,
    SIDES,
    TEXT_ACTS,
    TOPIC,
    TOPICS,
    VOICE_NAMES,
    avg,
    best_answer,
    ceilings,
    is_held_out,
    labels_of,
    phases_of,
    side_of,
)
from training.sketch.voices import VOICES

SEEN = [combination for combination in COMBINATIONS if not is_held_out(*combination)]
HELD_OUT = [combination for combination in COMBINATIONS if is_held_out(*combination)]


def all_labels():
    for (course, voice, act), level in itertools.product(COMBINATIONS, LEVELS):
        yield labels_of(course, level, voice, act)


def test_world_has_twenty_expressions_eight_turns_and_twenty_four_words():
    assert {phase for course in COURSES for phase in phases_of(course)} == set(EXPRESSIONS) == set(SIDE)
    assert [sum(len(phases_of(course)) == number for course in COURSES) for number in (1, 2)] == [20, 8]
    assert set(VOICE_NAMES) == set(VOICES) == set(MANNER)
    assert set(TEXT_ACTS) == set(TOPIC)
    assert len(LABELS) == 24 == len(FINE) + sum(map(len, FINE.values())) and "neutral" in FINE
    assert len(COMBINATIONS) == 28 * 8 * 8


def test_labels_of_every_combination_are_one_to_three_words_and_every_word_is_used():
    used = Counter()
    for labels in all_labels():
        assert 1 <= len(set(labels)) == len(labels) <= 3
        used.update(labels)
    assert set(used) == set(LABELS) == set(CHINESE_LABELS)


@pytest.mark.parametrize(
    "combination, label",
    [
        (("smirk", "full", "harsh", "praise"), "sarcastic"),  # sarcasm
        (("masking_smile", "full", "calm", "bad_news"), "hurt"),  # a masking smile
        (("polite_smile", "full", "harsh", "complaint"), "frustrated"),  # polite anger
        (("weeping_smile", "full", "trembling", "good_news"), "grateful"),  # tears of joy
        (("worry", "full", "laughing", "warning"), "nervous"),  # nervous laughter
        (("feigned_surprise", "full", "calm", "good_news"), "sarcastic"),  # feigned surprise
        (("scowl>smile", "full", "calm", "remark"), "relieved"),  # first serious, then smiling
        (("bashful", "full", "hesitant", "apology"), "guilty"),
        (("neutral", "full", "dull", "remark"), "neutral"),
    ],
)
def test_labels_of_telling_combinations_name_the_feeling(combination, label):
    assert label in labels_of(*combination)


def test_slight_faces_are_named_by_the_broad_word():
    for course, voice, act in COMBINATIONS:
        slight, full = (labels_of(course, level, voice, act)[0] for level in LEVELS)
        assert slight == (full if course == "neutral" else BROAD[full])
    assert BROAD["frustrated"] == BROAD["angry"] == "angry"


def test_order_of_two_phases_decides():
    assert side_of("scowl>smile") == "glad" and side_of("polite_smile>scowl") == "hostile"
    assert labels_of("smile>sadness", "full", "calm", "praise") != labels_of("smile", "full", "calm", "praise")


@pytest.mark.parametrize(
    "combination",
    [
        ("joy", "full", "calm", "praise"),
        ("smile", "much", "calm", "praise"),
        ("smile", "full", "shouting", "praise"),
        ("smile", "full", "calm", "question"),
        ("smile>scowl", "full", "calm", "praise"),
    ],
)
def test_labels_of_unknown_part_raises(combination):
    with pytest.raises(ValueError, match="Expected one of .*, got '(joy|much|shouting|question|smile>scowl)'"):
        labels_of(*combination)


def test_held_out_combinations_are_a_fifth_and_leave_every_rule_seen():
    assert 0.19 < len(HELD_OUT) / len(COMBINATIONS) < 0.21
    for first, second in itertools.combinations(range(3), 2):
        pairs = Counter((combination[first], combination[second]) for combination in SEEN)
        assert len(pairs) == len({(combination[first], combination[second]) for combination in COMBINATIONS})
        assert min(pairs.values()) >= 4
    felt = Counter((course, MANNER[voice]) for course, voice, _ in SEEN)
    tone = Counter((voice, TOPIC[act]) for _, voice, act in SEEN)
    stance = Counter((act, side_of(course)) for course, _, act in SEEN)
    assert (len(felt), len(tone), len(stance)) == (28 * len(MANNERS), 8 * len(TOPICS), 8 * len(SIDES))
    assert min(*felt.values(), *tone.values(), *stance.values()) >= 4


def test_ceilings_no_modality_above_50_no_pair_above_80():
    for limits in (ceilings(), ceilings(COMBINATIONS)):
        assert max(limits["face"], limits["voice"], limits["words"]) <= 50
        assert max(limits["face+voice"], limits["face+words"], limits["voice+words"]) <= 80
        assert limits["none"] < min(limits["face"], limits["voice"], limits["words"])
        assert limits["face+voice+words"] == pytest.approx(100)


def test_best_answer_beats_every_other_answer():
    rows = [set(labels_of(course, "full", "harsh", "praise")) for course in COURSES]
    candidates = sorted(set().union(*rows))
    best = max(
        np.mean([avg(set(answer), row) for row in rows])
        for size in range(1, 5)
        for answer in itertools.combinations(candidates, size)
    )
    assert np.mean([avg(best_answer(rows), row) for row in rows]) == pytest.approx(best)


def test_true_words_with_strange_media_score_no_better_than_a_constant():
    rng = np.random.default_rng(0)
    strange = [SEEN[place][:2] for place in rng.integers(len(SEEN), size=4000)]
    held = [HELD_OUT[place] for place in rng.integers(len(HELD_OUT), size=4000)]
    scores = [
        avg(set(labels_of(course, "full", voice, truth[2])), set(labels_of(truth[0], "full", *truth[1:])))
        for (course, voice), truth in zip(strange, held, strict=True)
    ]
    assert 100 * np.mean(scores) <= ceilings()["none"] + 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_word_can_be_read_off_a_conclusion(language):
    for label in LABELS:
        text = f"Therefore, the person seems {label}." if language == "en" else f"因此，这个人流露出{CHINESE_LABELS[label]}的情绪。"
        assert extract_labels(text, language=language) == [label if language == "en" else CHINESE_LABELS[label]]
