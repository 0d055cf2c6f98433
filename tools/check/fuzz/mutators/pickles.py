"""Objects that a checkpoint should not hold, and damaged pickles."""

from __future__ import annotations

import pickle
import struct
from random import Random

from tools.check.fuzz.mutators import octets

_GLOBALS = (
    b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"csubprocess\nPopen\n(S'true'\ntR.",
    b"ctorch\nload\n(S'x'\ntR.", b"ctorch._utils\n_rebuild_tensor_v2\n(tR.", b"cnumpy\nndarray\n(tR.",
)  # fmt: skip
_OPCODES = bytes(
    ord(each)
    for each in "(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x93\x94"
)


def edit(dice: Random, name: str, content: bytes) -> tuple[bytes, str]:
    """One mutation of a member of a checkpoint."""
    if not name.endswith(".pkl"):
        return octets.damage(dice, content) if content else (b"", "empty")
    return stream(dice, content)


def stream(dice: Random, content: bytes) -> tuple[bytes, str]:
    """One mutation of a pickle: other code to call, other opcodes, numbers and names."""
    match dice.randrange(6):
        case 0:
            return dice.choice(_GLOBALS), "code to call"
        case 1:
            found = dice.choice(
                (b"torch", b"FloatStorage", b"_rebuild_tensor_v2", b"OrderedDict", b"cpu", b"weight")
            )
            other = dice.choice(
                (b"HalfStorage", b"DoubleStorage", b"os", b"system", b"cuda", b"meta", b"bias", b"")
            )
            return content.replace(found, other, dice.choice((1, -1))), "other name"
        case 2:
            at = dice.randrange(len(content))
            return content[:at] + bytes([dice.choice(_OPCODES)]) + content[
                at + dice.choice((0, 1)) :
            ], "opcode"
        case 3:
            at = dice.randrange(len(content))
            width, mark = dice.choice(((1, b"K"), (2, b"M"), (4, b"J")))
            value = struct.pack("<Q", dice.choice(octets.LENGTHS))[:width]
            return content[:at] + mark + value + content[at + 1 + width :], "number"
        case 4:
            deep: object = 1
            for _ in range(400):
                deep = {"state_dict": deep}
            return pickle.dumps(deep, protocol=2), "deep nesting"
        case _:
            return octets.damage(dice, content)
