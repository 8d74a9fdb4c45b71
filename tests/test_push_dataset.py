"""`hub.push_dataset` with the real clients: what may be passed on gets there and loads; the rest does not, or only privately."""

import json

import numpy as np
import pytest
import yaml
from hub_double import HubDouble
from media_files import make_clip

from affectgpt import corpus
from affectgpt.explanation import NOTICE
from hub.push_dataset import main


@pytest.fixture
def hub():
    with HubDouble() as double:
        yield double


def make_corpus(folder, provenance=None, *, with_media=True, licence="cc0-1.0", **card):
    """Two configurations, three splits, two clips each."""
    configurations = {}
    for configuration, split in (("EMER-Fine", "train"), ("EMER-Fine", "test"), ("EMER-Coarse", "train")):
        rows = []
        for index in range(2):
            name = f"{configuration}-{split}-{index}"
            clip = make_clip(folder.parent / "clips" / f"{name}.mp4", seconds=0.2, size=(32, 32))
            rows.append({"name": name, "video": str(clip), "labels": ["calm"], "provenance": provenance})
        path = corpus.write_split(rows, folder / "data" / configuration, split, with_media=with_media)
        configurations.setdefault(configuration, {})[split] = path.relative_to(folder).as_posix()
    corpus.write_card(folder, configurations, "# Ours\n\nClips of our own.", licence=licence, **card)
    return folder


@pytest.fixture(autouse=True)
def clips(tmp_path):
    (tmp_path / "clips").mkdir()


DRAWN = {"source": "EMER-Sketch", "expression": "smile"}
MER = {"source": "MER", "files": ["MERChallenge/MER2025@0123456789ab/track3.csv"], "redistributable": False}
LOAD = """
import sys
import affectgpt
from affectgpt import corpus, read_clip
from datasets import get_dataset_config_names, load_dataset
assert set(get_dataset_config_names("org/corpus")) == {"EMER-Fine", "EMER-Coarse"}
for configuration, split in (("EMER-Fine", "train"), ("EMER-Fine", "test"), ("EMER-Coarse", "train")):
    rows = load_dataset("org/corpus", configuration, split=split, revision="v0.1.0")
    assert rows["name"][:] == [f"{configuration}-{split}-{index}" for index in range(2)]
    streamed = list(load_dataset("org/corpus", configuration, split=split, streaming=True))
    assert [row["name"] for row in streamed] == rows["name"][:]
    clip = read_clip(corpus.media_path(streamed[0]["video"], sys.argv[1]), num_frames=2)
    print(clip.frames.shape)
"""


def test_corpus_is_pushed_and_loads_in_every_configuration_whole_and_streaming(hub, tmp_path):
    folder = make_corpus(tmp_path / "corpus", DRAWN)
    (folder / "cache.npz").write_bytes(b"features")
    code = "import sys; from hub.push_dataset import main; sys.exit(main(sys.argv[1:]))"
    done = hub.run(code, "--corpus", folder, "--repo", "org/corpus", home=tmp_path / "home", token="hf_alice")

    assert "It loads: 3 splits" in done.stdout
    assert "Left out" in done.stdout and "cache.npz" in done.stdout
    repo = hub.repo("org/corpus", "dataset")
    files = repo.files("v0.1.0")
    assert set(files) == {"README.md", *(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))}
    assert not repo.private and not repo.gated  # drawings
    card = files["README.md"].decode()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "cc0-1.0" and len(header["configs"]) == 2
    assert NOTICE in card and "Clips of our own." in card and 'load_dataset("org/corpus", "EMER-Fine"' in card

    shapes = hub.run(LOAD, tmp_path, home=tmp_path / "other").stdout
    assert shapes.count("(2, 32, 32, 3)") == 3


@pytest.mark.parametrize(
    ("provenance", "card", "reason"),
    [
        (MER, {}, "must not be passed on"),
        ({"source": "own", "files": ["MERChallenge/MER2025@0123456789ab/x.csv"]}, {}, "names a MER corpus"),
        ({"source": "own", "files": ["mercaptionplus_labels.csv"]}, {}, "names a MER corpus"),
        ({"source": "own"}, {"redistributable": False}, "redistributable: false"),
        ({"source": "own"}, {"facts": {"license_name": "mer-eula"}}, "licence is mer-eula"),
    ],
)
def test_material_of_a_mer_corpus_is_refused_without_both_a_private_repository_and_a_permission(
    capsys, tmp_path, provenance, card, reason
):
    folder = make_corpus(tmp_path / "corpus", provenance, **card)
    arguments = ["--corpus", str(folder), "--repo", "org/corpus", "--dry-run"]
    for extra in ([], ["--private"], ["--i-have-permission", "Agreement."], ["--private", "--i-have-permission", " "]):
        assert main([*arguments, *extra]) == 2
        error = capsys.readouterr().err
        assert reason in error and "--i-have-permission" in error

    assert main([*arguments, "--private", "--i-have-permission", "Agreement of 2026-03-01."]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Agreement of 2026-03-01.") == 2  # in the header and in the text
    assert "org/corpus: private" in shown


def test_permission_does_not_open_a_repository_that_is_public(hub, tmp_path):
    hub.add_repo("org/corpus", kind="dataset")
    folder = make_corpus(tmp_path / "corpus", MER)
    code = "import sys; from hub.push_dataset import main; sys.exit(main(sys.argv[1:]))"
    arguments = ("--corpus", folder, "--repo", "org/corpus", "--private", "--i-have-permission", "Agreement.")
    done = hub.run(code, *arguments, home=tmp_path / "home", token="hf_alice", check=False)
    assert done.returncode == 2
    assert "expected a private repository, got a public one" in done.stderr
    assert hub.repo("org/corpus", "dataset").files() == {}


def test_permission_for_what_needs_none_is_refused(capsys, tmp_path):
    folder = make_corpus(tmp_path / "corpus", {"source": "own"})
    arguments = ["--corpus", str(folder), "--repo", "org/corpus", "--private", "--i-have-permission", "Agreement.", "--dry-run"]
    assert main(arguments) == 2
    assert "Leave it out" in capsys.readouterr().err


def test_corpus_of_people_asks_for_consent_unless_told_otherwise(capsys, tmp_path):
    folder = make_corpus(tmp_path / "corpus", {"source": "own", "redistributable": True})
    arguments = ["--corpus", str(folder), "--repo", "org/corpus", "--dry-run"]
    assert main(arguments) == 0
    assert "asks for consent (auto)" in capsys.readouterr().out
    assert main([*arguments, "--gate", "none"]) == 0
    assert "extra_gated" not in capsys.readouterr().out


def test_clips_of_this_machine_are_refused(capsys, tmp_path):
    folder = make_corpus(tmp_path / "corpus", DRAWN, with_media=False)
    assert main(["--corpus", str(folder), "--repo", "org/corpus", "--dry-run"]) == 2
    assert "--with-media" in capsys.readouterr().err


def test_folders_that_are_no_corpus_are_refused(capsys, tmp_path):
    media, labels, cache, card = (tmp_path / name for name in ("media", "labels", "cache", "card"))
    for folder in (media, labels, cache, card):
        folder.mkdir()
    make_clip(media / "clip.mp4", seconds=0.2, size=(32, 32))
    (labels / "track3_train_ovmerd.csv").write_text("name,openset\na,['calm']\n")
    np.savez(cache / "features.npz", a=np.zeros(3))
    (card / "clip.mp4").write_bytes((media / "clip.mp4").read_bytes())
    configs = [{"config_name": "x", "data_files": [{"split": "train", "path": "*.mp4"}]}]
    (card / "README.md").write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")
    for folder in (media, labels, cache, card, tmp_path / "nothing"):
        assert main(["--corpus", str(folder), "--repo", "org/corpus", "--dry-run"]) == 2
        assert "expected a corpus" in capsys.readouterr().err
