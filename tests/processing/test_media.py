"""Decoding: exact times, the right frames, sound in its place, and files that are not what they should be."""

import csv
import io
import re
import socket
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest
from safetensors import safe_open

from microemo.processing.media import PTS_TOLERANCE, Clip, MediaError, load_audio, probe


def decode_all(path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Times and pictures of every frame that PyAV decodes, plainly forward, up to the first error."""
    times, pictures = [], []
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(container.streams.best("video")):
                times.append(float(frame.pts * frame.time_base))
                pictures.append(frame.to_ndarray())
        except av.FFmpegError:
            pass
    return np.array(times), pictures


def read(path, indices):
    with Clip(path) as clip:
        return clip.read(lambda times: np.array(indices), lambda frame: frame.to_ndarray())


def some(count: int, total: int) -> np.ndarray:
    return np.unique(np.round(np.linspace(0, total - 1, count)).astype(int))


@pytest.fixture(scope="session")
def irregular_clip(make_clip):
    times = np.cumsum(np.random.default_rng(0).choice([0.04, 0.08, 0.2, 0.36], 60))
    return make_clip("irregular.mp4", times, sound=None), times


class TestFrames:
    def test_times_are_those_written(self, irregular_clip):
        path, times = irregular_clip
        info = probe(path)
        np.testing.assert_allclose(info.frame_times, times - times[0], atol=1e-4)
        assert info.has_video and not info.has_audio
        assert info.duration >= info.frame_times[-1]

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
    def test_picks_are_the_frames_of_a_plain_decode(self, make_clip, suffix):
        # Keyframes are up to 250 frames apart: the late picks need a seek to one.
        path = make_clip(f"long.{suffix}", np.arange(600) / 25, size=(96, 64), face_width=30, sound=None)
        times, pictures = decode_all(path)
        np.testing.assert_allclose(probe(path).frame_times, times - times[0], atol=1e-9)
        for indices in ([0], [599], [3, 255, 256, 590], some(24, 600)):
            picked, seconds, views = read(path, indices)
            np.testing.assert_allclose(seconds, times[indices] - times[0], atol=1e-9)
            for index, view in zip(picked, views, strict=True):
                np.testing.assert_array_equal(view, pictures[index])

    def test_seeking_skips_what_lies_before(self, make_clip, monkeypatch):
        path = make_clip("long.mp4", np.arange(600) / 25, size=(96, 64), face_width=30, sound=None)
        decoded = 0

        def count(self, key, _from=Clip._from):
            nonlocal decoded
            for frame in _from(self, key):
                decoded += 1
                yield frame

        monkeypatch.setattr(Clip, "_from", count)
        read(path, [599])
        assert 0 < decoded < 300

    def test_time_does_not_depend_on_where_the_clip_starts(self, make_clip):
        late = make_clip("late.mkv", 7 + np.arange(10) / 10, sound=1.0, sound_start=7.5)
        info = probe(late)
        np.testing.assert_allclose(info.frame_times, np.arange(10) / 10, atol=2e-3)
        assert info.duration == pytest.approx(1.5, abs=0.1)

    def test_one_frame(self, make_clip):
        path = make_clip("one.mp4", [0.0], sound=None)
        _, times, views = read(path, [0])
        assert times == [0.0] and len(views) == 1

    def test_raw_stream_without_times(self, make_clip, tmp_path):
        source = make_clip("for_raw.mp4", np.arange(30) / 25, sound=None)
        raw = tmp_path / "raw.h264"
        with av.open(str(source)) as container, av.open(str(raw), "w") as out:
            stream = out.add_stream_from_template(container.streams.video[0])
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
        _, pictures = decode_all(source)
        _, times, views = read(raw, [2, 20])
        np.testing.assert_array_equal(views[1], pictures[20])
        assert np.diff(times) == pytest.approx(18 / probe(raw).fps)


class TestSources:
    def test_every_kind_of_source(self, make_clip, tmp_path):
        path = make_clip("source.mp4")
        expected = probe(path).frame_times
        handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
        handler.log_message = lambda *_: None
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, path.open("rb") as file:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            odd = tmp_path / "a: 100% [b] é.mp4"
            odd.write_bytes(path.read_bytes())
            url = f"http://127.0.0.1:{server.server_port}/{path.name}"
            content = path.read_bytes()
            for source in (str(path), path.as_uri(), odd.as_uri(), odd, content, io.BytesIO(content), file, url):
                np.testing.assert_allclose(probe(source).frame_times, expected)
                assert load_audio(source).samples.shape[1] > 15_000
            server.shutdown()

    def test_the_content_counts_not_the_name(self, make_clip, tmp_path):
        misnamed = tmp_path / "clip.txt"
        misnamed.write_bytes(make_clip("source.mp4").read_bytes())
        assert probe(misnamed).has_video
        text = tmp_path / "text.txt"  # a film of letters, if FFmpeg may go by the name
        text.write_text("What does the speaker feel?\n" * 100)
        playlist = tmp_path / "list.m3u8"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{misnamed}\n#EXT-X-ENDLIST\n")
        for path in (text, playlist):
            with pytest.raises(MediaError, match="not a media file"):
                probe(path)

    def test_bad_sources_name_the_file(self, tmp_path):
        empty = tmp_path / "empty.mp4"
        empty.touch()
        for source, wrong in (
            (tmp_path / "missing.mp4", "missing.mp4 cannot be opened: No such file"),
            (tmp_path, f"{tmp_path} is not a file"),
            (empty, "empty.mp4 is an empty file"),
            (b"no film", "not a media file"),
            (5, "not int"),
        ):
            for function in (probe, load_audio):
                with pytest.raises(MediaError, match=re.escape(wrong)):
                    function(source)

    def test_a_dead_server_is_an_error(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(MediaError, match="cannot be opened"):
                probe(f"http://127.0.0.1:{unused.getsockname()[1]}/clip.mp4")

    def test_no_file_stays_open(self, make_clip):
        path = make_clip("source.mp4")
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            read(path, [0, 20])
            load_audio(path)


class TestDamage:
    def test_broken_packets(self, make_clip, tmp_path):
        whole = make_clip("whole.mp4", np.arange(100) / 25, sound=None)
        data = bytearray(whole.read_bytes())
        rng = np.random.default_rng(0)
        start, end = data.index(b"mdat"), data.index(b"moov")
        for place in rng.integers((start + end) // 2, end - 4, 400):
            data[place] = rng.integers(256)
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(data)
        decoded = len(decode_all(broken)[0])
        assert 0 < decoded < 100, "the bytes must break it part-way"
        with pytest.warns(UserWarning, match=rf"broken.mp4 is damaged: {decoded} of 100 frames were decoded") as said:
            indices, times, views = read_last(broken)
        assert len(said) == 1
        assert indices[-1] == decoded - 1 and len(views) == len(indices) == len(times)

    def test_a_file_that_was_cut(self, make_clip, tmp_path):
        # The table of frames stands at the end of this file; moved to the front it survives the cut.
        whole = make_clip("whole.mp4", np.arange(100) / 25, sound=None)
        fast = tmp_path / "fast.mp4"
        with av.open(str(whole)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(fast.read_bytes()[: int(fast.stat().st_size * 0.6)])
        decoded = len(decode_all(cut)[0])
        with pytest.warns(UserWarning, match=f"{decoded} of 100 frames were decoded"):
            indices, _, _ = read_last(cut)
        assert indices[-1] == decoded - 1

    def test_nothing_decodes(self, make_clip, tmp_path):
        whole = make_clip("whole.mp4", np.arange(100) / 25, sound=None)
        data = bytearray(whole.read_bytes())
        start = data.index(b"mdat") + 4
        end = data.index(b"moov") - 4
        data[start:end] = bytes(end - start)
        dead = tmp_path / "dead.mp4"
        dead.write_bytes(data)
        with pytest.raises(MediaError, match="none of its 100 frames"):
            read_last(dead)


def read_last(path):
    with Clip(path) as clip:
        return clip.read(lambda times: some(8, len(times)), lambda frame: frame.to_ndarray())


class TestSound:
    @pytest.mark.parametrize("start", [0.0, 0.02, 0.7])
    def test_sound_stands_at_its_pts(self, make_clip, start):
        path = make_clip(f"sound{start}.mkv", np.arange(50) / 25, sound=1.0, sound_start=start)
        track = load_audio(path)
        loud = np.flatnonzero(np.abs(track.samples[0]) > 0.1)[0] / track.rate
        # A start below the tolerance is the muxer's; the encoder puts 64 ms of silence before 16 kHz sound.
        assert loud == pytest.approx(start if start > PTS_TOLERANCE else 0, abs=0.08)
        assert track.samples.dtype == np.float32

    def test_sound_before_the_pictures_starts_the_clock(self, make_clip):
        path = make_clip("early.mkv", 2 + np.arange(10) / 10, sound=1.0)
        assert probe(path).frame_times[0] == pytest.approx(2, abs=0.08)
        assert load_audio(path).samples.shape[1] / 16_000 == pytest.approx(1, abs=0.15)

    def test_no_sound(self, make_clip):
        assert load_audio(make_clip("silent.mp4", sound=None)) is None

    def test_sound_only(self, make_clip):
        path = make_clip("sound.m4a", [])
        info = probe(path)
        assert info.has_audio and not info.has_video and len(info.frame_times) == 0
        assert info.duration == pytest.approx(1, abs=0.15)
        with pytest.raises(MediaError, match=r"sound.m4a has no video stream"):
            read(path, [0])

    @pytest.mark.parametrize(
        ("codec", "stored", "expected"),
        [
            ("pcm_s16le", np.array([[-(2**15), 0, 2**14]], np.int16), [-1, 0, 0.5]),
            ("pcm_s32le", np.array([[-(2**31), 0, 2**30]], np.int32), [-1, 0, 0.5]),
            ("pcm_u8", np.array([[0, 128, 192]], np.uint8), [-1, 0, 0.5]),
            ("pcm_f32le", np.array([[-1.5, 0, 0.5]], np.float32), [-1.5, 0, 0.5]),
        ],
    )
    def test_integer_formats_are_scaled_by_half_their_range(self, tmp_path, codec, stored, expected):
        path = tmp_path / f"{codec}.wav"
        sample_format = {"int16": "s16", "int32": "s32", "uint8": "u8", "float32": "flt"}[stored.dtype.name]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(stored, sample_format, "mono")
            frame.rate = 8000
            container.mux([*stream.encode(frame), *stream.encode()])
        np.testing.assert_allclose(load_audio(path).samples[0], expected, atol=1e-7)

    def test_channels_stay_apart(self, tmp_path):
        path = tmp_path / "stereo.wav"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="stereo")
            interleaved = np.array([[1, -1, 2, -2, 3, -3]], np.int16) * 1024
            frame = av.AudioFrame.from_ndarray(interleaved, "s16", "stereo")
            frame.rate = 8000
            container.mux([*stream.encode(frame), *stream.encode()])
        np.testing.assert_array_equal(load_audio(path).samples * 32, [[1, 2, 3], [-1, -2, -3]])


class TestSharedClips:
    def test_every_clip(self, shared):
        folder = shared / "data" / "clips"
        with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert rows
        for row in rows:
            path = folder / row["file"]
            if row["opens"] == "no":
                with pytest.raises(MediaError, match=re.escape(path.name)):
                    probe(path)
                continue
            info = probe(path)
            assert info.has_video == bool(row["frames"])
            assert info.has_audio == bool(row["audio"])
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                track = load_audio(path)
                if info.has_video:
                    _, times, _ = read_last(path)
            if row["error"]:
                assert any(f"{row['frames']} of" in str(warning.message) for warning in said)
            else:
                assert not said, f"{row['file']}: {said[0].message}"
            if info.has_video and not row["error"]:
                expected, _ = decode_all(path)
                np.testing.assert_allclose(info.frame_times, expected - expected[0], atol=1e-9)
                np.testing.assert_allclose(times, (expected - expected[0])[some(8, len(expected))], atol=1e-9)
            if info.has_audio and not row["error"]:
                start = float(row["audio_first_pts_s"]) - float(row["first_pts_s"] or 0)
                start = start if start > PTS_TOLERANCE else 0
                assert track.samples.shape[1] / track.rate == pytest.approx(start + float(row["audio_s"]), abs=0.07)

    def test_samples_of_the_goldens_are_not_shifted(self, shared):
        """The goldens' mel clips were made from whole tracks: nothing may be put before the sound."""
        names = set()
        for golden in (shared / "goldens" / "io").glob("e_mel_*.safetensors"):
            with safe_open(golden, "np") as tensors:
                keys = [key.removesuffix(".mel_clips") for key in tensors.keys()]  # noqa: SIM118
            names |= {key for key in keys if key.endswith((".mp4", ".mpg"))}
        assert names
        for name in names:
            path = shared / "data" / "clips" / "free" / name
            with av.open(str(path)) as container:
                frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
            whole = np.concatenate(frames, axis=1)
            scale = 2**15 if whole.dtype == np.int16 else 1
            np.testing.assert_allclose(load_audio(path).samples, whole / scale, atol=1e-6)
