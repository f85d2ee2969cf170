//! What a run would send to some users, outside of any run's books: chosen from the users API, as documents or as messages
//! to another address. `nightmail run test` shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::base::{Clock, Failure, MessageId};
use crate::config::{Kind, Settings};
use crate::function::statement::{self, PageAddress, Record, Rendering, Statement, User, Users, mailable_text};
use crate::schedule::{FanOutOptions, params};

use super::Error;
use super::error::FunctionFault;
use super::functions::{self, statement, users};

/// Whom to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The users with these ids.
    Only(Vec<String>),
    /// So many at random from all pages.
    Sample(usize),
}

/// Some users of a schedule, and what a run of it would give their messages.
#[derive(Debug)]
pub struct Trial {
    /// The users, those of earlier pages first.
    pub users: Vec<User>,
    /// The parameters of the run.
    pub params: BTreeMap<String, String>,
    /// The queue of the run's messages.
    pub queue: String,
    /// Distinguishes the mails of this trial from all others.
    identity: String,
    /// The settings of the function that works on the queue.
    statement: Box<statement::Options>,
    /// Its name.
    function: String,
}

/// Why a trial is not possible.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// There is no such schedule.
    #[error("schedule {0:?} not found (known: {1})")]
    Schedule(String, String),
    /// The messages of its runs are not for a statement function.
    #[error("the messages of schedule {0:?} are not worked on by a function of kind \"statement\"")]
    NoStatement(String),
    /// A parameter does not evaluate.
    #[error(transparent)]
    Params(#[from] params::Error),
    /// The users API did not answer as it should.
    #[error("{0}")]
    Users(Failure),
    /// Some of the users were not there.
    #[error("the users API does not name {0}")]
    Missing(String),
    /// No mail can go there.
    #[error("{address:?} is no mail address: {why}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// A function cannot be built from its settings.
    #[error(transparent)]
    Daemon(#[from] Error),
}

impl Trial {
    /// Chooses users of a schedule by its users API; `given` are values for the run's parameters, the others are those of
    /// a tick at this moment.
    ///
    /// # Errors
    /// The schedule or one of the users is not there, a parameter does not evaluate, or the users API fails.
    pub async fn choose(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        (schedule, given): (&str, &BTreeMap<String, String>),
        choice: &Choice,
    ) -> Result<Self, TrialError> {
        let known = || settings.schedules.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
        let options = settings.schedules.iter().find(|one| one.name == schedule);
        let options = options.ok_or_else(|| TrialError::Schedule(schedule.into(), known()))?;
        let params = params::with_given(&options.params, given, clock.wall(), options.rule.zone())?;
        let fan_out = settings.functions.iter().find_map(|function| match &function.kind {
            Kind::FanOut(fan_out) if function.pool.function == options.function => Some(fan_out),
            _ => None,
        });
        let fan_out = fan_out.expect("config checks that a schedule's function is a fan-out");
        let statement = settings.functions.iter().find_map(|function| match &function.kind {
            Kind::Statement(options) if function.pool.queue == fan_out.target => Some((function, options)),
            _ => None,
        });
        let (function, statement) = statement.ok_or_else(|| TrialError::NoStatement(schedule.into()))?;
        let users = read(settings, clock, (&options.function, fan_out), &params, choice).await?;
        Ok(Self {
            users,
            params,
            queue: fan_out.target.clone(),
            identity: format!("test of {schedule} {}", MessageId::fresh()),
            statement: statement.clone(),
            function: function.pool.function.clone(),
        })
    }

    /// The messages that mail these users' documents to another address. They belong to no run.
    ///
    /// # Errors
    /// It is no mail address.
    pub fn messages(&self, to: &str) -> Result<Vec<String>, TrialError> {
        let email = mailable_text(to).map_err(|why| TrialError::Address { address: to.into(), why })?;
        let message = |user: &User| {
            let user = User { email: email.clone(), ..user.clone() };
            json!({ "identity": self.identity, "user": user, "params": self.params, "purpose": "test" }).to_string()
        };
        Ok(self.users.iter().map(message).collect())
    }

    /// Makes the document of each user and mails nothing; why there is none, where there is none.
    ///
    /// # Errors
    /// The function cannot be built from its settings.
    pub async fn documents(
        &self,
        settings: &Settings,
        clock: &Arc<dyn Clock>,
    ) -> Result<Vec<Result<Vec<u8>, String>>, TrialError> {
        let built = statement(&self.statement, &functions::params(settings), clock);
        let built: Statement = built.map_err(|reason| fault(&self.function, reason))?;
        let mut documents = Vec::with_capacity(self.users.len());
        for user in &self.users {
            documents.push(match built.document(user, &self.params).await {
                Ok((_, Rendering::Document(print))) => Ok(print.pdf),
                Ok((_, Rendering::Skipped(why))) => Err(format!("skipped: {why}")),
                Err(failure) => Err(failure.to_string()),
            });
        }
        Ok(documents)
    }
}

fn fault(function: &str, reason: crate::function::Error) -> Error {
    Error::Functions(vec![FunctionFault { function: function.into(), reason }])
}

/// Reads pages until those who are wanted are found, or to the last one.
async fn read(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    (function, options): (&str, &FanOutOptions),
    params: &BTreeMap<String, String>,
    choice: &Choice,
) -> Result<Vec<User>, TrialError> {
    let users: Users = users(options, &functions::params(settings), clock).map_err(|reason| fault(function, reason))?;
    let (mut chosen, mut seen) = (Vec::new(), 0);
    let mut address = Some(PageAddress::First);
    for _ in 0..options.users.pages_max {
        let Some(at) = address else { break };
        let page = users.page(&at, params, &mut Vec::new()).await;
        let page = page.map_err(|fault| TrialError::Users(fault.failure().clone()))?;
        address = page.next;
        for record in page.records {
            if let Record::User(user) = record {
                seen += 1;
                consider(&mut chosen, user, seen, choice);
            }
        }
        if is_enough(&chosen, choice) {
            break;
        }
    }
    match choice {
        Choice::Sample(_) => Ok(chosen),
        Choice::Only(ids) => {
            let is_missing = |id: &&String| !chosen.iter().any(|user| user.id == **id);
            let missing: Vec<&str> = ids.iter().filter(is_missing).map(String::as_str).collect();
            if missing.is_empty() { Ok(chosen) } else { Err(TrialError::Missing(missing.join(", "))) }
        }
    }
}

/// Takes the user, who is the `seen`th one, if wanted. A sample is a reservoir: each user has the same chance.
fn consider(chosen: &mut Vec<User>, user: User, seen: usize, choice: &Choice) {
    match choice {
        Choice::Only(ids) if ids.contains(&user.id) => chosen.push(user),
        Choice::Only(_) => {}
        Choice::Sample(count) if chosen.len() < *count => chosen.push(user),
        Choice::Sample(_) => {
            let slot = rand::random_range(0..seen);
            if let Some(slot) = chosen.get_mut(slot) {
                *slot = user;
            }
        }
    }
}

/// A user with several accounts may stand on later pages too, but each id is enough once.
fn is_enough(chosen: &[User], choice: &Choice) -> bool {
    match choice {
        Choice::Only(ids) => ids.iter().all(|id| chosen.iter().any(|user| user.id == *id)),
        Choice::Sample(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: usize) -> User {
        User::check(&format!(r#"{{"id":"{id}","name":"Ada","email":"ada@example.test"}}"#)).unwrap()
    }

    #[test]
    fn a_sample_has_its_size_names_nobody_twice_and_reaches_the_last_users() {
        let mut late = 0;
        for _ in 0..50 {
            let mut chosen = Vec::new();
            for seen in 1..=1000 {
                consider(&mut chosen, user(seen), seen, &Choice::Sample(20));
            }
            let mut ids: Vec<usize> = chosen.iter().map(|user| user.id.parse().unwrap()).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 20);
            late += ids.iter().filter(|id| **id > 900).count();
        }
        // A hundred are expected; none has a chance of 10^-46.
        assert!(late > 0);
    }
}
