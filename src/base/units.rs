//! Values with units, as people write them in `config.toml`: `"30s"`, `"1h30m"`, `"256KiB"`.

use std::time::Duration;

use bytesize::ByteSize;

/// The text is not a duration, a size or a share.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not a span of time.
    #[error(
        "{0:?} is not a duration (write a number with a unit, e.g. \"250ms\", \"30s\", \"15m\", \"1h30m\", \"14d\")"
    )]
    Duration(String),
    /// Not a number of bytes.
    #[error("{0:?} is not a size (write a number with a unit, e.g. \"512B\", \"256KiB\", \"16MiB\", \"1GB\")")]
    Size(String),
    /// Not a share.
    #[error("{0:?} is not a share (write a percentage with at most two decimals, e.g. \"10%\" or \"2.5%\")")]
    Share(String),
}

/// Reads a span of time in jiff's friendly format; negative spans and calendar units above days are refused.
///
/// # Errors
/// [`Error::Duration`] with the text and examples.
pub fn duration(text: &str) -> Result<Duration, Error> {
    let refused = || Error::Duration(text.chars().take(80).collect());
    let span: jiff::Span = text.trim().parse().map_err(|_| refused())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(refused());
    }
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?;
    Duration::try_from(signed).map_err(|_| refused())
}

/// Reads a number of bytes, e.g. `256KiB`.
///
/// # Errors
/// [`Error::Size`] with the text and examples.
pub fn size(text: &str) -> Result<u64, Error> {
    let refused = || Error::Size(text.chars().take(80).collect());
    text.trim().parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| refused())
}

/// Reads a share, e.g. `2.5%`, in hundredths of a percent.
///
/// # Errors
/// [`Error::Share`] with the text and examples.
pub fn share(text: &str) -> Result<u32, Error> {
    let refused = || Error::Share(text.chars().take(80).collect());
    let number = text.trim().strip_suffix('%').ok_or_else(refused)?.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    if !are_digits(whole) || !are_digits(decimals) || decimals.len() > 2 {
        return Err(refused());
    }
    let hundredths = format!("{decimals:0<2}").parse::<u32>().map_err(|_| refused())?;
    let whole = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(100)).ok_or_else(refused)?;
    whole.checked_add(hundredths).ok_or_else(refused)
}

/// Writes a share in hundredths of a percent: `10%`, `2.5%`.
pub fn show_share(hundredths: u64) -> String {
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match rest {
        0 => format!("{whole}%"),
        _ if rest % 10 == 0 => format!("{whole}.{}%", rest / 10),
        _ => format!("{whole}.{rest:02}%"),
    }
}

/// Writes a span of time as people do: `1h 30m`, `45s`, `250ms`.
pub fn show_duration(span: Duration) -> String {
    let whole = if span >= Duration::from_secs(10) {
        Duration::from_secs(span.as_secs())
    } else {
        Duration::from_millis(span.as_millis().try_into().unwrap_or(u64::MAX))
    };
    match jiff::SignedDuration::try_from(whole) {
        Ok(signed) => format!("{signed:#}"),
        Err(_) => "forever".into(),
    }
}

/// Writes a number with its noun: `1 letter`, `2 letters`.
pub fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Writes a number of bytes as people do: `1.5 MiB`.
pub fn show_size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("14d"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(size("256KiB"), Ok(262_144));
        for bad in ["", "30", "-5s", "1 month", "fast"] {
            assert!(duration(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(size("lots").is_err());
    }

    #[test]
    fn shares_are_read_and_shown_to_a_hundredth_of_a_percent() {
        for (text, hundredths) in [("10%", 1000), ("2.5%", 250), ("0.05%", 5), ("100%", 10_000), ("0%", 0)] {
            assert_eq!((share(text), show_share(hundredths.into())), (Ok(hundredths), text.to_owned()));
        }
        for bad in ["", "10", "%", "-1%", "1.234%", ".5%", "1e3%", "many%", "99999999999%"] {
            assert!(share(bad).is_err(), "{bad:?} must be refused");
        }
    }
}
