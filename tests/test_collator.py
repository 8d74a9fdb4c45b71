"""From corpus rows to batches: targets, questions, missing and dropped modalities, cutting, determinism."""

import numpy as np
import pytest
import torch
from media_files import make_clip
from tiny import make_tiny_processor, make_tiny_processor_2025
from torch.utils.data import DataLoader

from affectgpt import AffectGPTCollator, MediaError
from affectgpt.collator import LABEL_QUESTION, QUESTIONS
from affectgpt.processing_affectgpt import IN_CHINESE

ENGLISH = 'She smiles, and says "Well. Yes." to Dr. Li. Her voice is bright! So she seems happy.'
CHINESE = "她在笑，说“好。行。”；声音很轻。所以她很高兴。"


def make_row(name, path, **columns):
    return {
        "name": name,
        "video": {"path": None if path is None else str(path), "bytes": None},
        "subtitle": "Well. Yes.",
        "subtitle_zh": "好。行。",
        "description": ENGLISH,
        "description_zh": CHINESE,
        "labels": ["happy", "at ease"],
        **columns,
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {
        "both": make_clip(folder / "both.mp4", seconds=0.4, size=(48, 32)),
        "other": make_clip(folder / "other.mp4", seconds=0.6, size=(32, 32)),
        "silent": make_clip(folder / "silent.mp4", seconds=0.4, size=(32, 32), audio=False),
        "sound": make_clip(folder / "sound.wav", seconds=0.4, video=False),
    }


@pytest.fixture(scope="module")
def rows(clips):
    """One of each kind: all, no picture, no sound, no subtitle, no clip, the clip's bytes in the row."""
    embedded = {"path": "both.mp4", "bytes": clips["both"].read_bytes()}
    return [
        make_row("all", clips["both"]),
        make_row("blind", clips["sound"]),
        make_row("deaf", clips["silent"]),
        make_row("wordless", clips["other"], subtitle=None, subtitle_zh=" "),
        make_row("bare", None),
        make_row("embedded", clips["both"], video=embedded, subtitle=None),
    ]


def texts(processor, batch, row=0):
    """Prompt and answer of a row, read back from the ids."""
    ids, labels = batch["input_ids"][row], batch["labels"][row]
    is_answer = labels != -100
    assert torch.equal(ids[is_answer], labels[is_answer])
    is_there = batch["attention_mask"][row].bool()
    return processor.tokenizer.decode(ids[is_there & ~is_answer]), processor.tokenizer.decode(ids[is_answer])


def numbered(rows):
    return [row | {"position": number} for number, row in enumerate(rows)]


def test_batch_of_mixed_modalities_equals_row_by_row(rows):
    processor = make_tiny_processor()
    collate = AffectGPTCollator(processor)
    together, alone = collate(rows), [collate([row]) for row in rows]
    for index, single in enumerate(alone):
        length = single["input_ids"].shape[1]
        for name, padding in (("input_ids", processor.tokenizer.pad_token_id), ("labels", -100), ("attention_mask", 0)):
            assert torch.equal(together[name][index, :length], single[name][0])
            assert (together[name][index, length:] == padding).all()
    for name, number in (("pixel_values_videos", 4), ("input_features", 4)):
        parts = [single[name] for single in alone if name in single]
        assert len(parts) == number and torch.equal(together[name], torch.cat(parts))


def test_prompt_speaks_of_what_the_row_has(rows):
    processor = make_tiny_processor()
    collate = AffectGPTCollator(processor)
    seen = {row["name"]: texts(processor, collate([row]))[0] for row in rows}
    has = {name: tuple(tag in prompt for tag in ("<Video>", "<Audio>", "<Subtitle>")) for name, prompt in seen.items()}
    assert has == {
        "all": (True, True, True),
        "blind": (False, True, True),
        "deaf": (True, False, True),
        "wordless": (True, True, False),
        "bare": (False, False, True),
        "embedded": (True, True, True),
    }
    assert "<Subtitle>好。行。</Subtitle>" in seen["embedded"]  # the other language, if that is all there is


def test_labels_cover_the_answer_and_nothing_else(rows):
    processor = make_tiny_processor()
    batch = AffectGPTCollator(processor)(rows[:4])
    for index in range(4):
        prompt, answer = texts(processor, batch, index)
        assert answer == f"{ENGLISH}###"
        assert prompt.startswith("<s>###Human: ") and prompt.endswith(" ###Assistant: ")


def test_chinese_answers_go_with_chinese_subtitles_and_are_asked_for(rows):
    processor = make_tiny_processor()
    prompt, answer = texts(processor, AffectGPTCollator(processor, language="zh")(rows[:1]))
    assert answer == f"{CHINESE}###" and "<Subtitle>好。行。</Subtitle>" in prompt
    assert f"{processor.default_question} {IN_CHINESE} ###Assistant" in prompt


@pytest.mark.parametrize(
    ("language", "labels", "expected"),
    [
        ("en", ["happy", "at ease"], "The character's emotional state is happy, at ease."),
        ("en", [], "The character's emotional state is neutral."),
        ("zh", ["happy", "joyful", "生气", "zzz"], "人物的情感状态是喜悦、生气、zzz。"),
        ("zh", [], "人物的情感状态是中性。"),
    ],
)
def test_label_answers_have_their_own_question(clips, language, labels, expected):
    processor = make_tiny_processor()
    collate = AffectGPTCollator(processor, language=language, label_share=1.0)
    prompt, answer = texts(processor, collate([make_row("all", clips["both"], labels=labels)]))
    assert answer == f"{expected}###" and LABEL_QUESTION in prompt


def test_hybrid_answers_draw_the_kind_and_give_what_there_is(rows):
    processor = make_tiny_processor()
    collate = AffectGPTCollator(processor, label_share=0.3)
    drawn = [texts(processor, collate([rows[4] | {"position": number}])) for number in range(200)]
    is_labels = [answer.startswith("The character's emotional state is") for _, answer in drawn]
    assert 40 <= sum(is_labels) <= 80
    assert [LABEL_QUESTION in prompt for prompt, _ in drawn] == is_labels
    for lacking, expected in (({"labels": None}, ENGLISH), ({"description": None}, "The character's emotional state is")):
        batch = collate([rows[4] | lacking | {"position": number} for number in range(8)])
        assert all(texts(processor, batch, index)[1].startswith(expected) for index in range(8))


@pytest.mark.parametrize(
    ("options", "lacking", "message"),
    [
        ({}, {"description": " "}, "Expected `description` in row 'all', got none"),
        ({"language": "zh"}, {"description_zh": None}, "Expected `description_zh` in row 'all', got none"),
        ({"label_share": 1.0}, {"labels": None}, "Expected `labels` in row 'all', got none"),
    ],
)
def test_row_without_its_answer_raises(rows, options, lacking, message):
    with pytest.raises(ValueError, match=message):
        AffectGPTCollator(make_tiny_processor(), **options)([rows[0] | lacking])


def test_varied_questions_are_all_asked(rows):
    processor = make_tiny_processor()
    collate = AffectGPTCollator(processor, questions=QUESTIONS)
    batch = collate(numbered([rows[4]] * 60))
    asked = {question for index in range(60) for question in QUESTIONS if question in texts(processor, batch, index)[0]}
    assert asked == set(QUESTIONS)


def test_dropout_leaves_every_row_something_at_its_rate(rows):
    processor = make_tiny_processor()
    collate = AffectGPTCollator(processor, dropout={"audio": 0.3, "text": 0.8})
    batch = collate(numbered([rows[1]] * 60))
    prompts = [texts(processor, batch, index)[0] for index in range(60)]
    kept = np.array([[tag in prompt for tag in ("<Audio>", "<Subtitle>")] for prompt in prompts])
    assert kept.any(axis=1).all()
    # Of the 0.24 of rows that would lose both, most keep their sound, whose dropout is less.
    assert np.allclose(kept.mean(axis=0), [0.89, 0.25], atol=0.15)
    only = AffectGPTCollator(processor, dropout={"text": 1.0})([rows[4] | {"position": 0}])
    assert "<Subtitle>" in texts(processor, only)[0]


def test_draws_need_a_position_and_depend_on_it_and_the_seed_alone(rows):
    processor = make_tiny_processor()
    options = {"questions": QUESTIONS, "label_share": 0.5, "dropout": {"audio": 0.5, "text": 0.5}}
    with pytest.raises(ValueError, match="Expected the `position` of each row"):
        AffectGPTCollator(processor, **options)(rows[:1])
    items = numbered([rows[index % 4] for index in range(12)])

    def batches(seed=0, **loading):
        loader = DataLoader(items, batch_size=3, collate_fn=AffectGPTCollator(processor, **options, seed=seed), **loading)
        return [batch["input_ids"].tolist() for batch in loader]

    first = batches()
    assert batches(num_workers=2) == first
    resumed = AffectGPTCollator(processor, **options)(items[6:9])
    assert resumed["input_ids"].tolist() == first[2]
    assert batches(seed=1) != first


def lengths(processor, row, **options):
    batch = AffectGPTCollator(processor, **options)([row])
    return int(batch["attention_mask"].sum()), texts(processor, batch)


@pytest.mark.parametrize("make", [make_tiny_processor, make_tiny_processor_2025])
def test_max_length_cuts_at_the_last_sentence_end_that_fits(clips, make):
    processor = make()
    row = make_row("all", None)
    whole, (prompt, _) = lengths(processor, row)
    for max_length in range(whole - len(ENGLISH) + 6, whole + 1):
        found, (same_prompt, answer) = lengths(processor, row, max_length=max_length)
        assert found <= max_length and same_prompt == prompt
        answer = answer.removesuffix("</s>")
        assert answer.endswith("###")
        kept = answer.removesuffix("###")
        ends = [ENGLISH.index("Li.") + 3, ENGLISH.index("!") + 1, len(ENGLISH)]
        room = max_length - (whole - len(ENGLISH))
        fitting = [end for end in ends if end <= room]
        # The first sentence is the longest thing that may have to be cut within, then at a word.
        assert kept == ENGLISH[: fitting[-1]] if fitting else ENGLISH.startswith(kept + " ") or ENGLISH.startswith(kept + ",")


def test_max_length_cuts_chinese_at_sentences_and_characters(clips):
    processor = make_tiny_processor()
    row = make_row("all", None)
    whole, _ = lengths(processor, row, language="zh")
    size = len(CHINESE.encode())

    def cut_to(end):
        return lengths(processor, row, language="zh", max_length=whole - size + len(CHINESE[:end].encode()))[1][1]

    assert cut_to(CHINESE.index("所以") + 3) == CHINESE[: CHINESE.index("所以")] + "###"
    assert cut_to(4) == CHINESE[:4] + "###"


def test_max_length_counts_cut_rows_and_never_cuts_the_prompt(rows):
    processor = make_tiny_processor()
    short = make_row("short", None, description="Happy.")
    whole, _ = lengths(processor, rows[0])
    collate = AffectGPTCollator(processor, max_length=whole - 1)
    assert collate.cut_rows([rows[0], short, rows[3]]) == ["all"]
    collate([rows[0], short])
    assert collate.num_cut == 1
    assert AffectGPTCollator(processor).cut_rows(rows) == []
    tight = AffectGPTCollator(processor, max_length=60)
    for attempt in (lambda: tight(rows[:1]), lambda: tight.cut_rows(rows[:1])):
        with pytest.raises(ValueError, match=r"Row all: expected a `max_length` with room for an answer after its prompt of \d+"):
            attempt()


def test_row_with_nothing_left_raises(rows, clips):
    processor = make_tiny_processor()
    with pytest.raises(MediaError, match="Row bare: expected video or audio, got none of it"):
        AffectGPTCollator(processor, modalities=("video", "audio"))([rows[4]])
    with pytest.raises(MediaError, match="Row deaf: expected audio, got none of it"):
        AffectGPTCollator(processor, modalities=("audio",))([rows[2]])
    heard = AffectGPTCollator(processor, modalities=("audio", "text"))([rows[2]])
    assert set(heard) == {"input_ids", "attention_mask", "labels"}


def test_unreadable_clip_is_named_with_its_row(tmp_path):
    processor = make_tiny_processor()
    (tmp_path / "cut.mp4").write_bytes(b"not a clip")
    with pytest.raises(MediaError, match=r"Row a: .*cut\.mp4: expected a video or sound file"):
        AffectGPTCollator(processor)([make_row("a", tmp_path / "cut.mp4")])
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        AffectGPTCollator(processor)([make_row("a", tmp_path / "gone.mp4")])


def test_face_model_takes_precomputed_crops_by_name(rows, tmp_path):
    processor = make_tiny_processor_2025()
    crops = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    for name in ("all", "wordless"):
        np.save(tmp_path / f"{name}.npy", crops)
    collate = AffectGPTCollator(processor, faces_folder=tmp_path)
    batch = collate([rows[0], rows[3], rows[4]])
    assert set(batch) == {"input_ids", "attention_mask", "labels", "pixel_values_faces", "input_values"}
    assert len(batch["pixel_values_faces"]) == 2 and torch.equal(*batch["pixel_values_faces"])
    with pytest.raises(MediaError, match=r"Row deaf: .*expected deaf\.npy"):
        collate([rows[2]])
    words = AffectGPTCollator(processor, modalities=("audio", "text"), faces_folder=tmp_path)([rows[0]])
    assert "pixel_values_faces" not in words


def test_face_model_cuts_crops_out_of_frames(rows):
    processor = make_tiny_processor_2025(media=("fusion", "audio", "video", "face"))
    batch = AffectGPTCollator(processor)([rows[0], rows[1]])
    assert len(batch["pixel_values_faces"]) == len(batch["pixel_values_videos"]) == 1
    assert len(batch["input_values"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("smell",)}, "got smell"),
        ({"dropout": {"smell": 0.1}}, "got smell"),
        ({"dropout": {"audio": 1.5}}, "Expected `audio` between 0 and 1, got 1.5"),
        ({"language": "de"}, "Expected the language"),
        ({"label_share": -1.0}, "Expected `label_share` between 0 and 1"),
        ({"label_share": 1.0, "label_questions": ()}, "Expected `label_questions`"),
    ],
)
def test_settings_that_make_no_sense_raise(options, message):
    with pytest.raises(ValueError, match=message):
        AffectGPTCollator(make_tiny_processor(), **options)
