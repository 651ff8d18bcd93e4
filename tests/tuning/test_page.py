"""The page says whether the gain holds on other lesions, what is chance and what is a twin; hostile texts stay text."""

import optuna
import pytest

from anomaly_lab.tuning.page import Told, render
from anomaly_lab.tuning.space import Parameter

SPACE = (Parameter("detector.lr", "log", (1e-4, 1e-2)), Parameter("detector.augment_d", "choice", ("none", "ada")))


def study(count: int) -> optuna.Study:
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(count):
        trial = made.ask()
        lr = SPACE[0].suggest(trial)
        SPACE[1].suggest(trial)
        trial.set_user_attr("kinds", {"disc": 0.7})
        made.tell(trial, 0.5 + 10 * lr)
    return made


def told(count: int, held_back: dict, own: int | None = 0, **more: object) -> Told:
    made = study(count)
    return Told("pca_headct", ("budget=smoke",), SPACE, made, made.best_trial.number, own, held_back, **more)


@pytest.mark.parametrize(
    ("best", "own", "said"),
    [(0.8, 0.6, "The gain holds"), (0.5, 0.6, "The gain does not hold on other lesions")],
)
def test_the_verdict_is_that_of_other_lesions(best: float, own: float, said: str) -> None:
    number = study(8).best_trial.number
    assert number != 0
    held_back = {str(number): {"auroc": best, "kinds": {"blur": best}}, "0": {"auroc": own, "kinds": {"blur": own}}}
    page = render(told(8, held_back))
    assert said in page
    assert "blur (chose nothing)" in page


def test_charts_come_with_enough_trials() -> None:
    titles = ("History", "Which settings matter", "What was tried")
    shown = [[title in render(told(count, {})) for title in titles] for count in (1, 3, 8)]
    assert shown == [[True, False, False], [True, False, True], [True, True, True]]


def test_twin_budget_and_few_normals_stand_beside_the_figures() -> None:
    page = render(told(3, {}, source="twin", normals=7, budget="smoke"))
    assert all(each in page for each in ("Synthetic twin", "Reduced budget", "planted on 7 validation normals"))
    assert "Synthetic twin" not in render(told(3, {}, source="real", normals=70, budget="paper"))


def test_an_error_with_markup_is_text() -> None:
    made = optuna.create_study(direction="maximize")
    trial = made.ask()
    trial.set_user_attr("error", "<script>alert(1)</script>")
    made.tell(trial, state=optuna.trial.TrialState.FAIL)
    page = render(Told("<b>x</b>", (), SPACE, made, None, None, {}))
    assert "<script>alert" not in page
    assert "<b>x</b>" not in page
