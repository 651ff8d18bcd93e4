"""Synthetic twin of MIAS: pairs of mammograms on film, a third of them with known abnormalities.

It does not depict any patient. Some rows are as unusual as real ones: two abnormalities that nearly coincide, one at
the edge of the film, one with a radius of 3 pixels, three in one film, and diffuse calcifications with a note or
nothing instead of a position.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from anomaly_lab.data.twins.drawing import smooth_noise, soft_step

FRAME, DRAWN = 1024, 256  # side in pixels: of the file, and of the grid on which tissue is drawn
CLASSES = ("CIRC", "CALC", "SPIC", "MISC", "ARCH", "ASYM")
_CLOSE, _NOTE, _EDGE, _NO_PLACE, _TINY, _THREE = 5, 9, 12, 16, 17, 24  # numbers of the unusual films
_HEAD = """              SYNTHETIC TWIN OF THE MINIMAMMOGRAPHIC DATABASE

1st column: film.  2nd column: tissue, F - Fatty, G - Fatty-glandular, D - Dense-glandular.
3rd column: class.  4th column: severity.  5th,6th columns: x,y of the centre.  7th column: radius.
3) Coordinate system origin is the bottom-left corner.

=================================================================

"""

_Place = tuple[int, int, int]  # row, column and radius, in pixels of the file


def write_twin(root: Path, seed: int, size: int) -> None:
    """Write `size` films in the official layout.

    Args:
        root: an existing, empty folder.
        seed: seed of all random choices; each film depends on (seed, its number) only.
        size: number of films; two are a woman's.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=2)
        ...     sorted(path.name for path in (Path(folder) / "all-mias").iterdir())
        ['Info.txt', 'mdb001.pgm', 'mdb002.pgm']
    """
    folder = root / "all-mias"
    folder.mkdir(parents=True)
    rows = []
    for number in range(1, size + 1):
        film, findings = _film(seed, number)
        header = f"P5\n{FRAME} {FRAME}\n255\n".encode()
        (folder / f"mdb{number:03d}.pgm").write_bytes(header + film.tobytes())
        rows += [f"mdb{number:03d} {finding}".ljust(20) for finding in findings]
    text = _HEAD + "\n".join(rows) + "\n\n" + "=" * 65 + "\n"
    (folder / "Info.txt").write_text(text, encoding="latin-1", newline="\r\n")


def _is_anomalous(number: int) -> bool:
    """Return whether a film is anomalous: a third of the women have two normal films, most others have one."""
    woman = (number + 1) // 2
    return woman % 3 != 1 and (woman % 30 == 0 or number % 2 == woman % 2 == 1 or number % 2 == woman % 2 == 0)


def _film(seed: int, number: int) -> tuple[np.ndarray, list[str]]:
    """Draw a film, uint8 [FRAME, FRAME]; return it and its rows of Info.txt without the name of the film."""
    rng = np.random.default_rng([seed, number])
    tissue = "FGD"[int(np.random.default_rng([seed, 0, (number + 1) // 2]).integers(3))]
    right = number % 2 == 1
    small, depth = _breast(rng, tissue)
    if not right:
        small, depth = small[:, ::-1], depth[:, ::-1]
    film = cv2.resize(np.ascontiguousarray(small), (FRAME, FRAME), interpolation=cv2.INTER_CUBIC)
    rows = [f"{tissue} NORM"]
    if _is_anomalous(number):
        rows = _findings(rng, number, tissue, film, depth)
    film = film + rng.normal(0, 2, (DRAWN, DRAWN)).astype(np.float32).repeat(4, 0).repeat(4, 1) * (film > 12)
    film = film.clip(0, 255).astype(np.uint8)
    _marks(rng, film, right)
    return film, rows


def _breast(rng: np.random.Generator, tissue: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw a right breast with the chest wall on the right.

    Returns:
        Grey levels and depth below the skin, both [DRAWN, DRAWN].
    """
    row, column = np.ogrid[:DRAWN, :DRAWN]
    wall, middle = rng.uniform(178, 205), rng.uniform(125, 160)
    below, above, reach = rng.uniform(75, 105), rng.uniform(190, 280), rng.uniform(85, 130)
    down = (row - middle) / np.where(row > middle, below, above)
    outline = reach * (1 - np.abs(down).clip(0, 1) ** 2.2) ** 0.8  # extent from the chest wall
    depth = (outline - (wall - column)) / reach + 0.02 * smooth_noise(rng, (DRAWN, DRAWN), 6)
    muscle = (wall - column) - rng.uniform(35, 60) * (
        1 - row / rng.uniform(80, 140)
    )  # distance from the pectoral muscle
    inside = soft_step(depth - 0.02, 0.04) * (column < wall) * (muscle > 0)
    dense = {"F": 15.0, "G": 35.0, "D": 65.0}[tissue]
    grey = rng.uniform(95, 130) * (1 - np.exp(-6 * depth.clip(0)))
    core = soft_step(depth - 0.45 + 0.15 * smooth_noise(rng, (DRAWN, DRAWN), 5), 0.5) * soft_step(
        1.1 - np.abs(down), 0.8
    )
    grey = grey + dense * core + rng.uniform(4, 8) * smooth_noise(rng, (DRAWN, DRAWN), 18) * (0.4 + core)
    for cells, strength in ((14, 14), (30, 22)):
        strands = np.exp(-((smooth_noise(rng, (DRAWN, DRAWN), cells) / 0.15) ** 2))  # at zero crossings of the noise
        grey = grey + rng.uniform(0.3, 1) * strength * strands
    grey = grey + rng.uniform(3, 9) * smooth_noise(rng, (DRAWN, DRAWN), 50)
    return (inside * grey + rng.uniform(1, 5)).astype(np.float32), np.where(inside > 0.9, depth, 0)


def _findings(rng: np.random.Generator, number: int, tissue: str, film: np.ndarray, depth: np.ndarray) -> list[str]:
    """Draw the abnormalities of a film into it and return their rows."""
    rows = []
    class_name = CLASSES[int(rng.integers(len(CLASSES)))]
    if number in {_NOTE, _NO_PLACE}:
        _spread(rng, film, depth)
        return [f"{tissue} CALC M" + (" *NOTE 3*" if number == _NOTE else "")]
    for place in _places(rng, number, depth):
        _draw(rng, film, class_name, place)
        row, column, radius = place
        rows.append(f"{tissue} {class_name} {rng.choice(['B', 'M'])} {column} {FRAME - row} {radius}")
    return rows


def _places(rng: np.random.Generator, number: int, depth: np.ndarray) -> list[_Place]:
    """Draw the positions of the abnormalities of a film; except for one, they keep away from the edge of the film."""
    edge = 16  # pixels of the drawing, 64 pixels of the file
    candidates = np.argwhere(depth[edge:-edge, edge:-edge] > 0.2) + edge
    drawn = candidates[rng.integers(len(candidates), size=3)] * (FRAME // DRAWN)
    radii = np.exp(rng.normal(np.log(60), 0.5, 3)).clip(14, 190).astype(int)
    places = [(int(row), int(column), int(radius)) for (row, column), radius in zip(drawn, radii, strict=True)]
    row, column, _ = places[0]
    if number == _CLOSE:
        return [(row, column, 30), (row - 20, column + 24, 26)]
    if number == _EDGE:
        return [(30, int(depth[30 // 4].argmax()) * 4, 29), places[1]]
    if number == _TINY:
        return [(row, column, 3)]
    return places if number == _THREE else places[:1]


def _draw(rng: np.random.Generator, film: np.ndarray, class_name: str, place: _Place) -> None:
    """Draw an abnormality of a class into the film, within its disc."""
    row, column, radius = place
    top, left = max(0, row - radius), max(0, column - radius)
    view = film[top : row + radius + 1, left : column + radius + 1]
    y, x = np.ogrid[top - row : top - row + view.shape[0], left - column : left - column + view.shape[1]]
    far, angle = np.hypot(y, x) / radius, np.arctan2(y, x)
    if class_name == "CALC":
        grains = rng.random(far.shape) < 12 / far.size
        shape = 3 * cv2.GaussianBlur((grains * (far < 0.9)).astype(np.float32) * 14, (0, 0), 1.5)
    elif class_name in {"SPIC", "ARCH"}:
        spokes = 0.5 + 0.5 * np.cos(rng.integers(7, 14) * angle + 2 * smooth_noise(rng, view.shape, 3))
        shape = soft_step((0.35 if class_name == "SPIC" else 0.1) + 0.6 * spokes - far, 0.4)
    else:
        rough = {"CIRC": 0.05, "MISC": 0.2, "ASYM": 0.35}[class_name] * smooth_noise(rng, view.shape, 4)
        shape = soft_step(0.7 - far + rough, 0.2 if class_name == "CIRC" else 0.6)
    # the last factor keeps the film outside the breast dark
    view += (8 + 70 * rng.random() ** 2) * shape * soft_step(1 - far, 0.1) * soft_step(view - 30, 40)


def _spread(rng: np.random.Generator, film: np.ndarray, depth: np.ndarray) -> None:
    candidates = np.argwhere(depth > 0.15) * (FRAME // DRAWN)
    for row, column in candidates[rng.integers(len(candidates), size=60)]:
        cv2.circle(film, (int(column), int(row)), int(rng.integers(1, 4)), 230, thickness=-1)


def _marks(rng: np.random.Generator, film: np.ndarray, right: bool) -> None:
    """Add a bright label and a scanner line at the top, as on many real films."""
    if rng.random() < 0.4:
        where = (int(rng.integers(20, 90)) if right else int(rng.integers(760, 830)), int(rng.integers(60, 140)))
        cv2.putText(film, "R MLO" if right else "L MLO", where, cv2.FONT_HERSHEY_SIMPLEX, 1.6, 250, 5)
    if rng.random() < 0.4:
        start = int(rng.integers(0, 400))
        film[:3, start : start + int(rng.integers(100, 500))] = 200
