"""Train several detectors on one data set and print them side by side with the best baseline.

    python examples/compare_detectors.py headct ganomaly autoencoder fanogan

For tables with several seeds, paired tests and figures use a study: `make study STUDY=medical_images`.
"""

import argparse

import anomaly_lab as al


def main() -> None:
    """Parse the command line, do it, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="any of `make list`")
    parser.add_argument("detectors", nargs="+", help="any of `make list`")
    parser.add_argument("--budget", default="smoke", choices=["smoke", "laptop", "paper"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", default="runs", help="folder of the run folders")
    parser.add_argument("--size", type=int, default=64, help="height and width of all pictures")
    asked = parser.parse_args()
    data = {"patch_size": [asked.size, asked.size]}  # budgets choose others for some detectors

    rows = []
    for detector in asked.detectors:
        run = al.train(f"{detector}_{asked.dataset}", budget=asked.budget, seed=asked.seed, runs=asked.runs, data=data)
        rows.append((detector, run.metrics["detector"]["auroc"]))
    baselines = run.metrics["baselines"]  # the same for all: same pictures, same split
    rows += [(f"({name})", figures["auroc"]) for name, figures in baselines.items()]

    print(f"AUROC on {asked.dataset}, {run.provenance['source']} data, budget {asked.budget}, seed {asked.seed}")
    for name, auroc in sorted(rows, key=lambda row: -row[1]["value"]):
        print(f"{name:16s} {auroc['value']:.3f} {interval(auroc)}")


def interval(figure: dict[str, float | None]) -> str:
    """Write the interval of a figure; below five patients of a class it has none."""
    return "(too few patients for an interval)" if figure["low"] is None else "[{low:.3f}, {high:.3f}]".format(**figure)


if __name__ == "__main__":
    main()
