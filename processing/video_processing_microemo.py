"""Video processor of MicroEmo: sampled frames, face landmarks and the patches of the clue regions (paper 3.2)."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from transformers.image_processing_utils import BatchFeature, get_size_dict
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.processing_utils import VideosKwargs
from transformers.utils import logging
from transformers.video_processing_utils import VideoProcessorMixin

from ..configuration.remote_code import drop_code_references
from ..utils.keywords import LOADING_KEYWORDS, refuse_unknown
from .decoded_clip import open_clip
from .faces.face_choice import follow_person
from .faces.face_mesh import FaceMesh
from .faces.face_mesh_backends import BLENDSHAPE_NAMES, NUM_LANDMARKS, Face
from .faces.face_regions import face_box, find_regions, region_masks, to_crop
from .media import MediaInfo, shown_size

try:
    import av
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None

logger = logging.get_logger(__name__)

FIELDS = (
    *("num_frames", "fps", "max_frames", "do_sample_frames", "repeat_last_frame", "size", "patch_size", "image_mean"),
    *("image_std", "local_view", "face_crop_scale", "clue_regions", "region_coverage", "face_mesh_model"),
    *("return_metadata",),
)
# Fields of Transformers' video processors that are no choice here, and what holds in their place.
FIXED = {
    **{"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "do_center_crop": False},
    **{"rescale_factor": 1 / 255, "resample": 2},
}
_SAVED = ("video_processor_type", "processor_class", "auto_map", "_checkpoint")
_OTHER_NAMES = {
    "nframes": "num_frames",
    "n_frames": "num_frames",
    "video_fps": "fps",
    "crop_size": "size",
    "max_pixels": "size",
    "min_pixels": "size",
}
# The face mesh looks at a copy of the frame that is at most this high; it works at 192 pixels a face inside.
MESH_HEIGHT = 360
_NOBODY = np.full((NUM_LANDMARKS, 3), np.nan, np.float32)


class MicroEmoVideosKwargs(VideosKwargs, total=False):
    """
    max_frames (`int`, *optional*):
        Most frames of a clip. Where the utterances' frames exceed it, uniformly sampled frames make room.
    repeat_last_frame (`bool`, *optional*):
        Whether a clip of fewer than `num_frames` frames ends in copies of its last one.
    patch_size (`int`, *optional*):
        Side of the image encoder's patches in pixels.
    local_view (`"frame"` or `"face_crop"`, *optional*):
        Whose patches the clue regions cover: the frame's own (paper 3.2) or those of a square crop round the face.
    face_crop_scale (`float`, *optional*):
        Side of that crop over the longer side of the landmarks' bounding box.
    clue_regions (`str`, *optional*):
        The eleven regions of the face (`"facial"`), or the whole face as one, a control (`"whole_face"`).
    region_coverage (`float`, *optional*):
        Share of a patch that a clue region must cover to hold it.
    face_mesh_model (`str`, *optional*):
        Path of a `face_landmarker.task`, or its name beside the checkpoint; without it MediaPipe's own model.
    """

    max_frames: int | None
    repeat_last_frame: bool | None
    patch_size: int | None
    local_view: Literal["frame", "face_crop"] | None
    face_crop_scale: float | int | None
    clue_regions: Literal["facial", "whole_face"] | None
    region_coverage: float | int | None
    face_mesh_model: str | None


@dataclass
class ClipMetadata:
    """What was sampled from a clip and found in it.

    Attributes:
        source: Name of the file.
        frame_times: Presentation time of each sampled frame, in seconds from the clip's start.
        frame_indices: Their places among all frames of the clip.
        duration: Seconds.
        total_frames: Frames of the clip.
        fps: Average frames per second.
        faces_found: Number of faces in each sampled frame.
        landmarks: (T, 478, 3) float32, the face that is followed through the clip; NaN where it is not seen.
        has_audio: Whether the file has a sound track.
        frame_size: Width and height of the frames in pixels, upright and with square pixels, as they are shown.
        blendshapes: (T, 52) float32, the followed face's actions (`BLENDSHAPE_NAMES`), NaN where it is not seen; `None`
            where the face mesh has none, as the one inside MediaPipe's wheel.
    """

    source: str
    frame_times: list[float]
    frame_indices: list[int]
    duration: float
    total_frames: int
    fps: float
    faces_found: list[int]
    landmarks: np.ndarray
    has_audio: bool
    frame_size: tuple[int, int]
    blendshapes: np.ndarray | None = None


class MicroEmoVideoProcessor(VideoProcessorMixin):
    r"""
    Samples, decodes, resizes and normalises the frames of a clip, finds the face in each and the patches that its clue
    regions cover.

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames sampled uniformly from a clip.
        fps (`float`, *optional*): Frames sampled per second instead.
        max_frames (`int`, *optional*, defaults to 32): Most frames of a clip.
        size (`dict`, *optional*, defaults to `{"height": 224, "width": 224}`):
            Size of a frame for the image encoder. The aspect ratio is not kept (as in the paper's sources).
        patch_size (`int`, *optional*, defaults to 14): Side of a patch.
        image_mean, image_std (`list[float]`, *optional*, default to CLIP's): Per channel, of values in 0..1.
        local_view (`"frame"` or `"face_crop"`, *optional*, defaults to `"frame"`): Whose patches the regions cover.
        face_crop_scale (`float`, *optional*, defaults to 1.3): Side of the crop over that of the landmarks' box.
        clue_regions (`"facial"` or `"whole_face"`, *optional*, defaults to `"facial"`):
            The eleven regions of the face (paper 3.2), or the whole face as one: the control that tells what the local
            clue attention owes to the regions, and what to looking at the face. [`MicroEmoConfig`] calls their number
            `num_regions`: 11 or 1.
        region_coverage (`float`, *optional*, defaults to 0.25): Share of a patch that puts it into a region.
        face_mesh_model (`str`, *optional*): Path of a `face_landmarker.task`.
        do_sample_frames (`bool`, *optional*, defaults to `True`): Off, every frame of the clip is taken.
        repeat_last_frame (`bool`, *optional*, defaults to `False`):
            Whether a clip of fewer than `num_frames` frames ends in copies of its last one, as AffectGPT's did.

    Example:

    ```python
    >>> processor = MicroEmoVideoProcessor(num_frames=8)
    >>> features = processor("clip.mp4", spans=[[0.5, 2.0]], return_tensors="pt")
    >>> features["pixel_values_videos"].shape, features["region_masks"].shape
    (torch.Size([1, 8, 3, 224, 224]), torch.Size([1, 8, 11, 256]))
    ```"""

    valid_kwargs = MicroEmoVideosKwargs
    model_input_names = ["pixel_values_videos", "frame_mask", "region_masks", "pixel_values_faces"]

    num_frames = 8
    fps = None
    max_frames = 32
    size = {"height": 224, "width": 224}
    patch_size = 14
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    local_view = "frame"
    face_crop_scale = 1.3
    clue_regions = "facial"
    region_coverage = 0.25
    face_mesh_model = None
    do_sample_frames = True
    repeat_last_frame = False
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
        """As the base class; a keyword that would be left over is refused."""
        accepted = {*FIELDS, *FIXED, *_SAVED, *LOADING_KEYWORDS}
        refuse_unknown(kwargs, accepted, f"{cls.__name__}.from_pretrained", _OTHER_NAMES)
        return super().from_dict(drop_code_references(video_processor_dict), **kwargs)

    @classmethod
    def get_video_processor_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict, dict]:
        """As the base class, and with it the checkpoint's place, where a face mesh model may lie."""
        fields, kwargs = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        place = str(pretrained_model_name_or_path)
        return {**fields, "_checkpoint": os.path.dirname(place) if os.path.isfile(place) else place}, kwargs

    def to_dict(self) -> dict[str, Any]:
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
        """What the model sees of a batch of B clips, the shorter ones padded to the T frames of the longest.

        Args:
            videos: One clip or a list of clips; of one clip the next three arguments are the clip's own, of a list they
                are lists with an entry for each clip. A clip is a path, a `file://` or `http(s)://` URL, the bytes of a file,
                a binary file object, an open [`Clip`], or already decoded frames: an array or tensor (n, H, W, 3) or
                (n, 3, H, W), or a list of pictures (PIL or arrays); uint8, or floats in 0..1.
            spans: The utterances' start and end in seconds (K, 2), or `None`. The middle frame of an
                utterance in which no sampled frame lies is added.
            landmarks: Precomputed landmarks (n, 478, 2 or 3), a row for each frame of the clip or for
                each sampled frame, fractions of the upright frame, NaN where there is no face; or `None`. The face mesh
                does not run then.
            video_metadata: For decoded frames a dict or `VideoMetadata` with `frame_times` (seconds of
                each frame), or with `fps` and maybe `frames_indices`; or `None`, which means 24 frames per second.
            return_tensors (`str`, *optional*): `"pt"` or `"np"` (the default).
            kwargs: Fields of this processor, for this call only.

        Returns:
            [`BatchFeature`] with

            - `pixel_values_videos` (B, T, 3, H, W) float32, normalised; 0 where padded;
            - `frame_mask` (B, T) bool, the real frames;
            - `region_masks` (B, T, R, P) bool, the patches of each clue region, all False for a frame without a face;
            - `pixel_values_faces` (B, T, 3, H, W) float32, only with `local_view="face_crop"`: the crops that the masks
              refer to; 0 where there is no face;
            - `video_metadata`, a list of [`ClipMetadata`] (unless `return_metadata=False`).

        Raises:
            MediaError: for a file that cannot be used, or has no video stream.
            TypeError, ValueError: for frames of another shape, dtype or range, and for fields that do not fit.
        """
        settings = self._settings(kwargs)
        rows = _as_batch(videos, ("spans", spans), ("landmarks", landmarks), ("video_metadata", video_metadata))
        processed = [self._process_video(*row, settings) for row in rows]

        shape = (len(processed), max(len(video.pixels) for video in processed))
        grid = settings["size"]["height"] // settings["patch_size"]
        data = {
            "pixel_values_videos": np.zeros((*shape, 3, settings["size"]["height"], settings["size"]["width"]), "f4"),
            "frame_mask": np.zeros(shape, bool),
            "region_masks": np.zeros((*shape, len(find_regions(settings["clue_regions"])), grid * grid), bool),
        }
        if settings["local_view"] == "face_crop":
            data["pixel_values_faces"] = np.zeros_like(data["pixel_values_videos"])
        for row, video in enumerate(processed):
            data["frame_mask"][row, : len(video.pixels)] = True
            data["region_masks"][row, : len(video.masks)] = video.masks
            for frame, pixels in enumerate(video.pixels):
                _normalize(pixels, settings, out=data["pixel_values_videos"][row, frame])
            for frame, crop in enumerate(video.crops):
                if crop is not None:
                    _normalize(crop, settings, out=data["pixel_values_faces"][row, frame])
        if settings["return_metadata"]:
            data["video_metadata"] = [video.metadata for video in processed]
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"])

    def _settings(self, overrides: dict) -> dict:
        """This processor's fields with a call's `overrides`, checked."""
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
        find_regions(settings["clue_regions"])  # refuses what it does not know
        if "num_frames" in chosen:
            settings["fps"] = None
        for name in ("num_frames", "max_frames", "patch_size", "face_crop_scale"):
            if settings[name] <= 0:
                raise ValueError(f"{name} must be positive, got {settings[name]}")
        size = settings["size"] = get_size_dict(settings["size"])
        if size.get("height") != size.get("width") or size["height"] % settings["patch_size"]:
            raise ValueError(
                f"size must be a square of whole {settings['patch_size']} pixel patches, got {dict(size)}"
            )
        if settings["local_view"] not in ("frame", "face_crop"):
            raise ValueError(f'local_view must be "frame" or "face_crop", got {settings["local_view"]!r}')
        if settings["num_frames"] > settings["max_frames"] and not settings["fps"]:
            raise ValueError(f"num_frames {settings['num_frames']} is more than max_frames {settings['max_frames']}")
        return settings

    def _process_video(
        self, source: Any, spans: Any, landmarks: Any, metadata: Any, settings: dict
    ) -> "_ProcessedVideo":
        """Sample and decode one clip, keeping of each picked frame only what the model needs."""
        face_mesh = FaceMesh(settings["face_mesh_model"], self._checkpoint)
        with open_clip(source, metadata) as clip:
            frame_processor = _FrameProcessor(clip.info, spans, landmarks, face_mesh, settings)
            indices, times, views = clip.read(frame_processor.choose, frame_processor.process)
            info = clip.info
        pixels, found, crops = zip(*views, strict=True)
        chosen = frame_processor.follow(found)
        faces = [None if i is None else of_frame[i] for of_frame, i in zip(found, chosen, strict=True)]
        crops = tuple(None if i is None else of_frame[i] for of_frame, i in zip(crops, chosen, strict=True))
        metadata = ClipMetadata(
            source=info.source,
            frame_times=[float(time) for time in times],
            frame_indices=[int(index) for index in indices],
            duration=info.duration,
            total_frames=len(info.frame_times),
            fps=info.fps,
            faces_found=[len(of_frame) for of_frame in found],
            landmarks=np.stack([_NOBODY if face is None else face.landmarks for face in faces]),
            has_audio=info.has_audio,
            frame_size=frame_processor.frame_size,
            blendshapes=_blendshapes(faces),
        )
        local = np.stack([frame_processor.on_local_view(face) for face in faces])
        masks = region_masks(local, frame_processor.grid, settings["region_coverage"], settings["clue_regions"])
        return _ProcessedVideo(pixels, crops, masks, metadata)


def _check_fixed(fields: dict) -> None:
    for name in FIXED.keys() & fields.keys():
        if fields[name] is not None and fields[name] != FIXED[name]:
            instead = ": give image_mean=[0, 0, 0] and image_std=[1, 1, 1]" if name == "do_normalize" else ""
            raise ValueError(
                f"MicroEmoVideoProcessor works with {name}={FIXED[name]!r} alone, got {fields[name]!r}{instead}"
            )


@dataclass
class _ProcessedVideo:
    """One clip: T pictures and face crops (or `None`) (H, W, 3) uint8, and region masks (T, R, P)."""

    pixels: tuple
    crops: tuple
    masks: np.ndarray
    metadata: ClipMetadata


class _FrameProcessor:
    """Chooses the frames of one clip and takes from each what the model needs."""

    def __init__(self, info: MediaInfo, spans: Any, landmarks: Any, face_mesh: FaceMesh, settings: dict) -> None:
        self.info = info
        self.spans = np.zeros((0, 2)) if spans is None else np.asarray(spans, float).reshape(-1, 2)
        self.landmarks = landmarks
        self.face_mesh = face_mesh
        self.settings = settings
        self.side = settings["size"]["height"]
        self.grid = self.side // settings["patch_size"]
        # One for each view: swscale's set-up costs as much as its work.
        self._to_view, self._to_mesh, self._to_rgb, self._to_crop = (VideoReformatter() for _ in range(4))

    def choose(self, times: np.ndarray) -> np.ndarray:
        """Increasing indices into the clip's frame times."""
        settings = self.settings
        if not settings["do_sample_frames"]:
            indices = np.arange(len(times))
            if len(indices) > settings["max_frames"]:
                raise ValueError(
                    f"{self.info.source} has {len(indices)} frames, more than max_frames {settings['max_frames']}, and "
                    "do_sample_frames is False"
                )
        elif settings["fps"]:
            indices = fps_indices(times, self.info.duration, settings["fps"])
        else:
            indices = uniform_indices(len(times), settings["num_frames"])
        indices = add_span_frames(indices, times, self.spans, settings["max_frames"])
        if settings["repeat_last_frame"] and settings["do_sample_frames"] and not settings["fps"]:
            indices = np.pad(indices, (0, max(0, settings["num_frames"] - len(indices))), mode="edge")
        self._precomputed = None if self.landmarks is None else iter(self._precomputed_faces(indices, len(times)))
        return indices

    def _precomputed_faces(self, indices: np.ndarray, total: int) -> np.ndarray:
        faces = np.asarray(self.landmarks, np.float32)
        if faces.ndim != 3 or faces.shape[1] != NUM_LANDMARKS or faces.shape[2] not in (2, 3):
            raise ValueError(f"landmarks of a clip must be (n, {NUM_LANDMARKS}, 2 or 3), got {faces.shape}")
        if len(faces) not in (total, len(indices)):
            raise ValueError(
                f"{self.info.source}: landmarks for {len(faces)} frames, but the clip has {total} frames, of which "
                f"{len(indices)} are sampled"
            )
        faces = faces[indices] if len(faces) == total else faces
        return np.pad(faces, ((0, 0), (0, 0), (0, 3 - faces.shape[2])))

    def process(self, frame: "av.VideoFrame") -> tuple[np.ndarray, list[Face], list[np.ndarray | None]]:
        """What is kept of an `av.VideoFrame`: its pixels (H, W, 3), the faces in it, and of each its crop or `None`."""
        width, height, turns = shown_size(frame, self.info.pixel_aspect)
        self.frame_size = width, height
        pixels = _resize(self._to_view, frame, self.side, self.side, turns)

        @cache
        def whole() -> np.ndarray:
            return _resize(self._to_rgb, frame, width, height, turns)

        if self._precomputed is not None:
            landmarks = next(self._precomputed)
            faces = [Face(landmarks, score=1.0)] if np.isfinite(landmarks).all() else []
        else:
            scale = min(1, MESH_HEIGHT / height)
            copy = _resize(self._to_mesh, frame, max(1, round(width * scale)), max(1, round(height * scale)), turns)
            faces = self.face_mesh.faces(copy, whole)
        if self.settings["local_view"] == "frame":
            return pixels, faces, [None] * len(faces)
        return pixels, faces, [self._crop(whole(), face) for face in faces]

    def _crop(self, picture: np.ndarray, face: Face) -> np.ndarray:
        crop = av.VideoFrame.from_ndarray(_cut(picture, self._box(face)))
        return _resize(self._to_crop, crop, self.side, self.side)

    def _box(self, face: Face) -> np.ndarray:
        return face_box(face.landmarks, self.frame_size, self.settings["face_crop_scale"])

    def follow(self, frames: tuple[list[Face], ...]) -> list[int | None]:
        """Which of each frame's faces is the followed person's; given landmarks are one person's."""
        if self._precomputed is not None:
            return [0 if faces else None for faces in frames]
        return follow_person(frames, self.frame_size)

    def on_local_view(self, face: Face | None) -> np.ndarray:
        """(478, 2) landmarks on the view that the clue regions cover; NaN without a face."""
        if face is None:
            return _NOBODY[:, :2]
        if self.settings["local_view"] == "frame":
            return face.landmarks[:, :2]
        return to_crop(face.landmarks, self._box(face), self.frame_size)


def _blendshapes(faces: list[Face | None]) -> np.ndarray | None:
    """(T, 52), NaN without a face; `None` where the face mesh has none."""
    if all(face is None or face.blendshapes is None for face in faces):
        return None
    nothing = np.full(len(BLENDSHAPE_NAMES), np.nan, np.float32)
    return np.stack([nothing if face is None else face.blendshapes for face in faces])


def uniform_indices(total: int, num_frames: int) -> np.ndarray:
    """Indices of `num_frames` uniformly sampled frames out of `total`, by the rule of MicroEmo's sources.

    All frames where there are fewer. Rounding inside `arange` gives one more now and then, in the sources too.
    """
    return np.minimum(np.arange(0, total, total / min(num_frames, total)).astype(int), total - 1)


def fps_indices(times: np.ndarray, duration: float, fps: float) -> np.ndarray:
    """Indices of the frames shown at 0, 1/fps, 2/fps, ... seconds, each once."""
    return np.unique(_shown_at(times, np.arange(0, max(duration, times[-1] + 1e-9), 1 / fps)))


def add_span_frames(indices: np.ndarray, times: np.ndarray, spans: np.ndarray, max_frames: int) -> np.ndarray:
    """`indices` and the middle frame of every span in which none of them lies, at most `max_frames`.

    Args:
        indices: increasing indices into `times`.
        times: (n,) seconds of all frames of the clip.
        spans: (K, 2) start and end in seconds.
        max_frames: Where there would be more, frames that no span needs are left out, evenly.
    """
    middles = spans.mean(1)
    inside = (times[indices] >= spans[:, :1]) & (times[indices] < spans[:, 1:])  # (K, sampled)
    held = inside.any(1)
    added = _shown_at(times, middles[~held])
    chosen = np.union1d(indices, added)
    if len(chosen) <= max_frames:
        return chosen
    # Every other span keeps one frame, the one next to its middle.
    distance = np.where(inside, np.abs(times[indices] - middles[:, None]), np.inf)
    needed = np.union1d(added, indices[distance[held].argmin(1)])
    if len(needed) > max_frames:
        warnings.warn(
            f"{len(spans)} utterances need {len(needed)} frames, but max_frames is {max_frames}: some share a frame",
            stacklevel=2,
        )
        return needed[uniform_indices(len(needed), max_frames)[:max_frames]]
    spare, room = np.setdiff1d(indices, needed), max_frames - len(needed)
    return np.union1d(needed, spare[uniform_indices(len(spare), room)[:room]]) if room and len(spare) else needed


def _shown_at(times: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Indices of the frames on the screen: the last one whose time is not later (by more than rounding)."""
    return np.maximum(np.searchsorted(times, seconds + 1e-9, "right") - 1, 0)


def _resize(
    reformatter: "VideoReformatter", frame: "av.VideoFrame", width: int, height: int, turns: int = 0
) -> np.ndarray:
    """(height, width, 3) uint8 RGB of an `av.VideoFrame`, upright after `turns` quarter turns to the left."""
    stored = (height, width) if turns % 2 else (width, height)
    resized = reformatter.reformat(frame, *stored, "rgb24", interpolation="BILINEAR", threads=1)
    return np.ascontiguousarray(np.rot90(resized.to_ndarray(), turns))


def _cut(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box (left, top, right, bottom) of a picture (H, W, 3), black where it reaches beyond."""
    left, top, right, bottom = box
    height, width = picture.shape[:2]
    cut = np.zeros((bottom - top, right - left, 3), np.uint8)
    inside = picture[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    cut[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return cut


def _normalize(picture: np.ndarray, settings: dict, out: np.ndarray) -> None:
    """(H, W, 3) uint8 into (3, H, W) float32 with the processor's mean and standard deviation."""
    mean, std = (np.array(settings[name], np.float32)[:, None, None] for name in ("image_mean", "image_std"))
    np.multiply(picture.transpose(2, 0, 1), 1 / (255 * std), out=out)
    out -= mean / std


def _as_batch(videos: Any, *per_clip: tuple[str, Any]) -> list[tuple]:
    """Rows of a clip and what belongs to it, out of one clip or out of a list of clips and lists as long."""
    if not isinstance(videos, list | tuple) or (len(videos) and all(map(_is_picture, videos))):
        return [(videos, *(value for _, value in per_clip))]
    clips = list(_flat(videos))
    if not clips:
        raise ValueError("videos is empty: no clip to process")
    columns = [clips]
    for name, values in per_clip:
        columns.append([None] * len(clips) if values is None else list(values))
        if len(columns[-1]) != len(clips):
            raise ValueError(f"{len(clips)} clips, but {name} for {len(columns[-1])}")
    return list(zip(*columns, strict=True))


def _flat(videos: Any) -> Iterator[Any]:
    """The clips in nested lists of them, as chat templates give."""
    for clip in videos:
        if isinstance(clip, list | tuple) and not all(map(_is_picture, clip)):
            yield from _flat(clip)
        else:
            yield clip


def _is_picture(item: Any) -> bool:
    return hasattr(item, "convert") or getattr(item, "ndim", 0) == 3


__all__ = ["MicroEmoVideoProcessor"]
