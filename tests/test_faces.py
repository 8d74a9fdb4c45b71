import math
import os
from pathlib import Path

import numpy as np
import pytest
from media_files import make_clip
from PIL import Image

from affectgpt import faces
from affectgpt.faces import Face, FaceDetector, find_faces, mask_background, read_face_crops, resize_crops
from affectgpt.media import MediaError, read_clip

REFERENCE = Path(
    os.environ.get("AFFECTGPT_REFERENCE_2025_DIR", Path(__file__).parents[2] / "shared" / "reference" / "affectgpt-2025")
)
needs_detector = pytest.mark.skipif(
    not faces.is_detector_installed(), reason="Needs the face detector: `pip install affectgpt[faces]`."
)

# A synthetic face of one pixel a unit: eyes, tip of the nose, corners of the mouth, about its centre.
SHAPE = np.array([[-20, -20], [20, -20], [0, 0], [-16, 20], [16, 20]], dtype=float)


def face_at(x, y, *, scale=1.0, degrees=0.0, score=1.0):
    """A face as a detector would report it, turned clockwise as one sees it."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return Face(
        box=(x - 40 * scale, y - 50 * scale, x + 40 * scale, y + 50 * scale),
        landmarks=SHAPE * scale @ turn.T + [x, y],
        score=score,
    )


def scripted(*faces_per_frame):
    """A detector that reports these faces, frame after frame."""
    answers = iter(faces_per_frame)
    return lambda frame: next(answers)


def with_dots(points, *, size=(240, 320)):
    """A grey frame with a red, green, blue, yellow and white dot at the landmarks."""
    frame = np.full((*size, 3), 90, dtype=np.uint8)
    for (x, y), color in zip(points, [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)], strict=True):
        frame[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = color
    return frame


def dot(crop, color):
    """x and y of the centre of a colour, in parts of the crop."""
    weight = np.clip(1 - np.abs(crop.astype(float) - color).sum(axis=-1) / 200, 0, None)
    rows, columns = np.mgrid[0 : crop.shape[0], 0 : crop.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum() / crop.shape[0]


def blank(count, size=(240, 320)):
    return np.full((count, *size, 3), 90, dtype=np.uint8)


def striped(count, size=(240, 320)):
    """Frames whose red channel tells the column and whose green channel tells the row."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    frame = np.stack([columns * 255 // size[1], rows * 255 // size[0], np.zeros(size, dtype=int)], axis=-1)
    return np.tile(frame.astype(np.uint8), (count, 1, 1, 1))


def place(crop, size=(240, 320)):
    """x and y in the frame of `striped` that the centre of a crop shows."""
    half = crop.shape[0] // 2
    red, green, _ = crop[half - 2 : half + 2, half - 2 : half + 2].reshape(-1, 3).astype(float).mean(axis=0)
    return red / 255 * size[1], green / 255 * size[0]


@pytest.fixture
def without_detector(monkeypatch):
    monkeypatch.setattr(faces, "is_detector_installed", lambda: False)


def photograph():
    data = pytest.importorskip("skimage.data", reason="Needs scikit-image for a photograph of a face (`dev` extra).")
    return Image.fromarray(data.astronaut())


# Alignment


@pytest.mark.parametrize("degrees", [0, 25, -40])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.4])
def test_find_faces_tilted_face_is_upright_at_one_scale(degrees, scale):
    face = face_at(150, 120, scale=scale, degrees=degrees)
    track = find_faces(with_dots(face.landmarks)[None], size=224, detect=scripted([face]))
    assert track.source == "detector" and track.num_found == 1 and track.notes == []
    left_eye, right_eye = dot(track.crops[0], (255, 0, 0)), dot(track.crops[0], (0, 255, 0))
    assert left_eye[1] == pytest.approx(right_eye[1], abs=0.02)
    assert right_eye[0] - left_eye[0] == pytest.approx(0.41, abs=0.04)
    assert (left_eye + right_eye)[0] / 2 == pytest.approx(0.5, abs=0.02)
    assert dot(track.crops[0], (255, 255, 255))[1] > 0.6  # the mouth is below


def test_find_faces_any_crop_size_shows_the_same():
    face = face_at(150, 120)
    frames = with_dots(face.landmarks)[None]
    small, large = (find_faces(frames, size=size, detect=scripted([face])).crops for size in (56, 224))
    assert small.shape == (1, 56, 56, 3) and small.dtype == np.uint8
    assert np.allclose(dot(small[0], (255, 0, 0)), dot(large[0], (255, 0, 0)), atol=0.02)


def test_find_faces_face_at_the_edge_is_black_beyond_it():
    crop = find_faces(blank(1), detect=scripted([face_at(0, 120)])).crops[0]
    assert (crop[:, :80] == 0).all() and (crop[:, 150:] == 90).all()


def test_find_faces_face_outside_the_picture_gives_a_black_crop():
    assert not find_faces(blank(1), detect=scripted([face_at(-500, 120)])).crops.any()


def test_find_faces_landmarks_in_one_point_are_no_face():
    face = Face(box=(100, 100, 101, 101), landmarks=np.full((5, 2), 100.0))
    assert find_faces(blank(1), size=32, detect=scripted([face])).source == "frame"


def test_find_faces_mouth_opening_does_not_change_the_scale_much():
    still = face_at(150, 120)
    opened = face_at(150, 120)
    opened.landmarks[3:, 1] += 8
    frames = np.stack([with_dots(face.landmarks) for face in (still, opened, still)])
    crops = find_faces(frames, detect=scripted([still], [opened], [still])).crops
    widths = [dot(crop, (0, 255, 0))[0] - dot(crop, (255, 0, 0))[0] for crop in crops]
    alone = find_faces(frames[1:2], detect=scripted([opened])).crops[0]
    width_alone = dot(alone, (0, 255, 0))[0] - dot(alone, (255, 0, 0))[0]
    assert abs(widths[1] - widths[0]) < 0.7 * abs(width_alone - widths[0])


# The main face through the frames


def test_find_faces_two_people_follows_the_larger_throughout():
    main, other = face_at(100, 120, scale=0.9), face_at(240, 120, scale=0.7)
    track = find_faces(striped(3), detect=scripted([other, main], [main, other], [other, main]))
    assert all(place(crop)[0] == pytest.approx(100, abs=8) for crop in track.crops)
    assert "More than one face" in track.notes[0]


def test_find_faces_equal_people_prefers_the_central_one():
    track = find_faces(striped(1), detect=scripted([face_at(40, 120, scale=0.6), face_at(160, 120, scale=0.6)]))
    assert place(track.crops[0])[0] == pytest.approx(160, abs=6)


def test_find_faces_other_face_larger_in_one_frame_keeps_to_the_main_one():
    main = face_at(110, 120, scale=0.8)
    track = find_faces(
        striped(4), detect=scripted([main], [main, face_at(250, 120, scale=0.9)], [main, face_at(250, 120, scale=0.5)], [main])
    )
    assert all(place(crop)[0] == pytest.approx(110, abs=8) for crop in track.crops)


def test_find_faces_bystander_in_a_frame_without_the_main_face_is_left_out():
    main = face_at(110, 120, scale=0.8)
    track = find_faces(striped(3), detect=scripted([main], [face_at(270, 100, scale=0.3)], [main]))
    assert track.num_found == 2
    assert place(track.crops[1])[0] == pytest.approx(110, abs=8)


def test_find_faces_frames_without_a_face_interpolate_and_say_so():
    track = find_faces(striped(5), detect=scripted([], [face_at(120, 100)], [], [face_at(160, 140)], []))
    assert track.source == "detector" and track.num_found == 2
    assert track.notes == ["The face was found in 2 of 5 frames; the others are cropped where it was before or after."]
    places = [place(crop) for crop in track.crops]
    assert places[0] == places[1] and places[3] == places[4]
    assert places[2] == pytest.approx(np.mean([places[1], places[3]], axis=0), abs=3)


def test_find_faces_after_a_cut_follows_the_new_face():
    before, after = face_at(80, 120, scale=0.8), face_at(230, 110, scale=0.7)
    track = find_faces(striped(4), detect=scripted([before], [before], [after], [after]))
    assert track.num_found == 4
    assert [place(crop)[0] > 160 for crop in track.crops] == [False, False, True, True]


def test_find_faces_gap_at_a_cut_takes_the_nearer_place():
    before, after = face_at(80, 120, scale=0.8), face_at(230, 110, scale=0.8)
    track = find_faces(striped(6), detect=scripted([before], [], [], [], [], [after]))
    assert [place(crop)[0] > 160 for crop in track.crops] == [False] * 3 + [True] * 3


def test_find_faces_scale_is_not_smoothed_across_a_cut():
    near, far = face_at(120, 120, scale=1.2), face_at(120, 120, scale=0.4)
    frames = np.stack([with_dots(face.landmarks) for face in (near, far)])
    crops = find_faces(frames, detect=scripted([near], [far])).crops
    widths = [dot(crop, (0, 255, 0))[0] - dot(crop, (255, 0, 0))[0] for crop in crops]
    assert widths == pytest.approx([0.41, 0.41], abs=0.04)


def test_find_faces_crowd_is_bounded():
    crowd = [face_at(20 + 7 * index, 100, scale=0.2) for index in range(40)]
    assert find_faces(blank(3), size=32, detect=scripted(crowd, crowd, crowd)).num_found == 3


# Stand-ins


def test_find_faces_nobody_found_gives_the_whole_picture():
    track = find_faces(striped(2), size=32, detect=scripted([], []))
    assert (
        track.source == "frame"
        and track.num_found == 0
        and track.notes == ["No face was found: the whole picture stands in for it."]
    )
    assert track.crops.shape == (2, 32, 32, 3)
    assert track.crops[0, 16, 0, 0] < 20 and track.crops[0, 16, -1, 0] > 235  # from edge to edge


def test_find_faces_without_detector_gives_the_centre(without_detector):
    track = find_faces(striped(2), size=32)
    assert track.source == "centre" and track.num_found == 0 and "affectgpt[faces]" in track.notes[0]
    assert track.crops.shape == (2, 32, 32, 3)
    assert 25 < track.crops[0, 16, 0, 0] < 50  # the square in the middle of 320 x 240: from column 40
    assert place(track.crops[0]) == pytest.approx((160, 120), abs=8)


def test_detector_without_its_package_says_what_to_install(without_detector):
    with pytest.raises(ImportError, match=r"affectgpt\[faces\]"):
        FaceDetector()


@needs_detector
def test_detector_with_foreign_weights_refuses_them(monkeypatch):
    monkeypatch.setitem(faces._WEIGHTS, "rnet", "0" * 64)
    with pytest.raises(RuntimeError, match=r"rnet\.lz4: expected the weights of mtcnn 1\.0\.0"):
        FaceDetector()


@pytest.mark.parametrize(
    "frames", [np.zeros((240, 320, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8)]
)
def test_find_faces_wrong_shape_raises(frames):
    with pytest.raises(ValueError, match="shape"):
        find_faces(frames)


def test_find_faces_float_frames_raise():
    with pytest.raises(TypeError, match="uint8"):
        find_faces(np.zeros((1, 8, 8, 3), np.float32))


def test_find_faces_size_zero_raises():
    with pytest.raises(ValueError, match="size"):
        find_faces(blank(1), size=0)


# Precomputed crops


def stored_crops(count=25, size=(112, 112)):
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def save(path, crops):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, crops)
    return path


def test_read_face_crops_takes_the_reference_indices_as_rgb(tmp_path):
    crops = stored_crops()
    track = read_face_crops(save(tmp_path / "clip.npy", crops), size=112)
    assert track.source == "precomputed" and track.num_found == 8 and track.notes == []
    assert np.array_equal(track.crops[..., ::-1], crops[[0, 3, 6, 9, 12, 15, 18, 21]])  # the file holds BGR


def test_read_face_crops_short_file_repeats_the_last(tmp_path):
    crops = stored_crops(count=5)
    track = read_face_crops(save(tmp_path / "clip.npy", crops), size=112)
    assert np.array_equal(track.crops[..., ::-1], crops[[0, 1, 2, 3, 4, 4, 4, 4]])


@pytest.mark.parametrize("clip", ["a.b.mp4", "a.b", "videos/a.b.mp4"])
@pytest.mark.parametrize("place", ["a.b.npy", "a.b/a.b.npy"])
def test_read_face_crops_folder_finds_the_clip(tmp_path, place, clip):
    crops = stored_crops(count=8)
    save(tmp_path / place, crops)
    save(tmp_path / "other.npy", stored_crops(count=2))
    assert np.array_equal(read_face_crops(tmp_path, clip=clip, size=112).crops[..., ::-1], crops)


def test_read_face_crops_folder_of_one_clip_needs_no_name(tmp_path):
    save(tmp_path / "sample" / "sample.npy", stored_crops(count=8))
    assert read_face_crops(tmp_path / "sample").crops.shape == (8, 224, 224, 3)


def test_read_face_crops_folder_without_the_clip_raises(tmp_path):
    with pytest.raises(MediaError, match=r"expected clip\.mp4\.npy or .*clip/clip\.npy"):
        read_face_crops(tmp_path, clip="clip.mp4")


def test_read_face_crops_missing_path_raises(tmp_path):
    with pytest.raises(MediaError, match=r"gone\.npy: expected a npy file"):
        read_face_crops(tmp_path / "gone.npy")


@pytest.mark.parametrize(
    ("crops", "got"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint8), r"\(8, 8, 3\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"\(2, 8, 8, 4\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "none"),
        (np.array([{"a": 1}], dtype=object), "something else"),
    ],
)
def test_read_face_crops_wrong_content_raises(tmp_path, crops, got):
    with pytest.raises(MediaError, match=rf"clip\.npy: expected .* got .*{got}"):
        read_face_crops(save(tmp_path / "clip.npy", crops))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array", None])
def test_read_face_crops_damaged_file_raises(tmp_path, content):
    path = save(tmp_path / "clip.npy", stored_crops())
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(MediaError, match=r"clip\.npy: expected a npy file of face crops, got something else or part of one"):
        read_face_crops(path)


def test_read_face_crops_archive_raises(tmp_path):
    np.savez(tmp_path / "clip.npz", stored_crops(2))
    with pytest.raises(MediaError, match="npz"):
        read_face_crops(tmp_path / "clip.npz")


def test_read_face_crops_no_frames_wanted_raises(tmp_path):
    with pytest.raises(ValueError, match="num_frames"):
        read_face_crops(tmp_path, num_frames=0)


@pytest.mark.skipif(not (REFERENCE / "preproc").is_dir(), reason="Needs the recorded vectors of the 2025 model.")
def test_resize_crops_equals_the_reference_loader():
    from safetensors.numpy import load_file

    recorded = load_file(REFERENCE / "preproc" / "visual.safetensors")
    names = [name.removesuffix(".source_uint8") for name in recorded if name.startswith("face.") and name.endswith(".source_uint8")]
    assert names
    for name in names:
        loaded = recorded[f"{name}.loaded_uint8"].transpose(1, 2, 3, 0)  # channels first there
        assert np.array_equal(resize_crops(recorded[f"{name}.source_uint8"], loaded.shape[1]), loaded), name


def test_resize_crops_same_size_leaves_them():
    crops = stored_crops(count=2)
    assert np.array_equal(resize_crops(crops, 112), crops)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (480, 640)])
def test_resize_crops_even_picture_stays_even(size):
    resized = resize_crops(np.full((1, *size, 3), 200, dtype=np.uint8), 64)
    assert resized.shape == (1, 64, 64, 3)
    assert np.abs(resized.astype(int) - 200).max() <= 1


def test_mask_background_keeps_the_face_and_blackens_the_corners():
    masked = mask_background(np.full((2, 224, 224, 3), 200, dtype=np.uint8))
    assert (masked[:, 20:200, 60:164] == 200).all()
    assert not masked[:, 200:, :40].any() and not masked[:, 200:, -40:].any()
    assert 0.7 < (masked > 0).mean() < 0.9


# The detector on pictures


@needs_detector
def test_detector_photograph_finds_eyes_and_mouth():
    (face,) = FaceDetector()(np.asarray(photograph()))
    # Seen by eye in the picture, to a few pixels.
    expected = [(204, 101), (247, 103), (225, 129), (203, 139), (244, 142)]
    assert np.abs(face.landmarks - expected).max() < 6
    assert face.score > 0.95


@needs_detector
def test_find_faces_moving_turning_growing_photograph_stays_in_place():
    picture = photograph().crop((100, 20, 350, 270))
    frames = []
    for index, (degrees, side) in enumerate([(0, 200), (12, 240), (-15, 300), (20, 360)]):
        frame = Image.new("RGB", (640, 360), (70, 90, 110))
        # The corners that turning leaves are cut off by a mask of the same turn.
        mask = Image.new("L", (side, side), 255).rotate(degrees)
        frame.paste(picture.resize((side, side)).rotate(degrees), (40 + 70 * index, 0), mask)
        frames.append(np.asarray(frame))
    track = find_faces(np.stack(frames), size=64)
    assert track.source == "detector" and track.num_found == 4
    crops = track.crops.astype(float)
    inner = crops[:, 8:56, 14:50]
    spread = np.abs(inner - inner.mean(axis=0)).mean()
    whole = np.stack([np.asarray(Image.fromarray(frame).resize((64, 64)), dtype=float) for frame in frames])
    assert spread < 15 and spread < np.abs(whole - whole.mean(axis=0)).mean()


@needs_detector
def test_find_faces_very_large_frame_equals_the_small_one():
    picture = photograph()
    small, large = np.asarray(picture)[None], np.asarray(picture.resize((2048, 2048), Image.Resampling.BICUBIC))[None]
    first, second = find_faces(small, size=64).crops, find_faces(large, size=64).crops
    assert np.abs(first.astype(float) - second).mean() < 15


@needs_detector
@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_find_faces_photograph_without_people_gives_the_frame(name):
    data = pytest.importorskip("skimage.data", reason="Needs scikit-image for photographs (`dev` extra).")
    assert find_faces(getattr(data, name)()[None], size=32).source == "frame"


@needs_detector
@pytest.mark.parametrize("size", [(1, 1), (8, 2000), (13, 13), (24, 24)])
def test_find_faces_tiny_picture_gives_the_frame(size):
    assert find_faces(np.zeros((1, *size, 3), np.uint8), size=16).source == "frame"


@needs_detector
def test_find_faces_drawn_person_is_found():
    from training.sketch.faces import Identity, draw_face

    frames = np.stack([np.asarray(draw_face(Identity.sample(np.random.default_rng(seed)), {})) for seed in (0, 1, 2)])
    assert find_faces(frames, size=32).num_found == 3


@needs_detector
def test_find_faces_clip_without_people_goes_on(tmp_path):
    clip = read_clip(make_clip(tmp_path / "clip.mp4", size=(96, 128)), num_frames=2)
    track = find_faces(clip.frames, size=32)
    assert track.source == "frame" and len(track.crops) == len(clip.frames)
