"""Joint intervals: sums by hand and over all pairs, what must hold, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from anomaly_lab.metrics import joint
from anomaly_lab.metrics.joint import FEWEST, Sample
from anomaly_lab.metrics.ranking import auroc


def judged(random, people=(40, 30), runs=3, cases=2, shift=0.8):
    """Runs that judge partly the same patients, normal and anomalous ones, and some with cases of both."""
    patients, drawn = people
    effect = random.normal(size=patients)
    samples = []
    for _ in range(runs):
        patient = np.repeat(random.permutation(patients)[:drawn], cases)
        label = (patient + np.arange(len(patient)) * (patient < 6)) % 2
        scores = effect[patient] + random.normal(size=(2, len(patient))) + shift * label
        samples.append(Sample(label, scores[0].round(1), patient, scores[1].round(1)))
    return samples


def by_loops(samples):
    """Mean and variance from the definition, pair by pair and patient by patient."""
    sums, values = [], []
    for label, score, patient, other in samples:
        kernel = {}
        for i in np.flatnonzero(label == 1):
            for j in np.flatnonzero(label == 0):
                psi = [(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for s in (score, other)]
                kernel[i, j] = psi[0] - psi[1]
        value = np.mean(list(kernel.values()))
        of_run = {0: {}, 1: {}}
        for case in range(len(label)):
            own = np.mean([psi for pair, psi in kernel.items() if case in pair])
            of_class = of_run[label[case]]
            of_class[patient[case]] = of_class.get(patient[case], 0) + (own - value) / (label == label[case]).sum()
        values.append(value)
        sums.append(of_run)
    covariance, runs = covariance_by_loops(sums), len(samples)
    shared = (covariance.sum() - covariance.trace()) / (runs * (runs - 1)) if runs > 1 else 0
    spread = np.var(values, ddof=1) / runs if runs > 1 else 0
    return np.mean(values), covariance.mean(), max(covariance.mean(), spread + shared)


def covariance_by_loops(sums):
    """Of each two runs: the products of their patients' sums, corrected as a variance is."""
    runs = len(sums)
    covariance = np.zeros((runs, runs))

    def unbiased(*counts):
        return math.prod(math.sqrt(n / (n - 1)) for n in counts)

    for r in range(runs):
        for s in range(runs):
            everyone = [len(sums[k][0].keys() | sums[k][1].keys()) for k in (r, s)]
            for c in (0, 1):
                for d in (0, 1):
                    factor = unbiased(len(sums[r][c]), len(sums[s][c])) if c == d else unbiased(*everyone)
                    for name in sums[r][c].keys() & sums[s][d].keys():
                        covariance[r, s] += factor * sums[r][c][name] * sums[s][d][name]
    return covariance


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_value_and_variance_are_the_definition_in_loops(runs):
    samples = judged(np.random.default_rng(runs), runs=runs)
    value, of_patients, variance = by_loops(samples)
    found = joint.auroc_difference(samples)
    assert found.value == pytest.approx(value)
    assert found.error_of_patients**2 == pytest.approx(of_patients)
    assert found.error_of_patients**2 + found.error_of_trainings**2 == pytest.approx(variance)
    given = joint.auroc_difference(samples, trainings=False)
    assert (given.error_of_patients, given.error_of_trainings) == (found.error_of_patients, 0.0)


def test_a_repeat_of_the_same_run_tells_nothing_new():
    (one,) = judged(np.random.default_rng(0), runs=1)
    for measure in (joint.auroc, joint.auroc_difference):
        once, often = measure([one]), measure([one] * 5)
        assert often.value == pytest.approx(once.value)
        assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_what_a_seed_changes_widens_the_interval():
    samples = judged(np.random.default_rng(1), people=(40, 40), runs=5)
    worse = [sample._replace(score=sample.score * (-1) ** k) for k, sample in enumerate(samples)]
    assert joint.auroc(worse).error_of_trainings > joint.auroc(samples).error_of_trainings
    assert joint.auroc(worse).high - joint.auroc(worse).low > 0.5


def test_names_of_patients_and_the_order_of_cases_and_runs_do_not_matter():
    samples = judged(np.random.default_rng(2))
    order = np.random.default_rng(3).permutation(len(samples[0].label))
    moved = [Sample(*(part[order] for part in sample)) for sample in samples[::-1]]
    named = [sample._replace(patient=np.array([f"p{n}" for n in sample.patient])) for sample in moved]
    expected = joint.auroc_difference(samples)
    for other in (moved, named):
        assert joint.auroc_difference(other)[:4] == pytest.approx(expected[:4])


def test_without_names_the_cases_of_runs_are_different_patients():
    (one,) = judged(np.random.default_rng(4), people=(30, 30), runs=1, cases=1)
    alone, two = one._replace(patient=None), joint.auroc([one._replace(patient=None)] * 2)
    assert two.error_of_patients == pytest.approx(joint.auroc([alone]).error_of_patients / math.sqrt(2))
    assert sum(two.patients) == 60


@pytest.mark.parametrize(("normal", "anomalous"), [(FEWEST - 1, 50), (50, FEWEST - 1), (0, 50)])
def test_below_five_patients_of_a_class_there_is_no_interval(normal, anomalous):
    label = np.repeat([0, 1], [3 * normal, 3 * anomalous])
    patient, score = np.arange(len(label)) // 3, np.arange(len(label)) % 7.0
    found = joint.auroc([Sample(label, score, patient)] * 3)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.patients == (normal, anomalous)
    assert "an interval needs 5 of each" in joint.too_few(*found.patients)
    assert math.isnan(joint.from_replicates([0.5], np.random.default_rng(0).random((1, 99)), found.patients).low)


def test_separated_classes_are_clopper_and_pearsons_k_of_k():
    for k, more in ((25, 100), (5, 7)):
        sample = Sample(np.repeat([0, 1], [k, more]), np.arange(k + more, dtype=float), np.arange(k + more))
        expected = stats.binomtest(k, k).proportion_ci(0.95, "exact")
        assert joint.auroc([sample])[1:3] == pytest.approx((expected.low, expected.high))
        reverse = sample._replace(score=-sample.score)
        assert joint.auroc([reverse])[1:3] == pytest.approx((1 - expected.high, 1 - expected.low))
        assert joint.auroc([sample] * 3)[1:3] == pytest.approx((expected.low, expected.high))
    constant = joint.auroc([Sample(np.repeat([0, 1], 25), np.zeros(50))])
    assert (constant.low, constant.high) == pytest.approx((0.5 * 0.025 ** (1 / 25), 1 - 0.5 * 0.025 ** (1 / 25)))


def test_patients_with_cases_of_both_classes_make_half_as_many_pairs():
    label, patient = np.tile([0, 1], 10), np.repeat(np.arange(10), 2)
    found = joint.auroc([Sample(label, label + 0.01 * patient, patient)])
    assert found.low == pytest.approx(0.025 ** (1 / 5))


def test_two_methods_that_separate_are_not_known_to_be_equal_but_one_method_is_equal_to_itself():
    label, score = np.repeat([0, 1], 25), np.arange(50.0)
    shuffled = np.r_[score[:25][::-1], score[25:]]
    two = joint.auroc_difference([Sample(label, score, None, shuffled)])
    assert (two.value, two.p) == (0, 1)
    assert two.low == -two.high == pytest.approx(0.025 ** (1 / 25) - 1)
    same = joint.auroc_difference([Sample(label, score, None, np.exp(score / 9))])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_intervals_stay_within_their_range_and_hold_their_value():
    random = np.random.default_rng(5)
    for shift in (-4, -1, 0, 2, 4):
        samples = judged(random, shift=shift)
        share, difference = joint.auroc(samples), joint.auroc_difference(samples)
        assert 0 <= share.low <= share.value <= share.high <= 1
        assert -1 <= difference.low <= difference.value <= difference.high <= 1
        assert (difference.low > 0 or difference.high < 0) == (difference.p < 0.05)


def test_a_share_of_replicates_is_covered_as_its_closed_form():
    """The bootstrap's covariance gives an AUROC about the interval that its placement values give."""
    random = np.random.default_rng(6)
    samples = judged(random, people=(80, 60), cases=1)
    closed = joint.auroc(samples)
    values = [auroc(sample.label, sample.score) for sample in samples]
    drawn = np.empty((3, 400))
    names = np.arange(80)
    of_class = [np.concatenate([s.patient[s.label == value] for s in samples]) for value in (0, 1)]
    for b in range(400):
        count = np.zeros(80, int)
        for value in (0, 1):
            pool = np.intersect1d(names, of_class[value])
            count += np.bincount(random.choice(pool, len(pool)), minlength=80)
        for run, sample in enumerate(samples):
            times = count[sample.patient]
            drawn[run, b] = auroc(sample.label.repeat(times), sample.score.repeat(times))
    found = joint.from_replicates(values, drawn, closed.patients)
    assert found.value == pytest.approx(closed.value)
    assert found.high - found.low == pytest.approx(closed.high - closed.low, rel=0.25)


# Coverage: seeds draw 25 test normals of 100, train on the others, and judge 100 anomalous patients.


def trained(normals, random):
    """A detector: mean and scale of training normals, features weighted at random as trainings vary."""
    return normals.mean(0), np.exp(0.35 * random.normal(size=normals.shape[1])) / normals.var(0)


def distance(model, x):
    return (np.square(x - model[0]) * model[1]).sum(1)


def simulated(seeds, times, features=12, shift=1.1):
    """Estimates of one method and of the difference of two that are equally good, and the method's true AUROC."""
    random = np.random.default_rng(seeds)
    moved = np.r_[[shift] * 4, [0.0] * (features - 4)]
    label = np.repeat([0, 1], [25, 100])
    means, differences, truths = [], [], []

    def people(n, anomalous):
        """Two views of each patient, one a method."""
        scale = np.exp(0.12 * random.normal(size=(n, 1)))
        return [random.normal(size=(n, features)) * scale + anomalous * moved for _ in range(2)]

    elsewhere = [people(4000, anomalous)[0] for anomalous in (0, 1)]
    for _ in range(times):
        normal, anomalous = people(100, 0), people(100, 1)
        samples = []
        for _ in range(seeds):
            order = random.permutation(100)
            models = [trained(view[order[25:]], random) for view in normal]
            scores = [
                np.r_[distance(model, view[order[:25]]), distance(model, ill)]
                for model, view, ill in zip(models, normal, anomalous, strict=True)
            ]
            samples.append(Sample(label, scores[0], np.r_[order[:25], 100 + np.arange(100)], scores[1]))
        if len(truths) < 60:
            scores = np.concatenate([distance(models[0], view) for view in elsewhere])
            truths.append(auroc(np.repeat([0, 1], 4000), scores))
        means.append(joint.auroc(samples))
        differences.append(joint.auroc_difference(samples))
    return means, differences, float(np.mean(truths))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_joint_intervals_over_seeds_hold_what_they_say(seeds):
    means, differences, truth = simulated(seeds, times=700)
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in means])
    wrong = np.mean([estimate.p < 0.05 for estimate in differences])
    assert 0.6 < truth < 0.9
    assert 0.92 <= covered <= 0.975, covered
    assert 0.02 <= wrong <= 0.075, wrong


def single(area, patients, cases, times, within=0.5):
    """How often the interval of one run holds, with several correlated cases a patient, and how often DeLong's does."""
    random = np.random.default_rng(0)
    normal, anomalous = patients
    shift = math.sqrt(2) * stats.norm.ppf(area)
    patient = np.repeat(np.arange(normal + anomalous), cases)
    label = (patient >= normal).astype(int)
    held, plain = [], []
    for _ in range(times):
        effect = random.normal(size=normal + anomalous)[patient]
        score = math.sqrt(1 - within) * effect + math.sqrt(within) * random.normal(size=len(label)) + shift * label
        found = joint.auroc([Sample(label, score, patient)])
        held.append(found.low <= area <= found.high)
        plain.append(abs(found.value - area) <= 1.96 * found.error_of_patients)
    return np.mean(held), np.mean(plain)


@pytest.mark.slow
@pytest.mark.parametrize("area", [0.65, 0.82, 0.95, 0.99])
def test_logit_delong_holds_near_one_where_delong_does_not(area):
    held, plain = single(area, (25, 100), cases=1, times=2000)
    assert 0.925 <= held <= 0.975, held
    assert held >= plain
    if area == 0.99:
        assert plain < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("patients", [(5, 5), (5, 40), (10, 10), (30, 30)])
def test_intervals_by_patient_hold_with_several_cases_each(patients):
    for area in (0.75, 0.92):
        held, plain = single(area, patients, cases=6, times=1000)
        assert held >= 0.92, (area, held)
        assert held >= plain


@pytest.mark.slow
def test_the_bound_of_separated_classes_holds():
    """At an AUROC of .999, most samples of 8 + 8 are separated: [1, 1] would hold in none of them."""
    held, plain = single(0.999, (8, 8), cases=1, times=1000)
    assert held >= 0.95
    assert plain < 0.2
