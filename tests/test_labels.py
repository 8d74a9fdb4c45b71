"""Sentences, clues and labels are read off the prose of explanations."""

import subprocess
import sys

import pytest

from affectgpt.labels import split_clues, split_sentences, stated_labels
from training.sketch import scenarios

ANSWER = (
    "In the video, the inner brows are raised and the corners of the mouth turn down. Nothing else moves. The voice trembles and "
    'breaks off. The subtitle says, "I am fine. Really, I am." Said like that, these words hide something. '
    "Therefore, the person seems worried, sad and tense."
)


@pytest.mark.parametrize(
    ("conclusion", "labels"),
    [
        ("Therefore, the person seems worried, sad and tense.", ["worried", "sad", "tense"]),
        ("Therefore, the person feels both happy and relieved.", ["happy", "relieved"]),
        ("So the speaker is angry, though also a little sad.", ["angry", "sad"]),
        (
            "Overall, she seems perhaps slightly Worried, worried, and deeply disappointed about the news.",
            ["worried", "disappointed"],
        ),
        ("Taken together, he appears to be rather tense, as the voice trembles, cracks and stops.", ["tense"]),
        ("Therefore, the person seems pleasantly surprised.", ["pleasantly surprised"]),
        ("All in all, the man seems not happy but tired.", ["tired"]),
        ("Thus, they seem neither glad nor calm.", []),
        ("Thus, it is hard to tell.", []),
        ("Therefore, the person seems calm. They also feel a little bored.", ["calm", "bored"]),
    ],
)
def test_stated_labels_of_a_conclusion_are_its_emotions(conclusion, labels):
    assert stated_labels(conclusion) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("The person's emotional state is happy and excited.", ["happy", "excited"]),
        ("She frowns. In conclusion, one may infer that she is in a state of anger or sadness.", ["anger", "sadness"]),
        ("Overall, it seems likely that the man is experiencing a mix of anxiety and hope.", ["anxiety", "hope"]),
        ("The woman appears to be upset and frustrated, as she slams the door and shouts.", ["upset", "frustrated"]),
        ("He is feeling emotions such as fear/shock.\nOverall, his emotional state may be fear.", ["fear"]),
    ],
)
def test_stated_labels_of_free_prose_are_found(text, labels):
    assert stated_labels(text) == labels


@pytest.mark.parametrize(
    ("text", "labels"), [("[happy, sad]", ["happy", "sad"]), ("Output: ['Glad', \"glad\", 'shy']", ["glad", "shy"]), ("[]", [])]
)
def test_stated_labels_of_a_list_are_its_items(text, labels):
    assert stated_labels(text) == labels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "In the video, the face smiles. In the audio, the voice sounds calm.",
        "The man is in a room. He looks down.",
        'The subtitle says, "Therefore, the person seems glad."',
    ],
)
def test_stated_labels_without_conclusion_are_none(text):
    assert stated_labels(text) == []


def test_stated_labels_ignore_what_is_quoted():
    text = 'The words are, "Overall, the person seems glad [glad]." Therefore, the person seems hurt.'
    assert stated_labels(text) == ["hurt"]
    assert stated_labels('["hurt", "sad"]') == ["hurt", "sad"]


def test_split_sentences_leaves_quotations_whole():
    assert split_sentences('They say, "Go. Now!" The voice is loud. "No." is all.') == [
        'They say, "Go. Now!"',
        "The voice is loud.",
        '"No." is all.',
    ]


def test_split_clues_sorts_sentences_by_modality():
    assert split_clues(ANSWER) == {
        "video": "In the video, the inner brows are raised and the corners of the mouth turn down. Nothing else moves.",
        "audio": "The voice trembles and breaks off.",
        "text": 'The subtitle says, "I am fine. Really, I am." Said like that, these words hide something.',
    }
    assert stated_labels(ANSWER) == ["worried", "sad", "tense"]


def test_split_clues_of_the_beginning_of_an_answer_are_what_stands_there():
    assert split_clues(ANSWER[:40]) == {"video": ANSWER[:40]}


def test_split_clues_without_any_modality_are_none():
    assert split_clues("Therefore, the person seems calm.") == {}
    assert split_clues("") == {}


def test_drawn_worlds_descriptions_are_read_back():
    for split in ("coarse", "test"):
        for scene in scenarios.sample_scenes(split, 100, seed=3):
            row = scenarios.row_of(scene)
            assert stated_labels(row["description"]) == row["labels"]
            assert split_clues(row["description"]) == row["clues"]


def test_labels_need_no_torch():
    code = "import sys, affectgpt.labels; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
