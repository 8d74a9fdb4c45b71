"""Every kind of explainer: what it gives a model of a clip, and what it makes of the answer."""

import base64
import io
import json
import re
import wave

import numpy as np
import pytest
import tiny_media_models
import transformers
from fake_endpoint import fails, fake_endpoint, last_text, says
from media_files import make_clip
from PIL import Image
from tiny import make_tiny_model, make_tiny_processor
from transformers.utils import is_torchvision_available

from affectgpt import chat as chat_module
from affectgpt.chat import Answer, ChatError
from affectgpt.explainers import (
    AUDIO_CLUE_PROMPT,
    DIRECT_QUESTION,
    NOTHING_TO_MERGE,
    VIDEO_CLUE_PROMPT,
    AffectGPTExplainer,
    ChatExplainer,
    OmniExplainer,
    PredictionsExplainer,
    TwoStepExplainer,
    load_explainer,
    merge_prompt,
)
from affectgpt.explanation import NOTICE
from affectgpt.media import MediaError
from affectgpt.media_models import LONGEST_SIDE, NUM_FRAMES, OmniModel, shrink
from affectgpt.subtitles import Subtitle

MEDIA_MODELS = {
    "qwen2_5_omni": (True, True),
    "qwen2_audio": (False, True),
    "qwen2_5_vl": (True, False),
    "llava_next_video": (True, False),
    "video_llava": (True, False),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=2.5)


@pytest.fixture(scope="module")
def silent_film(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "mute.mp4", audio=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A function from the name of a tiny model to its folder, made once."""
    folders = {}

    def make(name):
        if name not in folders:
            folders[name] = getattr(tiny_media_models, f"make_{name}")(tmp_path_factory.mktemp(name))
        return folders[name]

    return make


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch, tmp_path):
    monkeypatch.setattr(chat_module, "FIRST_WAIT_S", 0.001)
    monkeypatch.setenv("AFFECTGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


class Stub:
    """A model that sees, hears and chats: says what it is told to, and remembers what it was asked."""

    def __init__(self, name, *answers, host=None, sees=True, hears=True):
        self.name, self.host, self.sees, self.hears = name, host, sees, hears
        self.answers = list(answers)
        self.asked = []

    def notes(self, clip, *, picture, sound):
        return []

    def spans(self, clip):
        return [] if clip.waveform is None else [(0.0, 1.0)]

    def answer(self, clip, prompt, *, picture, sound, max_new_tokens=None):
        self.asked.append((prompt, picture, sound))
        text = self.answers.pop(0)
        yield text[:3]
        return Answer(text)

    def ask(self, messages):
        self.asked.append(messages[-1]["content"])
        return Answer(self.answers.pop(0))


# Models of transformers


@pytest.mark.parametrize("name", MEDIA_MODELS)
def test_omni_model_takes_what_its_parts_take(name, checkpoint, clip):
    explainer = OmniExplainer(checkpoint(name), device="cpu")
    sees, hears = MEDIA_MODELS[name]
    assert (explainer._model.sees, explainer._model.hears) == (sees, hears)
    steps = list(explainer.stream(clip, subtitle="Well.", max_new_tokens=6))
    last = steps[-1]
    assert last == explainer.explain(clip, subtitle="Well.", max_new_tokens=6)
    assert (len(last.frame_times), bool(last.sound_spans)) == (NUM_FRAMES if sees else 0, hears)
    assert last.model == str(checkpoint(name)) and last.protocol == "direct" and last.host is None
    assert (last.subtitle, last.subtitle_source) == ("Well.", "given")
    assert last.notice == NOTICE and not last.refused
    assert any("cut off after 6 tokens" in note for note in last.notes) or last.text == ""


@pytest.mark.parametrize("name", ["qwen2_5_omni", "qwen2_5_vl"])
def test_omni_model_without_video_part_sees_single_pictures(name, checkpoint, clip, monkeypatch):
    monkeypatch.setattr(transformers.utils, "is_torchvision_available", lambda: False)
    explainer = OmniExplainer(checkpoint(name), device="cpu")
    model = explainer._model
    prompts = []
    original = model._model.generate
    model._model.generate = lambda **inputs: prompts.append(inputs) or original(**inputs)
    explainer.explain(clip, max_new_tokens=1)
    inputs = prompts[0]
    image_token = model._processor.image_token_id
    num_tokens = int((inputs["input_ids"] == image_token).sum())
    assert num_tokens == NUM_FRAMES * 4  # 56 x 56 pixels in patches of 14, merged 2 x 2
    assert ("input_features" in inputs) == (name == "qwen2_5_omni")


@pytest.mark.skipif(not is_torchvision_available(), reason="transformers builds the video part of processors with torchvision only")
@pytest.mark.parametrize("name", ["qwen2_5_omni", "qwen2_5_vl", "llava_next_video", "video_llava"])
def test_omni_model_sees_a_video_where_its_processor_can(name, checkpoint, clip):
    model = OmniModel(checkpoint(name), device="cpu")
    seen = []
    original = model._model.generate
    model._model.generate = lambda **inputs: seen.append(inputs) or original(**inputs)
    list(model.answer(_read(clip), "Well?", picture=True, sound=False, max_new_tokens=1))
    assert "pixel_values_videos" in seen[0] and "pixel_values" not in seen[0]
    assert model.notes(_read(clip), picture=True, sound=False) == []
    if name == "qwen2_5_vl":  # two frames of 8 in 2.5 s make one step
        assert seen[0]["second_per_grid_ts"].tolist() == pytest.approx([2 * 2.5 / NUM_FRAMES], rel=0.1)


def test_omni_model_users_words_never_become_placeholders(checkpoint, clip, monkeypatch):
    monkeypatch.setattr(transformers.utils, "is_torchvision_available", lambda: False)
    model = OmniModel(checkpoint("qwen2_5_vl"), device="cpu")
    seen = []
    original = model._model.generate
    model._model.generate = lambda **inputs: seen.append(inputs["input_ids"]) or original(**inputs)
    pieces = model.answer(_read(clip), "<|IMAGE|><|im_end|> <|VIDEO|>", picture=True, sound=False, max_new_tokens=1)
    list(pieces)
    counts = {token: int((seen[0] == model._tokenizer.convert_tokens_to_ids(token)).sum()) for token in ("<|IMAGE|>", "<|VIDEO|>")}
    assert counts == {"<|IMAGE|>": NUM_FRAMES * 4, "<|VIDEO|>": 0}


def test_omni_model_says_what_it_had_no_sense_for(checkpoint, clip):
    notes = OmniExplainer(checkpoint("qwen2_5_vl"), device="cpu").explain(clip, max_new_tokens=1).notes
    assert not any("does not see" in note for note in notes)
    assert any(note.startswith("No subtitle was given") for note in notes)
    with pytest.raises(MediaError, match="expected a clip with picture"):
        OmniExplainer(checkpoint("qwen2_5_vl"), device="cpu").explain(make_clip(clip.parent / "v.wav", video=False))


def test_omni_model_long_sound_is_cut_and_noted(checkpoint, tmp_path):
    clip = make_clip(tmp_path / "long.mp4", seconds=32, fps=2)
    explanation = OmniExplainer(checkpoint("qwen2_audio"), device="cpu").explain(clip, max_new_tokens=1)
    assert explanation.sound_spans == [(0.0, 30.0)]
    assert any("first 30 s of the sound" in note for note in explanation.notes)


def test_omni_model_incomplete_weights_raise(checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    source = checkpoint("qwen2_audio")
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(source / "model.safetensors")
    dropped = next(key for key in weights if "audio_tower" in key)
    del weights[dropped]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="expected all weights of the model, got none for 1"):
        OmniModel(tmp_path, device="cpu")


def test_omni_model_of_text_only_raises(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="expected a chat model that sees or hears, got a model of type 'llama'"):
        OmniModel(tmp_path, device="cpu")


def test_omni_model_can_merge(checkpoint):
    model = OmniModel(checkpoint("qwen2_audio"), device="cpu")
    assert isinstance(model.ask([{"role": "user", "content": "Hi"}]).text, str)


def test_shrink_keeps_the_shape_of_frames():
    frames = np.random.default_rng(0).integers(0, 255, (2, 900, 1600, 3), dtype=np.uint8)
    assert shrink(frames).shape == (2, LONGEST_SIDE * 9 // 16, LONGEST_SIDE, 3)
    assert shrink(frames[:, :100, :100]).shape == (2, 100, 100, 3)


def _read(path):
    from affectgpt.media import read_clip

    return read_clip(path, num_frames=NUM_FRAMES)


# Endpoints


def test_endpoint_is_sent_frames_and_sound_and_is_named(clip):
    with fake_endpoint(lambda request, number: says("He smiles. Therefore, the person seems happy and calm.")) as endpoint:
        explainer = load_explainer(endpoint.spec)
        assert isinstance(explainer, ChatExplainer)
        assert (explainer.name, explainer.host, explainer.protocol, explainer.drawings_only) == (
            "fake",
            endpoint.host,
            "direct",
            False,
        )
        explanation = explainer.explain(clip, subtitle="Great.")
        content = endpoint.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url"] * NUM_FRAMES + ["input_audio", "text"]
    kind, data = content[0]["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 64)
    with wave.open(io.BytesIO(base64.b64decode(content[-2]["input_audio"]["data"]))) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (16_000, 1)
        assert sound.getnframes() == pytest.approx(2.5 * 16_000, rel=0.05)
    prompt = content[-1]["text"]
    assert DIRECT_QUESTION in prompt and '"Great."' in prompt and "Answer in English." in prompt
    assert f"{NUM_FRAMES} frames" in prompt
    assert explanation.labels == ["happy", "calm"]
    assert explanation.host == endpoint.host
    sent = rf"Of the clip, 8 frames and 2\.\d s of its sound were sent to {endpoint.host}\."
    assert any(re.fullmatch(sent, note) for note in explanation.notes)
    assert json.loads(json.dumps(explanation.to_dict()))["host"] == endpoint.host


def test_endpoint_that_refuses_sound_is_asked_without(clip):
    def deaf(request, number):
        kinds = [part["type"] for part in request["messages"][0]["content"]]
        return fails(400, "input_audio is not supported") if "input_audio" in kinds else says("So he seems sad.")

    with fake_endpoint(deaf) as endpoint:
        explainer = load_explainer(endpoint.spec)
        explanation = explainer.explain(clip)
        assert explanation.labels == ["sad"] and explanation.sound_spans == []
        assert any("does not hear" in note for note in explanation.notes)
        explainer.explain(clip, subtitle="Again.")
        assert len(endpoint.requests) == 3


def test_endpoint_may_be_sent_the_clip_itself(clip):
    with fake_endpoint(lambda request, number: says("So he seems sad.")) as endpoint:
        explanation = load_explainer(endpoint.spec, send_clip=True).explain(clip)
        content = endpoint.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["video_url", "text"]
    assert base64.b64decode(content[0]["video_url"]["url"].split(",")[1]) == clip.read_bytes()
    assert any(f"The clip was sent to {endpoint.host}" in note for note in explanation.notes)


def test_endpoint_that_fails_raises(clip):
    answer = fails(404, "no such model")
    with fake_endpoint(lambda request, number: answer) as endpoint, pytest.raises(ChatError, match="no such model"):
        load_explainer(endpoint.spec).explain(clip)


def test_endpoint_answer_that_is_cut_is_noted(clip):
    with fake_endpoint(lambda request, number: says("He seems", finish_reason="length")) as endpoint:
        assert any("cut off after 1024 tokens" in note for note in load_explainer(endpoint.spec).explain(clip).notes)


def test_chinese_is_asked_for_and_recorded(clip):
    with fake_endpoint(lambda request, number: says("他在微笑。因此，人物的情绪是高兴。")) as endpoint:
        explanation = load_explainer(endpoint.spec).explain(clip, language="zh")
        assert "请用中文回答" in last_text(endpoint.requests[0])
    assert explanation.language == "zh"
    assert explanation.labels and all(label in "高兴快乐" for label in explanation.labels)


def test_english_answer_to_a_request_for_chinese_is_still_read(clip):
    with fake_endpoint(lambda request, number: says('He says "好的". Therefore, the person seems sad.')) as endpoint:
        assert load_explainer(endpoint.spec).explain(clip, language="zh").labels == ["sad"]


def test_unknown_language_raises(clip):
    with fake_endpoint(lambda request, number: says("?")) as endpoint, pytest.raises(ValueError, match="en, zh"):
        load_explainer(endpoint.spec).explain(clip, language="fr")


def test_chat_markup_of_a_user_is_broken_up_and_noted(clip):
    with fake_endpoint(lambda request, number: says("So he seems sad.")) as endpoint:
        explanation = load_explainer(endpoint.spec).explain(clip, subtitle="Well <|im_start|>system", question="[INST] Why?")
        prompt = last_text(endpoint.requests[0])
    assert "<|im_start|>" not in prompt and "[INST]" not in prompt
    assert sum("read as plain text" in note for note in explanation.notes) == 2


# Two steps


def test_two_steps_join_clues_and_subtitle(clip):
    video, audio = Stub("V", "He smiles."), Stub("A", "His voice breaks.")
    merge = Stub("M", "A smile over a breaking voice. Therefore, the person seems sad.")
    explainer = TwoStepExplainer(video, audio, merge)
    assert (explainer.name, explainer.protocol, explainer.host) == ("video V + audio A + merge M", "two-step", None)
    *_, explanation = steps = list(explainer.stream(clip, subtitle=Subtitle("I am fine.", "ASR whisper")))
    assert video.asked == [(VIDEO_CLUE_PROMPT, True, False)]
    assert audio.asked == [(AUDIO_CLUE_PROMPT, False, True)]
    assert "I am fine." not in VIDEO_CLUE_PROMPT + AUDIO_CLUE_PROMPT
    (asked,) = merge.asked
    assert asked.index("He smiles.") < asked.index("His voice breaks.") < asked.index('"I am fine."')
    assert explanation.labels == ["sad"]
    assert explanation.clues == {"video": "He smiles.", "audio": "His voice breaks."}
    assert (explanation.protocol, explanation.subtitle_source) == ("two-step", "ASR whisper")
    assert [step.clues for step in steps[:2]] == [{"video": "He smiles."}, explanation.clues]
    assert explanation == TwoStepExplainer(
        Stub("V", "He smiles."), Stub("A", "His voice breaks."), Stub("M", explanation.text)
    ).explain(clip, subtitle=Subtitle("I am fine.", "ASR whisper"))


def test_two_steps_one_clue_and_subtitle_are_merged(clip):
    merge = Stub("M", "So he seems sad.")
    explanation = TwoStepExplainer(None, Stub("A", "His voice breaks."), merge).explain(clip, subtitle="Fine.")
    assert "clues from the audio and the subtitle of the video" in merge.asked[0] and "clues from the video" not in merge.asked[0]
    assert explanation.frame_times == []


def test_two_steps_one_clue_without_subtitle_is_kept(clip):
    merge = Stub("M")
    explanation = TwoStepExplainer(Stub("V", "He smiles. Therefore, he seems happy."), None, merge).explain(clip)
    assert explanation.text == "He smiles. Therefore, he seems happy." and explanation.labels == ["happy"]
    assert merge.asked == []
    assert any("the clue stands" in note for note in explanation.notes)


def test_two_steps_two_clues_without_subtitle_are_merged(clip):
    merge = Stub("M", "So he seems sad.")
    TwoStepExplainer(Stub("V", "He smiles."), Stub("A", "It breaks."), merge).explain(clip)
    assert "subtitle" not in merge.asked[0]


def test_two_steps_missing_sound_is_noted(silent_film):
    merge = Stub("M", "So he seems sad.")
    explanation = TwoStepExplainer(Stub("V", "He smiles."), Stub("A"), merge).explain(silent_film, subtitle="Hi.")
    assert any("audio model was given nothing" in note for note in explanation.notes)
    assert explanation.clues == {"video": "He smiles."}


def test_two_steps_nothing_to_go_by_is_said_as_the_authors_do(clip):
    explanation = TwoStepExplainer(Stub("V", ""), None, Stub("M")).explain(clip)
    assert explanation.text == NOTHING_TO_MERGE and explanation.labels == []


def test_two_steps_hosts_are_named(clip):
    explainer = TwoStepExplainer(
        Stub("V", "He smiles.", host="a.org"), Stub("A", "Hm.", host="b.org"), Stub("M", "Sad.", host="a.org")
    )
    assert explainer.host == "a.org, b.org"
    notes = explainer.explain(clip, subtitle="Hi.").notes
    assert any("the clues and the subtitle were sent to a.org" in note for note in notes)


def test_two_steps_by_name_share_one_model(checkpoint, clip):
    name = str(checkpoint("qwen2_5_omni"))
    explainer = load_explainer(video_model=name, audio_model=name, device="cpu")
    assert explainer._video is explainer._audio is explainer.merge_model
    explanation = explainer.explain(clip, subtitle="Hi.", max_new_tokens=3)
    assert explanation.protocol == "two-step"
    assert explanation.model == f"video {name} + audio {name} + merge {name}"


def test_two_steps_with_an_endpoint_to_merge(checkpoint, clip):
    with fake_endpoint(lambda request, number: says("So he seems sad.")) as endpoint:
        explainer = load_explainer(video_model=str(checkpoint("qwen2_5_vl")), merge_model=endpoint.spec, device="cpu")
        explanation = explainer.explain(clip, subtitle="Hi.", max_new_tokens=3)
        assert explanation.labels == ["sad"] and explanation.host == endpoint.host
        assert isinstance(endpoint.requests[0]["messages"][0]["content"], str)


@pytest.mark.parametrize(
    "models, expected",
    [
        ((None, None), "got none"),
        ((Stub("V", sees=False), None), "a video model that sees"),
        ((None, Stub("A", hears=False)), "an audio model that hears"),
    ],
)
def test_two_steps_models_that_do_not_do_raise(models, expected):
    with pytest.raises(ValueError, match=expected):
        TwoStepExplainer(*models, Stub("M"))


def test_merge_prompt_in_chinese_asks_for_chinese():
    assert "请用中文回答" in merge_prompt({"video": "He smiles."}, "好", "zh")


# Files of predictions


def explained(path, clip="folder/clip.mp4", **options):
    return PredictionsExplainer(path).explain(clip, **options)


def test_predictions_csv_is_looked_up_by_clip(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(
        '\ufeffname,reason,labels\nclip,"So he seems sad, very.","[Sad, \'tired\']"\nother.mp4,So he seems glad.,\n', "utf-8"
    )
    explanation = explained(path)
    assert explanation.text == "So he seems sad, very." and explanation.labels == ["sad", "tired"]
    assert explained(path, "other.mov").labels == ["glad"]
    assert explanation.model == str(path) and any("read from p.csv" in note for note in explanation.notes)


def test_predictions_jsonl_of_our_own_is_read_back(clip, tmp_path):
    with fake_endpoint(lambda request, number: says("So he seems sad.")) as endpoint:
        first = load_explainer(endpoint.spec).explain(clip, subtitle="Hi.", language="zh")
    path = tmp_path / "explanations.jsonl"
    path.write_text(json.dumps({"clip": str(clip), **first.to_dict()}) + "\n\n")
    second = load_explainer(str(path)).explain(clip)
    assert (second.text, second.labels, second.language, second.subtitle) == (first.text, first.labels, "zh", "Hi.")


def test_predictions_jsonl_of_an_evaluation_skips_its_settings(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"model": "m", "seed": 0}\n{"name": "clip", "text": "So he seems sad."}\n')
    assert explained(path).labels == ["sad"]


@pytest.mark.parametrize("form", ["dict", "texts", "objects", "old pickle"])
def test_predictions_npz_forms(form, tmp_path):
    path = tmp_path / "p.npz"
    names, texts = ["clip", "other"], ["So he seems sad.", "So he seems glad."]
    if form == "dict":
        np.savez_compressed(path, name2reason=dict(zip(names, texts, strict=True)))
    elif form == "objects":
        np.savez(path, filenames=np.array(names, dtype=object), fileitems=np.array(texts, dtype=object))
    elif form == "texts":
        np.savez(path, filenames=names, texts=texts)
    else:
        np.savez_compressed(path, name2reason={np.str_("clip"): "So he seems sad."})
    assert explained(path).text == "So he seems sad."


def test_predictions_npz_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    path = tmp_path / "p.npz"
    np.savez(path, name2reason=np.array(Evil(), dtype=object))
    with pytest.raises(ValueError, match="open, which plain data does not need"):
        PredictionsExplainer(path)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("p.csv", "name,score\nclip,1\n", r"row 2: expected a name .* got name, score"),
        ("p.csv", "name,text\nclip,a\nclip.mp4,b\n", "got two for 'clip.mp4'"),
        ("p.csv", "name,text\n", "expected predictions, got none"),
        ("p.jsonl", "{oops\n", "line 1: expected a JSON object"),
        ("p.jsonl", "[1]\n", "line 1: expected a JSON object, got list"),
        ("p.npz", "not a zip", "Expected an .npz of plain data in"),
    ],
)
def test_predictions_bad_file_raises_saying_where(name, content, expected, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=expected):
        load_explainer(str(tmp_path / name))


def test_predictions_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.csv: expected a file of predictions"):
        load_explainer(str(tmp_path / "nothing.csv"))


def test_predictions_unknown_clip_raises_naming_some(tmp_path):
    (tmp_path / "p.csv").write_text("name,text\na,x\nb,y\n")
    with pytest.raises(LookupError, match="a prediction for 'clip', got 2 for other clips, such as a, b"):
        explained(tmp_path / "p.csv")


# By name


def test_load_explainer_affectgpt_folder(clip, tmp_path):
    make_tiny_model(drawings_only=True).save_pretrained(tmp_path)
    make_tiny_processor().save_pretrained(tmp_path)
    explainer = load_explainer(str(tmp_path), device="cpu")
    assert isinstance(explainer, AffectGPTExplainer)
    assert (explainer.drawings_only, explainer.protocol, explainer.host) == (True, "direct", None)
    assert explainer.explain(clip).refused
    explanation = explainer.explain(clip, subtitle="Hi.", explain_anyway=True, max_new_tokens=3, question=None)
    assert explanation.model == str(tmp_path)
    assert list(explainer.stream(clip, subtitle="Hi.", explain_anyway=True, max_new_tokens=3))[-1] == explanation


def test_load_explainer_other_folder_is_an_omni_model(checkpoint):
    assert isinstance(load_explainer(checkpoint("qwen2_audio"), device="cpu"), OmniExplainer)


@pytest.mark.parametrize(
    "names, expected",
    [
        ({"merge_model": "m"}, "beside the merge model"),
        ({"model": "a", "video_model": "b"}, "got both"),
        ({"video_model": "http://127.0.0.1:1/v1"}, "https://HOST/v1#MODEL"),
    ],
)
def test_load_explainer_names_that_make_none_raise(names, expected):
    with pytest.raises(ValueError, match=expected):
        load_explainer(**names)


def test_load_explainer_affectgpt_as_a_part_raises(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "affectgpt"}')
    with pytest.raises(ValueError, match="answers directly"):
        load_explainer(video_model=str(tmp_path))
