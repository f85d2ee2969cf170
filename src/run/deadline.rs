//! How a run stands to its deadline. A deadline alerts and stops nothing.

use crate::base::Timestamp;
use crate::store::record::{DeadlineState, RunDeadline};

use super::eta::Eta;

/// What is known of a run when its standing is judged.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The deadline by the configuration.
    pub at: Option<Timestamp>,
    /// When every recipient was first seen to have an end.
    pub ended_at: Option<Timestamp>,
    /// When it will probably have ended.
    pub eta: Option<&'a Eta>,
    /// The present moment.
    pub now: Timestamp,
}

/// How the run stands to its deadline now; `before` is how it stood. Once it has ended, that is final. It is at risk when
/// its estimate is past the deadline, and on time again when the whole band is before it, so that it does not go to and fro.
pub fn judge(before: Option<RunDeadline>, what: &Standing<'_>) -> Option<RunDeadline> {
    use DeadlineState::{AtRisk, Met, Missed, OnTime};
    if let Some(before) =
        before.filter(|before| before.state == Met || what.ended_at.is_some() && before.state == Missed)
    {
        return Some(before);
    }
    let at = what.at?;
    let before = before.filter(|before| before.at == at);
    let state = match (what.ended_at, what.eta) {
        (Some(ended), _) if ended <= at => Met,
        (Some(_), _) => Missed,
        (None, _) if what.now > at => Missed,
        (None, Some(eta)) if eta.at > at => AtRisk,
        (None, Some(eta)) if eta.latest <= at => OnTime,
        (None, _) => before.map_or(OnTime, |before| before.state),
    };
    match before {
        Some(before) if before.state == state => Some(before),
        _ => Some(RunDeadline { at, state, since: what.ended_at.filter(|_| state == Met).unwrap_or(what.now) }),
    }
}

#[cfg(test)]
mod tests {
    use DeadlineState::{AtRisk, Met, Missed, OnTime};

    use super::super::eta::Basis;
    use super::*;

    const fn at(minute: u64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn eta(minute: u64, latest: u64) -> Eta {
        let (at, earliest, latest) = (at(minute), at(minute), at(latest));
        Eta { at, earliest, latest, per_hour: 1, basis: Basis::Measured, bound_by: None }
    }

    /// The state at a minute, for a deadline at the hundredth.
    fn next(before: Option<RunDeadline>, minute: u64, eta: Option<&Eta>, ended: Option<u64>) -> Option<RunDeadline> {
        judge(before, &Standing { at: Some(at(100)), ended_at: ended.map(at), eta, now: at(minute) })
    }

    #[test]
    fn a_run_is_at_risk_when_its_estimate_is_past_the_deadline_and_on_time_when_its_band_is_before_it() {
        let mut run = next(None, 1, None, None);
        assert_eq!(run, Some(RunDeadline { at: at(100), state: OnTime, since: at(1) }), "nothing is known yet");
        for (minute, expected, estimate) in [
            (2, (OnTime, 1), Some(eta(95, 99))),
            (3, (OnTime, 1), Some(eta(99, 103))),
            (4, (AtRisk, 4), Some(eta(101, 105))),
            (5, (AtRisk, 4), Some(eta(99, 103))),
            (6, (AtRisk, 4), None),
            (7, (OnTime, 7), Some(eta(95, 99))),
            (8, (AtRisk, 8), Some(eta(120, 150))),
            (100, (AtRisk, 8), Some(eta(120, 150))),
            (101, (Missed, 101), Some(eta(120, 150))),
            (102, (Missed, 101), None),
        ] {
            run = next(run, minute, estimate.as_ref(), None);
            assert_eq!(run.map(|run| (run.state, run.since)), Some((expected.0, at(expected.1))), "minute {minute}");
        }
        assert_eq!(next(run, 130, None, Some(125)), run, "it has ended, and missed it all the same");
    }

    #[test]
    fn an_end_in_time_is_final() {
        let met = next(None, 91, None, Some(90));
        assert_eq!(met, Some(RunDeadline { at: at(100), state: Met, since: at(90) }));
        let redriven = judge(met, &Standing { at: Some(at(50)), ended_at: Some(at(90)), eta: None, now: at(200) });
        assert_eq!(redriven, met, "neither a redrive nor another configuration changes it");
        assert_eq!(next(None, 110, None, Some(105)).unwrap().state, Missed);
    }

    #[test]
    fn a_run_under_way_follows_the_configuration() {
        let run = next(None, 101, None, None);
        assert_eq!(run.unwrap().state, Missed);
        let later = judge(run, &Standing { at: Some(at(200)), ended_at: None, eta: None, now: at(102) });
        assert_eq!(later, Some(RunDeadline { at: at(200), state: OnTime, since: at(102) }));
        assert_eq!(judge(run, &Standing { at: None, ended_at: None, eta: None, now: at(102) }), None);
    }
}
