"""Readers of the authors' annotation files, on files of the same layout with sentences of our own."""

import csv
import hashlib
import os

import pytest

from affectgpt import mer_files
from affectgpt.mer_files import CorpusError, parse_labels, quoted_subtitles, read_rows, recognise, recognise_all


def write(path, header, rows, encoding="utf-8", delimiter=","):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def read(path):
    problems = []
    return {name: row for _, name, row in read_rows(recognise(path), problems)}, [str(problem) for problem in problems]


def test_emer_v1_english_and_chinese_give_rows_of_their_language(tmp_path):
    header = ["names", "emotions", "subtitles", "reasons"]
    english = write(
        tmp_path / "gt-eng.csv", header, [["a", "worried", "Where is it?", "He frowns."], ["b", "happy", "", "A grin."]]
    )
    chinese = write(tmp_path / "gt-chi.csv", header, [["a", "担忧", "在哪里？", "他皱着眉头。"]])
    assert recognise(english).configuration == recognise(chinese).configuration == "EMER-V1"
    assert read(english)[0] == {
        "a": {"labels": ["worried"], "subtitle": "Where is it?", "description": "He frowns."},
        "b": {"labels": ["happy"], "description": "A grin."},
    }
    assert read(chinese)[0] == {"a": {"labels": ["worried"], "subtitle_zh": "在哪里？", "description_zh": "他皱着眉头。"}}


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        ("final-EMER-reason.csv", "EMER-Fine"),
        ("track3_train_ovmerd.csv", "EMER-Fine"),
        ("track3_train_mercaptionplus.csv", "EMER-Coarse"),
        ("track2_train_human.csv", "Human-OV"),
        ("subtitle_chieng.csv", None),
        ("transcription-engchi-polish.csv", None),
    ],
)
def test_recognise_tells_the_configuration_by_columns_and_name(tmp_path, name, configuration):
    header = ["name", "reason"] if "track3" in name else ["name", "openset"] if "human" in name else ["name", "chinese", "english"]
    file = recognise(write(tmp_path / name, header, []))
    assert file.configuration == configuration
    assert set(file.fields) == set(header)


def test_subtitles_are_not_taken_for_descriptions(tmp_path):
    path = write(tmp_path / "subtitle_chieng.csv", ["name", "chinese", "english"], [["a", "好。", "Fine."], ["b", "", ""]])
    assert read(path) == ({"a": {"subtitle_zh": "好。", "subtitle": "Fine."}, "b": {}}, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encoding_delimiter_quotes_and_newlines_in_cells_are_read(tmp_path, encoding, delimiter):
    english = 'She says, "No; not now,"\nand turns away.'
    path = write(tmp_path / "fine.csv", ["name", "chinese", "english"], [["a", "她转过身，不看他。", english]], encoding, delimiter)
    assert read(path) == ({"a": {"description_zh": "她转过身，不看他。", "description": english}}, [])


def test_spreadsheet_habits_do_no_harm(tmp_path):
    path = tmp_path / "fine.csv"
    path.write_bytes(b'English, NAME ,note,Chinese\r\n"One\r\ntwo.",clip.a.mp4,x,\r\n,,,\r\n"Three.",b,y,nan\r\n')
    assert read(path) == ({"clip.a": {"description": "One\ntwo."}, "b": {"description": "Three."}}, [])


def test_bad_rows_are_all_listed_with_row_and_column(tmp_path):
    path = write(
        tmp_path / "labels.csv",
        ["name", "openset"],
        [
            ["a", "['happy']"],
            ["b", "['happy'"],
            ["", "['sad']"],
            ["a", "['sad']"],
            ["c"],
            ["d", "__import__('os')"],
            ["e", "[1, 2]"],
        ],
    )
    rows, problems = read(path)
    assert rows == {"a": {"labels": ["happy"]}}
    assert [problem.split(":")[0] for problem in problems] == [
        "labels.csv, row 3, column openset",
        "labels.csv, row 4, column name",
        "labels.csv, row 5, column name",
        "labels.csv, row 6, column name",
        "labels.csv, row 7, column openset",
        "labels.csv, row 8, column openset",
    ]
    assert "got a again, which is in row 2" in problems[2]
    assert "expected 2 cells, got 1" in problems[3]


def test_rows_count_as_in_a_spreadsheet_across_newlines_and_blank_lines(tmp_path):
    path = tmp_path / "coarse.csv"
    path.write_text('name,reason\na,"One\ntwo\nthree."\n\nb,\n')
    assert read(path)[1] == ["coarse.csv, row 4, column reason: expected a description, got nothing."]


def test_unclosed_quotation_mark_is_reported_at_its_row(tmp_path):
    path = tmp_path / "coarse.csv"
    path.write_text('name,reason\na,Fine.\nb,"Never closed.\nc,Fine.\n')
    rows, problems = read(path)
    assert list(rows) == ["a"]
    assert len(problems) == 1 and problems[0].startswith("coarse.csv, row 3: expected cells in matching double quotes")


def test_missing_columns_raise_with_expected_and_found(tmp_path):
    path = write(tmp_path / "x.csv", ["id", "text"], [])
    with pytest.raises(CorpusError, match=r"x\.csv: expected the columns names, emotions.* or name, openset; got id, text\."):
        recognise(path)
    path.write_bytes(b"")
    with pytest.raises(CorpusError, match="got nothing"):
        recognise(path)


def test_binary_file_raises(tmp_path):
    path = tmp_path / "clip.csv"
    path.write_bytes(bytes(range(255, 0, -1)) * 10)
    with pytest.raises(CorpusError, match="expected text in UTF-8"):
        recognise(path)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['Happy ', 'at  ease', 'happy']", ["happy", "at ease"]),
        ("[happy, at ease]", ["happy", "at ease"]),
        ("happy, 高兴、calm", ["happy", "高兴", "calm"]),
        ("[]", []),
        ("", []),
    ],
)
def test_parse_labels_reads_lists_of_several_habits(text, labels):
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    "text", ["[[" * 3000, "{'a': 1}", "['a' 'b'", "['a', 2]", "print('x')", "[open('/etc/passwd')]", "a" * 20_000]
)
def test_parse_labels_never_runs_a_cell(text):
    with pytest.raises(ValueError, match="expected a list of labels"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("english", "chinese", "found"),
    [
        ('Loud. In the text, the subtitle reads: "Go, now!" It is an order.', None, {"subtitle": "Go, now!"}),
        ('He says "hm" first. The subtitle in the text says, “It\'s me.” Glad.', None, {"subtitle": "It's me."}),
        ('The subtitle content "走吧。" (Let us go.) may be an order.', None, {"subtitle_zh": "走吧。", "subtitle": "Let us go."}),
        (None, "声音大；在文本中，字幕内容：“快走！” 这句话是命令。", {"subtitle_zh": "快走！"}),
        (None, '字幕说"好。"', {"subtitle_zh": "好。"}),
        ('It cannot be told from the subtitle. He says "hm".', "无法根据字幕内容判断。他说“嗯”。", {}),
        ('The subtitle says, "never closed', "字幕内容：“没有", {}),
        (None, None, {}),
    ],
)
def test_quoted_subtitles_finds_what_the_text_quotes(english, chinese, found):
    assert quoted_subtitles(english, chinese) == found


def test_choose_test_names_depends_on_names_alone():
    names = [f"clip{number:03}" for number in range(332)]
    chosen = mer_files.choose_test_names(names)
    assert len(chosen) == 66 and chosen == sorted(chosen)
    assert mer_files.choose_test_names(reversed(names)) == chosen
    # The rule, written another way: hexadecimal digests in the order of their numbers.
    by_hash = sorted(names, key=lambda name: int(hashlib.sha256(name.encode()).hexdigest(), 16))
    assert chosen == sorted(by_hash[:66])
    assert mer_files.names_digest(chosen) == hashlib.sha256(("\n".join(chosen) + "\n").encode()).hexdigest()


def test_read_names_takes_one_a_line(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text("# mine\n\nb.mp4\na\n", encoding="utf-8-sig")
    assert mer_files.read_names(path) == ["b", "a"]
    path.write_text("a\nb\na\n")
    with pytest.raises(CorpusError, match=r"test.txt, row 3: expected each name once, got a again \(row 1\)"):
        mer_files.read_names(path)


def test_recognise_all_of_a_folder_takes_known_files_and_clip_folders(tmp_path):
    write(tmp_path / "track2_train_ovmerd.csv", ["name", "openset"], [])
    write(tmp_path / "track1_train_disdim.csv", ["name", "discrete", "valence"], [])
    write(tmp_path / "track_all_candidates.csv", ["name"], [])
    write(tmp_path / "notes.csv", ["when", "what"], [])
    (tmp_path / "video").mkdir()
    files, folders, passed = recognise_all([tmp_path])
    assert [file.path.name for file in files] == ["track2_train_ovmerd.csv"]
    assert folders == [tmp_path / "video"]
    assert len(passed) == 1 and "notes.csv" in str(passed[0])


def test_recognise_all_lists_every_path_that_is_wrong(tmp_path):
    write(tmp_path / "notes.csv", ["when", "what"], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError) as caught:
        recognise_all([tmp_path / "gone.csv", tmp_path / "notes.csv", tmp_path / "empty"])
    assert [os.path.basename(problem.file) for problem in caught.value.problems] == ["gone.csv", "notes.csv", "empty"]
