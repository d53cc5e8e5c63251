"""The page of `microemo app` in a real Chromium: `pytest -m browser`.

It needs Chromium (`apt-get install chromium`), and playwright, which drives it: `pip install "microemo[browser]"`.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from microemo.inference.emotion_pipeline import EXAMPLE
from microemo.inference.formats.analysis_files import FORMATS
from microemo.inference.page import page_texts as texts
from microemo.processing.media import probe

sync_api = pytest.importorskip("playwright.sync_api", reason='no playwright: pip install "microemo[browser]"')
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]

# Without a screen and a camera; and without what Chromium asks of its makers by itself.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
SUBTITLES = EXAMPLE.with_suffix(".srt")
TIMEOUT = 60_000


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def served(serve, pipeline):
    with serve(pipeline, max_size=1 << 20) as page:
        yield page


@pytest.fixture
def open_tab(browser, served):
    """`open_tab(**options)`: a tab of a browser of its own. No request of it may leave this computer."""
    contexts, requests, errors = [], [], []

    def start(**options):
        context = browser.new_context(reduced_motion="reduce", **options)
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(served.local_url)
        button(tab, "Describe all utterances").wait_for()
        return tab

    yield start
    for context in contexts:
        context.close()
    outside = [url for url in requests if not url.startswith((served.local_url, "blob:", "data:"))]
    assert requests and not outside
    assert not errors


def button(tab, name):
    return tab.get_by_role("button", name=name, exact=True)


def take_example(tab):
    tab.get_by_role("button", name="Take the example").click()
    ready(tab)


def ready(tab):
    tab.locator("#clip video").wait_for()
    tab.get_by_text(texts.READY).wait_for()


def upload(tab, clip, subtitles=None):
    tab.locator("#clip input[type=file]").set_input_files(clip)
    if subtitles is not None:
        tab.get_by_role("button", name="Subtitles (optional)").click()
        tab.locator("#left input[type=file]").last.set_input_files(subtitles)
        tab.get_by_text(Path(subtitles).name).wait_for()


def describe(tab):
    button(tab, "Describe all utterances").click()
    tab.get_by_text("All 3 utterances are described. Choose").wait_for()


def playing_at(tab) -> float:
    return tab.locator("#clip video").evaluate("video => video.currentTime")


def status(tab) -> str:
    return tab.locator("#status").inner_text().strip()


def kept_files() -> list[Path]:
    """The files that the page keeps, without the empty ones that Gradio makes for each file that it hands over."""
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def test_an_uploaded_clip_is_described_and_an_utterance_chosen(open_tab):
    tab = open_tab()
    upload(tab, EXAMPLE, SUBTITLES)
    ready(tab)
    describe(tab)
    third = tab.locator("#list button").nth(2)
    third.click()
    tab.get_by_role("heading", name="Utterance 3").wait_for()
    assert third.get_attribute("aria-pressed") == "true"
    tab.wait_for_function("document.querySelector('#clip video').currentTime >= 4.57")
    assert 4.57 <= playing_at(tab) < 7
    picture = tab.locator("#details img")
    assert picture.get_attribute("alt").startswith("Utterance 3 of two_people.mp4")
    tab.wait_for_function("document.querySelector('#details img')?.naturalWidth > 100")
    tab.wait_for_function("document.querySelector('#files img')?.naturalWidth > 100")


def test_every_format_is_downloaded(open_tab, tmp_path):
    tab = open_tab()
    take_example(tab)
    describe(tab)
    for suffix, _ in FORMATS.values():
        with tab.expect_download() as download:
            tab.get_by_role("link", name=suffix[1:], exact=True).click()
        assert download.value.suggested_filename == f"two_people{suffix}"
        download.value.save_as(tmp_path / "file")
        assert (tmp_path / "file").stat().st_size > 100


def test_a_recorded_clip_is_taken(open_tab):
    tab = open_tab(permissions=["camera", "microphone"])
    tab.get_by_role("button", name="Capture from camera").click()
    tab.get_by_text("Click to Access Webcam").click()
    tab.locator("#clip").get_by_text("Record").click()
    tab.wait_for_timeout(2500)
    tab.locator("#clip").get_by_text("Stop").click()
    ready(tab)
    (recorded,) = (path for path in kept_files() if path.suffix == ".webm")
    assert probe(recorded).has_video and probe(recorded).has_audio
    button(tab, "Describe all utterances").click()
    tab.get_by_text("Nobody speaks in this clip").wait_for()  # the tone of the device is no speech


def test_one_question_is_answered(open_tab):
    tab = open_tab()
    take_example(tab)
    box = tab.get_by_label("Or ask one question about the clip")
    box.fill("Who is glad?")
    box.press("Enter")
    tab.wait_for_function(
        "[...document.querySelectorAll('textarea')].some(of => of.value == 'An answer to: Who is glad?')"
    )


def test_two_visitors_see_their_own_and_leave_nothing(open_tab, pipeline, make_clip):
    pipeline.pause = 0.3
    first, second = open_tab(), open_tab()
    take_example(first)
    upload(second, make_clip("other.mp4"))
    ready(second)
    button(first, "Describe all utterances").click()
    button(second, "Describe all utterances").click()
    first.get_by_text("All 3 utterances are described. Choose").wait_for()
    second.get_by_text("Nobody speaks in this clip").wait_for()
    assert second.locator("#list button").count() == 0 and first.locator("#list button").count() == 3
    assert any(path.name == "other.mp4" for path in kept_files())
    second.context.close()
    wait(lambda: not any(path.name == "other.mp4" for path in kept_files()))
    assert any(path.name == "two_people.json" for path in kept_files())
    first.context.close()
    wait(lambda: not kept_files())


def wait(until, seconds=30):
    ends = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_description_is_stopped(open_tab, pipeline):
    pipeline.pause = 1.5
    tab = open_tab()
    take_example(tab)
    button(tab, "Describe all utterances").click()
    tab.locator("#list button").first.wait_for()
    button(tab, "Stop").click()
    tab.get_by_text(texts.STOPPED).wait_for()
    tab.wait_for_timeout(4000)
    assert tab.locator("#list button").count() < 3 and status(tab) == texts.STOPPED
    tab.locator("#list button").first.click()
    tab.get_by_role("heading", name="Utterance 1").wait_for()


def test_another_clip_ends_the_description_of_the_first(open_tab, pipeline, make_clip):
    pipeline.pause = 1.5
    tab = open_tab()
    take_example(tab)
    button(tab, "Describe all utterances").click()
    tab.locator("#list button").first.wait_for()
    tab.get_by_role("button", name="Clear").click()
    tab.get_by_text(texts.START).wait_for()
    tab.wait_for_timeout(4000)
    assert tab.locator("#list button").count() == 0 and status(tab).startswith(texts.START)


def test_names_of_files_may_be_odd(open_tab, tmp_path):
    tab = open_tab()
    odd = tmp_path / '_Like A Tiger...__ 100% "it\'s" #1, 한국어.mp4'
    odd.write_bytes(EXAMPLE.read_bytes())
    upload(tab, odd, SUBTITLES)
    ready(tab)
    describe(tab)
    tab.locator("#list button").first.click()
    tab.wait_for_function("document.querySelector('#details img')?.naturalWidth > 100")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="csv", exact=True).click()
    assert download.value.suggested_filename.endswith("한국어.csv")
    assert not download.value.failure()


def test_a_broken_file_is_told_in_a_sentence(open_tab, broken_clip):
    tab = open_tab()
    upload(tab, broken_clip)
    tab.get_by_text(texts.READY).wait_for()
    button(tab, "Describe all utterances").click()
    tab.get_by_text("This cannot be used. broken.mp4").wait_for()
    assert tab.locator(".toast-body").count() == 0 and tab.locator("#clip[data-unplayable]").count() == 1
    take_example(tab)
    assert tab.locator("#clip[data-unplayable]").count() == 0


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_file_that_is_too_large_is_refused_with_a_sentence(open_tab, tmp_path, is_dropped):
    tab = open_tab()
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2 << 20))
    if is_dropped:
        tab.locator("#clip button").first.evaluate(
            """target => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(2 << 20)], "large.mp4", { type: "video/mp4" }));
                target.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
            }"""
        )
    else:
        upload(tab, large)
    tab.get_by_text("large.mp4 has 2 MiB. This page takes files of up to 1 MiB").wait_for()
    tab.wait_for_timeout(500)
    assert tab.locator(".toast-body").count() == 0 and tab.locator("#clip video").count() == 0
    assert not any(path.suffix == ".mp4" for path in kept_files())


def test_texts_of_subtitles_stay_texts(open_tab, tmp_path):
    tab = open_tab()
    evil = "${1+1} {{value}} `tick` <img src=x onerror=alert(1)> \\n </script>"
    subtitles = tmp_path / "evil.json"
    subtitles.write_text(json.dumps([{"start": 1.0, "end": 2.0, "text": evil, "speaker": "${1+1}"}] * 1))
    upload(tab, EXAMPLE, subtitles)
    ready(tab)
    button(tab, "Describe all utterances").click()
    tab.get_by_text("One utterance is described").wait_for()
    tab.locator("#list button").click()
    tab.get_by_role("heading", name="Utterance 1").wait_for()
    for place in ("#list", "#details"):
        shown = tab.locator(place).inner_text()
        assert evil in shown and "${1+1}:" in shown


def test_the_page_fits_a_phone(open_tab):
    tab = open_tab(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    wide = "document.documentElement.scrollWidth"
    assert tab.evaluate(wide) == 390
    take_example(tab)
    describe(tab)
    tab.locator("#list button").nth(1).tap()
    tab.locator("#details img").wait_for()
    assert tab.evaluate(wide) == 390
    top = tab.locator("#clip video").evaluate("video => video.getBoundingClientRect().top")
    assert 0 <= top < 844  # the video stays in sight


def test_the_keyboard_alone_is_enough(open_tab):
    tab = open_tab()

    def tab_to(words: str) -> None:
        for _ in range(60):
            tab.keyboard.press("Tab")
            if words in tab.evaluate("document.activeElement.innerText ?? ''"):
                return
        raise AssertionError(f"{words}: not reached")

    tab_to("Take the example")
    tab.keyboard.press("Enter")
    ready(tab)
    tab_to("Describe all utterances")
    tab.keyboard.press("Enter")
    tab.get_by_text("All 3 utterances are described. Choose").wait_for()
    tab_to("Dogs are sitting")
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="Utterance 1").wait_for()
    tab_to("json")
    with tab.expect_download():
        tab.keyboard.press("Enter")


def test_who_is_in_the_list_stays_there_while_it_grows(open_tab, pipeline):
    pipeline.pause = 1.0
    tab = open_tab()
    take_example(tab)
    button(tab, "Describe all utterances").click()
    tab.locator("#list button").first.focus()
    tab.get_by_text("All 3 utterances are described. Choose").wait_for()
    assert tab.evaluate("document.activeElement.dataset.number") == "1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_is_in_the_way_of_anybody(open_tab, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = open_tab(color_scheme=scheme)

    def check() -> None:
        found = axe.run(tab).response["violations"]
        serious = [(of["id"], of["nodes"][0]["html"]) for of in found if of["impact"] in ("serious", "critical")]
        assert not serious

    check()
    for name in (
        "Subtitles (optional)",
        "What the answers can and cannot say",
        "A notice for the people who are shown",
    ):
        tab.get_by_role("button", name=name).click()
    take_example(tab)
    describe(tab)
    tab.locator("#list button").first.click()
    tab.locator("#details img").wait_for()
    check()


def test_observations_only_hides_the_question(open_tab, pipeline):
    tab = open_tab()
    take_example(tab)
    tab.get_by_label("Observations only").check()
    tab.get_by_label("Or ask one question about the clip").wait_for(state="hidden")
    describe(tab)
    assert pipeline.asked[-1]["observations_only"] and "surprise" not in tab.locator("#list").inner_text()
