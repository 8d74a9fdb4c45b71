"""How many clips the shipped model explains a second, side by side, as `training.evaluate` asks it.

    python -m benchmarks.answers [--rows 128] [--repeats 3]

One thread; the media are encoded before the clock starts. Prints the best of the repeats, and two ratios: the time with
transformers' own cache to that with the growing one (above 1, this project is faster), and this time to the floor, the arithmetic
alone: prompts and answers in one pass of the language model.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

import affectgpt
from training.growing_cache import growing_cache

EXAMPLES = Path(affectgpt.__file__).parent / "assets" / "examples"


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        durations.append(time.perf_counter() - start)
    return min(durations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128, help="clips side by side: the examples, over and over")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = affectgpt.load_model()

    subtitles = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    clips = [(affectgpt.read_clip(EXAMPLES / name, num_frames=8, size=(112, 112)), text) for name, text in subtitles.items()]
    rows = [clips[number % len(clips)] for number in range(arguments.rows)]
    inputs = processor(
        frames=[clip.frames for clip, _ in rows], waveform=[clip.waveform for clip, _ in rows], subtitle=[text for _, text in rows]
    )
    with torch.no_grad():
        inputs["video_features"] = model.model.encode_frames(inputs.pop("pixel_values_videos"))
        inputs["audio_features"] = model.model.encode_sound(inputs.pop("input_features"))

        def answer(**options) -> torch.Tensor:
            return model.generate(**inputs, **options, tokenizer=processor.tokenizer)

        written = answer()
        assert torch.equal(written, answer(past_key_values=growing_cache(model.config)))
        ours = best_seconds(lambda: answer(past_key_values=growing_cache(model.config)), arguments.repeats)
        theirs = best_seconds(answer, arguments.repeats)
        embeddings = torch.randn(*written.shape, model.config.text_config.hidden_size)
        floor = best_seconds(lambda: model.model.language_model(inputs_embeds=embeddings), arguments.repeats)
    print(
        f"{arguments.rows} answers of up to {written.shape[1] - inputs['input_ids'].shape[1]} tokens: {ours:.2f} s "
        f"({arguments.rows / ours:.1f} a second), with transformers' own cache {theirs:.2f} s, ratio {theirs / ours:.2f}; floor "
        f"{floor:.2f} s, ratio {ours / floor:.1f}"
    )


if __name__ == "__main__":
    main()
