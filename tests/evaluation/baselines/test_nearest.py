"""The nearest normal against scikit-learn."""

import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors

from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.nearest import Nearest


def test_equals_scikit_learn():
    train, others = torch.rand(30, 1, 32, 48), torch.rand(8, 1, 32, 48)
    baseline = Nearest()
    baseline.fit(train, Facts())
    small = [F.avg_pool2d(images, (2, 3)).flatten(1).double().numpy() for images in (train, others)]
    distance, _ = NearestNeighbors(n_neighbors=1).fit(small[0]).kneighbors(small[1])
    found = torch.tensor([baseline.score(image) for image in others], dtype=torch.float64)
    torch.testing.assert_close(found, torch.from_numpy(distance[:, 0] ** 2 / 256))


def test_the_map_shows_where_it_differs():
    train = torch.rand(5, 1, 32, 32)
    baseline, image = Nearest(), train[3].clone()
    baseline.fit(train, Facts())
    image[:, 8:12, 20:24] += 1
    found = baseline.map(image)
    assert found[8:12, 20:24].min() > 0.9
    assert found.sum() < 17
    assert baseline.score(train[3]) == 0
