"""How long scoring takes, beside a bare loop that builds and intersects two sets a clip.

    python -m benchmarks.metrics [--clips 100000] [--wheels FOLDER] [--repeats 3]

Labels, groups and (without --wheels) tables of the authors' size are made up on the spot. Prints the best of the repeats in seconds
of processor time, and ratios: how many times what the bare loop takes.
"""

import argparse
import random
import time
from collections.abc import Callable, Mapping

from affectgpt.metrics import set_score
from affectgpt.wheels import EmotionWheels, read_emotion_wheels, wheel_score

NUM_FORMS, NUM_BASES, NUM_ROOTS, NUM_CLASSES = 7356, 1255, 247, (6, 40)


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    durations = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        durations.append(time.process_time() - start)
    return min(durations)


def bare_loop(truth: Mapping[str, list[str]], predicted: Mapping[str, list[str]]) -> int:
    """The floor: what any set metric has to do at the least."""
    return sum(len(set(labels) & set(predicted[name])) for name, labels in truth.items())


def made_up_wheels(draw: random.Random) -> EmotionWheels:
    bases = {f"form{number}": (f"base{number % NUM_BASES}",) for number in range(NUM_FORMS)}
    roots = {
        f"base{number}": tuple(sorted({f"root{draw.randrange(NUM_ROOTS)}" for _ in range(draw.randint(1, 3))}))
        for number in range(NUM_BASES)
    }
    levels = [
        {f"root{root}": f"class{draw.randrange(num_classes)}" for root in range(NUM_ROOTS) if draw.random() < 0.4}
        for num_classes in NUM_CLASSES * 5
    ]
    wheels = tuple(zip(levels[::2], levels[1::2], strict=True))
    return EmotionWheels(bases, roots, wheels, "made up")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--wheels", help="folder with the authors' tables")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    draw = random.Random(0)
    wheels = read_emotion_wheels(arguments.wheels) if arguments.wheels else made_up_wheels(draw)
    words = sorted(wheels.bases)[::7] + [f"unknown{number}" for number in range(100)]
    names = [f"clip{number}" for number in range(arguments.clips)]
    truth, predicted = ({name: draw.sample(words, draw.randint(1, 6)) for name in names} for _ in range(2))
    groups = {}
    for name in names:
        labels = list(dict.fromkeys(truth[name] + predicted[name]))
        cuts = sorted(draw.sample(range(1, len(labels)), min(2, len(labels) - 1))) if len(labels) > 1 else []
        groups[name] = [labels[start:end] for start, end in zip([0, *cuts], [*cuts, len(labels)], strict=True)]

    floor = best_seconds(lambda: bare_loop(truth, predicted), arguments.repeats)
    print(f"{arguments.clips} clips; bare loop over sets: {floor:.2f} s")
    for title, run in (
        ("set metric, exact labels", lambda: set_score(truth, predicted)),
        ("set metric, groups", lambda: set_score(truth, predicted, groups)),
        ("emotion wheels, 12 measures", lambda: wheel_score(truth, predicted, wheels)),
    ):
        seconds = best_seconds(run, arguments.repeats)
        print(f"{title}: {seconds:.2f} s, {seconds / floor:.1f} times the bare loop")


if __name__ == "__main__":
    main()
