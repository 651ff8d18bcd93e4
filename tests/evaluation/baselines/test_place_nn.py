"""The baseline has the scores of the detector local_nn on the same normals, because both have the same mathematics."""

import torch

from anomaly_lab.detectors.local_nn import LocalNN
from anomaly_lab.evaluation.baselines.baseline import Facts
from anomaly_lab.evaluation.baselines.place_nn import NearestAtPlaces
from anomaly_lab.evaluation.baselines.places import SIDE, STAGE


def test_the_detector_says_the_same():
    normals, others = torch.rand(6, 1, 32, 32), torch.rand(3, 1, 32, 32)
    baseline = NearestAtPlaces()
    baseline.fit(normals, Facts())
    detector = LocalNN((32, 32), stages=(STAGE,), side=SIDE, samples=6, batch_size=6, share=0.05)
    detector.load_pretrained()
    detector.places.gather(detector.described(normals))
    detector.learn()
    expected = detector.score({"image": others})
    found = torch.tensor([baseline.score(image) for image in others])
    torch.testing.assert_close(found, expected.anomaly_score, rtol=1e-4, atol=1e-5)
    maps = torch.stack([baseline.map(image) for image in others])
    torch.testing.assert_close(maps, expected.anomaly_map[:, 0], rtol=1e-3, atol=1e-3)
