//! Who holds the store, and what for: the text of the lock, as values.

use std::fmt;

/// What a process opens the store for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The daemon: for as long as it lives.
    Serve,
    /// A command that reads, by its name: for moments.
    Read(&'static str),
    /// A command that changes the store or its file, by its name.
    Write(&'static str),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serve => write!(f, "serve"),
            Self::Read(name) => write!(f, "read {name}"),
            Self::Write(name) => write!(f, "write {name}"),
        }
    }
}

/// The process that holds the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it does with the store.
    pub kind: HolderKind,
    /// Its name and process id, as errors show them.
    name: String,
}

/// What the holder does with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderKind {
    /// It is a daemon.
    Serve,
    /// It reads and is done within moments.
    Read,
    /// It changes the store.
    Write,
    /// Its text is missing or of another version.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Holder {
    /// A process that is known by other means than the lock's text.
    pub(super) fn named(name: &str) -> Self {
        Self { kind: HolderKind::Unknown, name: name.into() }
    }

    /// Reads a lock's text: the purpose, ` pid ` and the process id.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let parsed = text.rsplit_once(" pid ").and_then(|(purpose, pid)| {
            let pid: u32 = pid.parse().ok()?;
            let (kind, command) = match purpose.split_once(' ') {
                None if purpose == "serve" => (HolderKind::Serve, purpose),
                Some(("read", name)) => (HolderKind::Read, name),
                Some(("write", name)) => (HolderKind::Write, name),
                _ => return None,
            };
            Some(Self { kind, name: format!("`nightmail {command}` (pid {pid})") })
        });
        parsed.unwrap_or_else(|| Self::named(if text.is_empty() { "another process" } else { text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_of_another_version_is_named_as_it_named_itself() {
        assert_eq!(Holder::parse("nightmail with pid 7\n").to_string(), "nightmail with pid 7");
        assert_eq!(Holder::parse("").to_string(), "another process");
        let parsed = Holder::parse("read run recipients pid 12\n");
        assert_eq!(
            (parsed.kind, parsed.to_string().as_str()),
            (HolderKind::Read, "`nightmail run recipients` (pid 12)")
        );
    }
}
