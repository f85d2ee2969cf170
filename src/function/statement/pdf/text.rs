//! From characters to positioned glyphs: bidirectional order, font fallback, shaping.
//!
//! Text whose characters are all in a slice takes a fast path: one table look-up per character. All other text is
//! ordered by the Unicode bidirectional algorithm, split by font and shaped. Must not know the page.

use std::ops::Range;

use harfrust::{Buffer, ClusterLevel, Direction, ShapeOptions, ShaperFont};
use unicode_bidi::BidiInfo;
use unicode_segmentation::UnicodeSegmentation;

use super::fonts::{FontKey, Fonts, Simple, Weight};

/// One line of positioned glyphs, from left to right.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    /// Runs of one font each.
    pub(super) runs: Vec<Run>,
    /// The sum of all advances in thousandths of an em.
    pub(super) width: f32,
}

/// Glyphs of one font.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The font.
    pub(super) font: FontKey,
    /// Its glyphs from left to right.
    pub(super) glyphs: Vec<Glyph>,
    /// What readers shall extract instead of the glyphs' own characters.
    pub(super) actual: Option<String>,
}

/// One positioned glyph; all measures in thousandths of an em.
#[derive(Clone, Debug)]
pub(super) struct Glyph {
    /// The slice's code or the face's glyph number.
    pub(super) id: u16,
    /// How far the font's own metrics move on.
    pub(super) natural: f32,
    /// How far the shaper wants to move on.
    pub(super) advance: f32,
    /// Where it is drawn, relative to its place.
    pub(super) offset: (f32, f32),
    /// The characters that it stands for; empty for glyphs of slices, which know theirs.
    pub(super) text: Box<str>,
}

/// Shapes one line. Characters that no font has are drawn as the replacement character and still extract as they are.
pub(super) fn shape(fonts: &Fonts, weight: Weight, text: &str) -> Text {
    shape_simple(fonts, weight, text).unwrap_or_else(|| shape_any(fonts, weight, text))
}

/// One line of printable characters: white space becomes single spaces, control characters the replacement character,
/// overrides of the direction are dropped (they could show a name or an amount reversed), and what is longer than
/// `chars_max` is cut with an ellipsis.
pub(super) fn clean(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = 0;
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
            chars += 1;
        }
        for c in word.chars().filter(|c| !is_override(*c)) {
            if chars >= chars_max {
                out.push('…');
                return out;
            }
            chars += 1;
            out.push(if c.is_control() { '\u{fffd}' } else { c });
        }
    }
    out
}

fn is_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that steer others and are themselves never drawn.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

fn shape_simple(fonts: &Fonts, weight: Weight, text: &str) -> Option<Text> {
    let mut out = Text::default();
    for c in text.chars() {
        if !is_invisible(c) {
            out.push_simple(fonts.simple(weight, c)?);
        }
    }
    Some(out)
}

impl Text {
    fn push_simple(&mut self, simple: Simple) {
        let glyph = Glyph {
            id: simple.code,
            natural: simple.advance,
            advance: simple.advance,
            offset: (0.0, 0.0),
            text: Box::default(),
        };
        self.width += simple.advance;
        match self.runs.last_mut() {
            Some(run) if run.font == simple.font && run.actual.is_none() => run.glyphs.push(glyph),
            _ => self.runs.push(Run { font: simple.font, glyphs: vec![glyph], actual: None }),
        }
    }

    fn push_run(&mut self, run: Run) {
        self.width += run.glyphs.iter().map(|glyph| glyph.advance).sum::<f32>();
        self.runs.push(run);
    }
}

/// What draws a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drawer {
    /// Characters of slices, one by one.
    Simple,
    /// The shaper, with this face.
    Face(u8),
    /// No font has it: the replacement character stands for one grapheme.
    Nobody,
    /// Nothing is drawn.
    Nothing,
}

fn shape_any(fonts: &Fonts, weight: Weight, text: &str) -> Text {
    let mut out = Text::default();
    let bidi = BidiInfo::new(text, None);
    for paragraph in &bidi.paragraphs {
        let (levels, runs) = bidi.visual_runs(paragraph, paragraph.range.clone());
        for run in runs {
            let rtl = levels[run.start].is_rtl();
            let mut pieces = pieces(fonts, weight, text, run, rtl);
            if rtl {
                pieces.reverse();
            }
            for (drawer, range) in pieces {
                draw(fonts, weight, &text[range], drawer, rtl, &mut out);
            }
        }
    }
    out
}

/// Splits one run of one direction by what draws it, in logical order.
fn pieces(fonts: &Fonts, weight: Weight, text: &str, run: Range<usize>, rtl: bool) -> Vec<(Drawer, Range<usize>)> {
    let mut pieces: Vec<(Drawer, Range<usize>)> = Vec::new();
    for (at, grapheme) in text[run.clone()].grapheme_indices(true) {
        let start = run.start + at;
        let range = start..start + grapheme.len();
        let drawer = drawer(fonts, weight, grapheme, rtl);
        match pieces.last_mut() {
            Some((last, until)) if *last == drawer && drawer != Drawer::Nobody => until.end = range.end,
            _ => pieces.push((drawer, range)),
        }
    }
    pieces
}

fn drawer(fonts: &Fonts, weight: Weight, grapheme: &str, rtl: bool) -> Drawer {
    let visible = grapheme.chars().filter(|c| !is_invisible(*c));
    if visible.clone().next().is_none() {
        return Drawer::Nothing;
    }
    // From right to left, brackets must be mirrored, which is the shaper's work; a space looks the same both ways.
    let simple = visible.clone().all(|c| fonts.simple(weight, c).is_some() && (!rtl || c == ' '));
    if simple {
        return Drawer::Simple;
    }
    fonts.face_for(weight, visible).map_or(Drawer::Nobody, Drawer::Face)
}

fn draw(fonts: &Fonts, weight: Weight, text: &str, drawer: Drawer, rtl: bool, out: &mut Text) {
    match drawer {
        Drawer::Nothing => {}
        Drawer::Simple => {
            for simple in text.chars().filter_map(|c| fonts.simple(weight, c)) {
                out.push_simple(simple);
            }
        }
        Drawer::Face(face) => out.push_run(shape_face(fonts, face, text, rtl)),
        Drawer::Nobody => {
            let simple = fonts.replacement(weight);
            let mut one = Text::default();
            one.push_simple(simple);
            for mut run in one.runs {
                run.actual = Some(text.to_owned());
                out.push_run(run);
            }
        }
    }
}

fn shape_face(fonts: &Fonts, index: u8, text: &str, rtl: bool) -> Run {
    let face = fonts.face(index);
    let mut buffer = Buffer::new();
    buffer.push_str(text);
    buffer.set_direction(if rtl { Direction::RightToLeft } else { Direction::LeftToRight });
    buffer.set_cluster_level(ClusterLevel::MonotoneCharacters);
    buffer.guess_segment_properties();
    let font = FontKey::Face(index);
    if harfrust::shape(&ShaperFont::new(&face.font), &mut buffer, ShapeOptions::new()).is_err() {
        return Run { font, glyphs: unshaped(fonts, index, text, rtl), actual: None };
    }
    let mut starts: Vec<usize> = buffer.glyph_infos().iter().map(|info| info.cluster as usize).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut told = vec![false; starts.len()];
    let glyphs = buffer.glyph_infos().iter().zip(buffer.glyph_positions()).map(|(info, position)| {
        let cluster = starts.partition_point(|start| *start <= info.cluster as usize).saturating_sub(1);
        let until = starts.get(cluster + 1).copied().unwrap_or(text.len());
        // A cluster of several glyphs gives its characters to the first, so that they are extracted once.
        let first = !std::mem::replace(&mut told[cluster], true);
        let text = if first { text.get(starts[cluster]..until).unwrap_or_default() } else { "" };
        let id = u16::try_from(info.glyph_id).unwrap_or(0);
        let scaled = |units: i32| units as f32 * face.scale;
        Glyph {
            id,
            natural: face.advance(id),
            advance: scaled(position.x_advance),
            offset: (scaled(position.x_offset), scaled(position.y_offset)),
            text: text.into(),
        }
    });
    Run { font, glyphs: glyphs.collect(), actual: None }
}

/// The plain glyphs of the characters, where the shaper refuses a text.
fn unshaped(fonts: &Fonts, index: u8, text: &str, rtl: bool) -> Vec<Glyph> {
    let face = fonts.face(index);
    let glyph = |c: char| {
        let id = face.glyph(c)?;
        let advance = face.advance(id);
        Some(Glyph { id, natural: advance, advance, offset: (0.0, 0.0), text: c.to_string().into() })
    };
    let mut glyphs: Vec<Glyph> = text.chars().filter_map(glyph).collect();
    if rtl {
        glyphs.reverse();
    }
    glyphs
}
