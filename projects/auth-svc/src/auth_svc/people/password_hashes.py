"""Password hashes that others made: which of them can be checked here, and how much a check may cost.

A person who comes from elsewhere keeps their password: its hash is kept as it was made, until they sign in for the
first time and one of ours takes its place. What a hash asks for is asked at every sign-in, so none may ask for more
than the bounds here: it would be a way to stop the service.
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field

import bcrypt
from argon2 import Parameters, PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

LONGEST_HASH = 500  # characters
# Each bound is what takes about a second of one core.
MAX_MEMORY_KIB, MAX_TIME_COST, MAX_PARALLELISM = 256 * 1024, 16, 8
MAX_FILLED_KIB = 1024 * 1024  # in all passes
MAX_ITERATIONS = 2_000_000  # PBKDF2; Keycloak asks for up to 1.3 million, Django for 1.2
MAX_COST = 14  # bcrypt, each doubles it; 10 to 12 are usual
MAX_SCRYPT_BYTES, MAX_SCRYPT_WORK = 64 * 1024 * 1024, 256 * 1024 * 1024  # of memory, and written in all
MIN_BYTES, MAX_BYTES, MAX_SALT_BYTES = 16, 64, 64
BCRYPT_BYTES = 72  # bcrypt has never read more of a password

CHECKER = PasswordHasher()  # reads what a hash asks for from the hash
ARGON2ID = "$argon2id$"
PBKDF2 = re.compile(r"\$pbkdf2-(sha1|sha256|sha512)\$i=(\d{1,9})\$([A-Za-z0-9+/]*)\$([A-Za-z0-9+/]+)")
DJANGO_PBKDF2 = re.compile(r"pbkdf2_(sha1|sha256)\$(\d{1,9})\$([^$]*)\$([A-Za-z0-9+/]+={0,2})")
DJANGO_SCRYPT = re.compile(r"scrypt\$(\d{1,7})\$([^$]*)\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9+/]+={0,2})")
# The 22nd character of a salt holds two bits; `$2x$` marks hashes that were made wrongly.
BCRYPT = re.compile(r"(bcrypt_sha256\$|bcrypt\$)?(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31})")
KINDS = (
    "Argon2id, PBKDF2 (as Keycloak or Django keeps it, or $pbkdf2-sha256$i=…$salt$hash) or bcrypt ($2a$, $2b$, $2y$)"
)


class HashRejected(Exception):
    """A hash cannot be checked here; the text says what it must be, and never what it is."""


@dataclass(frozen=True, slots=True)
class Argon2id:
    """A hash of our own kind, of whatever cost."""

    text: str = field(repr=False)

    def matches(self, password: str) -> bool:
        """Whether it is this password's."""
        try:
            return CHECKER.verify(self.text, password)
        except (VerificationError, InvalidHashError):
            return False


@dataclass(frozen=True, slots=True)
class Pbkdf2:
    """RFC 8018 section 5.2."""

    digest: str
    iterations: int
    salt: bytes = field(repr=False)
    derived: bytes = field(repr=False)

    def matches(self, password: str) -> bool:
        """Whether it is this password's; of the blocks only the first counts, as each of them proves the same."""
        length = min(len(self.derived), hashlib.new(self.digest, usedforsecurity=False).digest_size)
        found = hashlib.pbkdf2_hmac(self.digest, password.encode(), self.salt, self.iterations, length)
        return hmac.compare_digest(found, self.derived[:length])


@dataclass(frozen=True, slots=True)
class Bcrypt:
    """bcrypt, of the password itself or of its SHA-256 in hexadecimal, as Django has it."""

    text: str = field(repr=False)
    digested: bool

    def matches(self, password: str) -> bool:
        """Whether it is this password's."""
        given = password.encode()
        if self.digested:
            given = hashlib.sha256(given).hexdigest().encode()
        return bcrypt.checkpw(given[:BCRYPT_BYTES], self.text.encode())


@dataclass(frozen=True, slots=True)
class Scrypt:
    """RFC 7914, as Django keeps it: the salt is a text."""

    work: int
    block: int
    lanes: int
    salt: str = field(repr=False)
    derived: bytes = field(repr=False)

    def matches(self, password: str) -> bool:
        """Whether it is this password's."""
        found = hashlib.scrypt(
            password.encode(),
            salt=self.salt.encode(),
            n=self.work,
            r=self.block,
            p=self.lanes,
            maxmem=2 * MAX_SCRYPT_BYTES,
            dklen=len(self.derived),
        )
        return hmac.compare_digest(found, self.derived)


type Hash = Argon2id | Pbkdf2 | Bcrypt | Scrypt


def read(kept: str) -> Hash:
    """Return what can check passwords against `kept`; raises `HashRejected`."""
    if len(kept) <= LONGEST_HASH:
        if kept.startswith(ARGON2ID):
            return _argon2id(kept)
        for notation, make in NOTATIONS:
            if found := notation.fullmatch(kept):
                return make(found)
    raise HashRejected(f"a password's hash must be whole, and {KINDS}")


def accept(given: str) -> str:
    """Return the text to keep of a hash that somebody else made; raises `HashRejected`."""
    kept = given.removeprefix("argon2") if given.startswith("argon2$argon2") else given  # Django names the kind twice
    read(kept)
    return kept


def in_phc_notation(digest: str, iterations: int, salt: bytes, derived: bytes) -> str:
    """Write a PBKDF2 hash in the notation of the Password Hashing Competition, which says all there is to know."""
    return f"$pbkdf2-{digest}$i={iterations}${_unpadded(salt)}${_unpadded(derived)}"


def of_equal_cost(kept: str) -> str:
    """Return a hash that nobody's password has, and that costs what `kept` does; raises `HashRejected`."""
    match read(kept):
        case Argon2id():
            start, _, rest = kept.rpartition("$")
            parameters, _, salt = start.rpartition("$")
            return f"{parameters}${'A' * len(salt)}${'A' * len(rest)}"
        case Pbkdf2(digest, iterations, salt, derived):
            return in_phc_notation(digest, iterations, bytes(len(salt)), bytes(len(derived)))
        case Bcrypt(text, digested):
            return f"{'bcrypt_sha256$' if digested else ''}{text[:7]}{'.' * 53}"
        case Scrypt(work, block, lanes, salt, derived):
            return f"scrypt${work}${'A' * len(salt)}${block}${lanes}${base64.b64encode(bytes(len(derived))).decode()}"


def _argon2id(kept: str) -> Argon2id:
    try:
        asked = extract_parameters(kept)
    except (InvalidHashError, ValueError) as error:
        raise HashRejected("an Argon2id hash must be $argon2id$v=…$m=…,t=…,p=…$salt$hash") from error
    _check_argon2id(asked)
    return Argon2id(kept)


def _check_argon2id(asked: Parameters) -> None:
    within = (
        asked.type is Type.ID
        and 8 <= asked.memory_cost <= MAX_MEMORY_KIB
        and 1 <= asked.time_cost <= MAX_TIME_COST
        and 1 <= asked.parallelism <= MAX_PARALLELISM
        and asked.memory_cost * asked.time_cost <= MAX_FILLED_KIB
    )
    if not within:
        most = f"{MAX_MEMORY_KIB} KiB ({MAX_FILLED_KIB} in all passes), {MAX_TIME_COST} passes, {MAX_PARALLELISM} lanes"
        got = f"m={asked.memory_cost}, t={asked.time_cost}, p={asked.parallelism}"
        raise HashRejected(f"an Argon2id hash must ask for at most {most}, got {got}")


def _pbkdf2(found: re.Match[str]) -> Pbkdf2:
    digest, iterations, salt, derived = found.groups()
    return _checked(Pbkdf2(digest, int(iterations), _decoded(salt), _decoded(derived)))


def _django_pbkdf2(found: re.Match[str]) -> Pbkdf2:
    digest, iterations, salt, derived = found.groups()
    return _checked(Pbkdf2(digest, int(iterations), salt.encode(), _decoded(derived)))


def _checked(made: Pbkdf2) -> Pbkdf2:
    if not 1 <= made.iterations <= MAX_ITERATIONS:
        raise HashRejected(f"PBKDF2 must have 1 to {MAX_ITERATIONS} iterations, got {made.iterations}")
    if not MIN_BYTES <= len(made.derived) <= MAX_BYTES or len(made.salt) > MAX_SALT_BYTES:
        sizes = f"{MIN_BYTES} to {MAX_BYTES} bytes and a salt of at most {MAX_SALT_BYTES}"
        raise HashRejected(f"PBKDF2 must have {sizes}, got {len(made.derived)} and {len(made.salt)}")
    return made


def _bcrypt(found: re.Match[str]) -> Bcrypt:
    rounds = int(found[3])
    if not 4 <= rounds <= MAX_COST:
        raise HashRejected(f"bcrypt must have a cost of 4 to {MAX_COST}, got {rounds}")
    return Bcrypt(found[2], found[1] == "bcrypt_sha256$")


def _scrypt(found: re.Match[str]) -> Scrypt:
    work, salt, block, lanes, derived = found.groups()
    made = Scrypt(int(work), int(block), int(lanes), salt, _decoded(derived, "scrypt"))
    memory = 128 * made.work * made.block
    is_power = made.work > 1 and made.work & (made.work - 1) == 0
    if not is_power or not 0 < memory <= MAX_SCRYPT_BYTES or not 0 < memory * made.lanes <= MAX_SCRYPT_WORK:
        most = "a power of two, at most 64 MiB of memory and 256 MiB in all its lanes"
        raise HashRejected(f"scrypt must have {most}, got n={work}, r={block}, p={lanes}")
    if not MIN_BYTES <= len(made.derived) <= MAX_BYTES or len(salt) > MAX_SALT_BYTES:
        raise HashRejected(f"scrypt must have {MIN_BYTES} to {MAX_BYTES} bytes and a salt of at most {MAX_SALT_BYTES}")
    return made


def _decoded(text: str, kind: str = "PBKDF2") -> bytes:
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error as error:
        raise HashRejected(f"{kind} must have salt and hash in Base64") from error


def _unpadded(given: bytes) -> str:
    return base64.b64encode(given).decode().rstrip("=")


NOTATIONS = ((PBKDF2, _pbkdf2), (DJANGO_PBKDF2, _django_pbkdf2), (BCRYPT, _bcrypt), (DJANGO_SCRYPT, _scrypt))
