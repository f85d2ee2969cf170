//! Who syncs before answering, as far as counting syncs can tell, and where that makes a rival one that must not be
//! faster.

/// Syncs for each message of one client that does one thing after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Syncs {
    pub(crate) send: f64,
    /// For taking a message and acknowledging it.
    pub(crate) take: f64,
}

/// What a rival answers at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Sends and acknowledgements.
    All,
    /// Acknowledgements have no answer: their sender cannot know when they are on disk.
    SendsAlone,
}

/// A client that awaits each answer cannot have fewer syncs than messages if each answer awaits one.
const EACH: f64 = 1.0;

/// Whether it must not be faster: as 1 producer, as 32 producers, as 32 consumers. Without counted syncs it must not.
pub(crate) fn binding(syncs: Option<Syncs>, answers: Answers) -> [bool; 3] {
    let send = syncs.is_none_or(|syncs| syncs.send >= EACH);
    let take = answers == Answers::All && syncs.is_none_or(|syncs| syncs.take >= EACH);
    [send, send, take]
}

/// The same for the table.
pub(crate) fn text(syncs: Option<Syncs>, answers: Answers) -> String {
    let says = |syncs: f64| if syncs >= EACH { "yes" } else { "no" };
    let ack = |syncs: Syncs| if answers == Answers::All { says(syncs.take) } else { "has no answer" };
    syncs.map_or("not counted".into(), |syncs| format!("sends {}, ack {}", says(syncs.send), ack(syncs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_syncs_than_messages_are_no_sync_before_answering() {
        let cases = [
            (Some(Syncs { send: 1.0, take: 2.5 }), Answers::All, "sends yes, ack yes", [true; 3]),
            (Some(Syncs { send: 0.98, take: 1.0 }), Answers::All, "sends no, ack yes", [false, false, true]),
            (Some(Syncs { send: 1.1, take: 0.5 }), Answers::All, "sends yes, ack no", [true, true, false]),
            (
                Some(Syncs { send: 1.1, take: 1.0 }),
                Answers::SendsAlone,
                "sends yes, ack has no answer",
                [true, true, false],
            ),
            (None, Answers::All, "not counted", [true; 3]),
        ];
        for (syncs, answers, says, must_not_be_faster) in cases {
            assert_eq!(text(syncs, answers), says);
            assert_eq!(binding(syncs, answers), must_not_be_faster);
        }
    }
}
