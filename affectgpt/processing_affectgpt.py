"""From a clip's frames, sound, subtitle and a question to what AffectGPT takes.

The prompt is the one the paper's model was trained with (authors' `datasets/datasets/` prompts, commit e0aec19), rendered by the
chat template from what is present; training, inference, demo and evaluation share it. Media come in as arrays: see
`affectgpt.media`.
"""

import re

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.role == "user" -%}
        {%- set audio = message.content | selectattr("type", "equalto", "audio") | list | length -%}
        {%- set video = message.content | selectattr("type", "equalto", "video") | list | length -%}
        {%- set subtitles = message.content | selectattr("type", "equalto", "subtitle") | list -%}
        {%- set questions = message.content | selectattr("type", "equalto", "text") | list -%}
        {{- "###Human: " -}}
        {%- if audio -%}
            {{- "Close your eyes, open your ears and you imagine only based on the sound that <Audio>" -}}
            {{- audio_token ~ "</Audio>. " -}}
        {%- endif -%}
        {%- if video -%}
            {{- "Close your ears, open your eyes and you see that <Video>" ~ video_token ~ "</Video>. " -}}
        {%- endif -%}
        {%- for part in subtitles -%}
            {{- "The subtitle of this video is <Subtitle>" ~ part.text ~ "</Subtitle>. " -}}
        {%- endfor -%}
        {{- "Now answer my question" -}}
        {%- if audio and video and subtitles -%}
            {{- " based on what you have seen, heard, and provided subtitle" -}}
        {%- elif audio or video -%}
            {{- " based on what you have " ~ (["seen"] * video + ["heard"] * audio) | join(" and ") -}}
            {{- " and provided subtitle" if subtitles -}}
        {%- elif subtitles -%}
            {{- " based on provided subtitle" -}}
        {%- endif -%}
        {{- ". " ~ questions[0].text ~ " ###Assistant: " -}}
    {%- else -%}
        {{- message.content ~ "###" -}}
    {%- endif -%}
{%- endfor -%}
"""

PROMPT_TAGS = ["Audio", "Video", "Subtitle", "Multi", "AudioHere", "ImageHere", "FrameHere", "FaceHere", "MultiHere"]


class AffectGPTProcessor(ProcessorMixin):
    """
    Args:
        image_processor ([`AffectGPTImageProcessor`]): frames -> `pixel_values_videos`.
        feature_extractor ([`ImageBindAudioFeatureExtractor`]): waveform -> `input_features`.
        tokenizer: of the language model, with `video_token` and `audio_token` among its special tokens.
        num_video_query_tokens, num_audio_query_tokens: placeholders per medium, as in the model's configuration.
        default_question: asked when a call gives none (the paper's).
    """

    stop_string = "###"

    def __init__(
        self,
        image_processor,
        feature_extractor,
        tokenizer,
        chat_template: str | None = None,
        video_token: str = "<ImageHere>",
        audio_token: str = "<AudioHere>",
        num_video_query_tokens: int = 32,
        num_audio_query_tokens: int = 8,
        default_question: str = "From what clues can we infer the person's emotional state?",
    ):
        self.video_token = video_token
        self.audio_token = audio_token
        self.num_video_query_tokens = num_video_query_tokens
        self.num_audio_query_tokens = num_audio_query_tokens
        self.default_question = default_question
        super().__init__(image_processor, feature_extractor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.video_token_id = tokenizer.convert_tokens_to_ids(video_token)
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        specials = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
        escaped = [re.escape(token) for token in sorted(specials, key=len, reverse=True) if token]
        tags = rf"</?(?:{'|'.join(PROMPT_TAGS)})>"
        self._markup = re.compile("|".join([*escaped, tags, "##+"]), re.IGNORECASE)

    def clean_user_text(self, text: str) -> tuple[str, bool]:
        """Make markup in a user's text harmless, so that it can never be read as part of the prompt.

        A space is put after the first character of each special token of the tokenizer and each tag of the prompt, and between the
        characters of runs of `#`: `<ImageHere>` becomes `< ImageHere>`, `###` becomes `# # #`. Other text is left as it is.

        Returns:
            The text and whether anything was broken up.
        """
        cleaned = text
        while self._markup.search(cleaned):
            cleaned = self._markup.sub(lambda match: self._break_up(match.group()), cleaned)
        return cleaned, cleaned != text

    @staticmethod
    def _break_up(markup: str) -> str:
        if set(markup) == {"#"}:
            return " ".join(markup)
        return f"{markup[0]} {markup[1:]}" if len(markup) > 1 else ""

    def render_prompt(self, *, video: bool, audio: bool, subtitle: str | None, question: str | None = None) -> str:
        """The prompt as text, one placeholder per medium that is present. `subtitle=None` leaves its sentence out."""
        content = [{"type": "audio"}] * audio + [{"type": "video"}] * video
        if subtitle is not None:
            content.append({"type": "subtitle", "text": self.clean_user_text(subtitle)[0]})
        question = self.default_question if question is None else question
        content.append({"type": "text", "text": self.clean_user_text(question)[0]})
        return self.apply_chat_template(
            [{"role": "user", "content": content}], audio_token=self.audio_token, video_token=self.video_token
        )

    def __call__(
        self,
        frames: np.ndarray | list[np.ndarray | None] | None = None,
        waveform: np.ndarray | list[np.ndarray | None] | None = None,
        subtitle: str | list[str | None] | None = None,
        question: str | list[str | None] | None = None,
        answer: str | list[str] | None = None,
        *,
        sampling_rate: int = 16_000,
        padding_side: str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """
        Each argument is one row's, or a list with one entry per row; one question serves all rows.

        Args:
            frames: uint8 RGB of shape `(T, height, width, 3)`; `None` where a row has no picture.
            waveform: float samples in [-1, 1] of shape `(num_samples,)` or `(channels, num_samples)`; `None` where there is no
                sound.
            subtitle: what is said; `None` leaves it out of the prompt, an empty string is a subtitle without words.
            question: `None` asks `default_question`.
            answer: the target explanation, for training; it gets the stop string appended.
            padding_side: "left" by default, as `generate` needs, and "right" where answers are given.

        Returns:
            `input_ids` and `attention_mask` of shape `(B, S)`; `pixel_values_videos` of shape `(V, T, 3, height, width)` and
            `input_features` of shape `(A, C, mel bins, mel frames)` for the rows that have them, in order; with answers `labels` of
            shape `(B, S)`: -100 off the answers.

        Raises:
            ValueError: if lists differ in length, or an argument is not of the kind above.
        """
        if return_tensors != "pt":
            raise ValueError(f'Expected `return_tensors="pt"`, got {return_tensors!r}: the model takes PyTorch tensors.')
        if not isinstance(subtitle, str | list | None) or not isinstance(question, str | list | None):
            raise TypeError(f"Expected text or lists of text, got subtitle {type(subtitle)} and question {type(question)}.")
        given = {"frames": frames, "waveform": waveform, "subtitle": subtitle, "question": question, "answer": answer}
        lengths = {name: len(value) for name, value in given.items() if isinstance(value, list)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Expected lists of one length, one entry per row, got {lengths}.")
        num_rows = next(iter(lengths.values()), 1)
        rows = {
            name: value if isinstance(value, list) else [value] * num_rows if name == "question" or not lengths else [value]
            for name, value in given.items()
        }
        for name, value in rows.items():
            if len(value) != num_rows:
                if given[name] is not None:
                    raise ValueError(
                        f"Expected `{name}` to be a list of {num_rows} entries, as {', '.join(lengths)}, got one value."
                    )
                rows[name] = [None] * num_rows
        if answer is not None and any(text is None for text in rows["answer"]):
            raise ValueError("Expected an answer in every row or in none, got some that are None.")

        prompts, targets = [], []
        for row_frames, row_waveform, row_subtitle, row_question in zip(
            rows["frames"], rows["waveform"], rows["subtitle"], rows["question"], strict=True
        ):
            prompts.append(self._encode_prompt(row_frames is not None, row_waveform is not None, row_subtitle, row_question))
        if answer is not None:
            # Prompt and answer are encoded apart and joined, as in the authors' code: a tokenizer may merge across the seam.
            targets = [self._encode(self.clean_user_text(text)[0] + self.stop_string) for text in rows["answer"]]

        data = self._pad(prompts, targets, padding_side or ("left" if answer is None else "right"))
        videos = [value for value in rows["frames"] if value is not None]
        if videos:
            data.update(self.image_processor(videos, return_tensors="pt"))
        sounds = [value for value in rows["waveform"] if value is not None]
        if sounds:
            data.update(self.feature_extractor(sounds, sampling_rate=sampling_rate, return_tensors="pt"))
        return BatchFeature(data)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _encode_prompt(self, video: bool, audio: bool, subtitle: str | None, question: str | None) -> list[int]:
        prompt = self.render_prompt(video=video, audio=audio, subtitle=subtitle, question=question)
        prompt = prompt.replace(self.video_token, self.video_token * self.num_video_query_tokens)
        prompt = prompt.replace(self.audio_token, self.audio_token * self.num_audio_query_tokens)
        ids = self._encode(prompt)
        bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        return bos + ids

    def _pad(self, prompts: list[list[int]], targets: list[list[int]], padding_side: str) -> dict[str, torch.Tensor]:
        pad_id = self.tokenizer.pad_token_id
        rows = [prompt + target for prompt, target in zip(prompts, targets, strict=True)] if targets else prompts
        length = max(len(row) for row in rows)
        data = {
            "input_ids": torch.full((len(rows), length), pad_id),
            "attention_mask": torch.zeros((len(rows), length), dtype=torch.long),
        }
        if targets:
            data["labels"] = torch.full((len(rows), length), -100)
        for index, row in enumerate(rows):
            start = length - len(row) if padding_side == "left" else 0
            end = start + len(row)
            data["input_ids"][index, start:end] = torch.tensor(row)
            data["attention_mask"][index, start:end] = 1
            if targets:
                data["labels"][index, end - len(targets[index]) : end] = torch.tensor(targets[index])
        return data

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values_videos", "input_features"]
