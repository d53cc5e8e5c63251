"""How written label lists and group lists are read, with the forms that the real prediction files hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microemo.evaluation.emotion_labels import parse_groups, parse_labels

LONG = (
    "Based on the instruction, no emotional state can be determined from the audio or the subtitle alone, sadly for us"
)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[]", []),
        ("", []),
        ("[ ]", []),
        (None, []),
        (float("nan"), []),
        ("[Happy, sad]", ["happy", "sad"]),
        ("happy, sad", ["happy", "sad"]),
        ("['happy', 'sad']", ["happy", "sad"]),
        ('["happy", "sad"]', ["happy", "sad"]),
        ("""["don't believe", 'doubt']""", ["don't believe", "doubt"]),
        ("[resigned,无奈, helpless]", ["resigned", "无奈", "helpless"]),
        ("[满意，自豪、兴奋；愉快]", ["满意", "自豪", "兴奋", "愉快"]),
        ("【开心】", ["开心"]),
        ('[], ["confused"]', ["confused"]),
        ("[happy, Happy,  HAPPY ]", ["happy"]),
        ("[happiness/contentment]", ["happiness", "contentment"]),
        ("[grappling_with_a_problem]", ["grappling with a problem"]),
        (f"{LONG}. Therefore, the output is:[angry]", ["angry"]),
        (f"{LONG}.Output: []", []),
        (LONG.replace(",", ""), []),
        ("[deeply  moved]", ["deeply moved"]),
        ("- happy\n- sad", ["happy", "sad"]),
        (["Happy", "sad "], ["happy", "sad"]),
        ("[Überrascht, naïve, 😀]", ["überrascht", "naïve", "😀"]),
    ],
)
def test_default_reading(text, labels):
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[]", []),
        ("[Happy, sad ]", ["happy", "sad"]),
        ("[happy, happy]", ["happy", "happy"]),
        ("""["don't believe", 'doubt']""", ["don", "t believe", "doubt"]),
        ("[满意，自豪]", ["满意，自豪"]),
        ('[], ["confused"]', ["]", "[", "confused"]),
        ("So it is:[angry]", ["so it is:[angry"]),
        ("[happiness/contentment]", ["happiness/contentment"]),
        (None, []),
    ],
)
def test_published_reading(text, labels):
    """Worked from the published code's rule: one bracket off each end, split at commas and quotes, strip, lower-case."""
    assert parse_labels(text, compat="affectgpt") == labels


def test_unknown_compat_is_named():
    with pytest.raises(ValueError, match="compat='affectGPT': expected None or \"affectgpt\""):
        parse_labels("[]", compat="affectGPT")


@given(st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=20), max_size=6))
def test_written_lists_read_back(words):
    words = [word for word in words if parse_labels([word])]  # "None" is no label
    words = [word for word in words if word.lower() not in ("true", "false", "infinity")]  # [True] is a list of values
    wanted = list(dict.fromkeys(word.lower() for word in words))
    assert parse_labels(str(words)) == wanted
    assert parse_labels("[" + ", ".join(words) + "]") == wanted


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text):
    for compat in (None, "affectgpt"):
        assert all(label == label.strip().lower() or label.lower() for label in parse_labels(text, compat))


@pytest.mark.parametrize(
    ("answer", "groups"),
    [
        ("[['a', 'b'], ['c']]", [["a", "b"], ["c"]]),
        ('```json\n[["a"], ["b"]]\n```', [["a"], ["b"]]),
        ('Here they are: [["a", "b"]] Done.', [["a", "b"]]),
        ("['a', 'b']", [["a", "b"]]),
        ("[[], ['a']]", [["a"]]),
        ([["a"]], [["a"]]),
    ],
)
def test_groups(answer, groups):
    assert parse_groups(answer) == groups


@pytest.mark.parametrize("answer", ["", "no list", "[[1, 2]]", "{'a': 'b'}", "[['a'], 'b']", "[[['a']]]", "[['a'"])
def test_groups_that_cannot_be_read(answer):
    with pytest.raises(ValueError, match="expected a list of lists of labels"):
        parse_groups(answer)


def test_groups_about_something_else():
    with pytest.raises(ValueError, match="groups none of the labels"):
        parse_groups("[['x', 'y']]", labels=["a", "b"])
    assert parse_groups("[['A', 'y']]", labels=["a", "b"]) == [["A", "y"]]
