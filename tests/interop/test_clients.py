"""Clients of other people, with their defaults, hand mail to a sandbox, and it arrives as they sent it.

What Python and the locks bring always runs. Programs of the machine run where they are installed, libraries
of registries where `make clients` has put them: in var/clients, or where MTA_TEST_CLIENTS says. With `-v` the
run ends with a table. All are told to trust the sandbox's certificate, most by SSL_CERT_FILE, and none to
trust any; by themselves these trust any: Flask-Mail, Red Mail, emails, logging.handlers, smtplib.SMTP_SSL
without a context, emailjs with STARTTLS, Simple Java Mail, Tcllib.
"""

from __future__ import annotations

import email
import email.policy
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from email.header import Header
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12

from mta.cli.quickstart import LOGIN, PASSWORD
from mta.cli.sandbox import NOBODY
from mta.core.credential import Credential
from mta.store.credentials import CredentialStore
from tests.fakes.home import PATIENCE, ROOT, Home, Served

PROGRAMS = Path(__file__).parent / "clients"
FETCHED = Path(os.environ.get("MTA_TEST_CLIENTS", ROOT / "var/clients")).absolute()
SENDER, SUBJECT = "shop@example.com", "Grüße №1"
# What has to be stuffed, encoded or left alone.
BODY = "Grüße, naïve café ☕\n.\n..two\n\n" + "x" * 900 + "\n=20 = %s\n  blanks  \n.last\n"
# The words of MAIL_TLS. `utf8` is `none` with a recipient whose address needs SMTPUTF8.
DOORS = {"none": "open", "starttls": "submission", "implicit": "submissions", "utf8": "open"}
ALL = "none starttls implicit"
# By the end of a program's name: its language, and how it is run; $P has our programs, $F what was fetched.
RUNNERS = {
    ".py": ("Python", "$PY $P/{0}"),
    ".js": ("JavaScript", "node $P/{0}"),
    ".go": ("Go", "$F/bin/{1}"),
    ".rs": ("Rust", "$F/bin/{1}"),
    ".java": ("Java", 'java -Djavax.net.ssl.trustStore="$STORE" -cp "$F/java/{1}/*" $P/java/{0}'),
    ".rb": ("Ruby", "ruby $P/{0}"),
    ".php": ("PHP", "php $P/{0}"),
    ".pl": ("Perl", "perl $P/{0}"),
    ".lua": ("Lua", "lua $P/{0}"),
    ".tcl": ("Tcl", "tclsh $P/{0}"),
    ".sh": ("", "sh $P/{0}"),
}


class Client(NamedTuple):
    """One library or program."""

    name: str
    program: str
    version: str  # a command that tells it, and fails where the client is not installed
    modes: str = ALL
    # What it makes the message of: a text; a simple one, where it neither encodes subjects nor stuffs dots;
    # octets, where it is handed a whole message.
    sends: str = "text"
    host: str = "127.0.0.1"
    user: str = LOGIN


def python(module: str) -> str:
    return f"""$PY -c 'from importlib.metadata import version as v; print(v("{module}"))'"""


def node(module: str) -> str:
    return f"""cd $F/node/node_modules/{module} && node -p 'require("./package.json").version'"""


def built(name: str, module: str) -> str:
    """A program that `make clients` has built; its manifest has the version."""
    return f"test -x $F/bin/{name} && grep -hE '^[[:space:]]*{module} ' $F/*/go.mod $F/*/Cargo.toml"


def java(name: str, jar: str) -> str:
    return f"command -v java >/dev/null && cd $F/java/{name} && ls | grep -E '^{jar}-[0-9].*[.]jar$'"


def perl(module: str) -> str:
    return f"perl -MIO::Socket::SSL -MAuthen::SASL -M{module} -e 'print {module}->VERSION'"


def debian(package: str, command: str) -> str:
    return f"{command} >/dev/null 2>&1 && dpkg-query -f '${{Version}}' -W {package}"


CLIENTS = (
    Client("smtplib, octets", "smtplib_sendmail.py", "$PY -V", sends="octets"),
    Client("smtplib, message", "smtplib_message.py", "$PY -V", f"{ALL} utf8"),
    Client("logging.handlers", "smtphandler.py", "$PY -V", "none starttls"),
    Client("aiosmtplib", "aiosmtplib_send.py", python("aiosmtplib"), f"{ALL} utf8"),
    Client("Django", "django_mail.py", python("django")),
    Client("Flask-Mail", "flask_mail_send.py", python("flask-mail")),
    Client("yagmail", "yagmail_send.py", python("yagmail"), "starttls implicit", user=SENDER),
    Client("Red Mail", "redmail_send.py", python("redmail")),
    Client("envelope", "envelope_send.py", python("envelope")),
    Client("emails", "emails_send.py", python("emails")),
    Client("fastapi-mail", "fastapi_mail_send.py", python("fastapi-mail")),
    Client("nodemailer", "nodemailer.js", node("nodemailer"), f"{ALL} utf8"),
    Client("emailjs", "emailjs.js", node("emailjs"), sends="simple"),
    Client("net/smtp", "net-smtp.go", built("net-smtp", "go"), sends="octets"),
    Client("gomail", "gomail.go", built("gomail", "gopkg.in/gomail.v2")),
    Client("mail.v2", "mail.v2.go", built("mail.v2", "gopkg.in/mail.v2")),
    Client("go-mail", "go-mail.go", built("go-mail", "github.com/wneessen/go-mail")),
    Client("email", "jordan-wright.go", built("jordan-wright", "github.com/jordan-wright/email")),
    Client("go-smtp", "emersion.go", built("emersion", "github.com/emersion/go-smtp"), sends="octets"),
    Client("lettre", "lettre.rs", built("lettre", "lettre")),
    Client("mail-send", "mail-send.rs", built("mail-send", "mail-send")),
    Client("Angus Mail", "Angus.java", java("Angus", "angus-mail")),
    Client("Simple Java Mail", "SimpleJavaMail.java", java("SimpleJavaMail", "simple-java-mail")),
    Client("Commons Email", "CommonsEmail.java", java("CommonsEmail", "commons-email2-jakarta")),
    Client("Spring", "SpringMail.java", java("SpringMail", "spring-context-support")),
    Client("Vert.x", "VertxMail.java", java("VertxMail", "vertx-mail-client")),
    Client("Net::SMTP", "net_smtp.rb", "ruby -rnet/smtp -e 'puts Net::SMTP::VERSION'", sends="octets"),
    Client("mail", "mail_gem.rb", "ruby -rmail -e 'puts Mail::VERSION.version'"),
    Client("ActionMailer", "action_mailer.rb", "ruby -raction_mailer -e 'puts ActionMailer.version'"),
    Client("PHPMailer", "phpmailer.php", debian("libphp-phpmailer", "command -v php")),
    Client("Symfony Mailer", "symfony_mailer.php", debian("php-symfony-mailer", "command -v php")),
    Client("PEAR Mail", "pear_mail.php", debian("php-mail", "command -v php"), sends="octets"),
    Client("mail() of PHP", "php_mail.sh", "msmtp --version >/dev/null && php --version", "none"),
    Client("Net::SMTP", "net_smtp.pl", perl("Net::SMTP"), sends="octets"),
    Client("Email::Sender", "email_sender.pl", perl("Email::Sender"), sends="octets"),
    Client("Mail::Sendmail", "mail_sendmail.pl", perl("Mail::Sendmail"), "none", sends="simple"),
    Client("Mail::Internet", "mail_internet.pl", perl("Mail::Internet"), "none", sends="octets"),
    Client("MIME::Lite", "mime_lite.pl", perl("MIME::Lite"), "none"),
    Client("LuaSocket", "luasocket.lua", "lua -lsocket -e 'print(socket._VERSION)'", "none", sends="octets"),
    Client(
        "Tcllib",
        "tcllib.tcl",
        "echo 'package require tls; puts [package require smtp]' | tclsh",
        "none starttls",
        sends="simple",
    ),
    Client("curl", "curl.sh", "curl --version", f"{ALL} utf8", sends="octets"),
    Client("swaks", "swaks.sh", "perl -MNet::SSLeay -e 1 && swaks --version", sends="octets"),
    Client("swaks, AUTH LOGIN", "swaks_login.sh", "perl -MNet::SSLeay -e 1 && swaks --version", "starttls"),
    Client("msmtp", "msmtp.sh", "msmtp --version", sends="octets"),
    Client("s-nail", "s-nail.sh", "s-nail -V", host="localhost"),
    Client("mutt", "mutt.sh", "mutt -v"),
    Client(
        "sendemail", "sendemail.sh", debian("sendemail", "command -v sendemail"), "none starttls", "simple"
    ),
    Client("git send-email", "git_send_email.sh", debian("git-email", "command -v git"), sends="octets"),
)
SETUPS = [(client, mode) for client in CLIENTS for mode in client.modes.split()]
IDS = [f"{client.program}-{mode}" for client, mode in SETUPS]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = Home(tmp_path_factory.mktemp("clients"))
    home.sandbox()
    with CredentialStore(home.directory / "var/spool/credentials.db") as store:
        # For clients whose login is their sender.
        secret = (home.directory / "var" / PASSWORD).read_text()
        store.add(Credential(SENDER, "default", "transactional"), secret)
    with home.serving() as served:
        signed = x509.load_pem_x509_certificate((home.directory / "var/tls/certificate.pem").read_bytes())
        java = pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(signed, b"mta")], NoEncryption())
        (home.directory / "store.p12").write_bytes(java)
        yield served


@pytest.mark.parametrize(("client", "mode"), SETUPS, ids=IDS)
def test_mail_of_a_client_with_its_defaults_arrives_as_it_was_sent(
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    tmp_path: Path,
    client: Client,
    mode: str,
) -> None:
    found = version(client)
    language, command = RUNNERS[Path(client.program).suffix]
    record_property("client", (client.name, language, found or "not installed", mode))
    if not found:
        pytest.skip(f"{client.name} {language and f'({language}) '}is not installed")
    served: Served = request.getfixturevalue("served")  # what is skipped needs no daemon
    facts = served.facts
    recipient = f"ok+{SETUPS.index((client, mode))}{'ü' * (mode == 'utf8')}@example.com"
    subject, body = (
        (SUBJECT, BODY) if client.sends != "simple" else ("Greetings", re.sub(r"(?m)^\.+", "", BODY))
    )
    (tmp_path / "body.txt").write_bytes(body.encode())
    (tmp_path / "message.eml").write_bytes(message(recipient, subject, body))
    trusted = served.directory / facts["ca_file"]
    done = run(
        "exec " + command.format(client.program, Path(client.program).stem),
        tmp_path,
        HOME=tmp_path,
        MAIL_HOST=client.host,
        MAIL_PORT=facts[DOORS[mode]]["port"],
        MAIL_TLS=mode if mode != "utf8" else "none",
        MAIL_USER=client.user,
        MAIL_PASSWORD=served.password,
        MAIL_FROM=SENDER,
        MAIL_TO=recipient,
        MAIL_SUBJECT=subject,
        MAIL_CA=trusted,
        SSL_CERT_FILE=trusted,
        NODE_EXTRA_CA_CERTS=trusted,
        STORE=served.directory / "store.p12",
    )
    assert not done.returncode, done.stdout + done.stderr
    delivery = served.events(1, type="delivery", recipient=recipient)[-1]
    is_open = DOORS[mode] == "open"
    assert delivery["sender"] == SENDER
    assert delivery["credential"] == (NOBODY if is_open else client.user)
    name = delivery["reply"]["text"].rpartition(" ")[2]
    octets = (served.directory / facts["sandbox_dir"] / name).read_bytes()
    kept = email.message_from_bytes(octets, policy=email.policy.default)
    protocol = re.search(r" with (\w*SMTP)(S?A?) ", kept["Received"])
    assert protocol is not None
    assert protocol[2] == ("" if is_open else "SA")
    assert mode != "utf8" or protocol[1] == "UTF8SMTP"  # Go's always say it where it is offered
    assert kept["Subject"] == subject
    part = kept.get_body(("plain",))
    assert part is not None
    # How many ends of lines stand at the end is of no account: most clients write one more.
    assert part.get_content().replace("\r", "").rstrip() == body.rstrip(), octets
    if client.sends == "octets":
        assert octets.partition(b"\r\n\r\n")[2].rstrip() == body.replace("\n", "\r\n").rstrip().encode()


def message(recipient: str, subject: str, body: str) -> bytes:
    """A whole one with the machine's ends of lines."""
    lines = (
        f"From: {SENDER}",
        f"To: {recipient}",
        f"Subject: {Header(subject, 'utf-8').encode()}",
        "Date: Fri, 27 Nov 2026 20:00:00 +0000",
        f"Message-ID: <{recipient}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=UTF-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        body,
    )
    return "\n".join(lines).encode()


def run(command: str, directory: Path, **more: object) -> subprocess.CompletedProcess[str]:
    """One command of the shell, to its end."""
    paths = {
        "PY": sys.executable,
        "P": PROGRAMS,
        "F": FETCHED,
        "PYTHONPATH": FETCHED / "python",
        "NODE_PATH": FETCHED / "node/node_modules",
    }
    return subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=os.environ | {name: str(value) for name, value in (paths | more).items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@cache
def version(client: Client) -> str:
    """Empty where it is not installed."""
    done = run(client.version, Path.cwd())
    told = re.search(r"[0-9]+(\.[0-9]+)+", done.stdout)
    return "" if done.returncode else told[0] if told else "?"
