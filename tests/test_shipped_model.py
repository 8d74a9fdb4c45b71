import json
from pathlib import Path

import pytest

from affectgpt import explain, explain_stream, load_model
from affectgpt.explanation import SHIPPED_MODEL
from affectgpt.lexicon import is_chinese

EXAMPLES = Path(SHIPPED_MODEL).parent / "examples"
SUBTITLES = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shipped():
    return load_model(device="cpu")


def test_shipped_model_is_small_and_knows_that_it_saw_drawings_only(shipped):
    model, _ = shipped
    assert sum(path.stat().st_size for path in Path(SHIPPED_MODEL).iterdir()) <= 24_000_000
    assert model.config.drawings_only
    assert {parameter.dtype.itemsize for parameter in model.parameters()} == {4}


@pytest.mark.parametrize("name", SUBTITLES)
def test_shipped_model_explains_an_example_from_all_three_modalities(shipped, name):
    explanation = explain(*shipped, EXAMPLES / name, subtitle=SUBTITLES[name])
    assert not explanation.refused
    assert explanation.labels
    assert set(explanation.clues) == {"video", "audio", "text"}
    assert explanation.notes == []
    assert len(explanation.frame_times) == 8


def test_shipped_model_says_other_things_about_other_clips_with_the_same_words(shipped):
    texts = {explain(*shipped, EXAMPLES / name, subtitle="I got the job.").clues["video"] for name in SUBTITLES}
    assert len(texts) == len(SUBTITLES)


def test_shipped_model_answers_in_chinese(shipped):
    name, subtitle = next(iter(SUBTITLES.items()))
    explanation = explain(*shipped, EXAMPLES / name, subtitle=subtitle, language="zh")
    assert set(explanation.clues) == {"video", "audio", "text"} and explanation.notes == []
    assert explanation.labels and all(is_chinese(label) for label in explanation.labels)


def test_shipped_model_streams_what_it_explains(shipped):
    name, subtitle = next(iter(SUBTITLES.items()))
    *growing, last = explain_stream(*shipped, EXAMPLES / name, subtitle=subtitle)
    assert last == explain(*shipped, EXAMPLES / name, subtitle=subtitle)
    assert len(growing) > 10
    assert all(later.text.startswith(earlier.text) for earlier, later in zip(growing, growing[1:], strict=False))


def test_shipped_model_says_the_same_with_a_static_cache(shipped):
    for name in list(SUBTITLES)[:2]:  # the second meets the cache of the first
        plain = explain(*shipped, EXAMPLES / name, subtitle=SUBTITLES[name])
        assert explain(*shipped, EXAMPLES / name, subtitle=SUBTITLES[name], cache_implementation="static") == plain


@pytest.fixture(scope="module")
def on_gpu():
    return load_model(device="cuda", dtype="float32")


@pytest.mark.gpu
@pytest.mark.parametrize("name", SUBTITLES)
def test_shipped_model_says_on_a_gpu_what_it_says_on_a_cpu(shipped, on_gpu, name):
    on_cpu = explain(*shipped, EXAMPLES / name, subtitle=SUBTITLES[name])
    assert explain(*on_gpu, EXAMPLES / name, subtitle=SUBTITLES[name]) == on_cpu


@pytest.mark.gpu
def test_shipped_model_says_the_same_with_a_static_cache_and_compiled(on_gpu):
    name, subtitle = next(iter(SUBTITLES.items()))
    compiled = explain(*on_gpu, EXAMPLES / name, subtitle=subtitle, cache_implementation="static")
    assert compiled == explain(*on_gpu, EXAMPLES / name, subtitle=subtitle)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantization": "8bit"}, {"quantization": "4bit"}])
def test_shipped_model_explains_on_a_gpu_in_lower_precision(options):
    name, subtitle = next(iter(SUBTITLES.items()))
    explanation = explain(*load_model(device="cuda", **options), EXAMPLES / name, subtitle=subtitle)
    assert explanation.labels
    assert set(explanation.clues) == {"video", "audio", "text"}
