import datasets
import pytest

from affectgpt import corpus


@pytest.fixture
def row(tmp_path):
    clip = tmp_path / "clips" / "one.mp4"
    clip.parent.mkdir()
    clip.write_bytes(b"not really a clip")
    return {
        "name": "one",
        "video": clip,
        "subtitle": "I am fine.",
        "subtitle_zh": "我很好。",
        "description": "They smile.",
        "description_zh": "他们在笑。",
        "labels": ["happy", "calm"],
        "clues": {"video": "a smile", "audio": "a calm voice", "text": "well-being"},
        "provenance": {"source": "test"},
    }


def load(folder, configuration, cache):
    return datasets.load_dataset(str(folder), configuration, split="test", cache_dir=str(cache))


def test_write_split_and_card_load_from_any_folder(row, tmp_path, monkeypatch):
    folder = tmp_path / "corpus"
    configurations = {}
    for name, with_media in (("Referred", False), ("Embedded", True)):
        path = corpus.write_split([row], folder / "data" / name, "test", with_media=with_media)
        configurations[name] = {"test": path.relative_to(folder).as_posix()}
    corpus.write_card(folder, configurations, "# A corpus", licence="cc0-1.0")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    referred, embedded = load(folder, "Referred", tmp_path / "cache"), load(folder, "Embedded", tmp_path / "cache")
    assert referred.features == corpus.FEATURES
    assert referred[0]["video"] == {"path": str(row["video"]), "bytes": None}
    assert embedded[0]["video"] == {"path": "one.mp4", "bytes": b"not really a clip"}
    assert load(folder, None, tmp_path / "cache")[0]["video"] == referred[0]["video"]
    for rows in (referred, embedded):
        assert {key: rows[0][key] for key in row if key not in ("video", "provenance")} == {
            key: value for key, value in row.items() if key not in ("video", "provenance")
        }
        assert rows[0]["provenance"]["source"] == "test" and rows[0]["provenance"]["voice"] is None


def test_write_split_relative_path_becomes_absolute(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = corpus.write_split([row | {"video": "clips/one.mp4"}], ".", "test")
    assert datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path))[0]["video"]["path"] == str(row["video"])


def test_write_split_and_card_of_another_corpus_of_the_same_name_load_anew(row, tmp_path):
    for home, subtitle in (("first", "One."), ("second", "Two."), ("second", "Three.")):
        folder = tmp_path / home / "corpus"
        path = corpus.write_split([row | {"subtitle": subtitle}], folder, "test")
        corpus.write_card(folder, {"Same": {"test": path.name}}, "# A corpus", licence="cc0-1.0")
        assert load(folder, "Same", tmp_path / "cache")["subtitle"][:] == [subtitle]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ["happy"]}, "in the row of 'one', got also label"),
        ({"clues": {"face": "a smile"}}, "in the clues of 'one', got also face"),
        ({"provenance": {"where": "here"}}, "in the provenance of 'one', got also where"),
    ],
)
def test_write_split_unknown_column_raises(row, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        corpus.write_split([row | change], tmp_path, "test")
    assert not list(tmp_path.glob("*.parquet*"))


def test_write_split_missing_clip_raises(row, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.mp4: expected the clip of row 'one'"):
        corpus.write_split([row | {"video": tmp_path / "gone.mp4"}], tmp_path, "test")


def test_media_path_embedded_clip_is_unpacked_once(tmp_path):
    video = {"path": "one.mp4", "bytes": b"content"}
    first = corpus.media_path(video, tmp_path / "unpacked")
    written = first.stat().st_mtime_ns
    assert first.suffix == ".mp4" and first.read_bytes() == b"content"
    assert corpus.media_path(video, tmp_path / "unpacked") == first and first.stat().st_mtime_ns == written
    assert corpus.media_path({"path": "one.mp4", "bytes": b"other"}, tmp_path / "unpacked") != first


def test_media_path_referred_clip_gone_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.mp4: expected the clip that a row refers to"):
        corpus.media_path({"path": str(tmp_path / "gone.mp4"), "bytes": None}, tmp_path)
