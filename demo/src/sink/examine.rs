//! Examines a received mail with a parser that the sender does not use. No I/O.

use mail_parser::{Address, HeaderName, Message, MessageParser, MimeHeaders};
use memchr::memchr_iter;
use sha2::{Digest, Sha256};

use super::deliveries::{Pdf, ViolationKind};

/// Header texts are kept up to this many characters.
const TEXT_CHARS_MAX: usize = 300;
/// Headers that a mail has exactly once.
const ONCE: [(HeaderName<'static>, &str); 4] = [
    (HeaderName::From, "From"),
    (HeaderName::To, "To"),
    (HeaderName::Date, "Date"),
    (HeaderName::MessageId, "Message-ID"),
];
/// SMTP commands; a line starts with one only when another dialogue ran into this mail.
const COMMANDS: [&[u8]; 5] = [b"MAIL FROM:", b"RCPT TO:", b"EHLO ", b"HELO ", b"AUTH PLAIN "];
/// Commands that are a whole line.
const COMMAND_LINES: [&[u8]; 3] = [b"DATA", b"RSET", b"QUIT"];
/// Headers that stand at the top of a mail only.
const TOP_HEADERS: [&[u8]; 4] = [b"Message-ID:", b"MIME-Version:", b"Received:", b"Return-Path:"];

/// What a mail says.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// Without angle brackets.
    pub(super) message_id: Option<String>,
    /// Addresses, comma-separated.
    pub(super) from: Option<String>,
    /// Addresses, comma-separated.
    pub(super) to: Option<String>,
    /// The name in To.
    pub(super) to_name: Option<String>,
    /// Decoded.
    pub(super) subject: Option<String>,
    /// The first PDF.
    pub(super) pdf: Option<Pdf>,
    /// The first PDF's bytes, when they were asked for.
    pub(super) pdf_bytes: Option<Vec<u8>>,
    /// What is wrong, with a detail for people.
    pub(super) violations: Vec<(ViolationKind, String)>,
}

/// Reads a whole mail; `keep_pdf` asks for the PDF's bytes.
pub(super) fn examine(raw: &[u8], recipients: &[String], keep_pdf: bool) -> Examined {
    let mut examined = Examined { violations: intruders(raw), ..Examined::default() };
    let Some(mail) = MessageParser::default().parse(raw) else {
        examined.violations.push((ViolationKind::BrokenMime, "the mail has no headers".into()));
        return examined;
    };
    examined.violations.extend(header_counts(&mail));
    examined.message_id = mail.message_id().map(cut);
    examined.from = mail.from().map(addresses);
    examined.to = mail.to().map(addresses);
    examined.to_name = mail.to().and_then(Address::first).and_then(|first| first.name()).map(cut);
    examined.subject = mail.subject().map(cut);
    let to = examined.to.as_deref().unwrap_or("");
    for recipient in recipients.iter().filter(|recipient| !same_address(recipient, to)) {
        examined.violations.push((ViolationKind::ToMismatch, format!("To is {to:?}, the envelope says {recipient:?}")));
    }
    documents(&mail, keep_pdf, &mut examined);
    examined
}

/// Lines that do not belong into a mail: a lone dot, commands, or the top headers of another mail.
fn intruders(raw: &[u8]) -> Vec<(ViolationKind, String)> {
    let mut found = Vec::new();
    let mut in_headers = true;
    let mut start = 0;
    for end in memchr_iter(b'\n', raw) {
        let line = &raw[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        start = end + 1;
        in_headers &= !line.is_empty();
        let kind = match line.first() {
            Some(b'.') if line.len() == 1 => Some(ViolationKind::DotLine),
            Some(first) if b"MREHADQmrehadq".contains(first) => intruder(line, in_headers),
            _ => None,
        };
        if let Some(kind) = kind {
            found.push((kind, cut(&String::from_utf8_lossy(line))));
        }
    }
    found
}

/// Whether a line is a command, or a top header below the top.
fn intruder(line: &[u8], in_headers: bool) -> Option<ViolationKind> {
    let starts = |with: &&[u8]| line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if COMMANDS.iter().any(starts) || COMMAND_LINES.contains(&line) {
        Some(ViolationKind::ForeignDialogue)
    } else if !in_headers && TOP_HEADERS.iter().any(starts) {
        Some(ViolationKind::ForeignHeaders)
    } else if in_headers && starts(&b"Return-Path:".as_slice()) {
        // Only the final delivery adds it (RFC 5321, 4.4).
        Some(ViolationKind::ForeignHeaders)
    } else {
        None
    }
}

/// Headers that are missing or there twice (RFC 5322, 3.6; To and Message-ID are what this sink goes by).
fn header_counts(mail: &Message<'_>) -> Vec<(ViolationKind, String)> {
    let count = |name: &HeaderName<'_>| mail.headers().iter().filter(|header| header.name == *name).count();
    let mut found = Vec::new();
    for (name, text) in &ONCE {
        match count(name) {
            0 => found.push((ViolationKind::MissingHeader, (*text).into())),
            1 => {}
            _ => found.push((ViolationKind::DoubledHeader, (*text).into())),
        }
    }
    for (name, text) in [(HeaderName::Subject, "Subject"), (HeaderName::Cc, "Cc"), (HeaderName::Bcc, "Bcc")] {
        if count(&name) > 1 {
            found.push((ViolationKind::DoubledHeader, text.into()));
        }
    }
    found
}

/// Finds the first PDF and what is wrong with the MIME parts.
fn documents(mail: &Message<'_>, keep_pdf: bool, examined: &mut Examined) {
    for part in &mail.parts {
        if part.is_encoding_problem {
            examined.violations.push((ViolationKind::BrokenMime, "a part is not encoded as it says".into()));
        }
        let named = part.attachment_name().is_some_and(|name| name.to_ascii_lowercase().ends_with(".pdf"));
        if !named && !part.is_content_type("application", "pdf") {
            continue;
        }
        let bytes = part.contents();
        if !bytes.starts_with(b"%PDF-") {
            examined.violations.push((ViolationKind::NotPdf, "a part called PDF does not begin with %PDF-".into()));
        }
        if examined.pdf.is_some() {
            examined.violations.push((ViolationKind::SeveralPdfs, "more than one PDF".into()));
            continue;
        }
        examined.pdf = Some(Pdf { sha256: hex(&Sha256::digest(bytes)), bytes: bytes.len() as u64 });
        examined.pdf_bytes = keep_pdf.then(|| bytes.to_vec());
    }
}

fn addresses(header: &Address<'_>) -> String {
    cut(&header.iter().filter_map(|one| one.address()).collect::<Vec<_>>().join(", "))
}

/// The domain in any case, the local part exactly (RFC 5321, 2.4).
fn same_address(one: &str, other: &str) -> bool {
    match (one.rsplit_once('@'), other.rsplit_once('@')) {
        (Some((local, domain)), Some((other_local, other_domain))) => {
            local == other_local && domain.eq_ignore_ascii_case(other_domain)
        }
        _ => one == other,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four_bits: u8| char::from(DIGITS[usize::from(four_bits)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "From: Bank <bank@example.test>\r\nTo: =?utf-8?q?J=C3=BCrgen?= <u-1@Example.test>\r\nSubject: \
        =?utf-8?b?w4RweQ==?=\r\nDate: Sun, 01 Nov 2026 06:00:00 +0000\r\nMessage-ID: <a@b>\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x\r\n\
        Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjcK\r\n--x--\r\n";

    fn kinds(mail: &str) -> Vec<ViolationKind> {
        let examined = examine(mail.as_bytes(), &["u-1@example.test".into()], false);
        examined.violations.into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn a_good_mail_is_read_and_has_no_violations() {
        let examined = examine(MAIL.as_bytes(), &["u-1@example.test".into()], true);
        assert_eq!(examined.violations, []);
        assert_eq!(examined.message_id.as_deref(), Some("a@b"));
        assert_eq!(examined.from.as_deref(), Some("bank@example.test"));
        assert_eq!(examined.to_name.as_deref(), Some("Jürgen"));
        assert_eq!(examined.subject.as_deref(), Some("Äpy"));
        assert_eq!(examined.pdf_bytes.as_deref(), Some(b"%PDF-1.7\n".as_slice()));
        // printf '%PDF-1.7\n' | sha256sum
        let sha256 = "0716f9264c9fe19f5d7455276107f3ddcc1d3497f63d60689a73558ae8a1bf5e";
        assert_eq!(examined.pdf, Some(Pdf { sha256: sha256.into(), bytes: 9 }));
    }

    #[test]
    fn each_defect_of_a_mail_is_named() {
        use ViolationKind::{
            BrokenMime, DotLine, DoubledHeader, ForeignDialogue, ForeignHeaders, MissingHeader, NotPdf, SeveralPdfs,
            ToMismatch,
        };
        let pdf_part =
            "--x\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjcK\r\n--x--";
        let table: &[(&str, &str, &[ViolationKind])] = &[
            ("<u-1@Example.test>", "<u-2@example.test>", &[ToMismatch]),
            ("<u-1@Example.test>", "<u-1@example.test>, <u-2@example.test>", &[ToMismatch]),
            ("Message-ID: <a@b>\r\n", "", &[MissingHeader]),
            ("MIME-Version", "Date: Sun, 01 Nov 2026 06:00:00 +0000\r\nMIME-Version", &[DoubledHeader]),
            ("hello", ".", &[DotLine]),
            ("hello", "mail from:<bank@example.test>", &[ForeignDialogue]),
            ("hello", "DATA", &[ForeignDialogue]),
            ("hello", "Message-ID: <c@d>", &[ForeignHeaders]),
            ("JVBERi0xLjcK", "aGVsbG8gd29ybGQK", &[NotPdf]),
            ("JVBERi0xLjcK", "JVBERi0xLj!!!!", &[BrokenMime, NotPdf]),
            ("--x--", pdf_part, &[SeveralPdfs]),
        ];
        for (good, bad, expected) in table {
            assert_eq!(kinds(&MAIL.replacen(good, bad, 1)), *expected, "{bad}");
        }
    }

    #[test]
    fn hostile_bytes_do_not_panic() {
        for raw in [
            b"".as_slice(),
            b"\r\n",
            b"\xff\xfe\r\n\r\n",
            b"To:\r\n\r\n",
            b"Content-Type: multipart/mixed\r\n\r\n--\r\n",
        ] {
            examine(raw, &[], true);
        }
    }
}
