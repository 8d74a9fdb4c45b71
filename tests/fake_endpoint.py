"""Plays an OpenAI-compatible endpoint, in its good and bad moods: what the real `openai` client is tested against."""

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Reply:
    """One HTTP answer: a body (bytes, or what becomes JSON), sent after `delay_s` seconds and cut off after `cut` bytes."""

    def __init__(self, body, *, status: int = 200, headers: dict | None = None, delay_s: float = 0.0, cut: int | None = None):
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.headers = headers or {}
        self.delay_s = delay_s
        self.cut = cut


def says(text: str | None, *, finish_reason: str = "stop", refusal: str | None = None, **options) -> Reply:
    """A completion."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return Reply({"id": "1", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice]}, **options)


def fails(status: int, message: str, *, code: str | None = None, param: str | None = None, **options) -> Reply:
    """An error as OpenAI words it."""
    return Reply({"error": {"message": message, "type": "error", "code": code, "param": param}}, status=status, **options)


class FakeEndpoint:
    """What a test sees of the endpoint.

    Attributes:
        requests (`list[dict]`): bodies of all requests so far, in the order of their arrival.
        most_at_once (`int`): requests that were under way at a time.
        base_url (`str`): for the client.
    """

    def __init__(self, answer: Callable[[dict, int], Reply]):
        self.answer = answer
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self.released = threading.Event()  # set when the test is over: ends all delays
        self._num_open = 0
        self._lock = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.keys.append(handler.headers.get("Authorization"))
            self._num_open += 1
            self.most_at_once = max(self.most_at_once, self._num_open)
        try:
            reply = self.answer(request, number)
            self.released.wait(reply.delay_s)
        finally:
            with self._lock:
                self._num_open -= 1
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(reply.body)), **reply.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply.body[: reply.cut])
        handler.close_connection = reply.cut is not None

    @property
    def spec(self) -> str:
        return f"{self.base_url}#fake"


def last_text(request: dict) -> str:
    """The text of the last message of a request."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content if part["type"] == "text")


@contextmanager
def fake_endpoint(answer: Callable[[dict, int], Reply]):
    """Serve `answer(request, number of requests before it)` on a free port; give a [`FakeEndpoint`]."""
    endpoint = FakeEndpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            try:
                endpoint.handle(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has gone, as it does after a time-out

        def log_message(self, *arguments):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    endpoint.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
