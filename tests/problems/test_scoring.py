"""Free-form answers: what is read as the answer, what does not matter, and that no text takes long to judge."""

import json
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.problems.final_answer import answer_key
from normprobe.problems.scoring import matches, read_gold

RIGHT = {
    "boxes": [
        (r"So the value is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"so $x = 3$ or \boxed{1} , that is \boxed{042}", "42"),
        (r"\fbox{7} ", "7"),
        (r"\boxed{\text{B}}", "B"),
        (r"\(\boxed{\text{Paris}}\)", "Paris"),
        (r"\boxed{\$1{,}234}", "1234"),
        (r"\boxed{72 \text{ dollars}}", "72"),
    ],
    "what data sets write": [
        ("42", "5 * 8 + 2 = 42\n#### 42"),
        ("42", r"We find $\boxed{42}$."),
        ("City of Paris", json.dumps(["Paris", "City of Paris"])),
        ("0.5", r"$\frac{1}{2}$"),
    ],
    "numbers": [
        ("It costs 18 dollars for 3 of them: 1,234.50.", "1234.5"),
        ("The value is −5.", "-5"),
        ("The answer is 0.001", "1e-3"),
        ("The answer is .5", "0.5"),
        (r"1.5 \times 10^{3}", "1500"),
        ("It is about 2 million people.", "2000000"),
        ("It is 50%.", "50"),
        ("50%", "0.5"),
        ("1 1/2", "1.5"),
        ("½", "0.5"),
        (r"\boxed{1\frac{1}{2}}", r"\frac{3}{2}"),
        ("0.333333", "1/3"),
        ("The area is 5 cm^2", "5"),
        ("37 °C", "37"),
        ("12 apples", "12"),
        ("She earns $18 for 3 hours: $54.", "54"),
        ("The answer is 72. I checked 3 times.", "72"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("1. add: 2+3=5\n2. So the result is 25.\n", "25"),
        ("-7", "-7"),
    ],
    "mathematics": [
        (r"the probability is \frac{3}{4}", "0.75"),
        (r"\boxed{2^3}", "8"),
        (r"\boxed{x^2+2x+1}", "(x+1)^2"),
        (r"\boxed{[0,\infty)}", r"[0, \infty)"),
        (r"\boxed{(-\infty,1]\cup[2,\infty)}", r"(-\infty, 1] \cup [2, \infty)"),
        (r"\boxed{2,1}", "1,2"),
        ("The solutions are 1 and 2.", "1,2"),
        (r"\boxed{(2, 3)}", "(2,3)"),
        (r"\boxed{x = \pm 5}", "-5, 5"),
        (r"\boxed{\sqrt{2} \approx 1.414}", r"\sqrt{2}"),
        ("2π", r"2\pi"),
        (r"\boxed{p-q}", "p-q"),
    ],
    "letters": [
        ("(B)", "B"),
        ("B.", "(B)"),
        ("**B**", "B"),
        ("Answer: B", "B"),
        ("answer: b", "B"),
        ("The answer is (B) because A is wrong", "B"),
        ("A is wrong. B is wrong.\nC", "C"),
        (r"\boxed{D. Paris}", "D"),
        ("B, I think", "B"),
    ],
    "texts": [
        (" Paris. ", "paris"),
        ("new  york", "New York"),
        ("**The Eiffel Tower**", "Eiffel Tower"),
        ("The capital of France is **Paris**, a city.", "Paris"),
        ("The answer is Mt. Everest.", "Mt. Everest"),
        ("Yes, it is.", "yes"),
        ("The ratio is 3:4.", "3:4"),
    ],
}
WRONG = {
    "boxes": [
        (r"\boxed{41} 42", "42"),
        (r"we get \boxed{\frac{3}{4}} after 5 steps", "5"),
        (r"\boxed{}", "5"),
        (r"\boxed{1}, \boxed{2}", "1"),
    ],
    "nothing to judge": [("", ""), ("", "0"), (".", "."), ("42", r"\boxed{}"), ("42", "####"), ("[]", "[]")],
    "numbers": [
        ("42 or 43", "42"),
        ("7", "-7"),
        ("x = 10-5", "-5"),
        ("x - 5", "-5"),
        ("x = 5 + y", "5"),
        ("The answer is 5x.", "5"),
        ("H2O and m^2", "2"),
        ("12", "1,2"),
        ("(1,234)", "1234"),
        (r"$x=\frac{3}{4}$", "4"),
        ("5 million", "5"),
        ("12 Monkeys", "12 Angry Men"),
        ("He has 3 apples and 4 pears, so 7.", "3"),
        ("9007199254740993", "9007199254740992"),
        ("0.0000001", "0.0000002"),
        ("0.33", "1/3"),
        ("1e999999999", "1"),
    ],
    "mathematics": [
        (r"\boxed{(2,1)}", "(1,2)"),
        (r"\boxed{(1,2]}", "[1,2]"),
        (r"\boxed{\{1,2,3\}}", r"\{1,2\}"),
        ("23", "(2,3)"),
        (r"\boxed{10^{999}+1}", "10^{999}"),
        (r"\boxed{\sqrt{x^2}}", "x + 0"),
    ],
    "letters": [
        ("x^2 + C", "C"),
        ("b = 3", "B"),
        ("A good idea is to add", "A"),
        ("The answer is A or B", "A"),
        ("A. one\nB. two", "B"),
        ("AB", "B"),
    ],
    "texts": [("I will not say Paris today", "Paris"), ("No, it is not", "yes"), ("Not Paris", "Paris")],
}


@pytest.mark.parametrize("kind", RIGHT)
def test_right_answers(kind: str) -> None:
    assert [case for case in RIGHT[kind] if not matches(*case)] == []


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_answers(kind: str) -> None:
    assert [case for case in WRONG[kind] if matches(*case)] == []


@pytest.mark.parametrize("gold", ["", "  ", "####", r"\boxed{}", "$$", ".", "[]", '["Paris", ""]'])
def test_what_cannot_be_judged_matches_nothing(gold: str) -> None:
    assert read_gold(gold) == ()
    assert not matches(gold, gold)


@given(st.integers(-(10**30), 10**30))
def test_a_number_matches_however_it_is_written(n: int) -> None:
    for text in (
        f"the result is {n:,}.",
        rf"\boxed{{{n}}}",
        f"**Answer:** {n} apples",
        f"#### {n}.0",
        f"x = {n}",
    ):
        assert matches(text, str(n)), text
        assert not matches(text, str(n + 1)), text


@given(st.fractions(-1000, 1000, max_denominator=999))
def test_a_fraction_equals_itself_alone(value) -> None:
    sign, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    for text in (rf"\boxed{{{sign}\frac{{{top}}}{{{bottom}}}}}", f"The answer is {sign}{top}/{bottom}."):
        assert matches(text, str(value)), text
        assert not matches(text, str(value + 1)), text


@settings(deadline=None, max_examples=60)
@given(
    st.text(alphabet="12x+-*/^(){}[]\\, $.=\nAaB%!", max_size=60), st.sampled_from(["5", "B", "x+1", "is"])
)
def test_any_text_is_judged_without_an_error(answer: str, gold: str) -> None:
    assert matches(answer, gold) in (True, False)


@pytest.mark.parametrize(
    "text",
    [
        *("9^{9^{9^9}}", "9**9**9", "((9^{999})^{999})^{999}", "99999!", "100!!", "1e999999999", "1" * 5000),
        *("(x+y+z+w)^{99}", "x^{30}+y^{30}+z^{30}-(x+y+z)^{30}", "((x+1)^{30}+1)^{30}", "(" * 500, "{" * 500),
        *(
            r"\frac{1}{" * 100 + "1" + "}" * 100,
            r"\sum_{i=1}^{10^9} i",
            r"\int_0^1 e^{e^x} dx",
            r"\boxed{" * 9000,
        ),
        *("$5 " * 9000, "answer " * 9000, "x = " * 9000, r"\[" * 9000, "5*" * 9000, "1 or " * 9000),
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_long(text: str) -> None:
    matches("1", "x+1")  # loads what judges mathematics
    began = time.process_time()
    for answer, gold in ((rf"\boxed{{{text}}}", "x^2+1"), (text, "9"), ("y+1", text)):
        assert not matches(answer, gold)
    assert time.process_time() - began < 10


def test_a_thread_may_judge() -> None:
    found: list[bool] = []
    worker = threading.Thread(target=lambda: found.append(matches(r"\boxed{\sqrt{8}}", r"2\sqrt{2}")))
    worker.start()
    worker.join()
    assert found == [True]


@pytest.mark.parametrize(
    "same",
    [
        ["answer : 8", "The answer is 8.", r"So \boxed{8}", "It costs 3 + 5 = 8"],
        ["answer : Ada", "the answer is **ada**.", "Answer: Ada"],
        ["", "  \n"],
    ],
)
def test_answers_of_one_key_are_the_same_answer(same):
    keys = {answer_key(text) for text in same}
    assert len(keys) == 1
    assert keys.isdisjoint({answer_key("answer : 9"), answer_key("answer : Eve")})
