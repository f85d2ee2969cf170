//! What the relay's replies, or their absence, mean for the mail.
//!
//! Sources: RFC 5321 section 4.2 (reply codes), RFC 3463 (enhanced codes).

use crate::base::{Effect, Failure, Outcome};

/// Why a mail was not accepted, or why it is unknown whether it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// The relay refused this mail for good (5xx). Nothing was accepted.
    Permanent(Failure),
    /// The relay is busy or full (421, 450, 451, 452, 454): not the mail's fault. Nothing was accepted.
    Deferred(Failure),
    /// A temporary fault before the final dot, or a temporary refusal. Nothing was accepted.
    Temporary(Failure),
    /// The mail was sent up to the final dot, and the reply is missing: the relay may have accepted it.
    Unknown(Failure),
}

impl SendFault {
    /// What went wrong.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Permanent(why) | Self::Deferred(why) | Self::Temporary(why) | Self::Unknown(why) => why,
        }
    }

    /// What this means for the message. Unknown is a retry with the code `unknown-after-dot`, which sends the same
    /// Message-ID again; a ledger of effects can decide otherwise before it calls this.
    pub fn into_outcome(self) -> Outcome {
        match self {
            Self::Permanent(why) => Outcome::Dead { why },
            Self::Deferred(why) => Outcome::Deferred { why, after: None },
            Self::Temporary(why) => Outcome::Retry { why, after: None, effect: Effect::None },
            Self::Unknown(why) => Outcome::Retry { why, after: None, effect: Effect::Unknown },
        }
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
    /// No valid reply came: the connection cannot be used any more.
    Broken {
        /// The step.
        step: Step,
        /// `timeout`, `connect`, `tls`, `lost`, `protocol`, `auth`.
        code: &'static str,
        /// What happened.
        text: String,
    },
}

impl SmtpFailure {
    pub(super) fn broken(step: Step, code: &'static str, text: impl ToString) -> Self {
        Self::Broken { step, code, text: text.to_string() }
    }

    /// Whether a parked connection turned out to be closed or closing, before the relay accepted any command of a mail.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Broken { step: Step::MailFrom, .. } | Self::Reply { step: Step::MailFrom, code: 421, .. })
    }

    /// Whether the dialogue is still in step, so that QUIT can be sent.
    pub(super) fn is_in_step(&self) -> bool {
        matches!(self, Self::Reply { code, .. } if *code != 421)
    }

    /// Classifies the failure; `relay` is its address, for messages to people.
    pub(super) fn into_fault(self, relay: &str) -> SendFault {
        match self {
            Self::Reply { step, code, text } => replied(step, code, &text, relay),
            Self::Broken { step: Step::EndOfData, code, text } => {
                let text = format!("relay {relay}: {code} after the final dot, the mail may have been taken: {text}");
                SendFault::Unknown(Failure::new("smtp", "relay", "unknown-after-dot", text))
            }
            Self::Broken { step, code, text } => {
                let text = format!("relay {relay} {}: {text}", step.words());
                SendFault::Temporary(Failure::new("smtp", "relay", code, text))
            }
        }
    }
}

fn replied(step: Step, code: u16, text: &str, relay: &str) -> SendFault {
    let enhanced = enhanced(code, text);
    let class = match enhanced {
        Some(enhanced) => format!("{code} {enhanced}"),
        None => code.to_string(),
    };
    let why = Failure::new("smtp", "relay", class, format!("relay {relay} replied {}: {code} {text}", step.words()));
    let of_the_mailbox = enhanced.is_some_and(|enhanced| enhanced.starts_with("4.2."));
    match code {
        // A refused session (wrong password, blocked host) says nothing about this mail. As permanent, it would send
        // every message of the run to the dead-letter queue.
        500.. if step == Step::Session => SendFault::Temporary(why),
        500.. => SendFault::Permanent(why),
        _ if of_the_mailbox => SendFault::Temporary(why),
        421 | 450 | 451 | 452 | 454 => SendFault::Deferred(why),
        _ => SendFault::Temporary(why),
    }
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

    fn class(step: Step, code: u16, text: &str) -> (&'static str, String) {
        let fault = SmtpFailure::Reply { step, code, text: text.into() }.into_fault("mx:25");
        let code = fault.failure().code.clone();
        (fault.into_outcome().name(), code)
    }

    #[test]
    fn replies_are_classed_by_code_and_enhanced_code() {
        for (code, text, end, shown) in [
            (550, "5.1.1 no such user", "dead", "550 5.1.1"),
            (554, "spam", "dead", "554"),
            (550, "4.1.1 codes disagree", "dead", "550"),
            (421, "4.7.0 too busy", "deferred", "421 4.7.0"),
            (450, "4.7.1 greylisted", "deferred", "450 4.7.1"),
            (450, "4.2.1 mailbox busy", "retry", "450 4.2.1"),
            (452, "4.2.2 mailbox full", "retry", "452 4.2.2"),
            (451, "", "deferred", "451"),
            (452, "no space", "deferred", "452"),
            (454, "tls", "deferred", "454"),
            (432, "4.2", "retry", "432"),
            (499, "4.2.1.9 odd", "retry", "499"),
        ] {
            assert_eq!(class(Step::RcptTo, code, text), (end, shown.to_owned()), "{code} {text}");
            assert_eq!(class(Step::EndOfData, code, text), (end, shown.to_owned()), "{code} {text}");
        }
        assert_eq!(class(Step::Session, 535, "5.7.8 no").0, "retry");
        assert_eq!(class(Step::Session, 421, "busy").0, "deferred");
    }

    #[test]
    fn only_after_the_dot_the_end_is_unknown() {
        for step in [Step::Session, Step::MailFrom, Step::RcptTo, Step::Data, Step::Body] {
            let fault = SmtpFailure::broken(step, "lost", "eof").into_fault("mx:25");
            assert!(matches!(fault, SendFault::Temporary(_)), "{step:?}");
        }
        let fault = SmtpFailure::broken(Step::EndOfData, "timeout", "").into_fault("mx:25");
        assert_eq!(fault.failure().code, "unknown-after-dot");
        assert_eq!(fault.into_outcome().name(), "retry");
    }
}
