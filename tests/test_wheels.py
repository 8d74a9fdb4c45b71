"""The emotion-wheel metrics on small tables written here, and against the authors' figures if their tables and rows are there."""

import csv
import json
import os
import pickle
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectgpt.metrics import f_score
from affectgpt.npz import read_npz
from affectgpt.wheels import MEASURES, read_emotion_wheels, wheel_score

DATA = Path(os.environ.get("AFFECTGPT_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))

FORMAT = [["name", "format"], ["glad", "gladly,gladness"], ["happy", "happily,gladly"], ["sad", "sadly"], ["dull", "dullness"]]
SYNONYM = [
    ["word_run1", "synonym_run1", "word_run2", "synonym_run2"],
    ["Happy", "Glad, jolly", "joy", "glad"],
    ["sad", "blue", "Sad", "dull"],
    ["weary", "dull", "calm", "still"],
]
# Level 1 of "glad": its root "happy" or "joy", whichever comes first in the alphabet and is on the wheel.
WHEEL = [
    ["level1", "level2", "level3"],
    [" Good ", "Warm", "Happy"],
    ["", "", "Kind"],
    ["", "Bright", "Joy"],
    ["Bad", "Low", "Sad"],
    ["", "", "Weary"],
]
WHEEL_WITH_JOY_TWICE = [*WHEEL, ["", "Odd", "Joy"]]
WHEEL_WITHOUT_SAD = [row for row in WHEEL if "Bad" not in row and "Weary" not in row]


def tables() -> dict[str, list[list[str]]]:
    wheels = {f"wheel{number}": WHEEL for number in (1, 2, 3)} | {"wheel4": WHEEL_WITH_JOY_TWICE, "wheel5": WHEEL_WITHOUT_SAD}
    return {"format": FORMAT, "synonym": SYNONYM, **wheels}


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_xlsx(path: Path, rows: list[list[str]]) -> None:
    """A workbook as spreadsheet programs write it: shared texts, empty cells left out, a second sheet listed later."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    texts = list(dict.fromkeys(cell for row in rows for cell in row if cell))
    cells = [
        "".join(
            f'<c r="{chr(65 + column)}{number}" t="s"><v>{texts.index(cell)}</v></c>' for column, cell in enumerate(row) if cell
        )
        for number, row in enumerate(rows, start=1)
    ]
    parts = {
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets><sheet name="a" sheetId="2" r:id="rId7"/>'
        '<sheet name="b" sheetId="1" r:id="rId3"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="rId3" Target="worksheets/sheet1.xml"/><Relationship Id="rId7" Target="worksheets/sheet2.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData/></worksheet>',
        "xl/worksheets/sheet2.xml": f'<worksheet xmlns="{main}"><sheetData>'
        + "".join(f'<row r="{number}">{row}</row>' for number, row in enumerate(cells, start=1))
        + "</sheetData></worksheet>",
        "xl/sharedStrings.xml": f'<sst xmlns="{main}">'
        + "".join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in texts)
        + "</sst>",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def write_tables(folder: Path, write=write_csv, suffix: str = ".csv") -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in tables().items():
        write(folder / f"{name}{suffix}", rows)
    return folder


def write_mapping(folder: Path, wheels) -> Path:
    """The same look-ups in the authors' third form."""
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / "wheel_mapping.npz",
        format_mapping={form: list(words) for form, words in wheels.bases.items()},
        raw_mapping={word: list(reversed(words)) for word, words in wheels.roots.items()},
        wheel_map_whole={
            f"wheel{number}": {"level1": level1, "level2": level2} for number, (level1, level2) in enumerate(wheels.wheels, start=1)
        },
    )
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return read_emotion_wheels(write_tables(tmp_path_factory.mktemp("tables") / "csv"))


def test_tables_as_csv_xlsx_and_npz_are_the_same(wheels, tmp_path):
    assert read_emotion_wheels(write_tables(tmp_path / "xlsx", write_xlsx, ".xlsx")) == wheels
    assert read_emotion_wheels(write_mapping(tmp_path / "npz", wheels)) == wheels


def test_classes_follow_forms_then_synonyms_then_wheels(wheels):
    # gladly: base forms glad < happy; glad's roots happy < joy.
    assert wheels.classes("gladly")[:4] == ("glad", "happy", "good", "warm")
    # dull: a synonym of "sad" and of "weary" by different runs; both are off wheel 5, on which level 2 then is nothing either.
    assert wheels.classes("dullness") == ("dull", "sad", *("bad", "low") * 4, None, None)
    assert wheels.classes("unheard") == (None,) * 12


def test_inner_word_has_its_first_child_at_level_2_and_the_later_of_two_places_counts(wheels):
    level1, level2 = wheels.wheels[0]
    assert (level1["good"], level2["good"], level1["warm"], level2["warm"]) == ("good", "bright", "good", "warm")
    assert (level1["joy"], level2["joy"], level1["kind"], level2["kind"]) == ("good", "bright", "good", "warm")
    level1, level2 = wheels.wheels[3]
    assert (level1["joy"], level2["joy"]) == ("bad", "odd")


def test_wheel_score_on_a_worked_example(wheels):
    truth = {"a": ["Gladly ", "sad"], "b": ["sad"], "c": ["dull"], "d": ["unheard"]}
    predicted = {"a": ["happy", "happily", "unheard"], "b": [], "c": ["sadly", "glad"], "d": ["sad"]}
    score = wheel_score(truth, predicted, wheels)
    assert score.n == 4
    # case1: {glad, sad} / {happy}; {sad} / {}; {dull} / {sad, glad}; "unheard" is in no vocabulary, so d is left out.
    assert (score.measures["case1"].precision, score.measures["case1"].recall, score.measures["case1"].n) == (0.0, 0.0, 3)
    assert score.measures["case1"].f == 0.0
    # case2: {happy, sad} / {happy}; {sad} / {}; {sad} / {sad, happy}.
    assert score.measures["case2"].precision == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert score.measures["case2"].recall == pytest.approx((1 / 2 + 0 + 1) / 3)
    # Wheels 1 to 4, both levels: the same as case2, in classes. Wheel 5 knows neither "sad" nor "weary": a alone is left.
    for name in MEASURES[2:10]:
        assert score.measures[name].f == pytest.approx(1 / 2)
    assert (score.measures["case3_wheel5_level1"].f, score.measures["case3_wheel5_level1"].n) == (1.0, 1)
    assert score.level1_mean_f == pytest.approx((4 / 2 + 1) / 5)
    assert score.level2_mean_f == pytest.approx((4 / 2 + 1) / 5)
    assert score.m_avg == pytest.approx((0 + 1 / 2 + 8 / 2 + 2) / 12)
    np.testing.assert_array_equal(score.per_clip[:, 1], [[1, 1 / 2], [0, 0], [1 / 2, 1], [np.nan, np.nan]])


WORDS = st.lists(st.sampled_from(["glad", "gladly", "happily", "sad", "dullness", "nowhere", "Sad "]), max_size=4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_wheel_score_equals_sets_counted_one_by_one(wheels, rows):
    truth, predicted = ({str(index): row[side] for index, row in enumerate(rows)} for side in (0, 1))
    if not any(wheels.classes(label.strip().lower())[0] for labels in truth.values() for label in labels):
        with pytest.raises(ValueError, match="that the tables know"):
            wheel_score(truth, predicted, wheels)
        return
    score = wheel_score(truth, predicted, wheels)
    for column, name in enumerate(MEASURES):
        pairs = []
        for clip in truth:
            wanted, given = (
                {wheels.classes(label.strip().lower())[column] for label in labels[clip]} - {None} for labels in (truth, predicted)
            )
            if wanted:
                pairs.append((len(wanted & given) / max(len(given), 1), len(wanted & given) / len(wanted)))
        precision, recall = np.mean(pairs, axis=0) if pairs else (0.0, 0.0)
        measure = score.measures[name]
        assert (measure.precision, measure.recall, measure.n) == (pytest.approx(precision), pytest.approx(recall), len(pairs))
        assert measure.f == pytest.approx(f_score(precision, recall))


def test_wheel_interval_holds_the_figure_and_is_seeded(wheels):
    truth = {str(index): ["glad"] if index % 2 else ["sad"] for index in range(60)}
    predicted = {str(index): ["happy"] if index % 3 else ["dull"] for index in range(60)}
    score = wheel_score(truth, predicted, wheels)
    for figure in ("m_avg", "level1_mean_f", "level2_mean_f"):
        low, high = score.interval(figure, num_samples=300)
        assert low < getattr(score, figure) < high
        assert score.interval(figure, num_samples=300) == (low, high)
    with pytest.raises(ValueError, match="one of m_avg"):
        score.interval("case1")


def test_wheel_interval_leaves_out_the_clips_that_the_figure_leaves_out(wheels):
    truth = {"a": ["glad"], "b": ["sad"], **{str(index): ["nowhere"] for index in range(50)}}
    score = wheel_score(truth, {name: ["happy"] for name in truth}, wheels)
    alone = wheel_score({name: truth[name] for name in "ab"}, {name: ["happy"] for name in "ab"}, wheels)
    assert score.m_avg == alone.m_avg
    assert score.interval(num_samples=500)[1] == pytest.approx(11 / 12)  # draws with "a" alone: all but case1 are right


def test_wheel_score_counted_in_pieces_is_the_same(wheels, monkeypatch):
    words = ["glad", "gladly", "happily", "sad", "dullness", "nowhere"]
    truth, predicted = ({str(index): [words[index % 6], words[index // shift % 6]] for index in range(50)} for shift in (2, 5))
    whole = wheel_score(truth, predicted, wheels)
    monkeypatch.setattr("affectgpt.wheels._MAX_CELLS", 30)
    pieces = wheel_score(truth, predicted, wheels)
    np.testing.assert_array_equal(pieces.per_clip, whole.per_clip)
    assert pieces.to_dict() == whole.to_dict()


def test_wheel_score_with_a_string_or_other_clips_raises(wheels):
    with pytest.raises(TypeError, match="list of labels for a"):
        wheel_score({"a": ["sad"]}, {"a": "sad"}, wheels)
    with pytest.raises(ValueError, match=r"1 missing \(a\)"):
        wheel_score({"a": ["sad"]}, {}, wheels)


def test_read_emotion_wheels_with_missing_tables_names_them(tmp_path):
    folder = write_tables(tmp_path / "tables")
    (folder / "wheel3.csv").unlink()
    (folder / "synonym.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"did not find synonym, wheel3\."):
        read_emotion_wheels(folder)
    with pytest.raises(FileNotFoundError, match="found none at"):
        read_emotion_wheels(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("format", [["word", "format"], ["a", "b"]], r"columns name, format in .*format\.csv, got word, format"),
        ("synonym", [["word_run1", "x"], ["a", "b"]], r"columns word_run1, synonym_run1 in .*synonym\.csv"),
        ("synonym", [["x"]], r"columns word_run1, synonym_run1 in .*synonym\.csv, got x"),
        ("wheel2", [["level1", "level2"], ["a", "b"]], r"level3 in .*wheel2\.csv, got level1, level2"),
        ("wheel5", [["level1", "level2", "level3"], ["a", "", "b"]], r"first row of .*wheel5\.csv"),
        ("wheel1", [], r"header in .*wheel1\.csv, got an empty one"),
        ("format", [*FORMAT, ["strange", "stranger"]], r"base form of .*format\.csv .* 1 without \(strange\)"),
    ],
)
def test_read_emotion_wheels_with_another_table_raises_and_names_the_file(tmp_path, table, rows, message):
    folder = write_tables(tmp_path / "tables")
    write_csv(folder / f"{table}.csv", rows)
    with pytest.raises(ValueError, match=message):
        read_emotion_wheels(folder)


@pytest.mark.parametrize("name", ["format.csv", "synonym.xlsx", "wheel_mapping.npz"])
def test_read_emotion_wheels_with_a_broken_file_raises_and_names_it(tmp_path, name):
    folder = write_tables(tmp_path / "tables")
    (folder / "synonym.csv").unlink()
    write_xlsx(folder / "synonym.xlsx", SYNONYM)
    (folder / name).write_bytes(b"\xff\xfe not a table \x00")
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_emotion_wheels(folder)


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_mapping_file_that_would_run_code_is_refused_unrun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "wheel_mapping.npz", format_mapping=np.array(Runs(), dtype=object), raw_mapping=1, wheel_map_whole=1)
    with pytest.raises(ValueError, match="which plain data does not need"):
        read_emotion_wheels(tmp_path)
    assert not (tmp_path / "ran").exists()
    assert pickle.dumps(Runs())  # the attack is a real one: it pickles, and unpickling it would run


def test_npz_with_lists_texts_and_numbers_is_read_without_pickles_that_run(tmp_path):
    lists = np.empty(2, dtype=object)
    lists[:] = [["sad", np.str_("calm")], []]
    np.savez(tmp_path / "a.npz", names=np.array(["a", "b"]), items=lists, numbers=np.arange(3), mapping={"a": ("x", 1.5)})
    arrays = read_npz(tmp_path / "a.npz")
    assert arrays["names"].tolist() == ["a", "b"]
    assert arrays["items"].tolist() == [["sad", "calm"], []]
    assert arrays["numbers"].tolist() == [0, 1, 2]
    assert arrays["mapping"].item() == {"a": ("x", 1.5)}


def test_mapping_file_of_plain_numbers_is_refused(tmp_path):
    np.savez(tmp_path / "wheel_mapping.npz", format_mapping=np.zeros(3), raw_mapping=np.zeros(3), wheel_map_whole=np.zeros(3))
    with pytest.raises(ValueError, match=r"wheel_mapping\.npz, the last by wheel and level, got others"):
        read_emotion_wheels(tmp_path)


@pytest.mark.parametrize("version", ["2025", "2026"])
def test_wheel_score_on_the_authors_rows_and_tables_gives_their_figures(version):
    rows_path, folder = DATA / "ov-mer-dev" / "clips.jsonl", DATA / "emotion-wheels" / version
    if not rows_path.exists() or not folder.is_dir():
        pytest.skip(f"The authors' rows and tables are not in {DATA} (AFFECTGPT_DATA_DIR).")
    rows = [json.loads(line) for line in rows_path.read_text(encoding="utf-8").splitlines()]
    truth, predicted = ({row["name"]: row[column] for row in rows} for column in ("labels", "predicted_labels"))
    figures = wheel_score(truth, predicted, read_emotion_wheels(folder)).to_dict()
    expected = json.loads((DATA / "ov-mer-dev" / f"expected_wheel_{version}.json").read_text())
    assert expected.pop("version") == version
    for name, value in expected.items():
        if isinstance(value, dict):
            for part, figure in value.items():
                assert figures[name][part] == pytest.approx(figure, abs=1e-12)
        else:
            assert figures[name] == pytest.approx(value, abs=1e-12)
