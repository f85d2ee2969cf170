//! Breaking text into lines of a given width.
//!
//! Breaks at spaces, and inside a word only when the word alone is wider than the line (so CJK text, which has no
//! spaces, breaks between any two characters). Must not know the page.

use unicode_segmentation::UnicodeSegmentation;

use super::fonts::{Fonts, Weight};
use super::text::{Text, clean, shape};

/// Shapes a text as lines that are at most `width` thousandths of an em wide and at least one grapheme long.
/// A text without printable characters has no lines.
pub(super) fn wrap(fonts: &Fonts, weight: Weight, text: &str, width: f32, chars_max: usize) -> Vec<Text> {
    let text = clean(text, chars_max);
    if text.is_empty() {
        return Vec::new();
    }
    let whole = shape(fonts, weight, &text);
    if whole.width <= width {
        return vec![whole];
    }
    let mut lines = Lines { fonts, weight, width, done: Vec::new(), line: String::new(), used: 0.0 };
    for word in text.split(' ') {
        lines.word(word);
    }
    lines.end();
    lines.done
}

/// The same as [`wrap`], with what does not fit into `lines_max` lines cut with an ellipsis.
pub(super) fn wrap_at_most(fonts: &Fonts, weight: Weight, text: &str, width: f32, lines_max: usize) -> Vec<Text> {
    let mut lines = wrap(fonts, weight, text, width, 400);
    if lines.len() > lines_max {
        lines.truncate(lines_max);
        if let Some(last) = lines.last_mut() {
            let ellipsis = shape(fonts, weight, "…");
            last.width += ellipsis.width;
            last.runs.extend(ellipsis.runs);
        }
    }
    lines
}

struct Lines<'a> {
    fonts: &'a Fonts,
    weight: Weight,
    width: f32,
    done: Vec<Text>,
    /// The line that is being filled.
    line: String,
    /// Its width.
    used: f32,
}

impl Lines<'_> {
    fn measure(&self, text: &str) -> f32 {
        shape(self.fonts, self.weight, text).width
    }

    fn end(&mut self) {
        if !self.line.is_empty() {
            self.done.push(shape(self.fonts, self.weight, &self.line));
            self.line.clear();
        }
        self.used = 0.0;
    }

    fn word(&mut self, word: &str) {
        let space = if self.line.is_empty() { 0.0 } else { self.measure(" ") };
        let width = self.measure(word);
        if self.used + space + width <= self.width {
            if space > 0.0 {
                self.line.push(' ');
            }
            self.line.push_str(word);
            self.used += space + width;
        } else if width <= self.width {
            self.end();
            self.line.push_str(word);
            self.used = width;
        } else {
            if space > 0.0 {
                self.line.push(' ');
                self.used += space;
            }
            self.long_word(word);
        }
    }

    fn long_word(&mut self, word: &str) {
        for grapheme in word.graphemes(true) {
            let width = self.measure(grapheme);
            if self.used + width > self.width {
                self.end();
            }
            self.line.push_str(grapheme);
            self.used += width;
        }
    }
}
