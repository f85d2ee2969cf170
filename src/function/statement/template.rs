//! The four templates of a mail: subject, text, HTML, attachment name.
//!
//! Owns what templates may name and the promise that an undefined name is found when the settings are checked, not at
//! the first mail. Must not know how a mail is built or sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Object, Value};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use super::{MailOptions, User};
use crate::base::Failure;
use crate::function::Error;

/// A rendered subject or attachment name is cut here, in characters.
const LINE_CHARS_MAX: usize = 200;
/// The templates' names inside the environment; the ending `.html` turns escaping on.
const NAMES: [&str; 4] = ["subject", "text", "html.html", "attachment_name"];

/// The checked templates.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

/// What templates may name: `run`, `user.*`, `params.*`, `document.*`. Every name is there for every mail.
#[derive(Clone, Debug, Serialize)]
pub struct Context<'a> {
    /// The run's number; 0 outside a run.
    pub run: u64,
    /// The recipient.
    pub user: Recipient<'a>,
    /// The run's parameters.
    pub params: &'a BTreeMap<String, String>,
    /// The attached document.
    pub document: Document,
}

/// The recipient as templates see it.
#[derive(Clone, Debug, Serialize)]
pub struct Recipient<'a> {
    /// The team's id of the user.
    pub id: &'a str,
    /// The name.
    pub name: &'a str,
    /// The mail address.
    pub email: &'a str,
    /// The user's locale or the default one.
    pub locale: &'a str,
    /// The requested account.
    pub account_id: &'a str,
    /// The lines of the postal address; may be empty.
    pub address: &'a [String],
}

impl<'a> Recipient<'a> {
    /// The recipient `user`; `locale` is the default one.
    pub fn of(user: &'a User, locale: &'a str) -> Self {
        Self {
            id: &user.id,
            name: &user.name,
            email: &user.email,
            locale: user.locale.as_deref().unwrap_or(locale),
            account_id: user.account(),
            address: &user.address,
        }
    }
}

/// The attached document as templates see it; amounts are written in the recipient's locale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The bank's name.
    pub issuer: String,
    /// The account's number as the bank's service names it.
    pub account: String,
    /// The period in words.
    pub period: String,
    /// The ISO 4217 code.
    pub currency: String,
    /// The balance at the period's start.
    pub opening_balance: String,
    /// The balance at its end.
    pub closing_balance: String,
    /// The number of pages.
    pub pages: u32,
}

/// The rendered texts of one mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedTexts {
    /// One line, at most 200 characters, without control characters.
    pub subject: String,
    /// The plain-text body.
    pub text: String,
    /// The HTML body.
    pub html: String,
    /// One line, at most 200 characters, without control characters and path separators; never empty.
    pub attachment_name: String,
}

impl Templates {
    /// Compiles the templates and renders them once with a sample.
    ///
    /// # Errors
    /// [`Error::Template`] with the template, the line and the reason: a syntax error or an undefined name.
    pub fn new(options: &MailOptions) -> Result<Self, Error> {
        let (templates, faults) = Self::try_all(options);
        faults.into_iter().next().map_or(Ok(templates), Err)
    }

    /// All faults of the templates, at most one for each.
    pub(super) fn faults(options: &MailOptions) -> Vec<Error> {
        Self::try_all(options).1
    }

    fn try_all(options: &MailOptions) -> (Self, Vec<Error>) {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let sources = [&options.subject, &options.text, &options.html, &options.attachment_name];
        let mut faults = Vec::new();
        for (name, source) in NAMES.into_iter().zip(sources) {
            let added = environment.add_template_owned(name, source.clone());
            let rendered = added.and_then(|()| environment.get_template(name)?.render(sample()));
            faults.extend(rendered.err().map(|fault| error(name, &fault)));
        }
        (Self { environment }, faults)
    }

    /// Renders the four templates for one mail.
    ///
    /// # Errors
    /// A failure of kind `render`, place `mail`: a parameter that this run does not have, a filter that fails.
    pub fn render(&self, context: &Value) -> Result<RenderedTexts, Failure> {
        let rendered = self.render_all(context);
        let [subject, text, html, attachment_name] =
            rendered.map_err(|(name, e)| Failure::new("render", "mail", "template", format!("{}", error(name, &e))))?;
        Ok(RenderedTexts { subject: line(&subject), text, html, attachment_name: file_name(&attachment_name) })
    }

    fn render_all(&self, context: &Value) -> Result<[String; 4], (&'static str, minijinja::Error)> {
        let render = |name| {
            let rendered = self.environment.get_template(name).and_then(|template| template.render(context));
            rendered.map_err(|e| (name, e))
        };
        let [subject, text, html, attachment_name] = NAMES;
        Ok([render(subject)?, render(text)?, render(html)?, render(attachment_name)?])
    }
}

/// One line: control characters and runs of spaces become one space.
pub(super) fn line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if breaks(c) { ' ' } else { c }).take(4 * LINE_CHARS_MAX).collect();
    let line = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    // Mail programs decode everything that looks like an encoded word (RFC 2047).
    line.replace("=?", "= ?").chars().take(LINE_CHARS_MAX).collect()
}

fn breaks(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn file_name(text: &str) -> String {
    let separators = ['/', '\\', ':', '*', '?', '"', '<', '>', '|'];
    let name = line(text).replace(separators, "-");
    let name = name.trim_start_matches('.').trim();
    if name.is_empty() { "statement.pdf".into() } else { name.to_owned() }
}

fn error(name: &'static str, error: &minijinja::Error) -> Error {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let known = match error.kind() {
        minijinja::ErrorKind::UndefinedError => "; known: run, user.*, params.*, document.*",
        _ => "",
    };
    let name = if name == "html.html" { "html" } else { name };
    Error::Template { name, why: format!("{line}{}{detail}{known}", error.kind()) }
}

/// A context with every name; which parameters a run has is not known here, so any is there.
fn sample() -> Value {
    let (params, address) = (BTreeMap::new(), ["1 Sample Street".to_owned()]);
    let user = Recipient {
        id: "u-1",
        name: "Sample Name",
        email: "sample@example.com",
        locale: "en-GB",
        account_id: "a-1",
        address: &address,
    };
    let amount = || "0.00".to_owned();
    let document = Document {
        issuer: "Sample Bank".into(),
        account: "a-1".into(),
        period: "2026-10".into(),
        currency: "EUR".into(),
        opening_balance: amount(),
        closing_balance: amount(),
        pages: 1,
    };
    let context = Value::from_serialize(Context { run: 1, user, params: &params, document });
    Value::from_object(Sample(context))
}

/// The sample context, whose `params` have any name.
#[derive(Debug)]
struct Sample(Value);

impl Object for Sample {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "params" => Some(Value::from_object(AnyParameter)),
            name => self.0.get_attr(name).ok().filter(|value| !value.is_undefined()),
        }
    }
}

#[derive(Debug)]
struct AnyParameter;

impl Object for AnyParameter {
    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        Some(Value::from("2026-10"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::function::statement::mail::testing::options;

    pub(in crate::function::statement) fn context(name: &str, params: &BTreeMap<String, String>) -> Value {
        let user =
            Recipient { id: "u-1", name, email: "ada@example.com", locale: "en-GB", account_id: "u-1", address: &[] };
        Value::from_serialize(Context { run: 12, user, params, document: Document::default() })
    }

    fn refused(change: impl FnOnce(&mut MailOptions)) -> String {
        let mut options = options();
        change(&mut options);
        Templates::new(&options).unwrap_err().to_string()
    }

    #[test]
    fn an_undefined_name_or_a_syntax_error_is_found_at_construction() {
        let message = refused(|o| o.text = "Dear {{ user.nmae }}".into());
        assert!(message.starts_with("template text: line 1: undefined value"), "{message}");
        assert!(message.contains("known: run, user.*"), "{message}");
        assert!(refused(|o| o.html = "\n{{ documnt.pages }}".into()).starts_with("template html: line 2"));
        assert!(refused(|o| o.subject = "{% if x %}".into()).contains("subject"));
        assert!(refused(|o| o.subject = "{{ user.name".into()).contains("subject"));
        assert!(refused(|o| o.attachment_name = "{{ account }}".into()).contains("attachment_name"));
    }

    #[test]
    fn html_is_escaped_and_the_rest_is_not() {
        let mut options = options();
        options.text = "{{ user.name }}".into();
        options.html = "<p>{{ user.name }}</p>".into();
        let words = Templates::new(&options).unwrap().render(&context("<b>&Co", &BTreeMap::new())).unwrap();
        assert_eq!((words.text.as_str(), words.html.as_str()), ("<b>&Co", "<p>&lt;b&gt;&amp;Co</p>"));
    }

    #[test]
    fn subject_and_file_name_are_one_harmless_line() {
        let mut options = options();
        options.subject = "For\r\nBcc: {{ user.name }}".into();
        options.attachment_name = "../{{ user.name }}.pdf".into();
        let templates = Templates::new(&options).unwrap();
        let words = templates.render(&context("x\u{0}\ty/=?utf-8?q?=0D=0Az?=", &BTreeMap::new())).unwrap();
        assert_eq!(words.subject, "For Bcc: x y/= ?utf-8?q?=0D=0Az?=");
        assert_eq!(words.attachment_name, "-x y-= -utf-8-q-=0D=0Az-=.pdf");
        options.attachment_name = "{{ document.account }}".into();
        let words = Templates::new(&options).unwrap().render(&context("x", &BTreeMap::new())).unwrap();
        assert_eq!(words.attachment_name, "statement.pdf");
    }

    #[test]
    fn a_parameter_that_the_run_does_not_have_is_a_failure_of_this_mail() {
        let mut options = options();
        options.subject = "{{ params.period }}".into();
        let templates = Templates::new(&options).unwrap();
        let failure = templates.render(&context("Ada", &BTreeMap::new())).unwrap_err();
        assert_eq!(failure.class(), "render mail template");
        let params = BTreeMap::from([("period".to_owned(), "2026-10".to_owned())]);
        assert_eq!(templates.render(&context("Ada", &params)).unwrap().subject, "2026-10");
    }
}
