import html
import re

from training.sketch import __main__ as command
from training.sketch.scenarios import row_of, sample_scenes


def test_page_holds_its_clips_and_their_truth_and_loads_nothing(tmp_path):
    path = tmp_path / "page.html"
    assert (
        command.main(["page", "--output", str(path), "--split", "fine_train", "--count", "2", "--seed", "3", "--workers", "1"]) == 0
    )
    page = html.unescape(path.read_text(encoding="utf-8"))
    assert page.count("<video") == page.count("data:video/mp4;base64,") == 2
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "http" not in page
    for scene in sample_scenes("fine_train", 2, seed=3):
        row = row_of(scene)
        for text in (row["subtitle"], row["subtitle_zh"], row["description"], row["description_zh"], *row["labels"]):
            assert text in page
    assert list(tmp_path.iterdir()) == [path]


def test_ceilings_are_printed_for_every_set_of_modalities(capsys):
    assert command.main(["ceilings"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"face\+voice\+words\s+100\.0\s+100\.0", printed)
    assert len(printed.splitlines()) == 2 + 8
