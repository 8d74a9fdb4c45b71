"""From annotation files to a corpus, on generated files in the authors' layouts."""

import csv
import os
import resource
import shutil

import datasets
import pyarrow.parquet as pq
import pytest

from affectgpt import corpus
from affectgpt.corpus_build import build_corpus
from affectgpt.mer_files import CorpusError, choose_test_names, names_digest, recognise

FINE = [f"sample_{number:08}" for number in range(332)]
TEST = choose_test_names(FINE)


def write(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """MER2025's layout: EMER-Fine in two languages, labels of both corpora, descriptions of EMER-Coarse, subtitles of some."""
    folder = tmp_path_factory.mktemp("mer")
    days = {name: name[-3:] for name in FINE}
    fine = [
        [name, f"字幕内容：“第{day}天。” 高兴。", f'A smile. The subtitle says, "Day {day}." Happy.'] for name, day in days.items()
    ]
    coarse = [f"new_{number:08}" for number in range(20)] + TEST[:2]
    write(folder / "final-EMER-reason.csv", ["name", "chinese", "english"], fine)
    write(
        folder / "track2_train_ovmerd.csv", ["name", "openset"], [[name, "['Happy', 'calm']"] for name in [*FINE[1:], "stranger"]]
    )
    write(folder / "track2_train_mercaptionplus.csv", ["name", "openset"], [[name, "[]"] for name in coarse])
    write(folder / "track3_train_mercaptionplus.csv", ["name", "reason"], [[name, "The voice is calm."] for name in coarse])
    write(
        folder / "subtitle_chieng.csv", ["name", "chinese", "english"], [[name, "好。", "Well."] for name in [FINE[0], *coarse[:9]]]
    )
    return [recognise(path) for path in sorted(folder.glob("*.csv"))]


@pytest.fixture
def clips(tmp_path):
    """Files of various suffixes for the first clips of both corpora."""
    folder = tmp_path / "video"
    folder.mkdir()
    for index, name in enumerate([*FINE[:6], *[f"new_{number:08}" for number in range(6)]]):
        (folder / f"{name}.{('mp4', 'avi', 'MKV')[index % 3]}").write_bytes(name.encode() * 100)
    return folder


def load(folder, configuration, split, cache, **options):
    return datasets.load_dataset(str(folder), configuration, split=split, cache_dir=str(cache / "cache"), **options)


def test_build_gives_both_configurations_and_the_paper_s_split(files, tmp_path):
    report = build_corpus(files, tmp_path / "corpus")
    numbers = {key: counts["rows"] for key, counts in report.counts.items()}
    assert numbers == {("EMER-Coarse", "train"): 20, ("EMER-Fine", "train"): 266, ("EMER-Fine", "test"): 66}
    test = load(tmp_path / "corpus", "EMER-Fine", "test", tmp_path)
    train = load(tmp_path / "corpus", "EMER-Fine", "train", tmp_path)
    assert test.features == corpus.FEATURES
    assert test["name"][:] == TEST and sorted(test["name"][:] + train["name"][:]) == FINE
    row = test[1]
    day = TEST[1][-3:]
    assert (row["subtitle"], row["subtitle_zh"]) == (f"Day {day}.", f"第{day}天。")
    assert row["labels"] == ["happy", "calm"] and row["description"].startswith("A smile.")
    assert row["provenance"]["recovered"] == ["subtitle", "subtitle_zh"]
    assert row["provenance"]["files"] == ["final-EMER-reason.csv", "track2_train_ovmerd.csv"]
    assert row["provenance"]["source"] == "MER" and row["provenance"]["redistributable"] is False
    first = next(row for row in train if row["name"] == FINE[0])
    assert first["subtitle"] == "Well." and first["labels"] is None and first["provenance"]["recovered"] == []


def test_build_streams_without_unpacking(files, clips, tmp_path):
    build_corpus(files, tmp_path / "corpus", media=[clips], with_media=True)
    rows = load(tmp_path / "corpus", "EMER-Coarse", "train", tmp_path, streaming=True)
    first = next(iter(rows))
    assert first["video"] == {"path": "new_00000000.mp4", "bytes": b"new_00000000" * 100}


def test_build_reports_what_is_missing_on_either_side(files, clips, tmp_path):
    notes = build_corpus(files, tmp_path / "corpus", media=[clips]).notes
    assert "EMER-Fine: labels without a description, left out: 1 clip (stranger)." in notes
    assert "EMER-Coarse, train: 2 rows are left out, because EMER-Fine tests on their clips." in notes
    assert f"EMER-Fine, train: no labels for 1 clip ({FINE[0]})." in notes
    assert any(note.startswith("EMER-Coarse, train: no clip for 14 clips (new_00000006, ") for note in notes)
    assert any(note.startswith("EMER-Coarse, train: no subtitle for 11 clips") for note in notes)


def test_build_of_files_that_differ_keeps_the_first_and_says_so(files, tmp_path):
    other = recognise(write(tmp_path / "more-labels.csv", ["name", "openset"], [[FINE[3], "['sad']"]]))
    for order, expected in (([*files, other], ["happy", "calm"]), ([other, *files], ["sad"])):
        report = build_corpus(order, tmp_path / "corpus")
        assert any("differ in the labels of 1 clip (sample_00000003); the first counts" in note for note in report.notes)
        rows = [row for split in ("train", "test") for row in load(tmp_path / "corpus", "EMER-Fine", split, tmp_path)]
        assert next(row for row in rows if row["name"] == FINE[3])["labels"] == expected


def test_build_of_labels_alone_makes_rows_of_labels(tmp_path):
    path = write(tmp_path / "track2_train_human.csv", ["name", "openset"], [["a", "['sad']"], ["b", "[]"]])
    build_corpus([recognise(path)], tmp_path / "corpus")
    rows = load(tmp_path / "corpus", "Human-OV", "train", tmp_path)
    assert rows["labels"][:] == [["sad"], []] and rows["description"][:] == [None, None]


def test_build_with_emer_v1_lends_its_subtitles(files, tmp_path):
    v1 = recognise(
        write(tmp_path / "gt-eng.csv", ["names", "emotions", "subtitles", "reasons"], [[TEST[0], "happy", "Oh!", "A grin."]])
    )
    report = build_corpus([*files, v1], tmp_path / "corpus")
    assert report.counts["EMER-V1", "whole"]["rows"] == 1
    assert load(tmp_path / "corpus", "EMER-Fine", "test", tmp_path)[0]["subtitle"] == "Oh!"


def test_card_states_split_and_forbids_passing_on(files, tmp_path):
    build_corpus(files, tmp_path / "corpus")
    card = corpus.read_card(tmp_path / "corpus")
    assert card["license"] == "other" and card["redistributable"] is False
    assert card["num_test_names"] == 66 and card["test_names_sha256"] == names_digest(TEST)
    assert names_digest(TEST) in (tmp_path / "corpus/README.md").read_text()
    obstacles = corpus.obstacles_to_publication(tmp_path / "corpus")
    assert len(obstacles) == 4 and "redistributable: false" in obstacles[0] and "EMER-Fine, test: 66 rows" in obstacles[3]


def test_own_material_may_be_passed_on(files, tmp_path):
    build_corpus(files, tmp_path / "corpus", licence="cc0-1.0")
    assert corpus.obstacles_to_publication(tmp_path / "corpus") == []
    assert corpus.read_card(tmp_path / "corpus")["license"] == "cc0-1.0"


def test_own_test_names_are_taken(files, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("\n".join(FINE[:3]))
    build_corpus(files, tmp_path / "corpus", test_names=own)
    assert load(tmp_path / "corpus", "EMER-Fine", "test", tmp_path)["name"][:] == FINE[:3]
    own.write_text("nobody\n")
    with pytest.raises(CorpusError, match="expected names of EMER-Fine, got nobody"):
        build_corpus(files, tmp_path / "corpus", test_names=own)


def test_bad_rows_of_all_files_stop_the_build_and_can_be_left_out(files, tmp_path):
    bad = [
        recognise(write(tmp_path / "bad-labels.csv", ["name", "openset"], [[FINE[0], "['calm']"], [FINE[1], "{}"]])),
        recognise(write(tmp_path / "bad-coarse.csv", ["name", "reason"], [["x", "Calm."], ["x", "Sad."], ["y", ""]])),
    ]
    with pytest.raises(CorpusError) as caught:
        build_corpus([*files, *bad], tmp_path / "corpus")
    assert [(problem.file, problem.row, problem.column) for problem in caught.value.problems] == [
        ("bad-labels.csv", 3, "openset"),
        ("bad-coarse.csv", 3, "name"),
        ("bad-coarse.csv", 4, "reason"),
    ]
    assert not (tmp_path / "corpus/README.md").exists() and not (tmp_path / "corpus/.building").exists()
    report = build_corpus([*files, *bad], tmp_path / "corpus", skip_bad_rows=True)
    assert len(report.problems) == 3 and report.counts["EMER-Coarse", "train"]["rows"] == 21


def test_shards_are_bounded_and_hold_all_rows(files, tmp_path):
    build_corpus(files, tmp_path / "corpus", max_shard_bytes=2000)
    paths = corpus.split_files(tmp_path / "corpus")["EMER-Fine", "train"]
    assert len(paths) > 5
    assert sum(pq.read_metadata(path).num_rows for path in paths) == 266
    assert len(load(tmp_path / "corpus", "EMER-Fine", "train", tmp_path)) == 266


def test_build_stopped_by_a_full_disk_goes_on_with_what_it_has(files, clips, tmp_path):
    (clips / f"{FINE[200]}.mp4").write_bytes(bytes(3_000_000))
    output = tmp_path / "corpus"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            build_corpus(files, output, media=[clips], with_media=True, max_shard_bytes=3000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    done = {path.name: path.stat().st_ino for path in (output / ".building").rglob("*.parquet")}
    assert len(done) > 5
    assert not list(output.rglob("*.part")) and not (output / "README.md").exists()
    with pytest.raises((FileNotFoundError, datasets.exceptions.DataFilesNotFoundError)):
        load(output, "EMER-Fine", "train", tmp_path)

    build_corpus(files, output, media=[clips], with_media=True, max_shard_bytes=3000)
    whole = {path.name: path.stat().st_ino for path in output.rglob("*.parquet")}
    assert done.items() <= whole.items()
    assert not (output / ".building").exists()
    rows = load(output, "EMER-Fine", "train", tmp_path)
    assert len(rows) == 266 and len(next(row for row in rows if row["name"] == FINE[200])["video"]["bytes"]) == 3_000_000


def test_build_again_takes_over_shards_and_leaves_no_old_ones(files, clips, tmp_path):
    output = tmp_path / "corpus"
    build_corpus(files, output, media=[clips], with_media=True)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    build_corpus(files, output, media=[clips], with_media=True)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")} == before
    next(clips.glob(f"{TEST[0]}.*")).write_bytes(b"a new clip")
    build_corpus(files, output, media=[clips], with_media=True)
    after = set(output.rglob("*.parquet"))
    assert len(after) == len(before) == 3 and len(after - set(before)) == 1
    assert load(output, "EMER-Fine", "test", tmp_path)[0]["video"]["bytes"] == b"a new clip"


def test_build_on_a_disk_that_is_too_small_stops_before_writing(files, clips, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(OSError, match=r"expected 0\.1 GB of free space, got 0\.0 GB"):
        build_corpus(files, tmp_path / "corpus", media=[clips], with_media=True)


def test_build_does_not_replace_what_it_did_not_write(files, tmp_path):
    (tmp_path / "README.md").write_text("# My holiday pictures")
    with pytest.raises(ValueError, match=r"got a folder with another README\.md"):
        build_corpus(files, tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My holiday pictures"


def test_build_into_a_folder_without_permission_raises(files, tmp_path):
    (tmp_path / "corpus").mkdir(mode=0o500)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(PermissionError):
            build_corpus(files, tmp_path / "corpus")
    finally:
        if is_root:
            os.seteuid(0)


def test_attach_media_joins_by_name_map_style_and_streaming(files, clips, tmp_path):
    build_corpus(files, tmp_path / "corpus")
    rows = load(tmp_path / "corpus", "EMER-Coarse", "train", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected a clip for each of 20 rows, got none for 14: new_00000006"):
        corpus.attach_media(rows, clips)
    joined = corpus.attach_media(rows.shuffle(seed=0), clips, missing_ok=True)
    assert joined.features == corpus.FEATURES and joined.column_names == rows.column_names
    for row in joined:
        path = row["video"]["path"]
        assert (path is None) == (row["name"] > "new_00000005")
        assert path is None or os.path.splitext(os.path.basename(path))[0] == row["name"]
    streamed = corpus.attach_media(load(tmp_path / "corpus", "EMER-Coarse", "train", tmp_path, streaming=True), clips)
    iterator = iter(streamed)
    assert next(iterator)["video"] == {"path": str(clips / "new_00000000.mp4"), "bytes": None}
    with pytest.raises(FileNotFoundError, match="new_00000006"):
        list(iterator)


def test_find_clips_prefers_pictures_to_sound_and_refuses_twins(tmp_path):
    for path in ("video/a.mp4", "audio/a.wav", "audio/b.wav", "openface_face/a.npy"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    assert corpus.find_clips([tmp_path]) == {"a": str(tmp_path / "video/a.mp4"), "b": str(tmp_path / "audio/b.wav")}
    (tmp_path / "video/a.avi").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.avi and .*a\.mp4"):
        corpus.find_clips([tmp_path])
    with pytest.raises(FileNotFoundError, match="expected a folder of clips, got nothing"):
        corpus.find_clips([tmp_path / "gone"])
