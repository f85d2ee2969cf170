//! The control socket of the daemon: HTTP over a Unix socket that the owner and its group may use.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::Listener;
use axum::{Json, Router};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{Control, Request};

/// The largest request, in bytes: a message of 1 MiB as JSON.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Requests that are under way at the shutdown get this long.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How often the socket's file is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("control socket {path}: {reason} (see control.socket)")]
pub struct Error {
    path: PathBuf,
    reason: io::Error,
}

/// The bound socket. It is bound anew when its file was deleted.
#[derive(Debug)]
pub struct ControlListener {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the bound file.
    file: (u64, u64),
    /// Why the socket could not be bound anew; logged once a reason.
    told: String,
}

impl ControlListener {
    /// Binds the socket with mode 0660. A socket that a dead daemon left behind is replaced.
    ///
    /// # Errors
    /// The directory is missing or not writable, or a daemon with another store listens there.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |reason| Error { path: path.to_owned(), reason };
        let (listener, file) = bind(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener, file, told: String::new() })
    }

    /// Binds the socket anew when its file is gone. Another daemon's file is left alone.
    fn look(&mut self) {
        let is_missing = match identity(&self.path) {
            Ok(file) if file == self.file => return,
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        let bound = match is_missing {
            true => bind(&self.path),
            false => Err(io::Error::other("there is another file in its place")),
        };
        let socket = self.path.display();
        match bound {
            Ok((listener, file)) => {
                tracing::warn!("the control socket {socket} was deleted; it is bound anew");
                (self.listener, self.file, self.told) = (listener, file, String::new());
            }
            Err(error) if self.told != error.to_string() => {
                tracing::error!("no command reaches the control socket {socket}, and it cannot be bound anew: {error}");
                self.told = error.to_string();
            }
            Err(_) => {}
        }
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // The next daemon replaces what stays behind.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener for ControlListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            tokio::select! {
                // axum's own implementation waits a moment after an error such as too many open files.
                accepted = Listener::accept(&mut self.listener) => return accepted,
                () = tokio::time::sleep(LOOK_EVERY) => self.look(),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn bind(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            // This process holds the lock of its store, so whoever answers serves another one.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::other("a daemon with another data_dir listens there"));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::other("there is a file of another kind in its place")),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    // Until the mode is set, the umask applies: it lets only the owner write, and connecting needs write permission.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok((listener, identity(path)?))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Serves until `shutdown`.
///
/// # Errors
/// The socket cannot accept connections any more.
pub async fn serve(listener: ControlListener, control: Control, shutdown: CancellationToken) -> io::Result<()> {
    let app = Router::new()
        .route("/v1/control", post(handle))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(control);
    let stopped = shutdown.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move { stopped.cancelled().await });
    tokio::select! {
        end = server => end,
        () = async { shutdown.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => Ok(()),
    }
}

async fn handle(State(control): State<Control>, Json(request): Json<Request>) -> Response {
    match control.answer(request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(failure) => (StatusCode::UNPROCESSABLE_ENTITY, Json(failure)).into_response(),
    }
}
