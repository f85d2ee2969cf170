//! Pages being drawn: text, rules and boxes as printpdf operations, with the glyphs that the faces must embed.
//!
//! Measures are points from the top left corner. Must not know what a statement is.

use std::collections::BTreeMap;

use printpdf::{
    Codepoint, Color, DictItem, FontId, Op, PaintMode, PdfFontHandle, Pt, Rect, Rgb, TextItem, TextMatrix, WindingOrder,
};

use super::fonts::{FontKey, Fonts, Glyphs};
use super::text::{Glyph, Run, Text};

/// A4, in points.
pub(super) const PAGE_WIDTH: f32 = 595.276;
/// A4, in points.
pub(super) const PAGE_HEIGHT: f32 = 841.89;

/// A colour in sRGB, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ink(pub(super) u8, pub(super) u8, pub(super) u8);

impl Ink {
    fn fill(self) -> Op {
        // Three decimals are more than the eye sees and keep the file small.
        let part = |value: u8| (f32::from(value) / 255.0 * 1000.0).round() / 1000.0;
        Op::SetFillColor {
            col: Color::Rgb(Rgb { r: part(self.0), g: part(self.1), b: part(self.2), icc_profile: None }),
        }
    }
}

/// The pages of one document while they are drawn.
pub(super) struct Canvas<'a> {
    /// The fonts that texts were shaped with.
    fonts: &'a Fonts,
    /// The operations of each page.
    pages: Vec<Vec<Op>>,
    /// The page that is drawn on.
    page: usize,
    /// The slices in use.
    slices: Vec<u8>,
    /// The faces in use, with their glyphs.
    faces: BTreeMap<u8, Glyphs>,
}

impl<'a> Canvas<'a> {
    /// A canvas without pages.
    pub(super) fn new(fonts: &'a Fonts) -> Self {
        Self { fonts, pages: Vec::new(), page: 0, slices: Vec::new(), faces: BTreeMap::new() }
    }

    /// The fonts that texts must be shaped with.
    pub(super) fn fonts(&self) -> &'a Fonts {
        self.fonts
    }

    /// Adds a page and draws on it from now on.
    pub(super) fn add_page(&mut self) {
        self.pages.push(Vec::new());
        self.page = self.pages.len() - 1;
    }

    /// How many pages there are.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Draws on an earlier page from now on.
    pub(super) fn turn_to(&mut self, page: usize) {
        debug_assert!(page < self.pages.len(), "page {page} of {} does not exist", self.pages.len());
        self.page = page;
    }

    /// The operations of each page and the fonts in use.
    pub(super) fn finish(self) -> (Vec<Vec<Op>>, Vec<u8>, BTreeMap<u8, Glyphs>) {
        (self.pages, self.slices, self.faces)
    }

    fn push(&mut self, op: Op) {
        self.pages[self.page].push(op);
    }

    /// A filled box; `y` is its upper edge.
    pub(super) fn fill(&mut self, x: f32, y: f32, width: f32, height: f32, ink: Ink) {
        self.push(ink.fill());
        self.push(Op::DrawRectangle {
            rectangle: Rect {
                x: points(x),
                y: points(PAGE_HEIGHT - y - height),
                width: points(width),
                height: points(height),
                mode: Some(PaintMode::Fill),
                winding_order: Some(WindingOrder::NonZero),
            },
        });
    }

    /// A text whose baseline begins at `x`, `y`.
    pub(super) fn text(&mut self, text: &Text, x: f32, y: f32, size: f32, ink: Ink) {
        if text.runs.is_empty() {
            return;
        }
        self.push(ink.fill());
        self.push(Op::StartTextSection);
        self.push(Op::SetTextMatrix { matrix: TextMatrix::Translate(points(x), points(PAGE_HEIGHT - y)) });
        for run in &text.runs {
            self.run(run, size);
        }
        self.push(Op::EndTextSection);
    }

    /// A text whose baseline ends at `right`, `y`.
    pub(super) fn text_right(&mut self, text: &Text, right: f32, y: f32, size: f32, ink: Ink) {
        self.text(text, right - text.width * size / 1000.0, y, size, ink);
    }

    fn run(&mut self, run: &Run, size: f32) {
        let font = PdfFontHandle::External(FontId(resource_name(run.font)));
        self.push(Op::SetFont { font, size: Pt(size) });
        if let Some(actual) = &run.actual {
            self.push(Op::BeginMarkedContentWithProperties { tag: "Span".into(), properties: actual_text(actual) });
        }
        let mut raised = 0.0;
        for glyphs in run.glyphs.chunk_by(|a, b| a.offset.1 == b.offset.1) {
            let rise = glyphs[0].offset.1 * size / 1000.0;
            if rise != raised {
                self.push(Op::SetLineOffset { multiplier: rise });
                raised = rise;
            }
            let items = self.items(run.font, glyphs);
            self.push(Op::ShowText { items });
        }
        if raised != 0.0 {
            self.push(Op::SetLineOffset { multiplier: 0.0 });
        }
        if run.actual.is_some() {
            self.push(Op::EndMarkedContentWithProperties);
        }
    }

    /// Glyphs as codes with the adjustments that lead from the font's own advances to the shaper's.
    fn items(&mut self, font: FontKey, glyphs: &[Glyph]) -> Vec<TextItem> {
        let first = glyphs.first().map_or(0.0, |glyph| -glyph.offset.0);
        let mut codes = Vec::with_capacity(glyphs.len());
        for (index, glyph) in glyphs.iter().enumerate() {
            let next = glyphs.get(index + 1).map_or(0.0, |next| next.offset.0);
            let adjust = glyph.natural - glyph.advance + glyph.offset.0 - next;
            codes.push(Codepoint::new(self.code(font, glyph), rounded(adjust)));
        }
        let shown = TextItem::GlyphIds(codes);
        if first == 0.0 { vec![shown] } else { vec![TextItem::Offset(rounded(first)), shown] }
    }

    fn code(&mut self, font: FontKey, glyph: &Glyph) -> u16 {
        match font {
            FontKey::Slice(slice) => {
                if !self.slices.contains(&slice) {
                    self.slices.push(slice);
                }
                glyph.id
            }
            FontKey::Face(face) => {
                self.faces.entry(face).or_default().code(self.fonts.face(face), glyph.id, &glyph.text)
            }
        }
    }
}

/// The name by which page contents call a font.
pub(super) fn resource_name(font: FontKey) -> String {
    match font {
        FontKey::Slice(index) => format!("S{index}"),
        FontKey::Face(index) => format!("T{index}"),
    }
}

fn actual_text(text: &str) -> DictItem {
    let mut data = vec![0xfe, 0xff];
    data.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    let text = DictItem::String { data, literal: false };
    DictItem::Dict { map: BTreeMap::from([("ActualText".to_owned(), text)]) }
}

fn points(value: f32) -> Pt {
    Pt(rounded(value))
}

/// Two decimals: a hundredth of a point is finer than any printer.
fn rounded(value: f32) -> f32 {
    (value * 100.0).round() / 100.0
}
