//! When a schedule is due.

/// A cron rule in a time zone.
#[derive(Clone, Debug)]
pub struct Rule;

/// The rule cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a cron rule")]
pub struct Error(String);

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(cron: &str, _timezone: &str) -> Result<Self, Error> {
        let fields = cron.split_whitespace().count();
        if (5..=6).contains(&fields) { Ok(Self) } else { Err(Error(cron.into())) }
    }
}
