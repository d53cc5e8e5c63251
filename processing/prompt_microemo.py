"""The prompt: its template, the text that stands in it for clips, and the escaping of user text (paper 3.4)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.utils import logging
from transformers.utils.chat_template_utils import _get_template_variables, render_jinja_template

from ..utils.keywords import refuse_unknown
from .clip_reader import ClipInput
from .utterances import Utterance

if TYPE_CHECKING:
    from .processing_microemo import MicroEmoProcessor

logger = logging.get_logger(__name__)

VIDEO_TOKEN = "<video>"
AUDIO_TOKEN = "<audio>"
SYSTEM_TEXT = (
    "You are an expert in human emotions. You watch a video dialogue and say what the speaker feels and why: "
    "from the face, the tone of voice and the words."
)

# The prompt (paper 3.4): system text, video tokens, audio tokens, transcript, instruction, answer. Besides the
# messages the template sees `clip`, made by `_template_clip`, and `system_text`; `part` asks for the text of one medium
# alone. Text pipelines, TRL and servers render the template without any of these: it has a default for each.
CHAT_TEMPLATE = """\
{%- if system_text is not defined -%}{%- set system_text = "SYSTEM_TEXT" -%}{%- endif -%}
{%- if clip is not defined -%}{%- set clip = {"video_tokens": "<video>", "audio_tokens": "<audio>"} -%}{%- endif -%}
{%- macro times(window) -%}
({{ "%.1f" | format(window.start) }}-{{ "%.1f" | format(window.end) }}s)
{%- endmacro -%}
{%- macro marker(unit, window) -%}
{{ unit }} {{ window.index }} {{ times(window) }}
{%- endmacro -%}
{%- macro media(name, tokens, unit, windows, window_tokens) -%}
{%- if tokens -%}{{ (name + ": " if clip.unit else "") + tokens + "\\n" }}{%- endif -%}
{%- if window_tokens and not (clip.interleaved and unit == "utterance") -%}
{%- for window in windows -%}
{%- if loop.first and not tokens -%}{{ name + ":\\n" }}{%- endif -%}
{{ marker(unit, window) }}: {{ window_tokens + "\\n" }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro speech(utterance, tokens) -%}
utterance {{ utterance.index }} {{ tokens + " " if tokens }}{{ times(utterance) }}
{{- " " + utterance.speaker if utterance.speaker }}:{{ " " + utterance.text if utterance.text }}
{%- endmacro -%}
{%- macro transcript() -%}
{%- if clip.interleaved -%}
{%- set tokens = (clip.window_video_tokens if clip.unit == "utterance" and clip.windows else "") -%}
{%- set tokens = tokens + clip.window_audio_tokens -%}
{%- for utterance in clip.utterances if utterance.text or utterance.speaker or tokens -%}
{{ speech(utterance, tokens) + "\\n" }}
{%- endfor -%}
{%- else -%}
{%- for utterance in clip.utterances if utterance.text or utterance.speaker -%}
{%- if loop.first -%}{{ "Transcript:\\n" }}{%- endif -%}
{{ speech(utterance, "") + "\\n" }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro part_of_content(item) -%}
{%- if item is string -%}{{ item }}
{%- elif item.type == "text" -%}{{ item.text }}
{%- elif item.type == "video" -%}
{{ media("Video", clip.video_tokens, clip.unit, clip.windows, clip.window_video_tokens) }}
{%- elif item.type == "audio" -%}
{{ media("Audio", clip.audio_tokens, "utterance", clip.utterances, clip.window_audio_tokens) }}
{%- elif item.type == "transcript" -%}{{ transcript() }}
{%- elif item.type == "utterance" and clip.windows -%}
{{ marker("utterance", clip.windows[item.index - 1]) }}: {{ clip.window_video_tokens + clip.window_audio_tokens }}
{%- elif item.type == "utterance" -%}
{{ raise_exception("an utterance can only be cited where the processor has read its clip") }}
{%- else -%}
{{ raise_exception("content of a message must be text, video, audio or utterance, got " + item.type | string) }}
{%- endif -%}
{%- endmacro -%}
{%- macro content(items) -%}
{%- if items is string -%}{{ items }}
{%- else -%}
{%- for item in items or [] if item.type in ("video", "audio", "transcript") -%}{{ part_of_content(item) }}
{%- endfor -%}
{%- for item in items or [] if item.type not in ("video", "audio", "transcript") -%}{{ part_of_content(item) }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if part is defined -%}
{{ content([{"type": part}]) }}
{%- else -%}
{{ bos_token }}
{%- if system_text and messages[0].role != "system" -%}{{ system_text + "\\n\\n" }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role == "system" -%}{{ content(message.content) + "\\n\\n" }}
{%- elif message.role == "assistant" -%}{{ "Assistant:\\n" }}
{%- generation -%}{{ content(message.content) + eos_token }}{%- endgeneration -%}{{ "\\n" }}
{%- else -%}{{ "User:\\n" + content(message.content) + "\\n" }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "Assistant:\\n" }}{%- endif -%}
{%- endif -%}
""".replace("SYSTEM_TEXT", SYSTEM_TEXT)

# What the template reads besides the variables of a call, and what `apply_chat_template` has arguments for.
_MADE_HERE = {"messages", "clip", "part", "tools", "documents", "add_generation_prompt"}
# What a clip brings into its message, in this order.
MEDIA = [{"type": "video"}, {"type": "audio"}, {"type": "transcript"}]

_SOURCES = ("path", "url")
_ABOUT_A_CLIP = ("utterances", "landmarks", "video_metadata", "sampling_rate", "audio_track")
# The keys that the items of a message's content may have, by their type.
ITEM_KEYS = {
    "text": ("type", "text"),
    "video": ("type", "video", *_SOURCES, *_ABOUT_A_CLIP),
    "audio": ("type", "audio", *_SOURCES, *_ABOUT_A_CLIP),
    "utterance": ("type", "index"),
}
# What other libraries call our keywords.
OTHER_NAMES = {
    "video": "videos",
    "image": "videos",
    "images": "videos",
    "frames": "videos",
    "audios": "audio",
    "subtitle": "utterances",
    "subtitles": "utterances",
    "transcript": "utterances",
    "nframes": "num_frames",
    "texts": "text",
}


@dataclass
class ClipPrompt:
    """Holds what the prompt says of one clip.

    Attributes:
        has_video (`bool`, *optional*, defaults to `False`): Whether there are frames.
        has_audio (`bool`, *optional*, defaults to `False`): Whether there is sound.
        utterances (`list[Utterance]`): The lines of the transcript, which are also the windows of sound.
        spans (`np.ndarray` of shape `(K, 2)`):
            The start and end of each window of frames in seconds, which are the utterances or sliding windows.
    """

    has_video: bool = False
    has_audio: bool = False
    utterances: list[Utterance] = field(default_factory=list)
    spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))


@dataclass
class RenderedPrompt:
    """Holds a finished prompt.

    Attributes:
        text (`str`): The prompt, with as many placeholders as there are tokens of its clip.
        answers (`list[tuple[int, int]]`): The characters `[start, end)` of each answer in the text.
        cited (`list[int]`): The windows (counted from 0) that the prompt cites, in the order of the citations.
        replacements (`list[dict]`): Where placeholders of a given text stood, and where their media stand in the prompt.
    """

    text: str
    answers: list[tuple[int, int]] = field(default_factory=list)
    cited: list[int] = field(default_factory=list)
    replacements: list[dict[str, Any]] = field(default_factory=list)

    def begin_with(self, token: str) -> None:
        """Puts a token before the prompt if it does not begin with it; the places in the prompt move along.

        Args:
            token (`str`): The token that begins a text, or an empty string.
        """
        if self.text.startswith(token):
            return
        self.text = token + self.text
        self.answers = [(start + len(token), end + len(token)) for start, end in self.answers]
        for replacement in self.replacements:
            replacement["new_span"] = tuple(place + len(token) for place in replacement["new_span"])


class PromptBuilder:
    """Makes prompts out of messages and the descriptions of their clips.

    Args:
        processor ([`MicroEmoProcessor`]): The processor whose switches, tokenizer and template are used.
    """

    def __init__(self, processor: "MicroEmoProcessor") -> None:
        self.processor = processor
        # Subtitles and messages that spell one of these must not become it.
        added = (token for token in processor.tokenizer.get_added_vocab() if len(token) > 1 and not token.isspace())
        self._control_tokens = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))))

    def template_variables(self, chat_template: str | None) -> frozenset[str]:
        """Lists the names that a template reads, apart from those that this class makes.

        Args:
            chat_template (`str` or `None`): A Jinja template or the name of one; `None` stands for the processor's own.

        Returns:
            `frozenset[str]`: The names of the variables.
        """
        found = _get_template_variables(self.find_template(chat_template))
        return (found | {"system_text"}) - _MADE_HERE

    def find_template(self, chat_template: str | None) -> str:
        """Finds the template that a call names or gives, or else the processor's own.

        Args:
            chat_template (`str` or `None`): A Jinja template or the name of one.

        Returns:
            `str`: The Jinja template.

        Raises:
            ValueError: If the processor has no template that could be meant.
        """
        templates = self.processor.chat_template
        if isinstance(templates, dict):
            if (chat_template or "default") in templates:
                return templates[chat_template or "default"]
            if chat_template is None:
                raise ValueError(f"chat_template must name one of the processor's: {', '.join(templates)}")
        template = templates if chat_template is None else chat_template
        if template is None:
            raise ValueError("the processor has no chat template: pass one as chat_template")
        return template

    def escape(self, text: str) -> str:
        """Changes text so that it holds no special token any more: `"<video>"` becomes `"< video>"`.

        Args:
            text (`str`): The text of a user, or of subtitles.

        Returns:
            `str`: The text without special tokens.
        """
        return self._control_tokens.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)

    def escape_all(self, value: Any) -> Any:
        """Escapes every text in the tools or the documents of a call.

        Args:
            value (`Any`): Dictionaries and lists of texts and other values.

        Returns:
            `Any`: The same, without special tokens in its texts.
        """
        if isinstance(value, str):
            return self.escape(value)
        if isinstance(value, dict):
            return {self.escape_all(key): self.escape_all(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.escape_all(entry) for entry in value]
        return value

    def count_placeholders(self, prompt: ClipPrompt, num_cited: int = 0) -> tuple[int, int]:
        """Counts the placeholders of a clip in its prompt.

        Args:
            prompt (`ClipPrompt`): The description of the clip.
            num_cited (`int`, *optional*, defaults to 0): The number of citations, each of which repeats a window.

        Returns:
            `tuple[int, int]`: The number of `<video>` and of `<audio>` placeholders.
        """
        processor = self.processor
        video = processor.num_video_query_tokens * prompt.has_video
        audio = processor.num_audio_query_tokens * prompt.has_audio
        video *= processor.use_global_window + len(prompt.spans) + num_cited
        audio *= 1 + (len(prompt.utterances) + num_cited) * processor.use_utterance_audio
        return video, audio

    def _template_clip(self, prompt: ClipPrompt | None) -> dict[str, Any]:
        """Makes the variable `clip` of the chat template."""
        processor = self.processor
        if prompt is None:  # media of which nothing is known yet
            return {"video_tokens": processor.video_token, "audio_tokens": processor.audio_token}
        video = processor.video_token * processor.num_video_query_tokens * prompt.has_video
        audio = processor.audio_token * processor.num_audio_query_tokens * prompt.has_audio
        lines = [
            {
                "index": index,
                "start": utterance.start,
                "end": utterance.end,
                "text": self.escape(utterance.text),
                "speaker": self.escape(utterance.speaker or ""),
            }
            for index, utterance in enumerate(prompt.utterances, start=1)
        ]
        by_utterance = processor.windows == "utterance"
        windows = (
            lines
            if by_utterance
            else [
                {"index": index, "start": start, "end": end}
                for index, (start, end) in enumerate(prompt.spans.tolist(), start=1)
            ]
        )
        return {
            "unit": "utterance" if processor.windows != "sliding" else "window",
            "video_tokens": video if processor.use_global_window else "",
            "audio_tokens": audio,
            "window_video_tokens": video,
            "window_audio_tokens": audio if processor.use_utterance_audio else "",
            "utterances": lines,
            "windows": windows,
            "interleaved": processor.prompt_layout == "interleaved"
            and (by_utterance or processor.use_utterance_audio),
        }

    def read_conversation(
        self, conversation: Sequence[dict], with_media: bool, call_keywords: frozenset[str] = frozenset()
    ) -> tuple[ClipInput | None, list[dict]]:
        """Separates the clip of a conversation from its messages.

        Args:
            conversation (`Sequence[dict]`): The messages with `role` and `content`.
            with_media (`bool`): Whether media must have a source.
            call_keywords (`frozenset[str]`, *optional*): The keywords of a call, for the error about one in an item.

        Returns:
            `tuple[ClipInput | None, list[dict]]`: The clip, or `None` if media without a source stand in the messages,
            and the messages as the template reads them.

        Raises:
            TypeError: If a message or an item of its content has an unknown key.
            ValueError: If the content has another form, or if the conversation holds more than one clip.
        """
        clip = ClipInput()
        messages: list[dict[str, Any]] = []
        media_types: set[str] = set()
        for message in conversation:
            refuse_unknown(_without_none(message), ("role", "content"), "a message")
            role, content = message.get("role"), message.get("content") or []
            if not isinstance(role, str):
                raise ValueError(f"a message needs a role, such as user or assistant, got {role!r}")
            if not isinstance(content, (str, list, tuple)):
                raise ValueError(f"content of a message must be a string or a list of items, got {content!r}")
            media: list[dict[str, Any]] = []
            rest: list[dict[str, Any]] = []
            for item in [content] if isinstance(content, str) else content:
                item = check_item(item, call_keywords)
                kind = item["type"]
                if kind == "text":
                    # Neighbours are joined before they are escaped: two halves must not make a special token.
                    if rest and rest[-1]["type"] == "text":
                        rest[-1]["text"] += item["text"]
                    else:
                        rest.append({"type": "text", "text": item["text"]})
                elif kind == "utterance":
                    rest.append({"type": "utterance", "index": item.get("index")})
                else:
                    if kind in media_types:
                        raise ValueError(f"a conversation holds one clip, but a second {kind} was given")
                    media_types.add(kind)
                    media.append({"type": kind})
                    setattr(clip, kind, next((item[key] for key in (kind, *_SOURCES) if key in item), None))
                    for name in _ABOUT_A_CLIP:
                        if name in item:
                            setattr(clip, name, item[name])
            for item in rest:
                if item["type"] == "text":
                    item["text"] = self.escape(item["text"])
            messages.append({"role": role, "content": media + rest})
        if not media_types:
            return clip, messages
        # Audio without a source beside a video is the video's own sound.
        if (clip.video if "video" in media_types else clip.audio) is None:
            if with_media:
                raise ValueError("a video or audio item has no source: give it a path, url, video or audio")
            return None, messages
        # All of the clip stands where its first medium does: frames, sound (the video's own, too), transcript.
        is_placed = False
        for message in messages:
            rest = [item for item in message["content"] if item["type"] not in ("video", "audio")]
            if not is_placed and len(rest) < len(message["content"]):
                is_placed, rest = True, MEDIA + rest
            message["content"] = rest
        return clip, messages

    def render(
        self, messages: list[dict], prompt: ClipPrompt | None, chat_template: str | None = None, **options: Any
    ) -> RenderedPrompt:
        """Renders the prompt of a conversation.

        Args:
            messages (`list[dict]`): The messages as [`PromptBuilder.read_conversation`] returns them.
            prompt (`ClipPrompt` or `None`): The description of the clip; `None` for media without a source.
            chat_template (`str`, *optional*): A Jinja template or the name of one in place of the processor's own.
            options (`Any`, *optional*): The options of Transformers' rendering, and variables of the template.

        Returns:
            `RenderedPrompt`: The prompt.

        Raises:
            ValueError: If an utterance is cited that is no window of the clip.
        """
        processor = self.processor
        cited = [i["index"] for message in messages for i in message["content"] if i["type"] == "utterance"]
        windows = 0 if prompt is None or processor.windows != "utterance" else len(prompt.spans)
        for index in cited:
            if not isinstance(index, int) or not 1 <= index <= windows:
                raise ValueError(f"utterance {index} is cited, but the clip has {windows} windows of utterances")
        template = self.find_template(chat_template)
        unread = [name for name in ("tools", "documents") if options.get(name) and name not in template]
        if unread:
            logger.warning_once(f"{' and '.join(unread)} have no effect: the chat template does not read them")
        for name in ("tools", "documents"):
            if name in options:
                options[name] = self.escape_all(options[name])
        variables = {"system_text": processor.system_text, **processor.tokenizer.special_tokens_map, **options}
        texts, answers = render_jinja_template(
            conversations=[messages], chat_template=template, clip=self._template_clip(prompt), **variables
        )
        return RenderedPrompt(texts[0], answers[0] if answers else [], [index - 1 for index in cited])

    def render_text(
        self,
        row: int,
        text: str,
        prompt: ClipPrompt,
        with_replacements: bool = False,
        add_special_tokens: bool = True,
    ) -> RenderedPrompt:
        """Renders the prompt of a text, which is a question for the chat template or a prompt with placeholders.

        Args:
            row (`int`): The number of the text in its batch, for errors.
            text (`str`): The question or the prompt.
            prompt (`ClipPrompt`): The description of the clip.
            with_replacements (`bool`, *optional*, defaults to `False`):
                Whether the replacements of a question's prompt are found, too.
            add_special_tokens (`bool`, *optional*, defaults to `True`):
                Whether the token that begins a text is put before a prompt with placeholders, if it lacks it.

        Returns:
            `RenderedPrompt`: The prompt.

        Raises:
            ValueError: If the number of placeholders in the text does not fit the clip.
        """
        processor = self.processor
        found = text.count(processor.video_token), text.count(processor.audio_token)
        if found == (0, 0):
            question = [{"type": "text", "text": self.escape(text)}]
            messages = [{"role": "user", "content": MEDIA + question}]
            rendered = self.render(messages, prompt, add_generation_prompt=True)
            if with_replacements:
                rendered.replacements = self.find_replacements(
                    row, messages, prompt, rendered, add_generation_prompt=True
                )
            return rendered

        expected = self.count_placeholders(prompt)
        replacements: list[dict[str, Any]] = []
        if found != expected:
            text, replacements = self._expand(row, text, prompt, found, expected)
        rendered = RenderedPrompt(text, replacements=replacements)
        if add_special_tokens:
            rendered.begin_with(processor.tokenizer.bos_token or "")
        return rendered

    def render_medium(self, prompt: ClipPrompt, medium: str) -> str:
        """Renders what stands in a prompt for one medium of its clip.

        Args:
            prompt (`ClipPrompt`): The description of the clip.
            medium (`str`): `"video"`, `"audio"` or `"transcript"`.

        Returns:
            `str`: The placeholders of the medium with the markers of their windows, or the lines of the transcript.
        """
        return self.render([], prompt, part=medium).text.removesuffix("\n")

    def find_replacements(
        self, row: int, messages: list[dict], prompt: ClipPrompt, rendered: RenderedPrompt, **options: Any
    ) -> list[dict[str, Any]]:
        """Finds where the media of a conversation stand in its prompt.

        Args:
            row (`int`): The number of the conversation in its batch, for errors.
            messages (`list[dict]`): The messages as [`PromptBuilder.read_conversation`] returns them.
            prompt (`ClipPrompt`): The description of the clip.
            rendered (`RenderedPrompt`): The prompt.
            options (`Any`, *optional*): The options with which the prompt was rendered.

        Returns:
            `list[dict]`: The replacements as `ProcessorMixin.get_text_with_replacements` returns them. The places before
            are those in the prompt with a single placeholder for each medium.

        Raises:
            ValueError: If the prompt is more than media in the place of single placeholders.
        """
        media = {"video": prompt.has_video, "audio": prompt.has_audio, "transcript": False}
        messages = [
            {**message, "content": [item for item in message["content"] if media.get(item["type"], True)]}
            for message in messages
        ]
        if not (prompt.has_video or prompt.has_audio):
            return []
        if not rendered.cited:
            expanded = self.render_text(row, self.render(messages, None, **options).text, prompt)
            if expanded.text == rendered.text:
                return expanded.replacements
        raise ValueError(
            f"return_text_replacement_offsets: prompt {row} cites utterances or has a template of its own, so that it "
            "is more than media in the place of single placeholders"
        )

    def _expand(
        self, row: int, text: str, prompt: ClipPrompt, found: tuple[int, int], expected: tuple[int, int]
    ) -> tuple[str, list[dict[str, Any]]]:
        """Replaces each placeholder of `text` by the tokens of a whole medium, and puts the transcript behind the last.

        Sound that has no placeholder of its own follows the video.
        """
        processor = self.processor
        video_token, audio_token = processor.video_token, processor.audio_token
        single = int(prompt.has_video), int(prompt.has_audio)
        if found not in (single, (single[0], 0)):
            raise ValueError(
                f"text {row} holds {found[0]} {video_token} and {found[1]} {audio_token}, but its clip "
                f"needs {expected[0]} and {expected[1]} (or {single[0]} and {single[1]}, to be expanded)"
            )
        video = processor.replace_video_token({"prompts": [prompt]}, 0)
        audio = processor.replace_audio_token({"prompts": [prompt]}, 0)
        transcript = self.render_medium(prompt, "transcript")
        if not found[1]:
            video = "\n".join(filter(None, (video, audio)))
        if text.rfind(audio_token) > text.rfind(video_token):
            audio = "\n".join(filter(None, (audio, transcript)))
        else:
            video = "\n".join(filter(None, (video, transcript)))
        texts, replacements = processor.get_text_with_replacements([text], [], [video] * found[0], [audio] * found[1])
        return texts[0], replacements[0]


def check_item(item: Any, call_keywords: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Checks an item of a message's content and removes the keys that are `None`, since rows of a table share keys.

    Args:
        item (`dict` or `str`): The item; a string stands for an item of type `"text"`.
        call_keywords (`frozenset[str]`, *optional*): The keywords of a call, for the error about one in the item.

    Returns:
        `dict[str, Any]`: The item.

    Raises:
        TypeError: If the item has a key that items of its type do not have.
        ValueError: If the type is unknown, the text is no string, or the item has more than one source.
    """
    if isinstance(item, str):
        return {"type": "text", "text": item}
    item = _without_none(item)
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in ITEM_KEYS:
        raise ValueError(f"content of a message must be {', '.join(ITEM_KEYS)}, got {kind!r}")
    hints = dict.fromkeys(call_keywords, "an argument of the call, for all its clips") | OTHER_NAMES
    refuse_unknown(item, ITEM_KEYS[kind], f"{kind!r} content of a message", hints)
    sources = [key for key in (kind, *_SOURCES) if key in item]
    if kind in ("video", "audio") and len(sources) > 1:
        raise ValueError(f"{kind!r} content of a message has one source, got {' and '.join(sources)}")
    if kind == "text" and not isinstance(item.get("text"), str):
        raise ValueError(f"text of a message must be a string, got {item.get('text')!r}")
    return item


def _without_none(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ValueError(f"messages and the items of their contents are dictionaries, got {fields!r}")
    return {name: value for name, value in fields.items() if value is not None}
