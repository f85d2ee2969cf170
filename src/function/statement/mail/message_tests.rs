//! What a mail looks like on the wire, and that nothing in a name or subject can change its shape.

use std::collections::BTreeMap;

use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

use super::super::testing::options;
use super::*;
use crate::function::statement::template::Templates;
use crate::function::statement::template::tests::context;

const EXPECTED: [&str; 8] =
    ["Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];

fn words() -> RenderedTexts {
    RenderedTexts {
        subject: "Your statement".into(),
        text: "Dear Ada,\n.\nBye".into(),
        html: "<p>Dear Ada</p>".into(),
        attachment_name: "statement-2026-10.pdf".into(),
    }
}

fn mail<'a>(to_name: &'a str, attachment: &'a [u8]) -> Mail<'a> {
    Mail {
        to_name,
        to_address: "ada@example.org",
        message_key: "run 12 user u-1 purpose statement",
        now: Timestamp::from_secs(784_111_777),
        context: context("Ada", &BTreeMap::new()),
        attachment,
        begin_within: std::time::Duration::from_secs(30),
        effect: crate::function::EffectFlag::default(),
        effects: crate::function::NoLedger::shared(),
        intent: crate::function::Intent::default(),
    }
}

fn compose(to_name: &str, words: RenderedTexts) -> String {
    let composer = Composer::new(&options()).unwrap();
    let (outgoing, _) = composer.compose(&mail(to_name, b"%PDF-1.7 \x00\xff"), words).unwrap();
    assert!(outgoing.bytes.is_ascii());
    String::from_utf8(outgoing.bytes).unwrap()
}

fn header_names(text: &str) -> Vec<String> {
    let message = MessageParser::default().parse(text.as_bytes()).unwrap();
    message.headers_raw().map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn a_mail_has_text_html_and_the_pdf() {
    let text = compose("Ada O\"Neil", words());
    assert_eq!(header_names(&text), EXPECTED);
    let message = MessageParser::default().parse(text.as_bytes()).unwrap();
    assert_eq!(message.date().unwrap().to_rfc3339(), "1994-11-06T08:49:37Z");
    assert_eq!(message.subject(), Some("Your statement"));
    let to = message.to().unwrap().first().unwrap();
    assert_eq!((to.name(), to.address()), (Some("Ada O\"Neil"), Some("ada@example.org")));
    assert_eq!(message.body_text(0).unwrap(), "Dear Ada,\r\n.\r\nBye");
    assert_eq!(message.body_html(0).unwrap(), "<p>Dear Ada</p>");
    let pdf = message.attachment(0).unwrap();
    assert_eq!(pdf.attachment_name(), Some("statement-2026-10.pdf"));
    assert_eq!(pdf.contents(), b"%PDF-1.7 \x00\xff");
    assert_eq!(message.attachment_count(), 1);
}

#[test]
fn the_same_key_has_the_same_message_id_and_the_same_mail_the_same_bytes() {
    let composer = Composer::new(&options()).unwrap();
    let one = composer.compose(&mail("Ada", b"x"), words()).unwrap();
    let two = composer.compose(&mail("Ada", b"x"), words()).unwrap();
    assert_eq!((&one.1, &one.0.bytes), (&two.1, &two.0.bytes));
    // `printf 'run 12 user u-1 purpose statement' | sha256sum`
    let hex = one.1.strip_prefix('<').unwrap().split('@').next().unwrap();
    assert_eq!(hex.len(), 32);
    assert_eq!(one.1, composer.message_id("run 12 user u-1 purpose statement"));
    assert!(one.1.ends_with("@example.com>"));
    assert_ne!(one.1, composer.message_id("run 12 user u-2 purpose statement"));
}

#[test]
fn line_ends_are_crlf_whatever_the_template_has() {
    let mut words = words();
    words.text = "a\nb\r\nc\rd\r\n.\n..e\n".into();
    words.html = "<p>\n</p>\r".into();
    let text = compose("Ada", words);
    let without = text.replace("\r\n", "");
    assert!(!without.contains(['\r', '\n']));
    let message = MessageParser::default().parse(text.as_bytes()).unwrap();
    assert_eq!(message.body_text(0).unwrap().trim_end(), "a\r\nb\r\nc\r\nd\r\n.\r\n..e");
}

#[test]
fn senders_may_have_international_names_and_domains() {
    let mut options = options();
    options.from = "Größte Bänk, \"AG\" <post@bücher.example>".into();
    options.reply_to = Some("help@example.com".into());
    options.message_id_domain = Some("mail.example.com".into());
    let composer = Composer::new(&options).unwrap();
    let (outgoing, id) = composer.compose(&mail("", b"x"), words()).unwrap();
    let text = String::from_utf8(outgoing.bytes).unwrap();
    let message = MessageParser::default().parse(text.as_bytes()).unwrap();
    let from = message.from().unwrap().first().unwrap();
    assert_eq!((from.name(), from.address()), (Some("Größte Bänk, \"AG"), Some("post@xn--bcher-kva.example")));
    assert_eq!(message.reply_to().unwrap().first().unwrap().address(), Some("help@example.com"));
    assert!(text.contains("\r\nTo: ada@example.org\r\n") && id.ends_with("@mail.example.com>"), "{text}");
}

#[test]
fn a_wrong_recipient_is_a_failure_without_a_mail() {
    let composer = Composer::new(&options()).unwrap();
    let mut mail = mail("Ada", b"x");
    mail.to_address = "a@b.cd\r\nRCPT TO:<x@y.z>";
    assert_eq!(composer.compose(&mail, words()).unwrap_err().class(), "data mail invalid-email");
}

/// Any text, with line breaks, controls and header look-alikes more often than chance.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        Just("\r\nBcc: evil@example.net\r\n".to_owned()),
        Just("\r\n\r\n.\r\n".to_owned()),
        Just("=?utf-8?q?=0D=0ABcc:_x?=".to_owned()),
        Just("\" <evil@example.net>, \"".to_owned()),
        Just("\u{0}\u{85}\u{2028}\u{feff}".to_owned()),
        "[a-zA-Z \\\\\"<>@,;:=?]{0,80}",
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_in_a_name_subject_file_name_or_text_adds_a_header(
        name in nasty(), subject in nasty(), file in nasty(), text in nasty(),
    ) {
        let mut options = options();
        options.subject = "{{ user.name }}".into();
        options.attachment_name = "{{ user.id }}".into();
        // The subject goes through the templates' own cleaning, as in production; the rest is raw.
        let subject = Templates::new(&options).unwrap().render(&context(&subject, &BTreeMap::new())).unwrap().subject;
        let file = line(&file);
        let all = compose(&name, RenderedTexts { subject, text: text.clone(), html: text, attachment_name: file });
        prop_assert_eq!(header_names(&all), EXPECTED);
        let message = MessageParser::default().parse(all.as_bytes()).unwrap();
        prop_assert_eq!(message.to().unwrap().as_list().unwrap().len(), 1);
        prop_assert_eq!(message.to().unwrap().first().unwrap().address(), Some("ada@example.org"));
        prop_assert_eq!(message.from().unwrap().first().unwrap().address(), Some("statements@example.com"));
        prop_assert_eq!(message.attachment_count(), 1);
        let well_formed = all.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0']));
        prop_assert!(well_formed);
    }
}
