"""What can be assembled from public weights: where each part lies, which of its files are needed, what its licence and gate ask.

Names are those that the authors' documents give. What a repository really holds is read from the Hub before anything is fetched,
and every part can be taken from elsewhere with `--source PART=...`.
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path

GB = 10**9


@dataclass(frozen=True)
class Licence:
    """Terms of a part. Of the licences of all parts, the one with the highest `rank` is what the result carries."""

    name: str
    rank: int
    terms: str


# fmt: off
MIT = Licence("MIT", 0, "Keep the copyright notice.")
APACHE_2 = Licence("Apache-2.0", 0, "Keep the notices and state changes.")
LLAMA_2 = Licence("LLAMA 2 Community License", 1, "Follow Meta's use policy, pass the licence on; not for improving other models.")
NON_COMMERCIAL = Licence("non-commercial", 2, "Research and other non-commercial use only.")
CC_BY_NC_SA_4 = Licence("CC BY-NC-SA 4.0", 3, "Non-commercial use, with attribution; what you make of it carries the same licence.")
RESEARCH_ONLY = Licence("research only", 4, "Research use only, as LLaMA's first licence says; not for commercial use.")
# fmt: on


@dataclass(frozen=True)
class Origin:
    """Where the files of a part came from.

    Attributes:
        repo_id (`str`): repository on the Hub.
        revision (`str`): commit, 40 hexadecimal digits.
        sha256 (`dict[str, str]`): path in the repository -> hash of the file's content, for the files that the part needs.
    """

    repo_id: str
    revision: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Source:
    """One part and where it comes from: a folder in the layout of transformers, or one file.

    Attributes:
        part (`str`): what the converter calls it.
        what (`str`): for people.
        repo_id (`str`): repository on the Hub.
        licence (`Licence`): of the weights.
        approximate_bytes (`int`): what is needed of it, at full size.
        revision (`str`, *optional*): commit, tag or branch; `main` otherwise. The commit is recorded when it is fetched.
        file (`str`, *optional*): pattern of the file's name, for a part that is one file, wherever it lies in the repository.
        preferred (`str`, *optional*): which of several files of that pattern to take, by a pattern that one of them has.
        folder (`str`): where in the repository a part lies that is a folder.
        tensors (`tuple[str, ...]`): beginnings of the tensor names that are needed of a folder's weights; empty for all.
        needs_tokenizer (`bool`): whether a folder without a tokenizer is refused.
        is_gated (`bool`): the owner asks for consent on the Hub first.
        local (`Path`, *optional*): a file or folder of this machine that is used instead of the Hub.
    """

    part: str
    what: str
    repo_id: str
    licence: Licence
    approximate_bytes: int
    revision: str | None = None
    file: str | None = None
    preferred: str | None = None
    folder: str = ""
    tensors: tuple[str, ...] = ()
    needs_tokenizer: bool = False
    is_gated: bool = False
    local: Path | None = None


@dataclass(frozen=True)
class Assembly:
    """A model that can be put together.

    Attributes:
        title (`str`): for people.
        converter (`str`): module whose `convert` makes the checkpoint.
        sources (`tuple[Source, ...]`): parts that it always needs.
        untrained_note (`str`): what is to be said of it without a checkpoint, the part that was trained on emotions.
        checkpoint (`Source`, *optional*): where that part lies; without it there is one only if the user brings it.
    """

    title: str
    converter: str
    sources: tuple[Source, ...]
    untrained_note: str = ""
    checkpoint: Source | None = None

    @property
    def parts(self) -> list[str]:
        return [source.part for source in self.sources] + ["checkpoint"]


_VIDEO_LLAMA = "DAMO-NLP-SG/Video-LLaMA-Series"
_VIDEO_LLAMA_2 = "DAMO-NLP-SG/Video-LLaMA-2-7B-Finetuned"
_BLIP2 = "Salesforce/blip2-flan-t5-xxl"
# transformers' BLIP-2 names its image parts like this; the 11 billion parameters of the language model beside them are not needed.
_BLIP2_TENSORS = ("vision_model.", "qformer.", "query_tokens")
_EVA = Source("vision", "frame encoder, EVA-CLIP ViT-g/14", _BLIP2, MIT, 4 * GB, tensors=_BLIP2_TENSORS)
_IMAGE_QFORMER = Source("image_qformer", "BLIP-2's Q-Former", _BLIP2, MIT, GB // 2, tensors=_BLIP2_TENSORS)
_IMAGEBIND = Source(
    "audio",
    "sound encoder, ImageBind-huge",
    _VIDEO_LLAMA_2,
    CC_BY_NC_SA_4,
    5 * GB,
    file="imagebind_huge.pth",
)
_VICUNA = Source(
    # v0 as a whole; lmsys/vicuna-7b-delta-v0 holds only its difference to LLaMA. Anyone who has merged the two gives that folder.
    "language",
    "language model, Vicuna-7B v0",
    "Vision-CAIR/vicuna-7b",
    RESEARCH_ONLY,
    27 * GB // 2,
    needs_tokenizer=True,
)
_LLAMA_2 = Source(
    "language",
    "language model, Llama-2-7B-Chat",
    "meta-llama/Llama-2-7b-chat-hf",
    LLAMA_2,
    27 * GB // 2,
    needs_tokenizer=True,
    is_gated=True,
)


def _branch(part: str, what: str, repo_id: str, file: str) -> Source:
    return Source(part, what, repo_id, NON_COMMERCIAL, GB // 4, file=file)


_UNTRAINED = (
    "This is an untrained assembly: its Q-Formers come from Video-LLaMA, which learned to describe videos, not emotions. {figure} "
    "Expect descriptions of the picture rather than of feelings. Train it with both stages (see the README), or give a trained "
    "checkpoint with --checkpoint."
)

ASSEMBLIES = {
    "affectgpt-2025": Assembly(
        title="AffectGPT of 2025 (CLIP, HuBERT, Qwen2.5 with LoRA), with the authors' trained weights",
        converter="hub.convert_affectgpt_2025",
        sources=(
            Source("vision", "frame or face encoder, CLIP ViT-L/14", "openai/clip-vit-large-patch14", MIT, 17 * GB // 10),
            Source("audio", "sound encoder, Chinese HuBERT large", "TencentGameMate/chinese-hubert-large", MIT, 13 * GB // 10),
            Source(
                "language",
                "language model, Qwen2.5-7B-Instruct",
                "Qwen/Qwen2.5-7B-Instruct",
                APACHE_2,
                153 * GB // 10,
                needs_tokenizer=True,
            ),
        ),
        checkpoint=Source(
            "checkpoint",
            "the authors' trained weights",
            "MERChallenge/AffectGPT",
            NON_COMMERCIAL,
            7 * GB // 10,
            file="*.pth",
            # Of the model of their results, trained on face crops, after 60 epochs; they score epochs 30 to 60. The repository is
            # said to hold the other epochs too, and a model trained on whole frames (`--checkpoint frame`).
            preferred="emercoarse_highlevelfilter4_outputhybird_bestsetup_bestfusion_lz*/checkpoint_000060_*.pth",
        ),
    ),
    "paper-vicuna": Assembly(
        title="the paper's model (EVA-CLIP, BLIP-2, ImageBind, Vicuna) with Video-LLaMA's Q-Formers",
        converter="hub.convert_video_llama",
        sources=(
            _EVA,
            _IMAGE_QFORMER,
            _IMAGEBIND,
            _VICUNA,
            _branch("video_branch", "Video-LLaMA's video Q-Former", _VIDEO_LLAMA, "finetune-vicuna7b-v2.pth"),
            _branch(
                "audio_branch",
                "Video-LLaMA's audio Q-Former",
                _VIDEO_LLAMA,
                "finetune_vicuna7b_audiobranch.pth",
            ),
        ),
        # Paper, Table 4, first row.
        untrained_note=_UNTRAINED.format(figure="In the paper it reaches 28.64 on EMER-Fine's test clips, trained 65.08 at best."),
    ),
    "paper-llama2": Assembly(
        title="the paper's model with Llama-2-7B-Chat (EVA-CLIP, BLIP-2, ImageBind) and Video-LLaMA-2's Q-Formers",
        converter="hub.convert_video_llama",
        sources=(
            _EVA,
            _IMAGE_QFORMER,
            _IMAGEBIND,
            _LLAMA_2,
            _branch(
                "video_branch",
                "Video-LLaMA-2's video Q-Former",
                _VIDEO_LLAMA_2,
                "VL_LLaMA_2_7B_Finetuned.pth",
            ),
            _branch(
                "audio_branch",
                "Video-LLaMA-2's audio Q-Former",
                _VIDEO_LLAMA_2,
                "AL_LLaMA_2_7B_Finetuned.pth",
            ),
        ),
        untrained_note=_UNTRAINED.format(
            figure="The paper has no figure for it; with Vicuna it is 28.64 on EMER-Fine's test clips, trained 65.08 at best."
        ),
    ),
}


def replace_source(source: Source, where: str) -> Source:
    """`source` taken from elsewhere: a path of this machine, or `repository[@revision][:file or folder]` on the Hub.

    It keeps the licence: what is mirrored or merged elsewhere has the terms of the weights that it was made of.

    Raises:
        ValueError: if `where` is neither.
    """
    path = Path(where).expanduser()
    if path.exists():
        return dataclasses.replace(source, local=path, is_gated=False)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([^:]+))?(?::(.+))?", where)
    if not match or where.startswith((".", "/", "~")):
        raise ValueError(
            f"--source {source.part}={where}: expected a file or folder that exists, or a repository on the Hub such as "
            f"`{source.repo_id}`, `{source.repo_id}@REVISION` or `{source.repo_id}:FILE`, got neither. Check the path or the name."
        )
    repo_id, revision, inside = match.groups()
    is_file = os.path.splitext(inside or "")[1] in (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
    return dataclasses.replace(
        source,
        repo_id=repo_id,
        revision=revision,
        file=inside if is_file else source.file,
        folder=inside.strip("/") if inside and not is_file else source.folder,
        is_gated=False,
    )
