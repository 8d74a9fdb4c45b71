"""Compute what the frozen encoders make of a corpus's clips once, and train and evaluate on that instead of the clips.

    python -m training.cache_features --model DIR --dataset DIR --dataset-config EMER-Coarse --output FOLDER
    python -m training.cache_features --model DIR --dataset DIR --dataset-config EMER-Fine --split test --output FOLDER
    python -m training.train ... --features FOLDER
    python -m training.evaluate ... --features FOLDER

A folder holds the clips of any number of configurations and splits. A run that was stopped goes on when the same command is given
again, and loses one shard at most; clips that cannot be read are named in the end.

Encoders run in the precision of the checkpoint's weights, in which evaluation then loads the model too, unless `--dtype` names
another. Training with `--bf16` runs the encoders in bfloat16 over clips, where features are the finer ones.

<FOLDER>/index.jsonl has a first line that says what the features were made from (`made_of`), and then one line per shard:
`{"shard": FILE, "clips": [{"clip": ..., "size": bytes, "name": row, "features": [...]}, ...]}`. A clip is known by its path, or by
the hash of its bytes where it is embedded in the corpus. <FOLDER>/<number>.safetensors has the tensors `<place in the
list>.<feature>`: what the model's `forward` takes as `video_features`, `face_features` and `audio_features`, of one clip each.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from affectgpt import AffectGPTCollator, AffectGPTForConditionalGeneration, AffectGPTProcessor
from affectgpt.corpus import has_clip
from affectgpt.media import MediaError

INDEX = "index.jsonl"
FORMAT = 1
DTYPES = ("float32", "float16")
# Clips of a shard: what a killed run loses. 200 MB with the paper's encoders, in float32.
SHARD_CLIPS = 256
# What one clip may fail of while others go on.
_FAILURES = (MediaError, FileNotFoundError, LookupError)


def encoders(model: AffectGPTForConditionalGeneration) -> dict[str, nn.Module]:
    """What the features come from, by name."""
    parts = {name: getattr(model.model, name) for name in ("vision_tower", "image_qformer", "audio_tower")}
    return {name: part for name, part in parts.items() if part is not None}


def made_of(
    model: AffectGPTForConditionalGeneration, processor: AffectGPTProcessor, *, faces: str | Path | None = None
) -> dict[str, object]:
    """What features depend on beside the clip, as plain JSON: encoders and their precision, preparation of media, face crops."""
    digest = hashlib.sha256()
    for part, encoder in encoders(model).items():
        for name, tensor in encoder.state_dict().items():
            digest.update(f"{part}.{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    settings = {
        "media": processor.media,
        "faces_are_bgr": processor.faces_are_bgr,
        "faces_are_masked": processor.faces_are_masked,
        "image_processor": processor.image_processor.to_dict(),
        "feature_extractor": processor.feature_extractor.to_dict(),
        "vision_norm_eps": model.config.vision_norm_eps,
        "num_audio_layers": model.config.num_audio_layers,
    }
    for part in ("image_processor", "feature_extractor"):  # of which program the settings are is not a setting
        settings[part] = {key: value for key, value in settings[part].items() if key not in ("processor_class", "auto_map")}
    return {
        "encoders": digest.hexdigest(),
        "precision": str(model.model.vision_tower.dtype).removeprefix("torch."),
        "settings": json.loads(json.dumps(settings)),
        "faces": os.path.abspath(faces) if faces is not None and processor.takes_faces else None,
    }


def _check_made_of(folder: Path, header: Mapping, made: Mapping) -> None:
    differing = [key for key in made if header.get(key) != made[key]]
    if differing:
        told = "; ".join(f"{key}: expected {_short(made[key])}, got {_short(header.get(key))}" for key in differing)
        raise ValueError(
            f"Expected features in {folder} of the same encoders, precision and preparation of media, got others ({told}). Take "
            "the checkpoint, --dtype and face crops that they were made with, or make others in another folder: "
            "`python -m training.cache_features`."
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 or not isinstance(value, str) else f"{text[:12]}...{text[-8:]}"


def _read_index(folder: Path) -> tuple[dict | None, list[dict]]:
    """First line and lines of whole shards; a last line that was cut in two does not count."""
    path = folder / INDEX
    if not path.is_file():
        return None, []
    try:
        header, *shards = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] or [None]
        if header is not None and header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected an index of features, format {FORMAT}, in {path}, could not read it ({error!r}). Compute them anew in "
            "another folder."
        ) from error
    missing = [shard["shard"] for shard in shards if not (folder / shard["shard"]).is_file()]
    if missing:
        raise ValueError(
            f"Expected in {folder} the {len(shards)} files that {INDEX} names, got all but {', '.join(missing)}. Bring them back, "
            "or compute the features anew in another folder."
        )
    return header, shards


def _identity(video: Mapping) -> tuple[str, int]:
    """By what a clip is known, and its size in bytes."""
    if video["bytes"] is not None:
        return f"sha256:{hashlib.sha256(video['bytes']).hexdigest()}", len(video["bytes"])
    path = os.path.abspath(video["path"])
    return path, os.path.getsize(path)


def precision_of(folder: str | Path) -> str | None:
    """In which the encoders ran that made the features in a folder, such as "bfloat16"; `None` if there are no features."""
    header, _ = _read_index(Path(folder))
    return None if header is None else header["precision"]


class FeatureCache:
    """The features in a folder, for one model. Files are mapped into memory, in each process that reads.

    Args:
        folder: what `cache_features` wrote.
        model, processor: those that the features are for.
        faces: folder of the face crops that would be read from.

    Raises:
        FileNotFoundError: if there are no features in the folder.
        ValueError: if they are those of other encoders, another preparation of media or other face crops, or files are missing.
    """

    def __init__(
        self,
        folder: str | Path,
        model: AffectGPTForConditionalGeneration,
        processor: AffectGPTProcessor,
        *,
        faces: str | Path | None = None,
    ):
        self.folder = Path(folder)
        header, shards = _read_index(self.folder)
        if header is None:
            raise FileNotFoundError(
                f"{self.folder.absolute()}: expected a folder of cached features, got no {INDEX} in it. Compute them first: "
                "`python -m training.cache_features`."
            )
        _check_made_of(self.folder, header, made_of(model, processor, faces=faces))
        self._entries = _entries(shards)
        self._files: dict[str, safe_open] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": {}}

    def read(self, video: Mapping) -> dict[str, torch.Tensor]:
        """What the encoders make of a clip: of `video_features`, `face_features` and `audio_features` those that it has.

        Args:
            video: a row's `video`.

        Raises:
            LookupError: if its features are not there, or are those of an earlier version of the file.
            FileNotFoundError: if the file is gone.
        """
        shard, place, entry = self._find(video)
        if shard not in self._files:
            self._files[shard] = safe_open(self.folder / shard, framework="pt")
        return {name: self._files[shard].get_tensor(f"{place}.{name}") for name in entry["features"]}

    def _find(self, video: Mapping) -> tuple[str, int, dict]:
        clip, size = _identity(video)
        found = self._entries.get(clip)
        if found is None:
            raise LookupError(f"no features of {clip} in {self.folder}")
        if found[2]["size"] != size:
            raise LookupError(f"{clip} has {size} bytes, and {found[2]['size']} when its features were computed")
        return found

    def check(self, rows: Iterable[Mapping]) -> None:
        """Refuse rows without features, all of them listed. Raises `ValueError`."""
        problems = []
        for number, row in enumerate(rows):
            try:
                if has_clip(row["video"]):
                    self._find(row["video"])
            except (LookupError, FileNotFoundError) as error:
                problems.append(f"row {number} ({row['name']}): {error}")
        if problems:
            raise ValueError(
                f"Expected features of each row's clip in {self.folder}, got {len(problems)} rows without: {'; '.join(problems)}. "
                "Run `python -m training.cache_features` for these rows, again if it was stopped, or drop them."
            )


def _entries(shards: Iterable[Mapping]) -> dict[str, tuple[str, int, dict]]:
    """Clip -> shard, place in it and what is said of it; of a clip that was computed again, the last."""
    return {entry["clip"]: (shard["shard"], place, entry) for shard in shards for place, entry in enumerate(shard["clips"])}


class _Reader:
    """Prepares media of rows as training does; those whose clip cannot be read are named instead."""

    def __init__(self, collate: AffectGPTCollator):
        self.collate = collate

    def __call__(self, rows: list[dict]) -> tuple[list[dict], dict[str, torch.Tensor], dict[str, str]]:
        entries, found, failures = [], [], {}
        for row in rows:
            try:
                clip, size = _identity(row["video"])
                media = self.collate.read(row)
            except _FAILURES as error:
                failures[row["name"]] = str(error)
            else:
                parts = {"video_features": "frames", "face_features": "faces", "audio_features": "waveform"}
                features = [name for name, part in parts.items() if media[part] is not None]
                entries.append({"clip": clip, "size": size, "name": row["name"], "features": features})
                found.append(media)
        if not found:
            return entries, {}, failures
        batch = self.collate.processor(**{part: [media[part] for media in found] for part in found[0]})
        return entries, dict(batch), failures


@torch.inference_mode()
def _encoded(model: AffectGPTForConditionalGeneration, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the encoders make of the media in `batch`, of the rows that have them."""
    encode = {
        "pixel_values_videos": ("video_features", model.model.encode_frames),
        "pixel_values_faces": ("face_features", model.model.encode_frames),
        "input_features": ("audio_features", model.model.encode_sound),
        "input_values": ("audio_features", model.model.encode_sound),
    }
    return {name: function(batch[given].to(model.device)) for given, (name, function) in encode.items() if given in batch}


def cache_features(
    model: AffectGPTForConditionalGeneration,
    processor: AffectGPTProcessor,
    rows: Dataset,
    folder: str | Path,
    *,
    faces: str | Path | None = None,
    dtype: str = "float32",
    batch_size: int = 8,
    num_workers: int = 1,
) -> dict[str, str]:
    """Compute the features of the clips of `rows` that are not yet in `folder`.

    Args:
        model, processor: of the checkpoint; only the encoders are used.
        rows: of a corpus (`affectgpt.corpus.FEATURES`); rows without a clip are passed over.
        folder: where the files go; made if need be.
        faces: folder of face crops, as the collator's `faces_folder`.
        dtype: in which they are kept; with "float32", nothing is lost.
        batch_size: clips encoded at a time.
        num_workers: processes that read clips.

    Returns:
        `dict[str, str]`: name of a row whose clip could not be read, or encoded in finite numbers -> why.

    Raises:
        ValueError: if the folder holds features that were made otherwise.
    """
    folder = Path(folder)
    made = made_of(model, processor, faces=faces) | {"dtype": dtype}
    header, shards = _read_index(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if header is None:
        (folder / INDEX).write_text(json.dumps({"format": FORMAT, **made}) + "\n", encoding="utf-8")
    else:
        _check_made_of(folder, header, made)
        _drop_cut_line(folder / INDEX)

    todo, failures = _missing(rows, _entries(shards))
    collate = AffectGPTCollator(processor, modalities=("video", "audio"), with_answers=False, faces_folder=faces)
    loader = DataLoader(rows.select(todo), batch_size=batch_size, collate_fn=_Reader(collate), num_workers=num_workers)
    number, entries, tensors = len(shards), [], {}
    with tqdm(total=len(rows), initial=len(rows) - len(todo), unit="clip") as progress:
        for found, batch, failed in loader:
            failures |= failed
            progress.update(len(found) + len(failed))
            kept = {name: iter(values.to("cpu", getattr(torch, dtype))) for name, values in _encoded(model, batch).items()}
            for entry in found:
                features = {name: next(kept[name]).clone() for name in entry["features"]}
                if not all(tensor.isfinite().all() for tensor in features.values()):
                    failures[entry["name"]] = f"expected finite features, got others in {dtype}. Check the clip, or take float32."
                    continue
                tensors |= {f"{len(entries)}.{name}": tensor for name, tensor in features.items()}
                entries.append(entry)
                if len(entries) == SHARD_CLIPS:
                    _write_shard(folder, number, entries, tensors)
                    number, entries, tensors = number + 1, [], {}
        if entries:
            _write_shard(folder, number, entries, tensors)
    return failures


def _drop_cut_line(path: Path) -> None:
    with open(path, "rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def _missing(rows: Dataset, known: Mapping[str, tuple[str, int, dict]]) -> tuple[list[int], dict[str, str]]:
    """Numbers of the rows whose clip, in its present size, has no features, each clip once; and rows whose clip is gone."""
    todo, failures, seen = [], {}, set()
    for number, row in enumerate(rows.select_columns(["name", "video"])):
        if not has_clip(row["video"]):
            continue
        try:
            clip, size = _identity(row["video"])
        except FileNotFoundError as error:
            failures[row["name"]] = str(error)
            continue
        if clip not in seen and (clip not in known or known[clip][2]["size"] != size):
            todo.append(number)
        seen.add(clip)
    return todo, failures


def _write_shard(folder: Path, number: int, entries: list[dict], tensors: Mapping[str, torch.Tensor]) -> None:
    """The file whole, and only then its line in the index."""
    path = folder / f"{number:05d}.safetensors"
    temporary = path.with_name(f"{path.name}.part")
    save_file(dict(tensors), temporary)
    os.replace(temporary, path)
    with open(folder / INDEX, "a", encoding="utf-8") as file:
        file.write(json.dumps({"shard": path.name, "clips": entries}, ensure_ascii=False) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Folder or Hub id of an AffectGPT checkpoint.")
    parser.add_argument("--dataset", required=True, help="Hub id or local folder of a corpus.")
    parser.add_argument("--dataset-config", required=True, help="Configuration of the corpus, e.g. EMER-Coarse.")
    parser.add_argument("--split", default="train", help="Default: train.")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="Where the features go, beside those that are there.")
    parser.add_argument("--faces", help="Folder of face crops (.npy), for models that look at faces. Default: they are cut out.")
    parser.add_argument("--device", help='Such as "cuda:1". Default: the GPU if there is one.')
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="In which features are kept. Default: float32.")
    parser.add_argument("--batch-size", type=int, default=8, help="Clips encoded at a time. Default: 8.")
    parser.add_argument("--num-workers", type=int, default=1, help="Processes that read clips. Default: 1.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 clips could not be read, 2 a mistake in the call, 130 interrupted."""
    args = _parser().parse_args(arguments)
    try:
        rows = load_dataset(args.dataset, args.dataset_config, split=args.split)
        processor = AffectGPTProcessor.from_pretrained(args.model)
        model = AffectGPTForConditionalGeneration.from_pretrained(args.model).eval()
        # The largest part by far, and not needed.
        model.model.language_model = model.lm_head = None
        model.to(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        options = {"faces": args.faces, "dtype": args.dtype, "batch_size": args.batch_size, "num_workers": args.num_workers}
        failures = cache_features(model, processor, rows, args.output, **options)
    except KeyboardInterrupt:
        print(f"\nInterrupted. Whole shards are kept in {args.output}; the same command goes on.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if failures:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
        print(f"error: {len(failures)} of {len(rows)} clips have no features, the others are kept:{listed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
