"""One page that shows, clip by clip, what was annotated, what was predicted, how both were grouped and what met. Worst clips first.

    python -m training.report --truth test.jsonl --predictions answers.jsonl --output report.html
    python -m training.report --record results/test.json --output report.html

The second form takes what `training.evaluate` or `training.reproduce` wrote, and asks no model anything. The page is a single file
that needs nothing else and may be opened from disk.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from affectgpt.explanation import NOTICE
from affectgpt.metrics import SetScore, bootstrap_interval, label_groups, normalised, set_score
from affectgpt.predictions import read_predictions
from training.runs import (
    BACKEND_HELP,
    LANGUAGES,
    Run,
    for_clips,
    group_clips,
    load_backend,
    read_labels,
    read_record,
    read_truth,
)

_STYLE = """
:root { color-scheme: light dark; --met: #1a7f37; --missed: #9a6700; --wrong: #b42318; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .5rem .6rem; border-top: 1px solid var(--line); }
th { position: sticky; top: 0; background: Canvas; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.label { display: inline-block; padding: 0 .5em; margin: .1em .2em .1em 0; border: 1px solid; border-radius: 1em; }
.met { color: var(--met); }
.missed { color: var(--missed); border-style: dashed; }
.wrong { color: var(--wrong); border-style: dotted; }
.none, .group { opacity: .75; } .group { display: block; }
.answer td { border-top: 0; padding-top: 0; }
details p { white-space: pre-wrap; max-width: 60rem; }
"""


def report_html(
    title: str,
    truth: Mapping[str, Sequence[str]],
    predicted: Mapping[str, Sequence[str]],
    groups: Mapping[str, Sequence[Sequence[str]]] | None = None,
    texts: Mapping[str, str] | None = None,
    remarks: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The page.

    Args:
        title: heading; what was run on what.
        truth, predicted, groups: as `affectgpt.metrics.set_score` takes them.
        texts: clip -> the answer that the labels are from, to unfold; may lack clips.
        remarks: clip -> what else is to be said of the answer, a line each; may lack clips.

    Raises:
        ValueError, TypeError: as `set_score`.
    """
    score = set_score(truth, predicted, groups)
    worst_first = sorted(score.per_clip, key=lambda name: sum(score.per_clip[name]))
    rows = [
        _clip_row(name, score.per_clip[name], truth[name], predicted[name], groups and groups[name])
        + _answer_row((texts or {}).get(name), (remarks or {}).get(name, ()))
        for name in worst_first
    ]
    skipped = [name for name in truth if name not in score.per_clip]
    left_out = f"<p>Without an annotated label, left out: {escape(', '.join(skipped))}</p>" if skipped else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n<p>{escape(NOTICE)}</p>\n"
        f"{_summary(score, grouped=groups is not None)}\n"
        "<table>\n<thead><tr><th>Clip</th><th>Avg</th><th>Accuracy</th><th>Recall</th><th>Annotated</th><th>Predicted</th>"
        f"<th>Groups</th></tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>\n{left_out}\n</body>\n</html>\n"
    )


def _summary(score: SetScore, *, grouped: bool) -> str:
    low, high = bootstrap_interval(list(score.per_clip_avg.values()))
    empty = sum(pair == (0.0, 0.0) for pair in score.per_clip.values())
    how = "labels of one group count as one" if grouped else "exact labels"
    figures = (
        f"Avg <b>{100 * score.avg:.2f}</b> [{100 * low:.1f}, {100 * high:.1f}], Accuracy_s {100 * score.accuracy:.2f}, "
        f"Recall_s {100 * score.recall:.2f} on {score.n} clips ({how}; in brackets the 95 % bootstrap interval over clips)."
    )
    kinds = {"met": "met", "annotated, not predicted": "missed", "predicted, not annotated": "wrong"}
    legend = " ".join(_label(text, kind) for text, kind in kinds.items())
    return f"<p>{figures} Nothing met in {empty} clips.</p>\n<p>{legend}</p>"


def _clip_row(
    name: str,
    pair: tuple[float, float],
    truth: Sequence[str],
    predicted: Sequence[str],
    groups: Sequence[Sequence[str]] | None,
) -> str:
    group_of = label_groups(groups or [])
    annotated, answered = ({group_of.get(label, label) for label in normalised(labels, name)} for labels in (truth, predicted))
    wanted, given = _labels(truth, answered, group_of, name, "missed"), _labels(predicted, annotated, group_of, name, "wrong")
    joined = [" = ".join(dict.fromkeys(normalised(group, name))) for group in groups or [] if len(group) > 1]
    shown = "".join(f'<span class="group">{escape(group)}</span>' for group in joined)
    numbers = "".join(f'<td class="number">{100 * value:.0f}</td>' for value in (sum(pair) / 2, *pair))
    return f"<tr><td>{escape(name)}</td>{numbers}<td>{wanted}</td><td>{given}</td><td>{shown}</td></tr>"


def _answer_row(text: str | None, remarks: Sequence[str]) -> str:
    if not text and not remarks:
        return ""
    listed = f"<ul>{''.join(f'<li>{escape(remark)}</li>' for remark in remarks)}</ul>" if remarks else ""
    answer = f"<details><summary>answer</summary><p>{escape(text or '')}</p>{listed}</details>"
    return f'\n<tr class="answer"><td colspan="7">{answer}</td></tr>'


def _labels(labels: Sequence[str], other: set[str], group_of: Mapping[str, str], name: str, kind: str) -> str:
    """Each label as a lozenge: met by the other side, or else `kind`."""
    found = dict.fromkeys(normalised(labels, name))
    lozenges = [_label(label, "met" if group_of.get(label, label) in other else kind) for label in found]
    return "".join(lozenges) or '<span class="none">none</span>'


def _label(text: str, kind: str) -> str:
    return f'<span class="label {kind}">{escape(text)}</span>'


def record_html(truth: Mapping[str, Sequence[str]], run: Run, title: str) -> str:
    """The page of one recorded run, with the clues that its answers have wrong."""
    remarks = {name: values.get("wrong_clues", []) for name, values in run.per_clip.items()}
    return report_html(title, truth, run.labels, run.groups, run.texts, remarks)


def _chosen(record: str, name: str | None, language: str, number: int) -> tuple[dict, Run, str]:
    truth, systems, results, _ = read_record(record)
    chosen = [system for system in systems if name in (None, system.title)]
    runs = results[chosen[0].key].get(language) if len(chosen) == 1 else None
    if runs is None or not 0 <= number < len(runs.runs):
        there = "; ".join(
            f"{system.title}: {', '.join(f'{len(result.runs)} {code}' for code, result in results[system.key].items())}"
            for system in systems
        )
        raise ValueError(
            f"Expected one run to show, got {name or 'any system'}, {language}, run {number} of {record}, which has: {there}. Name "
            "it by --system, --language and --run."
        )
    return truth, runs.runs[number], chosen[0].title


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", help="Annotated labels of the clips: .jsonl, .csv, .npz or .parquet.")
    parser.add_argument("--predictions", help="What was said about them: .jsonl, .csv or .npz.")
    parser.add_argument("--record", help="In place of both: the .json of training.evaluate or training.reproduce.")
    parser.add_argument("--system", help="Which system of the record; may be left out if it has one.")
    parser.add_argument("--run", type=int, default=0, help="Which of its runs, counted from 0.")
    parser.add_argument("--output", required=True, help="The page (.html).")
    parser.add_argument("--title", help="Heading; the name of the system or of the predictions' file if left out.")
    parser.add_argument("--language", default="en", choices=LANGUAGES, help="Of the answers.")
    parser.add_argument("--backend", default="lexicon", help=BACKEND_HELP)
    parser.add_argument("--exact", action="store_true", help="Compare labels as they stand, without groups.")
    args = parser.parse_args(arguments)

    if args.record and not (args.truth or args.predictions):
        truth, run, title = _chosen(args.record, args.system, args.language, args.run)
        run = replace(run, groups=None) if args.exact else run
        page = record_html(truth, run, args.title or title)
    elif args.truth and args.predictions and not args.record:
        truth, backend = read_truth(args.truth), load_backend(args.backend)
        labels = read_labels(args.predictions, language=args.language, backend=backend)
        predicted = for_clips(labels, truth, args.predictions)
        groups = None if args.exact else group_clips(truth, predicted, backend)
        texts = {name: prediction.text for name, prediction in read_predictions(args.predictions).items()}
        page = report_html(args.title or Path(args.predictions).name, truth, predicted, groups, texts)
    else:
        parser.error("give --truth and --predictions, or --record")
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text(page, encoding="utf-8")
    print(f"Wrote {args.output}.")


if __name__ == "__main__":
    main()
