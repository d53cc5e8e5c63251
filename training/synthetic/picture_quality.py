"""What stands behind a person, and what a camera and a codec make of a picture."""

from dataclasses import dataclass

import numpy as np

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]


def draw_backdrop(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draws a background: plain, a gradient, soft noise, or a room of blurred shapes.

    Args:
        size (`tuple[int, int]`): The width and height in pixels.
        rng (`np.random.Generator`): The generator of the choices.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: The uint8 RGB picture.
    """
    width, height = size
    kind = rng.integers(4)
    colors = np.clip(rng.uniform(15, 240, (4, 1)) + rng.normal(0, 25, (4, 3)), 0, 255).astype(np.float32)
    if kind == 0:
        return np.broadcast_to(colors[0].round().astype(np.uint8), (height, width, 3)).copy()
    if kind == 1:
        corners = colors.reshape(2, 2, 3)
        picture = cv2.resize(corners, size, interpolation=cv2.INTER_LINEAR)
    elif kind == 2:
        cells = int(rng.integers(3, 24))
        noise = rng.normal(0, rng.uniform(10, 60), (cells, cells, 1)) + rng.normal(0, 12, (cells, cells, 3))
        picture = cv2.resize((noise + colors[0]).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    else:
        picture = np.broadcast_to(colors[0], (height, width, 3)).astype(np.float32).copy()
        for _ in range(int(rng.integers(3, 12))):
            color = np.clip(rng.uniform(10, 245) + rng.normal(0, 30, 3), 0, 255).tolist()
            corner = (rng.uniform(-0.1, 1, 2) * size).astype(int)
            far = corner + (rng.uniform(0.05, 0.5, 2) * size).astype(int) + 1
            if rng.random() < 0.7:
                cv2.rectangle(picture, corner.tolist(), far.tolist(), color, cv2.FILLED)
            else:
                cv2.circle(picture, corner.tolist(), int((far - corner).min()), color, cv2.FILLED)
        picture = cv2.GaussianBlur(picture, (0, 0), max(0.3, rng.uniform(0.002, 0.04) * width))
    return picture.clip(0, 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Quality:
    """Tells what a camera and a codec do to every frame of a clip.

    Attributes:
        gamma (`float`, *optional*, defaults to 1.0): The exponent of the brightness.
        contrast (`float`, *optional*, defaults to 1.0): The factor of the difference from medium grey.
        gains (`tuple[float, float, float]`, *optional*, defaults to ones): The factors of red, green and blue.
        side_light (`tuple[float, float]`, *optional*, defaults to zeros):
            How much brighter it is at the right and bottom edge than in the middle, as a share.
        grey (`bool`, *optional*, defaults to `False`): Whether there are no colours.
        blur (`float`, *optional*, defaults to 0.0): The standard deviation of the blur, over the picture's width.
        grain (`float`, *optional*, defaults to 0.0): The standard deviation of the noise in grey levels.
        compression (`int`, *optional*): The quality of JPEG, 1 to 100; none if it is `None`.
    """

    gamma: float = 1.0
    contrast: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    side_light: tuple[float, float] = (0.0, 0.0)
    grey: bool = False
    blur: float = 0.0
    grain: float = 0.0
    compression: int | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float = 1.0) -> "Quality":
        """Draws a quality as clips have it: most are fair, some are poor.

        Args:
            rng (`np.random.Generator`): The generator of the choices.
            strength (`float`, *optional*, defaults to 1.0): A factor of all changes; 0 leaves pictures as they are.

        Returns:
            [`Quality`]: The quality.
        """
        uniform, normal, chance = rng.uniform, rng.normal, rng.random
        return cls(
            gamma=float(np.exp(strength * normal(0, 0.2))),
            contrast=1 + strength * uniform(-0.3, 0.2),
            gains=tuple((1 + strength * np.clip(normal(-0.03, 0.13) + normal(0, 0.05, 3), -0.4, 0.35)).tolist()),
            side_light=tuple((strength * (chance() < 0.5) * uniform(-0.45, 0.45, 2) * [1, 0.5]).tolist()),
            grey=bool(chance() < 0.12 * strength),
            blur=strength * (chance() < 0.5) * 0.006 * chance() ** 2,
            grain=strength * (chance() < 0.5) * uniform(0, 14),
            compression=int(100 - strength * uniform(10, 80)) if chance() < 0.5 * strength else None,
        )

    def apply(self, frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Changes a frame.

        Args:
            frame (`np.ndarray` of shape `(H, W, 3)`): The uint8 RGB frame.
            rng (`np.random.Generator`): The generator of the grain, which differs from frame to frame.

        Returns:
            `np.ndarray` of shape `(H, W, 3)`: The changed uint8 frame.
        """
        height, width = frame.shape[:2]
        levels = 255 * (np.arange(256) / 255) ** self.gamma
        levels = 127.5 + self.contrast * (levels - 127.5)
        tables = np.stack([np.clip(levels * gain, 0, 255) for gain in self.gains], -1).round().astype(np.uint8)
        picture = cv2.LUT(frame, tables[:, None])
        if any(self.side_light) or self.blur or self.grain:
            soft: np.ndarray = picture.astype(np.float32)
            if any(self.side_light):
                right, bottom = self.side_light
                across = np.linspace(-right, right, width, dtype=np.float32)
                down = np.linspace(-bottom, bottom, height, dtype=np.float32)
                soft *= (1 + across + down[:, None])[..., None].clip(0)
            if self.blur:
                soft = cv2.GaussianBlur(soft, (0, 0), max(0.2, self.blur * width))
            if self.grain:
                soft += self.grain * rng.standard_normal((height, width, 1), np.float32)
            picture = soft.clip(0, 255).round().astype(np.uint8)
        if self.grey:
            picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if self.compression is not None:
            _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, max(1, self.compression)])
            picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        return picture
