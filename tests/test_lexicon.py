"""The lexicon's tables are whole, and its groups put words of one meaning together, in both languages."""

import subprocess
import sys
from collections import Counter

import pytest

from affectgpt import lexicon
from affectgpt.lexicon import group_words, load_entries, synonym_set_of, synonym_sets

DOMAINS = {"pleasant", "hostile", "inward", "cognitive"}


def test_tables_hold_as_many_forms_as_promised():
    assert len(load_entries("en")) >= 3000
    assert len(load_entries("zh")) >= 1900


@pytest.mark.parametrize(("language", "file"), [("en", "english.tsv"), ("zh", "chinese.tsv")])
def test_tables_name_each_form_once_and_known_sets_only(language, file):
    forms = Counter(form.rstrip("?*") for *_, row in lexicon._rows(file) for form in row.split(", "))
    assert [form for form, times in forms.items() if times > 1] == []
    for entry in load_entries(language).values():
        assert entry.synonyms in synonym_sets() and entry.intensity in (1, 2, 3)
        assert entry.form == entry.form.strip().lower() and lexicon.is_chinese(entry.form) == (language == "zh")


def test_every_set_has_words_in_both_languages_and_a_known_family():
    sets = synonym_sets()
    families = {family for row in sets.values() if not row.is_bridge for family in row.families}
    for language in ("en", "zh"):
        assert {entry.synonyms for entry in load_entries(language).values()} == set(sets)
    for row in sets.values():
        assert row.domain in DOMAINS and -1 <= row.valence <= 1 and lexicon.is_chinese(row.chinese)
        assert set(row.families) <= families, row.name


def test_load_entries_of_another_language_raises():
    with pytest.raises(ValueError, match='"en" or "zh", got \'fr\''):
        load_entries("fr")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Happy ", "joy"),
        ("slightly annoyed", "anger"),
        ("sense of relief", "relief"),
        ("joy/excitement", "joy"),
        ("at_ease", "relaxation"),
        ("negative emotions", "negative"),
        ("worried about her son", "worry"),
        ("mournfulness", "sadness"),  # not in the tables: derived
        ("overanxious", "worry"),
        ("gloomiest", "sadness"),
        ("joyless", "unhappiness"),
        ("unhappiness", "unhappiness"),
        ("not angry", None),
        ("wise", None),
        ("", None),
        ("非常高兴", "joy"),
        ("恼怒情绪", "anger"),
        ("悲怆", "sadness"),  # by its characters
        ("不害怕", None),
        ("椅子", None),
    ],
)
def test_synonym_set_of_a_label_is_found_through_its_form(label, name):
    assert synonym_set_of(label) == name


@pytest.mark.parametrize(
    ("together", "apart"),
    [
        (["happy", "joyful", "高兴", "delight"], ["sad", "愤怒", "calm"]),
        (["angry", "displeased", "生气", "不满"], ["ashamed", "惊讶", "love"]),
        (["worried", "anxiety", "fear", "担心"], ["amused", "感激"]),
        (["surprised", "shock", "震惊"], ["confused", "讽刺"]),
        (["guilty", "remorse", "内疚"], ["proud", "嫉妒"]),
    ],
)
def test_group_words_puts_one_meaning_together_in_both_languages(together, apart):
    assert group_words(together) == [together]
    for label in apart:
        assert group_words([*together, label]) == [together, [label]]


def test_group_words_holds_each_label_once():
    assert group_words(["Sad", "sad ", "flurble", "", "flurble"]) == [["sad"], ["flurble"]]
    assert group_words([]) == []


def test_group_words_disappointment_joins_the_neighbour_that_is_there():
    assert group_words(["disappointed", "angry"]) == [["disappointed", "angry"]]
    assert group_words(["disappointed", "sad"]) == [["disappointed", "sad"]]
    assert group_words(["disappointed", "happy"]) == [["disappointed"], ["happy"]]


def test_group_words_excited_in_anger_is_no_joy():
    assert group_words(["excited", "happy"]) == [["excited", "happy"]]
    assert group_words(["excited", "happy", "angry"]) == [["excited"], ["happy"], ["angry"]]
    assert group_words(["激动", "愤怒", "高兴"]) == [["激动"], ["愤怒"], ["高兴"]]


def test_group_words_contentment_stands_apart_from_joy_beside_other_pleasant_families():
    assert group_words(["satisfied", "happy", "angry"]) == [["satisfied", "happy"], ["angry"]]
    assert group_words(["satisfied", "happy", "relaxed"]) == [["satisfied"], ["happy"], ["relaxed"]]


def test_group_words_of_six_labels_merge_within_inward_and_cognitive_domains():
    five = ["sad", "tired", "confused", "surprised", "angry"]
    assert group_words(five) == [[label] for label in five]
    assert group_words([*five, "guilty"]) == [["sad", "tired", "guilty"], ["confused", "surprised"], ["angry"]]


def test_lexicon_needs_no_torch():
    code = "import sys, affectgpt.lexicon; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
