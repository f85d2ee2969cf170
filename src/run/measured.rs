//! What earlier runs of a schedule measured: what the next one is compared with.

use crate::store::Snapshot;
use crate::store::record::Measured;

use super::{Error, Report, report};

/// Runs that something was measured of are looked for among so many earlier ones.
const EARLIER_LOOKED_AT: usize = 400;
/// A run of which fewer recipients, or less time, were measured says nothing about the next one.
const MEASURED_MIN: (u64, u64) = (10, 1000);

/// Recipients a second, as was measured.
pub fn per_second(measured: &Measured) -> Option<f64> {
    let is_enough = measured.ended >= MEASURED_MIN.0 && measured.span_ms >= MEASURED_MIN.1;
    is_enough.then(|| measured.ended as f64 * 1000.0 / measured.span_ms as f64)
}

/// The newest run of the schedule before that one of which enough was measured, and what.
///
/// # Errors
/// A storage fault.
pub fn before(snapshot: &Snapshot, schedule: &str, before: u64) -> Result<Option<(Report, Measured)>, Error> {
    for (id, pace) in snapshot.run_paces()?.newest(0..=before.saturating_sub(1), EARLIER_LOOKED_AT)? {
        let is_ours = snapshot.runs()?.get(&id)?.is_some_and(|run| run.schedule == schedule);
        if is_ours && per_second(&pace.measured).is_some() {
            return Ok(Some((report::report(snapshot, id)?, pace.measured)));
        }
    }
    Ok(None)
}
