"""The paper's tables of MLLMs with our figures beside its own, and what its claims about them are worth on our runs.

    python -m training.reproduce table1 --truth whole.jsonl --systems systems.json --output results/table1
    python -m training.reproduce table8 --truth test.jsonl --systems systems.json --output results/table8
    python -m training.reproduce claims --truth whole.jsonl --systems systems.json --output results/claims
    python -m training.reproduce table8 --record results/ours.json results/salmonn.json --output results/table8

Tables 1 and 6 are on all clips, 7 and 8 on the training and the test clips: `--truth` says which clips are scored (the paper's
split was never published). `systems.json` lists what was run, one entry a row of the table; a row without one keeps the paper's
figures alone:

    [{"model": "SALMONN", "modalities": "LA", "protocol": "two-step", "en": ["salmonn-en-0.jsonl", "salmonn-en-1.jsonl"], "zh": []}]

Each file is one run, as `affectgpt.predictions` reads it: labels, or descriptions from which labels are extracted. A "checkpoint"
in an entry names the folder of a checkpoint whose Trainer kept a log. Paths are relative to the list. Written are <output>.md,
<output>.tex and <output>.json; the last holds labels, groups and values of every clip. --record takes it, and what
`training.evaluate` wrote, in any number.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path

from affectgpt.metrics import PairedTest, bootstrap_interval, paired_test
from training.losses import NUM_LOGGED, PREDICTS, LossEvidence, loss_evidence
from training.runs import (
    BACKEND_HELP,
    LANGUAGES,
    MODALITIES,
    Result,
    System,
    in_order,
    load_backend,
    make_record,
    read_records,
    read_systems,
    read_truth,
    score_systems,
)

PAPER = Path(__file__).with_name("paper_tables.json")
TITLES = {
    "table1": "Table 1: all clips, main results",
    "table6": "Table 6: all clips",
    "table7": "Table 7: training clips",
    "table8": "Table 8: test clips",
}
# In the paper's file -> attribute of a score, and what the column is called.
FIGURES = {"avg": ("avg", "Avg"), "acc": ("accuracy", "Accuracy_s"), "rec": ("recall", "Recall_s")}
# "Alike" means that the interval of the difference lies within this many points.
MARGIN = 0.02


@dataclass(frozen=True)
class Row:
    """One line of a table: `figures[language][figure]` is the pair (paper, ours), each a text or empty."""

    group: str
    model: str
    modalities: str
    protocol: str
    figures: dict[str, dict[str, tuple[str, str]]]


def table_rows(table: str, systems: Sequence[System], results: Mapping[tuple[str, str], Mapping[str, Result]]) -> list[Row]:
    """The paper's rows in its order, each with our figures where there are any, then those of our systems that it does not have."""
    paper = json.loads(PAPER.read_text(encoding="utf-8"))[table]
    protocols = {system.key: system.protocol for system in systems}
    known = {(row["model"], in_order(row["modalities"])): row for row in paper}
    rows = []
    for key in [*known, *(key for key in results if key not in known)]:
        published, ours = known.get(key, {}), results.get(key, {})
        figures = {
            language: {
                column: (_paper_cell(published.get(language, {}).get(key_there)), _our_cell(ours.get(language), attribute))
                for key_there, (attribute, column) in FIGURES.items()
            }
            for language in LANGUAGES
        }
        rows.append(Row(published.get("group", "Not in the paper"), *key, protocols.get(key, "two-step"), figures))
    return rows


def _paper_cell(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.2f} ± {pair[1]:.2f}"


def _our_cell(result: Result | None, figure: str) -> str:
    if result is None:
        return ""
    mean, std = result.figure(figure)
    spread = f" ± {100 * std:.2f}" if len(result.runs) > 1 else ""
    interval = ""
    if figure == "avg":
        low, high = bootstrap_interval(list(result.per_clip.values()))
        interval = f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * mean:.2f}{spread}{interval}"


def table_notes(rows: Sequence[Row], truth: Mapping[str, Sequence[str]], backend_name: str) -> list[str]:
    """What a reader must know to compare the columns."""
    scored = sum(any(label.strip() for label in labels) for labels in truth.values())
    notes = [
        f"Ours: {scored} clips ({len(truth) - scored} more without an annotated label left out), groups: {backend_name}; mean ± "
        "standard deviation over runs, in brackets the 95 % bootstrap interval of Avg over clips.",
        "Paper: GPT-3.5's groups, two runs, arXiv 2407.07653. L words (subtitle), V picture, A voice.",
        "The annotated labels are English. Chinese predictions meet them through groups that hold words of both languages.",
    ]
    if len({row.protocol for row in rows}) > 1:
        notes.append(
            "Two protocols: two-step (a clue without the subtitle, merged with it by a language model) and direct (subtitle in the "
            "prompt). Figures of one are not those of the other. The paper's are all two-step; the column says which ours are."
        )
    return notes


def markdown_table(title: str, rows: Sequence[Row], notes: Sequence[str]) -> str:
    mixed = len({row.protocol for row in rows}) > 1
    header = ["Model", *MODALITIES, *(["Protocol"] if mixed else [])]
    columns = [f"{name}, {whose}" for _, name in FIGURES.values() for whose in ("paper", "ours")]
    header += [f"{language} {column}" for language in LANGUAGES.values() for column in columns]
    lines = [f"### {title}", "", _markdown_line(header), _markdown_line(["---"] * len(header))]
    for row in rows:
        marks = ["✓" if letter in row.modalities else "" for letter in MODALITIES]
        cells = [row.model.replace("|", "\\|"), *marks, *([row.protocol] if mixed else [])]
        cells += [cell for figures in row.figures.values() for pair in figures.values() for cell in pair]
        lines.append(_markdown_line(cells))
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def latex_table(title: str, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """For the packages booktabs, amssymb and graphicx."""
    mixed = len({row.protocol for row in rows}) > 1
    num_named = 1 + len(MODALITIES) + mixed
    per_language = 2 * len(FIGURES)
    spans = [(language, num_named + 1 + index * per_language) for index, language in enumerate(LANGUAGES.values())]
    lines = [
        "% Needs \\usepackage{booktabs,amssymb,graphicx}.",
        "\\begin{table*}",
        f"\\caption{{{_latex(title)}. {_latex(' '.join(notes))}}}",
        "\\resizebox{\\textwidth}{!}{%",
        f"\\begin{{tabular}}{{l{'c' * len(MODALITIES)}{'l' * mixed}{'r' * per_language * len(LANGUAGES)}}}",
        "\\toprule",
        " & ".join([""] * num_named + [f"\\multicolumn{{{per_language}}}{{c}}{{{language}}}" for language, _ in spans]) + " \\\\",
        " ".join(f"\\cmidrule(lr){{{start}-{start + per_language - 1}}}" for _, start in spans),
        " & ".join(
            ["Model", *MODALITIES, *(["Protocol"] if mixed else [])]
            + [_latex(f"{name}, {whose}") for _ in LANGUAGES for _, name in FIGURES.values() for whose in ("paper", "ours")]
        )
        + " \\\\",
    ]
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append("\\midrule")
        marks = ["$\\checkmark$" if letter in row.modalities else "" for letter in MODALITIES]
        cells = [_latex(row.model), *marks, *([row.protocol] if mixed else [])]
        cells += [_latex(cell) for figures in row.figures.values() for pair in figures.values() for cell in pair]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "\\end{table*}", ""])


def _latex(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, "\\textbackslash " if character == "\\" else f"\\{character}")
    return text.replace("±", "$\\pm$")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper's prose: that in every pair of systems the first is better, or that the two are alike."""

    text: str
    better: bool
    pairs: list[tuple[System, System]]


def claims(systems: Sequence[System]) -> list[Claim]:
    """The paper's claims about scored systems, with the pairs of ours that bear on each."""
    pairs = list(permutations(systems, 2))
    plain = [(one, other) for one, other in pairs if not one.variant and not other.variant and one.protocol == other.protocol]

    def differ_in(key: str) -> list[tuple[System, System]]:
        return [(one, other) for one, other in pairs if _without(one, key) == _without(other, key) and key in one.variant]

    translated = [(one, other) for one, other in differ_in("translator") if one.variant["translator"] == "GPT-3.5"]
    disambiguated = [(one, other) for one, other in differ_in("disambiguator") if one.variant["disambiguator"] == "GPT-3.5"]
    staged = [(one, other) for one, other in differ_in("stage1") if "stage1" not in other.variant and "stage2" in one.variant]
    initialised = [
        (one, other)
        for one, other in differ_in("initialisation")
        if one.variant["initialisation"] == "pretrained" and "stage1" in one.variant
    ]
    together = [(one, other) for one, other in plain if "+" in one.model and _is_part(other, one)]
    checked = [(one, other) for one, other in plain if one.model == "EMER(Multi)"]
    return [
        Claim("Two MLLMs together, one for voice and one for picture, are better than each alone.", True, together),
        Claim("Descriptions that people have checked are better than any MLLM's.", True, checked),
        Claim("An open 7-8B model may translate in place of GPT-3.5.", False, translated),
        Claim("An open 7-8B model in place of GPT-3.5 disambiguates worse.", True, disambiguated),
        Claim("Stage 1 before stage 2 is better than stage 2 alone.", True, staged),
        Claim("After stage 1, initialisation matters little.", False, initialised),
    ]


def _without(system: System, key: str) -> tuple:
    variant = tuple(sorted((name, value) for name, value in system.variant.items() if name != key))
    return system.model, system.modalities, system.protocol, variant


def _is_part(part: System, pair: System) -> bool:
    """Whether `part` is the one of the `pair` that hears, or the one that sees."""
    voice, _, picture = pair.model.partition("+")
    return (part.model, part.modalities) in ((voice, "LA"), (picture, "LV"))


@dataclass(frozen=True)
class Evidence:
    """One pair of systems in one language, and what it says about the claim: "holds", "does not hold" or "cannot be told"."""

    first: str
    second: str
    language: str
    test: PairedTest
    verdict: str


def judge(claim: Claim, results: Mapping[tuple[str, str], Mapping[str, Result]]) -> tuple[str, list[Evidence]]:
    """The verdict on a claim, and its evidence.

    Each pair's interval is widened so that all of a claim's together hold with 95 % (Bonferroni). A claim holds if every pair says
    so, and does not if one pair says the contrary.
    """
    compared = [
        (one, other, language)
        for one, other in claim.pairs
        for language in LANGUAGES
        if language in results[one.key] and language in results[other.key]
    ]
    evidence = []
    for one, other, language in compared:
        test = paired_test(
            results[one.key][language].per_clip,
            results[other.key][language].per_clip,
            level=1 - 0.05 / len(compared),
        )
        evidence.append(Evidence(one.title, other.title, language, test, _verdict(test, better=claim.better)))
    return _together([item.verdict for item in evidence]), evidence


def _together(verdicts: Sequence[str]) -> str:
    if not verdicts:
        return "no runs that could tell"
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if set(verdicts) == {"holds"} else "cannot be told at this n"


def _verdict(test: PairedTest, *, better: bool) -> str:
    if better:
        if test.low > 0:
            return "holds"
        return "does not hold" if test.high < 0 else "cannot be told"
    if test.low >= -MARGIN and test.high <= MARGIN:
        return "holds"
    return "does not hold" if test.low > MARGIN or test.high < -MARGIN else "cannot be told"


LOSS_CLAIM = "The training loss does not predict accuracy."


def judge_loss(
    systems: Sequence[System], results: Mapping[tuple[str, str], Mapping[str, Result]]
) -> tuple[str, list[LossEvidence]]:
    """The verdict on `LOSS_CLAIM`, from systems whose facts have the training loss of their checkpoint."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for system in systems:
        for language, result in results[system.key].items() if "training" in system.facts else ():
            training = system.facts["training"]
            points.setdefault((training["run"], language), []).append((training["loss"], result.figure("avg")[0]))
    evidence = loss_evidence(points)
    return _together([item.verdict for item in evidence]), evidence


def markdown_loss(verdict: str, evidence: Sequence[LossEvidence]) -> str:
    lines = [f"**{LOSS_CLAIM}** {verdict[0].upper()}{verdict[1:]}.", ""]
    if not evidence:
        return "\n".join(lines)
    lines += [
        f"Spearman's correlation of training loss (mean of the last {NUM_LOGGED} logged values) and Avg over the checkpoints of a "
        f"run; {PREDICTS:g} and below counts as prediction. The interval is 95 % for all runs together.",
        "",
        _markdown_line(["Run", "Language", "Checkpoints", "Correlation", ""]),
        _markdown_line(["---"] * 5),
    ]
    for item in evidence:
        rho = "none: all alike" if item.rho is None else f"{item.rho:+.2f}"
        interval = "" if item.low is None else f" [{item.low:+.2f}, {item.high:+.2f}]"
        lines.append(_markdown_line([item.run, LANGUAGES[item.language], str(item.n), rho + interval, item.verdict]))
    return "\n".join([*lines, ""])


def markdown_claims(judged: Sequence[tuple[Claim, str, Sequence[Evidence]]], num_clips: int, backend_name: str) -> str:
    lines = [
        "### The paper's claims on our runs",
        "",
        f"{num_clips} clips, groups: {backend_name}. A difference is the first system's Avg minus the second's, in points, with a "
        f"paired bootstrap interval (95 % for all pairs of a claim together) and the p-value of a sign-flip test. Alike: within "
        f"{100 * MARGIN:.0f} points.",
        "",
    ]
    for claim, verdict, evidence in judged:
        lines += [f"**{claim.text}** {verdict[0].upper()}{verdict[1:]}.", ""]
        if evidence:
            lines += [_markdown_line(["First", "Second", "Language", "Difference", "p", ""]), _markdown_line(["---"] * 6)]
            for item in evidence:
                test = item.test
                difference = f"{100 * test.difference:+.2f} [{100 * test.low:+.2f}, {100 * test.high:+.2f}]"
                cells = [item.first, item.second, LANGUAGES[item.language], difference, f"{test.p_value:.4f}", item.verdict]
                lines.append(_markdown_line(cells))
            lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*TITLES, "claims"])
    parser.add_argument("--truth", help="Annotated labels of the clips to score: .jsonl, .csv, .npz or .parquet.")
    parser.add_argument("--systems", help="The list of what was run (.json).")
    parser.add_argument(
        "--record", nargs="+", help="In place of both: the .json of earlier calls or of training.evaluate, to make figures again."
    )
    parser.add_argument("--output", required=True, help="Where .md, .tex and .json go, without the suffix.")
    parser.add_argument("--backend", default="lexicon", help=BACKEND_HELP)
    parser.add_argument("--exact", action="store_true", help="Compare labels as they stand, without groups.")
    args = parser.parse_args(arguments)

    if args.record:
        if args.truth or args.systems:
            parser.error("give --record, or --truth and --systems")
        truth, systems, results, backend_name = read_records(args.record)
    elif args.truth and args.systems:
        truth, systems = read_truth(args.truth), read_systems(args.systems)
        results = score_systems(truth, systems, backend=load_backend(args.backend), exact=args.exact)
        backend_name = "none, exact labels" if args.exact else args.backend
    else:
        parser.error("give --truth and --systems, or --record")
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    record = {"what": args.what, **make_record(truth, systems, results, backend_name)}
    if args.what == "claims":
        judged = [(claim, *judge(claim, results)) for claim in claims(systems)]
        loss_verdict, loss_found = judge_loss(systems, results)
        text = markdown_claims(judged, len(truth), backend_name) + "\n" + markdown_loss(loss_verdict, loss_found)
        record["claims"] = [
            {"claim": claim.text, "verdict": verdict, "evidence": [asdict(item) for item in evidence]}
            for claim, verdict, evidence in judged
        ] + [{"claim": LOSS_CLAIM, "verdict": loss_verdict, "evidence": [asdict(item) for item in loss_found]}]
    else:
        rows = table_rows(args.what, systems, results)
        notes = table_notes(rows, truth, backend_name)
        text = markdown_table(TITLES[args.what], rows, notes)
        output.with_name(f"{output.name}.tex").write_text(latex_table(TITLES[args.what], rows, notes), encoding="utf-8")
    output.with_name(f"{output.name}.md").write_text(text, encoding="utf-8")
    output.with_name(f"{output.name}.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
