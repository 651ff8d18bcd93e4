"""Speed of AnoGAN's search: 64 queries at once against one by one, weights frozen; in processor seconds a query."""

import time

import torch

from anomaly_lab.detectors.anogan import AnoGAN

Times = dict[str, list[float]]
QUERIES = 64
STEPS = 10  # of a search; every step costs the same
PAIRS = (("search at once", "search one by one"), ("search at once bf16", "search one by one"))  # what is compared


def latent_search(rounds: int, side: int = 32) -> Times:
    """Searches of random pictures with the published widths; `side`: 32 as in adGAN's paper, 64 as in AnoGAN's."""
    exact, rough = (_detector(side, precision) for precision in ("fp32", "bf16"))
    image = torch.rand(QUERIES, 1, side, side) * 2 - 1
    start = exact.starts(image)[0]
    times: Times = {name: [] for pair in PAIRS for name in pair}
    for counted in range(rounds + 1):
        began = [time.process_time()]
        exact.search(image, start)
        began.append(time.process_time())
        rough.search(image, start)
        began.append(time.process_time())
        for i in range(QUERIES // 4):
            exact.descend_together(image[i : i + 1], start[i : i + 1])  # not `search`, which fills a group up
        began.append(time.process_time())
        if counted:
            times["search at once"].append((began[1] - began[0]) / QUERIES)
            times["search at once bf16"].append((began[2] - began[1]) / QUERIES)
            times["search one by one"].append((began[3] - began[2]) / (QUERIES // 4))
    return times


def _detector(side: int, precision: str) -> AnoGAN:
    torch.manual_seed(0)
    detector = AnoGAN((side, side), search_steps=STEPS, search_precision="bf16" if precision == "bf16" else "fp32")
    return detector.to(memory_format=torch.channels_last).eval()
