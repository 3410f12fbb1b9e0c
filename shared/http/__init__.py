"""HTTP/1.1 on both edges, as pure functions: gates, heads, chunked bodies, headers, problems, and the tunnel's heads.

No I/O and no clock. What is refused, dropped and passed, and why, is in docs/http.md.
"""

from __future__ import annotations

from shared.http.chunked import LAST_CHUNK, BadChunk, ChunkedDecoder, encode_chunk
from shared.http.gate import (
    MAX_REQUEST_HEAD,
    MAX_RESPONSE_HEAD,
    BadRequest,
    BadResponse,
    check_unfinished_request_head,
    check_unfinished_response_head,
    find_head_end,
)
from shared.http.headers import prepare_answer_headers, prepare_request_headers
from shared.http.location import rewrite_location
from shared.http.problem import problem_response
from shared.http.push_head import (
    AnswerHead,
    HeadError,
    PushHead,
    decode_answer,
    decode_push,
    encode_answer,
    encode_push,
)
from shared.http.requests import RequestHead, parse_request_head, serialize_request_head
from shared.http.responses import ResponseHead, parse_response_head, serialize_response_head

__all__ = [
    "LAST_CHUNK",
    "MAX_REQUEST_HEAD",
    "MAX_RESPONSE_HEAD",
    "AnswerHead",
    "BadChunk",
    "BadRequest",
    "BadResponse",
    "ChunkedDecoder",
    "HeadError",
    "PushHead",
    "RequestHead",
    "ResponseHead",
    "check_unfinished_request_head",
    "check_unfinished_response_head",
    "decode_answer",
    "decode_push",
    "encode_answer",
    "encode_chunk",
    "encode_push",
    "find_head_end",
    "parse_request_head",
    "parse_response_head",
    "prepare_answer_headers",
    "prepare_request_headers",
    "problem_response",
    "rewrite_location",
    "serialize_request_head",
    "serialize_response_head",
]
