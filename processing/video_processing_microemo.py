"""Video processor of MicroEmo: sampled frames, face landmarks and the patches of the clue regions (paper 3.2)."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from transformers.image_processing_utils import BatchFeature, get_size_dict
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from ..configuration.remote_code import drop_code_references
from ..utils.keywords import LOADING_KEYWORDS, refuse_unknown
from .clip_metadata import ClipMetadata, describe_clip
from .decoded_clip import is_frames, is_picture, open_clip
from .faces.face_mesh import FaceMesh
from .faces.face_mesh_backends import BLENDSHAPE_NAMES, Face
from .faces.face_regions import find_regions, region_masks
from .frame_files import as_frame_files
from .frame_sampling import add_span_frames, fps_indices, uniform_indices
from .frame_views import NO_FACE, FrameProcessor, resize
from .media import shown_size
from .tensor_output import as_features

try:
    from av.video.reformatter import VideoReformatter
except ImportError:
    VideoReformatter = None  # type: ignore[assignment,misc]  # opening a clip names what to install

FIELDS = (
    *("num_frames", "fps", "max_frames", "do_sample_frames", "repeat_last_frame", "size", "patch_size"),
    *("do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("local_view", "face_crop_scale", "face_crop_upright", "clue_regions", "region_coverage"),
    "face_mesh_model",
    *("input_data_format", "device", "return_metadata"),
)
# Fields of Transformers' video processors that are no choice here, and what holds in their place.
FIXED: dict[str, Any] = {
    **{"do_convert_rgb": True, "do_center_crop": False, "do_pad": True, "default_to_square": True, "resample": 2},
    **{"data_format": "channels_first", "crop_size": None},
}
_SAVED = ("video_processor_type", "processor_class", "auto_map", "_checkpoint")
_OTHER_NAMES = {
    "nframes": "num_frames",
    "n_frames": "num_frames",
    "video_fps": "fps",
    "max_pixels": "size",
    "min_pixels": "size",
}


# mypy does not read Transformers, and takes the base class for no TypedDict.
class MicroEmoVideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """
    max_frames (`int`, *optional*, defaults to `self.max_frames`):
        The largest number of frames of a clip. If the utterances need more, uniformly sampled frames make room.
    repeat_last_frame (`bool`, *optional*, defaults to `self.repeat_last_frame`):
        Whether a clip of fewer than `num_frames` frames ends in copies of its last one.
    patch_size (`int`, *optional*, defaults to `self.patch_size`):
        The side of the image encoder's patches in pixels.
    local_view (`"frame"` or `"face_crop"`, *optional*, defaults to `self.local_view`):
        Whose patches the clue regions cover: those of the frame (paper 3.2) or of a square crop round the face.
    face_crop_scale (`float`, *optional*, defaults to `self.face_crop_scale`):
        The side of that crop over the longer side of the landmarks' bounding box.
    face_crop_upright (`bool`, *optional*, defaults to `self.face_crop_upright`):
        Whether that crop turns with the head, so that the eyes lie level in it.
    clue_regions (`"facial"` or `"whole_face"`, *optional*, defaults to `self.clue_regions`):
        The eleven regions of the face, or the whole face as one region, which is a control.
    region_coverage (`float`, *optional*, defaults to `self.region_coverage`):
        The share of a patch that a clue region must cover to hold it.
    face_mesh_model (`str`, *optional*, defaults to `self.face_mesh_model`):
        The path of a `face_landmarker.task`, or its name beside the checkpoint. MediaPipe's own model is used without it.
    """

    max_frames: int | None
    repeat_last_frame: bool | None
    patch_size: int | None
    local_view: Literal["frame", "face_crop"] | None
    face_crop_scale: float | int | None
    face_crop_upright: bool | None
    clue_regions: Literal["facial", "whole_face"] | None
    region_coverage: float | int | None
    face_mesh_model: str | None


class MicroEmoVideoProcessor(VideoProcessorMixin):
    r"""
    Samples, decodes, resizes and normalises the frames of a clip, finds the face in each and the patches that its clue
    regions cover.

    Args:
        num_frames (`int`, *optional*, defaults to 8): The number of frames sampled uniformly from a clip.
        fps (`float`, *optional*): The number of frames sampled per second, in place of `num_frames`.
        max_frames (`int`, *optional*, defaults to 32): The largest number of frames of a clip.
        do_sample_frames (`bool`, *optional*, defaults to `True`):
            Whether to sample frames. Otherwise every frame of the clip is taken.
        repeat_last_frame (`bool`, *optional*, defaults to `False`):
            Whether a clip of fewer than `num_frames` frames ends in copies of its last one, as AffectGPT's did.
        size (`dict`, *optional*, defaults to `{"height": 224, "width": 224}`):
            The size of a frame for the image encoder. The aspect ratio is not kept (as in the paper's sources).
        patch_size (`int`, *optional*, defaults to 14): The side of a patch in pixels.
        do_resize (`bool`, *optional*, defaults to `True`):
            Whether to resize frames. Otherwise frames of another size are an error.
        do_rescale (`bool`, *optional*, defaults to `True`): Whether to multiply the pixels by `rescale_factor`.
        rescale_factor (`float`, *optional*, defaults to `1/255`): The factor of the pixels 0..255.
        do_normalize (`bool`, *optional*, defaults to `True`):
            Whether to subtract `image_mean` and to divide by `image_std`.
        image_mean (`float` or `list[float]`, *optional*, defaults to `OPENAI_CLIP_MEAN`):
            The mean of each channel, or of all, after rescaling.
        image_std (`float` or `list[float]`, *optional*, defaults to `OPENAI_CLIP_STD`):
            The standard deviation of each channel, or of all, after rescaling.
        local_view (`"frame"` or `"face_crop"`, *optional*, defaults to `"frame"`):
            Whose patches the regions cover: those of the frame (paper 3.2) or of a square crop round the face.
        face_crop_scale (`float`, *optional*, defaults to 1.3):
            The side of the crop over the longer side of the landmarks' box.
        face_crop_upright (`bool`, *optional*, defaults to `False`):
            Whether the crop turns with the head, so that the eyes lie level in it.
        clue_regions (`"facial"` or `"whole_face"`, *optional*, defaults to `"facial"`):
            The eleven regions of the face (paper 3.2), or the whole face as one region. The latter is the control that
            tells what the local clue attention owes to the regions, and what to the face. [`MicroEmoConfig`] calls their
            number `num_regions`: 11 or 1.
        region_coverage (`float`, *optional*, defaults to 0.25): The share of a patch that puts it into a region.
        face_mesh_model (`str`, *optional*): The path of a `face_landmarker.task`.
        input_data_format (`"channels_first"` or `"channels_last"`, *optional*):
            Where the channels of decoded frames are. It is inferred from the shape by default.
        device (`str` or `torch.device`, *optional*): The device of the returned tensors.
        return_metadata (`bool`, *optional*, defaults to `True`): Whether to return `video_metadata`.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If a field has a value that does not fit.

    Example:

    ```python
    >>> from microemo import MicroEmoVideoProcessor

    >>> processor = MicroEmoVideoProcessor(num_frames=8)
    >>> features = processor("clip.mp4", spans=[[0.5, 2.0]], return_tensors="pt")
    >>> features["pixel_values_videos"].shape, features["region_masks"].shape
    (torch.Size([1, 8, 3, 224, 224]), torch.Size([1, 8, 11, 256]))
    ```"""

    valid_kwargs = MicroEmoVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "frame_mask", "region_masks", "pixel_values_faces"]

    num_frames = 8
    fps = None
    max_frames = 32
    do_sample_frames = True
    repeat_last_frame = False
    size = {"height": 224, "width": 224}
    patch_size = 14
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    local_view = "frame"
    face_crop_scale = 1.3
    face_crop_upright = False
    clue_regions = "facial"
    region_coverage = 0.25
    face_mesh_model = None
    input_data_format = None
    device = None
    return_metadata = True
    _checkpoint = None

    def __init__(self, **kwargs: Any) -> None:
        _check_fixed(kwargs)
        refuse_unknown(kwargs, {*FIELDS, *FIXED, *_SAVED}, type(self).__name__, _OTHER_NAMES)
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)
        self._settings({})

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs: Any) -> "MicroEmoVideoProcessor":
        """Makes a video processor from the fields of a saved file.

        Args:
            video_processor_dict (`dict[str, Any]`): The saved fields.
            kwargs (`Any`, *optional*): Fields that replace the saved ones, and the keywords of `from_pretrained`.

        Returns:
            [`MicroEmoVideoProcessor`]: The video processor, or a pair with the unused keywords if
            `return_unused_kwargs` is given.

        Raises:
            TypeError: If a keyword is unknown.
        """
        accepted = {*FIELDS, *FIXED, *_SAVED, *LOADING_KEYWORDS}
        refuse_unknown(kwargs, accepted, f"{cls.__name__}.from_pretrained", _OTHER_NAMES)
        return super().from_dict(drop_code_references(video_processor_dict), **kwargs)

    @classmethod
    def get_video_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads the fields of a saved file, and adds the checkpoint's place, where a face mesh model may lie.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): The folder or Hub id of a checkpoint.
            kwargs (`Any`, *optional*): The keywords of `from_pretrained`.

        Returns:
            `tuple[dict, dict]`: The fields, and the keywords that are left.
        """
        fields, kwargs = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        place = str(pretrained_model_name_or_path)
        return {**fields, "_checkpoint": os.path.dirname(place) if os.path.isfile(place) else place}, kwargs

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as they are saved.

        Returns:
            `dict[str, Any]`: The fields, without the checkpoint's place.
        """
        fields = super().to_dict()
        fields.pop("_checkpoint", None)
        return fields

    def preprocess(
        self,
        videos: Any,
        spans: Any = None,
        landmarks: Any = None,
        video_metadata: Any = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepares a batch of B clips. The shorter ones are padded to the T frames of the longest.

        Args:
            videos (`Any`):
                One clip or a list of clips. The next three arguments are one clip's own, or lists with an entry for each
                clip. A clip is a path, a URL, the bytes of a file, a binary file object, an open [`Clip`], a row of the
                `datasets` library (decoded or not), a torchcodec decoder, or already decoded frames: an array or tensor
                `(n, H, W, 3)` or `(n, 3, H, W)`, or a list of pictures (PIL or arrays); uint8, or floats in 0..1. In a list
                of clips a list of image files is a clip whose frames they are.
            spans (`Any`, *optional*):
                The start and end of each utterance in seconds, `(K, 2)`. The middle frame of an utterance in which no
                sampled frame lies is added.
            landmarks (`Any`, *optional*):
                Precomputed landmarks `(n, 478, 2 or 3)`, a row for each frame of the clip or for each sampled frame, as
                fractions of the upright frame, NaN for a frame without a face. The face mesh does not run then.
            video_metadata (`Any`, *optional*):
                For decoded frames a dictionary or `VideoMetadata` with `frame_times` (the seconds of each frame), or
                with `fps` and maybe `frames_indices`. The default is 24 frames per second.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`. Numpy arrays are returned by default.
            kwargs (`Any`, *optional*): Fields of this processor, for this call only.

        Returns:
            `BatchFeature`: The features

            - `pixel_values_videos` `(B, T, 3, H, W)` float32, normalised; 0 where padded;
            - `frame_mask` `(B, T)` bool, the real frames;
            - `region_masks` `(B, T, R, P)` bool, the patches of each clue region, all `False` for a frame without a face;
            - `pixel_values_faces` `(B, T, 3, H, W)` float32, only with `local_view="face_crop"`: the crops that the masks
              refer to; 0 where there is no face;
            - `video_metadata`, a list of [`ClipMetadata`] (unless `return_metadata=False`).

        Raises:
            MediaError: If a file cannot be used, or has no video stream.
            TypeError: If decoded frames have another dtype.
            ValueError: If decoded frames have another shape or range, or if a field has a value that does not fit.
        """
        settings = self._settings(kwargs)
        rows = _as_batch(videos, ("spans", spans), ("landmarks", landmarks), ("video_metadata", video_metadata))
        processed = [
            self._process_video(clip, of_clip, points, metadata, settings) for clip, of_clip, points, metadata in rows
        ]

        shape = (len(processed), max(len(video.pixels) for video in processed))
        grid = settings["size"]["height"] // settings["patch_size"]
        pixel_values = np.zeros((*shape, 3, settings["size"]["height"], settings["size"]["width"]), np.float32)
        data: dict[str, Any] = {
            "pixel_values_videos": pixel_values,
            "frame_mask": np.zeros(shape, bool),
            "region_masks": np.zeros((*shape, len(find_regions(settings["clue_regions"])), grid * grid), bool),
        }
        if settings["local_view"] == "face_crop":
            data["pixel_values_faces"] = np.zeros_like(pixel_values)
        scale, shift = (value[:, None, None] for value in _scale_and_shift(settings))
        for row, video in enumerate(processed):
            data["frame_mask"][row, : len(video.pixels)] = True
            data["region_masks"][row, : len(video.masks)] = video.masks
            for name, pictures in (("pixel_values_videos", video.pixels), ("pixel_values_faces", video.crops)):
                for frame, picture in enumerate(pictures):
                    if picture is not None:
                        out = np.multiply(picture.transpose(2, 0, 1), scale, out=data[name][row, frame])
                        out -= shift
        if settings["return_metadata"]:
            data["video_metadata"] = [video.metadata for video in processed]
        return as_features(data, return_tensors, settings["device"], kept=["video_metadata"])

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers that turn the pixels 0..255 into the values of the model.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: The factor and then the subtrahend of each channel, two float32 arrays `(3,)`.
        """
        return _scale_and_shift(self._settings({}))

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Samples the frames of a clip whose frames are evenly spaced in time.

        Args:
            metadata (`VideoMetadata`): The number of frames, and for sampling by rate `fps` or `duration`.
            num_frames (`int`, *optional*): The number of frames to sample. The processor's own field is the default.
            fps (`float`, *optional*): The number of frames to sample per second. The processor's own field is the default.
            kwargs (`Any`, *optional*): Other fields of this processor, for this call only.

        Returns:
            `np.ndarray`: The increasing indices of the sampled frames.

        Raises:
            ValueError: If frames are to be sampled by rate and neither the rate nor the length of the clip is known.
        """
        settings = self._settings({**kwargs, "num_frames": num_frames, "fps": fps})
        total, rate, duration = metadata.total_num_frames, metadata.fps, metadata.duration
        if rate is None and duration:
            rate = total / duration
        if rate is None and settings["fps"]:
            raise ValueError(
                f"sampling {settings['fps']} frames per second needs the fps or the duration of the clip, got {metadata}"
            )
        times = np.arange(total) / (rate or 24)
        return _sample(times, duration or total / (rate or 24), settings)

    def fetch_videos(
        self,
        video_url_or_urls: Any,
        sample_indices_fn: Callable[..., Any] | None = None,
    ) -> Any:
        """Decodes the frames of files with PyAV.

        Args:
            video_url_or_urls (`Any`): A path, a URL or another clip as `preprocess` takes it, or a list of them.
            sample_indices_fn (`Callable`, *optional*):
                A function from the keyword `metadata` ([`ClipMetadata`]) to the indices of the frames to decode. All
                frames are decoded by default.

        Returns:
            `tuple`: The uint8 frames `(n, H, W, 3)`, upright and in their own size, and their [`ClipMetadata`], which
            `preprocess` takes as `video_metadata`; for a list, a list of all frames and a list of all metadata.

        Raises:
            MediaError: If a file cannot be used.
        """
        if isinstance(video_url_or_urls, list) and not is_frames(video_url_or_urls):
            fetched = [self.fetch_videos(as_frame_files(clip), sample_indices_fn) for clip in video_url_or_urls]
            return [tuple(column) for column in zip(*fetched, strict=True)]
        reformatter = VideoReformatter()
        with open_clip(video_url_or_urls) as clip:
            info = clip.info

            def choose(times: np.ndarray) -> np.ndarray:
                if sample_indices_fn is None:
                    return np.arange(len(times))
                return np.unique(np.asarray(sample_indices_fn(metadata=describe_clip(info)), int))

            def upright(frame: Any) -> np.ndarray:
                width, height, turns = shown_size(frame, info.pixel_aspect)
                return resize(reformatter, frame, width, height, turns)

            indices, times, frames = clip.read(choose, upright)
        height, width = frames[0].shape[:2]
        return np.stack(frames), describe_clip(info, indices, times, width=width, height=height)

    def _settings(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Returns this processor's fields with the `overrides` of a call, checked."""
        _check_fixed(overrides)
        refuse_unknown(overrides, {*FIELDS, *FIXED}, type(self).__name__, _OTHER_NAMES)
        chosen = {name: value for name, value in overrides.items() if value is not None and name in FIELDS}
        if "fps" in chosen and "num_frames" in chosen:
            raise ValueError("num_frames and fps exclude each other, got both")
        try:
            validate_typed_dict(self.valid_kwargs, chosen)
        except StrictDataclassError as error:
            raise ValueError(f"{error}: {error.__cause__}") from error
        settings = {name: chosen.get(name, getattr(self, name)) for name in FIELDS}
        for name in ("do_resize", "do_rescale", "do_normalize"):
            if settings[name] is None:  # as saved by somebody who sets nothing
                settings[name] = True
        find_regions(settings["clue_regions"])  # refuses what it does not know
        if "num_frames" in chosen:
            settings["fps"] = None
        for name in ("num_frames", "max_frames", "patch_size", "face_crop_scale"):
            if settings[name] <= 0:
                raise ValueError(f"{name} must be positive, got {settings[name]}")
        if settings["fps"] is not None and not 0 < settings["fps"] < float("inf"):
            raise ValueError(f"fps must be positive, got {settings['fps']}")
        if settings["do_rescale"] and not settings["rescale_factor"]:
            raise ValueError(f"rescale_factor must not be {settings['rescale_factor']}")
        size = settings["size"] = get_size_dict(settings["size"])
        if size.get("height") != size.get("width") or size["height"] % settings["patch_size"]:
            raise ValueError(
                f"size must be a square of whole {settings['patch_size']} pixel patches, got {dict(size)}"
            )
        for name, choices in (
            ("local_view", ("frame", "face_crop")),
            ("input_data_format", (None, "channels_first", "channels_last")),
        ):
            if settings[name] not in choices:
                expected = " or ".join(f'"{choice}"' for choice in choices if choice is not None)
                raise ValueError(f"{name} must be {expected}, got {settings[name]!r}")
        if settings["num_frames"] > settings["max_frames"] and not settings["fps"]:
            raise ValueError(f"num_frames {settings['num_frames']} is more than max_frames {settings['max_frames']}")
        return settings

    def _process_video(
        self, source: Any, spans: Any, landmarks: Any, metadata: Any, settings: dict[str, Any]
    ) -> "_ProcessedVideo":
        """Samples and decodes one clip, and keeps of each picked frame only what the model needs."""
        face_mesh = FaceMesh(settings["face_mesh_model"], self._checkpoint)
        spans = np.zeros((0, 2)) if spans is None else np.asarray(spans, float).reshape(-1, 2)
        with open_clip(source, metadata, settings["input_data_format"]) as clip:
            info = clip.info

            def sample(times: np.ndarray) -> np.ndarray:
                return _sample(times, info.duration, settings, spans, info.source)

            frame_processor = FrameProcessor(info, sample, landmarks, face_mesh, settings)
            indices, times, views = clip.read(frame_processor.choose, frame_processor.process)
        pixels, found, crops = zip(*views, strict=True)
        chosen = frame_processor.follow(found)
        faces = [None if i is None else of_frame[i] for of_frame, i in zip(found, chosen, strict=True)]
        crops = tuple(None if i is None else of_frame[i] for of_frame, i in zip(crops, chosen, strict=True))
        width, height = frame_processor.frame_size
        video_metadata = describe_clip(
            info,
            indices,
            times,
            width=width,
            height=height,
            faces_found=[len(of_frame) for of_frame in found],
            landmarks=np.stack([NO_FACE if face is None else face.landmarks for face in faces]),
            blendshapes=_blendshapes(faces),
        )
        local = np.stack([frame_processor.on_local_view(face) for face in faces])
        grid = frame_processor.side // settings["patch_size"]
        masks = region_masks(local, grid, settings["region_coverage"], settings["clue_regions"])
        return _ProcessedVideo(pixels, crops, masks, video_metadata)


@dataclass
class _ProcessedVideo:
    """Holds one clip: T pictures and face crops (or `None`) `(H, W, 3)` uint8, and region masks `(T, R, P)`."""

    pixels: tuple[np.ndarray, ...]
    crops: tuple[np.ndarray | None, ...]
    masks: np.ndarray
    metadata: ClipMetadata


def _check_fixed(fields: Mapping[str, Any]) -> None:
    """Refuses another value of a field that is no choice here."""
    for name in FIXED.keys() & fields.keys():
        if fields[name] is not None and fields[name] != FIXED[name]:
            raise ValueError(f"MicroEmoVideoProcessor works with {name}={FIXED[name]!r} alone, got {fields[name]!r}")


def _sample(
    times: np.ndarray,
    duration: float,
    settings: dict[str, Any],
    spans: np.ndarray | None = None,
    source: str = "the clip",
) -> np.ndarray:
    """Returns the increasing indices of the sampled frames, out of frames at `times`."""
    if not settings["do_sample_frames"]:
        indices = np.arange(len(times))
        if len(indices) > settings["max_frames"]:
            raise ValueError(
                f"{source} has {len(indices)} frames, more than max_frames {settings['max_frames']}, and "
                "do_sample_frames is False"
            )
    elif settings["fps"]:
        indices = fps_indices(times, duration, settings["fps"])
    else:
        indices = uniform_indices(len(times), settings["num_frames"])
    indices = add_span_frames(indices, times, np.zeros((0, 2)) if spans is None else spans, settings["max_frames"])
    if settings["repeat_last_frame"] and settings["do_sample_frames"] and not settings["fps"]:
        indices = np.pad(indices, (0, max(0, settings["num_frames"] - len(indices))), mode="edge")
    return indices


def _blendshapes(faces: list[Face | None]) -> np.ndarray | None:
    """Returns the actions `(T, 52)`, NaN without a face; `None` if the face mesh has none."""
    shapes = [None if face is None else face.blendshapes for face in faces]
    if all(row is None for row in shapes):
        return None
    nothing = np.full(len(BLENDSHAPE_NAMES), np.nan, np.float32)
    return np.stack([nothing if row is None else row for row in shapes])


def _scale_and_shift(settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor of the pixels 0..255 and then the subtrahend of each channel, both `(3,)`."""
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)
    if settings["do_normalize"]:
        mean, std = (np.broadcast_to(np.float32(settings[name]), 3) for name in ("image_mean", "image_std"))
    levels = 1 / settings["rescale_factor"] if settings["do_rescale"] else 1.0
    return 1 / (np.float32(levels) * std), mean / std


def _as_batch(videos: Any, *per_clip: tuple[str, Any]) -> list[tuple[Any, ...]]:
    """Returns rows of a clip and what belongs to it, out of one clip or out of a list of clips and lists as long."""
    if getattr(videos, "ndim", 0) == 5:  # decoded clips of one size in one array
        videos = list(videos)
    if not isinstance(videos, list | tuple) or (len(videos) and all(map(is_picture, videos))):
        return [(videos, *(_innermost(value) if name == "video_metadata" else value for name, value in per_clip))]
    clips = list(_flatten(videos))
    if not clips:
        raise ValueError("videos is empty: no clip to process")
    columns = [clips]
    for name, values in per_clip:
        columns.append([None] * len(clips) if values is None else list(values))
        if len(columns[-1]) != len(clips):
            raise ValueError(f"{len(clips)} clips, but {name} for {len(columns[-1])}")
        if name == "video_metadata":
            columns[-1] = [_innermost(value) for value in columns[-1]]
    return list(zip(*columns, strict=True))


def _innermost(metadata: Any) -> Any:
    """Returns the metadata of one clip out of the nested lists in which Transformers passes it."""
    while isinstance(metadata, list | tuple) and len(metadata) == 1:
        metadata = metadata[0]
    return metadata


def _flatten(videos: Any) -> Iterator[Any]:
    """Yields the clips in nested lists of them, as chat templates give."""
    for clip in map(as_frame_files, videos):
        if isinstance(clip, list | tuple) and not all(map(is_picture, clip)):
            yield from _flatten(clip)
        else:
            yield clip


__all__ = ["MicroEmoVideoProcessor"]
