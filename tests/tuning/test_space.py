"""What stands on the command line becomes values of the right kind, or one line that says what is wrong."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.tuning.space import Parameter, read_space, word
from anomaly_lab.types import UserError


class Asked:
    """Takes down what is asked of a trial."""

    def suggest_float(self, name, low, high, *, log=False):
        return ("float", low, high, log)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return ("int", low, high, step, log)

    def suggest_categorical(self, name, choices):
        return ("choice", *choices)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("a.lr=log(1e-5,1e-2)", ("float", 1e-5, 1e-2, True)),
        ("a.w=uniform(0, .5)", ("float", 0.0, 0.5, False)),
        ("a.n=int(2,8)", ("int", 2, 8, 1, False)),
        ("a.n=int(2,8,2)", ("int", 2, 8, 2, False)),
        ("a.n=logint(4,64)", ("int", 4, 64, 1, True)),
        ("a.x=choice(none, ada,3,null,true)", ("choice", "none", "ada", 3, None, True)),
    ],
)
def test_a_term_is_asked_of_the_trial(text: str, asked: tuple) -> None:
    (parameter,) = read_space(text)
    assert parameter.suggest(Asked()) == asked


def test_terms_are_separated_by_blanks_commas_and_lines() -> None:
    assert [each.key for each in read_space(" a.b=log(1,2), c.d=int(1,2)\n e.f=choice(x,y) ")] == ["a.b", "c.d", "e.f"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "says what may change"),
        ("detector.lr", "is no term"),
        ("a=log(1,2) rest", "'rest' is no term"),
        ("a=log(1,2", "is no term"),
        ("a=normal(0,1)", "no kind normal"),
        ("a=log(0,1)", "above 0"),
        ("a=log(2,1)", "first end must lie below"),
        ("a=uniform(1,1)", "first end must lie below"),
        ("a=uniform(1)", "two ends"),
        ("a=uniform(1,2,3)", "two ends"),
        ("a=uniform(x,2)", "numbers"),
        ("a=uniform(true,2)", "numbers"),
        ("a=uniform(nan,2)", "first end"),
        ("a=int(1,2.5)", "integers"),
        ("a=int(1,9,0)", "at least 1"),
        ("a=choice(1)", "two different"),
        ("a=choice(1,1)", "two different"),
        ("a=choice([,])", "no value"),
        ("a=log(1,2) a=log(1,3)", "named twice"),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        read_space(text)
    assert "\n" not in str(error.value)


@given(st.text(alphabet="ab.=(),log int choice 1-e", max_size=40))
def test_no_text_is_a_traceback(text: str) -> None:
    with suppress(UserError):
        read_space(text)


def test_own_values_are_known_to_lie_inside() -> None:
    assert Parameter("a", "int", (2, 8, 2)).holds(4)
    assert not Parameter("a", "int", (2, 8, 2)).holds(5)
    assert not Parameter("a", "log", (1.0, 2.0)).holds("1.5")
    assert not Parameter("a", "log", (1.0, 2.0)).holds(True)
    assert Parameter("a", "choice", ("x", None)).holds(None)
    assert not Parameter("a", "choice", (1, 2)).holds(True)


def test_words_keep_their_kind() -> None:
    assert [word("a", value) for value in (True, None, "null", 1e-5)] == ["a=true", "a=null", 'a="null"', "a=1e-05"]
