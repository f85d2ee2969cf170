//! Builds the functions from their settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Clock;
use crate::config::{FunctionSettings, Kind, Settings};
use crate::function::statement::{self, DocumentOptions, MessageIds, PdfStatementRenderer, Statement, Users};
use crate::function::{self, Function};
use crate::queue::Queues;
use crate::run::SendingLimits;
use crate::schedule::{self, FanOut, FanOutOptions};
use crate::store::record::MeasuredLimits;

use super::Error;
use super::error::FunctionFault;

/// Builds every function and discards it: this finds faults that depend on the machine, such as missing root
/// certificates.
///
/// # Errors
/// The faults of all functions, at most one each.
pub fn check(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<(), Error> {
    each(settings, |function, params| match &function.kind {
        Kind::Statement(options) => statement(options, params, clock).map(drop),
        Kind::FanOut(options) => users(options, params, clock).map(drop),
    })?;
    Ok(())
}

/// Builds all functions in the order of their settings, before the first message is received.
///
/// # Errors
/// As [`check`].
pub(super) fn make(
    settings: &Settings,
    queues: &Queues,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Arc<dyn Function>>, Error> {
    each(settings, |function, params| -> Result<Arc<dyn Function>, _> {
        match &function.kind {
            Kind::Statement(options) => Ok(Arc::new(statement(options, params, clock)?)),
            Kind::FanOut(options) => {
                let users = users(options, params, clock)?;
                Ok(Arc::new(FanOut::new(options.clone(), users, queues.clone())))
            }
        }
    })
}

/// Applies a fallible step to every function: returns all results, or all faults.
fn each<T>(
    settings: &Settings,
    make: impl Fn(&FunctionSettings, &[&str]) -> Result<T, function::Error>,
) -> Result<Vec<T>, Error> {
    let params = params(settings);
    let (mut made, mut faults) = (Vec::new(), Vec::new());
    for function in &settings.functions {
        match make(function, &params) {
            Ok(one) => made.push(one),
            Err(reason) => faults.push(FunctionFault { function: function.pool.function.clone(), reason }),
        }
    }
    if faults.is_empty() { Ok(made) } else { Err(Error::Functions(faults)) }
}

/// What gives the mails of each fan-out's runs their Message-IDs, by the fan-out's name. One whose target no `statement`
/// serves has none.
pub fn message_ids(settings: &Settings) -> BTreeMap<String, MessageIds> {
    let of_queue = |queue: &String| {
        settings.functions.iter().find_map(|function| match &function.kind {
            Kind::Statement(options) if function.pool.queue == *queue => MessageIds::new(&options.mail).ok(),
            _ => None,
        })
    };
    let of_fan_out = |function: &FunctionSettings| match &function.kind {
        Kind::FanOut(options) => Some((function.pool.function.clone(), of_queue(&options.target)?)),
        Kind::Statement(_) => None,
    };
    settings.functions.iter().filter_map(of_fan_out).collect()
}

/// The queue of the messages of each fan-out's runs, by the fan-out's name.
pub fn targets(settings: &Settings) -> BTreeMap<String, String> {
    let target = |function: &FunctionSettings| match &function.kind {
        Kind::FanOut(options) => Some((function.pool.function.clone(), options.target.clone())),
        Kind::Statement(_) => None,
    };
    settings.functions.iter().filter_map(target).collect()
}

/// The function that works on the messages of each schedule's runs, by its place among the settings, and by the schedule's
/// name; a schedule without one has none.
pub(super) fn senders(settings: &Settings) -> BTreeMap<String, usize> {
    let targets = targets(settings);
    let of = |schedule: &schedule::Options| {
        let target = targets.get(&schedule.function)?;
        let place = settings.functions.iter().position(|function| function.pool.queue == *target)?;
        Some((schedule.name.clone(), place))
    };
    settings.schedules.iter().filter_map(of).collect()
}

/// What the configuration allows for the mails of each schedule's runs, by its name.
pub fn sending(settings: &Settings) -> BTreeMap<String, SendingLimits> {
    let senders = senders(settings);
    let of = |schedule: &schedule::Options| {
        let function = &settings.functions[*senders.get(&schedule.name)?];
        let Kind::Statement(options) = &function.kind else { return None };
        let relay = &options.mail.relay;
        let limits = MeasuredLimits {
            concurrency: function.pool.concurrency as u32,
            connections: relay.connections as u32,
            per_second: relay.per_second.map(u32::from),
        };
        let sending = SendingLimits {
            limits,
            per_day: relay.per_day,
            relay: format!("{}:{}", relay.host, relay.port),
            waits_for_fetch: schedule.guard.is_some(),
            domains: relay.domains.keys().cloned().collect(),
        };
        Some((schedule.name.clone(), sending))
    };
    settings.schedules.iter().filter_map(of).collect()
}

/// What the documents of a schedule's runs look like; `None` when no `statement` serves their messages.
pub fn document_options<'a>(settings: &'a Settings, schedule: &str) -> Option<&'a DocumentOptions> {
    let schedule = settings.schedules.iter().find(|one| one.name == schedule)?;
    let target = targets(settings).remove(&schedule.function)?;
    settings.functions.iter().find_map(|function| match &function.kind {
        Kind::Statement(options) if function.pool.queue == target => Some(&options.document),
        _ => None,
    })
}

/// The names of the runs' parameters, which URL templates may use.
pub(super) fn params(settings: &Settings) -> Vec<&str> {
    settings.schedules.iter().flat_map(|schedule| schedule.params.keys().map(String::as_str)).collect()
}

pub(super) fn statement(
    options: &statement::Options,
    params: &[&str],
    clock: &Arc<dyn Clock>,
) -> Result<Statement, function::Error> {
    let renderer = PdfStatementRenderer::new(&options.document)?.skipping(options.skip);
    Statement::new(options, params, Box::new(renderer), clock.clone())
}

pub(super) fn users(
    options: &FanOutOptions,
    params: &[&str],
    clock: &Arc<dyn Clock>,
) -> Result<Users, function::Error> {
    Users::new(&options.users, params, clock.clone())
}
