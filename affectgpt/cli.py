"""The `affectgpt` command.

affectgpt explain clip.mp4 --subtitle "I thought you would call."
affectgpt explain first.mp4 second.mp4 --json --model <folder or Hub id>
"""

import argparse
import io
import json
import os
import sys

from . import __version__

SUCCESS, SOME_FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 some clips failed, 2 a mistake in the call, 130 interrupted."""
    args = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An answer may hold characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    try:
        return _explain(args)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python would complain when it flushes on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="affectgpt", description="Explain from picture, voice and words what a person in a clip seems to feel."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser(
        "explain",
        help="explain clips",
        description="Explain clips. Exit code: 0 all explained, 1 some of several clips failed, 2 a mistake in the call.",
    )
    explain.add_argument("clips", nargs="+", metavar="CLIP", help="video or sound file")
    explain.add_argument(
        "--subtitle",
        dest="subtitles",
        action="append",
        metavar="TEXT",
        help="what is said in the clip; for several clips repeat it, once per clip and in their order",
    )
    explain.add_argument("--question", metavar="TEXT", help="what to ask (default: the question that the model was trained with)")
    explain.add_argument(
        "--model",
        default=os.environ.get("AFFECTGPT_MODEL"),
        metavar="DIR_OR_ID",
        help="folder or Hub id of a checkpoint (default: AFFECTGPT_MODEL, else the shipped one, which knows drawings only)",
    )
    explain.add_argument("--device", metavar="NAME", help='such as "cpu" or "cuda:1" (default: the GPU if there is one)')
    explain.add_argument("--max-new-tokens", type=_positive, metavar="N", help="cut an answer off after so many tokens")
    explain.add_argument("--json", action="store_true", help="print one JSON object per clip and line")
    explain.add_argument(
        "--explain-anyway",
        action="store_true",
        help="let a model that knows drawings only answer about other clips; about people, the answer is meaningless",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _explain(args: argparse.Namespace) -> int:
    subtitles = args.subtitles or [None] * len(args.clips)
    if len(subtitles) != len(args.clips):
        _complain(
            f"expected one --subtitle for each of the {len(args.clips)} clips or none, got {len(subtitles)}. "
            'Repeat it in the order of the clips, with "" for a clip without words.'
        )
        return USER_ERROR
    if not any(os.path.exists(clip) for clip in args.clips):
        for clip in args.clips:
            _complain(f"{clip}: expected a video or sound file, got nothing of this name. Check the path.")
        return USER_ERROR if len(args.clips) == 1 else SOME_FAILED

    # Here, because importing PyTorch takes seconds, which `--help` and the mistakes above need not cost.
    from .explanation import SHIPPED_MODEL, explain, explain_stream, load_model
    from .media import MediaError

    name = args.model or SHIPPED_MODEL
    print(f"Loading the model {name} ...", file=sys.stderr, flush=True)
    try:
        model, processor = load_model(name, device=args.device)
    except (OSError, ValueError, RuntimeError) as error:
        _complain(f"could not load the model {name}: {error}")
        return USER_ERROR

    options = {"question": args.question, "explain_anyway": args.explain_anyway}
    if args.max_new_tokens:
        options["max_new_tokens"] = args.max_new_tokens
    num_failed = 0
    for clip, subtitle in zip(args.clips, subtitles, strict=True):
        try:
            if args.json:
                explanation = explain(model, processor, clip, subtitle=subtitle, **options)
                print(json.dumps({"clip": clip, **explanation.to_dict()}), flush=True)
                continue
            if len(args.clips) > 1:
                print(f"== {clip}", flush=True)
            if sys.stdout.isatty():
                _print_growing(explain_stream(model, processor, clip, subtitle=subtitle, **options))
            else:
                print(explain(model, processor, clip, subtitle=subtitle, **options), flush=True)
        except MediaError as error:
            _complain(error)
            num_failed += 1
    if num_failed == 0:
        return SUCCESS
    return USER_ERROR if len(args.clips) == 1 else SOME_FAILED


def _print_growing(explanations) -> None:
    """Print an explanation while it is written; in the end the same characters as `print(explanation)`."""
    printed = 0
    for explanation in explanations:
        so_far = f"{explanation.notice}\n\n{explanation.text}"
        print(so_far[printed:], end="", flush=True)
        printed = len(so_far)
    print(str(explanation)[printed:], flush=True)


def _complain(message) -> None:
    print("affectgpt: error:", " ".join(str(message).split()), file=sys.stderr, flush=True)
