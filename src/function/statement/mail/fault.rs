//! What the relay's replies, or their absence, mean for the mail.
//!
//! Sources: RFC 5321 section 4.2 (reply codes), RFC 3463 (enhanced codes).

use std::time::Duration;

use super::aimd::Sign;
use crate::base::{Effect, Failure, LeftOutBy, Outcome, Verdict, units};
use crate::function::Permission;
use crate::function::unreachable::{Keys, Unreachable};

/// Why a mail was not accepted, or why it is unknown whether it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// The relay refused this mail for good (5xx). Nothing was accepted.
    Permanent(Failure),
    /// The relay refused the recipient for good, because there is no such mailbox. Nothing was accepted.
    NoMailbox(Failure),
    /// Not the mail's fault: no session with the relay came about, or the relay is busy or full (421, 450, 451, 452,
    /// 454). Nothing was accepted.
    Deferred(Failure),
    /// The relay refused the mail because there were too many (421, 450, 451, 454). Nothing was accepted.
    Throttled {
        /// What it said.
        why: Failure,
        /// When its turn will come.
        after: Duration,
    },
    /// The recipient's run may not go on now: no mail was begun, and the message waits.
    Held(Failure),
    /// Our own limits leave the mail no turn soon: none was begun, and the message waits.
    Paced(Failure),
    /// A dialogue that broke off before the final dot, or a temporary refusal of this recipient. Nothing was accepted.
    Temporary(Failure),
    /// The mail was sent up to the final dot, and the reply is missing: the relay may have accepted it.
    Unknown(Failure),
    /// The recipient's mail was sent by another message, or may have been: none was begun.
    Duplicate(Failure),
    /// The recipient's address is on the suppression list: no mail was begun.
    Suppressed(Failure),
}

impl SendFault {
    /// What went wrong.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Permanent(why)
            | Self::NoMailbox(why)
            | Self::Deferred(why)
            | Self::Throttled { why, .. }
            | Self::Held(why)
            | Self::Paced(why)
            | Self::Temporary(why)
            | Self::Unknown(why)
            | Self::Duplicate(why)
            | Self::Suppressed(why) => why,
        }
    }

    /// What this means for the message. Unknown is a retry with the code `unknown-after-dot`, which sends the same
    /// Message-ID again, unless the ledger of effects holds the message.
    pub fn into_outcome(self) -> Outcome {
        match self {
            Self::Permanent(why) | Self::NoMailbox(why) => Outcome::Dead { why },
            Self::Deferred(why) => Outcome::Deferred { why, after: None },
            Self::Throttled { why, after } => Outcome::Deferred { why, after: Some(after) },
            Self::Held(why) => Outcome::Waiting { why, after: None },
            Self::Paced(why) => Outcome::Paced { why, after: None },
            Self::Temporary(why) => Outcome::Retry { why, after: None, effect: Effect::None },
            Self::Unknown(why) => Outcome::Retry { why, after: None, effect: Effect::Unknown },
            Self::Duplicate(why) => Outcome::Duplicate { why },
            Self::Suppressed(why) => Outcome::LeftOut { by: LeftOutBy::Suppression, why: why.text },
        }
    }
}

/// A mail that was not accepted, and what that says about the relay.
#[derive(Clone, Debug)]
pub(super) struct Undelivered {
    pub(super) fault: SendFault,
    /// `None` when the relay was not called. Boxed, so that results stay small.
    pub(super) verdict: Option<Box<Verdict>>,
}

impl Undelivered {
    fn of(fault: SendFault, verdict: Verdict) -> Self {
        Self { fault, verdict: Some(Box::new(verdict)) }
    }

    fn unreachable(why: Failure, needs_operator: bool) -> Self {
        let verdict = Verdict::Unreachable { needs_operator, why: why.text.clone() };
        Self::of(SendFault::Deferred(why), verdict)
    }
}

/// The step of the dialogue at which it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// TCP, TLS, greeting, EHLO and AUTH: nothing of a mail was sent yet.
    Session,
    /// MAIL FROM: the first command of a mail.
    MailFrom,
    /// RCPT TO.
    RcptTo,
    /// DATA, until the relay asks for the message.
    Data,
    /// The message, until its last byte was written.
    Body,
    /// The final dot, from just before it is written to the reply.
    EndOfData,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Self::Session => "at the start of the session",
            Self::MailFrom => "at MAIL FROM",
            Self::RcptTo => "at RCPT TO",
            Self::Data => "at DATA",
            Self::Body => "in the middle of the message",
            Self::EndOfData => "after the final dot",
        }
    }
}

/// What has, or may have, too many mails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// The relay.
    OfRelay(Sign),
    /// The recipient's domain, as far as the reply tells.
    OfDomain(Sign),
}

/// How a dialogue failed.
#[derive(Clone, Debug)]
pub(super) enum SmtpFailure {
    /// The relay replied 4xx or 5xx: the dialogue is still in step.
    Reply {
        /// The step.
        step: Step,
        /// The reply code, 400 to 599.
        code: u16,
        /// The reply's text, lines joined.
        text: String,
    },
    /// No session came about, and not because of a reply.
    NoSession {
        /// `refused`, `connect-timeout`, `certificate`, `timeout`, `lost`, `protocol`, `auth` and so on.
        code: &'static str,
        /// What happened and what to do.
        text: String,
        /// Whether waiting cannot mend it.
        needs_operator: bool,
    },
    /// The relay takes mail for the recipient, but the ledger of effects does not permit it.
    Withheld(SendFault),
    /// Our own limits leave the mail no turn soon; the relay was not asked.
    Paced(Failure),
    /// The relay takes mail for the recipient, but its daily quota is used up for so long.
    OverQuota(Duration),
    /// No valid reply came to a command of the mail: the connection cannot be used any more.
    Broken {
        /// The step.
        step: Step,
        /// `timeout`, `lost`, `protocol`.
        code: &'static str,
        /// What happened.
        text: String,
    },
}

impl SmtpFailure {
    /// A dialogue without a valid reply; in [`Step::Session`] there is no session.
    pub(super) fn broken(step: Step, code: &'static str, text: impl ToString) -> Self {
        let text = text.to_string();
        match step {
            Step::Session => Self::NoSession { code, text, needs_operator: false },
            step => Self::Broken { step, code, text },
        }
    }

    /// No session, and waiting cannot mend it.
    pub(super) fn needs_operator(code: &'static str, text: impl ToString) -> Self {
        Self::NoSession { code, text: text.to_string(), needs_operator: true }
    }

    /// No connection or no TLS.
    pub(super) fn unreachable(error: &std::io::Error) -> Self {
        let cause = Unreachable::of(error);
        let keys = Keys {
            address: "relay.host and relay.port",
            tls: "relay.tls and relay.port",
            connect_timeout: "relay.connect_timeout",
        };
        let remedy = cause.remedy(&keys);
        let text = format!("{} ({remedy})", cause.text);
        Self::NoSession { code: cause.code, text, needs_operator: cause.needs_operator }
    }

    /// Whether a parked connection turned out to be closed or closing, before the relay accepted any command of a mail.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Broken { step: Step::MailFrom, .. } | Self::Reply { step: Step::MailFrom, code: 421, .. })
    }

    /// Whether the dialogue is still in step, so that QUIT can be sent.
    pub(super) fn is_in_step(&self) -> bool {
        match self {
            Self::Reply { code, .. } => *code != 421,
            Self::Withheld(_) | Self::Paced(_) | Self::OverQuota(_) => true,
            Self::NoSession { .. } | Self::Broken { .. } => false,
        }
    }

    /// What has, or may have, too many mails; `None` when the relay says something else. 452 says that it has no space, however
    /// few there are, and 4.1.x and 4.2.x speak of the recipient.
    pub(super) fn excess(&self) -> Option<Excess> {
        let Self::Reply { step, code, text } = self else { return None };
        let enhanced = enhanced(*code, text).unwrap_or_default();
        let text = text.to_ascii_lowercase();
        // Each recipient is refused once by a server that does that, however few mails there are.
        let is_greylisted = text.contains("greylist") || text.contains("graylist");
        let of_the_recipient = enhanced.starts_with("4.1.") || enhanced.starts_with("4.2.") || is_greylisted;
        let speaks_of_load = *code == 454
            || enhanced.starts_with("4.7.")
            || ["4.3.2", "4.4.5"].contains(&enhanced)
            || speaks_of_load(&text);
        let sign = if speaks_of_load { Sign::Load } else { Sign::Unclear };
        match (code, step) {
            (421, _) => Some(Excess::OfRelay(Sign::Load)),
            (450 | 451 | 454, _) if of_the_recipient => None,
            (450 | 451 | 454, Step::MailFrom) => Some(Excess::OfRelay(sign)),
            (450 | 451 | 454, Step::RcptTo | Step::Data | Step::Body | Step::EndOfData) => Some(Excess::OfDomain(sign)),
            _ => None,
        }
    }

    /// The fault of a mail that the ledger of effects does not permit; `None` when it does.
    pub(super) fn withheld(permission: Result<Permission, Failure>) -> Option<Self> {
        let why = |code, text| Failure::new("effect", "ledger", code, text);
        let fault = match permission {
            Ok(Permission::Granted) => return None,
            Ok(Permission::Duplicate) => {
                let text = "another message mailed this recipient, or may have; this one is deleted without a mail";
                SendFault::Duplicate(why("duplicate", text))
            }
            Ok(Permission::InWork) => {
                SendFault::Deferred(why("in-work", "another message of this recipient is being mailed"))
            }
            Ok(Permission::Held) => {
                SendFault::Held(why("held", "the run is held (see `nightmail run list`), so this mail waits"))
            }
            Ok(Permission::OtherDocument) => {
                let text =
                    "another statement was made and checked since this attempt began: the next one compares them";
                SendFault::Held(why("other-document", text))
            }
            Ok(Permission::Abandoned) => {
                SendFault::Permanent(why("abandoned", "the run was abandoned: nobody of it is mailed any more"))
            }
            Ok(Permission::Folded) => {
                let text = "the run was folded: whom it mailed is not on record any more, so nobody of it is mailed";
                SendFault::Permanent(why("folded", text))
            }
            Ok(Permission::Lost) => {
                SendFault::Deferred(why("lost", "the message was taken from this attempt before its mail"))
            }
            Ok(Permission::OverQuota(wait)) => return Some(Self::OverQuota(wait)),
            Ok(Permission::Suppressed) => {
                let text = "the address came onto the suppression list while its mail was made";
                SendFault::Suppressed(why("suppressed", text))
            }
            Err(why) => SendFault::Deferred(why),
        };
        Some(Self::Withheld(fault))
    }

    /// Classifies the failure; `relay` is its address, for messages to people.
    pub(super) fn classify(self, relay: &str) -> Undelivered {
        match self {
            Self::Reply { step, code, text } => replied(step, code, &text, relay),
            Self::NoSession { code, text, needs_operator } => {
                let why = Failure::new("smtp", "relay", code, format!("relay {relay}: {text}"));
                Undelivered::unreachable(why, needs_operator)
            }
            Self::Withheld(fault) => Undelivered::of(fault, Verdict::Answered),
            Self::Paced(why) => Undelivered { fault: SendFault::Paced(why), verdict: None },
            Self::OverQuota(after) => {
                let wait = units::show_duration(Duration::from_secs(after.as_secs()));
                let text = format!("relay {relay}: relay.per_day is used up; the next mail may go in {wait}");
                let why = Failure::new("smtp", "relay", "over-quota", text);
                Undelivered::of(SendFault::Deferred(why), Verdict::OverQuota { after })
            }
            Self::Broken { step: Step::EndOfData, code, text } => {
                let text = format!("relay {relay}: {code} after the final dot, the mail may have been taken: {text}");
                let why = Failure::new("smtp", "relay", "unknown-after-dot", text);
                Undelivered::of(SendFault::Unknown(why), Verdict::TimedOut)
            }
            Self::Broken { step, code, text } => {
                let text = format!("relay {relay} {}: {text}", step.words());
                let why = Failure::new("smtp", "relay", code, text);
                Undelivered::of(SendFault::Temporary(why), Verdict::TimedOut)
            }
        }
    }
}

fn replied(step: Step, code: u16, text: &str, relay: &str) -> Undelivered {
    let enhanced = enhanced(code, text);
    let class = match enhanced {
        Some(enhanced) => format!("{code} {enhanced}"),
        None => code.to_string(),
    };
    let refuses_login = refuses_login(step, code);
    let remedy = if refuses_login { " (check relay.username and relay.password)" } else { "" };
    let text = format!("relay {relay} replied {}: {code} {text}{remedy}", step.words());
    let why = Failure::new("smtp", "relay", class, text);
    let of_the_mailbox = enhanced.is_some_and(|enhanced| enhanced.starts_with("4.2."));
    match code {
        421 => Undelivered::of(SendFault::Deferred(why), Verdict::Throttled { after: None }),
        // A refused session says nothing about this mail. As a permanent fault, it would send every message of the run
        // to the dead-letter queue.
        _ if step == Step::Session || refuses_login => Undelivered::unreachable(why, refuses_login),
        500.. if step == Step::RcptTo && enhanced.is_some_and(|enhanced| NO_MAILBOX.contains(&enhanced)) => {
            Undelivered::of(SendFault::NoMailbox(why), Verdict::Answered)
        }
        500.. => Undelivered::of(SendFault::Permanent(why), Verdict::Answered),
        450 | 451 | 452 | 454 if !of_the_mailbox => Undelivered::of(SendFault::Deferred(why), Verdict::Answered),
        _ => Undelivered::of(SendFault::Temporary(why), Verdict::Answered),
    }
}

/// Whether the words of a reply, in lower case, speak of too many mails.
fn speaks_of_load(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    // Whole words: "temporarily" has "rate" in no sense.
    let is_load = |word: &str| {
        ["rate", "rates", "ratelimit", "ratelimited"].contains(&word)
            || word.starts_with("throttl")
            || word.starts_with("limit")
    };
    ["too many", "too fast", "too much", "slow down"].iter().any(|words| text.contains(words)) || words.any(is_load)
}

/// The enhanced codes that say that a mailbox does not exist (RFC 3463 section 3.2, RFC 7505 section 4): no such mailbox,
/// an address that cannot be one, a mailbox that has moved without an address, a domain that takes no mail. 5.1.2 is none of
/// them: it speaks of a domain that was not found, which a resolver out of order says of all.
const NO_MAILBOX: [&str; 4] = ["5.1.1", "5.1.3", "5.1.6", "5.1.10"];

/// Whether the reply refuses the login. RFC 4954 section 6 has these codes for nothing else; 530 also answers a MAIL of
/// a session that should have logged in.
fn refuses_login(step: Step, code: u16) -> bool {
    matches!((step, code), (Step::Session, 530 | 534 | 535 | 538) | (Step::MailFrom, 530))
}

/// The enhanced status code that the text starts with, when it agrees with the reply code (RFC 2034 section 4).
fn enhanced(code: u16, text: &str) -> Option<&str> {
    let word = text.split_whitespace().next()?;
    let mut parts = word.split('.');
    let class = parts.next()?;
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let well_formed = digits(parts.next()?) && digits(parts.next()?) && parts.next().is_none();
    (well_formed && class == (code / 100).to_string()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of the outcome, the failure's code and what it says about the relay.
    fn class(failure: SmtpFailure) -> (&'static str, String, Verdict) {
        let undelivered = failure.classify("mx:25");
        let code = undelivered.fault.failure().code.clone();
        (undelivered.fault.into_outcome().name(), code, *undelivered.verdict.unwrap())
    }

    fn reply(step: Step, code: u16, text: &str) -> (&'static str, String, Verdict) {
        class(SmtpFailure::Reply { step, code, text: text.into() })
    }

    #[test]
    fn replies_are_classed_by_code_and_enhanced_code() {
        let throttled = Verdict::Throttled { after: None };
        for (code, text, end, shown) in [
            (550, "5.1.1 no such user", "dead", "550 5.1.1"),
            (554, "spam", "dead", "554"),
            (550, "4.1.1 codes disagree", "dead", "550"),
            (421, "4.7.0 too busy", "deferred", "421 4.7.0"),
            (421, "4.2.1 too busy", "deferred", "421 4.2.1"),
            (450, "4.7.1 greylisted", "deferred", "450 4.7.1"),
            (450, "4.2.1 mailbox busy", "retry", "450 4.2.1"),
            (452, "4.2.2 mailbox full", "retry", "452 4.2.2"),
            (451, "", "deferred", "451"),
            (452, "no space", "deferred", "452"),
            (454, "tls", "deferred", "454"),
            (432, "4.2", "retry", "432"),
            (499, "4.2.1.9 odd", "retry", "499"),
            (450, "4.2.x of the mailbox", "deferred", "450"),
            (450, "4.2.1234 of the mailbox", "deferred", "450"),
            (450, "4.2.123 of the mailbox", "retry", "450 4.2.123"),
            (550, "5.a.1 no such user", "dead", "550"),
            (550, "5.1000.1 no such user", "dead", "550"),
            (550, "5..1 no such user", "dead", "550"),
        ] {
            let verdict = if code == 421 { &throttled } else { &Verdict::Answered };
            for step in [Step::RcptTo, Step::EndOfData] {
                assert_eq!(reply(step, code, text), (end, shown.to_owned(), verdict.clone()), "{code} {text}");
            }
        }
    }

    #[test]
    fn a_reply_that_speaks_of_too_many_mails_is_told_from_one_that_may_and_one_that_speaks_of_the_recipient() {
        let excess = |step, code, text: &str| SmtpFailure::Reply { step, code, text: text.into() }.excess();
        for code in [450, 451, 454] {
            assert_eq!(excess(Step::RcptTo, code, "4.7.0 later"), Some(Excess::OfDomain(Sign::Load)));
            assert_eq!(excess(Step::MailFrom, code, "4.7.0 slow down"), Some(Excess::OfRelay(Sign::Load)));
            for text in ["4.2.1 mailbox busy", "4.1.1 too many hops to it", "4.7.1 Greylisted, try again"] {
                assert_eq!(excess(Step::RcptTo, code, text), None, "{text}");
            }
            assert_eq!(excess(Step::Session, code, "4.7.0 slow down"), None, "the breaker's");
        }
        for code in [450, 451] {
            for text in ["", "mailbox unavailable", "4.3.0 temporarily out of order, operator was told"] {
                assert_eq!(excess(Step::RcptTo, code, text), Some(Excess::OfDomain(Sign::Unclear)), "{text}");
                assert_eq!(excess(Step::MailFrom, code, text), Some(Excess::OfRelay(Sign::Unclear)), "{text}");
            }
            for text in ["4.3.2 no", "4.4.5 no", "Rate exceeded", "Throttled", "too many mails", "4.3.0 Limit reached"]
            {
                assert_eq!(excess(Step::EndOfData, code, text), Some(Excess::OfDomain(Sign::Load)), "{text}");
            }
        }
        assert_eq!(excess(Step::EndOfData, 454, ""), Some(Excess::OfDomain(Sign::Load)));
        assert_eq!(excess(Step::Session, 421, "too many connections"), Some(Excess::OfRelay(Sign::Load)));
        assert_eq!(excess(Step::RcptTo, 421, "4.2.1 too busy"), Some(Excess::OfRelay(Sign::Load)));
        assert_eq!(excess(Step::RcptTo, 452, "4.3.1 no space"), None);
        assert_eq!(excess(Step::RcptTo, 550, "5.7.0 no"), None);
        assert_eq!(SmtpFailure::broken(Step::Data, "lost", "").excess(), None);
    }

    #[test]
    fn only_rcpt_and_a_code_that_speaks_of_the_mailbox_say_that_there_is_none() {
        let has_none = |step, text: &str| {
            let failure = SmtpFailure::Reply { step, code: 550, text: text.into() };
            matches!(failure.classify("mx:25").fault, SendFault::NoMailbox(_))
        };
        for code in ["5.1.1", "5.1.3", "5.1.6", "5.1.10"] {
            assert!(has_none(Step::RcptTo, &format!("{code} unknown")), "{code}");
            assert!(!has_none(Step::EndOfData, &format!("{code} unknown")), "{code} after the dot");
        }
        for text in ["5.1.2 no such domain", "5.7.1 denied", "5.2.2 full", "no such user", "4.1.1 codes disagree"] {
            assert!(!has_none(Step::RcptTo, text), "{text}");
        }
    }

    #[test]
    fn a_refused_session_defers_and_a_refused_login_waits_for_an_operator() {
        let unreachable = |class: (&str, String, Verdict)| match class.2 {
            Verdict::Unreachable { needs_operator, why } => (class.0.to_owned(), needs_operator, why),
            other => panic!("{other:?}"),
        };
        for code in [450, 451, 454, 500, 501, 550, 554] {
            let (end, needs_operator, _) = unreachable(reply(Step::Session, code, "no"));
            assert_eq!((end.as_str(), needs_operator), ("deferred", false), "{code}");
        }
        for (step, code) in [(Step::Session, 530), (Step::Session, 534), (Step::Session, 535), (Step::Session, 538)] {
            let (end, needs_operator, why) = unreachable(reply(step, code, "5.7.8 no"));
            assert_eq!((end.as_str(), needs_operator), ("deferred", true), "{code}");
            assert!(why.ends_with("(check relay.username and relay.password)"), "{why}");
        }
        assert!(unreachable(reply(Step::MailFrom, 530, "5.7.0 authentication required")).1);
        assert_eq!(reply(Step::RcptTo, 530, "no such user").0, "dead");
        assert_eq!(reply(Step::Session, 421, "busy").2, Verdict::Throttled { after: None });
    }

    #[test]
    fn without_a_reply_it_is_unreachable_before_the_mail_retried_in_it_and_unknown_after_the_dot() {
        let no_session = class(SmtpFailure::broken(Step::Session, "lost", "eof"));
        assert_eq!((no_session.0, no_session.1.as_str()), ("deferred", "lost"));
        assert!(matches!(no_session.2, Verdict::Unreachable { needs_operator: false, .. }));
        for step in [Step::MailFrom, Step::RcptTo, Step::Data, Step::Body] {
            let undelivered = SmtpFailure::broken(step, "lost", "eof").classify("mx:25");
            assert!(matches!(undelivered.fault, SendFault::Temporary(_)), "{step:?}");
            assert_eq!(undelivered.verdict.as_deref(), Some(&Verdict::TimedOut));
        }
        let undelivered = SmtpFailure::broken(Step::EndOfData, "timeout", "").classify("mx:25");
        assert_eq!(
            (undelivered.fault.failure().code.as_str(), undelivered.verdict.as_deref()),
            ("unknown-after-dot", Some(&Verdict::TimedOut))
        );
        assert_eq!(undelivered.fault.into_outcome().name(), "retry");
    }

    #[test]
    fn each_cause_is_told_with_relay_step_and_remedy() {
        let text = |failure: SmtpFailure| failure.classify("mx:25").fault.failure().text.clone();
        let broken = |step, code| text(SmtpFailure::broken(step, code, "no reply within 5m"));
        assert_eq!(broken(Step::Session, "timeout"), "relay mx:25: no reply within 5m");
        assert_eq!(broken(Step::MailFrom, "timeout"), "relay mx:25 at MAIL FROM: no reply within 5m");
        assert_eq!(broken(Step::RcptTo, "timeout"), "relay mx:25 at RCPT TO: no reply within 5m");
        assert_eq!(broken(Step::Data, "timeout"), "relay mx:25 at DATA: no reply within 5m");
        assert_eq!(broken(Step::Body, "timeout"), "relay mx:25 in the middle of the message: no reply within 5m");
        let unknown = "relay mx:25: timeout after the final dot, the mail may have been taken: no reply within 5m";
        assert_eq!(broken(Step::EndOfData, "timeout"), unknown);
        let reply = |step, code| text(SmtpFailure::Reply { step, code, text: "no".into() });
        assert_eq!(reply(Step::Session, 554), "relay mx:25 replied at the start of the session: 554 no");
        assert_eq!(reply(Step::EndOfData, 554), "relay mx:25 replied after the final dot: 554 no");
        let refused = text(SmtpFailure::unreachable(&std::io::ErrorKind::ConnectionRefused.into()));
        let remedy = "(is it up? check relay.host and relay.port)";
        assert_eq!(refused, format!("relay mx:25: no connection: connection refused {remedy}"));
    }
}
