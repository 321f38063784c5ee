# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible endpoint for tests, in threads of this process, that fails when and how a test says."""

import http.server
import json
import threading
import time
import zlib


def status(code, message="no", **headers):
    """A reply with this status and an error message."""

    def fault(handler):
        handler.send_json({"error": {"message": message}}, code, headers)

    return fault


def raw(content, code=200):
    """A reply with these bytes as its body."""

    def fault(handler):
        handler.send_bytes(content, code)

    return fault


def truncated(handler):
    """A reply that ends before its length."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def hang(handler):
    """No reply while the server lives."""
    handler.server.owner.ended.wait(30)
    handler.close_connection = True


def trickle(handler):
    """A reply that never ends, byte by byte."""
    _repeat(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ")


def slow_headers(handler):
    """Headers that never end, one every few milliseconds."""
    _repeat(handler, b"HTTP/1.1 200 OK\r\n", b"X-Wait: 1\r\n")


def informational(handler):
    """Interim replies (100 Continue) without end."""
    _repeat(handler, b"", b"HTTP/1.1 100 Continue\r\n\r\n")


def packed(handler):
    """A small reply that unpacks to 64 MiB."""
    packer = zlib.compressobj(wbits=31)
    content = b"".join(packer.compress(b" " * 2**20) for _ in range(64)) + packer.flush()
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def endless(handler):
    """A reply without a length that continues as fast as it is read."""
    _repeat(handler, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" " * 2**20, 0)


def _repeat(handler, first, rest, wait=0.02):
    handler.close_connection = True
    try:
        handler.wfile.write(first)
        while not handler.server.owner.ended.wait(wait):
            handler.wfile.write(rest)
    except OSError:
        return


class LLMServer:
    """Answers `/v1/chat/completions` with `answer(body)`; `faults` are used up first, one a request.

    `fault_for(body)` may give a fault for some requests always. `seen` holds the requests as (headers, body); headers have no case.
    """

    def __init__(self, answer=lambda body: "reply to " + body["messages"][-1]["content"], *, delay=0.0):
        self.answer, self.delay = answer, delay
        self.faults, self.seen = [], []
        self.fault_for = lambda body: None
        self.usage = {"prompt_tokens": 10, "completion_tokens": 5}
        self.finish_reason = "stop"
        self.in_flight = self.most_in_flight = 0
        self.lock, self.ended = threading.Lock(), threading.Event()

    def __enter__(self):
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        return self

    def __exit__(self, *exception):
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def prompts(self):
        return [body["messages"][-1]["content"] for _, body in self.seen]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with owner.lock:
            owner.seen.append((self.headers, body))
            fault = owner.faults.pop(0) if owner.faults else owner.fault_for(body)
            owner.in_flight += 1
            owner.most_in_flight = max(owner.most_in_flight, owner.in_flight)
        try:
            if fault is not None:
                fault(self)
                return
            time.sleep(owner.delay)
            message = {"role": "assistant", "content": owner.answer(body)}
            reply = {"choices": [{"message": message, "finish_reason": owner.finish_reason}]}
            if owner.usage is not None:
                reply["usage"] = owner.usage
            assert self.path == "/v1/chat/completions"
        finally:
            with owner.lock:
                owner.in_flight -= 1
        self.send_json(reply)

    def send_json(self, record, code=200, headers=None):
        self.send_bytes(json.dumps(record).encode(), code, headers)

    def send_bytes(self, content, code=200, headers=None):
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass
