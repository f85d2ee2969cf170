//! Fetches the secret that a reference names.
//!
//! Opens files and reads the given environment; what it read never appears in a message.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use secrecy::SecretString;

use super::environment::Environment;
use super::value_type::Reference;

/// A secret's file may have this many bytes.
const SECRET_BYTES_MAX: u64 = 65_536;

/// Fetches a secret, unless the environment says not to fetch any. A relative path starts at `base`.
///
/// # Errors
/// What is missing or unsafe, and the remedy.
pub(super) fn resolve(reference: &Reference, base: &Path, environment: &Environment) -> Result<SecretString, String> {
    if environment.leaves_secrets() {
        return Ok("not-fetched".into());
    }
    match reference {
        Reference::Literal(value) => Ok(value.clone()),
        Reference::Env(name) => match environment.get(name) {
            Some(value) => tidy(value.to_owned(), &format!("environment variable {name}")),
            None => Err(format!("environment variable {name} is not set or not UTF-8; set it for the daemon")),
        },
        Reference::File(path) => {
            let path = base.join(path);
            let file = open(&path)?;
            let mode = file.metadata().map_err(|error| unreadable(&path, &error))?.mode() & 0o777;
            if mode & 0o077 != 0 {
                let path = path.display();
                return Err(format!("file {path} is open to others (mode {mode:04o}); chmod 600 {path}"));
            }
            read(file, &path)
        }
        Reference::Credential(name) => {
            let Some(directory) = environment.get("CREDENTIALS_DIRECTORY") else {
                return Err(format!(
                    "credential {name:?}: $CREDENTIALS_DIRECTORY is not set; add LoadCredential={name}:… to the systemd unit"
                ));
            };
            let path = Path::new(directory).join(name);
            read(open(&path)?, &path)
        }
    }
}

/// Opens a regular file. A FIFO is refused, because opening it would block.
fn open(path: &Path) -> Result<File, String> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if metadata.is_file() { Ok(file) } else { Err(format!("{} is not a regular file", path.display())) }
}

fn read(file: File, path: &Path) -> Result<SecretString, String> {
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("file {} has more than {SECRET_BYTES_MAX} bytes", path.display()));
    }
    tidy(text, &format!("file {}", path.display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("file {}: {error}; make it readable for the daemon's user alone", path.display())
}

/// Removes one line break at the end; everything else is part of the secret.
fn tidy(mut text: String, source: &str) -> Result<SecretString, String> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(format!("{source} is empty")) } else { Ok(text.into()) }
}
