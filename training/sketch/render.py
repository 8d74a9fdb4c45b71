"""Scenes of the drawn world become clips (mp4, H.264 + AAC), clips and their truth become a corpus."""

import functools
import hashlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image
from tqdm import tqdm

from affectgpt import corpus

from .faces import draw_face, expression_track
from .lips import mouth_shapes
from .scenarios import MISREAD_RATE, Scene, misread, row_of, sample_scenes
from .voices import background, speak

SIZE = 224  # pixels
FPS = 25
HOLD = 2  # frames for which a drawing is shown ("on twos", as in drawn animation): half the drawing, half the bytes
SAMPLING_RATE = 16_000  # Hz
MIN_DURATION, MAX_DURATION = 2.0, 4.0  # seconds
SPEECH_JAW, SPEECH_PUCKER = 0.5, 0.3  # how far the loudest syllable opens the mouth, and the darkest vowel pushes the lips out
MAX_BYTES = 35_000  # of sound and picture; the container comes on top
AUDIO_RATE = 32_000  # bits per second
LICENCE = "cc0-1.0"

# Streams draw their randomness from (seed of the scene, one of these), so that a change in one leaves the others alone.
FACE_STREAM, VOICE_STREAM, TIMING_STREAM, MISREAD_STREAM, BACKGROUND_STREAM = range(5)

CARD = """# EMER-Sketch

Drawn talking heads with synthetic voices, and the truth about what each shows: clues in picture, voice and words, an explanation,
and open-vocabulary labels. **These are rendered drawings, never evidence about people**: use them to test, teach and compare
software.

| configuration | split | clips | labels |
|---|---|---|---|
{table}

Each clip is {shortest:g} to {longest:g} s, {size} x {size} px, {fps} frames a second, H.264 + AAC at 16 kHz; about half are
spoken in English, half in Mandarin. Faces move by action units, one expression or one that turns into another, voices by prosody,
words carry a meaning, and the three agree or contradict each other. Labels, clues and descriptions (English and Chinese) follow
from them by the rules of `training/sketch/grammar.py`. Looks, light, framing, background, speaker, noise and music come from
continuous parameters that are independent of all this. Every clip has an identity and a speaker of its own; the test splits have
sentences of their own too, and combinations of face, voice and words that training never shows.

Made with

    python -m training.sketch build --coarse {coarse} --fine-train {fine_train} --fine-test {fine_test} --test {test} --seed {seed}

The seed fixes every annotation. {media}

Licence: CC0-1.0 (clips and annotations).
"""
MEDIA_EMBEDDED = "The clips are embedded in the parquet files; the folder `clips` is not needed beside them."
MEDIA_REFERRED = """The rows refer to the clips by absolute path. After moving the folder, run the command again with the new
`--output` (the clips are kept), or with `--with-media`, which embeds them in the parquet files."""


def render_clip(scene: Scene, path: str | Path) -> None:
    """Render one scene to an mp4 file. The file appears whole or not at all; equal scenes give equal pictures and sound.

    Args:
        scene (`Scene`): what to show and say. Speech that runs over the longest duration is cut.
        path (`str` or `Path`): the mp4 file; its folder must exist.
    """
    path = Path(path)
    rng = np.random.default_rng((scene.seed, VOICE_STREAM))
    speech = speak(scene.words, scene.speaker, scene.voice, scene.voice_intensity, rng, language=scene.spoken)
    start, end = np.random.default_rng((scene.seed, TIMING_STREAM)).uniform(0.12, 0.35, size=2)
    duration = float(np.clip(start + len(speech) / SAMPLING_RATE + end, MIN_DURATION, MAX_DURATION))
    num_frames = round(duration * FPS)
    voice = np.zeros(num_frames * SAMPLING_RATE // FPS, dtype=np.float32)
    first = int(start * SAMPLING_RATE)
    speech = speech[: len(voice) - first]
    voice[first : first + len(speech)] = speech
    behind = background(len(voice), scene.speaker, np.random.default_rng((scene.seed, BACKGROUND_STREAM)))

    rng = np.random.default_rng((scene.seed, FACE_STREAM))
    track = expression_track(scene.movement, num_frames, FPS, rng)[::HOLD]
    mouths = mouth_shapes(voice, num_frames, SAMPLING_RATE)[::HOLD]
    for action_units, (opening, rounding) in zip(track, mouths, strict=True):
        for name, reach in (("jaw_drop", SPEECH_JAW * opening), ("lip_pucker", SPEECH_PUCKER * opening * rounding)):
            own = action_units.get(name, 0.0)
            action_units[name] = own + (1 - own) * float(reach)
    temporary = path.with_name(path.name + ".part")
    try:
        drawings = (draw_face(scene.identity, action_units, size=SIZE) for action_units in track)
        frames = itertools.islice((drawing for drawing in drawings for _ in range(HOLD)), num_frames)
        encode(temporary, frames, voice + behind, comment=_fingerprint(scene))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def encode(path: Path, images: Iterable[Image.Image], waveform: np.ndarray, *, comment: str) -> None:
    """Write pictures of `SIZE` and mono sound of `SAMPLING_RATE` as an mp4 file of at most about `MAX_BYTES`."""
    seconds = len(waveform) / SAMPLING_RATE
    # A rate control buffer of half a second: the encoder may overdraw its rate by that much in all.
    video_rate = int((8 * MAX_BYTES - AUDIO_RATE * seconds) / (seconds + 0.5))
    # Without B-frames: x264's lookahead reads memory it did not write, so that with them equal pictures give unequal bytes.
    video_options = {
        "preset": "veryfast",
        "crf": "28",
        "x264-params": "bframes=0",
        "maxrate": str(video_rate),
        "bufsize": str(video_rate // 2),
    }
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FPS, options=video_options)
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "yuv420p"
        video.thread_count = 1
        container.metadata["comment"] = comment
        audio = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono")
        audio.bit_rate = AUDIO_RATE
        for image in images:
            container.mux(video.encode(av.VideoFrame.from_image(image)))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        sound.sample_rate = SAMPLING_RATE
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


@functools.cache
def _renderer() -> bytes:
    """The source that decides what a clip of a given scene looks and sounds like."""
    told = {"chinese", "english", "grammar", "page", "plots", "scenarios", "sheets", "text", "__init__", "__main__"}
    files = sorted(file for file in Path(__file__).parent.glob("*.py") if file.stem not in told)
    return b"".join(file.read_bytes() for file in files)


def _fingerprint(scene: Scene) -> str:
    return hashlib.sha256(_renderer() + repr(scene).encode()).hexdigest()


def _is_rendered(scene: Scene, path: Path) -> bool:
    if not path.is_file():
        return False
    with av.open(str(path)) as container:
        return container.metadata.get("comment") == _fingerprint(scene)


def _render_job(job: tuple[Scene, Path]) -> None:
    render_clip(*job)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def render_all(jobs: Sequence[tuple[Scene, Path]], workers: int | None = None) -> None:
    """Render scenes to files side by side, with a progress bar; `workers` is the number of cores by default."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    try:
        if workers == 1:
            _exhaust(map(_render_job, jobs), len(jobs))
        else:
            context = multiprocessing.get_context("spawn")
            with context.Pool(workers, initializer=_leave_interrupts_to_the_parent) as pool:
                _exhaust(pool.imap_unordered(_render_job, jobs), len(jobs))
    finally:
        for folder in {path.parent for _, path in jobs}:
            for leftover in folder.glob("*.part"):
                leftover.unlink()


def _exhaust(results: Iterable[None], total: int) -> None:
    for _ in tqdm(results, total=total, desc="Rendering clips", unit="clip"):
        pass


def build_corpus(
    output: str | Path,
    *,
    coarse: int = 4000,
    fine_train: int = 266,
    fine_test: int = 66,
    test: int = 2000,
    seed: int = 0,
    workers: int | None = None,
    with_media: bool = False,
) -> None:
    """Render EMER-Sketch and write it as a folder that `datasets.load_dataset(output, "EMER-Sketch-Fine")` reads.

    Args:
        output (`str` or `Path`): the folder. Clips that it already holds are kept if the same code made them from the same scene.
        coarse, fine_train, fine_test, test (`int`): clips per split. In the coarse split faces and voices are misread in places.
        seed (`int`): fixes every byte of the annotations, but for the absolute paths of clips that are referred to.
        workers (`int`, *optional*): processes; by default one for each core.
        with_media (`bool`): embed the clips in the parquet files.
    """
    output = Path(output).absolute()
    counts = {"coarse": coarse, "fine_train": fine_train, "fine_test": fine_test, "test": test}
    splits = {}
    for split, count in counts.items():
        folder = output / "clips" / split
        folder.mkdir(parents=True, exist_ok=True)
        splits[split] = {folder / f"{scene.name}.mp4": scene for scene in sample_scenes(split, count, seed)}
    clips = [(scene, path) for scenes in splits.values() for path, scene in scenes.items()]
    jobs = [(scene, path) for scene, path in clips if not _is_rendered(scene, path)]
    if jobs:
        # Annotations of an earlier build would describe clips that are about to change.
        for outdated in (output / "README.md", *output.glob("data/*/*.parquet")):
            outdated.unlink(missing_ok=True)
        render_all(jobs, workers)

    places = {
        "coarse": ("EMER-Sketch-Coarse", "train"),
        "fine_train": ("EMER-Sketch-Fine", "train"),
        "fine_test": ("EMER-Sketch-Fine", "test"),
        "test": ("EMER-Sketch-Test", "test"),
    }
    configurations: dict[str, dict[str, str]] = {}
    table = []
    for split, (name, part) in places.items():
        if not splits[split]:
            continue
        rows = []
        for clip, scene in splits[split].items():
            seen = misread(scene, np.random.default_rng((scene.seed, MISREAD_STREAM))) if split == "coarse" else None
            rows.append(row_of(scene, seen=seen) | {"video": clip})
        target = corpus.write_split(rows, output / "data" / name, part, with_media=with_media).relative_to(output).as_posix()
        configurations.setdefault(name, {})[part] = target
        note = f"faces and voices misread in {MISREAD_RATE:.0%} of the clips each" if split == "coarse" else "the truth"
        table.append(f"| {name} | {part} | {len(rows)} | {note} |")
    body = CARD.format(
        table="\n".join(table),
        shortest=MIN_DURATION,
        longest=MAX_DURATION,
        size=SIZE,
        fps=FPS,
        seed=seed,
        media=MEDIA_EMBEDDED if with_media else MEDIA_REFERRED,
        **counts,
    )
    corpus.write_card(output, configurations, body, licence=LICENCE)
