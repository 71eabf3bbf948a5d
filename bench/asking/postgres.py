"""Asking PostgreSQL, on as many connections as there are questions in flight."""

import asyncio
from collections import deque
from typing import Any

import psycopg

from bench import corpus
from bench.asking import checking
from bench.asking.job import Job
from bench.asking.way import Told
from bench.peers import fdw


class ByPostgres:
    """Runs a prepared statement for each question."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._codes = {number: corpus.code(number) for number in job.numbers}
        self._idle: deque[psycopg.AsyncConnection[Any]] = deque()
        self._all: list[psycopg.AsyncConnection[Any]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect once."""
        self._idle.append(await self._connect())

    async def _connect(self) -> "psycopg.AsyncConnection[Any]":
        host, _, port = self._job.target.rpartition(":")
        connection = await psycopg.AsyncConnection.connect(
            fdw.client_url(host, int(port), self._job.identity, self._job.files), autocommit=True, prepare_threshold=0
        )
        self._all.append(connection)
        return connection

    def ask(self, number: int, told: Told) -> None:
        """Ask on an idle connection, or on a new one."""
        task = asyncio.ensure_future(self._ask(number, told))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _ask(self, number: int, told: Told) -> None:
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            cursor = connection.cursor(binary=True)
            rows = await (await cursor.execute(fdw.QUERY.encode(), {"uscc": self._codes[number]})).fetchall()
            self._idle.append(connection)
        except Exception as error:
            told(error)
            return
        told(rows)

    def check(self, number: int, answer: Any) -> None:
        """Check an answer."""
        checking.bodies(answer, number)

    async def close(self) -> None:
        """Disconnect."""
        for connection in self._all:
            await connection.close()
