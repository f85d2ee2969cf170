//! From settings to functions.

use std::sync::Arc;

use crate::base::Clock;
use crate::config::{FunctionSettings, Kind};
use crate::function::Function;
use crate::function::statement::{PdfPress, Statement, Users};
use crate::queue::Door;
use crate::schedule::FanOut;

use super::Error;

/// Makes the function of these settings. `params` are the names of the runs' parameters, for addresses that use them.
///
/// # Errors
/// The settings do not fit together: a template names what is not there, a certificate cannot be read.
pub(super) fn make(
    settings: &FunctionSettings,
    params: &[&str],
    door: &Door,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Function>, Error> {
    let failed = |reason| Error::Function { function: settings.pool.function.clone(), reason };
    Ok(match &settings.kind {
        Kind::Statement(options) => {
            let press = Box::new(PdfPress::new(&options.document).map_err(failed)?);
            Arc::new(Statement::new(options, params, press, clock.clone()).map_err(failed)?)
        }
        Kind::FanOut(options) => {
            let users = Users::new(&options.users, params).map_err(failed)?;
            Arc::new(FanOut::new(options.clone(), users, door.clone(), clock.clone()))
        }
    })
}
