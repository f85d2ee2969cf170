//! What can be wrong with a rule. Each error names the field, the value, the limit and the remedy.

/// The longest rule, in bytes.
pub(super) const RULE_BYTES_MAX: usize = 256;

/// A rule that cannot be used. Quoted text is cut, so a message is one line of bounded length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no text.
    #[error("cron rule is empty (write five fields, e.g. \"0 7 1 * *\" = 07:00 on the 1st of each month)")]
    Empty,
    /// The text is longer than any sensible rule.
    #[error("cron rule has {bytes} bytes (at most {RULE_BYTES_MAX})")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Not five or six fields.
    #[error(
        "cron rule {rule:?} has {count} fields (write 5: minute hour day-of-month month day-of-week, \
         or 6 with seconds first{})", if *count == 7 { "; a year field is not part of bare rules" } else { "" }
    )]
    FieldCount {
        /// The rule as given, cut.
        rule: String,
        /// How many fields it has.
        count: usize,
    },
    /// AWS's and Quartz's placeholder in a bare rule.
    #[error(
        "cron rule {rule:?} has a \"?\": that belongs to AWS's cron(…) and Quartz's quartz(…) forms, which come later; \
         in a bare rule write \"*\" (and mind that bare rules number Sunday 0 or 7, those forms 1)"
    )]
    QuestionMark {
        /// The rule as given, cut.
        rule: String,
    },
    /// `cron(…)`, `quartz(…)`, `rate(…)`, `at(…)`.
    #[error("schedule form \"{form}(…)\" comes later: write a bare rule of five fields, e.g. \"0 7 1 * *\"")]
    Form {
        /// The word before the parenthesis.
        form: String,
    },
    /// An `@name` that is not known.
    #[error(
        "cron name {name:?} is not known (known: @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly)"
    )]
    Nickname {
        /// The name as given, cut.
        name: String,
    },
    /// One field cannot be read.
    #[error("cron field {field}: {item:?} {problem}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The list item at fault, cut.
        item: String,
        /// What is wrong, the limit and the remedy.
        problem: String,
    },
    /// No calendar day fits.
    #[error("cron rule {rule:?} never fires: no month that it names has such a day (correct day-of-month or month)")]
    NeverFires {
        /// The rule as given, cut.
        rule: String,
    },
    /// The zone is not in the machine's database.
    #[error("time zone {name:?} is not known{}", hint(.nearest))]
    Zone {
        /// The name as given, cut.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
    /// The machine has no zones at all.
    #[error("time zone {name:?} is not known: this machine has no time zone database (install the package tzdata)")]
    NoZones {
        /// The name as given, cut.
        name: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!(" (did you mean \"{name}\"?)"),
        None => " (write an IANA name, e.g. \"Europe/Berlin\" or \"UTC\")".into(),
    }
}

/// Cuts a foreign text so that an error stays one readable line.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
