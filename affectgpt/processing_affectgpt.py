"""From a clip's frames, faces, sound, subtitle and a question to what AffectGPT takes.

The prompts are those that the two generations of the model were trained with (authors' `datasets/datasets/` prompts, commit
e0aec19; 2025: `my_affectgpt/datasets/datasets/base_dataset.py`, commit d961cab), rendered by a chat template from what is present;
training, inference, demo and evaluation share it. Media come in as arrays: see `affectgpt.media` and `affectgpt.faces`.
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

# The 2025 model's prompt. Its authors' code has fifteen ("modes"), one for each selection of media; each is rendered from what is
# in the message. Reference: where one medium comes with a subtitle, their prompt lacks "###Human: ", and with frames a capital.
CHAT_TEMPLATE_2025 = """\
{%- for message in messages -%}
    {%- if message.role == "user" -%}
        {%- set types = message.content | map(attribute="type") | list -%}
        {%- set media = types | reject("in", ["subtitle", "text"]) | list -%}
        {%- set is_bare = "subtitle" in types and media | length == 1 and media[0] in ["audio", "face", "video"] -%}
        {%- set has_lead = "fusion" in types or "audio" in types -%}
        {%- set frames = "e uniformly sample raw frames from the video: <Video>" ~ video_token ~ "</Video>. " -%}
        {%- set faces = "e uniformly sample raw frames from the video and extract faces from these frames: <Video>"
            ~ face_token ~ "</Video>. " -%}
        {{- "###Human: " if not is_bare -}}
        {%- if "fusion" in types -%}
            {{- "The audio and video merged info is: <Multi>" ~ fusion_token ~ "</Multi>. " -}}
        {%- endif -%}
        {%- if "audio" in types -%}
            {{- "The audio content is as follows: <Audio>" ~ audio_token ~ "</Audio>. " -}}
        {%- endif -%}
        {%- if "fusion" in types -%}
            {{- "Meanwhile, w" ~ faces if "face" in types -}}
            {{- "Meanwhile, w" ~ frames if "video" in types -}}
        {%- else -%}
            {%- if "video" in types -%}
                {{- ("Meanwhile, w" if has_lead else "w" if is_bare else "W") ~ frames -}}
            {%- endif -%}
            {%- if "face" in types -%}
                {{- ("Additionally, w" if "video" in types else "Meanwhile, w" if has_lead else "W") ~ faces -}}
            {%- endif -%}
        {%- endif -%}
        {%- if "image" in types -%}
            {{- "The image content is as follows: <Image>" ~ image_token ~ "</Image>. " -}}
        {%- endif -%}
        {%- for part in message.content if part.type == "subtitle" -%}
            {{- "The subtitle of this video is: <Subtitle>" ~ part.text ~ "</Subtitle>. " -}}
        {%- endfor -%}
        {{- "Now, please answer my question based on all the provided information. " -}}
        {%- for part in message.content if part.type == "text" -%}
            {{- part.text ~ " ###Assistant: " -}}
        {%- endfor -%}
    {%- else -%}
        {{- message.content ~ "###" -}}
    {%- endif -%}
{%- endfor -%}
"""

# Follows a question whose answer is to be Chinese.
IN_CHINESE = "请用中文回答。"

PROMPT_TAGS = ["Audio", "Video", "Image", "Subtitle", "Multi", "AudioHere", "ImageHere", "FrameHere", "FaceHere", "MultiHere"]


class AffectGPTProcessor(ProcessorMixin):
    """
    Args:
        image_processor ([`AffectGPTImageProcessor`]): frames -> `pixel_values_videos`, and faces and pictures likewise.
        feature_extractor ([`ImageBindAudioFeatureExtractor`] or [`WaveformClipFeatureExtractor`]): waveform -> `input_features` or
            `input_values`.
        tokenizer: of the language model, with the tokens below among its special tokens.
        media: what the model takes of a clip and its prompt speaks of, among "video" (whole frames), "face", "audio", "image" and
            "fusion" (of picture and sound); a medium has a placeholder token below.
        video_token, audio_token, face_token, fusion_token, image_token: placeholders.
        num_video_query_tokens, num_audio_query_tokens, num_fusion_query_tokens, num_image_query_tokens: placeholders per medium, as
            in the model's configuration; faces take as many as frames.
        faces_are_bgr: face crops reach the vision tower with blue first, as the released 2025 weights were trained.
        faces_are_masked: crops that a detector made are to be black outside the face, as OpenFace leaves those that the released
            2025 weights were trained on (`affectgpt.faces.mask_background`; the processor takes crops as they come).
        bos_in_prompts: prompts to be answered start with the tokenizer's first token. `False`: only training rows do, which is how
            the 2025 model was trained and used.
        eos_after_answer: answers to be learnt end with the tokenizer's last token after the stop string (2025).
        default_question: asked when a call gives none (the paper's).
    """

    stop_string = "###"

    def __init__(
        self,
        image_processor,
        feature_extractor,
        tokenizer,
        chat_template: str | None = None,
        media: list[str] | tuple[str, ...] = ("audio", "video"),
        video_token: str = "<ImageHere>",
        audio_token: str = "<AudioHere>",
        face_token: str | None = None,
        fusion_token: str | None = None,
        image_token: str | None = None,
        num_video_query_tokens: int = 32,
        num_audio_query_tokens: int = 8,
        num_fusion_query_tokens: int = 1,
        num_image_query_tokens: int = 1,
        faces_are_bgr: bool = False,
        faces_are_masked: bool = False,
        bos_in_prompts: bool = True,
        eos_after_answer: bool = False,
        default_question: str = "From what clues can we infer the person's emotional state?",
    ):
        self.media = list(media)
        self.video_token = video_token
        self.audio_token = audio_token
        self.face_token = face_token
        self.fusion_token = fusion_token
        self.image_token = image_token
        missing = [medium for medium in self.media if getattr(self, f"{medium}_token", None) is None]
        if missing:
            raise ValueError(f"Expected a placeholder token for each of `media`, got none for {', '.join(missing)}.")
        self.num_video_query_tokens = num_video_query_tokens
        self.num_audio_query_tokens = num_audio_query_tokens
        self.num_fusion_query_tokens = num_fusion_query_tokens
        self.num_image_query_tokens = num_image_query_tokens
        self.faces_are_bgr = faces_are_bgr
        self.faces_are_masked = faces_are_masked
        self.bos_in_prompts = bos_in_prompts
        self.eos_after_answer = eos_after_answer
        self.default_question = default_question
        super().__init__(image_processor, feature_extractor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.video_token_id = tokenizer.convert_tokens_to_ids(video_token)
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        specials = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
        specials -= {self.default_question, IN_CHINESE}  # a token each in some tokenizers; users may say them
        escaped = [re.escape(token) for token in sorted(specials, key=len, reverse=True) if token]
        tags = rf"</?(?:{'|'.join(PROMPT_TAGS)})>"
        self._markup = re.compile("|".join([*escaped, tags, "##+"]), re.IGNORECASE)

    @property
    def takes_faces(self) -> bool:
        """Whether the model looks at face crops; otherwise it looks at whole frames. A fusion by itself is of faces."""
        return "face" in self.media or ("fusion" in self.media and "video" not in self.media)

    @property
    def _tokens(self) -> dict[str, tuple[str, int]]:
        """Placeholder and its count, of each of `media`."""
        counts = {
            "video": self.num_video_query_tokens,
            "face": self.num_video_query_tokens,
            "audio": self.num_audio_query_tokens,
            "fusion": self.num_fusion_query_tokens,
            "image": self.num_image_query_tokens,
        }
        return {medium: (getattr(self, f"{medium}_token"), counts[medium]) for medium in self.media}

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

    def render_prompt(
        self,
        *,
        video: bool = False,
        audio: bool = False,
        face: bool = False,
        image: bool = False,
        subtitle: str | None = None,
        question: str | None = None,
    ) -> str:
        """The prompt as text, one placeholder for each of `media` that is there. `subtitle=None` leaves its sentence out.

        Picture and sound are fused where both are there.
        """
        present = {"video": video, "audio": audio, "face": face, "image": image, "fusion": audio and (video or face)}
        content = [{"type": medium} for medium in self.media if present[medium]]
        if subtitle is not None:
            content.append({"type": "subtitle", "text": self.clean_user_text(subtitle)[0]})
        question = self.default_question if question is None else question
        content.append({"type": "text", "text": self.clean_user_text(question)[0]})
        tokens = {f"{medium}_token": getattr(self, f"{medium}_token") for medium in present}
        # A token that the template does not know of would be taken for an argument of the processor.
        known = {name: token for name, token in tokens.items() if token is not None}
        return self.apply_chat_template([{"role": "user", "content": content}], **known)

    def __call__(
        self,
        frames: np.ndarray | list[np.ndarray | None] | None = None,
        waveform: np.ndarray | list[np.ndarray | None] | None = None,
        faces: np.ndarray | list[np.ndarray | None] | None = None,
        image: np.ndarray | list[np.ndarray | None] | None = None,
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
            faces: uint8 RGB crops of the face through the clip, `(T, height, width, 3)` (`affectgpt.faces`).
            image: a still picture, uint8 RGB of shape `(height, width, 3)`.
            subtitle: what is said; `None` leaves it out of the prompt, an empty string is a subtitle without words.
            question: `None` asks `default_question`.
            answer: the target explanation, for training; it gets the stop string appended.
            padding_side: "left" by default, as `generate` needs, and "right" where answers are given.

        Returns:
            `input_ids` and `attention_mask` of shape `(B, S)`; `pixel_values_videos` of shape `(V, T, 3, height, width)`,
            `pixel_values_faces`, `pixel_values` of shape `(I, 3, height, width)`, and `input_features` of shape
            `(A, C, mel bins, mel frames)` or `input_values` of shape `(A, C, samples)`, each for the rows that have them, in order;
            with answers `labels` of shape `(B, S)`: -100 off the answers.

        Raises:
            ValueError: if lists differ in length, an argument is not of the kind above, or a medium is given that the model does
                not take.
        """
        if return_tensors != "pt":
            raise ValueError(f'Expected `return_tensors="pt"`, got {return_tensors!r}: the model takes PyTorch tensors.')
        if not isinstance(subtitle, str | list | None) or not isinstance(question, str | list | None):
            raise TypeError(f"Expected text or lists of text, got subtitle {type(subtitle)} and question {type(question)}.")
        given = {
            "frames": frames,
            "waveform": waveform,
            "faces": faces,
            "image": image,
            "subtitle": subtitle,
            "question": question,
            "answer": answer,
        }
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

        self._check_media(rows)
        data = self.encode_texts(rows, padding_side=padding_side)
        present = {name: [value for value in rows[name] if value is not None] for name in ("frames", "faces", "image", "waveform")}
        if present["frames"]:
            data.update(self.image_processor(present["frames"], return_tensors="pt"))
        if present["faces"]:
            # Reference: the authors' crops were written and read with blue first, and never turned round.
            crops = [crop[..., ::-1] if self.faces_are_bgr else crop for crop in present["faces"]]
            data["pixel_values_faces"] = self.image_processor(crops, return_tensors="pt")["pixel_values_videos"]
        if present["image"]:
            pictures = [np.asarray(picture)[None] for picture in present["image"]]
            processed = self.image_processor(pictures, num_frames=1, return_tensors="pt")
            data["pixel_values"] = processed["pixel_values_videos"][:, 0]
        if present["waveform"]:
            data.update(self.feature_extractor(present["waveform"], sampling_rate=sampling_rate, return_tensors="pt"))
        return BatchFeature(data)

    def encode_texts(self, rows: dict[str, list], *, padding_side: str | None = None) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and, where there are answers, `labels` of rows; of media it is only asked who has them.

        Args:
            rows: all arguments of `__call__` by name, a list with one entry per row each.
            padding_side: as in `__call__`.
        """
        answers = [text for text in rows["answer"] if text is not None]
        is_training = bool(answers)
        num_rows = len(rows["answer"])
        prompts = [self.encode_prompt(is_training, {name: rows[name][index] for name in rows}) for index in range(num_rows)]
        # Prompt and answer are encoded apart and joined, as in the authors' code: a tokenizer may merge across the seam.
        eos = [self.tokenizer.eos_token_id] if self.eos_after_answer else []
        targets = [self._encode(self.clean_user_text(text)[0] + self.stop_string) + eos for text in answers]
        return self._pad(prompts, targets, padding_side or ("right" if is_training else "left"))

    def _check_media(self, rows: dict[str, list]) -> None:
        is_fused_alone = "fusion" in self.media and "face" not in self.media and "video" not in self.media
        takes = {
            "frames": "video" in self.media or is_fused_alone,
            "faces": "face" in self.media or is_fused_alone,
            "waveform": "audio" in self.media or "fusion" in self.media,
            "image": "image" in self.media,
        }
        for name, is_taken in takes.items():
            if not is_taken and any(value is not None for value in rows[name]):
                raise ValueError(
                    f"Expected no `{name}`: this model takes {', '.join(self.media)}, got some. "
                    + ("Give the crops of `affectgpt.faces` as `faces`." if name == "frames" else "Leave them out.")
                )

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode_prompt(self, is_training: bool, row: dict) -> list[int]:
        """Ids of the prompt of one row, of which it is only asked what it has: the arguments of `__call__` by name."""
        prompt = self.render_prompt(
            video=row["frames"] is not None,
            audio=row["waveform"] is not None,
            face=row["faces"] is not None,
            image=row["image"] is not None,
            subtitle=row["subtitle"],
            question=row["question"],
        )
        for token, count in self._tokens.values():
            prompt = prompt.replace(token, token * count)
        has_bos = (is_training or self.bos_in_prompts) and self.tokenizer.bos_token_id is not None
        return [self.tokenizer.bos_token_id] * has_bos + self._encode(prompt)

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
        pictures = ["pixel_values_videos", "pixel_values_faces", "pixel_values"]
        return ["input_ids", "attention_mask", *pictures, *self.feature_extractor.model_input_names]
