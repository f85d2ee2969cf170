//! From settings to functions.

use std::sync::Arc;

use crate::base::Clock;
use crate::config::{FunctionSettings, Kind};
use crate::function::Function;
use crate::function::statement::{Statement, users::Users};
use crate::queue::Door;
use crate::schedule::FanOut;

use super::Error;

/// Makes the function of these settings.
///
/// # Errors
/// The settings do not fit together: a template names what is not there, a certificate cannot be read.
pub(super) fn make(settings: &FunctionSettings, door: &Door, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Function>, Error> {
    let failed = |reason| Error::Function { function: settings.pool.function.clone(), reason };
    Ok(match &settings.kind {
        Kind::Statement(options) => Arc::new(Statement::new(options, clock.clone()).map_err(failed)?),
        Kind::FanOut(options) => {
            let users = Users::new(&options.users).map_err(failed)?;
            Arc::new(FanOut::new(options.clone(), users, door.clone(), clock.clone()))
        }
    })
}
