"""Cached features in place of clips: the same losses and answers, and no clip opened."""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from media_files import make_clip
from test_training import STEADY, losses
from test_training import train as train_on
from tiny import make_tiny_model, make_tiny_model_2025, make_tiny_processor, make_tiny_processor_2025
from torch.utils.data import DataLoader

from affectgpt import AffectGPTCollator, AffectGPTForConditionalGeneration, AffectGPTProcessor, corpus
from affectgpt import collator as collating
from training import answers
from training import cache_features as caching
from training.answers import Models
from training.cache_features import FeatureCache, cache_features, main
from training.evaluate import evaluate

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two checkpoints, of both generations, and a corpus of clips with picture, sound, both; in the rows or beside them."""
    folder = tmp_path_factory.mktemp("world")
    for name, model, processor in (
        ("model", make_tiny_model(seed=35), make_tiny_processor()),
        ("model2025", make_tiny_model_2025(), make_tiny_processor_2025()),
    ):
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    clips = [make_clip(folder / f"{index}.mp4", seconds=0.3 + index / 10, size=(32 + 4 * index, 32)) for index in range(3)]
    clips.append(make_clip(folder / "silent.mp4", seconds=0.4, size=(32, 32), audio=False))
    clips.append(make_clip(folder / "sound.wav", seconds=0.4, video=False))
    rows = [
        {
            "name": clip.stem,
            "video": str(clip),
            "subtitle": None if clip.stem == "1" else f"This is {clip.stem}.",
            "description": f"The person seems {label}.",
            "labels": [label],
        }
        for clip, label in zip(clips, ("sad", "happy", "calm", "angry", "proud"), strict=True)
    ]
    files = {}
    for config, with_media in (("EMER-Tiny", False), ("EMER-Embedded", True)):
        path = corpus.write_split(rows, folder / "corpus" / config, "train", with_media=with_media)
        files[config] = {"train": f"{config}/{path.name}"}
    corpus.write_card(folder / "corpus", files, "A tiny corpus.", licence="cc0-1.0")
    return folder


@pytest.fixture(scope="module")
def cached(world):
    """Features of both configurations for both models: `world / features`, `world / features2025`."""
    for model in ("model", "model2025"):
        for config in ("EMER-Tiny", "EMER-Embedded"):
            assert (
                main(command_for(world, world / model.replace("model", "features"), "--model", world / model, config=config)) == 0
            )
    return world


def command_for(world, output, *extra, config="EMER-Tiny") -> list[str]:
    """Arguments of the command. What is compared to the last bit is computed on the CPU."""
    given = ["--model", world / "model", "--dataset", world / "corpus", "--dataset-config", config, "--output", output]
    return [str(part) for part in (*given, "--device", "cpu", *extra)]


def on_cpu(folder) -> Models:
    return Models(model=str(folder), device="cpu")


def rows_of(world, config="EMER-Tiny") -> Dataset:
    return load_dataset(str(world / "corpus"), config, split="train")


def loaded(world, name="model"):
    model = AffectGPTForConditionalGeneration.from_pretrained(world / name).eval()
    return model, AffectGPTProcessor.from_pretrained(world / name)


def numbered(rows) -> list[dict]:
    return [row | {"position": number} for number, row in enumerate(rows)]


OPTIONS = [{}, {"modalities": ("video", "text")}, {"modalities": ("audio",)}, {"dropout": {"video": 0.5, "audio": 0.5}, "seed": 3}]


@pytest.mark.parametrize("config", ["EMER-Tiny", "EMER-Embedded"])
@pytest.mark.parametrize("name", ["model", "model2025"])
@pytest.mark.parametrize("options", OPTIONS)
def test_batch_of_features_has_the_prompts_and_the_very_loss_of_media(cached, monkeypatch, name, config, options):
    model, processor = loaded(cached, name)
    rows = numbered(rows_of(cached, config))
    # Of the sound alone, the row without sound has nothing.
    rows = [row for row in rows if options.get("modalities") != ("audio",) or row["name"] != "silent"]
    expected = AffectGPTCollator(processor, **options)(rows)
    cache = FeatureCache(cached / name.replace("model", "features"), model, processor)
    monkeypatch.setattr(collating, "read_clip", None)
    found = AffectGPTCollator(processor, features=cache.read, **options)(rows)
    for key in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(found[key], expected[key])
    taken = {"pixel_values_videos": "video_features", "pixel_values_faces": "face_features"}
    taken |= {"input_features": "audio_features", "input_values": "audio_features"}
    assert {key: len(found[key]) for key in found if key.endswith("_features")} == {
        taken[key]: len(expected[key]) for key in expected if key in taken
    }
    with torch.inference_mode():
        assert model(**found).loss == model(**expected).loss


def test_clips_are_encoded_alone_as_in_company_and_kept_as_asked(cached, tmp_path):
    model, processor = loaded(cached)
    rows, whole = rows_of(cached), FeatureCache(cached / "features", model, processor)
    assert cache_features(model, processor, rows, tmp_path / "one", batch_size=1) == {}
    assert cache_features(model, processor, rows, tmp_path / "half", dtype="float16") == {}
    one, half = (FeatureCache(tmp_path / name, model, processor) for name in ("one", "half"))
    for row in rows:
        expected = whole.read(row["video"])
        assert set(expected) == {"silent": {"video_features"}, "sound": {"audio_features"}}.get(
            row["name"], {"video_features", "audio_features"}
        )
        for name, tensor in expected.items():
            torch.testing.assert_close(one.read(row["video"])[name], tensor)
            assert torch.equal(half.read(row["video"])[name], tensor.half())
    batch = AffectGPTCollator(processor, features=half.read)(rows)
    reference = AffectGPTCollator(processor, features=whole.read)(rows)
    with torch.inference_mode():
        assert model(**batch).loss.item() == pytest.approx(model(**reference).loss.item(), rel=1e-3)


def test_training_on_features_logs_the_losses_of_training_on_clips(cached, tmp_path, monkeypatch):
    options = (*STEADY, "--modality_dropout", '{"audio": 0.3}', "--max_steps", 4, "--dataloader_num_workers", 1)
    train_on(cached, tmp_path / "media", *options)
    monkeypatch.setattr(collating, "read_clip", None)
    features = ("--features", cached / "features")
    train_on(cached, tmp_path / "features", *options, *features)
    assert losses(tmp_path / "features") == pytest.approx(losses(tmp_path / "media"), rel=1e-5)
    # What was trained has the encoders that it came from.
    again = ("--model_name_or_path", tmp_path / "features", "--max_steps", 1)
    train_on(cached, tmp_path / "again", *again, *features)


def test_training_with_an_encoder_that_learns_raises(cached, tmp_path):
    modules = ("--trainable_modules", "model.audio_resampler", "model.image_qformer")
    with pytest.raises(ValueError, match=r"without the encoders whose outputs `--features` holds, got model\.image_qformer\."):
        train_on(cached, tmp_path / "out", *modules, "--features", cached / "features")


def test_training_lists_all_rows_without_features_before_it_starts(cached, tmp_path, monkeypatch):
    model, processor = loaded(cached)
    rows = rows_of(cached)
    cache_features(model, processor, rows.select([0, 2, 4]), tmp_path / "some")
    with pytest.raises(ValueError, match=r"got 2 rows without: row 1 \(1\): no features of .*1\.mp4.*; row 3 \(silent\): no"):
        train_on(cached, tmp_path / "out", "--features", tmp_path / "some")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a folder of cached features, got no index\.jsonl"):
        train_on(cached, tmp_path / "out", "--features", tmp_path / "nowhere")


EVALUATIONS = [
    ("EMER-Tiny", {"shuffled": True}),
    ("EMER-Embedded", {"shuffled": True}),
    ("EMER-Tiny", {"modalities": ("video", "text")}),
    ("EMER-Tiny", {"decoding": "reference", "batch_size": 2}),
]


@pytest.mark.parametrize("name", ["model", "model2025"])
@pytest.mark.parametrize(("config", "options"), EVALUATIONS)
def test_answers_from_features_are_those_from_clips(cached, tmp_path, monkeypatch, name, config, options):
    rows = rows_of(cached, config)
    options = options | {"max_new_tokens": 12}
    figures = evaluate(on_cpu(cached / name), rows, tmp_path / "media", **options)
    monkeypatch.setattr(collating, "read_clip", None)
    features = str(cached / name.replace("model", "features"))
    assert evaluate(on_cpu(cached / name), rows, tmp_path / "features", features=features, **options) == figures
    written = (tmp_path / "features.jsonl").read_text()
    assert written == (tmp_path / "media.jsonl").read_text()  # the first line, too
    # A run that was stopped goes on with features, and without.
    lines = written.splitlines(keepends=True)
    (tmp_path / "features.jsonl").write_text("".join(lines[:3]))
    assert evaluate(on_cpu(cached / name), rows, tmp_path / "features", features=features, **options) == figures


def test_evaluation_on_features_loads_the_model_in_their_precision(cached, tmp_path, monkeypatch):
    load, asked = answers.load_explainer, []
    monkeypatch.setattr(answers, "load_explainer", lambda **options: asked.append(options["dtype"]) or load(**options))
    for given in (None, "bfloat16"):
        models = Models(model=str(cached / "model"), device="cpu", dtype=given)
        evaluate(models, rows_of(cached), tmp_path / str(given), max_new_tokens=2)
    features = str(cached / "features")
    evaluate(on_cpu(cached / "model"), rows_of(cached), tmp_path / "features", features=features, max_new_tokens=2)
    assert asked == [None, "bfloat16", "float32"]
    with pytest.raises(ValueError, match='precision: expected "bfloat16", got "float32"'):
        evaluate(models, rows_of(cached), tmp_path / "other", features=features)


def test_evaluation_names_clips_without_features_and_keeps_the_others(cached, tmp_path):
    model, processor = loaded(cached)
    rows = rows_of(cached)
    cache_features(model, processor, rows.select([0, 1, 2]), tmp_path / "some")
    figures = evaluate(on_cpu(cached / "model"), rows, tmp_path / "out", features=str(tmp_path / "some"), failures_as_empty=True)
    assert figures["num_failed"] == 2
    failed = json.loads((tmp_path / "out.json").read_text())["systems"][0]["runs"]["en"][0]["clips"]["sound"]["failed"]
    assert "no features of" in failed and "sound.wav" in failed


def test_features_for_what_takes_none_raise(cached, tmp_path, monkeypatch):
    monkeypatch.setattr("training.answers.load_explainer", lambda **options: None)
    monkeypatch.setattr("training.answers._load", lambda *args: object())
    monkeypatch.setattr("training.answers.prompts", lambda *args: {})
    with pytest.raises(ValueError, match="Expected no cached features for https://host/v1#model, got some"):
        evaluate(Models(model="https://host/v1#model"), rows_of(cached), tmp_path / "out", features=str(cached / "features"))


@pytest.mark.parametrize("kind", ["weights", "precision", "frames", "layers"])
def test_features_of_another_model_are_refused(cached, kind):
    name = "model2025" if kind == "layers" else "model"
    model, processor = loaded(cached, name)
    expected = {"weights": "encoders: expected", "precision": 'precision: expected "bfloat16", got "float32"'}
    if kind == "weights":
        with torch.no_grad():
            next(model.model.audio_tower.parameters()).view(-1)[0] += 1e-3
    elif kind == "precision":
        model.to(torch.bfloat16)
    elif kind == "frames":
        processor.image_processor.num_frames += 1
    else:
        model.config.num_audio_layers -= 1
    with pytest.raises(ValueError, match=expected.get(kind, "settings: expected")) as raised:
        FeatureCache(cached / name.replace("model", "features"), model, processor)
    assert "Take the checkpoint" in str(raised.value)
    with pytest.raises(ValueError, match="of the same encoders"):
        cache_features(model, processor, rows_of(cached), cached / name.replace("model", "features"))


def test_resamplers_and_language_model_may_change(cached):
    model, processor = loaded(cached)
    with torch.no_grad():
        for part in (model.model.video_resampler, model.model.language_model):
            for parameter in part.parameters():
                parameter.zero_()
    FeatureCache(cached / "features", model, processor)


def test_face_crops_must_be_those_of_the_features(cached, tmp_path):
    model, processor = loaded(cached, "model2025")
    for name in ("0", "1", "2", "silent", "sound"):
        np.save(tmp_path / f"{name}.npy", np.full((3, 28, 28, 3), 90, dtype=np.uint8))
    assert cache_features(model, processor, rows_of(cached), tmp_path / "features", faces=tmp_path) == {}
    with pytest.raises(ValueError, match="faces: expected null, got"):
        FeatureCache(tmp_path / "features", model, processor)
    rows = list(rows_of(cached))
    found = AffectGPTCollator(processor, features=FeatureCache(tmp_path / "features", model, processor, faces=tmp_path).read)(rows)
    expected = AffectGPTCollator(processor, faces_folder=tmp_path)(rows)
    with torch.inference_mode():
        assert model(**found).loss == model(**expected).loss


def test_clip_that_changed_is_noticed_and_computed_again(world, tmp_path):
    model, processor = loaded(world)
    clip = make_clip(tmp_path / "clip.mp4", seconds=0.4, size=(32, 32))
    rows = rows_of(world).select([0]).map(lambda row: {"video": {"path": str(clip), "bytes": None}})
    cache_features(model, processor, rows, tmp_path / "features")
    before = FeatureCache(tmp_path / "features", model, processor).read(rows[0]["video"])
    make_clip(clip, seconds=1.2, size=(32, 64))
    with pytest.raises(ValueError, match=r"row 0 \(0\): .*clip\.mp4 has \d+ bytes, and \d+ when its features were computed"):
        FeatureCache(tmp_path / "features", model, processor).check(rows)
    cache_features(model, processor, rows, tmp_path / "features")
    after = FeatureCache(tmp_path / "features", model, processor).read(rows[0]["video"])
    assert not torch.equal(before["video_features"], after["video_features"])


def test_unreadable_clips_are_all_named_in_the_end_and_the_rest_is_kept(world, tmp_path, capsys):
    good = str(rows_of(world)[0]["video"]["path"])
    for name in ("b", "d"):
        (tmp_path / f"{name}.mp4").write_bytes(b"no clip")
    clips = {"a": good, "b": str(tmp_path / "b.mp4"), "c": good, "d": str(tmp_path / "d.mp4")}
    rows = [{"name": name, "video": clip, "description": "Sad.", "labels": ["sad"]} for name, clip in clips.items()]
    path = corpus.write_split(rows, tmp_path / "corpus/data", "train")
    corpus.write_card(tmp_path / "corpus", {"EMER-Bad": {"train": f"data/{path.name}"}}, "Bad.", licence="cc0-1.0")
    options = ("--dataset", tmp_path / "corpus", "--dataset-config", "EMER-Bad")
    for _ in range(2):
        assert main(command_for(world, tmp_path / "features", *options)) == 1
        told = capsys.readouterr().err
        assert "2 of 4 clips have no features" in told
        assert all(f"\n  {name}: " in told and f"{name}.mp4" in told for name in "bd")
    (line,) = (tmp_path / "features/index.jsonl").read_text().splitlines()[1:]
    assert [entry["name"] for entry in json.loads(line)["clips"]] == ["a"]  # of two rows with one clip, once
    assert main(command_for(world, tmp_path / "features", "--model", world / "model2025")) == 2
    assert "of the same encoders" in capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".part"}


def test_killed_process_goes_on_and_gives_what_one_run_gives(world, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "SHARD_CLIPS", 1)
    options = ("--batch-size", 1)
    assert main(command_for(world, tmp_path / "whole", *options)) == 0
    code = "import sys; from training import cache_features as it; it.SHARD_CLIPS = 1; sys.exit(it.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *command_for(world, tmp_path / "parts", *options)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    index = tmp_path / "parts/index.jsonl"
    while process.poll() is None and not (index.exists() and index.read_bytes().count(b"\n") > 1):
        time.sleep(0.001)
    process.kill()
    process.wait()
    whole = contents(tmp_path / "whole")
    assert 1 < index.read_bytes().count(b"\n") < whole["index.jsonl"].count(b"\n")
    # As a kill or a full disk may leave it: a line cut in two, a shard without a line and one cut in two.
    index.write_bytes(index.read_bytes() + b'{"shard": "0000')
    (tmp_path / "parts/00003.safetensors").write_bytes(b"cut")
    (tmp_path / "parts/00004.safetensors.part").write_bytes(b"cut")
    model, processor = loaded(world)
    with pytest.raises(ValueError, match="rows without"):
        FeatureCache(tmp_path / "parts", model, processor).check(rows_of(world))
    assert main(command_for(world, tmp_path / "parts", *options)) == 0
    assert contents(tmp_path / "parts") == whole
    assert main(command_for(world, tmp_path / "parts", *options)) == 0
    assert contents(tmp_path / "parts") == whole


def test_stopped_within_a_shard_keeps_the_whole_ones(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(caching, "SHARD_CLIPS", 2)
    original, calls = caching._encoded, []

    def encoded(*args):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(caching, "_encoded", encoded)
    assert main(command_for(world, tmp_path / "features", "--batch-size", 1)) == 130
    assert "Interrupted. Whole shards are kept" in capsys.readouterr().err
    assert sorted(contents(tmp_path / "features")) == ["00000.safetensors", "index.jsonl"]
    monkeypatch.setattr(caching, "_encoded", original)
    assert main(command_for(world, tmp_path / "features", "--batch-size", 1)) == 0
    model, processor = loaded(world)
    FeatureCache(tmp_path / "features", model, processor).check(rows_of(world))


@pytest.mark.parametrize("harm", ["shard", "index", "format"])
def test_damaged_folder_is_told_apart(world, tmp_path, harm):
    model, processor = loaded(world)
    cache_features(model, processor, rows_of(world).select([0]), tmp_path)
    index = tmp_path / "index.jsonl"
    if harm == "shard":
        (tmp_path / "00000.safetensors").unlink()
    else:
        index.write_text("no index\n" if harm == "index" else index.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match=r"got all but 00000\.safetensors" if harm == "shard" else "Expected an index of features"):
        FeatureCache(tmp_path, model, processor)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes_read_features(cached, context):
    model, processor = loaded(cached)
    rows = list(rows_of(cached))
    cache = FeatureCache(cached / "features", model, processor)
    collate = AffectGPTCollator(processor, features=cache.read)
    expected = collate(rows)  # opens files here, which no worker must share
    assert pickle.loads(pickle.dumps(cache))._files == {}
    loader = DataLoader(rows, batch_size=len(rows), collate_fn=collate, num_workers=1, multiprocessing_context=context)
    (found,) = loader
    assert all(torch.equal(found[key], expected[key]) for key in expected)
