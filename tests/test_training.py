import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from media_files import make_clip
from tiny import make_tiny_model, make_tiny_processor
from transformers import TrainerState

from affectgpt import AffectGPTCollator, AffectGPTForConditionalGeneration, corpus
from training.evaluate import evaluate, shuffle_media
from training.train import RowSequence, check_rows, last_whole_checkpoint, main, train_only

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkpoint and a corpus of six clips on disk."""
    folder = tmp_path_factory.mktemp("world")
    make_tiny_model().save_pretrained(folder / "model")
    make_tiny_processor().save_pretrained(folder / "model")
    rows = []
    for index in range(6):
        clip = folder / f"{index}.mp4"
        make_clip(clip, seconds=0.4, size=(32, 32))
        labels = ["happy", "calm"] if index % 2 else ["sad"]
        rows.append(
            {
                "name": f"row{index}",
                "video": str(clip),
                "subtitle": f"This is sentence {index}.",
                "description": f"The person seems {' and '.join(labels)}.",
                "labels": labels,
            }
        )
    data = corpus.write_split(rows, folder / "corpus/data", "train")
    corpus.write_card(folder / "corpus", {"EMER-Tiny": {"train": f"data/{data.name}"}}, "A tiny corpus.", licence="cc0-1.0")
    return folder


def arguments_for(world, output, *extra) -> list[str]:
    sources = ["--model_name_or_path", world / "model", "--dataset_name", world / "corpus", "--dataset_config", "EMER-Tiny"]
    sizes = ["--per_device_train_batch_size", 2, "--max_steps", 8, "--learning_rate", 0.01, "--warmup_steps", 0]
    quiet = ["--report_to", "none", "--disable_tqdm", True]
    return [str(part) for part in ("--output_dir", output, *sources, *sizes, *quiet, *extra)]


def train(world, output, *extra) -> None:
    main(arguments_for(world, output, *extra))


def losses(folder) -> list[float]:
    return [
        entry["loss"] for entry in TrainerState.load_from_json(str(folder / "trainer_state.json")).log_history if "loss" in entry
    ]


@pytest.fixture(scope="module")
def trained(world):
    """What both stages' arguments files make of the tiny checkpoint."""
    for stage, base in ((1, "model"), (2, "stage1")):
        train(
            world,
            world / f"stage{stage}",
            *("--config", ROOT / f"training/stage{stage}.args"),
            *("--model_name_or_path", world / base, "--dataset_name", world / "corpus", "--dataset_config", "EMER-Tiny"),
            *("--logging_steps", 1, "--dataloader_num_workers", 0, "--dataloader_persistent_workers", False),
        )
    return world


def test_both_stages_lower_the_loss(trained):
    for stage in (1, 2):
        found = losses(trained / f"stage{stage}")
        assert len(found) == 8
        assert sum(found[-3:]) < sum(found[:3]) - 0.05


def test_stages_change_every_resampler_weight_and_no_other_bit(trained):
    def load(name):
        return dict(AffectGPTForConditionalGeneration.from_pretrained(trained / name).named_parameters())

    before, after = load("model"), load("stage2")
    for name, parameter in before.items():
        if name.startswith(("model.video_resampler.", "model.audio_resampler.")):
            # A key's bias shifts all scores of a query alike: its gradient is zero. Unread time positions have none either.
            if not name.endswith("key.bias"):
                assert not torch.equal(parameter, after[name]), name
        else:
            assert torch.equal(parameter, after[name]), name


@pytest.mark.parametrize("stage", [1, 2])
def test_paper_arguments_run_and_move_the_learning_rate_from_3e5_towards_1e5(world, tmp_path, stage):
    quick = ("--dataloader_num_workers", 0, "--logging_steps", 1, "--max_steps", 2, "--learning_rate", 3e-5, "--use_cpu", True)
    train(world, tmp_path, "--config", ROOT / f"training/paper_stage{stage}.args", *quick)
    rates = [
        entry["learning_rate"]
        for entry in TrainerState.load_from_json(str(tmp_path / "trainer_state.json")).log_history
        if "learning_rate" in entry
    ]
    assert rates == pytest.approx([3e-5, 2e-5])


def test_train_only_unknown_module_raises():
    with pytest.raises(AttributeError):
        train_only(make_tiny_model(), ["model.no_such_module"])


STEADY = ("--save_steps", 2, "--logging_steps", 1, "--seed", 5)


def test_training_killed_and_given_again_equals_one_run(world, tmp_path):
    train(world, tmp_path / "whole", *STEADY)
    parts = tmp_path / "parts"
    command = [sys.executable, "-m", "training.train", *arguments_for(world, parts, *STEADY)]
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while killed.poll() is None and last_whole_checkpoint(str(parts)) is None:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    resumed_from = last_whole_checkpoint(str(parts))
    assert resumed_from is not None
    train(world, parts, *STEADY)
    assert losses(parts) == losses(tmp_path / "whole")
    models = [AffectGPTForConditionalGeneration.from_pretrained(tmp_path / name) for name in ("whole", "parts")]
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other), name


def test_last_whole_checkpoint_passes_over_one_that_was_cut_off(tmp_path):
    for step, state in ((2, "{}"), (10, "{}"), (12, '{"cut'), (14, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(state)
    assert last_whole_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
    assert last_whole_checkpoint(str(tmp_path / "nowhere")) is None


def test_row_sequence_is_a_function_of_seed_and_index():
    rows = [{"name": name} for name in "abcde"]
    sequence = RowSequence(rows, 12, seed=3)
    forward = [sequence[index] for index in range(12)]
    assert [RowSequence(rows, 12, seed=3)[index] for index in reversed(range(12))] == forward[::-1]
    assert [row["position"] for row in forward] == list(range(12))
    names = [row["name"] for row in forward]
    assert sorted(names[:5]) == sorted(names[5:10]) == list("abcde")
    assert names[:5] != names[5:10]
    assert [RowSequence(rows, 12, seed=4)[index] for index in range(12)] != forward


def test_check_rows_lists_every_bad_row():
    rows = [
        {"name": "a", "description": " ", "video": {"path": "nowhere.mp4", "bytes": None}},
        {"name": "b", "description": "Sad.", "video": {"path": None, "bytes": b"x"}},
    ]
    with pytest.raises(ValueError, match=r"got 2 without: row 0 \(a\): no `description`; row 0 \(a\): no clip at nowhere.mp4"):
        check_rows(rows)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"language": "zh"}, "row 0 \\(a\\): no `description_zh`$"),
        ({"label_share": 1.0}, "row 1 \\(b\\): no `labels`$"),
        ({"label_share": 0.5}, None),
    ],
)
def test_check_rows_looks_at_what_is_to_be_learnt(options, expected):
    video = {"path": None, "bytes": b"x"}
    rows = [
        {"name": "a", "description": "Sad.", "description_zh": None, "labels": ["sad"], "video": video},
        {"name": "b", "description": "Sad.", "description_zh": "悲伤。", "labels": [], "video": video},
    ]
    if expected is None:
        check_rows(rows, **options)
        return
    with pytest.raises(ValueError, match=expected.rstrip("$")):
        check_rows(rows, **options)


def test_training_without_steps_raises_before_loading(world, tmp_path):
    with pytest.raises(ValueError, match="Expected `--max_steps` above 0, got -1"):
        train(world, tmp_path / "none", "--max_steps", -1)


def test_collator_equals_row_by_row_and_leaves_modalities_out(world):
    rows = load_dataset(str(world / "corpus"), "EMER-Tiny", split="train")
    processor = make_tiny_processor()
    collate = AffectGPTCollator(processor)
    together = collate([rows[0], rows[1]])
    alone = [collate([rows[index]]) for index in (0, 1)]
    for name in ("pixel_values_videos", "input_features"):
        assert torch.equal(together[name], torch.cat([batch[name] for batch in alone]))
    only_sound = AffectGPTCollator(processor, modalities=("audio",), with_answers=False)([rows[0]])
    assert set(only_sound) == {"input_ids", "attention_mask", "input_features"}
    assert "Subtitle" not in processor.tokenizer.decode(only_sound["input_ids"][0])
    only_words = AffectGPTCollator(processor, modalities=("text",))([rows[0]])
    assert set(only_words) == {"input_ids", "attention_mask", "labels"}


def test_collator_unknown_modality_raises():
    with pytest.raises(ValueError, match="got smell"):
        AffectGPTCollator(make_tiny_processor(), modalities=("smell",))


def test_shuffle_media_gives_every_row_another_clip(world):
    rows = load_dataset(str(world / "corpus"), "EMER-Tiny", split="train")
    shuffled = shuffle_media(rows, seed=0)
    assert shuffled["subtitle"][:] == rows["subtitle"][:]
    before, after = ([row["video"]["path"] for row in some] for some in (rows, shuffled))
    assert sorted(before) == sorted(after)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_evaluate_stopped_in_the_middle_goes_on_and_scores_all(world, tmp_path):
    rows = load_dataset(str(world / "corpus"), "EMER-Tiny", split="train")
    whole = evaluate(str(world / "model"), rows, tmp_path / "whole", batch_size=4)
    assert whole["num_clips"] == 6
    assert 0 <= whole["avg_interval_95"][0] <= whole["avg"] <= whole["avg_interval_95"][1] <= 100
    assert sorted(whole["best_constant_labels"]) == ["calm", "sad"]
    assert whole["every_label_avg"] == pytest.approx((0.5 * (1 / 3 + 2 / 3) + 1) / 2 * 100)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:4]) + lines[4][:5])
    assert evaluate(str(world / "model"), rows, tmp_path / "cut", batch_size=4) == whole
    assert (tmp_path / "cut.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert evaluate(str(world / "model"), rows, tmp_path / "cut", batch_size=4) == whole


def test_evaluate_beside_answers_of_another_run_raises(world, tmp_path):
    rows = load_dataset(str(world / "corpus"), "EMER-Tiny", split="train")
    evaluate(str(world / "model"), rows.select(range(2)), tmp_path / "out")
    with pytest.raises(ValueError, match="this very run"):
        evaluate(str(world / "model"), rows, tmp_path / "out", shuffled=True)
