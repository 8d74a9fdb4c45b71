"""Sentences, clues and labels are read off the prose of explanations; labels are grouped by meaning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from affectgpt.labels import (
    EXTRACTION_PROMPT,
    GROUPING_PROMPT,
    extract_labels,
    group_labels,
    parse_groups,
    parse_labels,
    split_clues,
    split_sentences,
)
from affectgpt.metrics import f_score, set_score
from training.sketch import scenarios

DATA = Path(os.environ.get("AFFECTGPT_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))

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
def test_labels_of_a_conclusion_are_its_emotions(conclusion, labels):
    assert extract_labels(conclusion) == labels


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
def test_labels_of_free_prose_are_found(text, labels):
    assert extract_labels(text) == labels


@pytest.mark.parametrize(
    ("text", "labels"), [("[happy, sad]", ["happy", "sad"]), ("Output: ['Glad', \"glad\", 'shy']", ["glad", "shy"]), ("[]", [])]
)
def test_labels_of_a_list_are_its_items(text, labels):
    assert extract_labels(text) == labels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "In the video, the face smiles. In the audio, the voice sounds calm.",
        "The man is in a room. He looks down.",
        'The subtitle says, "Therefore, the person seems glad."',
    ],
)
def test_labels_without_conclusion_are_none(text):
    assert extract_labels(text) == []


def test_labels_ignore_what_is_quoted():
    text = 'The words are, "Overall, the person seems glad [glad]." Therefore, the person seems hurt.'
    assert extract_labels(text) == ["hurt"]
    assert extract_labels('["hurt", "sad"]') == ["hurt", "sad"]


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
    assert extract_labels(ANSWER) == ["worried", "sad", "tense"]


def test_split_clues_of_the_beginning_of_an_answer_are_what_stands_there():
    assert split_clues(ANSWER[:40]) == {"video": ANSWER[:40]}


def test_split_clues_without_any_modality_are_none():
    assert split_clues("Therefore, the person seems calm.") == {}
    assert split_clues("") == {}


def test_drawn_worlds_descriptions_are_read_back():
    for split in ("coarse", "test"):
        for scene in scenarios.sample_scenes(split, 100, seed=3):
            row = scenarios.row_of(scene)
            assert extract_labels(row["description"]) == row["labels"]
            assert split_clues(row["description"]) == row["clues"]


def test_labels_need_no_torch():
    code = "import sys, affectgpt.labels; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("The person is happy.", ["happy"]),
        ("The person is calm.", ["calm"]),
        ("He is not angry, but sad.", ["sad"]),
        ("She shows no sign of anger, fear or sadness.", []),
        ("He seems relieved rather than worried.", ["relieved"]),
        ("He is not only sad but also furious.", ["sad", "furious"]),
        ("She lacks any enthusiasm; there is an absence of joy.", []),
        ("She may feel somewhat uneasy.", ["uneasy"]),
        ("It seems he might be slightly annoyed, perhaps even bored.", ["annoyed", "bored"]),
        ("We cannot determine whether he is angry.", []),
        ("It is hard to say if she is sad, worried or afraid.", []),
        ("It is unclear whether he is sad, but he is certainly tired.", ["tired"]),
        ("There is not enough context to determine the emotion, but she appears upset.", ["upset"]),
        ("It is difficult to suppress her excitement.", ["excitement"]),
        ("He does not smile, and we can infer that he is sad.", ["sad"]),
        ("It is not clear why; still, it can be inferred that she is ashamed.", ["ashamed"]),
        ("First he was calm, then he became furious.", ["calm", "furious"]),
        ("She was initially calm. Later she became very angry.", ["calm", "angry"]),
        ("She is on cloud nine.", ["on cloud nine"]),
        ("He is at the end of his rope.", ["at the end of his rope"]),
        ("Happy birthday! He smiles, and likes this kind of loud voice.", []),
        ("The woman speaks in a calm tone in a warm room.", []),
        ("In a serious conversation, she seems to feel a sense of warmth.", ["warmth"]),
        ("He worries about the other person's anger.", ["worries"]),
        ("She is sad because the other person feels disgusted.", ["sad"]),
        ("ANGRY and, as she’s tired, Unhappy.", ["angry", "tired", "unhappy"]),
        ("happy, calm, content", ["happy", "calm", "content"]),
        ("Output: [Happy, 'At_ease']", ["happy", "at ease"]),
        ("", []),
        (" \n ", []),
        ("?!", []),
    ],
)
def test_extract_labels_of_english_are_the_states_said_of_the_person(text, labels):
    assert extract_labels(text) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("他很开心。", ["开心"]),
        ("她怒火中烧，浑身发抖。", ["怒火中烧"]),
        ("他并不生气，而是很难过。", ["难过"]),
        ("她没有表现出任何愤怒。", []),
        ("无法判断他是否生气。", []),
        ("他先是平静，后来勃然大怒。", ["勃然大怒"]),
        ("她特别高兴，非常感激。", ["高兴", "感激"]),
        ("女士很愤怒，她皱着眉，她瞪着眼。旁边的男士很害怕。", ["愤怒"]),
        ("他说：“我很生气！”他的心情十分平静。", ["平静"]),
        ("开心、激动", ["开心", "激动"]),
        ("他笑了，声音很大。", []),
        ("", []),
    ],
)
def test_extract_labels_of_chinese_are_the_states_said_of_the_person(text, labels):
    assert extract_labels(text, "zh") == labels


def test_extract_labels_of_two_people_are_those_of_the_one_described_more():
    text = (
        "The woman frowns, she leans forward and her hands shake. She is furious. She points at the door and she shouts. "
        "Beside her stands a man. The man is amused."
    )
    assert extract_labels(text) == ["furious"]


def test_extract_labels_prefer_what_the_text_concludes():
    text = "A smile may mean joy. The low voice suggests sadness. In conclusion, her emotional state is grief."
    assert extract_labels(text) == ["grief"]


def test_extract_labels_add_to_a_conclusion_about_the_words_what_was_said_twice():
    text = "Her joyful face shows joy. A hint of doubt is there. Therefore, this sentence expresses gratitude."
    assert extract_labels(text) == ["gratitude", "joyful", "joy"]


def test_extract_labels_name_a_word_family_once():
    assert extract_labels("He feels sad. His sadness and sorrow grow, and he is sad again.") == ["sad", "sorrow"]


def test_extract_labels_of_a_batch_are_those_of_each_text():
    texts = ["He is angry.", "", "She feels shy."]
    assert extract_labels(texts) == [extract_labels(text) for text in texts] == [["angry"], [], ["shy"]]
    assert extract_labels([]) == []


def test_extract_labels_of_another_language_or_backend_raises():
    with pytest.raises(ValueError, match='"en" or "zh", got \'de\''):
        extract_labels("Er ist froh.", "de")
    with pytest.raises(ValueError, match="complete_many.*got 'gpt'"):
        extract_labels("He is glad.", backend="gpt")
    with pytest.raises(TypeError, match="as strings, got NoneType"):
        extract_labels(["He is glad.", None])


class FakeChat:
    """A chat model that takes its answers from a list and keeps the prompts; a malformed answer is replaced by the next one."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.prompts = []

    def complete_many(self, conversations, *, parse=None):
        return [self._complete(messages, parse) for messages in conversations]

    def _complete(self, messages, parse):
        assert [message["role"] for message in messages] == ["user"]
        self.prompts.append(messages[0]["content"])
        while True:
            try:
                return parse(self.answers.pop(0))
            except ValueError:
                continue


def test_extract_labels_by_a_chat_model_retry_malformed_answers_and_skip_empty_texts():
    chat = FakeChat("I cannot tell.", "[Happy, excited]", "[]")
    assert extract_labels(["She {laughs}.", "", "Nothing."], backend=chat) == [["happy", "excited"], [], []]
    assert (
        chat.prompts
        == [EXTRACTION_PROMPT.replace("{description}", text) for text in ("She {laughs}.", "She {laughs}.", "Nothing.")][1:]
    )
    assert extract_labels("", backend=FakeChat()) == []


def test_group_labels_by_a_chat_model_keep_every_label_once():
    chat = FakeChat("[happy, glad]", "[[Happy, glad, merry], [sad, happy]]")
    assert group_labels(["Happy", "glad", "sad", "shy", "glad"], backend=chat) == [["happy", "glad"], ["sad"], ["shy"]]
    assert chat.prompts == [GROUPING_PROMPT.replace("{labels}", "happy, glad, sad, shy")]


def test_group_labels_by_a_chat_model_ask_nothing_about_fewer_than_two_labels():
    assert group_labels([["shy"], []], backend=FakeChat()) == [[["shy"]], []]


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("[]", []),
        ("[none]", []),
        ("[happy, sad]", ["happy", "sad"]),
        ("['Happy', \"sad\", happy,]", ["happy", "sad"]),
        ("Output: [happy; sad].", ["happy", "sad"]),
        ('```json\n["happy", "sad"]\n```', ["happy", "sad"]),
        ("［开心，难过、“激动”］", ["开心", "难过", "激动"]),
    ],
)
def test_parse_labels_reads_lists(answer, labels):
    assert parse_labels(answer) == labels


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "happy",
        "I am sorry, but I cannot judge emotions.",
        "[happy, sad",
        "[[happy], [sad]]",
        "[happy] because he smiles",
        "[Since no clue has been given, it is not possible to tell.]",
        "[based on the clues we would need to analyse the voice]",
        '{"labels": ["happy"]}',
    ],
)
def test_parse_labels_of_anything_else_raises(answer):
    with pytest.raises(ValueError, match="Ask the model again"):
        parse_labels(answer)


def test_parse_groups_reads_lists_of_lists():
    expected = [["happy", "glad"], ["sad"]]
    assert parse_groups("[[happy, glad], [sad]]") == expected
    assert parse_groups('```\nOutput: [["Happy", "glad"],\n [], [\'sad\']]\n```') == expected
    assert parse_groups("［［开心，高兴］、［难过］］") == [["开心", "高兴"], ["难过"]]


@pytest.mark.parametrize(
    "answer", ["", "[]", "[happy, glad]", "[[happy, glad], [sad]", "[happy], [sad]", "[[happy], and sad]", "Sure!"]
)
def test_parse_groups_of_anything_else_raises(answer):
    with pytest.raises(ValueError, match="Ask the model again"):
        parse_groups(answer)


def test_group_labels_of_a_batch_are_those_of_each_clip():
    clips = [["happy", "Joyful", "sad"], [], ["愤怒", "angry"]]
    assert group_labels(clips) == [[["happy", "joyful"], ["sad"]], [], [["愤怒", "angry"]]]
    assert group_labels(clips[0]) == group_labels(clips)[0]
    assert group_labels([]) == []


def test_group_labels_of_no_list_raises():
    with pytest.raises(TypeError, match="list of labels, got the string 'happy'"):
        group_labels("happy")
    with pytest.raises(TypeError, match="labels as strings, got list"):
        group_labels(["happy", ["sad"]])
    with pytest.raises(TypeError, match="one list of labels per clip, got the string 'sad'"):
        group_labels([["happy"], "sad"])


@pytest.fixture(scope="module")
def clips():
    path = DATA / "ov-mer-dev" / "clips.jsonl"
    if not path.exists():
        pytest.skip(f"The recorded clips are not at {path} (AFFECTGPT_DATA_DIR).")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def score_by_lexicon(truth, predicted):
    groups = dict(zip(truth, group_labels([truth[name] + predicted[name] for name in truth]), strict=True))
    return set_score(truth, predicted, groups)


def test_lexicon_groups_score_recorded_labels_as_gpt35_groups_do(clips):
    truth = {clip["name"]: clip["labels"] for clip in clips}
    predicted = {clip["name"]: clip["predicted_labels"] for clip in clips}
    recorded = set_score(truth, predicted, {clip["name"]: clip["gpt35_groups"] for clip in clips})
    ours = score_by_lexicon(truth, predicted)
    means = [[np.mean(score.per_clip[name]) for name in truth] for score in (recorded, ours)]
    assert abs(ours.avg - recorded.avg) < 0.02
    assert np.corrcoef(means)[0, 1] > 0.78


@pytest.mark.parametrize(("language", "floor"), [("en", 0.78), ("zh", 0.78)])
def test_labels_read_off_checked_descriptions_are_the_human_ones(clips, language, floor):
    truth = {clip["name"]: clip["labels"] for clip in clips}
    predicted = {clip["name"]: extract_labels(clip[f"description_{language}"], language) for clip in clips}
    assert score_by_lexicon(truth, predicted).avg > floor


def test_labels_read_off_model_answers_agree_with_another_models(clips):
    scores = []
    for clip in clips:
        for answer in clip["mllm"].values():
            theirs, ours = answer["labels"], extract_labels(answer["description"])
            if theirs and ours:
                score = score_by_lexicon({"clip": theirs}, {"clip": ours})
                scores.append(f_score(score.accuracy, score.recall))
            else:
                scores.append(float(bool(theirs) == bool(ours)))
    assert np.mean(scores) > 0.83
