"""Speed of AnoGAN's latent search: 64 queries at once against one by one, weights frozen; in CPU seconds per query."""

import time

import torch

from anomaly_lab.detectors.anogan import AnoGAN

Times = dict[str, list[float]]
QUERIES = 64
STEPS = 10  # per search; every step costs the same, so a few suffice
PAIRS = (("search at once", "search one by one"), ("search at once bf16", "search one by one"))  # (ours, reference)


def latent_search(rounds: int, side: int = 32) -> Times:
    """Time latent searches for random images at the published network widths.

    Args:
        rounds: recorded rounds, after one warm-up round.
        side: image size in pixels: 32 as in adGAN's paper, 64 as in AnoGAN's.

    Returns:
        CPU seconds per query by name, one value per round.
    """
    fp32, bf16 = (_detector(side, precision) for precision in ("fp32", "bf16"))
    image = torch.rand(QUERIES, 1, side, side) * 2 - 1
    start = fp32.starts(image)[0]
    times: Times = {name: [] for pair in PAIRS for name in pair}
    for round_number in range(rounds + 1):
        clock = [time.process_time()]
        fp32.search(image, start)
        clock.append(time.process_time())
        bf16.search(image, start)
        clock.append(time.process_time())
        for i in range(QUERIES // 4):
            fp32.descend_together(image[i : i + 1], start[i : i + 1])  # `search` would pad it to a full group
        clock.append(time.process_time())
        if round_number:
            times["search at once"].append((clock[1] - clock[0]) / QUERIES)
            times["search at once bf16"].append((clock[2] - clock[1]) / QUERIES)
            times["search one by one"].append((clock[3] - clock[2]) / (QUERIES // 4))
    return times


def _detector(side: int, precision: str) -> AnoGAN:
    torch.manual_seed(0)
    detector = AnoGAN((side, side), search_steps=STEPS, search_precision="bf16" if precision == "bf16" else "fp32")
    return detector.to(memory_format=torch.channels_last).eval()
