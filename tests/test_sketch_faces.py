import dataclasses
import functools
import io
import itertools
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
from affectgpt.drawings import looks_drawn
from training.sketch import __main__ as command
from training.sketch.actions import INTENSITY_POWER
from training.sketch.faces import (
    ACTION_UNITS,
    EXPRESSIONS,
    TARGETS,
    Course,
    Identity,
    draw_face,
    expression_track,
    face_targets,
)
from training.sketch.render import FPS, MAX_DURATION, MIN_DURATION, SAMPLING_RATE, SIZE, build_corpus, render_clip
from training.sketch.scenarios import sample_scenes
from training.sketch.sheets import contact_sheet

SMALL = {"coarse": 3, "fine_train": 2, "fine_test": 1, "test": 1, "seed": 5}


@pytest.fixture
def identity():
    return Identity.sample(np.random.default_rng(1))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emer-sketch")
    build_corpus(folder, workers=1, **SMALL)
    return folder


def compressed(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return Image.open(stream).convert("RGB")


def people(count):
    return [Identity.sample(np.random.default_rng(seed)) for seed in range(count)]


def small(image):
    """The picture as a model sees it, as numbers."""
    return np.asarray(image.resize((112, 112), Image.Resampling.BILINEAR), dtype=float)


def at(intensity, expression):
    """What an expression of some intensity does at its apex."""
    return {name: value * intensity**INTENSITY_POWER for name, value in EXPRESSIONS[expression].items()}


def changed(first, second, person):
    """Share of the face where the difference of two pictures meets the eye."""
    face = slice(int(112 * (person.y - 0.7 * person.scale)), int(112 * (person.y + person.scale)))
    return (np.abs(first - second)[face].max(axis=2) > 40).mean()


def track(*phases, timing="held", intensity=1.0, seed=0, num_frames=75):
    return expression_track(Course(phases, intensity, timing), num_frames, 25, np.random.default_rng(seed))


def course_of(frames, name):
    """How far an action unit is from rest in the eight frames that a model samples."""
    return [frames[moment * len(frames) // 8].get(name, 0.0) for moment in range(8)]


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


@pytest.mark.parametrize(("intensity", "share"), [(1.0, 0.012), (0.45, 0.006)])
def test_draw_face_expressions_differ_at_model_resolution_in_every_identity(intensity, share):
    for person in people(6):
        faces = {name: draw_face(person, at(intensity, name)) for name in EXPRESSIONS}
        seen = {name: small(face) for name, face in faces.items()}
        noise = max(changed(small(compressed(face)), seen[name], person) for name, face in faces.items())
        assert noise < share / 3
        for first, second in itertools.combinations(EXPRESSIONS, 2):
            assert changed(seen[first], seen[second], person) > share, (first, second, person)


def test_draw_face_slight_expressions_lie_between_rest_and_the_full_ones():
    for person in people(4):
        rest = small(draw_face(person, {}))
        for name in list(EXPRESSIONS)[1:]:
            slight, full = (changed(small(draw_face(person, at(intensity, name))), rest, person) for intensity in (0.45, 0.95))
            assert 0.2 * full < slight < full, name


@pytest.mark.parametrize("name", ["lip_pucker", "blush"])
def test_action_unit_shows_in_the_picture_and_in_its_target(identity, name):
    rest, half, full = (small(draw_face(identity, {name: amount})) for amount in (0.0, 0.5, 1.0))
    assert changed(rest, half, identity) > 0.004 and changed(rest, full, identity) > changed(rest, half, identity)
    assert [target(identity, {name: amount}, name) for amount in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]


def test_draw_face_closed_lips_show_no_teeth(identity):
    def mouth_opening(expression):
        return target(identity, EXPRESSIONS[expression], "mouth_opening")

    closed = [name for name in EXPRESSIONS if mouth_opening(name) == 0]
    assert {"polite_smile", "masking_smile", "bashful", "sadness", "scowl", "worry", "doubt", "pout"} <= set(closed)
    assert mouth_opening("laugh") > mouth_opening("smile") > 0.1


def test_draw_face_light_reaches_the_whole_picture_and_clips_nothing(identity):
    def picture(**light):
        return np.asarray(draw_face(dataclasses.replace(identity, **light), {}), dtype=float)

    dark, plain, bright = (picture(exposure=exposure, warmth=0.0) for exposure in (-0.12, 0.0, 0.11))
    assert (dark < plain).mean() > 0.99 and (bright > plain).mean() > 0.99 and bright.max() < 252
    warm = picture(exposure=0.0, warmth=0.035) - plain
    assert warm[..., 0].mean() > 2 and warm[..., 2].mean() < -2 and not warm[..., 1].any()


def test_draw_face_expressions_leave_light_and_background_alone():
    for person in people(6):
        corners = [np.asarray(draw_face(person, units))[:16, :16] for units in EXPRESSIONS.values()]
        assert all(np.array_equal(corners[0], corner) for corner in corners)


def test_identity_numbers_are_spread_over_their_ranges():
    sample = people(300)
    for name, low, high in (("exposure", -0.12, 0.11), ("warmth", -0.015, 0.035), ("x", 0.42, 0.58), ("scale", 0.328, 0.402)):
        values = np.array([getattr(person, name) for person in sample])
        assert low <= values.min() and values.max() <= high
        assert np.histogram(values, bins=5, range=(low, high))[0].min() > 30, name


def test_drawings_pass_for_drawings_whoever_is_drawn():
    for seed, expression in enumerate(2 * list(EXPRESSIONS)):
        person = Identity.sample(np.random.default_rng((9, seed)))
        face = draw_face(person, EXPRESSIONS[expression])
        assert looks_drawn(small(face)[None].astype(np.uint8)), (expression, person)


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


@pytest.mark.parametrize("num_frames", [50, 100])
@pytest.mark.parametrize("seed", range(6))
def test_expression_track_early_peaks_in_the_first_half_and_leaves_a_residue(num_frames, seed):
    brows = course_of(track("scowl", timing="early", seed=seed, num_frames=num_frames), "brow_lower")
    assert brows[0] < 0.3 and np.argmax(brows) < 4 and max(brows) > 0.85
    assert 0.15 < brows[-1] / max(brows) < 0.35


@pytest.mark.parametrize("num_frames", [50, 100])
@pytest.mark.parametrize("seed", range(6))
def test_expression_track_late_rests_for_a_third_and_peaks_in_the_last_quarter(num_frames, seed):
    brows = course_of(track("scowl", timing="late", seed=seed, num_frames=num_frames), "brow_lower")
    assert max(brows[:3]) < 0.1 and np.argmax(brows) >= 6 and brows[-1] > 0.85
    assert brows == sorted(brows) and 0.2 < brows[4] < 0.8


@pytest.mark.parametrize("seed", range(6))
def test_expression_track_held_stays_at_the_apex(seed):
    frames = track("scowl", timing="held", seed=seed)
    brows = [units["brow_lower"] for units in frames]
    assert brows[0] < 0.3 and min(brows[10:66]) > 0.85 and brows[-1] > 0.8 * max(brows)


@pytest.mark.parametrize("num_frames", [50, 100])
@pytest.mark.parametrize("seed", range(6))
def test_expression_track_turn_shows_the_first_then_the_second(num_frames, seed):
    frames = track("scowl", "smile", timing="turn", seed=seed, num_frames=num_frames)
    first, second = (np.array([units[name] for units in frames]) for name in ("brow_lower", "cheek_raise"))
    change = int(np.argmax(second / second.max() > first / first.max())) / num_frames
    assert 0.38 < change < 0.6
    assert first[9] > 0.85 and second[9] == 0 and first[-1] == 0 and second[-1] > 0.75
    fading = (second > 0.02 * second.max()) & (second < 0.98 * second.max())
    assert 0.25 <= fading.sum() / 25 <= 0.4


def test_expression_track_smirk_comes_on_either_side():
    sides = {max(track("smirk", seed=seed, num_frames=50)[25], key=lambda name: name.startswith("lip")) for seed in range(9)}
    assert sides == {"lip_corner_up_left", "lip_corner_up_right"}


def test_expression_track_turn_mirrors_both_phases_alike():
    for seed in range(9):
        last = track("doubt", "smirk", timing="turn", seed=seed)[-1]
        first = track("doubt", "smirk", timing="turn", seed=seed)[12]
        assert ("outer_brow_raise_left" in first) == ("lip_corner_up_left" in last)
        assert "outer_brow_raise_left" not in first or "outer_brow_raise_right" not in first


def test_expression_track_same_seed_same_track():
    assert track("doubt", "fear", timing="turn", seed=3) == track("doubt", "fear", timing="turn", seed=3)
    assert track("doubt", seed=3) != track("doubt", seed=4)


def test_expression_track_slight_is_weaker_than_full():
    slight, full = (max(course_of(track("scowl", intensity=intensity), "brow_lower")) for intensity in (0.45, 0.95))
    assert 0.45 * full < slight < 0.65 * full


@pytest.mark.parametrize(
    ("phases", "intensity", "timing", "message"),
    [
        (("bliss",), 1.0, "held", "got 'bliss'"),
        (("smile", "bliss"), 1.0, "turn", "got 'bliss'"),
        ((), 1.0, "held", "one or two expressions"),
        (("smile", "fear", "scowl"), 1.0, "turn", "one or two expressions"),
        (("smile",), 1.0, "turn", "got 'turn'"),
        (("smile", "fear"), 1.0, "late", "got 'late'"),
        (("smile",), 1.0, "sudden", "early, late, held"),
        (("smile",), 1.2, "held", "got 1.2"),
        (("smile",), -0.1, "held", r"in \[0, 1\]"),
        (("smile",), float("nan"), "held", "got nan"),
    ],
)
def test_course_parts_that_do_not_fit_raise(phases, intensity, timing, message):
    with pytest.raises(ValueError, match=message):
        Course(phases, intensity, timing)


def test_contact_sheet_has_a_row_for_every_person_and_two_courses_to_a_row():
    sheet = contact_sheet(identities=1, size=32)
    assert sheet.width == 20 * 32 and sheet.height == 9 * (32 + 17)
    assert np.asarray(sheet)[:, 16 * 32 :].std() > 20


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
    assert process.returncode == 130 and "the same command" in message and "Traceback" not in message
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".part", ".parquet", ".md")]
    for clip in coarse.glob("*.mp4"):
        with av.open(str(clip)) as container:
            assert sum(1 for _ in container.decode(video=0)) >= MIN_DURATION * FPS


def test_sheet_command_writes_a_picture(tmp_path):
    assert command.main(["sheet", "--output", str(tmp_path / "sheet.png"), "--identities", "1", "--size", "32"]) == 0
    assert Image.open(tmp_path / "sheet.png").size == (20 * 32, 9 * (32 + 17))
