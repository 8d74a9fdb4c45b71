"""Fetches from the Hub what a part needs and no more: chosen files, single shards, single tensors; resumed, checked, at one commit.

Whole files end up in the cache of `huggingface_hub`, where `from_pretrained` finds them again. That client keeps nothing of a
download that was interrupted, which hurts with files of gigabytes: here what has arrived stays and the next run goes on behind it.
"""

import fnmatch
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, constants, get_token, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status
from huggingface_hub.utils.sha import git_hash

from .sources import Origin, Source

# What reading a shard must save before its tensors are fetched one by one; below it, the whole shard is simpler and can be checked.
MIN_SAVING = 256 * 2**20
# A connection that brings nothing so many times in a row is given up.
MAX_FAILURES = 5

WEIGHTS = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
# The small files of a transformers folder: configurations and tokenizer.
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.*",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "LICENSE*",
)


class FetchError(Exception):
    """Something that cannot be fetched; the message names it and says what to do."""


class NoRevisionError(FetchError):
    """A repository has no such branch, tag or commit (any more)."""


class GateError(FetchError):
    """A repository's owner asks for consent that was not given yet."""


class ChangedError(FetchError):
    """A repository no longer holds what was recorded of it."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it. Large files have a `sha256`, small ones git's `oid` only."""

    path: str
    size: int
    oid: str
    sha256: str | None

    @property
    def hash(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Repository:
    """What the Hub lists of a repository at one commit."""

    repo_id: str
    commit: str
    gated: str | bool
    licence: str | None
    files: dict[str, RemoteFile]

    @property
    def page(self) -> str:
        return f"{constants.ENDPOINT}/{self.repo_id}"


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched of a file: all of it, or `tensors` of a safetensors file, which take `size` bytes."""

    file: RemoteFile
    size: int
    tensors: tuple[str, ...] = ()


def open_repository(repo_id: str, revision: str | None = None) -> Repository:
    """List a repository at a branch, tag or commit.

    Raises:
        NoRevisionError: if it has no such revision.
        GateError: if not even its listing is given without consent.
        FetchError: if it cannot be reached, read or found; the message says what to do.
    """
    api = HfApi()
    with _refusals_explained(repo_id):
        info = api.model_info(repo_id, revision=revision)
        entries = list(api.list_repo_tree(repo_id, revision=info.sha, recursive=True))
    files = {
        entry.path: RemoteFile(entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if hasattr(entry, "size")
    }
    licence = info.card_data.get("license") if info.card_data else None
    return Repository(repo_id, info.sha, info.gated or False, licence, files)


def check_access(repository: Repository, wanted: Iterable[Wanted]) -> None:
    """Ask for one file's content, without fetching it.

    Raises:
        FetchError: if the Hub refuses, for example because its owner asks for consent first.
    """
    with _refusals_explained(repository.repo_id):
        _read_span(repository, next(iter(wanted)).file, 0, 1)


def select_files(source: Source, repository: Repository, *, allow_ranges: bool) -> list[Wanted]:
    """What of `repository` the part needs. Indices and headers of weights are read for it, but nothing is written.

    Args:
        source ([`Source`]): the part.
        repository ([`Repository`]): where it lies.
        allow_ranges (`bool`): fetch single tensors of a safetensors file where that saves much; whole files otherwise.

    Raises:
        GateError: if an index has to be read for it and the Hub refuses.
        FetchError: if the repository does not hold what the part needs.
    """
    if source.file is not None:
        return [_select_file(source, repository)]
    prefix = f"{source.folder}/" if source.folder else ""
    names = {path.removeprefix(prefix) for path in repository.files if path.startswith(prefix)}
    weights = next((name for name in WEIGHTS if name in names), None)
    missing = [] if "config.json" in names else ["config.json"]
    missing += [] if weights else [f"weights ({' or '.join(WEIGHTS)})"]
    missing += ["a tokenizer"] if source.needs_tokenizer and not names.intersection(TOKENIZERS) else []
    if missing:
        raise FetchError(
            f"{_place(source)}: expected a model in the layout of transformers, got none: {', '.join(missing)} missing. "
            f"Give another place with --source {source.part}=REPOSITORY:FOLDER."
        )
    small = [name for name in sorted(names) if any(fnmatch.fnmatchcase(name, pattern) for pattern in SMALL_FILES)]
    wanted = [Wanted(file := repository.files[prefix + name], file.size) for name in small]
    if not weights.endswith(".index.json"):
        shards = {weights: None}
    else:
        index = repository.files[prefix + weights]
        wanted.append(Wanted(index, index.size))
        shards = _select_shards(source, repository, index)
    for shard, tensors in shards.items():
        if prefix + shard not in repository.files:
            raise FetchError(f"{_place(source)}: {weights} names {shard}, which is not there. Give another place with --source.")
        wanted.append(_select_tensors(source, repository, repository.files[prefix + shard], tensors, allow_ranges))
    return wanted


def _place(source: Source) -> str:
    return f"{source.repo_id}/{source.folder}" if source.folder else source.repo_id


def _select_file(source: Source, repository: Repository) -> Wanted:
    pattern = source.file
    found = [path for path in repository.files if fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"*/{pattern}")]
    if pattern in found:
        found = [pattern]
    elif len(found) > 1 and source.preferred is not None:
        found = [path for path in found if fnmatch.fnmatchcase(path, f"*{source.preferred}")] or found
    if len(found) == 1:
        file = repository.files[found[0]]
        return Wanted(file, file.size)
    option = "--checkpoint FILE" if source.part == "checkpoint" else f"--source {source.part}={source.repo_id}:FILE"
    if not found:
        there = ", ".join(sorted(repository.files)[:12]) or "no file"
        raise FetchError(
            f"{source.repo_id}: expected a file {pattern}, got {there}. Give its name with {option}, or a file of this machine."
        )
    choices = "\n".join(f"  {path}  ({format_size(repository.files[path].size)})" for path in sorted(found))
    raise FetchError(f"{source.repo_id}: expected one file {pattern}, got {len(found)}. Choose one with {option}:\n{choices}")


def _select_shards(source: Source, repository: Repository, index: RemoteFile) -> dict[str, list[str]]:
    """Shard -> the tensors that are needed of it."""
    content = json.loads(read_small_file(repository, index))
    shards: dict[str, list[str]] = {}
    for tensor, shard in content["weight_map"].items():
        if _is_needed(source, tensor):
            shards.setdefault(shard, []).append(tensor)
    for beginning in source.tensors:
        if not any(tensor.startswith(beginning) for tensors in shards.values() for tensor in tensors):
            raise FetchError(
                f"{_place(source)}: expected tensors named {beginning}* in {index.path}, got none. Give another place by --source."
            )
    return dict(sorted(shards.items()))


def _is_needed(source: Source, tensor: str) -> bool:
    return not source.tensors or tensor.startswith(source.tensors)


def _select_tensors(source: Source, repository: Repository, file: RemoteFile, tensors, allow_ranges: bool) -> Wanted:
    whole = Wanted(file, file.size)
    if not (allow_ranges and source.tensors and file.path.endswith(".safetensors") and file.size >= MIN_SAVING):
        return whole
    with _refusals_explained(repository.repo_id):
        header, _ = _read_header(repository, file)
    names = tuple(sorted((name for name in header if _is_needed(source, name)), key=lambda name: header[name]["data_offsets"]))
    if missing := set(tensors or ()) - set(names):
        raise FetchError(f"{repository.repo_id}: {file.path} lacks {', '.join(sorted(missing)[:5])}, which its index names.")
    size = sum(end - start for start, end in (header[name]["data_offsets"] for name in names))
    return Wanted(file, size, names) if names and file.size - size >= MIN_SAVING else whole


def origin(repository: Repository, wanted: Iterable[Wanted]) -> Origin:
    """Where fetched files came from, with the sha256 of each file's whole content.

    The Hub states it for large files; of small ones, which are in the cache by now, it is computed.
    """
    hashes = {}
    for piece in wanted:
        hashes[piece.file.path] = piece.file.sha256 or hashlib.sha256(_cached(repository, piece.file).read_bytes()).hexdigest()
    return Origin(repository.repo_id, repository.commit, hashes)


def compare(repository: Repository, wanted: Iterable[Wanted], recorded: dict[str, str]) -> None:
    """Compare what the Hub lists now with the hashes recorded earlier.

    Raises:
        ChangedError: names every file that is another one now, or gone.
    """
    now = {piece.file.path: piece.file.hash for piece in wanted}
    changed = [
        f"  {path}: recorded {value[:16]}, now {now.get(path, 'not there')[:16]}"
        for path, value in recorded.items()
        if now.get(path) != value
    ]
    if changed:
        raise ChangedError(f"{repository.repo_id} changed since this assembly began:\n" + "\n".join(changed))


def missing_bytes(source: Source, repository: Repository, piece: Wanted) -> int:
    """How much of a file is not on this machine yet."""
    if piece.tensors:
        target = _extract(source, repository, piece)
        return 0 if target.exists() else max(piece.size - _size_on_disk(_incomplete(target)), 0)
    if _cached(repository, piece.file) is not None:
        return 0
    blob = _blob(repository, piece.file)
    return 0 if blob.exists() else max(piece.size - _size_on_disk(_incomplete(blob)), 0)


def fetch(source: Source, repository: Repository, wanted: list[Wanted]) -> Path:
    """Fetch a part, or find it in the cache.

    Returns:
        Its file, or its folder. Of weights in shards of which not all are needed, the folder has an index of those that are there.

    Raises:
        FetchError: if the Hub refuses, the connection stays broken, the disk is full, or a file is not what its hash says.
    """
    whole = [piece for piece in wanted if not piece.tensors]
    extracted = [piece for piece in wanted if piece.tensors]
    with _refusals_explained(repository.repo_id):
        paths = [_fetch_file(repository, piece.file) for piece in whole]
        extracts = [_fetch_tensors(source, repository, piece) for piece in extracted]
    if source.file is not None:
        return paths[0]
    index = next((path for path in paths if path.name.endswith(".index.json")), None)
    if not source.tensors or (index is None and not extracts):
        return paths[0].parent
    folder = _extracts_folder(source, repository)
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if path != index:
            _link(path, folder / path.name)
    if index is not None:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        needed = {name: shard for name, shard in weight_map.items() if _is_needed(source, name)}
        (folder / index.name).write_text(json.dumps({"metadata": {}, "weight_map": needed}, indent=1), encoding="utf-8")
    return folder


def _link(path: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(path.resolve(), target)
    except OSError:  # another disk, or no links there
        shutil.copyfile(path, target)


def _extracts_folder(source: Source, repository: Repository) -> Path:
    """Where a folder of some tensors lies; its name stands for the choice, for two parts may need different ones."""
    root = Path(os.environ.get("AFFECTGPT_CACHE") or Path.home() / ".cache" / "affectgpt") / "extracts"
    name = repo_folder_name(repo_id=repository.repo_id, repo_type="model")
    choice = hashlib.sha256("\n".join((source.folder, *source.tensors)).encode()).hexdigest()[:12]
    return root / name / repository.commit / choice


def _extract(source: Source, repository: Repository, piece: Wanted) -> Path:
    return _extracts_folder(source, repository) / PurePosixPath(piece.file.path).name


def read_small_file(repository: Repository, file: RemoteFile) -> bytes:
    """The content of a file, checked, without writing it anywhere."""
    if (path := _cached(repository, file)) is not None:
        return path.read_bytes()
    with _refusals_explained(repository.repo_id):
        data = _read_span(repository, file, 0, file.size)
    found = hashlib.sha256(data).hexdigest() if file.sha256 else git_hash(data)
    if found != file.hash:
        raise _damaged(repository, file, found)
    return data


def _refusal(repo_id: str, error: Exception) -> FetchError:
    """What the Hub's or the network's refusal means for the user."""
    page = f"{constants.ENDPOINT}/{repo_id}"
    if isinstance(error, GatedRepoError):
        if get_token() is None:
            return GateError(
                f"{repo_id}: its owner asks for consent before anyone may fetch it, and you are not logged in.\n"
                f"  1. Accept the terms at {page}\n"
                "  2. Log in on this machine with `hf auth login`, or set HF_TOKEN to a token of that account.\n"
                "Then run the same command again."
            )
        return GateError(
            f"{repo_id}: its owner asks for consent, and the account you are logged in with does not have access yet. "
            f"Accept the terms at {page}, wait until access is granted, and run the same command again."
        )
    if isinstance(error, HfHubHTTPError) and "Invalid credentials" in str(error):
        return FetchError(
            "The Hub does not know the token of this machine. Log in with `hf auth login --force`, or correct or unset HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError):
        return NoRevisionError(f"{repo_id}: it has no such revision. Give another with --source PART={repo_id}@REVISION.")
    if isinstance(error, RepositoryNotFoundError):
        return FetchError(
            f"{repo_id}: there is no such repository on the Hub, or it is private and you have no access. "
            "If it is yours, log in with `hf auth login`; if it has moved, give its new place with --source."
        )
    if isinstance(error, OfflineModeIsEnabled):
        return FetchError(f"{repo_id}: the Hub may not be asked: HF_HUB_OFFLINE is set. Unset it and run the command again.")
    if isinstance(error, HfHubHTTPError):
        return FetchError(f"{repo_id}: the Hub refused: {' '.join(str(error).split())}. Run the same command again later.")
    return FetchError(
        f"{repo_id}: {constants.ENDPOINT} cannot be reached ({error}). What has arrived is kept; check the connection and run the "
        "same command again."
    )


_REFUSALS = (HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError, httpx2.TransportError)


@contextmanager
def _refusals_explained(repo_id: str) -> Iterator[None]:
    try:
        yield
    except _REFUSALS as error:
        raise _refusal(repo_id, error) from error


def _url(repository: Repository, file: RemoteFile) -> str:
    return hf_hub_url(repository.repo_id, file.path, revision=repository.commit)


def _read_span(repository: Repository, file: RemoteFile, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of a file; short ones, for they are held in memory."""
    if start >= min(end, file.size):
        return b""
    end = min(end, file.size)
    headers = build_hf_headers() | {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    for failures in range(MAX_FAILURES):
        try:
            with get_session().stream("GET", _url(repository, file), headers=headers) as response:
                hf_raise_for_status(response)
                if response.status_code != 206 and (start, end) != (0, file.size):
                    # Nothing but the first bytes is wanted, and this answer brings the whole file.
                    data = b""
                    for piece in response.iter_bytes():
                        data += piece
                        if len(data) >= end:
                            break
                    return data[start:end]
                return response.read()
        except httpx2.TransportError:
            if failures == MAX_FAILURES - 1:
                raise
            time.sleep(min(2**failures, 10) / 2)


def _cache_folder(repository: Repository) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository.repo_id, repo_type="model")


def _blob(repository: Repository, file: RemoteFile) -> Path:
    # Documented layout of the cache: content lies under the file's ETag, which is this hash.
    return _cache_folder(repository) / "blobs" / file.hash


def _cached(repository: Repository, file: RemoteFile) -> Path | None:
    path = try_to_load_from_cache(repository.repo_id, file.path, revision=repository.commit)
    return Path(path) if isinstance(path, str) and os.path.getsize(path) == file.size else None


def _incomplete(path: Path) -> Path:
    return path.with_name(f"{path.name}.incomplete")


def _size_on_disk(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_file(repository: Repository, file: RemoteFile) -> Path:
    if (path := _cached(repository, file)) is not None:
        return path
    blob = _blob(repository, file)
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / _cache_folder(repository).name / f"{file.hash}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not (blob.exists() and blob.stat().st_size == file.size):
            _download_checked(repository, file, blob)
    # The content is there, so this makes the snapshot's link and fetches nothing.
    return Path(hf_hub_download(repository.repo_id, file.path, revision=repository.commit))


def _download_checked(repository: Repository, file: RemoteFile, blob: Path) -> None:
    partial = _incomplete(blob)
    was_begun = _size_on_disk(partial) > 0
    if _size_on_disk(partial) > file.size:
        partial.unlink()
    _append_span(repository, file, partial, base=0, start=0, end=file.size)
    found = _hash(partial, file)
    if found != file.hash and was_begun:
        # What lay there may have been another content's beginning; one fresh start tells.
        partial.unlink()
        _append_span(repository, file, partial, base=0, start=0, end=file.size)
        found = _hash(partial, file)
    if found != file.hash:
        partial.unlink()
        raise _damaged(repository, file, found)
    os.replace(partial, blob)


def _damaged(repository: Repository, file: RemoteFile, found: str) -> FetchError:
    return FetchError(
        f"{repository.repo_id}: {file.path} is not the file that the Hub lists: expected hash {file.hash}, got {found}. It was "
        "damaged on the way or replaced. What had arrived was deleted; run the same command again to fetch it anew."
    )


def _hash(path: Path, file: RemoteFile) -> str:
    if file.sha256 is None:
        return git_hash(path.read_bytes())
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _append_span(repository: Repository, file: RemoteFile, path: Path, *, base: int, start: int, end: int) -> None:
    """Append bytes `start` to `end` of a file to `path`, whose first `base` bytes are something else; goes on where it stopped."""
    failures = 0
    path.touch()
    while (done := path.stat().st_size - base) < end - start:
        headers = build_hf_headers() | {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        try:
            # Unbuffered, so that what a killed process had received is there.
            with open(path, "ab", buffering=0) as output:
                http_get(
                    _url(repository, file),
                    output,
                    resume_size=done,
                    headers=headers,
                    expected_size=end - start,
                    displayed_filename=file.path,
                )
        except httpx2.TransportError as error:
            failures = 0 if path.stat().st_size - base > done else failures + 1
            if failures >= MAX_FAILURES:
                raise FetchError(
                    f"{repository.repo_id}: the connection broke off again and again while {file.path} was fetched ({error}). "
                    "What has arrived is kept; check the connection and run the same command again."
                ) from error
            time.sleep(min(2**failures, 30) / 2)
        except HfHubHTTPError:
            raise
        except OSError as error:
            # The disk, or an answer of the wrong length, of which nothing is to be built upon.
            os.truncate(path, base + done)
            raise FetchError(f"{repository.repo_id}: {file.path} could not be written to {path}: {error}.") from error


def _read_header(repository: Repository, file: RemoteFile) -> tuple[dict, int]:
    """The header of a safetensors file, and where its tensors begin.

    Format: 8 bytes little-endian length, JSON of name -> dtype, shape and offsets, then the tensors
    (https://github.com/huggingface/safetensors#format).
    """
    length = int.from_bytes(_read_span(repository, file, 0, 8), "little")
    if not 2 <= length <= file.size - 8:
        raise FetchError(f"{repository.repo_id}: {file.path} is no safetensors file. Give another place with --source.")
    header = json.loads(_read_span(repository, file, 8, 8 + length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _fetch_tensors(source: Source, repository: Repository, wanted: Wanted) -> Path:
    """Write a safetensors file of the wanted tensors only. No hash speaks of a part of a file: only lengths are checked."""
    target = _extract(source, repository, wanted)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    header, begin = _read_header(repository, wanted.file)
    entries, spans, position = {}, [], 0
    for name in wanted.tensors:
        start, end = header[name]["data_offsets"]
        entries[name] = header[name] | {"data_offsets": [position, position + end - start]}
        position += end - start
        if spans and spans[-1][1] == begin + start:
            spans[-1][1] = begin + end
        else:
            spans.append([begin + start, begin + end])
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    partial = _incomplete(target)
    with WeakFileLock(target.with_name(f"{target.name}.lock")):
        if target.exists():
            return target
        if not (partial.exists() and _starts_with(partial, head)) or partial.stat().st_size > len(head) + position:
            partial.write_bytes(head)
        base = len(head)
        for start, end in spans:
            if partial.stat().st_size < base + end - start:
                _append_span(repository, wanted.file, partial, base=base, start=start, end=end)
            base += end - start
        os.replace(partial, target)
    return target


def _starts_with(path: Path, head: bytes) -> bool:
    with open(path, "rb") as content:
        return content.read(len(head)) == head


def format_size(num_bytes: int) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
