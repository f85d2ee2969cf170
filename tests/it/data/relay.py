"""A mail relay that Nightmail's authors did not write: aiosmtpd. Prints its port, then writes each mail as Python's
email package reads it: DIR/<number>.json, and DIR/<number>.pdf for the attachment. Ends when standard input ends."""

import argparse
import asyncio
import base64
import json
import os
import ssl
import sys
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


def read(content):
    """One mail as JSON, and its attachment's bytes."""
    mail = message_from_bytes(content, policy=policy.default)
    attachments = list(mail.iter_attachments())
    body = {kind: mail.get_body((kind,)) for kind in ("plain", "html")}
    pdf = attachments[0].get_content() if attachments else b""
    return {
        "headers": {name.lower(): str(value) for name, value in mail.items()},
        "headers_doubled": len(mail.keys()) - len({name.lower() for name in mail.keys()}),
        "to": [{"name": to.display_name, "address": to.addr_spec} for to in mail["to"].addresses],
        "from": [{"name": by.display_name, "address": by.addr_spec} for by in mail["from"].addresses],
        "date": mail["date"].datetime.timestamp(),
        "text": body["plain"].get_content(),
        "html": body["html"].get_content(),
        "attachments": [
            {"name": part.get_filename(), "type": part.get_content_type(), "bytes": len(part.get_content())}
            for part in attachments
        ],
        "defects": [str(defect) for part in mail.walk() for defect in part.defects],
        "longest_line": max(len(line) for line in content.split(b"\r\n")),
        "is_ascii": content.isascii(),
    }, pdf


class Keep:
    """Writes each mail before it answers 250."""

    def __init__(self, directory):
        self.directory = directory
        self.count = 0

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        mail, pdf = read(envelope.content)
        mail["envelope"] = {"from": envelope.mail_from, "to": envelope.rcpt_tos}
        mail["tls"] = session.ssl is not None
        mail["login"] = getattr(session.auth_data, "login", b"").decode()
        stem = os.path.join(self.directory, f"{self.count:06}")
        with open(stem + ".pdf", "wb") as file:
            file.write(pdf)
        with open(stem + ".json", "w", encoding="utf-8") as file:
            json.dump(mail, file)
        return f"250 2.0.0 kept as {self.count}"


def pem(path, label):
    """Turns a DER file into a PEM file next to it, and returns its name."""
    with open(path, "rb") as file:
        lines = base64.encodebytes(file.read()).decode()
    with open(path + ".pem", "w", encoding="ascii") as file:
        file.write(f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
    return path + ".pem"


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory")
    arguments.add_argument("--cert", help="DER; with it STARTTLS is required")
    arguments.add_argument("--key", help="DER, PKCS 8")
    arguments.add_argument("--login", help="user:password; with it AUTH is required")
    given = arguments.parse_args()
    options = {"hostname": "relay.test", "enable_SMTPUTF8": False}
    if given.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem(given.cert, "CERTIFICATE"), pem(given.key, "PRIVATE KEY"))
        options |= {"tls_context": context, "require_starttls": True}
    if given.login:
        user, password = given.login.encode().split(b":")
        known = LoginPassword(user, password)

        def check(server, session, envelope, mechanism, data):
            with open(os.path.join(given.directory, "logins"), "a", encoding="utf-8") as file:
                file.write(f"{mechanism} {data.login.decode()}\n")
            return AuthResult(success=data == known, handled=False, auth_data=data)

        options |= {"authenticator": check, "auth_required": True}
    keep, loop = Keep(given.directory), asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(keep, loop=loop, **options), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
