"""Train a detector on a folder of your own pictures and print how well it does.

    python examples/train_on_your_pictures.py my_pictures
    python examples/train_on_your_pictures.py my_pictures --detector fanogan --budget laptop

`my_pictures` holds a sub-folder `normal` and one for each kind of anomaly. Without a folder the synthetic twin is
used.
"""

import argparse

import anomaly_lab as al

INTERVAL = "[{low:.3f}, {high:.3f}]"


def main() -> None:
    """Parse the command line, do it, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="your pictures")
    parser.add_argument("--detector", default="ganomaly", help="any of `make list`")
    parser.add_argument("--budget", default="smoke", choices=["smoke", "laptop", "paper"])
    parser.add_argument("--runs", default="runs", help="folder of the run folders")
    asked = parser.parse_args()

    data = {"root": asked.folder} if asked.folder else {"source": "twin"}
    run = al.train(f"{asked.detector}_folder", budget=asked.budget, runs=asked.runs, data=data)

    auroc, versus = run.metrics["detector"]["auroc"], run.metrics["versus_baselines"]
    few = auroc["low"] is None  # below five patients of a class
    print(f"AUROC {auroc['value']:.3f}", "(too few patients for an interval)" if few else INTERVAL.format(**auroc))
    print(f"best baseline: {versus['best']}; {versus['sentence']}")
    print(f"report: {run.report}")


if __name__ == "__main__":
    main()
