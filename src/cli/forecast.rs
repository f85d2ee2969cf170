//! `nightmail run forecast`: whether the next run of a schedule will fit, and what holds it up.

use std::time::Duration;

use clap::Args;

use crate::api::control::{Answer, Request};
use crate::base::units;
use crate::run::Forecast;
use crate::run::forecast::Capacity;

use super::ask::{ask, strange};
use super::context::Context;
use super::exit::Late;
use super::output::{Output, seconds, table, wrap_behind};

/// What `--help` says.
pub(super) const AFTER_HELP: &str = "\
It is made from the limits of the configuration and from what the schedule's last run measured: how long the users API, the \
account API, a mail and the processors took. What was not measured is assumed, and said. The relay's own limits, which nobody \
told us, are in it only as far as that run met them.

Exit codes: 0 it fits, or there is no deadline; 2 it does not.";

/// `nightmail run forecast`
#[derive(Debug, Args)]
pub(super) struct ForecastArgs {
    /// The schedule
    schedule: String,
    /// How many users the run will have [default: as many as the last one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    users: Option<u64>,
}

pub(super) async fn forecast(context: &Context, what: ForecastArgs) -> anyhow::Result<()> {
    let request = Request::Forecast { schedule: what.schedule, users: what.users };
    let forecast = match ask(context, request).await? {
        Answer::Forecast(forecast) => forecast,
        other => return Err(strange(&other)),
    };
    context.output.show(&forecast, |forecast| text(context.output, forecast))?;
    match (forecast.fits, forecast.deadline) {
        (Some(false), Some(deadline)) => {
            let by = units::show_duration(Duration::from_secs(forecast.ends_at.since(deadline).as_secs().max(1)));
            Err(Late { by, bound_by: forecast.bound_by }.into())
        }
        _ => Ok(()),
    }
}

fn text(output: Output, forecast: &Forecast) -> String {
    let users = units::count(forecast.users, "user");
    let mut out = format!("{}: the run of {} with {users}\n", forecast.schedule, seconds(forecast.starts_at));
    let [ends, earliest, latest] = [forecast.ends_at, forecast.earliest, forecast.latest].map(seconds);
    let took = forecast.ends_at.since(forecast.starts_at);
    let took = units::show_duration(Duration::from_secs(took.as_secs()));
    out += &format!(
        "  ends      {}\n",
        wrap_behind(12, &format!("{ends}, {took} after its start ({earliest} to {latest})"))
    );
    if let (Some(deadline), Some(fits)) = (forecast.deadline, forecast.fits) {
        let verdict = match fits {
            true if forecast.latest <= deadline => output.good("it fits"),
            true => "it fits, but not with all of its band".into(),
            false => output.bad("it does not fit"),
        };
        out += &format!("  deadline  {}: {verdict}\n", seconds(deadline));
    }
    out += &format!("  bound by  {}\n", forecast.bound_by);
    if forecast.fetch_ms > 0 {
        let fetch = units::show_duration(Duration::from_millis(forecast.fetch_ms));
        out += &format!("  fetch     {fetch} for the users API\n");
    }
    for assumption in &forecast.assumptions {
        out += &format!("  assumed   {}\n", wrap_behind(12, assumption));
    }
    let row = |capacity: &Capacity| {
        let per_second = capacity.per_hour as f64 / 3600.0;
        vec![capacity.name.clone(), format!("{per_second:.1}"), capacity.because.clone()]
    };
    let rows = forecast.capacities.iter().map(row).collect();
    out + "\n" + &table(&["limit", "a second", "because"], &[1], rows)
}
