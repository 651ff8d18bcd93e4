"""MIAS folders made on the spot: a list with the structure and counts of the official one, pictures only on demand."""

from pathlib import Path

import numpy as np

TEXT = """              MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY
    popular request the original MIAS Database (digitised at 50 micron
7th column: Approximate radius (in pixels) of a circle enclosing
            the abnormality.
See http://example.org/miasdb/miasdb.html, mail to nobody.
=================================================================

"""
PLACES = {
    5: ["477 133 30", "500 168 26"],
    59: [""],
    132: ["252 788 52", "335 766 18"],
    144: ["233 994 29", "313 540 27"],
    212: ["687 882 3"],
    216: ["*NOTE 3*"],
    223: ["523 482 29", "591 529 6"],
    226: ["287 610 7", "329 550 25", "531 721 8"],
    233: ["*NOTE 3*"],
    239: ["645 755 40", "567 808 30"],
    245: ["*NOTE 3*"],
    249: ["544 508 48", "575 639 64"],
}
KINDS = ("CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM")


def anomalous_films() -> list[int]:
    """115 numbers: those with peculiar rows, then one film of each pair, then the other of some."""
    order = [*PLACES, *range(1, 203, 2), *range(2, 323, 2)]
    return sorted(list(dict.fromkeys(order))[:115])


def rows() -> list[str]:
    """330 rows: 207 normal films, 123 findings on 115 films, 119 of them with a place."""
    lines = []
    for number in range(1, 323):
        if number not in anomalous_films():
            lines.append(f"mdb{number:03d} {'FGD'[number % 3]} NORM ")
            continue
        for place in PLACES.get(number, [f"{300 + number} {700 - number} {10 + number % 90}"]):
            lines.append(f"mdb{number:03d} {'FGD'[number % 3]} {KINDS[number % 6]} {'BM'[number % 2]} {place}")
    return lines


def write_mias(root: Path, lines: list[str], films: list[str] | None = None) -> Path:
    """Write Info.txt and empty pictures, all those listed unless told otherwise."""
    folder = root / "all-mias"
    folder.mkdir(parents=True)
    text = TEXT + "\n".join(lines) + "\n\n" + "=" * 65 + "\n"
    (folder / "Info.txt").write_text(text, encoding="latin-1", newline="\r\n")
    for film in films if films is not None else {line.split()[0] for line in lines}:
        (folder / f"{film}.pgm").touch()
    return root


def write_film(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H, W] the way the official files are."""
    path.write_bytes(f"P5\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode() + pixels.tobytes())


def film(left: bool = True, disc: tuple[int, int, int] | None = None) -> np.ndarray:
    """A breast at one side of the frame, x and y from the bottom-left corner; a disc (x, y, radius) in white."""
    y, x = np.ogrid[1024:0:-1, :1024]  # the lowest row has y = 1
    across = x - 256 if left else 768 - x
    pixels = np.where((across >= 0) & (np.hypot(across / 400, (y - 512) / 480) < 1), 110, 3)
    pixels += np.random.default_rng(0).integers(0, 3, pixels.shape)
    if disc is not None:
        pixels[np.hypot(x - disc[0], y - disc[1]) <= disc[2]] = 250
    return pixels.astype(np.uint8)
