//! Contacts everything that the functions call, once and without a mail: what `nightmail check --connect` shows.
//!
//! The users API gives its first page, the account API one user of it, the relay a session up to the login.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::base::{Clock, Destination, Failure, units};
use crate::config::{Kind, Settings};
use crate::function::statement::{PageAddress, Record, Statement, User, Users};
use crate::schedule::{FanOutOptions, params};

use super::functions::{self, statement, users};
use super::{Error, error::FunctionFault};

/// What one destination answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contacted {
    /// Its name: `relay mail.example:587`.
    pub destination: String,
    /// The function that calls it.
    pub function: String,
    /// How it went.
    pub state: ContactState,
    /// What it answered, or what is wrong and what to do.
    pub text: String,
}

/// How a contact went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContactState {
    /// It answered as it should.
    Ok,
    /// It did not, or not in time.
    Failed,
    /// It could not be tried: there is no user to ask for.
    NotTried,
}

/// How to contact.
#[derive(Clone, Debug)]
pub struct Order {
    /// Values for the runs' parameters; those not given are evaluated as for a tick at this moment.
    pub params: BTreeMap<String, String>,
    /// Each destination must answer within this time.
    pub limit: Duration,
}

/// A user of a fan-out's first page, with the parameters of its run.
type Sample = (User, BTreeMap<String, String>);

/// Contacts the destinations of all functions, one after another. Nothing is tried twice, and no mail is sent.
///
/// # Errors
/// A function cannot be built from its settings.
pub async fn connect(settings: &Settings, clock: &Arc<dyn Clock>, order: &Order) -> Result<Vec<Contacted>, Error> {
    let names = functions::params(settings);
    let mut contacted = Vec::new();
    let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
    for (name, options) in settings.functions.iter().filter_map(|function| match &function.kind {
        Kind::FanOut(options) => Some((&function.pool.function, options)),
        Kind::Statement(_) => None,
    }) {
        let mut options = options.clone();
        options.users.upstream.retries = 0;
        let users = users(&options, &names, clock).map_err(|reason| fault(name, reason))?;
        let (state, text, sample) = match params_of(settings, name, clock, order) {
            Ok(params) => first_page(&users, &options, params, order.limit).await,
            Err(why) => (ContactState::Failed, why, None),
        };
        contacted.push(Contacted { destination: users.destination().to_string(), function: name.clone(), state, text });
        samples.extend(sample.map(|sample| (options.target, sample)));
    }
    for (name, queue, options) in settings.functions.iter().filter_map(|function| match &function.kind {
        Kind::Statement(options) => Some((&function.pool.function, &function.pool.queue, options)),
        Kind::FanOut(_) => None,
    }) {
        let mut options = options.clone();
        options.account.upstream.retries = 0;
        let statement = statement(&options, &names, clock).map_err(|reason| fault(name, reason))?;
        let [account, relay] = statement.account_and_relay();
        let (state, text) = match samples.get(queue) {
            Some((user, params)) => account_of(&statement, &account, user, params, order.limit).await,
            None => (ContactState::NotTried, "no users API named a user to ask for".into()),
        };
        contacted.push(Contacted { destination: account.to_string(), function: name.clone(), state, text });
        let (state, text) = match within(order.limit, &relay, statement.probe_relay()).await {
            Ok(text) => (ContactState::Ok, text),
            Err(why) => (ContactState::Failed, why),
        };
        contacted.push(Contacted { destination: relay.to_string(), function: name.clone(), state, text });
    }
    Ok(contacted)
}

fn fault(function: &str, reason: crate::function::Error) -> Error {
    Error::Functions(vec![FunctionFault { function: function.into(), reason }])
}

/// The parameters that a run of the fan-out would have now.
fn params_of(
    settings: &Settings,
    function: &str,
    clock: &Arc<dyn Clock>,
    order: &Order,
) -> Result<BTreeMap<String, String>, String> {
    let Some(schedule) = settings.schedules.iter().find(|schedule| schedule.function == function) else {
        return Ok(order.params.clone());
    };
    let evaluated = params::with_given(&schedule.params, &order.params, clock.wall(), schedule.rule.zone());
    evaluated.map_err(|error| format!("schedules.{}: {error}", schedule.name))
}

async fn first_page(
    users: &Users,
    options: &FanOutOptions,
    params: BTreeMap<String, String>,
    limit: Duration,
) -> (ContactState, String, Option<Sample>) {
    let mut contacts = Vec::new();
    let reading = async {
        let page = users.page(&PageAddress::First, &params, &mut contacts).await;
        page.map_err(|fault| fault.failure().clone())
    };
    let page = match within(limit, users.destination(), reading).await {
        Ok(page) => page,
        Err(why) => return (ContactState::Failed, why, None),
    };
    let malformed = page.records.iter().filter(|record| matches!(record, Record::Malformed { .. })).count();
    let found = page.records.len() - malformed;
    let mut text = format!("{} on the first page", units::count(found, "user"));
    if page.next.is_some() {
        text += ", and more pages follow";
    }
    let reason = page.records.iter().find_map(|record| match record {
        Record::Malformed { why, .. } => Some(why.text.clone()),
        Record::User(_) => None,
    });
    if let Some(reason) = reason {
        text += &format!("; {} malformed, the first one because {reason}", units::count(malformed, "record"));
    }
    let user = page.records.into_iter().find_map(|record| match record {
        Record::User(user) => Some(user),
        Record::Malformed { .. } => None,
    });
    match user {
        Some(user) => (ContactState::Ok, text, Some((user, params))),
        None => {
            let remedy = format!("check functions.{}.users: url, token and items", options.name);
            (ContactState::Failed, format!("{text} ({remedy})"), None)
        }
    }
}

async fn account_of(
    statement: &Statement,
    destination: &Destination,
    user: &User,
    params: &BTreeMap<String, String>,
    limit: Duration,
) -> (ContactState, String) {
    match within(limit, destination, statement.probe_account(user, params)).await {
        Ok(text) => (ContactState::Ok, text),
        Err(why) => (ContactState::Failed, format!("user {}: {why}", user.id)),
    }
}

/// One contact under its time limit; an error is the text for people.
async fn within<T>(
    limit: Duration,
    destination: &Destination,
    contact: impl Future<Output = Result<T, Failure>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, Box::pin(contact)).await {
        Ok(answer) => answer.map_err(|failure| failure.text),
        Err(_) => {
            let waited = units::show_duration(limit);
            Err(format!("{destination} did not answer within {waited} (is a firewall between? --timeout waits longer)"))
        }
    }
}
