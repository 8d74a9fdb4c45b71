"""`affectgpt corpus check` and `stats`, and the command as a user gives it."""

import argparse
import sys

import pytest
from hub_double import HubDouble
from media_files import make_clip
from PIL import Image

from affectgpt import corpus, corpus_cli
from affectgpt.corpus_check import check_corpora
from affectgpt.corpus_stats import PAPER_COUNTS, corpus_stats, draw_stats, format_stats


def row(name, video=None, **columns):
    return {"name": name, "video": video, "description": "They smile.", "labels": ["happy"], **columns}


def make_corpus(folder, splits, *, with_media=False):
    """Splits as (configuration, split) -> rows."""
    configurations = {}
    for (configuration, split), rows in splits.items():
        path = corpus.write_split(rows, folder / "data" / configuration, split, with_media=with_media)
        configurations.setdefault(configuration, {})[split] = path.relative_to(folder).as_posix()
    corpus.write_card(folder, configurations, "# A corpus", licence="cc0-1.0")
    return folder


def run(*arguments):
    parser = argparse.ArgumentParser(prog="affectgpt")
    corpus_cli.add_parser(parser.add_subparsers(dest="command"))
    return corpus_cli.run(parser.parse_args(["corpus", *map(str, arguments)]))


@pytest.fixture
def clips(tmp_path):
    """Five files, of which `d` has the size of `a` and `twin` has its bytes."""
    for name, content in (("a", b"one"), ("b", b"second"), ("c", b"the third"), ("d", b"two"), ("twin", b"one")):
        (tmp_path / f"{name}.mp4").write_bytes(content)
    return {path.stem: path for path in tmp_path.glob("*.mp4")}


def test_check_of_a_good_corpus_finds_nothing(clips, tmp_path):
    splits = {("Fine", "test"): [row("a", clips["a"])], ("Fine", "train"): [row("b", clips["b"]), row("d", clips["d"])]}
    report = check_corpora([make_corpus(tmp_path / "corpus", splits)])
    assert report.is_good and report.notes == []


@pytest.mark.parametrize("with_media", [False, True])
def test_check_finds_leaks_by_name_and_by_bytes_across_corpora(clips, tmp_path, with_media):
    fine = make_corpus(tmp_path / "fine", {("Fine", "test"): [row("a", clips["a"]), row("b", clips["b"])]}, with_media=with_media)
    coarse = {("Coarse", "train"): [row("b", clips["c"]), row("twin", clips["twin"]), row("d", clips["d"])]}
    coarse = make_corpus(tmp_path / "coarse", coarse, with_media=with_media)
    report = check_corpora([coarse, fine])
    assert report.leaks == [
        f"{coarse}: Coarse, train: b is tested on in {fine}: Fine, test",
        f"{coarse}: Coarse, train: twin has the same clip as {fine}: Fine, test: a",
    ]
    assert check_corpora([coarse]).is_good
    assert [leak.split(": ")[-1] for leak in check_corpora([coarse, fine], with_media=False).leaks] == ["Fine, test"]


def test_check_lists_every_bad_row(clips, tmp_path):
    rows = [
        row("a", clips["a"]),
        row("a", clips["b"]),
        row("c", clips["c"], description=None, labels=[]),
        row("d", clips["d"]),
        row("e"),
    ]
    folder = make_corpus(tmp_path / "corpus", {("Fine", "train"): rows})
    clips["c"].write_bytes(b"")
    clips["d"].unlink()
    report = check_corpora([folder])
    assert report.problems == [
        "Fine, train: row 1 (a): the name of an earlier row",
        "Fine, train: row 2 (c): neither a description nor labels",
        f"Fine, train: row 2 (c): an empty file at {clips['c']}",
        f"Fine, train: row 3 (d): no clip at {clips['d']}",
    ]
    assert "Fine, train: 1 of 5 rows have no clip." in report.notes


def test_check_that_opens_clips_names_those_that_cannot_be_read(clips, tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", seconds=0.4, size=(32, 32))
    folder = make_corpus(tmp_path / "corpus", {("Fine", "train"): [row("whole", whole), row("a", clips["a"])]})
    assert check_corpora([folder]).is_good
    problems = check_corpora([folder], opening=True).problems
    assert len(problems) == 1 and problems[0].startswith(f"Fine, train: a: {clips['a']}: expected a video or sound file")


def test_check_of_no_corpus_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a corpus, a folder with a card"):
        check_corpora([tmp_path])
    folder = make_corpus(tmp_path / "corpus", {("Fine", "train"): [row("a")]})
    next(folder.rglob("*.parquet")).unlink()
    with pytest.raises(FileNotFoundError, match="expected the files of Fine, train, that its card lists"):
        check_corpora([folder])


@pytest.fixture
def described(tmp_path):
    """A corpus with figures that can be told beforehand."""
    clips = [make_clip(tmp_path / f"{seconds}.mp4", seconds=seconds, size=(32, 32)) for seconds in (1, 2, 3)]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a clip")
    rows = [
        row("a", clips[0], description="One two three.", description_zh="他 笑了。", labels=["happy", "calm"]),
        row("b", clips[1], description="One.", subtitle="Oh.", labels=["happy"]),
        row("c", broken, description=None, labels=[]),
    ]
    return make_corpus(
        tmp_path / "corpus", {("EMER-Fine", "train"): rows, ("EMER-Fine", "test"): [row("d", clips[2])]}, with_media=True
    )


def test_stats_count_clips_labels_lengths_and_durations(described):
    (stats,) = corpus_stats(described)
    assert stats.num_clips == {"train": 3, "test": 1} and stats.total == 4
    assert stats.labels == {"happy": 3, "calm": 1} and stats.labels_per_clip == [2, 1, 0, 1]
    assert stats.words == [3, 1, 2] and stats.characters == [4] and stats.num_subtitles == 1
    assert stats.durations == pytest.approx([1, 2, 3], abs=0.1)
    assert stats.unreadable == ["c: its embedded clip cannot be opened"]
    text = format_stats([stats])
    assert "EMER-Fine            train            3       266\n" in text
    assert "whole            4       332" in text
    assert "happy 75.0, calm 25.0" in text
    assert "4 of 4; 0.00 hours; 2.0 s on average" in text
    assert "c: its embedded clip cannot be opened" in text
    assert sum(PAPER_COUNTS.values()) == 115_595 + 332


def test_stats_without_media_open_no_clip(described):
    (stats,) = corpus_stats(described, with_media=False)
    assert stats.num_media == 0 and "hours" not in format_stats([stats])


def test_draw_stats_writes_a_picture(described, tmp_path):
    draw_stats(corpus_stats(described), tmp_path / "figures.png")
    with Image.open(tmp_path / "figures.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24)) > 50
    with pytest.raises(ValueError, match=r"figures\.doc: expected the name of a picture"):
        draw_stats(corpus_stats(described), tmp_path / "figures.doc")


def test_draw_stats_without_matplotlib_says_what_to_install(described, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw_stats(corpus_stats(described, with_media=False), tmp_path / "figures.png")


def test_command_builds_checks_and_describes(tmp_path, capsys):
    fine = tmp_path / "final-EMER-reason.csv"
    fine.write_text(
        "name,chinese,english\n" + "".join(f"clip{number},他笑了。,A smile.\n" for number in range(10)), encoding="utf-8"
    )
    coarse = tmp_path / "track3_train_mercaptionplus.csv"
    coarse.write_text("name,reason\nclip0,A smile.\nnew,A frown.\n")
    assert run("build", "--from", fine, coarse, "--output", tmp_path / "corpus") == 0
    assert f'load_dataset("{tmp_path}/corpus", "EMER-Coarse", split="train")' in capsys.readouterr().out
    assert run("check", tmp_path / "corpus") == 0
    assert run("stats", tmp_path / "corpus", "--picture", tmp_path / "figures.png") == 0
    assert "EMER-Fine            test             2        66" in capsys.readouterr().out
    assert (tmp_path / "figures.png").stat().st_size > 10_000


def test_command_that_checks_a_leak_exits_with_1_and_lists_it(clips, tmp_path, capsys):
    fine = make_corpus(tmp_path / "fine", {("Fine", "test"): [row("a", clips["a"])]})
    coarse = make_corpus(tmp_path / "coarse", {("Coarse", "train"): [row("a", clips["b"])]})
    assert run("check", fine, coarse) == 1
    assert f"Leak: {coarse}: Coarse, train: a is tested on in {fine}: Fine, test" in capsys.readouterr().out


def test_command_with_a_mistake_exits_with_2_and_says_why(tmp_path, capsys):
    bad = tmp_path / "bad.csv"
    bad.write_text("name,openset\na,[1]\nb,{}\n")
    for arguments, message in (
        (["build", "--output", tmp_path / "out"], "Expected --from FILE or --from-hub REPO"),
        (["build", "--from", tmp_path / "gone.csv", "--output", tmp_path / "out"], "got nothing of this name"),
        (["build", "--from", bad, "--output", tmp_path / "out"], "bad.csv, row 3, column openset"),
        (["build", "--from", bad, "--output", bad / "out"], "Not a directory"),
        (["check", tmp_path], "expected a corpus"),
        (["stats", tmp_path / "gone"], "got no such folder"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err


BUILD = """
import argparse, sys
from affectgpt import corpus_cli
parser = argparse.ArgumentParser()
corpus_cli.add_parser(parser.add_subparsers())
sys.exit(corpus_cli.run(parser.parse_args(["corpus", "build", "--from-hub", *sys.argv[1:]])))
"""


def test_command_builds_from_a_gated_repository_with_the_user_s_token(tmp_path):
    files = {
        "track2_train_ovmerd.csv": b"name,openset\na,\"['happy', 'calm']\"\n",
        "track3_train_ovmerd.csv": b"name,reason\na,They smile.\n",
        "track1_train_disdim.csv": b"name,discrete\na,happy\n",
        "unknown.csv": b"x,y\n1,2\n",
        "video_7z/part.zip": bytes(1000),
    }
    with HubDouble() as hub:
        repo = hub.add_repo("MERChallenge/MER2025", files, kind="dataset", gated="auto", readers={"alice"})
        output = tmp_path / "corpus"
        done = hub.run(BUILD, "MERChallenge/MER2025", "--output", output, home=tmp_path / "home", token="hf_alice")
        assert "EMER-Fine, train: 1 clips" in done.stdout and "Passed over" in done.stderr
        downloaded = {path for path, _ in hub.downloads}
        assert not any(path.endswith(("part.zip", "track1_train_disdim.csv")) for path in downloaded)
        source = next(corpus.read_rows(corpus.split_files(output)["EMER-Fine", "train"]))["provenance"]["files"][0]
        commit = repo.branches["main"]
        assert source == f"MERChallenge/MER2025@{commit[:12]}/track3_train_ovmerd.csv"

        for token, message in (("hf_bob", "Accept its terms at"), (None, "Accept its terms at")):
            refused = hub.run(
                BUILD, "MERChallenge/MER2025", "--output", tmp_path / "no", home=tmp_path / "other", token=token, check=False
            )
            assert refused.returncode == 2 and message in refused.stderr, refused.stderr
        gone = hub.run(BUILD, "MERChallenge/Nothing", "--output", tmp_path / "no", home=tmp_path / "other", check=False)
        assert gone.returncode == 2 and "expected a dataset repository on the Hub" in gone.stderr
        assert not (tmp_path / "no").exists()
        variables = {"HF_ENDPOINT": "http://127.0.0.1:9"}
        cut_off = hub.run(
            BUILD, "MERChallenge/MER2025", "--output", tmp_path / "no", home=tmp_path / "third", check=False, **variables
        )
        assert cut_off.returncode == 2 and "expected to download its CSV files, got an error" in cut_off.stderr
