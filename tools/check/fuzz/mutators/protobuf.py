"""Mutations of protobuf messages, by their fields: any kind of message, such as an ONNX model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

from tools.check.fuzz.mutators import octets, text

_INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    11,
    16,
    100,
    255,
    2**16,
    2**31 - 1,
    2**31,
    -(2**31),
    2**40,
    2**63 - 1,
    -(2**63),
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, 1e30, float("nan"), float("inf"), -float("inf"))
_SIGNED = {Field.CPPTYPE_INT32: 31, Field.CPPTYPE_INT64: 63}
_UNSIGNED = {Field.CPPTYPE_UINT32: 32, Field.CPPTYPE_UINT64: 64}


def messages(message: Any) -> Iterator[Any]:
    """A message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from messages(inner)


def change(dice: Random, model: Any, *, words: Mapping[str, Sequence[str]]) -> str:
    """Change one field of one message, in place; returns the name of the change.

    Args:
        words: values that text fields may have, by the field's name.
    """
    everything = list(messages(model))
    kinds = sorted({each.DESCRIPTOR.name for each in everything})
    kind = dice.choice(kinds)  # few nodes, and many shapes: each kind is as likely
    message = dice.choice([each for each in everything if each.DESCRIPTOR.name == kind])
    filled = [field for field, _ in message.ListFields()]
    fields = filled if filled and dice.random() < 0.85 else list(message.DESCRIPTOR.fields)
    field = dice.choice(fields)
    if field.is_repeated:
        return _in_list(dice, field, getattr(message, field.name), everything)
    if field.type == Field.TYPE_MESSAGE:
        return _message(dice, message, field, everything)
    if dice.random() < 0.15:
        message.ClearField(field.name)
        return f"{kind} without {field.name}"
    if field.name in words and dice.random() < 0.8:
        setattr(message, field.name, dice.choice(words[field.name]))
    else:
        setattr(message, field.name, _other(dice, field, getattr(message, field.name), everything))
    return f"{kind}.{field.name}"


def _message(dice: Random, message: Any, field: Any, everything: list[Any]) -> str:
    alike = [each for each in everything if field.message_type == each.DESCRIPTOR]
    if alike and dice.random() < 0.6:
        copy = type(dice.choice(alike))()
        copy.CopyFrom(dice.choice(alike))
        if copy.ByteSize() < 1 << 20:
            getattr(message, field.name).CopyFrom(copy)
            return f"other {field.name}"
    message.ClearField(field.name)
    return f"without {field.name}"


def _in_list(dice: Random, field: Any, values: Any, everything: list[Any]) -> str:
    """A value of a list is missing, twice there, elsewhere or another."""
    kind = f"{field.containing_type.name}.{field.name}"
    if not values:
        if field.type != Field.TYPE_MESSAGE:
            values.append(_other(dice, field, None, everything))
        else:
            alike = [each for each in everything if field.message_type == each.DESCRIPTOR]
            values.append(dice.choice(alike) if alike else values.add())
        return f"one more {kind}"
    index, other = dice.randrange(len(values)), dice.randrange(len(values))
    match dice.randrange(4):
        case 0:
            del values[index]
            return f"one {kind} less"
        case 1:
            values.extend([values[index]] * dice.choice((1, 1, 50)))
            return f"one more {kind}"
        case 2 if field.type == Field.TYPE_MESSAGE:
            copies = [type(values[0])() for _ in (index, other)]
            for copy, source in zip(copies, (values[index], values[other]), strict=True):
                copy.CopyFrom(source)
            values[index].CopyFrom(copies[1])
            values[other].CopyFrom(copies[0])
            return f"order of {kind}"
        case 3 if field.type == Field.TYPE_MESSAGE:
            values[index].Clear()
            return f"empty {kind}"
        case _:
            values[index] = _other(dice, field, values[index], everything)
            return kind


def _other(dice: Random, field: Any, value: Any, everything: list[Any]) -> Any:
    """Another value of a field's type."""
    kind = field.cpp_type
    if kind in _SIGNED:
        near = (value + 1, value - 1, value * 2) if value is not None else ()
        new = dice.choice((*_INTEGERS, *near))
        return new if -(2 ** _SIGNED[kind]) <= new < 2 ** _SIGNED[kind] else 1
    if kind in _UNSIGNED:
        return dice.choice(_INTEGERS) % 2 ** _UNSIGNED[kind]
    if kind in (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE):
        return dice.choice(_FLOATS)
    if kind == Field.CPPTYPE_BOOL:
        return not value
    if kind == Field.CPPTYPE_ENUM:
        return dice.choice(field.enum_type.values).number
    if field.type == Field.TYPE_BYTES:
        return octets.damage(dice, value or b"")[0]
    names = [each.name for each in everything if getattr(each, "name", "")]
    made = dice.choice(names) if names and dice.random() < 0.5 else text.edit(dice, value or "x")[0]
    return made.encode("utf-8", "replace").decode()
