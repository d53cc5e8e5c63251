"""Which of the faces in a clip's frames are one person's: the one that is followed through the clip."""

import numpy as np

from .face_mesh_backends import Face

# A face belongs to the track whose last face it is next to, less than this many of its sizes away, and no more than
# this many times larger or smaller.
_NEAR, _MUCH_LARGER = 1.5, 2.0


def follow_person(frames: list[list[Face]], size: tuple[int, int]) -> list[int | None]:
    """The place of one person among the faces of each frame.

    Faces that stay about where they are make a track. The person's first track is the one that weighs most: size times
    detector score, summed over its frames, so that a large, well seen and lasting face wins. Faces of other tracks are
    the same person, who has moved or is seen by another camera, only where no frame shows both: where two people sit
    side by side and one turns away, the other does not step in.

    Args:
        frames: The faces of each frame, in the order of the clip.
        size: Width and height of the frames in pixels.

    Returns:
        For each frame an index into its faces; `None` where the person is not seen.
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
    """(3,) the middle of a face and the longer side of its box, in pixels."""
    box = face.box * np.tile(size, 2)
    return np.array([*(box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()])


def _tracks(frames: list[list[np.ndarray]]) -> list[list[tuple[int, int]]]:
    """Tracks of (frame, index of the face), nearest pairs first. A track goes on after frames without its face."""
    tracks, last = [], []
    for t, places in enumerate(frames):
        pairs = []
        for i, place in enumerate(places):
            for number, before in enumerate(last):
                sizes = sorted([place[2], before[2]])
                distance = np.linalg.norm(place[:2] - before[:2]) / sizes[1]
                if distance < _NEAR and sizes[1] <= _MUCH_LARGER * sizes[0]:
                    pairs.append((distance, i, number))
        track_of = {}
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
