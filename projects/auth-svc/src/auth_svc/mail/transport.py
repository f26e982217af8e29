"""How a mail leaves: by a mail server, or into a folder on a machine that has none."""

import asyncio
import logging
from dataclasses import dataclass, field
from email import policy
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib

from auth_svc.loopback import is_loopback
from auth_svc.mail import texts
from auth_svc.mail.outbox import ATTEMPT_SECONDS, WaitingMail
from auth_svc.settings import AuthSettings
from lib_events.clock import to_datetime
from lib_events.secret_file import write_secret
from lib_events.settings import SettingsRejected

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 20.0  # until a mail server asks for the mail
GOODBYE_SECONDS = 2.0  # the mail is taken by then
PORTS = {"smtp": 587, "smtps": 465}
PERMANENT = range(500, 600)  # RFC 5321 section 4.2.1
# What the standard library makes of an address that is none.
NO_ADDRESS = (ValueError, IndexError, HeaderParseError)
# A link that is broken over two lines is no link in a file that a person opens.
WHOLE_LINES = policy.SMTP.clone(max_line_length=998)


class MailDelayed(Exception):
    """The mail was not taken this time."""

    def __init__(self, why: str, *, unreachable: bool = False) -> None:
        super().__init__(why)
        self.unreachable = unreachable  # the others would fare no better now


class MailRefused(Exception):
    """The mail will never be taken."""


class Transport(Protocol):
    """Takes a mail away; raises `MailDelayed` or `MailRefused`."""

    async def send(self, mail: WaitingMail, message: EmailMessage) -> None:
        """Return once somebody else is responsible for the mail."""
        ...


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server that takes submissions (RFC 6409, RFC 8314)."""

    host: str
    port: int
    implicit_tls: bool
    must_start_tls: bool  # else TLS is used where the server offers it
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of_url(cls, url: str) -> "MailServer":
        """Read `smtp://user:password@host:port` or `smtps://…`; raises `SettingsRejected`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _not_a_server("something else") from None
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise _not_a_server(f"scheme {parts.scheme!r}")  # never the URL: it may hold a password
        return cls(
            host=parts.hostname,
            port=port or PORTS[parts.scheme],
            implicit_tls=parts.scheme == "smtps",
            must_start_tls=parts.scheme == "smtp" and not is_loopback(parts.hostname),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    async def send(self, mail: WaitingMail, message: EmailMessage) -> None:  # noqa: ARG002 - a folder names its user
        """Hand the mail over."""
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username=self.username,
            password=self.password,
            use_tls=self.implicit_tls,
            start_tls=None if not self.must_start_tls or self.implicit_tls else True,
            timeout=ANSWER_SECONDS,
        )
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await client.connect()
                await client.send_message(message, timeout=ATTEMPT_SECONDS)
        except aiosmtplib.SMTPAuthenticationError as error:
            raise MailDelayed(f"the mail server refuses our password ({error.code})", unreachable=True) from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refusal(min(refused.code for refused in error.recipients)) from error
        except (aiosmtplib.SMTPConnectError, aiosmtplib.SMTPHeloError, aiosmtplib.SMTPTimeoutError) as error:
            raise MailDelayed("the mail server cannot be reached", unreachable=True) from error
        except aiosmtplib.SMTPNotSupported as error:  # RFC 6531: letters beyond ASCII in an address
            raise MailRefused("the mail server takes no such address") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal(error.code) from error
        except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:
            raise MailDelayed(f"the mail server cannot be used ({type(error).__name__})", unreachable=True) from error
        finally:
            await _say_goodbye(client)


@dataclass(frozen=True, slots=True)
class MailFolder:
    """A folder in DATA: a laptop has no mail server."""

    folder: Path

    async def send(self, mail: WaitingMail, message: EmailMessage) -> None:
        """Write a file that only this user may read."""
        moment = to_datetime(mail.created_at).strftime("%Y%m%dT%H%M%S")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secret(self.folder / f"{moment}-{mail.kind}-{mail.id}.eml", message.as_string())
        except OSError as error:
            raise MailDelayed(f"{self.folder} cannot be written to ({error.strerror})", unreachable=True) from error
        logger.info("a mail for user %s is in %s", mail.user_id or "(not yet one)", self.folder)


def transport_of(settings: AuthSettings) -> Transport:
    """The way that the settings name; raises `SettingsRejected`."""
    if settings.smtp_url is not None:
        return MailServer.of_url(settings.smtp_url)
    if not is_loopback(urlsplit(settings.auth_url).hostname):
        logger.warning("EVS_SMTP_URL is not set: nobody gets mails, they are files in %s", settings.mails)
    return MailFolder(settings.mails)


def sender_of(settings: AuthSettings) -> Address:
    """Whom mails come from; raises `SettingsRejected`."""
    if settings.mail_from is None:
        return Address("event-based-svcs", "no-reply", urlsplit(settings.auth_url).hostname or "localhost")
    name, _, spec = settings.mail_from.rpartition("<")
    try:
        return Address(name.strip().strip('"'), addr_spec=spec.strip().removesuffix(">"))
    except NO_ADDRESS as error:
        raise SettingsRejected(
            f"EVS_MAIL_FROM must be an address, as in 'Sign-in <no-reply@example.org>', got {settings.mail_from!r}"
        ) from error


def message_of(mail: WaitingMail, sender: Address, issuer: str) -> EmailMessage:
    """The mail as it travels; raises `MailRefused` for an address that is none."""
    message = EmailMessage(policy=WHOLE_LINES if mail.body.isascii() else policy.SMTP)
    try:
        message["To"] = Address(addr_spec=mail.recipient)
    except NO_ADDRESS as error:
        raise MailRefused("the address is none") from error
    message["From"] = sender
    try:
        message["Subject"] = mail.subject
    except ValueError as error:  # of more than one line
        raise MailRefused("the letter is none") from error
    message["Date"] = format_datetime(to_datetime(mail.created_at))
    # The same in every attempt: a server that took it in one whose answer was lost can tell.
    message["Message-ID"] = f"<{mail.id}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers from holidays
    message.set_content(mail.body.replace(texts.ISSUER, issuer))
    return message


async def _say_goodbye(client: aiosmtplib.SMTP) -> None:
    """Quit, as RFC 5321 section 4.1.1.10 demands; nothing depends on the answer any more."""
    try:
        if client.is_connected:
            await client.quit(timeout=GOODBYE_SECONDS)
    except (aiosmtplib.SMTPException, OSError) as error:
        logger.debug("the mail server did not say goodbye: %s", error)
    finally:
        client.close()


def _refusal(code: int) -> MailRefused | MailDelayed:
    return MailRefused(f"refused ({code})") if code in PERMANENT else MailDelayed(f"not now ({code})")


def _not_a_server(got: str) -> SettingsRejected:
    return SettingsRejected(
        "EVS_SMTP_URL must be smtp://user:password@host:587 (with STARTTLS) or smtps://user:password@host:465, "
        f"got {got}"
    )
