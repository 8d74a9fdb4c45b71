"""The `affectgpt` command.

affectgpt explain clip.mp4 --subtitle "I thought you would call."
affectgpt explain clips/ --model Qwen/Qwen2.5-Omni-7B --subtitle subtitles/ --output explanations.jsonl
affectgpt explain clip.mp4 --video-model llava-hf/LLaVA-NeXT-Video-7B-hf --audio-model Qwen/Qwen2-Audio-7B-Instruct \
    --merge-model Qwen/Qwen2.5-7B-Instruct --asr openai/whisper-large-v3
affectgpt corpus build --from mer2025-dataset/ --output emer
"""

import argparse
import io
import json
import os
import sys
from pathlib import Path

from . import __version__, corpus_cli

SUCCESS, SOME_FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


class _UsageError(ValueError):
    """A mistake in the call, found before anything is loaded."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 some clips failed, 2 a mistake in the call, 130 interrupted."""
    args = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An answer may hold characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    try:
        return corpus_cli.run(args) if args.command == "corpus" else _explain(args)
    except _UsageError as error:
        _complain(error)
        return USER_ERROR
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
    explain.add_argument("clips", nargs="+", metavar="CLIP", help="video or sound file, or a folder of them")
    explain.add_argument(
        "--subtitle",
        dest="subtitles",
        action="append",
        metavar="TEXT|FILE",
        help="what is said in the clip, or an .srt or .vtt file; for several clips repeat it, once per clip and in their order, or "
        "give a folder with a file NAME.srt or NAME.vtt for each clip",
    )
    explain.add_argument(
        "--asr", metavar="MODEL", help="recognise the words of clips without a subtitle, e.g. with openai/whisper-large-v3"
    )
    explain.add_argument("--asr-language", metavar="CODE", help='language spoken, such as "en" or "zh" (default: found out)')
    explain.add_argument("--language", choices=("en", "zh"), default="en", help="of the answer (default: en)")
    explain.add_argument("--question", metavar="TEXT", help="what to ask (default: the question that the model was trained with)")

    models = explain.add_argument_group(
        "models",
        "A model is a folder or Hub id, or an OpenAI-compatible endpoint as https://HOST/v1#MODEL (key: OPENAI_API_KEY). "
        "Clips, or what models said about them, are sent to an endpoint's host.",
    )
    models.add_argument(
        "--model",
        metavar="MODEL",
        help="an AffectGPT checkpoint, any other model that sees or hears, or a file of predictions (.csv, .jsonl, .npz) "
        "(default: AFFECTGPT_MODEL, else the shipped one, which knows drawings only)",
    )
    models.add_argument("--video-model", metavar="MODEL", help="instead, in two steps: describes the picture")
    models.add_argument("--audio-model", metavar="MODEL", help="in two steps: describes the voice")
    models.add_argument(
        "--merge-model",
        metavar="MODEL",
        help="in two steps: joins the descriptions with the subtitle (default: the video model, else the audio model; the paper "
        "lost 2 to 5 points by open models of 7 to 8 billion parameters here)",
    )
    models.add_argument("--device", metavar="NAME", help='such as "cpu" or "cuda:1" (default: the GPU if there is one)')
    models.add_argument("--quantization", choices=("4bit", "8bit"), help="load language models smaller; needs bitsandbytes")
    models.add_argument("--send-clip", action="store_true", help="send endpoints the file itself instead of frames and sound")
    models.add_argument(
        "--faces",
        metavar="NPY",
        help="face crops for a model that looks at faces: a .npy file, or a folder with a NAME.npy for each clip (default: cut "
        "out of the frames)",
    )
    models.add_argument("--max-new-tokens", type=_positive, metavar="N", help="cut an answer off after so many tokens")
    models.add_argument(
        "--explain-anyway",
        action="store_true",
        help="let a model that knows drawings only answer about other clips; about people, the answer is meaningless",
    )
    explain.add_argument("--json", action="store_true", help="print one JSON object per clip and line")
    explain.add_argument(
        "--output",
        metavar="FILE.jsonl",
        help="write one JSON object per clip and line there; clips that it has already are skipped, so a stopped run goes on",
    )
    corpus_cli.add_parser(commands)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _explain(args: argparse.Namespace) -> int:
    in_steps = args.video_model or args.audio_model or args.merge_model
    if in_steps and args.model:
        raise _UsageError("expected --model, or --video-model and --audio-model, got both. Leave one out.")
    clips = _expanded(args.clips)
    subtitles = _subtitles(args.subtitles, clips)
    if not any(os.path.exists(clip) for clip in clips):
        for clip in clips:
            _complain(f"{clip}: expected a video or sound file, got nothing of this name. Check the path.")
        return USER_ERROR if len(clips) == 1 else SOME_FAILED
    model = None if in_steps else args.model or os.environ.get("AFFECTGPT_MODEL")

    # Here, because importing PyTorch takes seconds, which `--help` and the mistakes above need not cost.
    from .explainers import load_explainer
    from .explanation import SHIPPED_MODEL
    from .subtitles import Transcriber

    shown = " + ".join(name for name in (args.video_model, args.audio_model, args.merge_model) if name) or model or SHIPPED_MODEL
    print(f"Loading the model {shown} ...", file=sys.stderr, flush=True)
    try:
        explainer = load_explainer(
            model,
            video_model=args.video_model,
            audio_model=args.audio_model,
            merge_model=args.merge_model,
            device=args.device,
            quantization=args.quantization,
            send_clip=args.send_clip,
        )
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        _complain(f"could not load the model {shown}: {error}")
        return USER_ERROR
    done = _read_done(args.output, explainer.name, args.language)
    todo = [(clip, subtitle) for clip, subtitle in zip(clips, subtitles, strict=True) if clip not in done]
    if done:
        print(f"{args.output}: {len(clips) - len(todo)} of {len(clips)} clips are explained there.", file=sys.stderr)
    transcriber = None
    if args.asr and any(subtitle is None for _, subtitle in todo):
        print(f"Loading the speech recogniser {args.asr} ...", file=sys.stderr, flush=True)
        try:
            transcriber = Transcriber(args.asr, language=args.asr_language, device=args.device)
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            _complain(f"could not load the speech recogniser {args.asr}: {error}")
            return USER_ERROR
    if explainer.host and todo:
        print(f"Parts of each clip, or what was said about it, are sent to {explainer.host}.", file=sys.stderr, flush=True)
    num_failed = _explain_all(args, explainer, transcriber, todo)
    if num_failed == 0:
        return SUCCESS
    return USER_ERROR if len(clips) == 1 else SOME_FAILED


def _explain_all(args, explainer, transcriber, todo: list) -> int:
    """Explain clips, print and write what comes out; the number of those that failed."""
    import torch

    from .chat import ChatError
    from .media import MediaError

    options = {"question": args.question, "explain_anyway": args.explain_anyway, "language": args.language}
    if args.faces:
        options["faces"] = args.faces
    if args.max_new_tokens:
        options["max_new_tokens"] = args.max_new_tokens
    num_failed = 0
    for number, (clip, subtitle) in enumerate(todo, start=1):
        if args.output:
            print(f"[{number}/{len(todo)}] {clip}", file=sys.stderr, flush=True)
        try:
            subtitle = subtitle if transcriber is None or subtitle is not None else transcriber.transcribe_clip(clip)
            request = {"subtitle": subtitle, **options}
            if args.json or args.output:
                row = {"clip": clip, **explainer.explain(clip, **request).to_dict()}
                if args.output:
                    _append(args.output, row)
                if args.json:
                    print(json.dumps(row), flush=True)
                continue
            if len(todo) > 1:
                print(f"== {clip}", flush=True)
            if sys.stdout.isatty():
                _print_growing(explainer.stream(clip, **request))
            else:
                print(explainer.explain(clip, **request), flush=True)
        except (MediaError, LookupError) as error:
            _complain(error)
            num_failed += 1
        except ChatError as error:
            _complain(f"{clip}: {error}")
            if error.is_fatal:
                return num_failed + len(todo) - number + 1
            num_failed += 1
        except torch.OutOfMemoryError:
            _complain(f"{clip}: the GPU has too little memory for this model. Try --quantization 4bit, or --device cpu.")
            num_failed += 1
    return num_failed


def _expanded(names: list[str]) -> list[str]:
    """Clips as given; of a folder, the media files in it and below, sorted."""
    from .predictions import MEDIA_SUFFIXES

    clips = []
    for name in names:
        if not os.path.isdir(name):
            clips.append(name)
            continue
        found = sorted(path for path in Path(name).rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file())
        if not found:
            raise _UsageError(f"{name}: expected a folder of video or sound files, got none in it.")
        clips += [str(path) for path in found]
    return clips


def _subtitles(given: list[str] | None, clips: list[str]) -> list:
    """What is said in each clip: text or a `Subtitle`; `None` where nothing is given."""
    from .subtitles import SUBTITLE_SUFFIXES, find_subtitle, read_subtitle

    if given is None:
        return [None] * len(clips)
    try:
        if len(given) == 1 and os.path.isdir(given[0]):
            files = [find_subtitle(given[0], clip) for clip in clips]
            if not any(files):
                raise _UsageError(f"{given[0]}: expected subtitle files named like the clips (NAME.srt, NAME.vtt), got none.")
            return [None if file is None else read_subtitle(file) for file in files]
        if len(given) != len(clips):
            raise _UsageError(
                f"expected one --subtitle for each of the {len(clips)} clips or none, got {len(given)}. "
                'Repeat it in the order of the clips, with "" for a clip without words.'
            )
        return [read_subtitle(text) if text.lower().endswith(SUBTITLE_SUFFIXES) else text for text in given]
    except (OSError, ValueError) as error:
        raise _UsageError(error) from error


def _read_done(output: str | None, model: str, language: str) -> set[str]:
    """The clips that a stopped run has explained; a last line cut in two is dropped."""
    if output is None or not os.path.exists(output):
        return set()
    path = Path(output)
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            lines = lines[:-1]
        rows = [json.loads(line) for line in lines]
        found = {(row["model"], row["language"]) for row in rows}
        done = {row["clip"] for row in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _UsageError(
            f"{output}: expected a file that `affectgpt explain --output` wrote, got another one ({error})."
        ) from error
    if found - {(model, language)}:
        others = ", ".join(f"{name} ({code})" for name, code in sorted(found - {(model, language)}))
        raise _UsageError(f"{output}: expected explanations of {model} ({language}), got those of {others}. Name another file.")
    return done


def _append(output: str, row: dict) -> None:
    with open(output, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


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
