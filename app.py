"""The demo: a clip in, an explanation of what the person seems to feel out, streamed. `python app.py`, or a Gradio Space.

The model is the one that ships with the package. `AFFECTGPT_MODEL=<folder, Hub id or endpoint>` names another; in its place
`AFFECTGPT_VIDEO_MODEL`, `AFFECTGPT_AUDIO_MODEL` and `AFFECTGPT_MERGE_MODEL` name those of the two-step protocol. `AFFECTGPT_ASR`
names a model that writes down what is said where no subtitle is given; `AFFECTGPT_QUANTIZATION=4bit` fits a large model on a small
GPU.
"""

import filecmp
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import spaces  # on a Space with shared GPUs only; must come before torch
except ImportError:
    spaces = None

import gradio as gr
from huggingface_hub import ModelCard
from PIL import Image

import affectgpt
from affectgpt.chat import ChatError, is_endpoint
from affectgpt.explainers import AffectGPTExplainer, Explainer, load_explainer
from affectgpt.explanation import LANGUAGES, NOTICE, Explanation
from affectgpt.labels import split_sentences
from affectgpt.media import Clip, MediaError, read_clip
from affectgpt.media_models import NUM_FRAMES
from affectgpt.subtitles import Transcriber

# Empty values, as a Space's settings may have them, count as none.
MODELS = {
    "model": os.environ.get("AFFECTGPT_MODEL") or None,
    "video_model": os.environ.get("AFFECTGPT_VIDEO_MODEL") or None,
    "audio_model": os.environ.get("AFFECTGPT_AUDIO_MODEL") or None,
    "merge_model": os.environ.get("AFFECTGPT_MERGE_MODEL") or None,
}
QUANTIZATION = os.environ.get("AFFECTGPT_QUANTIZATION") or None
ASR_MODEL = os.environ.get("AFFECTGPT_ASR") or None
EXAMPLES = Path(affectgpt.__file__).parent / "assets" / "examples"  # clips, and examples.json: {file name: subtitle}
PAPER_URL = "https://huggingface.co/papers/2407.07653"
AUTHORS_CODE_URL = "https://github.com/zeroQiaoba/AffectGPT"

MAX_CLIP_SECONDS = 60
MAX_UPLOAD_MB = 100
MAX_SUBTITLE_CHARACTERS = 2000
MAX_WAITING = 20
GPU_SECONDS = 60  # what one answer may take of a shared GPU
KEEP_SECONDS = 15 * 60  # how long what the page still shows (frames, clips not asked about) stays on disk
THUMBNAIL_PIXELS = 320
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}  # by default the largest picture that a camera has
# The reader's own font: those that come with the themes lack letters in bold. No record of past runs is kept in the browser.
LAUNCH = {
    "theme": gr.themes.Default(primary_hue="blue", font=gr.themes.Font("sans-serif")),
    "max_file_size": f"{MAX_UPLOAD_MB}mb",
    "run_history": False,
    "share": False,
}

CONSENT = (
    "The people in this clip know and agree. I will not use the result at work, in education, for hiring, policing, migration, "
    "credit, insurance or diagnosis."
)
INTRODUCTION = """# AffectGPT
Give it a clip of one person speaking: from picture, voice and words it explains what the person seems to feel, and by which signs.
It must not be used at work, in education, for hiring, policing, migration, credit, insurance or diagnosis.

"""
LINKS = f"[Paper]({PAPER_URL}) · [Code of the paper's authors]({AUTHORS_CODE_URL})"
DRAWINGS_ONLY = (
    "**This model knows drawn faces only**, such as the examples below, and declines clips of real people. "
    "`AFFECTGPT_MODEL=<folder or Hub id> python app.py` loads another one."
)
PRIVACY = f"""A clip is deleted from this server once it is explained, the frames shown within {KEEP_SECONDS // 60} minutes; nothing
is logged. Endpoint for `gradio_client`: `/analyze`."""

HEADINGS = {"video": "Picture:", "audio": "Voice:", "text": "Words:"}

Analyze = Callable[[str, str | None, bool, str], Iterator[Explanation]]


def load_demo() -> gr.Blocks:
    """Load the models that the environment names and build the page around them."""
    explainer = load_explainer(**MODELS, quantization=QUANTIZATION)
    transcriber = Transcriber(ASR_MODEL) if ASR_MODEL else None

    def analyze(path: str, subtitle: str | None, explain_anyway: bool, language: str) -> Iterator[Explanation]:
        if subtitle is None and transcriber is not None:
            subtitle = transcriber.transcribe_clip(path, max_duration=MAX_CLIP_SECONDS)
        yield from explainer.stream(path, subtitle=subtitle, explain_anyway=explain_anyway, language=language)

    if spaces:
        analyze = spaces.GPU(duration=GPU_SECONDS)(analyze)
    return build_demo(
        analyze,
        about=describe_model(explainer),
        num_frames=frames_of(explainer),
        drawings_only=explainer.drawings_only,
        host=explainer.host,
    )


def frames_of(explainer: Explainer) -> int:
    """How many frames of a clip the model looks at."""
    return explainer.processor.image_processor.num_frames if isinstance(explainer, AffectGPTExplainer) else NUM_FRAMES


def describe_model(explainer: Explainer) -> str:
    """Which model answers, in Markdown: name, licence, what it goes by, and what it must not be trusted with."""
    names = [name for name in MODELS.values() if name] or [explainer.name]
    models = ", ".join(f"{model_link(name)} (licence: {licence_of(name)})" for name in names)
    lines = [f"Model: {models}."]
    if isinstance(explainer, AffectGPTExplainer):
        sound = explainer.processor.feature_extractor
        face = "the face in " if explainer.processor.takes_faces else ""
        lines.append(
            f"It looks at {face}{frames_of(explainer)} frames and listens to {sound.num_clips} pieces of "
            f"{sound.clip_duration:g} s: of a long clip it misses most."
        )
    elif explainer.protocol == "two-step":
        lines.append("Clues are drawn from picture and sound first, then merged with the subtitle.")
    if not explainer.drawings_only:
        lines.append("Its answers about people are guesses from outward signs, and have not been checked on people like yours.")
    return " ".join(lines)


def licence_of(name: str) -> str:
    """The licence that a model's card states."""
    if is_endpoint(name):
        return "the operator's terms"
    try:
        data = ModelCard.load(Path(name) / "README.md" if os.path.isdir(name) else name).data
    except (OSError, ValueError):  # no card, no connection, or a card that is none
        return "not stated"
    return getattr(data, "license_name", None) or data.license or "not stated"


def check_request(video: str | None, subtitle: str | None, consent: bool) -> None:
    """Refuse what can be refused before anything is decoded.

    Raises:
        gr.Error: no clip, no consent, a clip that is gone or too large, or too long a subtitle.
    """
    if not video:
        raise user_error("Upload or record a clip first.")
    if not consent:
        raise user_error("Tick the line about consent first: " + CONSENT)
    if not Path(video).is_file():
        raise user_error("This clip was deleted after its explanation. Upload it again to ask again.")
    if subtitle and len(subtitle) > MAX_SUBTITLE_CHARACTERS:
        raise user_error(
            f"Expected a subtitle of at most {MAX_SUBTITLE_CHARACTERS} characters, got {len(subtitle)}. Give what the clip says."
        )
    size_mb = Path(video).stat().st_size / 1e6
    if size_mb > MAX_UPLOAD_MB:
        raise user_error(f"Expected a clip of at most {MAX_UPLOAD_MB} MB, got {size_mb:.0f} MB. Cut or shrink it.")


def user_error(message: str) -> gr.Error:
    """What a user did, not what went wrong in here: shown on the page, not logged."""
    return gr.Error(message, print_exception=False)


def explanations(
    analyze: Analyze, video: str, subtitle: str | None, explain_anyway: bool, language: str, num_frames: int
) -> Iterator[tuple[Explanation, list]]:
    """What `analyze` yields, each with the captioned frames. The upload is deleted when this ends, however it ends.

    Only a refused clip is kept, for "explain anyway".

    Raises:
        gr.Error: the clip is too long or cannot be read, or the model behind an endpoint gives no answer.
    """
    refused = False
    try:
        clip = read_clip(video, num_frames=num_frames, max_duration=MAX_CLIP_SECONDS)
        frames = thumbnails(clip)
        for explanation in analyze(video, (subtitle or "").strip() or None, explain_anyway, language):
            refused = explanation.refused
            yield explanation, frames
    except (MediaError, ChatError, LookupError) as error:
        raise user_error(str(error).replace(video, Path(video).name)) from error
    finally:
        if not refused:
            delete_upload(video)


def delete_upload(video: str) -> None:
    """Delete a clip that a user brought. The examples are the same file for every user and stay."""
    if not any(filecmp.cmp(video, example, shallow=False) for example in EXAMPLES.glob("*.mp4")):
        Path(video).unlink()


def by_modality(explanation: Explanation) -> str:
    """The text in Markdown: a paragraph for each run of sentences about the picture, the voice or the words, headed by its name."""
    paragraphs = []
    previous = None
    for sentence in split_sentences(explanation.text):
        modality = next((key for key, clue in explanation.clues.items() if sentence in clue), None)
        if paragraphs and modality == previous:
            paragraphs[-1] += f" {sentence}"
        else:
            paragraphs.append(f"**{HEADINGS[modality]}** {sentence}" if modality else sentence)
        previous = modality
    return "\n\n".join(paragraphs)


def thumbnails(clip: Clip) -> list[tuple[Image.Image, str]]:
    """The frames of a clip, small, each with its time as a caption; a repeated frame once."""
    frames = {} if clip.frames is None else dict(zip(clip.frame_times, clip.frames, strict=True))
    images = [(Image.fromarray(frame), f"{time:.2f} s") for time, frame in frames.items()]
    for image, _ in images:
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return images


def model_link(name: str) -> str:
    """Markdown for a model: the name of its folder, the address of an endpoint, or a link to the Hub."""
    if is_endpoint(name):
        return f"`{name}`"
    return Path(name).name if os.path.isabs(name) or os.path.exists(name) else f"[{name}](https://huggingface.co/{name})"


def read_examples() -> list[list[str]]:
    """`[path, subtitle]` of each example; none when the folder is missing."""
    listing = EXAMPLES / "examples.json"
    if not listing.is_file():
        return []
    return [[str(EXAMPLES / name), subtitle] for name, subtitle in json.loads(listing.read_text(encoding="utf-8")).items()]


def build_demo(
    analyze: Analyze, *, about: str = "", num_frames: int = 8, drawings_only: bool = False, host: str | None = None
) -> gr.Blocks:
    """The page around `analyze(path, subtitle, explain_anyway, language)`, which yields an `Explanation` whose text grows.

    `about` says in Markdown which model answers; `num_frames` is how many frames it looks at; `drawings_only` says that it was
    trained on drawings only; `host` is where clips are sent, if they leave this machine.
    """
    consent_line = CONSENT + (f" The clip is sent to {host}, and they know that too." if host else "")

    def show(video: str | None, subtitle: str | None, consent: bool, explain_anyway: bool, language: str):
        check_request(video, subtitle, consent)
        shown = None
        for explanation, frames in explanations(analyze, video, subtitle, explain_anyway, language, num_frames):
            notes = "\n".join(f"- {note}" for note in explanation.notes)
            labels = [(label, label) for label in explanation.labels]
            # The frames do not change while the text grows: they are sent once.
            shown = gr.skip() if shown else gr.Gallery(frames, visible=bool(frames))
            yield by_modality(explanation), labels, notes, shown, gr.Checkbox(visible=explanation.refused or explain_anyway)

    def answer(video: str | None, subtitle: str | None, consent: bool, explain_anyway: bool, language: str):
        """Explain what the person in a clip seems to feel; the text grows while it is written.

        `consent` must be true: the people in the clip know and agree, and the result will not be used at work, in education, for
        hiring, policing, migration, credit, insurance or diagnosis. `explain_anyway` lets a model that knows drawings only judge a
        clip that it would decline. `language` is that of the answer, "en" or "zh". Returns text, labels, clues by modality, times
        in seconds, notes and a notice to show with it.
        """
        check_request(video, subtitle, consent)
        for explanation, _ in explanations(analyze, video, subtitle, explain_anyway, language, num_frames):
            yield explanation.to_dict()

    with gr.Blocks(title="AffectGPT", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)) as demo:
        gr.Markdown(INTRODUCTION + "\n\n".join([LINKS, f"{about} {DRAWINGS_ONLY if drawings_only else ''}"]))
        with gr.Row():
            with gr.Column(scale=2):
                video = gr.Video(
                    label=f"Clip of one person (at most {MAX_CLIP_SECONDS} s and {MAX_UPLOAD_MB} MB)",
                    sources=["upload", "webcam"],
                    include_audio=True,
                    webcam_options=gr.WebcamOptions(constraints=CAMERA),
                )
                subtitle = gr.Textbox(
                    "", label="What the person says (optional)", lines=2, max_length=MAX_SUBTITLE_CHARACTERS, placeholder="Subtitle"
                )
                consent = gr.Checkbox(label=consent_line)
                language = gr.Radio(
                    [(name, code) for code, name in LANGUAGES.items()],
                    value="en",
                    label="Language of the answer",
                    visible=not drawings_only,
                )
                explain_anyway = gr.Checkbox(label="Explain anyway: I know that this model never saw a real person.", visible=False)
                button = gr.Button("Explain", variant="primary")
            with gr.Column(scale=3):
                gr.Markdown(NOTICE)
                text = gr.Markdown(container=True, label="Explanation", min_height=160)
                labels = gr.HighlightedText([], label="Labels", show_inline_category=False)
                notes = gr.Markdown()
        # One strip in the order of time: it scrolls sideways where the screen is narrow.
        frames = gr.Gallery(
            label="Frames that it looked at",
            columns=8,
            fit_columns=False,
            height="max-content",
            interactive=False,
            visible=False,
        )
        examples = read_examples()
        if examples:
            gr.Examples(examples, inputs=[video, subtitle], label="Drawn examples", cache_examples=False, visible_columns=[0])
        gr.Markdown(PRIVACY)

        inputs = [video, subtitle, consent, explain_anyway, language]
        button.click(
            show,
            inputs,
            [text, labels, notes, frames, explain_anyway],
            show_progress_on=text,
            concurrency_limit=1,
            concurrency_id="gpu",
            api_visibility="private",
        )
        # A refusal is about one clip: the next one starts without "explain anyway", and without the last one's answer.
        video.change(
            lambda: ("", [], "", gr.Gallery([], visible=False), gr.Checkbox(value=False, visible=False)),
            None,
            [text, labels, notes, frames, explain_anyway],
            queue=False,
            api_visibility="private",
        )
        gr.on(
            triggers=[],
            fn=answer,
            inputs=inputs,
            outputs=gr.JSON(visible=False),
            concurrency_limit=1,
            concurrency_id="gpu",
            api_name="analyze",
        )
    return demo.queue(max_size=MAX_WAITING)


if __name__ == "__main__":
    load_demo().launch(**LAUNCH)
