"""The choice of the one person, among the faces in a clip's frames, who is followed through the clip."""

import numpy as np

from .face_mesh_backends import Face

# A face belongs to the track whose last face it is next to, less than this many of its sizes away, and no more than
# this many times larger or smaller.
_NEAR, _MUCH_LARGER = 1.5, 2.0


def follow_person(frames: list[list[Face]], size: tuple[int, int]) -> list[int | None]:
    """Finds one person among the faces of each frame.

    Faces that stay about where they are make a track. The person's first track is the one with the largest sum of size
    times detector score over its frames, so that a large, clearly visible and lasting face is chosen. Faces of another
    track belong to the same person, who has moved or is filmed by another camera, only if no frame shows both tracks:
    if two people sit side by side and one turns away, the other is not taken in their place.

    Args:
        frames (`list[list[Face]]`): The faces of each frame, in the order of the clip.
        size (`tuple[int, int]`): The width and the height of the frames in pixels.

    Returns:
        `list[int | None]`: For each frame an index into its faces, or `None` if the person is not visible.
    """
    chosen: list[int | None] = [None] * len(frames)
    tracks = _tracks([[_place(face, size) for face in faces] for faces in frames])
    weight = [sum(_place(frames[t][i], size)[2] * frames[t][i].score for t, i in track) for track in tracks]
    for number in sorted(range(len(tracks)), key=lambda number: -weight[number]):
        if all(chosen[t] is None for t, _ in tracks[number]):
            for t, i in tracks[number]:
                chosen[t] = i
    return chosen


def _place(face: Face, size: tuple[int, int]) -> np.ndarray:
    """Returns the middle of a face and the longer side of its box in pixels, `(3,)`."""
    box = face.box * np.tile(size, 2)
    return np.array([*(box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()])


def _tracks(frames: list[list[np.ndarray]]) -> list[list[tuple[int, int]]]:
    """Builds tracks of (frame, index of the face) from the nearest pairs on. A track may pause in some frames."""
    tracks: list[list[tuple[int, int]]] = []
    last: list[np.ndarray] = []
    for t, places in enumerate(frames):
        pairs = []
        for i, place in enumerate(places):
            for number, before in enumerate(last):
                sizes = sorted([place[2], before[2]])
                distance = np.linalg.norm(place[:2] - before[:2]) / sizes[1]
                if distance < _NEAR and sizes[1] <= _MUCH_LARGER * sizes[0]:
                    pairs.append((distance, i, number))
        track_of: dict[int, int] = {}
        for _, i, number in sorted(pairs):
            if i not in track_of and number not in track_of.values():
                track_of[i] = number
        for i, place in enumerate(places):
            if i not in track_of:
                track_of[i] = len(tracks)
                tracks.append([])
                last.append(place)
            tracks[track_of[i]].append((t, i))
            last[track_of[i]] = place
    return tracks
