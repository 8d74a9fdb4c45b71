"""The set metric by hand-made cases, by what must hold for any labels, and against the authors' figures if their rows are there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectgpt.metrics import (
    best_constant_labels,
    bootstrap_interval,
    f_score,
    label_groups,
    mean_and_std,
    paired_test,
    set_score,
)

DATA = Path(os.environ.get("AFFECTGPT_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))

# No deadline: a busy machine is no error. Fewer examples than by default: these are sums over a handful of labels.
QUICK = settings(deadline=None, max_examples=40)

LABELS = st.lists(st.sampled_from("abcdefg"), max_size=5)
GROUPS = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=3), max_size=4)
CLIPS = st.dictionaries(st.sampled_from(["x", "y", "z"]), st.tuples(LABELS, LABELS, GROUPS), min_size=1)


def as_mappings(clips: dict) -> tuple[dict, dict, dict]:
    return tuple({name: parts[index] for name, parts in clips.items()} for index in range(3))


def test_set_score_is_the_papers_on_a_worked_example():
    truth = {"a": ["happy", "Proud"], "b": ["sad"], "c": ["calm"]}
    predicted = {"a": ["happy", "happy", "shy", "tense"], "b": ["sad"], "c": []}
    score = set_score(truth, predicted)
    assert score.per_clip == {"a": (1 / 3, 1 / 2), "b": (1.0, 1.0), "c": (0.0, 0.0)}
    assert score.accuracy == pytest.approx((1 / 3 + 1) / 3)
    assert score.recall == pytest.approx((1 / 2 + 1) / 3)
    assert score.avg == pytest.approx((score.accuracy + score.recall) / 2)
    assert (score.n, score.skipped) == (3, 0)
    assert score.per_clip_avg == {"a": pytest.approx(5 / 12), "b": 1.0, "c": 0.0}


def test_set_score_with_groups_counts_groups_and_leaves_forgotten_labels_themselves():
    truth = {"a": ["happy", "joyful", "proud"]}
    predicted = {"a": ["glad", "content", "tense", "proud"]}
    groups = {"a": [["happy", "joyful", "glad"], ["content"], ["tense"]]}
    # truth {happy, proud}; prediction {happy, content, tense, proud}
    assert set_score(truth, predicted, groups).per_clip == {"a": (2 / 4, 2 / 2)}


def test_set_score_ignores_case_space_duplicates_and_blank_labels():
    score = set_score({"a": [" Happy", "happy ", ""]}, {"a": ["HAPPY", "\t", "glad"]}, {"a": [["GLAD ", "happy"], [], [" "]]})
    assert score.per_clip == {"a": (1.0, 1.0)}


def test_label_in_two_groups_belongs_to_the_last_and_equal_first_labels_join():
    assert label_groups([["happy", "glad"], ["joyful", "happy"]]) == {"happy": "joyful", "glad": "happy", "joyful": "joyful"}
    assert label_groups([["sad", "low"], ["sad", "blue"]]) == {"sad": "sad", "low": "sad", "blue": "sad"}


def test_set_score_skips_and_counts_clips_without_truth():
    score = set_score({"a": ["sad"], "b": [], "c": [" "]}, {"a": ["sad"], "b": ["happy"], "c": []})
    assert (score.n, score.skipped, score.avg) == (1, 2, 1.0)


def test_set_score_with_other_clips_raises_and_names_them():
    with pytest.raises(ValueError, match=r"1 missing \(a\) and 1 unknown \(b\)"):
        set_score({"a": ["sad"]}, {"b": ["sad"]})
    with pytest.raises(ValueError, match=r"got none for 1 \(b\)"):
        set_score({"a": ["sad"], "b": ["sad"]}, {"a": [], "b": []}, {"a": []})


def test_set_score_takes_groups_of_more_clips_than_are_scored():
    assert set_score({"a": ["sad"]}, {"a": ["low"]}, {"a": [["sad", "low"]], "b": []}).avg == 1.0


@pytest.mark.parametrize("clips", [({"a": "sad"}, {"a": ["sad"]}), ({"a": ["sad"]}, {"a": "sad"}), ({"a": ["sad"]}, {"a": None})])
def test_set_score_with_something_else_than_a_list_raises_and_names_the_clip(clips):
    with pytest.raises(TypeError, match="list of labels for a, got"):
        set_score(*clips)


def test_set_score_with_a_flat_list_of_groups_raises():
    with pytest.raises(TypeError, match="list of labels for a group, got 'sad'"):
        set_score({"a": ["sad"]}, {"a": ["sad"]}, {"a": ["sad", "low"]})


def test_set_score_without_any_truth_raises():
    with pytest.raises(ValueError, match="at least one clip"):
        set_score({"a": []}, {"a": ["sad"]})


@QUICK
@given(CLIPS)
def test_set_score_swapping_truth_and_prediction_swaps_accuracy_and_recall(clips):
    truth, predicted, groups = as_mappings(clips)
    both = [name for name in clips if truth[name] and predicted[name]]
    if both:
        one = set_score({name: truth[name] for name in both}, {name: predicted[name] for name in both}, groups)
        other = set_score({name: predicted[name] for name in both}, {name: truth[name] for name in both}, groups)
        assert (one.accuracy, one.recall) == (other.recall, other.accuracy)


@QUICK
@given(CLIPS, st.randoms())
def test_set_score_stays_in_bounds_and_ignores_the_order_of_labels(clips, random):
    truth, predicted, groups = as_mappings(clips)
    if any(truth.values()):
        score = set_score(truth, predicted, groups)
        shuffled = {name: random.sample(labels, len(labels)) for name, labels in predicted.items()}
        assert set_score(truth, shuffled, groups) == score
        assert score.n + score.skipped == len(clips)
        assert all(0 <= value <= 1 for pair in score.per_clip.values() for value in pair)


@QUICK
@given(CLIPS)
def test_set_score_of_the_truth_itself_is_perfect(clips):
    truth, _, groups = as_mappings(clips)
    if any(truth.values()):
        score = set_score(truth, truth, groups)
        assert (score.accuracy, score.recall, score.avg) == (1.0, 1.0, 1.0)


def test_set_score_with_recorded_groups_gives_the_authors_figures():
    folder = DATA / "ov-mer-dev"
    if not folder.is_dir():
        pytest.skip(f"The authors' rows and figures are not at {folder} (AFFECTGPT_DATA_DIR).")
    rows = [json.loads(line) for line in (folder / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    truth, predicted, groups = (
        {row["name"]: row[column] for row in rows} for column in ("labels", "predicted_labels", "gpt35_groups")
    )
    score = set_score(truth, predicted, groups)
    expected = json.loads((folder / "expected_set_metric.json").read_text())
    assert score.n == expected["n"]
    for figure in ("accuracy", "recall", "avg"):
        assert getattr(score, figure) == pytest.approx(expected[figure], abs=1e-12)


def test_f_score_is_harmonic_and_zero_of_zeros():
    assert f_score(0.5, 1.0) == pytest.approx(2 / 3)
    assert f_score(0.0, 0.0) == 0.0
    np.testing.assert_allclose(f_score(np.array([0.5, 0.0]), np.array([1.0, 0.0])), [2 / 3, 0.0])


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_clips():
    few = bootstrap_interval([0, 100] * 10)
    many = bootstrap_interval([0, 100] * 500)
    assert few[0] < 50 < few[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 4
    assert bootstrap_interval([0, 100] * 10) == few
    assert bootstrap_interval([0, 100] * 10, seed=1) != few


def test_bootstrap_interval_has_the_width_that_theory_gives():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(values, level=0.9)
    assert (high - low) / 2 == pytest.approx(1.645 * values.std() / 20, rel=0.08)


def test_bootstrap_interval_of_a_statistic_draws_its_columns_together():
    values = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert bootstrap_interval(values, statistic=lambda means: means[:, 0] - means[:, 1]) == (0.0, 0.0)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_bootstrap_interval_with_a_strange_level_raises(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval([1.0], level=level)


def test_bootstrap_interval_of_nothing_raises():
    with pytest.raises(ValueError, match="at least one clip"):
        bootstrap_interval([])


def test_paired_test_agrees_with_counting_all_sign_flips():
    first, second = ({str(index): value for index, value in enumerate(values)} for values in ([3, 2, 2, 1], [0, 0, 0, 2]))
    # differences 3, 2, 2, -1: of the 16 sums of +-3 +-2 +-2 +-1, four are at least 6 away from 0.
    test = paired_test(first, second, num_samples=4000)
    assert (test.difference, test.n) == (1.5, 4)
    assert test.p_value == pytest.approx(4 / 16, abs=0.03)


def test_paired_test_of_equal_systems_says_nothing_and_of_a_clear_case_much():
    values = {str(index): float(index % 3) for index in range(40)}
    same = paired_test(values, values)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    better = paired_test({name: value + 0.1 for name, value in values.items()}, values, num_samples=999)
    assert better.low == pytest.approx(0.1)
    assert better.p_value == pytest.approx(1 / 1000)


@QUICK
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.randoms())
def test_paired_test_is_seeded_and_antisymmetric(values, random):
    first = {str(index): value for index, value in enumerate(values)}
    second = dict(zip(first, random.sample(values, len(values)), strict=True))
    one, other = (paired_test(a, b, num_samples=50) for a, b in ((first, second), (second, first)))
    assert one == paired_test(first, second, num_samples=50)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == other.p_value


def test_paired_test_on_other_clips_raises():
    with pytest.raises(ValueError, match=r"1 missing \(a\)"):
        paired_test({"a": 1.0}, {})


def test_mean_and_std_of_two_runs_is_half_their_distance():
    assert mean_and_std([40.0, 41.0]) == (40.5, 0.5)
    assert mean_and_std([7.0]) == (7.0, 0.0)
    with pytest.raises(ValueError, match="at least one run"):
        mean_and_std([])


LABEL_SETS = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True), min_size=1, max_size=6)


@QUICK
@given(LABEL_SETS, st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True))
def test_best_constant_labels_beats_every_other_constant_of_annotated_length(rows, other):
    truth = {str(index): labels for index, labels in enumerate(rows)}
    best = set_score(truth, dict.fromkeys(truth, best_constant_labels(truth)))
    assert best.avg >= set_score(truth, dict.fromkeys(truth, other[: max(map(len, rows))])).avg - 1e-9


def test_best_constant_labels_without_any_truth_raises():
    with pytest.raises(ValueError, match="at least one clip"):
        best_constant_labels({"a": []})


def test_metrics_wheels_and_labels_need_no_torch():
    code = (
        "import affectgpt.metrics, affectgpt.wheels, affectgpt.labels, sys; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
