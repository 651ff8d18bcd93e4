"""Score new pictures, volumes or DICOM files with a trained run, without the data it was trained on.

    python examples/score_new_pictures.py runs/ganomaly_folder/20260101-120000-laptop-1a2b new/*.png

Prints a line for each: the raw score (higher = more anomalous), the conformal p-value against the run's validation
normals, and whether the score lies above the run's threshold; of a run without validation normals only the score.
"""

import argparse

import anomaly_lab as al


def main() -> None:
    """Parse the command line, do it, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("scans", nargs="+", help="pictures, volumes, DICOM files or folders of a series")
    asked = parser.parse_args()

    scorer = al.load(asked.run)
    known = "no threshold" if scorer.threshold is None else f"threshold {scorer.threshold:.4g}"
    print(f"{known}; {len(scorer.normals)} validation normals to compare with")
    for path in asked.scans:
        scored = scorer.score(path)
        judged = "" if scored.p_value is None else f", p {scored.p_value:.2f}"
        if scored.is_anomalous is not None:
            judged += ", anomalous" if scored.is_anomalous else ", normal"
        print(f"{path}: score {scored.score:.4g}{judged}")


if __name__ == "__main__":
    main()
