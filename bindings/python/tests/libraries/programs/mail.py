"""Mail by smtplib to a server that understands as much as that needs."""

from __future__ import annotations

import email
import email.policy
import smtplib
import socket
import socketserver
import sys
from email.message import EmailMessage

from common import data, ready

SIZE = 500_000


class Handler(socketserver.StreamRequestHandler):
    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def handle(self) -> None:
        self.say("220 ready")
        for line in self.rfile:
            command = line[:4].upper()
            if command == b"DATA":
                self.say("354 go on")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                # RFC 5321 4.5.2: a dot that begins a line is doubled.
                text = b"".join(line[1:] if line.startswith(b".") else line for line in lines)
                message = email.message_from_bytes(text, policy=email.policy.default)
                (attachment,) = message.iter_attachments()
                assert attachment.get_payload(decode=True) == data(5, SIZE)
                self.say("250 received whole")
            elif command == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6


def client(host: str, port: int) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "a test", "a@example.org", "b@example.org"
    message.set_content(".a dot first\n..and two\n")
    message.add_attachment(data(5, SIZE), maintype="application", subtype="octet-stream")
    with smtplib.SMTP(host, port, timeout=60) as server:
        assert server.send_message(message) == {}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        with Server(("::", 0), Handler) as server:
            ready(server.socket)
            server.serve_forever()
    client(sys.argv[2], int(sys.argv[3]))
    print("ok")
