"""Receives webhooks: believes only what is signed, and handles each event once.

WEBHOOK_SECRET=whsec_… python webhook_receiver.py 9000
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen: set[str] = set()  # a real receiver keeps it in its database, in the transaction that handles the event


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return self.answer(401)
        message_id = self.headers["webhook-id"]  # the same for every attempt at this event
        if message_id not in seen:
            seen.add(message_id)
            print(event["type"], event["data"], flush=True)
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing of each request."""


HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
