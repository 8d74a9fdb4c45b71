import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import datasets
import numpy as np
import pytest
from PIL import Image

from affectgpt import corpus
from training.sketch import __main__ as command
from training.sketch.faces import ACTION_UNITS, EXPRESSIONS, TARGETS, Identity, draw_face, expression_track, face_targets
from training.sketch.render import FPS, MAX_DURATION, MIN_DURATION, SAMPLING_RATE, SIZE, build_corpus, render_clip, speech_envelope
from training.sketch.scenarios import sample_scenes

SMALL = {"coarse": 3, "fine_train": 2, "fine_test": 1, "test": 1, "seed": 5}


@pytest.fixture
def identity():
    return Identity.sample(np.random.default_rng(1))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emer-sketch")
    build_corpus(folder, workers=1, **SMALL)
    return folder


def people(count):
    return [Identity.sample(np.random.default_rng(seed)) for seed in range(count)]


def small(image):
    """The picture as a model sees it, as numbers."""
    return np.asarray(image.resize((112, 112), Image.Resampling.BILINEAR), dtype=float)


def target(identity, action_units, name):
    return face_targets(identity, action_units)[TARGETS.index(name)]


def test_draw_face_any_identity_fills_the_picture():
    for person in people(20):
        image = draw_face(person, {}, size=112)
        assert image.mode == "RGB" and image.size == (112, 112)
        assert small(image).std() > 10


def test_draw_face_same_arguments_same_picture(identity):
    assert np.array_equal(draw_face(identity, EXPRESSIONS["fear"]), draw_face(identity, EXPRESSIONS["fear"]))


def test_draw_face_unknown_action_unit_raises(identity):
    with pytest.raises(ValueError, match="got eyebrow_wiggle"):
        draw_face(identity, {"eyebrow_wiggle": 1.0})


def test_draw_face_each_action_unit_changes_the_picture(identity):
    rest = np.asarray(draw_face(identity, {}), dtype=float)
    for name in ACTION_UNITS:
        assert np.abs(np.asarray(draw_face(identity, {name: 1.0}), dtype=float) - rest).max() > 50, name


def test_draw_face_expressions_differ_at_model_resolution_in_every_identity():
    for person in people(12):
        middle = slice(int(112 * (person.y - 0.7 * person.scale)), int(112 * (person.y + person.scale)))
        faces = {name: small(draw_face(person, apex))[middle] for name, apex in EXPRESSIONS.items()}
        for first in faces:
            for second in faces:
                if first < second:
                    changed = np.abs(faces[first] - faces[second]).max(axis=2) > 40
                    assert changed.mean() > 0.01, (first, second, person)


def test_draw_face_brows_stand_out_from_every_skin():
    for person in people(60):
        lowered, raised = (small(draw_face(person, {"brow_lower": amount})) for amount in (0.0, 1.0))
        assert np.abs(lowered - raised).max() > 60, person


def test_draw_face_few_colours_and_flat_areas():
    for person in people(10):
        picture = np.asarray(draw_face(person, EXPRESSIONS["smile"]), dtype=int)
        steps = np.abs(np.diff(picture, axis=1)).max(axis=2)
        assert (steps <= 2).mean() > 0.7


def test_identity_sample_same_seed_same_person():
    assert Identity.sample(np.random.default_rng(3)) == Identity.sample(np.random.default_rng(3))
    assert len(set(people(50))) == 50


def test_face_targets_stay_near_the_unit_range():
    for person in people(20):
        for apex in EXPRESSIONS.values():
            values = face_targets(person, apex)
            assert values.shape == (len(TARGETS),) and values.dtype == np.float32
            assert values.min() > -0.2 and values.max() < 1.2, dict(zip(TARGETS, values, strict=True))


def test_face_targets_follow_the_action_units(identity):
    assert target(identity, {"inner_brow_raise": 1}, "brow_inner_left") > target(identity, {}, "brow_inner_left")
    assert target(identity, {"brow_lower": 1}, "brow_inner_right") < target(identity, {}, "brow_inner_right")
    assert target(identity, {"jaw_drop": 1}, "mouth_opening") > target(identity, {}, "mouth_opening")
    assert target(identity, {"blink": 1}, "lid_opening") == pytest.approx(0.0, abs=1e-6)
    smirk = EXPRESSIONS["smirk"]
    assert target(identity, smirk, "mouth_corner_right") > target(identity, smirk, "mouth_corner_left") + 0.2


def test_face_targets_head_motion_moves_the_face_only(identity):
    still, moved = face_targets(identity, {}), face_targets(identity, {"head_x": 1, "head_y": 1, "head_tilt": 1})
    assert {name for name, a, b in zip(TARGETS, still, moved, strict=True) if a != b} == {"face_x", "face_y", "face_tilt", "eye_y"}


def test_expression_track_rises_from_rest_to_the_apex_and_falls():
    track = expression_track("scowl", 1.0, 75, 25, np.random.default_rng(0))
    brows = [units.get("brow_lower", 0.0) for units in track]
    assert len(track) == 75
    assert brows[0] < 0.3 and max(brows) > 0.85 and brows[-1] < 0.95 * max(brows)


def test_expression_track_smirk_comes_on_either_side():
    sides = {
        max(expression_track("smirk", 1.0, 50, 25, np.random.default_rng(seed))[25], key=lambda name: name.startswith("lip"))
        for seed in range(9)
    }
    assert sides == {"lip_corner_up_left", "lip_corner_up_right"}


def test_expression_track_unknown_expression_raises():
    with pytest.raises(ValueError, match="got 'bliss'"):
        expression_track("bliss", 1.0, 10, 25, np.random.default_rng(0))


def test_speech_envelope_follows_loudness():
    waveform = np.concatenate([np.zeros(6400), 0.5 * np.ones(6400), np.zeros(6400)]).astype(np.float32)
    envelope = speech_envelope(waveform, 30)
    assert np.all(envelope[:10] == 0) and np.all(envelope[10:20] > 0.9) and np.all(envelope[20:] == 0)
    assert not speech_envelope(np.zeros(6400, np.float32), 10).any()


def test_render_clip_makes_a_small_streamable_file(tmp_path):
    path = tmp_path / "clip.mp4"
    render_clip(sample_scenes("coarse", 1, 0)[0], path)
    assert os.listdir(tmp_path) == ["clip.mp4"]
    content = path.read_bytes()
    assert len(content) <= 40_000
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height, video.average_rate) == ("h264", SIZE, SIZE, FPS)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", SAMPLING_RATE, 1)
        assert MIN_DURATION - 0.1 <= container.duration / av.time_base <= MAX_DURATION + 0.2
        assert sum(1 for _ in container.decode(video)) == video.frames
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert np.abs(sound).max() > 0.05


def test_render_clip_same_scene_same_bytes(tmp_path):
    scene = sample_scenes("test", 1, 3)[0]
    for name in ("a.mp4", "b.mp4"):
        render_clip(scene, tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_render_clip_failure_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("training.sketch.render.draw_face", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        render_clip(sample_scenes("coarse", 1, 0)[0], tmp_path / "clip.mp4")
    assert os.listdir(tmp_path) == []


def test_build_corpus_loads_from_another_folder(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = {
        ("EMER-Sketch-Coarse", "train"): 3,
        ("EMER-Sketch-Fine", "train"): 2,
        ("EMER-Sketch-Fine", "test"): 1,
        ("EMER-Sketch-Test", "test"): 1,
    }
    for (configuration, split), count in counts.items():
        rows = datasets.load_dataset(str(built), configuration, split=split, cache_dir=str(tmp_path / "cache"))
        assert len(rows) == count and rows.features == corpus.FEATURES
        assert corpus.media_path(rows[0]["video"], tmp_path).is_file()
        assert rows[0]["subtitle"] and rows[0]["description"] and rows[0]["labels"] and all(rows[0]["clues"].values())


def test_build_corpus_again_keeps_clips_and_fills_gaps(built):
    clips = sorted((built / "clips").rglob("*.mp4"))
    clips[0].unlink()
    before = {clip: clip.stat().st_mtime_ns for clip in clips[1:]}
    build_corpus(built, workers=1, **SMALL)
    assert clips[0].is_file()
    assert {clip: clip.stat().st_mtime_ns for clip in clips[1:]} == before


def test_build_corpus_other_seed_replaces_the_clips(built, tmp_path):
    counts = {"coarse": 1, "fine_train": 0, "fine_test": 0, "test": 0}
    build_corpus(tmp_path, workers=1, **counts, seed=5)
    clip = tmp_path / "clips" / "coarse" / "coarse_00000.mp4"
    before = clip.read_bytes()
    assert before == (built / "clips" / "coarse" / "coarse_00000.mp4").read_bytes()
    build_corpus(tmp_path, workers=1, **counts, seed=6)
    assert clip.read_bytes() != before
    assert datasets.get_dataset_config_names(str(tmp_path)) == ["EMER-Sketch-Coarse"]


def test_build_corpus_same_seed_same_bytes_with_media(built, tmp_path):
    fresh, resumed = tmp_path / "fresh", tmp_path / "resumed"
    shutil.copytree(built, resumed, ignore=shutil.ignore_patterns("data", "README.md"))
    for folder, workers in ((fresh, 2), (resumed, 1)):
        build_corpus(folder, workers=workers, with_media=True, **SMALL)
    assert (fresh / "README.md").read_bytes() == (resumed / "README.md").read_bytes()
    for first in sorted(fresh.rglob("*.parquet")):
        relative = first.relative_to(fresh)
        assert first.read_bytes() == (resumed / relative).read_bytes()
        embedded = datasets.Dataset.from_parquet(str(first), cache_dir=str(tmp_path / "cache"))
        (other,) = (built / relative).parent.glob(f"{first.name.partition('-')[0]}-*.parquet")
        referred = datasets.Dataset.from_parquet(str(other), cache_dir=str(tmp_path / "cache"))
        assert embedded[0]["video"]["bytes"][4:8] == b"ftyp"
        assert embedded.remove_columns("video").to_list() == referred.remove_columns("video").to_list()


def test_build_interrupted_leaves_only_whole_clips_and_goes_on(tmp_path):
    arguments = [sys.executable, "-m", "training.sketch", "build", "--output", str(tmp_path / "out"), "--workers", "2"]
    arguments += [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL | {"coarse": 400}).items()]
    process = subprocess.Popen(
        arguments,
        cwd=Path(command.__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for background jobs
    )
    coarse = tmp_path / "out" / "clips" / "coarse"
    while process.poll() is None and len(list(coarse.glob("*.mp4"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "run the same command again" in message and "Traceback" not in message
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".part", ".parquet", ".md")]
    for clip in coarse.glob("*.mp4"):
        with av.open(str(clip)) as container:
            assert sum(1 for _ in container.decode(video=0)) >= MIN_DURATION * FPS


def test_sheet_command_writes_a_picture(tmp_path):
    assert command.main(["sheet", "--output", str(tmp_path / "sheet.png"), "--identities", "1", "--size", "32"]) == 0
    assert Image.open(tmp_path / "sheet.png").size == (8 * 32, 9 * 32)
