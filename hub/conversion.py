"""What the converters share: renaming by tables, LoRA adapters, writing shard by shard, and the check of what was written.

A conversion maps one file of frozen weights into memory at a time and holds one shard of what it writes. It writes into a folder
beside the output and gives it its name when everything was read back and found equal: what is interrupted leaves nothing that looks
like a checkpoint.
"""

import functools
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import affectgpt  # noqa: F401  (before transformers and peft: see affectgpt/_torchaudio_guard.py)

# isort: split
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTProcessor
from affectgpt.parts import LAYOUTS, find_weights, prefixes, read_file, read_weights

from .sources import Origin

FORMS = ("parts", "full")
MAX_SHARD_BYTES = 4 * 10**9
# Beside the weights: tokenizer, configuration, rounding.
SPARE_BYTES = 50 * 10**6
ADAPTER = "adapter"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


@dataclass
class ConversionReport:
    """What a conversion made of what.

    Attributes:
        output (`Path`): the checkpoint's folder.
        form (`str`): "parts" or "full".
        parameters (`dict[str, int]`): module -> parameters of it, of the whole model.
        written (`int`): bytes of the checkpoint's own weights.
        left_out (`dict[str, dict[str, list[str]]]`): source -> reason -> names of its weights that the model does not have.
        parts (`dict[str, str]`): frozen part -> where it stays, in the form "parts".
        notes (`list[str]`): what else the user should know, as sentences.
    """

    output: Path
    form: str
    parameters: dict[str, int] = field(default_factory=dict)
    written: int = 0
    left_out: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.output}: {self.form} checkpoint, {self.written / 1e6:,.1f} MB of weights, read back and found equal."]
        lines += [f"  {count:>13,} parameters in {module}" for module, count in self.parameters.items()]
        lines += [f"  {name} stays in {home}" for name, home in self.parts.items()]
        for source, reasons in self.left_out.items():
            for reason, names in reasons.items():
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                lines.append(f"  left out of {source}: {names[0]}{more} ({reason})")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        updates (`dict[str, tuple[torch.Tensor, torch.Tensor]]`): name of a weight in the model -> A `(r, in)` and B `(out, r)`.
        alpha (`int`): the update is `alpha / r * B @ A`.
        dropout (`float`): on what goes into A, in training.
    """

    updates: dict[str, tuple[torch.Tensor, torch.Tensor]]
    alpha: int
    dropout: float

    @property
    def rank(self) -> int:
        return len(next(iter(self.updates.values()))[0])


@dataclass(frozen=True)
class Stored:
    """A weight that is still in its file. Files are mapped one at a time: all of them would fill the memory with what was read."""

    path: Path
    name: str
    shape: torch.Size
    dtype: torch.dtype

    def numel(self) -> int:
        return self.shape.numel()

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize

    def compute(self) -> torch.Tensor:
        state = self.path.stat()
        return _mapped(self.path, state.st_mtime_ns, state.st_size)[self.name]


@functools.lru_cache(maxsize=1)
def _mapped(path: Path, *state: int) -> dict[str, torch.Tensor]:
    return read_weights(path)


@dataclass(frozen=True)
class LoraMerge:
    """A weight and its update, added up when it is written: all of a language model's at once would take its memory again."""

    weight: "Weight"
    down: torch.Tensor
    up: torch.Tensor
    scaling: float

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def compute(self) -> torch.Tensor:
        weight = compute(self.weight)
        return (weight.float() + self.scaling * (self.up.float() @ self.down.float())).to(weight.dtype)


Weight = torch.Tensor | Stored | LoraMerge


def compute(weight: Weight) -> torch.Tensor:
    return weight if isinstance(weight, torch.Tensor) else weight.compute()


# Of BERT, which the authors' Q-Formers are made of: width of a head, which is in no tensor.
BERT_HEAD_WIDTH = 64


# ---- Q-Formers, which all of the authors' files call alike


def qformer_names(source: str, target: str) -> dict[str, str]:
    """Patterns of the names under `source` ("video_Qformer") and the names under `target` ("model.video_resampler.qformer")."""
    layer = rf"{source}\.bert\.(encoder\.layer\.\d+\."
    return {
        rf"{source}\.bert\.embeddings\.LayerNorm\.(weight|bias)": rf"{target}.layernorm.\1",
        rf"{layer}(?:cross)?attention)\.self\.((?:query|key|value)\.(?:weight|bias))": rf"{target}.\1.attention.\2",
        rf"{layer}(?:cross)?attention\.output\.(?:dense|LayerNorm)\.(?:weight|bias))": rf"{target}.\1",
        rf"{layer}(?:intermediate|output)_query\.(?:dense|LayerNorm)\.(?:weight|bias))": rf"{target}.\1",
    }


def qformer_dropped(source: str) -> dict[str, str]:
    """Patterns of names under `source` that the model does not have, with the reason."""
    return {
        rf"{source}\.bert\.embeddings\.position_ids": "buffer of numbers 0, 1, 2, ...",
        rf"{source}\.bert\.embeddings\.(word|position)_embeddings\.weight": "text input of a Q-Former, which none uses",
        rf"{source}\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..+": "text half of a Q-Former's layers, which none uses",
        rf"{source}\.cls\..+": "text head of a Q-Former, which none uses",
    }


def qformer_config(weights: Mapping[str, Weight], module: str, num_heads: int | None) -> dict:
    """Configuration of the Q-Former at `module`, out of its weights; heads that are not known are as wide as BERT's.

    Raises:
        ValueError: if weights are missing from which sizes are read, or the heads cannot be told.
    """
    prefix = f"{module}.qformer.encoder.layer."
    with_cross = [
        name for name in weights if re.fullmatch(rf"{re.escape(prefix)}\d+\.crossattention\.attention\.key\.weight", name)
    ]
    layers = {int(name.removeprefix(prefix).partition(".")[0]) for name in weights if name.startswith(prefix)}
    needed = [
        f"{module}.query_tokens",
        f"{prefix}0.crossattention.attention.key.weight",
        f"{prefix}0.intermediate_query.dense.weight",
    ]
    missing = [name for name in needed if name not in weights]
    if missing:
        raise ValueError(f"Expected the weights of a whole Q-Former, got no {', '.join(missing)}. Check which files were given.")
    queries, keys, hidden = (weights[name].shape for name in needed)
    width = queries[-1]
    if num_heads is None and width % BERT_HEAD_WIDTH:
        raise ValueError(
            f"Expected {module} to be a multiple of {BERT_HEAD_WIDTH} wide, as the heads of BERT are, got {width}. The number of "
            "heads is in no tensor: give a folder that says it."
        )
    return {
        "model_type": "blip_2_qformer",
        "hidden_size": width,
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": num_heads or width // BERT_HEAD_WIDTH,
        "intermediate_size": hidden[0],
        "encoder_hidden_size": keys[-1],
        "cross_attention_frequency": -(-(max(layers) + 1) // len(with_cross)),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "use_qformer_text_input": False,
    }


# ---- reading


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Weights and settings of a `.pth` file as the authors' training code writes it: `{"model": ..., "config": ..., ...}`.

    The file is mapped into memory, and nothing but tensors and plain values is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds code, or is not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a checkpoint file, got {'a folder' if path.is_dir() else 'nothing of this name'}."
        )
    content = read_file(path)
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        found = (
            f"a dictionary of {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise ValueError(f'{path}: expected a training checkpoint with weights under "model", got {found}. Name another file.')
    settings = content.get("config")
    return dict(weights), settings if isinstance(settings, Mapping) else {}


def stored_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file, left in it until they are needed."""
    return {name: Stored(path, name, tensor.shape, tensor.dtype) for name, tensor in read_weights(path).items()}


def rename(
    original: Mapping[str, Weight], names: Mapping[str, str], dropped: Mapping[str, str]
) -> tuple[dict[str, Weight], dict[str, list[str]]]:
    """Rename weights by a table of patterns (regular expressions of the whole name).

    Args:
        original: weights under their names in the source.
        names: pattern -> name in the model.
        dropped: pattern of names without a place in the model -> reason.

    Returns:
        The weights under their new names, and reason -> names that were left out.

    Raises:
        ValueError: lists every name that no pattern knows, and those that would fall together.
    """
    converted, left_out, problems = {}, {}, []
    for key, tensor in original.items():
        reason = next((reason for pattern, reason in dropped.items() if re.fullmatch(pattern, key)), None)
        if reason is not None:
            left_out.setdefault(reason, []).append(key)
            continue
        match = next(((match, new) for pattern, new in names.items() if (match := re.fullmatch(pattern, key))), None)
        target = match[0].expand(match[1]) if match else None
        if target is None:
            problems.append(key)
        elif target in converted:
            problems.append(f"{key} (a second {target})")
        else:
            converted[target] = tensor
    if problems:
        raise ValueError(f"{len(problems)} weights that have no place in the model: {', '.join(sorted(problems))}")
    return converted, left_out


def read_part(layout: str, path: str | Path) -> tuple[dict[str, Stored], dict[str, list[str]]]:
    """Weights of a frozen part (a folder or file in one of `affectgpt.parts.LAYOUTS`), renamed, and what was left out, by reason.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if a file cannot be read or has names that the layout does not know; the message names it.
    """
    converted, left_out = {}, {}
    for file in find_weights(path):
        try:
            weights, reasons = rename(stored_tensors(file), *LAYOUTS[layout])
        except ValueError as error:
            if str(file) in str(error):
                raise  # it could not be read at all
            raise ValueError(f'{file}: expected weights of the layout "{layout}", got {error}. Check the file.') from error
        converted.update(weights)
        for reason, names in reasons.items():
            left_out.setdefault(reason, []).extend(names)
    return converted, left_out


def read_config(folder: Path, model_type: str | None = None) -> PreTrainedConfig:
    """The configuration of a folder in the layout of transformers.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or of another type of model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: expected a folder in the layout of transformers, got none with a config.json.")
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path}: expected the configuration of a model, got one that cannot be read: {error}") from error
    if model_type is not None and config.model_type != model_type:
        raise ValueError(f"{folder}: expected a model of type {model_type!r}, got {config.model_type!r}. Give another folder.")
    return config


def check_sources(sources: Mapping[str, Path], needed: Sequence[str], optional: Sequence[str]) -> dict[str, Path]:
    """`sources` as paths that exist. Raises `ValueError` or `FileNotFoundError` that says which are missing or unknown."""
    missing, unknown = set(needed) - set(sources), set(sources) - set(needed) - set(optional)
    if missing or unknown:
        raise ValueError(
            f"Expected the sources {', '.join(needed)} (and perhaps {', '.join(optional) or 'no others'}), "
            f"got none for {', '.join(sorted(missing)) or 'nothing'} and unknown {', '.join(sorted(unknown)) or 'none'}."
        )
    paths = {name: Path(path).expanduser() for name, path in sources.items()}
    absent = [f"{name}: {path}" for name, path in paths.items() if not path.exists()]
    if absent:
        raise FileNotFoundError(f"Expected files or folders, found nothing at {'; '.join(absent)}. Check the paths.")
    return paths


# ---- parts


def describe_part(layout: str, path: Path, origin: Origin | None) -> dict:
    """The entry of `config.parts` for a frozen part that was read from `path` and came from `origin`; `None`: from there."""
    if origin is None:
        folder = path if path.is_dir() else path.parent
        files = {str(file.relative_to(folder)): None for file in find_weights(path)}
        return {"repo_id": str(folder.resolve()), "revision": None, "layout": layout, "files": files}
    files = {name: sha256 for name, sha256 in origin.sha256.items() if name.endswith(WEIGHT_SUFFIXES)}
    if not files:
        raise ValueError(f"{origin.repo_id}: expected weight files among what came from there, got {', '.join(origin.sha256)}.")
    return {"repo_id": origin.repo_id, "revision": origin.revision, "layout": layout, "files": files}


# ---- writing


def write_checkpoint(
    output: str | Path,
    *,
    form: str,
    config: AffectGPTConfig,
    weights: dict[str, Weight],
    adapter: Adapter | None,
    parts: dict[str, dict],
    processor: AffectGPTProcessor,
    generation_config: GenerationConfig,
    left_out: dict[str, dict[str, list[str]]],
    notes: Sequence[str] = (),
) -> ConversionReport:
    """Write a checkpoint to the new folder `output`, read it back and compare.

    Args:
        form (`str`): "full", everything in one place with the adapter merged, or "parts", without the frozen parts.
        weights (`dict[str, Weight]`): all of the model, without the adapter.
        parts (`dict[str, dict]`): frozen parts that "parts" leaves in their place (`describe_part`).

    Raises:
        ValueError: if `weights` are not exactly those of the model that `config` describes, listing all that is wrong, or `output`
            is not new.
        OSError: if the disk has no room.
    """
    output = Path(output).expanduser().absolute()
    if form not in FORMS:
        raise ValueError(f"Expected a form among {', '.join(FORMS)}, got {form!r}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: expected a new or empty folder for the checkpoint, got one with files. Name another.")
    weights = _in_float32(weights)
    check_weights(config, weights, adapter)
    whole: dict[str, Weight] = dict(weights) if adapter is None else {**weights, **_merged(weights, adapter)}
    if form == "parts":
        homes = prefixes(parts)
        own: dict[str, Weight] = {name: tensor for name, tensor in weights.items() if not name.startswith(homes)}
        config.parts = {name: dict(part) for name, part in parts.items()}
        if adapter is not None:
            config.parts["language"]["adapter"] = ADAPTER
    else:
        own, config.parts = whole, None

    output.parent.mkdir(parents=True, exist_ok=True)
    written = sum(tensor.nbytes for tensor in own.values())
    free = shutil.disk_usage(output.parent).free
    if free < written + SPARE_BYTES:
        raise OSError(f"{output}: expected {written / 1e9:.1f} GB of free disk, got {free / 1e9:.1f} GB. Make room or use another.")
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write_shards(own, partial, MAX_SHARD_BYTES)
        if form == "parts" and adapter is not None:
            _write_adapter(adapter, partial / ADAPTER)
        config.architectures = [AffectGPTForConditionalGeneration.__name__]
        config.save_pretrained(partial)
        processor.save_pretrained(partial)
        generation_config.save_pretrained(partial)
        _check_written(partial, own, {name: tensor for name, tensor in weights.items() if name not in own}, adapter, form)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        _mapped.cache_clear()
        shutil.rmtree(partial, ignore_errors=True)
    return ConversionReport(
        output=output,
        form=form,
        parameters=_count(weights, adapter),
        written=written,
        left_out={source: reasons for source, reasons in left_out.items() if reasons},
        parts={name: part["repo_id"] for name, part in parts.items()} if form == "parts" else {},
        notes=list(notes),
    )


def _in_float32(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """`weights`, those that training goes on with in float32."""
    trained = tuple(f"model.{name}." for name in AffectGPTForConditionalGeneration._keep_in_fp32_modules_strict)
    return {name: compute(tensor).float() if name.startswith(trained) else tensor for name, tensor in weights.items()}


def check_weights(config: AffectGPTConfig, weights: Mapping[str, Weight], adapter: Adapter | None = None) -> None:
    """Raise `ValueError` that lists every weight that is missing, unexpected or of another shape than `config` says."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in AffectGPTForConditionalGeneration(config).state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight")
    problems = {
        "missing": sorted(shapes.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - shapes.keys()),
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(shape)}"
            for name, shape in shapes.items()
            if name in weights and weights[name].shape != shape
        ],
    }
    if adapter is not None:
        problems["adapter for weights that do not exist"] = sorted(adapter.updates.keys() - shapes.keys())
        problems["adapter of another shape"] = [
            f"{name} {tuple(up.shape)} x {tuple(down.shape)} for {tuple(shapes[name])}"
            for name, (down, up) in adapter.updates.items()
            if name in shapes and (len(up), down.shape[-1]) != tuple(shapes[name]) or len(down) != adapter.rank
        ]
    found = [f"{len(names)} {what}: {', '.join(names)}" for what, names in problems.items() if names]
    if found:
        raise ValueError(
            f"Expected exactly the weights of the model, got {'; '.join(found)}. The sources do not belong together, or one is "
            "incomplete: check which files were given."
        )


def _merged(weights: Mapping[str, Weight], adapter: Adapter) -> dict[str, LoraMerge]:
    scaling = adapter.alpha / adapter.rank
    return {name: LoraMerge(weights[name], down, up, scaling) for name, (down, up) in adapter.updates.items()}


def write_shards(weights: Mapping[str, Weight], folder: Path, max_bytes: int) -> None:
    """Write `weights` as safetensors, one file of at most `max_bytes` in memory at a time, and an index where there are several."""
    shards, size = [[]], 0
    for name, tensor in weights.items():
        if shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    files = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = ["model.safetensors"]
    for file, names in zip(files, shards, strict=True):
        # A copy, so that weights which share memory in their file are written apart.
        save_file({name: compute(weights[name]).clone() for name in names}, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in weights.values())},
            "weight_map": {name: file for file, names in zip(files, shards, strict=True) for name in names},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _write_adapter(adapter: Adapter, folder: Path) -> None:
    """A `peft` adapter of `AffectGPTForConditionalGeneration`."""
    modules = [name.removesuffix(".weight") for name in adapter.updates]
    layers, kinds = zip(*(re.fullmatch(r"(.+\.layers)\.\d+\.(.+)", module).groups() for module in modules), strict=True)
    # A pattern from the root: encoders have modules of the same names.
    target = rf"{re.escape(layers[0])}\.\d+\.({'|'.join(re.escape(kind) for kind in dict.fromkeys(kinds))})"
    config = LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=target, inference_mode=True
    )
    config.save_pretrained(folder)
    tensors = {}
    for module, (down, up) in zip(modules, adapter.updates.values(), strict=True):
        tensors[f"base_model.model.{module}.lora_A.weight"] = down.float().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = up.float().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _check_written(
    folder: Path, own: Mapping[str, Weight], others: Mapping[str, Weight], adapter: Adapter | None, form: str
) -> None:
    """Read back what was written: every weight bit by bit, the model strictly, configuration and processor."""
    files = find_weights(folder)
    differing = sorted(own.keys() ^ {name for file in files for name in stored_tensors(file)})
    for file in files:
        written = read_weights(file)
        # In the order of `own`, which is that of the source files.
        differing += [name for name in own if name in written and not torch.equal(compute(own[name]), written[name])]
    if form == "parts" and adapter is not None:
        written = read_weights(folder / ADAPTER / "adapter_model.safetensors")
        for name, halves in adapter.updates.items():
            for letter, tensor in zip("AB", halves, strict=True):
                module = f"base_model.model.{name.removesuffix('.weight')}.lora_{letter}.weight"
                if module not in written or not torch.equal(tensor.float(), written[module]):
                    differing.append(module)
    if differing:
        raise OSError(f"{folder}: {len(differing)} weights are not what was written: {', '.join(differing)}. Check the disk.")
    config = AffectGPTConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(config)
    # Mapped, and none of it is read.
    state = {name: compute(tensor) for name, tensor in others.items()}
    for file in files:
        state.update(read_weights(file))
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    AffectGPTProcessor.from_pretrained(folder)
    GenerationConfig.from_pretrained(folder)


def _count(weights: Mapping[str, Weight], adapter: Adapter | None) -> dict[str, int]:
    counts = Counter()
    for name, tensor in weights.items():
        counts[".".join(name.split(".")[: 2 if name.startswith("model.") else 1])] += tensor.numel()
    if adapter is not None:
        counts[f"{ADAPTER} (rank {adapter.rank})"] = sum(down.numel() + up.numel() for down, up in adapter.updates.values())
    return dict(counts)
