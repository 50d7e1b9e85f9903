"""SSH by paramiko on both sides: ``serve`` runs the commands of its clients, ``client HOST PORT KEY`` compares."""

from __future__ import annotations

import sys
import threading

import paramiko
from common import data, listener, ready

SIZE = 1_000_000


class Server(paramiko.ServerInterface):
    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if password == "open sesame" else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=execute, args=(channel, command), daemon=True).start()
        return True


def execute(channel: paramiko.Channel, command: bytes) -> None:
    with channel:
        if command == b"reverse":
            channel.sendall(channel.makefile("rb").read()[::-1])
        channel.send_exit_status(7)


def serve() -> None:
    key = paramiko.ECDSAKey.generate()
    with listener() as sock:
        ready(sock)
        while True:
            connection, _ = sock.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.start_server(server=Server())


def client(host: str, port: int) -> None:
    with paramiko.SSHClient() as ssh:
        ssh.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        ssh.connect(host, port, "user", "open sesame", timeout=60, allow_agent=False, look_for_keys=False)
        stdin, stdout, _ = ssh.exec_command("reverse", timeout=60)
        stdin.write(data(1, SIZE))
        stdin.channel.shutdown_write()
        assert stdout.read() == data(1, SIZE)[::-1]
        assert stdout.channel.recv_exit_status() == 7


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        client(sys.argv[2], int(sys.argv[3]))
        print("ok")
