from anomaly_lab.serving.meter import BOUNDS, Meter


def test_the_histogram_is_cumulative_and_ends_in_all() -> None:
    meter = Meter()
    for seconds in (0.001, 0.01, 0.02, 1e6):
        meter.note("/score", 200, seconds)
    meter.note("/map", 422, 1.0)
    lines = meter.text({"waiting": ("Waiting.", 3)}).splitlines()
    buckets = [
        int(line.split()[1]) for line in lines if line.startswith('anomaly_lab_request_seconds_bucket{path="/score"')
    ]
    assert len(buckets) == len(BOUNDS) + 1
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[1], buckets[-1]) == (2, 3, 4)
    assert 'anomaly_lab_requests_total{path="/map",status="422"} 1' in lines
    assert 'anomaly_lab_request_seconds_count{path="/score"} 4' in lines
    assert "anomaly_lab_waiting 3" in lines
    families = [line for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) == 3
