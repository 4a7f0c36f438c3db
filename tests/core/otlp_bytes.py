"""TracesData written byte by byte, by seed: valid in every way protobuf allows, or damaged."""

from dataclasses import dataclass
from random import Random

SERVICES = (b"", b"shop", b"shop-eu", b"pay", b"p\xffy", "käse".encode(), b"a" * 300)
NAMES = (b"", b"GET", b"POST /a", b"\xff\xfe")
KEYS = (b"error", b"k", b"k2", b"key 3", b"service.name", "schlüssel".encode(), b"")
TEXTS = (b"a", b"ab", b"true", b"", "ä".encode(), b"\xff", "\ufffd".encode(), b"404", b"x" * 300)
STATE_KEYS = ("k", "ot", "t@v", "9t@v")
STATE_VALUES = ("a", "rv:00000000000000", "b c")
STATES = (
    b"k=a", b"k=a,ot=th:8", b"ot=rv:00000000000000", b"ot=th:8;rv:ffffffffffffff", b"ot=rv:fffffffffffff,k=a",
    b" k=a ,\t", b"k=a,k=b", b"K=a", b"k=", b"t@v=a, 9t@v=b c", b",,k=a,", b"k=\xff", b"9t@v=\xc3\xa4", b"k=a=b",
    b"", b"ot=rv:7fffffffffffff;rv:00000000000000", b",".join(b"k%d=a" % number for number in range(32)),
    b",".join(b"k%d=a" % number for number in range(33)), b"k=" + b"v" * 256, b"k=" + b"v" * 257, b"a" * 257 + b"=1",
    b"ot=" + b"x" * 251, b"ot=" + b"x" * 251 + b";th:8", b"ot=th:fffffffffffffe", b"ot=;;th:8;a:b;;c;th:9",
    b"ot=th:xyz", b",".join([b"k%d=a" % number for number in range(31)] + [b"ot=a:b"]),
)  # fmt: skip


def varint(value: int, padding: int = 0) -> bytes:
    """*value* as a varint, *padding* bytes longer than it need be."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


@dataclass(frozen=True, slots=True)
class Universe:
    """How many different things there are: few, so that spans meet again."""

    traces: int
    spans: int
    plain: bool = False  # nothing but what a usual sender writes


class Writer:
    """Writes messages; the dice decide how."""

    def __init__(self, random: Random, universe: Universe) -> None:
        self._random = random
        self.universe = universe

    def _once_in(self, times: int) -> bool:
        return not self.universe.plain and self._random.randrange(times) == 0

    def _varint(self, value: int) -> bytes:
        return varint(value, self._random.randrange(1, 4) if self._once_in(40) else 0)

    def nested(self, number: int, body: bytes) -> bytes:
        return self._varint(number << 3 | 2) + self._varint(len(body)) + body

    def number(self, number: int, value: int) -> bytes:
        return self._varint(number << 3) + self._varint(value)

    def fixed(self, number: int, value: int) -> bytes:
        return self._varint(number << 3 | 1) + value.to_bytes(8, "little")

    def _unknown(self) -> bytes:
        number = self._random.choice((100, 1000, (1 << 29) - 1))
        match self._random.randrange(4):
            case 0:
                return self.nested(number, b"x" * self._random.randrange(20))
            case 1:
                return self.number(number, self._random.choice((0, 1, 300, (1 << 64) - 1)))
            case 2:
                return self.fixed(number, 7)
        return self._varint(number << 3 | 5) + b"abcd"

    def _assemble(self, fields: list[bytes]) -> bytes:
        if self._once_in(6):
            fields.insert(self._random.randrange(len(fields) + 1), self._unknown())
        if self._once_in(12):
            self._random.shuffle(fields)
        if fields and self._once_in(40):
            fields.append(self._random.choice(fields))
        return b"".join(fields)

    def trace_id(self) -> bytes:
        return trace_id_of(self._random.randrange(1, self.universe.traces + 1))

    def span(self, trace: bytes) -> bytes:
        random = self._random
        span = random.randrange(1, self.universe.spans + 1)
        start = random.choice((0, 5, 5, 9, 100, 2_000_000))
        parent = random.choice((0, 0, span - 1, random.randrange(self.universe.spans + 1)))
        span_id = span.to_bytes(8, "big")
        if self._once_in(100):
            trace = random.choice((b"", trace[:15], bytes(16), trace + b"x"))
        if self._once_in(100):
            span_id = random.choice((b"", bytes(8), span_id[1:], b"long span id"))
        fields = [self.nested(1, trace), self.nested(2, span_id)]
        if parent or random.randrange(3) == 0:
            odd = random.choice((bytes(3), b"abc", bytes(16))) if self._once_in(100) else None
            fields.append(self.nested(4, odd or parent.to_bytes(8, "big")))
        fields += [self.nested(5, random.choice(NAMES)), self.number(6, random.choice((2, 2, 2, 3, 258)))]
        end = random.choice((0, start + 10, start + 10, start + random.randrange(1 << 24)))
        if self._once_in(60):
            start, end = random.choice(((1 << 63, 10), (5, 1 << 63), (1 << 63, (1 << 63) + 10**7), ((1 << 64) - 1, 1)))
        fields += [self.fixed(7, start), self.fixed(8, end)]
        if not self.universe.plain:
            fields += self._sights()
        if random.randrange(4) == 0:
            status = self.nested(2, b"why") + self.number(3, random.choice((2, 2, 1, 0)))
            fields.append(self.nested(15, self._assemble([status])))
        return self._assemble(fields)

    def _sights(self) -> list[bytes]:
        """What policies look at in a span."""
        random = self._random
        fields = [self.nested(9, self._any_attribute()) for _ in range(random.choice((0, 0, 0, 1, 1, 2, 3)))]
        if self._once_in(40):
            fields.append(self.number(9, 1))
        if self._once_in(4):
            fields.append(self.nested(3, random.choice(STATES)))
        if self._once_in(60):
            fields.append(random.choice((self.number(3, 1), self.number(16, 1))))
        if self._once_in(4):
            fields.append(
                self._varint(16 << 3 | 5) + random.choice((0, 1, 256, 0x101, 0xFFFFFFFF)).to_bytes(4, "little")
            )
        return fields

    def _any_attribute(self) -> bytes:
        """A KeyValue of a key and a value that policies know, well-formed or not."""
        random = self._random
        fields = [self.nested(1, random.choice(KEYS)), self.nested(2, self._any_value())]
        if self._once_in(10):
            fields.append(random.choice((self.nested(1, random.choice(KEYS)), self.nested(2, self._any_value()))))
        if self._once_in(30):
            fields.append(random.choice((self.number(1, 1), self.number(2, 1), b"\x0a\x7f", b"\x12\x02\x0a")))
        if self._once_in(20):
            del fields[random.randrange(2)]
        return self._assemble(fields)

    def _any_value(self) -> bytes:
        random = self._random
        values = [
            lambda: self.nested(1, random.choice(TEXTS)),
            lambda: self.nested(1, random.choice(TEXTS)),
            lambda: self.number(2, random.choice((0, 1, 1, 1 << 40))),
            lambda: self.number(3, random.choice((0, 1, 3, 5, 404, (1 << 64) - 3, 1 << 63))),
            lambda: self.fixed(4, 1),
            lambda: self.nested(5, b""),
            lambda: self.nested(7, b"true"),
            lambda: random.choice((self.number(1, 1), self.nested(3, b"a"), b"\x0a\x05a", b"\x08")),
        ]
        fields = [random.choice(values[:3] if self._once_in(2) else values)()]
        if self._once_in(15):
            fields.append(random.choice(values)())
        return self._assemble(fields)

    def _resource(self) -> bytes:
        attribute = self._attribute(b"service.name", self._random.choice(SERVICES))
        fields = [self._attribute(b"host", b"h")] * self._random.randrange(2) + [attribute]
        if self._once_in(3):
            fields.append(self.nested(1, self._any_attribute()))
        return self._assemble(fields)

    def _attribute(self, key: bytes, value: bytes) -> bytes:
        body = self.number(3, 5) if self._once_in(20) else self.nested(1, value)
        return self.nested(1, self._assemble([self.nested(1, key), self.nested(2, self._assemble([body]))]))

    def traces_data(self) -> bytes:
        random = self._random
        trace = self.trace_id()
        resources = []
        for _ in range(random.choice((1, 1, 1, 2, 3, 0) if not self.universe.plain else (1,))):
            fields = [self.nested(1, self._resource())] if not self._once_in(10) else []
            if self._once_in(10):
                more = self.nested(1, self._any_attribute())  # the Resource stands in parts
                fields.append(self.nested(1, more + random.choice((b"", b"\x0a", b"\x12\x7f"))))
            for _ in range(random.choice((1, 1, 1, 2, 0) if not self.universe.plain else (1,))):
                scope = [self.nested(1, b"\x0a\x01s")]
                for _ in range(random.choice((0, 1, 1, 2, 3, 5))):
                    if random.randrange(3) == 0:
                        trace = self.trace_id()
                    scope.append(self.nested(2, self.span(trace)))
                fields.append(self.nested(2, self._assemble(scope)))
            resources.append(self.nested(1, self._assemble(fields)))
        return self._assemble(resources)

    def damaged(self, data: bytes) -> bytes:
        """*data* with a few bytes changed, lost, repeated or inserted."""
        random = self._random
        out = bytearray(data)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            at = random.randrange(len(out) + 1)
            match random.randrange(7):
                case 0 if at < len(out):
                    out[at] ^= 1 << random.randrange(8)
                case 1 if at < len(out):
                    out[at] = random.randrange(256)
                case 2:
                    del out[at:]
                case 3:
                    del out[at : at + random.randrange(1, 9)]
                case 4:
                    out[at:at] = random.randbytes(random.randrange(1, 12))
                case 5:
                    out[at:at] = b"\xff" * random.randrange(1, 12)
                case 6:
                    out[at:at] = out[at : at + random.randrange(1, 40)]
        return bytes(out)


def trace_id_of(number: int) -> bytes:
    """The id of trace *number*; neighbours share their first eight bytes."""
    low = number * 0x9E37_79B9_7F4A_7C15 % (1 << 64) or 1
    return (number // 4).to_bytes(8, "big") + low.to_bytes(8, "big")
