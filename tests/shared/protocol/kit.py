"""Two cores joined by lists, and handlers that write down what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.protocol import Connection, Hello, MemoryBudget, Role, Settings, Stream
from shared.protocol.hello import CAPABILITIES


@dataclass
class Recorder:
    """A stream's handler: keeps a transcript, and takes what it is given unless told otherwise."""

    stream: Stream | None = None
    takes: bool = True
    log: list[tuple[object, ...]] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    is_over: bool = False

    def take(self, data: bytes) -> None:
        self.received += data
        if self.takes and self.stream is not None:
            self.stream.consumed(len(data))

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        assert not self.is_over
        self.log.append(("interim" if interim else "answer", head, body, end))
        self.take(body)

    def on_data(self, data: bytes, end: bool) -> None:
        assert not self.is_over
        self.log.append(("data", len(data), end))
        self.take(data)

    def on_reset(self, wire_code: int, refused: bool) -> None:
        assert not self.is_over, "on_reset is the last call"
        self.is_over = True
        self.log.append(("reset", wire_code, refused))

    def on_writable(self) -> None:
        assert not self.is_over
        self.log.append(("writable",))


@dataclass
class End:
    """One end of a tunnel with its driver's notes."""

    role: Role
    settings: Settings = field(default_factory=Settings)
    hello: Hello = field(default_factory=Hello)
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    now: float = 100.0
    log: list[tuple[object, ...]] = field(default_factory=list)
    pushes: list[Recorder] = field(default_factory=list)
    wakes: int = 0
    has_waiters: bool = False
    takes: bool = True
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = Connection(self.role, self, self.hello, self.settings, self.budget, self.now)

    # ConnectionHandler

    def on_ready(self, hello: Hello) -> None:
        self.log.append(("ready",))

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        recorder = Recorder(stream, takes=self.takes)
        stream.handler = recorder
        recorder.log.append(("open", head, body, end))
        self.pushes.append(recorder)
        recorder.take(body)

    def on_targets(self, targets: Mapping[str, str]) -> None:
        self.log.append(("targets", dict(targets)))

    def on_renew(self, request: bytes) -> None:
        self.log.append(("renew", request))

    def on_certificate(self, answer: Mapping[str, str]) -> None:
        self.log.append(("certificate", dict(answer)))

    def on_trust(self, message: Mapping[str, Sequence[str]]) -> None:
        self.log.append(("trust", dict(message)))

    def on_hint(self, within: float) -> None:
        self.log.append(("hint", within))

    def on_drain(self, timeout: float) -> None:
        self.log.append(("drain", timeout))

    def on_replace(self, timeout: float) -> None:
        self.log.append(("replace", timeout))

    def on_drained(self) -> None:
        self.log.append(("drained",))

    def on_failed(self, code: str, detail: str) -> None:
        self.log.append(("failed", code))

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)

    def on_usable(self) -> None:
        self.log.append(("usable",))

    def on_room(self) -> bool:
        self.log.append(("room",))
        return self.has_waiters

    def on_output(self) -> None:
        self.wakes += 1

    # what a test does

    @property
    def failure(self) -> object:
        return next((entry[1] for entry in self.log if entry[0] == "failed"), None)

    @property
    def held(self) -> int:
        """What the memory budget should say."""
        quarantine = self.core.quarantine
        return sum(stream.held_bytes for stream in self.core.table) + (quarantine.size if quarantine else 0)

    def open(self, head: bytes = b"head", body: bytes = b"", end: bool = True, deadline: float = 0.0) -> Recorder:
        recorder = Recorder(takes=self.takes)
        recorder.stream = self.core.open_stream(head, body, end, deadline, self.now)
        recorder.stream.handler = recorder
        return recorder

    def messages(self) -> list[bytes]:
        taken = []
        while (message := self.core.next_message(self.now)) is not None:
            taken.append(message)
        return taken

    def feed(self, *messages: bytes) -> None:
        for message in messages:
            self.core.receive_message(message, self.now)


class Pair:
    """A relay and a connector, joined."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        greet: bool = True,
        budget: int = 1 << 40,
        now: float = 100.0,
        capabilities: tuple[frozenset[str], frozenset[str]] = (CAPABILITIES, CAPABILITIES),
        renew_only: bool = False,
    ) -> None:
        """`capabilities` are the relay's and the connector's."""
        settings = settings or Settings()
        hello = Hello(
            stream_credit=settings.stream_credit, tunnel_credit=settings.tunnel_window_max,
            capabilities=capabilities[0], renew_only=renew_only,
        )  # fmt: skip
        self.relay = End(Role.RELAY, settings, hello, MemoryBudget(budget), now)
        self.connector = End(
            Role.CONNECTOR,
            settings,
            Hello(
                stream_credit=settings.stream_credit,
                max_streams=settings.max_streams,
                targets={"focused-run": "http"},
                capabilities=capabilities[1],
            ),
            MemoryBudget(budget),
            now,
        )
        if greet:
            self.roundtrip()
            assert self.relay.log == [("ready",)]
            assert self.connector.log == [("ready",)]

    @property
    def ends(self) -> tuple[End, End]:
        return self.relay, self.connector

    def advance(self, seconds: float) -> None:
        for end in self.ends:
            end.now += seconds

    def tick(self) -> None:
        """Let whoever's deadline has come look."""
        for end in self.ends:
            if end.core.deadline <= end.now:
                end.core.handle_deadline(end.now)

    def transfer(self, source: End, sink: End) -> int:
        messages = source.messages()
        sink.feed(*messages)
        return len(messages)

    def roundtrip(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(10_000):
            if not self.transfer(self.relay, self.connector) + self.transfer(self.connector, self.relay):
                return
        raise AssertionError("the two never fall silent")
