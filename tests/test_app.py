"""The demo around a stub that stands for the model, then once around a tiny real one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from media_files import make_clip
from tiny import make_tiny_model, make_tiny_processor

import app
from affectgpt.chat import ChatError
from affectgpt.explanation import NOTICE, Explanation
from affectgpt.media import Clip

SENTENCES = [
    "The brows are drawn together.",
    "The voice trembles.",
    "The words tell of a loss.",
    "Therefore, the person seems sad.",
]
CLUES = dict(zip(["video", "audio", "text"], SENTENCES, strict=False))
REFUSAL = "This model knows drawings only."
EMPTY = Explanation(
    text="", labels=[], clues={}, frame_times=[0.0, 1.0], sound_spans=[(0.0, 2.0)], duration=2.0, notes=[], refused=False
)


class StubModel:
    """Explains any clip in four steps, but refuses those called `photo.mp4` unless told to go on. Remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, path, subtitle, explain_anyway, language):
        self.calls.append((Path(path), subtitle, explain_anyway))
        self.language = language
        if Path(path).name == "photo.mp4" and not explain_anyway:
            yield replace(EMPTY, text=REFUSAL, refused=True)
            return
        for count in range(1, len(SENTENCES)):
            text = " ".join(SENTENCES[:count])
            yield replace(EMPTY, text=text, clues={key: clue for key, clue in CLUES.items() if clue in text})
        yield replace(EMPTY, text=" ".join(SENTENCES), labels=["sad"], clues=CLUES, notes=["The sound is silent."])


@pytest.fixture(scope="module")
def stub():
    return StubModel()


@pytest.fixture(scope="module")
def client(stub):
    demo = app.build_demo(stub)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    yield Client(url, verbose=False, analytics_enabled=False)
    demo.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def analyze(client, path, **arguments):
    return client.predict(handle_file(path), api_name="/analyze", **{"consent": True, **arguments})


def test_api_has_one_endpoint_with_plain_parameters(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/analyze"]
    parameters = {parameter["parameter_name"]: parameter for parameter in endpoints["/analyze"]["parameters"]}
    assert list(parameters) == ["video", "subtitle", "consent", "explain_anyway", "language"]
    assert parameters["language"]["parameter_default"] == "en"
    assert parameters["consent"]["parameter_default"] is False
    assert parameters["explain_anyway"]["parameter_default"] is False


def test_analyze_streams_growing_text(client, clip):
    job = client.submit(handle_file(clip), "Hello.", True, api_name="/analyze")
    final = job.result(timeout=60)
    texts = [output["text"] for output in job.outputs()]
    assert len(texts) > 1
    assert all(longer.startswith(shorter) for shorter, longer in zip(texts, texts[1:], strict=False))
    assert final["text"] == " ".join(SENTENCES)
    assert final["labels"] == ["sad"]
    assert final["clues"] == CLUES
    assert final["frame_times"] == [0.0, 1.0]
    assert final["notes"] == ["The sound is silent."]
    assert final["notice"] == NOTICE


def test_analyze_passes_stripped_subtitle_or_none(client, clip, stub):
    analyze(client, clip, subtitle="  I am fine. \n")
    assert stub.calls[-1][1:] == ("I am fine.", False)
    analyze(client, clip, subtitle="  ")
    assert stub.calls[-1][1:] == (None, False)


def test_analyze_passes_the_language_of_the_answer(client, clip, stub):
    analyze(client, clip, language="zh")
    assert stub.language == "zh"
    analyze(client, clip)
    assert stub.language == "en"


def test_page_of_a_remote_model_names_its_host_in_the_line_of_consent():
    boxes = [
        block.label
        for block in app.build_demo(StubModel(), host="api.example.org").blocks.values()
        if isinstance(block, gr.Checkbox)
    ]
    assert any(label.startswith(app.CONSENT) and "is sent to api.example.org" in label for label in boxes)


def test_error_of_an_endpoint_is_shown_and_not_an_answer(clip):
    def fails(path, subtitle, explain_anyway, language):
        raise ChatError("127.0.0.1: expected an answer, got none.")
        yield

    with pytest.raises(gr.Error, match="expected an answer, got none"):
        list(app.explanations(fails, str(shutil.copy(clip, Path(clip).with_name("mine.mp4"))), None, False, "en", 8))


def test_analyze_without_clip_raises(client):
    with pytest.raises(AppError, match="Upload or record a clip first"):
        client.predict(None, "Hello.", True, api_name="/analyze")


def test_analyze_without_consent_raises_and_decodes_nothing(client, clip, stub):
    num_calls = len(stub.calls)
    with pytest.raises(AppError, match="The people in this clip know and agree"):
        client.predict(handle_file(clip), "Hello.", api_name="/analyze")
    assert len(stub.calls) == num_calls


def test_analyze_text_file_called_mp4_names_file_without_server_path(client, tmp_path):
    path = tmp_path / "letter.mp4"
    path.write_text("Dear Sir or Madam,")
    with pytest.raises(AppError, match=r"^letter\.mp4: expected"):
        analyze(client, path)


def test_analyze_too_long_clip_is_refused_before_the_model_runs(client, clip, stub, monkeypatch):
    monkeypatch.setattr(app, "MAX_CLIP_SECONDS", 1)
    num_calls = len(stub.calls)
    with pytest.raises(AppError, match="at most 1 s"):
        analyze(client, clip)
    assert len(stub.calls) == num_calls


def test_analyze_too_large_clip_raises(client, clip, monkeypatch):
    monkeypatch.setattr(app, "MAX_UPLOAD_MB", 0.001)
    with pytest.raises(AppError, match="at most 0.001 MB"):
        analyze(client, clip)


def test_upload_over_the_limit_is_cut_off(stub, clip):
    demo = app.build_demo(stub)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{**app.LAUNCH, "max_file_size": "1kb"})
    with pytest.raises(Exception, match="maximum file size"):
        analyze(Client(url, verbose=False, analytics_enabled=False), clip)
    demo.close()


def test_analyze_too_long_subtitle_raises(client, clip):
    with pytest.raises(AppError, match="2000 characters, got 2001"):
        analyze(client, clip, subtitle="a" * 2001)


def test_analyze_deletes_upload_after_the_answer(client, clip, stub):
    analyze(client, clip)
    assert not stub.calls[-1][0].exists()
    assert clip.exists()


def test_analyze_keeps_refused_clip_until_explained_anyway(client, clip, stub, tmp_path):
    photo = shutil.copy(clip, tmp_path / "photo.mp4")
    result = analyze(client, photo)
    assert result["refused"]
    assert result["text"] == REFUSAL
    upload = stub.calls[-1][0]
    assert upload.exists()
    result = analyze(client, photo, explain_anyway=True)
    assert not result["refused"]
    assert result["labels"] == ["sad"]
    assert not upload.exists()


def test_analyze_path_on_the_server_is_neither_read_nor_deleted(client, clip, stub):
    num_calls = len(stub.calls)
    # By hand: the client would upload the file.
    body = json.dumps({"data": [{"path": str(clip), "meta": {"_type": "gradio.FileData"}}, "", True, False]}).encode()
    request = Request(f"{client.src}gradio_api/call/analyze", data=body, headers={"Content-Type": "application/json"})
    with urlopen(request) as response:
        event = json.load(response)["event_id"]
    with urlopen(f"{client.src}gradio_api/call/analyze/{event}") as response:
        assert response.read().startswith(b"event: error")
    assert len(stub.calls) == num_calls
    assert clip.exists()


def test_explanations_model_error_deletes_upload_and_is_raised(clip, tmp_path):
    def broken(path, subtitle, explain_anyway, language):
        yield EMPTY
        raise RuntimeError("out of memory")

    upload = shutil.copy(clip, tmp_path / "upload.mp4")
    with pytest.raises(RuntimeError, match="out of memory"):
        list(app.explanations(broken, str(upload), "", False, "en", 2))
    assert not upload.exists()


def test_explanations_closed_by_a_leaving_user_deletes_upload(clip, tmp_path):
    upload = shutil.copy(clip, tmp_path / "upload.mp4")
    stream = app.explanations(StubModel(), str(upload), "", False, "en", 2)
    next(stream)
    stream.close()
    assert not upload.exists()


def test_check_request_deleted_clip_asks_for_a_new_upload(tmp_path):
    with pytest.raises(app.gr.Error, match="Upload it again"):
        app.check_request(str(tmp_path / "gone.mp4"), "", True)


def test_delete_upload_keeps_examples(clip, tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    shutil.copy(clip, tmp_path / "examples" / "one.mp4")
    monkeypatch.setattr(app, "EXAMPLES", tmp_path / "examples")
    cached = shutil.copy(clip, tmp_path / "cached.mp4")
    app.delete_upload(str(cached))
    assert cached.exists()


def test_by_modality_heads_each_run_of_sentences():
    text = "Her brows rise. Her mouth is open. The voice is high. Therefore, the person seems surprised."
    clues = {"video": "Her brows rise. Her mouth is open.", "audio": "The voice is high."}
    assert app.by_modality(replace(EMPTY, text=text, clues=clues)) == (
        "**Picture:** Her brows rise. Her mouth is open.\n\n**Voice:** The voice is high.\n\nTherefore, the person seems surprised."
    )


def test_by_modality_empty_text_is_empty():
    assert app.by_modality(EMPTY) == ""


def test_thumbnails_are_small_captioned_and_unrepeated():
    frames = np.zeros((3, 400, 800, 3), dtype=np.uint8)
    clip = Clip(path="clip.mp4", frames=frames, frame_times=[0.0, 0.48, 0.48], waveform=None, duration=0.5)
    images = app.thumbnails(clip)
    assert [caption for _, caption in images] == ["0.00 s", "0.48 s"]
    assert images[0][0].size == (320, 160)


def test_thumbnails_without_picture_are_none():
    assert app.thumbnails(Clip(path="clip.wav", frames=None, frame_times=[], waveform=np.zeros(9), duration=1.0)) == []


def test_examples_exist_and_have_subtitles():
    examples = app.read_examples()
    assert len(examples) == 6
    assert all(Path(path).is_file() and subtitle for path, subtitle in examples)
    assert {Path(path).name for path, _ in examples} == {path.name for path in app.EXAMPLES.glob("*.mp4")}


def test_build_demo_offers_the_examples_of_the_folder(clip, tmp_path, monkeypatch):
    shutil.copy(clip, tmp_path / "one.mp4")
    (tmp_path / "examples.json").write_text(json.dumps({"one.mp4": "Hello."}))
    monkeypatch.setattr(app, "EXAMPLES", tmp_path)
    datasets = [block for block in app.build_demo(StubModel()).blocks.values() if isinstance(block, app.gr.Dataset)]
    assert [dataset.raw_samples for dataset in datasets] == [[[str(tmp_path / "one.mp4")]]]


def test_build_demo_without_example_folder_shows_none(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "EXAMPLES", tmp_path / "missing")
    assert not any(isinstance(block, app.gr.Dataset) for block in app.build_demo(StubModel()).blocks.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("someone/affectgpt-7b", "(https://huggingface.co/someone/affectgpt-7b)"),
        ("/models/mine", "mine"),
        ("https://api.example.org/v1#a-model", "`https://api.example.org/v1#a-model`"),
    ],
)
def test_model_link_names_folder_hub_page_or_endpoint(name, expected):
    assert app.model_link(name).endswith(expected)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\n# Model\n", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: research-only\n---\n", "research-only"),
        ("no metadata", "not stated"),
        (None, "not stated"),
    ],
)
def test_licence_is_what_the_card_states(tmp_path, card, expected):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert app.licence_of(str(tmp_path)) == expected


@pytest.fixture
def tiny_checkpoint(tmp_path):
    make_tiny_model().save_pretrained(tmp_path)
    make_tiny_processor().save_pretrained(tmp_path)
    return tmp_path


def test_load_demo_tiny_model_explains_a_clip(clip, tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(app.MODELS, "model", str(tiny_checkpoint))
    demo = app.load_demo()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    result = analyze(Client(url, verbose=False, analytics_enabled=False), clip, subtitle="Hello.")
    demo.close()
    assert len(result["frame_times"]) == 3
    assert result["duration"] == pytest.approx(2.0, abs=0.1)


def test_describe_model_states_name_licence_and_what_it_goes_by(tiny_checkpoint, monkeypatch):
    (tiny_checkpoint / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    monkeypatch.setitem(app.MODELS, "model", str(tiny_checkpoint))
    explainer = app.load_explainer(**app.MODELS)
    about = app.describe_model(explainer)
    assert f"{tiny_checkpoint.name} (licence: cc-by-nc-4.0)" in about
    assert "It looks at 3 frames and listens to 2 pieces of 2 s" in about
    assert "have not been checked on people like yours" in about


@pytest.mark.parametrize("drawings_only", [True, False])
def test_page_says_whether_the_model_knows_drawings_only(drawings_only):
    blocks = app.build_demo(StubModel(), drawings_only=drawings_only).blocks.values()
    assert any(app.DRAWINGS_ONLY in (block.value or "") for block in blocks if isinstance(block, gr.Markdown)) is drawings_only
