"""Figures of a corpus: clips per split beside the paper's Table 3, labels, lengths and durations, as text and as one picture."""

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import av
import numpy as np

from .corpus import has_clip, read_rows, split_files
from .media import MediaError, open_container

# Paper, Table 3.
PAPER_COUNTS = {("EMER-Coarse", "train"): 115_595, ("EMER-Fine", "train"): 266, ("EMER-Fine", "test"): 66}

_NUM_LABELS = 20
_NUM_LISTED = 10
# Clips whose headers are asked for before any answer is waited for; of embedded clips, all are in memory.
_NUM_OPEN = 64


@dataclass
class CorpusStats:
    """Figures of one configuration.

    Attributes:
        configuration (`str`): its name.
        num_clips (`dict[str, int]`): of each split.
        labels (`Counter`): clips that have a label.
        labels_per_clip (`list[int]`): of each clip.
        words (`list[int]`): of each English description.
        characters (`list[int]`): of each Chinese description, without blanks.
        num_subtitles (`int`): clips with a subtitle in any language.
        durations (`list[float]`): seconds of each clip whose header says so.
        num_media (`int`): clips that are embedded or referred to.
        unreadable (`list[str]`): why a clip cannot be opened, one sentence each.
    """

    configuration: str
    num_clips: dict[str, int] = field(default_factory=dict)
    labels: Counter = field(default_factory=Counter)
    labels_per_clip: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    num_subtitles: int = 0
    durations: list[float] = field(default_factory=list)
    num_media: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.num_clips.values())


def corpus_stats(folder: str | Path, *, with_media: bool = True) -> list[CorpusStats]:
    """Count a corpus, one configuration after the other.

    Args:
        folder (`str` or `Path`): the corpus.
        with_media (`bool`): ask every clip for its duration; only headers are read.

    Raises:
        FileNotFoundError, ValueError: if the folder is no corpus.
    """
    found: dict[str, CorpusStats] = {}
    for (configuration, split), paths in split_files(folder).items():
        stats = found.setdefault(configuration, CorpusStats(configuration))
        stats.num_clips[split] = 0
        for row in read_rows(paths, ["labels", "description", "description_zh", "subtitle", "subtitle_zh"]):
            stats.num_clips[split] += 1
            labels = set(row["labels"] or ())
            stats.labels.update(labels)
            stats.labels_per_clip.append(len(labels))
            if row["description"]:
                stats.words.append(len(row["description"].split()))
            if row["description_zh"]:
                stats.characters.append(len("".join(row["description_zh"].split())))
            stats.num_subtitles += bool(row["subtitle"] or row["subtitle_zh"])
        if with_media:
            for _, seconds, error in open_clips(paths):
                stats.num_media += 1
                if error:
                    stats.unreadable.append(error)
                elif seconds is not None:
                    stats.durations.append(seconds)
    return list(found.values())


def open_clips(paths: Iterable[str | Path]) -> Iterator[tuple[str, float | None, str | None]]:
    """Open the clips of parquet files as far as their headers, many at a time.

    Returns:
        Iterator of name, seconds (`None` if the header does not say) and what is wrong (`None` if the clip can be opened), for each
        row that has a clip, in order.
    """
    rows = (row for row in read_rows(paths, ["name", "video"]) if has_clip(row["video"]))
    with ThreadPoolExecutor(4 * (os.cpu_count() or 1)) as executor:
        while batch := list(islice(rows, _NUM_OPEN)):
            yield from executor.map(_open_clip, batch)


def _open_clip(row: dict) -> tuple[str, float | None, str | None]:
    name, video = row["name"], row["video"]
    try:
        with open_container(video["path"] if video["bytes"] is None else io.BytesIO(video["bytes"])) as container:
            seconds = container.duration / av.time_base if container.duration and container.duration > 0 else None
    except MediaError as error:
        return name, None, f"{name}: {str(error) if video['bytes'] is None else 'its embedded clip cannot be opened'}"
    return name, seconds, None


def format_stats(stats: list[CorpusStats]) -> str:
    """The figures as text, for a terminal."""
    lines = [f"{'configuration':<20} {'split':<8} {'clips':>9} {'paper':>9}"]
    for one in stats:
        for split, number in one.num_clips.items():
            paper = PAPER_COUNTS.get((one.configuration, split))
            lines.append(
                f"{one.configuration:<20} {split:<8} {number:>9,} {'' if paper is None else format(paper, ','):>9}".rstrip()
            )
        if len(one.num_clips) > 1:
            paper = sum(PAPER_COUNTS.get((one.configuration, split), 0) for split in one.num_clips)
            shown = f"{paper:,}" if paper else ""
            lines.append(f"{'':<20} {'whole':<8} {one.total:>9,} {shown:>9}".rstrip())
    for one in stats:
        lines += ["", f"{one.configuration}: {one.total:,} clips"]
        lines.append(f"  subtitle    {_share(one.num_subtitles, one.total)}")
        if one.words:
            lines.append(f"  English     {_share(len(one.words), one.total)}; {_spread(one.words, 'words')}")
        if one.characters:
            lines.append(f"  Chinese     {_share(len(one.characters), one.total)}; {_spread(one.characters, 'characters')}")
        num_labelled = sum(1 for number in one.labels_per_clip if number)
        if num_labelled:
            lines.append(f"  labels      {_share(num_labelled, one.total)}; {_spread(one.labels_per_clip, 'a clip')}")
            lines.append(f"              {len(one.labels):,} different; most frequent, in % of the clips:")
            frequent = [f"{label} {100 * number / one.total:.1f}" for label, number in _most_frequent(one.labels)]
            lines += [f"              {', '.join(frequent[start : start + 5])}" for start in range(0, len(frequent), 5)]
        if one.num_media:
            hours = f"; {sum(one.durations) / 3600:.2f} hours" if one.durations else ""
            spread = f"; {_spread(one.durations, 's', digits=1)}" if one.durations else ""
            lines.append(f"  clips       {_share(one.num_media, one.total)}{hours}{spread}")
        if one.unreadable:
            lines.append(f"  unreadable  {len(one.unreadable)}:")
            lines += [f"              {error}" for error in one.unreadable[:_NUM_LISTED]]
            if len(one.unreadable) > _NUM_LISTED:
                lines.append(
                    f"              and {len(one.unreadable) - _NUM_LISTED} more (`affectgpt corpus check --open` lists all)"
                )
    return "\n".join(lines)


def _share(number: int, total: int) -> str:
    return f"{number:,} of {total:,}"


def _spread(values: list, unit: str, *, digits: int = 0) -> str:
    low, middle, high = np.percentile(values, [5, 50, 95])
    mean = f"{np.mean(values):,.{max(digits, 1)}f}"
    return (
        f"{mean} {unit} on average, median {middle:,.{digits}f}, 90 % within {low:,.{digits}f} to {high:,.{digits}f}, "
        f"most {max(values):,.{digits}f}"
    )


def _most_frequent(labels: Counter) -> list[tuple[str, int]]:
    return sorted(labels.items(), key=lambda item: (-item[1], item[0]))[:_NUM_LABELS]


# Told apart by people who see colours otherwise, too (Okabe and Ito, 2008).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_INK, _FAINT = "#333333", "#DDDDDD"


def draw_stats(stats: list[CorpusStats], path: str | Path, *, title: str = "") -> None:
    """Draw the figures as one picture: label frequencies, labels per clip, lengths and durations of all configurations.

    Args:
        stats (`list[CorpusStats]`): from [`corpus_stats`].
        path (`str` or `Path`): picture to write; its suffix says in which format (.png, .svg, .pdf).
        title (`str`): above it.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there is nothing to draw or matplotlib cannot write such a file.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Expected matplotlib for the picture, got none. Install it: `pip install matplotlib`.") from error
    stats = [one for one in stats if one.total]
    if not stats:
        raise ValueError("Expected clips to draw figures of, got none.")
    style = {
        "font.size": 10,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "text.color": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 11,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(13, 8.2), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        grid = figure.add_gridspec(2, 3, width_ratios=[1.25, 1, 1])
        _draw_labels(figure.add_subplot(grid[:, 0]), stats)
        _draw_histogram(
            figure.add_subplot(grid[0, 1]), [one.labels_per_clip for one in stats], "Labels per clip", "labels", is_whole=True
        )
        _draw_histogram(figure.add_subplot(grid[0, 2]), [one.durations for one in stats], "Length of clips", "seconds")
        _draw_histogram(figure.add_subplot(grid[1, 1]), [one.words for one in stats], "English descriptions", "words")
        _draw_histogram(figure.add_subplot(grid[1, 2]), [one.characters for one in stats], "Chinese descriptions", "characters")
        handles = [
            matplotlib.patches.Patch(color=_COLOURS[index % len(_COLOURS)], label=_legend(one)) for index, one in enumerate(stats)
        ]
        heading = {"title": title or "Corpus", "title_fontproperties": {"size": 15, "weight": "bold"}, "alignment": "left"}
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 3), frameon=False, **heading)
        try:
            figure.savefig(path, dpi=120, facecolor="white")
        except ValueError as error:
            raise ValueError(f"{path}: expected the name of a picture (.png, .svg, .pdf), got another ({error}).") from error


def _legend(one: CorpusStats) -> str:
    splits = ", ".join(f"{split} {number:,}" for split, number in one.num_clips.items())
    papers = [PAPER_COUNTS[one.configuration, split] for split in one.num_clips if (one.configuration, split) in PAPER_COUNTS]
    return f"{one.configuration}: {splits}" + (
        f"  (paper: {', '.join(format(number, ',') for number in papers)})" if papers else ""
    )


def _draw_labels(axes, stats: list[CorpusStats]) -> None:
    """Bars of the labels that are most frequent over the configurations, in per cent of their clips."""
    shares = {}
    for one in stats:
        for label, number in one.labels.items():
            shares.setdefault(label, [0.0] * len(stats))[stats.index(one)] = 100 * number / one.total
    chosen = sorted(shares, key=lambda label: (-max(shares[label]), label))[:_NUM_LABELS]
    axes.set_title("Most frequent labels")
    if not chosen:
        _say_none(axes)
        return
    height = 0.8 / len(stats)
    for index in range(len(stats)):
        places = [row - 0.4 + height * (index + 0.5) for row in range(len(chosen))]
        axes.barh(places, [shares[label][index] for label in chosen], height=height * 0.92, color=_COLOURS[index % len(_COLOURS)])
    axes.set_yticks(range(len(chosen)), chosen)
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.tick_params(left=False)
    axes.set_xlabel("% of clips")
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_histogram(axes, samples: list[list], title: str, unit: str, *, is_whole: bool = False) -> None:
    """Shares of each sample by value, and its median as a line. The longest hundredth of all lies in the last bin."""
    axes.set_title(title)
    pooled = [value for sample in samples for value in sample]
    if not any(pooled):
        _say_none(axes)
        return
    top = max(float(np.percentile(sample, 99)) for sample in samples if sample)
    bins = np.arange(-0.5, round(top) + 1.5) if is_whole else np.linspace(0, top * 1.02, 31)
    for index, sample in enumerate(samples):
        if not any(sample):
            continue
        colour = _COLOURS[index % len(_COLOURS)]
        values = np.clip(sample, bins[0], (bins[-1] + bins[-2]) / 2)
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, bins, weights=weights, histtype="stepfilled", color=colour, alpha=0.25)
        axes.hist(values, bins, weights=weights, histtype="step", color=colour, linewidth=1.6)
        axes.axvline(np.median(sample), color=colour, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.set_xlim(bins[0], bins[-1])
    axes.set_xlabel(f"{unit} (dashed: median)")
    axes.set_ylabel("% of clips")
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _say_none(axes) -> None:
    axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color="#999999")
    axes.set_xticks([])
    axes.set_yticks([])
