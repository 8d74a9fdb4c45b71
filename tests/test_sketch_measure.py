"""The table of the drawn world, from records of made-up answers."""

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from training.clues import clue_scores, judge_clues, scene_truth
from training.runs import Run
from training.sketch.scenarios import row_of, sample_scenes
from training.sketch_measure import (
    ALONE,
    COMPARISONS,
    FINE,
    FULL,
    SHUFFLED,
    WITHHELD,
    _mean_clue,
    groups_of,
    keep_answers,
    measure,
    score_answers,
    spreads_of,
    table_of,
)

NUM_CLIPS, SEEDS = 60, (0, 1)
# How often an answer describes its own clip, and not another one.
SKILL = {FULL: 0.95, "the same, answers in Chinese": 0.9, "stage 1 only": 0.7, FINE: 0.6, SHUFFLED: 0.0}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """A file of made-up answers to every comparison, in both languages."""
    described = [row_of(scene) for scene in sample_scenes("test", NUM_CLIPS, seed=0)]
    rows = []
    for number, comparison in enumerate(COMPARISONS):
        for seed in SEEDS if comparison.training else SEEDS[:1]:
            rng = np.random.default_rng([number, seed])
            column = "description_zh" if comparison.language == "zh" else "description"
            skill = SKILL.get(comparison.title, 0.3)
            told = [row if rng.random() < skill else described[rng.integers(NUM_CLIPS)] for row in described]
            told[0] = told[0] | {column: ""}  # an answer that says nothing is one too
            rows += [
                {"comparison": comparison.title, "seed": seed, "name": row["name"], "text": other[column]}
                for row, other in zip(described, told, strict=True)
            ]
    path = tmp_path_factory.mktemp("answers") / "answers.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def output(answers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    assert score_answers(answers, folder) == list(SEEDS)
    return folder


def test_answers_that_are_kept_are_those_that_were_scored(answers, output, tmp_path):
    keep_answers(output, SEEDS, tmp_path / "kept.parquet")
    assert pq.read_table(tmp_path / "kept.parquet").to_pylist() == pq.read_table(answers).to_pylist()


def test_answers_without_a_comparison_are_refused(answers, tmp_path):
    table = pq.read_table(answers)
    pq.write_table(table.filter(pc.field("comparison") != FULL), tmp_path / "less.parquet")
    with pytest.raises(ValueError, match="less.parquet.*picture, voice and words"):
        score_answers(tmp_path / "less.parquet", tmp_path)


@pytest.fixture(scope="module")
def table(output):
    return table_of(output, SEEDS, 0)


def test_measuring_again_needs_records_alone(output, table, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # measuring sets the threads of its workers
    assert measure(output, SEEDS, corpus_seed=0) == table
    assert not (output / "trainings").exists()


def test_table_compares_every_row_to_the_first_and_says_what_holds(table):
    assert table.startswith("**A test of software on drawings, no evidence about people.**")
    assert f"{NUM_CLIPS} clips" in table and "seeds 0, 1" in table
    rows = {cells[1].strip(): cells for cells in (line.split("|") for line in table.splitlines() if line.startswith("| "))}
    assert {comparison.title for comparison in COMPARISONS} <= set(rows)
    assert rows[FULL][5].strip() == ""
    for title in (FINE, SHUFFLED, *ALONE, *WITHHELD):
        difference, low, high = (float(part) for part in rows[title][5].replace("[", "").replace("]", "").replace(",", "").split())
        assert 0 < low <= difference <= high
        assert difference == pytest.approx(float(rows[FULL][2].split()[0]) - float(rows[title][2].split()[0]), abs=0.11)
    assert "±" in rows[FULL][2] and "±" not in rows[ALONE[2]][2]  # the frozen parts are asked once
    assert float(rows["the same, answers in Chinese"][2].split()[0]) > 80
    verdicts = [line for line in table.splitlines() if line.startswith("- ")]
    assert len(verdicts) == 7
    assert any(line.startswith("- holds: two stages above stage 2 only") for line in verdicts)
    assert "face and voice and words 100.0" in table


def test_clues_that_nobody_stated_are_no_number():
    silent = dataclasses.asdict(
        clue_scores({"a": judge_clues("", scene_truth(row_of(sample_scenes("test", 1, 0)[0])["provenance"]))})["video"]
    )
    told = silent | {"precision": (0.5, 0.4, 0.6)}
    runs = [Run("", "", {}, None, None, {"clues": {"video": score}}) for score in (silent, told)]
    assert _mean_clue(runs, "video", "precision") == 50
    assert np.isnan(_mean_clue(runs[:1], "video", "precision"))


def test_looks_are_split_into_thirds_and_their_avg_is_that_of_their_clips():
    scenes = sample_scenes("test", 300, seed=5)
    groups = groups_of([scene.identity for scene in scenes])
    for parts in groups.values():
        assert sum(who.sum() for who in parts.values()) == 300
    assert all(90 <= who.sum() <= 110 for nuisance in ("skin tone", "age lines") for who in groups[nuisance].values())
    spreads = spreads_of({scene.name: 100.0 * (scene.identity.glasses > 0) for scene in scenes}, scenes)
    assert spreads["glasses"] == {"with": 100.0, "without": 0.0}
