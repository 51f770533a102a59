"""How the fuzzer damages sound files: in their bytes, their structure, their numbers."""

import io
import json
import random
import zipfile
from typing import Any

import yaml

_INTERESTING: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 10**400, 1e308, -0.0,
    float("nan"), float("inf"),
    "", "a", "..", "../../etc/passwd", "/etc/passwd", "\x1b[2J", "\u202e", "a\0b", "x" * 5000,
    [], {}, [[]], [None], {"": None}, "*", "!!python/object:os.system", "1e999", "NaN",
)  # fmt: skip


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or overwrite some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            return bytes(rng.randbytes(rng.randrange(64)))
        at, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 4:
            data[at : at + length] = rng.choice((b"\xff", b"\0", b"\x7f")) * length
        else:
            data[at : at + length] = rng.randbytes(length)
    return bytes(data)


def mutate_tree(value: Any, rng: random.Random) -> Any:
    """Replace, drop or double one node of plain data."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(_INTERESTING)
    kind = rng.randrange(8)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        dropped, doubled = [], value[at:] * rng.choice((2, 20))
        inside = (dropped, doubled)[kind] if kind < 2 else [mutate_tree(value[at], rng)]
        return [*value[:at], *inside, *value[at + 1 :]]
    name = rng.choice(list(value))
    if kind == 0:
        return {k: v for k, v in value.items() if k != name}
    if kind == 1:
        return {**value, str(rng.choice(_INTERESTING)): rng.choice(_INTERESTING)}
    return {**value, name: mutate_tree(value[name], rng)}


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Damage JSON in its structure mostly, in its bytes sometimes, and nest it too deep rarely."""
    draw = rng.random()
    if draw < 0.02:
        return (b"[" if draw < 0.01 else b'{"a":') * rng.choice((500, 100_000))
    if draw < 0.3:
        return mutate_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutate_tree(value, rng)
    return json.dumps(value).encode(errors="replace")


def mutate_yaml(content: bytes, rng: random.Random) -> bytes:
    """The same for YAML, with its aliases and tags."""
    draw = rng.random()
    if draw < 0.02:
        bomb = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
        bomb += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
        return "\n".join([*bomb, "cases: *a9"]).encode()
    if draw < 0.025:  # rarely: the parser takes seconds until it gives up
        return b"cases: " + b"[" * rng.choice((500, 5000))
    if draw < 0.4:
        return mutate_bytes(content, rng)
    value = yaml.safe_load(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutate_tree(value, rng)
    return yaml.safe_dump(value, allow_unicode=True).encode(errors="replace")


def mutate_npz(content: bytes, rng: random.Random) -> bytes:
    """Damage one array of an npz, and wrap it up as a sound archive again."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        members = old.namelist()
        damaged = rng.choice(members)
        for name in members:
            data = old.read(name)
            if name == damaged:
                data = mutate_bytes(data[:200], rng) + data[200:] if rng.random() < 0.7 else b""
            renamed = rng.choice(("../x.npy", "x", name)) if rng.random() < 0.05 else name
            new.writestr(renamed, data)
    return buffer.getvalue()


def mutate_numbers(content: bytes, rng: random.Random) -> bytes:
    """Damage text of numbers: words are replaced, dropped or doubled, sometimes bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    words = content.decode().replace("\n", " \n ").split(" ")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, word = rng.randrange(len(words)), str(rng.choice(_INTERESTING))
        words[at : at + 1] = rng.choice(([], [words[at]] * 2, [word], [word]))
        words = words or [""]
    return " ".join(words).encode(errors="replace")
