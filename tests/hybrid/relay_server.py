"""The half of the relay that stands on Modal: a web server whose every request goes into a queue and waits for its answer there.

Only the standard library and Modal's client. Nobody who lacks the secret part of the address gets anything into the queue.
"""

import os
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty
from threading import Thread

import modal

#: Where requests lie; each answer lies in a partition of its request's own.
REQUESTS = "requests"
ANSWER_SECONDS = 60
ANSWER_TTL = 600
#: Of a connection to the web server; its own business, not the other side's.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length", "accept-encoding"}
MOST_BYTES = 900_000


class Relay:
    """The class of the Modal server."""

    @modal.enter()
    def start(self):
        queue = modal.Queue.from_name(os.environ["RELAY_QUEUE"], environment_name=os.environ["RELAY_ENVIRONMENT"] or None)
        prefix = f"/{os.environ['RELAY_SECRET']}/"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not self.path.startswith(prefix):
                    return self.answer(404, {}, b"not here")
                if len(body) > MOST_BYTES:
                    return self.answer(413, {}, b"the relay carries no more than a queue's item")
                request = {
                    "id": str(uuid.uuid4()),
                    "method": self.command,
                    "path": "/" + self.path.removeprefix(prefix),
                    "headers": {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP},
                    "body": body,
                }
                queue.put(request, partition=REQUESTS)
                try:
                    found = queue.get(timeout=ANSWER_SECONDS, partition=request["id"])
                except Empty:
                    return self.answer(504, {}, b"nobody answered at the other end of the relay")
                self.answer(found["status"], found["headers"], found["body"])

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = relay

            def answer(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                # Paths begin with the secret.
                pass

        server = ThreadingHTTPServer((os.environ["RELAY_HOST"], int(os.environ["RELAY_PORT"])), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
