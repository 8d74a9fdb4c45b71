"""`affectgpt corpus build|check|stats`: from the authors' files to a folder that `load_dataset` reads, and what is in it."""

import argparse
import logging
import sys
from pathlib import Path

GOOD, BAD, USER_ERROR = 0, 1, 2


def add_parser(commands) -> None:
    """Add `corpus` to the subcommands of a parser."""
    corpus = commands.add_parser("corpus", help="build, check and describe corpora")
    steps = corpus.add_subparsers(dest="step", required=True)

    build = steps.add_parser(
        "build",
        help="build EMER-Coarse, EMER-Fine and the like from the authors' annotation files",
        description="Build a folder that `datasets.load_dataset` reads from the authors' annotation files. What a file is, is told "
        "by its columns and its name; the terms of the data stay those of the authors. An interrupted build goes on when it is "
        "given again.",
    )
    build.add_argument(
        "--from",
        dest="files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="CSV files, or folders of them as MER2025 and MER2026 come (their video/ and audio/ are taken as clips); where files "
        "differ, the earlier one counts",
    )
    build.add_argument(
        "--from-hub",
        metavar="REPO",
        help="a dataset repository, e.g. MERChallenge/MER2025: its CSV files, by your token and with its terms accepted; download "
        "and unpack its clips yourself, and give them by --media",
    )
    build.add_argument("--revision", metavar="NAME", help="branch, tag or commit of the repository")
    build.add_argument("--output", required=True, metavar="DIR", help="folder of the corpus")
    build.add_argument("--media", nargs="+", default=[], metavar="DIR", help="folders of clips, joined by name, any suffix")
    build.add_argument("--with-media", action="store_true", help="embed the clips instead of referring to them")
    build.add_argument(
        "--test-names", metavar="FILE", help="names of EMER-Fine's test split, one a line (default: chosen by the names' hashes)"
    )
    build.add_argument("--skip-bad-rows", action="store_true", help="leave malformed and duplicate rows out instead of refusing")
    build.add_argument(
        "--licence",
        metavar="ID",
        help="the material is yours to pass on, under this licence, e.g. cc0-1.0 (default: it is MER's and must not be passed on)",
    )

    check = steps.add_parser(
        "check",
        help="find bad rows, missing clips, and test clips among those to train on",
        description="Check corpora, each by itself and all against each other, by name and by the bytes of the clips. "
        "Exit code: 0 good, 1 something is wrong, 2 a mistake in the call.",
    )
    check.add_argument("corpora", nargs="+", metavar="DIR", help="folders of corpora")
    check.add_argument("--without-media", action="store_true", help="do not look at the clips")
    check.add_argument("--open", dest="opening", action="store_true", help="also open every clip")

    stats = steps.add_parser("stats", help="count clips, labels, lengths and durations", description="Describe a corpus.")
    stats.add_argument("corpus", metavar="DIR", help="folder of a corpus")
    stats.add_argument("--picture", metavar="FILE", help="draw it, too (.png, .svg, .pdf; needs matplotlib)")
    stats.add_argument("--without-media", action="store_true", help="do not ask the clips for their length")


def run(args: argparse.Namespace) -> int:
    """Run what `add_parser` has parsed; the exit code: 0 good, 1 a check that found something, 2 a mistake."""
    steps = {"build": _build, "check": _check, "stats": _stats}
    try:
        return steps[args.step](args)
    except (ImportError, ValueError) as error:
        _complain(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        _complain(f"{where}{reason}." if where else str(error))
    return USER_ERROR


def _build(args: argparse.Namespace) -> int:
    if not args.files and not args.from_hub:
        raise ValueError("Expected --from FILE or --from-hub REPO, got neither.")
    if args.revision and not args.from_hub:
        raise ValueError("Expected --from-hub beside --revision, got none.")
    # Here, because importing datasets takes a second, which `--help` and the mistakes above need not cost.
    from .corpus_build import build_corpus
    from .mer_files import fetch, recognise_all

    _log_to_stderr()
    files, folders, passed = recognise_all(args.files)
    if args.from_hub:
        fetched, others = fetch(args.from_hub, revision=args.revision)
        files += fetched
        passed += others
    for file in files:
        print(f"{file.source}: {file.configuration or 'subtitles'} ({', '.join(file.fields)})", file=sys.stderr)
    for problem in passed:
        print(f"Passed over: {problem}", file=sys.stderr)
    report = build_corpus(
        files,
        args.output,
        media=args.media or folders,
        with_media=args.with_media,
        test_names=args.test_names,
        licence=args.licence,
        skip_bad_rows=args.skip_bad_rows,
    )
    for problem in report.problems:
        print(f"Left out: {problem}", file=sys.stderr)
    for (configuration, split), counts in report.counts.items():
        print(f"{configuration}, {split}: {counts['rows']:,} clips")
    for note in report.notes:
        print(note)
    if args.licence is None:
        print("Made from MER material: keep it on this disk or in a private repository; its terms forbid passing it on.")
    name, split = next(iter(report.counts))
    print(f'\nCheck it: affectgpt corpus check {args.output}\nLoad it:  load_dataset("{args.output}", "{name}", split="{split}")')
    return GOOD


def _check(args: argparse.Namespace) -> int:
    from .corpus_check import check_corpora

    report = check_corpora(args.corpora, with_media=not args.without_media, opening=args.opening)
    for note in report.notes:
        print(note)
    for problem in report.problems:
        print(f"Bad row: {problem}")
    for leak in report.leaks:
        print(f"Leak: {leak}")
    if report.is_good:
        print("Good: no bad rows, and no clip is both trained and tested on.")
        return GOOD
    print(f"Not good: {len(report.problems)} bad rows, {len(report.leaks)} leaks. Do not train on it before this is mended.")
    return BAD


def _stats(args: argparse.Namespace) -> int:
    from .corpus_stats import corpus_stats, draw_stats, format_stats

    stats = corpus_stats(args.corpus, with_media=not args.without_media)
    print(format_stats(stats))
    if args.picture:
        draw_stats(stats, args.picture, title=Path(args.corpus).resolve().name)
        print(f"\nDrawn: {args.picture}")
    return GOOD


def _log_to_stderr() -> None:
    logger = logging.getLogger(__package__)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _complain(message: str) -> None:
    print(f"affectgpt: error: {message}", file=sys.stderr, flush=True)
