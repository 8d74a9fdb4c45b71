"""What a corpus of the size of EMER-Coarse costs to build and load, beside the least that could be done, and whether memory grows.

    python benchmarks/corpus.py [--rows 115595]

Generated rows in the files of MER2025: descriptions of 110 words, labels, and subtitles of these and more clips. Every figure is
of a process of its own, imports left out. The floors: the same CSV files read by `csv` and dropped, and the parquet files of the
corpus read by pyarrow and dropped. Exits with 1 where a limit is passed: 60 s for the build, 5 s and 1 s for the first and later
loads, twice the memory for ten times the rows.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
LIMITS = {"build": 60.0, "first load": 5.0, "later load": 1.0, "memory": 2.0}

# Each prints seconds, of these on the processor, and peak resident bytes above what its imports take.
_MEASURE = """
import resource, sys, time
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
{imports}
before, start, start_busy = peak(), time.perf_counter(), time.process_time()
{work}
print(time.perf_counter() - start, time.process_time() - start_busy, peak() - before)
"""
_BUILD = (
    "from affectgpt.corpus_build import build_corpus; from affectgpt.mer_files import recognise_all",
    "build_corpus(recognise_all([sys.argv[1]])[0], sys.argv[2])",
)
_READ_CSV = (
    "import csv; from pathlib import Path",
    "for path in Path(sys.argv[1]).glob('*.csv'):\n    for row in csv.reader(open(path, encoding='utf-8', newline='')): pass",
)
_LOAD = (
    "from datasets import load_dataset",
    "rows = load_dataset(sys.argv[2], 'EMER-Coarse', split='train', cache_dir=sys.argv[3]); rows[len(rows) - 1]",
)
_READ_PARQUET = (
    "import pyarrow.parquet as pq; from pathlib import Path",
    "for path in Path(sys.argv[2]).rglob('*.parquet'): pq.read_table(path)",
)


def write_files(folder: Path, num_rows: int, seed: int = 0) -> None:
    """The authors' layout: descriptions, labels and subtitles of `num_rows` clips, and as many more subtitles as they have."""
    random = np.random.default_rng(seed)
    words = np.array(["".join(chr(97 + letter) for letter in random.integers(0, 26, random.integers(2, 11))) for _ in range(5000)])
    names = [f"samplenew3_{number:08d}" for number in range(num_rows)]
    with open(folder / "track3_train_mercaptionplus.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "reason"])
        for name in names:
            writer.writerow([name, f'In the video, {" ".join(random.choice(words, 110))}. The subtitle says, "Well, yes."'])
    with open(folder / "track2_train_mercaptionplus.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "openset"])
        writer.writerows([name, str(random.choice(words, 3).tolist())] for name in names)
    with open(folder / "subtitle_chieng.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "chinese", "english"])
        writer.writerows([name, "你说的这些我都明白。", "I understand all that you say."] for name in names)
        writer.writerows([f"other_{number:08d}", "好。", "Well."] for number in range(num_rows // 7))


def measure(code: tuple[str, str], *arguments: Path) -> tuple[float, float, int]:
    """Seconds, seconds on the processor, and peak bytes above the imports, of code in a process of its own."""
    program = _MEASURE.format(imports=code[0], work=code[1])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    seconds, busy, peak = output.split()[-3:]
    return float(seconds), float(busy), int(peak)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=115_595, help="rows of the corpus (default: those of EMER-Coarse)")
    arguments = parser.parse_args()
    figures, memory = {}, {}
    few = max(arguments.rows // 10, 10_000)  # a whole shard, which is what is in memory at a time
    for num_rows in (few, arguments.rows):
        with tempfile.TemporaryDirectory() as folder:
            files, corpus, cache = (Path(folder) / name for name in ("files", "corpus", "cache"))
            files.mkdir()
            write_files(files, num_rows)
            build, busy, memory[num_rows] = measure(_BUILD, files, corpus)
            csv_floor, csv_busy, _ = measure(_READ_CSV, files)
            first, *_ = measure(_LOAD, files, corpus, cache)
            later = min(measure(_LOAD, files, corpus, cache)[0] for _ in range(3))
            parquet_floor, *_ = measure(_READ_PARQUET, files, corpus)
            size = sum(path.stat().st_size for path in corpus.rglob("*.parquet"))
        figures = {"build": build, "first load": first, "later load": later}
        print(f"{num_rows:,} rows, {size >> 20} MiB of parquet")
        ratios = f"{build / csv_floor:.0f} times reading the CSV files (processor: {busy:.2f} s, {busy / csv_busy:.0f} times)"
        print(f"  build      {build:6.2f} s, {ratios}; peak {memory[num_rows] >> 20} MiB")
        print(f"  first load {first:6.2f} s, {first / parquet_floor:.1f} times reading the parquet files")
        print(f"  later load {later:6.2f} s, {later / parquet_floor:.1f} times")
    figures["memory"] = memory[arguments.rows] / memory[few]
    print(f"memory of {arguments.rows / few:.1f} times the rows: {figures['memory']:.2f} times")
    passed = [what for what, limit in LIMITS.items() if figures[what] > limit]
    for what in passed:
        print(f"over the limit: {what} {figures[what]:.2f}, expected at most {LIMITS[what]:g}")
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
