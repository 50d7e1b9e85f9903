"""Fetches and sends data by the HTTP library that is named first, from the server at the URL that is named
second."""

from __future__ import annotations

import asyncio
import sys
import urllib.request

from common import SIZES, check_http, data


def standard(url: str) -> None:
    def call(path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(url + path, data=body, timeout=60) as response:
            content: bytes = response.read()
            return content

    check_http(call, call)


def urllib3(url: str) -> None:
    import urllib3

    with urllib3.PoolManager(timeout=60) as pool:
        check_http(
            lambda path: pool.request("GET", url + path).data,
            lambda path, body: pool.request("POST", url + path, body=body).data,
        )


def urllib3_tls(url: str, certificate: str) -> None:
    import urllib3

    with urllib3.PoolManager(
        timeout=60, ca_certs=certificate, server_hostname="alpha", assert_hostname="alpha"
    ) as pool:
        check_http(
            lambda path: pool.request("GET", url + path).data,
            lambda path, body: pool.request("POST", url + path, body=body).data,
        )


def requests(url: str) -> None:
    import requests

    with requests.Session() as session:
        check_http(
            lambda path: session.get(url + path, timeout=60).content,
            lambda path, body: session.post(url + path, data=body, timeout=60).content,
        )
        with session.get(f"{url}/data/9/{SIZES[-1]}", stream=True, timeout=60) as response:
            assert b"".join(response.iter_content(10_000)) == data(9, SIZES[-1])
    try:
        requests.get(url.rpartition(":")[0] + ":65534", timeout=60)
    except requests.ConnectionError as error:
        assert "refused" in str(error), error
    else:
        raise AssertionError("nobody listens there")


def httplib2(url: str) -> None:
    import httplib2

    http = httplib2.Http(timeout=60)
    check_http(
        lambda path: http.request(url + path)[1],
        lambda path, body: http.request(url + path, "POST", body=body)[1],
    )


def httpx(url: str) -> None:
    import httpx

    with httpx.Client(timeout=60) as client:
        check_http(
            lambda path: client.get(url + path).content,
            lambda path, body: client.post(url + path, content=body).content,
        )

    async def main() -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            paths = [(seed, SIZES[seed % len(SIZES)]) for seed in range(20)]
            answers = await asyncio.gather(*(client.get(f"{url}/data/{seed}/{size}") for seed, size in paths))
            assert [answer.content for answer in answers] == [data(seed, size) for seed, size in paths]

    asyncio.run(main())


def aiohttp(url: str) -> None:
    import aiohttp

    async def main() -> None:
        async with aiohttp.ClientSession() as session:

            async def get(seed: int, size: int) -> bytes:
                async with session.get(f"{url}/data/{seed}/{size}") as response:
                    return await response.read()

            async def post(body: bytes) -> bytes:
                async with session.post(f"{url}/echo", data=body) as response:
                    return await response.read()

            paths = [(seed, SIZES[seed % len(SIZES)]) for seed in range(40)]
            expected = [data(seed, size) for seed, size in paths]
            assert await asyncio.gather(*(get(seed, size) for seed, size in paths)) == expected
            assert await asyncio.gather(*(post(body) for body in expected)) == expected
            async with session.ws_connect(f"{url}/socket", max_msg_size=0) as socket:
                for body in expected:
                    await socket.send_bytes(body)
                    assert await socket.receive_bytes() == body

    asyncio.run(main())


def websocket(url: str) -> None:
    import websocket

    connection = websocket.create_connection(url.replace("http", "ws") + "/socket", timeout=60)
    for seed, size in enumerate(SIZES * 3):
        connection.send_binary(data(seed, size))
        assert connection.recv() == data(seed, size)
    connection.ping()
    connection.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("ok")
