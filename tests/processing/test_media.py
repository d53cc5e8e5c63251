"""Decoding: exact times, the right frames, sound in its place, and files that are not what they should be."""

import csv
import io
import re
import socket
import struct
import threading
import warnings
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from microemo.processing.decoding.clip_clock import ClipClock, Packets
from microemo.processing.decoding.container import PTS_TOLERANCE
from microemo.processing.media import Clip, MediaError, load_audio, probe


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

    def test_a_play_list_opens_no_other_files(self, make_clip, tmp_path, monkeypatch):
        (tmp_path / "clip.mp4").write_bytes(make_clip("source.mp4").read_bytes())
        monkeypatch.chdir(tmp_path)
        for text in (
            "ffconcat version 1.0\nfile clip.mp4\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n",
        ):
            path = tmp_path / "list.txt"
            path.write_text(text)
            for source in (text.encode(), path):
                with pytest.raises(MediaError, match="not a media file"):
                    probe(source)

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


class TestAbsurdTimes:
    """Damaged tables and headers name times that are hours off; the clip stays as long as its frames."""

    @staticmethod
    def length_of(path, expected: float):
        info = probe(path)
        assert len(info.frame_times) >= 24 and info.frame_times[-1] < expected
        assert info.duration == pytest.approx(expected, abs=0.1)
        assert 1 < info.fps < 100

    def test_a_unit_of_time_that_cannot_be(self, make_clip, tmp_path):
        data = bytearray(make_clip("units.avi").read_bytes())
        scale = data.index(b"strh") + 8 + 20  # behind the chunk's name and size, of the stream's header
        data[scale : scale + 4] = struct.pack("<I", 2**31 - 1)
        (path := tmp_path / "units.avi").write_bytes(data)
        with pytest.warns(UserWarning) as warned:
            self.length_of(path, 1.0)
        (warning,) = warned
        assert re.search(r"units\.avi: a frame every \d+ s cannot be: 25 per second are assumed", str(warning.message))

    def test_a_frame_that_is_shown_hours_after_the_end(self, make_clip, tmp_path):
        data = bytearray(make_clip("shown.mp4", sound=None).read_bytes())
        second = data.index(b"ctts") + 12 + 8  # entries (count, time from decoding to showing)
        data[second + 4 : second + 8] = struct.pack(">I", 2**27)
        (path := tmp_path / "shown.mp4").write_bytes(data)
        self.length_of(path, 1.0)


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


def encode_parts(path, parts, codec="mpeg2video", audio_codec="mp2"):
    """Several recordings one behind the other in one file, as `cat` makes it.

    Args:
        parts: Of each the seconds at which its clock starts, its number of frames, and the rate, layout and tone (Hz) of
            its sound.
    """
    content = b""
    for clock, frames, rate, layout, tone in parts:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format={".ts": "mpegts", ".mpg": "mpeg"}[path.suffix]) as container:
            video = container.add_stream(codec, rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            audio = container.add_stream(audio_codec, rate=rate, layout=layout)
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), number * 4 % 256, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number + round(clock * 25), Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode())
            samples = frames * rate // 25
            wave = np.sin(2 * np.pi * tone * np.arange(samples) / rate) * 0.5
            step = audio.codec_context.frame_size or 1152
            for first in range(0, samples - step, step):
                channels = audio.codec_context.layout.nb_channels
                cut = np.repeat(wave[None, first : first + step], channels, 0)
                name = audio.codec_context.format.name
                if name.startswith("s16"):
                    cut = np.round(cut * 32767).astype(np.int16)
                    cut = cut if name.endswith("p") else np.ascontiguousarray(cut.T).reshape(1, -1)
                sound = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(cut if cut.dtype == np.int16 else cut.astype(np.float32)), name, layout
                )
                sound.rate, sound.time_base = rate, Fraction(1, rate)
                sound.pts = first + round(clock * rate)
                container.mux(audio.encode(sound))
            container.mux(audio.encode())
        content += buffer.getvalue()
    path.write_bytes(content)
    return path


def tone_at(track, second: float) -> float:
    """Frequency of the loudest tone in the half second from `second` on."""
    cut = track.samples[0, round(second * track.rate) :][: track.rate // 2]
    spectrum = np.abs(np.fft.rfft(cut * np.hanning(len(cut))))
    return float(spectrum.argmax() * track.rate / len(cut))


STEREO = (48_000, "stereo")


class TestClocks:
    @pytest.mark.parametrize("suffix", [".ts", ".mpg"])
    @pytest.mark.parametrize("clocks", [(0, 0), (0, 7200), (50, 3), (2, 0.5), (0, 0, 0)])
    def test_recordings_put_together_are_laid_end_to_end(self, tmp_path, suffix, clocks):
        tones = (440, 880, 1320)[: len(clocks)]
        parts = [(clock, 50, *STEREO, tone) for clock, tone in zip(clocks, tones, strict=True)]
        path = encode_parts(tmp_path / f"joined{suffix}", parts)
        with pytest.warns(UserWarning, match=r"its clock restarts or jumps at 2\.\d s"):
            clip = Clip(path)
        with clip:
            total = 50 * len(clocks)
            _, times, shades = clip.read(
                lambda times: np.arange(len(times)), lambda frame: int(frame.to_ndarray(format="gray").mean())
            )
            track = clip.load_audio()
            info = clip.info
        assert len(times) == pytest.approx(total, abs=2)
        assert (np.diff(times) > 0.02).all() and np.diff(times).max() < 0.2
        assert info.duration == pytest.approx(2 * len(clocks), abs=0.25)
        assert track.samples.shape[1] / track.rate == pytest.approx(2 * len(clocks), abs=0.25)
        for number, tone in enumerate(tones):  # pictures and sound of a part stand at the same time
            assert tone_at(track, 2 * number + 0.7) == pytest.approx(tone, abs=8)
            middle = np.searchsorted(times, 2 * number + 1)
            assert shades[middle] == pytest.approx(shades[25], abs=12)

    def test_a_chosen_frame_is_the_same_as_in_a_plain_decode(self, tmp_path):
        path = encode_parts(tmp_path / "joined.ts", [(0, 50, *STEREO, 440), (0, 50, *STEREO, 440)])
        with pytest.warns(UserWarning, match="clock"), Clip(path) as clip:
            _, pictures = decode_all(path)
            indices = [0, 30, 60, len(clip.info.frame_times) - 1]
            _, _, views = clip.read(lambda _: np.array(indices), lambda frame: frame.to_ndarray())
        for index, view in zip(indices, views, strict=True):
            np.testing.assert_array_equal(view, pictures[index])

    def test_a_clock_that_wraps_around_is_no_restart(self, tmp_path):
        path = encode_parts(tmp_path / "wrap.ts", [(2**33 / 90_000 - 2.5, 75, *STEREO, 440)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            info, track = probe(path), load_audio(path)
        assert len(info.frame_times) == 75 and np.diff(info.frame_times).max() < 0.05
        assert track.samples.shape[1] / track.rate == pytest.approx(3, abs=0.1)

    def test_a_pause_is_no_restart(self, make_clip):
        for suffix in ("mkv", "mp4"):
            times = [0.0, 0.1, 60.0, 60.1]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                info = probe(make_clip(f"slides.{suffix}", times, sound=None))
            np.testing.assert_allclose(info.frame_times, times, atol=2e-3)

    @staticmethod
    def packets(milliseconds) -> Packets:
        """A stream of packets of 40 ms at these times."""
        packets = Packets(0.001)
        for number, time in enumerate(milliseconds):
            packets.pts.append(time)
            packets.dts.append(time)
            packets.durations.append(40)
            packets.keys.append(number == 0)
            packets.discarded.append(False)
            packets.order.append(number)
            packets.places.append(number * 1000)
        return packets

    @pytest.mark.parametrize("broken", [[1], [10], [23], [10, 11, 12], [24], [5, 18]])
    @pytest.mark.parametrize("wrong", [10**9, -(10**9)])
    def test_a_few_wrong_times_are_forgotten(self, broken, wrong):
        if wrong < 0 and broken == [24]:
            pytest.skip("a clock that goes back at the end is a new one")
        times = [wrong + number * 40 if number in broken else number * 40 for number in range(25)]
        clock = ClipClock({0: self.packets(times)}, 10.0)
        assert clock.restarts == [] and clock.end == pytest.approx(1.0 if broken != [24] else 0.96)
        assert clock.pts(0) == [number * 40 for number in range(25) if number not in broken]

    @pytest.mark.parametrize("number", [3, 24])
    def test_a_packet_does_not_last_for_hours(self, number):
        packets = self.packets(range(0, 1000, 40))
        packets.durations[number] = 10**7
        assert ClipClock({0: packets}, np.inf).end == pytest.approx(1.0)

    @pytest.mark.parametrize("number", [0, 100, 249])
    @pytest.mark.parametrize("seconds", [15, 9_500])
    def test_a_frame_is_not_shown_long_after_those_it_waits_for(self, number, seconds):
        """Composition offsets of a live recording that name times far later (Zibbp/ganymede#1330)."""
        packets = self.packets(range(0, 10_000, 40))
        packets.pts[number] += seconds * 1000
        clock = ClipClock({0: packets}, np.inf)
        assert clock.end == pytest.approx(10, abs=0.05)
        assert clock.pts(0) == [time for time in packets.dts if time != number * 40]

    def test_a_packet_that_is_not_shown_does_not_count(self):
        packets = self.packets(range(0, 1000, 40))
        packets.discarded[20:] = [True] * 5
        assert ClipClock({0: packets}, np.inf).end == pytest.approx(0.8)

    def test_many_short_recordings_stay_recordings(self):
        times = [number * 40 + start for start in (0, 10**6, 0) for number in range(10)]
        clock = ClipClock({0: self.packets(times)}, 10.0)
        assert clock.restarts == pytest.approx([0.4, 0.8]) and clock.pts(0) == list(range(0, 1200, 40))

    def test_streams_jump_at_the_same_place_of_the_file(self):
        """Late packets of the old clock stay on it, and a stream that does not jump itself moves on with the other."""
        video, audio = Packets(0.001), Packets(0.001)
        for part in range(2):
            for number in range(50):
                for row, time, place in ((video, 40, 0), (audio, 40, 500)):
                    if row is audio and part == 0 and number > 1:
                        continue  # its sound ends at once: the second part's goes on behind it
                    row.pts.append(number * time + (100 if row is audio and part else 0))
                    row.dts.append(row.pts[-1])
                    row.durations.append(40)
                    row.keys.append(True)
                    row.discarded.append(False)
                    row.order.append(len(video.pts) * 2 + (row is audio))
                    row.places.append((part * 50 + number) * 1000 + place)
        clock = ClipClock({0: video, 1: audio}, 10.0)
        assert len(clock.restarts) == 1
        assert clock.pts(0) == list(range(0, 4000, 40))
        assert clock.pts(1)[2:] == [2100 + 40 * number for number in range(50)]


class TestChangingSound:
    @pytest.mark.parametrize(
        "formats",
        [
            [(48_000, "stereo"), (48_000, "mono")],
            [(48_000, "mono"), (48_000, "stereo")],
            [(48_000, "stereo"), (32_000, "stereo")],
            [(32_000, "mono"), (48_000, "stereo"), (32_000, "mono")],
        ],
    )
    def test_all_of_it_is_heard(self, tmp_path, formats):
        parts = [(2 * n, 50, *form, 440 * (n + 1)) for n, form in enumerate(formats)]
        path = encode_parts(tmp_path / "switch.ts", parts)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            track = load_audio(path)
        assert (track.rate, len(track.samples)) == (formats[0][0], {"mono": 1, "stereo": 2}[formats[0][1]])
        assert track.samples.shape[1] / track.rate == pytest.approx(2 * len(formats), abs=0.2)
        for number in range(len(formats)):
            cut = track.samples[:, round((2 * number + 0.7) * track.rate) :][:, : track.rate // 2]
            assert tone_at(track, 2 * number + 0.7) == pytest.approx(440 * (number + 1), abs=8)
            assert np.abs(cut).max(1) == pytest.approx(0.5, abs=0.1)

    def test_surround_sound(self, tmp_path):
        parts = [(0, 50, 48_000, "stereo", 440), (2, 50, 48_000, "5.1(side)", 880)]
        track = load_audio(encode_parts(tmp_path / "switch.ts", parts, audio_codec="ac3"))
        assert track.samples.shape[1] / track.rate == pytest.approx(4, abs=0.2)
        assert tone_at(track, 2.7) == pytest.approx(880, abs=8)

    @pytest.mark.parametrize("first", [(48_000, "stereo"), (32_000, "mono")])
    def test_bare_sound_streams_joined(self, tmp_path, first):
        second = (32_000, "mono") if first[0] == 48_000 else (48_000, "stereo")
        content = b""
        for (rate, layout), tone in ((first, 440), (second, 880)):
            buffer = io.BytesIO()
            with av.open(buffer, "w", format="adts") as container:
                stream = container.add_stream("aac", rate=rate, layout=layout)
                wave = (0.5 * np.sin(2 * np.pi * tone * np.arange(3 * rate) / rate)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(np.stack([wave] * (1 + (layout == "stereo"))), "fltp", layout)
                frame.rate = rate
                container.mux([*stream.encode(frame), *stream.encode()])
            content += buffer.getvalue()
        path = tmp_path / "joined.aac"
        path.write_bytes(content)
        with Clip(path) as clip:
            track = clip.load_audio()
        assert track.samples.shape[1] / track.rate == pytest.approx(6, abs=0.2)
        assert clip.info.duration == pytest.approx(6, abs=0.2) or clip.info.duration > 6
        assert np.abs(track.samples[0, track.rate : 5 * track.rate]).reshape(-1, 1000).max(1).min() > 0.3, "no hole"
        for second, tone in ((1, 440), (4, 880)):
            assert tone_at(track, second) == pytest.approx(tone, abs=8)

    def test_eight_channels(self, tmp_path):
        path = tmp_path / "eight.mka"
        with av.open(str(path), "w", format="matroska") as container:
            stream = container.add_stream("pcm_f32le", rate=8000, layout="7.1")
            interleaved = np.arange(80, dtype=np.float32)[None] / 100
            frame = av.AudioFrame.from_ndarray(interleaved, "flt", "7.1")
            frame.rate = 8000
            container.mux([*stream.encode(frame), *stream.encode()])
        np.testing.assert_allclose(load_audio(path).samples[:, 0], np.arange(8) / 100, atol=1e-6)


class TestCuts:
    @pytest.mark.parametrize(
        ("suffix", "codec", "sound"), [(".ts", "mpeg2video", "mp2"), (".mpg", "mpeg2video", "mp2")]
    )
    def test_a_stream_that_starts_between_keyframes(self, tmp_path, suffix, codec, sound):
        whole = encode_parts(tmp_path / f"whole{suffix}", [(0, 75, *STEREO, 440)], codec, sound)
        data = whole.read_bytes()
        cut = tmp_path / f"cut{suffix}"
        packet = 188 if suffix == ".ts" else 2048
        cut.write_bytes(data[len(data) * 2 // 5 // packet * packet :])
        expected, pictures = decode_all(cut)
        assert 20 < len(expected) < 70
        with Clip(cut) as clip:
            _, times, views = clip.read(lambda times: np.arange(len(times)), lambda frame: frame.to_ndarray())
            _, some_times, _ = clip.read(lambda times: some(8, len(times)), lambda frame: None)
            total = len(clip.info.frame_times)
        assert len(times) == len(expected) == total
        np.testing.assert_allclose(np.diff(times), np.diff(expected), atol=1e-9)
        assert (np.diff(some_times) > 0).all()
        for view, picture in zip(views, pictures, strict=True):
            np.testing.assert_array_equal(view, picture)

    def test_frames_that_never_come_out_do_not_count(self, make_clip, monkeypatch):
        """As a packet that is not shown: the decoder gives no frame for it."""
        path = make_clip("hidden.mp4", np.arange(50) / 25, sound=None)

        def without(frames):
            return (frame for frame in frames if frame.pts != hidden)

        with Clip(path) as clip:
            hidden = clip._pts[10]
            for name in ("_from", "_from_start"):
                original = getattr(Clip, name)
                monkeypatch.setattr(Clip, name, lambda self, *key, original=original: without(original(self, *key)))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                _, times, _ = clip.read(lambda times: np.arange(len(times)), lambda frame: None)
            assert len(times) == len(clip.info.frame_times) == 49
            assert (np.diff(times) > 0).all()

    @pytest.mark.parametrize("suffix", ["mkv", "avi", "flv"])
    def test_half_a_file_says_that_it_was_cut(self, make_clip, tmp_path, suffix):
        whole = make_clip(f"whole_to_cut.{suffix}", np.arange(100) / 25, sound=4.0)
        half = tmp_path / f"half.{suffix}"
        half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            length = probe(whole).duration
        assert length == pytest.approx(4, abs=0.2)
        with pytest.warns(
            UserWarning, match=rf"half.{suffix} is cut off: its header states 4\.\d s, but it ends after"
        ):
            info = probe(half)
        assert 0.5 < info.duration < 3.3

    def test_half_a_sound_file(self, make_clip, tmp_path):
        whole = make_clip("whole_to_cut.mka", [], sound=4.0)
        half = tmp_path / "half.mka"
        half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.warns(UserWarning, match="half.mka is cut off"):
            track = load_audio(half)
        assert 1 < track.samples.shape[1] / track.rate < 3

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("clip.srt", "1\n00:00:00,000 --> 00:00:01,000\nHello\n\n2\n00:00:01,000 --> 00:00:02,000\nthere\n"),
            ("clip.vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n"),
            ("clip.ass", "[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Start, End, Text\n"),
            ("clip.lrc", "[00:01.00]Hello\n[00:02.00]there\n"),
        ],
    )
    def test_subtitles_as_a_clip(self, tmp_path, name, text):
        path = tmp_path / name
        path.write_text(text)
        for function in (probe, load_audio):
            with pytest.raises(MediaError, match=rf"{name} has neither pictures nor sound, but subtitle.*utterances"):
                function(path)

    def test_a_picture_is_a_clip_of_one_frame(self, tmp_path):
        path = tmp_path / "picture.png"
        Image.fromarray(np.full((64, 96, 3), 80, np.uint8)).save(path)
        _, times, views = read(path, [0])
        assert times == [0.0] and views[0].mean() == pytest.approx(80, abs=2)


class TestSoundTracks:
    @pytest.fixture(scope="class")
    def two_tracks(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("tracks") / "two.mkv"
        with av.open(str(path), "w") as container:
            streams = []
            for rate, layout, language, title in (
                (16_000, "mono", "deu", "Kommentar"),
                (48_000, "stereo", "eng", None),
            ):
                stream = container.add_stream("aac", rate=rate, layout=layout)
                stream.metadata["language"] = language
                if title:
                    stream.metadata["title"] = title
                streams.append(stream)
            for stream, tone in zip(streams, (440, 880), strict=True):
                rate, channels = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
                wave = (0.5 * np.sin(2 * np.pi * tone * np.arange(2 * rate) / rate)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(
                    np.stack([wave] * channels), "fltp", stream.codec_context.layout.name
                )
                frame.rate = rate
                container.mux([*stream.encode(frame), *stream.encode()])
        return path

    def test_they_are_listed(self, two_tracks):
        info = probe(two_tracks)
        assert info.audio_track == 0
        assert [vars(track) for track in info.sound_tracks] == [
            {"index": 0, "language": "deu", "title": "Kommentar", "codec": "aac", "channels": 1, "rate": 16_000},
            {"index": 1, "language": "eng", "title": None, "codec": "aac", "channels": 2, "rate": 48_000},
        ]

    @pytest.mark.parametrize(
        ("choice", "tone"), [(None, 440), (0, 440), (1, 880), ("0", 440), ("deu", 440), ("eng", 880)]
    )
    def test_a_choice(self, two_tracks, choice, tone):
        assert tone_at(load_audio(two_tracks, choice), 0.7) == pytest.approx(tone, abs=8)

    @pytest.mark.parametrize("choice", [2, -1, "fra", "7"])
    def test_an_unknown_one_lists_those_there_are(self, two_tracks, choice):
        wrong = (
            f"two.mkv has no sound track {choice!r}; it has 0: aac, deu, Kommentar, 1 channels, 16000 Hz; 1: aac, eng"
        )
        with pytest.raises(MediaError, match=re.escape(wrong)):
            probe(two_tracks, choice)

    def test_a_clip_without_sound_has_none(self, make_clip):
        with pytest.raises(MediaError, match=r"silent.mp4 has no sound track 0; it has no sound"):
            load_audio(make_clip("silent.mp4", sound=None), 0)
