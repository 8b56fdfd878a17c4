"""age v1 files with the native post-quantum recipient (C2SP age.md, `mlkem768x25519`), whole in memory.

A custodian's share key is an age identity, so that stock age (1.3 or newer) opens his shares without this product.
Files are written for one kind of recipient only, and read strictly; recipients of other kinds in a file are skipped.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exclave.crypto.open import SEED_BYTES, private_key, public_key_of
from exclave.crypto.seal import public_key
from exclave.errors import Tampered

MAX_FILE_BYTES = 1 << 20
_RECIPIENT, _IDENTITY = "age1pq", "age-secret-key-pq-"
_INTRO = "age-encryption.org/v1"
_STANZA = "mlkem768x25519"
_INFO = b"age-encryption.org/mlkem768x25519"
_ENC_BYTES = 1120
_FILE_KEY_BYTES = 16
_CHUNK_BYTES = 65536
_TAG_BYTES = 16
_LINE = 64
_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def recipient(raw_public_key: bytes) -> str:
    """`age1pq1...` for a raw X-Wing public key (1216 bytes)."""
    public_key(raw_public_key)
    return _bech32(_RECIPIENT, raw_public_key)


def identity(seed: bytes) -> str:
    """`AGE-SECRET-KEY-PQ-1...` for a 32-byte X-Wing seed. Secret."""
    if len(seed) != SEED_BYTES:
        raise ValueError("an X-Wing seed has 32 bytes")
    return _bech32(_IDENTITY, seed).upper()


def parse_identity(text: str) -> bytes:
    """The seed in an age identity. Raises Tampered."""
    return _from_bech32(_IDENTITY, text, SEED_BYTES)


def identity_file(seed: bytes) -> bytes:
    """An identity file as age-keygen writes it. Secret."""
    return f"# public key: {recipient(public_key_of(seed))}\n{identity(seed)}\n".encode("ascii")


def parse_identity_file(data: bytes) -> bytes:
    """The seed of the one identity in a file; lines that begin with # are comments. Raises Tampered."""
    try:
        lines = [line.strip() for line in data.decode("ascii").splitlines()]
    except UnicodeDecodeError as error:
        raise _bad("an identity file is plain ASCII") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1:
        raise _bad("an identity file holds one identity")
    return parse_identity(keys[0])


def encrypt(plain: bytes, raw_public_keys: Sequence[bytes]) -> bytes:
    """The age file that each of the recipients can open."""
    if not raw_public_keys or len(plain) > MAX_FILE_BYTES // 2:
        raise ValueError("an age file here has recipients and at most 512 KiB")
    file_key = os.urandom(_FILE_KEY_BYTES)
    head = f"{_INTRO}\n"
    for raw in raw_public_keys:
        sealed = _HPKE.encrypt(file_key, public_key(raw), info=_INFO)
        head += f"-> {_STANZA} {_b64(sealed[:_ENC_BYTES])}\n{_b64(sealed[_ENC_BYTES:])}\n"
    head += "---"
    nonce = os.urandom(16)
    cipher = ChaCha20Poly1305(_derive(file_key, nonce, b"payload"))
    chunks = [plain[at : at + _CHUNK_BYTES] for at in range(0, len(plain), _CHUNK_BYTES)] or [b""]
    body = b"".join(
        cipher.encrypt(_nonce(at, last=at == len(chunks) - 1), chunk, None) for at, chunk in enumerate(chunks)
    )
    return f"{head} {_b64(_mac(file_key, head.encode()))}\n".encode("ascii") + nonce + body


def decrypt(data: bytes, seed: bytes) -> bytes:
    """The content of an age file sealed to the identity with this seed. Raises Tampered."""
    if len(data) > MAX_FILE_BYTES:
        raise _bad("it is longer than 1 MiB")
    end = data.find(b"\n---") + 4
    stop = data.find(b"\n", end)
    if end < 4 or stop < 0 or data[end : end + 1] != b" ":
        raise _bad("it has no complete header")
    try:
        head, mac = data[:end].decode("ascii"), _unb64(data[end + 1 : stop].decode("ascii"))
    except UnicodeDecodeError as error:
        raise _bad("its header is not ASCII") from error
    file_key = _file_key(head, seed)
    if not hmac.compare_digest(_mac(file_key, head.encode()), mac):
        raise _bad("its header was altered")
    payload = data[stop + 1 :]
    if len(payload) < 16 + _TAG_BYTES:
        raise _bad("it is cut short")
    return _open_payload(payload[16:], _derive(file_key, payload[:16], b"payload"))


def _open_payload(sealed: bytes, key: bytes) -> bytes:
    cipher = ChaCha20Poly1305(key)
    size = _CHUNK_BYTES + _TAG_BYTES
    chunks = [sealed[at : at + size] for at in range(0, len(sealed), size)]
    plain: list[bytes] = []
    try:
        for at, chunk in enumerate(chunks):
            plain.append(cipher.decrypt(_nonce(at, last=at == len(chunks) - 1), chunk, None))
    except InvalidTag as error:
        raise _bad("its content was altered or cut short") from error
    if len(plain) > 1 and not plain[-1]:
        raise _bad("it ends in an empty chunk")
    return b"".join(plain)


def _file_key(head: str, seed: bytes) -> bytes:
    """The file key out of the first stanza that opens with this identity."""
    key = private_key(seed)
    found: bytes | None = None
    for words, body in _stanzas(head.split("\n")):
        if words[0] != _STANZA:
            continue
        if len(words) != 2:
            raise _bad("a recipient with other arguments")
        enc = _unb64(words[1])
        if len(enc) != _ENC_BYTES or len(body) != _FILE_KEY_BYTES + _TAG_BYTES:
            raise _bad("a recipient of another length")
        if found is None:
            try:
                found = _HPKE.decrypt(enc + body, key, info=_INFO)
            except InvalidTag:
                continue  # for another identity
    if found is None:
        raise _bad("it is not for this identity")
    return found


def _stanzas(lines: list[str]) -> list[tuple[list[str], bytes]]:
    """Recipient stanzas of a header given by lines, the last of which is `---`."""
    if lines[0] != _INTRO or len(lines) < 3:
        raise _bad("it is not an age v1 file with recipients")
    rows = iter(lines[1:-1])
    found: list[tuple[list[str], bytes]] = []
    for row in rows:
        arrow, *words = row.split(" ")
        if arrow != "->" or not words or not all(word and word.isprintable() for word in words):
            raise _bad("a malformed recipient line")
        body = ""
        for line in rows:
            body += line
            if len(line) < _LINE:
                break
            if len(line) > _LINE:
                raise _bad("a recipient's line that is too long")
        else:
            raise _bad("a recipient without an end")
        found.append((words, _unb64(body)))
    return found


def _mac(file_key: bytes, head: bytes) -> bytes:
    return hmac.digest(_derive(file_key, b"", b"header"), head, "sha256")


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def _nonce(counter: int, *, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + bytes([last])


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").rstrip("=")


def _unb64(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad("bad base64") from error
    if _b64(data) != text:
        raise _bad("base64 in another spelling")
    return data


def _bech32(prefix: str, data: bytes) -> str:
    """BIP 173 without its limit of 90 characters, as age uses it."""
    words = _regroup(data, 8, 5, pad=True)
    check = _polymod([*_expand(prefix), *words, 0, 0, 0, 0, 0, 0]) ^ 1
    words += [(check >> 5 * (5 - at)) & 31 for at in range(6)]
    return prefix + "1" + "".join(_ALPHABET[word] for word in words)


def _from_bech32(prefix: str, text: str, size: int) -> bytes:
    if len(text) > 4096 or (text.lower() != text and text.upper() != text):
        raise _bad("a key in mixed case")
    head, _, tail = text.lower().rpartition("1")
    if head != prefix or len(tail) < 6 or any(letter not in _ALPHABET for letter in tail):
        raise _bad(f"a key that does not begin with {prefix}1, or has foreign letters")
    words = [_ALPHABET.index(letter) for letter in tail]
    if _polymod([*_expand(prefix), *words]) != 1:
        raise _bad("a mistyped key: its check letters are wrong")
    data = bytes(_regroup(words[:-6], 5, 8, pad=False))
    if len(data) != size or _bech32(prefix, data) != text.lower():
        raise _bad("a key of another length")
    return data


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(words: Sequence[int]) -> int:
    check = 1
    for word in words:
        top = check >> 25
        check = ((check & 0x1FFFFFF) << 5) ^ word
        for bit, constant in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= constant if (top >> bit) & 1 else 0
    return check


def _regroup(words: Sequence[int], width: int, into: int, *, pad: bool) -> list[int]:
    held = bits = 0
    out: list[int] = []
    for word in words:
        held, bits = (held << width) | word, bits + width
        while bits >= into:
            bits -= into
            out.append((held >> bits) & ((1 << into) - 1))
        held &= (1 << bits) - 1
    if pad and bits:
        out.append((held << (into - bits)) & ((1 << into) - 1))
    return out


def _bad(why: str) -> Tampered:
    return Tampered("age-file-invalid", "An age file or key cannot be used", why=why, hint="age --version")
