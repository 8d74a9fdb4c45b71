"""Put a model for real people together from public weights: fetch its parts, convert them, explain one clip with the result.

python -m hub.assemble affectgpt-2025 --output models/affectgpt-2025 --dry-run
python -m hub.assemble affectgpt-2025 --output models/affectgpt-2025
python -m hub.assemble paper-vicuna --source vision=eva/ --form full --output models/paper-vicuna

It lists every file with size, licence and gate first, and asks once. It can be interrupted at any time: the same command goes on.
"""

import argparse
import dataclasses
import glob
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from .fetch import (
    ChangedError,
    FetchError,
    GateError,
    NoRevisionError,
    Repository,
    Wanted,
    check_access,
    compare,
    fetch,
    format_size,
    missing_bytes,
    open_repository,
    origin,
    select_files,
)
from .sources import ASSEMBLIES, GB, NON_COMMERCIAL, Assembly, Licence, Source, replace_source

SUCCESS, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

# Beside the finished checkpoint: where every part came from. Until then, what an interrupted run goes on with.
RECORD = "sources.json"
# Files of these parts are copied into a checkpoint of parts; all others stay where they are.
TRAINED_PARTS = ("checkpoint", "video_branch", "audio_branch")


class CallError(Exception):
    """A mistake in the call, or something on this machine that is in the way; the message says what to do."""


class AssemblyError(Exception):
    """The parts are here, but no working model came of them."""


@dataclass(frozen=True)
class Part:
    """A source, and what the Hub lists of it: nothing for a file or folder of this machine, nor where it refuses to."""

    source: Source
    repository: Repository | None = None
    wanted: tuple[Wanted, ...] = ()
    refusal: str | None = None


def main(
    arguments: list[str] | None = None,
    *,
    convert: Callable | None = None,
    explain: Callable[[Path, str | None], str] | None = None,
) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 a mistake in the call, 130 interrupted.

    `convert` and `explain` stand in for the converter of the assembly and for the last check.
    """
    args = _parser().parse_args(arguments)
    try:
        return _assemble(args, convert, explain or explain_example)
    except CallError as error:
        _complain(error)
        return USER_ERROR
    except (FetchError, AssemblyError) as error:
        _complain(error)
        return FAILED
    except KeyboardInterrupt:
        _complain("interrupted. What has arrived is kept: the same command goes on where it stopped.")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hub.assemble",
        description=__doc__.partition("\n\n")[0],
        epilog=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("assembly", choices=ASSEMBLIES, help="which model")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the checkpoint that is made")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="the trained weights: a .pth file of this machine, or the name of one in the authors' repository if it has several",
    )
    parser.add_argument(
        "--form",
        choices=("parts", "full"),
        default="parts",
        help="parts: only what was trained, and where the frozen models lie (default); full: everything in one folder",
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="PART=WHERE",
        help="take a part from elsewhere: a file or folder of this machine, or REPOSITORY[@REVISION][:FILE_OR_FOLDER] on the Hub",
    )
    parser.add_argument("--mode", help="affectgpt-2025: the prompts it was trained with, where the checkpoint does not say")
    parser.add_argument("--dry-run", action="store_true", help="list files, sizes, licences, gates; fetch nothing")
    parser.add_argument("--yes", action="store_true", help="agree to the licences without being asked")
    parser.add_argument("--skip-check", action="store_true", help="do not explain a clip at the end (16 GB for a 7B model)")
    parser.add_argument("--device", metavar="NAME", help='where the check runs, such as "cpu" or "cuda:1"')
    return parser


def _overview() -> str:
    lines = []
    for name, assembly in ASSEMBLIES.items():
        lines.append(f"{name}: {assembly.title}")
        for source in (*assembly.sources, *([assembly.checkpoint] if assembly.checkpoint else [])):
            gate = ", consent asked" if source.is_gated else ""
            size = format_size(source.approximate_bytes)
            lines.append(f"  {source.part:<13} about {size:>8}  {source.repo_id} ({source.licence.name}{gate})")
        lines.append("")
    return "\n".join(lines)


def _assemble(args: argparse.Namespace, convert: Callable | None, explain: Callable[[Path, str | None], str]) -> int:
    assembly, output = ASSEMBLIES[args.assembly], args.output.expanduser()
    if (output / "config.json").exists():
        raise CallError(f"{output}: there is a checkpoint already. Use it, give another --output, or delete it first.")
    sources = choose_sources(assembly, args.source, args.checkpoint)
    _check_local(sources)
    if args.mode and args.assembly != "affectgpt-2025":
        raise CallError(f"--mode {args.mode}: only the prompts of affectgpt-2025 come in modes. Leave it out.")
    record = read_record(output, args.assembly)
    parts = look_up(sources, record, allow_ranges=args.form == "full")
    licence = max((part.source.licence for part in parts), key=lambda item: item.rank)
    is_trained = any(part.source.part == "checkpoint" for part in parts)
    show_plan(args.assembly, args.form, parts, licence, output)
    if not is_trained:
        print(f"\n{assembly.untrained_note}")
    if args.dry_run:
        refused = _refused(parts)
        for reason in refused:
            print(f"\n{reason}")
        print("\nThis was a dry run: nothing was fetched or written.")
        return FAILED if refused else SUCCESS

    if refused := _refused(parts):
        raise FetchError("\n".join(refused))
    _check_disk(parts, args.form, output)
    if not args.yes:
        _ask(parts, licence)
    write_record(output, args.assembly, parts, licence)
    if convert is None:
        import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)

        convert = importlib.import_module(assembly.converter).convert
    _make(parts, output, convert, form=args.form, **({"mode": args.mode} if args.mode else {}))
    if not args.skip_check:
        print("Explaining one of the shipped clips, to see that it works ...", flush=True)
        try:
            print(explain(output, args.device))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise AssemblyError(
                f"The checkpoint lies in {output}, but explaining a clip with it failed: {' '.join(str(error).split())}"
            ) from error
    print(f"\nDone: {output}. Use it with `affectgpt explain --model {output} CLIP`, or set AFFECTGPT_MODEL to it.")
    print(f"It carries the licence of its strictest part: {licence.name}. {licence.terms}")
    if not is_trained:
        print(assembly.untrained_note)
    return SUCCESS


def _make(parts: list[Part], output: Path, convert: Callable, **options) -> None:
    """Fetch the parts and make the checkpoint of them."""
    paths, origins = {}, {}
    for part in parts:
        name = part.source.part
        if part.repository is None:
            paths[name] = part.source.local
            continue
        print(f"Fetching {name}: {part.source.repo_id} ...", flush=True)
        paths[name] = fetch(part.source, part.repository, list(part.wanted))
        origins[name] = origin(part.repository, part.wanted)

    print("Converting ...", flush=True)
    unfinished = output / ".converting"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        report = convert(paths, unfinished, origins=origins, **options)
    except (ValueError, OSError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise AssemblyError(f"The parts did not become a model: {error}") from error
    # The configuration last: a folder that has one is a whole checkpoint.
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "config.json"):
        if (output / path.name).is_dir():
            shutil.rmtree(output / path.name)
        os.replace(path, output / path.name)
    unfinished.rmdir()
    print(dataclasses.replace(report, output=output), flush=True)


def choose_sources(assembly: Assembly, replacements: list[str], checkpoint: str | None) -> list[Source]:
    """The parts of an assembly, with those replaced that the user takes from elsewhere.

    Raises:
        CallError: if a replacement is not of the form `PART=WHERE`, or there is no such part or place.
    """
    sources = {source.part: source for source in assembly.sources}
    if assembly.checkpoint is not None:
        sources["checkpoint"] = assembly.checkpoint
    default = Source("checkpoint", "your trained weights", "ORGANISATION/NAME", NON_COMMERCIAL, GB, file="*.pth")
    for replacement in replacements:
        part, _, where = replacement.partition("=")
        if part not in assembly.parts or not where:
            raise CallError(f"--source {replacement}: expected PART=WHERE with a part out of {', '.join(assembly.parts)}.")
        try:
            sources[part] = replace_source(sources.get(part, default), where)
        except ValueError as error:
            raise CallError(str(error)) from error
    if checkpoint is not None:
        path, known = Path(checkpoint).expanduser(), sources.get("checkpoint")
        if path.exists():
            known = known or default
            sources["checkpoint"] = replace_source(known, checkpoint)
        elif known is not None and known.local is None:
            name = glob.escape(checkpoint)
            pattern = name if name.endswith(".pth") else f"*{name}*.pth"
            sources["checkpoint"] = dataclasses.replace(known, file=pattern, preferred=None)
        else:
            raise CallError(f"--checkpoint {checkpoint}: expected a .pth file, got nothing of this name. Check the path.")
    return list(sources.values())


def _check_local(sources: list[Source]) -> None:
    for source in sources:
        if source.local is None:
            continue
        if source.file is not None and source.local.is_dir():
            raise CallError(f"{source.local}: expected the file of the part {source.part}, got a folder. Give the file in it.")


def read_record(output: Path, name: str) -> dict:
    """Part -> repository, revision and hashes that an interrupted run noted in `output`; empty if there was none.

    Raises:
        CallError: if something else lies there.
    """
    path = output / RECORD
    if not path.exists():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise CallError(f"{output}: expected a new or empty folder, got something else. Give another --output.")
        return {}
    try:
        content = json.loads(path.read_text())
        assembly, parts = content["assembly"], content["parts"]
    except (ValueError, KeyError, TypeError) as error:
        raise CallError(f"{path}: expected the record of an interrupted run, got something else. Delete it.") from error
    if assembly != name:
        raise CallError(f"{output}: {assembly} was begun here, not {name}. Give another --output.")
    return parts


def write_record(output: Path, name: str, parts: list[Part], licence: Licence) -> None:
    """Note repository, commit, hashes and licence of every part in `output`."""
    entries = {}
    for part in parts:
        entry = entries[part.source.part] = {"licence": part.source.licence.name}
        if part.repository is None:
            entry["local"] = part.source.local.name  # the record may be published; the way to it concerns nobody
        else:
            files = {piece.file.path: piece.file.hash for piece in part.wanted}
            entry |= {"repo_id": part.repository.repo_id, "revision": part.repository.commit, "files": files}
    content = {"assembly": name, "licence": licence.name, "parts": entries}
    output.mkdir(parents=True, exist_ok=True)
    unfinished = output / f"{RECORD}.incomplete"
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, output / RECORD)


def look_up(sources: list[Source], record: dict, *, allow_ranges: bool) -> list[Part]:
    """Ask the Hub what it holds of each part: at the commits of `record` where there are any, so that a model is not mixed.

    Raises:
        FetchError: if a repository cannot be read or lacks what is needed.
        ChangedError: if it no longer holds what was recorded.
    """
    parts, repositories = [], {}
    for source in sources:
        if source.local is not None:
            parts.append(Part(source))
            continue
        recorded = record.get(source.part, {})
        if recorded.get("repo_id") != source.repo_id:
            recorded = {}
        revision = recorded.get("revision", source.revision)
        try:
            if (source.repo_id, revision) not in repositories:
                repositories[source.repo_id, revision] = _open(source, revision, recorded)
            repository = repositories[source.repo_id, revision]
            wanted = select_files(source, repository, allow_ranges=allow_ranges)
        except GateError as error:
            parts.append(Part(source, refusal=str(error)))
            continue
        if recorded:
            try:
                compare(repository, wanted, recorded["files"])
            except ChangedError as error:
                raise ChangedError(
                    f"{error}\nTo begin anew with what is there now, give another --output, or delete {RECORD} in this one."
                ) from error
        parts.append(Part(source, repository, tuple(wanted)))
    return parts


def _open(source: Source, revision: str | None, recorded: dict) -> Repository:
    try:
        return open_repository(source.repo_id, revision)
    except NoRevisionError:
        if not recorded:
            raise
        # Its history was rewritten. If the files are the same, that is no harm; `compare` sees to it.
        return open_repository(source.repo_id, source.revision)


def _pieces(parts: list[Part]) -> dict[tuple, tuple[Part, Wanted]]:
    """Every file that is to be fetched, once: two parts may share one."""
    return {
        (part.repository.repo_id, piece.file.path, piece.tensors): (part, piece)
        for part in parts
        if part.repository is not None
        for piece in part.wanted
    }


def show_plan(name: str, form: str, parts: list[Part], licence: Licence, output: Path) -> None:
    """Print what will be fetched from where, under which licence, and how much room it takes."""
    print(f"{ASSEMBLIES[name].title}, form: {form}\n")
    for part in parts:
        source = part.source
        if part.refusal is not None:
            print(f"{source.part}: {source.what}\n  {source.repo_id}, about {format_size(source.approximate_bytes)}")
            print(f"  licence: {source.licence.name}; gate: consent asked, without which its files are not listed")
            continue
        if part.repository is None:
            print(f"{source.part}: {source.what}\n  {source.local}")
            print(f"  licence: {source.licence.name} (of the weights that it stands for)")
            if form == "parts" and source.part not in TRAINED_PARTS:
                print("  The checkpoint will refer to it: it works on this machine only. To share it, use --form full.")
            continue
        gate = f"consent asked at {part.repository.page}" if source.is_gated or part.repository.gated else "none"
        stated = f" (the Hub says: {part.repository.licence})" if part.repository.licence else ""
        print(f"{source.part}: {source.what}\n  {part.repository.page} at {part.repository.commit[:12]}")
        print(f"  licence: {source.licence.name}{stated}; gate: {gate}")
        for piece in part.wanted:
            what = f" ({len(piece.tensors)} of its tensors)" if piece.tensors else ""
            print(f"  {format_size(piece.size):>10}  {piece.file.path}{what}")
    pieces = _pieces(parts).values()
    total = sum(piece.size for _, piece in pieces)
    missing = sum(missing_bytes(part.source, part.repository, piece) for part, piece in pieces)
    print(f"\nTo fetch: {format_size(missing)} of {format_size(total)}; the rest is here already.")
    print(f"Disk: {format_size(missing)} in {constants.HF_HUB_CACHE}, about {format_size(_output_bytes(parts, form))} in {output}.")
    print(f"Strictest licence: {licence.name}. {licence.terms}")


def _output_bytes(parts: list[Part], form: str) -> int:
    """Upper bound of what the checkpoint takes: nothing is stored wider than it came."""
    total = 0
    for part in parts:
        if form == "parts" and part.source.part not in TRAINED_PARTS:
            continue
        if part.repository is not None:
            size = sum(piece.size for piece in part.wanted)
            # Of files that hold more than is needed, only that goes into the checkpoint.
            total += min(size, part.source.approximate_bytes) if part.source.tensors else size
        elif part.source.local is None:
            total += part.source.approximate_bytes
        elif part.source.local.is_file():
            total += part.source.local.stat().st_size
        else:
            total += sum(path.stat().st_size for path in part.source.local.rglob("*") if path.is_file())
    return total


def _refused(parts: list[Part]) -> list[str]:
    """Why the Hub will not give the content of repositories whose listing it gave."""
    reasons = {part.source.repo_id: part.refusal for part in parts if part.refusal is not None}
    for part in parts:
        if part.repository is None or part.repository.repo_id in reasons:
            continue
        try:
            check_access(part.repository, part.wanted)
        except FetchError as error:
            reasons[part.repository.repo_id] = str(error)
    return list(reasons.values())


def _check_disk(parts: list[Part], form: str, output: Path) -> None:
    needed: dict[int, list] = {}
    missing = sum(missing_bytes(part.source, part.repository, piece) for part, piece in _pieces(parts).values())
    for folder, size in ((Path(constants.HF_HUB_CACHE), missing), (output, _output_bytes(parts, form))):
        folder = folder.absolute()
        while not folder.exists():
            folder = folder.parent
        entry = needed.setdefault(folder.stat().st_dev, [folder, 0])
        entry[1] += size
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free
        if free < size:
            raise CallError(
                f"The disk of {folder} needs {format_size(size)} of free space and has {format_size(free)}. Make room, set "
                "HF_HOME to a folder on a larger disk for what is fetched, or give another --output."
            )


def _ask(parts: list[Part], licence: Licence) -> None:
    for item in sorted({part.source.licence for part in parts}, key=lambda item: -item.rank):
        names = ", ".join(part.source.part for part in parts if part.source.licence == item)
        print(f"  {item.name} ({names}): {item.terms}")
    print(f"The checkpoint will carry the strictest: {licence.name}.")
    try:
        answer = input("Type yes if you agree to these licences: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        raise CallError("Nothing was fetched, because the licences were not agreed to. Scripts agree with --yes.")


def explain_example(folder: Path, device: str | None) -> str:
    """Explain a shipped clip with the checkpoint in `folder`, as a user would. The clip is a drawing: it shows that the model runs.

    Raises:
        ValueError: if the model says nothing.
    """
    import affectgpt

    examples = Path(affectgpt.__file__).parent / "assets" / "examples"
    name, subtitle = next(iter(json.loads((examples / "examples.json").read_text()).items()))
    model, processor = affectgpt.load_model(folder, device=device)
    explanation = affectgpt.explain(model, processor, examples / name, subtitle=subtitle, max_new_tokens=120)
    if not explanation.text:
        raise ValueError("it answered nothing")
    return str(explanation)


def _complain(message) -> None:
    print(f"hub.assemble: error: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
