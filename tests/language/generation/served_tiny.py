"""A server that answers as `vllm serve` does to what sleepkit asks, by a tiny model."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from sleepkit.language.generation.decoding import Decoding, continued


@contextmanager
def served(model, tokenizer, broken=None):
    """Serve a model; yields the address and the requests, which grow.  ``broken`` answers a request in its place."""
    asked, one_at_a_time = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.reply(200, {"data": [{"id": "tiny"}]} if self.path == "/v1/models" else {})

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with one_at_a_time:
                asked.append(request)
                self.reply(*(broken(request) if broken else (200, completion(model, tokenizer, request))))

        def reply(self, status, document):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def completion(model, tokenizer, request):
    ids = request["prompt"]
    how = Decoding(request["max_tokens"], request["temperature"], request.get("top_p", 1.0), request.get("stop", []))
    (tokens,) = continued(model, tokenizer, [ids], [request.get("seed", 0)], how, [[0]]).values()
    choice = {"token_ids": tokens}
    if "logprobs" in request:
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        token = int(log_probs.argmax())
        choice = {"token_ids": [token], "logprobs": {"token_logprobs": [log_probs[token].item()]}}
    return {"choices": [choice]}
