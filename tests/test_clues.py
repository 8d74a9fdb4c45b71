"""What an answer states about face, voice and words, and whether the scene bears it out."""

import itertools

import numpy as np
import pytest

from training.clues import (
    CONTRADICTED,
    MODALITIES,
    REST,
    RIGHT,
    UNSUPPORTED,
    clue_scores,
    describe_clues,
    judge_clues,
    scene_truth,
)
from training.sketch.actions import EXPRESSIONS
from training.sketch.english import HEARD, MEANINGS, SIGNS
from training.sketch.grammar import COMBINATIONS, SIDES, STANCE, labels_of
from training.sketch.text import SIGNS_OF, Impression, describe, join
from training.sketch.voices import VOICES


def truth_of(expression="neutral", voice="calm", text_act="remark"):
    return scene_truth({"source": "EMER-Sketch", "expression": expression, "voice": voice, "text_act": text_act})


def verdicts(text, **scene):
    return {(found.aspect, found.value): found.verdict for found in judge_clues(text, truth_of(**scene)).statements}


@pytest.mark.parametrize("seed", [0, 1])
def test_every_combination_bears_its_own_description_out(seed):
    for course, voice, act in COMBINATIONS:
        rng = np.random.default_rng([seed, len(course)])
        level, timing = ("slight", "full")[seed], "turn" if ">" in course else "held"
        labels = labels_of(course, level, voice, act)
        text = join(*describe(Impression(course, level, timing, voice, level, act), labels, rng))
        found = judge_clues(text, truth_of(course, voice, act))
        assert [str(statement) for statement in found.statements if statement.verdict != RIGHT] == []
        assert all(recalled > 0 for recalled, _ in found.recalled.values())


def test_every_way_to_name_a_sign_is_understood():
    for expression, signs in SIGNS_OF.items():
        for way in itertools.chain(*(SIGNS[sign] for sign in signs)):
            text = f"In the video, {way.replace('|', ' ')}."
            found = verdicts(text, expression=expression)
            assert found and set(found.values()) == {RIGHT}, text
    for voice, (qualities, doings) in HEARD.items():
        for way in itertools.product(qualities, doings):
            text = f"The voice is {', '.join(way)}."
            found = verdicts(text, voice=voice)
            assert found and set(found.values()) == {RIGHT}, text


def test_every_meaning_of_the_words_is_told_from_all_others():
    for act, meanings in MEANINGS.items():
        for side, phrases in meanings.items():
            expression = {"glad": "smile", "composed": "neutral", "hurting": "grief", "hostile": "scowl"}[side]
            label = STANCE[act][SIDES.index(side)]
            for phrase in phrases:
                found = verdicts(f"The words are such; given the face, {phrase}.", expression=expression, text_act=act)
                assert found["meaning", label] == RIGHT
                assert {value for aspect, value in found if aspect == "meaning"} == {label}


def test_what_either_of_two_phases_shows_is_there():
    found = verdicts("On the face, at first the brows lower, then the lip corners rise.", expression="scowl>smile")
    assert found == {("brows", "lowered"): RIGHT, ("lip corners", "up"): RIGHT}
    assert verdicts("On the face, the brows rest.", expression="neutral>laugh") == {("brows", REST): RIGHT}
    assert verdicts("On the face, the lip corners sink.", expression="surprise>smile")["lip corners", "down"] != RIGHT


@pytest.mark.parametrize(
    ("text", "scene", "expected"),
    [
        ("On the face, the brows rise.", {"expression": "scowl"}, {("brows", "raised"): CONTRADICTED}),
        ("On the face, the brows lower.", {"expression": "surprise"}, {("brows", "lowered"): CONTRADICTED}),
        ("On the face, one brow goes up.", {"expression": "smirk"}, {("brows", "one raised"): RIGHT}),
        ("On the face, one brow goes up.", {"expression": "surprise"}, {("brows", "one raised"): UNSUPPORTED}),
        ("On the face, the brows rest.", {"expression": "scowl"}, {("brows", REST): CONTRADICTED}),
        ("On the face, the brows rest.", {"expression": "smile"}, {("brows", REST): RIGHT}),
        ("On the face, the lip corners sink.", {"expression": "smile"}, {("lip corners", "down"): CONTRADICTED}),
        ("On the face, tears run down.", {"expression": "smile"}, {("tears", "there"): UNSUPPORTED}),
        ("On the face, there are no tears.", {"expression": "grief"}, {("tears", "not there"): CONTRADICTED}),
        ("On the face, there are no tears.", {"expression": "smile"}, {}),
        ("On the face, the brows do not rise.", {"expression": "surprise"}, {("brows", "not raised"): CONTRADICTED}),
        ("On the face, nothing shifts.", {"expression": "fear"}, {("whole", "still"): CONTRADICTED}),
        ("The voice is loud.", {"voice": "breathy"}, {("loudness", "loud"): CONTRADICTED}),
        ("The voice is faint.", {"voice": "harsh"}, {("loudness", "soft"): CONTRADICTED}),
        ("The voice is steady.", {"voice": "trembling"}, {("steadiness", REST): CONTRADICTED}),
        ("The voice is shaky.", {"voice": "hesitant"}, {("steadiness", "trembling"): UNSUPPORTED}),
        ("The voice has almost no melody.", {"voice": "dull"}, {("melody", "flat"): RIGHT}),
        ("The words bring good news.", {"text_act": "bad_news"}, {("act", "good_news"): CONTRADICTED}),
        ("The words warn of a danger.", {"text_act": "remark"}, {("act", "warning"): UNSUPPORTED}),
    ],
)
def test_statement_is_right_unsupported_or_contradicted(text, scene, expected):
    assert verdicts(text, **scene) == expected


def test_opposite_sentiment_of_the_words_is_contradicted():
    praise = {"expression": "smile", "text_act": "praise"}
    assert verdicts("The words are praise; the praise means the opposite.", **praise)["meaning", "sarcastic"] == CONTRADICTED
    warning = {"expression": "neutral", "text_act": "warning"}
    assert verdicts("The words are a warning; the warning is a cry of alarm.", **warning)["meaning", "afraid"] == UNSUPPORTED


def test_other_wording_than_the_corpus_says_the_same():
    text = (
        "Looking at her face, she frowns and her lips are tightly pressed. "
        "Her voice sounds harsh, and she is almost shouting. The subtitle is a complaint."
    )
    found = verdicts(text, expression="scowl", voice="harsh", text_act="complaint")
    assert set(found.values()) == {RIGHT}
    assert {("brows", "lowered"), ("mouth", "pressed"), ("timbre", "rough"), ("loudness", "loud"), ("act", "complaint")} <= set(
        found
    )


def test_statement_counts_in_the_modality_that_its_sentence_speaks_of():
    found = judge_clues("The voice is soft and even. Therefore, the person seems loud and angry.", truth_of(voice="breathy"))
    assert {statement.modality for statement in found.statements} == {"audio"}
    assert found.counts("video") == (0, 0, 0, 0, 1)


def test_same_statement_twice_counts_once():
    once = judge_clues("The voice is loud.", truth_of(voice="harsh"))
    twice = judge_clues("The voice is loud, loud, and loud. The voice is loud.", truth_of(voice="harsh"))
    assert once == twice


def test_recall_is_the_share_of_plain_aspects_and_a_still_face_is_one():
    assert judge_clues("On the face, the brows rest.", truth_of("neutral")).recalled["video"] == (1, 1)
    found = judge_clues("On the face, the jaw drops and the brows jump up.", truth_of("surprise"))
    assert found.recalled["video"] == (2, 3)  # brows, mouth, eyes
    assert judge_clues("", truth_of("surprise")).recalled["video"] == (0, 3)


def test_truth_says_what_each_face_and_voice_plainly_has():
    for expression in EXPRESSIONS:
        assert judge_clues("", truth_of(expression)).recalled["video"][1] >= 1
    for voice in VOICES:
        assert judge_clues("", truth_of(voice=voice)).recalled["audio"][1] >= 1
    with pytest.raises(ValueError, match="Expected a row of EMER-Sketch, whose scenes are known, got one of MER2023"):
        scene_truth({"source": "MER2023"})


def test_scores_count_over_all_statements_and_say_nothing_of_silence():
    truth = truth_of("scowl", "harsh")
    clips = {
        "a": judge_clues("On the face, the brows lower, the lips press tight and tears appear. The voice is loud.", truth),
        "b": judge_clues("On the face, the brows rise.", truth),
    }
    scores = clue_scores(clips)
    face = scores["video"]
    assert (face.precision[0], face.contradicted[0]) == (pytest.approx(2 / 4), pytest.approx(1 / 4))
    assert face.precision[1] <= face.precision[0] <= face.precision[2]
    assert face.recall[0] == pytest.approx(2 / 4)  # brows and mouth, of one of two clips
    assert (face.num_statements, face.num_silent, face.num_clips) == (4, 0, 2)
    assert scores["audio"].num_silent == 1
    assert scores["text"].precision is None and scores["text"].contradicted is None
    assert scores["text"].recall[0] == 0
    table = describe_clues(scores)
    assert table.splitlines()[2].startswith("| face | 50.0 [")
    assert "| words |  | 0.0 [0.0, 0.0] |  | 0 | 2 of 2 |" in table
    assert list(scores) == list(MODALITIES)
