"""gRPC: its core makes its own system calls, so the processes are those of ``peersock run``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from common import data

METHOD = "/test.Echo/Reverse"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]


def serve(port: int) -> None:
    def reverse(request: bytes, context: grpc.ServicerContext) -> bytes:
        return request[::-1]

    def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return (data(seed, 1000) for seed in range(int(request)))

    server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
    handlers = {
        "Reverse": grpc.unary_unary_rpc_method_handler(reverse),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    assert server.add_insecure_port(f"[::]:{port}") == port
    server.start()
    server.wait_for_termination()


def client(host: str, port: int) -> None:
    with grpc.insecure_channel(f"[{host}]:{port}", options=OPTIONS) as channel:
        reverse = channel.unary_unary(METHOD)
        for seed, size in enumerate((1, 1000, 1_000_000)):
            assert reverse(data(seed, size), timeout=60, wait_for_ready=True) == data(seed, size)[::-1]
        stream = channel.unary_stream("/test.Echo/Count")(b"100", timeout=60)
        assert list(stream) == [data(seed, 1000) for seed in range(100)]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        client(sys.argv[2], int(sys.argv[3]))
        print("ok")
