"""Chat models: conversations in, answers out, from an OpenAI-compatible endpoint or from a local transformers model.

Both kinds have the same attributes and methods (`name`, `host`, `ask`, `complete`, `complete_many`), and keep every answer on disk:
what was asked once is never asked, waited or paid for again. Labels, groupings, clues and the EMER-Coarse builder use them.
"""

import email.utils
import hashlib
import json
import os
import queue
import random
import re
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
Messages = list[dict]

MAX_TRIES = 3  # of an answer that `parse` cannot read, the first one included
# Seconds between two tries of a request: doubled each time from the first, never above the last, unless the server says how long.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
# A server that asks for a longer wait has, for this run, gone.
LONGEST_RETRY_AFTER_S = 600.0

# Every request would meet them: wrong key, no permission, no such model or address.
_FATAL_STATUSES = (401, 403, 404)
_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_ASK_AGAIN = "That could not be read: {error}\nAnswer the request again, in the form that it asks for and with nothing else."


class ChatError(RuntimeError):
    """Conversations that have no usable answer; the message lists them with reasons.

    Attributes:
        failures (`dict[int, str]`): position of each failed conversation among those given -> why it failed.
        answers (`list`): of `complete_many`, what the others gave; `None` where there is nothing.
        status (`int`, *optional*): of the HTTP answer that refused the request.
        is_fatal (`bool`): every other request would fail like this one (wrong key, no such model, nothing left to spend).
    """

    def __init__(
        self,
        message: str,
        failures: dict[int, str] | None = None,
        answers: list | None = None,
        *,
        status: int | None = None,
        is_fatal: bool = False,
    ):
        super().__init__(message)
        self.failures = failures or {}
        self.answers = answers or []
        self.status = status
        self.is_fatal = is_fatal


@dataclass(frozen=True)
class Answer:
    """What a chat model said: its text without leading thoughts, and whether the token limit cut it off."""

    text: str
    is_cut: bool = False


class ChatModel:
    """A model behind an OpenAI-compatible endpoint (OpenAI, vLLM, llama.cpp, Ollama, ...).

    A request that meets a rate limit, a server error, a time-out or a broken connection is repeated, waiting longer each time; any
    other refusal is reported at once with the server's words. May be used from several threads.

    Args:
        model (`str`): as the endpoint calls it.
        base_url (`str`, *optional*): address up to and including `/v1`; by default OPENAI_BASE_URL, else OpenAI's.
        api_key (`str`, *optional*): by default OPENAI_API_KEY; endpoints of one's own need none.
        cache_dir (`str` or `os.PathLike`, *optional*): folder of the answers; by default AFFECTGPT_CACHE, else
            ~/.cache/affectgpt/chat. `False`: keep none.
        max_concurrency (`int`): requests under way at a time.
        max_attempts (`int`): how often one request is sent at most.
        timeout_s (`float`): seconds after which a request counts as lost.
        temperature (`float`, *optional*): `None` leaves it to the server, for models that allow none.
        max_tokens (`int`): an answer is cut off after so many.
        seed (`int`, *optional*): for servers that heed it.

    Raises:
        ImportError: if the package `openai` is not installed.
        ValueError: if no key is given for OpenAI's own endpoint.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        cache_dir: str | os.PathLike | bool | None = None,
        max_concurrency: int = 8,
        max_attempts: int = 6,
        timeout_s: float = 120.0,
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
        seed: int | None = None,
    ):
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                'Expected the package openai, which endpoints need, got none. Install it: `pip install "affectgpt[llm]"`.'
            ) from error
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        api_key = api_key or os.environ.get("OPENAI_API_KEY")
        if base_url is None and not api_key:
            raise ValueError("Expected a key for OpenAI's endpoint, got none. Set OPENAI_API_KEY, or give another `base_url`.")
        if max_concurrency < 1 or max_attempts < 1:
            raise ValueError(f"Expected at least one attempt and one request at a time, got {max_attempts} and {max_concurrency}.")
        self._openai = openai
        # Its own retries are off: it gives up after two and waits at most eight seconds.
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=0)
        self.name = model
        url = self._client.base_url
        self.host: str | None = f"{url.host}:{url.port}" if url.port else url.host
        self.max_concurrency = max_concurrency
        self.max_attempts = max_attempts
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.seed = seed
        # Newer models of OpenAI know the limit by this name only; the server's refusal says so.
        self._limit_name = "max_tokens"
        self._cache = _Cache(cache_dir)

    def ask(self, messages: Messages) -> Answer:
        """The answer to one conversation, from the cache if it is there.

        Raises:
            ChatError: if the endpoint gives none.
        """
        return _ask_cached(self, messages, threading.Event())

    def complete(self, messages: Messages, *, parse: Callable[[str], T] | None = None) -> str | T:
        """The text of the answer to one conversation, or what `parse` makes of it.

        `parse` raises `ValueError` on an answer that it cannot read: then the model is told so and asked again, twice at most.

        Raises:
            ChatError: if there is no answer that can be read.
        """
        return self.complete_many([messages], parse=parse)[0]

    def complete_many(
        self, conversations: Sequence[Messages], *, parse: Callable[[str], T] | None = None, progress: bool = False
    ) -> list:
        """The answers to many conversations, in their order, `max_concurrency` at a time.

        Interrupted (Ctrl-C), it stops at once; what was answered until then is in the cache.

        Args:
            conversations: messages of each.
            parse: as in `complete`.
            progress (`bool`): show a progress bar.

        Raises:
            ChatError: if some have no answer that can be read; all others were asked first, unless every request would fail.
        """
        jobs: queue.SimpleQueue = queue.SimpleQueue()
        results: queue.SimpleQueue = queue.SimpleQueue()
        for index in range(len(conversations)):
            jobs.put(index)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                try:
                    index = jobs.get_nowait()
                except queue.Empty:
                    return
                results.put(
                    (
                        index,
                        *_outcome(lambda messages: _ask_cached(self, messages, stop), self._forget, conversations[index], parse),
                    )
                )

        # Daemons: a request under way must not hold up the interpreter's end after an interrupt.
        for _ in range(min(self.max_concurrency, len(conversations))):
            threading.Thread(target=work, daemon=True).start()
        answers: list[Any] = [None] * len(conversations)
        failures: dict[int, Exception] = {}
        try:
            for _ in tqdm(conversations, disable=not progress, unit="answer"):
                index, answers[index], error = results.get()
                if error is None:
                    continue
                if not isinstance(error, ChatError | ValueError):
                    raise error  # a mistake in `parse` or in here, not of the model
                failures[index] = error
                if isinstance(error, ChatError) and error.is_fatal:
                    break
        finally:
            stop.set()
        _raise_failures(self, answers, failures)
        return answers

    def _forget(self, messages: Messages) -> None:
        self._cache.drop(self._key(messages))

    def _key(self, messages: Messages) -> dict:
        return {
            "host": self.host,
            "model": self.name,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }

    def _send(self, messages: Messages, stop: threading.Event) -> Answer:
        """One answer of the endpoint, with as many attempts as it takes and is allowed."""
        last = "interrupted"
        for attempt in range(self.max_attempts):
            limit_name = self._limit_name
            try:
                return self._send_once(messages, limit_name)
            except (_Transient, self._openai.APIConnectionError) as error:  # a time-out is one of the latter
                last, wait = _in_one_line(error), None
            except self._openai.APIStatusError as error:
                last, wait = self._words_of(error), _retry_after(error.response.headers)
                is_over = error.code == "insufficient_quota" or (wait or 0) > LONGEST_RETRY_AFTER_S
                if limit_name == "max_tokens" and error.status_code == 400 and error.param == "max_tokens":
                    self._limit_name = "max_completion_tokens"
                    continue
                if is_over or (error.status_code != 429 and error.status_code < 500):
                    raise ChatError(
                        f"{self.name} at {self.host} refused the request: {last}",
                        status=error.status_code,
                        is_fatal=is_over or error.status_code in _FATAL_STATUSES,
                    ) from error
            # Jitter, so that requests that were refused together do not come back together.
            backoff = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            if attempt + 1 < self.max_attempts and stop.wait(backoff if wait is None else wait):
                break
        raise ChatError(f"{self.name} at {self.host} gave no answer in {self.max_attempts} attempts; the last one: {last}")

    def _send_once(self, messages: Messages, limit_name: str) -> Answer:
        options = {"temperature": self.temperature, "seed": self.seed, limit_name: self.max_tokens}
        options = {name: value for name, value in options.items() if value is not None}
        try:
            completion = self._client.chat.completions.create(model=self.name, messages=messages, **options)
        except (json.JSONDecodeError, self._openai.APIResponseValidationError) as error:
            raise _Transient(f"expected JSON, got something else or half of it ({error})") from error
        # The client hands over whatever else came back, such as a page of HTML or an error with status 200.
        choices = getattr(completion, "choices", None)
        if not isinstance(choices, list) or not choices or choices[0].message is None:
            raise _Transient(f"expected a completion with choices, got {str(completion)[:200]!r}")
        choice = choices[0]
        text = choice.message.content
        if choice.message.refusal or choice.finish_reason == "content_filter":
            reason = choice.message.refusal or "its content filter stopped the answer"
            raise ChatError(f"{self.name} at {self.host} declined to answer: {_in_one_line(reason)}")
        if not isinstance(text, str) or not text.strip():
            raise _Transient(f"expected an answer, got an empty one (finish reason {choice.finish_reason!r})")
        return Answer(without_thoughts(text), is_cut=choice.finish_reason == "length")

    @staticmethod
    def _words_of(error) -> str:
        body = error.body if isinstance(error.body, dict) else {}
        return f"status {error.status_code}, {_in_one_line(body.get('message') or error.message)}"


class LocalChatModel:
    """A causal language model with a chat template, run here by transformers: batched, padded on the left, greedy.

    Args:
        name_or_path (`str` or `os.PathLike`): folder or Hub id, such as "Qwen/Qwen2.5-7B-Instruct".
        device, dtype, quantization: as in `generation.loading_options`.
        batch_size (`int`): conversations answered at a time.
        max_new_tokens (`int`): an answer is cut off after so many.
        cache_dir: as in [`ChatModel`].
        seed (`int`, *optional*): part of an answer's name in the cache, so that a second run of a greedy model is a run.

    Raises:
        OSError: if the Hub has no such repository or cannot be reached.
        ValueError: if it is no causal language model or has no chat template.
    """

    host: str | None = None

    def __init__(
        self,
        name_or_path: str | os.PathLike,
        *,
        device: str | None = None,
        dtype="auto",
        quantization: str | None = None,
        batch_size: int = 8,
        max_new_tokens: int = 1024,
        cache_dir: str | os.PathLike | bool | None = None,
        seed: int | None = None,
    ):
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from .generation import loading_options

        if batch_size < 1:
            raise ValueError(f"Expected a batch size of at least 1, got {batch_size}.")
        self.name = os.fspath(name_or_path)
        options = loading_options(device=device, dtype=dtype, quantization=quantization)
        config = AutoConfig.from_pretrained(self.name)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise ValueError(
                f"{self.name}: expected a causal language model that chats, got a model of type {config.model_type!r}. "
                "Give another folder or Hub id, or an endpoint as https://HOST/v1#MODEL."
            )
        self._tokenizer = AutoTokenizer.from_pretrained(self.name, padding_side="left")
        if self._tokenizer.chat_template is None:
            raise ValueError(f"{self.name}: expected a tokenizer with a chat template, got none. Give an instruction-tuned model.")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(self.name, **options).eval()
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.seed = seed
        self._cache = _Cache(cache_dir)

    def ask(self, messages: Messages) -> Answer:
        """The answer to one conversation, from the cache if it is there."""
        return self._answers([messages], lambda _: None)[0]

    def complete(self, messages: Messages, *, parse: Callable[[str], T] | None = None) -> str | T:
        """As [`ChatModel.complete`]."""
        return self.complete_many([messages], parse=parse)[0]

    def complete_many(
        self, conversations: Sequence[Messages], *, parse: Callable[[str], T] | None = None, progress: bool = False
    ) -> list:
        """As [`ChatModel.complete_many`], a batch at a time."""
        with tqdm(total=len(conversations), disable=not progress, unit="answer") as bar:
            first = self._answers(conversations, bar.update)
        answers: list[Any] = [None] * len(conversations)
        failures: dict[int, Exception] = {}
        for index, messages in enumerate(conversations):
            # Answers that can be read at once cost nothing here; only the others are asked for again, one by one.
            known = iter([first[index]])
            answers[index], error = _outcome(
                lambda again, known=known: next(known, None) or self.ask(again), self._forget, messages, parse
            )
            if error is not None:
                failures[index] = error
        _raise_failures(self, answers, failures)
        return answers

    def _forget(self, messages: Messages) -> None:
        self._cache.drop(self._key(messages))

    def _key(self, messages: Messages) -> dict:
        return {
            "host": None,
            "model": self.name,
            "messages": messages,
            "temperature": 0.0,
            "max_tokens": self.max_new_tokens,
            "seed": self.seed,
        }

    def _answers(self, conversations: Sequence[Messages], done: Callable[[int], Any]) -> list[Answer]:
        answers = [self._cache.get(self._key(messages)) for messages in conversations]
        missing = [index for index, answer in enumerate(answers) if answer is None]
        done(len(answers) - len(missing))
        # Long ones together: less padding.
        missing.sort(key=lambda index: len(json.dumps(conversations[index])))
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            for index, answer in zip(batch, self._generate([conversations[index] for index in batch]), strict=True):
                answers[index] = answer
                self._cache.put(self._key(conversations[index]), answer)
            done(len(batch))
        return answers

    def _generate(self, conversations: list[Messages]) -> list[Answer]:
        inputs = self._tokenizer.apply_chat_template(
            [[{**message, "content": _text_of(message["content"])} for message in messages] for messages in conversations],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
            enable_thinking=False,  # for templates that know it
            sanitize_control_tokens=True,  # a user's words never become a special token
        ).to(self._model.device)
        # None: of the checkpoint's own sampling settings, which greedy decoding would warn about.
        ids = self._model.generate(
            **inputs,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
        ends = self._model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {self._tokenizer.eos_token_id}
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [Answer(without_thoughts(text), is_cut=ends.isdisjoint(row.tolist())) for text, row in zip(texts, ids, strict=True)]


def load_chat_model(spec: str, **options) -> ChatModel | LocalChatModel:
    """The chat model that `spec` names: "https://HOST/v1#MODEL" is an endpoint, anything else a folder or Hub id.

    `options` go to the class, [`ChatModel`] or [`LocalChatModel`].

    Raises:
        ValueError: if an address names no model.
    """
    if not is_endpoint(spec):
        return LocalChatModel(spec, **options)
    address, _, model = spec.partition("#")
    if not model or not urllib.parse.urlsplit(address).hostname:
        raise ValueError(f"Expected an endpoint as https://HOST/v1#MODEL, got {spec!r}: name the model after a #.")
    return ChatModel(model, base_url=address, **options)


def is_endpoint(spec: str) -> bool:
    """Whether `spec` is an address, not a folder or a Hub id."""
    return spec.lower().startswith(("http://", "https://"))


class _Transient(Exception):
    """An attempt that came to nothing, though the next one may not."""


class _Cache:
    """Answers on disk, one small file each, named by the hash of all that an answer depends on."""

    def __init__(self, folder: str | os.PathLike | bool | None):
        if folder is None or folder is True:
            folder = os.environ.get("AFFECTGPT_CACHE") or Path.home() / ".cache" / "affectgpt" / "chat"
        self._folder = None if folder is False else Path(folder).expanduser()

    def get(self, key: dict) -> Answer | None:
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            return Answer(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return None  # somebody else's file, or the disk was full: asked for again and written over

    def put(self, key: dict, answer: Answer) -> None:
        if self._folder is None:
            return
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: a reader, or the next run after a crash, must never see half an answer.
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False) as file:
            json.dump(asdict(answer), file, ensure_ascii=False)
        os.replace(file.name, path)

    def drop(self, key: dict) -> None:
        if self._folder is not None:
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: dict) -> Path:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:]}.json"


def _ask_cached(model: ChatModel, messages: Messages, stop: threading.Event) -> Answer:
    key = model._key(messages)
    answer = model._cache.get(key)
    if answer is None:
        answer = model._send(messages, stop)
        model._cache.put(key, answer)
    return answer


def _outcome(ask: Callable[[Messages], Answer], forget: Callable, messages: Messages, parse) -> tuple[Any, Exception | None]:
    """What `parse` makes of the answer to `messages`, and the error if there is none."""
    asked = []
    try:
        for _ in range(MAX_TRIES):
            asked.append(messages)
            answer = ask(messages).text
            try:
                return (answer if parse is None else parse(answer)), None
            except ValueError as error:
                reason = _in_one_line(error)
            # Not the same again, which a greedy or seeded model would answer in the same way.
            complaint = {"role": "user", "content": _ASK_AGAIN.format(error=reason)}
            messages = [*messages, {"role": "assistant", "content": answer}, complaint]
    except Exception as error:  # handed to the thread that waits for it, and raised there
        return None, error
    # The next run shall ask, not find the same three answers.
    for conversation in asked:
        forget(conversation)
    return None, ChatError(f"{MAX_TRIES} answers that cannot be read; the last one, {answer[:200]!r}: {reason}")


def _raise_failures(model, answers: list, failures: dict[int, Exception]) -> None:
    if not failures:
        return
    reasons = {index: str(failures[index]) for index in sorted(failures)}
    fatal = next((error for error in failures.values() if isinstance(error, ChatError) and error.is_fatal), None)
    if fatal is not None or len(answers) == 1:
        first = fatal or failures[0]
        status = getattr(first, "status", None)
        raise ChatError(str(first), reasons, answers, status=status, is_fatal=fatal is not None) from first
    lines = "\n".join(f"  {index}: {reason}" for index, reason in reasons.items())
    raise ChatError(f"{model.name}: {len(reasons)} of {len(answers)} conversations have no answer:\n{lines}", reasons, answers)


def _text_of(content: str | list[dict]) -> str:
    if isinstance(content, str):
        return content
    others = sorted({part["type"] for part in content} - {"text"})
    if others:
        raise ValueError(f"Expected messages of text for a language model, got {', '.join(others)}. Use a model that takes them.")
    return "\n".join(part["text"] for part in content)


def without_thoughts(text: str) -> str:
    return _THOUGHTS.sub("", text).strip()


def _in_one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


def _retry_after(headers) -> float | None:
    """Seconds that the server asks to wait: the header is a number of seconds or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    date = email.utils.parsedate_tz(value)
    return None if date is None else max(email.utils.mktime_tz(date) - time.time(), 0.0)
