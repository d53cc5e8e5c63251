"""The page of `microemo app`, made of Gradio's components: drop or record a clip, and see what its utterances show.

```python
from microemo.inference.page.emotion_page import run_page

run_page("ORG/NAME")
```
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from ...processing.speech import SpeechReader
from ..emotion_analysis import EmotionAnalysis
from ..emotion_pipeline import EXAMPLE, SHIPPED, EmotionPipeline
from ..evidence_pictures import draw_evidence
from ..formats.analysis_files import FORMATS, write_analysis
from ..pipeline_inputs import QUESTION
from .page_texts import (
    ABOUT,
    ALWAYS_OBSERVATIONS,
    ANSWERED,
    CONSENT,
    GOES_TO_SERVER,
    GONE,
    LIMITS,
    NO_CLIP,
    NO_QUESTIONS,
    NOBODY_SPEAKS,
    NOTICE_LABEL,
    OBSERVATIONS_ONLY,
    READING,
    READY,
    START,
    STAYS_HERE,
    STEPS,
    STOPPED,
    TITLE,
    WRITING,
    notice,
)
from .utterance_list import clip_details, note, utterance_details, utterance_list
from .visitors import Visitor, Visitors

_FOLDER = Path(__file__).parent
_SUBTITLES = [".srt", ".vtt", ".ass", ".ssa", ".lrc", ".sbv", ".sub", ".ttml", ".xml", ".json", ".txt"]
_LONGEST_QUEUE = 20
# Seconds between searches for files that no visitor holds any more, and how old they are then.
_SEARCH_EVERY, _OLD = 600, 7200

T = TypeVar("T")


class EmotionPage:
    """Answers what visitors of the page do. The model runs in one thread, which keeps one face mesh.

    Args:
        pipeline ([`EmotionPipeline`]): The model, which all visitors share.
        visitors ([`Visitors`]): What is kept of them.
        recognisers (`dict[str, SpeechReader]`, *optional*): The speech recognisers to choose from, by their names.
        observations_only (`bool`, *optional*, defaults to `False`): Whether emotions are left out for everybody.
        name (`str`, *optional*, defaults to `"MicroEmo"`): The name of the model.
    """

    def __init__(
        self,
        pipeline: EmotionPipeline,
        visitors: Visitors,
        recognisers: dict[str, SpeechReader] | None = None,
        observations_only: bool = False,
        name: str = "MicroEmo",
    ) -> None:
        self.pipeline = pipeline
        self.visitors = visitors
        self.recognisers = recognisers or {}
        self.observations_only = observations_only
        self.name = name
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def build(self, is_public: bool = False) -> gr.Blocks:
        """Puts the page together.

        Args:
            is_public (`bool`, *optional*, defaults to `False`): Whether others than this computer's users see the page.

        Returns:
            `gradio.Blocks`: The page, which is not served yet.
        """
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(_SEARCH_EVERY, _OLD)) as page:
            gr.Markdown(f"# {TITLE}\n{ABOUT}")
            gr.Markdown(f"{CONSENT} {GOES_TO_SERVER if is_public else STAYS_HERE}", elem_id="consent")
            with gr.Row(elem_id="columns"):
                with gr.Column(elem_id="left"):
                    clip = gr.Video(label="Clip", sources=["upload", "webcam"], elem_id="clip")
                    example = gr.Button("Take the example: photographs that act", size="sm")
                    with gr.Group():
                        evidence = gr.Checkbox(True, label="Evidence", info="What moved each answer. Takes longer.")
                        observations_only = gr.Checkbox(
                            self.observations_only,
                            label="Observations only",
                            info=ALWAYS_OBSERVATIONS if self.observations_only else OBSERVATIONS_ONLY,
                            interactive=not self.observations_only,
                        )
                    with gr.Accordion("Subtitles (optional)", open=bool(self.recognisers)):
                        subtitles = gr.File(
                            label="Subtitles, or the JSON of a speech recogniser", file_types=_SUBTITLES, height=130
                        )
                        recogniser = gr.Radio(
                            [*self.recognisers, "none"],
                            value=next(iter(self.recognisers), "none"),
                            label="Without subtitles: the speech recogniser",
                            visible=bool(self.recognisers),
                        )
                    with gr.Row():
                        start = gr.Button("Describe all utterances", variant="primary", scale=3)
                        stop = gr.Button("Stop", visible=False, min_width=80)
                    with gr.Group(visible=not self.observations_only) as asking:
                        question = gr.Textbox(QUESTION, label="Or ask one question about the clip", max_length=1000)
                        ask = gr.Button("Ask")
                        answer = gr.Textbox(label="Answer", interactive=False, visible=False, lines=2)
                with gr.Column(elem_id="right"):
                    status = gr.HTML(
                        note(START, STEPS),
                        html_template='<div role="status" aria-live="polite">${value}</div>',
                        elem_id="status",
                    )
                    listing = gr.HTML(js_on_load=(_FOLDER / "utterance_list.js").read_text("utf-8"), elem_id="list")
                    details = gr.HTML(elem_id="details")
                    files = gr.HTML(elem_id="files")
            with gr.Accordion("What the answers can and cannot say", open=False):
                gr.Markdown(LIMITS)
            with gr.Accordion("A notice for the people who are shown", open=False):
                gr.Textbox(notice(), label=NOTICE_LABEL, lines=6, buttons=["copy"])

            inputs = [clip, subtitles, recogniser]
            results = [status, listing, details, files]
            of_model: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress_on": status}
            private: dict[str, Any] = {"api_visibility": "private"}
            running = start.click(self.begin, None, stop, queue=False, **private).then(
                self.describe, [*inputs, evidence, observations_only], results, **of_model, **private
            )
            running.then(lambda: gr.update(visible=False), None, stop, queue=False, **private)
            gr.on(
                [clip.change, subtitles.change],
                self.take,
                [clip, subtitles],
                [*results, answer, stop],
                show_progress="hidden",
                queue=False,
                **private,
            )
            example.click(self.take_example, None, [clip, subtitles], **private)
            stop.click(self.stop, None, [status, stop], queue=False, **private)
            gr.on(
                [ask.click, question.submit],
                self.ask,
                [*inputs, question, observations_only],
                [status, answer],
                **of_model,
                **private,
            )
            listing.select(self.show, None, details, **private)
            observations_only.change(
                lambda only: gr.update(visible=not only), observations_only, asking, queue=False, **private
            )
            page.unload(self.leave)
        return page.queue(max_size=_LONGEST_QUEUE)

    # --- what visitors do ------------------------------------------------------------------------------------------

    def take(self, clip: str | None, subtitles: str | None, request: gr.Request) -> tuple:
        """Takes note of a visitor's files, and clears what was found in others.

        Args:
            clip (`str` or `None`): The clip.
            subtitles (`str` or `None`): The subtitles.
            request (`gradio.Request`): Who asks.

        Returns:
            `tuple`: Status, list, details and files, the answer, and the button that stops.
        """
        visitor = self.visitors.find(str(request.session_hash))
        visitor.uploads |= {Path(name) for name in (clip, subtitles) if name}
        visitor.analysis = visitor.run = None
        status = note(START, STEPS) if clip is None else note(READY)
        return *_results(status), gr.update(value="", visible=False), gr.update(visible=False)

    def take_example(self, request: gr.Request) -> tuple[str, str]:
        """Gives a visitor the example dialogue.

        Args:
            request (`gradio.Request`): Who asks.

        Returns:
            `tuple[str, str]`: Clip and subtitles.
        """
        folder = self.visitors.find(str(request.session_hash)).folder
        clip, subtitles = (shutil.copy(EXAMPLE.with_suffix(suffix), folder) for suffix in (".mp4", ".srt"))
        return str(clip), str(subtitles)

    def begin(self, request: gr.Request) -> Any:
        """Takes note that a visitor asks for a description, which may have to wait.

        Args:
            request (`gradio.Request`): Who asks.

        Returns:
            `Any`: The button that stops, which is shown.
        """
        visitor = self.visitors.find(str(request.session_hash))
        visitor.analysis, visitor.run = None, object()
        return gr.update(visible=True)

    def describe(
        self,
        clip: str | None,
        subtitles: str | None,
        recogniser: str,
        evidence: bool,
        observations_only: bool,
        request: gr.Request,
    ) -> Iterator[tuple]:
        """Describes all utterances; the list grows while they come.

        Args:
            clip (`str` or `None`): The clip.
            subtitles (`str` or `None`): The subtitles.
            recogniser (`str`): The name of the speech recogniser.
            evidence (`bool`): Whether the evidence is checked.
            observations_only (`bool`): Whether emotions are left out.
            request (`gradio.Request`): Who asks.

        Yields:
            `tuple`: Status, list, details and files.
        """
        visitor = self.visitors.find(str(request.session_hash))
        run, nothing = visitor.run, (gr.skip(),) * 4
        if run is None:  # stopped while it waited
            yield nothing
            return
        if clip is None or not Path(clip).is_file():
            yield _results(_missing(clip))
            return
        yield _results(note(READING))
        analysis = None
        try:
            for analysis in self._run_in_thread(
                lambda: self.pipeline.stream_analysis(
                    clip,
                    utterances=subtitles,
                    asr=self.recognisers.get(recogniser),
                    evidence=evidence,
                    observations_only=observations_only or self.observations_only,
                )
            ):
                if visitor.run is not run:
                    yield nothing  # Gradio repeats the last of what it was given
                    return
                # Neither page nor file says where it lies on the server.
                analysis.clip, analysis.model = Path(clip).name, self.name
                analysis.warnings = [_with_names(warning, clip, subtitles) for warning in analysis.warnings]
                visitor.clip, visitor.analysis = clip, analysis
                yield _results(note(_progress(analysis)), utterance_list(analysis))
            assert analysis is not None  # a stream gives one at least
            yield _results(note(WRITING), utterance_list(analysis))
            files = self._write_files(visitor, analysis)
            if visitor.run is not run:
                yield nothing
                return
        except (ValueError, OSError) as error:
            yield _results(note(f"This cannot be used. {_with_names(str(error), clip, subtitles)}"))
            return
        finally:
            if visitor.has_left:
                visitor.forget_files()
        yield _results(note(_progress(analysis), analysis.warnings), utterance_list(analysis), files)

    def _write_files(self, visitor: Visitor, analysis: EmotionAnalysis) -> str:
        """Draws the time line, writes every format, and returns the HTML that shows them."""
        picture, stem = visitor.folder / "time line.png", visitor.folder / Path(visitor.clip).stem
        self._thread.submit(analysis.plot, picture, clip=visitor.clip).result()
        written = [write_analysis(analysis, f"{stem}{suffix}", name) for name, (suffix, _) in FORMATS.items()]
        return clip_details(analysis, picture, written)

    def stop(self, request: gr.Request) -> tuple[str, Any]:
        """Stops a description.

        Args:
            request (`gradio.Request`): Who asks.

        Returns:
            `tuple`: The status, and the button, which is hidden.
        """
        self.visitors.find(str(request.session_hash)).run = None
        return note(STOPPED), gr.update(visible=False)

    def ask(
        self,
        clip: str | None,
        subtitles: str | None,
        recogniser: str,
        question: str,
        observations_only: bool,
        request: gr.Request,
    ) -> tuple[str, Any]:
        """Answers one question about the clip.

        Args:
            clip (`str` or `None`): The clip.
            subtitles (`str` or `None`): The subtitles.
            recogniser (`str`): The name of the speech recogniser.
            question (`str`): The question.
            observations_only (`bool`): Whether emotions are left out, so that nothing is answered.
            request (`gradio.Request`): Who asks.

        Returns:
            `tuple`: The status and the answer.
        """
        no_answer = gr.update(value="", visible=False)
        if observations_only or self.observations_only:
            return note(NO_QUESTIONS), no_answer
        if clip is None or not Path(clip).is_file():
            return _missing(clip), no_answer
        try:
            found = self._thread.submit(
                self.pipeline,
                clip,
                question=question.strip() or QUESTION,
                utterances=subtitles,
                asr=self.recognisers.get(recogniser),
            ).result()
        except (ValueError, OSError) as error:
            return note(f"This cannot be used. {_with_names(str(error), clip, subtitles)}"), no_answer
        return note(ANSWERED), gr.update(value=found["description"], visible=True)

    def show(self, event: gr.EventData, request: gr.Request) -> str:
        """Shows what is found in the utterance that a visitor chooses.

        Args:
            event (`gradio.EventData`): The click, with the `number` of the utterance.
            request (`gradio.Request`): Who asks.

        Returns:
            `str`: The details, with the picture of the evidence.
        """
        visitor = self.visitors.find(str(request.session_hash))
        analysis, number = visitor.analysis, int(event.number)
        if analysis is None or not Path(visitor.clip).is_file():
            return note(GONE)
        picture = None
        if any(one.number == number and one.evidence for one in analysis.utterances):
            picture = visitor.folder / f"evidence {number}.png"
            self._thread.submit(draw_evidence, analysis, number, visitor.clip, picture).result()
        return utterance_details(analysis, number, picture)

    def leave(self, request: gr.Request) -> None:
        """Deletes what is kept of a visitor who closes the page.

        Args:
            request (`gradio.Request`): Who leaves.
        """
        self.visitors.forget(str(request.session_hash))

    def _run_in_thread(self, start: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Runs a generator in the thread of the model, also if whoever reads it stops before its end."""
        stream = self._thread.submit(start).result()
        try:
            while (item := self._thread.submit(next, stream, None).result()) is not None:
                yield item
        finally:
            self._thread.submit(getattr(stream, "close", lambda: None))


def _missing(clip: str | None) -> str:
    return note(NO_CLIP if clip is None else GONE)


def _results(status: str, listing: str = "", files: str = "") -> tuple:
    """Status, list, details and files. The details are kept while there is a list."""
    return status, listing, gr.skip() if listing else "", files


def _progress(analysis: EmotionAnalysis) -> str:
    done, found = len(analysis.utterances), analysis.utterances_found
    if done < found:
        return f"{done} of {found} utterances are described ..."
    if not found:
        return NOBODY_SPEAKS
    return f"{'One utterance is' if found == 1 else f'All {found} utterances are'} described. Choose one to see it."


def _with_names(message: str, *uploads: str | None) -> str:
    """A message with the names that the visitor gave the files, and not with their places on the server."""
    for upload in filter(None, uploads):
        message = message.replace(upload, Path(upload).name)
    return message


# --- serving -------------------------------------------------------------------------------------------------------


@contextmanager
def serve_page(
    model: str | Path | None = None,
    asr: Sequence[str] = (),
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    observations_only: bool = False,
    max_size: int = 500 << 20,
    device: str | None = None,
) -> Iterator[gr.Blocks]:
    """Serves the page while the block lasts. Then all files of its visitors are deleted.

    Args:
        model (`str` or `Path`, *optional*): The checkpoint folder or Hub id. By default the package's microemo-small.
        asr (`Sequence[str]`, *optional*): The speech recognisers to choose from: folders or Hub ids.
        host (`str`, *optional*): The address to listen on. By default GRADIO_SERVER_NAME, or this computer's alone.
        port (`int`, *optional*): The port. By default GRADIO_SERVER_PORT, or the first free one from 7860.
        share (`bool`, *optional*, defaults to `False`): Whether Gradio makes a public address for a week.
        observations_only (`bool`, *optional*, defaults to `False`): Whether emotions are left out for everybody.
        max_size (`int`, *optional*, defaults to 524288000): The largest clip in bytes, 500 MiB.
        device (`str`, *optional*): The device of the model. By default the first GPU, or the CPU.

    Yields:
        `gradio.Blocks`: The page; its address is `local_url`.

    Raises:
        OSError: If there is no such checkpoint, or the port is in use.
        ValueError: If a speech recogniser cannot be loaded.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    is_public = share or host not in ("127.0.0.1", "localhost", "::1")
    recognisers = {Path(name).name: SpeechReader.from_pretrained(name, device) for name in asr}
    pipeline = EmotionPipeline.from_pretrained(model or SHIPPED, device=device)
    name = Path(model or SHIPPED).name if Path(model or SHIPPED).is_dir() else str(model)
    with tempfile.TemporaryDirectory(prefix="microemo-page-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        answering = EmotionPage(pipeline, Visitors(Path(folder)), recognisers, observations_only, name)
        page = answering.build(is_public)
        largest = f"This page takes files of up to {max_size >> 20} MiB: cut out the part that matters."
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            max_file_size=max_size,
            theme=_theme(),
            css_paths=_FOLDER / "page.css",
            js=(_FOLDER / "page.js")
            .read_text("utf-8")
            .replace("LARGEST", str(max_size))
            .replace("TOO_LARGE", largest),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        try:
            yield page
        finally:
            page.close()


def _theme() -> gr.themes.Base:
    """Gradio's theme with the fonts of the visitor's computer, and with contrasts that people with weak eyes can read."""
    grey = {"body_text_color_subdued": "*neutral_600", "block_info_text_color": "*neutral_600"}
    dark = {f"{name}_dark": "*neutral_300" for name in grey}
    button = {
        f"button_primary_background_fill{state}": "*primary_700" for state in ("", "_dark", "_hover", "_hover_dark")
    }
    return gr.themes.Default(
        primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(**grey, **dark, **button)


def run_page(model: str | Path | None = None, **options: Any) -> None:
    """Serves the page until it is interrupted. This is what a Space runs.

    Args:
        model (`str` or `Path`, *optional*): The checkpoint folder or Hub id. By default the package's microemo-small.
        options (`Any`, *optional*): Further arguments of [`serve_page`].
    """
    with serve_page(model, **options) as page:
        addresses = " and ".join(filter(None, (page.local_url, page.share_url)))
        print(f"MicroEmo's page is at {addresses} (Ctrl-C ends it).", flush=True)
        page.block_thread()
