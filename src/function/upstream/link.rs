//! The `Link` header of RFC 8288, as far as paging needs it.

/// The target of the first link with the relation `next` in one header's value.
pub(super) fn next(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some(start) = rest.find('<') {
        let (target, after) = rest[start + 1..].split_once('>')?;
        let end = end_of_link(after);
        if relations(&after[..end]).any(|relation| relation.eq_ignore_ascii_case("next")) {
            return Some(target.trim().to_owned());
        }
        rest = &after[end..];
    }
    None
}

/// Where the parameters of this link end: at a comma outside quotes.
fn end_of_link(params: &str) -> usize {
    let mut quoted = false;
    for (at, byte) in params.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    params.len()
}

/// The relation types in `; rel="next last"; title="…"`.
fn relations(params: &str) -> impl Iterator<Item = &str> {
    let rel = params.split(';').find_map(|param| {
        let (name, value) = param.split_once('=')?;
        name.trim().eq_ignore_ascii_case("rel").then(|| value.trim().trim_matches('"'))
    });
    rel.unwrap_or_default().split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let header =
            r#"<https://a/?p=1>; rel="prev"; title="a, <b>", </u?p=3>;rel="last next", <https://a/?p=9>; rel=last"#;
        assert_eq!(next(header).as_deref(), Some("/u?p=3"));
        assert_eq!(next("<x>; rel=next").as_deref(), Some("x"));
        assert_eq!(next(r#"<x>; rel="nextish""#), None);
        assert_eq!(next("<x"), None);
        assert_eq!(next(""), None);
    }
}
