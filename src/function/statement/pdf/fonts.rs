//! The fonts inside the binary: which of them draws a character, and the parts of them that are made once.
//!
//! A *face* is a whole font; a document embeds a subset of it with the glyphs that it uses. A *slice* is a fixed range
//! of a face (Western, Central European, Greek, Cyrillic, symbols) that is subset and compressed once, when the fonts
//! are loaded, and embedded as it is: nearly every document is made of slices alone, and pays for no font work.
//! Must not know the page.

use harfrust::{Font, GlyphId};
use lopdf::Object;
use subsetter::GlyphRemapper;

use super::embed::{self, Embedded};

/// How heavy a text is drawn. Only Latin, Greek and Cyrillic have a bold face; other scripts stay regular.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Running text.
    Regular,
    /// Headings and sums.
    Bold,
}

/// Which font a run of glyphs is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FontKey {
    /// An index of [`Fonts::slices`]; glyph numbers are the slice's codes.
    Slice(u8),
    /// An index of [`Fonts::faces`]; glyph numbers are the face's own.
    Face(u8),
}

/// One of the fonts that the binary carries cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("embedded font {name}: {what} (the binary is damaged: install it again)")]
pub struct FontError {
    /// The font's PostScript name.
    name: &'static str,
    /// What cannot be done with it.
    what: &'static str,
}

/// A whole font.
pub(super) struct Face {
    /// Its PostScript name.
    pub(super) name: &'static str,
    /// The font file.
    pub(super) data: &'static [u8],
    /// The same, parsed, with the shaper's caches.
    pub(super) font: Font,
    /// From font units to thousandths of an em.
    pub(super) scale: f32,
}

impl Face {
    fn load(name: &'static str, data: &'static [u8]) -> Result<Self, FontError> {
        let font = Font::new(data, 0).ok_or(FontError { name, what: "cannot be parsed" })?;
        let scale = 1000.0 / f32::from(font.units_per_em());
        Ok(Self { name, data, font, scale })
    }

    /// The glyph of a character.
    pub(super) fn glyph(&self, c: char) -> Option<u16> {
        let id = self.font.charmap().map_unicode(c)?.to_u32();
        u16::try_from(id).ok().filter(|id| *id != 0)
    }

    /// A glyph's advance in thousandths of an em.
    pub(super) fn advance(&self, glyph: u16) -> f32 {
        self.font.glyph_metrics().h_advance(GlyphId::new(glyph.into())) * self.scale
    }
}

/// A character that needs no shaping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Simple {
    /// The slice that has it.
    pub(super) font: FontKey,
    /// Its code in the slice.
    pub(super) code: u16,
    /// Its advance in thousandths of an em.
    pub(super) advance: f32,
}

/// All fonts, loaded once and shared by all threads.
pub(super) struct Fonts {
    /// In the order in which they are asked for a character; the two Latin weights come first.
    faces: Vec<Face>,
    /// Ready to be put into a document.
    slices: Vec<Embedded>,
    /// By code point below [`SIMPLE_END`], for regular and for bold.
    simple: [Vec<Option<Simple>>; 2],
    /// Drawn where no font has a glyph, for regular and for bold.
    replacement: [Simple; 2],
}

const REGULAR: usize = 0;
const BOLD: usize = 1;
const SYMBOLS: usize = 8;

/// Name and file of each face; [`REGULAR`], [`BOLD`] and [`SYMBOLS`] are indices into it.
const FACES: [(&str, &[u8]); 9] = [
    ("NotoSans-Regular", include_bytes!("../../../../assets/fonts/NotoSans-Regular.ttf")),
    ("NotoSans-Bold", include_bytes!("../../../../assets/fonts/NotoSans-Bold.ttf")),
    ("NotoSansHebrew-Regular", include_bytes!("../../../../assets/fonts/NotoSansHebrew-Regular.ttf")),
    ("NotoSansArabic-Regular", include_bytes!("../../../../assets/fonts/NotoSansArabic-Regular.ttf")),
    ("NotoSansDevanagari-Regular", include_bytes!("../../../../assets/fonts/NotoSansDevanagari-Regular.ttf")),
    ("NotoSansThai-Regular", include_bytes!("../../../../assets/fonts/NotoSansThai-Regular.ttf")),
    ("DroidSansFallbackFull", include_bytes!("../../../../assets/fonts/DroidSansFallbackFull.ttf")),
    ("NanumSquareRoundR", include_bytes!("../../../../assets/fonts/NanumSquareRoundR.ttf")),
    ("DejaVuSans", include_bytes!("../../../../assets/fonts/DejaVuSans.ttf")),
];

type Range = std::ops::RangeInclusive<u32>;

/// The characters of the slices of the two Latin weights: Western (with punctuation), Central European, Greek,
/// Cyrillic.
const LATIN_SLICES: [&[Range]; 4] = [
    &[
        0x20..=0x7e,
        0xa0..=0xac,
        0xae..=0xff,
        0x2009..=0x2009,
        0x2010..=0x2015,
        0x2018..=0x201e,
        0x2020..=0x2022,
        0x2026..=0x2026,
        0x202f..=0x202f,
        0x2030..=0x2030,
        0x2039..=0x203a,
        0x20ac..=0x20ac,
        0x2122..=0x2122,
    ],
    &[0x100..=0x17f, 0x218..=0x21b],
    &[0x384..=0x38a, 0x38c..=0x38c, 0x38e..=0x3a1, 0x3a3..=0x3ce],
    &[0x400..=0x45f, 0x490..=0x491],
];
/// The characters of the symbol slice: arrows and the minus sign that Noto Sans lacks.
const SYMBOL_SLICE: &[Range] = &[0x2190..=0x2193, 0x2212..=0x2212];
/// No slice has a character from here on, but for the replacement character.
const SIMPLE_END: usize = 0x2300;
const REPLACEMENT: char = '\u{fffd}';

impl Fonts {
    /// Parses all fonts and makes all slices.
    pub(super) fn load() -> Result<Self, FontError> {
        let faces = FACES.iter().map(|(name, data)| Face::load(name, data)).collect::<Result<Vec<_>, _>>()?;
        let mut slices = Vec::new();
        let mut simple = [vec![None; SIMPLE_END], vec![None; SIMPLE_END]];
        for (weight, table) in simple.iter_mut().enumerate() {
            for ranges in LATIN_SLICES {
                let chars = ranges.iter().flat_map(Clone::clone).filter_map(char::from_u32);
                slice(&faces[weight], chars, &mut slices, table)?;
            }
        }
        let symbols = SYMBOL_SLICE.iter().flat_map(Clone::clone).filter_map(char::from_u32);
        let [regular, bold] = &mut simple;
        let from = slices.len();
        slice(&faces[SYMBOLS], symbols, &mut slices, regular)?;
        for (in_bold, in_regular) in bold.iter_mut().zip(regular.iter()) {
            let symbol = in_regular.filter(|s| s.font == key(from));
            *in_bold = in_bold.or(symbol);
        }
        let replacement = replacement(&faces[REGULAR], &mut slices)?;
        Ok(Self { faces, slices, simple, replacement: [replacement; 2] })
    }

    /// How a character is drawn that needs no shaping; `None` for all others.
    pub(super) fn simple(&self, weight: Weight, c: char) -> Option<Simple> {
        self.simple[weight as usize].get(c as usize).copied().flatten()
    }

    /// What is drawn where no font has a glyph.
    pub(super) fn replacement(&self, weight: Weight) -> Simple {
        self.replacement[weight as usize]
    }

    /// The first face that has all of the characters.
    pub(super) fn face_for(&self, weight: Weight, chars: impl Iterator<Item = char> + Clone) -> Option<u8> {
        let skip = if weight == Weight::Regular { BOLD } else { REGULAR };
        let covers = |face: &Face| chars.clone().all(|c| face.glyph(c).is_some());
        let found = self.faces.iter().enumerate().position(|(index, face)| index != skip && covers(face))?;
        u8::try_from(found).ok()
    }

    /// A face by its index.
    pub(super) fn face(&self, index: u8) -> &Face {
        &self.faces[usize::from(index)]
    }

    /// A slice by its index.
    pub(super) fn slice(&self, index: u8) -> &Embedded {
        &self.slices[usize::from(index)]
    }
}

impl std::fmt::Debug for Fonts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fonts").field("faces", &self.faces.len()).field("slices", &self.slices.len()).finish()
    }
}

fn key(slice: usize) -> FontKey {
    FontKey::Slice(u8::try_from(slice).expect("there are less than 256 slices"))
}

/// Makes one slice of the characters that the face has, and enters them into the table where they are still missing.
fn slice(
    face: &Face,
    chars: impl Iterator<Item = char>,
    slices: &mut Vec<Embedded>,
    table: &mut [Option<Simple>],
) -> Result<(), FontError> {
    let font = key(slices.len());
    let mut glyphs = Glyphs::default();
    for c in chars {
        let Some(id) = face.glyph(c) else { continue };
        let code = glyphs.code(face, id, &c.to_string());
        let entry = &mut table[c as usize];
        *entry = entry.or(Some(Simple { font, code, advance: face.advance(id) }));
    }
    slices.push(glyphs.embed(face, slices.len(), flate2::Compression::best())?);
    Ok(())
}

fn replacement(face: &Face, slices: &mut Vec<Embedded>) -> Result<Simple, FontError> {
    let id = face.glyph(REPLACEMENT).ok_or(FontError { name: face.name, what: "has no U+FFFD" })?;
    let mut glyphs = Glyphs::default();
    let code = glyphs.code(face, id, "\u{fffd}");
    let font = key(slices.len());
    slices.push(glyphs.embed(face, slices.len(), flate2::Compression::best())?);
    Ok(Simple { font, code, advance: face.advance(id) })
}

/// The glyphs of one face that a slice or a document uses, with their codes in the subset.
#[derive(Debug, Default)]
pub(super) struct Glyphs {
    /// From the face's glyph numbers to codes, which count from 1 in the order of first use.
    remapper: GlyphRemapper,
    /// By code - 1: advance in thousandths of an em, and the characters that the glyph stands for.
    used: Vec<(f32, String)>,
}

impl Glyphs {
    /// The code of a glyph that stands for `text`; the first text that is not empty is what readers will extract.
    pub(super) fn code(&mut self, face: &Face, glyph: u16, text: &str) -> u16 {
        let code = self.remapper.remap(glyph);
        if code == 0 {
            return 0;
        }
        match self.used.get_mut(usize::from(code) - 1) {
            Some((_, known)) if known.is_empty() => text.clone_into(known),
            Some(_) => {}
            None => self.used.push((face.advance(glyph), text.to_owned())),
        }
        code
    }

    /// Subsets the face to these glyphs.
    pub(super) fn embed(&self, face: &Face, tag: usize, level: flate2::Compression) -> Result<Embedded, FontError> {
        let program = subsetter::subset(face.data, 0, &self.remapper)
            .map_err(|_| FontError { name: face.name, what: "cannot be subset" })?;
        let metrics = face.font.metrics();
        let thousandth = |value: f32| Object::Integer((value * face.scale).round() as i64);
        let line = metrics.hhea_line.unwrap_or_default();
        let bounds = &metrics.bounds;
        let sizes = embed::Sizes {
            ascent: thousandth(line.ascender.to_f32()),
            descent: thousandth(line.descender.to_f32()),
            cap_height: thousandth(metrics.cap_height.unwrap_or(line.ascender).to_f32()),
            bounds: [bounds.x_min, bounds.y_min, bounds.x_max, bounds.y_max].map(|v| thousandth(v.to_f32())),
        };
        Ok(Embedded::new(face.name, tag, &program, &self.used, sizes, level))
    }
}
