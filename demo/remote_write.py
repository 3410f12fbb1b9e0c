"""Prometheus remote write 1.0: a snappy block with one protobuf message, whose type is built here, not generated.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/ (the messages), google/protobuf/descriptor.proto (how to
say them).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import snappy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE: Final = "qanat.demo.prometheus"

HEADERS: Final = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "qanat-demo",
}

# message: ((field, number, type, is repeated), …)
_MESSAGES: Final[dict[str, tuple[tuple[str, int, str | int, bool], ...]]] = {
    "Label": (("name", 1, _Field.TYPE_STRING, False), ("value", 2, _Field.TYPE_STRING, False)),
    "Sample": (("value", 1, _Field.TYPE_DOUBLE, False), ("timestamp", 2, _Field.TYPE_INT64, False)),
    "TimeSeries": (("labels", 1, "Label", True), ("samples", 2, "Sample", True)),
    "WriteRequest": (("timeseries", 1, "TimeSeries", True),),
}


class BadPush(Exception):
    """A body that is not what it should be; the text says what."""


class Series(NamedTuple):
    """One series with one sample: labels sorted by name, value, Unix time in ms."""

    labels: tuple[tuple[str, str], ...]
    value: float
    timestamp_ms: int

    @property
    def name(self) -> str:
        return dict(self.labels).get("__name__", "")


def _build() -> Any:
    """The class of WriteRequest."""
    file = descriptor_pb2.FileDescriptorProto(name="qanat/demo/remote_write.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, is_repeated in fields:
            label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.WriteRequest"))


WriteRequest: Final = _build()


def labels_of(name: str, labels: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """A series' labels as the specification wants them: with the metric's name, sorted."""
    return tuple(sorted([("__name__", name), *labels]))


def encode(series: Sequence[Series]) -> bytes:
    """The body of one push."""
    request = WriteRequest()
    for labels, value, timestamp_ms in series:
        entry = request.timeseries.add()
        for name, text in labels:
            entry.labels.add(name=name, value=text)
        entry.samples.add(value=value, timestamp=timestamp_ms)
    packed: bytes = snappy.compress(request.SerializeToString())
    return packed


def decode(body: bytes) -> list[Series]:
    """The series of one push, one entry a sample.

    Raises:
        BadPush: not snappy, or not this message.
    """
    try:
        request = WriteRequest.FromString(snappy.decompress(body))
    except DecodeError as error:
        raise BadPush(f"not a WriteRequest: {error}") from error
    except Exception as error:  # snappy has one of its own for each of its engines
        raise BadPush(f"not a snappy block: {error}") from error
    return [
        Series(tuple((label.name, label.value) for label in entry.labels), sample.value, sample.timestamp)
        for entry in request.timeseries
        for sample in entry.samples
    ]
