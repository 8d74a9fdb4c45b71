"""Loading and running what writes text: where a model goes and in which precision, and its answer while it is being written."""

import importlib.util
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import BitsAndBytesConfig, StoppingCriteria, TextIteratorStreamer

QUANTIZATIONS = ("4bit", "8bit")


def loading_options(
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    keep: list[str] | None = None,
) -> dict:
    """What `from_pretrained` needs to put a model where it belongs.

    Args:
        device (`str`, *optional*): such as "cpu", "cuda:1" or "auto" (spread over what there is); by default the GPU if there is
            one.
        dtype (`str` or `torch.dtype`, *optional*): such as "float16"; by default bfloat16 on a GPU that computes in it, the
            precision the weights were saved in elsewhere: a 7B model takes 15 GB of a CPU's memory like this, and 31 in float32.
        quantization (`str`, *optional*): "4bit" (NF4) or "8bit"; needs bitsandbytes.
        keep (`list[str]`, *optional*): modules that quantization leaves as they are.

    Raises:
        ValueError: if this machine has no such device, or the precision or quantization is unknown.
        ImportError: if quantization is asked for and bitsandbytes is not installed.
    """
    has_gpu = torch.cuda.is_available()
    if device is not None and device.startswith("cuda") and not has_gpu:
        raise ValueError(
            f'Expected a device of this machine, got "{device}", but PyTorch sees no GPU here. Leave it out or say "cpu".'
        )
    device = device or ("cuda" if has_gpu else "cpu")
    if isinstance(dtype, str) and dtype != "auto":
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(f'Expected a precision such as "bfloat16" or "float32", got "{dtype}".')
        dtype = getattr(torch, dtype)
    if dtype in (None, "auto"):
        on_gpu = device != "cpu" and has_gpu
        dtype = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else "auto"
    options = {"device_map": device, "dtype": dtype}
    if quantization is not None:
        options["quantization_config"] = _quantization_config(quantization, dtype, keep)
    return options


def _quantization_config(quantization: str, dtype, keep: list[str] | None) -> BitsAndBytesConfig:
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"Expected a quantization among {', '.join(QUANTIZATIONS)}, got {quantization!r}.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(
            f"Expected bitsandbytes, which {quantization} quantization needs, got no such package. "
            'Install it (`pip install "affectgpt[quantization]"`), or leave the quantization out.'
        )
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=keep)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float16 if dtype == "auto" else dtype,
        llm_int8_skip_modules=keep,
    )


def answer_ids(model, tokenizer, inputs: dict, **options) -> torch.LongTensor:
    """Token ids of the answer that `model` writes to one prompt, without the prompt. Greedy unless `do_sample=True`."""
    if not options.setdefault("do_sample", False):
        # Of the checkpoint's own sampling settings, which greedy decoding would warn about.
        options = {"temperature": None, "top_p": None, "top_k": None, **options}
    written = model.generate(**inputs, tokenizer=tokenizer, **options)[0]
    return written[inputs["input_ids"].shape[1] :].cpu()


def growing_answer(model, tokenizer, inputs: dict, **options) -> Generator[str, None, torch.LongTensor]:
    """Yield what was written so far whenever it has grown; the value of the generator is [`answer_ids`].

    Closing it stops the generation. What the generation dies of is raised here.
    """
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    stop = _StopWhenAsked()
    criteria = [*options.pop("stopping_criteria", []), stop]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="affectgpt") as executor:
        generation = executor.submit(answer_ids, model, tokenizer, inputs, stopping_criteria=criteria, streamer=streamer, **options)
        # If generation dies, it does not end the stream itself, and the loop below would wait for ever.
        generation.add_done_callback(lambda _: streamer.text_queue.put(streamer.stop_signal))
        try:
            written = ""
            for piece in streamer:
                written += piece
                yield written
        finally:
            stop.asked.set()
        return generation.result()


class _StopWhenAsked(StoppingCriteria):
    def __init__(self):
        self.asked = threading.Event()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        return torch.full((len(input_ids),), self.asked.is_set(), device=input_ids.device)
