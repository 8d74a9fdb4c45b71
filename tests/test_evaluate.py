"""The evaluation as a command: every kind of explainer, on clips that were rendered for it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_media_models
import torch
from datasets import load_dataset
from fake_endpoint import fails, fake_endpoint, last_text, says
from test_wheels import write_tables
from tiny import make_tiny_model, make_tiny_processor, make_tiny_tokenizer
from transformers import BertConfig, BertModel

from affectgpt import chat as chat_module
from affectgpt.chat import ChatError
from affectgpt.labels import EXTRACTION_PROMPT, GROUPING_PROMPT
from affectgpt.metrics import set_score
from training import answers as answering
from training import evaluate as evaluation
from training import reproduce, runs
from training.answers import Asking, Models, UnansweredError
from training.evaluate import Scoring, evaluate, rescore, rows_of_clips
from training.report import main as write_report
from training.similarity import SentenceEncoder, similarity
from training.sketch.render import build_corpus

ROOT = Path(__file__).parent.parent
NUM_CLIPS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny checkpoint, and clips of the drawn world as a corpus and as a folder with a file of labels."""
    folder = tmp_path_factory.mktemp("world")
    # A seed whose answers differ by clip and end at different lengths, some of them cut off.
    make_tiny_model(seed=35).save_pretrained(folder / "model")
    make_tiny_processor().save_pretrained(folder / "model")
    build_corpus(folder / "corpus", coarse=0, fine_train=0, fine_test=0, test=NUM_CLIPS, workers=1)
    truth = [{key: row[key] for key in ("name", "labels", "subtitle")} for row in rows_of(folder)]
    write_jsonl(folder / "truth.jsonl", truth)
    return folder


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch, tmp_path):
    monkeypatch.setattr(chat_module, "FIRST_WAIT_S", 0.001)
    monkeypatch.setenv("AFFECTGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def rows_of(world):
    return load_dataset(str(world / "corpus"), "EMER-Sketch-Test", split="test")


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts_in(path: Path) -> dict[str, str]:
    return {row["name"]: row["text"] for row in map(json.loads, path.read_text().splitlines()) if "name" in row}


def record_of(path: Path) -> dict:
    return json.loads(path.with_name(f"{path.name}.json").read_text())


# AffectGPT checkpoints


@pytest.fixture(scope="module")
def whole(world):
    """What one unbroken run gives, greedy and sampled: `world / greedy.jsonl`, ..."""
    figures = {}
    for decoding in ("greedy", "reference"):
        options = {"decoding": decoding, "batch_size": 2, "max_new_tokens": 40}
        figures[decoding] = evaluate(Models(model=str(world / "model"), device="cpu"), rows_of(world), world / decoding, **options)
    return figures


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_greedy_answers_are_the_same_for_any_batch_size(world, whole, tmp_path, batch_size):
    model = Models(model=str(world / "model"), device="cpu")  # on a GPU, kernels differ by size
    figures = evaluate(model, rows_of(world), tmp_path / "out", batch_size=batch_size, max_new_tokens=40)
    texts = texts_in(tmp_path / "out.jsonl")
    assert texts == texts_in(world / "greedy.jsonl")
    assert len(set(texts.values())) == NUM_CLIPS
    assert figures == whole["greedy"]


def test_record_says_what_was_run_how_and_what_every_clip_is_worth(world, whole):
    record = record_of(world / "greedy")
    (system,) = record["systems"]
    (run,) = system["runs"]["en"]
    assert (system["protocol"], system["modalities"]) == ("direct", "LVA")
    assert (system["facts"]["decoding"], system["facts"]["language"]) == ("greedy", "en")
    revision = system["facts"]["revision"][str(world / "model")]
    assert len(revision) == len(system["facts"]["prompts"]["direct"]) == len(run["sha256"]) == 64
    assert {"affectgpt", "python", "torch", "transformers", "lexicon"} <= set(record["versions"])
    assert run["facts"]["seed"] == 0
    assert set(run["clips"]) == set(record["truth"]) == set(rows_of(world)["name"])
    clip = next(iter(run["clips"].values()))
    assert {"labels", "groups", "accuracy", "recall", "text"} <= set(clip)
    assert set(record["figures"]["clues"]) == {"video", "audio", "text"}
    assert record["figures"]["num_clips"] == NUM_CLIPS
    assert 0 < run["facts"]["num_cut"] < NUM_CLIPS


def command_for(world, output, *options) -> list[str]:
    corpus = ["--dataset", world / "corpus", "--dataset-config", "EMER-Sketch-Test", "--max-new-tokens", 40]
    return [str(part) for part in ("--model", world / "model", "--output", output, *corpus, *options)]


def check_goes_on(command, answers, whole_answers):
    """Given again, the command completes the answers, and they and the figures are those of an unbroken run."""
    assert 0 < len(texts_in(answers)) < NUM_CLIPS
    answers.write_bytes(answers.read_bytes() + b'{"name": "cut in t')  # as a full disk or a power cut would leave it
    assert evaluation.main(command) == 0
    assert texts_in(answers) == texts_in(whole_answers)
    assert record_of(answers.with_suffix(""))["figures"] == record_of(whole_answers.with_suffix(""))["figures"]
    assert answers.with_suffix(".html").read_text().count("<details>") == NUM_CLIPS


def test_killed_process_goes_on_and_gives_what_one_run_gives(world, whole, tmp_path):
    answers, command = tmp_path / "out.jsonl", command_for(world, tmp_path / "out", "--batch-size", 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "training.evaluate", *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (answers.exists() and answers.read_bytes().count(b"\n") > 1):
        time.sleep(0.002)
    process.kill()
    process.wait()
    check_goes_on(command, answers, world / "greedy.jsonl")


def test_interrupted_sampling_says_so_goes_on_and_draws_what_one_run_draws(world, whole, tmp_path, monkeypatch, capsys):
    command = command_for(world, tmp_path / "out", "--batch-size", 2, "--decoding", "reference")
    written = []

    def write_line(file, row):
        if len(written) == 4:  # in the middle of a batch
            raise KeyboardInterrupt
        written.append(row)
        original(file, row)

    original = answering._write_line
    monkeypatch.setattr(answering, "_write_line", write_line)
    assert evaluation.main(command) == 130
    assert "Interrupted. The answers so far are kept in" in capsys.readouterr().err
    monkeypatch.setattr(answering, "_write_line", original)
    check_goes_on(command, tmp_path / "out.jsonl", world / "reference.jsonl")


def test_reference_decoding_runs_differ_by_seed_and_spread_is_their_standard_deviation(world, tmp_path):
    options = {"decoding": "reference", "batch_size": 3, "max_new_tokens": 40}
    figures = evaluate(world / "model", rows_of(world), tmp_path / "out", num_runs=3, scoring=Scoring(exact=True), **options)
    texts = [texts_in(tmp_path / name) for name in ("out.jsonl", "out-run1.jsonl", "out-run2.jsonl")]
    assert texts[0] != texts[1] != texts[2]
    found = record_of(tmp_path / "out")["systems"][0]["runs"]["en"]
    assert [run["facts"]["seed"] for run in found] == [0, 1, 2]
    averages = [100 * run["avg"] for run in found]
    assert figures["avg"] == pytest.approx(np.mean(averages))
    assert figures["std"]["avg"] == pytest.approx(np.std(averages))
    evaluate(world / "model", rows_of(world), tmp_path / "again", **options)
    assert texts_in(tmp_path / "again.jsonl") == texts[0]


def test_answers_of_other_weights_or_settings_are_not_gone_on_with(world, whole, tmp_path):
    lines = (world / "greedy.jsonl").read_text().splitlines(keepends=True)
    changed = json.loads(lines[0])
    changed["revision"] = dict.fromkeys(changed["revision"], "0" * 64)
    (tmp_path / "out.jsonl").write_text(json.dumps(changed) + "\n" + lines[1])
    with pytest.raises(ValueError, match="the same weights and prompts, got another revision"):
        evaluate(world / "model", rows_of(world), tmp_path / "out", max_new_tokens=40)
    (tmp_path / "out.jsonl").write_text("".join(lines))
    with pytest.raises(ValueError, match="this very run"):
        evaluate(world / "model", rows_of(world), tmp_path / "out", max_new_tokens=41)
    (tmp_path / "out.jsonl").write_text("no answers\n")
    with pytest.raises(ValueError, match=r"answers of a run in .*out\.jsonl, could not read them"):
        evaluate(world / "model", rows_of(world), tmp_path / "out")


def test_answers_that_say_less_of_their_settings_are_scored_as_they_are(world, tmp_path):
    header = {"model": "elsewhere", "modalities": ["video", "audio", "text"], "shuffled": False, "seed": 0}
    answers = [{"name": row["name"], "text": row["description"], "labels": row["labels"]} for row in rows_of(world)]
    write_jsonl(tmp_path / "out.jsonl", [header, *answers])
    figures = evaluate("elsewhere", rows_of(world), tmp_path / "out", scoring=Scoring(exact=True))
    assert figures["avg"] == 100
    assert all(score["precision"][0] == 1 for score in figures["clues"].values())


def test_unreadable_clip_is_named_and_the_others_are_kept(world, tmp_path):
    rows = rows_of(world)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    videos = [{"path": str(broken), "bytes": None} if index == 1 else row["video"] for index, row in enumerate(rows)]
    rows = rows.remove_columns("video").add_column("video", videos, feature=rows.features["video"])
    options = {"max_new_tokens": 40, "batch_size": 3}
    with pytest.raises(UnansweredError, match=rf"1 of {NUM_CLIPS} clips have no answer:\n  test_00001: .*broken\.mp4"):
        evaluate(world / "model", rows, tmp_path / "out", **options)
    assert set(texts_in(tmp_path / "out.jsonl")) == set(rows["name"]) - {"test_00001"}
    assert not (tmp_path / "out.json").exists()
    figures = evaluate(world / "model", rows, tmp_path / "out", failures_as_empty=True, **options)
    assert figures["num_failed"] == 1 and figures["num_clips"] == NUM_CLIPS
    clip = record_of(tmp_path / "out")["systems"][0]["runs"]["en"][0]["clips"]["test_00001"]
    assert (clip["accuracy"], clip["recall"]) == (0, 0) and "broken.mp4" in clip["failed"] and "text" not in clip


def test_model_of_drawings_is_not_evaluated_on_other_clips_unless_insisted(world, tmp_path):
    model = make_tiny_model()
    model.config.drawings_only = True
    model.save_pretrained(tmp_path / "model")
    make_tiny_processor().save_pretrained(tmp_path / "model")
    rows = rows_of_clips(world / "truth.jsonl", world / "corpus" / "clips")
    with pytest.raises(ValueError, match="Expected drawings of EMER-Sketch"):
        evaluate(tmp_path / "model", rows, tmp_path / "out")
    figures = evaluate(tmp_path / "model", rows, tmp_path / "out", explain_anyway=True, max_new_tokens=5)
    assert figures["num_clips"] == NUM_CLIPS and "clues" not in figures


def test_several_runs_of_what_cannot_differ_raise(world, tmp_path):
    with pytest.raises(ValueError, match="Expected one run where each gives the same"):
        evaluate(world / "model", rows_of(world), tmp_path / "out", num_runs=2)


# Endpoints


def emotional(request, number):
    """Plays every part: gives clues, merges, extracts labels and groups them."""
    text = last_text(request)
    if text.startswith(EXTRACTION_PROMPT[:150]):
        return says("[sad, angry]" if request.get("seed") == 1 else "[sad]")
    if text.startswith(GROUPING_PROMPT[:150]):
        labels = text.split("Input: [")[1].split("]")[0].split(", ")
        return says(str([[label] for label in labels]))
    if "clues from the" in text:
        return says("Therefore, the person seems " + ("angry." if request.get("seed") == 1 else "sad."))
    return says(f"Sign {number}. Therefore, the person seems sad.")


def kinds(requests):
    """How many requests of each kind there were."""
    names = {"extract": EXTRACTION_PROMPT[:150], "group": GROUPING_PROMPT[:150]}
    found = dict.fromkeys((*names, "merge", "clue"), 0)
    for request in requests:
        text = last_text(request)
        kind = next((name for name, start in names.items() if text.startswith(start)), None)
        found[kind or ("merge" if "clues from the" in text else "clue")] += 1
    return found


def test_endpoint_is_asked_side_by_side_and_only_for_what_is_missing(world, tmp_path):
    refused = []
    words = rows_of(world)["subtitle"][3]

    def answer(request, number):
        if words in last_text(request) and not refused:
            refused.append(number)
            return fails(413, "too large")
        reply = emotional(request, number)
        reply.delay_s = 0.05
        return reply

    with fake_endpoint(answer) as endpoint:
        model, rows = Models(model=endpoint.spec), rows_of(world)
        with pytest.raises(UnansweredError, match="test_0000.: .*too large") as raised:
            evaluate(model, rows, tmp_path / "out", concurrency=3)
        assert 1 < endpoint.most_at_once <= 3
        asked = len(endpoint.requests)
        figures = evaluate(model, rows, tmp_path / "out", concurrency=3)
        assert len(endpoint.requests) - asked == len(raised.value.failures)
        record = record_of(tmp_path / "out")
    assert (figures["protocol"], record["systems"][0]["modalities"]) == ("direct", "LVA")
    assert record["systems"][0]["facts"]["revision"] == {endpoint.spec: None}
    truth = dict(zip(rows["name"], rows["labels"], strict=True))
    groups = runs.group_clips(truth, dict.fromkeys(truth, ["sad"]), "lexicon")
    assert figures["avg"] == pytest.approx(100 * set_score(truth, dict.fromkeys(truth, ["sad"]), groups).avg)


def test_endpoint_that_refuses_everything_ends_the_run_at_once(world, tmp_path, capsys):
    with fake_endpoint(lambda request, number: fails(401, "wrong key")) as endpoint:
        with pytest.raises(ChatError, match="wrong key"):
            evaluate(endpoint.spec, rows_of(world), tmp_path / "out", concurrency=1)
        assert len(endpoint.requests) == 1
        sources = ["--truth", world / "truth.jsonl", "--clips", world / "corpus" / "clips"]
        command = ["--model", endpoint.spec, *sources, "--output", tmp_path / "again"]
        assert evaluation.main(list(map(str, command))) == 1
    assert "wrong key" in capsys.readouterr().err


def test_two_step_runs_merge_extract_and_group_again_from_the_same_clues(world, tmp_path):
    with fake_endpoint(emotional) as endpoint:
        models = Models(video_model=endpoint.spec, audio_model=endpoint.spec, merge_model=endpoint.spec)
        scoring = Scoring(labels_backend=endpoint.spec, groups_backend=endpoint.spec)
        figures = evaluate(models, rows_of(world), tmp_path / "out", num_runs=3, scoring=scoring, seed=0)
        found = kinds(endpoint.requests)
        assert found["clue"] == 2 * NUM_CLIPS
        assert found["merge"] == 3 * NUM_CLIPS
        assert found["extract"] > 0 and found["group"] > 0
        seeds = {request.get("seed") for request in endpoint.requests}
        assert seeds == {None, 1, 2}
        asked = len(endpoint.requests)
        assert evaluate(models, rows_of(world), tmp_path / "out", num_runs=3, scoring=scoring) == figures
        assert len(endpoint.requests) == asked
        # Another evaluation has the first run from the cache, and asks for the later ones anew.
        evaluate(models, rows_of(world), tmp_path / "other", num_runs=3, scoring=scoring)
        again = kinds(endpoint.requests[asked:])
        assert (again["clue"], again["merge"]) == (0, 2 * NUM_CLIPS)
        assert again["extract"] > 0
    record = record_of(tmp_path / "out")
    system = record["systems"][0]
    assert (system["protocol"], system["modalities"]) == ("two-step", "LVA")
    assert set(system["facts"]["prompts"]) == {"video", "audio", "merge"}
    averages = [100 * run["avg"] for run in system["runs"]["en"]]
    assert averages[0] == averages[2] != averages[1]
    assert [run["facts"]["seed"] for run in system["runs"]["en"]] == [None, 1, 2]
    assert figures["std"]["avg"] == pytest.approx(np.std(averages))
    assert "best_constant_avg" not in figures  # nobody pays for grouping that


def test_clues_from_files_are_merged_without_any_clip(world, tmp_path):
    rows = rows_of_clips(world / "truth.jsonl")
    for medium in ("video", "audio"):
        clues = [{"name": f"{name}.mp4", "text": f"The {medium} of {name}."} for name in rows["name"]]
        write_jsonl(tmp_path / f"{medium}.jsonl", clues)
    with fake_endpoint(emotional) as endpoint:
        models = Models(
            video_model=str(tmp_path / "video.jsonl"), audio_model=str(tmp_path / "audio.jsonl"), merge_model=endpoint.spec
        )
        figures = evaluate(models, rows, tmp_path / "out", name="A+B")
        asked = [last_text(request) for request in endpoint.requests]
    assert len(asked) == NUM_CLIPS and figures["protocol"] == "two-step"
    first = next(text for text in asked if "test_00000" in text)
    assert "The video of test_00000." in first and "The audio of test_00000." in first
    assert rows["subtitle"][0] in first
    with pytest.raises(ValueError, match="a merge model beside files of clues"):
        Models(video_model="a.jsonl")
    with pytest.raises(ValueError, match="got one of each"):
        Models(video_model="a.jsonl", audio_model="some/model", merge_model="x")


# Other explainers


def test_model_of_transformers_is_scored_like_any_other(world, tmp_path):
    folder = tiny_media_models.make_qwen2_5_omni(tmp_path / "omni")
    rows = rows_of(world).select(range(2))
    figures = evaluate(folder, rows, tmp_path / "out", max_new_tokens=4)
    assert figures["num_clips"] == 2
    assert record_of(tmp_path / "out")["systems"][0]["modalities"] == "LVA"
    with pytest.raises(ValueError, match="only AffectGPT checkpoints can be kept"):
        evaluate(folder, rows, tmp_path / "other", modalities=("audio", "text"))
    with pytest.raises(ValueError, match="which is AffectGPT's"):
        evaluate(folder, rows, tmp_path / "other", decoding="reference")


def test_file_of_predictions_is_scored_by_its_labels_and_its_texts(world, tmp_path):
    rows = rows_of_clips(world / "truth.jsonl")
    given = [
        {"name": row["name"], "text": "The person seems bored.", **({"labels": row["labels"]} if index else {})}
        for index, row in enumerate(rows)
    ]
    write_jsonl(tmp_path / "given.jsonl", given)
    figures = evaluate(tmp_path / "given.jsonl", rows, tmp_path / "out", scoring=Scoring(exact=True), protocol="two-step")
    record = record_of(tmp_path / "out")
    labels = {name: clip["labels"] for name, clip in record["systems"][0]["runs"]["en"][0]["clips"].items()}
    assert labels == {row["name"]: row["labels"] if index else ["bored"] for index, row in enumerate(rows)}
    assert figures["protocol"] == "two-step"
    write_jsonl(tmp_path / "fewer.jsonl", given[1:])
    with pytest.raises(UnansweredError, match="test_00000: .*has no prediction"):
        evaluate(tmp_path / "fewer.jsonl", rows, tmp_path / "out")
    write_jsonl(tmp_path / "direct.jsonl", [row | {"protocol": "direct"} for row in given])
    with pytest.raises(ValueError, match="the protocol two-step, got direct"):
        evaluate(tmp_path / "direct.jsonl", rows, tmp_path / "out", protocol="two-step")


def test_command_takes_a_folder_of_clips_and_says_what_is_missing(world, tmp_path, capsys):
    sources = ["--truth", world / "truth.jsonl", "--clips", world / "corpus" / "clips", "--max-new-tokens", 5]
    command = list(map(str, ["--model", world / "model", *sources, "--output", tmp_path / "a" / "out", "--name", "Ours"]))
    assert evaluation.main([*command, "--variant", "stage1=none"]) == 0
    shown = capsys.readouterr().out
    assert f"{NUM_CLIPS} clips, groups: lexicon" in shown and "best constant answer" in shown
    system = record_of(tmp_path / "a" / "out")["systems"][0]
    assert (system["model"], system["stage1"]) == ("Ours", "none")
    (tmp_path / "empty").mkdir()
    command[command.index(str(world / "corpus" / "clips"))] = str(tmp_path / "empty")
    assert evaluation.main(command) == 2
    assert f"expected a clip for each of {NUM_CLIPS} rows, got none for {NUM_CLIPS}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluation.main(["--model", "x", "--output", "y"])


def test_wrong_settings_are_said_before_anything_is_loaded():
    with pytest.raises(ValueError, match="Expected either one model"):
        Models(model="a", video_model="b")
    with pytest.raises(ValueError, match="Expected either one model"):
        Models()
    with pytest.raises(ValueError, match="a decoding among greedy, reference"):
        Asking(decoding="beam")
    with pytest.raises(ValueError, match="at least one clip at a time"):
        Asking(batch_size=0)


# Scores


def test_record_is_scored_anew_without_its_answers(world, whole, tmp_path):
    truth = {row["name"]: row["labels"] for row in rows_of(world)}
    write_jsonl(tmp_path / "given.jsonl", [{"name": name, "text": "The person seems joyful."} for name in truth])
    before = evaluate(tmp_path / "given.jsonl", rows_of(world), tmp_path / "out")
    (tmp_path / "given.jsonl").unlink()
    (figures,) = rescore(tmp_path / "out.json", tmp_path / "same").values()
    assert [figures[key] for key in ("avg", "accuracy", "recall")] == [before[key] for key in ("avg", "accuracy", "recall")]
    (figures,) = rescore(tmp_path / "out.json", tmp_path / "exact", exact=True).values()
    assert figures["avg"] == pytest.approx(100 * set_score(truth, dict.fromkeys(truth, ["joyful"])).avg)
    (figures,) = rescore(tmp_path / "exact.json", tmp_path / "grouped", groups_backend="lexicon", labels_backend="lexicon").values()
    assert figures["avg"] == before["avg"]


def test_emotion_wheels_are_scored_at_once_and_afterwards(tmp_path):
    tables = write_tables(tmp_path / "wheels")
    write_jsonl(tmp_path / "truth.jsonl", [{"name": "a", "labels": ["sadly"]}, {"name": "b", "labels": ["glad"]}])
    write_jsonl(tmp_path / "given.jsonl", [{"name": "a", "labels": ["sad"]}, {"name": "b", "labels": ["unknown"]}])
    rows = rows_of_clips(tmp_path / "truth.jsonl")
    figures = evaluate(tmp_path / "given.jsonl", rows, tmp_path / "out", scoring=Scoring(wheels=str(tables)))
    assert figures["wheels"]["case1"]["recall"] == 0.5
    evaluate(tmp_path / "given.jsonl", rows, tmp_path / "plain")
    (again,) = rescore(tmp_path / "plain.json", tmp_path / "again", wheels=str(tables)).values()
    assert again["wheels"] == figures["wheels"]


def test_records_of_both_protocols_make_one_table_that_marks_each_row(world, whole, tmp_path):
    with fake_endpoint(emotional) as endpoint:
        models = Models(video_model=endpoint.spec, merge_model=endpoint.spec)
        evaluate(models, rows_of(world), tmp_path / "two", name="Two")
        evaluate(models, rows_of(world), tmp_path / "two-zh", name="Two", language="zh")
    records = [world / "greedy.json", tmp_path / "two.json", tmp_path / "two-zh.json"]
    reproduce.main(["table8", "--record", *map(str, records), "--output", str(tmp_path / "table")])
    table = (tmp_path / "table.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in table.splitlines() if line.startswith("| ")}
    assert rows[str(world / "model")][1:5] == ["✓", "✓", "✓", "direct"]
    assert rows["Two"][1:5] == ["✓", "✓", "", "two-step"]
    assert rows["Two"][6] == rows["Two"][12] > "1"  # English and Chinese beside each other, whatever language answers came in
    assert "Two protocols" in table
    with pytest.raises(ValueError, match=r"Two \(LV\) in English a second time"):
        runs.read_records([tmp_path / "two.json", tmp_path / "two.json"])
    evaluate("elsewhere", rows_of(world), stored(tmp_path / "exact", world), scoring=Scoring(exact=True))
    with pytest.raises(ValueError, match=r"groups of lexicon in .*exact\.json, .* got those of none, exact"):
        runs.read_records([tmp_path / "two.json", tmp_path / "exact.json"])


def stored(output: Path, world: Path) -> Path:
    answers = [{"name": row["name"], "text": row["description"]} for row in rows_of(world)]
    write_jsonl(output.with_name(f"{output.name}.jsonl"), [{"model": "elsewhere"}, *answers])
    return output


def test_page_of_a_record_shows_answers_and_wrong_clues(world, tmp_path):
    rows = rows_of(world)
    output = stored(tmp_path / "out", world)
    lines = output.with_suffix(".jsonl").read_text().splitlines()
    wrong = {"name": rows[0]["name"], "text": "The voice is loud, quiet and shaky. Therefore, the person seems <b>."}
    output.with_suffix(".jsonl").write_text("\n".join([lines[0], json.dumps(wrong), *lines[2:]]) + "\n")
    evaluate("elsewhere", rows, output)
    write_report(["--record", f"{output}.json", "--output", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    assert page.count("<details>") == NUM_CLIPS
    assert "&lt;b&gt;" in page and "voice, loudness" in page
    with pytest.raises(ValueError, match="Expected one run to show, got nobody, en, run 0 of .* which has: elsewhere: 1 en"):
        write_report(["--record", f"{output}.json", "--system", "nobody", "--output", str(tmp_path / "page.html")])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = make_tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    return str(folder)


def test_encoder_vectors_do_not_depend_on_the_batch(encoder):
    texts = ["The brows lower.", "A voice.", "", "x" * 400]
    together = SentenceEncoder(encoder, device="cpu").encode(texts)
    alone = SentenceEncoder(encoder, device="cpu", batch_size=1).encode(texts)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 1, 0, 1], atol=1e-5)


def test_likeness_is_one_to_the_same_text_and_names_its_floor(encoder):
    references = {str(index): text for index, text in enumerate(["The brows lower.", "Loud!", "zzzz", ""])}
    figures, cosines = similarity(SentenceEncoder(encoder, device="cpu"), references, references)
    assert figures["n"] == 3 and set(cosines) == {"0", "1", "2"}
    assert figures["mean"] == pytest.approx(1, abs=1e-5)
    assert figures["of_another"] < figures["mean"]
    with pytest.raises(ValueError, match="Expected references for the answers, got 0 among 2 clips"):
        similarity(SentenceEncoder(encoder, device="cpu"), {"a": "x", "b": "y"}, {"a": "", "b": None})


def test_evaluation_with_an_encoder_records_the_likeness_of_every_clip(world, tmp_path, encoder):
    figures = evaluate("elsewhere", rows_of(world), stored(tmp_path / "out", world), scoring=Scoring(encoder=encoder))
    assert figures["similarity"]["encoder"] == encoder
    assert figures["similarity"]["mean"] == pytest.approx(1, abs=1e-5)
    clips = record_of(tmp_path / "out")["systems"][0]["runs"]["en"][0]["clips"]
    assert all(clip["similarity"] == pytest.approx(1, abs=1e-5) for clip in clips.values())


def test_rows_without_labels_or_of_one_name_raise(world, tmp_path):
    rows = rows_of(world)
    twice = rows.select([0, 0])
    with pytest.raises(ValueError, match="one row per clip, got 2 rows of 1 names"):
        evaluate(world / "model", twice, tmp_path / "out")
    unlabelled = rows.remove_columns("labels").add_column("labels", [None] * len(rows), feature=rows.features["labels"])
    with pytest.raises(ValueError, match="annotated labels in every row, got none for test_00000"):
        evaluate(world / "model", unlabelled, tmp_path / "out")
