"""psycopg: its C library makes the socket, so the process is one of ``peersock run``."""

from __future__ import annotations

import sys

import psycopg
from common import SIZES, data

if __name__ == "__main__":
    with psycopg.connect(host=sys.argv[1], port=int(sys.argv[2]), user="postgres", dbname="postgres") as connection:
        connection.execute("create table blobs (seed int primary key, content bytea)")
        for seed, size in enumerate(SIZES):
            connection.execute("insert into blobs values (%s, %s)", (seed, data(seed, size)))
        rows = connection.execute("select content from blobs order by seed").fetchall()
        assert [row[0] for row in rows] == [data(seed, size) for seed, size in enumerate(SIZES)]
        with connection.cursor().copy("copy (select generate_series(1, 10000)) to stdout") as copy:
            assert b"".join(copy) == b"".join(b"%d\n" % number for number in range(1, 10_001))
    print("ok")
