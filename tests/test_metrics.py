import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectgpt.metrics import best_constant_labels, bootstrap_interval, set_score


def test_set_score_is_the_papers_on_a_worked_example():
    truth = {"a": ["happy", "Proud"], "b": ["sad"], "c": ["calm"]}
    predicted = {"a": ["happy", "happy", "shy", "tense"], "b": ["sad"], "c": []}
    score = set_score(truth, predicted)
    assert score.per_clip == {"a": (1 / 3, 1 / 2), "b": (1.0, 1.0), "c": (0.0, 0.0)}
    assert score.accuracy == pytest.approx(100 * (1 / 3 + 1) / 3)
    assert score.recall == pytest.approx(100 * (1 / 2 + 1) / 3)
    assert score.avg == pytest.approx((score.accuracy + score.recall) / 2)


def test_set_score_skips_and_counts_clips_without_truth():
    score = set_score({"a": ["sad"], "b": []}, {"a": ["sad"], "b": ["happy"]})
    assert (score.num_clips, score.num_without_truth, score.avg) == (1, 1, 100.0)


def test_set_score_with_other_clips_raises_and_names_them():
    with pytest.raises(ValueError, match=r"1 missing \(a\) and 1 unknown \(b\)"):
        set_score({"a": ["sad"]}, {"b": ["sad"]})


def test_set_score_without_any_truth_raises():
    with pytest.raises(ValueError, match="at least one clip"):
        set_score({"a": []}, {"a": ["sad"]})


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_clips():
    few = bootstrap_interval([0, 100] * 10)
    many = bootstrap_interval([0, 100] * 500)
    assert few[0] < 50 < few[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 4
    assert bootstrap_interval([0, 100] * 10) == few


LABEL_SETS = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True), min_size=1, max_size=6)


@given(LABEL_SETS, st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True))
def test_best_constant_labels_beats_every_other_constant_of_annotated_length(rows, other):
    truth = {str(index): labels for index, labels in enumerate(rows)}
    best = set_score(truth, dict.fromkeys(truth, best_constant_labels(truth)))
    assert best.avg >= set_score(truth, dict.fromkeys(truth, other[: max(map(len, rows))])).avg - 1e-9


def test_metrics_and_labels_need_no_torch():
    code = "import affectgpt.metrics, affectgpt.labels, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
