"""PaDiM: what flows where."""

from drawing import Arrow, Panel, freeze, net, output, source
from panels import LARGE


def panels() -> list[Panel]:
    features = net("features", (1.3, 0), "features", "Lite0, 2 stages", frozen=True, width=112)
    places = net("places", (2.9, 0), "places", "64 Gaussians", width=112)
    gather = {"x": source("x", (0, 0), "normal"), "F": features, "P": places}
    scoring = {
        "x": source("x", (0, 0)),
        "F": features,
        "P": places,
        "map": output("map", (4.15, 0), "Mahalanobis"),
        "score": output("score", (4.15, 1), "mean of the top 5 %"),
    }
    flow = [Arrow("x", "F", shape=LARGE), Arrow("F", "P", "f", "40×8×8")]
    ends = [Arrow("P", "map"), Arrow("map", "score", leave="bottom", enter="top")]
    return [
        Panel("gather", "mean and covariance at each place", gather, flow),
        Panel("", "a distance at each place", freeze(scoring), [*flow, *ends]),
    ]
