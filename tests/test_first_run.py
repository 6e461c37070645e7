"""The newcomer's first five minutes, in a copy of the tree, with processes as he starts them."""

from __future__ import annotations

import email
import os
import re
import shutil
import signal
import smtplib
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.cli.sandbox import SUBMISSION, TRIES
from mta.config.load import load
from mta.spool.database import claim_mode, connect, migrate
from mta.store.credentials import CredentialStore, proves_password
from tests.fakes.home import PATIENCE, ROOT, Home, Served

SIZES = (0, 1, 70, 1000, 5000, 70_000, 600_000)  # octets of body


def copy_tree(to: Path) -> None:
    """What a clone would hold."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "mta", "config"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    directory = tmp_path_factory.mktemp("clone")
    copy_tree(directory)
    made = Home(directory, source=directory)
    made.sandbox()
    return made


@pytest.fixture(scope="module")
def served(home: Home) -> Iterator[Served]:
    with home.serving() as served:
        yield served


def commands(banner: str) -> dict[str, str]:
    """What the banner offers to paste, by the first word."""
    return {block.split()[0]: block for block in re.split(r"\n\n", banner) if re.match(r"\w+ [-']", block)}


def test_the_quickstart_file_is_exact(served: Served) -> None:
    facts = served.facts
    ports = [facts[door].pop("port") for door in ("submission", "submissions", "open")]
    assert len({*ports, 0}) == 4
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", facts.pop("admin_url"))
    assert facts == {
        "pid": served.popen.pid,
        "submission": {"host": "127.0.0.1"},
        "submissions": {"host": "127.0.0.1"},
        "open": {"host": "127.0.0.1"},
        "user": "app",
        "sender": "app@example.test",
        "password_file": "var/password",
        "ca_file": "var/tls/certificate.pem",
        "sandbox_dir": "var/sandbox",
        "event_log": "var/spool/events.jsonl",
        "spool_dir": "var/spool",
    }


@pytest.mark.parametrize("program", ["swaks", "printf", "python3"])
def test_each_command_can_be_pasted(served: Served, program: str) -> None:
    needed = {"printf": "curl", "swaks": "swaks", "python3": "python3"}[program]
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    before = len(list((served.directory / "var/sandbox").glob("*.eml")))
    argv = ["bash", "-c", commands(served.banner)[program]]
    done = subprocess.run(
        argv, cwd=served.directory, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if "requires Net::SSLeay" in done.stderr:
        pytest.skip("swaks is installed without TLS")
    assert done.returncode == 0, done.stderr
    assert program == "swaks" or not done.stdout + done.stderr
    delivered = served.events(before + 1, type="delivery")[-1]
    assert delivered["sender"] == "app@example.test"
    assert delivered["recipient"] == "ok@example.test"


@pytest.mark.parametrize(
    ("hello", "sender"),
    [
        pytest.param("EHLO laptop", "webmaster@localhost", id="Django"),
        pytest.param("EHLO [127.0.0.1]", "app@example.test", id="nodemailer"),
        pytest.param("EHLO localhost.localdomain", "root@localhost", id="PHPMailer"),
        pytest.param("EHLO localhost.localdomain", "from@example.com", id="Rails"),
        pytest.param("EHLO laptop.fritz.box", "user@laptop", id="Spring"),
    ],
)
def test_a_framework_needs_neither_tls_nor_password(served: Served, hello: str, sender: str) -> None:
    door = served.facts["open"]
    with smtplib.SMTP(door["host"], door["port"], timeout=PATIENCE) as smtp:
        assert smtp.docmd(hello)[0] == 250
        assert not smtp.has_extn("starttls")
        assert smtp.docmd(f"MAIL FROM:<{sender}>")[0] == 250
        assert smtp.docmd("RCPT TO:<ok@example.test>")[0] == 250
        code, text = smtp.data(f"From: {sender}\r\nSubject: Welcome\r\n\r\nHello.\r\n")
        assert code == 250, text
    served.events(1, type="delivery", sender=sender)


def test_it_is_one_process_with_one_directory_on_this_machine(served: Served) -> None:
    """What it writes to and whom it listens to, as the kernel has it."""
    with served.client() as smtp:
        smtp.sendmail("one@example.test", "ok@example.test", "From: one@example.test\n\nx\n")
        served.events(1, type="delivery", sender="one@example.test")
        process = Path("/proc") / str(served.popen.pid)
        assert "".join(file.read_text() for file in process.glob("task/*/children")) == ""
        sockets = set()
        for name in process.glob("fd/*"):
            with suppress(FileNotFoundError):  # closed meanwhile
                target = str(name.readlink())
                flags = re.search(r"flags:\s+(\d+)", (process / "fdinfo" / name.name).read_text())
                assert flags is not None
                if target.startswith("socket:["):
                    sockets.add(target[8:-1])
                elif int(flags[1], 8) & (os.O_WRONLY | os.O_RDWR) and Path(target).is_file():
                    assert Path(target).is_relative_to(served.directory)
        lines = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
        bound = {words[1][:8] for words in lines if words[9] in sockets}
        assert bound == {"0100007F"}  # 127.0.0.1


def test_ctrl_c_stops_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.sandbox()
    with home.serving() as served:
        served.popen.send_signal(signal.SIGINT)
        assert served.popen.communicate(timeout=PATIENCE)[0].startswith("Stopped.")
        assert served.popen.returncode == 0


@pytest.mark.parametrize("door", ["submission", "submissions"])
def test_a_hundred_messages_of_every_size_arrive_as_they_were_sent(served: Served, door: str) -> None:
    sender = f"{door}@example.test"
    bodies = {f"<{n}@{door}.test>": body_of(SIZES[n % len(SIZES)]) for n in range(100)}
    with served.client(door) as smtp:
        for name, body in bodies.items():
            head = f"From: {sender}\r\nMessage-ID: {name}\r\n\r\n"
            assert smtp.sendmail(sender, "ok@example.test", head.encode() + body) == {}
    told = served.events(100, type="delivery", sender=sender)
    for kind in ("reception", "delivery"):
        found = [each["message_id"] for each in told if each["type"] == kind and each["sender"] == sender]
        assert sorted(found) == sorted(bodies)
    kept = {
        email.message_from_bytes(octets)["Message-ID"]: octets.partition(b"\r\n\r\n")[2]
        for octets in (file.read_bytes() for file in (served.directory / "var/sandbox").glob("*.eml"))
    }
    assert all(kept[name] == body for name, body in bodies.items())


def body_of(size: int) -> bytes:
    """Lines of every length and with leading dots, so many octets in all."""
    lines = b"".join(b"." * (n % 3) + b"x" * (n % 990) + b"\r\n" for n in range(size // 70 + 1))
    return lines * (size // len(lines)) + b"." * (size and size % len(lines)) + (b"\r\n" if size else b"")


def test_a_second_daemon_is_told_that_one_runs_already(home: Home, served: Served) -> None:
    words = f"{home.directory}/var/spool is in use by another process; stop that one first\n"
    second = home.mta("--config", "var/mta.yaml", "serve", "--quickstart", "var/quickstart.json")
    assert (second.returncode, second.stdout, second.stderr) == (1, "", f"mta: {words}")
    again = home.mta("sandbox", "var")
    assert (again.returncode, again.stderr) == (1, f"Error: already running: {words}")
    assert served.facts["pid"] == served.popen.pid


def test_a_second_start_keeps_ports_password_and_mail(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = home.mta("sandbox")
    password = (tmp_path / "var/password").read_text()
    assert first.returncode == 0, first.stderr
    assert f"login app, password {password} (shown only now)\n" in first.stdout
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with home.serving() as served:
        facts = served.facts
        with served.client() as smtp:
            smtp.sendmail("a@example.test", "defer@example.test", "From: a@example.test\n\nLater.\n")
        served.events(1, type="deferral")
        assert served.stop() == 0
        assert served.rest.strip() == "Stopped. Mail that is not delivered yet waits in the spool."
        assert not (tmp_path / "var/quickstart.json").exists()
    again = home.mta("sandbox")
    assert again.stdout == "var has all that it needs; the password is in var/password\n"
    assert all(file.read_bytes() == octets for file, octets in files.items() if file.suffix != ".db")
    with home.serving() as served:
        assert served.facts | {"pid": 0} == facts | {"pid": 0}
        listed = home.mta("--config", "var/mta.yaml", "queue", "list")
        assert "defer@example.test" in listed.stdout
        with served.client("submission") as smtp:
            assert smtp.sendmail("a@example.test", "ok@example.test", "From: a@example.test\n\nNow.\n") == {}
        assert served.stop() == 0


def test_a_sandbox_that_is_stopped_explains_itself(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.sandbox()
    told = home.mta("--config", "var/mta.yaml", "explain", "ok@example.test")
    assert (told.returncode, told.stdout.split("\n")[:2]) == (
        0,
        ["ok@example.test", "  host      0  127.0.0.1, any free port  127.0.0.1"],
    )


def test_a_port_that_is_taken_is_told_with_the_setting_to_change(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.sandbox()
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        last = "bind: 127.0.0.1:0  # for programs"
        text = home.settings.read_text()
        assert last in text
        home.settings.write_text(text.replace(last, last.replace(":0", f":{port}")))
        refused = home.mta("--config", "var/mta.yaml", "serve")
    assert refused.returncode == 1
    assert f"port {port}: Address already in use (listeners[2].bind)\n" in refused.stderr


@pytest.mark.parametrize(("made_for", "wanted"), [("sandbox", "live"), ("live", "sandbox")])
def test_a_spool_of_one_mode_refuses_the_other(tmp_path: Path, made_for: str, wanted: str) -> None:
    home = Home(tmp_path)
    home.sandbox()
    sandbox = home.settings.read_text()
    live = sandbox.partition("sandbox:")[0]
    texts = {"sandbox": sandbox, "live": live}
    with connect(tmp_path / "var/spool") as connection:
        migrate(connection)
        claim_mode(connection, made_for)
    home.settings.write_text(texts[wanted])
    refused = home.mta("--config", "var/mta.yaml", "serve")
    assert (refused.returncode, refused.stderr) == (
        1,
        f"mta: this spool was made for {made_for} mode and the settings say {wanted}: "
        "use another spool.path, or set the mode back\n",
    )


def test_ports_that_somebody_holds_give_way_and_are_remembered(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else holds it: as good
            holder.bind(("127.0.0.1", SUBMISSION))
            holder.listen()
        made = sandbox(tmp_path)
        assert made.exit_code == 0
        settings = load(tmp_path / "mta.yaml")
        first, second, third = (listener.bind.port for listener in settings.listeners)
        assert f"on 127.0.0.1, ports {first}, {second} and {third} (" in made.output.split("\n")[0]
        assert settings.listeners[0].bind.port in range(SUBMISSION + 1, SUBMISSION + TRIES)
    assert sandbox(tmp_path).exit_code == 0
    assert load(tmp_path / "mta.yaml") == settings


def test_what_was_lost_is_made_again_and_the_rest_stays(tmp_path: Path) -> None:
    sandbox(tmp_path)
    settings = (tmp_path / "mta.yaml").read_text()
    for lost in (["password"], ["tls/certificate.pem", "tls/key.pem"], ["spool/credentials.db"]):
        for name in lost:
            (tmp_path / name).unlink()
        assert sandbox(tmp_path).exit_code == 0
        assert all((tmp_path / name).exists() for name in lost)
        with CredentialStore(tmp_path / "spool/credentials.db") as store:
            verifier = store.current()["app"].verifier
        assert proves_password((tmp_path / "password").read_bytes(), verifier)
    assert (tmp_path / "mta.yaml").read_text() == settings
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


def test_settings_that_are_no_sandbox_are_left_alone(tmp_path: Path) -> None:
    live = 'hostname: a.test\nlisteners: [{bind: "127.0.0.1:0", tls: none, auth: network}]\n'
    (tmp_path / "mta.yaml").write_text(live)
    refused = sandbox(tmp_path)
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: {tmp_path}/mta.yaml is not a sandbox's: `mta sandbox` has no business there\n",
    )
    assert [file.name for file in tmp_path.iterdir()] == ["mta.yaml"]


def test_a_mistake_in_the_settings_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "mta.yaml").write_text("hostname: a.test\nsandbx: {}\n")
    refused = sandbox(tmp_path)
    assert refused.exit_code == 2
    assert f"{tmp_path}/mta.yaml:2:1: sandbx: unknown key; did you mean 'sandbox'?" in refused.stderr


def sandbox(directory: Path) -> Result:
    return CliRunner().invoke(main, ["sandbox", str(directory)])
