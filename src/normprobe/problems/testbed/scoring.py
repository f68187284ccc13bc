"""Is an answer right?"""


def correct(answer_text: str, gold: str) -> bool:
    """Whether the text after the thought is exactly `answer : GOLD`."""
    return answer_text.split() == ["answer", ":", *gold.split()]
