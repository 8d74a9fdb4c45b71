"""The demo in a real browser, wide and narrow, with a stub that stands for the model.

`AFFECTGPT_SCREENSHOTS=<folder>` keeps a picture of the page before, during and after each run.
"""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright, of the extra `dev`, is not installed.")

from media_files import make_clip
from playwright import sync_api

import app
from affectgpt.explanation import NOTICE, Explanation

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# No call home of the browser itself, so that every request seen is the page's; a camera made up by Chromium.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
SCREENS = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}
SENTENCES = [
    "The inner brows are raised and drawn together, and the corners of the mouth point down.",
    "The voice trembles and pauses often.",
    "The words tell of news that she did not want to hear.",
    "Therefore, the person seems worried, sad and tense.",
]
only_wide = pytest.mark.parametrize("page", ["wide"], indirect=True)
REFUSAL = "This clip was not explained. The model in use knows drawings only."

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (`apt install chromium`)."),
]


def stub(path, subtitle, explain_anyway, language):
    """Sentence by sentence, slowly; refuses clips called `photo.mp4` unless told to go on."""
    base = Explanation(
        text="",
        labels=[],
        clues={},
        frame_times=[0.0],
        sound_spans=[],
        duration=2.0,
        notes=["The sound is silent."] + ([] if subtitle else ["No subtitle was given; the words were not judged."]),
        refused=False,
    )
    if Path(path).name == "photo.mp4" and not explain_anyway:
        yield replace(base, text=REFUSAL, refused=True)
        return
    text = ""
    for sentence in SENTENCES:
        text = f"{text} {sentence}".strip()
        clues = {key: clue for key, clue in zip(["video", "audio", "text"], SENTENCES, strict=False) if clue in text}
        yield replace(base, text=text, clues=clues)
        time.sleep(0.3)
    yield replace(base, text=text, clues=clues, labels=["worried", "sad", "tense"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", size=(224, 224))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if not app.EXAMPLES.is_dir():
            folder = tmp_path_factory.mktemp("examples")
            subtitles = {f"{number}.mp4": f"Sentence {number}." for number in range(1, 7)}
            for name in subtitles:
                make_clip(folder / name, seconds=1.0)
            (folder / "examples.json").write_text(json.dumps(subtitles))
            patch.setattr(app, "EXAMPLES", folder)
        demo = app.build_demo(stub, drawings_only=True)
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
        yield url
        demo.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=SCREENS)
def page(request, browser, url):
    """The loaded page. Afterwards: it asked nobody but its own server, raised no script error and is not wider than the screen."""
    page = browser.new_page(viewport=SCREENS[request.param])
    page.set_default_timeout(60_000)
    page.screen = request.param
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.get_by_role("button", name="Explain", exact=True).wait_for()
    yield page
    assert [address for address in requests if not address.startswith((url, "data:", "blob:"))] == []
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()


def keep_screenshot(page, name):
    folder = os.environ.get("AFFECTGPT_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}-{page.screen}.png", full_page=True)


def upload(page, path):
    page.locator("input[type=file]").first.set_input_files(path)
    page.locator("video").first.wait_for()


def consent(page):
    page.get_by_label("The people in this clip know and agree").check()


def press_explain(page):
    page.get_by_role("button", name="Explain", exact=True).click()


def test_page_upload_tick_and_click_streams_the_explanation(page, clip):
    keep_screenshot(page, "empty")
    assert not page.get_by_label("The people in this clip know and agree").is_checked()
    assert page.get_by_text(NOTICE).is_visible()
    assert page.get_by_text("knows drawn faces only").is_visible()
    upload(page, clip)
    page.get_by_label("What the person says").fill("They said it might be serious.")
    consent(page)
    press_explain(page)
    page.get_by_text(SENTENCES[0]).wait_for()
    assert not page.get_by_text(SENTENCES[3]).is_visible()
    keep_screenshot(page, "streaming")
    page.get_by_text(SENTENCES[3]).wait_for()
    for heading in ("Picture:", "Voice:", "Words:"):
        assert page.get_by_text(heading).is_visible()
    page.get_by_text("tense", exact=True).wait_for()
    assert page.get_by_text("worried", exact=True).is_visible()
    assert page.get_by_text("The sound is silent.").is_visible()
    assert not page.get_by_text("No subtitle was given").is_visible()
    assert page.get_by_text("0.48 s").is_visible()
    page.wait_for_timeout(500)
    keep_screenshot(page, "explained")


@only_wide
def test_page_without_consent_explains_nothing(page, clip):
    upload(page, clip)
    press_explain(page)
    page.get_by_text("Tick the line about consent first").wait_for()
    keep_screenshot(page, "no-consent")
    assert not page.get_by_text(SENTENCES[0]).is_visible()


@only_wide
def test_page_second_click_after_deletion_asks_for_upload(page, clip):
    upload(page, clip)
    consent(page)
    press_explain(page)
    page.get_by_text("tense", exact=True).wait_for()
    # The page takes no click before it has been told that the answer is complete.
    page.wait_for_timeout(1000)
    press_explain(page)
    page.get_by_text("Upload it again").wait_for()


def test_page_refused_clip_offers_explain_anyway_once(page, clip, tmp_path):
    anyway = page.get_by_label("Explain anyway")
    assert not anyway.is_visible()
    upload(page, shutil.copy(clip, tmp_path / "photo.mp4"))
    consent(page)
    press_explain(page)
    page.get_by_text(REFUSAL).wait_for()
    anyway.wait_for()
    keep_screenshot(page, "refused")
    anyway.check()
    press_explain(page)
    page.get_by_text(SENTENCES[3]).wait_for()
    page.get_by_text("tense", exact=True).wait_for()
    page.get_by_label("Clear").first.click()
    anyway.wait_for(state="hidden")
    assert not page.get_by_text(SENTENCES[3]).is_visible()


@only_wide
def test_page_example_fills_clip_and_subtitle(page):
    page.locator(".gallery-item, .gallery button").first.click()
    page.locator("video").first.wait_for()
    subtitle = app.read_examples()[0][1]
    sync_api.expect(page.get_by_label("What the person says")).to_have_value(subtitle)
    consent(page)
    press_explain(page)
    page.get_by_text("tense", exact=True).wait_for()


@only_wide
def test_page_recording_from_the_camera_is_explained(page):
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_text("Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_text("Stop", exact=True).click()
    page.get_by_label("Clear").wait_for()
    consent(page)
    press_explain(page)
    page.get_by_text("tense", exact=True).wait_for()
    assert page.get_by_text("0.00 s").is_visible()
