"""Push a checkpoint, or a LoRA adapter of one, to the Hub: weights, processor, the code to load them, and a card.

python -m hub.push_model --model models/affectgpt-2025 --repo ORG/NAME --dry-run
python -m hub.push_model --model runs/stage2 --base models/affectgpt-2025 --results EMER-Fine=results/test.json --repo ORG/NAME
python -m hub.push_model --model affectgpt/assets/sketch-model --about affectgpt/assets/sketch-model/README.md --repo ORG/NAME

A checkpoint in parts is pushed in parts: what was trained, and where the frozen models lie. `--form full` puts everything into it.
The licence is that of the strictest part; figures in the card come from records of `training.evaluate` only.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

import affectgpt  # before transformers: see affectgpt/_torchaudio_guard.py
from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTProcessor
from affectgpt.modeling_affectgpt import AUTO_MODEL

from .assemble import RECORD
from .fetch import format_size
from .publish import (
    LICENCES,
    CallError,
    Push,
    add_arguments,
    add_gate,
    card,
    check_name,
    gate_header,
    identifier_of,
    licence_header,
    read_body,
    run,
    strictest,
)
from .results import MeasuredResult, model_index, read_result, results_section
from .sources import ASSEMBLIES

AUTO_MAP = {
    "AutoConfig": "configuration_affectgpt.AffectGPTConfig",
    "AutoModel": AUTO_MODEL,
    "AutoModelForMultimodalLM": "modeling_affectgpt.AffectGPTForConditionalGeneration",
}
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# Ours to delete when a new version has them no longer.
OUTDATED = ("*.safetensors", "*.safetensors.index.json", "*.py", "adapter/*", RECORD)

SUMMARY = (
    "An AffectGPT model: it explains from picture, voice and words (a subtitle) what a person in a clip seems to feel, from which "
    "signs, and in which open-vocabulary words. Paper: [arXiv 2407.07653](https://arxiv.org/abs/2407.07653)."
)
DRAWINGS = (
    "It was trained on drawn faces with synthetic voices and has never seen a person: its answers about people are meaningless, "
    "and its figures say nothing about people."
)
PEOPLE = "Its answers about people are guesses from outward signs, and have not been checked on people like yours."
LIMITS = """\
- It looks at {frames} frames and listens to {clips} pieces of {seconds:g} s: of a long clip it misses most.
- It was made for one person speaking. Who is meant in a group, it cannot know.
- {scope}
- What it says sounds sure even when it is wrong: it gives no probability.
"""


@dataclass(frozen=True)
class Piece:
    """A part of the checkpoint: what it is, where it lies or came from, and its licence's identifier."""

    what: str
    where: str
    revision: str | None
    licence: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 a mistake in the call, 130 interrupted."""
    args = _parser().parse_args(arguments)
    return run("hub.push_model", lambda folder: prepare(args, folder), dry_run=args.dry_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hub.push_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="folder of a checkpoint, or of a LoRA adapter")
    add_arguments(parser)
    parser.add_argument("--base", metavar="WHERE", help="what training began from, folder or Hub id: its licences are inherited")
    parser.add_argument(
        "--form", choices=("parts", "full"), help="full: put the frozen parts into the checkpoint, too (default: as it is)"
    )
    parser.add_argument(
        "--licence", choices=LICENCES, help="of the weights that you trained; needed where nothing says it. A stricter part wins"
    )
    add_gate(parser)
    parser.add_argument("--dataset", action="append", default=[], metavar="REPO", help="trained on this dataset of the Hub")
    parser.add_argument(
        "--results", action="append", default=[], metavar="NAME=FILE", help="record of training.evaluate on the corpus NAME (.json)"
    )
    parser.add_argument("--about", type=Path, metavar="FILE", help="Markdown about this checkpoint, put into the card")
    return parser


def prepare(args: argparse.Namespace, folder: Path) -> Push:
    """Write what is not in the checkpoint's folder as it is to be pushed into `folder`, and list everything.

    Raises:
        CallError: if there is no checkpoint, a part of it lies on this machine only, or its licence is not known.
    """
    check_name(args.repo)
    results = [read_result(given) for given in args.results]
    measured = sorted({result.model for result in results})
    if len(measured) > 1:
        raise CallError(f"--results: expected those of one checkpoint, got those of {', '.join(measured)}. Give this one's alone.")
    if not args.model.is_dir():
        raise CallError(f"--model {args.model}: expected the folder of a checkpoint, got none. Check the path.")
    if args.about and not args.about.is_file():
        raise CallError(f"--about {args.about}: expected a Markdown file, got none. Check the path.")
    if (args.model / "adapter_config.json").is_file() and not (args.model / "config.json").is_file():
        return _prepare_adapter(args, folder, results)
    if not (args.model / "config.json").is_file():
        raise CallError(f"{args.model}: expected a checkpoint (config.json) or an adapter (adapter_config.json), got neither.")
    return _prepare_model(args, folder, results)


def _prepare_model(args: argparse.Namespace, folder: Path, results: list[MeasuredResult]) -> Push:
    config = _load(AffectGPTConfig, args.model)
    processor = _load(AffectGPTProcessor, args.model)
    if args.form == "parts" and not config.parts:
        raise CallError(f"{args.model}: expected a checkpoint in parts, got a full one. Leave --form out.")
    record = find_record(args.model, args.base)
    pieces = find_pieces(args, config.parts, record)
    licence = strictest(piece.licence for piece in pieces)
    homes = sorted({part["repo_id"] for part in (config.parts or {}).values()})

    if args.form == "full" and config.parts:
        model = AffectGPTForConditionalGeneration.from_pretrained(args.model)
        model.config.parts = config.parts = None
        model.save_pretrained(folder)
        files = {}
    else:
        _check_homes(args.model, config.parts)
        files = weight_files(args.model)
    config.auto_map = dict(AUTO_MAP)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    copy_code(folder)
    if record:
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    gate = args.gate or ("none" if config.drawings_only else "auto")
    header = licence_header(licence, args.repo, "model") | {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "language": ["en"] if config.drawings_only else ["en", "zh"],
        "tags": ["affectgpt", "emotion-recognition", "multimodal", "custom_code"] + ["synthetic"] * config.drawings_only,
    }
    header |= _common_header(args, bases=[*_base_repo(args.base), *homes], results=results)
    header |= gate_header() if gate != "none" else {}
    faces = "faces=crops" if processor.takes_faces else "frames=frames"
    form = "It holds all its weights."
    if config.parts:
        form = (
            "It is a checkpoint in parts: it holds only what was trained. `from_pretrained` fetches the frozen models from their "
            "own homes, at the revisions and with the hashes noted in `config.json`, and puts it together."
        )
    sound = processor.feature_extractor
    scope = DRAWINGS if config.drawings_only else PEOPLE
    (folder / "README.md").write_text(
        card(
            "model.md",
            header,
            title=args.repo.split("/")[1],
            repo=args.repo,
            tag=args.tag,
            summary=SUMMARY,
            scope=scope,
            media=f"{faces}, waveform=waveform",
            form=form,
            about=_about(args.about),
            results=results_section(results),
            limits=LIMITS.format(
                frames=processor.image_processor.num_frames, clips=sound.num_clips, seconds=sound.clip_duration, scope=scope
            ).strip(),
            licences=licences_section(pieces, licence),
        ),
        encoding="utf-8",
    )
    files |= {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return Push(
        "model",
        args.repo,
        files,
        private=args.private,
        tag=args.tag,
        gate=None if gate == "none" else gate,
        outdated=OUTDATED,
        check=() if args.skip_check else ("model",),
        homes=tuple(homes),
    )


def _prepare_adapter(args: argparse.Namespace, folder: Path, results: list[MeasuredResult]) -> Push:
    content = json.loads((args.model / "adapter_config.json").read_text(encoding="utf-8"))
    base = args.base or content.get("base_model_name_or_path") or ""
    if Path(base).exists() or base.count("/") != 1:
        raise CallError(
            f"{args.model}: expected an adapter of a model on the Hub, got one of {base or 'nothing'}. Push that model first, then "
            "give its Hub id with --base."
        )
    content["base_model_name_or_path"] = base
    missing = [name for name in ADAPTER_FILES if not (args.model / name).is_file()]
    if missing:
        raise CallError(f"{args.model}: expected a LoRA adapter as peft saves it, got none of {', '.join(missing)}.")
    (folder / "adapter_config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    licences = [licence for licence in (_licence_of_hub(base), args.licence) if licence]
    if not licences:
        raise CallError(f"The licence of {base} is not known (its card does not say, or the Hub was not asked). Give --licence.")
    licence = strictest(licences)
    gate = args.gate or "auto"
    header = licence_header(licence, args.repo, "model") | {
        "library_name": "peft",
        "pipeline_tag": "video-text-to-text",
        "tags": ["affectgpt", "emotion-recognition", "multimodal", "lora"],
    }
    header |= _common_header(args, bases=[base], results=results) | {"base_model_relation": "adapter"}
    header |= gate_header() if gate != "none" else {}
    weights = args.model / "adapter_model.safetensors"
    pieces = [Piece("the model that it is for", base, None, licences[0]), Piece("this adapter", args.repo, args.tag, licence)]
    (folder / "README.md").write_text(
        card(
            "adapter.md",
            header,
            title=args.repo.split("/")[1],
            repo=args.repo,
            tag=args.tag,
            base=base,
            size=format_size(weights.stat().st_size),
            scope=PEOPLE,
            about=_about(args.about),
            results=results_section(results),
            limits=f"Those of [{base}](https://huggingface.co/{base}).",
            licences=licences_section(pieces, licence),
        ),
        encoding="utf-8",
    )
    files = {name: folder / name for name in ("README.md", "adapter_config.json")} | {weights.name: weights}
    return Push(
        "model",
        args.repo,
        files,
        private=args.private,
        tag=args.tag,
        gate=None if gate == "none" else gate,
        outdated=OUTDATED,
        check=() if args.skip_check else ("adapter", base),
        homes=(base,),
    )


def _load(kind, folder: Path):
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CallError(
            f"{folder}: expected an AffectGPT checkpoint with its processor, got one that cannot be read as {kind.__name__} "
            f"({' '.join(str(error).split())}). Convert, assemble or train it again."
        ) from error


def weight_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint that are pushed as they are; optimiser states and the like are not among them.

    Raises:
        CallError: if it has no weights, or some that its index names are missing.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        names = [index.name, *sorted(shards)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CallError(f"{folder}: expected {', '.join(missing)}, got no such file. Save the checkpoint again.")
    names += [name for name in ("generation_config.json",) if (folder / name).is_file()]
    adapter = [path for path in (folder / "adapter").glob("*") if path.name in ADAPTER_FILES]
    return {path.relative_to(folder).as_posix(): path for path in [*(folder / name for name in names), *adapter]}


def copy_code(folder: Path) -> None:
    """Copy the modules that a checkpoint is loaded with where this package is not installed, configuration and model."""
    from transformers.dynamic_module_utils import get_relative_import_files

    package = Path(affectgpt.__file__).parent
    for module in sorted({reference.split(".")[0] for reference in AUTO_MAP.values()}):
        for path in (package / f"{module}.py", *map(Path, get_relative_import_files(package / f"{module}.py"))):
            shutil.copyfile(path, folder / path.name)


def _check_homes(folder: Path, parts: Mapping[str, Mapping] | None) -> None:
    local = [f"{name} in {part['repo_id']}" for name, part in (parts or {}).items() if Path(part["repo_id"]).exists()]
    if local:
        raise CallError(
            f"{folder}: expected parts that lie on the Hub, got {', '.join(local)}. Push it with --form full, or assemble it from "
            "the Hub."
        )


def find_record(folder: Path, base: str | None) -> dict:
    """What is noted of where the parts came from, beside the checkpoint or beside its base; empty if nothing is."""
    for place in (folder, base):
        if place is None:
            continue
        path = Path(place) / RECORD
        if Path(place).is_dir():
            if path.is_file():
                return json.loads(path.read_text(encoding="utf-8"))
            continue
        try:
            return json.loads(Path(hf_hub_download(str(place), RECORD)).read_text(encoding="utf-8"))
        except (EntryNotFoundError, OfflineModeIsEnabled):
            continue
        except (HfHubHTTPError, ValueError) as error:
            raise CallError(f"--base {place}: expected a folder or a model on the Hub, got neither ({error}).") from error
    return {}


def find_pieces(args: argparse.Namespace, parts: Mapping[str, Mapping] | None, record: Mapping) -> list[Piece]:
    """The parts of a checkpoint with their licences, the trained weights last.

    Raises:
        CallError: if the licence of a part, or of the trained weights, is not known.
    """
    known = {}
    for assembly in ASSEMBLIES.values():
        for source in (*assembly.sources, *filter(None, [assembly.checkpoint])):
            known.setdefault(source.repo_id, identifier_of(source.licence.name))
    pieces = []
    for name, entry in record.get("parts", {}).items():
        where = entry.get("repo_id") or entry.get("local", "")
        pieces.append(Piece(name, where, entry.get("revision"), identifier_of(entry["licence"])))
    listed = {piece.where for piece in pieces}
    for name, part in (parts or {}).items():
        if part["repo_id"] in listed:
            continue
        licence = known.get(part["repo_id"]) or args.licence
        if licence is None:
            raise CallError(f"The licence of the part {name}, {part['repo_id']}, is not known. Give it with --licence.")
        pieces.append(Piece(name, part["repo_id"], part.get("revision"), licence))

    trained = [args.licence, _licence_of_card(args.model), _licence_of_base(args.base)]
    trained = [licence for licence in trained if licence]
    if not trained and not record:
        raise CallError(
            f"{args.model}: expected to know what it was made from, and so its licence, got neither {RECORD} nor a card that says. "
            "Give --base with what training began from, or --licence."
        )
    inherited = [piece.licence for piece in pieces]
    pieces.append(Piece("the weights trained here", args.repo, args.tag, strictest([*trained, *inherited])))
    return pieces


def _licence_of_base(base: str | None) -> str | None:
    if base is None:
        return None
    return _licence_of_card(Path(base)) if Path(base).is_dir() else _licence_of_hub(base)


def _licence_of_card(folder: Path) -> str | None:
    """The licence that the card in a folder states, if it is one that is known."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    return _licence_in(ModelCard.load(path).data)


def _licence_of_hub(repo_id: str) -> str | None:
    try:
        return _licence_in(ModelCard.load(repo_id).data)
    except (EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError):
        return None


def _licence_in(data) -> str | None:
    stated = getattr(data, "license_name", None) or data.license
    return identifier_of(stated) if isinstance(stated, str) else None


def _base_repo(base: str | None) -> list[str]:
    return [base] if base is not None and not Path(base).is_dir() else []


def _common_header(args: argparse.Namespace, *, bases: list[str], results: list[MeasuredResult]) -> dict:
    header = {}
    if bases:
        header["base_model"] = list(dict.fromkeys(bases))
    if args.dataset:
        header["datasets"] = args.dataset
    return header | model_index(args.repo.split("/")[1], results)


def _about(path: Path | None) -> str:
    return f"## This checkpoint\n\n{read_body(path)}" if path else ""


def licences_section(pieces: list[Piece], licence: str) -> str:
    """A table of the parts with their licences, and which of them counts."""
    lines = ["| part | where | revision | licence |", "|---|---|---|---|"]
    for piece in pieces:
        lines.append(f"| {piece.what} | {piece.where} | {(piece.revision or '')[:12]} | {LICENCES[piece.licence].name} |")
    terms = LICENCES[licence]
    lines += ["", f"The strictest counts for the whole: **{terms.name}**. {terms.terms}", "", "The code in `*.py` is Apache-2.0."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
