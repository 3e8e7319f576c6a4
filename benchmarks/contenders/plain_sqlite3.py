"""Plain SQLite: each event is a row in its own transaction."""

from __future__ import annotations

import json
import sqlite3

from measuring import EVENT, Clock, Options, Result, fields, main


def fire(options: Options) -> Result:
    connection = sqlite3.connect(options.url, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    # A transaction is on disk when it ends.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
    clock = Clock(options)
    for number in range(options.events):
        body = json.dumps(fields(number, options.body)).encode()
        connection.execute("INSERT INTO event (name, body) VALUES (?, ?)", (EVENT, body))
        clock.note()
    return clock.ended.result(0)


main({"fire": fire})
