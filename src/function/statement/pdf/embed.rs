//! A subset font as the objects that a PDF file holds of it: program, widths, descriptor and the map back to Unicode.
//!
//! Knows ISO 32000's composite fonts (Type 0 over CIDFontType2, Identity-H); must not know which font it is or why.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use lopdf::{Dictionary, Document, Object, ObjectId, Stream, dictionary};

/// A font's measures in thousandths of an em, as the descriptor states them.
pub(super) struct Sizes {
    pub(super) ascent: Object,
    pub(super) descent: Object,
    pub(super) cap_height: Object,
    pub(super) bounds: [Object; 4],
}

/// One subset font, ready to be put into any number of documents.
#[derive(Debug)]
pub(super) struct Embedded {
    program: Stream,
    to_unicode: Stream,
    descriptor: Dictionary,
    cid_font: Dictionary,
    type0: Dictionary,
}

impl Embedded {
    /// `glyphs` are the advances (thousandths of an em) and characters of codes 1, 2, 3…; `tag` numbers the subset
    /// within a document.
    pub(super) fn new(
        name: &str,
        tag: usize,
        program: &[u8],
        glyphs: &[(f32, String)],
        sizes: Sizes,
        level: Compression,
    ) -> Self {
        let name = Object::Name(format!("{}+{name}", subset_tag(tag)).into_bytes());
        let descriptor = dictionary! {
            "Type" => "FontDescriptor",
            "FontName" => name.clone(),
            "Flags" => 4,
            "FontBBox" => sizes.bounds.to_vec(),
            "ItalicAngle" => 0,
            "Ascent" => sizes.ascent,
            "Descent" => sizes.descent,
            "CapHeight" => sizes.cap_height,
            "StemV" => 80,
        };
        let cid_font = dictionary! {
            "Type" => "Font",
            "Subtype" => "CIDFontType2",
            "BaseFont" => name.clone(),
            "CIDSystemInfo" => dictionary! {
                "Registry" => Object::string_literal("Adobe"),
                "Ordering" => Object::string_literal("Identity"),
                "Supplement" => 0,
            },
            "DW" => 1000,
            "W" => vec![1.into(), Object::Array(glyphs.iter().map(|(advance, _)| number(*advance)).collect())],
            "CIDToGIDMap" => "Identity",
        };
        let type0 = dictionary! {
            "Type" => "Font",
            "Subtype" => "Type0",
            "BaseFont" => name,
            "Encoding" => "Identity-H",
        };
        let length = i64::try_from(program.len()).unwrap_or(i64::MAX);
        Self {
            program: compressed(dictionary! { "Length1" => length }, program, level),
            to_unicode: compressed(Dictionary::new(), to_unicode(glyphs).as_bytes(), level),
            descriptor,
            cid_font,
            type0,
        }
    }

    /// Adds the font to a document; the id is that of its Type 0 dictionary.
    pub(super) fn add_to(&self, document: &mut Document) -> ObjectId {
        let program = document.add_object(self.program.clone());
        let to_unicode = document.add_object(self.to_unicode.clone());
        let mut descriptor = self.descriptor.clone();
        descriptor.set("FontFile2", program);
        let mut cid_font = self.cid_font.clone();
        cid_font.set("FontDescriptor", document.add_object(descriptor));
        let mut type0 = self.type0.clone();
        type0.set("DescendantFonts", vec![document.add_object(cid_font).into()]);
        type0.set("ToUnicode", to_unicode);
        document.add_object(type0)
    }
}

/// A stream compressed by us: lopdf itself knows the slowest level only.
pub(super) fn compressed(mut dictionary: Dictionary, content: &[u8], level: Compression) -> Stream {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(content.len() / 2 + 64), level);
    let packed = encoder.write_all(content).and_then(|()| encoder.finish());
    match packed {
        Ok(packed) => {
            dictionary.set("Filter", "FlateDecode");
            Stream::new(dictionary, packed).with_compression(false)
        }
        Err(_) => Stream::new(dictionary, content.to_vec()).with_compression(false),
    }
}

/// Six capital letters that differ for each subset of a document (ISO 32000-1, 9.6.4).
fn subset_tag(number: usize) -> String {
    let letter = |n: usize| char::from(b'A' + u8::try_from(n % 26).unwrap_or(0));
    format!("NIGH{}{}", letter(number / 26), letter(number))
}

fn number(value: f32) -> Object {
    if value.fract() == 0.0 { Object::Integer(value as i64) } else { Object::Real(value) }
}

fn to_unicode(glyphs: &[(f32, String)]) -> String {
    let mappings = (1..).zip(glyphs).map(|(code, (_, text))| (code, text.chars().map(u32::from).collect())).collect();
    printpdf::ToUnicodeCMap { mappings }.to_cmap_string("Nightmail")
}
