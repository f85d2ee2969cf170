//! The control socket of the daemon: HTTP over a Unix socket that the owner and its group may use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{Control, Request};

/// The largest request, in bytes: a message of 1 MiB as JSON.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Requests that are under way at the shutdown get this long.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("control socket {path}: {reason} (see control.socket)")]
pub struct Error {
    path: PathBuf,
    reason: std::io::Error,
}

/// Binds the socket with mode 0660. A socket that a dead daemon left behind is replaced: this process holds the store's
/// lock, so no other daemon serves it.
///
/// # Errors
/// The directory is missing or not writable.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let failed = |reason| Error { path: path.to_owned(), reason };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(failed(std::io::Error::other("there is a file of another kind in its place"))),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) => {}
    }
    // Until the mode is set, the umask applies: it lets only the owner write, and connecting needs write permission.
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Serves until `shutdown`.
///
/// # Errors
/// The socket cannot accept connections any more.
pub async fn serve(listener: UnixListener, control: Control, shutdown: CancellationToken) -> std::io::Result<()> {
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
