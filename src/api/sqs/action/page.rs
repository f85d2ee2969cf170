//! Pages of names: how ListQueues and ListDeadLetterSourceQueues share out a long list.

use super::super::error::Error;
use super::super::text;

/// The most names of a page, and of an answer without pages.
const RESULTS_MAX: usize = 1000;

/// The names of one page, in order, and the token of the next page. Pages come only to those who give `max_results`.
pub(super) fn page(
    names: Vec<String>,
    max_results: Option<i64>,
    token: Option<&String>,
) -> Result<(Vec<String>, Option<String>), Error> {
    let max = match max_results.map(usize::try_from) {
        None => RESULTS_MAX,
        Some(Ok(max)) if (1..=RESULTS_MAX).contains(&max) => max,
        Some(_) => {
            let got = max_results.unwrap_or_default();
            return Err(Error::value(
                "MaxResults",
                got,
                format_args!("MaxResults must be an integer between 1 and {RESULTS_MAX}."),
            ));
        }
    };
    let after = token.map(|token| name(token)).transpose()?;
    let mut left = names.into_iter().skip_while(|name| after.as_ref().is_some_and(|after| name <= after));
    let page: Vec<String> = left.by_ref().take(max).collect();
    let next = page.last().filter(|_| max_results.is_some() && left.next().is_some());
    let next = next.map(|last| text::token(last.as_bytes()));
    Ok((page, next))
}

/// The last name of the page before.
fn name(token: &str) -> Result<String, Error> {
    let name = text::from_token(token).and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| Error::invalid("Invalid or expired next token."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_each_name_once_and_come_only_when_asked_for() {
        let names: Vec<String> = (0..25).map(|number| format!("queue-{number:02}")).collect();
        assert_eq!(page(names.clone(), None, None), Ok((names.clone(), None)));
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let (some, next) = page(names.clone(), Some(10), token.as_ref()).unwrap();
            seen.extend(some);
            token = next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, names);
        for bad in [0, -1, 1001] {
            assert!(page(names.clone(), Some(bad), None).is_err(), "{bad}");
        }
        assert!(page(names, Some(1), Some(&"!".to_owned())).is_err());
    }
}
