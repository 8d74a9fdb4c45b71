"""What the three push commands have in common: the card's words, the repository, the upload, the check, the version.

A push makes the repository, closes it where the card asks for consent, uploads, loads the commit back from the Hub in a process and
a cache of its own, and only then names it a version: a tag stands for something that was seen to load. Nothing that has arrived is
sent again when an interrupted push is given again.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import httpx2
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import filter_repo_objects, validate_repo_id
from huggingface_hub.utils.sha import git_hash

import affectgpt
from affectgpt.explanation import NOTICE
from affectgpt.parts import sha256_of

from .fetch import format_size
from .sources import APACHE_2, CC_BY_NC_SA_4, LLAMA_2, MIT, NON_COMMERCIAL, RESEARCH_ONLY, Licence

SUCCESS, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

ROOT = Path(__file__).parents[1]
CARDS = Path(__file__).parent / "cards"
MAX_FAILURES = 4  # of the connection, before a push gives up

CC0 = Licence("CC0 1.0", -1, "Do with it what you like.")
# As the Hub spells them; it knows no identifier for the last two.
LICENCES = {
    "cc0-1.0": CC0,
    "mit": MIT,
    "apache-2.0": APACHE_2,
    "llama2": LLAMA_2,
    "cc-by-nc-sa-4.0": CC_BY_NC_SA_4,
    "non-commercial": NON_COMMERCIAL,
    "research-only": RESEARCH_ONLY,
}
_OWN_NAMES = ("non-commercial", "research-only")

GATE_FIELDS = (
    "The people in the clips that I give it know and agree",
    "I will not use results at work, in education, for hiring, policing, migration, credit, insurance or diagnosis",
    "I have read the licences of the parts and keep to the strictest",
)

_CACHE_VARIABLES = (
    "HF_ASSETS_CACHE",
    "HF_DATASETS_CACHE",
    "HF_HUB_CACHE",
    "HF_MODULES_CACHE",
    "HF_XET_CACHE",
    "HUGGINGFACE_ASSETS_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "TRANSFORMERS_CACHE",
)


class CallError(Exception):
    """A mistake in the call, or something that must not be published; the message says what to do."""


class PushError(Exception):
    """The Hub refused, could not be reached, or what was pushed does not load."""


@dataclass(frozen=True)
class Push:
    """What goes where.

    Attributes:
        kind (`str`): "model", "dataset" or "space".
        repo_id (`str`): ORG/NAME.
        files (`dict[str, Path]`): path in the repository -> file of this machine; nothing else is uploaded.
        private (`bool`): the repository must be private; an existing public one is refused.
        gate (`str`, *optional*): "auto" or "manual": whoever wants the content agrees to the card's terms first.
        tag (`str`): name of the version.
        outdated (`tuple[str, ...]`): patterns of files that are ours to delete if they are not among `files`.
        check (`tuple[str, ...]`): arguments of `hub.load_back` after repository and commit; empty for no check.
        homes (`tuple[str, ...]`): model repositories that the check needs beside this one; taken from the user's cache if there.
    """

    kind: str
    repo_id: str
    files: dict[str, Path]
    private: bool
    tag: str
    gate: str | None = None
    outdated: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        return f"{constants.ENDPOINT}/{'' if self.kind == 'model' else self.kind + 's/'}{self.repo_id}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all push commands have."""
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository on the Hub; made if there is none")
    parser.add_argument("--private", action="store_true", help="only you and your organisation see it")
    parser.add_argument("--dry-run", action="store_true", help="show card and files, send nothing")
    parser.add_argument(
        "--tag", default=f"v{affectgpt.__version__}", metavar="NAME", help="name of the version (default: %(default)s)"
    )
    parser.add_argument("--skip-check", action="store_true", help="do not load it back from the Hub before it gets its tag")


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Add the option of those commands whose repositories may ask for consent first."""
    parser.add_argument(
        "--gate",
        choices=("none", "auto", "manual"),
        help="whether whoever wants it agrees to the terms first, and who lets them in (default: auto; none for drawings)",
    )


def run(command: str, action: Callable[[Path], Push], *, dry_run: bool) -> int:
    """Prepare a push in a folder of its own, show or do it, and return the command's exit code.

    0: done; 1: the Hub refused, or what was pushed does not load; 2: a mistake in the call; 130: interrupted.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="affectgpt-push-") as folder:
            push = action(Path(folder))
            show(push)
            if dry_run:
                print("\nThis was a dry run: nothing was sent.")
            else:
                publish(push)
    except CallError as error:
        _complain(command, error)
        return USER_ERROR
    except PushError as error:
        _complain(command, error)
        return FAILED
    except KeyboardInterrupt:
        _complain(command, "interrupted. What has arrived is kept: the same command goes on where it stopped.")
        return INTERRUPTED
    return SUCCESS


def _complain(command: str, message) -> None:
    print(f"{command}: error: {message}", file=sys.stderr, flush=True)


def check_name(repo_id: str) -> None:
    """Raise `CallError` unless `repo_id` is ORG/NAME."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise CallError(f"--repo {repo_id}: expected ORG/NAME, got {' '.join(str(error).split())}") from error
    if repo_id.count("/") != 1:
        raise CallError(f"--repo {repo_id}: expected ORG/NAME, got no organisation. Put your user name before it.")


def show(push: Push) -> None:
    """Print the card and the list of files."""
    if "README.md" in push.files:
        print(push.files["README.md"].read_text(encoding="utf-8"))
        print("-" * 80)
    gate = f", asks for consent ({push.gate})" if push.gate else ""
    print(f"{push.kind} {push.repo_id}: {'private' if push.private else 'public'}{gate}, version {push.tag}")
    for path, file in sorted(push.files.items()):
        print(f"  {format_size(file.stat().st_size):>10}  {path}")
    print(f"{len(push.files)} files, {format_size(sum(file.stat().st_size for file in push.files.values()))}", flush=True)


def publish(push: Push) -> str:
    """Do a push, and return its commit.

    Raises:
        CallError: if the repository is public and must be private, or has this version already.
        PushError: if the Hub refuses or cannot be reached, or what was pushed does not load.
    """
    api = HfApi()
    try:
        _prepare(api, push)
        commit = _upload(api, push)
        _compare(api, push, commit)
        if push.check:
            print("Loading it back from the Hub ...", flush=True)
            _load_back(push, commit)
        api.create_tag(push.repo_id, tag=push.tag, revision=commit, repo_type=push.kind)
    except (HfHubHTTPError, OfflineModeIsEnabled, LocalTokenNotFoundError, httpx2.TransportError) as error:
        raise PushError(_refusal(push, error)) from error
    print(f"Done: {push.page} at {commit[:12]}, version {push.tag}.")
    return commit


def _prepare(api: HfApi, push: Push) -> None:
    """Make the repository if there is none, and close it before anything is in it."""
    api.whoami()  # whether there is a token, and a known one: an existing repository would not ask before the upload
    options = {"space_sdk": "gradio"} if push.kind == "space" else {}
    api.create_repo(push.repo_id, repo_type=push.kind, private=push.private, exist_ok=True, **options)
    info = api.repo_info(push.repo_id, repo_type=push.kind)
    if push.private and not info.private:
        raise CallError(
            f"{push.page}: expected a private repository, got a public one of this name. Nothing was sent. Make it private in its "
            "settings, or give another --repo."
        )
    if info.private and not push.private:
        print("The repository is private and stays so; its settings make it public.")
    if push.tag in {ref.name for ref in api.list_repo_refs(push.repo_id, repo_type=push.kind).tags}:
        raise CallError(f"{push.page}: there is a version {push.tag} already. Nothing was sent. Give another --tag.")
    if push.gate and not info.private:
        api.update_repo_settings(push.repo_id, repo_type=push.kind, gated=push.gate)


def _upload(api: HfApi, push: Push) -> str:
    """Send what is not there yet, in one commit; its id."""
    there = api.list_repo_files(push.repo_id, repo_type=push.kind)
    outdated = [path for path in filter_repo_objects(there, allow_patterns=list(push.outdated)) if path not in push.files]
    deletions = [CommitOperationDelete(path) for path in outdated] if push.outdated else []
    failures = 0
    while True:
        additions = [CommitOperationAdd(path, file) for path, file in sorted(push.files.items())]
        try:
            return api.create_commit(
                push.repo_id, [*deletions, *additions], commit_message=f"Version {push.tag}", repo_type=push.kind
            ).oid
        except (httpx2.TransportError, HfHubHTTPError, RuntimeError) as error:
            reason = error
            while (
                isinstance(reason, RuntimeError) and reason.__cause__ is not None
            ):  # how the client reports a large file's failure
                reason = reason.__cause__
            failures += 1
            may_pass = isinstance(reason, httpx2.TransportError) or _is_server_error(reason)
            if not may_pass or failures == MAX_FAILURES:
                raise reason from None
            print("The connection broke off; going on ...", file=sys.stderr, flush=True)
            time.sleep(2**failures / 2)


def _is_server_error(error: BaseException) -> bool:
    return isinstance(error, HfHubHTTPError) and error.response.status_code >= 500


def _compare(api: HfApi, push: Push, commit: str) -> None:
    """Raise `PushError` unless the commit holds the files, byte for byte by their hashes."""
    listed = {
        entry.path: entry
        for entry in api.list_repo_tree(push.repo_id, recursive=True, revision=commit, repo_type=push.kind)
        if isinstance(entry, RepoFile)
    }
    wrong = []
    for path, file in push.files.items():
        entry = listed.get(path)
        if entry is None:
            wrong.append(path)
        elif entry.lfs is not None:
            wrong += [] if entry.lfs.sha256 == sha256_of(file) else [path]
        elif entry.blob_id != git_hash(file.read_bytes()):
            wrong.append(path)
    if wrong:
        raise PushError(f"{push.page}: expected the files that were sent, got others for {', '.join(wrong)}. Push again.")


def _load_back(push: Push, commit: str) -> None:
    with tempfile.TemporaryDirectory(prefix="affectgpt-load-back-") as home:
        cache = Path(home) / "hub"
        cache.mkdir()
        for repo_id in push.homes:
            # What is another's, and tens of gigabytes, need not be fetched anew; what was pushed is.
            name = repo_folder_name(repo_id=repo_id, repo_type="model")
            known = Path(constants.HF_HUB_CACHE) / name
            if known.is_dir():
                (cache / name).symlink_to(known.absolute(), target_is_directory=True)
        variables = {name: value for name, value in os.environ.items() if name not in _CACHE_VARIABLES}
        token = get_token()
        variables |= {"HF_HOME": home, "PYTHONPATH": str(ROOT)} | ({"HF_TOKEN": token} if token else {})
        command = [sys.executable, "-m", "hub.load_back", push.check[0], push.repo_id, commit, *push.check[1:]]
        done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PushError(
            f"{push.page}: {commit[:12]} was sent, but does not load from there, so it got no version:\n"
            f"{(done.stderr or done.stdout).strip()}"
        )
    print(done.stdout.strip(), flush=True)


def _refusal(push: Push, error: Exception) -> str:
    """What the Hub's or the network's refusal means for the user."""
    if isinstance(error, LocalTokenNotFoundError):
        return "You are not logged in. Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
    if isinstance(error, OfflineModeIsEnabled):
        return "The Hub may not be asked: HF_HUB_OFFLINE is set. Unset it and run the command again."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return (
                "The Hub does not know the token of this machine, or there is none. Log in with `hf auth login --force`, or set "
                "HF_TOKEN to a token that may write."
            )
        if status == 403 or isinstance(error, RepositoryNotFoundError):
            return (
                f"{push.repo_id}: the account you are logged in with may not write there. Give a --repo of your own or of an "
                "organisation that you are in, and a token that may write."
            )
        return f"{push.repo_id}: the Hub refused: {' '.join(str(error).split())}. Run the same command again later."
    return (
        f"{push.repo_id}: {constants.ENDPOINT} cannot be reached, or the connection broke off ({error}). What has arrived is kept: "
        "the same command goes on."
    )


def card(template: str, header: Mapping, **values: str) -> str:
    """A card: YAML header, then `hub/cards/<template>` with its `$names` filled in, and the terms of use."""
    terms = Template((CARDS / "terms.md").read_text(encoding="utf-8")).substitute(notice=NOTICE)
    body = Template((CARDS / template).read_text(encoding="utf-8")).substitute(values, terms=terms.strip())
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    text = yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n\n{body}\n"


def licence_header(licence: str, repo_id: str, kind: str) -> dict[str, str]:
    """The card's entries for a licence out of `LICENCES`."""
    if licence not in _OWN_NAMES:
        return {"license": licence}
    page = f"https://huggingface.co/{'' if kind == 'model' else kind + 's/'}{repo_id}"
    return {"license": "other", "license_name": licence, "license_link": f"{page}#licences"}


def strictest(licences: Iterable[str]) -> str:
    """Of identifiers out of `LICENCES`, the one whose terms all the others allow."""
    return max(licences, key=lambda identifier: LICENCES[identifier].rank)


def identifier_of(licence: str) -> str | None:
    """The identifier of a licence by that or its name, in whatever case; `None` if it is none that is known."""
    names = {identifier: identifier for identifier in LICENCES} | {item.name.lower(): key for key, item in LICENCES.items()}
    return names.get(licence.lower())


def gate_header() -> dict:
    """The card's entries for a repository that asks for consent."""
    return {
        "extra_gated_heading": "Agree to the terms of use",
        "extra_gated_prompt": (CARDS / "gate.md").read_text(encoding="utf-8").strip(),
        "extra_gated_fields": dict.fromkeys(GATE_FIELDS, "checkbox") | {"What I use it for": "text"},
        "extra_gated_button_content": "I agree",
    }


def read_body(path: str | os.PathLike) -> str:
    """The text of a Markdown file without its YAML header, headings one level lower, its title left out."""
    text = re.sub(r"\A---\n.*?\n---\n", "", Path(path).read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"\A\s*# .*\n", "", text)
    return re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE).strip()
