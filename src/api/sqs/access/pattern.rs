//! Patterns of names, in which `*` stands for any text.

/// Whether the whole text fits the pattern.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        // The earliest place leaves the most text for what follows.
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_everything_else_for_itself() {
        for (pattern, text) in
            [("*", ""), ("*", "orders"), ("orders*", "orders"), ("*.fifo", "a.fifo"), ("a*b*c", "aXbYbZc")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("orders", "orders-2"),
            ("orders-*", "orders"),
            ("ab*ba", "aba"),
            ("a*b", "abc"),
            ("*.fifo", "fifo"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
