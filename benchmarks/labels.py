"""What reading labels off descriptions costs, beside merely taking the text apart; and how far the labels agree with others'.

    python -m benchmarks.labels [--descriptions 4000] [--repeats 5]
    python -m benchmarks.labels --data clips.jsonl

Prints descriptions a second on one core, and the ratio to two floors: `str.split`, and one regular expression that finds the
words. The texts are made on the spot from phrases and words of the lexicon, of the length of a model's answer.

With `--data`, a file of clips with human labels, checked descriptions, another system's labels, GPT-3.5's groups of both, and
models' descriptions with the labels that another language model read off them: prints the agreement with each.
"""

import argparse
import json
import random
import re
import statistics
import time
from itertools import pairwise
from pathlib import Path

from affectgpt.labels import extract_labels, group_labels
from affectgpt.lexicon import load_entries
from affectgpt.metrics import SetScore, f_score, set_score

_WORD = {"en": re.compile(r"[a-z]+(?:['-][a-z]+)*"), "zh": re.compile(r"[\u4e00-\u9fff]+")}
_ENGLISH = (
    "In the video, a man sits at a table near the window and looks at somebody outside the frame.",
    "His brows are drawn together and the corners of his mouth turn down, which may suggest {}.",
    "As time goes on, he raises a hand, leans forward and speaks with more force than before.",
    "In the audio, the voice is loud and fast; it does not sound {}, but there is a hint of {} in it.",
    'The subtitle says, "You never told me that you would come back so late, did you?"',
    "It is hard to tell whether this is meant as a question, although the words point to {}.",
    "Based on the face and the voice, we can infer that he feels {} and {}.",
    "Therefore, this sentence expresses his {} towards the other person.",
)
_CHINESE = (
    "在画面中，一位男士坐在窗边的桌子旁，看着画面之外的某个人。",
    "他皱着眉，嘴角向下，这可能说明他有些{}。",
    "随后他抬起手，身体前倾，说话的力度也变大了。",
    "在音频中，声音又快又响，听起来并不{}，但带着一丝{}。",
    "字幕内容：“你从来没有告诉我你会这么晚回来，对吗？”",
    "很难判断这句话是不是一个问题，不过措辞里透着{}。",
    "根据表情和声音，可以推断他感到{}和{}。",
    "因此，这句话表达了他对另一个人的{}。",
)


def make_descriptions(language: str, count: int) -> list[str]:
    """`count` different descriptions with emotion words of the lexicon in every gap."""
    words = [entry.form for entry in load_entries(language).values() if entry.use == "state"]
    chance = random.Random(0)
    template = (" " if language == "en" else "").join(_ENGLISH if language == "en" else _CHINESE)
    return [template.format(*chance.choices(words, k=template.count("{}"))) for _ in range(count)]


def seconds_of(function, items: list, repeats: int) -> float:
    """Median processor seconds of calling `function` on every item."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        for item in items:
            function(item)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def score_by_lexicon(truth: dict[str, list[str]], predicted: dict[str, list[str]]) -> SetScore:
    groups = group_labels([truth[name] + predicted[name] for name in truth])
    return set_score(truth, predicted, dict(zip(truth, groups, strict=True)))


def print_agreement(path: Path) -> None:
    clips = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    truth = {clip["name"]: clip["labels"] for clip in clips}
    predicted = {clip["name"]: clip["predicted_labels"] for clip in clips}
    recorded = set_score(truth, predicted, {clip["name"]: clip["gpt35_groups"] for clip in clips})
    ours = score_by_lexicon(truth, predicted)
    pairs = [(sum(recorded.per_clip[name]), sum(ours.per_clip[name])) for name in truth]
    correlation = statistics.correlation(*zip(*pairs, strict=True))
    print(f"{len(clips)} clips; the same labels grouped by GPT-3.5: Avg {100 * recorded.avg:.1f}; by the lexicon:", end=" ")
    print(f"{100 * ours.avg:.1f}; correlation clip by clip {correlation:.2f}")
    for language in ("en", "zh"):
        read = {clip["name"]: extract_labels(clip[f"description_{language}"], language) for clip in clips}
        print(f"labels read off the checked descriptions ({language}): Avg {100 * score_by_lexicon(truth, read).avg:.1f}")
    agreements = []
    for answer in (answer for clip in clips for answer in clip["mllm"].values()):
        theirs, ours = answer["labels"], extract_labels(answer["description"])
        if theirs and ours:
            score = score_by_lexicon({"clip": theirs}, {"clip": ours})
            agreements.append(f_score(score.accuracy, score.recall))
        else:
            agreements.append(float(bool(theirs) == bool(ours)))
    print(
        f"{len(agreements)} descriptions by models: F1 {statistics.mean(agreements):.2f} with the labels of another language model"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="clips with labels (.jsonl); print the agreement with them instead")
    parser.add_argument("--descriptions", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.data:
        print_agreement(arguments.data)
        return

    start = time.process_time()
    for language in ("en", "zh"):
        load_entries(language)
    print(f"loading both tables: {1000 * (time.process_time() - start):.1f} ms")
    for language in ("en", "zh"):
        texts = make_descriptions(language, arguments.descriptions)
        extract_labels(texts[0], language)  # builds the index
        ours = seconds_of(lambda text, language=language: extract_labels(text, language), texts, arguments.repeats)
        split = seconds_of(str.split if language == "en" else list, texts, arguments.repeats)
        scan = seconds_of(lambda text, pattern=_WORD[language]: pattern.findall(text.lower()), texts, arguments.repeats)
        print(
            f"{language}: {len(texts) / ours:,.0f} descriptions/s; {ours / scan:.1f} times one regex scan, "
            f"{ours / split:.0f} times {'str.split' if language == 'en' else 'list of characters'}"
        )
        clips = [extract_labels(text, language) + extract_labels(other, language) for text, other in pairwise(texts)]
        grouping = seconds_of(group_labels, clips, arguments.repeats)
        print(f"{language}: {len(clips) / grouping:,.0f} groupings/s of {statistics.mean(map(len, clips)):.1f} labels")


if __name__ == "__main__":
    main()
