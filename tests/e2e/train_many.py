"""One of several processes that train experiments one after the other: `train_many.py WORD … -- EXPERIMENT,WORD,… …`.

The words before `--` hold for all experiments, those behind the commas for one. A start costs more than a tiny run.
"""

import sys

from anomaly_lab.pipeline import engine

if __name__ == "__main__":
    words, experiments = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    for experiment in experiments:
        name, *more = experiment.split(",")
        engine.train_by_name(name, [*words, *more])
