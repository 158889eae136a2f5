"""Follow a channel into a database: each message once, also if this program is killed.

python -m examples.follow_once http://127.0.0.1:8000/comet news news.sqlite
"""

import json
import sqlite3
import sys
from collections.abc import Mapping
from typing import Any

from asgi_comet.client import Client


class Database:
    """Messages, and the positions after them, written in one transaction."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path)
        self.connection.executescript("""
            CREATE TABLE IF NOT EXISTS messages (value TEXT);
            CREATE TABLE IF NOT EXISTS positions (channel TEXT PRIMARY KEY, position TEXT);
        """)

    def insert(self, value: Any) -> None:
        self.connection.execute("INSERT INTO messages VALUES (?)", (json.dumps(value),))

    def load(self) -> dict[str, str]:
        return dict(self.connection.execute("SELECT channel, position FROM positions"))

    def save(self, positions: Mapping[str, str]) -> None:
        with self.connection:  # commits what the body inserted, too
            self.connection.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?)", positions.items()
            )


def main(url: str, name: str, path: str) -> None:
    database = Database(path)
    with Client(url) as comet:
        for message in comet.follow({name: "first"}, save=database):
            database.insert(message.data)
            print(message.data, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
